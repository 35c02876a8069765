"""Layer normalisation, over blocks of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import (
    Array,
    accumulator,
    aligned_empty,
    array_module,
    row_blocks,
    run_blocks,
    run_rows,
    scratch,
)
from . import cuda
from .reduction import row_dot


def check_normalized(name: str, x: Array, normalized_ndim: int, **parameters: Array | None) -> None:
    """Raise a ValueError unless every parameter has the shape of the normalised axes."""
    if not 1 <= normalized_ndim <= x.ndim:
        raise ValueError(f"{name}: normalized_ndim is {normalized_ndim}, x has shape {x.shape}")
    shape = x.shape[x.ndim - normalized_ndim :]
    for key, value in parameters.items():
        if value is not None and value.shape != shape:
            raise ValueError(
                f"{name}: {key} has shape {value.shape}, the last {normalized_ndim} axes of x "
                f"(shape {x.shape}) need {shape}"
            )


def flat_rows(x: Array, normalized_ndim: int) -> Array:
    """Return `x` as a matrix with one row per normalised vector."""
    width = math.prod(x.shape[x.ndim - normalized_ndim :])
    return x.reshape(math.prod(x.shape[: x.ndim - normalized_ndim]), width)


def outer(column: Array, row: Array, like: Array) -> Array:
    """Return ``column * row`` in scratch: (n, 1) times (m,), in the shape and type of `like`.

    A product of matrices writes it three times as fast as NumPy broadcasts. BLAS is used from
    an inner size of two, so each factor gets a zero beside it.
    """
    xp, out = array_module(like), scratch("outer", like)
    if xp is not np:
        return xp.multiply(column, row, out=out)
    left, right = np.zeros((len(column), 2), like.dtype), np.zeros((2, len(row)), like.dtype)
    left[:, :1], right[0] = column, row
    return np.matmul(left, right, out=out)


def layer_norm_forward(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    *,
    normalized_ndim: int = 1,
    eps: float = 1e-5,
) -> tuple[Array, tuple[Any, ...]]:
    """Layer normalisation, (x - mean) / √(var + ε) · γ + β.

    Parameters
    ----------
    x : (..., *normalized) array
        Input; its last `normalized_ndim` axes are normalised together.
    weight : (*normalized) array or None
        The gain γ.
    bias : (*normalized) array or None
        The shift β.
    normalized_ndim : int
        How many trailing axes are normalised.
    eps : float
        Added to the variance, inside the root.

    Returns
    -------
    y : array
        As `x`.
    saved : tuple
        `x`, `weight`, and per row ``mean`` and ``rstd`` = 1/√(var + ε).

    Raises
    ------
    ValueError
        If `weight` or `bias` has another shape than the normalised axes.

    Notes
    -----
    The variance is biased: it divides by the number of elements, not by one less.
    With x̂ = (x - mean) · rstd and dx̂ = dy ∘ γ:
    ``dx = rstd (dx̂ - mean(dx̂) - x̂ mean(dx̂ ∘ x̂))``, ``dγ = Σ dy ∘ x̂``, ``dβ = Σ dy``.

    Card: ``minitransformer cards layer-norm``.

    References
    ----------
    .. [1] Ba, Kiros and Hinton, "Layer normalization", arXiv:1607.06450, equations 3 and 4.

    Examples
    --------
    >>> y, _ = layer_norm_forward(np.array([[1.0, 3.0]]), None, None, eps=0.0)
    >>> y.tolist()
    [[-1.0, 1.0]]
    """
    check_normalized("layer_norm", x, normalized_ndim, weight=weight, bias=bias)
    xp = array_module(x)
    rows, wide = flat_rows(x, normalized_ndim), accumulator(x.dtype)
    gain = None if weight is None else weight.reshape(-1)
    shift = None if bias is None else bias.reshape(-1)
    y = aligned_empty(rows.shape, x)
    mean = xp.empty((len(rows), 1), wide)
    rstd = xp.empty((len(rows), 1), wide)

    width = rows.shape[1]
    ones = xp.ones((width, 1), wide)

    def work(r: slice) -> None:
        x_r = rows[r].astype(wide, copy=False)
        xp.divide(x_r @ ones, width, out=mean[r])
        x_hat = xp.subtract(x_r, mean[r], out=scratch("x_hat", x_r))
        rstd[r] = 1 / xp.sqrt(row_dot(x_hat, x_hat) / width + eps)
        x_hat *= rstd[r] if gain is None else outer(rstd[r], gain, like=x_hat)
        xp.add(x_hat, 0 if shift is None else shift, out=y[r], casting="same_kind")

    if cuda.fits(rows) and rows.shape[1] <= cuda.WIDEST:
        cuda.layer_norm_forward(rows, gain, shift, y, mean, rstd, eps)
    elif rows.size:
        run_rows(work, len(rows), rows.shape[1], rows)
    return y.reshape(x.shape), (x, weight, mean, rstd, bias is not None, normalized_ndim)


def layer_norm_backward(
    dy: Array, saved: tuple[Any, ...]
) -> tuple[Array, Array | None, Array | None]:
    """Return ``(dx, dweight, dbias)``."""
    x, weight, mean, rstd, has_bias, normalized_ndim = saved
    xp = array_module(x)
    rows, dy_rows = flat_rows(x, normalized_ndim), flat_rows(dy, normalized_ndim)
    gain = None if weight is None else weight.reshape(-1)
    n, width = rows.shape
    parts = row_blocks(n, width, like=rows)
    dx = aligned_empty(rows.shape, x)
    dgain, dshift = xp.zeros((2, len(parts), width), mean.dtype)  # a row per block
    g = xp.ones((width, 1), mean.dtype)
    if gain is not None:
        g[:, 0] = gain

    def work(i: int) -> None:
        r = parts[i]
        x_r, dy_r = (a[r].astype(mean.dtype, copy=False) for a in (rows, dy_rows))
        centred = xp.subtract(x_r, mean[r], out=scratch("x_hat", x_r))
        t = xp.multiply(dy_r, centred, out=scratch("t", x_r))
        dgain[i] = (rstd[r].T @ t)[0]
        dshift[i] = xp.ones(len(dy_r), mean.dtype) @ dy_r
        shift = rstd[r] * (dy_r @ g) / width  # rstd mean(dx̂)
        centred *= rstd[r] * (rstd[r] * (rstd[r] * (t @ g) / width))  # rstd x̂ mean(dx̂ ∘ x̂)
        xp.multiply(dy_r, outer(rstd[r], g[:, 0], like=t), out=t)
        t -= centred
        xp.subtract(t, shift, out=dx[r], casting="same_kind")

    if cuda.fits(rows, dy_rows) and width <= cuda.WIDEST:
        dgain, dshift = cuda.layer_norm_backward(dy_rows, rows, gain, mean, rstd, dx)[:, None]
    elif rows.size:
        run_blocks(work, range(len(parts)))
    shape = x.shape[x.ndim - normalized_ndim :]
    own = x.dtype if weight is None else weight.dtype  # wider than x's under autocast
    dweight = None if weight is None else dgain.sum(axis=0).astype(own, copy=False)
    dbias = dshift.sum(axis=0).astype(own, copy=False) if has_bias else None
    return (
        dx.reshape(x.shape),
        None if dweight is None else dweight.reshape(shape),
        None if dbias is None else dbias.reshape(shape),
    )
