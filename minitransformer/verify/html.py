"""A report as one self-contained HTML page: MathML, no script, no network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from minitransformer._version import __version__
from minitransformer.verify.parser import CannotParse, parse
from minitransformer.verify.printing import to_mathml
from minitransformer.verify.report import (
    OUTCOME,
    SIGN,
    Report,
    before_repair,
    difference,
    facts_of,
    known_by,
    marked_span,
    show,
)
from minitransformer.verify.verdict import Counterexample, Finding, Verdict
from minitransformer.verify.worked import Step, work

# Verdicts about prose, code and figures: their text is no formula to typeset.
CLAIMS = frozenset(
    {Verdict.TRUE, Verdict.FALSE, Verdict.CONDITIONAL, Verdict.IMPRECISE, Verdict.UNVERIFIABLE}
)
STYLE = """
:root { --ink: #1c1e21; --soft: #5c6470; --line: #d9dde3; --page: #fbfbfa; --card: #fff;
  --holds: #1a7f4b; --qualified: #9a6700; --refuted: #c22f2f; --undecided: #2f6cc2;
  --mark: #ffe2de; --added: #d9f2e0; --removed: #ffe0dc; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3af; --line: #363b44;
  --page: #16181c; --card: #1e2127; --holds: #5cc98d; --qualified: #d9a93a; --refuted: #ff7b72;
  --undecided: #79aefc; --mark: #5a2622; --added: #173d27; --removed: #4d2320; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; color: var(--ink);
  background: var(--page); font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h1 small { color: var(--soft); font-weight: 400; }
.summary { color: var(--soft); margin: .25rem 0 1.5rem; }
code, pre, .num { font-family: ui-monospace, "Cascadia Mono", Menlo, monospace; font-size: .9em; }
table.list { border-collapse: collapse; width: 100%; margin-bottom: 2rem; }
table.list td { border-top: 1px solid var(--line); padding: .4rem .75rem .4rem 0;
  vertical-align: middle; }
table.list td.formula { max-width: 32rem; overflow-x: auto; }
a { color: inherit; } .place { color: var(--soft); white-space: nowrap; }
.verdict { font-weight: 600; white-space: nowrap; }
.holds .verdict { color: var(--holds); } .qualified .verdict { color: var(--qualified); }
.refuted .verdict { color: var(--refuted); } .undecided .verdict { color: var(--undecided); }
article { background: var(--card); border: 1px solid var(--line); border-left-width: 4px;
  border-radius: 8px; padding: 1rem 1.25rem; margin-bottom: 1.25rem; }
article.holds { border-left-color: var(--holds); }
article.qualified { border-left-color: var(--qualified); }
article.refuted { border-left-color: var(--refuted); }
article.undecided { border-left-color: var(--undecided); }
header.row { display: flex; gap: .25rem 1rem; flex-wrap: wrap; align-items: baseline; }
header.row .place:last-child { margin-left: auto; }
.formula-box { overflow-x: auto; padding: .75rem 0; font-size: 1.15rem; }
.marked { background: var(--mark); border-bottom: 2px solid var(--refuted); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; margin: .25rem 0; }
dt { color: var(--soft); } dd { margin: 0; min-width: 0; overflow-x: auto; }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr));
  gap: 1rem; }
.side { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .9rem;
  overflow-x: auto; min-width: 0; }
.side h4 { margin: .1rem 0 .3rem; font-size: .85rem; color: var(--soft); font-weight: 600; }
.side table { border-collapse: collapse; width: 100%; }
.side td { padding: .3rem .4rem; border-top: 1px solid var(--line); }
.side tr:first-child td { border-top: 0; } .side td.n { color: var(--soft); font-size: .85em; }
.side tr.result td { font-weight: 600; } td.eq { width: 1%; padding: 0; }
.inputs { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem 2rem;
  padding: .25rem 0 .75rem; }
.inputs math { display: inline-flex; align-items: center; gap: .3em; }
.diff { display: block; padding: .15rem .5rem; border-radius: 4px; overflow-x: auto;
  white-space: pre; } .diff + .diff { margin-top: .2rem; }
