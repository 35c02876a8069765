"""A counterexample worked by hand: every sub-expression of both sides, with its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.binding import bind, sides, substitute
from minitransformer.verify.cards import Card, UnknownCard, find
from minitransformer.verify.dimensions import Elaborator, IllTyped, Typing, Unbound
from minitransformer.verify.evaluate import Evaluator
from minitransformer.verify.expression import Expr, call
from minitransformer.verify.number_systems import FLOATS, CannotEvaluate, Point
from minitransformer.verify.parser import CannotParse, parse
from minitransformer.verify.verdict import Finding

UNREADABLE = (
    CannotParse, IllTyped, Unbound, CannotEvaluate, UnknownCard, ValueError, TypeError,
    KeyError, IndexError, ArithmeticError, AttributeError,
)  # fmt: skip
# What a reader computes in the head, or what has no value of its own.
SILENT = {"number", "name", "keyword", "relation", "chain", "tuple", "given", "steps", "ellipsis"}


@dataclass(frozen=True)
class Step:
    """One line of the working: what is computed, and what comes out."""

    expr: Expr
    value: Any
    note: str = ""


@dataclass(frozen=True)
class Working:
    """Both sides of a counterexample, step by step; the last step is the result."""

    claimed: tuple[Step, ...]
    reference: tuple[Step, ...]


def work(finding: Finding) -> Working | None:
    """Work a finding's counterexample, or return None where the formula resists.

    The steps of a side are given only if their last one is the value that the
    finding states, so that a page never shows a working that leads elsewhere.
    """
    point = finding.counterexample
    if point is None or finding.card is None:
        return None
    try:
        card = find(finding.card)
        at = point_of(card, point.inputs)
        claims, against = _sides(finding, card)
    except UNREADABLE:
        return None
    claimed = _first(claims, card, at, point.claimed)
    reference = _first(against, card, at, point.reference)
    return Working(claimed, reference) if claimed or reference else None


def _sides(finding: Finding, card: Card) -> tuple[list[Expr], list[Expr]]:
    """The trees that may be the claim, as written or as the report reads it, and the other side."""
    if "pair" in finding.witnesses:  # two formulas of a document, one against the other
        left, _, right = finding.reading.partition("  against  ")
        return _trees(left), _trees(right)
    trees = [*_trees(finding.place.text), *_trees(finding.reading)]
    for case in finding.witnesses.get("cases", ()):  # values tried for a symbol without one
        for value in _trees(str(case.get("value", ""))):
            trees += [substitute(tree, {str(case.get("symbol")): value}) for tree in trees]
    return trees, [card.tree()]


def _trees(text: str) -> list[Expr]:
    try:
        readings = parse(text)
    except UNREADABLE:
        return []
    return [claim for reading in readings for claim in reversed(sides(reading.expr)[1])]


def _first(trees: list[Expr], card: Card, point: Point, result: Any) -> tuple[Step, ...]:
    """The working of the first tree that ends in `result`."""
    return next(filter(None, (_steps(tree, card, point, result) for tree in trees)), ())


def _steps(tree: Expr, card: Card, point: Point, result: Any) -> tuple[Step, ...]:
    """The working of one tree, empty unless it ends in `result`."""
    try:
        bound = bind(tree, card)
        typing = _with(bound.typing, point, card)
        # One elaborator and one evaluator, so that every sub-expression is done once.
        elaborator, evaluator = Elaborator(typing), Evaluator(point, FLOATS)
        steps: list[Step] = []
        seen: set[Expr] = set()
        for node in _inside_out(bound.expr):
            if node.op in SILENT or node in seen:
                continue
            seen.add(node)
            whole = node is bound.expr
            try:
                term = elaborator.formula(node, bound.free) if whole else elaborator(node)
                if term.free:
                    continue
                value = _plain(evaluator(term))
            except UNREADABLE:
                if whole:
                    return ()
                continue
            if node.op in ("neg", "transpose") and not node.args[0].args:
                continue
            if node.op == "call" and node.value == "softmax" and np.ndim(value):
                steps += _softmax(node, elaborator, evaluator)
            steps.append(Step(node, value))
    except UNREADABLE:
        return ()
    if not steps or not _agree(steps[-1].value, result):
        return ()
    return tuple(steps)


def _softmax(node: Expr, elaborator: Elaborator, evaluator: Evaluator) -> list[Step]:
    """The two lines between the scores and their softmax: exponentials and their sums."""
    inner = node.args[0]
    exponentials = np.exp(_plain(evaluator(elaborator(inner))))
    sums = exponentials.sum(-1)
    return [
        Step(call("exp", inner), exponentials, "each entry"),
        Step(call("rowsum", call("exp", inner)), sums),
    ]


def _inside_out(tree: Expr) -> Iterator[Expr]:
    for arg in tree.args:
        yield from _inside_out(arg)
    yield tree


def point_of(card: Card, inputs: Mapping[str, Any]) -> Point:
    """Return a counterexample's inputs, written as text, as a point of its card."""
    arrays = {name: _exact(value) for name, value in inputs.items()}
    sizes: dict[str, int] = {}
    for item in card.inputs:
        if item.name in arrays and arrays[item.name].ndim == len(item.dims):
            sizes.update(zip(item.dims, arrays[item.name].shape))
    for dim in card.dims:
        sizes.setdefault(dim, int(arrays[dim]) if dim in arrays else 1)
    return Point(arrays, sizes, card.functions)


def _exact(value: Any) -> Any:
    """Read nested lists of numbers written as text into an object array of fractions."""
    texts = np.asarray(value, dtype=object)
    out = np.empty(texts.shape, dtype=object)
    for place in np.ndindex(texts.shape):
        text = str(texts[place]).replace("−", "-").replace("∞", "inf")
        out[place] = float(text) if "inf" in text else Fraction(text)
    return out


def _with(typing: Typing, point: Point, card: Card) -> Typing:
    """Symbols that the point gives a number for are numbers."""
    known = {item.name for item in card.inputs}
    extra = {k: () for k, v in point.inputs.items() if k not in known and np.ndim(v) == 0}
    return Typing({**typing.symbols, **extra}, typing.sizes, typing.functions)


def _plain(value: Any) -> Any:
    return np.asarray(value, dtype=np.float64)


def _agree(value: Any, stated: Any) -> bool:
    try:
        wanted = np.asarray(_floats(stated), dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return np.shape(value) == wanted.shape and np.allclose(value, wanted, rtol=1e-4, atol=1e-6)


def _floats(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_floats(v) for v in value]
    if isinstance(value, str):
        return float(Fraction(value)) if "/" in value else float(value)
    return value
