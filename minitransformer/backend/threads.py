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
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from .arrays import Array

Block = TypeVar("Block")

_num_threads = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)
_workers = 0
_jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
_inside = threading.local()  # set while a thread works on blocks


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
    global _num_threads
    if n < 1:
        raise ValueError(f"set_num_threads needs a positive number, found {n}")
    if n < _num_threads:
        for _ in range(_workers):
            _jobs.put(None)
        _forget_pool()
    _num_threads = int(n)


def blocks(n: int, size: int) -> list[slice]:
    """Return slices that cover ``range(n)`` in pieces of `size`, the last one shorter.

    Examples
    --------
    >>> blocks(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


class _Job:
    """Items to work through, shared by the caller and whichever helpers wake in time."""

    __slots__ = ("error", "finished", "items", "left", "lock", "ticket", "work")

    def __init__(self, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.work = work
        self.items = items
        self.ticket = itertools.count()  # next() is atomic: each item is taken once
        self.left = len(items)
        self.lock = threading.Lock()
        self.finished = threading.Lock()
        self.finished.acquire()
        self.error: BaseException | None = None

    def take(self) -> None:
        """Work on items until none is left; whoever finishes the last one says so."""
        done, n = 0, len(self.items)
        before = getattr(_inside, "worker", False)
        _inside.worker = True
        try:
            with np.errstate(all="ignore"):  # a setting of the thread, not of the process
                while (i := next(self.ticket)) < n:
                    done += 1
                    self.work(self.items[i])
        except BaseException as error:
            self.error = error
            while next(self.ticket) < n:  # nobody starts another item
                done += 1
        finally:
            _inside.worker = before
            if done:
                with self.lock:
                    self.left -= done
                    if self.left == 0:
                        self.finished.release()


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
    helpers = min(_num_threads, len(items)) - 1
    if getattr(_inside, "worker", False):  # blocks inside blocks run in place
        for item in items:
            work(item)
        return
    with single_threaded_blas():
        if helpers < 1:
            with np.errstate(all="ignore"):
                for item in items:
                    work(item)
            return
        # A helper takes tens of microseconds to wake. The caller starts at once, and waits
        # for the items that helpers took, not for helpers that came too late.
        job = _Job(work, items)
        _wake(helpers, job)
        job.take()
        job.finished.acquire()
        if job.error is not None:
            raise job.error


# Elements of one block. Shorter ones make threads queue for the interpreter lock between
# NumPy calls; longer ones leave the core's cache.
ELEMENTS = 1 << 17
ROW_ELEMENTS = 3 << 15  # of formulas over rows, which have more arrays in cache at a time


def even_blocks(n: int, size: int) -> list[slice]:
    """Return slices that cover ``range(n)``, of about `size` and nearly equal.

    More than one are an even number, so that two threads end together.

    Examples
    --------
    >>> even_blocks(6, 4)
    [slice(0, 3, None), slice(3, 6, None)]
    """
    pieces = -(-n // max(1, size))
    pieces += pieces % 2 if pieces > 1 else 0
    return blocks(n, -(-n // max(1, pieces))) if n else []


def row_blocks(n_rows: int, width: int, like: Any) -> list[slice]:
    """Return the blocks of rows that a rowwise kernel works on: one on a GPU, many on a CPU.

    They depend on the sizes alone, so that sums over blocks do not depend on the threads.
    """
    if not isinstance(like, np.ndarray):
        return [slice(0, n_rows)]
    return even_blocks(n_rows, max(1, round(ROW_ELEMENTS / max(1, width))))


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
    out = np.empty(first.size, silent(*[a[:1] for a in flat]).dtype)

    def work(b: slice) -> None:
        out[b] = silent(*[a[b] for a in flat])

    run_blocks(work, even_blocks(first.size, ELEMENTS))
    return out.reshape(first.shape)


def _wake(helpers: int, job: _Job) -> None:
    """Offer a job to `helpers` threads, starting those that do not run yet."""
    global _workers
    while _workers < helpers:
        _workers += 1
        name = f"minitransformer-{_workers}"
        threading.Thread(target=_help, args=(_jobs,), name=name, daemon=True).start()
    for _ in range(helpers):
        _jobs.put(job)


def _help(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while True:
        job = jobs.get()
        if job is None:
            return
        job.take()
        del job  # a waiting thread must not keep arrays alive


def _forget_pool() -> None:
    global _workers, _jobs
    _workers, _jobs = 0, queue.SimpleQueue()


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
