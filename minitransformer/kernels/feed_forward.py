"""The position-wise network as one kernel: product, bias and activation per tile in cache.

A tile of the F-wide intermediate gets its bias and activation while it is in cache, so
that it costs one trip to memory and not five.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import (
    Array,
    Key,
    aligned_empty,
    array_module,
    blocks,
    even_blocks,
    run_blocks,
    scratch,
)
from . import cuda
from .activation import find_activation
from .dropout import keep_mask, keep_threshold, select
from .linear import product, products, sum_of_rows

ROWS, TILE = 512, 3 << 18  # rows and elements of one tile of the intermediate: 3 MiB of float32
COLUMNS = 768  # of one tile of a few rows, or what makes
WORTH = 1 << 20  # multiplications: fewer are done before another thread has begun
PIECE = 1 << 17  # elements that an activation works on at a time


def _tiles(xp: Any, n: int, F: int, D: int, dropout_p: float = 0.0) -> list[tuple[slice, slice]]:
    """Return the tiles of an (n, F) matrix: whole rows where there are many.

    Few rows are shared between threads by columns, so that no weight is packed twice; whole
    they stay where a dropout's stream runs along them.
    """
    if xp is not np:
        return [(slice(0, n), slice(0, F))]
    if n > ROWS or dropout_p:
        rows = even_blocks(n, min(ROWS, max(ROWS // 4, TILE // max(1, F))))
        return [(r, slice(0, F)) for r in rows]
    return [(slice(0, n), c) for c in even_blocks(F, max(COLUMNS, WORTH // max(1, n * D)))]


def _pieces(tile: Array) -> list[slice]:
    """Return the rows of a tile in pieces whose temporaries stay in cache together."""
    on_gpu = array_module(tile) is not np
    return blocks(len(tile), max(1, len(tile) if on_gpu else PIECE // tile.shape[1]))


def _check(name: str, x: Array, **weights: tuple[Array | None, tuple[int, ...]]) -> None:
    for key, (value, shape) in weights.items():
        if value is not None and value.shape != shape:
            raise ValueError(
                f"{name}: {key} has shape {value.shape}; x of shape {x.shape} and the first "
                f"layer need {shape}"
            )


def feed_forward_forward(
    x: Array,
    w1: Array,
    b1: Array | None,
    w2: Array,
    b2: Array | None,
    *,
    activation: str = "relu",
    dropout_p: float = 0.0,
    key: Key | None = None,
    needs_grad: bool = True,
) -> tuple[Array, tuple[Any, ...]]:
    """Position-wise feed-forward network, act(x W₁ᵀ + b₁) W₂ᵀ + b₂.

    Parameters
    ----------
    x : (..., D) array
        Rows.
    w1 : (F, D) array
        First layer, in PyTorch's layout.
    b1 : (F,) array or None
        Its bias.
    w2 : (D', F) array
        Second layer.
    b2 : (D',) array or None
        Its bias.
    activation : {"relu", "gelu", "gelu_tanh", "silu"}
        Between the layers.
    dropout_p : float
        Dropout after the activation.
    key : Key, optional
        Random stream of the dropout.
    needs_grad : bool
        Whether there will be a backward pass; if not, nothing is kept for it.

    Returns
    -------
    y : (..., D') array
        Mapped rows.
    saved : tuple
        The inputs, ``a`` and act'(h), both (N, F) and after the dropout.

    Raises
    ------
    ValueError
        If shapes do not fit, or the activation is unknown.

    Notes
    -----
    With h = x W₁ᵀ + b₁ and a = act(h): ``da = dy W₂``, ``dh = da ∘ act'(h)``,
    ``dx = dh W₁``, ``dW₂ = dyᵀ a``, ``dW₁ = dhᵀ x``, and the biases' gradients are the column sums.

    Card: ``minitransformer cards feed-forward``.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", arXiv:1706.03762, equation 2.

    Examples
    --------
    >>> x, w1, w2 = np.array([[1.0, -2.0]]), np.eye(2), np.array([[1.0, 1.0]])
    >>> feed_forward_forward(x, w1, None, w2, None)[0].tolist()
    [[1.0]]
    """
    F, D = w1.shape
    _check(
        "feed_forward", x,
        w1=(w1, (F, x.shape[-1])), b1=(b1, (F,)),
        w2=(w2, (len(w2), F)), b2=(b2, (len(w2),)),
    )  # fmt: skip
    xp = array_module(x)
    act = find_activation(activation)
    rows = x.reshape(-1, D)
    n = len(rows)
    if dropout_p and key is None:
        raise ValueError("feed_forward: dropout_p > 0 needs a key")
    a = aligned_empty((n, F), like=x)
    slope = aligned_empty((n, F), like=x) if needs_grad else None
    y = aligned_empty((n, len(w2)), like=x)
    tiles = _tiles(xp, n, F, D, dropout_p)
    whole = xp is np and all(c == slice(0, F) for _, c in tiles)  # then y needs no other tile

    def work(tile: tuple[slice, slice]) -> None:
        r, c = tile
        a_rc, slope_rc = a[tile], None if slope is None else slope[tile]
        # on a CPU h stays in cache; elsewhere it makes way for its slope
        h = scratch("h", a_rc) if slope_rc is None or xp is np else slope_rc
        product(rows[r], w1[c].T, out=h)
        if cuda.bias_activation_fits(h, b1) and dropout_p < 1.0:
            cuda.bias_activation(
                h, b1, a_rc, None if slope is None else h, activation,
                threshold=keep_threshold(dropout_p), scale=1.0 / (1.0 - dropout_p), key=key,
            )  # fmt: skip
            return
        for p in _pieces(h):
            h_p, a_p, slope_p = h[p], a_rc[p], None if slope_rc is None else slope_rc[p]
            if b1 is not None:
                h_p += b1[c]
            act(h_p, a_p, slope_p)
            if dropout_p and key is not None:
                keep = keep_mask(dropout_p, key, (r.start + p.start) * F, h_p.size, xp)
                for kept in (a_p,) if slope_p is None else (a_p, slope_p):
                    select(kept, keep.reshape(kept.shape), dropout_p, out=kept)
        if whole:
            product(a_rc, w2.T, out=y[r], bias=b2)

    run_blocks(work, tiles)
    if not whole:
        product(a, w2.T, out=y, bias=b2)
    return y.reshape(*x.shape[:-1], len(w2)), (x, w1, w2, a, slope, b1 is not None, b2 is not None)


def feed_forward_backward(dy: Array, saved: tuple[Any, ...]) -> tuple[Array | None, ...]:
    """Return ``(dx, dw1, db1, dw2, db2)``."""
    x, w1, w2, a, slope, has_b1, has_b2 = saved
    xp = array_module(x)
    rows, dy_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dh = aligned_empty(a.shape, like=a)

    def work(tile: tuple[slice, slice]) -> None:
        r, c = tile
        da = product(dy_rows[r], w2[:, c], out=scratch("h", dh[tile]))
        xp.multiply(da, slope[tile], out=dh[tile])

    run_blocks(work, _tiles(xp, len(a), a.shape[1], rows.shape[1]))
    db1, db2, dx, dw1, dw2 = products(
        sum_of_rows(dh), sum_of_rows(dy_rows), (dh, w1), (dh.T, rows), (dy_rows.T, a)
    )
    return (
        dx.reshape(x.shape), dw1, db1[0] if has_b1 else None, dw2, db2[0] if has_b2 else None,
    )  # fmt: skip


def gated_feed_forward_forward(
    x: Array,
    w_gate: Array,
    w_up: Array,
    w_down: Array,
    *,
    activation: str = "silu",
    needs_grad: bool = True,
) -> tuple[Array, tuple[Any, ...]]:
    """Gated feed-forward network, (act(x W_gᵀ) ∘ x W_uᵀ) W_dᵀ; SwiGLU with ``silu``.

    Parameters
    ----------
    x : (..., D) array
        Rows.
    w_gate, w_up : (F, D) array
        The gate and what it opens, in PyTorch's layout.
    w_down : (D', F) array
        Back to the size of the model.
    activation : {"silu", "gelu", "gelu_tanh", "relu"}
        Of the gate.
    needs_grad : bool
        Whether there will be a backward pass; if not, nothing is kept for it.

    Returns
    -------
    y : (..., D') array
        Mapped rows.
    saved : tuple
        The inputs, and act(g), u ∘ act'(g) and s, shape (N, F) each.

    Raises
    ------
    ValueError
        If shapes do not fit, or the activation is unknown.

    Notes
    -----
    With g = x W_gᵀ, u = x W_uᵀ, s = act(g) ∘ u: ``ds = dy W_d``, ``dg = ds ∘ u ∘ act'(g)``,
    ``du = ds ∘ act(g)``, ``dx = dg W_g + du W_u``, ``dW_g = dgᵀ x``, ``dW_u = duᵀ x``,
    ``dW_d = dyᵀ s``.

    References
    ----------
    .. [1] Shazeer, "GLU variants improve transformer", arXiv:2002.05202, equation 6.

    Examples
    --------
    >>> x, one = np.array([[2.0]]), np.array([[1.0]])
    >>> gated_feed_forward_forward(x, one, one, one, activation="relu")[0].tolist()
    [[4.0]]
    """
    F, D = w_gate.shape
    _check(
        "gated_feed_forward", x,
        w_gate=(w_gate, (F, x.shape[-1])), w_up=(w_up, (F, D)), w_down=(w_down, (len(w_down), F)),
    )  # fmt: skip
    xp = array_module(x)
    act = find_activation(activation)
    rows = x.reshape(-1, D)
    n = len(rows)
    s = aligned_empty((n, F), like=x)
    opened, slope = (aligned_empty((n, F), like=x) if needs_grad else None for _ in range(2))

    def work(tile: tuple[slice, slice]) -> None:
        r, c = tile
        up = s[tile]  # makes way for what the gate lets through
        gate = scratch("gate", up) if slope is None else slope[tile]
        open_rc = scratch("opened", up) if opened is None else opened[tile]
        product(rows[r], w_gate[c].T, out=gate)
        product(rows[r], w_up[c].T, out=up)
        for p in _pieces(up):
            act(gate[p], open_rc[p], None if slope is None else gate[p])
            if slope is not None:
                gate[p] *= up[p]
            up[p] *= open_rc[p]

    run_blocks(work, _tiles(xp, n, F, D))
    y = product(s, w_down.T).reshape(*x.shape[:-1], len(w_down))
    return y, (x, w_gate, w_up, w_down, opened, slope, s)


def gated_feed_forward_backward(
    dy: Array, saved: tuple[Any, ...]
) -> tuple[Array, Array, Array, Array]:
    """Return ``(dx, dw_gate, dw_up, dw_down)``."""
    x, w_gate, w_up, w_down, opened, slope, s = saved
    xp = array_module(x)
    rows, dy_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dgate, dup = (aligned_empty(s.shape, like=s) for _ in range(2))

    def work(tile: tuple[slice, slice]) -> None:
        r, c = tile
        ds = dup[tile]
        product(dy_rows[r], w_down[:, c], out=ds)
        xp.multiply(ds, slope[tile], out=dgate[tile])
        ds *= opened[tile]

    run_blocks(work, _tiles(xp, len(s), s.shape[1], rows.shape[1]))
    dx, from_up, dw_gate, dw_up, dw_down = products(
        (dgate, w_gate), (dup, w_up), (dgate.T, rows), (dup.T, rows), (dy_rows.T, s)
    )
    dx += from_up
    return dx.reshape(x.shape), dw_gate, dw_up, dw_down
