"""PyTorch's ``torch.cuda`` names that programs ask before they choose a device."""

from __future__ import annotations

import importlib
from typing import Any

from ..backend import bfloat16, is_cuda_available, manual_seed

__all__ = [
    "amp",
    "current_device",
    "device_count",
    "empty_cache",
    "is_available",
    "is_bf16_supported",
    "manual_seed",
    "manual_seed_all",
    "synchronize",
]

manual_seed_all = manual_seed  # one stream serves every device


def is_available() -> bool:
    """Return whether CuPy is installed and sees a GPU."""
    return is_cuda_available()


def device_count() -> int:
    """Return how many GPUs there are."""
    return int(_cupy().cuda.runtime.getDeviceCount()) if is_available() else 0


def current_device() -> int:
    """Return the number of the GPU in use."""
    return int(_cupy().cuda.runtime.getDevice())


def synchronize(device: Any = None) -> None:
    """Wait until the GPU has done everything it was given; nothing without a GPU."""
    if is_available():
        _cupy().cuda.runtime.deviceSynchronize()


def empty_cache() -> None:
    """Give back the GPU memory that nothing uses; nothing without a GPU."""
    if is_available():
        _cupy().get_default_memory_pool().free_all_blocks()


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Return whether there is a GPU that multiplies bfloat16 (compute capability 8.0 and up)."""
    if not is_available():
        return False
    try:
        bfloat16()
    except TypeError:
        return False
    return int(_cupy().cuda.Device().compute_capability) >= 80


def __getattr__(name: str) -> Any:
    if name == "amp":
        return importlib.import_module(".amp", __name__)
    raise AttributeError(f"minitransformer has no `torch.cuda.{name}`")


def _cupy() -> Any:
    try:
        import cupy
    except ImportError:
        raise RuntimeError(
            "CUDA needs CuPy, which is not installed: pip install 'minitransformer[cuda12]' or "
            "'minitransformer[cuda13]'"
        ) from None
    return cupy
