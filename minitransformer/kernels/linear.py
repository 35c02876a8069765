"""Matrix products: row blocks in threads, each a single-threaded BLAS call."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..backend import (
    Array,
    aligned_empty,
    array_module,
    blocks,
    cublas,
    even_blocks,
    run_blocks,
    scratch,
)
from .elementwise import unbroadcast

ROWS = 512  # at least, of one block of a large product: each block packs the other factor again
BLOCKS = 16  # at most, of one product, where they are large enough
SMALL = 1 << 23  # multiplications below which one thread is done before two have begun
FEW = 16  # rows that a wide matrix is multiplied with in pieces
READ = 8  # rows of which fewer, but not one alone, take as long: the matrix is copied once


def product(a: Array, b: Array, out: Array | None = None, *, bias: Array | None = None) -> Array:
    """Return the matrix product ``a @ b`` of two matrices or two stacks of them.

    Parameters
    ----------
    a : (..., M, K) array
        Any strides.
    b : (..., K, N) array
        Of the same type; leading axes broadcast.
    out : (..., M, N) array, optional
        Where to write.
    bias : (N,) array, optional
        Added to every row of a product of two matrices, while the row is in cache.

    Returns
    -------
    (..., M, N) array
        Half precision is multiplied in float32, which is faster on a CPU and exacter.
    """
    xp = array_module(a)
    if xp is not np:
        if bias is None:
            return cublas.product(a, b, out)
        out = xp.empty((len(a), b.shape[1]), a.dtype) if out is None else out
        out[...] = bias  # to which cuBLAS adds, so that half precision is rounded once
        return cublas.product(a, b, out, accumulate=True)
    if a.dtype == np.float16:
        wide_bias = None if bias is None else bias.astype(np.float32)
        wide = product(a.astype(np.float32), b.astype(np.float32), bias=wide_bias)
        if out is None:
            return wide.astype(np.float16)
        out[...] = wide
        return out
    if out is None:
        out = _empty(a, b)
    _run(_parts(a, b, out, bias))
    return out


def products(*factors: tuple[Array, Array]) -> list[Array]:
    """Return the products of several pairs of matrices, worked on as one job.

    Threads go from one product to the next without waiting for each other.
    """
    first = factors[0][0]
    if array_module(first) is not np or first.dtype == np.float16:
        return [product(a, b) for a, b in factors]
    outs = [_empty(a, b) for a, b in factors]
    _run([part for (a, b), out in zip(factors, outs) for part in _parts(a, b, out)])
    return outs


def _empty(a: Array, b: Array) -> Array:
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    like = a if a.dtype == b.dtype else np.empty(0, np.result_type(a, b))
    return aligned_empty((*batch, a.shape[-2], b.shape[-1]), like)


class _Part(NamedTuple):
    """A block of a product: ``out = a @ b + bias``."""

    a: Array
    b: Array
    out: Array
    bias: Array | None = None

    def size(self) -> int:
        """Return the number of multiplications that would take as long."""
        *batch, M, K = self.a.shape
        return math.prod(batch) * _cost(M, K, self.b.shape[-1])

    def compute(self) -> None:
        a, b, out, bias = self
        if out.ndim == 2 and 1 < len(a) <= FEW < b.shape[1]:
            _few_rows(a, b, out)
        else:
            np.matmul(a, b, out=out)
        if bias is not None:
            out += bias


def _compute_all(parts: list[_Part]) -> None:
    for part in parts:
        part.compute()


def _run(parts: list[_Part]) -> None:
    worth = sum(part.size() for part in parts) >= SMALL
    run_blocks(_compute_all, [[part] for part in parts] if worth else [parts])


def _parts(a: Array, b: Array, out: Array, bias: Array | None = None) -> list[_Part]:
    """Return the blocks of a product that threads share."""
    *_, M, K = a.shape
    N = b.shape[-1]
    if out.ndim == 2:
        longer = max(M, N)
        whole = _cost(M, K, N) < SMALL
        cuts = [slice(0, longer)] if whole else even_blocks(longer, _block_size(longer))
        if M >= N:
            return [_Part(a[c], b, out[c], bias) for c in cuts]
        # few rows against a wide matrix: a decoding step, a small batch
        return [_Part(a, b[:, c], out[:, c], None if bias is None else bias[c]) for c in cuts]
    a = np.broadcast_to(a, (*out.shape[:-2], M, K))
    b = np.broadcast_to(b, (*out.shape[:-2], K, N))
    # Split the first axis alone, so that no stack of strided matrices is ever copied.
    per_item = max(1, SMALL // max(1, M * N * K * math.prod(out.shape[1:-2])))
    return [_Part(a[s], b[s], out[s]) for s in even_blocks(out.shape[0], per_item)]


def _cost(M: int, K: int, N: int) -> int:
    return max(M, READ if M > 1 and N > READ else 1) * K * N


def _unpacked(M: int, K: int) -> int:
    """Return how many columns to multiply `M` rows with at a time.

    OpenBLAS copies the matrix of a product before it multiplies, which for a few rows costs
    more than the product; products of up to 100³ multiplications go without the copy.
    """
    return max(32, 10**6 // max(1, M * K) // 32 * 32)


def _few_rows(a: Array, b: Array, out: Array) -> None:
    """Write ``a @ b`` to `out`, where `a` has a few rows and `b` many columns.

    The columns of a transposed weight are rows in memory: BLAS multiplies those with columns
    of `a` up to three times as fast as rows of `a` with them.
    """
    (M, K), N = a.shape, b.shape[1]
    pieces = blocks(N, _unpacked(M, K))
    if b.strides[0] != b.itemsize:
        for c in pieces:
            np.matmul(a, b[:, c], out=out[:, c])
        return
    columns, turned = np.ascontiguousarray(a.T), scratch("turned", a, (N, M))
    for c in pieces:
        np.matmul(b[:, c].T, columns, out=turned[c])
    out[...] = turned.T


def _block_size(n: int) -> int:
    """Return the length of the blocks of a product's longer side: half of it at most."""
    return min(max(ROWS, n // BLOCKS), -(-n // 2))


def rows_of(x: Array) -> Array:
    """Return `x` as a matrix of its last axis; -1 cannot be inferred where that has no entries."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def matmul_forward(a: Array, b: Array) -> tuple[Array, tuple[Any, ...]]:
    """Matrix product with NumPy's and PyTorch's broadcasting.

    Parameters
    ----------
    a : (..., M, K) or (K,) array
        Left factor.
    b : (..., K, N) or (K,) array
        Right factor.

    Returns
    -------
    out : (..., M, N) array
        ``a @ b``; the axis of a vector disappears.
    saved : tuple
        Both factors.

    Raises
    ------
    ValueError
        If the inner sizes differ.

    Notes
    -----
    ``da = dout bᵀ`` and ``db = aᵀ dout``, summed over the axes along which a factor
    was broadcast.

    Examples
    --------
    >>> out, _ = matmul_forward(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> out.tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul needs at least one axis each, found {a.shape} and {b.shape}")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if a.shape[-1] != inner:
        raise ValueError(
            f"matmul: shapes {a.shape} and {b.shape} do not fit: the last axis of the first has "
            f"{a.shape[-1]} entries, it meets {inner}"
        )
    A = a[None, :] if a.ndim == 1 else a
    B = b[:, None] if b.ndim == 1 else b
    if B.ndim == 2 and A.ndim > 2:  # one product of many rows, not many of few
        out = product(rows_of(A), B).reshape(*A.shape[:-1], B.shape[-1])
    else:
        out = product(A, B)
    if b.ndim == 1:
        out = out[..., 0]
    if a.ndim == 1:
        out = out[0] if b.ndim == 1 else out[..., 0, :]
    return array_module(a).asarray(out), (a, b)


def matmul_backward(dout: Array, saved: tuple[Any, ...]) -> tuple[Array, Array]:
    """Return ``(da, db)``."""
    a, b = saved
    A = a[None, :] if a.ndim == 1 else a
    B = b[:, None] if b.ndim == 1 else b
    if a.ndim == 1:
        dout = dout[None] if b.ndim == 1 else dout[..., None, :]
    if b.ndim == 1:
        dout = dout[..., None]
    if B.ndim == 2 and A.ndim > 2:
        rows = rows_of(dout)
        dA, dB = products((rows, B.T), (rows_of(A).T, rows))
    else:
        dA = unbroadcast(product(dout, B.swapaxes(-1, -2)), A.shape)
        dB = unbroadcast(product(A.swapaxes(-1, -2), dout), B.shape)
    return dA.reshape(a.shape), dB.reshape(b.shape)


def linear_forward(x: Array, weight: Array, bias: Array | None) -> tuple[Array, tuple[Any, ...]]:
    """Affine map ``y = x Wᵀ + b``.

    Parameters
    ----------
    x : (..., in) array
        Rows to map.
    weight : (out, in) array
        PyTorch's layout.
    bias : (out,) array or None
        Added to every row.

    Returns
    -------
    y : (..., out) array
        The mapped rows.
    saved : tuple
        `x` and `weight`: nothing new.

    Raises
    ------
    ValueError
        If the last axis of `x` is not the weight's second.

    Notes
    -----
    ``dx = dy W``, ``dW = dyᵀ x``, ``db = Σ dy`` over all rows.

    Examples
    --------
    >>> y, _ = linear_forward(np.ones((1, 2)), np.array([[1.0, 2.0]]), np.array([0.5]))
    >>> y.tolist()
    [[3.5]]
    """
    if x.shape[-1:] != weight.shape[1:]:
        raise ValueError(
            f"linear: x has shape {x.shape} and weight {weight.shape}; the last axis of x must "
            f"have the weight's {weight.shape[-1]} input features"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"linear: bias has shape {bias.shape}; weight {weight.shape} needs {weight.shape[:1]}"
        )
    rows = rows_of(x)
    y = product(rows, weight.T, bias=bias)
    return y.reshape(*x.shape[:-1], len(weight)), (x, weight, bias is not None)


def linear_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array, Array, Array | None]:
    """Return ``(dx, dweight, dbias)``."""
    x, weight, has_bias = saved
    dy_rows = rows_of(dy)
    sums = [sum_of_rows(dy_rows)] if has_bias else []
    *dbias, dx, dweight = products(*sums, (dy_rows, weight), (dy_rows.T, rows_of(x)))
    return dx.reshape(x.shape), dweight, dbias[0][0] if has_bias else None


def sum_of_rows(x: Array) -> tuple[Array, Array]:
    """Return the factors of ``x.sum(axis=0)`` of a matrix: BLAS sums in one pass, (1, ·)."""
    return array_module(x).ones((1, len(x)), x.dtype), x
