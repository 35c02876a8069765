"""The ledger: verdicts are computed, records only say which were expected."""

from __future__ import annotations

import pytest

from minitransformer.verify.ledger import RECORD, check_ledger, ledger_text, match_records
from minitransformer.verify.verdict import Finding, Place, Verdict


def finding(line: int, verdict: Verdict) -> Finding:
    return Finding(Place("ledger.md", line, "x"), verdict)


def test_records_are_matched_by_place() -> None:
    text = "one\n<!-- recorded: TRUE -->\n\ntwo\nthree\n<!-- recorded: FALSE, NO-CARD -->\n"
    found = (finding(4, Verdict.FALSE), finding(1, Verdict.TRUE), finding(5, Verdict.NO_CARD))
    rows = match_records(text, found)
    assert [(f.place.line, expected) for f, expected in rows] == [
        (1, "TRUE"),
        (4, "FALSE"),
        (5, "NO-CARD"),
    ]


def test_a_claim_that_vanishes_is_a_deviation() -> None:
    ((row, expected),) = match_records("<!-- recorded: FALSE -->", ())
    assert expected == "FALSE" and row.verdict is Verdict.NO_CARD
    assert "no claim was found" in row.explanation


@pytest.mark.parametrize("text", ["one\n<!-- recorded: TRUE -->\ntwo", "one\ntwo"])
def test_a_claim_without_a_record_is_a_deviation(text: str) -> None:
    rows = match_records(text, (finding(1, Verdict.TRUE), finding(3, Verdict.TRUE)))
    assert "nothing" in [expected for _, expected in rows]


def test_bundled_ledger_is_as_recorded() -> None:
    report = check_ledger()
    assert report.kind == "ledger"
    assert report.deviations == (), report
    assert report.status == 0
    records = [
        verdict
        for line in ledger_text().splitlines()
        if (match := RECORD.match(line))
        for verdict in match.group(1).split(",")
    ]
    assert len(report.findings) == len(records) >= 9


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        # Make the article's formula right, or a right one wrong: the record must not help.
        (r"\frac{scale}{\sqrt{d_k}} \cdot \mathrm{softmax}\left(\frac{QK^T}{d_k}\right) V",
         r"\mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right) V"),
        ("S = QK^T\n", "S = QK\n"),
        ("O = W V\n", "O = V W\n"),
    ],
)  # fmt: skip
def test_verdicts_are_computed_and_not_read_from_the_record(right: str, wrong: str) -> None:
    text = ledger_text()
    assert right in text
    report = check_ledger(text.replace(right, wrong))
    assert report.status == 1
    assert report.deviations
