"""What a wrong claim nearly is: the card up to a change, roughly, or at one size."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify import explain
from minitransformer.verify.answers import FAILURES
from minitransformer.verify.binding import Bound
from minitransformer.verify.cards.card import Card
from minitransformer.verify.compare import (
    Compute,
    Probe,
    battery,
    compare,
    discrepancy,
    settle,
    term_value,
)
from minitransformer.verify.dimensions import (
    Elaborator,
    IllTyped,
    Term,
    Typing,
    Unbound,
)
from minitransformer.verify.evaluate import evaluate
from minitransformer.verify.expression import Expr
from minitransformer.verify.interpret import Interpretation
from minitransformer.verify.number_systems import EXACT, FLOATS, CannotEvaluate, Point
from minitransformer.verify.numerics import slope

CLOSELY = 0.025  # the largest error of what may be called an approximation


def equal_up_to(compute: Compute, card: Card, bound: Bound) -> tuple[str, str] | None:
    """Return a named change under which a claim equals the card, where the card allows it."""
    probes = battery(card)
    if "scale" in card.up_to:
        ratio = explain.constant_ratio(card, compute, probes)
        if ratio is not None and ratio > 0:
            return (
                "scale",
                f"It is {explain.neat(ratio)} times {card.name}; a constant factor "
                "is a convention here.",
            )
    if "permutation" in card.up_to:
        for probe in probes[:4]:
            try:
                claimed = np.asarray(compute(probe.point, FLOATS), dtype=np.float64)
            except FAILURES:
                return None
            if claimed.shape != probe.floats.shape:
                return None
            a, b = np.sort(claimed, axis=-1), np.sort(probe.floats, axis=-1)
            if not np.allclose(a, b, rtol=1e-9, atol=1e-12):
                return None
        return "permutation", f"It is {card.name} with its components in another order."
    return None


def approximation(compute: Compute, card: Card) -> tuple[str, str, dict[str, float]] | None:
    """Return the largest errors of a claim that follows a scalar function closely."""
    if not card.approximable or len(card.inputs) != 1:
        return None
    symbol = card.inputs[0].name

    def at(k: int) -> Point:
        value = np.empty((), dtype=object)
        value[()] = Fraction(k, 8)
        return Point({symbol: value}, {}, card.functions)

    worst, where = 0.0, 0.0
    for k in range(-80, 81):
        try:
            gap = abs(float(compute(at(k), FLOATS)) - float(card.value(FLOATS, at(k))))
        except FAILURES:
            return None
        if not math.isfinite(gap):
            return None
        if gap > worst:
            worst, where = gap, k / 8
    if worst > CLOSELY:
        return None
    errors = {"max_error": worst}
    try:
        errors["max_gradient_error"] = max(
            abs(float((slope(compute, p, symbol) - slope(card.at_point, p, symbol)).mid()))
            for p in map(at, range(-32, 33, 4))
        )
    except (*FAILURES, AttributeError):
        pass  # a function that runs on floats only has no slope in balls
    return (
        f"max error {worst:.2g} at {symbol} = {where:g}",
        f"It follows {card.name} within {worst:.2g} on [-10, 10], worst at "
        f"{symbol} = {where:g}; it is not equal to it.",
        errors,
    )


def constants(e: Expr) -> tuple[Fraction, ...]:
    """Return the values of a formula's largest sub-expressions without symbols."""
    if not any(n.op in ("name", "index") for n in e.walk()):
        try:
            value = evaluate(Elaborator(Typing({}, {}))(e), Point({}, {}), EXACT)
            return (Fraction(value),)
        except (CannotEvaluate, IllTyped, Unbound, TypeError, ValueError, ArithmeticError):
            return ()
    return tuple(v for a in e.args for v in constants(a))


def instance(i: Interpretation, bound: Bound, card: Card) -> str:
    """Return the values of the card's constants that numbers in a formula stand for.

    ``10⁻⁵`` where the card has ε: the formula is the card at ε = 10⁻⁵. Zero and one
    are left out, since leaving a constant out altogether is a mistake to report.
    """
    used = {n.value for n in bound.expr.walk() if n.op == "name"}
    missing = [x for x in card.inputs if x.constant and x.name not in used]
    if not missing or len(missing) > 3 or bound.extra or card.sampler is not None:
        return ""
    found = dict.fromkeys(v for v in constants(bound.expr) if v > 0 and v not in (1, 2))
    menus = [
        [
            v
            for v in dict.fromkeys([*found, *(1 - f for f in found)])
            if v > 0 and (x.domain != "unit" or v < 1)
        ]
        for x in missing
    ]
    if any(not menu for menu in menus) or math.prod(len(m) for m in menus) > 64:
        return ""
    left = tuple(x for x in card.inputs if x not in missing)
    for values in itertools.product(*menus):
        fixed = {x.name: v for x, v in zip(missing, values)}

        def reference(m: Any, sizes: Any, *given: Any, fixed: dict[str, Fraction] = fixed) -> Any:
            known = dict(zip((x.name for x in left), given))
            known.update({k: m.number(v) for k, v in fixed.items()})
            return card.reference(m, sizes, *(known[x.name] for x in card.inputs))

        at = replace(card, inputs=left, reference=reference)
        if (
            compare(term_value(i.term), at, certify=False).equal
            and compare(term_value(i.term), at).equal
        ):
            return ", ".join(f"{k} = {_decimal(v)}" for k, v in fixed.items())
    return ""


def _decimal(value: Fraction) -> str:
    """Write a constant as people do: 1e-05, 0.1, 1/3."""
    near = float(value)
    return f"{near:g}" if Fraction(f"{near:g}") == value else str(value)


def special_size(term: Term, bound: Bound, card: Card) -> str:
    """Return the size at which a number in the formula is right, if there is one ≥ 2."""
    if card.shapes or not card.dims:
        return ""
    numbers = {n.value for n in bound.expr.walk() if n.op == "number"}
    bounds = {
        n.args[2].value
        for n in bound.expr.walk()
        if n.op == "big" and len(n.args) == 3 and n.args[2].op == "number"
    }
    tried = {int(b) for b in bounds if b >= 2 and b.denominator == 1}
    for c in numbers:
        for value in (c, c * c, 1 / c if c else 0, 1 / (c * c) if c else 0):
            if value > 1 and value.denominator == 1 and value <= 4096 and value not in (2, 3):
                tried.add(int(value))
    for size in sorted(tried)[:6]:
        for dim in card.dims:
            sizes = {d: 5 + k for k, d in enumerate(card.dims)}
            sizes[dim] = size
            if math.prod(sizes.values()) > 40_000:
                continue
            try:
                points = (card.at(sizes, 21), card.at(sizes, 22))
                if all(
                    discrepancy(evaluate(term, p), card.value(FLOATS, p)) < 1e-9 for p in points
                ) and all(
                    settle(term_value(term), Probe(card, p, 21, Fraction(1)), p)[0] == "equal"
                    for p in points
                ):
                    return f"{dim} = {size}"
            except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError, KeyError):
                continue
    return ""
