"""Inputs that break kernels: lengths, extremes, masks, NaN, nothing at all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minitransformer.backend import Key, get_num_threads, random_bits, set_num_threads
from minitransformer.kernels.attention import attention_backward, attention_forward
from minitransformer.kernels.cross_entropy import cross_entropy_forward
from minitransformer.kernels.dropout import keep_threshold
from tests.kernels import reference as ref
from tests.kernels.cases import CASES, Problem, away_from_zero, exactly, normal
from tests.kernels.check import DTYPES, Pair, as_tuple, check, freeze, pair_of, same_bits
from tests.tolerance import assert_close

Array = np.ndarray
KERNELS: dict[str, Pair] = {}

both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def kernel(name: str) -> Pair:
    if name not in KERNELS:
        KERNELS[name] = pair_of(CASES[name])
    return KERNELS[name]


def forward(name: str, *arrays: Any, **options: Any) -> Any:
    out, _ = kernel(name).forward(*freeze(list(arrays)), **options)
    return out


def both(name: str, *arrays: Any, dout: Any = None, **options: Any) -> tuple[Any, Any]:
    """Output and gradients; ones arrive from above unless told."""
    out, saved = kernel(name).forward(*freeze(list(arrays)), **options)
    arriving = np.ones_like(out) if dout is None else dout
    freeze(arriving)
    return out, kernel(name).backward(arriving, freeze(saved))


def heads(seed: int, L: int, S: int, E: int, Ev: int | None = None, H: int = 2, G: int = 2) -> Any:
    return (
        normal(seed, 1, H, L, E),
        normal(seed + 1, 1, G, S, E),
        normal(seed + 2, 1, G, S, Ev or E),
    )


# Attention: lengths and sizes --------------------------------------------------------------

LENGTHS = [
    (1, 1),
    (1, 239),
    (239, 1),
    (97, 97),
    (128, 512),
    (129, 513),
    (127, 511),
    (257, 257),
    (700, 700),
]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("L", "S"), LENGTHS)
def test_attention_over_lengths(L: int, S: int, is_causal: bool) -> None:
    problem = Problem((*heads(L, L, S, 8, 5, 4, 2), None), {"is_causal": is_causal, "scale": None})
    check_without_loops(problem)


@pytest.mark.parametrize("E", [1, 17, 40, 59, 64, 111])
def test_attention_over_head_sizes(E: int) -> None:
    problem = Problem((*heads(E, 5, 7, E), None), {"is_causal": False, "scale": None})
    check(CASES["attention"], problem, np.float32)


def check_without_loops(problem: Problem) -> None:
    """`check`, with PyTorch in float64 in place of the loop over queries, which would be slow."""
    import dataclasses

    def with_torch(*arrays: Any, **options: Any) -> Array:
        tensors = [None if a is None else torch.from_numpy(np.array(a)) for a in arrays]
        return CASES["attention"].torch(*tensors, **options).numpy()

    case = dataclasses.replace(
        CASES["attention"], reference=with_torch, differences=lambda problem: False
    )
    for dtype in DTYPES:
        check(case, problem, dtype)


# Attention: masks --------------------------------------------------------------------------


def masks(L: int, S: int) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    look = rng.random((L, S)) < 0.6
    look[2] = False
    look[:, 1] = False
    most = float(np.finfo(np.float32).max)
    return {
        "boolean": look,
        "minus infinity": np.where(look, 0.0, -np.inf),
        "all hidden": np.zeros((L, S), bool),
        "all minus infinity": np.full((L, S), -np.inf),
        "one key": np.arange(S) == 3,
        "largest finite": np.where(look, 0.0, -most),
        "minus ten thousand": np.where(look, 0.0, -1e4),
    }


@both_dtypes
@pytest.mark.parametrize("mask", masks(6, 5))
def test_attention_masks(mask: str, dtype: type) -> None:
    Q, K, V = heads(11, 6, 5, 4, 3)
    problem = Problem(
        (Q, K, V, masks(6, 5)[mask]),
        {"is_causal": False, "scale": None},
        extras={"mask_gradient": True},
    )
    finite = mask not in ("largest finite", "minus ten thousand")
    if finite:
        check(CASES["attention"], problem, dtype)
        return
    # A mask that is large and finite is added, not obeyed, as in PyTorch: -3e38 swallows the
    # scores, and a row of nothing else attends to all keys alike.
    arrays = [a.astype(dtype) for a in problem.arrays]
    out, grads = both("attention", *arrays)
    tensors = [torch.from_numpy(a.copy()).requires_grad_(i < 3) for i, a in enumerate(arrays)]
    theirs = F.scaled_dot_product_attention(*tensors)
    theirs.sum().backward()
    exact = F.scaled_dot_product_attention(*[t.detach().double() for t in tensors])
    assert_close(out, exact.numpy(), theirs.detach().numpy())
    assert np.isfinite(out).all() and all(np.isfinite(g).all() for g in grads[:3])


@both_dtypes
def test_fully_masked_rows_give_zeros_and_no_gradient(dtype: type) -> None:
    Q, K, V = [a.astype(dtype) for a in heads(5, 6, 5, 4)]
    look = np.ones((6, 5), bool)
    look[2] = look[4] = False
    for mask in (look, np.where(look, 0.0, -np.inf).astype(dtype)):
        out, (dQ, dK, dV, _) = both("attention", Q, K, V, mask)
        assert (out[..., [2, 4], :] == 0).all() and (out[..., [0, 1, 3, 5], :] != 0).all()
        assert (dQ[..., [2, 4], :] == 0).all()
        assert all(np.isfinite(g).all() for g in (dQ, dK, dV))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mask", ["boolean", "minus infinity", "causal"])
def test_what_is_masked_does_not_leak(mask: str, poison: float) -> None:
    """0 x NaN is NaN: a masked key must be left out, not multiplied by zero."""
    Q, K, V = [a.astype(np.float32) for a in heads(8, 6, 6, 4)]
    bad_K, bad_V = K.copy(), V.copy()
    bad_K[..., 5, :], bad_V[..., 5, 1] = poison, poison
    if mask == "causal":  # nobody but the last query sees the last key
        rows, options, given = slice(0, 5), {"is_causal": True}, None
    else:
        look = np.ones((6, 6), bool)
        look[:, 5] = False
        rows, options = slice(None), {}
        given = look if mask == "boolean" else np.where(look, 0, -np.inf).astype(np.float32)
    dout = np.zeros_like(Q)
    dout[..., rows, :] = 1
    clean, clean_grads = both("attention", Q, K, V, given, dout=dout, **options)
    out, grads = both("attention", Q, bad_K, bad_V, given, dout=dout, **options)
    assert same_bits(out[..., rows, :], clean[..., rows, :])
    assert same_bits(grads[0][..., rows, :], clean_grads[0][..., rows, :])
    if mask != "causal":
        assert same_bits(grads[1:3], clean_grads[1:3])


def test_nan_elsewhere_spreads() -> None:
    Q, K, V = [a.astype(np.float32) for a in heads(8, 6, 6, 4)]
    bad = Q.copy()
    bad[0, 0, 2, 1] = np.nan
    out = forward("attention", bad, K, V, None)
    assert np.isnan(out[0, 0, 2]).all() and np.isnan(out).sum() == 4
    bad = K.copy()
    bad[0, 1, 3, 0] = np.nan
    out = forward("attention", Q, bad, V, None)
    assert np.isnan(out[0, 1]).all() and not np.isnan(out[0, 0]).any()
    bad = V.copy()
    bad[0, 1, 3, 0] = np.nan
    out = forward("attention", Q, K, bad, None)
    assert np.isnan(out[0, 1, :, 0]).all() and np.isnan(out).sum() == 6
    out = forward("attention", Q, K, bad, None, is_causal=True)
    assert np.isnan(out[0, 1, 3:, 0]).all() and np.isnan(out).sum() == 3


@both_dtypes
@pytest.mark.parametrize("size", [30.0, 1e4])
def test_attention_of_large_scores(size: float, dtype: type) -> None:
    """Scores this large: exp(S - lse) must not overflow, nor a difference of both lose all."""
    Q, K, V = heads(21, 7, 9, 4)
    Q = np.float64(np.float32(Q * math.sqrt(size)))
    K = np.float64(np.float32(K * math.sqrt(size)))
    problem = Problem((Q, K, V, None), {"is_causal": False, "scale": 0.5})
    check(CASES["attention"], problem, dtype)


@pytest.mark.parametrize("loud", [0, 600, 1050])
def test_attention_of_large_scores_in_one_block_of_keys(loud: int) -> None:
    """Scores of some hundred wherever the online softmax is: its maximum has to follow."""
    Q, K, V = heads(23, 5, 1100, 4, 3, 2, 1)
    Q, K = 6 * Q, K / 8
    K[..., loud : loud + 40, :] *= 160
    check_without_loops(
        Problem((exactly(Q), exactly(K), V, None), {"is_causal": False, "scale": 1.0})
    )


@pytest.mark.parametrize("scale", [1e-3, 50.0, 500.0])
def test_attention_of_any_scale(scale: float) -> None:
    """Scores are called small or large after the scale, whichever side of 1 it lies on."""
    Q, K, V = heads(29, 6, 40, 4, 3, 2, 1)
    size = math.sqrt(150 / scale)
    problem = Problem((exactly(size * Q / 2), exactly(size * K / 2), V, None), {"scale": scale})
    check_without_loops(problem)


def test_the_log_sum_exp_of_a_row_that_sees_nothing_is_minus_infinity() -> None:
    look = np.ones((6, 5), bool)
    look[2] = False
    Q, K, V = heads(5, 6, 5, 4)
    _, saved = kernel("attention").forward(Q, K, V, look)
    lse = saved[5].reshape(2, 6)
    assert (lse[:, 2] == -np.inf).all() and np.isfinite(np.delete(lse, 2, axis=1)).all()
    scores = (Q @ K.swapaxes(-1, -2) / 2).reshape(2, 6, 5)
    np.testing.assert_allclose(lse[:, 0], np.log(np.exp(scores[:, 0]).sum(-1)), rtol=1e-13)


def test_causal_outputs_do_not_see_the_future() -> None:
    Q, K, V = [a.astype(np.float32) for a in heads(4, 40, 40, 8)]
    whole = forward("attention", Q, K, V, None, is_causal=True)
    for t in (1, 17, 39):
        K2, V2 = K.copy(), V.copy()
        K2[..., t:, :] += 1
        V2[..., t:, :] -= 1
        changed = forward("attention", Q, K2, V2, None, is_causal=True)
        assert same_bits(whole[..., :t, :], changed[..., :t, :])
        assert not same_bits(whole[..., t:, :], changed[..., t:, :])


def test_attention_heads_and_sequences_keep_apart() -> None:
    Q, K, V = [np.concatenate([a, a + 1]).astype(np.float32) for a in heads(4, 7, 9, 8, 8, 4, 2)]
    whole = forward("attention", Q, K, V, None)
    for b in range(2):
        for h in range(4):
            one = forward(
                "attention",
                Q[b : b + 1, h : h + 1],
                K[b : b + 1, h // 2 : h // 2 + 1],
                V[b : b + 1, h // 2 : h // 2 + 1],
                None,
            )
            assert_close(whole[b, h], one[0, 0].astype(np.float64), one[0, 0])


@pytest.mark.parametrize("size", [2000, 5000])
def test_attention_memory_is_linear_in_the_length(size: int) -> None:
    import tracemalloc

    Q, K, V = [a.astype(np.float32) for a in heads(4, size, size, 8, 8, 1, 1)]
    tracemalloc.start()
    try:
        both("attention", Q, K, V, None, is_causal=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Inputs, gradients, the softmax's sums, and tiles of fixed size for each thread.
    assert peak < 16 * Q.nbytes + 16e6 < size * size * 4 * (1 if size > 2500 else 100)


# Attention: dropout ------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_dropout(is_causal: bool, dtype: type) -> None:
    """Values that are the identity show the weights; what is kept of them is then given."""
    p, key = 0.3, Key(7, 1, 2)
    Q, K, V = heads(31, 33, 29, 8, 6, 4, 2)
    eye = np.broadcast_to(np.eye(29), (1, 2, 29, 29))
    options = {"is_causal": is_causal, "dropout_p": p, "key": key}
    arrays = [a.astype(dtype) for a in (Q, K, V)]
    weights = forward("attention", *arrays[:2], eye.astype(dtype), None, **options)
    plain = forward("attention", *arrays[:2], eye.astype(dtype), None, is_causal=is_causal)
    kept = weights != 0
    seen = plain != 0
    share = kept[seen].mean()
    assert abs(share - (1 - p)) < 5 * math.sqrt(p * (1 - p) / seen.sum())
    np.testing.assert_allclose(weights[kept], plain[kept] / (1 - p), rtol=1e-6)

    def reference(Q: Array, K: Array, V: Array) -> Array:
        return ref.attention(Q, K, V, None, is_causal=is_causal, kept=kept, dropout_p=p)

    out, grads = both("attention", *arrays, None, **options)
    assert_close(out, reference(Q, K, V), reference(*[a.astype(np.float32) for a in (Q, K, V)]))
    if dtype == np.float64:
        check_gradients(reference, (Q, K, V), grads)
    again, grads_again = both("attention", *arrays, None, **options)
    assert same_bits((out, grads), (again, grads_again))
    other = forward("attention", *arrays, None, **{**options, "key": Key(7, 1, 3)})
    assert not same_bits(out, other)


@pytest.mark.parametrize(("G", "L", "S"), [(2, 300, 21), (4, 130, 520)])  # many tiles each
def test_attention_dropout_gives_every_row_a_stretch_of_the_stream(G: int, L: int, S: int) -> None:
    """Row (b, h, q) begins at its number times the keys rounded up to 8, whatever the tiles."""
    p, key = 0.4, Key(11, 2, 3)
    B, H, row = 2, 2 * G, -(-S // 8) * 8
    Q = normal(1, B, H, L, 3)
    K = normal(2, B, G, S, 3)
    eye = np.broadcast_to(np.eye(S), (B, G, S, S))
    weights = forward("attention", Q, K, eye, None, dropout_p=p, key=key)
    bits = random_bits(key, B * H * L * row).reshape(B, H, L, row)[..., :S]
    assert np.array_equal(weights != 0, bits >= keep_threshold(p))
    assert (forward("attention", Q, K, eye, None, dropout_p=1.0, key=key) == 0).all()


@pytest.mark.parametrize("is_causal", [False, True])
def test_keys_that_score_minus_infinity_get_no_gradient(is_causal: bool) -> None:
    Q, K, V = np.random.default_rng(0).uniform(0.5, 1.0, (3, 1, 2, 5, 4)).astype(np.float32)
    K[:, 1] = -np.inf  # one head sees nothing but minus infinity
    with np.errstate(invalid="ignore"):
        out, saved = attention_forward(Q, K, V, None, is_causal=is_causal)
        dQ, dK, dV, _ = attention_backward(np.ones_like(out), saved)
    assert (out[0, 1] == 0).all() and (dK[0, 1] == 0).all() and (dV[0, 1] == 0).all()
    assert all(np.isfinite(x[0, 0]).all() for x in (out, dQ, dK, dV))


@pytest.mark.parametrize("size", [1e-30, 1e-25, 1.0, 1e25, 1e35])
@pytest.mark.parametrize("score", [-80.0, -35.0, -5.0, 5.0, 35.0, 80.0])
def test_values_of_any_size_under_scores_of_any_size(score: float, size: float) -> None:
    one, K = np.ones((1, 1, 2, 1), np.float32), np.full((1, 1, 2, 1), score, np.float32)
    V = np.array([1.0, 3.0], np.float32).reshape(1, 1, 2, 1) * np.float32(size)
    out, _ = attention_forward(one, K, V, None, scale=1.0)
    np.testing.assert_allclose(out, 2 * V[:, :, :1].repeat(2, 2), rtol=1e-6)


@pytest.mark.parametrize("below", [10.0, 60.0, 80.0, 87.0, 90.0, 103.0, 1e4])
def test_the_loss_of_a_class_far_below_the_others(below: float) -> None:
    for top in (0.0, -9.0, 5.0, 18.0):
        logits = np.array([[top, top, top - below]], np.float32)
        loss, _ = cross_entropy_forward(logits, np.array([2]), None)
        x = logits.astype(np.float64)
        np.testing.assert_allclose(loss, np.log(np.exp(x - top).sum()) + top - x[0, 2], rtol=1e-6)


@both_dtypes
def test_infinite_values_weigh_in_where_they_are_seen(dtype: type) -> None:
    Q, K, V = [a.astype(dtype) for a in heads(8, 6, 6, 4)]
    V[0, 0, 3, 0] = np.inf
    V[0, 0, 4, 1] = -np.inf
    V[0, 1, 1, 2], V[0, 1, 2, 2] = np.inf, -np.inf
    out = forward("attention", Q, K, V, None, is_causal=True)
    for head, column, first, value in [(0, 0, 3, np.inf), (0, 1, 4, -np.inf)]:
        assert np.isfinite(out[0, head, :first, column]).all()
        assert (out[0, head, first:, column] == value).all()
    assert np.isfinite(out[0, 1, 0, 2]) and out[0, 1, 1, 2] == np.inf
    assert np.isnan(out[0, 1, 2:, 2]).all() and np.isfinite(out[0, :, :, 3]).all()


def check_gradients(function: Callable[..., Array], arrays: Any, grads: Any) -> None:
    """Differences of the sum along one direction per array; float64 only."""
    from tests.kernels.check import five_points

    for i, (array, grad) in enumerate(zip(arrays, grads)):
        v = np.random.default_rng(i).standard_normal(array.shape)

        def along(t: float, i: int = i, v: Array = v) -> float:
            moved = [a + t * v if j == i else a for j, a in enumerate(arrays)]
            return float(function(*moved).sum())

        slopes = [five_points(along, h) for h in (2e-4, 1e-4)]
        bound = 2 * abs(slopes[0] - slopes[1]) + 1e-10 * (np.abs(grad * v).sum() + abs(along(0)))
        assert abs((grad * v).sum() - slopes[1]) <= bound


# Dropout -----------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout(p: float, dtype: type) -> None:
    pair = pair_of_dropout()
    x = (1 + np.abs(normal(3, 50, 41))).astype(dtype)
    key = Key(5, 0, 9)
    out, saved = pair.forward(freeze(x), p=p, key=key)
    assert out.dtype == dtype and out.shape == x.shape
    kept = out != 0
    assert abs(kept.mean() - (1 - p)) <= 5 * math.sqrt(p * (1 - p) / x.size)
    if p < 1:
        np.testing.assert_allclose(out[kept], x[kept] / (1 - p), rtol=4 * np.finfo(dtype).eps)
    dout = freeze(normal(4, 50, 41).astype(dtype))
    (dx,) = pair.backward(dout, freeze(saved))
    assert dx.dtype == dtype
    expected = np.where(kept, dout / (1 - p if p < 1 else 1), 0)
    np.testing.assert_allclose(dx, expected, rtol=4 * np.finfo(dtype).eps)
    again, _ = pair.forward(x, p=p, key=key)
    assert same_bits(out, again)
    if 0 < p < 1:
        for other in (Key(6, 0, 9), Key(5, 1, 9), Key(5, 0, 8)):
            different = pair.forward(x, p=p, key=other)[0] != 0
            # Two independent draws agree on p^2 + (1-p)^2 of the places.
            agree = (different == kept).mean()
            assert abs(agree - (p**2 + (1 - p) ** 2)) < 6 / math.sqrt(x.size)


def pair_of_dropout() -> Pair:
    from minitransformer.kernels.dropout import dropout_backward, dropout_forward

    return Pair(dropout_forward, dropout_backward)


@both_dtypes
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (300, 411)])
@pytest.mark.parametrize("p", [0.1, 1.0])
def test_residual_dropout_is_dropout_and_a_sum(
    p: float, shape: tuple[int, ...], dtype: type
) -> None:
    from minitransformer.kernels import dropout

    x, residual, dout = (normal(i, *shape).astype(dtype) for i in (1, 2, 3))
    key = Key(5, 0, 9)
    dropped, _ = dropout.dropout_forward(x, p=p, key=key)
    out, saved = dropout.residual_dropout_forward(freeze(x), freeze(residual), p=p, key=key)
    assert out.dtype == dtype and same_bits(out, residual + dropped)
    dx, dresidual = dropout.residual_dropout_backward(freeze(dout), freeze(saved))
    assert same_bits(dx, dropout.dropout_forward(dout, p=p, key=key)[0])
    assert same_bits(dresidual, dout)


@both_dtypes
def test_a_dropped_nan_is_a_zero(dtype: type) -> None:
    x = np.full(1000, np.nan, dtype)
    for p in (0.5, 1.0):
        out, saved = pair_of_dropout().forward(x, p=p, key=Key(3))
        (dx,) = pair_of_dropout().backward(x, saved)
        for values in (out, dx):
            assert set(values[~np.isnan(values)]) == {0}
        assert same_bits(np.isnan(out), np.isnan(dx))


def test_dropout_keeps_a_bit_per_element_and_draws_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from minitransformer.kernels import dropout

    x = normal(1, 70_001)
    _, saved = dropout.dropout_forward(x, p=0.3, key=Key(3))
    assert sum(s.nbytes for s in saved if isinstance(s, np.ndarray)) <= x.size // 8 + 1
    expected, _ = dropout.dropout_forward(x, p=0.3, key=Key(3))
    monkeypatch.setattr(dropout, "random_bits", None)
    assert same_bits(dropout.dropout_backward(x, saved)[0], expected)


def test_dropout_from_the_middle_of_a_stream() -> None:
    from minitransformer.kernels import dropout

    whole = dropout.drop(np.ones(64), 0.5, Key(4))
    for start in (0, 8, 13, 31):
        assert same_bits(dropout.drop(np.ones(64 - start), 0.5, Key(4), start), whole[start:])


def test_dropout_of_almost_everything() -> None:
    out, _ = pair_of_dropout().forward(np.ones(1000), p=1 - 2.0**-40, key=Key(0))
    assert (out == 0).mean() > 0.99


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_dropout_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        pair_of_dropout().forward(np.ones(3), p=p, key=Key(0))


def test_feed_forward_dropout() -> None:
    """With the identity as second layer the output is the dropped hidden layer itself."""
    p, key = 0.25, Key(3)
    x, w1, b1 = normal(1, 40, 9), normal(2, 33, 9), normal(3, 33)
    options = {"activation": "gelu", "dropout_p": p, "key": key}
    hidden = forward("feed_forward", x, w1, b1, np.eye(33), None, **options)
    kept = hidden != 0
    assert abs(kept.mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / kept.size)

    def reference(x: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> Array:
        a = ref.gelu(ref.linear(x, w1, b1)) * kept / (1 - p)
        return ref.linear(a, w2, b2)

    arrays = (x, w1, b1, normal(4, 9, 33), normal(5, 9))
    out, grads = both("feed_forward", *arrays, **options)
    exact = reference(*arrays)
    naive = reference(*[a.astype(np.float32) for a in arrays]).astype(np.float32)
    assert_close(out, exact, naive)
    check_gradients(reference, arrays, grads)


def test_feed_forward_drops_what_dropout_would() -> None:
    """Whatever the blocks of rows: element i of the hidden layer meets element i of the stream."""
    p, key, rows = 0.25, Key(3), 1300
    options = {"activation": "relu", "dropout_p": p, "key": key}
    x = np.ones((rows, 1))
    hidden = forward("feed_forward", x, np.ones((7, 1)), None, np.eye(7), None, **options)
    expected, _ = pair_of_dropout().forward(np.ones((rows, 7)), p=p, key=key)
    assert same_bits(hidden, expected)


# Softmax, norms, activations ---------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("size", [1e4, 3e38])
def test_softmax_of_large_logits(name: str, size: float, dtype: type) -> None:
    x = np.float64(np.float32(np.linspace(-1, 1, 7) * size)).reshape(1, 7)
    check_values(name, Problem((np.concatenate([x, x[:, ::-1]]),), {"axis": -1}), dtype)


def check_values(name: str, problem: Problem, dtype: type) -> None:
    """`check` without differences, which such inputs do not allow."""
    import dataclasses

    check(dataclasses.replace(CASES[name], differences=lambda problem: False), problem, dtype)


@both_dtypes
def test_softmax_with_minus_infinity(dtype: type) -> None:
    x = np.array([[0.5, -np.inf, 1.25], [-np.inf, -np.inf, 2.0]])
    check_values("softmax", Problem((x,), {"axis": -1}), dtype)
    out, (dx,) = both("softmax", x.astype(dtype), axis=-1, dout=np.ones((2, 3), dtype))
    assert (out[x == -np.inf] == 0).all() and np.isfinite(dx).all()
    log = forward("log_softmax", x.astype(dtype), axis=-1)
    assert (log[x == -np.inf] == -np.inf).all() and np.isfinite(log[x > -np.inf]).all()


def test_softmax_of_a_row_of_minus_infinity_is_nan_as_in_pytorch() -> None:
    x = np.full((2, 3), -np.inf, np.float32)
    x[1] = 0
    out = forward("softmax", x, axis=-1)
    assert np.isnan(out[0]).all() and np.array_equal(out[1], np.full(3, 1 / 3, np.float32))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_does_not_see_a_shift(name: str) -> None:
    x = np.round(16 * normal(3, 4, 9)) / 16
    reference = CASES[name].reference
    exact, naive = (reference(x.astype(t), axis=1) for t in (np.float64, np.float32))
    for shift in (0, 64, -1000):  # every shifted number is exact
        assert_close(forward(name, np.float32(x + shift), axis=1), exact, naive)


def test_no_row_of_a_softmax_looks_at_another() -> None:
    x = normal(3, 5, 9).astype(np.float32)
    larger = x.copy()
    larger[2] *= 1000  # its maximum is needed, and theirs is not
    one, other = (np.delete(forward("softmax", v, axis=1), 2, axis=0) for v in (x, larger))
    assert same_bits(one, other)


@both_dtypes
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_norms_of_constant_rows_and_large_means(name: str, dtype: type) -> None:
    rows = np.stack(
        [
            np.full(16, 3.0),
            np.zeros(16),
            np.full(16, -1e4),
            1e4 + np.round(1024 * normal(3, 16)) / 1024,
        ]
    )
    extra = (None,) if name == "layer_norm" else ()
    arrays = (np.float64(np.float32(rows)), 1 + normal(4, 16) / 4, *extra)
    check_values(name, Problem(arrays, {"normalized_ndim": 1, "eps": 1e-5}), dtype)


def test_layer_norm_of_a_mean_far_above_the_deviation() -> None:
    """Mean 1e4, deviation 1e-3: float32 holds 1e4 in steps of 1e-3, float64 must still be right."""
    rows = 1e4 + 1e-3 * normal(3, 5, 64)
    out = forward("layer_norm", rows, None, None, eps=1e-12)
    centred = rows - rows.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    # One rounding of the inputs, 1.8e-12 at 1e4, over a deviation of 1e-3.
    np.testing.assert_allclose(out, expected, atol=1e4 * np.finfo(float).eps / 1e-3)


def test_layer_norm_does_not_see_a_scale() -> None:
    x = normal(3, 4, 16).astype(np.float32)
    one = forward("layer_norm", x, None, None, eps=0.0)
    assert same_bits(one, forward("layer_norm", x * np.float32(4), None, None, eps=0.0))


@both_dtypes
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_far_out(approximate: str, dtype: type) -> None:
    x = np.array([-1e30, -300.0, -38.0, -20.0, -12.0, -10.5, 10.5, 12.0, 20.0, 38.0, 300.0, 1e30])
    x = np.float64(np.float32(x))
    out, (dx,) = both("gelu", x.astype(dtype), approximate=approximate)
    right = x > 0
    assert np.array_equal(out[right], x[right].astype(dtype)) and (dx[right] == 1).all()
    assert (np.abs(out[~right]) < 1e-15).all() and (np.abs(dx[~right]) < 1e-14).all()
    assert (out[~right] <= 0).all()


@both_dtypes
def test_erf_is_accurate_everywhere(dtype: type) -> None:
    x = np.concatenate([np.linspace(-7, 7, 4001), [0.0, -0.0, 1e-300, np.inf, -np.inf]])
    x = x.astype(np.float32).astype(np.float64)
    out = forward("erf", x.astype(dtype))
    exact = np.array([math.erf(v) for v in x])
    assert (np.abs(out - exact) <= 4 * np.finfo(dtype).eps * np.abs(exact) + 1e-45).all()
    assert np.isnan(forward("erf", np.array([np.nan], dtype))).all()


@both_dtypes
@pytest.mark.parametrize("number", [3.0, 0.5, -2.0, 1, 0])
def test_an_operand_may_be_a_number(number: float, dtype: type) -> None:
    """It takes the array's dtype and has no gradient."""
    x = away_from_zero(3, 4, 5)
    operations: dict[str, Callable[..., Any]] = {
        "add": torch.add,
        "subtract": torch.sub,
        "multiply": torch.mul,
        "divide": torch.div,
        "power": torch.pow,
        "maximum": lambda a, b: torch.maximum(torch.as_tensor(a), torch.as_tensor(b)),
    }
    for name, operation in operations.items():
        for number_first in (False, True):
            if name == "power":  # a real power needs a base that is not negative
                x = np.abs(x)
                if number_first and number < 0:
                    continue
            if name == "maximum" and number_first:
                continue
            results = []
            for width in (np.float64, np.float32):
                t = torch.from_numpy(x.astype(width)).requires_grad_()
                other = torch.full_like(t, float(number)) if name == "maximum" else number
                theirs = operation(*((other, t) if number_first else (t, other)))
                theirs.sum().backward()
                results.append((theirs.detach().numpy(), t.grad.numpy()))
            given = x.astype(dtype)
            operands = (number, given) if number_first else (given, number)
            out, saved = kernel(name).forward(*freeze(list(operands)))
            grads = kernel(name).backward(np.ones_like(out), saved)
            assert grads[not number_first] is None
            label = f"{name}, number {'first' if number_first else 'second'}"
            assert_close(out, results[0][0], results[1][0], "forward", label)
            grad = np.broadcast_to(grads[number_first], x.shape)
            assert_close(grad, results[0][1], results[1][1], "backward", label)


