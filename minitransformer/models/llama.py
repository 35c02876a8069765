"""The Llama form of a language model: four changes to GPT [1]_.

The norm is the root mean square alone (RMSNorm [2]_), positions turn queries and keys (rotary
embedding [3]_), several query heads share a key head (grouped queries [4]_), and the feed-forward
part has a gate (SwiGLU [5]_). No layer has a bias.

References
----------
.. [1] Touvron et al., "LLaMA: open and efficient foundation language models", 2023, section 2.2.
.. [2] Zhang and Sennrich, "Root mean square layer normalization", 2019, equation 4.
.. [3] Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021,
   equation 34.
.. [4] Ainslie et al., "GQA: training generalized multi-query transformer models from multi-head
   checkpoints", 2023, section 2.2.
.. [5] Shazeer, "GLU variants improve transformer", 2020, equation 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn
from ..autograd import Tensor
from ..backend import array_module
from ..nn import functional as F
from .checkpoint import Checkpoint
from .layers import (
    KeyValueCache,
    ModelOutput,
    Recorder,
    attend,
    checked_ids,
    decoder_mask,
    merge_heads,
    position_numbers,
    shifted_loss,
    split_heads,
    watched,
)
from .pretrained import PretrainedModel, Take, normal_start, positive


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a Llama; the defaults are SmolLM2-135M's.

    Attributes
    ----------
    vocab_size, max_position_embeddings : int
        Tokens it knows and tokens it was trained to look back on.
    hidden_size, num_hidden_layers, intermediate_size : int
        Model size D, layers and feed-forward size F.
    num_attention_heads, num_key_value_heads : int
        Query heads H and key heads G; H is a multiple of G.
    head_dim : int, optional
        Head size E, by default D / H.
    rms_norm_eps, rope_theta, initializer_range : float
        The norm's epsilon, the base of the rotary angles, the deviation of the starting weights.
    tie_word_embeddings : bool
        The output layer is the token embedding.
    pad_token_id : int, optional
        The token whose embedding is not trained.
    """

    vocab_size: int = 49152
    max_position_embeddings: int = 8192
    hidden_size: int = 576
    num_hidden_layers: int = 30
    intermediate_size: int = 1536
    num_attention_heads: int = 9
    num_key_value_heads: int = 3
    head_dim: int | None = None
    rms_norm_eps: float = 1e-5
    rope_theta: float = 100000.0
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        positive(
            vocab_size=self.vocab_size,
            max_position_embeddings=self.max_position_embeddings,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_size=self.intermediate_size,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_size,
        )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"{self.num_attention_heads} query heads do not share {self.num_key_value_heads} "
                "key heads evenly"
            )
        if self.head_size % 2:
            raise ValueError(f"head_dim {self.head_size} is odd; rotary positions turn pairs")

    @property
    def head_size(self) -> int:
        """Head size E."""
        if self.head_dim is not None:
            return self.head_dim
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> LlamaConfig:
        """Read the ``config.json`` of a Hugging Face Llama.

        Parameters
        ----------
        settings : mapping
            Its content.

        Returns
        -------
        LlamaConfig
            The same sizes.

        Raises
        ------
        ValueError
            If it uses something this model has not.
        """
        if settings["model_type"] != "llama":
            raise ValueError(f"the checkpoint is of the type {settings['model_type']!r}")
        rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ValueError(f"rotary positions are scaled ({rope}); that is not supported")
        if settings.get("attention_bias") or settings.get("mlp_bias"):
            raise ValueError("layers have biases; that is not supported")
        if settings.get("hidden_act", "silu") != "silu":
            raise ValueError(f"the gate is {settings['hidden_act']!r}, not silu")
        heads = settings["num_attention_heads"]
        return cls(
            vocab_size=settings["vocab_size"],
            max_position_embeddings=settings["max_position_embeddings"],
            hidden_size=settings["hidden_size"],
            num_hidden_layers=settings["num_hidden_layers"],
            intermediate_size=settings["intermediate_size"],
            num_attention_heads=heads,
            num_key_value_heads=settings.get("num_key_value_heads") or heads,
            head_dim=settings.get("head_dim"),
            rms_norm_eps=settings.get("rms_norm_eps", 1e-6),
            rope_theta=rope.get("rope_theta", settings.get("rope_theta", 10000.0)),
            initializer_range=settings.get("initializer_range", 0.02),
            tie_word_embeddings=settings.get("tie_word_embeddings", False),
            pad_token_id=settings.get("pad_token_id"),
        )

    @classmethod
    def from_gguf(cls, checkpoint: Checkpoint) -> LlamaConfig:
        """Read the metadata of a GGUF file.

        Parameters
        ----------
        checkpoint : Checkpoint
            The open file.

        Returns
        -------
        LlamaConfig
            Its sizes.

        Raises
        ------
        ValueError
            If the file holds another architecture.
        """
        data = checkpoint.metadata
        kind = data.get("general.architecture")
        if kind != "llama":
            raise ValueError(f"the file holds a {kind!r}, not a llama")
        if any("rope.scaling" in key for key in data) or "rope_freqs.weight" in checkpoint:
            raise ValueError("rotary positions are scaled; that is not supported")
        heads = data["llama.attention.head_count"]
        return cls(
            vocab_size=checkpoint.entries["token_embd.weight"].shape[0],
            max_position_embeddings=data["llama.context_length"],
            hidden_size=data["llama.embedding_length"],
            num_hidden_layers=data["llama.block_count"],
            intermediate_size=data["llama.feed_forward_length"],
            num_attention_heads=heads,
            num_key_value_heads=data.get("llama.attention.head_count_kv", heads),
            head_dim=data.get("llama.attention.key_length"),
            rms_norm_eps=data["llama.attention.layer_norm_rms_epsilon"],
            rope_theta=data.get("llama.rope.freq_base", 10000.0),
            tie_word_embeddings="output.weight" not in checkpoint,
        )


