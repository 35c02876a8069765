"""Judge a typed formula against a card: equal, or different with all that shows it."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify import boundaries, explain, repair, shrink
from minitransformer.verify.binding import Bound, bind
from minitransformer.verify.canonical import canonical
from minitransformer.verify.cards import cards
from minitransformer.verify.cards.card import Card, formula_tree
from minitransformer.verify.compare import (
    Compute,
    Outcome,
    Probe,
    battery,
    compare,
    discrepancy,
    extend,
    settle,
    term_value,
)
from minitransformer.verify.dimensions import (
    Convention,
    Elaborator,
    IllTyped,
    Term,
    Typing,
    Unbound,
)
from minitransformer.verify.evaluate import (
    EXACT,
    FLOATS,
    CannotEvaluate,
    Evaluator,
    Point,
    evaluate,
    precision,
)
from minitransformer.verify.expression import Expr
from minitransformer.verify.interpret import Interpretation, Typed, interpret, quick_equal
from minitransformer.verify.numerics import lost_bits, slope
from minitransformer.verify.printing import to_latex, to_unicode
from minitransformer.verify.verdict import Counterexample, Finding, Place, Verdict

OVERFLOW = {"float16": math.log(65504.0), "float32": math.log(3.4028235e38),
            "float64": math.log(1.7976931348623157e308)}  # fmt: skip


EQUALS = frozenset([Verdict.EQUAL_PROVED, Verdict.EQUAL_SUPPORTED, Verdict.EQUAL_UP_TO])


# How an evaluation can fail without anything being wrong with the verifier.
FAILURES = (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError)
CLOSELY = 0.025  # the largest error of what may be called an approximation
# From the verdict that says most against a claim to the one that says least.
SEVERITY = (
    Verdict.CANNOT_PARSE, Verdict.ILL_TYPED, Verdict.WRONG_SHAPE, Verdict.DIFFERENT_CERTIFIED,
    Verdict.DIFFERENT, Verdict.COINCIDES_ONLY_WHEN, Verdict.UNDER_SPECIFIED, Verdict.AMBIGUOUS,
    Verdict.NO_CARD, Verdict.APPROXIMATES, Verdict.EQUAL_UP_TO, Verdict.EQUAL_SUPPORTED,
    Verdict.EQUAL_PROVED,
)  # fmt: skip


def show(e: Expr) -> str:
    """Echo a formula as it was read."""
    return to_unicode(e)


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def answer(
    card: Card,
    verdict: Verdict,
    reading: str,
    *,
    repair: repair.Repair | None = None,
    **fields: Any,
) -> Finding:
    if repair is not None:
        fields["repair"] = "; then ".join(repair.steps)
        fields["repair_latex"] = to_latex(repair.expr)
    return Finding(Place("", 0, ""), verdict, card=card.id, reading=reading, **fields)


def judge(
    typed: Typed, bound: Bound, card: Card, reading: str, full: bool, approximate: bool
) -> Finding:
    outcomes = [(i, compare(term_value(i.term), card, bound.extra)) for i in typed.good]
    equal = [(i, o) for i, o in outcomes if o.equal]
    if equal and len(equal) < len(outcomes):
        other = next(i for i, o in outcomes if not o.equal)
        told = _convention_difference(equal[0][0].convention, other.convention)
        return answer(
            card,
            Verdict.AMBIGUOUS,
            reading,
            detail=told,
            explanation=f"The notation leaves open {told}; one choice gives {card.name}, "
            "another does not.",
            unsafe_float=float_safety(equal[0][0].term, card, bound),
        )
    if equal:
        return _equal(equal[0][0], equal[0][1], bound, card, reading, full)
    interpretation, outcome = outcomes[0]
    return _different(interpretation, outcome, bound, card, reading, full, approximate)


def _convention_difference(a: Convention, b: Convention) -> str:
    told = []
    if a.single != b.single:
        told.append("which axis one index of a matrix runs over")
    if a.reduce != b.reduce:
        told.append("whether the reduction runs over a row or the whole matrix")
    return " and ".join(told) or "the meaning"


def _positive(card: Card) -> frozenset[str]:
    return frozenset(i.name for i in card.inputs if i.domain in ("positive", "unit", "whole"))


def card_form(card: Card) -> Any:
    """Return the canonical form of the card's own formula, computed once."""
    if id(card) not in _FORMS:
        forms = []
        for text in (card.latex, *card.alternatives):
            try:
                bound = bind(formula_tree(text), card)
                typed = interpret(bound, card)
            except Exception:  # a card is shown without a proof rather than not at all
                continue
            for i in typed.good[:1]:
                form = canonical(i.term, _positive(card))
                if form is not None:
                    forms.append(form)
        _FORMS[id(card)] = tuple(forms)
    return _FORMS[id(card)]


