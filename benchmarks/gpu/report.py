"""A run of the programme as a table against the targets, as a picture, and in the README."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Found = dict[str, Any]
MISSING = "not measured"
RULES = (
    "Both libraries in one process on one stream, the same shapes, types, weights and masks, "
    "arrays handed over by DLPack; results compared before anything is timed, and left out "
    "where they differ.",
    "float32 means exact float32 products on both sides (PyTorch's default), TF32 is a row of "
    "its own, bfloat16 is autocast over float32 weights on both sides.",
    "Kernels: GPU events around each call, caches emptied before it, both sides in turn; median "
    "and a 95 % interval. Training steps: two in a row between events, launches included, one "
    "library after the other with the other's memory pool freed. Compilation and warm-up apart.",
)
BEGIN, END = "<!-- gpu results: begin -->", "<!-- gpu results: end -->"


def rows(found: Found, stage: str, **wanted: Any) -> list[dict[str, Any]]:
    """Return the rows of a stage whose entries are these."""
    every = found["stages"].get(stage, {}).get("rows", [])
    return [r for r in every if all(r.get(key) == value for key, value in wanted.items())]


class Target:
    """A line of the table: what is asked for, and how to find it in a record."""

    def __init__(
        self, work: str, least: float | None, shown: str, values: Callable[[Found], list[float]]
    ) -> None:
        self.work, self.least, self.shown, self.values = work, least, shown, values

    def line(self, found: Found) -> tuple[str, str, str, str]:
        """Return work, target, measured and whether it is met: by the worst of the values."""
        values = self.values(found)
        target = "" if self.least is None else "≥ " + self.shown.format(self.least)
        if not values:
            return self.work, target, MISSING, ""
        ends = [self.shown.format(v) for v in (min(values), max(values))]
        met = "" if self.least is None else "yes" if min(values) >= self.least else "no"
        return self.work, target, " – ".join(dict.fromkeys(ends)), met


def _speed(stage: str, **wanted: Any) -> Callable[[Found], list[float]]:
    return lambda found: [1 / r["ratio"] for r in rows(found, stage, **wanted) if "ratio" in r]


def _share(pattern: str) -> Callable[[Found], list[float]]:
    def values(found: Found) -> list[float]:
        every = [r for r in rows(found, "kernels") if re.fullmatch(pattern, r["name"])]
        return [r["gbytes"] * 1e9 / _copy_rate(found) for r in every if _copy_rate(found)]

    return values


def _copy_rate(found: Found) -> float:
    measured = found["stages"].get("limits", {}).get("rates", {})
    return max((s["bytes"] for r in measured.values() for s in r.values()), default=0.0)


def _attention(direction: str, dtype: str) -> Callable[[Found], list[float]]:
    return _speed("attention", name=f"attention {direction}", dtype=dtype)


SPEED, SHARE = "{:.2f} × PyTorch's speed", "{:.0%} of the copy bandwidth"
TARGETS = (
    Target("GPT-2 124M step, bfloat16, PyTorch eager", 1.0, SPEED,
           _speed("training", dtype="bfloat16")),
    Target("the same in float32", 1.0, SPEED, _speed("training", dtype="float32")),
    Target("the same in TF32", None, SPEED, _speed("training", dtype="tf32")),
    Target("the same in bfloat16, torch.compile", None, SPEED, _speed("compiled")),
    Target("layer norm", 0.9, SHARE, _share(r"layer_norm \w+")),
    Target("cross-entropy", 0.9, SHARE, _share(r"cross_entropy \w+")),
    Target("GELU", 0.9, SHARE, _share(r"gelu(_tanh)? \w+")),
    Target("AdamW", 0.9, SHARE, _share("AdamW")),
    Target("softmax", None, SHARE, _share(r"softmax \w+")),
    Target("attention forward, bfloat16", 0.7, SPEED, _attention("forward", "bfloat16")),
    Target("attention backward, bfloat16", 0.7, SPEED, _attention("backward", "bfloat16")),
    Target("attention forward, float32", 0.7, SPEED, _attention("forward", "float32")),
    Target("attention backward, float32", 0.7, SPEED, _attention("backward", "float32")),
    Target("decoding a token, 124M", None, SPEED, _speed("decoding")),
)  # fmt: skip


def machine(found: Found) -> str:
    """Return the GPU, the driver and the versions in one line."""
    for stage in found["stages"].values():
        environment = stage.get("environment")
        if environment and environment.get("gpu"):
            gpu = environment["gpu"]
            parts = [
                gpu["name"], f"driver {gpu.get('driver_version', 'unknown')}",
                f"CuPy {gpu['cupy']}",
                f"PyTorch {environment['torch']}" if "torch" in environment else "no PyTorch",
                f"Python {environment['python']}", f"NumPy {environment['numpy']}",
                f"revision {found['revision']}",
            ]  # fmt: skip
            return ", ".join(parts)
    return f"no stage reached a GPU, revision {found['revision']}"


def table(lines: Iterable[Sequence[str]]) -> list[str]:
    """Return lines of a Markdown table; the first is its head."""
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return [head, re.sub("[^|]+", "---", head), *rest]


def summary(found: Found) -> list[str]:
    """Return what the targets ask, what was measured, and what became of each stage."""
    lines = [machine(found), "", *table([("work", "target", "measured", "met"), *targets(found)])]
    lines += ["", *(f"- {rule}" for rule in RULES), ""]
    for name, stage in found["stages"].items():
        tests = stage.get("tests", {}).get("counts")
        said = [f"{n} {what}" for what, n in tests.items()] if tests else []
        if clock := stage.get("clock"):
            said.append(f"SM clock {clock} at its end")
        more = f" ({', '.join(said)})" if said else ""
        lines.append(f"- Stage `{name}`: {stage['status']}{more}.")
        lines += [f"  - left out: {line}" for line in stage.get("left out", ())]
    return lines


def targets(found: Found) -> list[tuple[str, str, str, str]]:
    """Return the lines of the table."""
    return [target.line(found) for target in TARGETS]


def details(found: Found) -> list[str]:
    """Return tokens per second, memory and profile of the steps; attention by length; sizes."""
    lines = []
    steps = [
        (next(iter(rows(found, "profiles", dtype=r["dtype"])), {}) if not r["compiled"] else {}) | r
        for r in [*rows(found, "training"), *rows(found, "compiled")]
    ]
    if steps:
        head = ("training step", "tokens/s", "PyTorch", "peak memory", "PyTorch", "bound by",
                "where the time goes", "PyTorch")  # fmt: skip
        lines += table([head, *map(_step, steps)]) + [""]
    every = rows(found, "attention")
    if every:
        head = ("attention", "in", "TFLOP/s", "PyTorch")
        said = [(f"{r['name'].split()[1]}, {r['size']}", r["dtype"], *_teraflops(r)) for r in every]
        lines += table([head, *said]) + [""]
    first = found["stages"].get("crossover", {}).get("wins", {})
    if first:
        head = ("rows from which on the GPU wins", "arrays already there", "with both transfers")
        said = [
            (name, *(str(n) if n else "never" for n in entry.values()))
            for name, entry in first.items()
        ]
        lines += table([head, *said]) + [""]
    return lines


def _teraflops(r: dict[str, Any]) -> tuple[str, str]:
    ours = r["gflops"] / 1e3
    return f"{ours:.1f}", f"{ours * r['ratio']:.1f}" if "ratio" in r else ""


def _step(r: dict[str, Any]) -> tuple[str, ...]:
    from minitransformer.bench.profile import bound

    profiles = r.get("profiles", {})
    seen = profiles.get("ours")
    gib = [f"{r[k] / 2**30:.1f} GiB" if r.get(k) else "" for k in ("ours peak", "theirs peak")]
    return (
        r["dtype"] + (", torch.compile" if r["compiled"] else ""),
        f"{r['tokens_per_second']:,.0f}",
        f"{r['their_tokens_per_second']:,.0f}" if "their_tokens_per_second" in r else "",
        *gib,
        bound(seen, r["median"]) if seen else r.get("bound", ""),
        *(_groups(profiles.get(side)) for side in ("ours", "theirs")),
    )


def _groups(profile: dict[str, Any] | None) -> str:
    longest = list(profile["groups"].items())[:5] if profile else []
    return ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in longest)


def block(records: Sequence[Found], detailed: bool, picture: str) -> str:
    """Return what the README says of GPU runs."""
    if not records:
        return "Not measured on a GPU yet."
    lines = []
    for found in records:
        lines += [*summary(found), ""] if detailed else [
            machine(found), "", *table([("work", "target", "measured", "met"), *targets(found)]), ""
        ]  # fmt: skip
        lines += details(found) if detailed else []
    return "\n".join([*lines, f"![Results on a GPU]({picture})"])


def rewrite(page: Path, text: str) -> None:
    """Put `text` between the marks of a page."""
    before, mark, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{page} has no place for results: {BEGIN} … {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def draw(records: Sequence[Found], path: Path) -> None:
    """Draw training, kernels, attention and crossover of the last record, as far as there are."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "minitransformer"  # the same picture, the same bytes
    from matplotlib import pyplot

    found = records[-1]
    panels = (_draw_training, _draw_kernels, _draw_attention, _draw_crossover)
    figure, grid = pyplot.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for panel, axes in zip(panels, grid.flat):
        panel(found, axes)
        axes.tick_params(labelsize=7)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=6)
    figure.suptitle(machine(found), fontsize=7)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _draw_training(found: Found, axes: Any) -> None:
    steps = [*rows(found, "training"), *rows(found, "compiled")]
    for i, r in enumerate(steps):
        label = r["dtype"] + (", torch.compile" if r["compiled"] else "")
        ours, theirs = r["tokens_per_second"], r.get("their_tokens_per_second", 0.0)
        axes.bar(i - 0.2, ours / 1e3, 0.4, color="C0", label=None if i else "minitransformer")
        axes.bar(i + 0.2, theirs / 1e3, 0.4, color="C1", label=None if i else "PyTorch")
        axes.annotate(label, (i, 0), (0, -12), textcoords="offset points", ha="center", size=6)
    axes.set_xticks([])
    axes.set_title("GPT-2 124M training step, thousand tokens/s", size=8)


