"""Compare a typed term with a card's reference: probe in float64, certify in balls."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.cards.card import Card, Input, draw
from minitransformer.verify.dimensions import Term
from minitransformer.verify.evaluate import evaluate
from minitransformer.verify.number_systems import FLOATS, CannotEvaluate, Point, precision

BITS = 200
MORE_BITS = (200, 400, 1600)
# (seed, shape, amplitude) of every comparison; three shapes, three amplitudes.
BATTERY = (
    (1, 0, Fraction(1)),
    (2, 1, Fraction(1)),
    (3, 2, Fraction(1, 4)),
    (4, 0, Fraction(4)),
    (5, 1, Fraction(1, 4)),
    (6, 2, Fraction(1)),
)


@dataclass
class Probe:
    """A point with the reference's value there, computed once per arithmetic."""

    card: Card
    point: Point
    seed: int
    amplitude: Fraction

    def __post_init__(self) -> None:
        self.floats = self.card.value(FLOATS, self.point)
        self._balls: dict[int, Any] = {}

    def balls(self, bits: int) -> Any:
        """Return the reference's value in balls."""
        if bits not in self._balls:
            with precision(bits) as m:
                self._balls[bits] = self.card.value(m, self.point)
        return self._balls[bits]


@functools.lru_cache(maxsize=256)
def _battery(card_id: str, card: _ById) -> tuple[Probe, ...]:
    return tuple(
        Probe(card.card, card.card.point(seed, shape, amplitude), seed, amplitude)
        for seed, shape, amplitude in BATTERY
    )


class _ById:
    """A card as a dictionary key: cards hold mappings and do not hash."""

    def __init__(self, card: Card):
        self.card = card

    def __hash__(self) -> int:
        return id(self.card)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.card is self.card


def battery(card: Card) -> tuple[Probe, ...]:
    """Return the card's points of comparison."""
    return _battery(card.id, _ById(card))


def extend(point: Point, extra: tuple[Input, ...], seed: int) -> Point:
    """Give values to symbols that are free in the claim."""
    if not extra:
        return point
    inputs = dict(point.inputs)
    for item in extra:
        rng = random.Random(f"{item.name}/{seed}")
        drawn = draw(rng, item, point.sizes, Fraction(1))
        value = np.empty(np.shape(drawn), dtype=object)
        value[...] = drawn + Fraction(1, 16)
        inputs[item.name] = value
    return Point(inputs, point.sizes, point.functions)


@dataclass(frozen=True)
class Outcome:
    """What a comparison found.

    ``kind`` is ``equal``, ``certified`` (disjoint balls), ``different`` (not certified) or
    ``undefined`` (the claim has no value where the reference has one).
    """

    kind: str
    points: int = 0
    shapes: int = 0
    bits: int = 0
    probe: Probe | None = None
    point: Point | None = None
    entry: tuple[int, ...] = ()
    claimed: Any = None
    reference: Any = None
    error: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether every point agreed."""
        return self.kind == "equal"


def discrepancy(claimed: Any, reference: Any) -> float:
    """Return the largest difference relative to the reference's scale; inf for NaN."""
    claimed = np.asarray(claimed, dtype=np.float64)
    reference = np.asarray(reference, dtype=np.float64)
    if claimed.shape != reference.shape:
        return np.inf
    if claimed.size == 0:
        return 0.0
    finite = np.isfinite(reference)
    if not np.array_equal(np.isfinite(claimed), finite):
        return np.inf
    if not finite.all():
        odd = ~finite
        if not np.array_equal(claimed[odd], reference[odd], equal_nan=True):
            return np.inf
        if not finite.any():
            return 0.0
    gap = np.abs(claimed[finite] - reference[finite]).max()
    scale = np.abs(reference[finite]).max()
    return float(gap / scale) if scale else float(gap)


Compute = Callable[[Point, Any], Any]  # (point, arithmetic) -> value


def term_value(term: Term) -> Compute:
    """Return the function that evaluates a term."""
    return lambda point, m: evaluate(term, point, m)