_FORMS: dict[int, tuple[Any, ...]] = {}


def _equal(
    i: Interpretation, o: Outcome, bound: Bound, card: Card, reading: str, full: bool
) -> Finding:
    if o.shapes < 2 and len(card.dims) > 0:
        return answer(
            card,
            Verdict.UNDER_SPECIFIED,
            reading,
            explanation="Fewer than two shapes could be compared.",
        )
    unseen = boundaries.unseen(i.term, card, bound.extra)
    if unseen.differs is not None:
        return _different(i, unseen.differs, bound, card, reading, full, False)
    witnesses: dict[str, Any] = {"points": o.points, "shapes": o.shapes, "bits": o.bits}
    if bound.renamed:
        witnesses["renamed"] = dict(bound.renamed)
    if full and not bound.extra:
        witnesses["lost_bits"] = lost_bits(i.term, card)
    unsafe = float_safety(i.term, card, bound)
    if i.flipped:
        return answer(
            card,
            Verdict.EQUAL_UP_TO,
            reading,
            detail="transpose convention",
            explanation=f"It is {card.name} with every matrix transposed (vectors as columns).",
            witnesses=witnesses,
            unsafe_float=unsafe,
        )
    form = canonical(i.term, _positive(card))
    if form is not None and form in card_form(card):
        return answer(
            card,
            Verdict.EQUAL_PROVED,
            reading,
            witnesses=witnesses,
            detail="same canonical form",
            unsafe_float=unsafe,
        )
    closer = boundaries.sharper(i.term, card, bound.extra)
    if closer is not None:
        return _different(i, closer, bound, card, reading, full, False)
    if unseen.sides:
        listed = "; ".join(show_span(bound.expr, span) for span in unseen.sides)
        return answer(
            card,
            Verdict.UNDER_SPECIFIED,
            reading,
            detail=f"one side of {listed} was never reached",
            explanation=f"It is {card.name} at every point compared, but none of them reached "
            f"both sides of {listed}.",
            witnesses=witnesses,
        )
    only = boundaries.only_masks(i.term, card, bound.extra)
    if only:
        listed = " and ".join(only)
        return answer(
            card,
            Verdict.EQUAL_UP_TO,
            reading,
            detail=f"{listed} holds 0 and −∞ alone",
            explanation=f"It is {card.name} if {listed} holds nothing but 0 and −∞; for another "
            "additive mask or bias it is not.",
            witnesses=witnesses,
            unsafe_float=unsafe,
        )
    return answer(
        card,
        Verdict.EQUAL_SUPPORTED,
        reading,
        witnesses=witnesses,
        detail=f"{o.points} points, {o.bits} bits",
        unsafe_float=unsafe,
    )


def show_span(e: Expr, span: tuple[int, int]) -> str:
    """Write the part of a formula that stands at a place in the text."""
    return next((show(n) for n in e.walk() if n.span == span and n.op != "number"), show(e))


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


def _different(
    i: Interpretation,
    o: Outcome,
    bound: Bound,
    card: Card,
    reading: str,
    full: bool,
    approximate: bool,
) -> Finding:
    compute = term_value(i.term)
    verdict = Verdict.DIFFERENT_CERTIFIED if o.kind == "certified" else Verdict.DIFFERENT
    fields: dict[str, Any] = {
        "span": i.term.span,
        "unsafe_float": float_safety(i.term, card, bound),
    }
    up_to = equal_up_to(compute, card, bound)
    if up_to:
        return answer(card, Verdict.EQUAL_UP_TO, reading, detail=up_to[0], explanation=up_to[1])
    near = approximation(compute, card)
    if near:
        return answer(
            card,
            Verdict.APPROXIMATES,
            reading,
            detail=near[0],
            explanation=near[1],
            witnesses=near[2],
        )
    instance = _instance(i, bound, card)
    if instance:
        return answer(
            card,
            Verdict.EQUAL_UP_TO,
            reading,
            detail=f"reparametrisation: {instance}",
            explanation=f"It is {card.name} with {instance}.",
            unsafe_float=fields["unsafe_float"],
        )
    when = special_size(i.term, bound, card)
    if when:
        return answer(
            card,
            Verdict.COINCIDES_ONLY_WHEN,
            reading,
            detail=when,
            coincidences=(when,),
            explanation=f"The formula has a number in place of a size: it is {card.name} only "
            f"when {when}.",
            repair=_repair(i, bound, card) if full else None,
        )
    if not full:
        return answer(card, verdict, reading, **fields)
    point = o.point
    assert point is not None and o.probe is not None
    small = shrink.shrink(card, compute, point, bound.extra)
    fields["counterexample"] = certificate(compute, card, small, o)
    fields["coincidences"] = shrink.coincidences(
        card, lambda p: discrepancy(compute(p, FLOATS), card.value(FLOATS, p)) < 1e-9, bound.extra
    )
    told = _explanation(i, bound, card, compute, o)
    fields["explanation"], fields["equals_instead"], extra = told
    fields["witnesses"] = extra
    fields["repair"] = _repair(i, bound, card)
    return answer(card, verdict, reading, **fields)


