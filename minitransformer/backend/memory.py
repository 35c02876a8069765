"""Memory that is used again, in arrays that begin with a cache line.

A new array of some size is new memory, which the system hands over page by page: where these
pages are filled once and read once, that takes as long as the arithmetic. And NumPy's arrays begin
in the middle of a cache line, so that every wide store touches two lines and takes twice as long.
"""

from __future__ import annotations

import collections
import math
import threading

import numpy as np

from .arrays import Array, array_module, is_cuda

LINE = 64  # bytes
SMALL = 1 << 15  # bytes of an array that fits the nearest cache: less than the lease is worth
KEPT = 1 << 22  # bytes of a scratch array, at most; larger ones are arrays like any other
POOL = 1 << 29  # bytes of freed memory that are kept, at most

_buffers = threading.local()
_free: dict[int, list[Array]] = collections.defaultdict(list)


def _free_bytes() -> int:
    return sum(size * len(memories) for size, memories in list(_free.items()))


class _Lease:
    """The owner of an array's memory, who gives it back when the last view is gone."""

    def __init__(self, size: int) -> None:
        try:
            self.memory = _free[size].pop()
        except IndexError:
            if _free_bytes() >= POOL:  # of sizes that are no longer asked for
                _free.clear()
            self.memory = np.empty(size + LINE, np.uint8)
        self.size = size
        address = self.memory.ctypes.data
        self.__array_interface__ = {
            "data": (address + -address % LINE, False),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        if _free_bytes() < POOL:
            _free[self.size].append(self.memory)


def aligned_empty(shape: tuple[int, ...], like: Array) -> Array:
    """Return an uninitialised array of the type of `like` that begins with a cache line.

    Its memory may be that of an earlier one that nobody looks at any more. A small array is one
    of NumPy's.

    Examples
    --------
    >>> aligned_empty((128, 256), like=np.ones(1, np.float32)).ctypes.data % 64
    0
    """
    dtype = like.dtype
    if is_cuda(like):
        return array_module(like).empty(shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    return np.asarray(_Lease(size)).view(dtype).reshape(shape)


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
    if is_cuda(like):
        return array_module(like).empty(shape, like.dtype)
    size = math.prod(shape) * like.itemsize
    if size > KEPT:
        return aligned_empty(shape, like)
    memory = getattr(_buffers, name, None)
    if memory is None or memory.nbytes < size:
        memory = np.asarray(_Lease(size))
        setattr(_buffers, name, memory)
    return memory[:size].view(like.dtype).reshape(shape)
