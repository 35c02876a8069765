"""Say in words how a wrong formula differs from the right one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.cards.card import Card
from minitransformer.verify.compare import Compute, Probe, discrepancy
from minitransformer.verify.number_systems import FLOATS, CannotEvaluate, Point

FIT_SIZES = (2, 3, 5, 8)
FIT_OTHERS = {"n_q": (2, 4, 7), "n_k": (3, 4, 5), "d_v": (5, 6, 9)}  # the first is the base


@dataclass(frozen=True)
class Power:
    """A factor c·d^a of one dimension d."""

    coefficient: float
    exponent: Fraction
    dimension: str = "d_k"

    def text(self) -> str:
        """Write the factor as a reader would: ``1/√d_k``, ``2·d_k``."""
        c = neat(self.coefficient)
        a, d = self.exponent, self.dimension
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


def symbolic(power: Power, symbols: Mapping[str, float]) -> str:
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
                tail = replace(power, coefficient=rest).text()
                if tail == "1":
                    return front
                return f"{front}{tail[1:]}" if tail.startswith("1/") else f"{front}·{tail}"
    return power.text()


def fit_power(
    sizes: Sequence[int], values: Sequence[float], dimension: str = "d_k"
) -> Power | None:
    """Fit values = c·d^a with a a multiple of 1/4; None where that fails."""
    if any(not math.isfinite(v) or v == 0 for v in values) or len({v > 0 for v in values}) > 1:
        return None
    slope = math.log(abs(values[-1] / values[0])) / math.log(sizes[-1] / sizes[0])
    a = Fraction(round(slope * 4), 4)
    coefficients = [v / s ** float(a) for s, v in zip(sizes, values)]
    if max(coefficients) - min(coefficients) > 1e-9 * max(abs(c) for c in coefficients):
        return None
    return Power(coefficients[0], a, dimension)


@dataclass(frozen=True)
class AttentionFit:
    """The claim is outer · softmax(inner · QKᵀ) V; row sums of its weights are ``outer``."""

    outer: Power
    inner: Power | None


def fit_attention(card: Card, compute: Compute, point: Point) -> AttentionFit | None:
    """Fit A·d^a · softmax(B·d^b · QKᵀ) V to a claim about attention.

    Both factors are measured while one dimension at a time is varied: a factor that depends on
    the number of keys is not called a number. One that depends on two dimensions is not named.
    """
    base = {d: sizes[0] for d, sizes in FIT_OTHERS.items()}
    along: dict[str, tuple[tuple[int, ...], list[dict[str, int]]]] = {}
    along["d_k"] = (FIT_SIZES, [base | {"d_k": d} for d in FIT_SIZES])
    for d, others in FIT_OTHERS.items():
        along[d] = (others, [base | {"d_k": FIT_SIZES[0], d: size} for size in others])
    fits: dict[str, tuple[Power | None, Power | None]] = {}
    for d, (sizes, trials) in along.items():
        measured = [_factors(card, compute, point, trial) for trial in trials]
        found = [m for m in measured if m is not None]
        if len(found) < len(measured):
            return None
        outers, inners = zip(*found)
        fits[d] = fit_power(sizes, outers, d), fit_power(sizes, inners, d)
    outer, inner = (_one_dimension([fit[k] for fit in fits.values()]) for k in (0, 1))
    return None if outer is None else AttentionFit(outer, inner)


def _one_dimension(powers: Sequence[Power | None]) -> Power | None:
    """Return the factor in the one dimension it depends on, d_k where it depends on none."""
    if any(power is None for power in powers):
        return None
    found = [power for power in powers if power is not None]
    varying = [power for power in found if power.exponent != 0]
    return found[0] if not varying else varying[0] if len(varying) == 1 else None


def _factors(
    card: Card, compute: Compute, point: Point, sizes: dict[str, int]
) -> tuple[float, float] | None:
    """Measure both factors at one size.

    With V the identity the claim's value is its table of weights: row sums give the
    outer factor, log-ratios over score differences the inner one.
    """
    n_q, n_k, d_v = sizes["n_q"], sizes["n_k"], sizes["d_v"]
    trial = card.at({**point.sizes, **sizes}, 7)
    inputs = dict(trial.inputs)
    for key, value in point.inputs.items():
        inputs.setdefault(key, value)
    weights_only = card.output == ("n_q", "n_k")
    if not weights_only:
        identity = [[Fraction(int(i == j)) for j in range(d_v)] for i in range(n_k)]
        inputs["V"] = np.array(identity, dtype=object)
    trial = Point(inputs, trial.sizes, trial.functions)
    try:
        claimed = np.asarray(compute(trial, FLOATS), dtype=np.float64)
    except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError):
        return None
    if claimed.shape != (n_q, n_k if weights_only else d_v) or not np.isfinite(claimed).all():
        return None
    claimed = claimed[:, :n_k]
    sums = claimed.sum(axis=1)
    if np.ptp(sums) > 1e-9 * abs(sums[0]) or sums[0] == 0:
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
    return float(sums[0]), float(slopes[0])


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
        power = fit_power([s for s, _ in by_size], [r for _, r in by_size], dim)
        if power is not None:
            return power.text()
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
