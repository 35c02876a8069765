"""The fused kernels: each `.cu` file beside the Python that launches it.

``fits(...)`` says whether a kernel takes the arrays at hand; the array formula in the module
above is what runs otherwise, and what the tests hold these against.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ...backend import Array, Key, array_module
from ...backend.cuda import fits, launch

__all__ = [
    "adamw",
    "attention_backward",
    "attention_fits",
    "attention_forward",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "dropout",
    "fits",
    "gelu_backward",
    "gelu_forward",
    "layer_norm_backward",
    "layer_norm_forward",
    "scatter_sum",
    "softmax_backward",
    "softmax_forward",
]

HERE = Path(__file__).parent
TILE = 32  # queries or keys of a block, as in attention.cu
HEAD = 64  # the largest head attention.cu holds in shared memory
ELEMENTWISE_BLOCKS = 1024  # a grid that fills any GPU; each thread strides over the rest
PART = 512  # rows of one partial sum of parameter gradients


def _threads(width: int) -> int:
    """Return the threads of a block that works on a row: enough to cover it, at most 1024."""
    return min(1024, max(32, -(-width // 32) * 32))


def _grid(n: int, per_thread: int = 1) -> tuple[int]:
    return (max(1, min(ELEMENTWISE_BLOCKS, -(-n // (256 * per_thread)))),)


def _plain(x: Array) -> Array:
    return x if x.flags.c_contiguous else x.copy()


def layer_norm_forward(
    x: Array, gain: Array | None, shift: Array | None, y: Array, mean: Array, rstd: Array,
    eps: float,
) -> None:  # fmt: skip
    """Fill `y`, `mean` and `rstd` for the rows of `x`."""
    n, width = x.shape
    launch(
        HERE / "layer_norm.cu", "layer_norm_forward", (n,), _threads(width),
        _plain(x), gain, shift, y, mean, rstd, width, eps, dtype=x.dtype,
    )  # fmt: skip


def layer_norm_backward(
    dy: Array, x: Array, gain: Array | None, mean: Array, rstd: Array, dx: Array
) -> tuple[Array, Array]:
    """Fill `dx`; return partial sums over rows of dy ∘ x̂ and of dy, (parts, width) each."""
    n, width = x.shape
    dy, x = _plain(dy), _plain(x)
    launch(
        HERE / "layer_norm.cu", "layer_norm_backward_x", (n,), _threads(width),
        dy, x, gain, mean, rstd, dx, width, dtype=x.dtype,
    )  # fmt: skip
    parts = -(-n // PART)
    xp = array_module(x)
    dgain, dshift = (xp.empty((parts, width), mean.dtype) for _ in range(2))
    launch(
        HERE / "layer_norm.cu", "layer_norm_backward_parameters", (-(-width // 32), parts), 256,
        dy, x, mean, rstd, dgain, dshift, n, width, PART, dtype=x.dtype,
    )  # fmt: skip
    return dgain, dshift


def softmax_forward(x: Array, P: Array) -> None:
    """Write the softmax of the rows of `x` to `P`."""
    n, width = x.shape
    launch(
        HERE / "softmax.cu", "softmax_forward", (n,), _threads(width),
        _plain(x), P, width, dtype=x.dtype,
    )  # fmt: skip


def softmax_backward(dP: Array, P: Array, dx: Array) -> None:
    """Write the gradient of the rows to `dx`."""
    n, width = P.shape
    launch(
        HERE / "softmax.cu", "softmax_backward", (n,), _threads(width),
        _plain(dP), _plain(P), dx, width, dtype=P.dtype,
    )  # fmt: skip


def cross_entropy_forward(
    logits: Array, target: Array, losses: Array, top: Array, lse: Array, ignore_index: int
) -> None:
    """Fill loss, largest logit and log-sum-exp of every row, against class numbers."""
    n, width = logits.shape
    launch(
        HERE / "cross_entropy.cu", "cross_entropy_forward", (n,), _threads(width),
        _plain(logits), _plain(target), losses, top, lse, width, ignore_index, dtype=logits.dtype,
    )  # fmt: skip


def cross_entropy_backward(
    logits: Array, target: Array, top: Array, lse: Array, scale: Array, dlogits: Array,
    ignore_index: int,
) -> None:  # fmt: skip
    """Write (softmax - onehot) · scale to `dlogits`."""
    n, width = logits.shape
    launch(
        HERE / "cross_entropy.cu", "cross_entropy_backward", (n,), _threads(width),
        _plain(logits), _plain(target), top, lse, _plain(scale), dlogits, width, ignore_index,
        dtype=logits.dtype,
    )  # fmt: skip


def gelu_forward(x: Array, tanh_form: bool) -> Array:
    """Return the GELU of `x`."""
    x = _plain(x)
    y: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        HERE / "activation.cu", "bias_gelu_forward", _grid(x.size), 256,
        x, None, None, y, x.size, 1, tanh_form, dtype=x.dtype,
    )  # fmt: skip
    return y


def gelu_backward(dy: Array, x: Array, tanh_form: bool) -> Array:
    """Return the gradient of the GELU at `x`."""
    x = _plain(x)
    dx: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        HERE / "activation.cu", "gelu_backward", _grid(x.size), 256,
        _plain(dy), x, dx, x.size, tanh_form, dtype=x.dtype,
    )  # fmt: skip
    return dx


def dropout(x: Array, threshold: int, scale: float, key: Key) -> Array:
    """Return x · keep · scale, element i against number i of the stream."""
    x = _plain(x)
    y: Array = array_module(x).empty(x.shape, x.dtype)
    launch(
        HERE / "dropout.cu", "residual_dropout", _grid(x.size, 8), 256,
        x, None, y, x.size, threshold, scale, key.step, key.operation, key.seed, dtype=x.dtype,
    )  # fmt: skip
    return y


def scatter_sum(places: Array, rows: Array, out: Array) -> None:
    """Write to every row of `out` the sum of the `rows` of that place, in their order."""
    xp = array_module(rows)
    order = xp.argsort(places, kind="stable")
    # one segment per row of `out`, many of them empty: no count comes back to the host
    starts = xp.searchsorted(places[order], xp.arange(len(out) + 1))
    launch(
        HERE / "scatter_sum.cu", "scatter_sum", (len(out),), _threads(rows.shape[1]),
        _plain(rows), order.astype("int64"), starts.astype("int64"), out, rows.shape[1],
        dtype=rows.dtype,
    )  # fmt: skip


def adamw(
    parameter: Array, gradient: Array, m: Array, v: Array, *, step_size: float, root: float,
    betas: tuple[float, float], eps: float, decay: float,
) -> None:  # fmt: skip
    """Update a flat parameter and its moments in one launch."""
    launch(
        HERE / "adamw.cu", "adamw", _grid(parameter.size), 256, parameter, gradient, m, v,
        parameter.size, step_size, root, *betas, eps, decay, None, dtype=gradient.dtype,
    )  # fmt: skip


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
        _plain(Q), _plain(K), _plain(V), None if mask is None else _plain(mask), O, lse,
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
    Q, K, V, dO = map(_plain, (Q, K, V, dO))
    mask = None if mask is None else _plain(mask)
    D = array_module(Q).empty(lse.shape, lse.dtype)
    start(file, "attention_backward_dot", (-(-D.size // 4),), 128, dO, _plain(O), D, D.size, E)
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
