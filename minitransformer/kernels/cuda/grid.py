"""How many threads and blocks a kernel gets, and where its source is."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

from ...backend import Array

HERE = Path(__file__).parent
OCTET = 8  # elements that a thread of an elementwise kernel treats at a time
HELD = 24  # numbers of a row that a thread of a warp holds at most: more take its registers
MULTIPROCESSORS = 132  # of an H100
WIDEST = 8192  # row that a block of 512 threads holds


class Team(NamedTuple):
    """Who holds a row in registers, as in rows.cuh.

    Parameters
    ----------
    size : int
        Threads of a team: a warp, or the whole block.
    packs : int
        16-byte packs of a row that each holds.
    """

    size: int
    packs: int

    @property
    def block(self) -> int:
        """Threads of a block."""
        return 128 if self.size == 32 else self.size

    def blocks(self, rows: int) -> int:
        """Return the blocks that it takes to give every row a team."""
        return -(-rows * self.size // self.block)

    @property
    def defines(self) -> dict[str, int]:
        """What to compile in."""
        return {"TEAM": self.size, "PACKS": self.packs}


@functools.cache
def team(width: int, dtype: Any) -> Team:
    """Return the team for rows of a width: a warp if it can hold one."""
    packs = -(-width * dtype.itemsize // 16)
    if -(-packs // 32) * 16 // dtype.itemsize <= HELD:
        return Team(32, -(-packs // 32))
    size = min(512, -(-width // (8 * 32)) * 32)  # eight numbers a thread
    return Team(size, -(-packs // size))


def row_threads(width: int, dtype: Any) -> int:
    """Return the threads of a block that goes over a row in packs, at most 512."""
    return min(512, max(32, -(-width * dtype.itemsize // (16 * 32)) * 32))


def elementwise_grid(n: int) -> tuple[int]:
    """Return the blocks of 256 threads that treat `n` elements, eight a thread."""
    return (-(-n // (256 * OCTET)),)


def plain(x: Array) -> Array:
    """Return `x` with its elements in a row in memory, as the kernels read them."""
    return x if x.flags.c_contiguous else x.copy()
