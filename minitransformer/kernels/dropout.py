"""Dropout from a stateless stream: the mask is drawn again in backward, never stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, Key, array_module, blocks, random_bits, run_blocks
from . import cuda

ELEMENTS = 32768  # of one block; a multiple of 8, as `random_bits` wants


def keep_threshold(p: float) -> int:
    """Return the smallest 32-bit number that keeps an element dropped with probability `p`.

    Raises
    ------
    ValueError
        If `p` is no probability.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, found {p}")
    return min(round(p * 2**32), 2**32 - 1)


def drop(x: Array, p: float, key: Key, start: int = 0) -> Array:
    """Return x · keep / (1 - p); element i of `x` meets element ``start + i`` of the stream."""
    xp = array_module(x)
    if p == 1.0:
        return xp.zeros_like(x)
    early = start % 8  # the stream is drawn from multiples of 8
    bits = random_bits(key, early + x.size, start=start - early, xp=xp)[early:]
    keep = bits >= np.uint32(keep_threshold(p))
    return xp.where(keep.reshape(x.shape), x * x.dtype.type(1.0 / (1.0 - p)), x.dtype.type(0))


def _drop_in_blocks(x: Array, p: float, key: Key) -> Array:
    threshold = keep_threshold(p)
    xp = array_module(x)
    if cuda.fits(x) and p < 1.0:
        return cuda.dropout(x, threshold, 1.0 / (1.0 - p), key)
    flat = xp.ascontiguousarray(x).reshape(-1)
    out = xp.empty_like(flat)

    def work(b: slice) -> None:
        out[b] = drop(flat[b], p, key, start=b.start)

    run_blocks(work, blocks(flat.size, ELEMENTS if xp is np else max(8, flat.size)))
    return out.reshape(x.shape)


def dropout_forward(x: Array, *, p: float, key: Key) -> tuple[Array, tuple[Any, ...]]:
    """Zero each element with probability `p` and scale the others by 1/(1 - p).

    Parameters
    ----------
    x : array of any shape
        Input.
    p : float
        Probability of a zero.
    key : Key
        Which random stream; element i of `x` meets element i of the stream.

    Returns
    -------
    y : array
        As `x`.
    saved : tuple
        `p` and the key: no mask is stored.

    Raises
    ------
    ValueError
        If `p` lies outside [0, 1].

    Notes
    -----
    ``dx = dy ∘ keep / (1 - p)``. A dropped NaN is a zero.

    References
    ----------
    .. [1] Srivastava et al., "Dropout: a simple way to prevent neural networks from
       overfitting", JMLR 15 (2014), section 4; the scaling at training time is section 10's.

    Examples
    --------
    >>> y, _ = dropout_forward(np.ones(1000), p=0.25, key=Key(0))
    >>> sorted(set(y.round(4).tolist())), bool(200 < (y == 0).sum() < 300)
    ([0.0, 1.3333], True)
    """
    return _drop_in_blocks(x, p, key), (p, key)


def dropout_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array]:
    """Return ``(dx,)``."""
    return (_drop_in_blocks(dy, *saved),)
