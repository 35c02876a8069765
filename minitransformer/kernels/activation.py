"""Activations: each formula stands beside its slope.

An activation is a function ``act(x, y, slope=None)`` that writes the value to `y` and, where
it is wanted, the derivative to `slope`, while exp or tanh is at hand. `ACTIVATIONS` names them
for the feed-forward kernel, which applies them to blocks in cache.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..backend import ELEMENTS, Array, accumulator, array_module, even_blocks, run_blocks, scratch
from . import cuda
from .elementwise import erf_array, select

SQRT_HALF = math.sqrt(0.5)
INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
TANH_SCALE = math.sqrt(2.0 / math.pi)
TANH_CUBE = 0.044715
SATURATED = 30.0  # where the tanh form is a straight line in every float type

# `slope` may be `x` itself; `y` may not.
Activation: TypeAlias = Callable[..., None]


def _relu(x: Array, y: Array, slope: Array | None = None) -> None:
    """max(x, 0)."""
    array_module(x).maximum(x, 0, out=y)
    if slope is not None:
        slope[...] = x > 0


def _gelu(x: Array, y: Array, slope: Array | None = None) -> None:
    """x Φ, with slope Φ + x φ: Φ = ½ (1 + erf(x/√2)), and φ = Φ' = exp(-½ x²) / √(2π)."""
    xp = array_module(x)
    t, Phi = scratch("t", x), scratch("s", x)
    xp.multiply(x, SQRT_HALF, out=t)
    erf_array(t, out=Phi)
    Phi += 1
    Phi *= 0.5
    xp.multiply(x, Phi, out=y)
    if slope is None:
        return
    xp.multiply(x, x, out=t)
    t *= -0.5
    xp.exp(t, out=t)
    t *= INV_SQRT_2PI
    t *= x
    xp.add(Phi, t, out=slope)


def _gelu_tanh(x: Array, y: Array, slope: Array | None = None) -> None:
    """x s, with slope s + x s (1 - s) 2u': s = ½ (1 + tanh u), u = √(2/π) (x + 0.044715 x³)."""
    xp = array_module(x)
    t, s = scratch("t", x), scratch("s", x)
    xp.multiply(x, x, out=t)
    xp.multiply(t, TANH_SCALE * TANH_CUBE, out=s)
    s += TANH_SCALE
    s *= x
    xp.tanh(s, out=s)
    s += 1
    s *= 0.5
    xp.multiply(x, s, out=y)
    if slope is None:
        return
    xp.minimum(t, SATURATED**2, out=t)  # s is 0 or 1 long before x² overflows to an infinity
    t *= 2 * 3 * TANH_SCALE * TANH_CUBE
    t += 2 * TANH_SCALE
    xp.subtract(1, s, out=slope)
    slope *= t
    slope *= y
    slope += s


def _silu(x: Array, y: Array, slope: Array | None = None) -> None:
    """x s, with slope s + x s (1 - s): s = σ(x) = 1 / (1 + exp(-x)); saturates without a NaN."""
    xp = array_module(x)
    s = scratch("s", x)
    xp.negative(x, out=s)
    xp.exp(s, out=s)
    s += 1
    xp.reciprocal(s, out=s)
    xp.multiply(x, s, out=y)
    if slope is None:
        return
    xp.subtract(1, s, out=slope)
    slope *= y
    slope += s


def _in_float32(act: Activation) -> Activation:
    """Return the activation that works on half precision in float32 and rounds once, at the end."""

    @functools.wraps(act)
    def wide(x: Array, y: Array, slope: Array | None = None) -> None:
        if x.dtype.itemsize > 2:
            return act(x, y, slope)
        x = x.astype(np.float32)
        value = array_module(x).empty_like(x)
        act(x, value, None if slope is None else x)
        y[...] = value
        if slope is not None:
            slope[...] = x

    return wide


ACTIVATIONS: dict[str, Activation] = {
    "relu": _in_float32(_relu),
    "gelu": _in_float32(_gelu),
    "gelu_tanh": _in_float32(_gelu_tanh),
    "silu": _in_float32(_silu),
}


def find_activation(name: str) -> Activation:
    """Return the activation called `name`.

    Raises
    ------
    ValueError
        If there is none; the message lists those there are.
    """
    try:
        return ACTIVATIONS[name]
    except KeyError:
        raise ValueError(f"unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}") from None


def _in_blocks(work: Callable[..., Any], out: Array, *arrays: Array) -> Array:
    """Call ``work(out_block, *blocks)`` for every block of the arrays, flat."""
    flat = [a.reshape(-1) for a in (out, *arrays)]
    on_gpu = array_module(out) is not np
    blocks = even_blocks(out.size, out.size if on_gpu else ELEMENTS)
    run_blocks(lambda b: work(*[a[b] for a in flat]), blocks)
    return out


