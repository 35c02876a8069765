"""Modules built by the same call in both libraries, from PyTorch's own initial weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitransformer as mt
from tests.kernels.cases import away_from_zero, largest, normal, seeds
from tests.parity import same
from tests.parity.same import array_of, flat, tensor_in
from tests.tolerance import assert_close

Array = np.ndarray
NEIGHBOURS = 2


def run(
    library: Any,
    build: Callable[..., Any],
    state: dict[str, Any],
    call: Any,
    arrays: Any,
    dtype: Any,
) -> tuple[list[Array], dict[str, Array | None]]:
    """Outputs of a module, and every gradient by the name of its parameter or input."""
    module = build(library.nn)
    if dtype == np.float64:
        module = module.double()
    report = module.load_state_dict(
        {
            k: v.double() if v.is_floating_point() and dtype == np.float64 else v
            for k, v in state.items()
        }
    )
    assert not report.missing_keys and not report.unexpected_keys
    module.eval()
    if library is mt:
        module.to(same.device)
    inputs = [tensor_in(library, a, dtype) for a in arrays]
    for x in inputs:
        if x.is_floating_point():
            x.requires_grad_()
    outs = flat(call(library, module, *inputs))
    rng, total = np.random.default_rng(5), None
    for out in outs:
        if out is not None and out.requires_grad:
            direction = rng.standard_normal(tuple(out.shape)).astype(np.float32)
            term = (out * tensor_in(library, np.asarray(direction), dtype)).sum()
            total = term if total is None else total + term
    total.backward()
    grads = {name: p.grad for name, p in module.named_parameters()}
    grads |= {f"input {i}": x.grad for i, x in enumerate(inputs)}
    return (
        [array_of(out) for out in outs if out is not None],
        {name: None if g is None else array_of(g) for name, g in grads.items()},
    )


def same_module(
    build: Callable[..., Any], call: Any, *arrays: Array, seed: int = 0, size: float = 0.0
) -> None:
    """Hold a module of ours against PyTorch's: keys, shapes, outputs and every gradient."""
    torch.manual_seed(seed)
    theirs = build(torch.nn)
    ours = build(mt.nn)
    state = {name: value.clone() for name, value in theirs.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    for name, value in state.items():  # biases and gains start as zeros and ones: stir them
        if value.is_floating_point() and value.dim() == 1:
            state[name] = value + 0.1 * torch.randn(value.shape, generator=generator)
    found = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    assert found == {name: tuple(value.shape) for name, value in state.items()}
    assert list(found) == list(state)

    exact, exact_grads = run(torch, build, state, call, arrays, np.float64)
    naive, naive_grads = run(torch, build, state, call, arrays, np.float32)
    others = []
    rng = np.random.default_rng(seed)
    for _ in range(NEIGHBOURS):
        moved = [
            (a * (1 + rng.uniform(-1, 1, a.shape) / 256)).astype(np.float32)
            if a.dtype.kind == "f"
            else a
            for a in arrays
        ]
        others.append([run(torch, build, state, call, moved, d) for d in (np.float64, np.float32)])
    for dtype in (np.float32, np.float64):
        outs, grads = run(mt, build, state, call, arrays, dtype)
        assert len(outs) == len(exact)
        for i, out in enumerate(outs):
            also = [(f64[0][i], f32[0][i]) for f64, f32 in others]
            assert_close(out, exact[i], naive[i], "forward", f"output {i}", also, size)
        assert set(grads) == set(exact_grads)
        for name, grad in grads.items():
            assert (grad is None) == (exact_grads[name] is None), name
            if grad is None:
                continue
            assert grad.dtype == dtype
            also = [(f64[1][name], f32[1][name]) for f64, f32 in others]
            assert_close(grad, exact_grads[name], naive_grads[name], "backward", name, also, size)


few = settings(max_examples=4)


def plain(library: Any, module: Any, *inputs: Any) -> Any:
    return module(*inputs)


@few
@pytest.mark.parametrize("bias", [True, False])
@given(d_in=st.integers(1, 7), d_out=st.integers(1, 7), seed=seeds)
def test_linear(bias: bool, d_in: int, d_out: int, seed: int, count: Counter) -> None:
    x = normal(seed, 3, 2, d_in)
    same_module(lambda nn: nn.Linear(d_in, d_out, bias=bias), plain, x, size=largest(x))
    count["parity: modules against PyTorch"] += 1


@few
@given(D=st.integers(2, 7), seed=seeds, eps=st.sampled_from([1e-5, 0.1]), affine=st.booleans())
def test_norms(D: int, seed: int, eps: float, affine: bool, count: Counter) -> None:
    x = normal(seed, 3, 4, D)
    same_module(lambda nn: nn.LayerNorm(D, eps, affine), plain, x, size=1)
    same_module(lambda nn: nn.LayerNorm((4, D), bias=affine), plain, x, size=1)
    same_module(lambda nn: nn.RMSNorm(D, eps, affine), plain, x, size=1)
    count["parity: modules against PyTorch"] += 3


@few
@given(V=st.integers(2, 9), D=st.integers(1, 5), seed=seeds, padded=st.booleans())
def test_embedding(V: int, D: int, seed: int, padded: bool, count: Counter) -> None:
    ids = np.random.default_rng(seed).integers(0, V, (3, 4))
    padding = 1 if padded else None
    same_module(lambda nn: nn.Embedding(V, D, padding_idx=padding), plain, ids)
    count["parity: modules against PyTorch"] += 1


@few
@pytest.mark.parametrize("name", ["ReLU", "GELU", "SiLU", "Tanh", "Sigmoid", "Softmax", "Identity"])
@given(seed=seeds)
def test_activations_and_containers(name: str, seed: int, count: Counter) -> None:
    def build(nn: Any) -> Any:
        activation = getattr(nn, name)(**({"dim": -1} if name == "Softmax" else {}))
        blocks = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4)])
        return nn.Sequential(nn.Linear(4, 4), activation, nn.Dropout(0.5), *blocks)

    same_module(build, plain, away_from_zero(seed, 3, 4), size=4)
    count["parity: modules against PyTorch"] += 1


