"""What the verifier found, as text for a person, as JSON for a program.

The JSON document (``--json``, `Report.to_dict`) is stable; ``schema`` names its
version, and `SCHEMA` states it as a JSON Schema. A key is added without a new
version; none is renamed, removed or given another meaning within one.

==================  ===============================================================
key                 meaning
==================  ===============================================================
schema              ``"minitransformer.verify/1"``
version             the package's version
source, kind        what was checked; ``document``, ``formula``, ``function`` or ``ledger``
status              the exit status: 0 all hold (or are as the ledger records),
                    1 something is refuted (or deviates), 2 the question has no answer
seconds             how long it took
interrupted         true where the run was stopped and the findings are incomplete
notes               sentences about the run as a whole
witnesses           versions of the independent oracles; ``null`` where not installed
summary             numbers of claims: ``claims``, ``holds``, ``qualified``,
                    ``refuted``, ``undecided``, ``deviations`` (ledger only)
findings            a list, in reading order, of:
. place             ``file``, ``line`` (from 1), ``end_line`` or null, ``text``, and
                    ``cell`` (``cell 3``, ``output of cell 3``) where the line is
                    one of a notebook's cell, else null
. verdict, outcome  a value of `Verdict`; its class in the summary
. expected          the verdict the ledger records, null elsewhere
. card              the trusted formula it was compared with, or null
. reading           how the text was understood
. detail            what the verdict's braces hold (a scale, a span, a list)
. explanation, equals_instead, repair, repair_latex, unsafe_float    text, maybe empty
. counterexample    null, or ``inputs`` (symbol to nested lists of exact numbers as
                    text), ``claimed``, ``reference``, ``certificate``
. coincidences      where the two agree nevertheless
. witnesses         oracle to what it said
. span              null or [start, end] in ``place.text``
==================  ===============================================================

Numbers that JSON cannot hold are the strings ``"nan"``, ``"inf"`` and ``"-inf"``.
"""

from __future__ import annotations

import difflib
import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minitransformer._version import __version__
from minitransformer.verify.verdict import Counterexample, Finding, Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

OUTCOME: dict[Verdict, str] = {
    Verdict.EQUAL_PROVED: "holds",
    Verdict.EQUAL_SUPPORTED: "holds",
    Verdict.EQUAL_UP_TO: "holds",
    Verdict.TRUE: "holds",
    Verdict.APPROXIMATES: "qualified",
    Verdict.CONDITIONAL: "qualified",
    Verdict.IMPRECISE: "qualified",
    Verdict.COINCIDES_ONLY_WHEN: "refuted",
    Verdict.DIFFERENT_CERTIFIED: "refuted",
    Verdict.DIFFERENT: "refuted",
    Verdict.ILL_TYPED: "refuted",
    Verdict.WRONG_SHAPE: "refuted",
    Verdict.FALSE: "refuted",
    Verdict.UNDER_SPECIFIED: "undecided",
    Verdict.AMBIGUOUS: "undecided",
    Verdict.CANNOT_PARSE: "undecided",
    Verdict.NO_CARD: "undecided",
    Verdict.UNVERIFIABLE: "undecided",
}
STYLE = {"holds": "green", "qualified": "yellow", "refuted": "bold red", "undecided": "cyan"}
SIGN = {"holds": "✓", "qualified": "~", "refuted": "✗", "undecided": "?"}

_TEXT = {"type": "string"}
_NULLABLE_TEXT = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}


def _object(properties: dict[str, Any], kind: Any = "object") -> dict[str, Any]:
    return {
        "type": kind,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(
        {
            "schema": {"const": "minitransformer.verify/1"},
            "version": _TEXT,
            "source": _TEXT,
            "kind": {"enum": ["document", "formula", "function", "ledger"]},
            "status": {"enum": [0, 1, 2]},
            "seconds": {"type": "number", "minimum": 0},
            "interrupted": {"type": "boolean"},
            "notes": {"type": "array", "items": _TEXT},
            "witnesses": {"type": "object", "additionalProperties": _NULLABLE_TEXT},
            "summary": _object(
                dict.fromkeys(
                    ("claims", "holds", "qualified", "refuted", "undecided", "deviations"), _COUNT
                )
            ),
            "findings": {
                "type": "array",
                "items": _object(
                    {
                        "place": _object(
                            {
                                "file": _TEXT,
                                "line": {"type": "integer", "minimum": 1},
                                "end_line": {"type": ["integer", "null"]},
                                "cell": {"type": ["string", "null"]},
                                "text": _TEXT,
                            }
                        ),
                        "verdict": {"enum": [v.value for v in Verdict]},
                        "outcome": {"enum": list(STYLE)},
                        "expected": _NULLABLE_TEXT,
                        "card": _NULLABLE_TEXT,
                        "reading": _TEXT,
                        "detail": _TEXT,
                        "explanation": _TEXT,
                        "equals_instead": _TEXT,
                        "repair": _TEXT,
                        "repair_latex": _TEXT,
                        "unsafe_float": _TEXT,
                        "counterexample": _object(
                            {
                                "inputs": {"type": "object"},
                                "claimed": {},
                                "reference": {},
                                "certificate": {"type": "object"},
                            },
                            ["object", "null"],
                        ),
                        "coincidences": {"type": "array", "items": _TEXT},
                        "witnesses": {"type": "object"},
                        "span": {"type": ["array", "null"], "items": {"type": "integer"}},
                    }
                ),
            },
        }
    ),
}