def rotary_angles(config: LlamaConfig, position: Any, dtype: Any) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``position * theta^(-2i / E)``: (1 or B, 1, L, E / 2) each."""
    xp = array_module(position)
    half = xp.arange(0, config.head_size, 2, dtype=np.float64) / config.head_size
    angle = position[:, None, :, None].astype(np.float64) * config.rope_theta**-half
    return Tensor(xp.cos(angle).astype(dtype)), Tensor(xp.sin(angle).astype(dtype))


class LlamaAttention(nn.Module):
    """Causal attention with turned queries and keys and shared key heads."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.layer, size = layer, config.head_size
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(config.hidden_size, self.heads * size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, self.key_heads * size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, self.key_heads * size, bias=False)
        self.o_proj = nn.Linear(self.heads * size, config.hidden_size, bias=False)

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        attention_mask: Any = None,
        cache: KeyValueCache | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, L, D) and, if `need_weights`, the (B, H, L, S) weights."""
        q = F.rotary(split_heads(self.q_proj(x), self.heads), *angles)  # (B, H, L, E)
        k = F.rotary(split_heads(self.k_proj(x), self.key_heads), *angles)  # (B, G, L, E)
        v = split_heads(self.v_proj(x), self.key_heads)
        past = 0 if cache is None else cache.length
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, G, S, E)
        mask, is_causal = decoder_mask(x.shape[1], past, attention_mask, x.array)
        out, weights = attend(q, k, v, mask, is_causal=is_causal, need_weights=need_weights)
        return self.o_proj(merge_heads(out)), weights  # (B, L, D)


class LlamaMLP(nn.Module):
    """``down(silu(gate(x)) * up(x))``."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        gate, up, down = self.gate_proj, self.up_proj, self.down_proj
        if watched(gate) or watched(up) or watched(down):
            out: Tensor = down(F.silu(gate(x)) * up(x))
            return out
        return F.gated_feed_forward(x, gate.weight, up.weight, down.weight)


class LlamaLayer(nn.Module):
    """Attention, then the gated feed-forward part, each added to what came in."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = LlamaAttention(config, layer)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = LlamaMLP(config)

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        attention_mask: Any = None,
        cache: KeyValueCache | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, L, D) and, if `need_weights`, the (B, H, L, S) weights."""
        normed = self.input_layernorm(x)
        update, weights = self.self_attn(normed, angles, attention_mask, cache, need_weights)
        x = x + update
        return x + self.mlp(self.post_attention_layernorm(x)), weights


