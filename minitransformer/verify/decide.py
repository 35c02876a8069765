"""Decide whether a formula is a card's: the ten steps from binding to repair.

`decide` takes a formula (text, a parser's reading or a tree) and a card and
returns a `Finding`. It answers EQUAL only after agreement in ball arithmetic at
several shapes with every dimension at least 2 and with no symbol guessed, and
DIFFERENT-CERTIFIED only with two disjoint balls to show.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify import explain, repair, shrink
from minitransformer.verify.binding import (
    Bound,
    bind,
    defines,
    head_of,
    inline,
    sides,
    substitute,
)
from minitransformer.verify.canonical import canonical
from minitransformer.verify.cards import cards, find
from minitransformer.verify.cards.card import Card
from minitransformer.verify.compare import (
    BITS,
    Compute,
    Outcome,
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
    show_dims,
)
from minitransformer.verify.evaluate import (
    FLOATS,
    CannotEvaluate,
    Evaluator,
    Point,
    evaluate,
    precision,
)
from minitransformer.verify.expression import Expr, name, number
from minitransformer.verify.verdict import Counterexample, Finding, Place, Verdict

OVERFLOW = {"float16": math.log(65504.0), "float32": math.log(3.4028235e38),
            "float64": math.log(1.7976931348623157e308)}  # fmt: skip

EQUALS = frozenset([Verdict.EQUAL_PROVED, Verdict.EQUAL_SUPPORTED, Verdict.EQUAL_UP_TO])
# From the verdict that says most against a claim to the one that says least.
SEVERITY = (
    Verdict.CANNOT_PARSE, Verdict.ILL_TYPED, Verdict.WRONG_SHAPE, Verdict.DIFFERENT_CERTIFIED,
    Verdict.DIFFERENT, Verdict.COINCIDES_ONLY_WHEN, Verdict.UNDER_SPECIFIED, Verdict.AMBIGUOUS,
    Verdict.NO_CARD, Verdict.APPROXIMATES, Verdict.EQUAL_UP_TO, Verdict.EQUAL_SUPPORTED,
    Verdict.EQUAL_PROVED,
)  # fmt: skip

_ORDERS = tuple(
    Convention(vectors=v, product=p, single=s, reduce=r)
    for r, s, p, v in itertools.product(
        ("last", "all"), ("first", "last"), ("hadamard", "dot"), ("column", "row")
    )
)
CONVENTIONS = tuple(sorted(_ORDERS, key=lambda c: (c.product == "dot", c.vectors == "row")))


@dataclass(frozen=True)
class Interpretation:
    """A typed way to read a formula whose result has the card's shape."""

    convention: Convention
    term: Term
    elaborate: Elaborator
    flipped: bool = False  # all matrices transposed, the column convention


@dataclass(frozen=True)
class Typed:
    """What typing a formula under every convention gave."""

    good: tuple[Interpretation, ...]
    wrong_shape: Term | None = None
    ill: IllTyped | None = None
    unbound: Unbound | None = None


def _same_term(a: Term, b: Term) -> bool:
    return (
        a.op == b.op
        and a.dims == b.dims
        and a.value == b.value
        and len(a.args) == len(b.args)
        and all(_same_term(x, y) for x, y in zip(a.args, b.args))
    )


def interpret(bound: Bound, card: Card) -> Typed:
    """Type a bound formula under every convention; keep the distinct results that fit."""
    good: list[Interpretation] = []
    wrong: Term | None = None
    ill: IllTyped | None = None
    unbound: Unbound | None = None
    for convention in CONVENTIONS:
        if good and (convention.vectors == "row" or convention.product == "dot"):
            continue  # vectors are columns, and multiply elementwise, wherever that can be read
        elaborator = Elaborator(bound.typing, convention)
        try:
            term = _fit(elaborator, bound, card)
        except IllTyped as error:
            ill = ill or error
            continue
        except Unbound as error:
            unbound = unbound or error
            continue
        if term.dims != card.output:
            wrong = wrong or term
        elif not any(_same_term(term, g.term) for g in good):
            good.append(Interpretation(convention, term, elaborator))
    if not good and wrong is None and ill is not None:
        flipped = _flip(bound)
        elaborator = Elaborator(flipped.typing, Convention(softmax="first"))
        try:
            term = elaborator.formula(flipped.expr, flipped.free)
            if term.dims == card.output[::-1]:
                term = _untranspose(term, bound)
                if len(term.dims) == 2:
                    term = Term("transpose", (term,), None, card.output, term.span)
                good.append(Interpretation(Convention(softmax="first"), term, elaborator, True))
        except (IllTyped, Unbound):
            pass
    return Typed(tuple(good), wrong, ill, unbound)


