"""Sides of clips, cases and masks that a fixed set of points may never reach.

A formula with ``min(x, 6)`` is ``x`` at every small point. Before it is called equal,
it is compared again at points of the size of each of its constants, and every
alternative of every minimum, maximum and case must have been taken at one of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.cards.card import Card, Input
from minitransformer.verify.compare import (
    Outcome,
    Probe,
    battery,
    compare,
    compare_balls,
    extend,
    term_value,
)
from minitransformer.verify.dimensions import Term
from minitransformer.verify.evaluate import Evaluator, evaluate
from minitransformer.verify.number_systems import EXACT, FLOATS, CannotEvaluate, Point, precision

FAILURES = (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError, KeyError)
SEEDS = (31, 32, 33, 34)
FAR_BITS = 4096  # enough to see 1 − σ(89) or Φ(−50)
LARGEST = 8  # constants probed of one formula


@dataclass(frozen=True)
class Unseen:
    """What further points showed: a difference, or places with a side never taken."""

    differs: Outcome | None = None
    sides: tuple[tuple[int, int], ...] = ()


def _nodes(term: Term) -> Iterator[Term]:
    stack = [term]
    while stack:
        t = stack.pop()
        yield t
        stack += t.args


def _branches(term: Term) -> list[Term]:
    """Return the nodes that choose between alternatives."""
    found = {id(t): t for t in _nodes(term) if t.op in ("extreme", "compare")}
    return [t for t in found.values() if any(n.op == "symbol" for n in _nodes(t))]


def _constants(branches: list[Term]) -> list[Fraction]:
    """Return the constants inside the alternatives, without sign, the largest first."""
    found: dict[Fraction, None] = {}

    def collect(t: Term) -> None:
        if not any(n.op in ("symbol", "size", "indexvalue", "opaque") for n in _nodes(t)):
            try:
                value = abs(Fraction(Evaluator(Point({}, {}), EXACT)(t)))
            except FAILURES:
                value = Fraction(0)
            if value:
                found[value] = None
                return
        for a in t.args:
            collect(a)

    for branch in branches:
        collect(branch)
    return sorted(found, reverse=True)[:LARGEST]


def unseen(term: Term, card: Card, extra: tuple[Input, ...] = ()) -> Unseen:
    """Compare at the size of every constant of a clip, and say which sides were not met."""
    branches = _branches(term)
    if not branches:
        return Unseen()
    met: dict[int, set[int]] = {id(b): set() for b in branches}
    constants = _constants(branches)
    probes = list(battery(card))
    shapes = len(card.all_shapes())
    for k, c in enumerate(constants):
        for seed in SEEDS:
            for size in (c, c * 4) if seed == SEEDS[0] else (c,):
                point = card.at(card.all_shapes()[(seed + k) % shapes], seed, size)
                if all(not x.dims and x.domain == "real" for x in card.inputs):
                    point = _around(point, c, seed)
                try:
                    probes.append(Probe(card, point, seed, size))
                except FAILURES:
                    continue
    for number, probe in enumerate(probes):
        point = extend(probe.point, extra, probe.seed)
        try:
            with np.errstate(all="ignore"):
                _Watcher(point, met)(term)
        except FAILURES:
            continue
        if number < len(battery(card)):
            continue
        outcome = _settled(term, probe, point)
        if outcome is not None:
            return Unseen(outcome)
    missing = [b.span for b in branches if len(met[id(b)]) < _sides(b)]
    return Unseen(sides=tuple(dict.fromkeys(missing)))


def sharper(term: Term, card: Card, extra: tuple[Input, ...] = ()) -> Outcome | None:
    """Return a difference too small for the usual bits, such as an added 10⁻¹⁰⁰."""
    for probe in battery(card)[:2]:
        outcome = _settled(term, probe, extend(probe.point, extra, probe.seed))
        if outcome is not None:
            return outcome
    return None


def _settled(term: Term, probe: Probe, point: Point) -> Outcome | None:
    """Return the outcome where balls of many bits separate, however close they lie."""
    try:
        with precision(FAR_BITS) as m:
            claimed = evaluate(term, point, m)
        verdict = compare_balls(claimed, probe.balls(FAR_BITS), FAR_BITS)
    except FAILURES:
        return None
    if verdict is None or verdict[0] != "certified":
        return None
    entry, c, r, bits = verdict[1]
    return Outcome(
        "certified", bits=bits, probe=probe, point=point, entry=entry, claimed=c, reference=r
    )


class _Watcher(Evaluator):
    """An evaluator that notes which alternatives its minima and comparisons take."""

    def __init__(self, point: Point, met: dict[int, set[int]]):
        super().__init__(point, FLOATS)
        self.met = met

    def _extreme(self, t: Term) -> Any:
        kind, places = t.value
        values = self._places(t, places)
        table = np.stack([np.ravel(v) for v in np.broadcast_arrays(*values)]).astype(float)
        best = table.max(axis=0) if kind == "max" else table.min(axis=0)
        self.met.setdefault(id(t), set()).update(
            {int(k) for k in np.nonzero((table == best).any(axis=1))[0]}
        )
        return functools.reduce(self.m.maximum if kind == "max" else self.m.minimum, values)

    def _compare(self, t: Term) -> Any:
        out = super()._compare(t)
        if id(t) in self.met:
            self.met[id(t)] |= {int(v) for v in np.ravel(np.asarray(out, dtype=float))}
        return out


def _around(point: Point, c: Fraction, seed: int) -> Point:
    """Put the numbers of a point just below, at and just above a constant, or its negative."""
    near = (c - 1, c, c + 1, -c - 1, 2 * c, c + Fraction(1, 16))
    inputs = {}
    for k, (name, value) in enumerate(sorted(point.inputs.items())):
        moved = value.copy()
        moved[()] = near[(seed + k) % len(near)]
        inputs[name] = moved
    return Point(inputs, point.sizes, point.functions)


def _sides(t: Term) -> int:
    """Return how many alternatives a node has."""
    return 2 if t.op == "compare" else len(t.args)


_ANY_MASK: dict[int, Card] = {}


def only_masks(term: Term, card: Card, extra: tuple[Input, ...] = ()) -> tuple[str, ...]:
    """Return the masks that must hold 0 and −∞ alone for the formula to be the card's."""
    used = {t.value for t in _nodes(term) if t.op == "symbol"}
    masks = tuple(x.name for x in card.inputs if x.domain == "mask" and x.name in used)
    if not masks or card.sampler is not None:
        return ()
    if id(card) not in _ANY_MASK:
        inputs = tuple(replace(x, domain="real") if x.domain == "mask" else x for x in card.inputs)
        _ANY_MASK[id(card)] = replace(card, inputs=inputs)
    free = compare(term_value(term), _ANY_MASK[id(card)], extra, certify=False)
    return () if free.equal else masks


__all__ = ["Unseen", "only_masks", "sharper", "unseen"]
