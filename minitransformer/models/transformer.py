"""The encoder-decoder Transformer [1]_.

The default is the paper's: sinusoidal positions, embeddings scaled by the root of the model size,
one matrix for both embeddings and the output layer, norms after the residual sums. Settings make
the same class BART [2]_ and Marian [3]_; :mod:`.whisper` builds on the layers.

References
----------
.. [1] Vaswani et al., "Attention is all you need", 2017, sections 3.1 to 3.5.
.. [2] Lewis et al., "BART: denoising sequence-to-sequence pre-training for natural language
   generation, translation, and comprehension", 2019, section 2.1.
.. [3] Junczys-Dowmunt et al., "Marian: fast neural machine translation in C++", 2018.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn
from ..autograd import Tensor
from ..backend import to_numpy
from ..kernels.positional import sinusoidal
from ..nn import functional as F
from ..nn.dropout import residual_dropout
from .checkpoint import Checkpoint
from .layers import (
    ACTIVATIONS,
    KeyValueCache,
    ModelOutput,
    Recorder,
    as_tensor,
    attend,
    checked_ids,
    decoder_mask,
    feed_forward,
    merge_heads,
    padding_mask,
    position_numbers,
    split_heads,
)
from .pretrained import PretrainedModel, Take, normal_start, positive


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of a Transformer; the defaults are the paper's base model.

    Attributes
    ----------
    vocab_size, max_positions : int
        Tokens it knows; the longest sequence.
    d_model, encoder_layers, decoder_layers, heads, d_ff : int
        Model size D, layers of either side, heads H and feed-forward size F.
    activation : str
        ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"silu"``.
    dropout : float
        Of embeddings and of every branch.
    attention_dropout : float
        Of the attention weights; the paper has none.
    positions : {"sinusoidal", "sinusoidal_halves", "learned"}
        Sines and cosines in turn (the paper), first all sines and then all cosines (Marian), or a
        trained table (BART).
    position_offset : int
        Unused rows at the start of a trained table (BART has 2).
    scale_embedding : bool
        Multiply token embeddings by ``sqrt(d_model)``.
    normalize_embedding : bool
        Normalise the sum of token and position (BART).
    pre_norm : bool
        Norms before each part and at the end of either side.
    final_logits_bias : bool
        Add a fixed bias to the scores (Marian and BART).
    layer_norm_eps, initializer_range : float
        The norm's epsilon and the deviation of the starting weights.
    pad_token_id, decoder_start_token_id, eos_token_id : int
        Special tokens.
    """

    vocab_size: int = 37000
    max_positions: int = 512
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    heads: int = 8
    d_ff: int = 2048
    activation: str = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    positions: str = "sinusoidal"
    position_offset: int = 0
    scale_embedding: bool = True
    normalize_embedding: bool = False
    pre_norm: bool = False
    final_logits_bias: bool = False
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int = 0
    decoder_start_token_id: int = 1
    eos_token_id: int = 2

    def __post_init__(self) -> None:
        positive(
            vocab_size=self.vocab_size,
            max_positions=self.max_positions,
            d_model=self.d_model,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            heads=self.heads,
            d_ff=self.d_ff,
        )
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of {self.heads} heads")
        if self.activation not in ACTIVATIONS.values():
            raise ValueError(f"activation is {self.activation!r}")
        if self.positions not in ("sinusoidal", "sinusoidal_halves", "learned"):
            raise ValueError(f"positions is {self.positions!r}")
        if self.positions != "learned" and self.d_model % 2:
            raise ValueError(f"sinusoidal positions need an even d_model, not {self.d_model}")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TransformerConfig:
        """Read the ``config.json`` of a Hugging Face BART or Marian.

        Parameters
        ----------
        settings : mapping
            Its content.

        Returns
        -------
        TransformerConfig
            The same sizes.

        Raises
        ------
        ValueError
            If it uses something this model has not.
        """
        kind = settings["model_type"]
        if kind not in ("bart", "marian"):
            raise ValueError(f"the checkpoint is of the type {kind!r}")
        heads, inner = settings["encoder_attention_heads"], settings["encoder_ffn_dim"]
        if (heads, inner) != (settings["decoder_attention_heads"], settings["decoder_ffn_dim"]):
            raise ValueError("encoder and decoder have different heads or feed-forward sizes")
        if not settings.get("share_encoder_decoder_embeddings", True):
            raise ValueError("encoder and decoder have different vocabularies")
        return cls(
            vocab_size=settings["vocab_size"],
            max_positions=settings["max_position_embeddings"],
            d_model=settings["d_model"],
            encoder_layers=settings["encoder_layers"],
            decoder_layers=settings["decoder_layers"],
            heads=heads,
            d_ff=inner,
            activation=ACTIVATIONS[settings.get("activation_function", "gelu")],
            dropout=settings.get("dropout", 0.1),
            attention_dropout=settings.get("attention_dropout", 0.0),
            positions="learned" if kind == "bart" else "sinusoidal_halves",
            position_offset=2 if kind == "bart" else 0,
            scale_embedding=settings.get("scale_embedding", False),
            normalize_embedding=kind == "bart",
            final_logits_bias=True,
            initializer_range=settings.get("init_std", 0.02),
            pad_token_id=settings["pad_token_id"],
            decoder_start_token_id=settings["decoder_start_token_id"],
            eos_token_id=settings["eos_token_id"],
        )