def _fit(elaborator: Elaborator, bound: Bound, card: Card) -> Term:
    term = elaborator.formula(bound.expr, bound.free)
    if term.dims != card.output and len(bound.free) == 2:
        other = elaborator.formula(bound.expr, bound.free[::-1])
        if other.dims == card.output:
            return other
    return term


def _flip(bound: Bound) -> Bound:
    """Give every matrix its dimensions in the other order."""
    symbols = {k: d[::-1] if len(d) == 2 else d for k, d in bound.typing.symbols.items()}
    return replace_bound(bound, Typing(symbols, bound.typing.sizes, bound.typing.functions))


def replace_bound(bound: Bound, typing: Typing) -> Bound:
    """Return the same formula under another typing."""
    return Bound(bound.expr, typing, bound.free, bound.unknown, bound.renamed, bound.extra)


def _untranspose(term: Term, bound: Bound) -> Term:
    """Feed the card's own matrices to a term typed with transposed ones."""
    if term.op == "symbol" and len(term.dims) == 2:
        inner = Term("symbol", (), term.value, term.dims[::-1], term.span)
        return Term("transpose", (inner,), None, term.dims, term.span)
    if not term.args:
        return term
    args = tuple(_untranspose(a, bound) for a in term.args)
    return Term(term.op, args, term.value, term.dims, term.span, term.co, term.free)


# -- the public entry ---------------------------------------------------------


def trees(claim: Any) -> tuple[tuple[Expr, str], ...]:
    """Return every reading of a claim: text, a reading, a tree or several readings."""
    if isinstance(claim, str):
        from minitransformer.verify.parser import parse

        return tuple((r.expr, r.note) for r in parse(claim))
    if isinstance(claim, Expr):
        return ((claim, ""),)
    if hasattr(claim, "expr"):
        return ((claim.expr, getattr(claim, "note", "")),)
    return tuple(pair for reading in claim for pair in trees(reading))


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
    return replace(out, place=Place("", 0, text))


def _guarded(e: Expr, *rest: Any) -> Finding:
    """Judge one reading; whatever cannot be evaluated is refused, never called equal."""
    try:
        return _reading(e, *rest)
    except (CannotEvaluate, Unbound, IllTyped, RecursionError) as error:
        card = rest[1]
        return _finding(card, Verdict.UNDER_SPECIFIED, show(e), detail=str(error),
                        explanation=f"It cannot be evaluated: {error}.")


def plausible(readings: Sequence[tuple[Expr, str]]) -> Sequence[tuple[Expr, str]]:
    """Drop readings that no formula about real numbers can have.

    The cards know no complex numbers, so an ``i`` is never √−1 here; and where a
    function's argument may end earlier or later, the usual extent is taken.
    """
    kept = [r for r in readings if "√−1" not in r[1]] or list(readings)
    extents = [r for r in kept if "reaches over" in r[1]]
    if len(extents) == len(kept) > 1:
        whole = [r for r in kept if "first factor only" not in r[1]]
        kept = whole or kept
    return kept


def _agree(findings: Sequence[Finding], notes: Sequence[str]) -> Finding:
    """Merge the findings of several readings of one text."""
    if len(findings) == 1:
        return findings[0]
    typed = [(f, n) for f, n in zip(findings, notes)
             if f.verdict not in (Verdict.ILL_TYPED, Verdict.WRONG_SHAPE)] or list(
        zip(findings, notes)
    )
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
        c.args[0] if c.op == "call" and str(c.value) in ("O", "𝒪", "Θ") and len(c.args) == 1
        and "scale" in card.up_to else c for c in claims
    )
    own = head_of(lhs)
    usable = {
        k: v for k, v in definitions.items()
        if k not in (own, defines(lhs)) and card.bind(k) is None
    }
    findings = []
    for claim in claims:
        findings.append(
            _claim(claim, lhs, card, declarations, usable, full, "≈" in signs)
        )
    worst = min(findings, key=lambda f: SEVERITY.index(f.verdict))
    if len(findings) > 1:
        worst = _chain(worst, findings, [inline(c, usable) for c in claims], lhs, card)
    worst = _literals(worst, claims)
    if note:
        worst = replace(worst, witnesses={**worst.witnesses, "read": note})
    return worst


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
    return replace(worst, witnesses={**worst.witnesses, "chain": parts}, unsafe_float=unsafe,
                   explanation=explanation)


