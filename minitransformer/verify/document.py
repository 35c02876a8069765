"""A whole document to findings: formulas, derivations, examples, code and figures.

Each formula is judged with what the document says of its symbols and with the steps
defined before it in the same part; the cheap checks of prose and code are merged in by
line, so that a report reads like the document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from minitransformer.verify.arithmetic import Array, NotClosed, compute, printed_step
from minitransformer.verify.binding import defines
from minitransformer.verify.cards import Card
from minitransformer.verify.code_claims import code_findings
from minitransformer.verify.code_formulas import formula_findings
from minitransformer.verify.declarations import Declarations, read_declarations
from minitransformer.verify.expression import Expr
from minitransformer.verify.extraction import Document, Formula, read_document
from minitransformer.verify.figures import figure_findings
from minitransformer.verify.parser import CannotParse, Reading, parse
from minitransformer.verify.printing import to_unicode
from minitransformer.verify.verdict import Finding, Place, Verdict

_DEFINING = frozenset(["=", "≔", "≜", "≡"])
_CLAIMING = _DEFINING | {"≈", "∝", "←", "≃"}
_MOST_OF_ONE_NAME = 6  # formulas of one name that are compared with each other


@dataclass(frozen=True)
class Claim:
    """One statement of a formula, ready to be judged."""

    formula: Formula
    readings: tuple[Reading, ...]
    line: int

    @property
    def expr(self) -> Expr:
        """The usual reading."""
        return self.readings[0].expr


def findings(
    text: str,
    name: str,
    *,
    card: Card | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Iterator[Finding]:
    """Yield a finding for everything in a document that can be checked.

    Parameters
    ----------
    text : str
        The document.
    name : str
        Its file name; the suffix tells the format.
    card : Card, optional
        Judge the formulas that resemble it against this card alone.
    advance : callable, optional
        Called with the numbers of claims done and to do.

    Yields
    ------
    Finding
        In the order of the document's lines; contradictions between formulas last.

    Raises
    ------
    ValueError
        If the text is not what its suffix promises.

    Examples
    --------
    >>> [f.verdict.value for f in findings("We see $2 + 3 = 6$ here.", "a.md")]
    ['FALSE']
    """
    yield from judged(read_document(text, name), card=card, advance=advance)


def judged(
    document: Document,
    *,
    card: Card | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Iterator[Finding]:
    """Yield the `findings` of a document that is read, in the reader's lines."""
    for finding in _judged(document, card, advance):
        yield replace(finding, place=document.located(finding.place))


def _judged(
    document: Document, card: Card | None, advance: Callable[[int, int], None] | None
) -> Iterator[Finding]:
    declarations = read_declarations(
        [(p.text, p.line, p.section) for p in document.prose],
        [(f.text, f.line, f.section) for f in document.formulas if f.display],
        document.macros,
    )
    aside = sorted(
        [
            *figure_findings(document, declarations),
            *code_findings(document),
            *formula_findings(document),
        ],
        key=lambda f: f.place.line,
    )
    claims: list[Claim | Finding] = []
    for formula in document.formulas:
        claims += _claims(formula, document)
    total, done = len(claims) + len(aside), 0
    judge = _Judge(document, declarations, card)
    for claim in claims:
        line = claim.line if isinstance(claim, Claim) else claim.place.line
        while aside and aside[0].place.line < line:
            done += 1
            yield aside.pop(0)
        found = judge(claim) if isinstance(claim, Claim) else [claim]
        done += 1
        if advance is not None:
            advance(done, total)
        yield from found
    yield from aside
    yield from judge.contradictions()
    if advance is not None:
        advance(total, total)


def _claims(formula: Formula, document: Document) -> list[Claim | Finding]:
    """Split a formula into its statements; one that cannot be read is a finding."""
    try:
        readings = parse(formula.text, document.macros)
    except CannotParse as error:
        if not formula.display and not re.search(r"=|\\frac|\\sum|\w\(|≈|\\left", formula.text):
            return []
        return [
            Finding(
                Place(document.name, formula.line, formula.text, formula.end_line),
                Verdict.CANNOT_PARSE,
                detail=formula.text[slice(*error.span)][:80],
                explanation=f"{error.message[:1].upper()}{error.message[1:]}.",
                span=error.span,
            )
        ]
    statements = [
        [r.expr for r in readings] if readings[0].expr.op != "steps" else [readings[0].expr]
    ]
    if readings[0].expr.op == "steps":
        count = len(readings[0].expr.args)
        same = [r for r in readings if r.expr.op == "steps" and len(r.expr.args) == count]
        statements = [[r.expr.args[i] for r in same] for i in range(count)]
        readings = same
    out: list[Claim | Finding] = []
    for trees in statements:
        distinct: list[Reading] = []
        for tree, reading in zip(trees, readings):
            if all(tree != d.expr for d in distinct):
                distinct.append(Reading(tree, reading.note))
        if not _worth(distinct[0].expr, formula.display):
            continue
        if len(distinct) == 1:
            distinct = [replace(distinct[0], note="")]
        line = formula.line + formula.text.count("\n", 0, distinct[0].expr.span[0])
        out.append(Claim(formula, tuple(distinct), line))
    return out


