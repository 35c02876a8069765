"""Whisper: speech to text with an encoder-decoder Transformer [1]_.

The encoder reads a log-mel spectrogram through two convolutions and adds sinusoidal positions; the
decoder is a language model with learned positions that attends to the encoder's output. Norms come
before each part; key projections have no bias.

References
----------
.. [1] Radford et al., "Robust speech recognition via large-scale weak supervision", 2022,
   section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn
from ..autograd import Tensor, no_grad
from ..autograd.shapes import cat
from ..backend import to_numpy
from ..nn import functional as F
from .checkpoint import Checkpoint
from .layers import (
    ACTIVATIONS,
    KeyValueCache,
    ModelOutput,
    Recorder,
    as_tensor,
    checked_ids,
    decoder_mask,
    position_numbers,
)
from .pretrained import PretrainedModel, Take, normal_start, positive
from .transformer import DecoderLayer, EncoderLayer


@dataclass(frozen=True)
class WhisperConfig:
    """The sizes of a Whisper; the defaults are tiny.en's.

    Attributes
    ----------
    vocab_size, num_mel_bins : int
        Tokens it knows; bands of the spectrogram.
    max_source_positions, max_target_positions : int
        Half the columns of the spectrogram; tokens it can write.
    d_model, encoder_layers, decoder_layers, heads, d_ff : int
        Model size D, layers of either side, heads H and feed-forward size F.
    activation : str
        ``"gelu"``, ``"gelu_tanh"``, ``"relu"`` or ``"silu"``.
    dropout, attention_dropout : float
        Of every branch; of the attention weights.
    layer_norm_eps, initializer_range : float
        The norm's epsilon and the deviation of the starting weights.
    pad_token_id, decoder_start_token_id, eos_token_id : int
        Special tokens.
    """

    vocab_size: int = 51864
    num_mel_bins: int = 80
    max_source_positions: int = 1500
    max_target_positions: int = 448
    d_model: int = 384
    encoder_layers: int = 4
    decoder_layers: int = 4
    heads: int = 6
    d_ff: int = 1536
    activation: str = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int = 50256
    decoder_start_token_id: int = 50257
    eos_token_id: int = 50256

    #: Norms come before each part.
    pre_norm: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive(
            vocab_size=self.vocab_size,
            num_mel_bins=self.num_mel_bins,
            max_source_positions=self.max_source_positions,
            max_target_positions=self.max_target_positions,
            d_model=self.d_model,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            heads=self.heads,
            d_ff=self.d_ff,
        )
        if self.d_model % self.heads or self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} does not suit {self.heads} heads")
        if self.activation not in ACTIVATIONS.values():
            raise ValueError(f"activation is {self.activation!r}")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> WhisperConfig:
        """Read the ``config.json`` of a Hugging Face Whisper.

        Parameters
        ----------
        settings : mapping
            Its content.

        Returns
        -------
        WhisperConfig
            The same sizes.

        Raises
        ------
        ValueError
            If it uses something this model has not.
        """
        if settings["model_type"] != "whisper":
            raise ValueError(f"the checkpoint is of the type {settings['model_type']!r}")
        heads, inner = settings["encoder_attention_heads"], settings["encoder_ffn_dim"]
        if (heads, inner) != (settings["decoder_attention_heads"], settings["decoder_ffn_dim"]):
            raise ValueError("encoder and decoder have different heads or feed-forward sizes")
        if settings.get("scale_embedding"):
            raise ValueError("embeddings are scaled; that is not supported")
        return cls(
            vocab_size=settings["vocab_size"],
            num_mel_bins=settings["num_mel_bins"],
            max_source_positions=settings["max_source_positions"],
            max_target_positions=settings["max_target_positions"],
            d_model=settings["d_model"],
            encoder_layers=settings["encoder_layers"],
            decoder_layers=settings["decoder_layers"],
            heads=heads,
            d_ff=inner,
            activation=ACTIVATIONS[settings.get("activation_function", "gelu")],
            dropout=settings.get("dropout", 0.0),
            attention_dropout=settings.get("attention_dropout", 0.0),
            initializer_range=settings.get("init_std", 0.02),
            pad_token_id=settings["pad_token_id"],
            decoder_start_token_id=settings["decoder_start_token_id"],
            eos_token_id=settings["eos_token_id"],
        )

    @classmethod
    def from_ctranslate2(cls, checkpoint: Checkpoint) -> WhisperConfig:
        """Read the sizes off the arrays of a CTranslate2 model.

        Parameters
        ----------
        checkpoint : Checkpoint
            The open file.

        Returns
        -------
        WhisperConfig
            Its sizes.

        Raises
        ------
        ValueError
            If it is not a Whisper.
        """
        kind = checkpoint.metadata["specification"]
        if kind != "WhisperSpec":
            raise ValueError(f"the file holds a {kind!r}, not a WhisperSpec")
        shape = {name: entry.shape for name, entry in checkpoint.entries.items()}
        vocabulary, size = shape["decoder/embeddings/weight"]
        english = vocabulary < 51865  # the multilingual vocabularies have at least one token more
        end = 50256 if english else 50257

        def layers(side: str) -> int:
            return sum(n.startswith(f"{side}/layer_") and n.endswith("ffn/layer_norm/beta")
                       for n in shape)  # fmt: skip

        return cls(
            vocab_size=vocabulary,
            num_mel_bins=shape["encoder/conv1/weight"][1],
            max_source_positions=shape["encoder/position_encodings/encodings"][0],
            max_target_positions=shape["decoder/position_encodings/encodings"][0],
            d_model=size,
            encoder_layers=layers("encoder"),
            decoder_layers=layers("decoder"),
            heads=int(checkpoint["encoder/num_heads"]),
            d_ff=shape["encoder/layer_0/ffn/linear_0/weight"][0],
            pad_token_id=end,
            decoder_start_token_id=end + 1,
            eos_token_id=end,
        )


class Convolution(nn.Module):
    """A convolution over time of width 3, as a linear layer on three columns at a time."""

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(3 * channels, size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T / stride, D)."""
        length = x.shape[1]
        x = F.pad(x, (0, 0, 1, 1))  # (B, T + 2, C)
        columns = [x[:, i : i + length : self.stride] for i in range(3)]
        out: Tensor = self.linear(cat(columns, dim=2))
        return out


