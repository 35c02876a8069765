"""Softmax of rows: the launches of softmax.cu."""

from __future__ import annotations

from ...backend import Array
from ...backend.cuda import launch
from .grid import HERE, plain, team

FILE = HERE / "softmax.cu"


def softmax_forward(x: Array, P: Array) -> None:
    """Write the softmax of the rows of `x` to `P`."""
    n, width = x.shape
    by = team(width, x.dtype)
    launch(
        FILE, "softmax_forward", (by.blocks(n),), by.block,
        plain(x), P, n, width, dtype=x.dtype, **by.defines,
    )  # fmt: skip


def softmax_backward(dP: Array, P: Array, dx: Array) -> None:
    """Write the gradient of the rows to `dx`."""
    n, width = P.shape
    by = team(width, P.dtype)
    launch(
        FILE, "softmax_backward", (by.blocks(n),), by.block,
        plain(dP), plain(P), dx, n, width, dtype=P.dtype, **by.defines,
    )  # fmt: skip
