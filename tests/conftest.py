"""Hypothesis profiles, the seeds, and the count of comparisons at the end of a run."""

from __future__ import annotations

import os
import random
from collections import Counter

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

COUNTS = pytest.StashKey[Counter]()
LISTS = pytest.StashKey[dict]()


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Every test starts from the same random numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from the global generator


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTS] = Counter()
    config.stash[LISTS] = {}


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Counter:
    """Counter whose entries the terminal summary prints."""
    return request.config.stash[COUNTS]


@pytest.fixture
def listing(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    """Lists of lines, by title, that the terminal summary prints."""
    return request.config.stash[LISTS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = terminalreporter.config.stash[COUNTS]
    if counts:
        terminalreporter.section("comparisons with other implementations")
        for what, number in sorted(counts.items()):
            terminalreporter.write_line(f"{number:7d}  {what}")
    for title, lines in terminalreporter.config.stash[LISTS].items():
        terminalreporter.section(title)
        for line in lines:
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
