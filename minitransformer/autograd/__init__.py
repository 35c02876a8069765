"""Tensors and the tape: gradients of whatever the kernels compute."""

from .gradcheck import backward, grad, gradcheck
from .tape import Node, enable_grad, is_grad_enabled, no_grad, record, set_grad_enabled
from .tensor import Size, Tensor

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
