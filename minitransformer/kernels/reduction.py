"""Reductions over one axis, several, or all of them.

``axis`` is an int, a tuple of ints, or None for all axes. Half precision is summed in
float32, as in PyTorch. Gradients spread back over the reduced axes as broadcast
views, so a sum costs no memory on the way back.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from ..backend import Array, accumulator, array_module
from .elementwise import Saved, silent

Axis: TypeAlias = "int | tuple[int, ...] | None"


def row_dot(a: Array, b: Array) -> Array:
    """Return the scalar product of each row of `a` with that of `b`, as a column.

    Examples
    --------
    >>> row_dot(np.ones((2, 3)), np.arange(6.0).reshape(2, 3))
    array([[ 3.],
           [12.]])
    """
    xp = array_module(a)
    dots: Array = np.vecdot(a, b) if xp is np else xp.einsum("ij,ij->i", a, b)
    return dots[:, None]


def reduced_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return `axis` as a tuple of numbers in ``range(ndim)``.

    Raises
    ------
    IndexError
        If an axis is out of range.
    ValueError
        If one is named twice.

    Examples
    --------
    >>> reduced_axes(-1, 3), reduced_axes(None, 2)
    ((2,), (0, 1))
    """
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    for a in axes:
        if not -max(ndim, 1) <= a < max(ndim, 1):
            raise IndexError(
                f"dim {a} is out of range for a tensor of {ndim} dimensions "
                f"(expected {-max(ndim, 1)} to {max(ndim, 1) - 1})"
            )
    found = tuple(a % ndim for a in axes) if ndim else ()
    if len(set(found)) < len(found):
        raise ValueError(f"dim {axes} names a dimension twice")
    return found


