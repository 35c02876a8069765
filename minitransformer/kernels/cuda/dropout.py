"""Dropout and residual: the launches of dropout.cu."""

from __future__ import annotations

from ...backend import Array, Key, array_module
from ...backend.cuda import launch
from .grid import HERE, elementwise_grid, plain

FILE = HERE / "dropout.cu"


def residual_dropout(
    x: Array, residual: Array | None, threshold: int, scale: float, key: Key
) -> Array:
    """Return residual + x · keep · scale, element i against number i of the stream."""
    x = plain(x)
    y: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        FILE, "residual_dropout", elementwise_grid(x.size), 256,
        x, None if residual is None else plain(residual), y, x.size, threshold, scale,
        key.step, key.operation, key.seed, dtype=x.dtype,
    )  # fmt: skip
    return y
