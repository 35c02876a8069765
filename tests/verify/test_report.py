"""Reports: every verdict in every format, the JSON against its stated schema."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from minitransformer.verify.checking import check
from minitransformer.verify.html import to_html
from minitransformer.verify.report import OUTCOME, SCHEMA, Report, difference, show
from minitransformer.verify.sarif import RULES, to_sarif
from minitransformer.verify.verdict import Counterexample, Finding, Place, Verdict
from minitransformer.verify.worked import work

WRONG = r"\mathrm{softmax}\left(\frac{QK^T}{d_k}\right)V"
POINT = Counterexample(
    {"Q": [["0", "1/2"]], "mask": [["-inf", "0"]]},
    [[math.nan]],
    [[0.25]],
    {"seed": 1, "bits": 200, "disjoint": True, "claimed_ball": "[1]", "reference_ball": "[2]"},
)
SPECIAL = 'a <b> & "c" ]]> \x07 \\frac{1}{2} 变换器 𝟙'


def finding(verdict: Verdict, text: str = WRONG, **fields: Any) -> Finding:
    return Finding(Place("papers/my paper.md", 7, text, 9), verdict, **fields)


def everything() -> Report:
    rows = [finding(v, explanation=SPECIAL, detail="x") for v in Verdict]
    rows.append(
        finding(
            Verdict.DIFFERENT,
            SPECIAL,
            card="attention",
            reading=SPECIAL,
            equals_instead="half",
            repair="√d_k for d_k",
            repair_latex=r"\frac{QK^T}{\sqrt{d_k}}",
            counterexample=POINT,
            coincidences=("d_k = 1", "V = 0"),
            unsafe_float="overflows at 88.7 in float32",
            witnesses={"torch": math.inf, "diverges_at": (0, 3)},
            span=(2, 5),
        )
    )
    return Report("papers/my paper.md", "document", tuple(rows), 1.5, witnesses={"PyTorch": None})


def validate(value: Any, schema: dict[str, Any], path: str = "$") -> None:
    """Check a value against the parts of JSON Schema that `SCHEMA` uses."""
    kinds = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
        "integer": int, "number": (int, float),
    }  # fmt: skip
    if "const" in schema:
        assert value == schema["const"], path
    if "enum" in schema:
        assert value in schema["enum"], f"{path}: {value!r}"
    if "type" in schema:
        allowed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert any(
            isinstance(value, kinds[k]) and (k == "boolean" or not isinstance(value, bool))
            for k in allowed
        ), f"{path}: {value!r} is no {allowed}"
    if "minimum" in schema:
        assert value >= schema["minimum"], path
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema["required"]) <= set(value), path
        extra = set(value) - set(schema["properties"])
        assert not extra or schema.get("additionalProperties", True), f"{path}: {extra}"
        for key, part in schema["properties"].items():
            validate(value[key], part, f"{path}.{key}")
    if isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
        for key, part in value.items():
            validate(part, schema["additionalProperties"], f"{path}.{key}")
    if isinstance(value, list) and "items" in schema:
        for i, part in enumerate(value):
            validate(part, schema["items"], f"{path}[{i}]")


def test_the_validator_can_fail() -> None:
    good = everything().to_dict()
    for damage in (
        lambda d: d.pop("source"),
        lambda d: d.update(extra=1),
        lambda d: d.update(status=3),
        lambda d: d["findings"][0].update(verdict="EQUALISH"),
        lambda d: d["summary"].update(claims=-1),
        lambda d: d["findings"][0]["place"].update(line="7"),
        lambda d: d.update(interrupted=0),
    ):
        document = json.loads(json.dumps(good))
        damage(document)
        with pytest.raises((AssertionError, KeyError)):
            validate(document, SCHEMA)


def test_json_fits_its_schema() -> None:
    text = everything().to_json()
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    validate(document, SCHEMA)
    point = document["findings"][-1]["counterexample"]
    assert point["claimed"] == [["nan"]] and point["inputs"]["Q"] == [["0", "1/2"]]
    assert document["findings"][-1]["witnesses"]["torch"] == "inf"
    assert document["summary"]["claims"] == len(Verdict) + 1


def test_json_of_a_real_finding_fits_too() -> None:
    for report in (check(WRONG, "attention"), check("softmax(", "attention")):
        validate(json.loads(report.to_json()), SCHEMA)


def test_every_verdict_has_an_outcome_a_rule_and_a_place_in_the_text() -> None:
    assert set(OUTCOME) == set(Verdict) == set(RULES)
    text = everything().to_text()
    for verdict in Verdict:
        assert verdict.value in text


@pytest.mark.parametrize(
    ("kind", "verdicts", "status"),
    [
        ("document", [Verdict.EQUAL_PROVED, Verdict.NO_CARD], 0),
        ("document", [Verdict.TRUE, Verdict.FALSE], 1),
        ("document", [Verdict.CONDITIONAL, Verdict.UNVERIFIABLE], 0),
        ("document", [], 0),
        ("formula", [Verdict.EQUAL_SUPPORTED], 0),
        ("formula", [Verdict.EQUAL_UP_TO], 0),
        ("formula", [Verdict.DIFFERENT], 1),
        ("formula", [Verdict.ILL_TYPED], 1),
        ("formula", [Verdict.COINCIDES_ONLY_WHEN], 1),
        ("formula", [Verdict.APPROXIMATES], 1),
        ("formula", [Verdict.CANNOT_PARSE], 2),
        ("formula", [Verdict.NO_CARD], 2),
        ("formula", [Verdict.AMBIGUOUS], 2),
        ("formula", [Verdict.UNDER_SPECIFIED], 2),
        ("function", [Verdict.EQUAL_SUPPORTED], 0),
        ("function", [Verdict.DIFFERENT_CERTIFIED], 1),
        ("function", [Verdict.UNVERIFIABLE], 2),
    ],
)
def test_exit_status(kind: str, verdicts: list[Verdict], status: int) -> None:
    assert Report("x", kind, tuple(finding(v) for v in verdicts)).status == status


def test_ledger_status_is_about_deviations() -> None:
    rows = (finding(Verdict.DIFFERENT), finding(Verdict.EQUAL_PROVED))
    same = Report("l", "ledger", rows, expected=("DIFFERENT", "EQUAL-PROVED"))
    other = Report("l", "ledger", rows, expected=("DIFFERENT", "DIFFERENT"))
    assert (same.status, other.status) == (0, 1)
    assert other.deviations == (1,)
    assert "all as the ledger records" in same.summary()
    assert "1 not as recorded" in other.summary()


def test_text_for_a_pipe_is_plain_and_for_a_terminal_coloured() -> None:
    report = everything()
    plain, coloured = report.to_text(), report.to_text(colour=True, width=90)
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in coloured.splitlines()) <= 90
    assert repr(report) == plain
    assert plain.splitlines()[-1] == report.summary()


def test_text_of_a_wrong_attention() -> None:
    text = check(WRONG, "attention").to_text()
    for part in (
        "✗ DIFFERENT-CERTIFIED",
        "against attention",
        "instead   attention with scale 1/d_k",
        "agrees if",
        "disjoint balls",
        "+ ",
        r"\sqrt{d_{k}}",
        "1 claim: 1 refuted",
    ):
        assert part in text


def test_difference_is_by_token() -> None:
    parts = list(difference(r"\frac{QK^T}{d_k}V", r"\frac{QK^T}{\sqrt{d_k}}V"))
    assert "".join(old for _, old, _ in parts) == r"\frac{QK^T}{d_k}V"
    assert "".join(new for _, _, new in parts) == r"\frac{QK^T}{\sqrt{d_k}}V"
    assert [(old, new) for sign, old, new in parts if sign == "-"] == [("", r"\sqrt{"), ("", "}")]


def test_show() -> None:
    assert show([[1.0, -0.0], ["1/3", True]]) == "[[1, 0], [1/3, true]]"


def test_sarif_is_complete() -> None:
    log = to_sarif(everything())
    json.dumps(log, allow_nan=False)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [r["id"] for r in rules] == [v.value for v in RULES]
    assert len(run["results"]) == len(Verdict) + 1
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"none", "note", "warning", "error"}
        # SARIF 2.1.0, 3.27.9: only a failure has a level other than none.
        assert result["kind"] == "fail" or result["level"] == "none"
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert physical["artifactLocation"]["uri"] == "papers/my%20paper.md"
        assert physical["region"]["startLine"] == 7 and physical["region"]["endLine"] == 9
        assert result["message"]["text"].startswith(result["ruleId"])
    moved = everything()
    first = to_sarif(moved)["runs"][0]["results"][0]["partialFingerprints"]
    assert first == run["results"][0]["partialFingerprints"]


class Page(HTMLParser):
    """Counts tags and finds anything that would need a network or is left open."""

    VOID = frozenset({"meta", "br", "hr", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [str(v) for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def read(page: str) -> Page:
    parser = Page()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_html_page_is_whole_and_needs_nothing() -> None:
    page = read(to_html(everything()))
    assert page.tags.count("article") == len(Verdict) + 1
    assert all(link.startswith("#claim-") for link in page.links)
    assert "script" not in page.tags and "img" not in page.tags
    text = to_html(everything())
    assert "<b> &" not in text and "a &lt;b&gt; &amp;" in text
    assert "url(" not in text and "@import" not in text


def test_html_works_the_example_by_hand() -> None:
    report = check(WRONG, "attention")
    working = work(report.findings[0])
    assert working is not None
    names = [step.expr.value for step in working.claimed if step.expr.op == "call"]
    assert names == ["exp", "rowsum", "softmax"]
    assert len(working.reference) > len(working.claimed)  # it also takes a square root
    text = to_html(report)
    read(text)
    assert 'class="marked"' in text
    for part in ("as written", "disjoint balls", "<del>", "<ins>", "<msqrt>"):
        assert part in text or part == "<del>"


def test_a_working_never_leads_elsewhere() -> None:
    (row,) = check(WRONG, "attention").findings
    assert row.counterexample is not None
    moved = Counterexample(row.counterexample.inputs, [[9.0]], row.counterexample.reference)
    working = work(Finding(row.place, row.verdict, row.card, counterexample=moved))
    assert working is not None
    assert working.claimed == () and working.reference
