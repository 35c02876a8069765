"""Compare formulas with each other: steps of a chain, several formulas of one name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minitransformer.verify import shrink
from minitransformer.verify.answers import answer, show
from minitransformer.verify.binding import bind, inline, sides
from minitransformer.verify.cards import find
from minitransformer.verify.cards.card import Card
from minitransformer.verify.compare import Outcome, compare, term_value
from minitransformer.verify.evaluate import Evaluator
from minitransformer.verify.expression import Expr
from minitransformer.verify.interpret import Interpretation, interpret
from minitransformer.verify.judge import certificate
from minitransformer.verify.matching import match
from minitransformer.verify.number_systems import CannotEvaluate, Point
from minitransformer.verify.verdict import Finding, Verdict


def contradictions(
    formulas: Sequence[tuple[str, Expr]],
    definitions: Mapping[str, Expr] | None = None,
    card: Card | str | None = None,
) -> list[Finding]:
    """Compare formulas of the same name with each other.

    Parameters
    ----------
    formulas : sequence of (str, Expr)
        Names with the whole equation or its right-hand side, in document order.
    definitions : mapping, optional
        Steps of a derivation, substituted before the comparison.
    card : Card or str, optional
        Gives the symbols their dimensions; found by `match` otherwise.

    Returns
    -------
    list of Finding
        One DIFFERENT-CERTIFIED finding for each pair that cannot both hold;
        ``witnesses["pair"]`` holds the two positions in `formulas`.
    """
    known = dict(definitions or {})
    out: list[Finding] = []
    for i, j in itertools.combinations(range(len(formulas)), 2):
        (name_i, a), (name_j, b) = formulas[i], formulas[j]
        if name_i != name_j or a == b:
            continue
        lhs_a, claims_a, _ = sides(a)
        _, claims_b, _ = sides(b)
        own = {k: v for k, v in known.items() if k != name_i}
        left, right = inline(claims_a[-1], own), inline(claims_b[-1], own)
        chosen = find(card) if isinstance(card, str) else card
        if chosen is None:
            matched = match(a, definitions=own) or match(b, definitions=own)
            if not matched:
                continue
            chosen = matched[0]
        finding = _pair(left, right, lhs_a, chosen, name_i)
        if finding is not None:
            out.append(replace(finding, witnesses={**finding.witnesses, "pair": (i, j)}))
    return out


def _pair(left: Expr, right: Expr, lhs: Expr | None, card: Card, shared: str) -> Finding | None:
    """Return a finding if two formulas of one quantity differ, else None."""
    a = interpret(bind(left, card, lhs), card)
    b = interpret(bind(right, card, lhs), card)
    if not a.good or not b.good:
        return None
    try:
        outcome = pair_outcome(left, right, lhs, card, a.good[0], b.good[0])
    except CannotEvaluate:
        return None
    if outcome.kind != "certified" or outcome.point is None or outcome.probe is None:
        return None
    other = outcome.probe.card
    compute = term_value(a.good[0].term)
    small = shrink.shrink(other, compute, outcome.point)
    first, second = show(left), show(right)
    return answer(
        card,
        Verdict.DIFFERENT_CERTIFIED,
        f"{first}  against  {second}",
        detail="contradiction",
        explanation=f"Two formulas are given for {shared} and they contradict each other: "
        f"{first} is not {second}.",
        counterexample=certificate(compute, other, small, outcome),
    )


def pair_outcome(
    left: Expr, right: Expr, lhs: Expr | None, card: Card, a: Interpretation, b: Interpretation
) -> Outcome:
    """Compare two formulas, the second standing in for the card's reference."""
    extra = tuple({x.name: x for e in (left, right) for x in bind(e, card, lhs).extra}.values())
    names = tuple(x.name for x in (*card.inputs, *extra))

    def reference(m: Any, sizes: Mapping[str, int], *values: Any) -> Any:
        return Evaluator(Point({}, sizes, card.functions), m, dict(zip(names, values)))(b.term)

    other = replace(card, inputs=(*card.inputs, *extra), reference=reference)
    return compare(term_value(a.term), other)
