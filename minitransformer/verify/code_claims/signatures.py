"""PyTorch's signatures as a table holds them, and what its transformers count."""

from __future__ import annotations

from typing import Any

REQUIRED = object()  # an argument without a default
# Parameters in order, with their defaults, as PyTorch has them; tests/verify compares every
# row with the installed PyTorch.
SIGNATURES: dict[str, dict[str, Any]] = {
    "Transformer": {
        "d_model": 512, "nhead": 8, "num_encoder_layers": 6, "num_decoder_layers": 6,
        "dim_feedforward": 2048, "dropout": 0.1, "activation": "relu", "custom_encoder": None,
        "custom_decoder": None, "layer_norm_eps": 1e-5, "batch_first": False, "norm_first": False,
        "bias": True, "device": None, "dtype": None,
    },
    "TransformerEncoderLayer": {
        "d_model": REQUIRED, "nhead": REQUIRED, "dim_feedforward": 2048, "dropout": 0.1,
        "activation": "relu", "layer_norm_eps": 1e-5, "batch_first": False, "norm_first": False,
        "bias": True, "device": None, "dtype": None,
    },
    "TransformerDecoderLayer": {
        "d_model": REQUIRED, "nhead": REQUIRED, "dim_feedforward": 2048, "dropout": 0.1,
        "activation": "relu", "layer_norm_eps": 1e-5, "batch_first": False, "norm_first": False,
        "bias": True, "device": None, "dtype": None,
    },
    "TransformerEncoder": {
        "encoder_layer": REQUIRED, "num_layers": REQUIRED, "norm": None,
        "enable_nested_tensor": True, "mask_check": True,
    },
    "TransformerDecoder": {"decoder_layer": REQUIRED, "num_layers": REQUIRED, "norm": None},
    "MultiheadAttention": {
        "embed_dim": REQUIRED, "num_heads": REQUIRED, "dropout": 0.0, "bias": True,
        "add_bias_kv": False, "add_zero_attn": False, "kdim": None, "vdim": None,
        "batch_first": False, "device": None, "dtype": None,
    },
    "Linear": {
        "in_features": REQUIRED, "out_features": REQUIRED, "bias": True, "device": None,
        "dtype": None,
    },
    "Embedding": {
        "num_embeddings": REQUIRED, "embedding_dim": REQUIRED, "padding_idx": None,
        "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False, "sparse": False,
        "_weight": None, "_freeze": False, "device": None, "dtype": None,
    },
    "LayerNorm": {
        "normalized_shape": REQUIRED, "eps": 1e-5, "elementwise_affine": True, "bias": True,
        "device": None, "dtype": None,
    },
    "Dropout": {"p": 0.5, "inplace": False},
    "Softmax": {"dim": None},
    "CrossEntropyLoss": {
        "weight": None, "size_average": None, "ignore_index": -100, "reduce": None,
        "reduction": "mean", "label_smoothing": 0.0,
    },
    "Adam": {
        "params": REQUIRED, "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0,
        "amsgrad": False, "foreach": None, "maximize": False, "capturable": False,
        "differentiable": False, "fused": None, "decoupled_weight_decay": False,
    },
    "AdamW": {
        "params": REQUIRED, "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2,
        "amsgrad": False, "maximize": False, "foreach": None, "capturable": False,
        "differentiable": False, "fused": None,
    },
}  # fmt: skip
# How many arguments may be given without their names, where that is not all of them.
POSITIONAL = {"Adam": 6, "AdamW": 6}
OPTIMISERS = frozenset(["Adam", "AdamW"])


def encoder_layer_parameters(d: int, f: int) -> int:
    """Return the parameters of one encoder layer: 4d² + 4d, 2df + f + d, two norms of 2d."""
    return 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d


def decoder_layer_parameters(d: int, f: int) -> int:
    """Return the parameters of one decoder layer: two attentions and three norms."""
    return 2 * (4 * d * d + 4 * d) + 2 * d * f + f + d + 6 * d


def transformer_parameters(d: int, encoder: int, decoder: int, f: int) -> int:
    """Return the parameters of ``nn.Transformer``, its two final norms included.

    Examples
    --------
    >>> transformer_parameters(512, 2, 6, 2048), transformer_parameters(512, 2, 2, 2048)
    (31531008, 14714880)
    """
    return (
        encoder * encoder_layer_parameters(d, f)
        + decoder * decoder_layer_parameters(d, f)
        + (2 * d + 2 * d)
    )