def settle(compute: Compute, probe: Probe, point: Point) -> tuple[str, Any]:
    """Decide one point in balls.

    Returns
    -------
    (str, object)
        ``("equal", bits)``, ``("certified", (entry, claimed, reference, bits))`` or
        ``("undefined", why)``.
    """
    why: Any = ""
    for bits in MORE_BITS:
        try:
            with precision(bits) as m:
                claimed = compute(point, m)
        except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError) as error:
            return "undefined", str(error)
        reference = probe.balls(bits)
        if np.shape(claimed) != np.shape(reference):
            return "undefined", f"shape {np.shape(claimed)} against {np.shape(reference)}"
        verdict = compare_balls(claimed, reference, bits)
        if verdict is not None:
            return verdict
        why = "the balls neither separate nor shrink"
    return "undefined", why


def compare_balls(claimed: Any, reference: Any, bits: int) -> tuple[str, Any] | None:
    """Return ``certified`` or ``equal`` of two arrays of balls, or None if they are too wide."""
    flat_c = np.asarray(claimed, dtype=object).ravel()
    flat_r = np.asarray(reference, dtype=object).ravel()
    best = None
    sharp = True
    scale = max((abs(float(r.mid())) for r in flat_r if r.is_finite()), default=0.0) or 1.0
    for k, (c, r) in enumerate(zip(flat_c, flat_r)):
        if not hasattr(c, "overlaps"):
            c = type(r)(c)
        if c.is_nan() or r.is_nan():
            sharp = sharp and c.is_nan() and r.is_nan()
            continue
        if not (c.is_finite() and r.is_finite()):
            # An infinity is a point of its own: equal only to itself.
            if c.is_finite() != r.is_finite() or not c.overlaps(r):
                if min(c.rad(), r.rad()).is_finite():
                    best = (np.inf, k, c, r)
                else:
                    sharp = False
            continue
        if not c.overlaps(r):
            gap = abs(float((c - r).mid()))
            if best is None or gap > best[0]:
                best = (gap, k, c, r)
        elif float(c.rad()) > scale * 2.0 ** (-bits // 2) or float(r.rad()) > scale * 2.0 ** (
            -bits // 2
        ):
            sharp = False
    if best is not None:
        _, k, c, r = best
        entry = tuple(int(x) for x in np.unravel_index(k, np.shape(reference) or (1,)))
        if not np.shape(reference):
            entry = ()
        return "certified", (entry, c, r, bits)
    return ("equal", bits) if sharp else None


def compare(
    compute: Compute,
    card: Card,
    extra: tuple[Input, ...] = (),
    *,
    probes: tuple[Probe, ...] | None = None,
    certify: bool = True,
) -> Outcome:
    """Compare a claim with a card at every point of the battery.

    With `certify` off only float64 is used and ``different`` is the conviction.
    """
    used = probes or battery(card)
    for probe in used:
        point = extend(probe.point, extra, probe.seed)
        try:
            value = compute(point, FLOATS)
            gap = discrepancy(value, probe.floats)
        except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError):
            gap, value = np.inf, None
        if gap <= 1e-7:
            continue
        if not certify:
            return Outcome("different", probe=probe, point=point, error=gap)
        verdict, found = settle(compute, probe, point)
        if verdict == "certified":
            entry, c, r, bits = found
            return Outcome(
                "certified",
                bits=bits,
                probe=probe,
                point=point,
                entry=entry,
                claimed=c,
                reference=r,
                error=gap,
            )
        if verdict == "undefined":
            return Outcome("undefined", probe=probe, point=point, error=gap, claimed=found)
    if not certify:
        return Outcome("equal", points=len(used))
    bits = BITS
    for probe in used:
        point = extend(probe.point, extra, probe.seed)
        verdict, found = settle(compute, probe, point)
        if verdict == "certified":
            entry, c, r, bits = found
            return Outcome(
                "certified",
                bits=bits,
                probe=probe,
                point=point,
                entry=entry,
                claimed=c,
                reference=r,
            )
        if verdict == "undefined":
            return Outcome("undefined", probe=probe, point=point, claimed=found)
        bits = max(bits, found)
    shapes = {tuple(sorted(p.point.sizes.items())) for p in used}
    return Outcome("equal", points=len(used), shapes=len(shapes), bits=bits)