def _spread(d: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """Give `d`, reduced over `axes` of `shape`, its lost axes back with length 1."""
    return d.reshape(tuple(1 if i in axes else n for i, n in enumerate(shape)))


def _sum(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    # None leaves the type to NumPy and CuPy, which sum small integers in int64
    wide = accumulator(x.dtype) if x.dtype.itemsize == 2 else None
    total: Array = x.sum(axis=axes, keepdims=keepdims, dtype=wide)
    return total if wide is None else total.astype(x.dtype)


def _count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return math.prod(shape[a] for a in axes)


# -- sums --------------------------------------------------------------------------


@silent
def sum_forward(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Saved]:
    """Return the sum; only the shape is saved.

    >>> sum_forward(np.ones((2, 3)), axis=0)[0]
    array([2., 2., 2.])
    """
    axes = reduced_axes(axis, x.ndim)
    return _sum(x, axes, keepdims), (x.shape, axes)


def sum_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: `dout`, repeated."""
    shape, axes = saved
    return (array_module(dout).broadcast_to(_spread(dout, shape, axes), shape),)


@silent
def mean_forward(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Saved]:
    """Return the mean; only the shape is saved. The mean of nothing is NaN.

    >>> mean_forward(np.array([[1.0, 3.0], [5.0, 7.0]]), axis=1)[0]
    array([2., 6.])
    """
    axes = reduced_axes(axis, x.ndim)
    n = _count(x.shape, axes)
    return _sum(x, axes, keepdims) / (n or math.nan), (x.shape, axes)


def mean_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: ``dout / n``, repeated."""
    shape, axes = saved
    dx = _spread(dout / (_count(shape, axes) or math.nan), shape, axes)
    return (array_module(dout).broadcast_to(dx, shape),)


@silent
def var_forward(
    x: Array, *, axis: Axis = None, correction: float = 1, keepdims: bool = False
) -> tuple[Array, Saved]:
    """Return the variance, from deviations from the mean; these are saved.

    With n elements the sum of squares is divided by ``n - correction``; where that
    is not positive the variance is NaN or inf.

    >>> var_forward(np.array([[1.0, 2.0, 3.0]]), axis=1)[0]
    array([1.])
    """
    axes = reduced_axes(axis, x.ndim)
    n = _count(x.shape, axes)
    deviation = x - _sum(x, axes, True) / (n or math.nan)
    freedom = max(n - correction, 0)
    total = _sum(deviation * deviation, axes, keepdims)
    out = total / freedom if freedom else total / array_module(x).zeros_like(total)
    return out, (deviation, freedom, axes)


@silent
def var_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: ``dout * 2 (x - mean) / (n - correction)``."""
    deviation, freedom, axes = saved
    scale = _spread(dout, deviation.shape, axes) * (2 / freedom if freedom else math.inf)
    return (scale * deviation,)


@silent
def std_forward(
    x: Array, *, axis: Axis = None, correction: float = 1, keepdims: bool = False
) -> tuple[Array, Saved]:
    """Return the standard deviation; the deviations and the output are saved.

    >>> std_forward(np.array([[1.0, 3.0, 5.0]]), axis=1)[0]
    array([2.])
    """
    variance, saved = var_forward(x, axis=axis, correction=correction, keepdims=keepdims)
    out = array_module(x).sqrt(variance)
    return out, (*saved, out)


@silent
def std_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: ``dout * (x - mean) / ((n - correction) std)``, 0 at std 0."""
    *variance_saved, out = saved
    dvariance = array_module(dout).where(out == 0, 0, dout / (2 * out))
    return var_backward(dvariance, tuple(variance_saved))


@silent
def norm_forward(
    x: Array, *, ord: float = 2, axis: Axis = None, keepdims: bool = False
) -> tuple[Array, Saved]:
    """Return the vector norm ``sum(|x|**ord)**(1/ord)``; input and output are saved.

    `ord` may be inf, the largest absolute value; 0 is not supported.

    >>> norm_forward(np.array([[3.0, -4.0]]), axis=1)[0]
    array([5.])
    """
    xp = array_module(x)
    axes = reduced_axes(axis, x.ndim)
    if ord == 2:
        out = xp.sqrt(_sum(x * x, axes, keepdims))
    elif ord == 1:
        out = _sum(abs(x), axes, keepdims)
    elif ord == math.inf:
        out = abs(x).max(axis=axes, keepdims=keepdims)
    elif ord > 0:
        out = _sum(abs(x) ** ord, axes, keepdims) ** (1 / ord)
    else:
        raise ValueError(f"norm needs a positive order p, found {ord}")
    return out, (x, out, ord, axes)


@silent
def norm_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: ``dout sign(x) (|x| / norm)**(ord - 1)``, 0 at norm 0."""
    x, out, ord, axes = saved
    xp = array_module(dout)
    dout, out = _spread(dout, x.shape, axes), _spread(out, x.shape, axes)
    if ord == 2:
        dx = dout * (x / out)
    elif ord == 1:
        dx = dout * xp.sign(x)
    elif ord == math.inf:
        largest = abs(x) == out
        dx = dout * xp.sign(x) * largest / largest.sum(axis=axes, keepdims=True, dtype=x.dtype)
    else:
        dx = dout * xp.sign(x) * (abs(x) / out) ** (ord - 1)
    return (xp.where(out == 0, 0, dx),)


# -- extremes ------------------------------------------------------------------------


def amax_forward(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Saved]:
    """Return the largest element; input and output are saved.

    >>> amax_forward(np.array([[1.0, 4.0], [3.0, 2.0]]), axis=1)[0]
    array([4., 3.])
    """
    axes = _extreme_axes("amax", x, axis)
    out = x.max(axis=axes, keepdims=keepdims)
    return out, (x, out, axes)


@silent
def amax_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: `dout` in equal parts where `x` is the extreme."""
    x, out, axes = saved
    chosen = x == _spread(out, x.shape, axes)
    share = chosen / chosen.sum(axis=axes, keepdims=True, dtype=x.dtype)
    return (_spread(dout, x.shape, axes) * share.astype(dout.dtype, copy=False),)


def amin_forward(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Saved]:
    """Return the smallest element; input and output are saved.

    >>> amin_forward(np.array([[1.0, 4.0], [3.0, 2.0]]), axis=1)[0]
    array([1., 2.])
    """
    axes = _extreme_axes("amin", x, axis)
    out = x.min(axis=axes, keepdims=keepdims)
    return out, (x, out, axes)


amin_backward = amax_backward


def max_forward(
    x: Array, *, axis: int, keepdims: bool = False
) -> tuple[tuple[Array, Array], Saved]:
    """Return the largest elements along `axis` and where they are; the places are saved.

    >>> max_forward(np.array([[1.0, 4.0], [3.0, 2.0]]), axis=1)[0]
    (array([4., 3.]), array([1, 0]))
    """
    return _pick(x, x.argmax, "max", axis, keepdims)


def max_backward(dout: tuple[Array, None], saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: `dout` of the values, at the first of equal elements."""
    indices, shape, axis = saved
    if not shape:  # a lone number is its own extreme
        return (dout[0],)
    xp = array_module(indices)
    dvalues = _spread(dout[0], shape, (axis,))
    places = xp.arange(shape[axis]).reshape((-1,) + (1,) * (len(shape) - axis - 1))
    return (xp.where(places == indices, dvalues, 0),)


def min_forward(
    x: Array, *, axis: int, keepdims: bool = False
) -> tuple[tuple[Array, Array], Saved]:
    """Return the smallest elements along `axis` and where they are; the places are saved.

    >>> min_forward(np.array([[1.0, 4.0], [3.0, 2.0]]), axis=1)[0]
    (array([1., 2.]), array([0, 1]))
    """
    return _pick(x, x.argmin, "min", axis, keepdims)


min_backward = max_backward


def _extreme_axes(name: str, x: Array, axis: Axis) -> tuple[int, ...]:
    axes = reduced_axes(axis, x.ndim)
    if any(x.shape[a] == 0 for a in axes):
        raise IndexError(f"{name} of no elements: shape {x.shape}, dim {axis}; there is no extreme")
    return axes


def _pick(
    x: Array, choose: Any, name: str, axis: int, keepdims: bool
) -> tuple[tuple[Array, Array], Saved]:
    if x.ndim == 0:
        indices = array_module(x).zeros((), dtype=np.int64)
        return (x.copy(), indices), (indices, (), 0)
    (a,) = _extreme_axes(name, x, axis)
    indices = array_module(x).expand_dims(choose(axis=a), a)
    values = array_module(x).take_along_axis(x, indices, axis=a)
    out = (values, indices) if keepdims else (values.squeeze(a), indices.squeeze(a))
    return out, (indices, x.shape, a)


# -- the rest ------------------------------------------------------------------------


@silent
def logsumexp_forward(
    x: Array, *, axis: Axis = None, keepdims: bool = False
) -> tuple[Array, Saved]:
    """Return ``log(sum(exp(x)))`` without overflow; input and output are saved.

    >>> logsumexp_forward(np.array([[1000.0, 1000.0]]), axis=1)[0]
    array([1000.69314718])
    """
    xp = array_module(x)
    axes = _extreme_axes("logsumexp", x, axis)
    largest = x.max(axis=axes, keepdims=True)
    largest = xp.where(abs(largest) == math.inf, 0, largest)
    out = xp.log(_sum(xp.exp(x - largest), axes, True)) + largest
    out = out if keepdims else out.squeeze(axes)
    return out, (x, out, axes)


@silent
def logsumexp_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: ``dout * exp(x - out)``, zero where all of `x` is -inf."""
    x, out, axes = saved
    xp = array_module(x)
    out = _spread(xp.where(out == -math.inf, 0, out), x.shape, axes)
    return (_spread(dout, x.shape, axes) * xp.exp(x - out),)


@silent
def cumsum_forward(x: Array, *, axis: int) -> tuple[Array, Saved]:
    """Return the running sum along `axis`; nothing but the axis is saved.

    >>> cumsum_forward(np.array([1.0, 2.0, 3.0]), axis=0)[0]
    array([1., 3., 6.])
    """
    return x.cumsum(axis=axis), (axis,)


@silent
def cumsum_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: the running sum of `dout` from the other end."""
    (axis,) = saved
    xp = array_module(dout)
    return (xp.flip(xp.flip(dout, axis).cumsum(axis=axis), axis),)


@silent
def prod_forward(
    x: Array, *, axis: int | None = None, keepdims: bool = False
) -> tuple[Array, Saved]:
    """Return the product; the input is saved.

    >>> prod_forward(np.array([[2.0, 3.0, 4.0]]), axis=1)[0]
    array([24.])
    """
    axes = reduced_axes(axis, x.ndim)
    return x.prod(axis=axes, keepdims=keepdims), (x, axis, axes)


@silent
def prod_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: `dout` times the product of the other elements.

    Running products from both ends leave each element out, so zeros do no harm.
    """
    x, axis, axes = saved
    xp = array_module(x)
    rows = x.reshape(-1, 1) if axis is None else xp.moveaxis(x, axis, 0)
    before, after = xp.ones_like(rows), xp.ones_like(rows)
    before[1:] = rows[:-1].cumprod(axis=0)
    after[:-1] = rows[:0:-1].cumprod(axis=0)[::-1]
    others = before * after
    others = others.reshape(x.shape) if axis is None else xp.moveaxis(others, 0, axis)
    return (_spread(dout, x.shape, axes) * others,)
