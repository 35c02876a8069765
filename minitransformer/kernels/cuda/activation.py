"""GELU, after a bias or alone: the launches of activation.cu."""

from __future__ import annotations

from ...backend import Array, array_module
from ...backend.cuda import fits, launch
from .grid import HERE, OCTET, elementwise_grid, plain

FILE = HERE / "activation.cu"


def gelu_forward(x: Array, tanh_form: bool) -> Array:
    """Return the GELU of `x`."""
    x = plain(x)
    y: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        FILE, "bias_gelu_forward", elementwise_grid(x.size), 256,
        x, None, None, y, x.size, 0, tanh_form, dtype=x.dtype,
    )  # fmt: skip
    return y


def gelu_backward(dy: Array, x: Array, tanh_form: bool) -> Array:
    """Return the gradient of the GELU at `x`."""
    x = plain(x)
    dx: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        FILE, "gelu_backward", elementwise_grid(x.size), 256,
        plain(dy), x, dx, None, x.size, tanh_form, dtype=x.dtype,
    )  # fmt: skip
    return dx


def bias_gelu_fits(h: Array, bias: Array | None) -> bool:
    """Return whether the kernel takes rows `h`: eight neighbours must lie in one."""
    return fits(h, bias) and h.shape[-1] % OCTET == 0 and h.flags.c_contiguous


def bias_gelu(h: Array, bias: Array | None, a: Array, tanh_form: bool) -> None:
    """Add the bias to the rows `h` in place and write their GELU to `a`."""
    width = 0 if bias is None else len(bias)
    launch(
        FILE, "bias_gelu_forward", elementwise_grid(h.size), 256,
        h, bias, h, a, h.size, width, tanh_form, dtype=h.dtype,
    )  # fmt: skip


def gelu_again(da: Array, h: Array, a: Array, tanh_form: bool) -> None:
    """Turn `da` into the gradient of `h` in place, and write the GELU of `h` to `a`."""
    launch(
        FILE, "gelu_backward", elementwise_grid(h.size), 256,
        da, h, da, a, h.size, tanh_form, dtype=h.dtype,
    )  # fmt: skip
