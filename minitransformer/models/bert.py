"""BERT: a bidirectional encoder, pre-trained by filling in masked words [1]_.

:class:`Bert` is the encoder with its pooler; the other classes add one head each: masked words and
next sentence (pre-training, section 3.1 of [1]_), classification (section 4.1) and spans that
answer a question (section 4.2).

References
----------
.. [1] Devlin et al., "BERT: pre-training of deep bidirectional transformers for language
   understanding", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn
from ..autograd import Tensor
from ..nn import functional as F
from ..nn.dropout import residual_dropout
from .checkpoint import Checkpoint
from .layers import (
    ACTIVATIONS,
    ModelOutput,
    Recorder,
    activate,
    as_tensor,
    attend,
    checked_ids,
    feed_forward,
    merge_heads,
    padding_mask,
    position_numbers,
    split_heads,
)
from .pretrained import PretrainedModel, Take, normal_start, positive


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT; the defaults are BERT-base.

    Attributes
    ----------
    vocab_size, max_position_embeddings, type_vocab_size : int
        Tokens, positions and token types it knows.
    hidden_size, num_hidden_layers, num_attention_heads, intermediate_size : int
        Model size D, layers, heads H and feed-forward size F.
    hidden_act : str
        ``"gelu"``, ``"gelu_tanh"``, ``"relu"`` or ``"silu"``.
    dropout : float
        Of embeddings, attention weights and both branches of a layer.
    layer_norm_eps, initializer_range : float
        The norm's epsilon and the deviation of the starting weights.
    pad_token_id : int, optional
        The token whose embedding is not trained.
    num_labels : int
        Classes of the classification head; 1 makes it a regression.
    """

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    num_labels: int = 2

    def __post_init__(self) -> None:
        positive(
            vocab_size=self.vocab_size,
            max_position_embeddings=self.max_position_embeddings,
            type_vocab_size=self.type_vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            num_labels=self.num_labels,
        )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} "
                "heads"
            )
        if self.hidden_act not in ACTIVATIONS.values():
            raise ValueError(f"hidden_act is {self.hidden_act!r}")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> BertConfig:
        """Read the ``config.json`` of a Hugging Face BERT.

        Parameters
        ----------
        settings : mapping
            Its content.

        Returns
        -------
        BertConfig
            The same sizes.

        Raises
        ------
        ValueError
            If it uses something this model has not.
        """
        if settings["model_type"] != "bert":
            raise ValueError(f"the checkpoint is of the type {settings['model_type']!r}")
        if settings.get("position_embedding_type", "absolute") != "absolute":
            raise ValueError("positions are relative; only absolute ones are supported")
        if settings.get("is_decoder") or settings.get("add_cross_attention"):
            raise ValueError("this BERT is a decoder; only encoders are supported")
        labels = settings.get("id2label")
        return cls(
            vocab_size=settings["vocab_size"],
            max_position_embeddings=settings["max_position_embeddings"],
            type_vocab_size=settings.get("type_vocab_size", 2),
            hidden_size=settings["hidden_size"],
            num_hidden_layers=settings["num_hidden_layers"],
            num_attention_heads=settings["num_attention_heads"],
            intermediate_size=settings["intermediate_size"],
            hidden_act=ACTIVATIONS[settings.get("hidden_act", "gelu")],
            dropout=settings.get("hidden_dropout_prob", 0.1),
            layer_norm_eps=settings.get("layer_norm_eps", 1e-12),
            initializer_range=settings.get("initializer_range", 0.02),
            pad_token_id=settings.get("pad_token_id", 0),
            num_labels=len(labels) if isinstance(labels, dict) and labels else 2,
        )


