"""What a wrong claim is instead: another scale, another card, a known mistake, and where."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minitransformer.verify import explain
from minitransformer.verify.answers import FAILURES
from minitransformer.verify.binding import Bound, bind
from minitransformer.verify.cards import cards
from minitransformer.verify.cards.card import Card, formula_tree
from minitransformer.verify.compare import (
    Compute,
    Outcome,
    battery,
    discrepancy,
    extend,
    term_value,
)
from minitransformer.verify.dimensions import (
    IllTyped,
    Term,
    Unbound,
)
from minitransformer.verify.evaluate import Evaluator, evaluate
from minitransformer.verify.interpret import Interpretation, interpret, quick_equal
from minitransformer.verify.number_systems import FLOATS, Point

_MISTAKES: dict[int, list[tuple[str, str, Callable[[Point], Any]]]] = {}


def diagnose(
    i: Interpretation, bound: Bound, card: Card, compute: Compute, o: Outcome
) -> tuple[str, str, dict[str, Any]]:
    """Return what the claim is instead, in words."""
    assert o.point is not None and o.probe is not None
    said: list[str] = []
    equals = ""
    extra: dict[str, Any] = {}
    equals, row_sum = as_attention(i, bound, card)
    if row_sum:
        extra["row_sum"] = row_sum
        if equals:
            said.append(
                f"It equals {equals}; the scale of {card.name} is "
                f"{'1/d_k' if card.id == 'mup-attention' else '1/√d_k'}."
            )
        if row_sum != "1":
            said.append(f"Rows of its weights sum to {row_sum}, not to 1.")
    if not equals:
        ratio = explain.constant_ratio(card, compute, battery(card))
        if ratio is not None:
            equals = explain.times(ratio, card)
            said.append(f"It is {equals}.")
        else:
            power = explain.size_ratio(card, compute, battery(card))
            if power:
                equals = f"{power} times {card.name}"
                said.append(f"It is {equals}.")
    known = (
        explain.resembles(known_mistakes(card), compute, battery(card)) if not bound.extra else None
    )
    if known is not None:
        says, seen = known
        said.append(f"A known mistake: {says}" + (f" (seen in {seen})." if seen else "."))
        extra["mistake"] = {"says": says, "seen": seen}
    if o.kind == "undefined":
        said.append(f"It has no value at a point where {card.name} has one: {o.claimed}.")
    diverging = first_divergence(i, card, o.probe.point)
    if diverging is not None:
        extra["diverges_at"] = diverging.span
    for other in cards():
        if other is not card and other.output == card.output and _equals_card(bound, other):
            said.append(f"It is {other.name} ({other.source}).")
            extra["is_card"] = other.id
            break
    return " ".join(said), equals, extra


def as_attention(i: Interpretation, bound: Bound, card: Card) -> tuple[str, str]:
    """Return what multiple of which attention a claim is, and what its rows sum to."""
    family = card.output in (("n_q", "d_v"), ("n_q", "n_k")) and {"Q", "K"} <= {
        x.name for x in card.inputs
    }
    if not family:
        return "", ""
    probe = battery(card)[0]
    point = extend(probe.point, bound.extra, probe.seed)
    fit = explain.fit_attention(card, term_value(i.term), point)
    if fit is None:
        return "", ""
    base = "attention" if card.output == ("n_q", "d_v") else "attention weights"
    outer = explain.symbolic(fit.outer, {u: float(point.inputs[u].item()) for u in bound.unknown})
    if fit.inner is None:
        return "", outer
    inner = explain.symbolic(fit.inner, {u: float(point.inputs[u].item()) for u in bound.unknown})
    equals = f"{base} with scale {inner}"
    return (equals if outer == "1" else f"{outer} times {equals}"), outer


def _equals_card(bound: Bound, other: Card) -> bool:
    """Return whether a bound formula equals another card over the same symbols."""
    names = {n.value for n in bound.expr.walk() if n.op == "name"}
    symbols = {s for s in bound.typing.symbols if s in names}
    if not symbols or not symbols <= {x.name for x in other.inputs} or bound.unknown:
        return False
    for x in other.inputs:
        if x.name in bound.typing.symbols and bound.typing.symbols[x.name] != x.dims:
            return False
    try:
        trial = bind(bound.expr, other)
        typed = interpret(trial, other)
    except (IllTyped, Unbound):
        return False
    return bool(typed.good) and not trial.unknown and quick_equal(typed, trial, other)


def known_mistakes(card: Card) -> list[tuple[str, str, Callable[[Point], Any]]]:
    if id(card) not in _MISTAKES:
        found: list[tuple[str, str, Callable[[Point], Any]]] = []
        for m in card.mistakes:
            typed = interpret(bind(formula_tree(m.formula), card), card)
            if typed.good:
                term = typed.good[0].term
                found.append((m.says, m.seen, functools.partial(evaluate, term)))
        _MISTAKES[id(card)] = found
    return _MISTAKES[id(card)]


def first_divergence(i: Interpretation, card: Card, point: Point) -> Term | None:
    """Return the smallest sub-term whose value no step of the card's formula has."""
    try:
        typed = interpret(bind(formula_tree(card.latex), card), card)
        if not typed.good:
            return None
        own = _all_values(typed.good[0].term, point)
    except Exception:  # no formula to walk beside: nothing to point at
        return None
    evaluator = Evaluator(point, FLOATS)

    def known(value: Any) -> bool:
        return any(np.shape(v) == np.shape(value) and discrepancy(value, v) < 1e-9 for v in own)

    def walk(t: Term) -> Term | None:
        if t.free or t.op in ("number", "symbol", "size", "pi"):
            return None
        for a in t.args:
            found = walk(a)
            if found is not None:
                return found
        try:
            with np.errstate(all="ignore"):
                value = np.asarray(evaluator(t), dtype=np.float64)
        except FAILURES:
            return t
        return None if known(value) else t

    return walk(i.term)


def _all_values(term: Term, point: Point) -> list[Any]:
    evaluator = Evaluator(point, FLOATS)
    values = []
    stack = [term]
    while stack:
        t = stack.pop()
        stack += t.args
        if not t.free:
            with np.errstate(all="ignore"):
                values.append(np.asarray(evaluator(t), dtype=np.float64))
    return values
