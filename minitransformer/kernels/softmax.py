"""Softmax and its logarithm, over blocks of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import Array, array_module, run_rows
from . import cuda


def softmax_rows(x: Array, out: Array) -> None:
    """Write the softmax of the rows of `x` to `out`: exp(x - max) / Σ exp(x - max)."""
    xp = array_module(x)
    xp.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    xp.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)


def log_softmax_rows(x: Array, out: Array) -> None:
    """Write x - max - log Σ exp(x - max) to `out`."""
    xp = array_module(x)
    xp.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    out -= xp.log(xp.exp(out).sum(axis=-1, keepdims=True))


def _rowwise(
    formula: Callable[..., None],
    arrays: tuple[Array, ...],
    axis: int,
    fused: Callable[..., None] | None = None,
) -> Array:
    """Apply a formula for rows along any axis: ``formula(*blocks, out_block)``."""
    xp = array_module(arrays[0])
    moved = [xp.moveaxis(a, axis, -1) for a in arrays]
    shape = moved[0].shape
    rows = [m.reshape(-1, shape[-1]) if m.size else m.reshape(0, shape[-1]) for m in moved]
    out = xp.empty_like(rows[0], order="C")

    def work(r: slice) -> None:
        formula(*[a[r] for a in rows], out[r])

    if fused is not None and cuda.fits(*rows) and shape[-1] <= cuda.WIDEST:
        fused(*rows, out)
    elif out.size:
        run_rows(work, len(out), out.shape[1], out)
    return xp.moveaxis(out.reshape(shape), -1, axis)


def _with_axis(x: Array, compute: Callable[[Array], Array]) -> Array:
    return compute(x[None])[0] if x.ndim == 0 else compute(x)


def softmax_forward(x: Array, *, axis: int = -1) -> tuple[Array, tuple[Any, ...]]:
    """Softmax, exp(x_i) / Σ_j exp(x_j) along an axis.

    Parameters
    ----------
    x : array of any shape
        Logits.
    axis : int
        The axis whose weights sum to one.

    Returns
    -------
    P : array
        As `x`; a row of nothing but -inf is NaN, as in PyTorch.
    saved : tuple
        `P` and the axis.

    Notes
    -----
    The maximum is subtracted first, which changes nothing and cannot overflow.
    ``dx = P ∘ (dP - Σ dP ∘ P)``.

    Card: ``minitransformer cards softmax``.

    References
    ----------
    .. [1] Bridle, "Probabilistic interpretation of feedforward classification network
       outputs", 1990, the normalised exponential.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_forward(np.array([0.0, 0.0]))[0].tolist()
    [0.5, 0.5]
    """
    P = _with_axis(x, lambda v: _rowwise(softmax_rows, (v,), axis, cuda.softmax_forward))
    return P, (P, axis)


def softmax_backward(dP: Array, saved: tuple[Any, ...]) -> tuple[Array]:
    """Return ``(dx,)``."""
    P, axis = saved

    def formula(dP: Array, P: Array, dx: Array) -> None:
        xp = array_module(P)
        xp.multiply(dP, P, out=dx)
        dx -= P * dx.sum(axis=-1, keepdims=True)

    if P.ndim == 0:
        return (_rowwise(formula, (dP[None], P[None]), axis)[0],)
    return (_rowwise(formula, (dP, P), axis, cuda.softmax_backward),)


def log_softmax_forward(x: Array, *, axis: int = -1) -> tuple[Array, tuple[Any, ...]]:
    """Logarithm of the softmax, x_i - log Σ_j exp(x_j).

    Parameters
    ----------
    x : array of any shape
        Logits.
    axis : int
        The axis along which the probabilities sum to one.

    Returns
    -------
    log_P : array
        As `x`.
    saved : tuple
        `log_P` and the axis.

    Notes
    -----
    ``dx = dy - exp(log_P) Σ dy``.

    Card: ``minitransformer cards log-softmax``.

    References
    ----------
    .. [1] Blanchard, Higham and Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA J. Numer. Anal. 41 (2021), equation 1.3.

    Examples
    --------
    >>> import numpy as np
    >>> log_softmax_forward(np.array([0.0, 0.0]))[0].round(4).tolist()
    [-0.6931, -0.6931]
    """
    log_P = _with_axis(x, lambda v: _rowwise(log_softmax_rows, (v,), axis))
    return log_P, (log_P, axis)


def log_softmax_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array]:
    """Return ``(dx,)``."""
    log_P, axis = saved

    def formula(dy: Array, log_P: Array, dx: Array) -> None:
        xp = array_module(log_P)
        xp.exp(log_P, out=dx)
        dx *= dy.sum(axis=-1, keepdims=True)
        xp.subtract(dy, dx, out=dx)

    if log_P.ndim == 0:
        return (_rowwise(formula, (dy[None], log_P[None]), axis)[0],)
    return (_rowwise(formula, (dy, log_P), axis),)