def _follows(a: Expr, b: Expr, lhs: Expr | None, card: Card) -> bool | None:
    """Return whether two steps of a chain are equal; None where that cannot be told."""
    left = interpret(bind(a, card, lhs), card)
    right = interpret(bind(b, card, lhs), card)
    if not left.good or not right.good:
        return None
    try:
        return any(
            _pair_outcome(a, b, lhs, card, x, y).equal for x in left.good for y in right.good
        )
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
            if node.op == "div" and node.args[1].op == "add" and any(
                node.args[0] == t for t in node.args[1].args
            ):
                n = len(node.args[1].args)
                said.append(f"One weight of {n} is kept: {show(node)} is a single entry of the "
                            f"softmax, which has {n}.")
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


def show(e: Expr) -> str:
    """Echo a formula as it was read."""
    try:
        from minitransformer.verify.printing import to_unicode
    except ImportError:
        return repair._text(e)
    return to_unicode(e)


def show_latex(e: Expr) -> str:
    """Write a formula in LaTeX."""
    try:
        from minitransformer.verify.printing import to_latex
    except ImportError:
        return ""
    return to_latex(e)


def _values(declared: Any) -> list[Expr]:
    """Return the values a declaration gives a symbol."""
    if isinstance(declared, Expr):
        return [declared]
    if isinstance(declared, (int, Fraction)):
        return [number(declared)]
    if isinstance(declared, list):
        return [v for d in declared for v in _values(d)]
    return []


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
    given = {u: _values(declarations.get(u)) for u in bound.unknown}
    fixed = {u: v[0] for u, v in given.items() if len(v) == 1 and not _usual(declarations[u])}
    if fixed:
        bound = bind(substitute(claim, fixed), card, lhs, declarations)
    reading = show(claim)
    typed = interpret(bound, card)
    if not typed.good and bound.unknown:
        renamed = _by_renaming(claim, bound, card, reading)
        proposal = _proposed(claim, bound, card, reading, lhs, declarations)
        if proposal is not None and renamed is None:
            return proposal
        # K_1, K_3 of a worked example are things of the text, whatever their values.
        worked = all(re.fullmatch(r"\w+_\d+", u) for u in bound.unknown)
        if renamed is None and worked and typed.wrong_shape is not None:
            return _untyped(typed, bound, card, reading, False)
        return renamed or _undecided(bound, card, reading)
    if not typed.good:
        return _untyped(typed, bound, card, reading, full)
    if bound.unknown:
        return _with_unknown(claim, bound, lhs, card, declarations, reading, full)
    return _typed(typed, bound, card, reading, full, approximate)


def _usual(declared: Any) -> bool:
    return isinstance(declared, list)


