"""Dropout: the launches of dropout.cu."""

from __future__ import annotations

from ...backend import Array, Key, array_module
from ...backend.cuda import launch
from .grid import HERE, elementwise_grid, plain


def dropout(x: Array, threshold: int, scale: float, key: Key) -> Array:
    """Return x · keep · scale, element i against number i of the stream."""
    x = plain(x)
    y: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        HERE / "dropout.cu", "residual_dropout", elementwise_grid(x.size, 8), 256,
        x, None, y, x.size, threshold, scale, key.step, key.operation, key.seed, dtype=x.dtype,
    )  # fmt: skip
    return y
