"""Plant each mistake, run the tests of its kernel, and say which survive.

Most mistakes fall at one of the first drawn problems. For one that outlives those, the rest of
the kernels' tests (lengths, masks, NaN, extremes, threads, refusals) runs on it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import pkgutil
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import minitransformer.kernels
from tests.kernels.cases import CASES, Problem
from tests.kernels.check import Expected, Pair, check, expect
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.mutants import KERNELS, Mutant, mutants_of, unchanged

ROOT = KERNELS.parent.parent
PROBLEMS = 25  # per kernel and dtype
SECONDS = 20  # before a mistake counts as one that never ends
# Which tests of `test_regimes.py` concern a module.
OTHER_TESTS = {
    "activation": "relu or gelu or silu or threads or nothing",
    "attention": "attention or masked or nan or causal or infin or threads or nothing",
    "cross_entropy": "cross_entropy",
    "dropout": "dropout",
    "elementwise": "elementwise or erf or extremes or number or powers or mask or cast or threads",
    "embedding": "embedding",
    "feed_forward": "feed_forward or threads or nothing",
    "layer_norm": "layer_norm or norms or threads or nothing",
    "linear": "linear or matmul or stacks or threads or nothing",
    "positional": "rotary or sinusoidal",
    "reduction": "extreme or logsumexp or norm or variance or nothing or threads",
    "rms_norm": "rms_norm or norms or threads or nothing",
    "shape": "embedding or nothing",
    "softmax": "softmax or threads or nothing",
}
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


@functools.cache
def expected(kernel: str, number: int, dtype: Any) -> Expected:
    return expect(CASES[kernel], problems_of(kernel)[number], dtype)


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
        if not {f"{kernel}_forward", f"{kernel}_backward"} <= set(vars(module)):
            return "no kernel"
        pair = Pair(getattr(module, f"{kernel}_forward"), getattr(module, f"{kernel}_backward"))
        for number, problem in enumerate(problems_of(kernel)):
            for dtype in (np.float32, np.float64):
                try:
                    with time_limit(SECONDS), warnings.catch_warnings():
                        warnings.simplefilter("error")
                        check(CASES[kernel], problem, dtype, pair, expected(kernel, number, dtype))
                except TakesForever:
                    return f"{kernel}: no end"
                except Exception as error:
                    return f"{kernel}: {type(error).__name__}"
    return None


def killer_in_the_other_tests(mutant: Mutant) -> str | None:
    """What of the kernels' other tests stops the mistake; None if it survives.

    The mistaken module stands in for the real one while pytest runs them.
    """
    name = f"minitransformer.kernels.{mutant.module}"
    real = importlib.import_module(name)
    failed: list[str] = []

    class Watch:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                failed.append(report.nodeid.split("::")[-1])

    arguments = [str(ROOT / "tests" / "kernels" / "test_regimes.py"), "-x"]
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    arguments += ["-o", "addopts=--import-mode=importlib"]  # no workers: the mistake is here
    arguments += [
        "-p",
        "no:cacheprovider",
        "-p",
        "no:terminal",
        "-p",
        "no:hypothesispytest",
        "-k",
        OTHER_TESTS[mutant.module],
    ]
    try:
        module = mutant.load()
        sys.modules[name] = module
        setattr(minitransformer.kernels, mutant.module, module)
        with contextlib.redirect_stdout(io.StringIO()), time_limit(15 * SECONDS):
            status = pytest.main(arguments, plugins=[Watch()])
    except TakesForever:
        return "no end"
    except Exception as error:
        return f"import: {type(error).__name__}"
    finally:
        sys.modules[name] = real
        setattr(minitransformer.kernels, mutant.module, real)
        sys.modules.pop("tests.kernels.test_regimes", None)
    return failed[0] if failed else None if status == pytest.ExitCode.OK else f"status {status}"


def killer_of(mutant: Mutant) -> str | None:
    with contextlib.redirect_stderr(io.StringIO()):
        return killer_in_memory(mutant) or killer_in_the_other_tests(mutant)


def run(
    modules: Sequence[str] = MODULES,
    per_function: int | None = None,
    out: Any = sys.stdout,
) -> list[Mutant]:
    """Print one line per mistake and return those that survive."""
    survivors: list[Mutant] = []
    total = 0
    for module in modules:
        mutants = mutants_of(module, per_function)
        alive = killer_of(unchanged(module))
        if alive is not None:
            raise AssertionError(f"{module} without a mistake is killed too: {alive}")
        total += len(mutants)
        for mutant in mutants:
            killer = killer_of(mutant)
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


def unexplained(survivors: Sequence[Mutant]) -> list[Mutant]:
    """Survivors that change a result, as far as anybody knows."""
    return [mutant for mutant in survivors if mutant.name not in EQUIVALENT]
