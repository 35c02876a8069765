"""Formulas with symbols of no given meaning: judged at usual values, at 1, and free."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from minitransformer.verify import repair
from minitransformer.verify.answers import EQUALS, answer, sentence, show
from minitransformer.verify.binding import Bound, bind, substitute
from minitransformer.verify.cards.card import Card, formula_tree
from minitransformer.verify.diagnosis import as_attention
from minitransformer.verify.expression import Expr, name, number
from minitransformer.verify.interpret import interpret, quick_equal
from minitransformer.verify.judge import judge
from minitransformer.verify.verdict import Finding, Verdict


def values_of(declared: Any) -> list[Expr]:
    """Return the values a declaration gives a symbol."""
    if isinstance(declared, Expr):
        return [declared]
    if isinstance(declared, (int, Fraction)):
        return [number(declared)]
    if isinstance(declared, list):
        return [v for d in declared for v in values_of(d)]
    return []


def candidates(card: Card) -> list[Expr]:
    """Return the values people give a free factor: 1 and powers of the card's sizes."""
    out = [number(1)]
    for d in card.dims:
        root = Expr("sqrt", (name(d),))
        out += [root, name(d), Expr("div", (number(1), root)), Expr("div", (number(1), name(d)))]
    return out


def with_unknown(
    claim: Expr,
    bound: Bound,
    lhs: Expr | None,
    card: Card,
    declarations: Mapping[str, Any],
    reading: str,
    full: bool,
) -> Finding:
    """Judge a formula with symbols of no given meaning: at usual values, at 1, and free."""
    if len(bound.unknown) > 1:
        renamed = by_renaming(claim, bound, card, reading)
        if renamed is not None:
            return renamed
    cases: list[dict[str, str]] = []
    found: dict[str, Finding] = {}
    right: list[str] = []
    symbol = bound.unknown[0]
    declared = values_of(declarations.get(symbol))
    trials = declared + [v for v in candidates(card) if v not in declared]
    proposal = proposed(claim, bound, card, reading, lhs, declarations)
    if proposal is not None:
        return proposal
    if len(bound.unknown) > 1 or bound.typing.symbols[symbol]:
        trials = []  # no number stands for several symbols, or for a table
    for value in trials:
        text = show(value)
        fixed = bind(substitute(claim, {symbol: value}), card, lhs, declarations)
        named = value in declared or value == number(1)
        typed = interpret(fixed, card)
        if not typed.good:
            continue
        if not named:
            if quick_equal(typed, fixed, card):
                right.append(text)
            continue
        finding = judge(typed, fixed, card, reading, full and not found, False)
        if found and full and finding.verdict not in EQUALS:
            finding = replace(finding, equals_instead=as_attention(typed.good[0], fixed, card)[0])
        cases.append(
            {
                "symbol": symbol,
                "value": text,
                "verdict": finding.verdict.value,
                "equals": finding.equals_instead,
            }
        )
        found[text] = finding
        if finding.verdict in EQUALS:
            right.append(text)
    typed = interpret(bound, card)
    free = judge(typed, bound, card, reading, full and not found, False)
    if full and free.verdict not in EQUALS:
        equals, row_sum = as_attention(typed.good[0], bound, card)
        free = replace(
            free,
            equals_instead=equals,
            witnesses={**free.witnesses, **({"row_sum": row_sum} if row_sum else {})},
        )
    cases.append(
        {
            "symbol": ", ".join(bound.unknown),
            "value": "free",
            "verdict": free.verdict.value,
            "equals": free.equals_instead,
        }
    )
    return _summed_up(free, found, right, cases, bound, card, reading, declarations)


