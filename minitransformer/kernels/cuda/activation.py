"""Activations, alone or between a bias and a dropout: the launches of activation.cu."""

from __future__ import annotations

from ...backend import Array, Key, array_module
from ...backend.cuda import fits, launch
from .grid import HERE, OCTET, elementwise_grid, plain

FILE = HERE / "activation.cu"
KINDS = {"relu": 0, "gelu": 1, "gelu_tanh": 2, "silu": 3}


def activation_forward(x: Array, name: str) -> Array:
    """Return an activation of `x`."""
    x = plain(x)
    y: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        FILE, "activation_forward", elementwise_grid(x.size), 256,
        x, None, None, y, x.size, 0, KINDS[name], 0, 1.0, 0, 0, 0, dtype=x.dtype,
    )  # fmt: skip
    return y


def activation_backward(dy: Array, x: Array, name: str) -> Array:
    """Return the gradient of an activation at `x`."""
    x = plain(x)
    dx: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        FILE, "activation_backward", elementwise_grid(x.size), 256,
        plain(dy), x, dx, x.size, KINDS[name], dtype=x.dtype,
    )  # fmt: skip
    return dx


def bias_activation_fits(h: Array, bias: Array | None) -> bool:
    """Return whether the kernel takes the rows `h`: eight neighbours must lie in one."""
    return fits(h) and (bias is None or h.shape[-1] % OCTET == 0)


def bias_activation(
    h: Array, bias: Array | None, a: Array, slope: Array | None, name: str, *,
    threshold: int = 0, scale: float = 1.0, key: Key | None = None,
) -> None:  # fmt: skip
    """Write dropout(act(h + bias)) to `a`, and its derivative to `slope`, which may be `h`."""
    bias = None if bias is None else plain(bias.astype("float32", copy=False))
    step, operation, seed = (0, 0, 0) if key is None else (key.step, key.operation, key.seed)
    launch(
        FILE, "activation_forward", elementwise_grid(h.size), 256,
        h, bias, slope, a, h.size, 0 if bias is None else len(bias), KINDS[name],
        threshold, scale, step, operation, seed, dtype=h.dtype,
    )  # fmt: skip
