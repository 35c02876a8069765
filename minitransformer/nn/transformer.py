"""The transformer's layers, its two stacks, and both together."""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Callable
from typing import Any

from ..autograd import Tensor
from ..autograd.creation import full
from ..backend import array_module
from . import functional as F
from . import init
from .activation import GELU, ReLU, SiLU
from .attention import MultiheadAttention
from .container import ModuleList
from .dropout import Dropout, residual_dropout
from .linear import Linear
from .module import Module
from .normalization import LayerNorm

__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]

Activation = str | Callable[[Tensor], Tensor]


def _activation_function(activation: Activation) -> Callable[[Tensor], Tensor]:
    if not isinstance(activation, str):
        return activation
    if activation not in ("relu", "gelu"):
        raise RuntimeError(f"activation should be relu/gelu, not {activation}")
    return F.relu if activation == "relu" else F.gelu


def _kernel_activation(activation: Callable[[Tensor], Tensor]) -> str | None:
    """Name of an activation that the feed-forward kernel has, else None."""
    if activation is F.relu or type(activation) is ReLU:
        return "relu"
    if activation is F.gelu or (type(activation) is GELU and activation.approximate == "none"):
        return "gelu"
    if type(activation) is GELU:
        return "gelu_tanh"
    return "silu" if activation is F.silu or type(activation) is SiLU else None


def _untouched(module: Module, kind: type[Module]) -> bool:
    """Whether calling `module` does what `kind` does: nothing replaced or hooked."""
    return (
        type(module) is kind
        and "forward" not in vars(module)
        and not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
    )


