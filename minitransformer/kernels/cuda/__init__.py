"""The fused kernels: each `.cu` file beside the Python that launches it.

``fits(...)`` says whether a kernel takes the arrays at hand; the array formula in the module
above is what runs otherwise, and what the tests hold these against.
"""

from __future__ import annotations

from ...backend.cuda import fits
from .activation import (
    activation_backward,
    activation_forward,
    bias_activation,
    bias_activation_fits,
)
from .attention import Dropout, attention_backward, attention_fits, attention_forward
from .cross_entropy import cross_entropy_backward, cross_entropy_forward
from .dropout import residual_dropout
from .grid import WIDEST
from .layer_norm import layer_norm_backward, layer_norm_forward
from .optimizer import adam, clip_gradients, gradient_norm, listed, sgd
from .scatter_sum import scatter_sum
from .softmax import softmax_backward, softmax_forward

__all__ = [
    "WIDEST",
    "Dropout",
    "activation_backward",
    "activation_forward",
    "adam",
    "attention_backward",
    "attention_fits",
    "attention_forward",
    "bias_activation",
    "bias_activation_fits",
    "clip_gradients",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "fits",
    "gradient_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "listed",
    "residual_dropout",
    "scatter_sum",
    "sgd",
    "softmax_backward",
    "softmax_forward",
]
