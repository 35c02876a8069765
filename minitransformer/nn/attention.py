"""Multi-head attention as a module."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor
from ..autograd.creation import empty
from . import functional as F
from . import init
from .linear import Linear
from .module import Module, Parameter

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    r"""Attend in several heads: project, attend, project back.

    Parameters
    ----------
    embed_dim : int
        Model size D.
    num_heads : int
        H, a divisor of D.
    dropout : float
        Of the attention weights, in training.
    bias : bool
        Of the projections.
    add_bias_kv : bool
        Put one learned key and value after the others.
    add_zero_attn : bool
        Put a zero key and value after the others.
    kdim, vdim : int, optional
        Feature sizes of keys and values where they differ from D.
    batch_first : bool
        Inputs are (batch, length, features) instead of (length, batch, features).
    device, dtype : optional

    Attributes
    ----------
    in_proj_weight : (3 D, D) Parameter or None
        Query, key and value projections stacked; separate ``q_proj_weight``,
        ``k_proj_weight`` and ``v_proj_weight`` if `kdim` or `vdim` differ from D.
    in_proj_bias : (3 D,) Parameter or None
    out_proj : Linear
    bias_k, bias_v : (1, 1, D) Parameter or None

    Raises
    ------
    ValueError
        If the sizes are not positive or H does not divide D.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", 2017, section 3.2.2.

    Examples
    --------
    >>> import minitransformer as mt
    >>> attention = mt.nn.MultiheadAttention(8, 2, batch_first=True)
    >>> x = mt.ones(3, 5, 8)
    >>> out, weights = attention(x, x, x)
    >>> out.shape, weights.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 5, 5]))
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                "embed_dim and num_heads must be greater than 0, got "
                f"embed_dim={embed_dim} and num_heads={num_heads} instead"
            )
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim must be divisible by num_heads, got embed_dim={embed_dim} and "
                f"num_heads={num_heads}"
            )
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {dropout}")
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.add_zero_attn = add_zero_attn

        def parameter(name: str, present: bool, *shape: int) -> None:
            value = Parameter(empty(*shape, device=device, dtype=dtype)) if present else None
            self.register_parameter(name, value)

        packed = self._qkv_same_embed_dim
        parameter("in_proj_weight", packed, 3 * embed_dim, embed_dim)
        parameter("q_proj_weight", not packed, embed_dim, embed_dim)
        parameter("k_proj_weight", not packed, embed_dim, self.kdim)
        parameter("v_proj_weight", not packed, embed_dim, self.vdim)
        parameter("in_proj_bias", bias, 3 * embed_dim)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        parameter("bias_k", add_bias_kv, 1, 1, embed_dim)
        parameter("bias_v", add_bias_kv, 1, 1, embed_dim)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (
            self.in_proj_weight,
            self.q_proj_weight,
            self.k_proj_weight,
            self.v_proj_weight,
        ):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from the queries to the keys and return the mixed values.

        Parameters
        ----------
        query : (L, B, D), (B, L, D) with `batch_first`, or (L, D) Tensor
        key : likewise with length S and `kdim` features
        value : likewise with length S and `vdim` features
        key_padding_mask : (B, S) or (S,) Tensor, optional
            Boolean: True where a key must NOT be attended to. Float: added to the scores.
        need_weights : bool
            Also return the weights. Pass False for the fused kernel, whose memory is
            linear in the length.
        attn_mask : (L, S) or (B H, L, S) Tensor, optional
            Boolean: True where a query may NOT attend. Float: added to the scores.
        average_attn_weights : bool
            Average the returned weights over the heads.
        is_causal : bool
            A promise that `attn_mask` is the causal mask.

        Returns
        -------
        output : Tensor of query's shape
        weights : (B, L, S) or, per head, (B, H, L, S) Tensor; None without `need_weights`

        Raises
        ------
        RuntimeError
            If shapes, dtypes, devices or masks do not fit.
        """
        return F.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            batch_first=self.batch_first,
        )
