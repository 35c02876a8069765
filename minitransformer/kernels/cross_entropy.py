"""Softmax and cross-entropy in one pass over the logits; probabilities are never stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import (
    ELEMENTS,
    Array,
    accumulator,
    array_module,
    even_blocks,
    is_floating,
    limits,
    run_blocks,
    run_rows,
    scratch,
)
from . import cuda

# Exponentials whose sum lies between these need no maximum subtracted: neither they nor the
# logarithm of their sum lose digits.
CALM = 1e-4, 1e8
REDUCTIONS = ("none", "mean", "sum")


def _check(
    logits: Array, target: Array, class_weight: Array | None, ignore_index: int,
    label_smoothing: float, reduction: str,
) -> None:  # fmt: skip
    if logits.ndim != 2:
        raise ValueError(f"cross_entropy: logits must be (N, V), found shape {logits.shape}")
    N, V = logits.shape
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction; use one of {REDUCTIONS}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be between 0.0 and 1.0, found {label_smoothing}")
    if class_weight is not None and class_weight.shape != (V,):
        raise ValueError(
            f"cross_entropy: weight has shape {class_weight.shape}; {V} classes need ({V},)"
        )
    if is_floating(target.dtype):
        if target.shape != (N, V):
            raise ValueError(
                f"cross_entropy: target probabilities have shape {target.shape}, logits {(N, V)}"
            )
        return
    if target.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: target must hold class numbers, found {target.dtype}")
    if target.shape != (N,):
        raise ValueError(f"cross_entropy: target has shape {target.shape}, {N} logits need ({N},)")
    if array_module(target) is np and N:  # on a GPU the check would stop the queue
        wrong = (target != ignore_index) & ((target < 0) | (target >= V))
        if wrong.any():
            raise IndexError(
                f"cross_entropy: target {int(target[wrong][0])} at position "
                f"{int(wrong.argmax())} is out of bounds for {V} classes"
            )


def cross_entropy_forward(
    logits: Array,
    target: Array,
    class_weight: Array | None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    loss_dtype: Any = None,
) -> tuple[Array, tuple[Any, ...]]:
    """Cross-entropy of softmax(logits) against class numbers or probabilities.

    Parameters
    ----------
    logits : (N, V) array
        Unnormalised scores.
    target : (N,) integer array, or (N, V) array
        Class numbers, or a distribution per row.
    class_weight : (V,) array or None
        A factor per class.
    ignore_index : int
        Rows with this class number count for nothing.
    label_smoothing : float
        ε: the target becomes (1 - ε) target + ε/V.
    reduction : {"mean", "sum", "none"}
        ``mean`` divides by the weights of the targets, or by N for probabilities.
    loss_dtype : dtype, optional
        Of the loss; float32 keeps the digits that it has for half-precision logits.

    Returns
    -------
    loss : () array, or (N,) array for ``none``
        As `logits` unless `loss_dtype` says otherwise.
    saved : tuple
        The inputs and, per row, the largest logit and the log-sum-exp above it, shape (N, 1)
        each: their sum would round away what large logits leave of the probabilities.

    Raises
    ------
    IndexError
        If a target is no class.
    ValueError
        If shapes or options do not fit.

    Notes
    -----
    With t the smoothed target and log p = x - logsumexp(x), loss = -Σ_c w_c t_c log p_c and
    ``dx = p Σ_c w_c t_c - w ∘ t``: p - t where there are no weights. If every row is
    ignored the mean is 0/0, a NaN, as in PyTorch.

    Card: ``minitransformer cards cross-entropy``.

    References
    ----------
    .. [1] Szegedy et al., "Rethinking the Inception architecture for computer vision",
       arXiv:1512.00567, section 7 (label smoothing, gradient p - q).

    Examples
    --------
    >>> loss, _ = cross_entropy_forward(np.zeros((1, 4)), np.array([2]), None)
    >>> bool(loss.round(6) == np.log(4).round(6))
    True
    """
    _check(logits, target, class_weight, ignore_index, label_smoothing, reduction)
    xp = array_module(logits)
    wide = accumulator(logits.dtype)
    N, V = logits.shape
    top, lse = xp.empty((2, N, 1), wide)  # log-sum-exp of the logits less their largest
    losses = xp.empty(N, wide)
    hard = not is_floating(target.dtype)
    counted: Any = (target != ignore_index) if hard else None
    w = None if class_weight is None else class_weight.astype(wide, copy=False)
    uniform = label_smoothing / V
    plain = hard and w is None and not label_smoothing
    ones = xp.ones(V, wide)

    def quick(r: slice) -> None:
        """Classes alone: loss = log(Σ e^x / e^x_y)."""
        x = logits[r].astype(wide, copy=False)
        P = xp.exp(x, out=scratch("P", x))
        total, chosen = P @ ones, P[xp.arange(len(x)), xp.where(counted[r], target[r], 0)]
        total[~counted[r]] = chosen[~counted[r]] = 1  # these may hold anything: loss 0
        if not (CALM[0] <= total.min() and total.max() <= CALM[1] and chosen.min() > least):
            work(r)
            return
        top[r], lse[r, 0], losses[r] = 0, xp.log(total), xp.log(total / chosen)

    def work(r: slice) -> None:
        x = logits[r].astype(wide, copy=False)
        top[r] = x.max(axis=-1, keepdims=True)
        x = x - top[r]
        lse[r] = xp.log(xp.exp(x).sum(axis=-1, keepdims=True))
        if hard:
            y = xp.where(counted[r], target[r], 0)
            loss = lse[r, 0] - xp.take_along_axis(x, y[:, None], axis=1)[:, 0]
            if w is not None:
                loss *= w[y]
        else:
            t = target[r] if w is None else target[r] * w
            loss = -_weighted_sum(xp, t, x - lse[r])
        if label_smoothing:
            log_p = x - lse[r]
            spread = log_p.sum(axis=-1) if w is None else _weighted_sum(xp, w, log_p)
            loss = (1 - label_smoothing) * loss - uniform * spread
        losses[r] = xp.where(counted[r], loss, wide.type(0)) if hard else loss

    if cuda.fits(logits) and plain:
        cuda.cross_entropy_forward(logits, target, losses, top, lse, ignore_index)
    elif losses.size:
        # above it e^x has all its digits, and the quotient does not overflow
        least = max(limits(wide).tiny, CALM[1] / limits(wide).max)
        if plain and xp is np:
            run_blocks(quick, _long_blocks(N, V))
        else:
            run_rows(work, N, V, like=logits)
    if reduction == "none":
        out, share = losses, None
    elif reduction == "sum":
        out, share = losses.sum(), wide.type(1)
    else:
        total = wide.type(N) if not hard else _total_weight(xp, target, counted, w, wide)
        with np.errstate(all="ignore"):
            out, share = losses.sum() / total, wide.type(1) / total
    out = xp.asarray(out).astype(loss_dtype or logits.dtype, copy=False)
    return out, (logits, target, w, top, lse, counted, share, label_smoothing, ignore_index)


def _long_blocks(N: int, V: int) -> list[slice]:
    """Return blocks of rows for a formula that has one array in cache at a time."""
    rows = min(4 * ELEMENTS // max(1, V), -(-N // 2)) if N * V > ELEMENTS else N
    return even_blocks(N, max(1, rows))


def _weighted_sum(xp: Any, weight: Array, log_p: Array) -> Array:
    """Return Σ_c weight_c log p_c; a class of weight zero may have log p = -inf."""
    return xp.where(weight == 0, log_p.dtype.type(0), weight * log_p).sum(axis=-1)


def _total_weight(xp: Any, target: Array, counted: Any, w: Array | None, wide: Any) -> Any:
    if w is None:
        return counted.sum().astype(wide)
    return xp.where(counted, w[xp.where(counted, target, 0)], wide.type(0)).sum()


def cross_entropy_backward(dout: Array, saved: tuple[Any, ...]) -> tuple[Array, Array | None, None]:
    """Return ``(dlogits, dtarget, None)``; `dtarget` for target probabilities alone."""
    logits, target, w, top, lse, counted, share, smoothing, ignore_index = saved
    xp = array_module(logits)
    N, V = logits.shape
    hard = not is_floating(target.dtype)
    scale = xp.broadcast_to(xp.asarray(dout if share is None else dout * share), (N,))
    dlogits = xp.empty_like(logits, order="C")
    dtarget: Any = None if hard else xp.empty_like(target, order="C")
    uniform = smoothing / V
    plain = hard and w is None and not smoothing

    def quick(r: slice) -> None:
        """Classes alone: dx = dloss e^x / Σ e^x, less dloss at the class."""
        x = logits[r].astype(lse.dtype, copy=False)
        d = dlogits[r] if dlogits.dtype == lse.dtype else scratch("d", x)
        xp.exp(xp.subtract(x, top[r], out=d) if shifted else x, out=d)
        d *= scale[r, None] * xp.exp(-lse[r])
        d[xp.arange(len(d)), xp.where(counted[r], target[r], 0)] -= scale[r]
        if not counted[r].all():  # not multiplied: such a row may hold a NaN, or the mean be 0/0
            d[~counted[r]] = 0
        if d.dtype != dlogits.dtype:
            dlogits[r] = d

    def work(r: slice) -> None:
        log_p = logits[r].astype(lse.dtype, copy=False) - top[r]
        log_p -= lse[r]
        p = xp.exp(log_p)
        weights = 1.0 if w is None else w
        if hard:
            y = xp.where(counted[r], target[r], 0)[:, None]
            on_target = (1 - smoothing) * (1.0 if w is None else w[y])
            spread = uniform * (V if w is None else w.sum())
            d = p * (on_target + spread) if w is not None or smoothing else p
            if smoothing:
                d -= uniform * weights
            picked = xp.take_along_axis(d, y, axis=1) - on_target
            xp.put_along_axis(d, y, picked.astype(d.dtype, copy=False), axis=1)
        else:
            t = ((1 - smoothing) * target[r] + uniform) * weights
            d = p * t.sum(axis=-1, keepdims=True) - t
            dtarget[r] = -(1 - smoothing) * weights * log_p * scale[r, None]
        d *= scale[r, None]
        # select, do not multiply: an ignored row may hold a NaN, or the mean be 0/0
        dlogits[r] = xp.where(counted[r, None], d, d.dtype.type(0)) if hard else d

    if cuda.fits(logits) and plain:
        wide = scale.astype(lse.dtype, copy=False)
        cuda.cross_entropy_backward(logits, target, top, lse, wide, dlogits, ignore_index)
    elif dlogits.size:
        if plain and xp is np:
            shifted = bool(top.any())
            run_blocks(quick, _long_blocks(N, V))
        else:
            run_rows(work, N, V, like=logits)
    return dlogits, dtarget, None
