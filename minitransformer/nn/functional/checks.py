"""What the functions ask of their arguments; each message says what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...autograd import Tensor
from ...autograd.precision import is_autocast_enabled
from ...backend import device_of, is_floating


def check_tensors(name: str, **tensors: Any) -> None:
    """Require Tensors (or None) on one device."""
    first = None
    for argument, value in tensors.items():
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: argument '{argument}' must be a Tensor, not {type(value).__name__}; "
                "wrap it with minitransformer.tensor(...)"
            )
        if first is None:
            first, home = argument, value
        elif type(value.array) is not type(home.array):
            raise RuntimeError(
                f"{name}: expected all tensors to be on the same device, but '{first}' is on "
                f"{device_of(home.array)} and '{argument}' on {device_of(value.array)}; "
                "move one with .to(device)"
            )


def check_same_dtype(name: str, **tensors: Tensor | None) -> None:
    """Require one floating-point dtype, as PyTorch's products do."""
    found = {k: v.array.dtype for k, v in tensors.items() if v is not None}
    dtypes = set(found.values())
    if len(dtypes) > 1 and not is_autocast_enabled():
        listed = ", ".join(f"{argument} is {dtype}" for argument, dtype in found.items())
        raise RuntimeError(f"{name}: expected one dtype, but {listed}; cast with .to(dtype)")
    if integers := [str(dtype) for dtype in dtypes if not is_floating(dtype)]:
        raise RuntimeError(
            f"{name}: needs floating-point tensors, found {integers[0]}; use .float()"
        )


def check_integers(name: str, argument: str, value: Tensor) -> None:
    if value.array.dtype.kind not in "iu":
        raise RuntimeError(
            f"{name}: '{argument}' must hold integers (Long or Int), found {value.array.dtype}; "
            "convert it with .long()"
        )


def check_probability(name: str, p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{name}: dropout probability has to be between 0 and 1, but got {p}")


def check_reduction(name: str, reduction: str, size_average: Any, reduce: Any) -> None:
    if size_average is not None or reduce is not None:
        raise TypeError(f"{name}: size_average and reduce were replaced by reduction=...")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction: none, mean or sum")


def reduced(values: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


def check_normalized(
    name: str, input: Tensor, normalized_shape: Sequence[int], **affine: Tensor | None
) -> int:
    """Require the trailing shape and equally shaped parameters; return its length."""
    shape = tuple(normalized_shape)
    n = len(shape)
    if n == 0 or tuple(input.shape[-n:]) != shape:
        raise RuntimeError(
            f"{name}: given normalized_shape={list(shape)}, expected input with shape "
            f"[*, {', '.join(map(str, shape))}], but got input of size {list(input.shape)}"
        )
    for argument, value in affine.items():
        if value is not None and tuple(value.shape) != shape:
            raise RuntimeError(
                f"{name}: expected {argument} of shape {list(shape)} like normalized_shape, "
                f"found {list(value.shape)}"
            )
    return n