class BertEmbeddings(nn.Module):
    """The sum of a token's, its position's and its type's vector, normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        size = config.hidden_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, size, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, config.layer_norm_eps)

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        """(B, L) numbers and types to (B, L, D)."""
        positions = Tensor(position_numbers(None, ids.shape[1], 0, ids.array))
        x = self.word_embeddings(ids) + self.token_type_embeddings(types)
        x = x + self.position_embeddings(positions)  # (B, L, D)
        return F.dropout(self.LayerNorm(x), self.dropout, self.training)


class BertSelfAttention(nn.Module):
    """Every token looks at every token, in several heads."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.dropout
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, x: Tensor, mask: Tensor | None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, L, D) and, if `need_weights`, the (B, H, L, L) weights."""
        q, k, v = (split_heads(f(x), self.heads) for f in (self.query, self.key, self.value))
        dropout = self.dropout if self.training else 0.0
        out, weights = attend(q, k, v, mask, dropout_p=dropout, need_weights=need_weights)
        return self.dense(merge_heads(out)), weights  # (B, L, D)


class BertLayer(nn.Module):
    """Attention and a feed-forward part; each is added to its input and the sum normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dropout, self.activation = config.dropout, config.hidden_act
        self.attention = BertSelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self, x: Tensor, mask: Tensor | None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, L, D) and, if `need_weights`, the (B, H, L, L) weights."""
        update, weights = self.attention(x, mask, need_weights)
        x = self.attention_norm(residual_dropout(x, update, self.dropout, self.training))
        update = feed_forward(x, self.intermediate, self.output, self.activation)
        return self.output_norm(residual_dropout(x, update, self.dropout, self.training)), weights


class _BertBase(PretrainedModel):
    """What the encoder and the models with heads share: names in checkpoints."""

    config_class = BertConfig
    ignored: ClassVar[tuple[str, ...]] = (r"(bert\.)?embeddings\.position_ids",)
    config: BertConfig

    @property
    def positions(self) -> int:
        """Most tokens that can be read."""
        return self.config.max_position_embeddings

    def sources(self, checkpoint: Checkpoint) -> Mapping[str, Take]:
        """Hugging Face's names, with or without ``bert.``, with old or new names of norms."""
        prefix = "bert." if any(name.startswith("bert.") for name in checkpoint) else ""
        takes = {}
        for name in self._saved_tensors():
            inner = name.removeprefix("bert.")
            source = _hugging_face_name(inner)
            if name != inner or isinstance(self, Bert):
                source = prefix + source
            old = source.replace("LayerNorm.weight", "LayerNorm.gamma")
            old = old.replace("LayerNorm.bias", "LayerNorm.beta")
            takes[name] = Take(old if source not in checkpoint and old in checkpoint else source)
        return takes


def _hugging_face_name(name: str) -> str:
    """The name of one of our parameters in Hugging Face's BERT, without the ``bert.``."""
    name = name.replace("pooler.", "pooler.dense.") if name.startswith("pooler.") else name
    if not name.startswith("layer."):
        return name
    for ours, theirs in (
        (".attention.dense.", ".attention.output.dense."),
        (".attention_norm.", ".attention.output.LayerNorm."),
        (".attention.query.", ".attention.self.query."),
        (".attention.key.", ".attention.self.key."),
        (".attention.value.", ".attention.self.value."),
        (".intermediate.", ".intermediate.dense."),
        (".output_norm.", ".output.LayerNorm."),
    ):
        if ours in name:
            return "encoder." + name.replace(ours, theirs)
    return "encoder." + name.replace(".output.", ".output.dense.")


