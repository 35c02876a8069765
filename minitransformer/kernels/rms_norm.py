"""Root-mean-square normalisation, over blocks of rows."""

from __future__ import annotations

from typing import Any

from ..backend import (
    Array,
    accumulator,
    aligned_empty,
    array_module,
    limits,
    row_blocks,
    run_blocks,
    run_rows,
    scratch,
)
from .layer_norm import check_normalized, flat_rows, outer
from .reduction import row_dot


def rms_norm_forward(
    x: Array, weight: Array | None, *, normalized_ndim: int = 1, eps: float | None = None
) -> tuple[Array, tuple[Any, ...]]:
    """RMS normalisation, x / √(mean(x²) + ε) · g.

    Parameters
    ----------
    x : (..., *normalized) array
        Input; its last `normalized_ndim` axes are normalised together.
    weight : (*normalized) array or None
        The gain g.
    normalized_ndim : int
        How many trailing axes are normalised.
    eps : float, optional
        Added to the mean square, inside the root; the type's machine epsilon if not given.

    Returns
    -------
    y : array
        As `x`.
    saved : tuple
        `x`, `weight`, and per row ``rstd`` = 1/√(mean(x²) + ε).

    Raises
    ------
    ValueError
        If `weight` has another shape than the normalised axes.

    Notes
    -----
    With x̂ = x · rstd and dx̂ = dy ∘ g: ``dx = rstd (dx̂ - x̂ mean(dx̂ ∘ x̂))``,
    ``dg = Σ dy ∘ x̂``.

    Card: ``minitransformer cards rms-norm``.

    References
    ----------
    .. [1] Zhang and Sennrich, "Root mean square layer normalization",
       arXiv:1910.07467, equation 4.

    Examples
    --------
    >>> import numpy as np
    >>> y, _ = rms_norm_forward(np.array([[3.0, 4.0]]), None, eps=0.0)
    >>> (y * 12.5**0.5).round(6).tolist()
    [[3.0, 4.0]]
    """
    check_normalized("rms_norm", x, normalized_ndim, weight=weight)
    xp = array_module(x)
    rows, wide = flat_rows(x, normalized_ndim), accumulator(x.dtype)
    eps = float(limits(x.dtype).eps) if eps is None else eps
    gain = None if weight is None else weight.reshape(-1)
    y = aligned_empty(rows.shape, x)
    rstd = xp.empty((len(rows), 1), wide)

    def work(r: slice) -> None:
        x_r = rows[r].astype(wide, copy=False)
        rstd[r] = 1 / xp.sqrt(row_dot(x_r, x_r) / x_r.shape[-1] + eps)
        scale = rstd[r] if gain is None else outer(rstd[r], gain, like=x_r)
        xp.multiply(x_r, scale, out=y[r], casting="same_kind")

    if rows.size:
        run_rows(work, len(rows), rows.shape[1], rows)
    return y.reshape(x.shape), (x, weight, rstd, normalized_ndim)


def rms_norm_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array, Array | None]:
    """Return ``(dx, dweight)``."""
    x, weight, rstd, normalized_ndim = saved
    xp = array_module(x)
    rows, dy_rows = flat_rows(x, normalized_ndim), flat_rows(dy, normalized_ndim)
    gain = None if weight is None else weight.reshape(-1)
    n, width = rows.shape
    parts = row_blocks(n, width, like=rows)
    dx = aligned_empty(rows.shape, x)
    dgain = xp.zeros((len(parts), width), rstd.dtype)  # a row per block
    g = xp.ones((width, 1), rstd.dtype)
    if gain is not None:
        g[:, 0] = gain

    def work(i: int) -> None:
        r = parts[i]
        x_r, dy_r = (a[r].astype(rstd.dtype, copy=False) for a in (rows, dy_rows))
        t = xp.multiply(dy_r, x_r, out=scratch("t", x_r))
        dgain[i] = (rstd[r].T @ t)[0]
        along = rstd[r] * (rstd[r] * (rstd[r] * (t @ g) / width))
        parallel = xp.multiply(x_r, along, out=scratch("x_hat", x_r))  # rstd x̂ mean(dx̂ ∘ x̂)
        xp.multiply(dy_r, outer(rstd[r], g[:, 0], like=t), out=t)
        xp.subtract(t, parallel, out=dx[r], casting="same_kind")

    if rows.size:
        run_blocks(work, range(len(parts)))
    dweight = None
    if weight is not None:
        dweight = dgain.sum(axis=0).astype(weight.dtype, copy=False).reshape(weight.shape)
    return dx.reshape(x.shape), dweight
