"""Find the smallest point at which a claim and its reference differ."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.cards.card import Card, Input, draw
from minitransformer.verify.compare import Compute, discrepancy
from minitransformer.verify.number_systems import FLOATS, CannotEvaluate, Point, size_of

VISIBLE = 1e-3  # a difference a reader sees in a few printed digits
SMALL = {
    "real": (0, 1, -1, 2),
    "positive": (1, 2),
    "unit": (Fraction(1, 2), Fraction(1, 4)),
    "whole": (2, 3, 1),
    "bool": (0, 1),
}


def differs(card: Card, compute: Compute, point: Point) -> bool:
    """Return whether claim and reference visibly differ at a point where both exist."""
    try:
        reference = card.value(FLOATS, point)
        if not np.isfinite(reference).all():
            return False
        claimed = np.asarray(compute(point, FLOATS), dtype=np.float64)
        if not np.isfinite(claimed).all():
            return False
    except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError):
        return False
    return discrepancy(claimed, reference) > VISIBLE


def shrink(card: Card, compute: Compute, start: Point, extra: tuple[Input, ...] = ()) -> Point:
    """Return a smaller point that still tells the claim from the reference.

    First every dimension goes down to 1 or 2 with entries 0, ±1, 2; then entries
    become 0 or 1 one at a time.
    """
    inputs = (*card.inputs, *extra)
    best = None
    sizes = dict(start.sizes)
    floor = _least_sizes(card)
    for dim in sorted(sizes, key=lambda d: d not in ("n_q", "d_v", "n", "N")):
        for size in range(floor.get(dim, 1), sizes[dim]):
            trial = {**sizes, dim: size}
            point = _any_point(card, compute, inputs, trial)
            if point is not None:
                sizes, best = trial, point
                break
    if best is None:
        best = _any_point(card, compute, inputs, sizes) or start
    return _simplify(card, compute, best, {i.name: i for i in inputs})


def _least_sizes(card: Card) -> Mapping[str, int]:
    if not card.shapes:
        return {}
    # A card with shapes of its own may need even sizes and the like: stay among them.
    return {d: min(s[d] for s in card.shapes) for d in card.shapes[0]}


def _any_point(
    card: Card, compute: Compute, inputs: tuple[Input, ...], sizes: Mapping[str, int]
) -> Point | None:
    for seed in range(6):
        point = _small_point(card, inputs, sizes, seed)
        if differs(card, compute, point):
            return point
    return None


def _small_point(
    card: Card, inputs: tuple[Input, ...], sizes: Mapping[str, int], seed: int
) -> Point:
    rng = random.Random(f"small/{card.id}/{seed}")
    values: dict[str, Any] = {}
    if card.sampler is not None:
        values = dict(card.sampler(rng, sizes, Fraction(1)))
    out = {}
    for item in inputs:
        if item.name in values:
            value = values[item.name]
        elif item.domain in SMALL:
            shape = tuple(size_of(d, sizes) for d in item.dims)
            menu = SMALL[item.domain]
            flat = [Fraction(rng.choice(menu)) for _ in range(int(np.prod(shape)))]
            value = np.empty(shape, dtype=object)
            for k, v in enumerate(flat):
                value.flat[k] = v
        else:
            value = draw(rng, item, sizes, Fraction(1))
        array = np.empty(np.shape(value), dtype=object)
        array[...] = value
        out[item.name] = array
    return Point(out, dict(sizes), card.functions)


def _simplify(card: Card, compute: Compute, point: Point, inputs: Mapping[str, Input]) -> Point:
    tries = 0
    for key, array in point.inputs.items():
        item = inputs.get(key)
        if item is None or item.domain not in SMALL or card.sampler is not None:
            continue
        for where in np.ndindex(array.shape):
            for value in _simpler(array[where], item.domain):
                tries += 1
                if tries > 120:
                    return point
                trial = array.copy()
                trial[where] = Fraction(value)
                candidate = Point({**point.inputs, key: trial}, point.sizes, point.functions)
                if differs(card, compute, candidate):
                    point, array = candidate, trial
                    break
    return point


def _simpler(value: Any, domain: str) -> Iterator[Any]:
    menu = (0, 1) if domain == "real" else (1,) if domain in ("positive", "whole") else ()
    for candidate in menu:
        if value == candidate:
            return
        yield candidate


def coincidences(
    card: Card,
    equal_at: Callable[[Point], bool],
    extra: tuple[Input, ...] = (),
) -> tuple[str, ...]:
    """Return the special conditions under which a wrong claim happens to be right."""
    found: list[str] = []
    inputs = (*card.inputs, *extra)
    shape = dict(card.all_shapes()[0])
    fixed = bool(card.shapes)

    def holds(make: Callable[[int], Point]) -> bool:
        try:
            return all(equal_at(make(seed)) for seed in (11, 12))
        except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError):
            return False

    def with_extra(sizes: Mapping[str, int], seed: int) -> Point:
        point = card.at(sizes, seed)
        values = dict(point.inputs)
        for item in extra:
            rng = random.Random(f"{item.name}/{seed}")
            drawn = draw(rng, item, sizes, Fraction(1))
            value = np.empty(np.shape(drawn), dtype=object)
            value[...] = drawn
            values[item.name] = value
        return Point(values, point.sizes, point.functions)

    for dim in card.dims:
        if fixed:
            break
        sizes = {**shape, dim: 1}
        if holds(lambda seed, sizes=sizes: with_extra(sizes, seed)):  # type: ignore[misc]
            found.append(f"{dim} = 1")

    def replaced(key: str, fill: Callable[[Any], Any]) -> Callable[[int], Point]:
        def make(seed: int) -> Point:
            point = with_extra(shape, seed)
            array = point.inputs[key].copy()
            array[...] = fill(array)
            return Point({**point.inputs, key: array}, point.sizes, point.functions)

        return make

    for item in inputs:
        if item.domain == "real" and item.dims:
            if holds(replaced(item.name, lambda a: Fraction(0))):
                found.append(f"{item.name} = 0")
            elif holds(replaced(item.name, lambda a: a.flat[0])):
                found.append(f"all entries of {item.name} equal")
        elif not item.dims:
            values = {
                "real": (0, 1),
                "positive": (0, 1, 2),
                "unit": (0, 1, Fraction(1, 2)),
                "whole": (1, 2),
            }.get(item.domain, ())
            for value in values:
                if holds(replaced(item.name, lambda a, v=value: Fraction(v))):  # type: ignore[misc]
                    found.append(f"{item.name} = {value}")
    return tuple(found)
