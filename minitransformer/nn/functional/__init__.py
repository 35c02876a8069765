"""Functions on tensors: each checks its arguments and puts one kernel on the tape.

Names, argument order, defaults and mask senses are PyTorch's; `feed_forward`,
`gated_feed_forward` and `rotary` are additions.
"""

from ...autograd.products import cosine_similarity
from .activations import gelu, log_softmax, logsigmoid, relu, sigmoid, silu, softmax, tanh
from .attention import scaled_dot_product_attention
from .embeddings import embedding, one_hot, rotary
from .losses import binary_cross_entropy_with_logits, cross_entropy, kl_div, mse_loss, nll_loss
from .multi_head import multi_head_attention_forward
from .normalization import layer_norm, normalize, rms_norm
from .padding import pad
from .products import feed_forward, gated_feed_forward, linear
from .regularization import dropout

__all__ = [
    "binary_cross_entropy_with_logits",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "embedding",
    "feed_forward",
    "gated_feed_forward",
    "gelu",
    "kl_div",
    "layer_norm",
    "linear",
    "log_softmax",
    "logsigmoid",
    "mse_loss",
    "multi_head_attention_forward",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "relu",
    "rms_norm",
    "rotary",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "tanh",
]
