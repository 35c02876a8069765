"""The suite kills every planted mistake that changes a result."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.mutants import mutants_of, unchanged
from tests.mutation.runner import MODULES, ROOT


def test_every_kernel_module_has_mistakes_planted_both_ways() -> None:
    for module in MODULES:
        functions = Counter(m.function for m in mutants_of(module))
        forward = [f for f in functions if f.endswith("_forward")]
        backward = [f for f in functions if f.endswith("_backward")]
        assert forward or backward, module
    total = sum(len(mutants_of(module)) for module in MODULES)
    assert total > 500


def test_every_explanation_is_of_a_mistake_that_is_planted() -> None:
    names = {mutant.name for module in MODULES for mutant in mutants_of(module)}
    assert set(EQUIVALENT) <= names
    assert all(len(reason) > 10 for reason in EQUIVALENT.values())


def test_a_mistake_changes_the_source() -> None:
    for module in MODULES:
        before = unchanged(module).source()
        assert all(mutant.source() != before for mutant in mutants_of(module, per_function=1))


@pytest.mark.mutation
@pytest.mark.parametrize("module", MODULES)
def test_every_mistake_is_caught(module: str, count: Counter) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.mutation", module], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    planted, killed = map(int, re.findall(r"(\d+) mistakes planted, (\d+) killed", run.stdout)[0])
    count["mistakes planted in kernels"] += planted
    count["mistakes killed"] += killed