class _Layer(Module):
    """What encoder and decoder layers share: residual sums and the feed-forward block."""

    linear1: Linear
    linear2: Linear
    dropout: Dropout
    activation: Callable[[Tensor], Tensor]

    def _add(self, residual: Tensor, block: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """residual + block(*inputs), the sum in one kernel with the dropout that ends the block.

        Users replace blocks, in subclasses or on one layer, with methods that take PyTorch's
        arguments alone: a block that is not from here gets no residual to add.
        """
        if isinstance(block, types.MethodType) and block.__func__.__globals__ is globals():
            return block(*inputs, residual=residual)
        return residual + block(*inputs)

    @staticmethod
    def _drop(dropout: Module, x: Tensor, residual: Tensor | None) -> Tensor:
        """dropout(x), added to the residual if there is one.

        A dropout that is hooked, or that somebody put in the place of ours, is called.
        """
        if residual is not None and isinstance(dropout, Dropout) and _untouched(dropout, Dropout):
            return residual_dropout(residual, x, dropout.p, dropout.training)
        out: Tensor = dropout(x)
        return out if residual is None else residual + out

    def _feed_forward(self, x: Tensor) -> Tensor:
        fused = _kernel_activation(self.activation)
        parts = ((self.linear1, Linear), (self.dropout, Dropout), (self.linear2, Linear))
        if fused is None or not all(_untouched(module, kind) for module, kind in parts):
            return self.linear2(self.dropout(self.activation(self.linear1(x))))
        return F.feed_forward(
            x,
            self.linear1.weight,
            self.linear1.bias,
            self.linear2.weight,
            self.linear2.bias,
            activation=fused,
            dropout_p=self.dropout.p if self.dropout.training else 0.0,
        )


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward network, each with a residual and a layer norm.

    Parameters
    ----------
    d_model : int
        Model size D.
    nhead : int
        Number of heads, a divisor of D.
    dim_feedforward : int
        F.
    dropout : float
    activation : {"relu", "gelu"} or callable
    layer_norm_eps : float
    batch_first : bool
        Inputs are (batch, length, features) instead of (length, batch, features).
    norm_first : bool
        Normalise before each block instead of after its residual.
    bias : bool
        Of every linear layer and layer norm.
    device, dtype : optional

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", 2017, section 3.1.

    Examples
    --------
    >>> import minitransformer as mt
    >>> layer = mt.nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16)
    >>> layer(mt.ones(10, 3, 8)).shape
    torch.Size([10, 3, 8])
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        at: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout=dropout, batch_first=batch_first, **at
        )
        self.linear1 = Linear(d_model, dim_feedforward, **at)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **at)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, **at)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, **at)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _activation_function(activation)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Encode a sequence.

        Parameters
        ----------
        src : (S, B, D), (B, S, D) with `batch_first`, or (S, D) Tensor
        src_mask : (S, S) or (B H, S, S) Tensor, optional
            Boolean: True where a position may NOT attend. Float: added to the scores.
        src_key_padding_mask : (B, S) or (S,) Tensor, optional
            Boolean: True where a position is padding.
        is_causal : bool
            A promise that `src_mask` is the causal mask.

        Returns
        -------
        Tensor of src's shape
        """
        masks = (src_mask, src_key_padding_mask, is_causal)
        x = src
        if self.norm_first:
            x = self._add(x, self._sa_block, self.norm1(x), *masks)
            return self._add(x, self._ff_block, self.norm2(x))
        x = self.norm1(self._add(x, self._sa_block, x, *masks))
        return self.norm2(self._add(x, self._ff_block, x))

    def _sa_block(
        self,
        x: Tensor,
        mask: Tensor | None,
        padding: Tensor | None,
        is_causal: bool = False,
        residual: Tensor | None = None,
    ) -> Tensor:
        x, _ = self.self_attn(
            x,
            x,
            x,
            key_padding_mask=padding,
            need_weights=False,
            attn_mask=mask,
            is_causal=is_causal,
        )
        return self._drop(self.dropout1, x, residual)

    def _ff_block(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self._drop(self.dropout2, self._feed_forward(x), residual)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the encoder's output, and a feed-forward network.

    Parameters
    ----------
    d_model : int
        Model size D.
    nhead : int
        Number of heads, a divisor of D.
    dim_feedforward : int
        F.
    dropout : float
    activation : {"relu", "gelu"} or callable
    layer_norm_eps : float
    batch_first : bool
        Inputs are (batch, length, features) instead of (length, batch, features).
    norm_first : bool
        Normalise before each block instead of after its residual.
    bias : bool
        Of every linear layer and layer norm.
    device, dtype : optional

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", 2017, section 3.1.

    Examples
    --------
    >>> import minitransformer as mt
    >>> layer = mt.nn.TransformerDecoderLayer(d_model=8, nhead=2, dim_feedforward=16)
    >>> layer(mt.ones(20, 3, 8), mt.ones(10, 3, 8)).shape
    torch.Size([20, 3, 8])
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        at: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout=dropout, batch_first=batch_first, **at
        )
        self.multihead_attn = MultiheadAttention(
            d_model, nhead, dropout=dropout, batch_first=batch_first, **at
        )
        self.linear1 = Linear(d_model, dim_feedforward, **at)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **at)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, **at)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, **at)
        self.norm3 = LayerNorm(d_model, eps=layer_norm_eps, **at)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _activation_function(activation)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Decode a sequence in view of the encoder's output.

        Parameters
        ----------
        tgt : (T, B, D), (B, T, D) with `batch_first`, or (T, D) Tensor
        memory : likewise with length S
        tgt_mask : (T, T) or (B H, T, T) Tensor, optional
            Boolean: True where a position may NOT attend. Float: added to the scores.
        memory_mask : (T, S) or (B H, T, S) Tensor, optional
        tgt_key_padding_mask : (B, T) or (T,) Tensor, optional
            Boolean: True where a position is padding.
        memory_key_padding_mask : (B, S) or (S,) Tensor, optional
        tgt_is_causal, memory_is_causal : bool
            Promises that the mask is the causal one.

        Returns
        -------
        Tensor of tgt's shape
        """
        self_masks = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        cross_masks = (memory_mask, memory_key_padding_mask, memory_is_causal)
        x = tgt
        if self.norm_first:
            x = self._add(x, self._sa_block, self.norm1(x), *self_masks)
            x = self._add(x, self._mha_block, self.norm2(x), memory, *cross_masks)
            return self._add(x, self._ff_block, self.norm3(x))
        x = self.norm1(self._add(x, self._sa_block, x, *self_masks))
        x = self.norm2(self._add(x, self._mha_block, x, memory, *cross_masks))
        return self.norm3(self._add(x, self._ff_block, x))

    def _sa_block(
        self,
        x: Tensor,
        mask: Tensor | None,
        padding: Tensor | None,
        is_causal: bool = False,
        residual: Tensor | None = None,
    ) -> Tensor:
        x, _ = self.self_attn(
            x,
            x,
            x,
            key_padding_mask=padding,
            need_weights=False,
            attn_mask=mask,
            is_causal=is_causal,
        )
        return self._drop(self.dropout1, x, residual)

    def _mha_block(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        padding: Tensor | None,
        is_causal: bool = False,
        residual: Tensor | None = None,
    ) -> Tensor:
        x, _ = self.multihead_attn(
            x,
            memory,
            memory,
            key_padding_mask=padding,
            need_weights=False,
            attn_mask=mask,
            is_causal=is_causal,
        )
        return self._drop(self.dropout2, x, residual)

    def _ff_block(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self._drop(self.dropout3, self._feed_forward(x), residual)


def _is_causal_mask(mask: Tensor | None, is_causal: bool | None) -> bool:
    """The caller's hint, or, where there is none, whether `mask` is the causal mask."""
    if is_causal is not None or mask is None:
        return bool(is_causal)
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        return False
    xp = array_module(mask.array)
    future = xp.triu(xp.ones(mask.array.shape, dtype=bool), 1)
    if mask.array.dtype.kind == "b":
        return bool((mask.array == future).all())
    return bool((mask.array == xp.where(future, -math.inf, 0.0)).all())


def _clones(layer: Module, n: int) -> ModuleList:
    # Copies, so all layers start from the same numbers, as PyTorch's do.
    return ModuleList(copy.deepcopy(layer) for _ in range(n))


class TransformerEncoder(Module):
    """A stack of copies of one encoder layer.

    Parameters
    ----------
    encoder_layer : Module
        Copied `num_layers` times; the copies start from the same numbers.
    num_layers : int
    norm : Module, optional
        Applied after the last layer.
    enable_nested_tensor, mask_check : bool
        Accepted and without effect: there are no nested tensors. So in evaluation the
        outputs at padded positions are computed, where PyTorch's shortcut returns zeros.

    Examples
    --------
    >>> import minitransformer as mt
    >>> layer = mt.nn.TransformerEncoderLayer(8, 2, 16)
    >>> mt.nn.TransformerEncoder(layer, num_layers=2)(mt.ones(10, 3, 8)).shape
    torch.Size([10, 3, 8])
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers = _clones(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """Apply the layers in order.

        Parameters
        ----------
        src, mask, src_key_padding_mask
            As for `TransformerEncoderLayer`.
        is_causal : bool, optional
            Whether `mask` is the causal mask; None looks.

        Returns
        -------
        Tensor of src's shape
        """
        causal = _is_causal_mask(mask, is_causal)
        output = src
        for layer in self.layers:
            output = layer(
                output,
                src_mask=mask,
                is_causal=causal,
                src_key_padding_mask=src_key_padding_mask,
            )
        return output if self.norm is None else self.norm(output)


class TransformerDecoder(Module):
    """A stack of copies of one decoder layer.

    Parameters
    ----------
    decoder_layer : Module
        Copied `num_layers` times; the copies start from the same numbers.
    num_layers : int
    norm : Module, optional
        Applied after the last layer.

    Examples
    --------
    >>> import minitransformer as mt
    >>> layer = mt.nn.TransformerDecoderLayer(8, 2, 16)
    >>> decoder = mt.nn.TransformerDecoder(layer, num_layers=2)
    >>> decoder(mt.ones(20, 3, 8), mt.ones(10, 3, 8)).shape
    torch.Size([20, 3, 8])
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _clones(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Apply the layers in order.

        Parameters
        ----------
        tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
            As for `TransformerDecoderLayer`.
        tgt_is_causal : bool, optional
            Whether `tgt_mask` is the causal mask; None looks.
        memory_is_causal : bool

        Returns
        -------
        Tensor of tgt's shape
        """
        causal = _is_causal_mask(tgt_mask, tgt_is_causal)
        output = tgt
        for layer in self.layers:
            output = layer(
                output,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=causal,
                memory_is_causal=memory_is_causal,
            )
        return output if self.norm is None else self.norm(output)


class Transformer(Module):
    """Encoder and decoder; embeddings, positions and the output layer are the user's.

    Parameters
    ----------
    d_model : int
        Model size D.
    nhead : int
        Number of heads, a divisor of D.
    num_encoder_layers, num_decoder_layers : int
    dim_feedforward : int
        F.
    dropout : float
    activation : {"relu", "gelu"} or callable
    custom_encoder, custom_decoder : Module, optional
        Used instead of the usual ones.
    layer_norm_eps : float
    batch_first : bool
        Inputs are (batch, length, features) instead of (length, batch, features).
    norm_first : bool
        Normalise before each block instead of after its residual.
    bias : bool
        Of every linear layer and layer norm.
    device, dtype : optional

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", 2017.

    Examples
    --------
    >>> import minitransformer as mt
    >>> model = mt.nn.Transformer(8, 2, 1, 1, dim_feedforward=16)
    >>> model(mt.ones(10, 3, 8), mt.ones(20, 3, 8)).shape
    torch.Size([20, 3, 8])
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer_options = (
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            activation,
            layer_norm_eps,
            batch_first,
            norm_first,
            bias,
            device,
            dtype,
        )

        def norm() -> LayerNorm:
            return LayerNorm(d_model, eps=layer_norm_eps, bias=bias, device=device, dtype=dtype)

        self.encoder = (
            TransformerEncoder(TransformerEncoderLayer(*layer_options), num_encoder_layers, norm())
            if custom_encoder is None
            else custom_encoder
        )
        self.decoder = (
            TransformerDecoder(TransformerDecoderLayer(*layer_options), num_decoder_layers, norm())
            if custom_decoder is None
            else custom_decoder
        )
        self._reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Encode `src` and decode `tgt` in view of it.

        Parameters
        ----------
        src : (S, B, D), (B, S, D) with `batch_first`, or (S, D) Tensor
        tgt : likewise with length T
        src_mask : (S, S) or (B H, S, S) Tensor, optional
            Boolean: True where a position may NOT attend. Float: added to the scores.
        tgt_mask : (T, T) or (B H, T, T) Tensor, optional
        memory_mask : (T, S) or (B H, T, S) Tensor, optional
        src_key_padding_mask : (B, S) or (S,) Tensor, optional
            Boolean: True where a position is padding.
        tgt_key_padding_mask : (B, T) or (T,) Tensor, optional
        memory_key_padding_mask : (B, S) or (S,) Tensor, optional
        src_is_causal, tgt_is_causal : bool, optional
            Whether the mask is the causal one; None looks.
        memory_is_causal : bool

        Returns
        -------
        Tensor of tgt's shape

        Raises
        ------
        RuntimeError
            If batch or feature numbers differ.
        """
        batch = 0 if self.batch_first else 1
        if src.ndim == 3 and (tgt.ndim != 3 or src.shape[batch] != tgt.shape[batch]):
            raise RuntimeError(
                "the batch number of src and tgt must be equal: src is "
                f"{tuple(src.shape)}, tgt {tuple(tgt.shape)}, read with "
                f"batch_first={self.batch_first}"
            )
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise RuntimeError(
                f"the feature number of src and tgt must be equal to d_model={self.d_model}, "
                f"found {src.shape[-1]} and {tgt.shape[-1]}"
            )
        memory = self.encoder(
            src,
            mask=src_mask,
            src_key_padding_mask=src_key_padding_mask,
            is_causal=src_is_causal,
        )
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """Return the causal mask: minus infinity above the diagonal, zero elsewhere.

        Parameters
        ----------
        sz : int
        device, dtype : optional

        Returns
        -------
        (sz, sz) float Tensor

        Examples
        --------
        >>> Transformer.generate_square_subsequent_mask(2).tolist()
        [[0.0, -inf], [0.0, 0.0]]
        """
        return full((sz, sz), -math.inf, device=device, dtype=dtype).triu(1)

    def _reset_parameters(self) -> None:
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)