def key_padding(N: int, S: int, seed: int) -> Array:
    """True where a key is padding; the first key of each sequence never is."""
    lengths = np.random.default_rng(seed).integers(1, S + 1, N)
    return np.arange(S) >= lengths[:, None]


@few
@given(data=st.data())
def test_multihead_attention(count: Counter, data: Any) -> None:
    draw = data.draw
    H, E = draw(st.sampled_from([(1, 3), (2, 4), (4, 8)]))
    L, S, N = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    batch_first, bias = draw(st.booleans()), draw(st.booleans())
    own = draw(st.booleans())
    sizes = {} if own else {"kdim": 3, "vdim": 5}
    kdim, vdim = (E, E) if own else (3, 5)
    kind = draw(st.sampled_from(["none", "bool", "float", "padding", "causal", "per head"]))
    if kind == "causal":
        S = L
    options: dict[str, Any] = {
        "need_weights": draw(st.booleans()),
        "average_attn_weights": draw(st.booleans()),
    }
    first, second = ((N, L), (N, S)) if batch_first else ((L, N), (S, N))
    arrays = [
        normal(draw(seeds), *first, E),
        normal(draw(seeds), *second, kdim),
        normal(draw(seeds), *second, vdim),
    ]
    rng = np.random.default_rng(draw(seeds))
    hidden = rng.random((N * H, L, S) if kind == "per head" else (L, S)) < 0.4
    hidden[..., 0] = False  # PyTorch gives NaN to a query that sees nothing
    mask = {
        "bool": hidden,
        "per head": hidden,
        "float": np.where(hidden, -1.5, 0.25),
        "padding": key_padding(N, S, draw(seeds)),
        "causal": np.triu(np.ones((L, S), bool), 1),
    }.get(kind)

    def call(library: Any, module: Any, q: Any, k: Any, v: Any) -> Any:
        settings = dict(options)
        if mask is not None:
            given = tensor_in(library, mask, np.float64 if "64" in str(q.dtype) else np.float32)
            settings["key_padding_mask" if kind == "padding" else "attn_mask"] = given
        if kind == "causal" and not options["need_weights"]:
            settings["is_causal"] = True
        return module(q, k, v, **settings)

    same_module(
        lambda nn: nn.MultiheadAttention(E, H, bias=bias, batch_first=batch_first, **sizes),
        call,
        *arrays,
        seed=draw(seeds) % 1000,
        size=max(map(largest, arrays)),
    )
    count["parity: modules against PyTorch"] += 1