def _summed_up(
    free: Finding,
    found: Mapping[str, Finding],
    right: Sequence[str],
    cases: list[dict[str, str]],
    bound: Bound,
    card: Card,
    reading: str,
    declarations: Mapping[str, Any],
) -> Finding:
    """Say at once what a formula is at each value tried, and free."""
    symbol = bound.unknown[0]
    witnesses = {"cases": cases}
    if free.verdict in EQUALS:
        guessed = [u for u in bound.unknown if u not in declarations]
        if not guessed:
            return replace(free, witnesses={**free.witnesses, **witnesses})
        # A mask typed as a number would vanish by the softmax's shift: never call that equal.
        listed = " and ".join(guessed)
        return replace(
            free,
            verdict=Verdict.UNDER_SPECIFIED,
            detail=", ".join(guessed),
            explanation=f"It is {card.name} for every number {listed}, but nothing says that "
            f"{listed} {'are numbers' if len(guessed) > 1 else 'is a number'}.",
            witnesses={**free.witnesses, **witnesses},
        )
    if right:
        shown = " or ".join(right)
        return replace(
            free,
            verdict=Verdict.UNDER_SPECIFIED,
            detail=symbol,
            explanation=f"{symbol} is given no value; the formula is right only if "
            f"{symbol} = {shown}.",
            repair=f"say that {symbol} = {right[0]}",
            repair_latex="",
            witnesses={**free.witnesses, **witnesses},
            counterexample=None,
        )
    if len(bound.unknown) > 1:
        return replace(undecided(bound, card, reading), witnesses=witnesses)
    lead = next(iter(found.values()), free)
    told = "; ".join(
        f"with {symbol} = {c['value']}: {c['verdict']}"
        + (f" ({c['equals']})" if c["equals"] else "")
        if c["value"] != "free"
        else f"with {symbol} free: {c['verdict']}"
        for c in cases
    )
    return replace(
        lead,
        witnesses={**lead.witnesses, **witnesses},
        explanation=f"{lead.explanation} {sentence(told)}.".strip(),
    )


def proposed(
    claim: Expr,
    bound: Bound,
    card: Card,
    reading: str,
    lhs: Expr | None,
    declarations: Mapping[str, Any],
) -> Finding | None:
    """Refuse a formula whose undefined symbols have a usual meaning, and name that meaning."""
    usual = {u: formula_tree(card.suggestions[u]) for u in bound.unknown if u in card.suggestions}
    if not usual:
        return None
    trial = bind(substitute(claim, usual), card, lhs, declarations)
    typed = interpret(trial, card)
    meant = ", ".join(f"{u} = {show(v)}" for u, v in usual.items())
    listed = ", ".join(usual)
    right = bool(typed.good) and not trial.unknown and quick_equal(typed, trial, card)
    told = (
        f"the formula is right if {meant}"
        if right
        else f"even with {meant} the formula is not {card.name}"
    )
    return answer(
        card,
        Verdict.UNDER_SPECIFIED,
        reading,
        detail=listed,
        explanation=f"Nothing defines {listed}; {told}.",
        repair=None if not right else repair.Repair(claim, (f"define {meant}",), 0),
    )


def undecided(bound: Bound, card: Card, reading: str) -> Finding:
    listed = ", ".join(bound.unknown)
    plural = len(bound.unknown) > 1
    return answer(
        card,
        Verdict.UNDER_SPECIFIED,
        reading,
        detail=listed,
        explanation=f"The symbol{'s' if plural else ''} {listed} {'are' if plural else 'is'} given "
        "no meaning, so nothing can be decided.",
    )


def by_renaming(claim: Expr, bound: Bound, card: Card, reading: str) -> Finding | None:
    """Look for inputs the unknown symbols may stand for; say so, but never call it equal."""
    named = {str(n.value) for n in claim.walk() if n.op == "name"}
    missing = [i.name for i in card.inputs if not any(card.bind(n) is i for n in named)]
    # A symbol the card would give a meaning may be one of them: A is often a weight matrix.
    unknown = (*bound.unknown, *sorted(named & set(card.derived)))
    if len(unknown) > 4 or len(missing) < len(unknown) or len(missing) > 5:
        return None
    for names in itertools.permutations(missing, len(unknown)):
        trial = bind(substitute(claim, {u: name(t) for u, t in zip(unknown, names)}), card)
        typed = interpret(trial, card)
        if typed.good and not trial.unknown and quick_equal(typed, trial, card):
            shown = ", ".join(f"{u} = {t}" for u, t in zip(unknown, names))
            return answer(
                card,
                Verdict.UNDER_SPECIFIED,
                reading,
                detail=", ".join(unknown),
                explanation=f"Nothing says what {', '.join(unknown)} are; the formula is "
                f"{card.name} if {shown}.",
                repair=None,
            )
    return None
