"""Scaled dot-product attention in tiles with an online softmax: memory linear in the length.

One tile is a few heads times a block of queries, against one block of keys after
the other. Only the log-sum-exp of each row is saved; backward makes the weights again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..backend import (
    Array,
    Key,
    array_module,
    blocks,
    cublas,
    even_blocks,
    random_bits,
    run_blocks,
    scratch,
)
from . import cuda
from .dropout import keep_threshold
from .elementwise import unbroadcast

QUERIES = 128  # of one tile
KEYS = 512  # of one tile: 128 × 512 scores are 256 KiB, within a core's cache; 4 × QUERIES
SCORES = 1 << 18  # of one tile of many short heads
FEW = 16  # queries for which a copy of the keys by columns does not pay
GPU_SCORES = 1 << 26  # of one tile where a launch costs more than memory

# A row of scores whose exponentials sum to between e^-10 and e^40 needs no maximum subtracted:
# exp of a float is as exact at 40 as at 0, and values of any ordinary size neither vanish nor
# overflow when weighed so. (A row of results that did overflow is not calm.)
CALM = math.exp(-10.0), math.exp(40.0)


class _Tile(NamedTuple):
    """Which sequences, key-value heads and queries one piece of work covers."""

    batch: slice
    heads: slice
    queries: slice


class _Problem:
    """The arrays in one shape, (B, G, R, L, E): R query heads share each key-value head."""

    def __init__(
        self, Q: Array, K: Array, V: Array, mask: Array | None, is_causal: bool, scale: float,
        dropout_p: float, key: Key | None,
    ) -> None:  # fmt: skip
        self.xp = xp = array_module(Q)
        self.product: Any = np.matmul if xp is np else cublas.product
        if Q.dtype.itemsize == 2 and not cuda.attention_fits(Q, K, V, mask):
            Q, K, V = (x.astype(np.float32) for x in (Q, K, V))  # exacter, faster on a CPU
            if mask is not None and mask.dtype != bool:
                mask = mask.astype(np.float32)
        *batch, H, L, E = Q.shape
        G, S = K.shape[-3], K.shape[-2]
        B = math.prod(batch)
        self.size = B, G, H // G, L, S
        self.dtype = Q.dtype
        self.Q = Q.reshape(B, G, H // G, L, E)
        self.K = K.reshape(B, G, S, E)
        self.V = V.reshape(B, G, S, V.shape[-1])
        self.mask = None
        if mask is not None:
            full = xp.broadcast_to(mask, (*batch, H, L, S))
            self.mask = full.reshape(B, G, H // G, L, S) if B else None
        self.is_causal = is_causal
        self.scale = scale
        self.dropout_p, self.key = dropout_p, key
        kept = 1.0 / (1.0 - dropout_p) if dropout_p < 1 else 0.0
        self.dropout = cuda.Dropout(keep_threshold(dropout_p), kept, key)

    def tiles(self, whole_queries: bool = False) -> list[_Tile]:
        """Return the pieces of work: fixed by the shapes, whatever the number of threads."""
        B, G, R, L, S = self.size
        budget = SCORES if self.xp is np else GPU_SCORES
        queries = self.query_blocks()
        longest = max((q.stop - q.start for q in queries), default=1)
        scores = R * longest * max(1, min(S, KEYS) if self.xp is np else S)
        heads = max(1, min(G, budget // max(1, scores)))
        batch = max(1, min(-(-B // 2), budget // max(1, scores * heads))) if heads == G else 1
        return [
            _Tile(b, g, q)
            for b in even_blocks(B, batch)
            for g in even_blocks(G, heads)
            for q in ([slice(0, L)] if whole_queries else reversed(queries))
        ]  # reversed: under a causal mask the last queries have most to do

    def run(self, work: Callable[[_Tile], None], tiles: list[_Tile]) -> None:
        """Do the tiles: a CPU's in threads, a GPU's in the thread whose stream they are for."""
        if self.xp is np:
            run_blocks(work, tiles)
            return
        for tile in tiles:
            work(tile)

    def query_blocks(self) -> list[slice]:
        B, G, R, L, S = self.size
        return blocks(L, QUERIES if self.xp is np else max(1, GPU_SCORES // max(1, B * G * R * S)))

    def key_blocks(self, queries: slice) -> list[slice]:
        """Return the blocks of keys that some of the queries may attend to."""
        seen = self.seen(queries)
        return blocks(seen, KEYS if self.xp is np else max(1, seen))

    def seen(self, queries: slice) -> int:
        """Return how many keys the queries may attend to."""
        S = self.size[4]
        return min(S, queries.stop) if self.is_causal else S

    def folded(self, x: Array, tile: _Tile) -> Array:
        """Return the tile's rows of a (B, G, R, L, ·) array as (b, g, R · l, ·)."""
        rows = x[tile.batch, tile.heads, :, tile.queries]
        b, g, r, l, e = rows.shape
        return rows.reshape(b, g, r * l, e)

    def unfolded(self, x: Array, tile: _Tile) -> Array:
        """Return (b, g, R · l, s) seen as (b, g, R, l, s)."""
        b, g, rl, s = x.shape
        R = self.size[2]
        return x.reshape(b, g, R, rl // R, s)

    def hostile(self, tile: _Tile) -> bool:
        """Return whether hidden keys or values may hold NaN or inf, which 0 · NaN lets through.

        A GPU is not asked, because the answer would stop its queue.
        """
        if self.mask is None and not self.is_causal:
            return False
        seen = tile.batch, tile.heads, slice(0, self.seen(tile.queries))
        return self.xp is not np or not (_finite(self.K[seen]) and _finite(self.V[seen]))

    def multiply(self, name: str, a: Array, b: Array) -> Array:
        """Return ``a @ b`` in the scratch array `name`."""
        out = scratch(name, a, (*a.shape[:-1], b.shape[-1]))
        return self.product(a, b, out=out)

    def scaled(self, tile: _Tile, more: int = 0) -> Array:
        """Return scale · Q of a tile, (b, g, R · l, E), with room for `more` entries a row."""
        rows = self.Q[tile.batch, tile.heads, :, tile.queries]
        b, g, r, l, e = rows.shape
        Q = scratch("Q", rows, (b, g, r, l, e + more))
        self.xp.multiply(rows, self.dtype.type(self.scale), out=Q[..., :e])
        return Q.reshape(b, g, r * l, e + more)

    def scores(self, Q: Array, K: Array, tile: _Tile, keys: slice, hostile: bool) -> Array:
        """Return the masked scores Q K + mask of a tile, (b, g, R · l, s).

        `Q` is scaled; `K` has a key in each column.
        """
        xp = self.xp
        S = self.multiply("S", Q, K)
        view = self.unfolded(S, tile)
        here = tile.batch, tile.heads, slice(None), tile.queries, keys
        if self.mask is not None and self.mask.dtype != bool:
            view += self.mask[here]
        if hostile or (self.mask is not None and self.mask.dtype == bool):
            if (hidden := self.hidden(tile, keys)) is not None:
                xp.copyto(view, -math.inf, where=hidden)
        elif self.is_causal and keys.stop > tile.queries.start + 1:
            # the same with a minimum, several times faster, for the corner on the diagonal
            part = view[..., tile.queries.start - keys.start :]
            ceiling = _corner(part.shape[-2], part.shape[-1], part.dtype)
            if part.shape == view.shape:  # many short heads: one long inner loop each
                b, g, r, l, s = view.shape
                part, ceiling = view.reshape(b, g, r, l * s), ceiling.reshape(l * s)
            np.minimum(part, ceiling, out=part)
        return S

    def later(self, tile: _Tile, keys: slice) -> Array:
        """Return which keys come after which queries of a tile, (l, s)."""
        queries = self.xp.arange(tile.queries.start, tile.queries.stop)
        return self.xp.arange(keys.start, keys.stop)[None, :] > queries[:, None]

    def hidden(self, tile: _Tile, keys: slice) -> Array | None:
        """Return where a tile's scores are -inf by decree, broadcastable to (b, g, R, l, s)."""
        hidden = None
        if self.is_causal and keys.stop > tile.queries.start + 1:
            hidden = self.later(tile, keys)
        if self.mask is not None:
            part = self.mask[tile.batch, tile.heads, :, tile.queries, keys]
            never = ~part if part.dtype == bool else part == -math.inf
            hidden = never if hidden is None else hidden | never
        return hidden

    def keep(self, tile: _Tile, keys: slice) -> Array:
        """Return keep / (1 - p) of a tile's weights.

        Each (head, query) row has a stretch of the stream to itself, so that the
        mask does not depend on the tiles.
        """
        B, G, R, L, S = self.size
        assert self.key is not None
        row = -(-S // 8) * 8
        threshold = np.uint32(self.dropout.threshold)
        lines = []
        for b in range(*tile.batch.indices(B)):
            for h in range(tile.heads.start * R, min(tile.heads.stop, G) * R):
                start = ((b * G * R + h) * L + tile.queries.start) * row
                n = (tile.queries.stop - tile.queries.start) * row
                lines.append(random_bits(self.key, n, start=start, xp=self.xp))
        bits = self.xp.concatenate(lines).reshape(-1, row)[:, keys]
        chosen: Array = bits >= threshold
        kept = chosen.astype(self.dtype)
        kept *= self.dropout.kept
        b = len(range(*tile.batch.indices(B)))
        return kept.reshape(b, -1, R * (tile.queries.stop - tile.queries.start), kept.shape[-1])

    def weigh(self, name: str, P: Array, tile: _Tile, keys: slice, hostile: bool) -> Array:
        """Return P V, in which a weight of zero meets no NaN and no infinity."""
        V = self.V[tile.batch, tile.heads, keys]
        xp = self.xp
        if not hostile:
            return self.multiply(name, P, V)
        O = self.product(P, xp.where(xp.isfinite(V), V, V.dtype.type(0)))
        nonzero: Array = xp.not_equal(P, 0)
        weighted = nonzero.astype(V.dtype)
        above, below, nan = (
            self.product(weighted, bad.astype(V.dtype)) > 0
            for bad in (xp.equal(V, math.inf), xp.equal(V, -math.inf), xp.isnan(V))
        )
        O = xp.where(above, V.dtype.type(math.inf), O)
        O = xp.where(below, V.dtype.type(-math.inf), O)
        return xp.where(nan | (above & below), V.dtype.type(math.nan), O)


def _check(
    Q: Array, K: Array, V: Array, mask: Array | None, dropout_p: float, key: Key | None
) -> None:
    if min(Q.ndim, K.ndim, V.ndim) < 3 or not Q.shape[:-3] == K.shape[:-3] == V.shape[:-3]:
        raise ValueError(
            "attention: Q (..., H, L, E), K (..., G, S, E) and V (..., G, S, Ev) must have equal "
            f"leading axes, found {Q.shape}, {K.shape} and {V.shape}"
        )
    if Q.shape[-1] != K.shape[-1]:
        raise ValueError(
            f"attention: queries have size {Q.shape[-1]}, keys {K.shape[-1]}; they must be equal "
            f"(Q {Q.shape}, K {K.shape})"
        )
    if K.shape[:-1] != V.shape[:-1]:
        raise ValueError(
            f"attention: keys {K.shape} and values {V.shape} differ in heads or length"
        )
    if K.shape[-3] == 0 or Q.shape[-3] % K.shape[-3]:
        raise ValueError(
            f"attention: {Q.shape[-3]} query heads are no multiple of {K.shape[-3]} key-value heads"
        )
    if not Q.dtype == K.dtype == V.dtype:
        raise TypeError(
            f"attention: Q, K and V must have one dtype, found {Q.dtype}, {K.dtype}, {V.dtype}"
        )
    if dropout_p and key is None:
        raise ValueError("attention: dropout_p > 0 needs a key")
    keep_threshold(dropout_p)
    if mask is None:
        return
    if mask.dtype != bool and mask.dtype != Q.dtype:
        raise TypeError(
            f"attention: mask must be bool (True = may attend) or {Q.dtype} (added to the scores), "
            f"found {mask.dtype}"
        )
    shape = (*Q.shape[:-1], K.shape[-2])
    try:
        fits = np.broadcast_shapes(mask.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"attention: mask of shape {mask.shape} does not broadcast to {shape}")


def attention_forward(
    Q: Array,
    K: Array,
    V: Array,
    mask: Array | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    dropout_p: float = 0.0,
    key: Key | None = None,
    mask_gradient: bool = False,
) -> tuple[Array, tuple[Any, ...]]:
    """Scaled dot-product attention, softmax(scale · Q Kᵀ + mask) V.

    Parameters
    ----------
    Q : (..., H, L, E) array
        Queries.
    K : (..., G, S, E) array
        Keys; H is a multiple of G, each key-value head serves H/G query heads in order.
    V : (..., G, S, Ev) array
        Values.
    mask : broadcastable to (..., H, L, S), optional
        bool, True where a query may attend; or of Q's type, added to the scores.
    is_causal : bool
        Query i sees the keys 0 ... i alone, besides what `mask` says.
    scale : float, optional
        Factor of the scores; 1/√E if not given.
    dropout_p : float
        Dropout of the weights.
    key : Key, optional
        Random stream of the dropout.
    mask_gradient : bool
        Whether backward returns the gradient of an additive mask, which takes L · S memory.

    Returns
    -------
    O : (..., H, L, Ev) array
        Weighted values; zeros for a query that may attend to nothing.
    saved : tuple
        The inputs, `O` and the log-sum-exp of each row, shape (B, G, H/G, L).

    Raises
    ------
    ValueError
        If shapes do not fit.
    TypeError
        If types differ.

    Notes
    -----
    Over blocks of keys with running maximum m, sum l and output O:
    ``m' = max(m, max S)``, ``P = exp(S - m')``, ``l' = e^(m - m') l + Σ P``,
    ``O' = e^(m - m') O + P V``; at the end O / l. Backward, with D = rowsum(dO ∘ O):
    ``dV = Pᵀ dO``, ``dP = dO Vᵀ``, ``dS = P ∘ (dP - D)``, ``dQ = scale · dS K``,
    ``dK = scale · dSᵀ Q``. A NaN under the mask stays there; elsewhere it spreads.

    Cards: ``minitransformer cards attention``, ``minitransformer cards mup-attention``,
    ``minitransformer cards masked-attention``, ``minitransformer cards causal-attention``,
    ``minitransformer cards grouped-query-attention``.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", arXiv:1706.03762, equation 1.
    .. [2] Dao, "FlashAttention-2", arXiv:2307.08691, algorithms 1 and 2.

    Examples
    --------
    >>> Q, K, V = np.zeros((1, 1, 2)), np.zeros((1, 2, 2)), np.array([[[1.0], [3.0]]])
    >>> attention_forward(Q, K, V)[0].tolist()
    [[[2.0]]]
    """
    _check(Q, K, V, mask, dropout_p, key)
    xp = array_module(Q)
    scale = 1.0 / math.sqrt(max(1, Q.shape[-1])) if scale is None else scale
    p = _Problem(Q, K, V, mask, is_causal, scale, dropout_p, key)
    B, G, R, L, S = p.size
    Ev = V.shape[-1]
    options = (is_causal, scale, dropout_p, key, mask_gradient)
    if cuda.attention_fits(Q, K, V, mask):
        O, lse = cuda.attention_forward(p.Q, p.K, p.V, p.mask, scale, is_causal, p.dropout)
        out = O.reshape(Q.shape)
        return out, (Q, K, V, mask, out, lse, options)
    O = _like(p.Q, Ev)
    lse = xp.empty((B, G, R, L, 1), p.dtype)
    zero, one, never = (p.dtype.type(c) for c in (0, 1, -math.inf))
    ones = xp.ones((min(S, KEYS) if xp is np else S, 1), p.dtype)

    def attend(tile: _Tile, calm: Array | bool, hostile: bool) -> tuple[Any, Any, Any]:
        """Return a tile's O l, l and m; rows that are `calm` have m = 0."""
        Qs = p.scaled(tile)
        m: Any = 0
        l, o = xp.zeros((*Qs.shape[:-1], 1), p.dtype), xp.zeros((*Qs.shape[:-1], Ev), p.dtype)
        for i, keys in enumerate(p.key_blocks(tile.queries)):
            K = p.K[tile.batch, tile.heads, keys]
            columns = _columns("K", K) if FEW <= L <= QUERIES else K.swapaxes(-1, -2)
            P = p.scores(Qs, columns, tile, keys, hostile)
            decay: Any = 1
            if calm is not True:
                top = P.max(axis=-1, keepdims=True)
                top = xp.maximum(m, top) if i else top
                top = xp.where(calm, zero, top)
                # a row that has seen no key yet has top = -inf; 0 keeps exp(-inf - 0) = 0
                base = xp.where(top == -math.inf, zero, top)
                P -= base
                decay = xp.exp(m - base) if i else 1
                m = top
            xp.exp(P, out=P)
            row_sum = p.product(P, ones[: P.shape[-1]])
            if dropout_p:
                P *= p.keep(tile, keys)
            if i == 0:
                l, o = row_sum, p.weigh("O", P, tile, keys, hostile)
            else:
                l = l * decay + row_sum
                o *= decay
                o += p.weigh("more", P, tile, keys, hostile)
        return o, l, m

    def work(tile: _Tile) -> None:
        quick = mask is None and xp is np  # most rows are calm: see afterwards if one is not
        hostile = False if quick else p.hostile(tile)
        o, l, m = attend(tile, quick, hostile)
        if quick and not _finite(o) and p.hostile(tile):
            hostile = True
            o, l, m = attend(tile, True, hostile)
        if quick:
            calm = (CALM[0] <= l) & (l <= CALM[1])  # of its own keys: none later changes how
            calm &= xp.isfinite(o).all(axis=-1, keepdims=True)
            quick = bool(calm.all())
            if not quick:
                o, l, m = attend(tile, calm, hostile)
        row_lse = xp.log(l)
        if not quick:
            row_lse = xp.where(l == 0, never, m + row_lse)
            l = xp.where(l == 0, one, l)
        here = tile.batch, tile.heads, slice(None), tile.queries
        xp.divide(p.unfolded(o, tile), p.unfolded(l, tile), out=O[here])
        lse[here] = p.unfolded(row_lse, tile)

    if O.size or lse.size:
        p.run(work, p.tiles())
    out = O.reshape(*Q.shape[:-1], Ev).astype(Q.dtype, copy=False)
    return out, (Q, K, V, mask, out, lse, options)


def attention_backward(
    dO: Array, saved: tuple[Any, ...]
) -> tuple[Array, Array, Array, Array | None]:
    """Return ``(dQ, dK, dV, dmask)``; `dmask` for an additive mask with ``mask_gradient``."""
    Q, K, V, mask, out, lse, (is_causal, scale, dropout_p, key, mask_gradient) = saved
    xp = array_module(Q)
    p = _Problem(Q, K, V, mask, is_causal, scale, dropout_p, key)
    B, G, R, L, S = p.size
    Ev = V.shape[-1]
    O5, dO5 = (x.reshape(B, G, R, L, Ev).astype(p.dtype, copy=False) for x in (out, dO))
    if cuda.attention_fits(Q, K, V, mask):
        arrays = p.Q, p.K, p.V, p.mask, dO5, O5, lse
        dQ, dK, dV = cuda.attention_backward(*arrays, scale, is_causal, p.dropout)
        return dQ.reshape(Q.shape), dK.reshape(K.shape), dV.reshape(V.shape), None
    dQ, dK, dV = _like(p.Q), _like(p.K), _like(p.V)
    most = float(np.finfo(p.dtype).max)
    unseen = slice(p.seen(slice(0, L)) if L else 0, S)  # keys that no query sees
    dK[:, :, unseen], dV[:, :, unseen] = 0, 0
    dmask = None
    if mask_gradient and mask is not None and mask.dtype != bool:
        dmask = xp.zeros((B, G, R, L, S), p.dtype)

    def work(group: _Tile) -> None:
        # A row more turns Q Kᵀ into S - lse, and dO Vᵀ into dP - D, inside the product.
        K, V = p.K[group.batch, group.heads], p.V[group.batch, group.heads]
        K1, V1 = _columns("K", K, 1), _columns("V", V, 1)
        hostile = p.hostile(group)
        if hostile:  # 0 · NaN again: hidden keys take no part in dQ, hidden weights none in dS
            K = xp.where(xp.isfinite(K), K, p.dtype.type(0))
        fresh = True  # the last queries come first: they see every key that any query sees
        for queries in reversed(p.query_blocks()):
            tile = group._replace(queries=queries)
            row_lse, O_rows = p.folded(lse, tile), p.folded(O5, tile)
            Q1 = p.scaled(tile, 1)
            xp.negative(row_lse, out=Q1[..., -1:])
            xp.minimum(Q1[..., -1:], most, out=Q1[..., -1:])  # a row of -inf weighs nothing
            Qs = Q1[..., :-1]
            dO1 = _with_column("dO", p.folded(dO5, tile))
            dO_rows = dO1[..., :-1]
            D = xp.einsum("...e,...e->...", dO_rows, O_rows)[..., None]
            xp.negative(D, out=dO1[..., -1:])
            dQs: Any = None
            for keys in p.key_blocks(queries):
                P = p.scores(Q1, K1[..., keys], tile, keys, hostile)
                xp.exp(P, out=P)
                P_dropped = P
                if dropout_p:  # comes between dP and D
                    keep = p.keep(tile, keys)
                    P_dropped = P * keep
                    dS = p.multiply("dS", dO_rows, V1[..., :-1, keys])
                    dS *= keep
                    dS -= D
                else:
                    dS = p.multiply("dS", dO1, V1[..., keys])
                dS *= P
                if hostile and (hidden := p.hidden(tile, keys)) is not None:
                    xp.copyto(p.unfolded(dS, tile), 0, where=hidden)
                if dmask is not None:
                    dmask[tile.batch, tile.heads, :, queries, keys] = p.unfolded(dS, tile)
                here = tile.batch, tile.heads, keys
                for d, weights, rows in ((dV, P_dropped, dO_rows), (dK, dS, Qs)):
                    if fresh:
                        p.product(weights.swapaxes(-1, -2), rows, out=d[here])
                    else:
                        d[here] += p.multiply("more", weights.swapaxes(-1, -2), rows)
                if dQs is None:
                    dQs = p.multiply("dQ", dS, K[:, :, keys])
                else:
                    dQs += p.multiply("more", dS, K[:, :, keys])
            fresh = False
            rows = dQ[tile.batch, tile.heads, :, queries]
            if dQs is None:
                rows[...] = 0
            else:
                xp.multiply(p.unfolded(dQs, tile), p.dtype.type(scale), out=rows)

    if dQ.size or dK.size or dV.size:
        p.run(work, p.tiles(whole_queries=True))
    if dmask is not None:
        dmask = unbroadcast(dmask.reshape(*Q.shape[:-1], S), mask.shape)
        dmask = dmask.astype(Q.dtype, copy=False)
    dQ, dK, dV = (d.astype(Q.dtype, copy=False) for d in (dQ, dK, dV))
    return dQ.reshape(Q.shape), dK.reshape(K.shape), dV.reshape(V.shape), dmask


def _like(x: Array, size: int | None = None) -> Array:
    """Return an empty array with the axes of `x` in the same order in memory.

    Heads that are parts of rows stay such, and nobody has to move them.
    """
    shape = x.shape if size is None else (*x.shape[:-1], size)
    return array_module(x).empty_like(x, shape=shape)


def _columns(name: str, x: Array, ones: int = 0) -> Array:
    """Return keys or values (b, g, s, e) as columns (b, g, e, s), with rows of `ones` below.

    BLAS multiplies with a few short columns up to twice as fast as with rows; to turn many
    takes longer than it saves.
    """
    b, g, s, e = x.shape
    if s <= QUERIES:
        columns = scratch(name, x, (b, g, e + ones, s))
    else:
        columns = scratch(name, x, (b, g, s, e + ones)).swapaxes(-1, -2)
    columns[..., :e, :] = x.swapaxes(-1, -2)
    columns[..., e:, :] = 1
    return columns


def _with_column(name: str, x: Array) -> Array:
    """Return a copy of `x` with room for one more entry at the end of each row."""
    wider = scratch(name, x, (*x.shape[:-1], x.shape[-1] + 1))
    wider[..., :-1] = x
    return wider


def _finite(x: Array) -> bool:
    return bool(np.isfinite(x).all())


@functools.lru_cache(maxsize=64)
def _corner(queries: int, keys: int, dtype: np.dtype[Any]) -> Array:
    """Return the ceiling of a block of scores on the diagonal: -inf where a key comes later."""
    later = np.arange(keys) > np.arange(queries)[:, None]
    return np.where(later, -math.inf, math.inf).astype(dtype)
