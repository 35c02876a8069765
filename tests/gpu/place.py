"""Arrays to the GPU and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitransformer.backend import is_cuda, to_device, to_numpy


def there(x: Any) -> Any:
    """An array on the GPU; what is no array stays what it is."""
    return to_device(x, "cuda") if isinstance(x, (np.ndarray, np.generic)) else x


def back(x: Any) -> Any:
    """An array on the host."""
    return to_numpy(x) if x is not None and is_cuda(x) else x


def as_it_lies(view: np.ndarray) -> tuple[Any, Any]:
    """Copy the memory behind a view and look at it in the same way; also return that memory."""
    import cupy

    root = view if view.base is None else view.base
    memory = cupy.asarray(root)
    start = view.ctypes.data - root.ctypes.data if view.size else 0
    return cupy.ndarray(view.shape, view.dtype, memory.data + start, strides=view.strides), memory