@dataclass(frozen=True, repr=False)
class Report:
    """The findings about one source.

    Parameters
    ----------
    source : str
        The file, function or formula that was checked.
    kind : str
        ``document``, ``formula``, ``function`` or ``ledger``.
    findings : tuple of Finding
        A row per claim, in reading order.
    expected : tuple of (str or None)
        For the ledger, the recorded verdict of each row; empty elsewhere.
    witnesses : dict
        Versions of the independent oracles, ``None`` where one is not installed.

    Examples
    --------
    >>> from minitransformer.verify.verdict import Place
    >>> row = Finding(Place("formula", 1, "QK^T"), Verdict.NO_CARD)
    >>> report = Report("QK^T", "formula", (row,))
    >>> report.status, report.holds
    (2, False)
    """

    source: str
    kind: str
    findings: tuple[Finding, ...]
    seconds: float = 0.0
    expected: tuple[str | None, ...] = ()
    witnesses: dict[str, str | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def outcomes(self) -> tuple[str, ...]:
        """``holds``, ``qualified``, ``refuted`` or ``undecided`` for each finding."""
        return tuple(OUTCOME[f.verdict] for f in self.findings)

    @property
    def deviations(self) -> tuple[int, ...]:
        """The rows whose computed verdict is not the one the ledger records."""
        return tuple(
            i
            for i, (found, recorded) in enumerate(zip(self.findings, self.expected))
            if recorded is not None and found.verdict.value != recorded
        )

    @property
    def holds(self) -> bool:
        """True where every claim holds, and there is one."""
        return bool(self.findings) and set(self.outcomes) == {"holds"}

    @property
    def status(self) -> int:
        """The exit status: 0 fine, 1 refuted, 2 the question could not be answered.

        A document is answered by the claims that could be decided; where none could, it
        is as undecided as a single formula would be.
        """
        if self.kind == "ledger":
            return 1 if self.deviations else 0
        if "refuted" in self.outcomes:
            return 1
        if self.kind == "document" and (
            not self.findings or not set(self.outcomes) <= {"undecided"}
        ):
            return 0
        if self.holds:
            return 0
        return 2 if set(self.outcomes) <= {"undecided"} else 1

    def to_dict(self) -> dict[str, Any]:
        """Return the report as the JSON document that the module describes."""
        outcomes = self.outcomes
        recorded = self.expected or (None,) * len(self.findings)
        return {
            "schema": "minitransformer.verify/1",
            "version": __version__,
            "source": self.source,
            "kind": self.kind,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "notes": list(self.notes),
            "witnesses": dict(self.witnesses),
            "summary": {
                "claims": len(self.findings),
                **{name: outcomes.count(name) for name in STYLE},
                "deviations": len(self.deviations),
            },
            "findings": [
                _finding_dict(finding, expected)
                for finding, expected in zip(self.findings, recorded, strict=True)
            ],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2, allow_nan=False)

    def summary(self) -> str:
        """Return the line that ends the report."""
        return _summary(self)

    def to_text(self, *, colour: bool = False, width: int | None = None) -> str:
        """Return the report as text, coloured for a terminal or plain for a pipe."""
        from rich.console import Console

        console = Console(
            file=io.StringIO(),
            force_terminal=colour,
            color_system="standard" if colour else None,
            width=width or (100 if colour else 10_000),
            highlight=False,
            emoji=False,
            markup=False,
        )
        self.print(console)
        written = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in str(written).splitlines())

    def print(self, console: Console) -> None:
        """Write the report to a rich console."""
        for renderable in self._render(table=console.is_terminal):
            console.print(renderable, soft_wrap=not console.is_terminal)

    def __repr__(self) -> str:
        return self.to_text()

    def _render(self, *, table: bool) -> Iterator[RenderableType]:
        from rich.text import Text

        deviations = set(self.deviations)
        for i, finding in enumerate(self.findings):
            recorded = self.expected[i] if self.expected else None
            note = ""
            if recorded is not None:
                note = f"the ledger records {recorded}" if i in deviations else "as recorded"
            yield from _blocks(finding, note, deviates=i in deviations, table=table)
        for line in self.notes:
            yield Text(f"note: {line}", style="dim")
        worst = "red" if self.status == 1 else "green" if self.status == 0 else "cyan"
        yield Text(self.summary(), style=f"bold {worst}")


