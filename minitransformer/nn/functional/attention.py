"""Scaled dot-product attention."""

from __future__ import annotations

import math

import numpy as np

from ...autograd import Tensor, record
from ...backend import array_module, next_key
from ...kernels import attention as _attention
from .checks import check_probability, check_same_dtype, check_tensors


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    r"""Return :math:`\mathrm{softmax}(s\,Q K^\top + M)\,V` without forming the L by S matrix.

    Parameters
    ----------
    query : (..., H, L, E) float Tensor
    key : (..., G, S, E) float Tensor
    value : (..., G, S, Ev) float Tensor
    attn_mask : Tensor broadcastable to (..., H, L, S), optional
        Boolean: True where a query MAY attend (the opposite of `nn.MultiheadAttention`).
        Float: added to the scores.
    dropout_p : float
        Always applied if positive: pass 0 in evaluation.
    is_causal : bool
        Let query i attend to keys 0..i only; excludes `attn_mask`.
    scale : float, optional
        Factor of the scores, by default 1 / sqrt(E).
    enable_gqa : bool
        Allow H to be a multiple of G, each key head serving H / G query heads in a row.

    Returns
    -------
    (..., H, L, Ev) Tensor
        Rows that may attend to nothing are zero.

    Raises
    ------
    RuntimeError
        If shapes, dtypes, devices or masks do not fit.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", 2017, equation 1.
    .. [2] Dao et al., "FlashAttention", 2022, algorithm 1.

    Examples
    --------
    >>> import minitransformer as mt
    >>> q = mt.ones(1, 2, 3, 4)
    >>> mt.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).shape
    torch.Size([1, 2, 3, 4])
    """
    name = "scaled_dot_product_attention"
    check_tensors(name, query=query, key=key, value=value, attn_mask=attn_mask)
    check_same_dtype(name, query=query, key=key, value=value)
    check_probability(name, dropout_p)
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            f"{name}: query, key and value need at least the dimensions (length, features), found "
            f"{query.ndim}, {key.ndim} and {value.ndim}"
        )
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise RuntimeError(
            f"{name}: query {tuple(query.shape)} and key {tuple(key.shape)} must agree in the last "
            f"dimension, key and value {tuple(value.shape)} in the one before it"
        )
    query, key, value, dims = _broadcast_heads(name, query, key, value, enable_gqa)
    if attn_mask is not None:
        if is_causal:
            raise RuntimeError(
                f"{name}: explicit attn_mask should not be set when is_causal=True; "
                "merge the causal mask into attn_mask"
            )
        full = (*query.shape[:-1], key.shape[-2])
        attn_mask = check_attention_mask(name, attn_mask, full, query)
    out = record(
        _attention.attention_forward,
        _attention.attention_backward,
        query,
        key,
        value,
        attn_mask,
        is_causal=is_causal,
        scale=scale,
        dropout_p=dropout_p,
        key=next_key() if dropout_p > 0.0 else None,
        mask_gradient=attn_mask is not None and attn_mask.requires_grad,
    )
    return out.squeeze(0) if dims == 2 else out


def _broadcast_heads(
    name: str, query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Give the three equal leading dimensions, heads apart where they are grouped."""
    dims = max(query.ndim, key.ndim, value.ndim)
    if dims == 2:
        return query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0), dims
    if query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        return query, key, value, dims
    if enable_gqa:
        H, G = query.shape[-3], key.shape[-3]
        if value.shape[-3] != G or G == 0 or H % G:
            raise RuntimeError(
                f"{name}: with enable_gqa the query's {H} heads must be a multiple of the {G} "
                f"heads of key, which value ({value.shape[-3]}) shares"
            )
        trailing = -3
    else:
        trailing = -2
    try:
        lead = np.broadcast_shapes(*(tuple(t.shape[:trailing]) for t in (query, key, value)))
    except ValueError:
        hint = "" if enable_gqa else "; for grouped heads pass enable_gqa=True"
        raise RuntimeError(
            f"{name}: query {tuple(query.shape)}, key {tuple(key.shape)} and value "
            f"{tuple(value.shape)} do not broadcast in their leading dimensions{hint}"
        ) from None
    query, key, value = (
        t if tuple(t.shape[:trailing]) == lead else t.expand(*lead, *t.shape[trailing:])
        for t in (query, key, value)
    )
    return query, key, value, dims


def refuse_inverted_causal(name: str, argument: str, mask: Tensor, may_attend: bool) -> None:
    """Refuse a causal mask whose true entries mean the opposite of what is expected here.

    Read the wrong way round it would let each position see the future alone. Numbers 0 and 1
    are refused in either pattern: added to the scores they would hide nothing.
    """
    array = mask.array
    *lead, L, S = array.shape
    if mask.is_cuda or L != S or L < 2 or math.prod(lead) != 1:
        return
    square = array.reshape(L, S)
    corners = (float(square[0, 0]), float(square[0, -1]))
    boolean = array.dtype.kind == "b"
    suspects = (
        (((0.0, 1.0) if may_attend else (1.0, 0.0)),) if boolean else ((1.0, 0.0), (0.0, 1.0))
    )
    if corners not in suspects:
        return
    past = array_module(square).tri(L, dtype=bool)
    if not (square == (past if corners[0] else ~past)).all():
        return
    sense = "may" if may_attend else "may NOT"
    if boolean:
        raise RuntimeError(
            f"{name}: {argument} is a causal mask of the opposite sense: here True means {sense} "
            f"attend; pass ~{argument}"
        )
    raise RuntimeError(
        f"{name}: {argument} is a causal mask of the numbers 0 and 1, which would be added to the "
        f"scores; pass it as bool, True where a query {sense} attend"
    )


def check_attention_mask(name: str, mask: Tensor, full: tuple[int, ...], query: Tensor) -> Tensor:
    kind = mask.array.dtype.kind
    if kind not in "bfV" or mask.array.dtype.itemsize > max(query.array.dtype.itemsize, 4):
        raise RuntimeError(
            f"{name}: expected attn_mask dtype to be bool or float or to match query dtype, but "
            f"got attn_mask.dtype: {mask.array.dtype} and query.dtype: {query.array.dtype}"
        )
    shape = tuple(mask.shape)
    fits = len(shape) <= len(full) and all(
        m in (1, n) for m, n in zip(reversed(shape), reversed(full))
    )
    if not fits:
        raise RuntimeError(
            f"{name}: attn_mask of shape {shape} does not broadcast to the scores' shape {full} "
            "(..., query length, key length)"
        )
    refuse_inverted_causal(name, "attn_mask", mask, may_attend=True)
    return mask.to(query.dtype) if kind != "b" and mask.dtype != query.dtype else mask
