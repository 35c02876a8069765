"""Rows for ids, one-hot rows, rotary positions."""

from __future__ import annotations

from ...autograd import Tensor, record
from ...backend import array_module
from ...kernels import embedding as _embedding
from ...kernels import positional as _positional
from .checks import check_integers, check_tensors


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Look up rows of a table.

    Parameters
    ----------
    input : (...) integer Tensor
        Row numbers.
    weight : (V, D) float Tensor
        The table.
    padding_idx : int, optional
        A row that receives no gradient; may be negative.
    max_norm, norm_type, scale_grad_by_freq, sparse
        Only their defaults are supported.

    Returns
    -------
    (..., D) Tensor

    Raises
    ------
    IndexError
        If an id is negative or not below V.
    RuntimeError
        If `input` does not hold integers or `weight` is not a matrix.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.embedding(mt.tensor([[0, 2]]), mt.ones(3, 4)).shape
    torch.Size([1, 2, 4])
    """
    check_tensors("embedding", input=input, weight=weight)
    for option, used in (
        ("max_norm", max_norm is not None),
        ("scale_grad_by_freq", scale_grad_by_freq),
        ("sparse", sparse),
    ):
        if used:
            raise NotImplementedError(f"embedding: {option} is not supported")
    check_integers("embedding", "input", input)
    if weight.ndim != 2:
        raise RuntimeError(f"'weight' must be 2-D, found shape {tuple(weight.shape)}")
    rows = weight.shape[0]
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise ValueError(
            f"embedding: padding_idx {padding_idx} must be within the {rows} embeddings"
        )
    return record(
        _embedding.embedding_forward,
        _embedding.embedding_backward_sparse,
        input,
        weight,
        padding_idx=padding_idx,
    )


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Return 0/1 rows with the one at each class.

    Parameters
    ----------
    tensor : (...) integer Tensor
        Class numbers.
    num_classes : int
        Length of the rows; -1 takes the largest class plus one.

    Returns
    -------
    (..., num_classes) int64 Tensor

    Raises
    ------
    RuntimeError
        If a class is negative or not below `num_classes`.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.one_hot(mt.tensor([1, 0])).tolist()
    [[0, 1], [1, 0]]
    """
    check_tensors("one_hot", tensor=tensor)
    check_integers("one_hot", "tensor", tensor)
    ids = tensor.array
    if ids.size == 0 and num_classes <= 0:
        raise RuntimeError("one_hot: cannot infer the number of classes from an empty tensor")
    low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, -1)
    if low < 0:
        raise RuntimeError(f"one_hot: class values must be non-negative, found {low}")
    if num_classes != -1 and high >= num_classes:
        raise RuntimeError(
            f"one_hot: class values must be smaller than num_classes={num_classes}, found {high}"
        )
    xp = array_module(ids)
    columns = xp.arange(high + 1 if num_classes == -1 else num_classes)
    return Tensor((ids[..., None] == columns).astype("int64"))


def rotary(input: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Rotate pairs of features by position-dependent angles.

    Parameters
    ----------
    input : (..., L, E) float Tensor
        Queries or keys; E is even.
    cos, sin : float Tensor
        Of the angles, broadcastable to (..., L, E // 2).
    interleaved : bool
        Pair features (2i, 2i + 1) instead of (i, i + E / 2).

    Returns
    -------
    Tensor of input's shape

    References
    ----------
    .. [1] Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021,
       equation 34.
    """
    check_tensors("rotary", input=input, cos=cos, sin=sin)
    return record(
        _positional.rotary_forward,
        _positional.rotary_backward,
        input,
        cos,
        sin,
        interleaved=interleaved,
    )
