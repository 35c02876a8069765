"""What the models share: attention with or without its weights, masks, and the key-value cache.

Shapes: B batch, H heads, G key heads, L query length, S key length, E head size, D model size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .. import nn
from ..autograd import Tensor
from ..backend import array_module, device_of, is_cuda, to_device
from ..backend import lowest as lowest_of
from ..nn import functional as F

#: What configurations call an activation: the kernel's name.
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}


@dataclass
class ModelOutput:
    """What a model returns; what it was not asked for is None.

    Attributes
    ----------
    loss : Tensor, ()
        If labels were given.
    logits : Tensor
        Scores of a head.
    start_logits, end_logits : Tensor, (B, L)
        Scores of a span's first and last token.
    next_sentence_logits : Tensor, (B, 2)
        BERT's scores of "is next" and "is not".
    last_hidden_state : Tensor, (B, L, D)
        Of the (decoder's) last layer.
    pooler_output : Tensor, (B, D)
        One vector per sequence.
    encoder_last_hidden_state : Tensor, (B, S, D)
        Of an encoder-decoder model.
    hidden_states, encoder_hidden_states : tuple of Tensor, (B, L, D) each
        The embedding and then every layer's output.
    attentions, encoder_attentions, cross_attentions : tuple of Tensor, (B, H, L, S) each
        The weights of every layer.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    next_sentence_logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    encoder_last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None

    def __repr__(self) -> str:
        given = ((f.name, getattr(self, f.name)) for f in fields(self))
        shown = (
            f"{name}={len(value)} x {tuple(value[0].shape)}"
            if isinstance(value, tuple)
            else f"{name}={tuple(value.shape)}"
            for name, value in given
            if value is not None
        )
        return f"ModelOutput({', '.join(shown)})"


class Recorder:
    """Collects hidden states and attention weights as the layers go by, if they are wanted."""

    def __init__(self, hidden_states: bool, attentions: bool) -> None:
        self.hidden_states: list[Tensor] | None = [] if hidden_states else None
        self.attentions: list[Tensor] | None = [] if attentions else None
        self.cross_attentions: list[Tensor] | None = [] if attentions else None

    @property
    def wants_weights(self) -> bool:
        return self.attentions is not None

    def state(self, x: Tensor) -> None:
        if self.hidden_states is not None:
            self.hidden_states.append(x)

    def weights(self, weights: Tensor | None, cross: bool = False) -> None:
        kept = self.cross_attentions if cross else self.attentions
        if kept is not None and weights is not None:
            kept.append(weights)

    def results(self) -> dict[str, Any]:
        states, weights = self.hidden_states, self.attentions
        return {
            "hidden_states": None if states is None else tuple(states),
            "attentions": None if weights is None else tuple(weights),
        }


def as_tensor(values: Any, like: Any = None) -> Tensor:
    """A tensor, an array or a nested list of numbers as a tensor on the device of `like`."""
    tensor = values if isinstance(values, Tensor) else Tensor(_array(values))
    if like is None or is_cuda(tensor.array) == is_cuda(like):
        return tensor
    return Tensor(to_device(tensor.array, device_of(like)))


def _array(values: Any) -> Any:
    return values if hasattr(values, "__cuda_array_interface__") else np.asarray(values)


def checked_ids(input_ids: Any, table: Tensor, positions: int | None) -> Tensor:
    """Token numbers as a (B, L) tensor, refused where `table` (V, D) has no row for them.

    They are looked at on their way to a GPU. Those there already are not, because the host
    would wait for them; on the host, looking them up is what looks at them.
    """
    ids, vocab_size = as_tensor(input_ids), table.shape[0]
    if ids.ndim != 2:
        raise ValueError(f"token numbers are (batch, length), found shape {tuple(ids.shape)}")
    if ids.array.dtype.kind not in "iu":
        raise TypeError(f"token numbers are integers, found {ids.array.dtype}")
    if positions is not None and ids.shape[1] > positions:
        raise ValueError(
            f"a sequence of {ids.shape[1]} tokens, the model has {positions} positions; shorten it"
        )
    if ids.array.size and is_cuda(table.array) and not is_cuda(ids.array):
        low, high = int(ids.array.min()), int(ids.array.max())
        if low < 0 or high >= vocab_size:
            raise IndexError(f"token numbers {low}..{high}, the vocabulary has {vocab_size}")
    return as_tensor(ids, table.array)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, H E) to (B, H, L, E)."""
    batch, length, width = x.shape
    if length == 1:  # a decoding step: nothing changes places
        return x.reshape(batch, heads, 1, width // heads)
    return x.reshape(batch, length, heads, width // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, L, E) to (B, L, H E)."""
    batch, heads, length, size = x.shape
    if length == 1:
        return x.reshape(batch, 1, heads * size)
    return x.transpose(1, 2).reshape(batch, length, heads * size)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    need_weights: bool = False,
    scale: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention, and its weights where they are asked for.

    Parameters
    ----------
    q : Tensor, (B, H, L, E)
        Queries.
    k, v : Tensor, (B, G, S, E)
        Keys and values; H is a multiple of G.
    mask : Tensor of bool, broadcastable to (B, H, L, S), optional
        True where a query may attend.
    is_causal : bool
        Query `i` attends to keys ``0..i`` only; excludes `mask`.
    dropout_p : float
        Dropout of the weights.
    need_weights : bool
        Form the (B, H, L, S) weights. Otherwise the fused kernel runs, which never has them.
    scale : float, optional
        Factor of the scores, ``1 / sqrt(E)`` by default.

    Returns
    -------
    out : Tensor, (B, H, L, E)
        The weighted values; zero where a query may attend to nothing.
    weights : Tensor, (B, H, L, S), or None
        The weights, before dropout.
    """
    if not need_weights:
        out = F.scaled_dot_product_attention(
            q, k, v, mask, dropout_p, is_causal, scale=scale, enable_gqa=True
        )
        return out, None
    heads, key_heads = q.shape[1], k.shape[1]
    if heads != key_heads:
        k, v = repeat_heads(k, heads // key_heads), repeat_heads(v, heads // key_heads)
    scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        mask = causal_mask(q.shape[2], k.shape[2], like=q.array)
    if mask is None:
        weights = F.softmax(scores, dim=-1)
    else:
        hidden = Tensor(~mask.array)
        lowest = lowest_of(scores.array.dtype)
        weights = F.softmax(scores.masked_fill(hidden, lowest), dim=-1).masked_fill(hidden, 0.0)
    return F.dropout(weights, dropout_p, dropout_p > 0.0) @ v, weights


def repeat_heads(x: Tensor, times: int) -> Tensor:
    """(B, G, S, E) to (B, G times, S, E), each head `times` in a row."""
    batch, heads, length, size = x.shape
    wide = x.reshape(batch, heads, 1, length, size).expand(batch, heads, times, length, size)
    return wide.reshape(batch, heads * times, length, size)


def causal_mask(length: int, total: int, like: Any, band: int | None = None) -> Tensor:
    """(L, S) bool: the last `length` of `total` positions see themselves and what is before.

    With `band`, only the nearest `band` positions, themselves included.
    """
    xp = array_module(like)
    query = xp.arange(total - length, total)[:, None]
    key = xp.arange(total)[None, :]
    seen = key <= query
    return Tensor(seen if band is None else seen & (key > query - band))


def decoder_mask(
    length: int,
    past: int,
    attention_mask: Tensor | None,
    like: Any,
    band: int | None = None,
) -> tuple[Tensor | None, bool]:
    """The mask of causal self-attention, and whether the kernel's own causal mask will do.

    `attention_mask` is (B, past + length), True or 1 at tokens and False or 0 at padding.
    """
    total = past + length
    if band is not None and band >= total:
        band = None
    if attention_mask is None and band is None:
        if length == 1:
            return None, False
        if past == 0:
            return None, True
    mask = causal_mask(length, total, like, band)
    if attention_mask is not None:
        mask = Tensor(mask.array & padding_mask(attention_mask, total, like).array)
    return mask, False


def padding_mask(attention_mask: Any, total: int, like: Any) -> Tensor:
    """(B, S) of 1 at tokens to (B, 1, 1, S) bool on the device of `like`."""
    mask = as_tensor(attention_mask, like)
    if mask.ndim != 2 or mask.shape[1] != total:
        raise ValueError(
            f"attention_mask is (batch, {total}), found shape {tuple(mask.shape)}; "
            "it covers the cached tokens too"
        )
    return Tensor(mask.array.astype(bool)[:, None, None, :])


def position_numbers(attention_mask: Any, length: int, past: int, like: Any) -> Any:
    """Positions of the last `length` tokens, counted without the padding: (1 or B, L) integers."""
    xp = array_module(like)
    if attention_mask is None:
        return xp.arange(past, past + length)[None, :]
    mask = padding_mask(attention_mask, past + length, like).array[:, 0, 0].astype(np.int64)
    return xp.maximum(mask.cumsum(axis=1) - 1, 0)[:, -length:] if length else mask[:, :0]


def feed_forward(
    x: Tensor, first: nn.Linear, second: nn.Linear, activation: str, dropout_p: float = 0.0
) -> Tensor:
    """Two linear layers with an activation between, as one kernel.

    Where a hook watches one of the two, they are called one after the other.
    """
    if not (watched(first) or watched(second)):
        return F.feed_forward(
            x, first.weight, first.bias, second.weight, second.bias, activation, dropout_p
        )
    hidden = activate(first(x), activation)
    out: Tensor = second(hidden)
    return F.dropout(out, dropout_p, dropout_p > 0.0)


def watched(module: nn.Module) -> bool:
    """Whether a hook is registered on the module."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def activate(x: Tensor, activation: str) -> Tensor:
    """Apply an activation by the kernel's name."""
    if activation == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if activation == "gelu":
        return F.gelu(x)
    return F.relu(x) if activation == "relu" else F.silu(x)


