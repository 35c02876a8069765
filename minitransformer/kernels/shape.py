"""Shapes, slices and selections: no arithmetic, only where each element goes.

Results are views where NumPy gives views. Gradients of selections that repeat an
element are summed in a fixed order, so that a run can be repeated bit by bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import (
    ELEMENTS,
    Array,
    aligned_empty,
    array_module,
    even_blocks,
    is_cuda,
    run_blocks,
)
from . import cuda
from .elementwise import Saved, unbroadcast

# -- the same elements in another shape ----------------------------------------------


def reshape_forward(x: Array, *, shape: tuple[int, ...]) -> tuple[Array, Saved]:
    """Return `x` in another shape, a view where the memory allows; its shape is saved.

    >>> reshape_forward(np.arange(6.0), shape=(2, -1))[0].shape
    (2, 3)
    """
    return x.reshape(shape), (x.shape,)


def reshape_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: `dout` in the shape of `x`."""
    (shape,) = saved
    return (dout.reshape(shape),)


def transpose_forward(x: Array, *, axes: tuple[int, ...]) -> tuple[Array, Saved]:
    """Return the view of `x` whose axis i is axis ``axes[i]`` of `x`; the axes are saved.

    >>> transpose_forward(np.zeros((2, 3, 4)), axes=(2, 0, 1))[0].shape
    (4, 2, 3)
    """
    return x.transpose(axes), (axes,)


def transpose_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: `dout` with the axes moved back."""
    (axes,) = saved
    back = sorted(range(len(axes)), key=lambda i: axes[i] % len(axes))
    return (dout.transpose(back),)


def expand_forward(x: Array, *, shape: tuple[int, ...]) -> tuple[Array, Saved]:
    """Return the view of `x` repeated to `shape`; its shape is saved.

    >>> expand_forward(np.ones((2, 1)), shape=(2, 3))[0].shape
    (2, 3)
    """
    return array_module(x).broadcast_to(x, shape), (x.shape,)


def expand_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: `dout` summed over the repetitions."""
    (shape,) = saved
    return (unbroadcast(dout, shape),)


def flip_forward(x: Array, *, axis: int | tuple[int, ...]) -> tuple[Array, Saved]:
    """Return `x` backwards along `axis`, a view; the axis is saved.

    >>> flip_forward(np.arange(3), axis=0)[0]
    array([2, 1, 0])
    """
    return array_module(x).flip(x, axis), (axis,)


def flip_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: `dout` backwards."""
    (axis,) = saved
    return (array_module(dout).flip(dout, axis),)


def roll_forward(x: Array, *, shifts: Any, axis: Any = None) -> tuple[Array, Saved]:
    """Return `x` moved by `shifts` along `axis`, what leaves one end entering the other.

    >>> roll_forward(np.arange(4), shifts=1)[0]
    array([3, 0, 1, 2])
    """
    return array_module(x).roll(x, shifts, axis), (shifts, axis)


def roll_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: `dout` moved back."""
    shifts, axis = saved
    back = tuple(-s for s in shifts) if isinstance(shifts, tuple) else -shifts
    return (array_module(dout).roll(dout, back, axis),)


def pad_forward(
    x: Array, *, widths: Sequence[tuple[int, int]], value: float = 0.0
) -> tuple[Array, Saved]:
    """Return `x` with ``widths[i]`` elements of `value` before and after it on axis i.

    Raises
    ------
    ValueError
        If there is not one pair per axis, or a width is negative.

    >>> pad_forward(np.ones(2), widths=[(1, 0)])[0]
    array([0., 1., 1.])
    """
    if len(widths) != x.ndim or any(w < 0 for pair in widths for w in pair):
        raise ValueError(
            f"pad needs one pair of non-negative widths per axis: shape {x.shape}, widths {widths}"
        )
    out = array_module(x).pad(x, widths, constant_values=value)
    inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape))
    return out, (inside,)