class WhisperEncoder(nn.Module):
    """Two convolutions, positions, layers, and a norm at the end."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        size = config.d_model
        self.conv1 = Convolution(config.num_mel_bins, size, stride=1)
        self.conv2 = Convolution(size, size, stride=2)
        # not trained, but kept in the files
        table = sines(config.max_source_positions, size).astype(np.float32)
        self.embed_positions = nn.Parameter(Tensor(table), requires_grad=False)
        self.layers = nn.ModuleList(
            [EncoderLayer(config, i, key_bias=False) for i in range(config.encoder_layers)]
        )
        self.layer_norm = nn.LayerNorm(size, config.layer_norm_eps)


class WhisperDecoder(nn.Module):
    """Token and position embeddings, layers, and a norm at the end."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        size = config.d_model
        self.embed_tokens = nn.Embedding(
            config.vocab_size, size, padding_idx=min(config.pad_token_id, config.vocab_size - 1)
        )
        self.embed_positions = nn.Embedding(config.max_target_positions, size)
        self.layers = nn.ModuleList(
            [DecoderLayer(config, i, key_bias=False) for i in range(config.decoder_layers)]
        )
        self.layer_norm = nn.LayerNorm(size, config.layer_norm_eps)


def sines(length: int, size: int) -> Any:
    """The (length, size) table of positions: sines, then cosines."""
    step = math.log(10000.0) / (size // 2 - 1) if size > 2 else 0.0
    angle = np.arange(length)[:, None] * np.exp(-step * np.arange(size // 2))
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


class Whisper(PretrainedModel):
    """The model.

    Parameters
    ----------
    config : WhisperConfig
        Its sizes.

    Examples
    --------
    >>> import numpy as np
    >>> model = Whisper(WhisperConfig(11, 4, 6, 8, 8, 1, 1, 2, 12, pad_token_id=0))
    >>> model(np.zeros((1, 4, 12), np.float32), [[1, 2, 3]])
    ModelOutput(logits=(1, 3, 11), last_hidden_state=(1, 3, 8), encoder_last_hidden_state=(1, 6, 8))
    """

    config_class = WhisperConfig
    ignored: ClassVar[tuple[str, ...]] = (
        r"proj_out\.weight",  # tied
        r"(en|de)coder/(num_heads|activation|alibi|alignment_\w+|pre_norm|scale_embeddings"
        r"|start_from_zero_embedding)",
    )
    config: WhisperConfig

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = WhisperEncoder(config)
        self.decoder = WhisperDecoder(config)
        normal_start(self, config.initializer_range, skip=("encoder.embed_positions",))

    @property
    def positions(self) -> int:
        """Most tokens that can be written."""
        return self.config.max_target_positions

    def encode(self, features: Any, recorder: Recorder | None = None) -> Tensor:
        """Encode spectrograms.

        Parameters
        ----------
        features : Tensor or array, (B, M, 2 S) float
            Log-mel spectrograms, see :func:`minitransformer.data.audio.log_mel`.
        recorder : Recorder, optional
            Collects states and weights.

        Returns
        -------
        Tensor, (B, S, D)
            The encoder's output.

        Raises
        ------
        ValueError
            If the shape is not the one the model was trained on.
        """
        config, side = self.config, self.encoder
        sound = as_tensor(features, side.embed_positions.array)
        expected = (config.num_mel_bins, 2 * config.max_source_positions)
        if sound.ndim != 3 or tuple(sound.shape[1:]) != expected:
            raise ValueError(
                f"spectrograms are (batch, {expected[0]}, {expected[1]}), "
                f"found {tuple(sound.shape)}"
            )
        recorder = recorder or Recorder(False, False)
        x = F.gelu(side.conv1(sound.transpose(1, 2)))  # (B, 2 S, D)
        x = F.gelu(side.conv2(x))  # (B, S, D)
        x = F.dropout(x + side.embed_positions, config.dropout, self.training)
        for layer in side.layers:
            recorder.state(x)
            x, weights = layer(x, None, recorder.wants_weights)
            recorder.weights(weights)
        out: Tensor = side.layer_norm(x)
        recorder.state(out)
        return out

    def decode(
        self,
        decoder_input_ids: Any,
        memory: Tensor,
        memory_mask: None = None,
        attention_mask: Any = None,
        *,
        cache: KeyValueCache | None = None,
        logits_to_keep: int = 0,
        recorder: Recorder | None = None,
    ) -> ModelOutput:
        """Score the next token at every position.

        Parameters
        ----------
        decoder_input_ids : Tensor or array, (B, L) integer
            Token numbers; those after the cached ones if there is a cache.
        memory : Tensor, (B, S, D)
            The encoder's output.
        memory_mask : None
            All of the sound is read; there for the signature of `Transformer.decode`.
        attention_mask : Tensor or array, (B, L), optional
            1 at tokens, 0 at padding.
        cache : KeyValueCache, optional
            Keys and values of earlier tokens and of the sound.
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
        config, side = self.config, self.decoder
        past = 0 if cache is None else cache.length
        ids = checked_ids(
            decoder_input_ids, side.embed_tokens.weight, config.max_target_positions - past
        )
        length = ids.shape[1]
        recorder = recorder or Recorder(False, False)
        position = Tensor(position_numbers(attention_mask, length, past, memory.array))
        x = side.embed_tokens(ids) + side.embed_positions(position)  # (B, L, D)
        x = F.dropout(x, config.dropout, self.training)
        mask, is_causal = decoder_mask(length, past, attention_mask, x.array)
        for layer in side.layers:
            recorder.state(x)
            x, weights, cross_weights = layer(
                x, memory, mask, is_causal, None, cache, recorder.wants_weights
            )
            recorder.weights(weights)
            recorder.weights(cross_weights, cross=True)
        x = side.layer_norm(x)
        recorder.state(x)
        if cache is not None:
            cache.advance(length)
        scored = x[:, -logits_to_keep:] if logits_to_keep else x
        logits = F.linear(scored, side.embed_tokens.weight)  # (B, L, V)
        return ModelOutput(logits=logits, last_hidden_state=x)

    def forward(
        self,
        input_features: Any,
        decoder_input_ids: Any = None,
        *,
        labels: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ModelOutput:
        """Encode the sound and score the text.

        Parameters
        ----------
        input_features : Tensor or array, (B, M, 2 S) float
            Log-mel spectrograms.
        decoder_input_ids : Tensor or array, (B, L) integer
            The text; made from the labels if it is not given.
        labels : Tensor or array, (B, L) integer, optional
            What each position should score highest; -100 is skipped.
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
            If a shape does not fit, or neither text nor labels are given.
        """
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("give decoder_input_ids or labels")
            target = to_numpy(as_tensor(labels).array)
            decoder_input_ids = np.full_like(target, self.config.decoder_start_token_id)
            decoder_input_ids[:, 1:] = target[:, :-1]
            decoder_input_ids[decoder_input_ids == -100] = self.config.pad_token_id
        ours = Recorder(output_hidden_states, output_attentions)
        theirs = Recorder(output_hidden_states, output_attentions)
        memory = self.encode(input_features, theirs)
        out = self.decode(decoder_input_ids, memory, recorder=ours)
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

    @classmethod
    def read_config(cls, checkpoint: Checkpoint) -> WhisperConfig:
        """From the arrays (CTranslate2) or the ``config.json`` beside the weights."""
        if checkpoint.format == "ctranslate2":
            return WhisperConfig.from_ctranslate2(checkpoint)
        config: WhisperConfig = super().read_config(checkpoint)
        return config

    def sources(self, checkpoint: Checkpoint) -> Mapping[str, Take]:
        """Hugging Face's names, or CTranslate2's."""
        takes = {}
        for name, tensor in self._saved_tensors().items():
            side, _, rest = name.partition(".")
            if checkpoint.format == "ctranslate2":
                take = _ctranslate2_source(side, rest)
            elif name == "encoder.embed_positions":
                take = Take("model.encoder.embed_positions.weight")
            else:
                take = Take(f"model.{name}".replace(".linear.", "."))
            if rest.endswith(".linear.weight"):  # a (D, C, 3) kernel as a (D, 3 C) matrix
                take = Take(take.name, axes=(0, 2, 1), shape=tuple(tensor.shape))
            takes[name] = take
        return takes


def _ctranslate2_source(side: str, name: str) -> Take:
    """Where one of our parameters is in a CTranslate2 file: projections are fused there."""
    words = {"weight": "gamma", "bias": "beta"}
    whole = {
        "embed_positions": "position_encodings/encodings",
        "embed_positions.weight": "position_encodings/encodings",
        "embed_tokens.weight": "embeddings/weight",
        "layer_norm.weight": "layer_norm/gamma",
        "layer_norm.bias": "layer_norm/beta",
    }
    if name in whole:
        return Take(f"{side}/{whole[name]}")
    if name.startswith("conv"):
        module, _, kind = name.split(".")
        return Take(f"{side}/{module}/{kind}")
    _, layer, module, *more = name.split(".")
    root = f"{side}/layer_{layer}"
    kind = more[-1]
    if module in ("fc1", "fc2"):
        return Take(f"{root}/ffn/linear_{int(module[-1]) - 1}/{kind}")
    if module == "final_layer_norm":
        return Take(f"{root}/ffn/layer_norm/{words[kind]}")
    part = "attention" if module.startswith("encoder_attn") else "self_attention"
    if module.endswith("layer_norm"):
        return Take(f"{root}/{part}/layer_norm/{words[kind]}")
    if part == "self_attention":
        place = {"q_proj": (0, 0, 3), "k_proj": (0, 1, 3), "v_proj": (0, 2, 3)}
        number, index, parts = place.get(more[0], (1, 0, 1))
    else:
        place = {"q_proj": (0, 0, 1), "k_proj": (1, 0, 2), "v_proj": (1, 1, 2)}
        number, index, parts = place.get(more[0], (2, 0, 1))
    return Take(f"{root}/{part}/linear_{number}/{kind}", part=index, parts=parts)


def transcribe(
    model: Whisper,
    tokenizer: Any,
    samples: Any,
    *,
    settings: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write down English speech, 30 seconds at a time.

    Parameters
    ----------
    model : Whisper
        An English model.
    tokenizer : Tokenizer
        Its tokenizer.
    samples : numpy.ndarray, (N,) float
        Sound at 16 kHz.
    settings : mapping, optional
        The ``config.json`` beside the weights, for the tokens that are never written
        (``suppress_ids``, ``suppress_ids_begin``).

    Returns
    -------
    list of str
        The text of every 30 seconds.

    Raises
    ------
    ValueError
        If there is no sound.
    """
    from ..data.audio import log_mel
    from .generation import GenerationOptions, generate

    if len(samples) == 0:
        raise ValueError("the sound is empty")
    config, settings = model.config, settings or {}
    prompt = [config.decoder_start_token_id]
    if config.vocab_size >= 51865:  # multilingual: English, write down, as it is said
        prompt += [tokenizer.token_id("<|en|>"), tokenizer.token_id("<|transcribe|>")]
    prompt.append(tokenizer.token_id("<|notimestamps|>"))

    def tokens(name: str) -> tuple[int, ...]:
        listed = settings.get(name, ())
        return tuple(n for n in listed if type(n) is int and 0 <= n < config.vocab_size)

    options = GenerationOptions(
        max_new_tokens=config.max_target_positions // 2,
        eos_token_ids=(config.eos_token_id,),
        suppress=(*tokens("suppress_ids"), *range(prompt[-1], config.vocab_size)),
        suppress_first=tokens("suppress_ids_begin"),
    )
    texts = []
    columns = 2 * config.max_source_positions
    seconds = columns // 100
    for begin in range(0, len(samples), seconds * 16000):
        part = samples[begin : begin + seconds * 16000]
        features = log_mel(part, bands=config.num_mel_bins, seconds=seconds)
        with no_grad():
            memory = model.encode(features[None])
        new = generate(model, [prompt], options, memory=memory)[0]
        texts.append(tokenizer.decode(new).strip())
    return texts
