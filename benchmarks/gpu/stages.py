"""What is measured: one function a stage, each with sizes that a test may shrink."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from minitransformer.bench.limits import rates
from minitransformer.bench.measure import (
    time_crossover,
    time_decoding,
    time_kernel,
    time_optimizer,
    time_training,
    wins,
)
from minitransformer.bench.models import MODELS, Model
from minitransformer.bench.workloads import KERNELS, attention_workload, workloads

from .part import Part

GPT2 = MODELS["124M T1024"]
PRECISIONS = ("bfloat16", "float32", "tf32")
TABLE = ("layer_norm", "cross_entropy", "gelu", "softmax", "dropout", "embedding", "linear")


def limits(part: Part, size: int | None = None) -> None:
    """Copy bandwidth and product rates through both libraries."""
    part.run["rates"] = {}
    for dtype in PRECISIONS:

        def measure(dtype: str = dtype) -> Iterator[dict[str, Any]]:
            found = rates(dtype, device=part.device, torch=part.torch, size=size)
            part.run["rates"][dtype] = {side: r._asdict() for side, r in found.items()}
            return iter(())

        part.attempt(f"limits in {dtype}", measure)


def tests(part: Part) -> None:
    """Parity, repeats, synchronisation, memory: the tests that need a GPU."""
    run_pytest(part, ["tests/gpu", "-m", "gpu", "-k", "not sanitizer", "-n", "8"])


def sanitizer(part: Part) -> None:
    """Out-of-bounds accesses and races, by NVIDIA's checker."""
    if shutil.which("compute-sanitizer") is None:
        part.leave_out("everything: compute-sanitizer is not on the PATH")
        part.save()
    else:
        run_pytest(part, ["tests/gpu", "-m", "gpu", "-k", "sanitizer", "-n", "0"])


def run_pytest(part: Part, arguments: list[str]) -> None:
    """Run the tests and keep count of what pytest says line by line."""
    missing = [m for m in ("pytest", "xdist", "hypothesis") if not importlib.util.find_spec(m)]
    if missing:
        part.leave_out(f"the tests: {', '.join(missing)} not installed")
        part.save()
        return
    command = [sys.executable, "-m", "pytest", "-v", "--color=no", "-W", "default"]
    counts: Counter[str] = Counter()
    failed: list[str] = []
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            said = re.search(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b", line)
            if said and "::" in line and not line.startswith(("FAILED", "ERROR", "SKIPPED")):
                counts[said[1].lower()] += 1
                if said[1] in ("FAILED", "ERROR"):
                    failed += re.findall(r"\S+::\S+", line)[:1]
                part.run["tests"] = {"counts": dict(counts), "failed": failed}
                part.save()
    if process.returncode:
        raise SystemExit(f"pytest ended with status {process.returncode}: {dict(counts)}")


def training(part: Part, model: Model = GPT2, seconds: float = 4.0, profiled: bool = False) -> None:
    """A training step of GPT-2 124M in three precisions."""
    for dtype in PRECISIONS:
        part.attempt(
            f"training in {dtype}",
            lambda dtype=dtype: [
                time_training(
                    model, part.limit(dtype), part.torch, seconds, device=part.device,
                    dtype=dtype, checked=1 if profiled else 5, profiled=profiled,
                )
            ],
        )  # fmt: skip


def profiles(part: Part, model: Model = GPT2) -> None:
    """Where the time of those steps goes: apart, for a profiler may slow what comes after it."""
    training(part, model, 0.0, profiled=True)


def compiled(part: Part, model: Model = GPT2, seconds: float = 4.0) -> None:
    """The same step in bfloat16 against torch.compile."""
    if part.torch is not None:
        part.attempt(
            "training against torch.compile",
            lambda: [
                time_training(
                    model, part.limit("bfloat16"), part.torch, seconds, device=part.device,
                    dtype="bfloat16", checked=2, compiled=True,
                )
            ],
        )  # fmt: skip


def attention(
    part: Part, lengths: Sequence[int] = (1024, 4096, 16384, 512, 2048, 8192), width: int = 1024,
    heads: Sequence[int] = (64, 128), seconds: float = 0.3,
) -> None:  # fmt: skip
    """Causal attention of as many tokens at every length, forward and backward."""
    for dtype in ("bfloat16", "float32"):
        for T in lengths:
            for E in heads:
                B = max(1, max(lengths) // T)
                part.attempt(
                    f"attention in {dtype}, T {T}, E {E}",
                    lambda B=B, T=T, E=E, dtype=dtype: time_kernel(
                        attention_workload(B, width // E, T, E), part.limit(dtype), part.torch,
                        seconds, device=part.device, dtype=dtype,
                    ),
                )  # fmt: skip


def kernels(
    part: Part, model: Model = GPT2, seconds: float = 0.3, names: Sequence[str] = TABLE
) -> None:
    """The kernels at the sizes of a training step, and the optimiser over all weights."""
    part.attempt(
        "the optimizer",
        lambda: time_optimizer(
            model, part.limit("float32"), part.torch, seconds, device=part.device
        ),
    )
    for dtype in ("float32", "bfloat16"):
        for workload in workloads(list(names), [model]):
            part.attempt(
                f"{workload.kernel} in {dtype}",
                lambda workload=workload, dtype=dtype: time_kernel(
                    workload, part.limit(dtype), part.torch, seconds, device=part.device,
                    dtype=dtype,
                ),
            )  # fmt: skip


def decoding(
    part: Part, model: Model = GPT2, batches: Sequence[int] = (1, 8, 64), past: int = 512,
    seconds: float = 2.0,
) -> None:  # fmt: skip
    """One token a sequence behind a key-value cache."""
    for batch in batches:
        part.attempt(
            f"decoding, batch {batch}",
            lambda batch=batch: [
                time_decoding(
                    model, batch, past, part.limit("float32"), part.torch, seconds,
                    device=part.device,
                )
            ],
        )  # fmt: skip


def crossover(
    part: Part, largest: int = 2048, seconds: float = 0.1, names: Sequence[str] = tuple(KERNELS)
) -> None:
    """From which size on the GPU is faster than this machine's CPU."""
    found = []

    def measure() -> Iterator[dict[str, Any]]:
        for step in time_crossover(largest, seconds, part.device, names):
            found.append(step)
            part.run["wins"] = wins(found)
            yield from step[2]
            if part.seconds_left() <= 0:
                raise TimeoutError("the time of this stage was over")

    part.attempt("the rest of the sizes", measure)


class Stage(NamedTuple):
    """A stage, and the seconds that it may take."""

    run: Callable[[Part], None]
    seconds: float


# What matters most comes first: a short budget cuts the end.
STAGES = {
    "limits": Stage(limits, 40),
    "tests": Stage(tests, 110),
    "training": Stage(training, 100),
    "attention": Stage(attention, 75),
    "kernels": Stage(kernels, 75),
    "decoding": Stage(decoding, 30),
    "crossover": Stage(crossover, 40),
    "profiles": Stage(profiles, 60),
    "sanitizer": Stage(sanitizer, 60),
    "compiled": Stage(compiled, 90),
}
