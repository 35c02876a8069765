"""Every function of `nn.functional`, under both libraries, on drawn shapes, masks and options."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minitransformer as mt
from tests.kernels.cases import (
    LAYOUTS,
    apart,
    away_from_zero,
    exactly,
    largest,
    mixed_signs,
    normal,
    seeds,
)
from tests.parity.same import same

Draw = Any
few = settings(max_examples=10)


def f(library: Any) -> Any:
    return library.nn.functional


def layouts(draw: Draw, number: int) -> tuple[str, ...]:
    return draw(st.tuples(*[st.sampled_from(LAYOUTS[:4])] * number))


@few
@pytest.mark.parametrize("name", ["relu", "gelu", "gelu tanh", "silu", "sigmoid", "tanh"])
@given(st.data())
def test_activations(name: str, count: Counter, data: Draw) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    x = mixed_signs(data.draw(seeds), *shape)
    name, *options = name.split()

    def program(library: Any, x: Any) -> Any:
        settings = {"approximate": options[0]} if options else {}
        return getattr(f(library), name)(x, **settings)

    count["parity: functional against PyTorch"] += 1
    same(program, x, layouts=layouts(data.draw, 1), size=largest(x))


@few
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(st.data())
def test_softmax(name: str, count: Counter, data: Draw) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = exactly(normal(data.draw(seeds), *shape) * data.draw(st.sampled_from([1, 20])))
    count["parity: functional against PyTorch"] += 1
    same(lambda t, x: getattr(f(t), name)(x, dim=dim), x, layouts=layouts(data.draw, 1))


@few
@given(st.data())
def test_linear(count: Counter, data: Draw) -> None:
    batch = data.draw(st.lists(st.integers(1, 4), max_size=3))
    d_in, d_out = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    arrays = [normal(data.draw(seeds), *batch, d_in), normal(data.draw(seeds), d_out, d_in)]
    if data.draw(st.booleans()):
        arrays.append(normal(data.draw(seeds), d_out))
    count["parity: functional against PyTorch"] += 1
    same(lambda t, *a: f(t).linear(*a), *arrays, layouts=layouts(data.draw, 3))


@few
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@given(st.data())
def test_norms(name: str, count: Counter, data: Draw) -> None:
    batch = data.draw(st.lists(st.integers(1, 4), max_size=2))
    over = data.draw(st.lists(st.integers(2, 6), min_size=1, max_size=2))
    arrays = [normal(data.draw(seeds), *batch, *over)]
    affine = data.draw(st.booleans())
    if affine:
        arrays.append(normal(data.draw(seeds), *over))
        if name == "layer_norm":
            arrays.append(normal(data.draw(seeds), *over))
    eps = data.draw(st.sampled_from([1e-5, 0.1]))

    def program(library: Any, x: Any, *parameters: Any) -> Any:
        parameters = parameters or ((None, None) if name == "layer_norm" else (None,))
        return getattr(f(library), name)(x, over, *parameters, eps)

    count["parity: functional against PyTorch"] += 1
    same(program, *arrays, layouts=layouts(data.draw, len(arrays)))


@few
@given(st.data())
def test_attention(count: Counter, data: Draw) -> None:
    draw = data.draw
    B, G, R = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 3]))
    L, S, E, Ev = (draw(st.integers(2, 7)) for _ in range(4))
    arrays = [
        normal(draw(seeds), B, G * R, L, E),
        normal(draw(seeds), B, G, S, E),
        normal(draw(seeds), B, G, S, Ev),
    ]
    kind = draw(st.sampled_from(["none", "causal", "bool", "float"]))
    options: dict[str, Any] = {"scale": draw(st.sampled_from([None, 0.3]))}
    if R > 1:
        options["enable_gqa"] = True
    if kind == "causal":
        options["is_causal"] = True
    elif kind != "none":
        shape = draw(st.sampled_from([(L, S), (1, S), (B, 1, L, S), (B, G * R, 1, S)]))
        rng = np.random.default_rng(draw(seeds))
        look = rng.random(shape) < 0.7
        look[..., 0] = True  # PyTorch's gradient at rows that see nothing is its own affair
        arrays.append(look if kind == "bool" else exactly(rng.standard_normal(shape)))
    count["parity: functional against PyTorch"] += 1
    same(
        lambda t, *a: f(t).scaled_dot_product_attention(*a, **options),
        *arrays,
        layouts=layouts(draw, len(arrays)),
        size=largest(arrays[2]),
    )


@few
@given(st.data())
def test_embedding(count: Counter, data: Draw) -> None:
    V, D = data.draw(st.integers(2, 9)), data.draw(st.integers(1, 6))
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=2))
    ids = np.random.default_rng(data.draw(seeds)).integers(0, V, shape)
    padding_idx = data.draw(st.one_of(st.none(), st.integers(-V, V - 1)))
    count["parity: functional against PyTorch"] += 1
    same(
        lambda t, ids, weight: f(t).embedding(ids, weight, padding_idx=padding_idx),
        ids,
        normal(data.draw(seeds), V, D),
    )


@few
@pytest.mark.parametrize("form", ["classes", "probabilities", "one example", "images"])
@given(st.data())
def test_cross_entropy(form: str, count: Counter, data: Draw) -> None:
    draw = data.draw
    N, C = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(seeds))
    options: dict[str, Any] = {
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
    }
    if form == "one example":
        logits, target = normal(draw(seeds), C), np.asarray(rng.integers(0, C))
    elif form == "images":
        logits, target = normal(draw(seeds), N, C, 3, 2), rng.integers(0, C, (N, 3, 2))
    elif form == "classes":
        logits, target = normal(draw(seeds), N, C), rng.integers(0, C, N)
    else:
        logits, target = normal(draw(seeds), N, C), exactly(rng.dirichlet(np.ones(C), N))
    arrays = [logits, target]
    if draw(st.booleans()):
        arrays.append(exactly(rng.uniform(0.5, 2, C)))
    if form != "probabilities":
        options["ignore_index"] = draw(st.sampled_from([-100, 0]))
        assume((target != options["ignore_index"]).any())

    def program(library: Any, logits: Any, target: Any, weight: Any = None) -> Any:
        weight = None if weight is None else weight.detach()
        return f(library).cross_entropy(logits, target, weight, **options)

    count["parity: functional against PyTorch"] += 1
    same(program, *arrays, size=largest(logits))


@few
@given(st.data())
def test_other_losses(count: Counter, data: Draw) -> None:
    N, C = data.draw(st.integers(2, 5)), data.draw(st.integers(2, 6))
    reduction = data.draw(st.sampled_from(["mean", "sum", "none"]))
    x, y = normal(data.draw(seeds), N, C), normal(data.draw(seeds), N, C)
    target = np.random.default_rng(data.draw(seeds)).integers(0, C, N)
    count["parity: functional against PyTorch"] += 1
    same(lambda t, x, y: f(t).mse_loss(x, y, reduction=reduction), x, y)
    same(lambda t, x, n: f(t).nll_loss(x, n, reduction=reduction), x, target)
    same(
        lambda t, x, y: f(t).binary_cross_entropy_with_logits(
            x, (y > 0).to(x.dtype), reduction=reduction
        ),
        x,
        y,
    )


@few
@given(st.data())
def test_the_rest(count: Counter, data: Draw) -> None:
    a, b = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 5))
    x = away_from_zero(data.draw(seeds), a, b)
    ids = np.random.default_rng(data.draw(seeds)).integers(0, 4, (a, b))
    widths = tuple(data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4)))
    count["parity: functional against PyTorch"] += 1
    same(lambda t, x: f(t).normalize(x, dim=-1), x)
    same(lambda t, x: f(t).pad(x, widths, value=0.5), x)
    same(lambda t, ids: f(t).one_hot(ids, num_classes=4), ids)


def test_rms_norm_takes_the_epsilon_of_the_dtype() -> None:
    import torch

    x = 1e-4 * normal(3, 4, 8).astype(np.float32)
    ours = f(mt).rms_norm(mt.from_numpy(x), (8,)).numpy()
    theirs = f(torch).rms_norm(torch.from_numpy(x), (8,)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert np.abs(ours).max() < 0.99 * np.abs(x).max() / np.sqrt((x**2).mean())


@few
@given(st.data())
def test_multi_head_attention_forward(count: Counter, data: Draw) -> None:
    draw = data.draw
    H, E = draw(st.sampled_from([(1, 3), (2, 4), (3, 6)]))
    L, S, N = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    arrays = [
        normal(draw(seeds), L, N, E),
        normal(draw(seeds), S, N, E),
        normal(draw(seeds), S, N, E),
        normal(draw(seeds), 3 * E, E),
        normal(draw(seeds), 3 * E),
        normal(draw(seeds), E, E),
        normal(draw(seeds), E),
    ]
    need_weights, average = draw(st.booleans()), draw(st.booleans())

    def program(library: Any, q: Any, k: Any, v: Any, w_in: Any, b_in: Any, w: Any, b: Any) -> Any:
        out, weights = f(library).multi_head_attention_forward(
            q, k, v, E, H, w_in, b_in, None, None, False, 0.0, w, b,
            training=False, need_weights=need_weights, average_attn_weights=average,
        )  # fmt: skip
        return (out, weights) if need_weights else out

    count["parity: functional against PyTorch"] += 1
    same(program, *arrays, size=max(map(largest, arrays)) ** 2)


def test_extremes_of_the_values() -> None:
    same(lambda t, x: f(t).softmax(x, -1), apart(3, 2, 40) * 64)
    same(lambda t, x: f(t).log_softmax(x, -1), apart(3, 2, 40) * 64)
