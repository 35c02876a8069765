"""The position-wise network with GELU, forward: Vaswani et al. 2017, equation 2."""

from __future__ import annotations

import math

import numpy as np

from ...backend import Array
from ...kernels.feed_forward import feed_forward_forward
from . import Ladder, Rung

ROWS = 256


def inputs(random: np.random.Generator, N: int, D: int, F: int) -> tuple[Array, ...]:
    """Return x, the two weights in PyTorch's layout and their biases."""
    shapes = (N, D), (F, D), (F,), (D, F), (D,)
    x, w1, b1, w2, b2 = (random.standard_normal(s, dtype=np.float32) for s in shapes)
    return x, w1 / np.float32(math.sqrt(D)), b1, w2 / np.float32(math.sqrt(F)), b2


def flops(outputs: int, N: int, D: int, F: int) -> float:
    """Two products of 2 N D F operations."""
    return 4.0 * N * D * F


def gelu(h: Array) -> Array:
    """The tanh form."""
    a: Array = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h * h * h)))
    return a


def loops(x: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> tuple[Array, ...]:
    """As the equation reads, one number at a time."""
    (N, D), F = x.shape, len(w1)
    y = np.zeros((N, len(w2)), x.dtype)
    for n in range(N):
        h = [sum(x[n, d] * w1[f, d] for d in range(D)) + b1[f] for f in range(F)]
        a = [float(gelu(v)) for v in h]
        for d in range(len(w2)):
            y[n, d] = sum(a[f] * w2[d, f] for f in range(F)) + b2[d]
    return (y,)


def vectorised(x: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> tuple[Array, ...]:
    """Two products; the (N, F) intermediate goes through memory ten times between them."""
    return (gelu(x @ w1.T + b1) @ w2.T + b2,)


def blocked(x: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> tuple[Array, ...]:
    """A block of rows passes through both layers while it is in cache."""
    y = np.empty((len(x), len(w2)), x.dtype)
    for i in range(0, len(x), ROWS):
        (y[i : i + ROWS],) = vectorised(x[i : i + ROWS], w1, b1, w2, b2)
    return (y,)


def kernel(x: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> tuple[Array, ...]:
    """The library's own kernel."""
    return (feed_forward_forward(x, w1, b1, w2, b2, activation="gelu_tanh")[0],)


LADDER = Ladder(
    "feed_forward",
    {"N": 2048, "D": 384, "F": 1536},
    {"N": 8, "D": 12, "F": 40},
    inputs,
    flops,
    (
        Rung("loops", "the definition, one number at a time", loops, small=True),
        Rung("vectorised", "products by BLAS, the rest in whole-array passes", vectorised),
        Rung("row blocks", "bias, GELU and the second product while in cache", blocked),
        Rung("kernel, 1 thread", "in place, one exponential for the GELU", kernel),
        Rung("kernel, threads", "blocks shared out to every core", kernel, threads=None),
        Rung("kernel, CUDA", "cuBLAS and a fused GELU", kernel, threads=None, device="cuda"),
    ),
)
