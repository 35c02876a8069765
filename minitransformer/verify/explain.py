"""Say in words how a wrong formula differs from the right one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.cards.card import Card
from minitransformer.verify.compare import Compute, Probe, discrepancy
from minitransformer.verify.evaluate import FLOATS, CannotEvaluate, Point

FIT_SIZES = (2, 3, 5, 8)


@dataclass(frozen=True)
class Power:
    """A factor c·d^a."""

    coefficient: float
    exponent: Fraction

    def text(self, d: str = "d_k") -> str:
        """Write the factor as a reader would: ``1/√d_k``, ``2·d_k``."""
        c = neat(self.coefficient)
        a = self.exponent
        if a == 0:
            return c
        half = {Fraction(1, 2): f"√{d}", Fraction(1): d, Fraction(1, 4): f"{d}^(1/4)"}
        body = half.get(abs(a), f"{d}^{abs(a)}")
        if a < 0:
            return f"{c}/{body}"
        return body if c == "1" else f"{c}·{body}"


def neat(value: float) -> str:
    """Write a number as a fraction or a root where it is one."""
    for k in range(1, 13):
        if abs(value * k - round(value * k)) < 1e-9:
            return str(Fraction(round(value * k), k))
    square = value * value
    for k in range(1, 65):
        if abs(square * k - round(square * k)) < 1e-9 and round(square * k) > 0:
            q = Fraction(round(square * k), k)
            sign = "-" if value < 0 else ""
            return f"{sign}√{q}" if q.denominator == 1 else f"{sign}√({q})"
    return f"{value:.6g}"


def symbolic(power: Power, symbols: Mapping[str, float], d: str = "d_k") -> str:
    """Write a factor with a free symbol in it, if one accounts for its coefficient.

    Examples
    --------
    >>> symbolic(Power(0.40625, Fraction(-1, 2)), {"scale": 0.40625})
    'scale/√d_k'
    """
    for symbol, value in symbols.items():
        for rest, front in (
            (power.coefficient / value, symbol),
            (power.coefficient * value, f"1/{symbol}"),
        ):
            text = neat(rest)
            if "." not in text and "e" not in text:
                tail = Power(rest, power.exponent).text(d)
                if tail == "1":
                    return front
                return f"{front}{tail[1:]}" if tail.startswith("1/") else f"{front}·{tail}"
    return power.text(d)


def fit_power(sizes: Sequence[int], values: Sequence[float]) -> Power | None:
    """Fit values = c·d^a with a a multiple of 1/4; None where that fails."""
    if any(not math.isfinite(v) or v == 0 for v in values) or len({v > 0 for v in values}) > 1:
        return None
    slope = math.log(abs(values[-1] / values[0])) / math.log(sizes[-1] / sizes[0])
    a = Fraction(round(slope * 4), 4)
    coefficients = [v / s ** float(a) for s, v in zip(sizes, values)]
    if max(coefficients) - min(coefficients) > 1e-9 * max(abs(c) for c in coefficients):
        return None
    return Power(coefficients[0], a)


@dataclass(frozen=True)
class AttentionFit:
    """The claim is outer · softmax(inner · QKᵀ) V; row sums of its weights are ``outer``."""

    outer: Power
    inner: Power | None


def fit_attention(card: Card, compute: Compute, point: Point) -> AttentionFit | None:
    """Fit A·d^a · softmax(B·d^b · QKᵀ) V to a claim about attention.

    With V the identity the claim's value is its table of weights: row sums give the
    outer factor, log-ratios over score differences the inner one.
    """
    weights_only = card.output == ("n_q", "n_k")
    outers, inners = [], []
    for d in FIT_SIZES:
        sizes = {**point.sizes, "d_k": d, "n_q": 2, "n_k": 3, "d_v": 3}
        trial = card.at(sizes, 7)
        inputs = dict(trial.inputs)
        for key, value in point.inputs.items():
            inputs.setdefault(key, value)
        if not weights_only:
            eye = np.empty((3, 3), dtype=object)
            for i in range(3):
                for j in range(3):
                    eye[i, j] = Fraction(int(i == j))
            inputs["V"] = eye
        trial = Point(inputs, sizes, trial.functions)
        try:
            claimed = np.asarray(compute(trial, FLOATS), dtype=np.float64)
        except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError):
            return None
        if claimed.shape != (2, 3) or not np.isfinite(claimed).all():
            return None
        sums = claimed.sum(axis=1)
        if abs(sums[0] - sums[1]) > 1e-9 * abs(sums[0]) or sums[0] == 0:
            return None
        p = claimed / sums[0]
        if (p <= 0).any():
            return None
        s = (FLOATS.array(inputs["Q"]) @ FLOATS.array(inputs["K"]).T).astype(np.float64)
        ds, dp = np.diff(s, axis=1).ravel(), np.diff(np.log(p), axis=1).ravel()
        usable = np.abs(ds) > 1e-9
        if not usable.any():
            return None
        slopes = dp[usable] / ds[usable]
        if np.ptp(slopes) > 1e-8 * max(1e-12, np.abs(slopes).max()):
            return None
        outers.append(float(sums[0]))
        inners.append(float(slopes[0]))
    outer = fit_power(FIT_SIZES, outers)
    if outer is None:
        return None
    return AttentionFit(outer, fit_power(FIT_SIZES, inners))


def times(ratio: float, card: Card) -> str:
    """Say that a claim is a multiple of a card; a factor beside 1 is a rounded constant."""
    if abs(ratio - 1) < 1e-6:
        return f"{card.name} but for a rounded constant (a factor 1 {ratio - 1:+.1e})"
    return f"{neat(ratio)} times {card.name}"


def constant_ratio(card: Card, compute: Compute, probes: Sequence[Probe]) -> float | None:
    """Return c if the claim is c × the reference at every probe, the same c everywhere."""
    ratios = []
    for probe in probes:
        try:
            claimed = np.asarray(compute(probe.point, FLOATS), dtype=np.float64)
        except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError):
            return None
        reference = probe.floats
        if claimed.shape != reference.shape:
            return None
        finite = np.isfinite(reference) & (np.abs(reference) > 1e-12)
        if not finite.any():
            continue
        r = claimed[finite] / reference[finite]
        if not np.isfinite(r).all() or np.ptp(r) > 1e-9 * max(1e-30, np.abs(r).max()):
            return None
        if (np.abs(claimed[~finite & np.isfinite(reference)]) > 1e-9).any():
            return None
        ratios.append(float(r.flat[0]))
    if len(ratios) < 2 or max(ratios) - min(ratios) > 1e-9 * abs(ratios[0]):
        return None
    return ratios[0]


def size_ratio(card: Card, compute: Compute, probes: Sequence[Probe]) -> str:
    """Return the ratio of claim to reference where it is a power of one dimension."""
    per: list[tuple[dict[str, int], float]] = []
    for probe in probes:
        try:
            claimed = np.asarray(compute(probe.point, FLOATS), dtype=np.float64)
        except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError):
            return ""
        reference = probe.floats
        if claimed.shape != reference.shape:
            return ""
        ok = np.isfinite(reference) & (np.abs(reference) > 1e-12)
        if not ok.any():
            continue
        r = claimed[ok] / reference[ok]
        if not np.isfinite(r).all() or np.ptp(r) > 1e-9 * max(1e-30, np.abs(r).max()):
            return ""
        per.append((dict(probe.point.sizes), float(r.flat[0])))
    for dim in card.dims:
        by_size = sorted({(sizes[dim], ratio) for sizes, ratio in per})
        if len({s for s, _ in by_size}) != len(by_size) or len(by_size) < 3:
            continue
        power = fit_power([s for s, _ in by_size], [r for _, r in by_size])
        if power is not None:
            return power.text(dim)
    return ""


def resembles(
    mistakes: Sequence[tuple[str, str, Callable[[Point], Any]]],
    compute: Compute,
    probes: Sequence[Probe],
) -> tuple[str, str] | None:
    """Return the known mistake that a claim equals at every probe."""
    points = [p.point for p in probes]
    try:
        claimed = [compute(point, FLOATS) for point in points]
    except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError, KeyError):
        return None
    for says, seen, mistake in mistakes:
        try:
            if all(discrepancy(mistake(p), c) < 1e-9 for p, c in zip(points, claimed)):
                return says, seen
        except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError, KeyError):
            continue
    return None