def lines_of(finding: Finding) -> list[tuple[str, str]]:
    """Return the labelled lines that support a finding, empty ones left out."""
    rows = facts_of(finding)
    if finding.counterexample is not None:
        point = finding.counterexample
        inputs = ", ".join(f"{name} = {show(value)}" for name, value in point.inputs.items())
        rows[3:3] = [
            ("at", inputs),
            ("claimed", show(point.claimed)),
            ("reference", show(point.reference)),
            ("known by", known_by(point)),
        ]
    rows.append(("repair", finding.repair))
    return [(label, text) for label, text in rows if text]


def facts_of(finding: Finding) -> list[tuple[str, str]]:
    """Return what a finding says beside its example and repair, empty texts included."""
    witnesses = finding.witnesses
    tried = [f"{witnesses[k]} {k}" for k in ("points", "shapes", "bits") if k in witnesses]
    told = [(k, show(v)) for k, v in witnesses.items() if k in ("torch", "kernel", "read")]
    labels = {"torch": "PyTorch", "kernel": "our kernel", "read": "read as"}
    return [
        ("reading", finding.reading),
        ("why", finding.explanation),
        ("instead", finding.equals_instead),
        ("agrees if", " or ".join(finding.coincidences)),
        ("floats", finding.unsafe_float),
        *((labels[name], text) for name, text in told),
        ("tried", ", ".join(tried)),
    ]


def known_by(point: Counterexample) -> str:
    """Say how the difference at a counterexample is known."""
    known = dict(point.certificate)
    seed = f"; drawn from seed {known['seed']}" if "seed" in known else ""
    if known.get("disjoint"):
        entry = f" of entry {show(known['entry'])}" if known.get("entry") else ""
        return (
            f"disjoint balls{entry} at {known.get('bits')} bits: {known.get('claimed_ball')} and "
            f"{known.get('reference_ball')}{seed}"
        )
    if "disjoint" in known:
        return f"float64 ({known.get('why')}){seed}"
    return ", ".join(f"{k} {show(v)}" for k, v in known.items())


def marked_span(finding: Finding) -> tuple[int, int] | None:
    """Return the part of the claim to point at: where it first leaves the card."""
    span = finding.witnesses.get("diverges_at") or finding.span
    if span is None or not 0 <= span[0] < span[1] <= len(finding.place.text):
        return None
    return int(span[0]), int(span[1])


def show(value: Any) -> str:
    """Write numbers and nested lists for reading: short, without quotes.

    >>> show([["1", "1/2"], [0.333333333333, -0.0]])
    '[[1, 1/2], [0.33333333, 0]]'
    """
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.8g}" if value else "0"
    if isinstance(value, dict):
        return ", ".join(f"{k} {show(v)}" for k, v in value.items())
    if hasattr(value, "tolist"):
        return show(value.tolist())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(show, value)) + "]"
    return str(value)


def before_repair(finding: Finding) -> str:
    """Return the claim's right-hand side as the repair is printed, so that only edits differ."""
    from minitransformer.verify.binding import sides
    from minitransformer.verify.parser import CannotParse, parse
    from minitransformer.verify.printing import to_latex

    try:
        _, claims, _ = sides(parse(finding.place.text)[0].expr)
        return to_latex(claims[-1])
    except (CannotParse, ValueError, TypeError, KeyError):
        return " ".join(finding.place.text.split())


def difference(before: str, after: str) -> Iterator[tuple[str, str, str]]:
    """Compare two formulas token by token: yields (``=``/``-``/``+``, removed, added).

    >>> list(difference("a/d_k", "a/d"))
    [('=', 'a/', 'a/'), ('-', 'd_k', 'd')]
    """
    pattern = r"\\[A-Za-z]+|[A-Za-z]+(?:_[A-Za-z0-9]+|_\{[^{}]*\})?|\d+|\s+|."
    old, new = re.findall(pattern, before, re.S), re.findall(pattern, after, re.S)
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        yield ("=" if tag == "equal" else "-"), "".join(old[a:b]), "".join(new[c:d])