def _untyped(typed: Typed, bound: Bound, card: Card, reading: str, full: bool) -> Finding:
    if typed.wrong_shape is not None:
        term = typed.wrong_shape
        got, want = show_dims(term.dims), show_dims(card.output)
        return _finding(
            card, Verdict.WRONG_SHAPE, reading, span=term.span, detail=f"{got}, not {want}",
            explanation=f"The formula gives {got} where {card.name} gives {want}.",
            repair=_typed_repair(bound, card) if full else None,
        )
    if typed.ill is not None:
        error = typed.ill
        fits = f"; would fit: {'; '.join(error.fits)}" if error.fits else ""
        return _finding(
            card, Verdict.ILL_TYPED, reading, span=error.span, detail=str(error),
            explanation=f"{_sentence(str(error))}{fits}.",
            repair=_typed_repair(bound, card) if full else None,
        )
    assert typed.unbound is not None
    error_ = typed.unbound
    return _finding(
        card, Verdict.UNDER_SPECIFIED, reading, span=error_.span, detail=error_.symbol,
        explanation=f"{_sentence(str(error_))}; the text must say what it is.",
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _finding(
    card: Card,
    verdict: Verdict,
    reading: str,
    *,
    repair: repair.Repair | None = None,
    **fields: Any,
) -> Finding:
    if repair is not None:
        fields["repair"] = "; then ".join(repair.steps)
        fields["repair_latex"] = show_latex(repair.expr)
    return Finding(Place("", 0, ""), verdict, card=card.id, reading=reading, **fields)


# -- symbols without a meaning -------------------------------------------------


def candidates(card: Card) -> list[Expr]:
    """Return the values people give a free factor: 1 and powers of the card's sizes."""
    out = [number(1)]
    for d in card.dims:
        root = Expr("sqrt", (name(d),))
        out += [root, name(d), Expr("div", (number(1), root)), Expr("div", (number(1), name(d)))]
    return out


def _with_unknown(
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
        renamed = _by_renaming(claim, bound, card, reading)
        if renamed is not None:
            return renamed
    cases: list[dict[str, str]] = []
    found: dict[str, Finding] = {}
    right: list[str] = []
    symbol = bound.unknown[0]
    declared = _values(declarations.get(symbol))
    trials = declared + [v for v in candidates(card) if v not in declared]
    proposal = _proposed(claim, bound, card, reading, lhs, declarations)
    if proposal is not None:
        return proposal
    if len(bound.unknown) > 1:
        trials = []
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
        finding = _typed(typed, fixed, card, reading, full and not found, False)
        if found and full and finding.verdict not in EQUALS:
            finding = replace(finding, equals_instead=_as_attention(typed.good[0], fixed, card)[0])
        cases.append({"symbol": symbol, "value": text, "verdict": finding.verdict.value,
                      "equals": finding.equals_instead})
        found[text] = finding
        if finding.verdict in EQUALS:
            right.append(text)
    typed = interpret(bound, card)
    free = _typed(typed, bound, card, reading, full and not found, False)
    if full and free.verdict not in EQUALS:
        equals, row_sum = _as_attention(typed.good[0], bound, card)
        free = replace(free, equals_instead=equals,
                       witnesses={**free.witnesses, **({"row_sum": row_sum} if row_sum else {})})
    cases.append({"symbol": ", ".join(bound.unknown), "value": "free",
                  "verdict": free.verdict.value, "equals": free.equals_instead})
    witnesses = {"cases": cases}
    if free.verdict in EQUALS:
        return replace(free, witnesses={**free.witnesses, **witnesses})
    if right:
        shown = " or ".join(right)
        return replace(
            free, verdict=Verdict.UNDER_SPECIFIED, detail=symbol,
            explanation=f"{symbol} is given no value; the formula is right only if "
            f"{symbol} = {shown}.",
            repair=f"say that {symbol} = {right[0]}", repair_latex="",
            witnesses={**free.witnesses, **witnesses}, counterexample=None,
        )
    if len(bound.unknown) > 1:
        return replace(_undecided(bound, card, reading), witnesses=witnesses)
    lead = next(iter(found.values()), free)
    told = "; ".join(
        f"with {symbol} = {c['value']}: {c['verdict']}"
        + (f" ({c['equals']})" if c["equals"] else "")
        if c["value"] != "free" else f"with {symbol} free: {c['verdict']}"
        for c in cases
    )
    return replace(
        lead, witnesses={**lead.witnesses, **witnesses},
        explanation=f"{lead.explanation} {_sentence(told)}.".strip(),
    )


def quick_equal(typed: Typed, bound: Bound, card: Card) -> bool:
    """Return whether some reading of a formula agrees with a card in float64 everywhere."""
    return any(
        compare(term_value(i.term), card, bound.extra, certify=False).equal for i in typed.good
    )


def _proposed(
    claim: Expr,
    bound: Bound,
    card: Card,
    reading: str,
    lhs: Expr | None,
    declarations: Mapping[str, Any],
) -> Finding | None:
    """Refuse a formula whose undefined symbols have a usual meaning, and name that meaning."""
    from minitransformer.verify.cards.card import formula_tree

    usual = {u: formula_tree(card.suggestions[u]) for u in bound.unknown if u in card.suggestions}
    if not usual:
        return None
    trial = bind(substitute(claim, usual), card, lhs, declarations)
    typed = interpret(trial, card)
    meant = ", ".join(f"{u} = {show(v)}" for u, v in usual.items())
    listed = ", ".join(usual)
    right = bool(typed.good) and not trial.unknown and quick_equal(typed, trial, card)
    told = (f"the formula is right if {meant}" if right
            else f"even with {meant} the formula is not {card.name}")
    return _finding(
        card, Verdict.UNDER_SPECIFIED, reading, detail=listed,
        explanation=f"Nothing defines {listed}; {told}.",
        repair=None if not right else repair.Repair(claim, (f"define {meant}",), 0))


def _undecided(bound: Bound, card: Card, reading: str) -> Finding:
    listed = ", ".join(bound.unknown)
    plural = len(bound.unknown) > 1
    return _finding(
        card, Verdict.UNDER_SPECIFIED, reading, detail=listed,
        explanation=f"The symbol{'s' if plural else ''} {listed} {'are' if plural else 'is'} given "
        "no meaning, so nothing can be decided.",
    )


def _by_renaming(claim: Expr, bound: Bound, card: Card, reading: str) -> Finding | None:
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
            return _finding(
                card, Verdict.UNDER_SPECIFIED, reading, detail=", ".join(unknown),
                explanation=f"Nothing says what {', '.join(unknown)} are; the formula is "
                f"{card.name} if {shown}.",
                repair=None,
            )
    return None


# -- well-typed formulas ---------------------------------------------------------


def _typed(
    typed: Typed, bound: Bound, card: Card, reading: str, full: bool, approximate: bool
) -> Finding:
    outcomes = [(i, compare(term_value(i.term), card, bound.extra)) for i in typed.good]
    equal = [(i, o) for i, o in outcomes if o.equal]
    if equal and len(equal) < len(outcomes):
        other = next(i for i, o in outcomes if not o.equal)
        told = _convention_difference(equal[0][0].convention, other.convention)
        return _finding(
            card, Verdict.AMBIGUOUS, reading, detail=told,
            explanation=f"The notation leaves open {told}; one choice gives {card.name}, "
            "another does not.",
            unsafe_float=float_safety(equal[0][0].term, card, bound),
        )
    if equal:
        return _equal(equal[0][0], equal[0][1], bound, card, reading)
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
            from minitransformer.verify.cards.card import formula_tree

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


def _equal(i: Interpretation, o: Outcome, bound: Bound, card: Card, reading: str) -> Finding:
    if o.shapes < 2 and len(card.dims) > 0:
        return _finding(card, Verdict.UNDER_SPECIFIED, reading,
                        explanation="Fewer than two shapes could be compared.")
    witnesses: dict[str, Any] = {"points": o.points, "shapes": o.shapes, "bits": o.bits}
    if bound.renamed:
        witnesses["renamed"] = dict(bound.renamed)
    unsafe = float_safety(i.term, card, bound)
    if i.flipped:
        return _finding(
            card, Verdict.EQUAL_UP_TO, reading, detail="transpose convention",
            explanation=f"It is {card.name} with every matrix transposed (vectors as columns).",
            witnesses=witnesses, unsafe_float=unsafe)
    form = canonical(i.term, _positive(card))
    if form is not None and form in card_form(card):
        return _finding(card, Verdict.EQUAL_PROVED, reading, witnesses=witnesses,
                        detail="same canonical form", unsafe_float=unsafe)
    return _finding(card, Verdict.EQUAL_SUPPORTED, reading, witnesses=witnesses,
                    detail=f"{o.points} points, {o.bits} bits", unsafe_float=unsafe)


def float_safety(term: Term, card: Card, bound: Bound) -> str:
    """Say whether a formula overflows in floats at a point where its value is finite."""
    stack, seen = [term], False
    while stack:
        t = stack.pop()
        seen = seen or (t.op == "fn" and t.value in ("exp", "softplus", "logsigmoid")) or (
            t.op == "reduce" and t.value[0] == "logsumexp")
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
        except (CannotEvaluate, ValueError, TypeError, ArithmeticError):
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
        "span": i.term.span, "unsafe_float": float_safety(i.term, card, bound)}
    up_to = equal_up_to(compute, card, bound)
    if up_to:
        return _finding(card, Verdict.EQUAL_UP_TO, reading, detail=up_to[0], explanation=up_to[1])
    near = approximation(compute, card)
    if near:
        return _finding(card, Verdict.APPROXIMATES, reading, detail=near[0], explanation=near[1],
                        witnesses={"max_error": near[2]})
    when = special_size(i.term, bound, card)
    if when:
        return _finding(
            card, Verdict.COINCIDES_ONLY_WHEN, reading, detail=when, coincidences=(when,),
            explanation=f"The formula has a number in place of a size: it is {card.name} only "
            f"when {when}.", repair=_repair(i, bound, card) if full else None)
    if not full:
        return _finding(card, verdict, reading, **fields)
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
    return _finding(card, verdict, reading, **fields)


def certificate(compute: Compute, card: Card, point: Point, o: Outcome) -> Counterexample:
    """Certify the difference again at a small point and write it down."""
    from minitransformer.verify.compare import Probe

    probe = Probe(card, point, o.probe.seed if o.probe else 0, Fraction(1))
    kind, found = settle(compute, probe, point)
    certificate: dict[str, Any] = {"sizes": dict(point.sizes)}
    if o.probe is not None:
        certificate["seed"] = o.probe.seed
    if kind == "certified":
        entry, c, r, bits = found
        certificate.update(bits=bits, entry=list(entry), claimed_ball=str(c.str(20)),
                           reference_ball=str(r.str(20)), disjoint=True)
    else:
        certificate.update(disjoint=False, why=str(found))
    with np.errstate(all="ignore"):
        try:
            claimed = np.asarray(compute(point, FLOATS), dtype=np.float64).tolist()
        except (CannotEvaluate, ValueError, TypeError, ArithmeticError) as error:
            claimed = str(error)
    reference = np.asarray(probe.floats).tolist()
    inputs = {k: _texts(v) for k, v in point.inputs.items()}
    return Counterexample(inputs, claimed, reference, certificate)


def _texts(array: Any) -> Any:
    if np.ndim(array) == 0:
        return str(array.item() if hasattr(array, "item") else array)
    return [_texts(row) for row in array]


def equal_up_to(compute: Compute, card: Card, bound: Bound) -> tuple[str, str] | None:
    """Return a named change under which a claim equals the card, where the card allows it."""
    probes = battery(card)
    if "scale" in card.up_to:
        ratio = explain.constant_ratio(card, compute, probes)
        if ratio is not None and ratio > 0:
            return "scale", f"It is {explain._neat(ratio)} times {card.name}; a constant factor " \
                "is a convention here."
    if "permutation" in card.up_to:
        for probe in probes[:4]:
            try:
                claimed = np.asarray(compute(probe.point, FLOATS), dtype=np.float64)
            except (CannotEvaluate, ValueError, TypeError, ArithmeticError):
                return None
            if claimed.shape != probe.floats.shape:
                return None
            a, b = np.sort(claimed, axis=-1), np.sort(probe.floats, axis=-1)
            if not np.allclose(a, b, rtol=1e-9, atol=1e-12):
                return None
        return "permutation", f"It is {card.name} with its components in another order."
    return None


def approximation(compute: Compute, card: Card) -> tuple[str, str, float] | None:
    """Return the largest error of a claim that follows a scalar function closely."""
    if not card.approximable or len(card.inputs) != 1:
        return None
    (item,) = card.inputs
    worst, where, scale = 0.0, 0.0, 0.0
    for k in range(-80, 81):
        value = np.empty((), dtype=object)
        value[()] = Fraction(k, 8)
        point = Point({item.name: value}, {}, card.functions)
        try:
            r = float(card.value(FLOATS, point))
            gap = abs(float(compute(point, FLOATS)) - r)
        except (CannotEvaluate, ValueError, TypeError, ArithmeticError):
            return None
        if not math.isfinite(gap):
            return None
        scale = max(scale, abs(r))
        if gap > worst:
            worst, where = gap, k / 8
    if worst > 0.025:
        return None
    return (f"max error {worst:.2g} at {item.name} = {where:g}",
            f"It follows {card.name} within {worst:.2g} on [-10, 10], worst at "
            f"{item.name} = {where:g}; it is not equal to it.", worst)


def special_size(term: Term, bound: Bound, card: Card) -> str:
    """Return the size at which a number in the formula is right, if there is one ≥ 2."""
    if card.shapes or not card.dims:
        return ""
    numbers = {n.value for n in bound.expr.walk() if n.op == "number"}
    bounds = {n.args[2].value for n in bound.expr.walk()
              if n.op == "big" and len(n.args) == 3 and n.args[2].op == "number"}
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
                if all(
                    discrepancy(evaluate(term, p), card.value(FLOATS, p)) < 1e-9
                    for p in (card.at(sizes, 21), card.at(sizes, 22))
                ):
                    return f"{dim} = {size}"
            except (CannotEvaluate, ValueError, TypeError, ArithmeticError, KeyError):
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
    equals, row_sum = _as_attention(i, bound, card)
    if row_sum:
        extra["row_sum"] = row_sum
        if equals:
            said.append(f"It equals {equals}; the scale of {card.name} is "
                        f"{'1/d_k' if card.id == 'mup-attention' else '1/√d_k'}.")
        if row_sum != "1":
            said.append(f"Rows of its weights sum to {row_sum}, not to 1.")
    if not equals:
        ratio = explain.constant_ratio(card, compute, battery(card))
        if ratio is not None:
            equals = f"{explain._neat(ratio)} times {card.name}"
            said.append(f"It is {equals}.")
        else:
            power = explain.size_ratio(card, compute, battery(card))
            if power:
                equals = f"{power} times {card.name}"
                said.append(f"It is {equals}.")
    known = explain.resembles(_mistakes(card), compute, battery(card)) if not bound.extra else None
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


def _as_attention(i: Interpretation, bound: Bound, card: Card) -> tuple[str, str]:
    """Return what multiple of which attention a claim is, and what its rows sum to."""
    family = card.output in (("n_q", "d_v"), ("n_q", "n_k")) and {"Q", "K"} <= {
        x.name for x in card.inputs}
    if not family:
        return "", ""
    probe = battery(card)[0]
    point = extend(probe.point, bound.extra, probe.seed)
    fit = explain.fit_attention(card, term_value(i.term), point)
    if fit is None:
        return "", ""
    base = "attention" if card.output == ("n_q", "d_v") else "attention weights"
    outer = explain.symbolic(fit.outer, {
        u: float(point.inputs[u].item()) for u in bound.unknown})
    if fit.inner is None:
        return "", outer
    inner = explain.symbolic(fit.inner, {
        u: float(point.inputs[u].item()) for u in bound.unknown})
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


def _mistakes(card: Card) -> list[tuple[str, str, Callable[[Point], Any]]]:
    if id(card) not in _MISTAKES:
        from minitransformer.verify.cards.card import formula_tree

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
        from minitransformer.verify.cards.card import formula_tree

        typed = interpret(bind(formula_tree(card.latex), card), card)
        if not typed.good:
            return None
        own = _all_values(typed.good[0].term, point)
    except Exception:  # no formula to walk beside: nothing to point at
        return None
    evaluator = Evaluator(point, FLOATS)

    def known(value: Any) -> bool:
        return any(
            np.shape(v) == np.shape(value) and discrepancy(value, v) < 1e-9 for v in own
        )

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
        except (CannotEvaluate, ValueError, TypeError, ArithmeticError):
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


# -- repair -----------------------------------------------------------------------


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
            except (IllTyped, Unbound, CannotEvaluate, ValueError, TypeError, ArithmeticError):
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

    found = repair.repairs(bound.expr, vocabulary(card, bound), quick, confirmed,
                           budget=budget, depth=depth)
    return repair.tidy(found[0], quick, confirmed) if found else None


def _repair(i: Interpretation, bound: Bound, card: Card) -> repair.Repair | None:
    if i.flipped:
        return None
    return _search(bound, card, (i.convention,), budget=1500)


def _typed_repair(bound: Bound, card: Card) -> repair.Repair | None:
    return _search(bound, card, (Convention(), Convention(product="dot")), budget=500, depth=2)


# -- Python functions --------------------------------------------------------------


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
            return _finding(card, Verdict.DIFFERENT, reading,
                            explanation=f"It fails on a valid input: {error}.")
        if value.shape != probe.floats.shape:
            return _finding(
                card, Verdict.WRONG_SHAPE, reading,
                detail=f"{value.shape}, not {probe.floats.shape}",
                explanation=f"It returns shape {value.shape} where {card.name} has "
                f"{probe.floats.shape}.")
        if not np.isfinite(probe.floats).all():
            continue
        gap = discrepancy(value, probe.floats)
        shapes.add(tuple(sorted(probe.point.sizes.items())))
        # A function that computes in a shorter format cannot agree better than that format.
        short = raw.dtype.kind == "f" and raw.dtype.itemsize < 8
        if gap > (64 * float(np.finfo(raw.dtype).eps) if short else 1e-9):
            return _function_differs(compute, card, probe, reading)
        worst = max(worst, gap)
    bits = 50
    for probe in probes:
        try:
            kind, found = settle(compute, probe, probe.point)
        except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError):
            exact = False
            break
        if kind != "equal":
            exact = False
            break
        bits = min(200, found) if exact else 50
    if len(shapes) < 2 and card.dims:
        return _finding(card, Verdict.UNDER_SPECIFIED, reading,
                        explanation="Fewer than two shapes could be compared.")
    bits = BITS if exact else min(50, int(-math.log2(worst)) if worst else 50)
    return _finding(
        card, Verdict.EQUAL_SUPPORTED, reading, detail=f"{len(probes)} points, {bits} bits",
        witnesses={"points": len(probes), "shapes": len(shapes), "bits": bits,
                   "max_relative_error": worst})


