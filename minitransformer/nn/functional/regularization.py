"""Dropout."""

from __future__ import annotations

from ...autograd import Tensor, record
from ...autograd.inplace import in_place
from ...backend import next_key
from ...kernels import dropout as _dropout
from .checks import check_probability, check_tensors


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Set each number to zero with probability `p` and divide the others by 1 - p.

    Parameters
    ----------
    input : float Tensor
    p : float
    training : bool
        False returns `input` itself.
    inplace : bool
        Put the result in the place of `input`.

    Returns
    -------
    Tensor of input's shape

    Raises
    ------
    ValueError
        If `p` is not a probability.
    """
    check_tensors("dropout", input=input)
    check_probability("dropout", p)
    if not training or p == 0.0:
        return input
    if inplace:
        return in_place("dropout_", dropout)(input, p)
    return record(_dropout.dropout_forward, _dropout.dropout_backward, input, p=p, key=next_key())
