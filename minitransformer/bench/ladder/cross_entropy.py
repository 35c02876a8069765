"""Softmax and cross-entropy with the gradient p - y: Szegedy et al. 2015, section 7."""

from __future__ import annotations

import math

import numpy as np

from ...backend import Array, array_module
from ...kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from . import Ladder, Rung

ROWS = 4


def inputs(random: np.random.Generator, N: int, V: int) -> tuple[Array, ...]:
    """Return logits and class numbers."""
    return random.standard_normal((N, V), dtype=np.float32) * 3, random.integers(0, V, N)


def flops(outputs: int, N: int, V: int) -> float:
    """About 4 operations a logit forward and 4 backward; traffic is what bounds it."""
    return (4.0 if outputs == 1 else 8.0) * N * V


def loops(logits: Array, target: Array) -> tuple[Array, ...]:
    """As the definition reads, one number at a time."""
    N, V = logits.shape
    losses, dlogits = np.zeros(N, logits.dtype), np.zeros_like(logits)
    for n in range(N):
        total = sum(math.exp(logits[n, c]) for c in range(V))
        losses[n] = math.log(total) - logits[n, target[n]]
        for c in range(V):
            p = math.exp(logits[n, c]) / total
            dlogits[n, c] = (p - (c == target[n])) / N
    return np.asarray(losses.sum() / N), dlogits


def vectorised(logits: Array, target: Array) -> tuple[Array, ...]:
    """Softmax, then its logarithm: it overflows for a logit of 89, and stores three copies."""
    N = len(logits)
    P = np.exp(logits)
    P = P / P.sum(axis=-1, keepdims=True)
    loss = -np.log(P[np.arange(N), target]).sum() / N
    onehot = np.zeros_like(P)
    onehot[np.arange(N), target] = 1
    return np.asarray(loss), (P - onehot) / N


def shifted(logits: Array, target: Array) -> tuple[Array, ...]:
    """Subtract the largest logit; keep the log-sum-exp and not the probabilities."""
    N = len(logits)
    x = logits - logits.max(axis=-1, keepdims=True)
    lse = np.log(np.exp(x).sum(axis=-1, keepdims=True))
    loss = (lse[:, 0] - x[np.arange(N), target]).sum() / N
    x -= lse
    np.exp(x, out=x)
    x[np.arange(N), target] -= 1
    x /= N
    return np.asarray(loss), x


def blocked(logits: Array, target: Array) -> tuple[Array, ...]:
    """The same on a few rows at a time, which stay in cache between the passes."""
    N, loss, dlogits = len(logits), 0.0, np.empty_like(logits)
    for i in range(0, N, ROWS):
        r = slice(i, i + ROWS)
        part, d = shifted(logits[r], target[r])
        share = len(target[r]) / N
        loss += float(part) * share
        np.multiply(d, share, out=dlogits[r])
    return np.asarray(loss, logits.dtype), dlogits


def kernel(logits: Array, target: Array) -> tuple[Array, ...]:
    """The library's own kernel."""
    loss, saved = cross_entropy_forward(logits, target, None)
    dlogits = cross_entropy_backward(array_module(logits).ones_like(loss), saved)[0]
    return loss, dlogits


LADDER = Ladder(
    "cross_entropy",
    {"N": 256, "V": 50304},
    {"N": 6, "V": 50},
    inputs,
    flops,
    (
        Rung("loops", "the definition, one number at a time", loops, small=True),
        Rung("vectorised", "whole arrays; overflows for a logit of 89", vectorised),
        Rung("log-sum-exp", "cannot overflow; probabilities are not stored", shifted),
        Rung("row blocks", "a few rows at a time, in cache", blocked),
        Rung("kernel, 1 thread", "the library's kernel", kernel),
        Rung("kernel, threads", "rows shared out to every core", kernel, threads=None),
        Rung("kernel, CUDA", "one block of threads a row", kernel, threads=None, device="cuda"),
    ),
)
