"""``minitransformer bench``: kernels, train, generate, ladder, crossover."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .devices import DTYPES


def add_commands(subparsers: Any) -> None:
    """Add ``bench`` and what it measures.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Where the command goes; it sets ``run``, a function of the parsed arguments that
        returns the exit status.
    """
    parser = subparsers.add_parser(
        "bench",
        help="measure kernels, training, decoding",
        description="Interleaved timings with intervals, and the share of this machine's limits.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")

    kernels = _kind(kinds, "kernels", run_kernels, "every kernel, forward and backward")
    kernels.add_argument("--kernels", metavar="A,B", help="some of them only")
    _add_models(kernels)
    _add_dtype(kernels, DTYPES)

    train = _kind(kinds, "train", run_train, "training steps of three GPTs")
    _add_models(train)
    _add_dtype(train, ("float32", "tf32", "bfloat16"))
    train.add_argument("--compile", action="store_true", help="torch.compile the other side")

    generate = _kind(kinds, "generate", run_generate, "decoding with a key-value cache")
    _add_models(generate)
    generate.add_argument("--batch", default="1,8", metavar="N,M", help="batch sizes (1,8)")
    generate.add_argument("--past", type=int, default=32, metavar="N", help="cached tokens (32)")

    crossover = _kind(kinds, "crossover", run_crossover, "from which size on a GPU wins")
    crossover.add_argument("--largest", type=int, default=2048, metavar="N", help="(2048)")

    ladder = _kind(kinds, "ladder", run_ladder, "four kernels from loops to threaded tiles")
    ladder.add_argument("--kernels", metavar="A,B", help="some of them only")


def _kind(kinds: Any, name: str, run: Callable[..., int], text: str) -> Any:
    parser = kinds.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("--threads", type=int, metavar="N", help="(one per core)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="per row (1)")
    if name not in ("crossover", "ladder"):
        parser.add_argument("--backend", choices=("numpy", "cupy"), default="numpy")
        parser.add_argument("--against", choices=("torch",), help="time PyTorch beside it")
    parser.add_argument("--json", metavar="FILE", help="write the run; - for standard output")
    parser.add_argument("--compare", metavar="OLD.json", help="name what became slower")
    parser.add_argument(
        "--threshold", type=float, default=0.1, metavar="X", help="slower by this share (0.1)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the run, as .svg or .png")
    return parser


def _add_models(parser: argparse.ArgumentParser) -> None:
    text = "sizes: 0.8M, 10.8M, 124M (all) or 124M T1024 (on a GPU)"
    parser.add_argument("--models", metavar="A,B", help=text)


def _add_dtype(parser: argparse.ArgumentParser, choices: Sequence[str]) -> None:
    text = "of the numbers; tf32 is float32 with TF32 products, bfloat16 needs a GPU"
    parser.add_argument("--dtype", choices=choices, default="float32", help=text)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _prepare(options: argparse.Namespace) -> Any:
    """Set both sides to the same threads; return PyTorch if it is asked for."""
    from ..backend import get_num_threads, set_num_threads

    if getattr(options, "backend", "cupy") == "numpy" and getattr(options, "dtype", "") in (
        "tf32",
        "bfloat16",
    ):
        raise ValueError(f"--dtype {options.dtype} is of GPUs: add --backend cupy")
    if options.threads is not None:
        set_num_threads(options.threads)
    if getattr(options, "against", None) != "torch":
        return None
    try:
        import torch
    except ImportError:
        raise ValueError("--against torch needs PyTorch: pip install torch==2.13.0") from None
    torch.set_num_threads(get_num_threads())
    return torch


def _finish(options: argparse.Namespace, run: dict[str, Any]) -> int:
    """Print, write, draw and compare a run; 1 if something became slower."""
    from .report import load, plot, print_table, regressions

    old = load(options.compare) if options.compare else None
    if options.json == "-":
        json.dump(run, sys.stdout, indent=1)
        print()
    else:
        print_table(run)
        if options.json:
            Path(options.json).write_text(json.dumps(run, indent=1) + "\n")
    if options.plot:
        plot(run, options.plot)
    if old is None:
        return 0
    if old["environment"]["cpu"] != run["environment"]["cpu"]:
        print(f"note: {options.compare} was measured on {old['environment']['cpu']}")
    slower = regressions(old, run, options.threshold)
    for name, factor in slower:
        print(f"slower: {name} takes {factor:.2f} times as long as in {options.compare}")
    if not slower:
        print(f"nothing is slower than in {options.compare} by {options.threshold:.0%} or more")
    return 1 if slower else 0


def run_kernels(options: argparse.Namespace) -> int:
    """Time every kernel."""
    torch = _prepare(options)
    from .devices import find_device
    from .environment import record
    from .limits import measure_limits
    from .measure import time_kernel
    from .models import find_models
    from .report import document
    from .workloads import workloads

    device = find_device(options.backend)
    models = find_models(_names(options.models), device.name)
    work = workloads(_names(options.kernels), models)
    first = next(work)  # a wrong name is an error before anything is measured
    limits = measure_limits(options.dtype, device=device)
    rows = [
        found
        for workload in (first, *work)
        for found in time_kernel(
            workload, limits, torch, options.seconds, device=device, dtype=options.dtype
        )
    ]
    return _finish(options, document("kernels", record(torch), limits, rows, _left_out(options)))


def run_train(options: argparse.Namespace) -> int:
    """Time training steps."""
    torch = _prepare(options)
    from .devices import find_device
    from .environment import record
    from .limits import measure_limits
    from .measure import time_training
    from .models import find_models
    from .report import document

    if options.compile and torch is None:
        raise ValueError("--compile is about the other side: add --against torch")
    device = find_device(options.backend)
    models = find_models(_names(options.models), device.name)
    limits = measure_limits(options.dtype, device=device)
    rows = [
        time_training(
            model, limits, torch, options.seconds,
            compiled=options.compile, device=device, dtype=options.dtype,
        )
        for model in models
    ]  # fmt: skip
    return _finish(options, document("train", record(torch), limits, rows, _left_out(options)))


def run_generate(options: argparse.Namespace) -> int:
    """Time decoding."""
    torch = _prepare(options)
    from .devices import find_device
    from .environment import record
    from .limits import measure_limits
    from .measure import time_decoding
    from .models import find_models
    from .report import document

    device = find_device(options.backend)
    models = find_models(_names(options.models), device.name)
    batches = [int(n) for n in _names(options.batch) or ()]
    limits = measure_limits(device=device)
    rows = [
        time_decoding(model, batch, options.past, limits, torch, options.seconds, device=device)
        for model in models
        for batch in batches
    ]
    return _finish(options, document("generate", record(torch), limits, rows, _left_out(options)))


def run_ladder(options: argparse.Namespace) -> int:
    """Check and time the rungs of the kernel ladder."""
    _prepare(options)
    from ..backend import is_cuda_available
    from .devices import Cuda
    from .environment import record
    from .ladder import climb, ladders
    from .limits import measure_limits
    from .report import document, row

    known = ladders()
    names = _names(options.kernels) or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no ladder for {', '.join(unknown)}; there are {', '.join(known)}")
    limits = {("cpu", "float32"): measure_limits()}
    if is_cuda_available():
        limits |= {("cuda", t): measure_limits(t, device=Cuda()) for t in ("float32", "bfloat16")}
    rows = [
        row(
            f"{r.kernel}: {r.rung}", " ".join(f"{k}{v}" for k, v in r.size.items()), r.sample,
            flops=r.flops, moved=r.bytes, limits=limits[r.device, r.dtype], peak=r.peak_bytes,
            roundings=r.error, arrays=r.outputs, why=r.why, dtype=r.dtype,
        )
        for name in names
        for r in climb(known[name], seconds=options.seconds)
    ]  # fmt: skip
    return _finish(
        options, document("ladder", record(), limits["cpu", "float32"], rows, _left_out(options))
    )


def run_crossover(options: argparse.Namespace) -> int:
    """Time both backends over a range of sizes."""
    _prepare(options)
    from .environment import record
    from .measure import time_crossover, wins
    from .report import document

    found = list(time_crossover(options.largest, options.seconds))
    rows = [r for _, _, some in found for r in some]
    status = _finish(options, document("crossover", record(), None, rows, _left_out(options)))
    if options.json != "-":
        for kernel, first in wins(found).items():
            sizes = ", ".join(
                f"{kind}: from {n} on" if n else f"{kind}: never here" for kind, n in first.items()
            )
            print(f"the GPU wins at {kernel}, {sizes}")
    return status


def _left_out(options: argparse.Namespace) -> list[str]:
    from ..backend import is_cuda_available

    return [] if is_cuda_available() else ["the GPU: CuPy finds none here"]
