"""The one tolerance rule, and the error it measures.

A result may be at most twice (a gradient three times) as far from the float64 truth as a naive
implementation in the same dtype, plus four roundings at the size of the result (the rule of
FlashAttention's tests; Dao et al. 2022, https://arxiv.org/abs/2205.14135). No test picks a
tolerance of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from minitransformer.backend import is_floating, limits

FACTOR = {"forward": 2.0, "backward": 3.0}
ROUNDINGS = 4.0


def largest_error(found: np.ndarray, exact: np.ndarray) -> float:
    """Largest absolute difference over the elements where the truth is finite."""
    finite = np.isfinite(exact)
    if not finite.any():
        return 0.0
    difference = np.abs(found[finite].astype(np.float64) - exact[finite])
    return float(difference.max())


def relative_rounding(dtype: np.dtype) -> float:
    """Machine epsilon of a floating dtype."""
    return float(limits(dtype).eps)


def _same_pattern(name: str, ours: np.ndarray, exact: np.ndarray) -> None:
    if not np.array_equal(np.isnan(ours), np.isnan(exact)):
        raise AssertionError(
            f"{name}: NaN in {int(np.isnan(ours).sum())} of {ours.size} elements, "
            f"where the reference has {int(np.isnan(exact).sum())}"
        )
    # What float64 holds may overflow in a smaller dtype: that, too, is the right answer there.
    with np.errstate(over="ignore"):
        expected = exact.astype(ours.dtype)
    if not np.array_equal(np.where(np.isinf(ours), ours, 0), np.where(np.isinf(expected), ours, 0)):
        raise AssertionError(f"{name}: infinities are not where the reference has them")
    if not np.array_equal(np.isinf(ours), np.isinf(expected)):
        raise AssertionError(f"{name}: infinities are not where the reference has them")
    signs = np.isinf(ours)
    if not np.array_equal(ours[signs] > 0, exact[signs] > 0):
        raise AssertionError(f"{name}: an infinity has the wrong sign")


def allowance(
    exact: np.ndarray,
    naive: np.ndarray,
    dtype: np.dtype,
    kind: Literal["forward", "backward"] = "forward",
    also: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    size: float = 0.0,
) -> float:
    """How far from `exact` a result of `dtype` may be.

    A naive result of a smaller dtype is allowed: its error is scaled by the ratio of the two
    roundings. That is how float64 is judged, for which no wider truth is at hand.
    """
    with np.errstate(over="ignore"):
        finite = np.isfinite(exact) & np.isfinite(exact.astype(dtype))
    scale = max(size, float(np.abs(exact[finite]).max(initial=0.0)))
    ratio = relative_rounding(dtype) / relative_rounding(naive.dtype)
    errors = [largest_error(naive[finite], exact[finite])]
    errors += [largest_error(other, truth) for truth, other in also]
    # A naive form that broke down excuses nothing.
    of_naive = ratio * max((error for error in errors if np.isfinite(error)), default=0.0)
    # Below the smallest normal number roundings are absolute, not relative.
    tiny = float(limits(dtype).smallest_subnormal)
    # The truth itself carries a naive error where it is no wider than the result.
    factor = FACTOR[kind] + (1.0 if dtype == np.float64 else 0.0)
    return factor * of_naive + ROUNDINGS * (relative_rounding(dtype) * scale + tiny)


def assert_close(
    ours: Any,
    exact: Any,
    naive: Any,
    kind: Literal["forward", "backward"] = "forward",
    name: str = "result",
    also: Sequence[tuple[Any, Any]] = (),
    size: float = 0.0,
) -> float:
    """Hold `ours` against the truth and a naive form; return its error in units of the rule.

    Parameters
    ----------
    ours
        Array under test.
    exact
        The same quantity in float64: the truth.
    naive
        The same quantity from a naive implementation in the dtype of `ours` or a smaller one.
    kind
        "forward" allows twice the naive error, "backward" three times.
    name
        What a failure calls the array.
    also
        Further (exact, naive) pairs that the naive error is measured on.
    size
        Size of the terms that cancel in the result, where they can cancel altogether: the
        scale is at least that.

    Returns
    -------
    float
        ``err(ours) / (factor * err(naive) + 4 eps scale)``: at most 1, or this raises.
    """
    for label, array in (("ours", ours), ("exact", exact), ("naive", naive)):
        if not isinstance(array, np.ndarray | np.generic):
            raise TypeError(f"{name}: {label} is {type(array).__name__}, not an array")
    if kind not in FACTOR:
        raise ValueError(f"{name}: kind is 'forward' or 'backward', not {kind!r}")
    if ours.shape != exact.shape or naive.shape != exact.shape:
        raise AssertionError(
            f"{name}: shape {ours.shape}, reference {exact.shape}, naive {naive.shape}"
        )
    if ours.dtype.kind in "biu":
        if exact.dtype.kind not in "biu" or not np.array_equal(ours, exact):
            raise AssertionError(f"{name}: integers or truth values differ from the reference")
        return 0.0
    if exact.dtype != np.float64:
        raise AssertionError(f"{name}: the reference is {exact.dtype}, not float64")
    if not (is_floating(ours.dtype) and is_floating(naive.dtype)):
        raise AssertionError(f"{name}: dtypes {ours.dtype} and {naive.dtype} are not floating")
    if relative_rounding(naive.dtype) < relative_rounding(ours.dtype):
        raise AssertionError(f"{name}: dtype {ours.dtype}, while the naive form has {naive.dtype}")
    _same_pattern(name, ours, exact)
    with np.errstate(over="ignore"):
        finite = np.isfinite(exact) & np.isfinite(exact.astype(ours.dtype))
    error = largest_error(ours[finite], exact[finite])
    allowed = allowance(exact, naive, ours.dtype, kind, also, size)
    units = error / allowed
    if not units <= 1.0:  # also refuses NaN
        where = np.unravel_index(
            np.argmax(np.where(finite, np.abs(ours.astype(np.float64) - exact), -1)), exact.shape
        )
        where = tuple(int(i) for i in where)
        raise AssertionError(
            f"{name}: error {error:.3g} is {units:.3g} x the rule's {allowed:.3g} "
            f"at {where}: {ours[where]!r}, reference {exact[where]!r}"
        )
    return units
