"""Where a thread computes: arrays kept between calls, aligned to cache lines.

A new array of some size is new memory, which the system hands over page by page; and NumPy's
begin in the middle of a cache line, so that every wide store touches two lines and takes twice
as long.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from .arrays import Array, array_module

LINE = 64  # bytes
KEPT = 1 << 22  # bytes of one array, at most; larger ones are allocated each time

_buffers = threading.local()


def aligned_empty(shape: tuple[int, ...], like: Array) -> Array:
    """Return an uninitialised array of the type of `like` that begins with a cache line.

    Examples
    --------
    >>> aligned_empty((2, 3), like=np.ones(1, np.float32)).ctypes.data % 64
    0
    """
    dtype = like.dtype
    if not isinstance(like, np.ndarray):
        return array_module(like).empty(shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def scratch(name: str, like: Array, shape: tuple[int, ...] | None = None) -> Array:
    """Return an array of the shape and type of `like`, to compute in.

    It holds what was left there, and the thread's next call with this name overwrites it.

    Parameters
    ----------
    name : str
        Which of the thread's arrays; those in use together need different names.
    like : array
        Of a device array the result is a new one.
    shape : tuple of int, optional
        Another shape than that of `like`.

    Examples
    --------
    >>> x = np.ones((2, 3))
    >>> np.shares_memory(scratch("t", x), scratch("t", x[:1]))
    True
    """
    shape = like.shape if shape is None else shape
    if not isinstance(like, np.ndarray):
        return array_module(like).empty(shape, like.dtype)
    size = math.prod(shape) * like.itemsize
    if size > KEPT:
        return aligned_empty(shape, like)
    memory = getattr(_buffers, name, None)
    if memory is None or memory.nbytes < size:
        memory = aligned_empty((size,), np.empty(0, np.uint8))
        setattr(_buffers, name, memory)
    return memory[:size].view(like.dtype).reshape(shape)
