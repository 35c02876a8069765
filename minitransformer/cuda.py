"""PyTorch's ``torch.cuda`` names that programs ask before they choose a device."""

from __future__ import annotations

from typing import Any

from .backend import is_cuda_available, manual_seed

__all__ = [
    "current_device",
    "device_count",
    "empty_cache",
    "is_available",
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


def _cupy() -> Any:
    try:
        import cupy
    except ImportError:
        raise RuntimeError(
            "CUDA needs CuPy, which is not installed: pip install 'minitransformer[cuda12]' or "
            "'minitransformer[cuda13]'"
        ) from None
    return cupy