def _blocks(
    finding: Finding, note: str, *, deviates: bool, table: bool
) -> Iterator[RenderableType]:
    """One finding: its head line, the claim, and the labelled lines below it."""
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    outcome = OUTCOME[finding.verdict]
    head = Text()
    head.append(f"{SIGN[outcome]} {finding.verdict.value}", style=STYLE[outcome])
    if finding.detail:
        head.append(f" {{{finding.detail}}}", style=STYLE[outcome])
    if finding.card:
        head.append(f"  against {finding.card}", style="dim")
    place = finding.place
    where = f" {place.where}" if place.cell else f":{place.line}"
    head.append(f"  {place.file}{where}", style="blue")
    if note:
        head.append(f"  ({note})", style="bold magenta" if deviates else "dim")
    yield head
    rows: list[tuple[str, Text]] = [("claim", _marked(finding))]
    rows += [(label, Text(text)) for label, text in lines_of(finding)]
    if finding.repair_latex:
        removed, added = Text("- "), Text("+ ")
        for sign, old, new in difference(before_repair(finding), finding.repair_latex):
            removed.append(old, style="red" if sign == "-" else "")
            added.append(new, style="green" if sign == "-" else "")
        rows += [("" if finding.repair else "repair", removed), ("", added)]
    if table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", min_width=9)
        grid.add_column(overflow="fold")
        for label, text in rows:
            grid.add_row(f"  {label}", text)
        yield grid
        yield Rule(style="dim")
    else:
        for label, text in rows:
            yield Text(f"  {label:<10}").append_text(text)
        yield Text("")


def _marked(finding: Finding) -> Text:
    """The claim on one line, its offending part underlined."""
    from rich.text import Text

    source = finding.place.text
    span = marked_span(finding)
    if span is None:
        return Text(" ".join(source.split()))
    start, end = span
    text = Text()
    for part, style in (
        (source[:start], ""),
        (source[start:end], "underline red"),
        (source[end:], ""),
    ):
        text.append(re.sub(r"\s+", " ", part), style=style)
    return text


def _summary(report: Report) -> str:
    outcomes = report.outcomes
    counts = [
        (outcomes.count("holds"), "holds" if outcomes.count("holds") == 1 else "hold"),
        (outcomes.count("qualified"), "true with a condition"),
        (outcomes.count("refuted"), "refuted"),
        (outcomes.count("undecided"), "undecided"),
    ]
    claims = f"{len(outcomes)} claim{'' if len(outcomes) == 1 else 's'}"
    line = f"{claims}: " + (
        ", ".join(f"{n} {word}" for n, word in counts if n) or "nothing to check"
    )
    if report.kind == "ledger":
        count = len(report.deviations)
        line += "; all as the ledger records" if not count else f"; {count} not as recorded"
    parts = [f"{report.seconds:.1f} s"]
    parts += [f"{k} {v}" if v else f"{k} not installed" for k, v in report.witnesses.items()]
    line += f" ({', '.join(parts)})"
    return line + ("; stopped early, what was done is kept" if report.interrupted else "")


def _finding_dict(finding: Finding, expected: str | None) -> dict[str, Any]:
    place, point = finding.place, finding.counterexample
    return {
        "place": {
            "file": place.file,
            "line": place.line,
            "end_line": place.end_line,
            "cell": place.cell or None,
            "text": place.text,
        },
        "verdict": finding.verdict.value,
        "outcome": OUTCOME[finding.verdict],
        "expected": expected,
        "card": finding.card,
        "reading": finding.reading,
        "detail": finding.detail,
        "explanation": finding.explanation,
        "equals_instead": finding.equals_instead,
        "repair": finding.repair,
        "repair_latex": finding.repair_latex,
        "unsafe_float": finding.unsafe_float,
        "counterexample": None
        if point is None
        else {
            "inputs": plain(point.inputs),
            "claimed": plain(point.claimed),
            "reference": plain(point.reference),
            "certificate": plain(point.certificate),
        },
        "coincidences": list(finding.coincidences),
        "witnesses": plain(finding.witnesses),
        "span": None if finding.span is None else list(finding.span),
    }


def plain(value: Any) -> Any:
    """Reduce a value to what strict JSON holds."""
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(v) for v in value]
    return str(value)
