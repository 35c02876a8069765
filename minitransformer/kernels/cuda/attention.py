"""Flash attention: the launches of attention.cu and, on tensor cores, of attention_mma.cu."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...backend import Array, Key, array_module
from ...backend.cuda import fits, launch
from .grid import HERE

HEAD = 128  # the largest head whose tiles the kernels hold
THREADS = 128
TILE = 32  # rows of a tile of attention.cu
QUERIES = 128  # that a block of attention_mma.cu owns forward

# struct Problem of attention.cuh
_PROBLEM = np.dtype(
    [("strides", np.int64, (6, 3)), ("mask_column", np.int64), ("stream", np.uint64, 3),
     ("sizes", np.int32, 6), ("scale", np.float32), ("threshold", np.uint32),
     ("kept", np.float32)],
    align=True,
)  # fmt: skip


class Dropout(NamedTuple):
    """Dropout of the weights: which numbers of which stream drop one, and 1 / (1 - p)."""

    threshold: int
    kept: float
    key: Key | None


class _Rung(NamedTuple):
    """One of the two files, with the tiles that suit a head's size: rows and bytes."""

    suffix: str
    defines: dict[str, int]
    forward: tuple[int, int]  # queries of a block, bytes of shared memory
    keys: tuple[int, int]
    queries: tuple[int, int]


def _rung(Q: Array, scale: float) -> _Rung:
    E, dtype = Q.shape[-1], Q.dtype
    if dtype.itemsize == 2 and E % 8 == 0 and scale > 0 and _has_tensor_cores(Q):
        return _tensor_rung(-(-E // 16) * 16)
    head = -(-E // 64) * 64
    row, scores = 4 * (head + 4), 4 * TILE * (TILE + 4)
    forward, backward = 3 * TILE * row + scores, 4 * TILE * row + scores
    return _Rung("", {"HEAD": head}, (TILE, forward), (TILE, backward), (TILE, backward))


def _tensor_rung(head: int) -> _Rung:
    """As many rows of 16 for each of 4 warps as the registers hold without spilling."""
    keys, blocks, step = (64, 2, 32) if head <= 64 else (32, 1, 32)
    row, own = 2 * (head + 8), 64 * blocks
    defines = {"HEAD": head, "KEYS": keys, "BLOCKS": blocks, "STEP": step}
    backward = (2 * own + 4 * step) * row
    return _Rung(
        "_mma", defines, (QUERIES, (QUERIES + 4 * keys) * row), (own, backward + 16 * step),
        (own, backward),
    )  # fmt: skip


def _has_tensor_cores(x: Any) -> bool:
    return int(x.device.compute_capability) >= 80  # mma of bfloat16, cp.async


def attention_fits(Q: Array, K: Array, V: Array, mask: Any) -> bool:
    """Return whether the flash kernels take this problem."""
    return (
        fits(Q, K, V)
        and Q.shape[-1] == V.shape[-1] <= HEAD
        and (mask is None or mask.dtype == bool)
    )


def attention_forward(
    Q: Array, K: Array, V: Array, mask: Array | None, scale: float, is_causal: bool,
    dropout: Dropout,
) -> tuple[Array, Array]:  # fmt: skip
    """Return `O`, laid out as (B, L, G, R, E), and `lse`.

    Q (B, G, R, L, E), K and V (B, G, S, E), mask (B, G, R, L, S).
    """
    xp = array_module(Q)
    B, G, R, L, E = Q.shape
    rung = _rung(Q, scale)
    O = xp.empty((B, L, G, R, E), Q.dtype).transpose(0, 2, 3, 1, 4)
    lse = xp.empty((B, G, R, L, 1), np.float32)
    Q, K, V = (_rows(x, rung) for x in (Q, K, V))
    own, shared = rung.forward
    launch(
        HERE / f"attention{rung.suffix}.cu", f"attention_forward{rung.suffix}",
        (-(-L // own) * B * G * R,), THREADS,
        Q, K, V, mask, O, lse, _problem(Q, K, V, O, O, mask, scale, is_causal, dropout),
        dtype=Q.dtype, shared=shared, DROPOUT=int(dropout.threshold > 0), **rung.defines,
    )  # fmt: skip
    return O, lse


def attention_backward(
    Q: Array, K: Array, V: Array, mask: Array | None, dO: Array, O: Array, lse: Array,
    scale: float, is_causal: bool, dropout: Dropout,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return `dQ`, `dK` and `dV`: a row dot, then keys, then queries, each owning its part."""
    xp = array_module(Q)
    B, G, R, L, E = Q.shape
    S = K.shape[-2]
    rung, simple = _rung(Q, scale), {"HEAD": -(-E // 64) * 64}
    Q, K, V, dO = (_rows(x, rung) for x in (Q, K, V, dO))
    problem = _problem(Q, K, V, O, dO, mask, scale, is_causal, dropout)
    defines = rung.defines | {"DROPOUT": int(dropout.threshold > 0)}
    D = xp.empty(lse.shape, lse.dtype)
    launch(
        HERE / "attention.cu", "attention_backward_dot", (-(-D.size * 32 // THREADS),), THREADS,
        dO, O, D, D.size, problem, dtype=Q.dtype, **simple,
    )  # fmt: skip
    dK, dV = (xp.empty((B, S, G, E), Q.dtype).transpose(0, 2, 1, 3) for _ in range(2))
    own, shared = rung.keys
    launch(
        HERE / f"attention{rung.suffix}.cu", f"attention_backward_keys{rung.suffix}",
        (-(-S // own) * B * G,), THREADS,
        Q, K, V, mask, dO, lse, D, dK, dV, problem,
        dtype=Q.dtype, shared=shared, **defines,
    )  # fmt: skip
    dQ = xp.empty((B, L, G, R, E), Q.dtype).transpose(0, 2, 3, 1, 4)
    own, shared = rung.queries
    launch(
        HERE / f"attention{rung.suffix}.cu", f"attention_backward_queries{rung.suffix}",
        (-(-L // own) * B * G * R,), THREADS,
        Q, K, V, mask, dO, lse, D, dQ, problem,
        dtype=Q.dtype, shared=shared, **defines,
    )  # fmt: skip
    return dQ, dK, dV


def _rows(x: Any, rung: _Rung) -> Any:
    """Return `x` itself where the kernels can read its rows in place: packed Q, K, V are views."""
    unit = 16 if rung.suffix else x.itemsize  # cp.async takes 16 bytes
    in_place = (
        x.strides[-1] == x.itemsize
        and all(s % unit == 0 for s in x.strides[:-1])
        and x.data.ptr % unit == 0
    )
    return x if in_place else x.copy()


def _problem(
    Q: Array, K: Array, V: Array, O: Array, dO: Array, mask: Array | None, scale: float,
    is_causal: bool, dropout: Dropout,
) -> Any:  # fmt: skip
    _, G, R, L, E = Q.shape
    S = K.shape[-2]
    problem = np.zeros((), _PROBLEM)
    for place, x in zip(problem["strides"], (Q, K, V, O, dO, mask)):
        if x is not None:
            batch, group, *member, row, _ = x.strides
            head = member[0] if member and R > 1 else group
            place[:] = batch // x.itemsize, head // x.itemsize, row // x.itemsize
    if mask is not None:
        problem["mask_column"] = mask.strides[-1]
    problem["sizes"] = G * R, R, L, S, E, is_causal
    problem["scale"], problem["threshold"], problem["kept"] = scale, dropout.threshold, dropout.kept
    if dropout.key is not None:
        problem["stream"] = dropout.key.step, dropout.key.operation, dropout.key.seed
    return problem