def shifted_loss(logits: Tensor, labels: Any) -> Tensor:
    """Mean cross-entropy of each position's successor; labels of -100 do not count.

    The labels are shifted, not the (B, L, V) logits, which would be copied.
    """
    labels = as_tensor(labels, logits.array)
    xp = array_module(labels.array)
    following = xp.full_like(labels.array, -100)
    following[:, :-1] = labels.array[:, 1:]
    batch, length, vocabulary = logits.shape
    return F.cross_entropy(
        logits.reshape(batch * length, vocabulary), Tensor(following.reshape(-1))
    )


class KeyValueCache:
    """Keys and values of the tokens read so far, so that each is computed once.

    Parameters
    ----------
    capacity : int
        Most tokens that will be kept.

    Attributes
    ----------
    length : int
        Tokens kept so far.

    Notes
    -----
    The arrays are made once at full size and written in place; use it under ``no_grad`` only.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._self: dict[int, tuple[Any, Any]] = {}
        self._cross: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the new keys and values (B, G, L, E) of a layer; return those of all tokens."""
        end = self.length + k.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, {end} are needed")
        if layer not in self._self:
            xp = array_module(k.array)

            def room(x: Tensor) -> Any:
                shape = (*x.shape[:2], self.capacity, x.shape[3])
                return xp.empty(shape, dtype=x.array.dtype)

            self._self[layer] = (room(k), room(v))
        keys, values = self._self[layer]
        keys[:, :, self.length : end] = k.array
        values[:, :, self.length : end] = v.array
        return Tensor(keys[:, :, :end]), Tensor(values[:, :, :end])

    def cross(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the encoder's output for a layer, once they are there."""
        return self._cross.get(layer)

    def keep_cross(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Keep the keys and values of the encoder's output for a layer."""
        self._cross[layer] = (k, v)

    def advance(self, count: int) -> None:
        """Note that `count` tokens went through every layer."""
        self.length += count

    def select(self, rows: Any) -> None:
        """Continue with these rows of the batch, as beam search does."""
        for layer, (keys, values) in self._self.items():
            rows = array_module(keys).asarray(rows)
            self._self[layer] = (keys[rows], values[rows])
        for layer, (k, v) in self._cross.items():
            self._cross[layer] = (Tensor(k.array[rows]), Tensor(v.array[rows]))