def pad_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: the inner part of `dout`."""
    (inside,) = saved
    return (dout[inside],)


# -- triangles -------------------------------------------------------------------------


def tril_forward(x: Array, *, diagonal: int = 0) -> tuple[Array, Saved]:
    """Return the lower triangle of the last two axes, zero above `diagonal`.

    >>> tril_forward(np.ones((2, 2)))[0]
    array([[1., 0.],
           [1., 1.]])
    """
    return array_module(x).tril(x, diagonal), (diagonal,)


def tril_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: the lower triangle of `dout`."""
    (diagonal,) = saved
    return (array_module(dout).tril(dout, diagonal),)


def triu_forward(x: Array, *, diagonal: int = 0) -> tuple[Array, Saved]:
    """Return the upper triangle of the last two axes, zero below `diagonal`.

    >>> triu_forward(np.ones((2, 2)), diagonal=1)[0]
    array([[0., 1.],
           [0., 0.]])
    """
    return array_module(x).triu(x, diagonal), (diagonal,)


def triu_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: the upper triangle of `dout`."""
    (diagonal,) = saved
    return (array_module(dout).triu(dout, diagonal),)


# -- joining and cutting -----------------------------------------------------------------


def concat_forward(*xs: Array, axis: int = 0) -> tuple[Array, Saved]:
    """Return the arrays one after another along `axis`; their lengths are saved.

    >>> concat_forward(np.zeros((2, 1)), np.ones((2, 2)), axis=1)[0]
    array([[0., 1., 1.],
           [0., 1., 1.]])
    """
    return array_module(xs[0]).concatenate(xs, axis=axis), ([x.shape[axis] for x in xs], axis)


def concat_backward(dout: Array, saved: Saved) -> tuple[Array, ...]:
    """Return the gradients: the pieces of `dout`."""
    lengths, axis = saved
    return tuple(_pieces(dout, lengths, axis))


def stack_forward(*xs: Array, axis: int = 0) -> tuple[Array, Saved]:
    """Return the arrays of one shape along a new `axis`.

    >>> stack_forward(np.zeros(2), np.ones(2), axis=1)[0]
    array([[0., 1.],
           [0., 1.]])
    """
    return array_module(xs[0]).stack(xs, axis=axis), (axis,)


def stack_backward(dout: Array, saved: Saved) -> tuple[Array, ...]:
    """Return the gradients: the slices of `dout`."""
    (axis,) = saved
    return tuple(array_module(dout).moveaxis(dout, axis, 0))


def split_forward(
    x: Array, *, sizes: Sequence[int], axis: int = 0
) -> tuple[tuple[Array, ...], Saved]:
    """Return consecutive views of `x` with these lengths along `axis`.

    Raises
    ------
    RuntimeError
        If the lengths do not add up to that of `x`.

    >>> [p.tolist() for p in split_forward(np.arange(3), sizes=[1, 2])[0]]
    [[0], [1, 2]]
    """
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) < 0:
        raise RuntimeError(
            f"split sizes {list(sizes)} must add up to the length of dim {axis}, "
            f"{x.shape[axis]}; they add up to {sum(sizes)}"
        )
    return tuple(_pieces(x, sizes, axis)), (x.shape, list(sizes), axis)


def split_backward(dout: tuple[Array | None, ...], saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: the gradients of the pieces, zero where there is none."""
    shape, sizes, axis = saved
    first = next(d for d in dout if d is not None)
    xp = array_module(first)
    pairs = list(zip(_pieces(dx := aligned_empty(shape, first), sizes, axis), dout))

    def work(rows: slice) -> None:
        for piece, d in pairs:
            piece[rows] = 0 if d is None else d[rows]

    if xp is np and dx.size > ELEMENTS and axis % dx.ndim:
        run_blocks(work, even_blocks(len(dx), -(-len(dx) // 2)))
    else:
        work(slice(None))
    return (dx,)


def _pieces(x: Array, sizes: Sequence[int], axis: int) -> list[Array]:
    before = (slice(None),) * (axis % x.ndim)
    ends = itertools.accumulate(sizes)
    return [x[before + (slice(end - n, end),)] for n, end in zip(sizes, ends)]


# -- selection -----------------------------------------------------------------------------


def index_forward(x: Array, *, index: Any) -> tuple[Array, Saved]:
    """Return ``x[index]``: integers, slices, None, Ellipsis, masks and integer arrays.

    Slices give views, masks and arrays copies. Shape and index are saved.

    Raises
    ------
    IndexError
        If an integer, or an element of an integer array, is out of range. A GPU does not
        look at arrays, and wraps around.

    >>> index_forward(np.arange(4), index=np.array([3, 3]))[0]
    array([3, 3])
    """
    return x[index], (x.shape, index)


def index_backward(dout: Array, saved: Saved) -> tuple[Array]:
    """Return the gradient of `x`: `dout` where it was taken from, summed where repeated."""
    shape, index = saved
    xp = array_module(dout)
    parts = index if isinstance(index, tuple) else (index,)
    lists = [p for p in parts if getattr(p, "ndim", 0) and p.dtype.kind != "b"]
    if not lists:
        dx = xp.zeros(shape, dtype=dout.dtype)
        dx[index] = dout
        return (dx,)
    if len(lists) == len(parts):  # integer arrays for the leading axes: whole rows at once
        taken, rest = shape[: len(parts)], shape[len(parts) :]
        ids = xp.broadcast_arrays(*(xp.where(p < 0, p + n, p) for p, n in zip(parts, taken)))
        places = ids[0]
        for n, i in zip(taken[1:], ids[1:]):
            places = places * n + i
        rows = dout.reshape((places.size, -1)) if dout.size else dout.reshape((0, math.prod(rest)))
        total = scatter_sum(places.reshape(-1)[: len(rows)], rows, math.prod(taken))
        return (total.reshape(shape),)
    places = xp.arange(math.prod(shape)).reshape(shape)[index]
    return (scatter_sum(places.reshape(-1), dout.reshape(-1, 1), math.prod(shape)).reshape(shape),)


def gather_forward(x: Array, index: Array, *, axis: int) -> tuple[Array, Saved]:
    """Return ``out[i][j] = x[index[i][j]][j]`` for axis 0, and alike for the others.

    Raises
    ------
    RuntimeError
        If `index` has another number of axes, or is longer than `x` on another axis.
    IndexError
        If an element is not in ``range(x.shape[axis])``.

    >>> gather_forward(np.array([[1, 2], [3, 4]]), np.array([[1], [0]]), axis=1)[0]
    array([[2],
           [3]])
    """
    xp = array_module(x)
    corner = gather_corner("gather", x.shape, index, axis)
    return xp.take_along_axis(x[corner], index, axis=axis), (x.shape, corner, index, axis)


def gather_backward(dout: Array, saved: Saved) -> tuple[Any, ...]:
    """Return the gradients: `dout` added up where it was taken from, none for the index."""
    shape, corner, index, axis = saved
    xp = array_module(dout)
    size = math.prod(shape)
    places = xp.take_along_axis(xp.arange(size).reshape(shape)[corner], index, axis=axis)
    dx = scatter_sum(places.reshape(-1), dout.reshape(-1, 1), size)
    return dx.reshape(shape), None


def gather_corner(name: str, shape: tuple[int, ...], index: Array, axis: int) -> tuple[slice, ...]:
    """Return the slices of an array of `shape` that `index` reaches; check that it can be used."""
    axis %= max(len(shape), 1)
    longer = [i for i, (n, m) in enumerate(zip(shape, index.shape)) if i != axis and m > n]
    if index.ndim != len(shape) or longer:
        raise RuntimeError(
            f"{name}: index of shape {index.shape} does not fit a tensor of shape {shape}: it "
            f"needs as many dimensions, none but dim {axis} longer than the tensor's"
        )
    check_range(index, shape[axis] if shape else 1, f"{name} along dim {axis}", negative=False)
    return tuple(slice(None) if i == axis else slice(m) for i, m in enumerate(index.shape))


def check_range(ids: Array, n: int, what: str, negative: bool = True) -> None:
    """Raise IndexError unless all `ids` are below `n` and not below 0, or -n if `negative`.

    On a GPU nobody looks: the answer would stop its queue.
    """
    if ids.size and not is_cuda(ids):
        low, high = int(ids.min()), int(ids.max())
        if high >= n or low < (-n if negative else 0):
            wrong = high if high >= n else low
            raise IndexError(f"{what}: index {wrong} is out of range for {n} elements")


def sum_by_place(places: Array, rows: Array) -> tuple[Array, Array]:
    """Return the distinct places, ascending, and the sum of each one's rows, in their order.

    >>> present, sums = sum_by_place(np.array([2, 0, 2]), np.array([[1.0], [2.0], [3.0]]))
    >>> present, sums[:, 0]
    (array([0, 2]), array([2., 4.]))
    """
    order = np.argsort(places, kind="stable")
    present, starts = np.unique(places[order], return_index=True)
    sums: Array = np.add.reduceat(rows[order], starts, axis=0)
    return present, sums


def scatter_sum(places: Array, rows: Array, n: int) -> Array:
    """Return the `n` sums of the rows that go to each place, added in the order they come.

    Parameters
    ----------
    places : (m,) int
        Where each row goes, in ``range(n)``.
    rows : (m, width) float
    n : int

    Returns
    -------
    (n, width) float

    Notes
    -----
    The rows are sorted by place, and each run of equal places is summed: a block
    each in ``cuda/scatter_sum.cu``, one call of ``add.reduceat`` on the CPU, and for
    other types on a device sums over 1, 2, 4, ... neighbours of one run. No two threads
    ever add to one place, so the result is the same every time.

    Examples
    --------
    >>> scatter_sum(np.array([2, 0, 2]), np.array([[1.0], [2.0], [3.0]]), 3)[:, 0]
    array([2., 0., 4.])
    """
    xp = array_module(rows)
    out: Array = xp.zeros((n, rows.shape[1]), dtype=rows.dtype)
    if rows.size == 0:
        return out
    if cuda.fits(rows):
        cuda.scatter_sum(places, rows, out)
        return out
    if xp is np:
        present, sums = sum_by_place(places, rows)
        out[present] = sums
        return out
    order = xp.argsort(places, kind="stable")
    places, rows = places[order], rows[order]
    first = xp.concatenate([xp.ones(1, dtype=bool), places[1:] != places[:-1]])
    starts = xp.nonzero(first)[0]
    longest = int(xp.diff(xp.append(starts, len(places))).max())
    reach = 1
    while reach < longest:
        same = (places[reach:] == places[:-reach])[:, None]
        rows[:-reach] += xp.where(same, rows[reach:], 0)
        reach *= 2
    out[places[starts]] = rows[starts]
    return out


def assign_forward(x: Array, value: Array, *, index: Any, inner: Any = None) -> tuple[Array, Saved]:
    """Return a copy of `x` in which `value` replaces ``x[index]``, or ``x[index][inner]``.

    >>> assign_forward(np.zeros(3), np.ones(()), index=1)[0]
    array([0., 1., 0.])
    """
    out = x.copy()
    if inner is None:
        out[index] = value
    else:
        out[index][inner] = value  # the outer index is a slice: a view
    return out, (index, inner, np.shape(value))


def assign_backward(dout: Array, saved: Saved) -> tuple[Array, Array]:
    """Return the gradients: `dout` outside the replaced part, and its replaced part."""
    index, inner, shape = saved
    dx = dout.copy()
    if inner is None:
        dvalue = dout[index]
        dx[index] = 0
    else:
        dvalue = dout[index][inner]
        dx[index][inner] = 0
    return dx, unbroadcast(dvalue, shape)
