"""Softmax and its logarithm, over blocks of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array, accumulator, array_module, run_rows, scratch
from . import cuda
from .reduction import row_dot

CALM = 80.0  # exponents up to here neither overflow in float32 nor vanish


def _anchor(x: Array) -> Array | None:
    """Return what to subtract from the rows of `x` before exp; None if nothing needs to be.

    That is a row's maximum, or zero where |x| as a vector shows all its elements small: NumPy's
    scalar product takes a tenth of the time of its maximum. No row looks at another.
    """
    xp = array_module(x)
    if xp is not np:
        return x.max(axis=-1, keepdims=True)
    calm = row_dot(x, x) <= CALM**2
    return None if calm.all() else np.where(calm, 0, x.max(axis=-1, keepdims=True))


def _row_sums(x: Array) -> Array:
    return x @ array_module(x).ones((x.shape[1], 1), x.dtype)


def softmax_rows(x: Array, out: Array) -> None:
    """Write the softmax of the rows of `x` to `out`: exp(x - max) / Σ exp(x - max)."""
    xp, anchor = array_module(x), _anchor(x)
    xp.exp(x if anchor is None else xp.subtract(x, anchor, out=out), out=out)
    out /= _row_sums(out)


def log_softmax_rows(x: Array, out: Array) -> None:
    """Write x - max - log Σ exp(x - max) to `out`."""
    xp = array_module(x)
    xp.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    out -= xp.log(_row_sums(xp.exp(out, out=scratch("exp", out))))


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

    wide = accumulator(out.dtype)

    def work(r: slice) -> None:
        blocks = [a[r].astype(wide, copy=False) for a in rows]
        result = out[r] if out.dtype == wide else scratch("wide", blocks[0])
        formula(*blocks, result)
        if result.dtype != out.dtype:
            out[r] = result

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
    The maximum is subtracted first where exp could overflow, which changes nothing.
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
        array_module(P).subtract(dP, row_dot(dP, P), out=dx)
        dx *= P

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
        dx *= _row_sums(dy)
        xp.subtract(dy, dx, out=dx)

    if log_P.ndim == 0:
        return (_rowwise(formula, (dy[None], log_P[None]), axis)[0],)
    return (_rowwise(formula, (dy, log_P), axis),)