class Llama(PretrainedModel):
    """The language model.

    Parameters
    ----------
    config : LlamaConfig
        Its sizes.

    Examples
    --------
    >>> model = Llama(LlamaConfig(11, 16, hidden_size=8, num_hidden_layers=1, intermediate_size=12,
    ...                           num_attention_heads=2, num_key_value_heads=1))
    >>> model([[1, 2, 3]])
    ModelOutput(logits=(1, 3, 11), last_hidden_state=(1, 3, 8))
    """

    config_class = LlamaConfig
    ignored: ClassVar[tuple[str, ...]] = (r".*rotary_emb\.inv_freq", r"lm_head\.weight")
    config: LlamaConfig

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        layers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList([LlamaLayer(config, layer) for layer in layers])
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        normal_start(self, config.initializer_range)

    @property
    def positions(self) -> int:
        """Most tokens that can be read."""
        return self.config.max_position_embeddings

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        *,
        labels: Any = None,
        cache: KeyValueCache | None = None,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ModelOutput:
        """Score the next token at every position.

        Parameters
        ----------
        input_ids : Tensor or array, (B, L) integer
            Token numbers; those after the cached ones if there is a cache.
        attention_mask : Tensor or array, (B, S), optional
            1 at tokens, 0 at padding; S counts the cached tokens too.
        labels : Tensor or array, (B, L) integer, optional
            The tokens themselves: position `i` is scored against label `i + 1`. -100 is skipped.
        cache : KeyValueCache, optional
            Keys and values of earlier tokens; extended by this call.
        logits_to_keep : int
            Score only this many last positions; 0 scores all.
        output_hidden_states, output_attentions : bool
            Return the state after every layer, and every layer's attention weights.

        Returns
        -------
        ModelOutput
            ``logits`` (B, L, V), ``last_hidden_state`` (B, L, D), ``loss`` if labels were given,
            and what was asked for.

        Raises
        ------
        ValueError
            If the tokens and the cached ones exceed the model's positions.
        IndexError
            If a token number is not in the vocabulary.
        """
        config = self.config
        past = 0 if cache is None else cache.length
        table = self.embed_tokens.weight
        ids = checked_ids(input_ids, table, config.max_position_embeddings - past)
        recorder = Recorder(output_hidden_states, output_attentions)
        x = self.embed_tokens(ids)  # (B, L, D)
        position = position_numbers(attention_mask, ids.shape[1], past, table.array)
        angles = rotary_angles(config, position, x.array.dtype)
        for layer in self.layers:
            recorder.state(x)
            x, weights = layer(x, angles, attention_mask, cache, recorder.wants_weights)
            recorder.weights(weights)
        x = self.norm(x)
        recorder.state(x)
        if cache is not None:
            cache.advance(ids.shape[1])
        scored = x[:, -logits_to_keep:] if logits_to_keep else x
        head = self.embed_tokens if config.tie_word_embeddings else self.lm_head
        logits = F.linear(scored, head.weight)  # (B, L, V)
        loss = None if labels is None else shifted_loss(logits, labels)
        return ModelOutput(loss, logits, last_hidden_state=x, **recorder.results())

    @classmethod
    def read_config(cls, checkpoint: Checkpoint) -> LlamaConfig:
        """From the file's metadata (GGUF) or the ``config.json`` beside it."""
        if checkpoint.format == "gguf":
            return LlamaConfig.from_gguf(checkpoint)
        config: LlamaConfig = super().read_config(checkpoint)
        return config

    def sources(self, checkpoint: Checkpoint) -> Mapping[str, Take]:
        """Hugging Face's names, or GGUF's."""
        if checkpoint.format == "gguf":
            return {name: self._gguf_source(name) for name in self._saved_tensors()}
        return {
            name: Take(name if name.startswith("lm_head.") else f"model.{name}")
            for name in self._saved_tensors()
        }

    def _gguf_source(self, name: str) -> Take:
        whole = {
            "embed_tokens.weight": "token_embd.weight",
            "norm.weight": "output_norm.weight",
            "lm_head.weight": "output.weight",
        }
        if name in whole:
            return Take(whole[name])
        _, layer, rest = name.split(".", 2)
        part = {
            "input_layernorm.weight": "attn_norm",
            "self_attn.q_proj.weight": "attn_q",
            "self_attn.k_proj.weight": "attn_k",
            "self_attn.v_proj.weight": "attn_v",
            "self_attn.o_proj.weight": "attn_output",
            "post_attention_layernorm.weight": "ffn_norm",
            "mlp.gate_proj.weight": "ffn_gate",
            "mlp.up_proj.weight": "ffn_up",
            "mlp.down_proj.weight": "ffn_down",
        }[rest]
        # llama.cpp turns neighbouring pairs, (2i, 2i + 1); here pairs are (i, i + E / 2)
        heads = {
            "attn_q": self.config.num_attention_heads,
            "attn_k": self.config.num_key_value_heads,
        }.get(part, 0)
        return Take(f"blk.{layer}.{part}.weight", rotary_heads=heads)
