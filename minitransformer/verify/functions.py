"""Decide whether a Python function on arrays computes a card."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify import explain, shrink
from minitransformer.verify.answers import answer
from minitransformer.verify.cards import find
from minitransformer.verify.cards.card import Card
from minitransformer.verify.compare import (
    BITS,
    Compute,
    Outcome,
    battery,
    discrepancy,
    settle,
)
from minitransformer.verify.diagnosis import known_mistakes
from minitransformer.verify.judge import as_texts, certificate
from minitransformer.verify.nearness import approximation
from minitransformer.verify.number_systems import FLOATS, CannotEvaluate, Point
from minitransformer.verify.verdict import Counterexample, Finding, Verdict

MOST_CELLS = 40_000_000  # of a reference in plain loops, all dimensions multiplied


def decide_function(fn: Callable[..., Any], card: Card | str) -> Finding:
    """Decide whether a Python function on NumPy arrays computes a card.

    The function is called with the card's inputs in order, or by name where its
    parameters are named like them. It runs in float64 and, unmodified, on object arrays
    of balls; constants it rounds itself (``np.sqrt(3)``) limit the agreement to about
    50 bits, and a difference counts only well above that.

    Parameters
    ----------
    fn : callable
        Takes arrays, returns an array.
    card : Card or str
        What to compare with, or its name.
    """
    card = find(card) if isinstance(card, str) else card
    wanted = _arguments(fn, card)
    reading = f"{getattr(fn, '__name__', 'function')}({', '.join(wanted)})"
    worst = 0.0
    exact = True
    shapes = set()
    probes = battery(card)
    compute = _function_value(fn, card, wanted)
    for probe in probes:
        try:
            raw = np.asarray(compute(probe.point, FLOATS))
            value = raw.astype(np.float64)
        except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError) as error:
            return answer(
                card, Verdict.DIFFERENT, reading, explanation=f"It fails on a valid input: {error}."
            )
        if value.shape != probe.floats.shape:
            return answer(
                card,
                Verdict.WRONG_SHAPE,
                reading,
                detail=f"{value.shape}, not {probe.floats.shape}",
                explanation=f"It returns shape {value.shape} where {card.name} has "
                f"{probe.floats.shape}.",
            )
        if not np.isfinite(probe.floats).all():
            continue
        gap = discrepancy(value, probe.floats)
        shapes.add(tuple(sorted(probe.point.sizes.items())))
        # A function that computes in a shorter format cannot agree better than that format.
        short = raw.dtype.kind == "f" and raw.dtype.itemsize < 8
        if gap > (64 * float(np.finfo(raw.dtype).eps) if short else 1e-9):
            return _function_differs(compute, card, probe, reading)
        worst = max(worst, gap)
    for probe in probes:
        try:
            kind, _ = settle(compute, probe, probe.point)
        except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError):
            exact = False
            break
        if kind != "equal":
            exact = False
            break
    if len(shapes) < 2 and card.dims:
        return answer(
            card,
            Verdict.UNDER_SPECIFIED,
            reading,
            explanation="Fewer than two shapes could be compared.",
        )
    far = _far(compute, card, reading)
    if isinstance(far, Finding):
        return far
    bits = BITS if exact else min(50, int(-math.log2(worst)) if worst else 50)
    return answer(
        card,
        Verdict.EQUAL_SUPPORTED,
        reading,
        detail=f"{len(probes)} points, {bits} bits; in float64 up to {far}",
        witnesses={
            "points": len(probes),
            "largest": far,
            "shapes": len(shapes),
            "bits": bits,
            "max_relative_error": worst,
        },
    )


def _far(compute: Compute, card: Card, reading: str) -> Finding | str:
    """Compare at sizes and amplitudes that a threshold in the code may lie below.

    Returns
    -------
    Finding or str
        The difference, or the largest shape and amplitude tried.
    """
    sizes = [dict(s) for s in card.all_shapes()[:1]]
    if not card.shapes:
        wide = {d: (33 + 2 * k if d.startswith("n") else 130 + k) for k, d in enumerate(card.dims)}
        tall = {d: (40 - k if d.startswith("n") else 17 + k) for k, d in enumerate(card.dims)}
        sizes += [s for s in (tall, wide) if math.prod(s.values()) <= MOST_CELLS]
    largest, top, overflows = sizes[0], Fraction(4), ""
    for size in sizes:
        for seed, amplitude in ((41, Fraction(1)), (42, Fraction(16)), (43, Fraction(100))):
            if amplitude > 1 and size is not sizes[0]:
                continue
            point = card.at(size, seed, amplitude)
            try:
                reference = card.value(FLOATS, point)
                raw = np.asarray(compute(point, FLOATS))
                value = raw.astype(np.float64)
            except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError):
                continue
            if not np.isfinite(reference).all():
                continue
            if amplitude > 1 and not np.isfinite(value).all():
                overflows = f"; UNSAFE-FLOAT: not finite for inputs up to {float(2 * amplitude):g}"
                continue
            short = raw.dtype.kind == "f" and raw.dtype.itemsize < 8
            if short and amplitude > 1:
                continue
            scale = max(1.0, float(np.abs(reference).max(initial=0.0)))
            same = value.shape == reference.shape
            gap = float(np.abs(value - reference).max(initial=0.0)) / scale if same else math.inf
            gap = gap if math.isfinite(gap) else math.inf  # a NaN is no agreement
            shown = ", ".join(f"{k} = {v}" for k, v in size.items()) or "numbers"
            if gap > (1e-2 if short else 1e-8):
                return answer(
                    card,
                    Verdict.DIFFERENT,
                    reading,
                    detail=f"at {shown}, amplitude {amplitude}",
                    explanation=f"It agrees with {card.name} at small sizes and values, but not at "
                    f"{shown} with inputs up to {float(2 * amplitude):g}: the results are "
                    f"{gap:.2g} apart (seed {seed}).",
                    witnesses={"sizes": dict(size), "seed": seed, "error": gap},
                )
            if sum(size.values()) >= sum(largest.values()):
                largest = size
            top = max(top, amplitude)
    shown = ", ".join(f"{k} = {v}" for k, v in largest.items())
    return f"{shown + ', ' if shown else ''}amplitude {top}{overflows}"


def _arguments(fn: Callable[..., Any], card: Card) -> tuple[str, ...]:
    """Return the card's inputs in the order of a function's parameters."""
    order = tuple(i.name for i in card.inputs)
    try:
        parameters = [
            p
            for p in inspect.signature(fn).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        return order
    named = []
    for p in parameters:
        found = card.bind(p.name) or card.bind(p.name.upper()) or card.bind(greek(p.name))
        if found is None:
            break
        named.append(found.name)
    if len(named) >= len(order) and len(set(named[: len(order)])) == len(order):
        return tuple(named[: len(order)])
    return order


def greek(name: str) -> str:
    letters = {"gamma": "γ", "beta": "β", "eps": "ε", "epsilon": "ε", "alpha": "α", "theta": "θ",
               "sigma": "σ", "mu": "μ", "beta1": "β_1", "beta2": "β_2", "lam": "λ"}  # fmt: skip
    return letters.get(name.lower(), name)


def _function_value(fn: Callable[..., Any], card: Card, wanted: tuple[str, ...]) -> Compute:
    def compute(point: Point, m: Any) -> Any:
        values = [m.array(point.inputs[k]) for k in wanted]
        values = [
            np.array(v)
            if isinstance(v, np.ndarray) and v.ndim
            else (v.item() if hasattr(v, "item") else v)
            for v in values
        ]
        with np.errstate(all="ignore"):
            return fn(*values)

    return compute


def _function_differs(compute: Compute, card: Card, probe: Any, reading: str) -> Finding:
    up_to = _rotated(compute, card)
    if up_to:
        return answer(card, Verdict.EQUAL_UP_TO, reading, detail=up_to[0], explanation=up_to[1])
    near = approximation(compute, card)
    if near:
        return answer(card, Verdict.APPROXIMATES, reading, detail=near[0], explanation=near[1])
    small = shrink.shrink(card, compute, probe.point)
    outcome = Outcome("different", probe=probe, point=probe.point)
    try:
        counter = certificate(compute, card, small, outcome)
    except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError):
        counter = _uncertified(compute, card, small, probe.seed)
    verdict = (
        Verdict.DIFFERENT_CERTIFIED if counter.certificate.get("disjoint") else Verdict.DIFFERENT
    )
    found = shrink.coincidences(
        card, lambda p: discrepancy(compute(p, FLOATS), card.value(FLOATS, p)) < 1e-9
    )
    said: list[str] = []
    equals = ""
    extra: dict[str, Any] = {}
    if {"Q", "K"} <= {x.name for x in card.inputs}:
        fit = explain.fit_attention(card, compute, probe.point)
        if fit is not None and fit.inner is not None:
            outer = fit.outer.text()
            unit = fit.outer.exponent == 0 and abs(fit.outer.coefficient - 1) < 1e-9
            equals = f"attention with scale {fit.inner.text()}"
            equals = equals if unit else f"{outer} times {equals}"
            if unit and fit.inner.text() == "1/√d_k" and card.id != "mup-attention":
                equals = ""  # right at this point, wrong elsewhere: no explanation
            else:
                said.append(f"It equals {equals}.")
                extra["row_sum"] = outer
    if not equals:
        ratio = explain.constant_ratio(card, compute, battery(card))
        if ratio is not None:
            equals = explain.times(ratio, card)
            said.append(f"It is {equals}.")
    known = explain.resembles(known_mistakes(card), compute, battery(card))
    if known:
        where = f" (seen in {known[1]})" if known[1] else ""
        said.append(f"A known mistake: {known[0]}{where}.")
        extra["mistake"] = {"says": known[0], "seen": known[1]}
    return answer(
        card,
        verdict,
        reading,
        counterexample=counter,
        coincidences=found,
        explanation=" ".join(said),
        equals_instead=equals,
        witnesses=extra,
    )


def _uncertified(compute: Compute, card: Card, point: Point, seed: int) -> Counterexample:
    return Counterexample(
        {k: as_texts(v) for k, v in point.inputs.items()},
        np.asarray(compute(point, FLOATS), dtype=np.float64).tolist(),
        np.asarray(card.value(FLOATS, point)).tolist(),
        {
            "sizes": dict(point.sizes),
            "seed": seed,
            "disjoint": False,
            "why": "the function does not run on exact balls",
        },
    )


def _rotated(compute: Compute, card: Card) -> tuple[str, str] | None:
    """Return whether a function is the card after a fixed permutation of components."""
    if "permutation" not in card.up_to:
        return None
    vector = card.inputs[0].name
    for probe in battery(card)[:4]:
        point = probe.point
        x = point.inputs[vector]
        n = len(x)
        order = [*range(0, n, 2), *range(1, n, 2)]  # pairs to halves
        moved = Point({**point.inputs, vector: x[order]}, point.sizes, point.functions)
        try:
            value = np.asarray(compute(moved, FLOATS), dtype=np.float64)
        except (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError):
            return None
        if discrepancy(value, probe.floats[order]) > 1e-9:
            return None
    return (
        "permutation",
        f"It is {card.name} with components stored by halves instead of by pairs: "
        "the same map after a fixed permutation.",
    )
