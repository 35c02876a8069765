"""GELU: the launches of activation.cu."""

from __future__ import annotations

from ...backend import Array, array_module
from ...backend.cuda import launch
from .grid import HERE, elementwise_grid, plain


def gelu_forward(x: Array, tanh_form: bool) -> Array:
    """Return the GELU of `x`."""
    x = plain(x)
    y: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        HERE / "activation.cu", "bias_gelu_forward", elementwise_grid(x.size), 256,
        x, None, None, y, x.size, 1, tanh_form, dtype=x.dtype,
    )  # fmt: skip
    return y


def gelu_backward(dy: Array, x: Array, tanh_form: bool) -> Array:
    """Return the gradient of the GELU at `x`."""
    x = plain(x)
    dx: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        HERE / "activation.cu", "gelu_backward", elementwise_grid(x.size), 256,
        plain(dy), x, dx, x.size, tanh_form, dtype=x.dtype,
    )  # fmt: skip
    return dx
