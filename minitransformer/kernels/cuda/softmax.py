"""Softmax of rows: the launches of softmax.cu."""

from __future__ import annotations

from ...backend import Array
from ...backend.cuda import launch
from .grid import HERE, plain, row_threads


def softmax_forward(x: Array, P: Array) -> None:
    """Write the softmax of the rows of `x` to `P`."""
    n, width = x.shape
    launch(
        HERE / "softmax.cu", "softmax_forward", (n,), row_threads(width),
        plain(x), P, width, dtype=x.dtype,
    )  # fmt: skip


def softmax_backward(dP: Array, P: Array, dx: Array) -> None:
    """Write the gradient of the rows to `dx`."""
    n, width = P.shape
    launch(
        HERE / "softmax.cu", "softmax_backward", (n,), row_threads(width),
        plain(dP), plain(P), dx, width, dtype=P.dtype,
    )  # fmt: skip
