"""``python -m benchmarks``: train, kernels, generate, gpu, plot; into benchmarks/results/."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from minitransformer.backend import set_num_threads
from minitransformer.bench.environment import record
from minitransformer.bench.limits import measure_limits
from minitransformer.bench.models import MODELS, find_models, our_model
from minitransformer.bench.report import document, load, print_table, row
from minitransformer.bench.timing import interleave

from .frameworks import FRAMEWORKS
from .gpu import command as gpu

RESULTS = Path(__file__).parent / "results"


def train(options: argparse.Namespace) -> int:
    """Time one training step in every framework, in turn, in this process."""
    if options.threads:
        set_num_threads(options.threads)
    [model] = find_models([options.model], "cpu")
    network = our_model(model)
    wanted = options.frameworks.split(",") if options.frameworks else list(FRAMEWORKS)
    steps, left_out, first = {}, [], {}
    unknown = [name for name in wanted if name not in FRAMEWORKS]
    if unknown:
        raise SystemExit(f"unknown framework {unknown[0]!r}; known: {', '.join(FRAMEWORKS)}")
    for stage in ("build", "first step"):  # all copy the weights before any changes them
        for name in wanted if stage == "build" else list(steps):
            try:
                if stage == "build":
                    steps[name] = FRAMEWORKS[name](model, network)
                else:
                    first[name] = float(steps[name]())
            except Exception as error:  # another framework's fault must not end the run
                steps.pop(name, None)
                line = (str(error).splitlines() or [""])[0][:120]
                left_out.append(f"{name}: {type(error).__name__}: {line}")
    reference = first.get("minitransformer", next(iter(first.values())))
    for name, loss in first.items():
        if abs(loss - reference) > 2e-3 * abs(reference):
            left_out.append(f"{name}: its first loss is {loss:.4f}, not {reference:.4f}")
            del steps[name]
    samples = interleave(steps, seconds=options.seconds, rounds=(3, 60), warmup=1)
    limits = measure_limits()
    best = min(
        (samples[n] for n in ("PyTorch eager", "torch.compile") if n in samples),
        key=lambda s: s.median, default=None,
    )  # fmt: skip
    rows = [
        row(
            name, model.name, sample, flops=model.step_flops(), limits=limits, against=best,
            first_loss=first[name],
        )
        for name, sample in samples.items()
    ]  # fmt: skip
    run = document("train", _environment(), limits, rows, left_out)
    _save(run, f"train-{model.name}")
    return 0


def _environment() -> dict[str, Any]:
    found = record(sys.modules.get("torch"))
    for name in ("jax", "autograd", "tinygrad"):
        if name in sys.modules:
            found[name] = _version(name)
    return found


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _save(run: dict[str, Any], name: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(run, indent=1) + "\n")
    print_table(run)
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def bench(options: argparse.Namespace) -> int:
    """Run a ``minitransformer bench`` command against PyTorch and keep its result."""
    from minitransformer.cli import main

    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"{options.kind}.json"
    arguments = ["bench", options.kind, "--against", "torch", "--json", str(out)]
    return main([*arguments, "--seconds", str(options.seconds)])


def plot(options: argparse.Namespace) -> int:
    """Draw the results of `train` as one picture: time of a step relative to PyTorch's best."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs = [load(path) for name in MODELS if (path := RESULTS / f"train-{name}.json").exists()]
    if not runs:
        raise SystemExit(f"no results in {RESULTS}: run `python -m benchmarks train` first")
    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    names = [n for n in FRAMEWORKS if any(r["name"] == n for run in runs for r in run["rows"])]
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        for j, run in enumerate(runs):
            for r in run["rows"]:
                if r["name"] == name:
                    scale = r["ratio"] / r["median"]
                    spread = [
                        [(r["median"] - r["low"]) * scale],
                        [(r["high"] - r["median"]) * scale],
                    ]
                    place = j + (i - (len(names) - 1) / 2) * width
                    label = name if j == 0 else None
                    axes.bar(place, r["ratio"], width, yerr=spread, color=f"C{i}", label=label)
                    axes.text(
                        place, r["ratio"], f"{r['ratio']:.2f}", ha="center", va="bottom", size=6
                    )
    axes.axhline(1.0, color="black", lw=0.6)
    axes.set_yscale("log")
    axes.set_xticks(range(len(runs)), [f"GPT {run['rows'][0]['size']}" for run in runs])
    axes.set_ylabel("time of a training step\n(PyTorch's best = 1)")
    machine = runs[0]["environment"]
    axes.set_title(f"{machine['cpu']}, {machine['threads']} threads", size=8)
    axes.legend(fontsize=7, ncols=3)
    figure.savefig(options.out)
    print(f"written to {options.out}")
    return 0


def main() -> int:
    """Read the arguments and run one command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="one training step in every framework")
    one.add_argument("--model", choices=list(MODELS), default="0.8M")
    one.add_argument("--frameworks", metavar="A,B", help=", ".join(FRAMEWORKS))
    one.add_argument("--threads", type=int)
    one.add_argument("--seconds", type=float, default=20.0)
    one.set_defaults(run=train)
    for kind, text in (("kernels", "every kernel"), ("generate", "decoding with a cache")):
        some = commands.add_parser(kind, help=f"{text} against PyTorch")
        some.add_argument("--seconds", type=float, default=0.5)
        some.set_defaults(run=bench, kind=kind)
    gpu.add_arguments(commands.add_parser("gpu", help="everything on a GPU, in ten minutes"))
    picture = commands.add_parser("plot", help="draw the training results")
    picture.add_argument("--out", default=str(RESULTS / "train.svg"))
    picture.set_defaults(run=plot)
    options = parser.parse_args()
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
