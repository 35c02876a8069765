"""Which model a checkpoint is, and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.text import Tokenizer
from .bert import (
    Bert,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
)
from .checkpoint import Checkpoint, CheckpointError, open_checkpoint, read_json
from .gpt import GPT
from .llama import Llama
from .pretrained import PretrainedModel
from .transformer import Transformer
from .vit import ViT
from .whisper import Whisper

_OURS: dict[str, type[PretrainedModel]] = {
    model.__name__: model
    for model in (
        Bert,
        BertForMaskedLM,
        BertForPreTraining,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        GPT,
        Llama,
        Transformer,
        ViT,
        Whisper,
    )
}
_MODEL_TYPES: dict[str, type[PretrainedModel]] = {
    "bert": Bert,
    "gpt2": GPT,
    "openai-gpt": GPT,
    "llama": Llama,
    "bart": Transformer,
    "marian": Transformer,
    "vit": ViT,
    "dinov2": ViT,
    "whisper": Whisper,
}


def model_class(checkpoint: Checkpoint) -> type[PretrainedModel]:
    """The class of the model that a checkpoint holds.

    Parameters
    ----------
    checkpoint : Checkpoint
        The open checkpoint.

    Returns
    -------
    type
        A subclass of `PretrainedModel`.

    Raises
    ------
    CheckpointError
        If nothing says what it is, or it is none of the models here.
    """
    path, kind = checkpoint.path, checkpoint.format
    if kind == "gguf":
        name = checkpoint.metadata.get("general.architecture")
        if name == "llama":
            return Llama
        raise CheckpointError(f"{path}: the GGUF file holds a {name!r}; only llama is supported")
    if kind == "onnx":
        return ViT
    if kind == "ctranslate2":
        return Whisper
    directory = path if path.is_dir() else path.parent
    config = read_json(directory / "config.json")
    if "minitransformer" in config:
        name = config.get("class")
        if isinstance(name, str) and name in _OURS:
            return _OURS[name]
        raise CheckpointError(f"{path}: saved from an unknown class {name!r}")
    architectures = config.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        if isinstance(name, str) and name.startswith("Bert") and name in _OURS:
            return _OURS[name]
    name = config.get("model_type")
    if isinstance(name, str) and name in _MODEL_TYPES:
        return _MODEL_TYPES[name]
    known = ", ".join(_MODEL_TYPES)
    raise CheckpointError(f"{path}: the model type is {name!r}; known are {known}")


def load_model(path: str | Path, *, dtype: Any = "float32") -> PretrainedModel:
    """Load the model that a checkpoint holds, whatever it is.

    Parameters
    ----------
    path : str or pathlib.Path
        A checkpoint of any format that is read.
    dtype : dtype or str
        What the parameters become.

    Returns
    -------
    PretrainedModel
        In evaluation mode.

    Raises
    ------
    CheckpointError
        If it cannot be read, is unknown, or does not fit.
    """
    return model_class(open_checkpoint(path)).from_pretrained(path, dtype=dtype)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load the tokenizer inside a GGUF file or beside the weights.

    Parameters
    ----------
    path : str or pathlib.Path
        A checkpoint.

    Returns
    -------
    Tokenizer
        Its tokenizer.

    Raises
    ------
    ValueError
        If there is none.
    """
    checkpoint = open_checkpoint(path)
    if checkpoint.format == "gguf":
        return Tokenizer.from_gguf(checkpoint.metadata)
    path = checkpoint.path
    return Tokenizer.load(path if path.is_dir() else path.parent)
