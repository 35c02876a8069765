"""The kernel ladder: four kernels from plain loops to threaded tiles, each rung readable.

A rung is the same arithmetic written one step faster than the rung below it, with the
reason in one line. Every rung is held against the first one before it is timed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ...backend import (
    Array,
    get_num_threads,
    is_cuda_available,
    set_num_threads,
    single_threaded_blas,
    to_numpy,
)
from ..devices import Cuda, Host
from ..timing import Sample, interleave


class Rung(NamedTuple):
    """One way to compute a kernel.

    Parameters
    ----------
    name : str
        What is new.
    why : str
        What it gains, in one line.
    run : callable
        ``run(*inputs)`` returns a tuple of arrays: outputs first, then gradients, of which a
        rung may leave out the last ones.
    small : bool
        Whether it is too slow for the large size and is timed at the small one.
    threads : int or None
        Threads to run with, BLAS's own included; ``None`` leaves the setting.
    device : str
        Where the inputs live.
    dtype : str
        Of the inputs' floating-point numbers.
    """

    name: str
    why: str
    run: Callable[..., tuple[Array, ...]]
    small: bool = False
    threads: int | None = 1
    device: str = "cpu"
    dtype: str = "float32"


class Ladder(NamedTuple):
    """The rungs of one kernel.

    Parameters
    ----------
    kernel : str
        Its name.
    sizes : dict of str to int
        The large size, in the letters of the shape legend.
    small : dict of str to int
        The size that plain loops can bear.
    inputs : callable
        ``inputs(random, **size)`` returns the arrays.
    flops : callable
        ``flops(outputs, **size)``: operations that no method can avoid, by how many outputs and
        gradients a rung computes.
    rungs : tuple of Rung
        From the slowest to the fastest; the first is the definition.
    """

    kernel: str
    sizes: dict[str, int]
    small: dict[str, int]
    inputs: Callable[..., tuple[Array, ...]]
    flops: Callable[..., float]
    rungs: tuple[Rung, ...]


class Result(NamedTuple):
    """What one rung took.

    Parameters
    ----------
    kernel, rung, why : str
        Which rung.
    size : dict of str to int
        What it was timed at.
    outputs : int
        How many arrays it computes: the output, then gradients.
    sample : Sample
        Seconds.
    peak_bytes : int
        The most memory it held beyond its inputs, where it runs.
    flops, bytes : float
        Operations and traffic that no method can avoid.
    error : float
        Largest difference from the first rung, in units of the type's rounding times the
        largest entry.
    device, dtype : str
        Where it ran, and on which numbers.
    """

    kernel: str
    rung: str
    why: str
    size: dict[str, int]
    outputs: int
    sample: Sample
    peak_bytes: int
    flops: float
    bytes: float
    error: float
    device: str
    dtype: str


# In units of float32 rounding: sums in other orders, nothing worse; eight roundings of bfloat16
TOLERANCE = {"float32": 2000.0, "bfloat16": 8 * 2.0**16}


def ladders() -> dict[str, Ladder]:
    """Return every ladder by the name of its kernel."""
    from .attention import LADDER as attention
    from .cross_entropy import LADDER as cross_entropy
    from .feed_forward import LADDER as feed_forward
    from .layer_norm import LADDER as layer_norm

    return {x.kernel: x for x in (attention, layer_norm, feed_forward, cross_entropy)}


def difference(found: tuple[Array, ...], expected: tuple[Array, ...]) -> float:
    """Return the largest error of `found`, in units of float32 rounding times the largest entry.

    Examples
    --------
    >>> difference((np.ones(2),), (np.ones(2), np.zeros(3)))
    0.0
    """
    unit = float(np.finfo(np.float32).eps)
    worst = 0.0
    for ours, theirs in zip(found, expected):
        if ours.shape != theirs.shape or not np.isfinite(ours).all():
            return float("inf")
        scale = float(np.abs(theirs).max(initial=0.0)) or 1.0
        worst = max(worst, float(np.abs(ours - theirs).max(initial=0.0)) / (unit * scale))
    return worst


def climb(ladder: Ladder, *, seconds: float = 1.0, seed: int = 0) -> Iterator[Result]:
    """Check and time every rung of a ladder, yielding each result as it is there.

    Parameters
    ----------
    ladder : Ladder
        Which kernel.
    seconds : float
        About how long to time one rung.
    seed : int
        Of the inputs.

    Yields
    ------
    Result

    Raises
    ------
    ArithmeticError
        If a rung does not compute what the first one does: it is not timed then.
    """
    random = np.random.default_rng(seed)
    small, large = ladder.inputs(random, **ladder.small), ladder.inputs(random, **ladder.sizes)
    truth = ladder.rungs[0].run(*(_wide(x) for x in small))
    threads = get_num_threads()
    for rung in ladder.rungs:
        if rung.device == "cuda" and not is_cuda_available():
            continue
        if rung.threads is not None:
            set_num_threads(rung.threads)
        try:
            device = Cuda() if rung.device == "cuda" else Host()
            tried = rung.run(*(device.place(x, rung.dtype) for x in small))
            found = tuple(to_numpy(x.astype(np.float32, copy=False)) for x in tried)
            error = difference(found, truth)
            if not error <= TOLERANCE[rung.dtype]:
                raise ArithmeticError(
                    f"{ladder.kernel}, rung {rung.name!r}: differs from {ladder.rungs[0].name!r} "
                    f"by {error:.3g} roundings; not timed"
                )
            size = ladder.small if rung.small else ladder.sizes
            arrays = small if rung.small else large
            inputs = [device.place(x, rung.dtype) for x in arrays]
            call = functools.partial(rung.run, *inputs)
            with single_threaded_blas() if rung.threads == 1 else contextlib.nullcontext():
                before = device.held()
                peak = max(0, device.peak(call) - before)
                moved = sum(x.nbytes for x in (*inputs, *call()))
                sample = interleave(
                    {"": call}, seconds=seconds, rounds=(3, 100), warmup=1, clock=device.clock
                )[""]
        finally:
            set_num_threads(threads)
        flops = ladder.flops(len(found), **size)
        yield Result(
            ladder.kernel, rung.name, rung.why, size, len(found), sample, peak, flops, moved,
            error, rung.device, rung.dtype,
        )  # fmt: skip


def _wide(x: Array) -> Array:
    return x.astype(np.float64) if x.dtype.kind == "f" else x
