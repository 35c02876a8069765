"""Stages one after the other, each in a process of its own with a limit of its own.

After each stage ``gpu.json`` holds everything so far, so a stage that hangs, crashes or runs
out of time costs itself alone, and ``--resume`` goes on where a run was cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .part import write

SCHEMA = "minitransformer-gpu/1"
LEAST = 10.0  # seconds: with less left a stage is not begun
INTERRUPTED = "interrupted"
GRACE = 5.0  # seconds that a stage has to end once told to

Command = Callable[[str, Path, float], Sequence[str]]


def stage_command(name: str, part: Path, seconds: float) -> list[str]:
    """Return the command line that runs one stage of this programme."""
    return [
        sys.executable, "-m", "benchmarks", "gpu", "--stage", name,
        "--part", str(part), "--budget", str(seconds / 60),
    ]  # fmt: skip


def run(
    stages: Mapping[str, float], output: Path, budget: float, *,
    resume: bool = False, command: Command = stage_command,
) -> dict[str, Any]:  # fmt: skip
    """Run the stages, whose values are their limits in seconds, and return the record.

    `budget` is in seconds, for all of them together.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / "gpu.json"
    found: dict[str, Any] = {"schema": SCHEMA, "revision": _revision(), "stages": {}}
    if resume and path.exists():
        found = load(path)
    found["budget"] = budget
    end = time.monotonic() + budget
    for name, limit in stages.items():
        if found["stages"].get(name, {}).get("status") == "done":
            print(f"== {name}: kept from the earlier run", flush=True)
            continue
        left = end - time.monotonic()
        if left < min(LEAST, limit):
            status = f"skipped: {left:.0f} s of the budget were left"
            found["stages"][name] = {"status": status}
        else:
            seconds = min(limit, left)
            print(f"== {name}, at most {seconds:.0f} s", flush=True)
            found["stages"][name] = _stage(name, output, seconds, command)
        stage = found["stages"][name]
        print(f"== {name}: {stage['status']}", *stage.get("error", ()), sep="\n", flush=True)
        write(path, found)
        if stage["status"] == INTERRUPTED:
            raise KeyboardInterrupt
    return found


def load(path: Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises
    ------
    ValueError
        If the file is none.
    """
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{path} is no record of a GPU run: its schema is not {SCHEMA!r}")
    return found


def _stage(name: str, output: Path, seconds: float, command: Command) -> dict[str, Any]:
    """Run one stage; whatever becomes of it, return what it had found."""
    part, log = output / f"{name}.json", output / "gpu.log"
    part.unlink(missing_ok=True)
    start, before = time.monotonic(), log.stat().st_size if log.exists() else 0
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(command(name, part, seconds)), stdout=out, stderr=out, start_new_session=True
        )
        try:
            status = "done" if process.wait(seconds) == 0 else f"failed: {process.returncode}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {seconds:.0f} s"
        except KeyboardInterrupt:
            status = INTERRUPTED
        if process.poll() is None:
            _end(process)
    said = log.read_bytes()[before:].decode(errors="replace")
    print(said, end="", flush=True)
    found: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - start, 1)}
    if status != "done":
        found["error"] = said.splitlines()[-12:]
    with contextlib.suppress(OSError, json.JSONDecodeError):
        found |= json.loads(part.read_text())
        part.unlink()
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a stage with its children: first asked, then made to."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def _revision() -> str:
    ask = ["git", "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()
    return "unknown"
