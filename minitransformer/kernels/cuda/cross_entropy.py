"""Cross-entropy against class numbers: the launches of cross_entropy.cu."""

from __future__ import annotations

from ...backend import Array
from ...backend.cuda import launch
from .grid import HERE, plain, row_threads

FILE = HERE / "cross_entropy.cu"


def cross_entropy_forward(
    logits: Array, target: Array, losses: Array, top: Array, lse: Array, ignore_index: int
) -> None:
    """Fill loss, largest logit and log-sum-exp of every row, against class numbers."""
    n, width = logits.shape
    launch(
        FILE, "cross_entropy_forward", (n,), row_threads(width, logits.dtype),
        plain(logits), plain(target), losses, top, lse, width, ignore_index, dtype=logits.dtype,
    )  # fmt: skip


def cross_entropy_backward(
    logits: Array, target: Array, top: Array, lse: Array, scale: Array, dlogits: Array,
    ignore_index: int,
) -> None:  # fmt: skip
    """Write (softmax - onehot) · scale to `dlogits`."""
    n, width = logits.shape
    launch(
        FILE, "cross_entropy_backward", (n,), row_threads(width, logits.dtype),
        plain(logits), plain(target), top, lse, plain(scale), dlogits, width, ignore_index,
        dtype=logits.dtype,
    )  # fmt: skip
