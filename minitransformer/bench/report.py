"""Rows of measurements as a table, as JSON, as a picture, and against an earlier run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from .environment import summary
from .limits import Limits
from .timing import Sample

SCHEMA = "minitransformer-bench/1"


def row(
    name: str, size: str, sample: Sample, *, flops: float = 0.0, moved: float = 0.0,
    limits: Limits | None = None, against: Sample | None = None, launching: float = 0.0,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return one measurement as plain values.

    Parameters
    ----------
    name, size : str
        What was measured; together they identify the row in a comparison.
    sample : Sample
        Its times.
    flops, moved : float
        Operations and bytes it needs at least.
    limits : Limits, optional
        The machine's rates.
    against : Sample, optional
        The times of the other side.
    launching : float
        Seconds for which the host is busy before a device can begin.
    **more
        Further values to keep.
    """
    found: dict[str, Any] = {"name": name, "size": size, **sample._asdict(), **more}
    if flops:
        found["gflops"] = flops / sample.median / 1e9
    if moved:
        found["gbytes"] = moved / sample.median / 1e9
    if limits is not None and (flops or moved):
        found["bound"], found["share"] = limits.bound(flops, moved, sample.median, launching)
    if launching:
        found["launching"] = launching
    if against is not None:
        found["against"] = against._asdict()
        found["ratio"] = sample.median / against.median
    return found


def document(
    command: str, environment: dict[str, Any], limits: Limits | None, rows: list[dict[str, Any]],
    left_out: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Return a whole run as plain values, for JSON."""
    return {
        "schema": SCHEMA,
        "command": command,
        "environment": environment,
        "limits": None if limits is None else limits._asdict(),
        "rows": rows,
        "left out": list(left_out),
    }


def load(path: str | Path) -> dict[str, Any]:
    """Read a run that was written as JSON.

    Raises
    ------
    ValueError
        If the file is none.
    """
    try:
        found = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{path} is no benchmark run: its schema is not {SCHEMA!r}")
    return found


def regressions(
    old: dict[str, Any], new: dict[str, Any], threshold: float = 0.1
) -> list[tuple[str, float]]:
    """Return what became slower by more than `threshold`, worst first, with the factor.

    Rows that have a ratio to the other side in both runs are compared by it, because the
    other side was timed in the same minute; the rest by their medians.

    Examples
    --------
    >>> before = {"rows": [{"name": "softmax", "size": "N2", "median": 1.0}]}
    >>> after = {"rows": [{"name": "softmax", "size": "N2", "median": 1.5}]}
    >>> regressions(before, after)
    [('softmax N2', 1.5)]
    """
    known = {_identity(r): r for r in old["rows"]}
    found = []
    for r in new["rows"]:
        before = known.get(_identity(r))
        if before is None:
            continue
        key = "ratio" if "ratio" in r and "ratio" in before else "median"
        factor = r[key] / before[key]
        if factor > 1.0 + threshold:
            found.append((f"{r['name']} {r['size']}", factor))
    return sorted(found, key=lambda item: -item[1])


def _identity(r: dict[str, Any]) -> tuple[str, ...]:
    return r["name"], r["size"], r.get("dtype", "float32"), r.get("device", "cpu")


def _time(seconds: float) -> str:
    unit, scale = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    return f"{seconds * scale:.3g} {unit}"


def _cells(r: dict[str, Any], wants: Sequence[str]) -> list[str]:
    cells = [r["name"], r["size"], _time(r["median"]), f"{_time(r['low'])} - {_time(r['high'])}"]
    values = {
        "GFLOP/s": f"{r['gflops']:.4g}" if "gflops" in r else "",
        "GB/s": f"{r['gbytes']:.3g}" if "gbytes" in r else "",
        "peak MiB": f"{r['peak'] / 2**20:.1f}" if "peak" in r else "",
        "why": r.get("why", ""),
        "in": r.get("dtype", ""),
        "launches": _time(r["launching"]) if "launching" in r else "",
        "tokens/s": f"{r['tokens_per_second']:.4g}" if "tokens_per_second" in r else "",
        "of limit": f"{r['share']:.0%}" if "share" in r else "",
        "bound by": r.get("bound", ""),
        "against": _time(r["against"]["median"]) if "against" in r else "",
        "ratio": f"{r['ratio']:.2f}" if "ratio" in r else "",
    }
    return cells + [values[name] for name in wants]


def print_table(run: dict[str, Any], file: TextIO | None = None) -> None:
    """Print a run: as a table of `rich` on a terminal, in plain columns into a pipe."""
    out = file or sys.stdout
    rows = run["rows"]
    keys = {
        "GFLOP/s": "gflops", "GB/s": "gbytes", "peak MiB": "peak", "tokens/s": "tokens_per_second",
        "of limit": "share", "bound by": "bound", "against": "against", "ratio": "ratio",
        "why": "why", "in": "dtype", "launches": "launching",
    }  # fmt: skip
    wants = [name for name, key in keys.items() if any(key in r for r in rows)]
    if {r.get("dtype") for r in rows} <= {None, "float32"}:
        wants = [name for name in wants if name != "in"]
    header = ["what", "size", "median", "95 % of it", *wants]
    lines = [_cells(r, wants) for r in rows]
    print(summary(run["environment"]), file=out)
    if run["limits"]:
        flops, moved = run["limits"]["flops"] / 1e9, run["limits"]["bytes"] / 1e9
        print(f"limits measured here: {flops:.0f} GFLOP/s, {moved:.1f} GB/s", file=out)
    if out.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*header)
        for line in lines:
            table.add_row(*line)
        Console(file=out).print(table)
    else:
        widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
        for line in [header, *lines]:
            print("  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip(), file=out)
    ratios = [r["ratio"] for r in rows if "ratio" in r]
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"ratio: below 1 is faster than the other side; geometric mean {mean:.2f}", file=out)
    for line in run["left out"]:
        print(f"left out: {line}", file=out)


def plot(run: dict[str, Any], path: str | Path) -> None:
    """Draw a run as bars of the median with its interval, into an SVG, PNG or PDF file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = run["rows"]
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.3 * len(rows)), layout="constrained")
    for offset, key, label in ((0.0, None, "minitransformer"), (0.35, "against", "against")):
        sides = [(i, r if key is None else r.get(key)) for i, r in enumerate(rows)]
        sides = [(i, s) for i, s in sides if s]
        if sides:
            medians = [s["median"] * 1e3 for _, s in sides]
            spread = [
                [(s["median"] - s["low"]) * 1e3 for _, s in sides],
                [(s["high"] - s["median"]) * 1e3 for _, s in sides],
            ]
            places = [i + offset for i, _ in sides]
            axes.barh(places, medians, 0.33, xerr=spread, label=label, error_kw={"lw": 0.8})
    axes.set_yticks(range(len(rows)), [f"{r['name']} {r['size']}" for r in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms, median with a 95 % interval; " + summary(run["environment"]), fontsize=6)
    axes.legend(fontsize=7)
    figure.savefig(path)
    pyplot.close(figure)