def certificate(compute: Compute, card: Card, point: Point, o: Outcome) -> Counterexample:
    """Certify the difference again at a small point and write it down."""
    probe = Probe(card, point, o.probe.seed if o.probe else 0, Fraction(1))
    kind, found = settle(compute, probe, point)
    certificate: dict[str, Any] = {"sizes": dict(point.sizes)}
    if o.probe is not None:
        certificate["seed"] = o.probe.seed
    if kind == "certified":
        entry, c, r, bits = found
        certificate.update(
            bits=bits,
            entry=list(entry),
            claimed_ball=str(c.str(20)),
            reference_ball=str(r.str(20)),
            disjoint=True,
        )
    else:
        certificate.update(disjoint=False, why=str(found))
    with np.errstate(all="ignore"):
        try:
            claimed = np.asarray(compute(point, FLOATS), dtype=np.float64).tolist()
        except FAILURES as error:
            claimed = str(error)
    reference = np.asarray(probe.floats).tolist()
    inputs = {k: as_texts(v) for k, v in point.inputs.items()}
    return Counterexample(inputs, claimed, reference, certificate)


def as_texts(array: Any) -> Any:
    if np.ndim(array) == 0:
        return str(array.item() if hasattr(array, "item") else array)
    return [as_texts(row) for row in array]


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


def _instance(i: Interpretation, bound: Bound, card: Card) -> str:
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


def _explanation(
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


_MISTAKES: dict[int, list[tuple[str, str, Callable[[Point], Any]]]] = {}


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


def vocabulary(card: Card, bound: Bound) -> repair.Vocabulary:
    """Return what edits may put into a formula bound to a card."""
    used = {n.value for n in bound.expr.walk() if n.op == "name"}
    sizes = [d for d in card.dims if d in used]
    sizes += [s for s in card.sizes if s in used and s not in sizes]
    sizes += [d for d in card.dims if d not in sizes]
    groups: dict[tuple[str, ...], list[str]] = {}
    for item in card.inputs:
        key = ("m",) if len(item.dims) == 2 else item.dims
        groups.setdefault(key, []).append(item.name)
    scalars = tuple(i.name for i in card.inputs if not i.dims) + bound.unknown
    matrices = tuple(i.name for i in card.inputs if len(i.dims) == 2)
    return repair.Vocabulary(
        tuple(sizes[:4]), tuple(tuple(g) for g in groups.values() if len(g) > 1), scalars, matrices
    )


def _search(
    bound: Bound, card: Card, conventions: Sequence[Convention], budget: int, depth: int = 3
) -> repair.Repair | None:
    probe = battery(card)[0]
    point = extend(probe.point, bound.extra, probe.seed)
    elaborators = [Elaborator(bound.typing, c) for c in conventions]
    evaluator = Evaluator(point, FLOATS)

    def quick(e: Expr) -> bool:
        for elaborator in elaborators:
            try:
                term = elaborator.formula(e, bound.free)
                if term.dims != card.output:
                    continue
                with np.errstate(all="ignore"):
                    value = evaluator(term)
                if discrepancy(value, probe.floats) < 1e-9:
                    return True
            except (
                IllTyped,
                Unbound,
                CannotEvaluate,
                ValueError,
                TypeError,
                IndexError,
                ArithmeticError,
            ):
                continue
        return False

    def confirmed(e: Expr) -> bool:
        for elaborator in elaborators:
            try:
                term = elaborator.formula(e, bound.free)
            except (IllTyped, Unbound):
                continue
            if term.dims == card.output and compare(term_value(term), card, bound.extra).equal:
                return True
        return False

    loops = sum(n.op == "big" for n in bound.expr.walk())  # each costs a loop per candidate
    budget = min(budget, 20_000 // (repair.size_of_tree(bound.expr) * (1 + 3 * loops)))
    found = repair.repairs(
        bound.expr, vocabulary(card, bound), quick, confirmed, budget=budget, depth=depth
    )
    return repair.tidy(found[0], quick, confirmed) if found else None


def _repair(i: Interpretation, bound: Bound, card: Card) -> repair.Repair | None:
    if i.flipped:
        return None
    return _search(bound, card, (i.convention,), budget=1500)


def typed_repair(bound: Bound, card: Card) -> repair.Repair | None:
    return _search(bound, card, (Convention(), Convention(product="dot")), budget=500, depth=2)
