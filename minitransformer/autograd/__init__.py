"""Tensors and the tape: gradients of whatever the kernels compute."""

from typing import Any

from .gradcheck import backward, grad, gradcheck
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
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "is_grad_enabled",
    "no_grad",
    "record",
    "set_grad_enabled",
]


def __getattr__(name: str) -> Any:
    advice = f": {_ABSENT[name]}" if name in _ABSENT else ""
    raise AttributeError(f"minitransformer has no `torch.autograd.{name}`{advice}")