class Bert(_BertBase):
    """The encoder.

    Parameters
    ----------
    config : BertConfig
        Its sizes.
    pooler : bool
        Add the pooler, a linear layer with tanh on the first token.

    Examples
    --------
    >>> model = Bert(BertConfig(20, 8, hidden_size=6, num_hidden_layers=1,
    ...                         num_attention_heads=2, intermediate_size=8)).eval()
    >>> model([[1, 2, 3]])
    ModelOutput(last_hidden_state=(1, 3, 6), pooler_output=(1, 6))
    """

    ignored: ClassVar[tuple[str, ...]] = (
        *_BertBase.ignored,
        r"cls\..*",  # the pre-training heads, which the encoder alone does not have
    )

    def __init__(self, config: BertConfig, pooler: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.layer = nn.ModuleList([BertLayer(config) for _ in range(config.num_hidden_layers)])
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if pooler else None
        normal_start(self, config.initializer_range)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ModelOutput:
        """Encode texts.

        Parameters
        ----------
        input_ids : Tensor or array, (B, L) integer
            Token numbers.
        attention_mask : Tensor or array, (B, L), optional
            1 at tokens, 0 at padding.
        token_type_ids : Tensor or array, (B, L) integer, optional
            0 for the first text of a pair, 1 for the second.
        output_hidden_states, output_attentions : bool
            Return every layer's output and attention weights.

        Returns
        -------
        ModelOutput
            ``last_hidden_state`` (B, L, D), ``pooler_output`` (B, D), and what was asked for.

        Raises
        ------
        ValueError
            If there are more tokens than positions.
        IndexError
            If a token number or type is out of range.
        """
        config = self.config
        tables = self.embeddings
        ids = checked_ids(input_ids, tables.word_embeddings.weight, config.max_position_embeddings)
        if token_type_ids is None:
            types = as_tensor(np.zeros((1, ids.shape[1]), dtype=np.int64), ids.array)
        else:
            types = checked_ids(token_type_ids, tables.token_type_embeddings.weight, None)
        mask = None
        if attention_mask is not None:
            mask = padding_mask(attention_mask, ids.shape[1], ids.array)
        recorder = Recorder(output_hidden_states, output_attentions)
        x = self.embeddings(ids, types)  # (B, L, D)
        for layer in self.layer:
            recorder.state(x)
            x, weights = layer(x, mask, recorder.wants_weights)
            recorder.weights(weights)
        recorder.state(x)
        pooled = None if self.pooler is None else F.tanh(self.pooler(x[:, 0]))  # (B, D)
        return ModelOutput(last_hidden_state=x, pooler_output=pooled, **recorder.results())


class BertPredictionHead(nn.Module):
    """Scores of every word at every position; the output layer is the word embedding."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.activation = config.hidden_act
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.bias = nn.Parameter(Tensor(np.zeros(config.vocab_size, dtype=np.float32)))

    def forward(self, x: Tensor, word_embeddings: Tensor) -> Tensor:
        """(B, L, D) to (B, L, V)."""
        x = self.LayerNorm(activate(self.dense(x), self.activation))
        return F.linear(x, word_embeddings, self.bias)


class _WithPredictions(_BertBase):
    """Names of the prediction head, and the loss of masked words."""

    ignored: ClassVar[tuple[str, ...]] = (
        *_BertBase.ignored,
        r"cls\.predictions\.decoder\.(weight|bias)",  # tied
    )
    bert: Bert
    predictions: BertPredictionHead

    def sources(self, checkpoint: Checkpoint) -> Mapping[str, Take]:
        """As the encoder's; the heads are under ``cls.``."""
        takes = dict(super().sources(checkpoint))
        for name in takes:
            if name.startswith("predictions."):
                inner = name.removeprefix("predictions.")
                part = "" if inner == "bias" else "transform."
                source = f"cls.predictions.{part}{inner}"
                old = source.replace("LayerNorm.weight", "LayerNorm.gamma")
                old = old.replace("LayerNorm.bias", "LayerNorm.beta")
                takes[name] = Take(old if source not in checkpoint else source)
            elif name.startswith("seq_relationship."):
                takes[name] = Take(f"cls.{name}")
        return takes

    def score_words(self, hidden: Tensor) -> Tensor:
        """(B, L, D) to (B, L, V)."""
        scores: Tensor = self.predictions(hidden, self.bert.embeddings.word_embeddings.weight)
        return scores

    def word_loss(self, logits: Tensor, labels: Any) -> Tensor:
        """Mean cross-entropy where the label is not -100."""
        return F.cross_entropy(
            logits.reshape(-1, self.config.vocab_size), as_tensor(labels, logits.array).reshape(-1)
        )


class BertForMaskedLM(_WithPredictions):
    """BERT that fills in masked words.

    Parameters
    ----------
    config : BertConfig
        Its sizes.
    """

    ignored: ClassVar[tuple[str, ...]] = (
        *_WithPredictions.ignored,
        r"(bert\.pooler|cls\.seq_relationship)\..*",  # next sentence, not used here
    )

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config, pooler=False)
        self.predictions = BertPredictionHead(config)
        normal_start(self.predictions, config.initializer_range)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        labels: Any = None,
        **options: bool,
    ) -> ModelOutput:
        """Score every word at every position.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : Tensor or array, (B, L)
            See :class:`Bert`.
        labels : Tensor or array, (B, L) integer, optional
            The words; -100 where none was masked.
        **options : bool
            ``output_hidden_states``, ``output_attentions``.

        Returns
        -------
        ModelOutput
            ``logits`` (B, L, V), ``loss`` if labels were given, and the encoder's outputs.
        """
        out: ModelOutput = self.bert(input_ids, attention_mask, token_type_ids, **options)
        assert out.last_hidden_state is not None
        out.logits = self.score_words(out.last_hidden_state)
        if labels is not None:
            out.loss = self.word_loss(out.logits, labels)
        return out


