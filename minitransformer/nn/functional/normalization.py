"""Layer norm, RMS norm and the norm of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...autograd import Tensor, record
from ...backend import limits
from ...kernels import layer_norm as _layer_norm
from ...kernels import rms_norm as _rms_norm
from .checks import check_normalized, check_same_dtype, check_tensors


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    r"""Normalise the trailing dimensions to mean 0 and variance 1, then scale and shift.

    Parameters
    ----------
    input : (..., *normalized_shape) float Tensor
    normalized_shape : sequence of int
        The trailing shape over which mean and variance are taken.
    weight, bias : normalized_shape float Tensor, optional
    eps : float
        Added to the (biased) variance under the root.

    Returns
    -------
    Tensor of input's shape

    Raises
    ------
    RuntimeError
        If shapes, dtypes or devices do not fit.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.layer_norm(mt.tensor([[1.0, 3.0]]), [2], eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    check_tensors("layer_norm", input=input, weight=weight, bias=bias)
    check_same_dtype("layer_norm", input=input, weight=weight, bias=bias)
    n = check_normalized("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    return record(
        _layer_norm.layer_norm_forward,
        _layer_norm.layer_norm_backward,
        input,
        weight,
        bias,
        normalized_ndim=n,
        eps=eps,
    )


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    r"""Divide the trailing dimensions by their root mean square, then scale.

    Parameters
    ----------
    input : (..., *normalized_shape) float Tensor
    normalized_shape : sequence of int
    weight : normalized_shape float Tensor, optional
    eps : float, optional
        Added to the mean square; None means the machine epsilon of the dtype.

    Returns
    -------
    Tensor of input's shape

    Raises
    ------
    RuntimeError
        If shapes, dtypes or devices do not fit.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.rms_norm(mt.tensor([[3.0, 3.0]]), [2], eps=0.0).tolist()
    [[1.0, 1.0]]
    """
    check_tensors("rms_norm", input=input, weight=weight)
    check_same_dtype("rms_norm", input=input, weight=weight)
    n = check_normalized("rms_norm", input, normalized_shape, weight=weight)
    return record(
        _rms_norm.rms_norm_forward,
        _rms_norm.rms_norm_backward,
        input,
        weight,
        normalized_ndim=n,
        eps=eps,
    )


def normalize(
    input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    r"""Divide by :math:`\max(\lVert x\rVert_p, \epsilon)` along one dimension.

    Parameters
    ----------
    input : float Tensor
    p : float
        Exponent of the norm; ``inf`` for the largest absolute value.
    dim : int
    eps : float
        Lower bound of the divisor.
    out : None
        Not supported.

    Returns
    -------
    Tensor of input's shape

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.normalize(mt.tensor([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    if out is not None:
        raise NotImplementedError("normalize: out= is not supported")
    check_tensors("normalize", input=input)
    if math.isinf(p):
        return input / input.abs().amax(dim, keepdim=True).clamp(min=eps)
    powers = input * input if p == 2 else input.abs() ** p
    # Clamped before the root, whose slope at zero is infinite; never below what the dtype holds.
    least = max(eps**p, float(limits(input.array.dtype).tiny))
    total = powers.sum(dim, keepdim=True).clamp(min=least)
    return input / (total.sqrt() if p == 2 else total ** (1.0 / p))
