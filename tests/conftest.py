"""Hypothesis profiles, the seeds, and the count of comparisons at the end of a run."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Generator

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

_COMMON = {
    "deadline": None,  # speed is never tested by time
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("ci", derandomize=True, max_examples=12, **_COMMON)
settings.register_profile("thorough", derandomize=False, max_examples=200, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Every test starts from the same random numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from the global generator


@pytest.fixture
def count() -> Counter:
    """Counter whose entries the terminal summary adds up and prints."""
    return Counter()


@pytest.fixture
def listing() -> dict[str, list[str]]:
    """Lists of lines, by title, that the terminal summary prints."""
    return {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator:
    """Send what a test counted and listed along with its report, which may cross processes."""
    report = yield
    if call.when == "call":
        for name in ("count", "listing"):
            found = getattr(item, "funcargs", {}).get(name)
            # A parametrized argument may have the same name.
            if found and isinstance(found, dict):
                report.user_properties.append((name, dict(found)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter = Counter()
    lists: dict[str, list[str]] = {}
    for report in terminalreporter.getreports("passed"):
        for name, found in report.user_properties:
            if name == "count":
                counts.update(found)
            elif name == "listing":
                for title, lines in found.items():
                    lists.setdefault(title, []).extend(lines)
    if counts:
        terminalreporter.section("comparisons with other implementations")
        for what, number in sorted(counts.items()):
            terminalreporter.write_line(f"{number:7d}  {what}")
    for title, lines in lists.items():
        terminalreporter.section(title)
        for line in sorted(lines):
            terminalreporter.write_line(line)
    # record_property("summary", line) reaches this process from pytest-xdist's workers too.
    said = [
        str(line)
        for report in terminalreporter.getreports("passed")
        for name, line in report.user_properties
        if name == "summary"
    ]
    if said:
        terminalreporter.section("summaries")
        for line in said:
            terminalreporter.write_line(line)