def test_powers_at_zero_are_pytorchs() -> None:
    a = np.array([0.0, 0.0, 0.0, 2.0, 0.0])
    b = np.array([0.0, 2.0, -1.0, 0.0, 0.5])
    s, t = torch.from_numpy(a.copy()).requires_grad_(), torch.from_numpy(b.copy()).requires_grad_()
    theirs = torch.pow(s, t)
    theirs.sum().backward()
    out, (da, db) = both("power", a, b)
    assert np.array_equal(out, theirs.detach().numpy())
    assert np.array_equal(da, s.grad.numpy(), equal_nan=True)
    assert np.array_equal(db, t.grad.numpy(), equal_nan=True)
    exponent = torch.tensor([1.0, 0.0, -1.0], requires_grad=True)
    torch.pow(0.0, exponent).sum().backward()
    out, saved = kernel("power").forward(0.0, np.array([1.0, 0.0, -1.0]))
    assert np.array_equal(kernel("power").backward(np.ones(3), saved)[1], exponent.grad.numpy())


def test_a_mask_may_be_larger_than_what_it_fills() -> None:
    mask = np.array([[True, False, False], [False, False, True]])
    out, (dx, none) = both("masked_fill", np.ones(3), mask, value=-2.0)
    assert out.tolist() == [[-2, 1, 1], [1, 1, -2]] and dx.tolist() == [1, 2, 1] and none is None