def _draw_kernels(found: Found, axes: Any) -> None:
    every = [r for r in rows(found, "kernels") if r.get("bound") != "compute" and "gbytes" in r]
    limit = _copy_rate(found) / 1e9
    for i, r in enumerate(every if limit else []):
        axes.barh(i, r["gbytes"] / limit, color="C0" if r["dtype"] == "float32" else "C2")
        if "ratio" in r:
            axes.plot(r["gbytes"] * r["ratio"] / limit, i, "|", color="C1")
    axes.axvline(0.9, color="black", lw=0.6)
    axes.set_yticks(range(len(every)), [f"{r['name']}, {r['dtype']}" for r in every], size=5)
    axes.invert_yaxis()
    axes.set_title("share of the copy bandwidth (mark: PyTorch)", size=8)


def _draw_attention(found: Found, axes: Any) -> None:
    every = rows(found, "attention")
    curves = sorted({(r["name"], r["dtype"], _size(r, "E")) for r in every})
    for i, (name, dtype, E) in enumerate(curves):
        some = [r for r in every if (r["name"], r["dtype"], _size(r, "E")) == (name, dtype, E)]
        some.sort(key=lambda r: _size(r, "T"))
        T, ours = [_size(r, "T") for r in some], [r["gflops"] / 1e3 for r in some]
        axes.plot(T, ours, "-o", ms=3, color=f"C{i}", label=f"{name.split()[1]} {dtype} E{E}")
        theirs = [t * r["ratio"] if "ratio" in r else None for t, r in zip(ours, some)]
        if None not in theirs:
            axes.plot(T, theirs, ":", color=f"C{i}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_title("attention, TFLOP/s by length (dotted: PyTorch)", size=8)


def _size(r: dict[str, Any], letter: str) -> int:
    seen = re.search(rf"\b{letter}(\d+)", r["size"])
    assert seen, f"no {letter} in {r['size']!r}"
    return int(seen[1])


def _draw_crossover(found: Found, axes: Any) -> None:
    every = [r for r in rows(found, "crossover") if r["name"].endswith(" gpu")]
    for name in dict.fromkeys(r["name"] for r in every):
        some = [(r["n"], 1 / r["ratio"]) for r in every if r["name"] == name]
        axes.plot(*zip(*some), "-o", ms=3, label=name.split()[0])
    axes.axhline(1.0, color="black", lw=0.6)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_title("speed of the GPU over the CPU, launches included, by rows", size=8)
