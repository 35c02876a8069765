"""Layer normalisation, over blocks of rows."""

from __future__ import annotations

import math
from typing import Any

from ..backend import Array, accumulator, array_module, row_blocks, run_blocks, run_rows
from . import cuda


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
    y = xp.empty(rows.shape, x.dtype)
    mean = xp.empty((len(rows), 1), wide)
    rstd = xp.empty((len(rows), 1), wide)

    def work(r: slice) -> None:
        x_r = rows[r]
        mean[r] = x_r.mean(axis=-1, keepdims=True, dtype=wide)
        x_hat = x_r - mean[r]
        var = xp.einsum("ij,ij->i", x_hat, x_hat)[:, None] / x_hat.shape[-1]
        rstd[r] = 1 / xp.sqrt(var + eps)
        x_hat *= rstd[r]
        if gain is not None:
            x_hat *= gain
        if shift is not None:
            xp.add(x_hat, shift, out=y[r], casting="same_kind")
        else:
            y[r] = x_hat

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
    dx = xp.empty(rows.shape, x.dtype)
    dgain, dshift = xp.zeros((2, len(parts), width), mean.dtype)  # a row per block

    def work(i: int) -> None:
        r = parts[i]
        dy_r = dy_rows[r]
        x_hat = (rows[r] - mean[r]) * rstd[r]
        dgain[i] = xp.einsum("ij,ij->j", dy_r, x_hat)
        dshift[i] = dy_r.sum(axis=0, dtype=mean.dtype)
        dx_hat = dy_r * (gain if gain is not None else mean.dtype.type(1))
        projection = xp.einsum("ij,ij->i", dx_hat, x_hat)[:, None] / width
        x_hat *= projection
        dx_hat -= dx_hat.mean(axis=-1, keepdims=True)
        dx_hat -= x_hat
        dx_hat *= rstd[r]
        dx[r] = dx_hat

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