def _worth(expr: Expr, display: bool) -> bool:
    """Whether a statement claims something, and does not merely name or declare."""
    size = sum(1 for _ in expr.walk())
    if expr.op in ("relation", "chain"):
        signs = {expr.value} if expr.op == "relation" else set(expr.value)
        if not signs & (_CLAIMING | {"≤", "≥", "<", ">"}):
            return False
        if expr.op == "relation" and size <= 3:  # d_k = 64, a = b
            return all(a.op == "number" for a in expr.args)
        right = expr.args[-1]
        if right.op == "tuple" and any(a.op == "ellipsis" for a in right.args):
            return False  # i = 1, ..., n
        if not signs & _CLAIMING:
            return display and size > 5
        # A value that is given, not derived: Q = [1, 0, 1], x = -2.
        return not (
            expr.op == "relation"
            and expr.args[0].op in ("name", "index")
            and all(e.op in ("number", "neg", "matrix", "name", "tuple") for e in right.walk())
            and right.op != "name"
        )
    if not display and expr.op == "call" and str(expr.value) in ("O", "𝒪", "Θ", "Ω"):
        return False  # a complexity is judged with its sentence
    calls = any(e.op in ("call", "big", "concat", "cases") for e in expr.walk())
    return size > 3 and calls if not display else size > 3


