"""Positions: the sinusoidal table, and rotation of query and key pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, array_module


def sinusoidal(length: int, dim: int, *, base: float = 10000.0, dtype: Any = np.float32) -> Array:
    """Return the sinusoidal position table.

    Parameters
    ----------
    length : int
        Number of positions.
    dim : int
        Size of the model; an odd size drops the last cosine.
    base : float
        The longest wavelength is 2π · base.
    dtype : dtype
        Of the result; computed in float64.

    Returns
    -------
    (length, dim) array
        ``PE[pos, 2i] = sin(pos / base^(2i/dim))``, ``PE[pos, 2i+1] = cos(...)``.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", arXiv:1706.03762, section 3.5.

    Examples
    --------
    >>> sinusoidal(1, 4).tolist()
    [[0.0, 1.0, 0.0, 1.0]]
    """
    table = np.empty((length, dim))
    angle = np.arange(length)[:, None] * base ** (-np.arange(0, dim, 2) / dim)
    table[:, 0::2] = np.sin(angle)
    table[:, 1::2] = np.cos(angle)[:, : dim // 2]
    return table.astype(dtype)


def rotary_angles(
    positions: Array, dim: int, *, base: float = 10000.0, dtype: Any = np.float32
) -> tuple[Array, Array]:
    """Return the cosines and sines that `rotary_forward` turns pairs by.

    Parameters
    ----------
    positions : (L,) array
        Position numbers.
    dim : int
        How many entries of a head are turned; even.
    base : float
        θ_i = base^(-2i/dim).
    dtype : dtype
        Of the result; computed in float64.

    Returns
    -------
    cos, sin : (L, dim/2) array
        Of position · θ_i.

    References
    ----------
    .. [1] Su et al., "RoFormer: enhanced transformer with rotary position embedding",
       arXiv:2104.09864, equation 15.
    """
    if dim % 2:
        raise ValueError(f"rotary: the turned size must be even, found {dim}")
    angle = np.asarray(positions, np.float64)[..., None] * base ** (-np.arange(0, dim, 2) / dim)
    return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)


def _pairs(x: Array, n: int, interleaved: bool) -> tuple[Array, Array]:
    return (
        (x[..., 0 : 2 * n : 2], x[..., 1 : 2 * n : 2])
        if interleaved
        else (
            x[..., :n],
            x[..., n : 2 * n],
        )
    )


def _turn(x: Array, cos: Array, sin: Array, interleaved: bool) -> Array:
    """Turn each pair (a, b) to (a cos - b sin, b cos + a sin)."""
    n = cos.shape[-1]
    out = array_module(x).empty(x.shape, x.dtype)
    (a, b), (out_a, out_b) = _pairs(x, n, interleaved), _pairs(out, n, interleaved)
    out_a[...] = a * cos - b * sin
    out_b[...] = b * cos + a * sin
    out[..., 2 * n :] = x[..., 2 * n :]
    return out


def rotary_forward(
    x: Array, cos: Array, sin: Array, *, interleaved: bool = False
) -> tuple[Array, tuple[Any, ...]]:
    """Rotary position embedding.

    Parameters
    ----------
    x : (..., L, E) array
        Queries or keys.
    cos, sin : (..., L, n) array
        Of the angles, with 2 n ≤ E; entries beyond 2 n pass unchanged.
    interleaved : bool
        Pair (x_0, x_1), (x_2, x_3), ... as in the paper; otherwise (x_0, x_n), (x_1, x_{n+1}),
        ... as in Llama: the same up to a permutation of the entries.

    Returns
    -------
    y : array
        As `x`.
    saved : tuple
        `cos`, `sin` and the pairing.

    Raises
    ------
    ValueError
        If the angles are more than the pairs of a head.

    Notes
    -----
    A rotation: backward turns the gradient by the opposite angle.

    Card: ``minitransformer cards rotary``.

    References
    ----------
    .. [1] Su et al., "RoFormer: enhanced transformer with rotary position embedding",
       arXiv:2104.09864, equation 34.

    Examples
    --------
    >>> x = np.array([[1.0, 0.0]])
    >>> rotary_forward(x, np.array([[0.0]]), np.array([[1.0]]))[0].tolist()
    [[0.0, 1.0]]
    """
    if 2 * cos.shape[-1] > x.shape[-1] or cos.shape != sin.shape:
        raise ValueError(
            f"rotary: cos {cos.shape} and sin {sin.shape} must have one shape and turn at most "
            f"the {x.shape[-1] // 2} pairs of a head (x has shape {x.shape})"
        )
    return _turn(x, cos, sin, interleaved), (cos, sin, interleaved)


def rotary_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array, None, None]:
    """Return ``(dx, None, None)``."""
    cos, sin, interleaved = saved
    return _turn(dy, cos, -sin, interleaved), None, None
