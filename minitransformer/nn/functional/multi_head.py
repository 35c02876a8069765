"""Multi-head attention: projections, masks and heads around one attention."""

from __future__ import annotations

import math

from ...autograd import Tensor, record
from ...backend import array_module, next_key
from ...kernels import attention as _attention
from ...kernels import shape as _shape
from .activations import softmax
from .attention import refuse_inverted_causal
from .checks import check_tensors
from .padding import pad
from .products import linear
from .regularization import dropout


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""Project, attend in several heads, and project back.

    Parameters
    ----------
    query : (L, B, D) or (L, D) float Tensor
        With `batch_first` (B, L, D); the same holds for key and value.
    key : (S, B, Dk) or (S, Dk) float Tensor
    value : (S, B, Dv) or (S, Dv) float Tensor
    embed_dim_to_check : int
        D.
    num_heads : int
        H, a divisor of D.
    in_proj_weight : (3 D, D) float Tensor or None
        The three projections stacked: query, key, value.
    in_proj_bias : (3 D,) float Tensor or None
    bias_k, bias_v : (1, 1, D) float Tensor or None
        One learned key and value put after the others.
    add_zero_attn : bool
        Put a zero key and value after the others.
    dropout_p : float
        Dropout of the attention weights, in training only.
    out_proj_weight : (D, D) float Tensor
    out_proj_bias : (D,) float Tensor or None
    training : bool
    key_padding_mask : (B, S) or (S,) Tensor, optional
        Boolean: True where a key must NOT be attended to. Float: added to the scores.
    need_weights : bool
        Also return the attention weights; the fused kernel is used only without them.
    attn_mask : (L, S) or (B H, L, S) Tensor, optional
        Boolean: True where a query may NOT attend. Float: added to the scores.
    use_separate_proj_weight : bool
        Use the next three arguments instead of `in_proj_weight`.
    q_proj_weight : (D, D) float Tensor, optional
    k_proj_weight : (D, Dk) float Tensor, optional
    v_proj_weight : (D, Dv) float Tensor, optional
    static_k, static_v : None
        Not supported.
    average_attn_weights : bool
        Return weights averaged over the heads.
    is_causal : bool
        A promise that `attn_mask` is the causal mask, which then need not be read.
    batch_first : bool
        An addition to PyTorch's arguments that spares two transpositions.

    Returns
    -------
    output : Tensor of query's shape
    weights : (B, L, S) or, per head, (B, H, L, S) Tensor; None without `need_weights`
        Without the batch dimension for unbatched inputs.

    Raises
    ------
    RuntimeError
        If shapes, dtypes, devices or masks do not fit.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", 2017, section 3.2.2.
    """
    name = "multi_head_attention"
    if static_k is not None or static_v is not None:
        raise NotImplementedError(f"{name}: static_k and static_v are not supported")
    check_tensors(
        name,
        query=query,
        key=key,
        value=value,
        in_proj_weight=in_proj_weight,
        key_padding_mask=key_padding_mask,
        attn_mask=attn_mask,
    )
    batched = query.ndim == 3
    if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
        raise RuntimeError(
            f"{name}: query, key and value must all be 3-D (batched) or all 2-D (unbatched), "
            f"found {query.ndim}-D, {key.ndim}-D and {value.ndim}-D"
        )
    same_qk, same_kv = key is query, value is key
    if not batched:
        batch_axis = 0 if batch_first else 1
        query = query.unsqueeze(batch_axis)
        key = query if same_qk else key.unsqueeze(batch_axis)
        value = key if same_kv else value.unsqueeze(batch_axis)
        if key_padding_mask is not None and key_padding_mask.ndim == 1:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    L, B, S = _check_heads_shapes(
        name, query, key, value, embed_dim_to_check, num_heads, batch_first
    )
    allowed = _Masks(name, B, num_heads, L, S, query)
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module "
            "method `generate_square_subsequent_mask` to create this mask."
        )
    allowed.check("attn_mask", attn_mask, ((L, S), (B * num_heads, L, S)))
    allowed.check("key_padding_mask", key_padding_mask, ((B, S),))
    if attn_mask is not None:
        refuse_inverted_causal(name, "attn_mask", attn_mask, may_attend=False)

    D = embed_dim_to_check
    H, E = num_heads, D // num_heads
    if use_separate_proj_weight:
        q, k, v = _separate_projections(
            name, query, key, value, (q_proj_weight, k_proj_weight, v_proj_weight), in_proj_bias
        )
    else:
        if in_proj_weight is None:
            raise RuntimeError(
                f"{name}: in_proj_weight is None, but use_separate_proj_weight False"
            )
        if key.shape != value.shape:
            raise RuntimeError(
                f"{name}: key shape {tuple(key.shape)} does not match value shape "
                f"{tuple(value.shape)}"
            )
        q, k, v = _packed_projections(query, key, value, in_proj_weight, in_proj_bias)

    extra = 0
    if (bias_k is None) != (bias_v is None):
        raise RuntimeError(f"{name}: bias_k and bias_v must be given together")
    sequence = 1 if batch_first else 0
    one = (B, 1, D) if batch_first else (1, B, D)
    if bias_k is not None and bias_v is not None:
        k = _append(k, bias_k.expand(*one), sequence)
        v = _append(v, bias_v.expand(*one), sequence)
        extra += 1
    if add_zero_attn:
        zeros = Tensor(array_module(k.array).zeros(one, dtype=k.array.dtype))
        k, v = _append(k, zeros, sequence), _append(v, zeros, sequence)
        extra += 1

    # (B, L, D) or (L, B, D) to (B, H, L, E): views, nothing is copied.
    order = (0, 2, 1, 3) if batch_first else (1, 2, 0, 3)
    q, k, v = (t.reshape(t.shape[0], t.shape[1], H, E).permute(*order) for t in (q, k, v))
    dropout_p = dropout_p if training else 0.0
    weights = None
    if need_weights:
        bias = allowed.additive(attn_mask, key_padding_mask, extra)
        out, weights = _attention_with_weights(q, k, v, bias, key_padding_mask, extra, dropout_p)
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        # The promise covers the keys that were given, not those put after them.
        causal = is_causal and not extra
        mask = allowed.merged(None if causal else attn_mask, key_padding_mask, extra)
        out = record(
            _attention.attention_forward,
            _attention.attention_backward,
            q,
            k,
            v,
            mask,
            is_causal=causal,
            dropout_p=dropout_p,
            key=next_key() if dropout_p > 0.0 else None,
            mask_gradient=mask is not None and mask.requires_grad,
        )
    back = (0, 2, 1, 3) if batch_first else (2, 0, 1, 3)
    out = out.permute(*back).reshape(*query.shape[:2], D)
    out = linear(out, out_proj_weight, out_proj_bias)
    if not batched:
        out = out.squeeze(0 if batch_first else 1)
        weights = None if weights is None else weights.squeeze(0)
    return out, weights


def _check_heads_shapes(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_heads: int,
    batch_first: bool,
) -> tuple[int, int, int]:
    """Return L, B, S once the three inputs fit together."""
    if query.shape[-1] != embed_dim:
        raise RuntimeError(
            f"{name}: was expecting embedding dimension of {embed_dim}, but got "
            f"{query.shape[-1]} in query of shape {tuple(query.shape)}"
        )
    if embed_dim % num_heads:
        raise RuntimeError(f"{name}: embed_dim {embed_dim} not divisible by num_heads {num_heads}")
    sequence, batch = (1, 0) if batch_first else (0, 1)
    layout = "(batch, length, features)" if batch_first else "(length, batch, features)"
    if key.shape[:2] != value.shape[:2] or key.shape[batch] != query.shape[batch]:
        raise RuntimeError(
            f"{name}: query {tuple(query.shape)}, key {tuple(key.shape)} and value "
            f"{tuple(value.shape)}, read as {layout} because batch_first={batch_first}, must agree "
            "in the batch, key and value also in the length"
        )
    return query.shape[sequence], query.shape[batch], key.shape[sequence]


def _packed_projections(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Project with the stacked weight, in as few products as the inputs allow."""
    D = query.shape[-1]
    if query is key and key is value:
        q, k, v = linear(query, weight, bias).split(D, -1)
        return q, k, v
    if key is value:
        w_q, w_kv = weight.split([D, 2 * D])
        b_q, b_kv = (None, None) if bias is None else bias.split([D, 2 * D])
        k, v = linear(key, w_kv, b_kv).split(D, -1)
        return linear(query, w_q, b_q), k, v
    weights = weight.split(D)
    biases = (None, None, None) if bias is None else bias.split(D)
    q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases))
    return q, k, v


