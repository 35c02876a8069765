"""AdamW: the launches of adamw.cu."""

from __future__ import annotations

from ...backend import Array
from ...backend.cuda import launch
from .grid import HERE, elementwise_grid


def adamw(
    parameter: Array, gradient: Array, m: Array, v: Array, *, step_size: float, root: float,
    betas: tuple[float, float], eps: float, decay: float,
) -> None:  # fmt: skip
    """Update a flat parameter and its moments in one launch."""
    launch(
        HERE / "adamw.cu", "adamw", elementwise_grid(parameter.size), 256,
        parameter, gradient, m, v,
        parameter.size, step_size, root, *betas, eps, decay, None, dtype=gradient.dtype,
    )  # fmt: skip
