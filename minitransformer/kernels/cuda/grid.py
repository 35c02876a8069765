"""How many threads and blocks a kernel gets, and where its source is."""

from __future__ import annotations

from pathlib import Path

from ...backend import Array

HERE = Path(__file__).parent
OCTET = 8  # elements that a thread of an elementwise kernel treats at a time


def row_threads(width: int) -> int:
    """Return the threads of a block that works on a row: enough to cover it, at most 1024."""
    return min(1024, max(32, -(-width // 32) * 32))


def elementwise_grid(n: int) -> tuple[int]:
    """Return the blocks of 256 threads that treat `n` elements, eight a thread."""
    return (-(-n // (256 * OCTET)),)


def plain(x: Array) -> Array:
    """Return `x` with its elements in a row in memory, as the kernels read them."""
    return x if x.flags.c_contiguous else x.copy()
