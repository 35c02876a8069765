"""The growing result of one stage: on disk after every row, so that nothing found is lost."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from minitransformer.bench.devices import Device
from minitransformer.bench.environment import record
from minitransformer.bench.limits import Limits, measure_limits
from minitransformer.bench.report import document


def write(path: Path, found: dict[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(partial, path)


class Part:
    """What a stage works with and where it puts its rows.

    `seconds` is the time after which nothing new is begun; `torch` is PyTorch, or None where
    it cannot use the GPU; `limits` are the rates measured before, by dtype.
    """

    def __init__(
        self, path: Path, seconds: float, device: Device, torch: Any = None,
        limits: dict[str, Limits] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.device, self.torch = path, device, torch
        self.limits = limits or {}
        self.end = time.monotonic() + seconds
        self.run = document(path.stem, record(torch), None, [])
        if torch is None:
            self.leave_out("every comparison: PyTorch with CUDA is not installed")
        self.save()

    def save(self) -> None:
        """Put everything found so far on disk."""
        write(self.path, self.run)

    def seconds_left(self) -> float:
        """Return how long the stage may still take."""
        return self.end - time.monotonic()

    def leave_out(self, what: str) -> None:
        """Say what is missing."""
        self.run["left out"].append(what)

    def limit(self, dtype: str) -> Limits:
        """Return the device's rates in a dtype."""
        if dtype not in self.limits:
            self.limits[dtype] = measure_limits(dtype, device=self.device, torch=self.torch)
        return self.limits[dtype]

    def attempt(self, what: str, measure: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Add the rows that a measurement gives; a failure is noted and ends only itself."""
        if self.seconds_left() <= 0:
            self.leave_out(f"{what}: the time of this stage was over")
        else:
            try:
                for found in measure():
                    self.run["rows"].append(found)
                    self.save()
            except Exception as error:  # the next measurement may still succeed
                line = (str(error).splitlines() or [""])[0][:300]
                self.leave_out(f"{what}: {type(error).__name__}: {line}")
            gc.collect()
            self.device.release(self.torch)
        self.save()
