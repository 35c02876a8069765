"""Plant each mistake, run the tests of its kernel, and say which survive.

Most mistakes fall at the first drawn problem, in memory. One that outlives those is written into
a copy of the package, where the rest of the kernels' tests (lengths, masks, NaN, extremes,
threads, refusals) run on it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

from tests.kernels.cases import CASES, Problem
from tests.kernels.check import Pair, check
from tests.mutation.mutants import KERNELS, Mutant, mutants_of

ROOT = KERNELS.parent.parent
PROBLEMS = 25  # per kernel and dtype
SECONDS = 20  # before a mistake counts as one that never ends
MODULES = sorted(m.name for m in pkgutil.iter_modules([str(KERNELS)]) if not m.ispkg)


@functools.cache
def problems_of(kernel: str) -> tuple[Problem, ...]:
    """The problems that a kernel is tried on, the same in every run."""
    drawn: list[Problem] = []

    @settings(
        max_examples=PROBLEMS,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(CASES[kernel].problems)
    def collect(problem: Problem) -> None:
        drawn.append(problem)

    collect()
    # The first ones are the smallest, on which a swapped axis or a lost sum does not show.
    return tuple(reversed(drawn))


class TakesForever(Exception):
    pass


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TakesForever

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def kernels_of(mutant: Mutant) -> list[str]:
    """What to run: the kernel whose function it is in, or all of the module's for a helper."""
    own = [name for name, case in CASES.items() if case.module == mutant.module]
    if mutant.kernel in own:
        relatives = {"var": ["std"], "amax": ["amin"], "max": ["min"]}.get(mutant.kernel, [])
        return [mutant.kernel, *relatives]
    return own


def killer_in_memory(mutant: Mutant) -> str | None:
    """What stops the mistake on drawn problems; None if nothing does."""
    try:
        module = mutant.load()
    except Exception as error:
        return f"import: {type(error).__name__}"
    for kernel in kernels_of(mutant):
        pair = Pair(getattr(module, f"{kernel}_forward"), getattr(module, f"{kernel}_backward"))
        for problem in problems_of(kernel):
            for dtype in (np.float64, np.float32):
                try:
                    with time_limit(SECONDS), warnings.catch_warnings():
                        warnings.simplefilter("error")
                        check(CASES[kernel], problem, dtype, pair)
                except TakesForever:
                    return f"{kernel}: no end"
                except Exception as error:
                    return f"{kernel}: {type(error).__name__}"
    return None


def killer_in_a_copy(mutant: Mutant) -> str | None:
    """What of the kernels' other tests stops the mistake; None if it survives."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "verify", "models", "bench")
        shutil.copytree(ROOT / "minitransformer", copy / "minitransformer", ignore=ignore)
        (copy / "tests").mkdir()
        for name in ("__init__.py", "conftest.py", "tolerance.py"):
            shutil.copy(ROOT / "tests" / name, copy / "tests" / name)
        for name in ("kernels", "parity"):
            shutil.copytree(ROOT / "tests" / name, copy / "tests" / name, ignore=ignore)
        shutil.copy(ROOT / "setup.cfg", copy / "setup.cfg")
        target = copy / "minitransformer" / "kernels" / f"{mutant.module}.py"
        target.write_text(mutant.source(), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "--no-header",
        ]
        command += ["tests/kernels/test_regimes.py", "tests/parity/test_onnx.py"]
        try:
            run = subprocess.run(
                command,
                cwd=copy,
                env={**os.environ, "PYTHONPATH": str(copy)},
                capture_output=True,
                text=True,
                timeout=15 * SECONDS,
            )
        except subprocess.TimeoutExpired:
            return "regimes: no end"
    if run.returncode == 0:
        return None
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0].split("::")[-1] if failed else "regimes: crash"


def run(
    modules: Sequence[str] = MODULES,
    per_function: int | None = None,
    out: Any = sys.stdout,
    thorough: bool = True,
) -> list[Mutant]:
    """Print one line per mistake and return those that survive."""
    survivors: list[Mutant] = []
    total = 0
    for module in modules:
        mutants = mutants_of(module, per_function)
        total += len(mutants)
        for mutant in mutants:
            with contextlib.redirect_stderr(io.StringIO()):
                killer = killer_in_memory(mutant)
                if killer is None and thorough:
                    killer = killer_in_a_copy(mutant)
            if killer is None:
                survivors.append(mutant)
            verdict = "SURVIVES" if killer is None else "killed"
            print(
                f"{verdict:9}{module}.py:{mutant.line:<5}{mutant.function:28}"
                f"{mutant.change}   [{killer or ''}]",
                file=out,
                flush=True,
            )
    print(f"{total} mistakes planted, {total - len(survivors)} killed", file=out)
    return survivors
