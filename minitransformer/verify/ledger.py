"""The bundled ledger: one article's formulas, checked like any other document.

``ledger.md`` restates the formulas and records a verdict after each in a comment,
``<!-- recorded: DIFFERENT-CERTIFIED, EQUAL-PROVED -->``, one per finding. Verdicts
are always computed; the record only says which were expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files

from minitransformer.verify.report import Report
from minitransformer.verify.verdict import Finding, Place, Verdict

NAME = "ledger.md"
RECORD = re.compile(r"^<!-- recorded: (.*?) -->$")


def ledger_text() -> str:
    """Return the bundled document."""
    return files("minitransformer.verify").joinpath(NAME).read_text(encoding="utf-8")


def check_ledger(
    text: str | None = None, *, advance: Callable[[int, int], None] | None = None
) -> Report:
    """Check the ledger and compare each verdict with the recorded one.

    Parameters
    ----------
    text : str, optional
        Another ledger; the bundled one by default.
    advance : callable, optional
        Called with the numbers of claims done and to do.

    Returns
    -------
    Report
        Of kind ``ledger``: its status is 0 where every verdict is as recorded.
    """
    from minitransformer.verify.checking import check_document

    text = ledger_text() if text is None else text
    report = check_document(text, NAME, advance=advance)
    rows = match_records(text, report.findings)
    return replace(
        report,
        kind="ledger",
        findings=tuple(finding for finding, _ in rows),
        expected=tuple(expected for _, expected in rows),
    )


def match_records(text: str, findings: tuple[Finding, ...]) -> list[tuple[Finding, str | None]]:
    """Pair each finding with the verdict recorded for it.

    A record speaks of the findings between the record before it and itself. One with
    no finding left becomes a row of its own, so that a claim cannot vanish unseen; a
    finding without a record is shown and expected to be nothing.
    """
    rows: list[tuple[Finding, str | None]] = []
    waiting = sorted(findings, key=lambda f: f.place.line)
    for number, line in enumerate(text.splitlines(), start=1):
        record = RECORD.match(line.strip())
        if record is None:
            continue
        here = [f for f in waiting if f.place.line <= number]
        waiting = waiting[len(here) :]
        expected: list[str] = [v.strip() for v in record.group(1).split(",")]
        for i in range(max(len(here), len(expected))):
            verdict = expected[i] if i < len(expected) else None
            finding = here[i] if i < len(here) else _missing(number, str(verdict))
            rows.append((finding, verdict if verdict is not None else "nothing"))
    rows += [(finding, "nothing") for finding in waiting]
    return rows


def _missing(line: int, verdict: str) -> Finding:
    return Finding(
        Place(NAME, line, f"recorded: {verdict}"),
        Verdict.NO_CARD,
        explanation="the ledger records a verdict here, but no claim was found",
    )