def _forward(name: str, x: Array) -> tuple[Array, tuple[Any, ...]]:
    if cuda.fits(x):
        return cuda.activation_forward(x, name), (x,)
    act = find_activation(name)
    return _in_blocks(lambda y, x: act(x, y), array_module(x).empty(x.shape, x.dtype), x), (x,)


def _backward(name: str, dy: Array, x: Array) -> tuple[Array]:
    if cuda.fits(x, dy):
        return (cuda.activation_backward(dy, x, name),)
    act, wide = find_activation(name), accumulator(x.dtype)

    def work(dx: Array, dy: Array, x: Array) -> None:
        x = x.astype(wide, copy=False)
        slope = dx if dx.dtype == wide else scratch("slope", x)
        act(x, scratch("y", x), slope)
        array_module(x).multiply(slope, dy, out=dx, casting="same_kind")

    return (_in_blocks(work, array_module(x).empty(x.shape, x.dtype), dy, x),)


def relu_forward(x: Array) -> tuple[Array, tuple[Any, ...]]:
    """Rectifier, max(x, 0).

    Parameters
    ----------
    x : array of any shape
        A NaN stays a NaN.

    Returns
    -------
    y : array
        As `x`.
    saved : tuple
        `x`.

    Notes
    -----
    ``dx = dy`` where x > 0, else 0; at 0 the slope is 0, as in PyTorch.

    Card: ``minitransformer cards relu``.

    References
    ----------
    .. [1] Nair and Hinton, "Rectified linear units improve restricted Boltzmann
       machines", ICML 2010, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> relu_forward(np.array([-1.0, 2.0]))[0].tolist()
    [0.0, 2.0]
    """
    return _forward("relu", x)


def relu_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array]:
    """Return ``(dx,)``."""
    (x,) = saved
    dx = array_module(x).empty(x.shape, x.dtype)
    return (_in_blocks(lambda dx, dy, x: select(x > 0, dy, out=dx), dx, dy, x),)


def gelu_forward(x: Array, *, approximate: str = "none") -> tuple[Array, tuple[Any, ...]]:
    """Gaussian error linear unit, x Φ(x).

    Parameters
    ----------
    x : array of any shape
        Input.
    approximate : {"none", "tanh"}
        ``none``: ½ x (1 + erf(x/√2)). ``tanh``: ½ x (1 + tanh(√(2/π)(x + 0.044715 x³))).

    Returns
    -------
    y : array
        As `x`.
    saved : tuple
        `x` and the form.

    Raises
    ------
    ValueError
        If `approximate` is neither form.

    Notes
    -----
    Exact: ``dx = (Φ(x) + x φ(x)) dy``. The tanh form is computed as x σ(2u), with u the
    argument of the tanh; ``dx = (s + 2 x s (1 - s) u') dy`` with s = σ(2u).

    Cards: ``minitransformer cards gelu``, ``minitransformer cards gelu-tanh``.

    References
    ----------
    .. [1] Hendrycks and Gimpel, "Gaussian error linear units (GELUs)",
       arXiv:1606.08415, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> gelu_forward(np.array([0.0, 1.0]))[0].round(4).tolist()
    [0.0, 0.8413]
    """
    forms = {"none": "gelu", "tanh": "gelu_tanh"}
    if approximate not in forms:
        raise ValueError(f"approximate must be 'none' or 'tanh', found {approximate!r}")
    form = forms[approximate]
    return _forward(form, x)[0], (x, form)


def gelu_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array]:
    """Return ``(dx,)``."""
    x, form = saved
    return _backward(form, dy, x)


def silu_forward(x: Array) -> tuple[Array, tuple[Any, ...]]:
    """Sigmoid linear unit (swish), x σ(x).

    Parameters
    ----------
    x : array of any shape
        Input.

    Returns
    -------
    y : array
        As `x`.
    saved : tuple
        `x`.

    Notes
    -----
    ``dx = σ(x) (1 + x (1 - σ(x))) dy``.

    Card: ``minitransformer cards silu``.

    References
    ----------
    .. [1] Elfwing et al., "Sigmoid-weighted linear units for neural network function
       approximation in reinforcement learning", arXiv:1702.03118, the SiLU.

    Examples
    --------
    >>> import numpy as np
    >>> silu_forward(np.array([0.0, 1.0]))[0].round(4).tolist()
    [0.0, 0.7311]
    """
    return _forward("silu", x)


def silu_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array]:
    """Return ``(dx,)``."""
    return _backward("silu", dy, saved[0])