def _arguments(fn: Callable[..., Any], card: Card) -> tuple[str, ...]:
    """Return the card's inputs in the order of a function's parameters."""
    import inspect

    order = tuple(i.name for i in card.inputs)
    try:
        parameters = [
            p for p in inspect.signature(fn).parameters.values()
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
            np.array(v) if isinstance(v, np.ndarray) and v.ndim else
            (v.item() if hasattr(v, "item") else v) for v in values
        ]
        with np.errstate(all="ignore"):
            return fn(*values)

    return compute


def _function_differs(compute: Compute, card: Card, probe: Any, reading: str) -> Finding:
    up_to = _rotated(compute, card)
    if up_to:
        return _finding(card, Verdict.EQUAL_UP_TO, reading, detail=up_to[0], explanation=up_to[1])
    near = approximation(compute, card)
    if near:
        return _finding(card, Verdict.APPROXIMATES, reading, detail=near[0], explanation=near[1])
    small = shrink.shrink(card, compute, probe.point)
    outcome = Outcome("different", probe=probe, point=probe.point)
    try:
        counter = certificate(compute, card, small, outcome)
    except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError):
        counter = _uncertified(compute, card, small, probe.seed)
    verdict = (Verdict.DIFFERENT_CERTIFIED if counter.certificate.get("disjoint")
               else Verdict.DIFFERENT)
    found = shrink.coincidences(
        card, lambda p: discrepancy(compute(p, FLOATS), card.value(FLOATS, p)) < 1e-9)
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
            said.append(f"It equals {equals}.")
            extra["row_sum"] = outer
    if not equals:
        ratio = explain.constant_ratio(card, compute, battery(card))
        if ratio is not None:
            equals = f"{explain._neat(ratio)} times {card.name}"
            said.append(f"It is {equals}.")
    known = explain.resembles(_mistakes(card), compute, battery(card))
    if known:
        where = f" (seen in {known[1]})" if known[1] else ""
        said.append(f"A known mistake: {known[0]}{where}.")
        extra["mistake"] = {"says": known[0], "seen": known[1]}
    return _finding(card, verdict, reading, counterexample=counter, coincidences=found,
                    explanation=" ".join(said), equals_instead=equals, witnesses=extra)