def _separate_projections(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: tuple[Tensor | None, Tensor | None, Tensor | None],
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    biases = (None, None, None) if bias is None else bias.split(query.shape[-1])
    projected = []
    for which, x, w, b in zip("qkv", (query, key, value), weights, biases):
        if w is None:
            raise RuntimeError(
                f"{name}: use_separate_proj_weight is True but {which}_proj_weight is None"
            )
        projected.append(linear(x, w, b))
    return projected[0], projected[1], projected[2]


def _append(x: Tensor, row: Tensor, axis: int) -> Tensor:
    return record(_shape.concat_forward, _shape.concat_backward, x, row, axis=axis)


class _Masks:
    """The two masks of multi-head attention, checked and merged.

    Given: True (or -inf) where attention is forbidden.  Kernel: True where it is allowed.
    """

    def __init__(self, name: str, B: int, H: int, L: int, S: int, query: Tensor) -> None:
        self.name, self.B, self.H, self.L, self.S = name, B, H, L, S
        self.query = query

    def check(
        self, argument: str, mask: Tensor | None, shapes: tuple[tuple[int, ...], ...]
    ) -> None:
        if mask is None:
            return
        if mask.array.dtype.kind not in "bfV":
            raise RuntimeError(
                f"{self.name}: only bool and floating types of {argument} are supported, found "
                f"{mask.array.dtype}; for a 0/1 mask where 1 may be attended to pass (mask == 0)"
            )
        if tuple(mask.shape) not in shapes:
            expected = " or ".join(map(str, shapes))
            raise RuntimeError(
                f"{self.name}: the shape of {argument} is {tuple(mask.shape)}, but should be "
                f"{expected}"
            )

    def _to_scores(self, mask: Tensor | None, extra: int, padding: bool) -> Tensor | None:
        """Shape a given mask to broadcast against (B, H, L, S + extra)."""
        if mask is None:
            return None
        if extra:
            mask = pad(mask, (0, extra))
        S = self.S + extra
        if padding:
            return mask.reshape(self.B, 1, 1, S)
        return mask.reshape(self.B, self.H, self.L, S) if mask.ndim == 3 else mask

    def merged(self, attn: Tensor | None, padding: Tensor | None, extra: int) -> Tensor | None:
        """Return the kernel's mask: boolean where both are, else additive."""
        masks = [self._to_scores(attn, extra, False), self._to_scores(padding, extra, True)]
        given = [mask for mask in masks if mask is not None]
        if not given:
            return None
        if all(mask.array.dtype.kind == "b" for mask in given):
            forbidden = given[0].array
            for mask in given[1:]:
                forbidden = forbidden | mask.array
            return Tensor(~forbidden)
        return self.additive(attn, padding, extra)

    def additive(self, attn: Tensor | None, padding: Tensor | None, extra: int) -> Tensor | None:
        """Return the sum of both masks as numbers to add to the scores."""
        total: Tensor | None = None
        for mask in (self._to_scores(attn, extra, False), self._to_scores(padding, extra, True)):
            if mask is None:
                continue
            if mask.array.dtype.kind == "b":
                xp, dtype = array_module(mask.array), self.query.array.dtype
                mask = Tensor(xp.where(mask.array, dtype.type(-math.inf), dtype.type(0)))
            elif mask.dtype != self.query.dtype:
                mask = mask.to(self.query.dtype)
            total = mask if total is None else total + mask
        return total


def _attention_with_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_padding_mask: Tensor | None,
    extra: int,
    dropout_p: float,
) -> tuple[Tensor, Tensor]:
    """Attention that forms the (B, H, L, S) weights because they are asked for."""
    if key_padding_mask is not None and key_padding_mask.array.dtype.kind == "b":
        # Whatever padding holds, NaN included, must not reach the products.
        padded = pad(key_padding_mask, (0, extra)) if extra else key_padding_mask
        hidden = padded.reshape(padded.shape[0], 1, padded.shape[1], 1)
        k, v = k.masked_fill(hidden, 0.0), v.masked_fill(hidden, 0.0)
    scores = (q * (1.0 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
    dead = None
    if bias is not None:
        xp = array_module(bias.array)
        dead = xp.isneginf(bias.array).all(axis=-1, keepdims=True)
        if dead.any():
            # A row of -inf would make the softmax NaN, its gradient too: neutralise, zero after.
            bias = bias.masked_fill(Tensor(dead), 0.0)
        else:
            dead = None
        scores = scores + bias
    weights = softmax(scores, dim=-1)
    if dead is not None:
        weights = weights.masked_fill(Tensor(dead), 0.0)
    weights = dropout(weights, dropout_p)
    return weights @ v, weights
