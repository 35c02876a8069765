"""GPT: a stack of causal self-attention and feed-forward blocks that predicts the next token.

One class for three papers. GPT-2 is the default: the norms come before each part of a block and
once at the end [2]_. GPT-1 puts them after each residual sum [1]_. GPT-3 is GPT-2 with every other
layer attending to a band of the nearest tokens only [3]_.

References
----------
.. [1] Radford et al., "Improving language understanding by generative pre-training", 2018,
   section 3.1, equation 2.
.. [2] Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.3.
.. [3] Brown et al., "Language models are few-shot learners", 2020, section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import nn
from ..autograd import Tensor
from ..nn import functional as F
from ..nn.dropout import residual_dropout
from .checkpoint import Checkpoint
from .layers import (
    ACTIVATIONS,
    KeyValueCache,
    ModelOutput,
    Recorder,
    attend,
    checked_ids,
    decoder_mask,
    feed_forward,
    merge_heads,
    position_numbers,
    shifted_loss,
    split_heads,
)
from .pretrained import PretrainedModel, Take, normal_start, positive


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT; the defaults are GPT-2 (124 M parameters).

    Attributes
    ----------
    vocab_size, n_positions : int
        Tokens it knows and tokens it can look back on.
    n_embd, n_layer, n_head : int
        Model size D, number of blocks, number of heads H.
    n_inner : int, optional
        Feed-forward size F, by default 4 D.
    activation : str
        ``"gelu_tanh"``, ``"gelu"``, ``"relu"`` or ``"silu"``.
    dropout : float
        Of embeddings, attention weights and both branches of a block.
    layer_norm_epsilon, initializer_range : float
        The norm's epsilon and the deviation of the starting weights.
    bias : bool
        Whether linear layers and norms have one.
    post_norm : bool
        GPT-1: norms after the residual sums and none at the end.
    band : int, optional
        GPT-3: layers 1, 3, 5, ... attend to this many nearest tokens.
    tie_word_embeddings : bool
        The output layer is the token embedding.
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation: str = "gelu_tanh"
    dropout: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    bias: bool = True
    post_norm: bool = False
    band: int | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        positive(
            vocab_size=self.vocab_size,
            n_positions=self.n_positions,
            n_embd=self.n_embd,
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_inner=self.inner,
            band=self.band or 1,
        )
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if self.activation not in ACTIVATIONS.values():
            raise ValueError(f"activation is {self.activation!r}")

    @property
    def inner(self) -> int:
        """Feed-forward size F."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> GPTConfig:
        """Read the ``config.json`` of a Hugging Face GPT-2 or OpenAI-GPT model.

        Parameters
        ----------
        settings : mapping
            Its content.

        Returns
        -------
        GPTConfig
            The same sizes.

        Raises
        ------
        ValueError
            If it uses something this model has not.
        """
        kind = settings["model_type"]
        if kind not in ("gpt2", "openai-gpt"):
            raise ValueError(f"the checkpoint is of the type {kind!r}")
        if settings.get("scale_attn_by_inverse_layer_idx") or not settings.get(
            "scale_attn_weights", True
        ):
            raise ValueError("attention scores are scaled in an unusual way")
        name = settings.get("activation_function", settings.get("afn", "gelu_new"))
        name = "gelu_new" if kind == "openai-gpt" and name == "gelu" else name  # its own naming
        return cls(
            vocab_size=settings["vocab_size"],
            n_positions=settings["n_positions"],
            n_embd=settings["n_embd"],
            n_layer=settings["n_layer"],
            n_head=settings["n_head"],
            n_inner=settings.get("n_inner"),
            activation=ACTIVATIONS[name],
            dropout=settings.get("resid_pdrop", 0.1),
            layer_norm_epsilon=settings.get("layer_norm_epsilon", 1e-5),
            initializer_range=settings.get("initializer_range", 0.02),
            post_norm=kind == "openai-gpt",
            tie_word_embeddings=settings.get("tie_word_embeddings", True),
        )


