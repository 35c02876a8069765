"""Every operation once more, as its paper or definition writes it.

Loops or the simplest NumPy, no care for speed, memory or overflow beyond what the definition
itself says. Run in float64 it is the truth; run in the dtype under test it is the naive
implementation whose error the tolerance rule is stated in. Nothing here is shared with the package.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray


def erf(x: Array) -> Array:
    return np.array([math.erf(float(v)) for v in x.ravel()], x.dtype).reshape(x.shape)


def sigmoid(x: Array) -> Array:
    # Written on |x| so that the truth itself does not overflow.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


# Activations -------------------------------------------------------------------------------


def relu(x: Array) -> Array:
    return np.where(x <= 0, np.zeros_like(x), x)


def gelu(x: Array, *, approximate: str = "none") -> Array:
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + np.tanh(inner))
    # erfc, because 1 + erf(x) loses every digit of the truth where x is very negative.
    phi = [0.5 * math.erfc(-float(v) / math.sqrt(2)) for v in x.ravel()]
    return x * np.array(phi, x.dtype).reshape(x.shape)


def naive_gelu(x: Array, *, approximate: str = "none") -> Array:
    """The form everyone writes, which cancels where x is far below zero."""
    if approximate == "tanh":
        return gelu(x, approximate="tanh")
    return 0.5 * x * (1 + erf(x / x.dtype.type(math.sqrt(2))))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


ACTIVATIONS = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, approximate="tanh"),
    "silu": silu,
}

NAIVE_ACTIVATIONS = {**ACTIVATIONS, "gelu": naive_gelu}

# Linear ------------------------------------------------------------------------------------


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    out = np.zeros(x.shape[:-1] + (weight.shape[0],), x.dtype)
    for j in range(x.shape[-1]):  # one product at a time, in order
        out = out + x[..., j, None] * weight[:, j]
    return out if bias is None else out + bias


def matmul(a: Array, b: Array) -> Array:
    vector_a, vector_b = a.ndim == 1, b.ndim == 1
    a = a[None, :] if vector_a else a
    b = b[:, None] if vector_b else b
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = np.zeros((*batch, a.shape[-2], b.shape[-1]), a.dtype)
    for j in range(a.shape[-1]):
        out = out + a[..., :, j, None] * b[..., None, j, :]
    if vector_b:
        out = out[..., 0]
    if vector_a:
        out = out[..., 0] if vector_b else out[..., 0, :]
    return out


# Softmax -----------------------------------------------------------------------------------


def softmax(x: Array, *, axis: int) -> Array:
    exps = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
    return exps / exps.sum(axis=axis, keepdims=True)


def log_softmax(x: Array, *, axis: int) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def logsumexp(x: Array, *, axis: Any, keepdims: bool) -> Array:
    largest = x.max(axis=axis, keepdims=True)
    anchor = np.where(np.isfinite(largest), largest, 0).astype(x.dtype)
    with np.errstate(divide="ignore"):
        out = np.log(np.exp(x - anchor).sum(axis=axis, keepdims=True)) + anchor
    return out if keepdims else np.squeeze(out, axis=axis)


# Normalisation -----------------------------------------------------------------------------


def layer_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    *,
    normalized_ndim: int = 1,
    eps: float = 1e-5,
) -> Array:
    """Ba, Kiros and Hinton 2016, equation 4, with the biased variance."""
    axes = tuple(range(-normalized_ndim, 0))
    mu = x.mean(axis=axes, keepdims=True)
    variance = ((x - mu) ** 2).mean(axis=axes, keepdims=True)
    out = (x - mu) / np.sqrt(variance + eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def rms_norm(
    x: Array, weight: Array | None, *, normalized_ndim: int = 1, eps: float | None = None
) -> Array:
    """Zhang and Sennrich 2019, equation 4."""
    eps = float(np.finfo(np.float32).eps) if eps is None else eps
    axes = tuple(range(-normalized_ndim, 0))
    out = x / np.sqrt((x**2).mean(axis=axes, keepdims=True) + eps)
    return out if weight is None else out * weight


# Attention ---------------------------------------------------------------------------------


def may_attend(
    mask: Array | None, is_causal: bool, shape: tuple[int, ...], dtype: Any
) -> tuple[Array, Array]:
    """Split a mask into where attention may look and what is added there."""
    look = np.ones(shape, bool)
    added = np.zeros(shape, dtype)
    if mask is not None and mask.dtype == bool:
        look = look & mask
    elif mask is not None:
        look = look & (mask != -np.inf)
        added = added + np.where(mask == -np.inf, 0, mask).astype(dtype)
    if is_causal:
        rows, columns = shape[-2:]
        look = look & (np.arange(columns)[None, :] <= np.arange(rows)[:, None])
    return look, added


def attention(
    Q: Array,
    K: Array,
    V: Array,
    mask: Array | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    kept: Array | None = None,
    dropout_p: float = 0.0,
) -> Array:
    """Vaswani et al. 2017, equation 1, one query at a time over the keys it may see.

    `kept` says which weights dropout keeps; a query that may see no key gives zeros.
    """
    groups = Q.shape[-3] // K.shape[-3] if Q.ndim > 2 else 1
    if groups != 1:
        K, V = np.repeat(K, groups, axis=-3), np.repeat(V, groups, axis=-3)
    batch = np.broadcast_shapes(Q.shape[:-2], K.shape[:-2], V.shape[:-2])
    L, S = Q.shape[-2], K.shape[-2]
    scale = 1 / math.sqrt(Q.shape[-1]) if scale is None else scale
    look, added = may_attend(mask, is_causal, (*batch, L, S), Q.dtype)
    Q = np.broadcast_to(Q, (*batch, *Q.shape[-2:]))
    K = np.broadcast_to(K, (*batch, *K.shape[-2:]))
    V = np.broadcast_to(V, (*batch, *V.shape[-2:]))
    out = np.zeros((*batch, L, V.shape[-1]), Q.dtype)
    for where in np.ndindex(*batch, L):
        head, seen = where[:-1], look[where]
        if not seen.any():
            continue
        with np.errstate(invalid="ignore"):  # BLAS sets the flag on sizes below its vectors
            s = (K[head][seen] @ Q[where]) * Q.dtype.type(scale) + added[where][seen]
        p = np.exp(s - s.max())
        p = p / p.sum()
        if kept is not None:
            p = p * kept[where][seen] / (1 - dropout_p)
        out[where] = p.astype(Q.dtype) @ V[head][seen]
    return out


def attention_weights(
    Q: Array, K: Array, mask: Array | None, *, is_causal: bool = False, scale: float | None = None
) -> Array:
    """The softmax weights themselves: attention over the identity as values."""
    S = K.shape[-2]
    identity = np.broadcast_to(np.eye(S, dtype=Q.dtype), (*K.shape[:-1], S))
    return attention(Q, K, identity, mask, is_causal=is_causal, scale=scale)


# Feed-forward ------------------------------------------------------------------------------


def feed_forward(
    x: Array,
    w1: Array,
    b1: Array | None,
    w2: Array,
    b2: Array | None,
    *,
    activation: str = "relu",
    activations: Any = ACTIVATIONS,
) -> Array:
    """Vaswani et al. 2017, equation 2, with a choice of activation."""
    return linear(activations[activation](linear(x, w1, b1)), w2, b2)


def gated_feed_forward(
    x: Array,
    w_gate: Array,
    w_up: Array,
    w_down: Array,
    *,
    activation: str = "silu",
    activations: Any = ACTIVATIONS,
) -> Array:
    """Shazeer 2020, equation 6."""
    gate = activations[activation](linear(x, w_gate, None))
    return linear(gate * linear(x, w_up, None), w_down, None)


# Embedding and positions -------------------------------------------------------------------


def embedding(ids: Array, weight: Array, *, padding_idx: int | None = None) -> Array:
    out = np.zeros((*ids.shape, weight.shape[1]), weight.dtype)
    for where in np.ndindex(*ids.shape):
        out[where] = weight[ids[where]]
    return out


def sinusoidal(length: int, dim: int) -> Array:
    """Vaswani et al. 2017, section 3.5."""
    out = np.zeros((length, dim))
    for position in range(length):
        for i in range(0, dim, 2):
            angle = position / 10000 ** (i / dim)
            out[position, i] = math.sin(angle)
            if i + 1 < dim:
                out[position, i + 1] = math.cos(angle)
    return out


def rotary(x: Array, cos: Array, sin: Array, *, interleaved: bool = False) -> Array:
    """Su et al. 2021, equation 34: each pair of features turned by its angle."""
    half = x.shape[-1] // 2
    if interleaved:
        pairs = [(2 * i, 2 * i + 1) for i in range(half)]
    else:
        pairs = [(i, i + half) for i in range(half)]
    out = np.zeros(np.broadcast_shapes(x.shape, (*cos.shape[:-1], x.shape[-1])), x.dtype)
    for i, (a, b) in enumerate(pairs):
        c, s = cos[..., i], sin[..., i]
        out[..., a] = x[..., a] * c - x[..., b] * s
        out[..., b] = x[..., b] * c + x[..., a] * s
    return out


# Loss --------------------------------------------------------------------------------------


def cross_entropy(
    logits: Array,
    target: Array,
    class_weight: Array | None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """-sum_c w_c q_c log p_c, with q the smoothed one-hot target, row by row."""
    N, V = logits.shape
    weight = np.ones(V, logits.dtype) if class_weight is None else class_weight
    losses = np.zeros(N, logits.dtype)
    total = logits.dtype.type(0)
    for n in range(N):
        if target.ndim == 1:
            if target[n] == ignore_index:
                continue
            q = np.zeros(V, logits.dtype)
            q[target[n]] = 1
            total = total + weight[target[n]]
        else:
            q = target[n]
            total = total + 1
        q = q * (1 - label_smoothing) + label_smoothing / V
        losses[n] = -(weight * q.astype(logits.dtype) * log_softmax(logits[n], axis=0)).sum()
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    with np.errstate(invalid="ignore"):
        return losses.sum() / total


# Reductions --------------------------------------------------------------------------------


def reduced(x: Array, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


def one_by_one(x: Array, *, axis: Any, keepdims: bool) -> Array:
    """A sum taken one element after another, in the dtype of `x`."""
    axes = reduced(x, axis)
    rest = [a for a in range(x.ndim) if a not in axes]
    moved = x.transpose(*rest, *axes).reshape(*[x.shape[a] for a in rest], -1)
    out = np.zeros(moved.shape[:-1], x.dtype)
    for i in range(moved.shape[-1]):
        out = out + moved[..., i]
    if keepdims:
        out = out.reshape([1 if a in axes else n for a, n in enumerate(x.shape)])
    return np.asarray(out, x.dtype)


def mean(x: Array, *, axis: Any, keepdims: bool) -> Array:
    number = math.prod(x.shape[a] for a in reduced(x, axis))
    return np.asarray(one_by_one(x, axis=axis, keepdims=keepdims) / x.dtype.type(number))


def var(x: Array, *, axis: Any, correction: float, keepdims: bool) -> Array:
    number = math.prod(x.shape[a] for a in reduced(x, axis))
    deviation = x - mean(x, axis=axis, keepdims=True)
    squares = one_by_one(deviation * deviation, axis=axis, keepdims=keepdims)
    return np.asarray(squares / x.dtype.type(number - correction))


def norm(x: Array, *, ord: float, axis: Any, keepdims: bool) -> Array:
    if ord == math.inf:
        return np.asarray(np.abs(x).max(axis=axis, keepdims=keepdims))
    powers = one_by_one(np.abs(x) ** ord, axis=axis, keepdims=keepdims)
    return np.asarray(powers ** (1 / ord))


def cumsum(x: Array, *, axis: int) -> Array:
    out = np.array(np.moveaxis(x, axis, 0))
    for i in range(1, out.shape[0]):
        out[i] = out[i - 1] + out[i]
    return np.moveaxis(out, 0, axis)


def prod(x: Array, *, axis: Any, keepdims: bool) -> Array:
    return np.asarray(np.prod(x, axis=axis, keepdims=keepdims))


def extreme(x: Array, *, axis: Any, keepdims: bool, largest: bool) -> tuple[Array, Array] | Array:
    """Largest or smallest element and, with an axis, its first index."""
    pick, place = (np.max, np.argmax) if largest else (np.min, np.argmin)
    if axis is None:
        return np.asarray(pick(x))
    return (
        np.asarray(pick(x, axis=axis, keepdims=keepdims)),
        np.asarray(place(x, axis=axis, keepdims=keepdims)),
    )