del { background: var(--removed); text-decoration: none; }
ins { background: var(--added); text-decoration: none; }
/* Brackets as borders: stretched ones need a mathematical font, which a reader may lack. */
.matrix { border-collapse: separate; border: solid currentColor; border-width: 0 1.5px;
  border-radius: .35em; padding: 0 .15em; margin: .1em .15em; }
math { font-size: 1.05em; } footer { color: var(--soft); font-size: .85rem; margin-top: 2rem; }
@media print { body { max-width: none; } article { break-inside: avoid; } }
"""


def to_html(report: Report) -> str:
    """Return a report as one HTML page that needs nothing else.

    Parameters
    ----------
    report : Report
        What `check`, `check_document` or the command line found.

    Returns
    -------
    str
        The page: a list of the claims, then each with its formula in MathML, the
        offending part marked, the counterexample worked step by step, and the repair.
    """
    title = f"Formulas of {report.source}"
    rows = "".join(_row(i, f) for i, f in enumerate(report.findings))
    articles = "".join(_article(i, f, report) for i, f in enumerate(report.findings))
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(report.source)} <small>formulas verified</small></h1>"
        f'<p class="summary">{escape(report.summary())}</p>{notes}'
        f'<table class="list">{rows}</table>{articles}'
        f"<footer>minitransformer {__version__}</footer></body></html>\n"
    )


def _row(index: int, finding: Finding) -> str:
    outcome = OUTCOME[finding.verdict]
    return (
        f'<tr class="{outcome}"><td class="place">'
        f'<a href="#claim-{index}">{escape(finding.place.where)}</a></td>'
        f'<td class="formula">{_formula(finding, display=False)}</td>'
        f'<td class="verdict">{SIGN[outcome]} {finding.verdict.value}</td></tr>'
    )


def _article(index: int, finding: Finding, report: Report) -> str:
    outcome = OUTCOME[finding.verdict]
    detail = f" {{{escape(finding.detail)}}}" if finding.detail else ""
    against = f"<span>against <b>{escape(finding.card)}</b></span>" if finding.card else ""
    place = f"{finding.place.file}, {finding.place.where}"
    recorded = ""
    if report.expected and report.expected[index] is not None:
        same = index not in report.deviations
        word = "as recorded" if same else f"the ledger records {report.expected[index]}"
        recorded = f'<span class="place">{escape(word)}</span>'
    return (
        f'<article class="{outcome}" id="claim-{index}"><header class="row">'
        f'<span class="verdict">{SIGN[outcome]} {finding.verdict.value}{detail}</span>{against}'
        f"{recorded}"
        f'<span class="place">{escape(place)}</span></header>'
        f'<div class="formula-box">{_formula(finding, display=True)}</div>'
        f"{_facts(finding)}{_counterexample(finding)}{_repair(finding)}</article>"
    )


def _facts(finding: Finding) -> str:
    items = "".join(
        f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>"
        for label, text in facts_of(finding)
        if text
    )
    return f"<dl>{items}</dl>" if items else ""


def _formula(finding: Finding, *, display: bool) -> str:
    """The claim as MathML with its offending part marked, or its text where it resists."""
    text, span = finding.place.text, marked_span(finding)
    function = finding.place.file.endswith(".py")
    if function or (finding.card is None and finding.verdict in CLAIMS):
        return f'<span class="claim">{escape(" ".join(text.split()))}</span>'
    try:
        tree = parse(text)[0].expr
        return to_mathml(tree, span=span, display=display)
    except (CannotParse, ValueError, TypeError, KeyError):
        flat = text if display else " ".join(text.split())[:120]
    if span is None or not display:
        return f"<code>{escape(flat)}</code>"
    start, end = span
    return (
        f'<code>{escape(text[:start])}<span class="marked">{escape(text[start:end])}</span>'
        f"{escape(text[end:])}</code>"
    )


def _counterexample(finding: Finding) -> str:
    point = finding.counterexample
    if point is None:
        return ""
    inputs = "".join(
        f"<span>{_equation(_name(name), _matrix(value))}</span>"
        for name, value in point.inputs.items()
    )
    working = work(finding)
    titles = "as written", finding.card or "reference"
    if "pair" in finding.witnesses:
        titles = "one formula", "the other"
    claimed = _side(titles[0], working.claimed if working else (), point.claimed)
    reference = _side(titles[1], working.reference if working else (), point.reference)
    return (
        "<h3>The smallest example found</h3>"
        f'<div class="inputs">{inputs}</div><div class="sides">{claimed}{reference}</div>'
        f"{_certificate(point)}"
    )


def _certificate(point: Counterexample) -> str:
    text = escape(known_by(point))
    return f'<dl><dt>known by</dt><dd class="num">{text}</dd></dl>' if text else ""


def _side(title: str, steps: tuple[Step, ...], result: Any) -> str:
    rows = "".join(_step_rows(steps))
    if not steps:
        rows = f'<tr class="result"><td>{_math(_matrix(result))}</td></tr>'
    return f'<div class="side"><h4>{escape(title)}</h4><table>{rows}</table></div>'


def _step_rows(steps: tuple[Step, ...]) -> Iterator[str]:
    for i, step in enumerate(steps):
        kind = ' class="result"' if i == len(steps) - 1 else ""
        note = f' <span class="n">{escape(step.note)}</span>' if step.note else ""
        yield (
            f"<tr{kind}><td>{to_mathml(step.expr, display=False)}{note}</td>"
            f'<td class="eq">=</td><td>{_math(_matrix(step.value))}</td></tr>'
        )


def _repair(finding: Finding) -> str:
    if not finding.repair and not finding.repair_latex:
        return ""
    parts = ["<h3>Repair</h3>"]
    if finding.repair:
        parts.append(f"<p>{escape(finding.repair)}</p>")
    if finding.repair_latex:
        try:
            tree = parse(finding.repair_latex)[0].expr
            parts.append(f'<div class="formula-box">{to_mathml(tree)}</div>')
        except (CannotParse, ValueError, TypeError, KeyError):
            pass
        before, after = ["- "], ["+ "]
        for sign, old, new in difference(before_repair(finding), finding.repair_latex):
            same = sign == "="
            before.append(escape(old) if same or not old else f"<del>{escape(old)}</del>")
            after.append(escape(new) if same or not new else f"<ins>{escape(new)}</ins>")
        parts += [f'<code class="diff">{"".join(side)}</code>' for side in (before, after)]
    return "".join(parts)


def _math(body: str) -> str:
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">{body}</math>'


def _equation(left: str, right: str) -> str:
    return _math(f"{left}<mo>=</mo>{right}")


def _name(name: str) -> str:
    try:
        markup = to_mathml(parse(name)[0].expr, display=False)
    except (CannotParse, ValueError, TypeError, KeyError):
        return f"<mi>{escape(name)}</mi>"
    return re.sub(r"^<math[^>]*>|</math>$", "", markup)


def _matrix(value: Any) -> str:
    """Nested lists of numbers as a bracketed MathML table, a number as itself."""
    array = np.asarray(value, dtype=object)
    if array.ndim == 0:
        return _number(array.item())
    rows = array.reshape(1, -1) if array.ndim == 1 else array
    if rows.ndim > 2:
        return f"<mtext>{escape(show(value))}</mtext>"
    body = "".join(
        f"<mtr>{''.join(f'<mtd>{_number(entry)}</mtd>' for entry in row)}</mtr>" for row in rows
    )
    return f'<mtable class="matrix">{body}</mtable>'


def _number(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
    try:
        if "." in text and "/" not in text:
            text = f"{float(text):.4g}"
    except ValueError:
        return f"<mtext>{escape(text)}</mtext>"
    top, slash, bottom = text.partition("/")
    if slash:
        sign = "<mo>−</mo>" if top.startswith("-") else ""
        number, below = escape(top.lstrip("-")), escape(bottom)
        return f"<mrow>{sign}<mfrac><mn>{number}</mn><mn>{below}</mn></mfrac></mrow>"
    if text in ("inf", "-inf"):
        return "<mrow><mo>−</mo><mi>∞</mi></mrow>" if text[0] == "-" else "<mi>∞</mi>"
    if text.startswith("-"):
        return f"<mrow><mo>−</mo><mn>{escape(text[1:])}</mn></mrow>"
    return f"<mn>{escape(text)}</mn>"
