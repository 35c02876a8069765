"""Tensors and the tape: gradients of whatever the kernels compute."""

from typing import Any

from .gradcheck import backward, grad, gradcheck
from .precision import (
    autocast,
    clear_autocast_cache,
    get_autocast_dtype,
    is_autocast_enabled,
)
from .tape import Node, enable_grad, is_grad_enabled, no_grad, record, set_grad_enabled
from .tensor import Size, Tensor

_ABSENT = {
    "Function": "write a kernel pair, forward and backward on arrays, and call record() on it",
    "functional": "there are no second derivatives here",
    "detect_anomaly": "look at gradients with Tensor.register_hook",
}

__all__ = [
    "Node",
    "Size",
    "Tensor",
    "autocast",
    "backward",
    "clear_autocast_cache",
    "enable_grad",
    "get_autocast_dtype",
    "grad",
    "gradcheck",
    "is_autocast_enabled",
    "is_grad_enabled",
    "no_grad",
    "record",
    "set_grad_enabled",
]


def __getattr__(name: str) -> Any:
    advice = f": {_ABSENT[name]}" if name in _ABSENT else ""
    raise AttributeError(f"minitransformer has no `torch.autograd.{name}`{advice}")