class _Judge:
    def __init__(self, document: Document, declarations: Declarations, card: Card | None) -> None:
        self.document = document
        self.declarations = declarations
        self.card = card
        self.steps: dict[str, tuple[Expr, int]] = {}  # name -> right-hand side, section
        self.named: dict[str, list[tuple[Expr, Claim]]] = {}
        self.judged: dict[str, tuple[Card, int]] = {}  # symbol -> its card, section
        self._mentioned: dict[int, set[str]] = {}

    def __call__(self, claim: Claim) -> list[Finding]:
        formula = claim.formula
        place = Place(self.document.name, claim.line, formula.text, formula.end_line)
        numeric = self.numbers(claim)
        if numeric is not None:
            return [replace(numeric, place=place)]
        definitions = {
            symbol: body
            for symbol, (body, section) in self.steps.items()
            if section in (formula.section, formula.section - 1)
        }
        found = self.compare(claim, definitions)
        self.remember(claim, definitions)
        if found is None:
            related = claim.expr.op in ("relation", "chain")
            if not formula.display and not related:
                return []  # a mention in a sentence, of nothing known
            found = Finding(
                place,
                Verdict.NO_CARD,
                reading=to_unicode(claim.expr),
                explanation="It resembles no card; there is nothing to compare it with.",
            )
        rows = [found, *self.steps_of_chain(claim, found)]
        return [replace(row, place=place) for row in rows]

    def steps_of_chain(self, claim: Claim, whole: Finding) -> Iterator[Finding]:
        """Acquit a step ``b = c`` of a chain ``a = b = c`` that is right by itself."""
        from minitransformer.verify.decide import EQUALS, decide
        from minitransformer.verify.matching import match

        if claim.expr.op != "chain" or whole.verdict in EQUALS or whole.card is None:
            return
        for index in range(1, len(claim.expr.args) - 1):
            step = [
                Reading(Expr("relation", r.expr.args[index : index + 2], "=", r.expr.span), r.note)
                for r in claim.readings
                if r.expr.op == "chain" and r.expr.value[index : index + 1] == ("=",)
            ]
            if not step or step[0].expr.args[0].op != "call":
                continue
            matched = match(step)
            found = decide(step, matched[0], full=False) if matched else None
            if found is not None and found.verdict in EQUALS:
                words = f"The step {to_unicode(step[0].expr)} is right by itself."
                yield replace(found, reading=to_unicode(step[0].expr), explanation=words)

    def context(self, claim: Claim) -> str:
        """Return the heading and the paragraph before a formula."""
        before = [
            p.text
            for p in self.document.prose
            if claim.line - 12 <= p.line <= claim.line and p.section == claim.formula.section
        ]
        return " ".join([claim.formula.heading, *before[-2:]])[-600:]

    def known_best(self, claim: Claim, definitions: Mapping[str, Expr]) -> list[Reading]:
        """Keep the readings whose symbols the section itself mentions.

        Where the text speaks of K_1, e^K_1 means e^{K_1} and not the first entry of e^K.
        """
        if len(claim.readings) == 1:
            return list(claim.readings)
        mentioned = self.mentioned(claim.formula.section) | set(definitions)
        strange = [
            len({e.value for e in r.expr.walk() if e.op == "name"} - mentioned)
            for r in claim.readings
        ]
        return [r for r, n in zip(claim.readings, strange) if n == min(strange)]

    def mentioned(self, section: int) -> set[str]:
        """Return the symbols among a section's inline formulas."""
        if section not in self._mentioned:
            names: set[str] = set()
            for formula in self.document.formulas:
                if formula.section != section or formula.display or len(formula.text) > 80:
                    continue
                try:
                    tree = parse(formula.text, self.document.macros)[0].expr
                except CannotParse:
                    continue
                names |= {str(e.value) for e in tree.walk() if e.op == "name"}
            self._mentioned[section] = names
        return self._mentioned[section]

    def compare(self, claim: Claim, definitions: Mapping[str, Expr]) -> Finding | None:
        """Find the card that a claim resembles and decide it."""
        from minitransformer.verify.decide import decide
        from minitransformer.verify.matching import match

        readings = self.known_best(claim, definitions)
        matched = match(readings, self.context(claim), definitions=definitions)
        if self.card is not None:
            matched = tuple(c for c in matched if c.id == self.card.id)
        symbol = claim.expr.args[0] if claim.expr.op in ("relation", "chain") else claim.expr
        key = str(symbol.value) if symbol.op == "name" else ""
        section = claim.formula.section
        if matched:
            self.judged[key] = matched[0], section
        elif not key or self.judged.get(key, (None, -2))[1] not in (section, section - 1):
            return None
        chosen = self.judged[key][0]  # what resembles nothing may be the same symbol again
        return decide(
            readings,
            chosen,
            declarations=self.declarations.for_section(section),
            definitions=definitions,
        )

    def remember(self, claim: Claim, definitions: Mapping[str, Expr]) -> None:
        """Keep what a claim defines, for the formulas after it."""
        expr = claim.expr
        if expr.op not in ("relation", "chain"):
            return
        sign = expr.value if expr.op == "relation" else expr.value[0]
        left, right = expr.args[0], expr.args[1]
        if sign not in _DEFINING:
            return
        if defines(left) and claim.formula.display:
            if all(e != left for e in right.walk()):
                self.steps[defines(left)] = (right, claim.formula.section)
        elif left.op == "call" and len(str(left.value)) > 2 and claim.formula.display:
            from minitransformer.verify.binding import inline

            own = {k: v for k, v in definitions.items() if k != left.value}
            whole = replace(expr, args=(left, *(inline(a, own) for a in expr.args[1:])))
            self.named.setdefault(str(left.value), []).append((whole, claim))

    def contradictions(self) -> Iterator[Finding]:
        """Compare the formulas of one name with each other."""
        from minitransformer.verify.binding import substitute
        from minitransformer.verify.decide import contradictions

        for name, formulas in self.named.items():
            kept = formulas[:_MOST_OF_ONE_NAME]
            if len(kept) < 2:
                continue
            usual = self.usual_values([e for e, _ in kept])
            trees = [(name, substitute(e, usual)) for e, _ in kept]
            pairs = {
                found.witnesses["pair"]: found for found in contradictions(trees, None, self.card)
            }
            given = "".join(f" with {s} = {to_unicode(v)}" for s, v in usual.items())
            for later in range(1, len(kept)):
                against = [(earlier, later) in pairs for earlier in range(later)]
                if not all(against):
                    continue  # it repeats an earlier formula, or nothing can be said
                found, first, second = pairs[0, later], kept[0][1], kept[later][1]
                yield replace(
                    found,
                    place=Place(
                        self.document.name, second.line, second.formula.text,
                        second.formula.end_line,
                    ),
                    explanation=f"{found.explanation} They stand in "
                    f"{self.document.say([first.line, second.line], ' and ')}"
                    f"{', compared' + given if given else ''}.",
                )  # fmt: skip

    def usual_values(self, trees: list[Expr]) -> dict[str, Expr]:
        """Return the one value that the text gives to each constant of some formulas."""
        out = {}
        for symbol in {str(e.value) for tree in trees for e in tree.walk() if e.op == "name"}:
            if symbol not in self.declarations:
                continue
            said = self.declarations[symbol]
            values = [said.value] if said.value is not None else list(said.usual)
            if len(values) == 1 and said.constant and values[0] is not None:
                out[symbol] = values[0]
        return dict(sorted(out.items()))

    # -- examples with numbers --------------------------------------------------------
    def numbers(self, claim: Claim) -> Finding | None:
        """Compute both sides of an equation between numbers."""
        expr = claim.expr
        if expr.op not in ("relation", "chain"):
            return None
        signs = (expr.value,) if expr.op == "relation" else expr.value
        if not set(signs) <= (_DEFINING | {"≈", "≃"}):
            return None
        known: dict[str, float] = {}
        used: list[str] = []
        for symbol in self.declarations.by_symbol:
            value = self.declarations.number(symbol, claim.formula.section, claim.line)
            if value is not None:
                known[symbol] = value
        if all((not e.args and e.op == "name") or e.op in ("relation", "chain", "mul", "add")
               for e in expr.walk()):  # fmt: skip
            return None
        values: list[Array | None] = []
        for side in expr.args:
            try:
                values.append(compute(side, known))
                used += [str(e.value) for e in side.walk() if e.op == "name" and e.value in known]
            except (NotClosed, ValueError, OverflowError, ZeroDivisionError, RecursionError):
                values.append(None)
        pairs = [
            (a, b, i)
            for i, (a, b) in enumerate(pairwise(values))
            if a is not None and b is not None
        ]
        if not pairs or (len(pairs) < len(signs) and len(values) - values.count(None) < 2):
            return None
        with_values = ", ".join(f"{s} = {known[s]:g}" for s in dict.fromkeys(used))
        named = all(v is not None or e.op == "name" for v, e in zip(values, expr.args))
        return self.compared(claim, expr, pairs, with_values, named)

    def compared(
        self,
        claim: Claim,
        expr: Expr,
        pairs: list[tuple[Array, Array, int]],
        with_values: str,
        complete: bool,
    ) -> Finding | None:
        text = claim.formula.text
        worst = Verdict.TRUE
        words = []
        for left, right, index in pairs:
            sides = expr.args[index], expr.args[index + 1]
            steps = [s for s in (printed_step(side, text) for side in sides) if s]
            step = max(steps, default=0.0)
            if left.shape != right.shape and left.size == right.size and 1 in left.shape[:1]:
                right = right.reshape(left.shape)
            if left.shape != right.shape:
                worst = Verdict.FALSE
                words.append(f"{to_unicode(sides[0])} and {to_unicode(sides[1])} differ in shape")
                continue
            off = float(np.abs(left - right).max())
            scale = float(np.abs(left).max()) or 1.0
            exact = 1e-9 * scale
            if off <= step / 2 + exact:
                words.append(f"{to_unicode(sides[0])} = {_shown(left)}")
            elif off <= step * (1 + 1e-9) and bool((np.abs(right) <= np.abs(left) + exact).all()):
                worst = Verdict.IMPRECISE if worst is Verdict.TRUE else worst
                words.append(
                    f"{to_unicode(sides[0])} = {_shown(left)}, cut and not rounded to "
                    f"{_shown(right)}"
                )
            else:
                worst = Verdict.FALSE
                words.append(f"{to_unicode(sides[0])} = {_shown(left)}, not {_shown(right)}")
        if worst is Verdict.TRUE and not complete:
            return None  # part of it is symbolic: let the cards judge
        given = f"With {with_values}: " if with_values else ""
        return Finding(
            Place("", 0, ""),
            worst,
            reading=to_unicode(expr),
            explanation=given + "; ".join(words) + ".",
        )


def _shown(value: Array) -> str:
    if value.ndim == 0:
        return f"{float(value):.6g}"
    rows = value if value.ndim == 2 else value[None]
    body = ["[" + ", ".join(f"{float(x):.4g}" for x in row[:8]) + "]" for row in rows[:8]]
    return body[0] if len(body) == 1 else "[" + ", ".join(body) + "]"
