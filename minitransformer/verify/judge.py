"""Judge a typed formula against a card: equal, or different with all that shows it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify import boundaries, shrink
from minitransformer.verify.answers import FAILURES, answer, show
from minitransformer.verify.binding import Bound, bind
from minitransformer.verify.canonical import canonical
from minitransformer.verify.cards.card import Card, formula_tree
from minitransformer.verify.compare import (
    Compute,
    Outcome,
    Probe,
    compare,
    discrepancy,
    settle,
    term_value,
)
from minitransformer.verify.diagnosis import diagnose
from minitransformer.verify.dimensions import (
    Convention,
)
from minitransformer.verify.expression import Expr
from minitransformer.verify.interpret import Interpretation, Typed, interpret
from minitransformer.verify.nearness import approximation, equal_up_to, instance, special_size
from minitransformer.verify.number_systems import FLOATS, Point
from minitransformer.verify.numerics import float_safety, lost_bits
from minitransformer.verify.repair_search import repaired
from minitransformer.verify.verdict import Counterexample, Finding, Verdict


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
    given = instance(i, bound, card)
    if given:
        return answer(
            card,
            Verdict.EQUAL_UP_TO,
            reading,
            detail=f"reparametrisation: {given}",
            explanation=f"It is {card.name} with {given}.",
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
            repair=repaired(i, bound, card) if full else None,
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
    told = diagnose(i, bound, card, compute, o)
    fields["explanation"], fields["equals_instead"], extra = told
    fields["witnesses"] = extra
    fields["repair"] = repaired(i, bound, card)
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
