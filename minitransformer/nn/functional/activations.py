"""Elementwise activations and the softmax."""

from __future__ import annotations

import warnings
from typing import Any

from ...autograd import Tensor, record
from ...autograd.inplace import in_place
from ...autograd.precision import as_one_operation
from ...backend import array_module
from ...kernels import activation as _activation
from ...kernels import shape as _shape
from ...kernels import softmax as _softmax
from .checks import check_same_dtype, check_tensors


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return the positive part, max(x, 0)."""
    check_tensors("relu", input=input)
    if inplace:
        return in_place("relu_", relu)(input)
    return record(_activation.relu_forward, _activation.relu_backward, input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    r"""Return :math:`x\,\Phi(x)` with the normal distribution function, or its tanh form.

    Parameters
    ----------
    input : float Tensor
    approximate : {"none", "tanh"}

    Returns
    -------
    Tensor of input's shape

    Raises
    ------
    RuntimeError
        For another `approximate`.
    """
    check_tensors("gelu", input=input)
    if approximate not in ("none", "tanh"):
        raise RuntimeError(
            f"gelu: approximate argument must be either none or tanh, got {approximate!r}"
        )
    return record(
        _activation.gelu_forward, _activation.gelu_backward, input, approximate=approximate
    )


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return x times its logistic sigmoid."""
    check_tensors("silu", input=input)
    if inplace:
        return in_place("silu_", silu)(input)
    return record(_activation.silu_forward, _activation.silu_backward, input)


def sigmoid(input: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x))."""
    check_tensors("sigmoid", input=input)
    return input.sigmoid()


def tanh(input: Tensor) -> Tensor:
    """Return the hyperbolic tangent."""
    check_tensors("tanh", input=input)
    return input.tanh()


@as_one_operation
def logsigmoid(input: Tensor) -> Tensor:
    """Return log(1 / (1 + exp(-x))) without overflow: the log-softmax of x beside 0."""
    check_tensors("logsigmoid", input=input)
    return log_sigmoids(input)[0]


def log_sigmoids(x: Tensor) -> tuple[Tensor, ...]:
    """Return log sigma(x) and log sigma(-x): the log-softmax of the pair (x, 0)."""
    zero = Tensor(array_module(x.array).zeros_like(x.array))
    pair = record(_shape.stack_forward, _shape.stack_backward, x, zero, axis=-1)
    return log_softmax(pair, dim=-1).unbind(-1)


def _softmax_dim(name: str, input: Tensor, dim: int | None, stacklevel: int) -> int:
    if dim is None:
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. "
            "Change the call to include dim=X as an argument.",
            stacklevel=stacklevel + 1,
        )
        return 0 if input.ndim in (0, 1, 3) else 1
    if not -max(input.ndim, 1) <= dim < max(input.ndim, 1):
        raise IndexError(
            f"{name}: dimension out of range (expected to be in range of "
            f"[{-max(input.ndim, 1)}, {max(input.ndim, 1) - 1}], but got {dim})"
        )
    return dim


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """Return exp(x) scaled to sum to one along `dim`.

    Parameters
    ----------
    input : float Tensor
    dim : int
    dtype : dtype, optional
        Cast to this first.

    Returns
    -------
    Tensor of input's shape

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.softmax(mt.tensor([0.0, 0.0]), dim=0).tolist()
    [0.5, 0.5]
    """
    check_tensors("softmax", input=input)
    axis = _softmax_dim("softmax", input, dim, _stacklevel)
    input = input if dtype is None else input.to(dtype)
    check_same_dtype("softmax", input=input)
    return record(_softmax.softmax_forward, _softmax.softmax_backward, input, axis=axis)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """Return the logarithm of `softmax`, computed without forming it."""
    check_tensors("log_softmax", input=input)
    axis = _softmax_dim("log_softmax", input, dim, _stacklevel)
    input = input if dtype is None else input.to(dtype)
    check_same_dtype("log_softmax", input=input)
    return record(_softmax.log_softmax_forward, _softmax.log_softmax_backward, input, axis=axis)
