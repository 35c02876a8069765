"""Layer normalisation and its root-mean-square form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor
from ..autograd.creation import empty
from . import functional as F
from . import init
from .module import Module, Parameter

__all__ = ["LayerNorm", "RMSNorm"]


class LayerNorm(Module):
    """Normalise the trailing dimensions, then scale and shift by learned parameters.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The trailing shape.
    eps : float
        Added to the variance under the root.
    elementwise_affine : bool
        Learn a scale and (with `bias`) a shift.
    bias : bool
    device, dtype : optional

    Attributes
    ----------
    weight : normalized_shape Parameter or None
        Initially one.
    bias : normalized_shape Parameter or None
        Initially zero.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.LayerNorm(10)
    LayerNorm((10,), eps=1e-05, elementwise_affine=True, bias=True)
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        for name, present in (
            ("weight", elementwise_affine),
            ("bias", elementwise_affine and bias),
        ):
            value = empty(*self.normalized_shape, device=device, dtype=dtype) if present else None
            self.register_parameter(name, None if value is None else Parameter(value))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale to one and the shift to zero."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Settings."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """Divide the trailing dimensions by their root mean square, then scale.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The trailing shape.
    eps : float, optional
        Added to the mean square; None means the machine epsilon of the input's dtype.
    elementwise_affine : bool
        Learn a scale.
    device, dtype : optional

    Attributes
    ----------
    weight : normalized_shape Parameter or None
        Initially one.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.RMSNorm(10)
    RMSNorm((10,), eps=None, elementwise_affine=True)
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        if elementwise_affine:
            self.weight = Parameter(empty(*self.normalized_shape, device=device, dtype=dtype))
        else:
            self.register_parameter("weight", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale to one."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Settings."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )
