"""Flash attention: the launches of attention.cu."""

from __future__ import annotations

import functools
from typing import Any

from ...backend import Array, array_module
from ...backend.cuda import fits, launch
from .grid import HERE, plain

TILE = 32  # queries or keys of a block, as in attention.cu
HEAD = 64  # the largest head attention.cu holds in shared memory


def attention_fits(Q: Array, K: Array, V: Array, mask: Any, dropout_p: float) -> bool:
    """Return whether the flash kernels take this problem."""
    return (
        fits(Q, K, V)
        and Q.shape[-1] == V.shape[-1] <= HEAD
        and not dropout_p
        and (mask is None or mask.dtype == bool)
    )


def attention_forward(
    Q: Array, K: Array, V: Array, mask: Array | None, O: Array, lse: Array, scale: float,
    is_causal: bool,
) -> None:  # fmt: skip
    """Fill `O` and `lse`; Q (B, G, R, L, E), K and V (B, G, S, E), mask (B, G, R, L, S)."""
    B, G, R, L, E = Q.shape
    S = K.shape[-2]
    launch(
        HERE / "attention.cu", "attention_forward", (-(-L // TILE), B * G * R), 128,
        plain(Q), plain(K), plain(V), None if mask is None else plain(mask), O, lse,
        G * R, G, L, S, E, scale, is_causal, dtype=Q.dtype, HEAD=_head(E),
    )  # fmt: skip


def attention_backward(
    Q: Array, K: Array, V: Array, mask: Array | None, dO: Array, O: Array, lse: Array,
    dQ: Array, dK: Array, dV: Array, scale: float, is_causal: bool,
) -> None:  # fmt: skip
    """Fill `dQ`, `dK` and `dV`: a row dot, then keys, then queries, each owning what it writes."""
    B, G, R, L, E = Q.shape
    S = K.shape[-2]
    file = HERE / "attention.cu"
    start = functools.partial(launch, dtype=Q.dtype, HEAD=_head(E))
    Q, K, V, dO = map(plain, (Q, K, V, dO))
    mask = None if mask is None else plain(mask)
    D = array_module(Q).empty(lse.shape, lse.dtype)
    start(file, "attention_backward_dot", (-(-D.size // 4),), 128, dO, plain(O), D, D.size, E)
    sizes = (G * R, G, L, S, E, scale, is_causal)
    start(
        file, "attention_backward_keys", (-(-S // TILE), B * G), 128,
        Q, K, V, mask, dO, lse, D, dK, dV, *sizes,
    )  # fmt: skip
    start(
        file, "attention_backward_queries", (-(-L // TILE), B * G * R), 128,
        Q, K, V, mask, dO, lse, D, dQ, *sizes,
    )  # fmt: skip


def _head(E: int) -> int:
    return 32 if E <= 32 else HEAD
