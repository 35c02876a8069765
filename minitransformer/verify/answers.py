"""What findings of the engine share: their record, their order, what counts as failing."""

from __future__ import annotations

from typing import Any

from minitransformer.verify import repair
from minitransformer.verify.cards.card import Card
from minitransformer.verify.expression import Expr
from minitransformer.verify.number_systems import CannotEvaluate
from minitransformer.verify.printing import to_latex, to_unicode
from minitransformer.verify.verdict import Finding, Place, Verdict

EQUALS = frozenset([Verdict.EQUAL_PROVED, Verdict.EQUAL_SUPPORTED, Verdict.EQUAL_UP_TO])
# How an evaluation can fail without anything being wrong with the verifier.
FAILURES = (CannotEvaluate, ValueError, TypeError, IndexError, ArithmeticError)
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
