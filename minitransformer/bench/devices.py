"""Where a measurement runs: the CPU, or a GPU on which CuPy and PyTorch share one stream."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..backend import is_cuda_available, resolve_dtype, to_device
from .timing import clock

Call = Callable[[], Any]
DTYPES = ("float32", "tf32", "bfloat16", "float16", "float64")
HEAD_START = 1 << 30  # bytes copied before a kernel is timed: half a millisecond on an H100


class Host:
    """The CPU: NumPy's arrays, the process's clock, the memory that `tracemalloc` sees."""

    name = "cpu"

    def place(self, x: Any, dtype: str = "float32") -> Any:
        """Return a host array where the work is done, floating-point entries as `dtype`."""
        return _cast(x, dtype)

    def tensor(self, torch: Any, x: Any, dtype: str = "float32") -> Any:
        """Return a PyTorch tensor of the same values in the same place."""
        return _torch_cast(torch.from_numpy(np.array(x)), torch, dtype)

    def clock(self, call: Call) -> float:
        """Return the seconds that one call of a kernel takes."""
        return clock(call)

    def clock_steps(self, call: Call) -> float:
        """Return the seconds that one step of a program takes."""
        return clock(call)

    def launching(self, call: Call) -> float:
        """Return the seconds for which the host is busy before a device can begin: none here."""
        return 0.0

    def held(self) -> int:
        """Return the bytes that arrays hold before a call: they do not count here."""
        return 0

    def peak(self, call: Call) -> int:
        """Return the most bytes that arrays held during a call."""
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def release(self, torch: Any = None) -> None:
        """Give back memory that is kept for later: the CPU's libraries keep none."""


class Cuda:
    """The GPU that CuPy uses, on the stream that PyTorch uses too.

    A kernel is timed by events around it, behind a copy of a gigabyte: the copy empties the
    caches and keeps the GPU busy until the host has issued the kernel, so that the time is the
    GPU's alone. What the host needs is `launching`.
    """

    name = "cuda"

    def __init__(self) -> None:
        if not is_cuda_available():
            raise ValueError("the GPU was asked for, but CuPy finds none here")
        import cupy

        self.cupy = cupy
        self.events = cupy.cuda.Event(), cupy.cuda.Event()
        self.buffers: list[Any] = []

    def place(self, x: Any, dtype: str = "float32") -> Any:
        """Return a host array on the GPU, floating-point entries as `dtype`."""
        return _cast(to_device(x, "cuda"), dtype)

    def tensor(self, torch: Any, x: Any, dtype: str = "float32") -> Any:
        """Return a PyTorch tensor of the same values, through DLPack."""
        return _torch_cast(torch.from_dlpack(to_device(x, "cuda")), torch, dtype)

    def clock(self, call: Call) -> float:
        """Return the GPU's seconds for one call, its caches cold."""
        if not self.buffers:
            self.buffers = [self.cupy.ones(HEAD_START // 4, np.float32) for _ in range(2)]
        self.cupy.copyto(*self.buffers)
        return self._between(call)

    def clock_steps(self, call: Call) -> float:
        """Return the seconds of one of two steps in a row, whatever they wait for."""
        self.wait()

        def both() -> None:
            call()
            call()

        return self._between(both) / 2

    def _between(self, call: Call) -> float:
        start, end = self.events
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(self.cupy.cuda.get_elapsed_time(start, end)) * 1e-3

    def launching(self, call: Call) -> float:
        """Return the seconds for which the host is busy issuing a call."""
        self.wait()
        start = time.perf_counter()
        for _ in range(3):
            call()
        seconds = time.perf_counter() - start
        self.wait()
        return seconds / 3

    def wait(self) -> None:
        """Wait until the GPU is idle."""
        self.cupy.cuda.Device().synchronize()

    def held(self) -> int:
        """Return the bytes that CuPy's arrays hold."""
        return int(self.cupy.get_default_memory_pool().used_bytes())

    def peak(self, call: Call) -> int:
        """Return the most bytes that CuPy's arrays held during a call."""
        pool = self.cupy.get_default_memory_pool()

        class Peak(self.cupy.cuda.MemoryHook):  # type: ignore[misc, name-defined]
            name, bytes = "peak", pool.used_bytes()

            def malloc_postprocess(self, **_: Any) -> None:
                self.bytes = max(self.bytes, pool.used_bytes())

        with Peak() as seen:
            call()
        return int(seen.bytes)

    def torch_peak(self, call: Call, torch: Any) -> int | None:
        """Return the most bytes that PyTorch's tensors held during a call."""
        if not torch.cuda.is_available():
            return None
        torch.cuda.reset_peak_memory_stats()
        call()
        return int(torch.cuda.max_memory_allocated())

    def release(self, torch: Any = None) -> None:
        """Give back the memory that CuPy and PyTorch keep for later."""
        self.buffers = []
        self.wait()
        self.cupy.get_default_memory_pool().free_all_blocks()
        if torch is not None:
            torch.cuda.empty_cache()


Device = Host | Cuda


def find_device(backend: str) -> Device:
    """Return where arrays of ``"numpy"`` or ``"cupy"`` live.

    Raises
    ------
    ValueError
        If there is no GPU that CuPy can use.
    """
    return Cuda() if backend == "cupy" else Host()


def _cast(x: Any, dtype: str) -> Any:
    return x.astype(storage(dtype), copy=False) if x.dtype.kind == "f" else x


def _torch_cast(tensor: Any, torch: Any, dtype: str) -> Any:
    return tensor.to(getattr(torch, str(storage(dtype)))) if tensor.is_floating_point() else tensor


def storage(dtype: str) -> Any:
    """Return the type that arrays have; TF32 is a way to multiply float32.

    Examples
    --------
    >>> storage("tf32")
    dtype('float32')
    """
    return resolve_dtype("float32" if dtype == "tf32" else dtype)


@contextlib.contextmanager
def product_precision(dtype: str, torch: Any = None) -> Iterator[None]:
    """Multiply float32 as TF32 if `dtype` says so and exactly if not, on both sides alike."""
    import minitransformer as mt

    sides = [mt] if torch is None else [mt, torch]
    before = [side.get_float32_matmul_precision() for side in sides]
    try:
        for side in sides:
            side.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
        yield
    finally:
        for side, setting in zip(sides, before):
            side.set_float32_matmul_precision(setting)


def autocast(library: Any, dtype: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """Return mixed precision in bfloat16 of either library, if that is the `dtype`."""
    if dtype != "bfloat16":
        return contextlib.nullcontext()
    return library.autocast(device, dtype=library.bfloat16)


def difference(ours: Any, theirs: Any, torch: Any) -> float:
    """Return the distance of our array from PyTorch's, ‖ours - theirs‖ / ‖theirs‖."""
    exact = np.asarray(ours) if isinstance(ours, np.generic) else ours
    found = torch.from_dlpack(exact.astype(np.float32)).detach()
    expected = theirs.detach().float()
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))