class Attention(nn.Module):
    """Multi-head attention: queries from one sequence, keys and values from the same or another."""

    def __init__(
        self, d_model: int, heads: int, dropout: float, layer: int, key_bias: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.dropout, self.layer = heads, dropout, layer
        self.k_proj = nn.Linear(d_model, d_model, bias=key_bias)
        self.v_proj = nn.Linear(d_model, d_model)
        self.q_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to `memory` (B, S, D), or to `x` itself: (B, L, D) and the weights if wanted."""
        q = split_heads(self.q_proj(x), self.heads)  # (B, H, L, E)
        known = cache.cross(self.layer) if cache is not None and memory is not None else None
        if known is not None:
            k, v = known
        else:
            source = x if memory is None else memory
            k = split_heads(self.k_proj(source), self.heads)  # (B, H, S, E)
            v = split_heads(self.v_proj(source), self.heads)
            if cache is not None and memory is None:
                k, v = cache.extend(self.layer, k, v)
            elif cache is not None:
                cache.keep_cross(self.layer, k, v)
        dropout = self.dropout if self.training else 0.0
        out, weights = attend(
            q, k, v, mask, is_causal=is_causal, dropout_p=dropout, need_weights=need_weights
        )
        return self.out_proj(merge_heads(out)), weights


class _Layer(nn.Module):
    """A residual branch with its norm before or after."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.pre_norm, self.dropout = config.pre_norm, config.dropout
        self.activation = config.activation

    def _add(self, x: Tensor, update: Tensor, norm: nn.LayerNorm) -> Tensor:
        x = residual_dropout(x, update, self.dropout, self.training)
        return x if self.pre_norm else norm(x)

    def _before(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        return norm(x) if self.pre_norm else x


class EncoderLayer(_Layer):
    """Self-attention, then a feed-forward part."""

    def __init__(self, config: Any, layer: int, key_bias: bool = True) -> None:
        super().__init__(config)
        size, eps = config.d_model, config.layer_norm_eps
        self.self_attn = Attention(size, config.heads, config.attention_dropout, layer, key_bias)
        self.self_attn_layer_norm = nn.LayerNorm(size, eps)
        self.fc1 = nn.Linear(size, config.d_ff)
        self.fc2 = nn.Linear(config.d_ff, size)
        self.final_layer_norm = nn.LayerNorm(size, eps)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(B, S, D) to (B, S, D), and the weights if wanted."""
        normed = self._before(x, self.self_attn_layer_norm)
        update, weights = self.self_attn(normed, mask=mask, need_weights=need_weights)
        x = self._add(x, update, self.self_attn_layer_norm)
        normed = self._before(x, self.final_layer_norm)
        update = feed_forward(normed, self.fc1, self.fc2, self.activation)
        return self._add(x, update, self.final_layer_norm), weights


class DecoderLayer(_Layer):
    """Causal self-attention, attention to the encoder's output, then a feed-forward part."""

    def __init__(self, config: Any, layer: int, key_bias: bool = True) -> None:
        super().__init__(config)
        size, eps, dropout = config.d_model, config.layer_norm_eps, config.attention_dropout
        self.self_attn = Attention(size, config.heads, dropout, layer, key_bias)
        self.self_attn_layer_norm = nn.LayerNorm(size, eps)
        self.encoder_attn = Attention(size, config.heads, dropout, layer, key_bias)
        self.encoder_attn_layer_norm = nn.LayerNorm(size, eps)
        self.fc1 = nn.Linear(size, config.d_ff)
        self.fc2 = nn.Linear(config.d_ff, size)
        self.final_layer_norm = nn.LayerNorm(size, eps)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        is_causal: bool,
        memory_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(B, L, D) and the encoder's (B, S, D) to (B, L, D), and both weights if wanted."""
        normed = self._before(x, self.self_attn_layer_norm)
        update, weights = self.self_attn(
            normed, mask=mask, is_causal=is_causal, cache=cache, need_weights=need_weights
        )
        x = self._add(x, update, self.self_attn_layer_norm)
        normed = self._before(x, self.encoder_attn_layer_norm)
        update, cross_weights = self.encoder_attn(
            normed, memory, memory_mask, cache=cache, need_weights=need_weights
        )
        x = self._add(x, update, self.encoder_attn_layer_norm)
        normed = self._before(x, self.final_layer_norm)
        update = feed_forward(normed, self.fc1, self.fc2, self.activation)
        return self._add(x, update, self.final_layer_norm), weights, cross_weights


class Side(nn.Module):
    """One side of the model: positions, layers, and a norm at the end if norms come first."""

    def __init__(self, config: TransformerConfig, layers: list[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        if config.positions == "learned":
            rows = config.max_positions + config.position_offset
            self.embed_positions = nn.Embedding(rows, config.d_model)
        if config.normalize_embedding:
            self.layernorm_embedding = nn.LayerNorm(config.d_model, config.layer_norm_eps)
        self.layers = nn.ModuleList(layers)
        if config.pre_norm:
            self.layer_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)

    def embed(self, tokens: Tensor, position: Any) -> Tensor:
        """(B, L, D) token embeddings and (1 or B, L) positions to what the first layer reads."""
        config = self.config
        x = tokens * self.scale if config.scale_embedding else tokens
        if config.positions == "learned":
            x = x + self.embed_positions(Tensor(position + config.position_offset))
        else:
            last = int(position.max()) + 1 if position.size else 0
            table = as_tensor(position_table(config, last).astype(x.array.dtype), x.array)
            x = x + Tensor(table.array[position])
        if config.normalize_embedding:
            x = self.layernorm_embedding(x)
        return F.dropout(x, config.dropout, self.training)

    def finish(self, x: Tensor) -> Tensor:
        """The norm at the end, if there is one."""
        return self.layer_norm(x) if self.config.pre_norm else x


def position_table(config: TransformerConfig, length: int) -> Any:
    """The (length, D) float64 table of sines and cosines."""
    table = np.asarray(sinusoidal(length, config.d_model), dtype=np.float64)
    if config.positions == "sinusoidal_halves":
        table = np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)
    return table


class Transformer(PretrainedModel):
    """The encoder-decoder model with its output layer.

    Parameters
    ----------
    config : TransformerConfig
        Its sizes.

    Examples
    --------
    >>> model = Transformer(TransformerConfig(11, 16, d_model=8, encoder_layers=1, decoder_layers=1,
    ...                                       heads=2, d_ff=12)).eval()
    >>> model([[3, 4, 5]], labels=[[6, 7]]).logits.shape
    torch.Size([1, 2, 11])
    """

    config_class = TransformerConfig
    ignored: ClassVar[tuple[str, ...]] = (
        r"(model\.)?(encoder|decoder)\.embed_tokens\.weight",  # tied
        r"(model\.)?(encoder|decoder)\.embed_positions\.weight",  # computed where not trained
        r"lm_head\.weight",
        r"final_logits_bias",
    )
    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(
            config.vocab_size, config.d_model, padding_idx=config.pad_token_id
        )
        self.encoder = Side(config, [EncoderLayer(config, i) for i in range(config.encoder_layers)])
        self.decoder = Side(config, [DecoderLayer(config, i) for i in range(config.decoder_layers)])
        if config.final_logits_bias:
            zeros = np.zeros((1, config.vocab_size), dtype=np.float32)
            self.register_buffer("final_logits_bias", Tensor(zeros))
        normal_start(self, config.initializer_range)

    @property
    def positions(self) -> int:
        """Most tokens either side can read."""
        return self.config.max_positions

    def encode(
        self, input_ids: Any, attention_mask: Any = None, recorder: Recorder | None = None
    ) -> Tensor:
        """Encode the source.

        Parameters
        ----------
        input_ids : Tensor or array, (B, S) integer
            Token numbers.
        attention_mask : Tensor or array, (B, S), optional
            1 at tokens, 0 at padding.
        recorder : Recorder, optional
            Collects states and weights.

        Returns
        -------
        Tensor, (B, S, D)
            The encoder's output.

        Raises
        ------
        ValueError
            If there are more tokens than positions.
        """
        table = self.shared.weight
        ids = checked_ids(input_ids, table, self.config.max_positions)
        mask = None
        if attention_mask is not None:
            mask = padding_mask(attention_mask, ids.shape[1], table.array)
        recorder = recorder or Recorder(False, False)
        x = self.encoder.embed(
            self.shared(ids), position_numbers(None, ids.shape[1], 0, table.array)
        )
        for layer in self.encoder.layers:
            recorder.state(x)
            x, weights = layer(x, mask, recorder.wants_weights)
            recorder.weights(weights)
        x = self.encoder.finish(x)
        recorder.state(x)
        return x

    def decode(
        self,
        decoder_input_ids: Any,
        memory: Tensor,
        memory_mask: Any = None,
        attention_mask: Any = None,
        *,
        cache: KeyValueCache | None = None,
        logits_to_keep: int = 0,
        recorder: Recorder | None = None,
    ) -> ModelOutput:
        """Score the next target token at every position.

        Parameters
        ----------
        decoder_input_ids : Tensor or array, (B, L) integer
            Token numbers; those after the cached ones if there is a cache.
        memory : Tensor, (B, S, D)
            The encoder's output.
        memory_mask : Tensor or array, (B, S), optional
            1 at source tokens, 0 at padding.
        attention_mask : Tensor or array, (B, L), optional
            The same for the target.
        cache : KeyValueCache, optional
            Keys and values of earlier target tokens and of the source.
        logits_to_keep : int
            Score only this many last positions; 0 scores all.
        recorder : Recorder, optional
            Collects states and weights.

        Returns
        -------
        ModelOutput
            ``logits`` (B, L, V) and ``last_hidden_state`` (B, L, D).

        Raises
        ------
        ValueError
            If there are more tokens than positions.
        """
        past = 0 if cache is None else cache.length
        ids = checked_ids(decoder_input_ids, self.shared.weight, self.config.max_positions - past)
        length = ids.shape[1]
        recorder = recorder or Recorder(False, False)
        cross = None
        if memory_mask is not None:
            cross = padding_mask(memory_mask, memory.shape[1], memory.array)
        position = position_numbers(None, length, past, memory.array)
        x = self.decoder.embed(self.shared(ids), position)
        mask, is_causal = decoder_mask(length, past, attention_mask, x.array)
        for layer in self.decoder.layers:
            recorder.state(x)
            x, weights, cross_weights = layer(
                x, memory, mask, is_causal, cross, cache, recorder.wants_weights
            )
            recorder.weights(weights)
            recorder.weights(cross_weights, cross=True)
        x = self.decoder.finish(x)
        recorder.state(x)
        if cache is not None:
            cache.advance(length)
        scored = x[:, -logits_to_keep:] if logits_to_keep else x
        logits = F.linear(scored, self.shared.weight)  # (B, L, V)
        if self.config.final_logits_bias:
            logits = logits + self.final_logits_bias
        return ModelOutput(logits=logits, last_hidden_state=x)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        *,
        labels: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ModelOutput:
        """Encode the source and score the target.

        Parameters
        ----------
        input_ids, decoder_input_ids : Tensor or array, (B, S) and (B, L) integer
            Source and target; the target is made from the labels if it is not given.
        attention_mask, decoder_attention_mask : Tensor or array, optional
            1 at tokens, 0 at padding.
        labels : Tensor or array, (B, L) integer, optional
            What each target position should score highest; -100 is skipped.
        output_hidden_states, output_attentions : bool
            Return the states and attention weights of all layers of both sides.

        Returns
        -------
        ModelOutput
            ``logits`` (B, L, V), ``loss`` if labels were given, both sides' last states, and what
            was asked for.

        Raises
        ------
        ValueError
            If there are too many tokens, or neither target nor labels are given.
        """
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("give decoder_input_ids or labels")
            decoder_input_ids = self.shift_right(to_numpy(as_tensor(labels).array))
        ours = Recorder(output_hidden_states, output_attentions)
        theirs = Recorder(output_hidden_states, output_attentions)
        memory = self.encode(input_ids, attention_mask, theirs)
        out = self.decode(
            decoder_input_ids, memory, attention_mask, decoder_attention_mask, recorder=ours
        )
        out.encoder_last_hidden_state = memory
        out.hidden_states = ours.results()["hidden_states"]
        out.attentions = ours.results()["attentions"]
        out.encoder_hidden_states = theirs.results()["hidden_states"]
        out.encoder_attentions = theirs.results()["attentions"]
        if ours.cross_attentions is not None:
            out.cross_attentions = tuple(ours.cross_attentions)
        if labels is not None:
            assert out.logits is not None
            scores = out.logits.reshape(-1, self.config.vocab_size)
            out.loss = F.cross_entropy(scores, as_tensor(labels, scores.array).reshape(-1))
        return out

    def shift_right(self, labels: Any) -> Any:
        """The decoder's input for these labels: the start token, then all but the last."""
        shifted = np.empty_like(labels)
        shifted[:, 0] = self.config.decoder_start_token_id
        shifted[:, 1:] = labels[:, :-1]
        return np.where(shifted == -100, self.config.pad_token_id, shifted)

    def sources(self, checkpoint: Checkpoint) -> Mapping[str, Take]:
        """Hugging Face's names of BART and Marian."""
        return {
            name: Take(name if name == "final_logits_bias" else f"model.{name}")
            for name in self._saved_tensors()
        }
