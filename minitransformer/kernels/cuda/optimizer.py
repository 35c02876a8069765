"""Adam, SGD and clipping over many tensors at once: the launches of optimizer.cu."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...backend import Array, array_module
from ...backend.cuda import fits, launch
from .grid import HERE

FILE = HERE / "optimizer.cu"
CHUNK, THREADS = 8192, 256  # numbers and threads of a block


def _layout(depth: int, count: int) -> np.dtype[Any]:
    """Return the layout of ``Table<depth, count>``, below the 4 KiB that arguments may have."""
    return np.dtype(
        [
            ("at", np.uint64, (depth, count)),
            ("size", np.int64, count),
            ("first", np.int32, count + 1),
            ("count", np.int32),
        ]
    )


MOMENTS, MOMENTA, GRADIENTS = _layout(4, 90), _layout(3, 110), _layout(1, 200)


def tables(
    rows: Sequence[tuple[Any, ...]], layout: np.dtype[Any]
) -> Iterator[tuple[Any, tuple[int]]]:
    """Yield tables of where the arrays are, and the blocks that treat each table's chunks."""
    capacity = layout["size"].shape[0]
    for start in range(0, len(rows), capacity):
        part = rows[start : start + capacity]
        n = len(part)
        table = np.zeros((), layout)
        table["at"][:, :n] = np.array([[_address(a) for a in row] for row in part], np.uint64).T
        table["size"][:n] = sizes = np.array([row[0].size for row in part], np.int64)
        table["first"][1 : n + 1] = np.cumsum(-(-sizes // CHUNK))
        table["count"] = n
        yield table, (int(table["first"][n]),)


def _address(a: Any) -> int:
    return 0 if a is None else int(a.data.ptr)


def listed(first: Array, *others: Array | None) -> bool:
    """Return whether a table may name these: float32 on a GPU, each in one piece."""
    return (
        fits(first, *others)
        and first.dtype == np.float32
        and all(a is None or a.flags.c_contiguous for a in (first, *others))
    )


def adam(
    rows: Sequence[tuple[Array, Array, Array, Array]], *, step_size: float, root: float,
    betas: tuple[float, float], eps: float, decay: float, l2: float, sign: float,
) -> None:  # fmt: skip
    """Update parameters and their moments, 90 of them in one launch."""
    for table, grid in tables(rows, MOMENTS):
        launch(FILE, "adam", grid, THREADS, table, step_size, root, *betas, eps, decay, l2, sign)


def sgd(
    rows: Sequence[tuple[Array, Array, Array | None]], *, lr: float, momentum: float,
    fresh: float, l2: float, sign: float, nesterov: bool,
) -> None:  # fmt: skip
    """Update parameters and their momentum, 110 of them in one launch."""
    for table, grid in tables(rows, MOMENTA):
        launch(FILE, "sgd", grid, THREADS, table, lr, momentum, fresh, l2, sign, nesterov)


def gradient_norm(gradients: Sequence[Array]) -> Array:
    """Return the Euclidean norm of all the numbers, () float32."""
    xp = array_module(gradients[0])
    parts = list(tables([(g,) for g in gradients], GRADIENTS))
    partial, total = xp.empty(sum(n for _, (n,) in parts), np.float32), xp.empty((), np.float32)
    start = 0
    for table, (n,) in parts:
        launch(FILE, "squares", (n,), THREADS, table, partial[start : start + n])
        start += n
    launch(FILE, "root_of_sum", (1,), 1024, partial, total, start)
    return total


def clip_gradients(gradients: Sequence[Array], norm: Array, limit: float) -> None:
    """Scale by min(1, limit / (norm + 1e-6)) in place, whatever the norm on the device is."""
    for table, grid in tables([(g,) for g in gradients], GRADIENTS):
        launch(FILE, "clip", grid, THREADS, table, norm, limit)
