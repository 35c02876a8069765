"""Layer normalisation with its gradients: Ba, Kiros and Hinton 2016, equations 3 and 4."""

from __future__ import annotations

import math

import numpy as np

from ...backend import Array
from ...kernels.layer_norm import layer_norm_backward, layer_norm_forward
from . import Ladder, Rung

EPS = 1e-5
ROWS = 64


def inputs(random: np.random.Generator, N: int, D: int) -> tuple[Array, ...]:
    """Return x, gain, shift and the gradient dy."""
    shapes = (N, D), (D,), (D,), (N, D)
    return tuple(random.standard_normal(s, dtype=np.float32) for s in shapes)


def flops(outputs: int, N: int, D: int) -> float:
    """About 8 operations an entry forward and 12 backward; traffic is what bounds it."""
    return (8.0 if outputs == 1 else 20.0) * N * D


def loops(x: Array, gain: Array, shift: Array, dy: Array) -> tuple[Array, ...]:
    """As the equations read, one number at a time."""
    N, D = x.shape
    y, dx = np.zeros_like(x), np.zeros_like(x)
    dgain, dshift = np.zeros_like(gain), np.zeros_like(shift)
    for n in range(N):
        mean = sum(x[n, d] for d in range(D)) / D
        var = sum((x[n, d] - mean) ** 2 for d in range(D)) / D
        rstd = 1 / math.sqrt(var + EPS)
        x_hat = [(x[n, d] - mean) * rstd for d in range(D)]
        dx_hat = [dy[n, d] * gain[d] for d in range(D)]
        average = sum(dx_hat) / D
        projection = sum(a * b for a, b in zip(dx_hat, x_hat)) / D
        for d in range(D):
            y[n, d] = x_hat[d] * gain[d] + shift[d]
            dx[n, d] = rstd * (dx_hat[d] - average - x_hat[d] * projection)
            dgain[d] += dy[n, d] * x_hat[d]
            dshift[d] += dy[n, d]
    return y, dx, dgain, dshift


def vectorised(x: Array, gain: Array, shift: Array, dy: Array) -> tuple[Array, ...]:
    """Whole arrays at once: a dozen passes through memory, a new array each."""
    mean = x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + EPS)
    x_hat = (x - mean) * rstd
    dx_hat = dy * gain
    projection = (dx_hat * x_hat).mean(axis=-1, keepdims=True)
    dx = rstd * (dx_hat - dx_hat.mean(axis=-1, keepdims=True) - x_hat * projection)
    return x_hat * gain + shift, dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


def blocked(x: Array, gain: Array, shift: Array, dy: Array) -> tuple[Array, ...]:
    """The same on blocks of rows that stay in cache: one trip to memory and not twelve."""
    y, dx = np.empty_like(x), np.empty_like(x)
    dgain, dshift = np.zeros_like(gain), np.zeros_like(shift)
    for i in range(0, len(x), ROWS):
        r = slice(i, i + ROWS)
        y[r], dx[r], g, s = vectorised(x[r], gain, shift, dy[r])
        dgain += g
        dshift += s
    return y, dx, dgain, dshift


def kernel(x: Array, gain: Array, shift: Array, dy: Array) -> tuple[Array, ...]:
    """The library's own kernel."""
    y, saved = layer_norm_forward(x, gain, shift, eps=EPS)
    dx, dgain, dshift = layer_norm_backward(dy, saved)
    assert dgain is not None and dshift is not None
    return y, dx, dgain, dshift


LADDER = Ladder(
    "layer_norm",
    {"N": 4096, "D": 768},
    {"N": 20, "D": 24},
    inputs,
    flops,
    (
        Rung("loops", "the definition, one number at a time", loops, small=True),
        Rung("vectorised", "whole arrays; a pass through memory per operation", vectorised),
        Rung("row blocks", "blocks of rows that stay in cache", blocked),
        Rung("kernel, 1 thread", "in place, row dots by einsum", kernel),
        Rung("kernel, threads", "blocks shared out to every core", kernel, threads=None),
        Rung("kernel, CUDA", "one block of threads a row", kernel, threads=None, device="cuda"),
    ),
)
