"""Dropout as a module, and before a residual sum."""

from __future__ import annotations

from ..autograd import Tensor, record
from ..backend import next_key
from ..kernels import dropout as _dropout
from . import functional as F
from .module import Module

__all__ = ["Dropout"]


class Dropout(Module):
    """In training, zero each number with probability `p` and divide the rest by 1 - p.

    Parameters
    ----------
    p : float
    inplace : bool
        Put the result in the place of the input.

    Raises
    ------
    ValueError
        If `p` is not a probability.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.Dropout(0.2).eval()(mt.ones(2)).tolist()
    [1.0, 1.0]
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        """Settings."""
        return f"p={self.p}, inplace={self.inplace}"


def residual_dropout(residual: Tensor, x: Tensor, p: float, training: bool) -> Tensor:
    """Return ``residual + dropout(x)``: one kernel, with dropout's random numbers.

    Parameters
    ----------
    residual : float Tensor
    x : float Tensor
    p : float
        Probability of a zero.
    training : bool
        False adds `x` as it is.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import minitransformer as mt
    >>> residual_dropout(mt.ones(2), mt.ones(2), 1.0, training=True).tolist()
    [1.0, 1.0]
    """
    alike = residual.shape == x.shape and residual.dtype == x.dtype
    if not training or p == 0.0 or not alike:
        return residual + F.dropout(x, p, training)
    total: Tensor = record(
        _dropout.residual_dropout_forward,
        _dropout.residual_dropout_backward,
        x,
        residual,
        p=p,
        key=next_key(),
    )
    return total
