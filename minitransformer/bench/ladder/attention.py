"""Attention, softmax(Q Kᵀ/√E) V of one head: Vaswani et al. 2017, equation 1.

Read from top to bottom it says why flash attention exists: the weights are never needed all
at once.
"""

from __future__ import annotations

import math

import numpy as np

from ...backend import Array
from ...kernels.attention import attention_backward, attention_forward
from . import Ladder, Rung

TILE = 128


def inputs(random: np.random.Generator, L: int, S: int, E: int) -> tuple[Array, ...]:
    """Return Q, K, V and the gradient dO."""
    shapes = (L, E), (S, E), (S, E), (L, E)
    return tuple(random.standard_normal(s, dtype=np.float32) for s in shapes)


def flops(outputs: int, L: int, S: int, E: int) -> float:
    """Two products forward, five backward, of 2 L S E operations each."""
    return (2 if outputs == 1 else 7) * 2.0 * L * S * E


def loops(Q: Array, K: Array, V: Array, dO: Array) -> tuple[Array, ...]:
    """As the equation reads, one number at a time."""
    (L, E), S = Q.shape, len(K)
    O = np.zeros((L, E), Q.dtype)
    for i in range(L):
        scores = [sum(Q[i, e] * K[j, e] for e in range(E)) / math.sqrt(E) for j in range(S)]
        top = max(scores)
        weights = [math.exp(s - top) for s in scores]
        total = sum(weights)
        for e in range(E):
            O[i, e] = sum(w * V[j, e] for j, w in enumerate(weights)) / total
    return (O, *vectorised(Q, K, V, dO)[1:])  # the gradients from the matrix form in float64


def vectorised(Q: Array, K: Array, V: Array, dO: Array) -> tuple[Array, ...]:
    """Matrix products; the (L, S) weights are stored, and read again by backward."""
    scale = 1 / math.sqrt(Q.shape[-1])
    S = (Q @ K.T) * scale
    P = np.exp(S - S.max(axis=-1, keepdims=True))
    P /= P.sum(axis=-1, keepdims=True)
    dV = P.T @ dO
    dP = dO @ V.T
    dS = P * (dP - (dP * P).sum(axis=-1, keepdims=True))
    return P @ V, dS @ K * scale, dS.T @ Q * scale, dV


def online(Q: Array, K: Array, V: Array, dO: Array) -> tuple[Array, ...]:
    """One pass over blocks of keys with a running maximum and sum: no (L, S) array."""
    scale = 1 / math.sqrt(Q.shape[-1])
    m = np.full((len(Q), 1), -math.inf, Q.dtype)
    l, O = np.zeros_like(m), np.zeros_like(Q)
    for j in range(0, len(K), TILE):
        S = (Q @ K[j : j + TILE].T) * scale
        top = np.maximum(m, S.max(axis=-1, keepdims=True))
        P, decay = np.exp(S - top), np.exp(m - top)
        l = l * decay + P.sum(axis=-1, keepdims=True)
        O = O * decay + P @ V[j : j + TILE]
        m = top
    return (O / l,)


def tiled(Q: Array, K: Array, V: Array, dO: Array) -> tuple[Array, ...]:
    """Tiles of queries and keys that fit the cache; backward makes the weights again."""
    scale = 1 / math.sqrt(Q.shape[-1])
    O, dQ = np.empty_like(Q), np.empty_like(Q)
    dK, dV = np.zeros_like(K), np.zeros_like(V)
    for i in range(0, len(Q), TILE):
        q, do = Q[i : i + TILE] * scale, dO[i : i + TILE]
        m = np.full((len(q), 1), -math.inf, Q.dtype)
        l, o = np.zeros_like(m), np.zeros_like(q)
        for j in range(0, len(K), TILE):
            S = q @ K[j : j + TILE].T
            top = np.maximum(m, S.max(axis=-1, keepdims=True))
            P, decay = np.exp(S - top), np.exp(m - top)
            l = l * decay + P.sum(axis=-1, keepdims=True)
            o = o * decay + P @ V[j : j + TILE]
            m = top
        o /= l
        lse = m + np.log(l)  # all that backward needs besides the inputs and O
        D = (do * o).sum(axis=-1, keepdims=True)
        dq = np.zeros_like(q)
        for j in range(0, len(K), TILE):
            k = K[j : j + TILE]
            P = np.exp(q @ k.T - lse)
            dV[j : j + TILE] += P.T @ do
            dS = P * (do @ V[j : j + TILE].T - D)
            dq += dS @ k
            dK[j : j + TILE] += dS.T @ q
        O[i : i + TILE], dQ[i : i + TILE] = o, dq * scale
    return O, dQ, dK, dV


def kernel(Q: Array, K: Array, V: Array, dO: Array) -> tuple[Array, ...]:
    """The library's own kernel on one head."""
    O, saved = attention_forward(Q[None], K[None], V[None])
    dQ, dK, dV, _ = attention_backward(dO[None], saved)
    return O[0], dQ[0], dK[0], dV[0]


LADDER = Ladder(
    "attention",
    {"L": 2048, "S": 2048, "E": 64},
    {"L": 48, "S": 40, "E": 16},
    inputs,
    flops,
    (
        Rung("loops", "the definition, one number at a time", loops, small=True),
        Rung("vectorised", "products by BLAS; stores the (L, S) weights", vectorised),
        Rung("online softmax", "forward in blocks of keys: memory linear in L", online),
        Rung("tiles", "queries and keys in cache-sized tiles, backward too", tiled),
        Rung("kernel, 1 thread", "the library's kernel", kernel),
        Rung("kernel, threads", "tiles shared out to every core", kernel, threads=None),
        Rung("kernel, CUDA", "flash kernels on the GPU", kernel, threads=None, device="cuda"),
        Rung(
            "kernel, CUDA, bfloat16", "products by tensor cores", kernel,
            threads=None, device="cuda", dtype="bfloat16",
        ),
    ),
)  # fmt: skip
