"""Dropout from a stateless stream, alone and added to a residual in the same pass."""

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


def keep_mask(p: float, key: Key, start: int, n: int, xp: Any = np) -> Array:
    """Return which of the elements ``start .. start + n`` of the stream are kept, (n,) bool."""
    if p == 1.0:  # the largest number of 32 bits would be kept
        return xp.zeros(n, bool)
    early = start % 8  # the stream is drawn from multiples of 8
    bits = random_bits(key, early + n, start=start - early, xp=xp)[early:]
    return bits >= np.uint32(keep_threshold(p))


def select(x: Array, keep: Array, p: float, out: Array | None = None) -> Array:
    """Return x · keep / (1 - p); the product is one of bits, so that a dropped NaN is a zero."""
    xp = array_module(x)
    y: Array = xp.multiply(x, x.dtype.type(0.0 if p == 1.0 else 1.0 / (1.0 - p)), out=out)
    bits = y.view(f"i{x.dtype.itemsize}")
    bits *= keep
    return y


def drop(x: Array, p: float, key: Key, start: int = 0) -> Array:
    """Return x · keep / (1 - p); element i of `x` meets element ``start + i`` of the stream."""
    keep = keep_mask(p, key, start, x.size, array_module(x))
    return select(x, keep.reshape(x.shape), p)


def _in_blocks(
    x: Array, p: float, key: Key, *, residual: Array | None = None, mask: Array | None = None
) -> tuple[Array, Array | None]:
    """Return residual + x · keep / (1 - p), and which were kept, a bit each, if on the CPU.

    There numbers cost far more than memory: what was drawn once is kept. On a GPU it is the
    other way round, and `mask` is None.
    """
    threshold, xp = keep_threshold(p), array_module(x)
    if cuda.fits(x, residual) and p < 1.0:
        return cuda.residual_dropout(x, residual, threshold, 1.0 / (1.0 - p), key), None
    flat = xp.ascontiguousarray(x).reshape(-1)
    rest = None if residual is None else xp.ascontiguousarray(residual).reshape(-1)
    out, known = xp.empty_like(flat), mask is not None
    if xp is np and mask is None:
        mask = np.empty(-(-flat.size // 8), np.uint8)

    def work(b: slice) -> None:
        n, octets = b.stop - b.start, slice(b.start // 8, -(-b.stop // 8))
        if mask is None:
            keep = keep_mask(p, key, b.start, n, xp)
        elif known:
            keep = np.unpackbits(mask[octets], count=n)
        else:
            keep = keep_mask(p, key, b.start, n)
            mask[octets] = np.packbits(keep)
        select(flat[b], keep, p, out[b])
        if rest is not None:
            out[b] += rest[b]

    run_blocks(work, blocks(flat.size, ELEMENTS if xp is np else max(8, flat.size)))
    return out.reshape(x.shape), mask


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
        `p`, the key, and on the CPU which elements were kept, a bit each.

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
    y, mask = _in_blocks(x, p, key)
    return y, (p, key, mask)


def dropout_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array]:
    """Return ``(dx,)``."""
    p, key, mask = saved
    return (_in_blocks(dy, p, key, mask=mask)[0],)


def residual_dropout_forward(
    x: Array, residual: Array, *, p: float, key: Key
) -> tuple[Array, tuple[Any, ...]]:
    """Add what `dropout_forward` makes of `x` to `residual`, in one pass.

    Parameters
    ----------
    x : array of any shape
        What a block computed.
    residual : array of that shape
        What went around it.
    p : float
        Probability of a zero.
    key : Key
        Which random stream; element i of `x` meets element i of the stream.

    Returns
    -------
    y : array
        As `x`.
    saved : tuple
        As that of `dropout_forward`.

    Raises
    ------
    ValueError
        If `p` lies outside [0, 1].

    Notes
    -----
    ``dx = dy ∘ keep / (1 - p)``, ``dresidual = dy``.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", arXiv:1706.03762, section 5.4: dropout of
       each sub-layer's output, before it is added to its input.

    Examples
    --------
    >>> y, _ = residual_dropout_forward(np.ones(4), np.arange(4.0), p=1.0, key=Key(0))
    >>> y.tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    y, mask = _in_blocks(x, p, key, residual=residual)
    return y, (p, key, mask)


def residual_dropout_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array, Array]:
    """Return ``(dx, dresidual)``."""
    return (*dropout_backward(dy, saved), dy)
