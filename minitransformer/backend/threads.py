"""Row blocks in threads: one thread per core, BLAS at one thread inside each.

NumPy runs everything but matrix products on one core, one pass through memory
per operation. A kernel therefore hands its rows to `run_blocks` in blocks that
stay in cache; each thread takes the next block, computes product, bias and
activation on it, and goes on. The blocks are fixed by the shapes alone, so
results do not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from .arrays import Array

Block = TypeVar("Block")

_num_threads = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)
_pool: ThreadPoolExecutor | None = None
_inside = threading.local()  # set in a worker: blocks inside blocks run in place


def get_num_threads() -> int:
    """Return the number of threads that kernels use on the CPU."""
    return _num_threads


def set_num_threads(n: int) -> None:
    """Set the number of threads that kernels use on the CPU.

    Raises
    ------
    ValueError
        If `n` is not positive.
    """
    global _num_threads, _pool
    if n < 1:
        raise ValueError(f"set_num_threads needs a positive number, found {n}")
    if n != _num_threads and _pool is not None:
        _pool.shutdown()
        _pool = None
    _num_threads = int(n)


def blocks(n: int, size: int) -> list[slice]:
    """Return slices that cover ``range(n)`` in pieces of `size`, the last one shorter.

    Examples
    --------
    >>> blocks(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def run_blocks(work: Callable[[Block], Any], items: Sequence[Block]) -> None:
    """Call ``work(item)`` for every item, spread over the threads.

    Each call must write to places of its own. BLAS uses one thread meanwhile and
    gets its setting back afterwards; overflow and invalid operations are silent,
    as in PyTorch. The first exception is raised once every thread has stopped.

    Parameters
    ----------
    work : callable
        Takes one item: a slice of rows, an index, a tuple of both.
    items : sequence
        What there is to do; its order is the order in which work starts.
    """
    with single_threaded_blas(), np.errstate(all="ignore"):
        helpers = min(_num_threads, len(items)) - 1
        if helpers < 1 or getattr(_inside, "worker", False):
            for item in items:
                work(item)
            return
        ticket = itertools.count()  # next() is atomic: each item is taken once

        def take() -> None:
            _inside.worker = True
            try:
                with np.errstate(all="ignore"):  # a setting of the thread, not of the process
                    while (i := next(ticket)) < len(items):
                        work(items[i])
            except BaseException:
                for _ in zip(range(len(items)), ticket):  # nobody starts another item
                    pass
                raise
            finally:
                _inside.worker = False

        futures = [_executor().submit(take) for _ in range(helpers)]
        try:
            take()
        finally:
            errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error


ELEMENTS = 32768  # of one elementwise block: 128 KiB of float32, a few of which fit a core's cache


def row_blocks(n_rows: int, width: int, like: Array) -> list[slice]:
    """Return the blocks of rows that a rowwise kernel works on: one on a GPU, many on a CPU.

    They depend on the sizes alone, so that sums over blocks do not depend on the threads.
    """
    if not isinstance(like, np.ndarray):
        return [slice(0, n_rows)]
    return blocks(n_rows, max(1, ELEMENTS // max(1, width)))


def run_rows(work: Callable[[slice], Any], n_rows: int, width: int, like: Array) -> None:
    """Call ``work(rows)`` for every block of `row_blocks`, in threads."""
    run_blocks(work, row_blocks(n_rows, width, like))


def map_blocks(function: Callable[..., Array], *arrays: Array) -> Array:
    """Return ``function(*arrays)`` of an elementwise function, in threads where it pays.

    Parameters
    ----------
    function : callable
        Takes arrays of one shape and returns a new array of that shape, element by element.
    *arrays : array
        All of one shape.

    Examples
    --------
    >>> import numpy as np
    >>> map_blocks(lambda a, b: a + 2 * b, np.ones(3), np.ones(3)).tolist()
    [3.0, 3.0, 3.0]
    """
    first = arrays[0]
    if first.ndim == 0:  # arithmetic on these gives NumPy scalars, which `out=` refuses
        return map_blocks(function, *[a.reshape(1) for a in arrays]).reshape(())

    def silent(*pieces: Array) -> Array:
        with np.errstate(all="ignore"):  # per thread
            return function(*pieces)

    if first.size <= ELEMENTS or not isinstance(first, np.ndarray):
        return silent(*arrays)
    flat = [np.ascontiguousarray(a).reshape(-1) for a in arrays]
    head, *rest = blocks(first.size, ELEMENTS)
    start = silent(*[a[head] for a in flat])
    out = np.empty(first.size, start.dtype)
    out[head] = start

    def work(b: slice) -> None:
        out[b] = silent(*[a[b] for a in flat])

    run_blocks(work, rest)
    return out.reshape(first.shape)


def _executor() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(1, _num_threads - 1), thread_name_prefix="minitransformer")
    return _pool


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_forget_pool)


class _Blas:
    """NumPy's BLAS libraries, and how many callers want them single-threaded."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.libraries: list[Any] | None = None
        self.before: list[int] = []

    def find(self) -> list[Any]:
        try:
            from threadpoolctl import ThreadpoolController
        except ImportError:  # a bare install: BLAS keeps the threads it has
            return []
        found = ThreadpoolController().select(user_api="blas").lib_controllers
        # Other frameworks bring BLAS libraries of their own; leave those alone.
        return [lib for lib in found if "numpy" in lib.filepath] or list(found)

    def enter(self) -> None:
        with self.lock:
            if self.libraries is None:
                self.libraries = self.find()
            if self.depth == 0:
                self.before = [lib.get_num_threads() for lib in self.libraries]
                for lib, n in zip(self.libraries, self.before):
                    if n != 1:
                        lib.set_num_threads(1)
            self.depth += 1

    def leave(self) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                for lib, n in zip(self.libraries or [], self.before):
                    if n != 1:
                        lib.set_num_threads(n)


_blas = _Blas()


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold NumPy's BLAS at one thread, and restore the caller's setting at the end.

    Around a whole training step it saves each kernel the switch.
    """
    _blas.enter()
    try:
        yield
    finally:
        _blas.leave()
