"""``python -m benchmarks gpu``: the whole programme, a stage of it, or the report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from . import report
from .programme import load, run

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = {ROOT / "README.md": False, ROOT / "benchmarks" / "README.md": True}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder (benchmarks/results)")
    parser.add_argument("--budget", type=float, default=9.5, help="minutes for everything (9.5)")
    parser.add_argument("--stages", metavar="A,B", help="some of them only")
    parser.add_argument("--resume", action="store_true", help="keep the stages that are done")
    parser.add_argument(
        "--report", nargs="+", type=Path, metavar="FILE",
        help="measure nothing: draw these runs and put them into the README",
    )  # fmt: skip
    parser.add_argument("--stage", help=argparse.SUPPRESS)  # what the programme starts
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.set_defaults(run=gpu)


def gpu(options: argparse.Namespace) -> int:
    """Run what is asked for; 2 if there is no GPU, 1 if a stage failed."""
    if options.report:
        return write_report([load(path) for path in options.report])
    missing = what_is_missing()
    if missing:
        print(f"python -m benchmarks gpu: {missing}", file=sys.stderr)
        return 2
    if options.stage:
        return run_stage(options.stage, options.part, 60 * options.budget)
    from .stages import STAGES

    names = options.stages.split(",") if options.stages else list(STAGES)
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        print(f"unknown stage {unknown[0]!r}; known: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    limits = {name: STAGES[name].seconds for name in names}
    found = run(limits, options.output, 60 * options.budget, resume=options.resume)
    print("\n".join(report.summary(found)))
    draw([found], options.output / "gpu.svg")
    failed = [s for s in found["stages"].values() if s["status"].startswith(("failed", "stopped"))]
    return 1 if failed else 0


def what_is_missing() -> str:
    """Return what keeps this machine from running the programme, or nothing."""
    from minitransformer.backend import is_cuda_available

    try:
        import cupy  # noqa: F401
    except ImportError:
        return "CuPy is not installed: pip install 'minitransformer[cuda12]' or '[cuda13]'"
    return "" if is_cuda_available() else "CuPy is installed, but finds no GPU here"


def run_stage(name: str, path: Path, seconds: float) -> int:
    """Run one stage in this process; its result goes to `path`."""
    from minitransformer.bench.devices import Cuda
    from minitransformer.bench.environment import record

    from .part import Part
    from .stages import STAGES

    part = Part(path, 0.9 * seconds, Cuda(), usable_torch(), known_limits(path.parent))
    STAGES[name].run(part)
    part.run["clock"] = (record()["gpu"] or {}).get("clocks.sm")
    part.save()
    print_rows(part.run)
    return 0


def usable_torch() -> Any:
    """Return PyTorch if it can use the GPU."""
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def known_limits(folder: Path) -> dict[str, Any]:
    """Return the rates that the first stage measured, by dtype: the better library's of each."""
    from minitransformer.bench.limits import Limits

    path = folder / "gpu.json"
    found = load(path) if path.exists() else {"stages": {}}
    return {
        dtype: Limits(*(max(s[key] for s in sides.values()) for key in ("flops", "bytes")))
        for dtype, sides in found["stages"].get("limits", {}).get("rates", {}).items()
    }


def print_rows(found: dict[str, Any]) -> None:
    """Print what a stage found."""
    from minitransformer.bench.report import print_table

    for dtype, sides in found.get("rates", {}).items():
        for side, rate in sides.items():
            flops, moved = rate["flops"] / 1e12, rate["bytes"] / 1e9
            print(f"{dtype} {side}: {flops:.1f} TFLOP/s, {moved:.0f} GB/s")
    print_table(found)


def write_report(records: list[dict[str, Any]]) -> int:
    """Draw the picture beside the results and rewrite both pages."""
    picture = RESULTS / "gpu.svg"
    draw(records, picture)
    for page, detailed in PAGES.items():
        place = picture.relative_to(page.parent).as_posix()
        report.rewrite(page, report.block(records, detailed, place))
        print(f"rewritten: {page.relative_to(ROOT)}")
    return 0


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Draw the picture, where matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("no picture: matplotlib is not installed (pip install 'minitransformer[plot]')")
        return
    report.draw(records, path)
    print(f"written to {path}")
