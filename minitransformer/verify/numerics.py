"""Gradients and floats, apart from the question of equality.

A formula can be right and lose every bit in float16; two formulas can be close and
have different gradients. Gradients are central differences at 400 bits, so that
their own error is far below anything compared here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.answers import FAILURES
from minitransformer.verify.binding import Bound, bind, sides
from minitransformer.verify.cards import find
from minitransformer.verify.cards.card import Card
from minitransformer.verify.compare import Compute, battery, extend
from minitransformer.verify.dimensions import Term
from minitransformer.verify.evaluate import Evaluator, evaluate
from minitransformer.verify.interpret import interpret, plausible, trees
from minitransformer.verify.number_systems import CannotEvaluate, Floats, Point, precision
from minitransformer.verify.verdict import Finding, Place, Verdict

STEP = Fraction(1, 2**60)
OVERFLOW = {"float16": math.log(65504.0), "float32": math.log(3.4028235e38),
            "float64": math.log(1.7976931348623157e308)}  # fmt: skip
GRADIENT_BITS = 400
CLOSE = 1e-15  # the error of a central difference with that step is about 1e-36


def _to_float16(x: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(np.float16).astype(np.float64)


def _to_bfloat16(x: Any) -> Any:
    with np.errstate(all="ignore"):
        bits = np.atleast_1d(np.asarray(x).astype(np.float32)).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        out = np.where(np.isnan(np.atleast_1d(x)), np.nan, rounded.view(np.float32))
    return out.astype(np.float64).reshape(np.shape(x))


def _to_float32(x: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(np.float32).astype(np.float64)


FORMATS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "float16": (_to_float16, 11),
    "bfloat16": (_to_bfloat16, 8),
    "float32": (_to_float32, 24),
}


class _Rounding(Evaluator):
    """Evaluate in float64 and round every intermediate value to a shorter format."""

    def __init__(self, point: Point, to: Callable[[Any], Any]):
        super().__init__(point, Floats())
        self.to = to
        self.inputs = {k: to(v) for k, v in self.inputs.items()}

    def __call__(self, term: Term) -> Any:
        value = self.to(super().__call__(term))
        return value.item() if np.ndim(value) == 0 else value


def lost_bits(term: Term, card: Card) -> dict[str, float]:
    """Return how many bits of each format a formula loses, at worst over the card's points.

    Zero means as exact as the format allows, the format's own precision (11, 8, 24)
    that nothing is left, ``inf`` that the result is not finite.
    """
    out = {}
    for name, (to, bits) in FORMATS.items():
        worst = 0.0
        for probe in battery(card)[:2]:
            if not np.isfinite(probe.floats).all():
                continue
            try:
                with np.errstate(all="ignore"):
                    value = np.asarray(_Rounding(probe.point, to)(term), dtype=np.float64)
            except (CannotEvaluate, ValueError, TypeError, ArithmeticError):
                return {}
            exact = probe.floats
            if not np.isfinite(value).all():
                worst = math.inf
                continue
            scale = float(np.abs(exact).max()) or 1.0
            error = float(np.abs(value - exact).max()) / scale * 2.0**bits
            worst = max(worst, math.log2(error) if error > 1 else 0.0)
        out[name] = round(worst, 1)
    return out


def slope(compute: Compute, point: Point, variable: str) -> Any:
    """Return the derivative of a value with respect to a number among its inputs."""
    with precision(GRADIENT_BITS) as m:
        ends = []
        for sign in (1, -1):
            moved = point.inputs[variable].copy()
            moved[()] = moved.item() + sign * STEP
            at = Point({**point.inputs, variable: moved}, point.sizes, point.functions)
            ends.append(compute(at, m))
        return (ends[0] - ends[1]) / m.number(2 * STEP)


def decide_gradient(
    forward: Any, backward: Any, card: Card | str, variable: str | None = None
) -> Finding:
    """Decide whether a formula is the derivative of another one.

    Parameters
    ----------
    forward, backward : str, Expr or reading
        The function and its claimed derivative, in the card's symbols.
    card : Card or str
        Gives the symbols their domains; its own value is not used.
    variable : str, optional
        The number to differentiate by; the card's first input otherwise.

    Examples
    --------
    >>> decide_gradient("x * sigmoid(x)", "sigmoid(x)", "silu").verdict.value
    'DIFFERENT'
    """
    card = find(card) if isinstance(card, str) else card
    variable = variable or card.inputs[0].name
    terms = []
    for claim in (forward, backward):
        e = plausible(trees(claim))[0][0]
        lhs, claims, _ = sides(e)
        bound = bind(claims[-1], card, lhs)
        typed = interpret(bound, card)
        if not typed.good or bound.unknown:
            return Finding(
                Place("", 0, ""),
                Verdict.UNDER_SPECIFIED,
                card=card.id,
                explanation="Not every symbol of the function and its derivative has a meaning.",
            )
        terms.append(typed.good[0].term)
    first, second = terms
    worst, where = 0.0, ""
    probes = battery(card)
    for probe in probes:
        found = slope(lambda p, m: evaluate(first, p, m), probe.point, variable)
        with precision(GRADIENT_BITS) as m:
            claimed = evaluate(second, probe.point, m)
        gap = abs(float((found - claimed).mid())) / max(1.0, abs(float(found.mid())))
        if gap > worst:
            worst, where = gap, str(probe.point.inputs[variable].item())
    if worst > CLOSE:
        return Finding(
            Place("", 0, ""),
            Verdict.DIFFERENT,
            card=card.id,
            detail=f"off by {worst:.3g} at {variable} = {where}",
            explanation=f"It is not the derivative: at {variable} = {where} it is off by "
            f"{worst:.3g} of the slope.",
        )
    return Finding(
        Place("", 0, ""),
        Verdict.EQUAL_SUPPORTED,
        card=card.id,
        detail=f"{len(probes)} points, 50 bits",
        witnesses={"points": len(probes), "bits": 50},
    )


def float_safety(term: Term, card: Card, bound: Bound) -> str:
    """Say whether a formula overflows in floats at a point where its value is finite."""
    stack, seen = [term], False
    while stack:
        t = stack.pop()
        seen = (
            seen
            or (t.op == "fn" and t.value in ("exp", "softplus", "logsigmoid"))
            or (t.op == "reduce" and t.value[0] == "logsumexp")
        )
        stack += t.args
    if not seen:
        return ""
    probe = battery(card)[0]
    for sign in (1, -1):
        inputs = {}
        for item in card.inputs:
            array = probe.point.inputs[item.name]
            if item.domain == "real":
                big = array.copy()
                for where in np.ndindex(big.shape):
                    big[where] = big[where] * 2048 * (sign if item.dims or array.ndim == 0 else 1)
                array = big
            inputs[item.name] = array
        point = extend(Point(inputs, probe.point.sizes, card.functions), bound.extra, probe.seed)
        try:
            value = np.asarray(evaluate(term, point), dtype=np.float64)
            if np.isfinite(value).all():
                continue
            with precision(400) as m:
                exact = np.asarray(evaluate(term, point, m), dtype=object).ravel()
            if all(v.is_finite() and abs(v.mid()) < 1e300 for v in exact):
                limits = ", ".join(f"{v:.2f} in {k}" for k, v in OVERFLOW.items())
                return f"UNSAFE-FLOAT: e^x overflows at a logit of {limits}"
        except FAILURES:
            continue
    return ""