class CausalSelfAttention(nn.Module):
    """Every token looks at itself and the tokens before it, in several heads."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.n_head, self.dropout = layer, config.n_head, config.dropout
        self.band = config.band if layer % 2 else None
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, L, D) and, if `need_weights`, the (B, H, L, S) weights."""
        length, width = x.shape[1:]
        q, k, v = self.c_attn(x).split(width, dim=2)  # (B, L, D) each
        q, k, v = (split_heads(part, self.n_head) for part in (q, k, v))  # (B, H, L, E)
        past = 0 if cache is None else cache.length
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, H, S, E)
        mask, is_causal = decoder_mask(length, past, attention_mask, x.array, self.band)
        dropout = self.dropout if self.training else 0.0
        out, weights = attend(
            q, k, v, mask, is_causal=is_causal, dropout_p=dropout, need_weights=need_weights
        )
        return self.c_proj(merge_heads(out)), weights  # (B, L, D)


class MLP(nn.Module):
    """Two linear layers, the first four times as wide, with GELU between them."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.c_fc = nn.Linear(config.n_embd, config.inner, bias=config.bias)
        self.c_proj = nn.Linear(config.inner, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        return feed_forward(x, self.c_fc, self.c_proj, self.activation)


class Block(nn.Module):
    """Attention, then the feed-forward layer, each added to what came in."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.post_norm, self.dropout = config.post_norm, config.dropout
        self.ln_1 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon, bias=config.bias)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon, bias=config.bias)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, L, D) and, if `need_weights`, the (B, H, L, S) weights."""
        if self.post_norm:
            update, weights = self.attn(x, attention_mask, cache, need_weights)
            x = self.ln_1(residual_dropout(x, update, self.dropout, self.training))
            x = self.ln_2(residual_dropout(x, self.mlp(x), self.dropout, self.training))
        else:
            update, weights = self.attn(self.ln_1(x), attention_mask, cache, need_weights)
            x = residual_dropout(x, update, self.dropout, self.training)
            x = residual_dropout(x, self.mlp(self.ln_2(x)), self.dropout, self.training)
        return x, weights


class GPT(PretrainedModel):
    """The language model.

    Parameters
    ----------
    config : GPTConfig
        Its sizes.

    Examples
    --------
    >>> model = GPT(GPTConfig(vocab_size=11, n_positions=8, n_embd=6, n_layer=2, n_head=2))
    >>> model([[1, 2, 3]], labels=[[1, 2, 3]])
    ModelOutput(loss=(), logits=(1, 3, 11), last_hidden_state=(1, 3, 6))
    """

    config_class = GPTConfig
    config: GPTConfig
    ignored: ClassVar[tuple[str, ...]] = (
        r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
        r"(transformer\.)?position_ids",
        r"lm_head\.weight",
    )

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        if not config.post_norm:
            self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon, bias=config.bias)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        normal_start(self, config.initializer_range)
        # Each block adds to the residual stream twice; this keeps its size at the start.
        scaled = config.initializer_range / math.sqrt(2 * config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=scaled)

    @property
    def positions(self) -> int:
        """Most tokens that can be read."""
        return self.config.n_positions

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
            Return the state after every block, and every block's attention weights.

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
        past = 0 if cache is None else cache.length
        table = self.wte.weight
        ids = checked_ids(input_ids, table, self.config.n_positions - past)
        recorder = Recorder(output_hidden_states, output_attentions)
        position = Tensor(position_numbers(attention_mask, ids.shape[1], past, table.array))
        x = self.wte(ids) + self.wpe(position)  # (B, L, D)
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.h:
            recorder.state(x)
            x, weights = block(x, attention_mask, cache, recorder.wants_weights)
            recorder.weights(weights)
        if not self.config.post_norm:
            x = self.ln_f(x)
        recorder.state(x)
        if cache is not None:
            cache.advance(ids.shape[1])
        scored = x[:, -logits_to_keep:] if logits_to_keep else x
        head = self.wte if self.config.tie_word_embeddings else self.lm_head
        logits = F.linear(scored, head.weight)  # (B, L, V)
        loss = None if labels is None else shifted_loss(logits, labels)
        return ModelOutput(loss, logits, last_hidden_state=x, **recorder.results())

    def sources(self, checkpoint: Checkpoint) -> Mapping[str, Take]:
        """Hugging Face's GPT-2 names; its ``Conv1D`` weights are stored the other way round."""
        prefix = "transformer." if any(n.startswith("transformer.") for n in checkpoint) else ""
        renamed = {"wte": "tokens_embed", "wpe": "positions_embed"} if self.config.post_norm else {}
        takes = {}
        for name in self._saved_tensors():
            first, _, rest = name.partition(".")
            source = name if first == "lm_head" else f"{prefix}{renamed.get(first, first)}.{rest}"
            conv1d = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
            takes[name] = Take(source, axes=(1, 0) if conv1d else None)
        return takes
