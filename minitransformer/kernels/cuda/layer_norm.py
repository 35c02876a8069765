"""Layer normalisation: the launches of layer_norm.cu."""

from __future__ import annotations

from ...backend import Array, array_module
from ...backend.cuda import launch
from .grid import HERE, plain, row_threads

PART = 512  # rows of one partial sum of parameter gradients


def layer_norm_forward(
    x: Array, gain: Array | None, shift: Array | None, y: Array, mean: Array, rstd: Array,
    eps: float,
) -> None:  # fmt: skip
    """Fill `y`, `mean` and `rstd` for the rows of `x`."""
    n, width = x.shape
    launch(
        HERE / "layer_norm.cu", "layer_norm_forward", (n,), row_threads(width),
        plain(x), gain, shift, y, mean, rstd, width, eps, dtype=x.dtype,
    )  # fmt: skip


def layer_norm_backward(
    dy: Array, x: Array, gain: Array | None, mean: Array, rstd: Array, dx: Array
) -> tuple[Array, Array]:
    """Fill `dx`; return partial sums over rows of dy ∘ x̂ and of dy, (parts, width) each."""
    n, width = x.shape
    dy, x = plain(dy), plain(x)
    launch(
        HERE / "layer_norm.cu", "layer_norm_backward_x", (n,), row_threads(width),
        dy, x, gain, mean, rstd, dx, width, dtype=x.dtype,
    )  # fmt: skip
    parts = -(-n // PART)
    xp = array_module(x)
    dgain, dshift = (xp.empty((parts, width), mean.dtype) for _ in range(2))
    launch(
        HERE / "layer_norm.cu", "layer_norm_backward_parameters", (-(-width // 32), parts), 256,
        dy, x, mean, rstd, dgain, dshift, n, width, PART, dtype=x.dtype,
    )  # fmt: skip
    return dgain, dshift
