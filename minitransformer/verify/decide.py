"""Decide whether a formula is a card's: the ten steps from binding to repair.

`decide` takes a formula (text, a parser's reading or a tree) and a card and
returns a `Finding`. It answers EQUAL only after agreement in ball arithmetic at
several shapes with every dimension at least 2 and with no symbol guessed, and
DIFFERENT-CERTIFIED only with two disjoint balls to show.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minitransformer.verify.answers import EQUALS, SEVERITY, answer, sentence, show
from minitransformer.verify.binding import Bound, bind, defines, head_of, inline, sides, substitute
from minitransformer.verify.cards import find
from minitransformer.verify.cards.card import Card
from minitransformer.verify.dimensions import IllTyped, Unbound, show_dims
from minitransformer.verify.expression import Expr, number
from minitransformer.verify.functions import decide_function
from minitransformer.verify.interpret import Typed, interpret, plausible, trees
from minitransformer.verify.judge import judge
from minitransformer.verify.matching import match
from minitransformer.verify.number_systems import CannotEvaluate
from minitransformer.verify.pairs import contradictions, pair_outcome
from minitransformer.verify.printing import to_latex
from minitransformer.verify.repair_search import typed_repair, vocabulary
from minitransformer.verify.unknown_symbols import (
    by_renaming,
    proposed,
    undecided,
    values_of,
    with_unknown,
)
from minitransformer.verify.verdict import Finding, Place, Verdict

__all__ = ["EQUALS", "contradictions", "decide", "decide_function", "match", "vocabulary"]


def decide(
    claim: Any,
    card: Card | str,
    *,
    declarations: Mapping[str, Any] | None = None,
    definitions: Mapping[str, Expr] | None = None,
    full: bool = True,
) -> Finding:
    """Decide whether a formula is what a card says.

    Parameters
    ----------
    claim : str, Expr, reading or sequence of readings
        The formula. An equation is judged by its right-hand sides, a chain
        ``a = b = c`` by each of them.
    card : Card or str
        What to compare with, or its name.
    declarations : mapping, optional
        What the text says about symbols: a tuple of size names is a shape, an `Expr` or a
        number a value, a list of those several usual values, a string prose.
    definitions : mapping, optional
        Formulas of names used in the claim, such as the steps of a derivation.
    full : bool
        Also shrink, explain and repair; without it only the verdict is found.

    Returns
    -------
    Finding
        With an empty `Place`; the caller knows where the formula stands.

    Raises
    ------
    CannotParse
        If `claim` is text that cannot be read.

    Examples
    --------
    >>> decide("softmax(Q @ K.T / sqrt(d_k)) @ V", "attention").verdict.value
    'EQUAL-PROVED'
    >>> decide("softmax(Q @ K.T / d_k) @ V", "attention").equals_instead
    'attention with scale 1/d_k'
    """
    card = find(card) if isinstance(card, str) else card
    readings = plausible(trees(claim))
    findings = [
        _guarded(expr, note, card, declarations or {}, definitions or {}, full)
        for expr, note in readings
    ]
    text = claim if isinstance(claim, str) else ""
    out = _agree(findings, [n for _, n in readings])
    if out.verdict not in EQUALS:
        out = _as_softmax(out, readings[0][0], card, declarations or {}, definitions or {})
    return replace(out, place=Place("", 0, text))


def _as_softmax(
    found: Finding,
    e: Expr,
    card: Card,
    declarations: Mapping[str, Any],
    definitions: Mapping[str, Expr],
) -> Finding:
    """Offer the other meaning of σ before a vector: the softmax."""
    if not any(n.op == "call" and n.value == "σ" for n in e.walk()) or "σ" in card.derived:
        return found

    def change(node: Expr) -> Expr:
        if node.op == "call" and node.value == "σ":
            return replace(node, value="softmax")
        return node

    other = _guarded(e.map(change), "", card, declarations, definitions, False)
    if other.verdict not in EQUALS:
        return found
    return replace(
        found,
        verdict=Verdict.AMBIGUOUS,
        detail=f"σ is the logistic sigmoid: {found.verdict.value}; "
        f"σ is the softmax: {other.verdict.value}",
        explanation=f"σ names both the logistic sigmoid and the softmax: it is {card.name} if σ is "
        "the softmax, and is not if σ is the sigmoid.",
        repair="write softmax for σ",
        repair_latex=to_latex(e.map(change)),
        counterexample=None,
    )


def _guarded(e: Expr, *rest: Any) -> Finding:
    """Judge one reading; whatever cannot be evaluated is refused, never called equal."""
    try:
        return _reading(e, *rest)
    except (CannotEvaluate, Unbound, IllTyped, RecursionError) as error:
        card = rest[1]
        return answer(
            card,
            Verdict.UNDER_SPECIFIED,
            show(e),
            detail=str(error),
            explanation=f"It cannot be evaluated: {error}.",
        )


def _agree(findings: Sequence[Finding], notes: Sequence[str]) -> Finding:
    """Merge the findings of several readings of one text."""
    if len(findings) == 1:
        return findings[0]
    typed = [
        (f, n)
        for f, n in zip(findings, notes)
        if f.verdict not in (Verdict.ILL_TYPED, Verdict.WRONG_SHAPE)
    ] or list(zip(findings, notes))
    kinds = {f.verdict in EQUALS for f, _ in typed}
    if len(kinds) == 1:
        best = min((f for f, _ in typed), key=lambda f: SEVERITY.index(f.verdict))
        if best.verdict in EQUALS:
            best = max((f for f, _ in typed), key=lambda f: -SEVERITY.index(f.verdict))
        return best
    shown = "; ".join(f"{n or 'as written'}: {f.verdict.value}" for f, n in typed)
    equal = next(f for f, _ in typed if f.verdict in EQUALS)
    other = next(f for f, _ in typed if f.verdict not in EQUALS)
    return replace(
        other,
        verdict=Verdict.AMBIGUOUS,
        detail=shown,
        explanation=f"The text has two readings and they disagree: {shown}.",
        repair="" if not equal.reading else f"write it so that it reads {equal.reading}",
    )


def _reading(
    e: Expr,
    note: str,
    card: Card,
    declarations: Mapping[str, Any],
    definitions: Mapping[str, Expr],
    full: bool,
) -> Finding:
    lhs, claims, signs = sides(e)
    if lhs is None and e.op == "call" and "scale" in card.up_to and len(e.args) == 1:
        lhs, claims = e, e.args  # O(n² d)
    claims = tuple(
        c.args[0]
        if c.op == "call"
        and str(c.value) in ("O", "𝒪", "Θ")
        and len(c.args) == 1
        and "scale" in card.up_to
        else c
        for c in claims
    )
    own = head_of(lhs)
    usable = {
        k: v
        for k, v in definitions.items()
        if k not in (own, defines(lhs)) and not _is_input(k, card)
    }
    findings = []
    for claim in claims:
        findings.append(_claim(claim, lhs, card, declarations, usable, full, "≈" in signs))
    worst = min(findings, key=lambda f: SEVERITY.index(f.verdict))
    if len(findings) > 1:
        worst = _chain(worst, findings, [inline(c, usable) for c in claims], lhs, card)
    worst = _literals(worst, claims)
    if note:
        worst = replace(worst, witnesses={**worst.witnesses, "read": note})
    return worst


def _is_input(key: str, card: Card) -> bool:
    """Return whether the card has the defined thing as an input: q_i where Q is one."""
    base = card.bind(key.partition("_")[0])
    return card.bind(key) is not None or (base is not None and bool(base.dims))


def _chain(
    worst: Finding,
    findings: Sequence[Finding],
    claims: Sequence[Expr],
    lhs: Expr | None,
    card: Card,
) -> Finding:
    """Say of every step of a chain a = b = c what it is and whether it follows."""
    parts: list[dict[str, Any]] = []
    broken: list[str] = []
    for k, (finding, claim) in enumerate(zip(findings, claims)):
        part: dict[str, Any] = {"reading": finding.reading, "verdict": finding.verdict.value}
        if finding.unsafe_float:
            part["unsafe_float"] = finding.unsafe_float
        if k:
            follows = _follows(claims[k - 1], claim, lhs, card)
            if follows is not None:
                part["follows"] = follows
                if not follows:
                    broken.append(f"{findings[k - 1].reading} is not {finding.reading}")
        parts.append(part)
    explanation = worst.explanation
    if broken:
        explanation = f"{explanation} The chain breaks: {'; '.join(broken)}.".strip()
    unsafe = next((f.unsafe_float for f in findings if f.unsafe_float), "")
    return replace(
        worst,
        witnesses={**worst.witnesses, "chain": parts},
        unsafe_float=unsafe,
        explanation=explanation,
    )


def _follows(a: Expr, b: Expr, lhs: Expr | None, card: Card) -> bool | None:
    """Return whether two steps of a chain are equal; None where that cannot be told."""
    left = interpret(bind(a, card, lhs), card)
    right = interpret(bind(b, card, lhs), card)
    if not left.good or not right.good:
        return None
    try:
        return any(pair_outcome(a, b, lhs, card, x, y).equal for x in left.good for y in right.good)
    except CannotEvaluate:
        return None


def _literals(finding: Finding, claims: Sequence[Expr]) -> Finding:
    """Explain a worked example that multiplies or keeps the wrong entries."""
    if finding.verdict not in (Verdict.ILL_TYPED, Verdict.WRONG_SHAPE):
        return finding
    said = [finding.explanation]
    for before, after in itertools.pairwise(claims):
        factors = before.args if before.op in ("mul", "matmul") else ()
        if len(factors) == 2 and all(f.op == "matrix" for f in factors) and after.op == "matrix":
            a, b = factors
            if len(a.args) == len(b.args) == len(after.args) and all(
                _entry(Expr("mul", pair)) == _entry(c)
                for pair, c in zip(zip(a.args, b.args), after.args)
            ):
                said.append(
                    f"The step to {show(after)} multiplies entry by entry: it is the elementwise "
                    "product Q ⊙ K, not QKᵀ, whose entries are sums of products."
                )
    for claim in claims:
        for node in claim.walk():
            if (
                node.op == "div"
                and node.args[1].op == "add"
                and any(node.args[0] == t for t in node.args[1].args)
            ):
                n = len(node.args[1].args)
                said.append(
                    f"One weight of {n} is kept: {show(node)} is a single entry of the "
                    f"softmax, which has {n}."
                )
                return replace(finding, explanation=" ".join(said))
    return replace(finding, explanation=" ".join(said))


def _entry(e: Expr) -> Expr:
    """Simplify a product of an entry: drop ones, let zero win."""
    if e.op not in ("mul", "matmul"):
        return e
    parts = [_entry(a) for a in e.args]
    if any(p.op == "number" and p.value == 0 for p in parts):
        return number(0)
    parts = [p for p in parts if not (p.op == "number" and p.value == 1)]
    if not parts:
        return number(1)
    return parts[0] if len(parts) == 1 else Expr("mul", tuple(parts))


def _claim(
    claim: Expr,
    lhs: Expr | None,
    card: Card,
    declarations: Mapping[str, Any],
    definitions: Mapping[str, Expr],
    full: bool,
    approximate: bool,
) -> Finding:
    claim = inline(claim, definitions)
    bound = bind(claim, card, lhs, declarations)
    if bound.classes:
        found = _claim_at(claim, bound, lhs, card, declarations, full)
        if found is not None:
            return found
    given = {u: values_of(declarations.get(u)) for u in bound.unknown}
    fixed = {u: v[0] for u, v in given.items() if len(v) == 1 and not _usual(declarations[u])}
    if fixed:
        bound = bind(substitute(claim, fixed), card, lhs, declarations)
    reading = show(claim)
    typed = interpret(bound, card)
    if not typed.good and bound.unknown:
        renamed = by_renaming(claim, bound, card, reading)
        proposal = proposed(claim, bound, card, reading, lhs, declarations)
        if proposal is not None and renamed is None:
            return proposal
        # K_1, K_3 of a worked example are things of the text, whatever their values.
        worked = all(re.fullmatch(r"\w+_\d+", u) for u in bound.unknown)
        if renamed is None and worked and typed.wrong_shape is not None:
            return _untyped(typed, bound, card, reading, False)
        return renamed or undecided(bound, card, reading)
    if not typed.good:
        return _untyped(typed, bound, card, reading, full)
    if bound.unknown:
        return with_unknown(claim, bound, lhs, card, declarations, reading, full)
    return judge(typed, bound, card, reading, full, approximate)


_WITH_CLASSES: dict[tuple[int, tuple[str, ...]], Card] = {}


def _claim_at(
    claim: Expr,
    bound: Bound,
    lhs: Expr | None,
    card: Card,
    declarations: Mapping[str, Any],
    full: bool,
) -> Finding | None:
    """Judge a formula with z_y: the target is a class, so only one-hot targets are compared."""
    key = (id(card), bound.classes)
    if key not in _WITH_CLASSES:
        inputs = tuple(
            replace(x, domain="onehot") if x.name in bound.classes else x for x in card.inputs
        )
        _WITH_CLASSES[key] = replace(card, inputs=inputs)
    at = _WITH_CLASSES[key]
    bound = bind(claim, at, lhs, declarations)
    typed = interpret(bound, at)
    if not typed.good or bound.unknown:
        return None
    found = judge(typed, bound, at, show(claim), full, False)
    if found.verdict not in EQUALS:
        return found
    listed = " and ".join(bound.classes)
    return replace(
        found,
        verdict=Verdict.EQUAL_UP_TO,
        detail=f"reparametrisation: {listed} is a class, the card's one-hot target",
        explanation=f"It is {card.name} for a target {listed} that is one class (one-hot).",
    )


def _usual(declared: Any) -> bool:
    return isinstance(declared, list)


def _untyped(typed: Typed, bound: Bound, card: Card, reading: str, full: bool) -> Finding:
    if typed.wrong_shape is not None:
        term = typed.wrong_shape
        got, want = show_dims(term.dims), show_dims(card.output)
        return answer(
            card,
            Verdict.WRONG_SHAPE,
            reading,
            span=term.span,
            detail=f"{got}, not {want}",
            explanation=f"The formula gives {got} where {card.name} gives {want}.",
            repair=typed_repair(bound, card) if full else None,
        )
    if typed.ill is not None:
        error = typed.ill
        fits = f"; would fit: {'; '.join(error.fits)}" if error.fits else ""
        return answer(
            card,
            Verdict.ILL_TYPED,
            reading,
            span=error.span,
            detail=str(error),
            explanation=f"{sentence(str(error))}{fits}.",
            repair=typed_repair(bound, card) if full else None,
        )
    assert typed.unbound is not None
    error_ = typed.unbound
    return answer(
        card,
        Verdict.UNDER_SPECIFIED,
        reading,
        span=error_.span,
        detail=error_.symbol,
        explanation=f"{sentence(error_.why)}.",
    )