def test_cast_goes_back_in_the_gradient() -> None:
    from minitransformer.kernels.elementwise import cast_backward, cast_forward

    x = np.linspace(-2, 2, 9, dtype=np.float32).reshape(3, 3).T
    out, saved = cast_forward(freeze(x), dtype=np.float64)
    assert out.dtype == np.float64 and np.array_equal(out, x)
    (dx,) = cast_backward(np.full((3, 3), 1 / 3), saved)
    assert dx.dtype == np.float32 and (dx == np.float32(1 / 3)).all()


def test_elementwise_extremes_follow_ieee() -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38], np.float32)
    t = torch.from_numpy(x.copy())
    for name in ("exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "abs", "log1p", "negative"):
        theirs = getattr(torch, {"negative": "neg"}.get(name, name))(t).numpy()
        ours = forward(name, x)
        assert np.array_equal(ours, theirs, equal_nan=True), name
    for name, function in [("divide", torch.div), ("multiply", torch.mul), ("add", torch.add)]:
        ours = forward(name, x[:, None].copy(), x[None].copy())
        theirs = function(t[:, None], t[None]).numpy()
        assert np.array_equal(ours, theirs, equal_nan=True), name
    for name, function in [("maximum", torch.maximum), ("minimum", torch.minimum)]:
        ours = forward(name, x[:, None].copy(), x[None].copy())
        assert np.array_equal(ours, function(t[:, None], t[None]).numpy(), equal_nan=True), name


@both_dtypes
@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 1, 3, 2, 5), (4, 1, 5, 2)),
        ((4, 1, 2, 5), (2, 1, 3, 5, 2)),
        ((3, 2, 5), (1, 5, 2)),
        ((1, 3, 2, 5), (1, 5, 2)),
        ((1, 3, 2, 5), (1, 5, 1)),
        ((1, 2, 5), (3, 5, 2)),
        ((2, 3, 4, 5), (5, 2)),
        ((4, 5), (2, 3, 5, 2)),
        ((5,), (2, 3, 5, 2)),
        ((2, 3, 4, 5), (5,)),
    ],
    ids=str,
)
def test_stacks_of_matrices_broadcast(shapes: Any, dtype: type) -> None:
    arrays = tuple(normal(i, *shape) for i, shape in enumerate(shapes))
    check(CASES["matmul"], Problem(arrays), dtype)