class BertForPreTraining(_WithPredictions):
    """BERT with both heads of pre-training: masked words and next sentence.

    Parameters
    ----------
    config : BertConfig
        Its sizes.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config)
        self.predictions = BertPredictionHead(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)
        normal_start(self.predictions, config.initializer_range)
        normal_start(self.seq_relationship, config.initializer_range)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        labels: Any = None,
        next_sentence_label: Any = None,
        **options: bool,
    ) -> ModelOutput:
        """Score every word, and whether the second text follows the first.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : Tensor or array, (B, L)
            See :class:`Bert`.
        labels : Tensor or array, (B, L) integer, optional
            The words; -100 where none was masked.
        next_sentence_label : Tensor or array, (B,) integer, optional
            0 where the second text follows the first, 1 where it does not.
        **options : bool
            ``output_hidden_states``, ``output_attentions``.

        Returns
        -------
        ModelOutput
            ``logits`` (B, L, V), ``next_sentence_logits`` (B, 2), and ``loss``, the sum of the
            losses whose labels were given.
        """
        out: ModelOutput = self.bert(input_ids, attention_mask, token_type_ids, **options)
        assert out.last_hidden_state is not None
        out.logits = self.score_words(out.last_hidden_state)
        out.next_sentence_logits = self.seq_relationship(out.pooler_output)
        losses = []
        if labels is not None:
            losses.append(self.word_loss(out.logits, labels))
        if next_sentence_label is not None:
            target = as_tensor(next_sentence_label, out.next_sentence_logits.array)
            losses.append(F.cross_entropy(out.next_sentence_logits, target))
        if losses:
            out.loss = losses[0] if len(losses) == 1 else losses[0] + losses[1]
        return out


class BertForSequenceClassification(_BertBase):
    """BERT that classifies a text, or a pair of texts, or gives it a number.

    Parameters
    ----------
    config : BertConfig
        Its sizes; `num_labels` of 1 makes it a regression.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        normal_start(self.classifier, config.initializer_range)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        labels: Any = None,
        **options: bool,
    ) -> ModelOutput:
        """Score the classes of every text.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : Tensor or array, (B, L)
            See :class:`Bert`.
        labels : Tensor or array, (B,), optional
            Class numbers, or for a regression floats.
        **options : bool
            ``output_hidden_states``, ``output_attentions``.

        Returns
        -------
        ModelOutput
            ``logits`` (B, num_labels), ``loss`` if labels were given, and the encoder's outputs.
        """
        out: ModelOutput = self.bert(input_ids, attention_mask, token_type_ids, **options)
        assert out.pooler_output is not None
        pooled = F.dropout(out.pooler_output, self.config.dropout, self.training)
        out.logits = self.classifier(pooled)  # (B, num_labels)
        if labels is not None and self.config.num_labels == 1:
            out.loss = F.mse_loss(out.logits.squeeze(-1), as_tensor(labels, pooled.array))
        elif labels is not None:
            out.loss = F.cross_entropy(out.logits, as_tensor(labels, pooled.array))
        return out


class BertForQuestionAnswering(_BertBase):
    """BERT that marks the span of a text that answers a question.

    Parameters
    ----------
    config : BertConfig
        Its sizes.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config, pooler=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        normal_start(self.qa_outputs, config.initializer_range)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        start_positions: Any = None,
        end_positions: Any = None,
        **options: bool,
    ) -> ModelOutput:
        """Score every token as the first and as the last of the answer.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : Tensor or array, (B, L)
            See :class:`Bert`.
        start_positions, end_positions : Tensor or array, (B,) integer, optional
            The answer's first and last token; one past the end does not count.
        **options : bool
            ``output_hidden_states``, ``output_attentions``.

        Returns
        -------
        ModelOutput
            ``start_logits`` and ``end_logits`` (B, L), and ``loss``, their mean, if both
            positions were given.
        """
        out: ModelOutput = self.bert(input_ids, attention_mask, token_type_ids, **options)
        scores = self.qa_outputs(out.last_hidden_state)  # (B, L, 2)
        start, end = scores[:, :, 0], scores[:, :, 1]  # (B, L)
        out.start_logits, out.end_logits = start, end
        if start_positions is not None and end_positions is not None:
            length = start.shape[1]

            def loss(logits: Tensor, position: Any) -> Tensor:
                target = Tensor(as_tensor(position, logits.array).array.clip(0, length))
                return F.cross_entropy(logits, target, ignore_index=length)

            out.loss = (loss(start, start_positions) + loss(end, end_positions)) * 0.5
        return out
