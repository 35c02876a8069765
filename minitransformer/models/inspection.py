"""What a checkpoint holds and what running it costs, from its description alone."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .auto import model_class
from .bert import BertForMaskedLM, BertForPreTraining
from .checkpoint import CheckpointError, open_checkpoint
from .gpt import GPT
from .llama import Llama
from .pretrained import PretrainedModel
from .transformer import Transformer
from .whisper import Whisper


def describe(path: str | Path, *, arrays: bool = False) -> dict[str, Any]:
    """Describe a checkpoint.

    Parameters
    ----------
    path : str or pathlib.Path
        A checkpoint of any format that is read.
    arrays : bool
        List every array.

    Returns
    -------
    dict
        Its format, architecture, settings, parameters, bytes and FLOPs; only format and arrays
        where the architecture is unknown.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    checkpoint = open_checkpoint(path)
    entries = checkpoint.entries.values()
    report: dict[str, Any] = {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "arrays_in_file": len(checkpoint),
        "elements_in_file": sum(entry.size for entry in entries),
        "bytes_in_file": sum(entry.nbytes for entry in entries),
        "stored_as": ", ".join(
            f"{kind} ({count})" for kind, count in Counter(e.stored for e in entries).most_common()
        ),
    }
    try:
        kind = model_class(checkpoint)
    except CheckpointError as error:
        report["architecture"] = f"unknown ({str(error).removeprefix(f'{checkpoint.path}: ')})"
    else:
        config, _ = kind._configuration(checkpoint)
        model = kind._unfilled(config, checkpoint)
        report["architecture"] = kind.__name__
        report["parameters"] = model.num_parameters()
        report["bytes_as_float32"] = 4 * model.num_parameters()
        report.update(costs(model))
        report["settings"] = asdict(config)
    if arrays:
        report["arrays"] = [
            {"name": e.name, "shape": list(e.shape), "stored": e.stored} for e in entries
        ]
    return report


def costs(model: PretrainedModel) -> dict[str, int]:
    """Multiplications and additions for one token, and the memory of its keys and values.

    Parameters
    ----------
    model : PretrainedModel
        A model; only its shapes matter.

    Returns
    -------
    dict of str to int
        ``flops_per_token`` counts two for every weight of a matrix product, the output layer
        included and embeddings not; ``flops_per_token_of_context`` is what each token that is
        attended to adds (scores and weighted sum); ``cache_bytes_per_token`` in float32 where
        there is a cache. For an encoder-decoder a token of the target is counted, the encoder's
        work and the keys of the source not.
    """
    config, weights = model.config, 0
    translates = isinstance(model, Transformer | Whisper)
    for name, parameter in model.named_parameters():
        table = name.startswith(("wte", "wpe", "shared")) or "embed" in name
        encoder = name.startswith("encoder.") or ".encoder_attn.k_" in name
        encoder = encoder or ".encoder_attn.v_" in name
        patches = "patch_embeddings" in name
        # once per sequence, not per token
        whole = any(part in name for part in ("pooler", "classifier", "seq_relationship"))
        if (
            parameter.ndim == 2
            and (patches or not (table or whole))
            and not (translates and encoder)
        ):
            weights += math.prod(parameter.shape)
    key_width = 0
    if isinstance(model, GPT):
        layers, size, width = config.n_layer, config.n_embd, config.n_embd
        key_width = width
    elif isinstance(model, Llama):
        layers, size = config.num_hidden_layers, config.hidden_size
        width = config.num_attention_heads * config.head_size
        key_width = config.num_key_value_heads * config.head_size
    elif translates:
        layers, size, width = config.decoder_layers, config.d_model, config.d_model
        key_width = width
    else:
        layers, size, width = config.num_hidden_layers, config.hidden_size, config.hidden_size
    predicts = key_width > 0 or isinstance(model, BertForMaskedLM | BertForPreTraining)
    if predicts and getattr(config, "tie_word_embeddings", True):
        weights += config.vocab_size * size
    found = {"flops_per_token": 2 * weights, "flops_per_token_of_context": 4 * layers * width}
    if key_width:
        found["cache_bytes_per_token"] = 2 * 4 * layers * key_width
    return found