def test_relu_lets_nan_through() -> None:
    assert np.isnan(forward("relu", np.array([np.nan, 1.0])))[0]


def test_equal_extremes_share_or_take_the_gradient_as_in_pytorch() -> None:
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    for name, chosen in [("amax", torch.amax), ("amin", torch.amin)]:
        _, (dx,) = both(name, x, axis=1, keepdims=False)
        t = torch.from_numpy(x.copy()).requires_grad_()
        chosen(t, 1).sum().backward()
        assert np.array_equal(dx, t.grad.numpy())
    _, (dx,) = both("norm", -x, ord=math.inf, axis=1, keepdims=False)
    t = torch.from_numpy(-x).requires_grad_()
    torch.linalg.vector_norm(t, math.inf, 1).sum().backward()
    assert np.array_equal(dx, t.grad.numpy())
    for name, function in [("maximum", torch.maximum), ("minimum", torch.minimum)]:
        a, b = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
        function(a, b).sum().backward()
        _, (da, db) = both(name, np.zeros(2), np.zeros(2))
        assert np.array_equal(da, a.grad.numpy()) and np.array_equal(db, b.grad.numpy())


@both_dtypes
def test_the_slope_of_relu_at_zero_is_zero(dtype: type) -> None:
    out, (dx,) = both("relu", np.array([-0.0, 0.0, -1.0, 2.0], dtype))
    assert out.tolist() == [0, 0, 0, 2] and dx.tolist() == [0, 0, 0, 1]


