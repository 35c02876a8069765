"""Initial values of parameters: PyTorch's names, bounds and defaults.

Every function fills its tensor in place, outside the tape, and returns it.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..backend import Array, array_module, next_key, normal, to_numpy, uniform

__all__ = [
    "calculate_gain",
    "constant_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "skip_random",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_LINEAR = {"linear", "sigmoid", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3))}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the recommended gain of a nonlinearity.

    Parameters
    ----------
    nonlinearity : str
        ``linear``, ``sigmoid``, ``tanh``, ``relu``, ``leaky_relu`` or ``selu``.
    param : float, optional
        The negative slope of ``leaky_relu``, 0.01 if not given.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For an unknown nonlinearity or a slope that is no number.

    Examples
    --------
    >>> calculate_gain("relu")
    1.4142135623730951
    """
    if nonlinearity in _LINEAR:
        return 1
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {param!r} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


_skipping = contextvars.ContextVar("_skipping", default=False)


@contextlib.contextmanager
def skip_random() -> Iterator[None]:
    """Leave `uniform_` and `normal_` without effect: whoever fills every weight needs no start.

    Examples
    --------
    >>> import minitransformer as mt
    >>> with mt.nn.init.skip_random():
    ...     mt.nn.init.normal_(mt.ones(2)).tolist()
    [1.0, 1.0]
    """
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def _put(tensor: Tensor, values: Any) -> Tensor:
    tensor.array[...] = values
    tensor.version[0] += 1
    return tensor


def _draw(draw: Any, tensor: Tensor, generator: Any) -> Array:
    key = next_key() if generator is None else generator.next_key()
    xp = array_module(tensor.array)
    return draw(key, tuple(tensor.shape), tensor.array.dtype, xp=xp)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with numbers uniform in [a, b).

    Examples
    --------
    >>> import minitransformer as mt
    >>> bool((mt.nn.init.uniform_(mt.empty(3), 2.0, 3.0) >= 2.0).all())
    True
    """
    if _skipping.get():
        return tensor
    return _put(tensor, _draw(uniform, tensor, generator) * (b - a) + a)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with normal numbers of the given mean and standard deviation."""
    if _skipping.get():
        return tensor
    return _put(tensor, _draw(normal, tensor, generator) * std + mean)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
) -> Tensor:
    """Fill with normal numbers, each drawn anew until it lies in [a, b].

    Notes
    -----
    `a` and `b` bound the numbers themselves, not their distance from the mean in
    standard deviations.

    Raises
    ------
    ValueError
        If the interval holds almost none of the distribution, or is empty.
    """
    low, high = (a - mean) / std, (b - mean) / std
    if low >= high or low > 6 or high < -6:
        raise ValueError(
            f"trunc_normal_: [a, b] = [{a}, {b}] holds next to nothing of a normal distribution "
            f"of mean {mean} and std {std}; widen it or move the mean into it"
        )
    values = _draw(normal, tensor, generator)
    xp = array_module(values)
    while (outside := (values < low) | (values > high)).any():
        values = xp.where(outside, _draw(normal, tensor, generator), values)
    return _put(tensor, xp.clip(values * std + mean, a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value."""
    return _put(tensor, val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return _put(tensor, 1)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return _put(tensor, 0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with the identity.

    Raises
    ------
    ValueError
        If the tensor is not a matrix.
    """
    if tensor.ndim != 2:
        raise ValueError(f"eye_: only matrices are supported, found {tensor.ndim} dimensions")
    xp = array_module(tensor.array)
    return _put(tensor, xp.eye(*tensor.shape, dtype=tensor.array.dtype))


def _fans(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions, "
            f"found shape {tuple(tensor.shape)}"
        )
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    r"""Fill with numbers uniform within :math:`\pm\,gain\sqrt{6/(fan_{in}+fan_{out})}`.

    Raises
    ------
    ValueError
        If the tensor has fewer than two dimensions.

    References
    ----------
    .. [1] Glorot and Bengio, "Understanding the difficulty of training deep feedforward
       neural networks", 2010, equation 16.
    """
    fan_in, fan_out = _fans(tensor)
    bound = math.sqrt(3.0) * gain * math.sqrt(2.0 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    r"""Fill with normal numbers of standard deviation :math:`gain\sqrt{2/(fan_{in}+fan_{out})}`.

    Raises
    ------
    ValueError
        If the tensor has fewer than two dimensions.

    References
    ----------
    .. [1] Glorot and Bengio, "Understanding the difficulty of training deep feedforward
       neural networks", 2010, equation 12.
    """
    fan_in, fan_out = _fans(tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    fan_in, fan_out = _fans(tensor)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    r"""Fill with numbers uniform within :math:`\pm\,gain\sqrt{3/fan}`.

    Parameters
    ----------
    tensor : Tensor
        Filled in place.
    a : float
        Negative slope of the leaky rectifier that follows.
    mode : {"fan_in", "fan_out"}
        Keep the variance of the forward or of the backward pass.
    nonlinearity : str
        As for `calculate_gain`.
    generator : Generator, optional
        Source of randomness.

    Raises
    ------
    ValueError
        If the tensor has fewer than two dimensions or an option is unknown.

    References
    ----------
    .. [1] He et al., "Delving deep into rectifiers", 2015, equation 10.
    """
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    r"""Fill with normal numbers of standard deviation :math:`gain/\sqrt{fan}`.

    Parameters
    ----------
    tensor : Tensor
        Filled in place.
    a : float
        Negative slope of the leaky rectifier that follows.
    mode : {"fan_in", "fan_out"}
        Keep the variance of the forward or of the backward pass.
    nonlinearity : str
        As for `calculate_gain`.
    generator : Generator, optional
        Source of randomness.

    Raises
    ------
    ValueError
        If the tensor has fewer than two dimensions or an option is unknown.

    References
    ----------
    .. [1] He et al., "Delving deep into rectifiers", 2015, equation 10.
    """
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """Fill with a (semi-)orthogonal matrix; dimensions after the first are flattened.

    Raises
    ------
    ValueError
        If the tensor has fewer than two dimensions.

    References
    ----------
    .. [1] Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep
       linear neural networks", 2013.
    """
    if tensor.ndim < 2:
        raise ValueError(
            "orthogonal_: only tensors with 2 or more dimensions are supported, "
            f"found {tensor.ndim}"
        )
    if 0 in tensor.shape:
        return tensor
    rows = tensor.shape[0]
    matrix = to_numpy(_draw(normal, tensor, generator)).reshape(rows, -1)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    q, r = np.linalg.qr(tall)
    # The signs make the distribution uniform over orthogonal matrices.
    q = q * np.where(np.diag(r) < 0, -1, 1).astype(q.dtype)
    q = q if q.shape == matrix.shape else q.T
    xp = array_module(tensor.array)
    return _put(tensor, xp.asarray(gain * q).reshape(tensor.array.shape))