@few
@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, on its nested tensors
@pytest.mark.parametrize("layer", ["encoder", "decoder"])
@given(data=st.data())
def test_transformer_layers(layer: str, count: Counter, data: Any) -> None:
    draw = data.draw
    N, T, S = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    options = {
        "norm_first": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "activation": draw(st.sampled_from(["relu", "gelu"])),
        "bias": draw(st.booleans()),
        "dropout": 0.1,  # evaluation leaves it out
    }
    masked, padded = draw(st.booleans()), draw(st.booleans())
    tgt = normal(draw(seeds), *((N, T) if options["batch_first"] else (T, N)), 8)
    memory = normal(draw(seeds), *((N, S) if options["batch_first"] else (S, N)), 8)
    hidden = np.triu(np.ones((T, T), bool), 1) if masked else None
    padding = key_padding(N, T, draw(seeds)) if padded else None

    def build(nn: Any) -> Any:
        if layer == "encoder":
            one = nn.TransformerEncoderLayer(8, 2, 12, **options)
            return nn.TransformerEncoder(
                one,
                2,
                norm=nn.LayerNorm(8),
                **({} if nn is mt.nn else {"enable_nested_tensor": False}),
            )
        return nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12, **options), 2)

    def call(library: Any, module: Any, x: Any, memory: Any = None) -> Any:
        given = [None if m is None else tensor_in(library, m, None) for m in (hidden, padding)]
        if layer == "encoder":
            return module(x, mask=given[0], src_key_padding_mask=given[1])
        return module(x, memory, tgt_mask=given[0], tgt_key_padding_mask=given[1])

    arrays = [tgt] if layer == "encoder" else [tgt, memory]
    same_module(build, call, *arrays, seed=draw(seeds) % 1000, size=4)
    count["parity: modules against PyTorch"] += 1


@few
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(data=st.data())
def test_transformer(count: Counter, data: Any) -> None:
    draw = data.draw
    N, T, S = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    options = {
        "norm_first": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "activation": draw(st.sampled_from(["relu", "gelu"])),
        "dim_feedforward": 12,
    }
    batched = draw(st.booleans())
    if not batched:
        shapes = [(S, 8), (T, 8)]
    elif options["batch_first"]:
        shapes = [(N, S, 8), (N, T, 8)]
    else:
        shapes = [(S, N, 8), (T, N, 8)]
    arrays = [normal(draw(seeds), *shape) for shape in shapes]

    def call(library: Any, module: Any, src: Any, tgt: Any) -> Any:
        causal = library.nn.Transformer.generate_square_subsequent_mask(T)
        causal = causal.to(tgt.dtype).to(tgt.device)
        return module(src, tgt, tgt_mask=causal)

    same_module(
        lambda nn: nn.Transformer(8, 2, 1, 2, **options),
        call,
        *arrays,
        seed=draw(seeds) % 1000,
        size=4,
    )
    count["parity: modules against PyTorch"] += 1


@few
@given(C=st.integers(2, 6), smoothing=st.sampled_from([0.0, 0.1]), seed=seeds)
def test_losses(C: int, smoothing: float, seed: int, count: Counter) -> None:
    x = normal(seed, 5, C)
    target = np.random.default_rng(seed).integers(0, C, 5)

    def build(nn: Any) -> Any:
        return nn.Sequential(nn.Linear(C, C))

    def call(library: Any, module: Any, x: Any, target: Any) -> Any:
        out = module(x)
        return (
            library.nn.CrossEntropyLoss(label_smoothing=smoothing)(out, target),
            library.nn.MSELoss()(out, x),
            library.nn.NLLLoss()(out.log_softmax(-1), target),
        )

    same_module(build, call, x, target, size=largest(x))
    count["parity: modules against PyTorch"] += 1
