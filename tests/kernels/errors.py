"""Table of the largest error of every kernel in units of the tolerance rule.

    python -m tests.kernels.errors [examples]

1.0 is the most that the rule allows, forward and backward; PyTorch's own float32 error is
measured against the same float64 truth on the same inputs.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import numpy as np
from hypothesis import HealthCheck, given, settings

from tests.kernels.cases import CASES, Case, Problem
from tests.kernels.check import check

COLUMNS = (
    "forward float32",
    "forward float64",
    "backward float32",
    "backward float64",
    "torch forward",
    "torch backward",
)


def errors_of(case: Case, examples: int) -> dict[str, float]:
    """Largest error of one kernel over `examples` drawn problems."""
    largest: dict[str, float] = defaultdict(float)

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case.problems)
    def measure(problem: Problem) -> None:
        for dtype in (np.float32, np.float64):
            for what, units in check(case, problem, dtype).items():
                column = what if what.startswith("torch") else f"{what} {dtype.__name__}"
                largest[column] = max(largest[column], units)

    measure()
    return largest


def main(examples: int = 40) -> int:
    print(f"largest error in units of the rule, {examples} problems per kernel")
    print(f"{'kernel':20}" + "".join(f"{column:>18}" for column in COLUMNS))
    for name, case in CASES.items():
        largest = errors_of(case, examples)
        print(f"{name:20}" + "".join(f"{largest[column]:18.3f}" for column in COLUMNS), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
