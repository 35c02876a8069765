"""Layer normalisation: the launches of layer_norm.cu."""

from __future__ import annotations

from ...backend import Array, array_module
from ...backend.cuda import launch
from .grid import HERE, MULTIPROCESSORS, Team, plain, team

FILE = HERE / "layer_norm.cu"


def resident(by: Team) -> int:
    """Return the blocks of the backward that fit on a GPU together, by the registers they take.

    The same on every GPU, because the blocks' shares of the sums set the order of addition.
    """
    return MULTIPROCESSORS * (3 if by.size == 32 else max(2, 768 // by.block))


def wide(parameter: Array | None) -> Array | None:
    """Return a parameter in float32, which it is already unless the whole model is in halves."""
    return None if parameter is None else plain(parameter.astype("float32", copy=False))


def layer_norm_forward(
    x: Array, gain: Array | None, shift: Array | None, y: Array, mean: Array, rstd: Array,
    eps: float,
) -> None:  # fmt: skip
    """Fill `y`, `mean` and `rstd` for the rows of `x`."""
    n, width = x.shape
    by = team(width, x.dtype)
    launch(
        FILE, "layer_norm_forward", (by.blocks(n),), by.block,
        plain(x), wide(gain), wide(shift), y, mean, rstd, n, width, eps, dtype=x.dtype,
        **by.defines,
    )  # fmt: skip


def layer_norm_backward(
    dy: Array, x: Array, gain: Array | None, mean: Array, rstd: Array, dx: Array
) -> Array:
    """Fill `dx`; return the sums over rows of dy ∘ x̂ and of dy, (2, width) float32."""
    xp, (n, width) = array_module(x), x.shape
    by = team(width, x.dtype)
    blocks = min(by.blocks(n), resident(by))
    parts, sums = xp.empty((2, blocks, width), mean.dtype), xp.empty((2, width), mean.dtype)
    launch(
        FILE, "layer_norm_backward", (blocks,), by.block,
        plain(dy), plain(x), wide(gain), mean, rstd, dx, parts, n, width, dtype=x.dtype,
        **by.defines,
    )  # fmt: skip
    launch(
        FILE, "layer_norm_backward_sums", (-(-width // 32), 2), 512,
        parts, sums, blocks, width, dtype=x.dtype, **by.defines,
    )  # fmt: skip
    return sums
