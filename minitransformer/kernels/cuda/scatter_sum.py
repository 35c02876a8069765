"""Sums of rows by place: the launch of scatter_sum.cu."""

from __future__ import annotations

from ...backend import Array, array_module
from ...backend.cuda import launch
from .grid import HERE, plain, row_threads

FILE = HERE / "scatter_sum.cu"


def scatter_sum(places: Array, rows: Array, out: Array) -> None:
    """Write to every row of `out` the sum of the `rows` of that place, in their order."""
    xp = array_module(rows)
    order = xp.argsort(places, kind="stable")
    # one segment per row of `out`, many of them empty: no count comes back to the host
    starts = xp.searchsorted(places[order], xp.arange(len(out) + 1))
    launch(
        FILE, "scatter_sum", (len(out),), row_threads(rows.shape[1], rows.dtype),
        plain(rows), order.astype("int64"), starts.astype("int64"), out, rows.shape[1],
        dtype=rows.dtype,
    )  # fmt: skip
