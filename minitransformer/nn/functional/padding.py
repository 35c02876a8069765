"""Padding."""

from __future__ import annotations

from collections.abc import Sequence

from ...autograd import Tensor, record
from ...kernels import shape as _shape
from .checks import check_tensors


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Add (or, if negative, cut) entries at the ends of the last dimensions.

    Parameters
    ----------
    input : Tensor
    pad : sequence of int
        Pairs (before, after), the last dimension first.
    mode : {"constant"}
    value : float, optional
        What is added; 0 if not given.

    Returns
    -------
    Tensor

    Raises
    ------
    RuntimeError
        If `pad` has odd length or more pairs than there are dimensions.
    NotImplementedError
        For another mode.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.pad(mt.tensor([1, 2]), (1, -1)).tolist()
    [0, 1]
    """
    check_tensors("pad", input=input)
    if mode != "constant":
        raise NotImplementedError(f"pad: mode {mode!r} is not supported, only 'constant'")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise RuntimeError(
            f"pad: needs (before, after) pairs for at most {input.ndim} dimensions, got {list(pad)}"
        )
    pairs = [(0, 0)] * (input.ndim - len(pad) // 2)
    pairs += [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    for size, (before, after) in zip(input.shape, pairs):
        if size + before + after < 0:
            raise RuntimeError(
                f"pad: {list(pad)} cuts more than the input of shape {tuple(input.shape)} has"
            )
    if any(width < 0 for pair in pairs for width in pair):
        input = input[
            tuple(
                slice(max(-before, 0), size - max(-after, 0))
                for size, (before, after) in zip(input.shape, pairs)
            )
        ]
    widths = tuple((max(before, 0), max(after, 0)) for before, after in pairs)
    return record(
        _shape.pad_forward,
        _shape.pad_backward,
        input,
        widths=widths,
        value=0 if value is None else value,
    )
