"""Activations: each formula stands beside its slope.

An activation is two elementwise functions: the value, and the slope times the
incoming gradient. `ACTIVATIONS` names them for the feed-forward kernel, which
applies them to blocks in cache.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, map_blocks
from . import cuda
from .elementwise import erf_array

SQRT_HALF = math.sqrt(0.5)
INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
TANH_SCALE = math.sqrt(2.0 / math.pi)
TANH_CUBE = 0.044715
SATURATED = 30.0  # where every activation here is a straight line in every float type


class Activation(NamedTuple):
    """An elementwise function and its derivative.

    Parameters
    ----------
    value : callable
        ``value(x)``.
    gradient : callable
        ``gradient(dy, x)``, which is dy · value'(x).
    """

    value: Callable[[Array], Array]
    gradient: Callable[[Array, Array], Array]


def _relu(x: Array) -> Array:
    return array_module(x).maximum(x, 0)


def _relu_gradient(dy: Array, x: Array) -> Array:
    return array_module(x).where(x > 0, dy, dy.dtype.type(0))


def _gelu(x: Array) -> Array:
    """x Φ(x), with Φ the normal distribution function."""
    phi = erf_array(x * SQRT_HALF)
    phi += 1
    phi *= 0.5
    phi *= x
    return phi


def _gelu_gradient(dy: Array, x: Array) -> Array:
    """(Φ(x) + x φ(x)) dy, with φ = Φ' the normal density."""
    xp = array_module(x)
    density = x * x
    density *= -0.5
    xp.exp(density, out=density)
    density *= INV_SQRT_2PI
    density *= x
    slope = erf_array(x * SQRT_HALF)
    slope += 1
    slope *= 0.5
    slope += density
    slope *= dy
    return slope


def _tanh_argument(x: Array) -> Array:
    """u = √(2/π) (x + 0.044715 x³)."""
    u = x * x
    u *= TANH_SCALE * TANH_CUBE
    u += TANH_SCALE
    u *= x
    return u


def _sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), in place in a new array; saturates without a NaN."""
    s = -z
    array_module(z).exp(s, out=s)
    s += 1
    return array_module(z).reciprocal(s, out=s)


def _gelu_tanh(x: Array) -> Array:
    """½ x (1 + tanh u)."""
    u = _tanh_argument(x)
    array_module(x).tanh(u, out=u)
    u += 1
    u *= x
    u *= 0.5
    return u


def _gelu_tanh_gradient(dy: Array, x: Array) -> Array:
    """½ (1 + t) (1 + (1 - t) x u') dy with t = tanh u, u' = √(2/π) (1 + 3 · 0.044715 x²)."""
    xp = array_module(x)
    x = xp.clip(x, -SATURATED, SATURATED)  # t is ±1 long before x³ overflows to an infinity
    slope = x * x
    t = slope * (TANH_SCALE * TANH_CUBE)
    t += TANH_SCALE
    t *= x
    xp.tanh(t, out=t)
    slope *= TANH_SCALE * 3 * TANH_CUBE
    slope += TANH_SCALE
    slope *= x
    slope *= 1 - t
    slope += 1
    t += 1
    slope *= t
    slope *= 0.5
    slope *= dy
    return slope


def _silu(x: Array) -> Array:
    """x σ(x)."""
    s = _sigmoid(x)
    s *= x
    return s


def _silu_gradient(dy: Array, x: Array) -> Array:
    """σ(x) (1 + x (1 - σ(x))) dy."""
    s = _sigmoid(x)
    slope = 1 - s
    slope *= x
    slope += 1
    slope *= s
    slope *= dy
    return slope


def _in_float32(formula: Callable[..., Array]) -> Callable[..., Array]:
    """Return the formula that works on half precision in float32 and rounds once, at the end."""

    @functools.wraps(formula)
    def wide(*arrays: Array) -> Array:
        dtype = arrays[0].dtype
        if dtype.itemsize > 2:
            return formula(*arrays)
        y: Array = formula(*(a.astype(np.float32) for a in arrays)).astype(dtype)
        return y

    return wide


ACTIVATIONS = {
    "relu": Activation(_in_float32(_relu), _in_float32(_relu_gradient)),
    "gelu": Activation(_in_float32(_gelu), _in_float32(_gelu_gradient)),
    "gelu_tanh": Activation(_in_float32(_gelu_tanh), _in_float32(_gelu_tanh_gradient)),
    "silu": Activation(_in_float32(_silu), _in_float32(_silu_gradient)),
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


def _forward(name: str, x: Array) -> tuple[Array, tuple[Any, ...]]:
    return map_blocks(ACTIVATIONS[name].value, x), (x,)


def _backward(name: str, dy: Array, x: Array) -> tuple[Array]:
    return (map_blocks(ACTIVATIONS[name].gradient, dy, x),)


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
    return _backward("relu", dy, saved[0])


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
    if cuda.fits(x):
        return cuda.gelu_forward(x, form == "gelu_tanh"), (x, form)
    return _forward(form, x)[0], (x, form)


def gelu_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array]:
    """Return ``(dx,)``."""
    x, form = saved
    if cuda.fits(x, dy):
        return (cuda.gelu_backward(dy, x, form == "gelu_tanh"),)
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