def _uncertified(compute: Compute, card: Card, point: Point, seed: int) -> Counterexample:
    return Counterexample(
        {k: _texts(v) for k, v in point.inputs.items()},
        np.asarray(compute(point, FLOATS), dtype=np.float64).tolist(),
        np.asarray(card.value(FLOATS, point)).tolist(),
        {"sizes": dict(point.sizes), "seed": seed, "disjoint": False,
         "why": "the function does not run on exact balls"},
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
        except (CannotEvaluate, ValueError, TypeError, ArithmeticError):
            return None
        if discrepancy(value, probe.floats[order]) > 1e-9:
            return None
    return ("permutation",
            f"It is {card.name} with components stored by halves instead of by pairs: "
            "the same map after a fixed permutation.")


# -- formulas of one name ------------------------------------------------------------


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
    from minitransformer.verify.matching import match

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
        outcome = _pair_outcome(left, right, lhs, card, a.good[0], b.good[0])
    except CannotEvaluate:
        return None
    if outcome.kind != "certified" or outcome.point is None or outcome.probe is None:
        return None
    other = outcome.probe.card
    compute = term_value(a.good[0].term)
    small = shrink.shrink(other, compute, outcome.point)
    first, second = show(left), show(right)
    return _finding(
        card, Verdict.DIFFERENT_CERTIFIED, f"{first}  against  {second}", detail="contradiction",
        explanation=f"Two formulas are given for {shared} and they contradict each other: "
        f"{first} is not {second}.",
        counterexample=certificate(compute, other, small, outcome))


def _pair_outcome(
    left: Expr, right: Expr, lhs: Expr | None, card: Card, a: Interpretation, b: Interpretation
) -> Outcome:
    """Compare two formulas, the second standing in for the card's reference."""
    extra = tuple({
        x.name: x for e in (left, right) for x in bind(e, card, lhs).extra
    }.values())
    names = tuple(x.name for x in (*card.inputs, *extra))

    def reference(m: Any, sizes: Mapping[str, int], *values: Any) -> Any:
        return Evaluator(Point({}, sizes, card.functions), m, dict(zip(names, values)))(b.term)

    other = replace(card, inputs=(*card.inputs, *extra), reference=reference)
    return compare(term_value(a.term), other)


def __getattr__(attribute: str) -> Any:
    """Offer `match` here too, where callers look for it."""
    if attribute == "match":
        from minitransformer.verify.matching import match

        return match
    raise AttributeError(attribute)
