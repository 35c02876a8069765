"""Activations as modules; none of them has parameters."""

from __future__ import annotations

from ..autograd import Tensor
from . import functional as F
from .module import Module

__all__ = ["GELU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Tanh"]


class ReLU(Module):
    """The positive part, max(x, 0).

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.ReLU()(mt.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        return F.relu(input, self.inplace)

    def extra_repr(self) -> str:
        """Settings."""
        return "inplace=True" if self.inplace else ""


class GELU(Module):
    r"""The Gaussian error linear unit :math:`x\,\Phi(x)`, exact or in its tanh form.

    Parameters
    ----------
    approximate : {"none", "tanh"}

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.GELU()
    GELU(approximate='none')
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """Settings."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x times its logistic sigmoid, also called Swish.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.SiLU()(mt.zeros(1)).tolist()
    [0.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        return F.silu(input, self.inplace)

    def extra_repr(self) -> str:
        """Settings."""
        return "inplace=True" if self.inplace else ""


class Tanh(Module):
    """The hyperbolic tangent.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.Tanh()(mt.zeros(1)).tolist()
    [0.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        return F.tanh(input)


class Sigmoid(Module):
    """The logistic sigmoid, 1 / (1 + exp(-x)).

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.Sigmoid()(mt.zeros(1)).tolist()
    [0.5]
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        return F.sigmoid(input)


class Softmax(Module):
    """Exponentials scaled to sum to one along a dimension.

    Parameters
    ----------
    dim : int

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.Softmax(dim=-1)(mt.zeros(1, 2)).tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        return F.softmax(input, self.dim, _stacklevel=5)

    def extra_repr(self) -> str:
        """Settings."""
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """The logarithm of `Softmax`.

    Parameters
    ----------
    dim : int

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.LogSoftmax(dim=-1)(mt.zeros(1, 1)).tolist()
    [[0.0]]
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        return F.log_softmax(input, self.dim, _stacklevel=5)
