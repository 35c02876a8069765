"""Mistakes and conventions from public discussions, judged as a user would ask."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minitransformer.verify.checking import check
from minitransformer.verify.report import OUTCOME
from tests.verify.cases_public import ACQUIT, CONVICT, Case

CASES = [(case, True) for case in CONVICT] + [(case, False) for case in ACQUIT]
# Right forms that the tool does not recognise yet; wrong forms may never be here.
NOT_ACQUITTED: set[str] = set()


def judge(case: Case) -> str:
    """Return ``holds``, ``refuted``, ``qualified`` or ``undecided``."""
    report = check(case.formula, case.against)
    return OUTCOME[report.findings[0].verdict]


def test_enough_cases_each_with_its_place() -> None:
    assert len(CASES) >= 25
    for case, _ in CASES:
        repository, _, number = case.where.partition("#")
        assert repository.count("/") == 1 and number.isdigit(), case.where


@pytest.mark.parametrize(("case", "wrong"), CASES, ids=[f"{c.against}-{c.where}" for c, _ in CASES])
def test_no_wrong_formula_is_acquitted_and_no_right_one_convicted(case: Case, wrong: bool) -> None:
    outcome = judge(case)
    if wrong:
        assert outcome == "refuted"
    elif case.where in NOT_ACQUITTED:
        assert outcome != "refuted"
    else:
        assert outcome == "holds"


def test_precision_and_recall(record_property: Callable[[str, object], None]) -> None:
    outcomes = [(wrong, judge(case)) for case, wrong in CASES]
    convicted = [wrong for wrong, outcome in outcomes if outcome == "refuted"]
    precision = sum(convicted) / len(convicted)
    recall = sum(convicted) / len(CONVICT)
    acquitted = [wrong for wrong, outcome in outcomes if outcome == "holds"]
    record_property(
        "summary",
        f"public cases: {len(CONVICT)} wrong, {len(ACQUIT)} right; of the wrong "
        f"{sum(convicted)} convicted and {sum(acquitted)} acquitted; precision {precision:.1%}, "
        f"recall {recall:.1%}; of the right {len(acquitted) - sum(acquitted)} acquitted",
    )
    assert not any(acquitted), "a wrong formula was called equal"
    assert precision == 1.0
