"""Findings as SARIF 2.1.0, the format that code-review tools show beside the lines."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Any

from minitransformer._version import __version__
from minitransformer.verify.report import OUTCOME, Report, lines_of
from minitransformer.verify.verdict import Finding, Verdict

RULES: dict[Verdict, str] = {
    Verdict.EQUAL_PROVED: "The formula and the card reduce to the same tree.",
    Verdict.EQUAL_SUPPORTED: "The formula equals the card at every point tried.",
    Verdict.EQUAL_UP_TO: "The formula equals the card up to a named change.",
    Verdict.APPROXIMATES: "The formula is near the card, but not equal to it.",
    Verdict.COINCIDES_ONLY_WHEN: "The formula equals the card in special cases only.",
    Verdict.DIFFERENT_CERTIFIED: "The formula differs from the card, proved in ball arithmetic.",
    Verdict.DIFFERENT: "The formula differs from the card.",
    Verdict.ILL_TYPED: "Shapes inside the formula do not fit.",
    Verdict.WRONG_SHAPE: "The result has another shape than the card's.",
    Verdict.UNDER_SPECIFIED: "A symbol is not said to be anything.",
    Verdict.AMBIGUOUS: "The formula can be read in several ways that differ.",
    Verdict.CANNOT_PARSE: "The text is not a formula that the parser knows.",
    Verdict.NO_CARD: "There is no trusted formula to compare with.",
    Verdict.TRUE: "The claim is true.",
    Verdict.FALSE: "The claim is false.",
    Verdict.CONDITIONAL: "The claim is true under a condition that it does not state.",
    Verdict.IMPRECISE: "The claim is inexact.",
    Verdict.UNVERIFIABLE: "The claim cannot be checked from what is given.",
}
LEVEL = {"holds": "none", "qualified": "warning", "refuted": "error", "undecided": "note"}
KIND = {"holds": "pass", "qualified": "fail", "refuted": "fail", "undecided": "open"}


def to_sarif(report: Report) -> dict[str, Any]:
    """Return a report as a SARIF 2.1.0 log.

    Parameters
    ----------
    report : Report
        What `check`, `check_document` or the command line found.

    Returns
    -------
    dict
        One run with a rule per verdict and a result per finding; a claim that
        holds is a result of kind ``pass``.
    """
    verdicts = list(RULES)
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "minitransformer verify",
                        "version": __version__,
                        "rules": [_rule(verdict) for verdict in verdicts],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "invocations": [{"executionSuccessful": not report.interrupted}],
                "results": [_result(f, verdicts.index(f.verdict)) for f in report.findings],
            }
        ],
    }


def _rule(verdict: Verdict) -> dict[str, Any]:
    # The kind and the level of a result must agree: only a failure has a level.
    return {
        "id": verdict.value,
        "shortDescription": {"text": RULES[verdict]},
        "defaultConfiguration": {"level": LEVEL[OUTCOME[verdict]]},
    }


def _result(finding: Finding, index: int) -> dict[str, Any]:
    outcome, place = OUTCOME[finding.verdict], finding.place
    head = f"{finding.verdict.value}" + (f" {{{finding.detail}}}" if finding.detail else "")
    if finding.card:
        head += f" against {finding.card}"
    lines = [f"{label}: {text}" for label, text in lines_of(finding)]
    if finding.repair_latex:
        lines.append(f"repaired: {finding.repair_latex}")
    start = place.raw_line or max(1, place.line)
    region: dict[str, Any] = {"startLine": start, "snippet": {"text": place.text}}
    if place.end_line is not None and place.raw_line is None:
        region["endLine"] = place.end_line
    fingerprint = hashlib.sha256(f"{finding.verdict.value}\n{place.text}".encode()).hexdigest()
    path = PurePosixPath(place.file.replace("\\", "/"))
    return {
        "ruleId": finding.verdict.value,
        "ruleIndex": index,
        "kind": KIND[outcome],
        "level": LEVEL[outcome] if KIND[outcome] == "fail" else "none",
        "message": {"text": "\n".join([head, *lines])},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(path)},
                    "region": region,
                }
            }
        ],
        # Stable when lines move, so that a review does not show an old finding as new.
        "partialFingerprints": {"verdictAndFormula/v1": fingerprint[:32]},
    }


def _uri(path: PurePosixPath) -> str:
    from urllib.parse import quote

    return path.as_uri() if path.is_absolute() else quote(str(path))
