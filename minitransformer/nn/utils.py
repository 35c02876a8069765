"""Work on many parameters at once: gradient norms, clipping, one flat vector."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from types import GeneratorType
from typing import Any

from ..autograd import Tensor, no_grad
from ..backend import accumulator, array_module, quiet
from ..kernels import cuda

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]


def _as_list(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _norm(array: Any, p: float) -> Any:
    xp = array_module(array)
    # squares of half-precision numbers overflow from 256 on: sum in float32
    flat = array.reshape(-1).astype(accumulator(array.dtype), copy=False)
    if p == 2.0:
        return xp.sqrt(xp.dot(flat, flat))
    return xp.linalg.norm(flat, p) if flat.size else flat.dtype.type(0)


@no_grad()
def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Return the norm of several tensors as if they were one vector.

    Parameters
    ----------
    tensors : Tensor or iterable of Tensor
    norm_type : float
        Exponent; ``inf`` for the largest absolute value.
    error_if_nonfinite : bool
        Raise instead of returning inf or NaN.
    foreach : bool, optional
        Accepted and without effect.

    Returns
    -------
    () Tensor

    Raises
    ------
    RuntimeError
        If the norm is not finite and that was to be an error.
    """
    arrays = [tensor.array for tensor in _as_list(tensors)]
    norm_type = float(norm_type)
    if not arrays:
        import numpy as np

        return Tensor(np.zeros((), np.float32))
    if norm_type == 2.0 and all(cuda.listed(a) for a in arrays):
        total = cuda.gradient_norm(arrays)
    else:
        xp = array_module(arrays[0])
        with quiet(xp):  # a square that overflows makes the norm inf, as in PyTorch
            total = xp.asarray(_norm(xp.stack([_norm(a, norm_type) for a in arrays]), norm_type))
    if error_if_nonfinite and not math.isfinite(float(total)):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite "
            f"({float(total)}), so it cannot be clipped. To disable this error and scale the "
            "gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return Tensor(total)


@no_grad()
def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    total_norm: Tensor,
    foreach: bool | None = None,
) -> None:
    """Scale the gradients in place by ``min(1, max_norm / (total_norm + 1e-6))``.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
    max_norm : float
    total_norm : () Tensor
    foreach : bool, optional
        Accepted and without effect.
    """
    gradients = [p.grad.array for p in _as_list(parameters) if p.grad is not None]
    norm = total_norm.array
    distinct = len({id(g) for g in gradients}) == len(gradients)
    if distinct and cuda.listed(norm) and all(cuda.listed(g) for g in gradients):
        cuda.clip_gradients(gradients, norm, float(max_norm))
        return
    xp = array_module(norm)
    with quiet(xp):
        scale = xp.minimum(float(max_norm) / (norm + 1e-6), 1.0)
    if not total_norm.is_cuda and scale == 1.0:  # on a GPU looking costs more than scaling
        return
    for gradient in gradients:
        with quiet(array_module(gradient)):
            gradient *= scale


@no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients in place so that their joint norm is at most `max_norm`.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient do not count.
    max_norm : float
    norm_type : float
        Exponent; ``inf`` for the largest absolute value.
    error_if_nonfinite : bool
        Raise, before anything is changed, if the norm is inf or NaN.
    foreach : bool, optional
        Accepted and without effect.

    Returns
    -------
    () Tensor
        The norm before clipping; on a GPU nothing waits for it unless it is looked at.

    Raises
    ------
    RuntimeError
        If the norm is not finite and that was to be an error.

    References
    ----------
    .. [1] Pascanu et al., "On the difficulty of training recurrent neural networks", 2013,
       algorithm 1.

    Examples
    --------
    >>> import minitransformer as mt
    >>> p = mt.nn.Parameter(mt.zeros(2))
    >>> p.grad = mt.tensor([3.0, 4.0])
    >>> mt.nn.utils.clip_grad_norm_([p], max_norm=1.0).item()
    5.0
    """
    listed = _as_list(parameters)
    if not listed and isinstance(parameters, GeneratorType):
        warnings.warn(
            "`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3
        )
    gradients = [p.grad for p in listed if p.grad is not None]
    total = get_total_norm(gradients, norm_type, error_if_nonfinite)
    clip_grads_with_norm_(listed, max_norm, total)
    return total


@no_grad()
def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Limit every number of every gradient to [-clip_value, clip_value], in place.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
    clip_value : float
    foreach : bool, optional
        Accepted and without effect.
    """
    clip_value = float(clip_value)
    for parameter in _as_list(parameters):
        if parameter.grad is not None:
            gradient = parameter.grad.array
            array_module(gradient).clip(gradient, -clip_value, clip_value, out=gradient)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Join parameters into one vector, on the tape.

    Parameters
    ----------
    parameters : iterable of Tensor

    Returns
    -------
    (n,) Tensor
    """
    from ..autograd.shapes import cat

    return cat([parameter.reshape(-1) for parameter in parameters])


@no_grad()
def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the parts of a vector into parameters, in order.

    Parameters
    ----------
    vec : (n,) Tensor
    parameters : iterable of Tensor

    Raises
    ------
    TypeError
        If `vec` is not a Tensor.
    RuntimeError
        If the vector is too short; nothing is changed then.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected a Tensor, but got: {type(vec).__name__}")
    listed = list(parameters)
    needed = sum(parameter.array.size for parameter in listed)
    if vec.array.size < needed:
        raise RuntimeError(
            f"vector_to_parameters: the parameters hold {needed} numbers, vec only {vec.array.size}"
        )
    start = 0
    for parameter in listed:
        stop = start + parameter.array.size
        parameter.array[...] = vec.array[start:stop].reshape(parameter.array.shape)
        parameter.version[0] += 1
        start = stop
