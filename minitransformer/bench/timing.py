"""Interleaved timing: ours, theirs, ours, theirs, so that a slow minute hits all alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """The times of one candidate.

    Parameters
    ----------
    median : float
        Seconds.
    low, high : float
        A 95 % interval of the median, from order statistics; the range of fewer than six rounds.
    rounds : int
        How many times were measured.
    """

    median: float
    low: float
    high: float
    rounds: int


def summarize(times: list[float]) -> Sample:
    """Return the median of `times` and an interval that covers the true median in 95 of 100 runs.

    Of fewer than six times it is their range, which covers it less often (three: in 75).

    The number of times below the true median is binomial(n, ½); the ranks n/2 ∓ 0.98 √n
    bound it.

    Examples
    --------
    >>> summarize([3.0, 1.0, 2.0])
    Sample(median=2.0, low=1.0, high=3.0, rounds=3)
    """
    if not times:
        raise ValueError("summarize needs at least one time")
    ordered, n = sorted(times), len(times)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    reach = 0.98 * math.sqrt(n)
    low = ordered[max(0, math.floor(n / 2 - reach))]
    high = ordered[min(n - 1, math.ceil(n / 2 + reach))]
    return Sample(middle, low, high, n)


def clock(call: Callable[[], Any]) -> float:
    """Return the seconds that one call takes on the wall clock."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleave(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    seconds: float = 1.0,
    rounds: tuple[int, int] = (5, 200),
    warmup: int = 2,
    clock: Callable[[Callable[[], Any]], float] = clock,
) -> dict[str, Sample]:
    """Time every candidate in turn, round after round.

    Parameters
    ----------
    candidates : mapping of str to callable
        What to time; each call is one measurement.
    seconds : float
        About how long to measure all candidates together.
    rounds : (int, int)
        At least and at most so many measurements of each.
    warmup : int
        Calls of each beforehand, not counted: compilation, first-touch pages, thread pools.
    clock : callable
        ``clock(call)`` makes one call and returns its seconds.

    Returns
    -------
    dict of str to Sample

    Examples
    --------
    >>> interleave({"nothing": lambda: None}, seconds=0.0)["nothing"].rounds
    5
    """
    for _ in range(warmup):
        for call in candidates.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        names = list(candidates)
        for n in range(rounds[1]):
            if n >= rounds[0] and time.perf_counter() - start > seconds:
                break
            # every other round backwards: no candidate always follows the same one
            for name in names if n % 2 == 0 else reversed(names):
                times[name].append(clock(candidates[name]))
    finally:
        if collecting:
            gc.enable()
    return {name: summarize(t) for name, t in times.items()}