@both_dtypes
def test_logsumexp_of_infinities_and_large_values(dtype: type) -> None:
    inf = np.inf
    x = np.array([[1e4, 1e4, -1e4], [-inf, -inf, -inf], [inf, 0, 1], [-inf, 0, 1]], dtype)
    out, (dx,) = both("logsumexp", x, axis=1, keepdims=False)
    expected = torch.logsumexp(torch.from_numpy(x.copy()).double(), 1).numpy()
    np.testing.assert_allclose(out, expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(dx[[0, 3]].sum(1), 1, rtol=1e-3)
    assert (dx[1] == 0).all() and dx[0].tolist()[2] == 0


@both_dtypes
def test_where_a_norm_or_a_deviation_is_zero_so_is_its_gradient(dtype: type) -> None:
    x = np.zeros((2, 3), dtype)
    for order in (1.0, 2.0, 3.0, math.inf):
        out, (dx,) = both("norm", x, ord=order, axis=1, keepdims=False)
        assert (out == 0).all() and (dx == 0).all()
    out, (dx,) = both("std", x + 3, axis=1, correction=1, keepdims=False)
    assert (out == 0).all() and (dx == 0).all()
    with pytest.raises(ValueError, match="order"):
        forward("norm", x, ord=0.0, axis=1, keepdims=False)


def test_the_variance_of_too_few_is_pytorchs() -> None:
    for number, correction in [(1, 1), (1, 0), (2, 2), (2, 3)]:
        x = np.arange(number, dtype=np.float64)
        with np.errstate(all="ignore"):
            out = forward("var", x, axis=0, correction=correction, keepdims=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = torch.var(torch.from_numpy(x), 0, correction=correction)
        assert np.array_equal(out, theirs.numpy(), equal_nan=True)


def test_the_extreme_of_a_lone_number() -> None:
    for name in ("max", "min"):
        (value, index), (dx,) = both(
            name, np.array(3.0), axis=0, keepdims=False, dout=(np.ones(()), None)
        )
        assert value == 3.0 and index == 0 and index.dtype == np.int64 and dx == 1.0


# Cross-entropy -----------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_cross_entropy_of_large_logits(size: float, dtype: type) -> None:
    logits = np.float64(np.float32(size * normal(3, 6, 5)))
    target = np.array([0, 1, 2, 3, 4, 0])
    check_values("cross_entropy", Problem((logits, target, None), {}), dtype)


@both_dtypes
def test_cross_entropy_of_large_logits_that_are_close(dtype: type) -> None:
    """The largest logit must be subtracted before anything is rounded."""
    logits = np.float64(np.float32(1e4 + np.round(64 * normal(3, 6, 5)) / 64))
    target = np.array([0, 1, 2, 3, 4, 0])
    for options in ({}, {"label_smoothing": 0.25}, {"reduction": "sum"}):
        check_values("cross_entropy", Problem((logits, target, None), options), dtype)


@both_dtypes
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_with_every_target_ignored(reduction: str, dtype: type) -> None:
    logits, target = normal(3, 4, 5).astype(dtype), np.full(4, -100)
    out, (dlogits, _, _) = both("cross_entropy", logits, target, None, reduction=reduction)
    t = torch.from_numpy(logits.copy()).requires_grad_()
    theirs = F.cross_entropy(t, torch.from_numpy(target.copy()), reduction=reduction)
    theirs.sum().backward()
    assert np.array_equal(out, theirs.detach().numpy(), equal_nan=True)
    assert (dlogits == 0).all() and dlogits.dtype == dtype


@both_dtypes
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_smoothed_probabilities(weighted: bool, dtype: type) -> None:
    weight = np.float64(np.float32(np.linspace(0.5, 2, 5))) if weighted else None
    target = np.float64(np.float32(np.random.default_rng(0).dirichlet(np.ones(5), 6)))
    for reduction in ("mean", "sum", "none"):
        options = {"label_smoothing": 0.25, "reduction": reduction}
        check(CASES["cross_entropy"], Problem((normal(3, 6, 5), target, weight), options), dtype)


@both_dtypes
@pytest.mark.parametrize("smoothing", [0.0, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_smoothing_to_the_ends(smoothing: float, weighted: bool, dtype: type) -> None:
    weight = np.float64(np.float32(np.linspace(0.5, 2, 5))) if weighted else None
    target = np.array([0, 4, -100, 2, 2, 1])
    problem = Problem((normal(3, 6, 5), target, weight), {"label_smoothing": smoothing})
    check(CASES["cross_entropy"], problem, dtype)


@pytest.mark.parametrize("wrong", [5, 6, -1, -99])
def test_cross_entropy_refuses_a_target_out_of_range(wrong: int) -> None:
    with pytest.raises(IndexError, match=str(wrong)):
        forward("cross_entropy", normal(3, 3, 5), np.array([0, wrong, 1]), None)


@pytest.mark.parametrize(
    ("target", "options", "error"),
    [
        (np.array([0, 1]), {}, ValueError),
        (np.array([[0], [1], [2]]), {}, ValueError),
        (np.zeros((3, 4)), {}, ValueError),
        (np.array([True, False, True]), {}, TypeError),
        (np.zeros(3, int), {"label_smoothing": -0.1}, ValueError),
        (np.zeros(3, int), {"label_smoothing": 1.5}, ValueError),
        (np.zeros(3, int), {"reduction": "average"}, ValueError),
    ],
)
def test_cross_entropy_refuses(target: Array, options: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        forward("cross_entropy", normal(3, 3, 5), target, None, **options)


def test_cross_entropy_ignores_a_row_of_nan() -> None:
    logits = normal(3, 3, 5)
    clean = both("cross_entropy", logits.copy(), np.array([0, -100, 1]), None)
    logits[1] = np.nan
    spoiled = both("cross_entropy", logits, np.array([0, -100, 1]), None)
    assert same_bits(clean, spoiled)


# Embedding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [7, 100, -1, -8])
def test_embedding_refuses_an_id_out_of_range(wrong: int) -> None:
    with pytest.raises(IndexError, match=str(wrong)):
        forward("embedding", np.array([[0, wrong]]), normal(3, 7, 4))


def test_embedding_adds_up_repeated_ids() -> None:
    ids = np.array([2, 2, 2, 0, 2])
    dout = normal(4, 5, 3)
    _, (none, dweight) = both("embedding", ids, normal(3, 4, 3), dout=dout)
    assert none is None
    expected = np.zeros((4, 3))
    for i, word in enumerate(ids):
        expected[word] += dout[i]
    np.testing.assert_allclose(dweight, expected, rtol=1e-15)


@both_dtypes
@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_rows_of_an_embedding_gradient_add_up_to_the_whole(
    padding_idx: int | None, dtype: type
) -> None:
    from minitransformer.kernels import embedding

    ids = np.array([[2, 5, 2], [0, 5, 6]])
    table, dout = normal(3, 7, 4).astype(dtype), freeze(normal(4, 2, 3, 4).astype(dtype))
    _, saved = embedding.embedding_forward(freeze(ids), freeze(table), padding_idx=padding_idx)
    none, whole = embedding.embedding_backward(dout, saved)
    none_again, rows = embedding.embedding_backward_sparse(dout, saved)
    assert none is None and none_again is None
    before = normal(5, 7, 4).astype(dtype)
    total = before.copy()
    rows.add_to(total)
    assert same_bits(total, before + whole)
    untouched = [1, 3, 4]
    assert same_bits(total[untouched], before[untouched]) and (whole[untouched] == 0).all()


# Nothing at all ----------------------------------------------------------------------------

EMPTY: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("linear", ((0, 4), (3, 4), (3,)), {}),
    ("linear", ((2, 0), (3, 0), (3,)), {}),
    ("matmul", ((0, 4), (4, 3)), {}),
    ("matmul", ((2, 0), (0, 3)), {}),
    ("matmul", ((0, 2, 3), (3, 4)), {}),
    ("relu", ((0,),), {}),
    ("gelu", ((3, 0),), {"approximate": "tanh"}),
    ("softmax", ((0, 4),), {"axis": -1}),
    ("softmax", ((4, 0),), {"axis": -1}),
    ("log_softmax", ((4, 0),), {"axis": -1}),
    ("layer_norm", ((0, 4), (4,), (4,)), {}),
    ("rms_norm", ((0, 4), (4,)), {}),
    ("attention", ((0, 2, 3, 4), (0, 2, 5, 4), (0, 2, 5, 4), None), {}),
    ("attention", ((1, 2, 0, 4), (1, 2, 5, 4), (1, 2, 5, 4), None), {}),
    ("attention", ((1, 2, 3, 4), (1, 2, 0, 4), (1, 2, 0, 6), None), {}),
    ("feed_forward", ((0, 4), (6, 4), (6,), (4, 6), (4,)), {}),
    ("gated_feed_forward", ((0, 4), (6, 4), (6, 4), (4, 6)), {}),
    ("sum", ((0, 3),), {"axis": 0, "keepdims": False}),
    ("prod", ((0, 3),), {"axis": 0, "keepdims": False}),
    ("cumsum", ((0, 3),), {"axis": 0}),
    ("add", ((0, 3), (1, 3)), {}),
]


@pytest.mark.parametrize(
    ("name", "shapes", "options"), EMPTY, ids=[f"{n}-{s}".replace(" ", "") for n, s, _ in EMPTY]
)
def test_nothing_gives_what_pytorch_gives(name: str, shapes: Any, options: dict[str, Any]) -> None:
    arrays = [None if s is None else normal(3, *s).astype(np.float32) for s in shapes]
    defaults = {
        "layer_norm": {"normalized_ndim": 1, "eps": 1e-5},
        "rms_norm": {"normalized_ndim": 1, "eps": 1e-5},
        "feed_forward": {"activation": "relu"},
        "gated_feed_forward": {"activation": "silu"},
        "attention": {"is_causal": False, "scale": None},
    }.get(name, {})
    out, grads = both(name, *arrays, **{**defaults, **options})
    tensors = [None if a is None else torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    theirs = CASES[name].torch(*tensors, **{**defaults, **options})
    assert np.array_equal(out, theirs.detach().numpy())
    theirs.sum().backward()
    for grad, t in zip(grads, tensors):
        if t is not None:
            assert np.array_equal(grad, np.zeros(t.shape) if t.grad is None else t.grad.numpy())


@pytest.mark.parametrize("name", ["max", "min", "amax", "amin"])
def test_there_is_no_extreme_of_nothing(name: str) -> None:
    with pytest.raises(IndexError, match=name):
        forward(name, np.zeros((2, 0)), axis=1, keepdims=False)


# Threads -----------------------------------------------------------------------------------

LARGE: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "matmul": (((700, 65), (65, 33)), {}),
    "linear": (((3, 700, 65), (33, 65), (33,)), {}),
    "relu": (((90_001,),), {}),
    "gelu": (((300, 301),), {}),
    "silu": (((300, 301),), {}),
    "softmax": (((1500, 77),), {"axis": -1}),
    "log_softmax": (((77, 1500),), {"axis": 0}),
    "layer_norm": (((1500, 77), (77,), (77,)), {}),
    "rms_norm": (((1500, 77), (77,)), {}),
    "attention": (((2, 4, 300, 17), (2, 2, 600, 17), (2, 2, 600, 9), (300, 600)), {}),
    "feed_forward": (((1100, 33), (70, 33), (70,), (33, 70), (33,)), {}),
    "gated_feed_forward": (((1100, 33), (70, 33), (70, 33), (33, 70)), {}),
    "exp": (((300, 301),), {}),
    "erf": (((300, 301),), {}),
    "tanh": (((300, 301),), {}),
    "sigmoid": (((300, 301),), {}),
    "sum": (((1500, 77),), {"axis": 0}),
}


@pytest.mark.parametrize("name", LARGE)
def test_threads_do_not_change_a_bit(name: str) -> None:
    shapes, options = LARGE[name]
    arrays = [freeze(normal(i, *s).astype(np.float32)) for i, s in enumerate(shapes)]
    before, results = get_num_threads(), []
    try:
        for number in (1, 2, 3):
            set_num_threads(number)
            out, saved = kernel(name).forward(*arrays, **options)
            dout = freeze(normal(9, *out.shape).astype(np.float32))
            results.append((out, kernel(name).backward(dout, freeze(saved))))
    finally:
        set_num_threads(before)
    assert same_bits(results[0], results[1]) and same_bits(results[0], results[2])
    check_large(name, arrays, results[0], options)


def check_large(name: str, arrays: Any, result: Any, options: dict[str, Any]) -> None:
    """Sizes that the blocks split are also right, not only equal."""
    defaults = {
        "layer_norm": {"normalized_ndim": 1, "eps": 1e-5},
        "rms_norm": {"normalized_ndim": 1, "eps": None},
        "feed_forward": {"activation": "relu"},
        "gated_feed_forward": {"activation": "silu"},
        "sum": {"keepdims": False},
    }.get(name, {})
    results = []
    for dtype in (np.float64, np.float32):
        tensors = [torch.from_numpy(a.astype(dtype)).requires_grad_() for a in arrays]
        settings = {**defaults, **options}
        if settings.get("eps", 1) is None:
            settings["eps"] = float(np.finfo(np.float32).eps)
        out = CASES[name].torch(*tensors, **settings)
        out.backward(torch.from_numpy(normal(9, *out.shape).astype(dtype)))
        results.append((out.detach().numpy(), [t.grad.numpy() for t in tensors]))
    (exact, exact_grads), (naive, naive_grads) = results
    if name == "sum":  # PyTorch sums in pairs, which is not naive
        naive = CASES[name].reference(*arrays, **defaults, **options)
    assert_close(result[0], exact, naive, "forward", name)
    for i, grad in enumerate(result[1]):
        if grad is not None:
            assert_close(grad, exact_grads[i], naive_grads[i], "backward", f"gradient {i}")


def test_dropout_does_not_depend_on_threads_or_blocks() -> None:
    x = freeze(np.ones((400, 301), np.float32))
    before, results = get_num_threads(), []
    try:
        for number in (1, 2):
            set_num_threads(number)
            results.append(as_tuple(pair_of_dropout().forward(x, p=0.3, key=Key(1))[0]))
    finally:
        set_num_threads(before)
    assert same_bits(results[0], results[1])
    head, _ = pair_of_dropout().forward(x[:100], p=0.3, key=Key(1))
    assert same_bits(head, results[0][0][:100])


# Positions ---------------------------------------------------------------------------------


def test_sinusoidal_table() -> None:
    from minitransformer.kernels.positional import sinusoidal

    for length, dim in [(1, 2), (50, 16), (7, 5), (300, 512)]:
        table = sinusoidal(length, dim, dtype=np.float64)
        np.testing.assert_allclose(table, ref.sinusoidal(length, dim), atol=1e-12)
        assert sinusoidal(length, dim).dtype == np.float32


def test_rotary_scores_depend_on_distance_alone() -> None:
    from minitransformer.kernels.positional import rotary_angles

    q, k = normal(1, 8), normal(2, 8)
    cos, sin = rotary_angles(np.arange(30), 8, dtype=np.float64)
    for interleaved in (False, True):
        Q = forward("rotary", np.tile(q, (30, 1)), cos, sin, interleaved=interleaved)
        K = forward("rotary", np.tile(k, (30, 1)), cos, sin, interleaved=interleaved)
        scores = Q @ K.T
        for distance in (0, 3, 11):
            line = np.diagonal(scores, distance)
            np.testing.assert_allclose(line, line[0], rtol=1e-12)
        np.testing.assert_allclose((Q**2).sum(-1), (q**2).sum(), rtol=1e-13)


def test_rotary_angles() -> None:
    """theta_i = 10000^(-2i/d), times the position (Su et al. 2021, equation 15)."""
    from minitransformer.kernels.positional import rotary_angles

    for base in (10000.0, 100.0):
        cos, sin = rotary_angles(np.array([0, 1, 7]), 6, base=base, dtype=np.float64)
        for row, position in enumerate((0, 1, 7)):
            for i in range(3):
                angle = position * base ** (-2 * i / 6)
                assert cos[row, i] == pytest.approx(math.cos(angle), abs=1e-12)
                assert sin[row, i] == pytest.approx(math.sin(angle), abs=1e-12)
    with pytest.raises(ValueError, match="even"):
        rotary_angles(np.arange(3), 5)


def test_rotary_leaves_the_rest_of_a_head_alone() -> None:
    x = normal(1, 2, 5, 12)
    angles = np.random.default_rng(0).uniform(-3, 3, (5, 4))
    cos, sin = np.cos(angles), np.sin(angles)
    for interleaved in (False, True):
        out, (dx, _, _) = both("rotary", x, cos, sin, interleaved=interleaved)
        assert same_bits(out[..., 8:], x[..., 8:]) and (dx[..., 8:] == 1).all()
        turned = ref.rotary(x[..., :8], cos, sin, interleaved=interleaved)
        np.testing.assert_allclose(out[..., :8], turned, rtol=1e-14)
