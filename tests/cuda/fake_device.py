"""What measuring takes from a GPU, pretended: events, a memory pool and its hooks, DLPack.

Names are those of CuPy 14.2 (``device_names.json``, read from CuPy itself); a name that is
not there is an error.
"""

from __future__ import annotations

import contextlib
import json
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import fake_cupy

NAMES = json.loads((Path(__file__).parent / "device_names.json").read_text())


class Event:
    """A mark in the queue; here it passes at once."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self.time: float | None = None

    def record(self, stream: Any = None) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        assert self.time is not None, "this event was never recorded"


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds, as in CuPy."""
    assert start_event.time is not None and end_event.time is not None
    return max(1e-6, 1e3 * (end_event.time - start_event.time))


class MemoryHook:
    """Told of every allocation while it is entered."""

    name = "MemoryHook"
    active: list[MemoryHook] = []  # noqa: RUF012

    def __enter__(self) -> MemoryHook:
        self.active.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.active.remove(self)

    def malloc_postprocess(self, **kwargs: Any) -> None:
        pass


class MemoryPool:
    """Counts bytes and never gets one back."""

    used = 0

    def malloc(self, size: int) -> None:
        self.used += size
        for hook in MemoryHook.active:
            hook.malloc_postprocess(
                device_id=0, size=size, mem_size=size, mem_ptr=512, pmem_id=id(self)
            )

    def used_bytes(self) -> int:
        return self.used

    def total_bytes(self) -> int:
        return self.used

    def free_all_blocks(self, stream: Any = None) -> None:
        pass


def properties(device: int) -> dict[str, Any]:
    return {"name": b"Pretended GPU", "major": 9, "minor": 0, "multiProcessorCount": 1,
            "totalGlobalMem": 1 << 30, "l2CacheSize": 1 << 20}  # fmt: skip


def _dlpack(self: fake_cupy.ndarray, **options: Any) -> Any:
    assert options.keys() <= {"stream", "max_version", "dl_device", "copy"}
    return self._a.__dlpack__(**{k: v for k, v in options.items() if k != "stream"})


@contextlib.contextmanager
def installed() -> Iterator[types.ModuleType]:
    """Let ``import cupy`` find the stand-in, with what measuring takes from it."""
    array: Any = fake_cupy.ndarray
    array.__dlpack__ = _dlpack
    array.__dlpack_device__ = lambda self: self._a.__dlpack_device__()
    with fake_cupy.installed() as module:
        cupy: Any = module
        pool, empty = MemoryPool(), cupy.empty

        def counted(*args: Any, **kwargs: Any) -> Any:
            made = empty(*args, **kwargs)
            pool.malloc(made.nbytes)
            return made

        cupy.empty = counted
        cupy.get_default_memory_pool = lambda: pool
        for name, value in (("Event", Event), ("MemoryHook", MemoryHook),
                            ("get_elapsed_time", get_elapsed_time)):  # fmt: skip
            setattr(cupy.cuda, name, value)
        cupy.cuda.runtime.getDeviceProperties = properties
        cupy.cuda.runtime.runtimeGetVersion = lambda: 13000
        cupy.cuda.runtime.driverGetVersion = lambda: 13000
        cupy.cuda.Device.synchronize = lambda self: None
        yield cupy
        del array.__dlpack__, array.__dlpack_device__
