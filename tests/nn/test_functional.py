"""Functions that no module test covers, and their error messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import minitransformer as mt
from minitransformer.nn import functional as F
from tests.nn.compare import random_arrays, to_ours, to_torch
from tests.tolerance import assert_close


def assert_same_function(ours: Any, theirs: Any, args: list[Any], **options: Any) -> None:
    """Compare a function's output and the gradients of its floating arguments with PyTorch's."""

    def pytorch(dtype: torch.dtype) -> list[np.ndarray]:
        tensors = [to_torch(a, dtype, True) for a in args]
        output = theirs(*tensors, **{k: to_torch(v, dtype) for k, v in options.items()})
        (output * torch.tensor(upstream(tuple(output.shape)), dtype=dtype)).sum().backward()
        return [output.detach().numpy(), *(t.grad.numpy() for t in tensors if has_grad(t))]

    def upstream(shape: tuple[int, ...]) -> np.ndarray:
        return random_arrays(shape, seed=7)[0]

    def has_grad(value: Any) -> bool:
        return getattr(value, "grad", None) is not None

    tensors = [to_ours(a, True) for a in args]
    output = ours(*tensors, **{k: to_ours(v) for k, v in options.items()})
    (output * mt.tensor(upstream(tuple(output.shape)))).sum().backward()
    found = [output.detach().numpy(), *(t.grad.numpy() for t in tensors if has_grad(t))]
    exact, naive = pytorch(torch.float64), pytorch(torch.float32)
    assert len(found) == len(exact)
    for i, (value, truth, other) in enumerate(zip(found, exact, naive)):
        kind = "backward" if i else "forward"
        size = float(np.abs(exact[0]).max(initial=0.0)) if i else 0.0
        assert_close(value, truth, other, kind, f"result {i}", size=size)


X, Y = random_arrays((4, 5), (4, 5), seed=3)
CLASSES = np.array([0, 4, 2, 1])
IMAGE, IMAGE_CLASSES = random_arrays((2, 5, 3, 2))[0], np.arange(12).reshape(2, 3, 2) % 5
PROBABILITIES = (lambda e: e / e.sum(1, keepdims=True))(np.exp(Y)).astype(np.float32)
WEIGHT = np.array([0.5, 1.0, 2.0, 0.0, 1.5], np.float32)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight": WEIGHT},
        {"ignore_index": 2},
        {"ignore_index": 2, "weight": WEIGHT},
    ],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy(options, smoothing, reduction) -> None:
    options = {**options, "reduction": reduction, "label_smoothing": smoothing}
    for logits, target in ((X, CLASSES), (IMAGE, IMAGE_CLASSES), (X[0], CLASSES[0:1].reshape(()))):
        assert_same_function(F.cross_entropy, TF.cross_entropy, [logits, target], **options)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_of_probabilities(reduction) -> None:
    for options in ({}, {"weight": WEIGHT}, {"label_smoothing": 0.2}):
        assert_same_function(
            F.cross_entropy, TF.cross_entropy, [X, PROBABILITIES], reduction=reduction, **options
        )
    image = np.moveaxis(np.stack([[PROBABILITIES[:3]] * 2] * 2), -1, 1)[..., 0, :].astype(
        np.float32
    )
    logits = random_arrays(image.shape)[0]
    assert_same_function(F.cross_entropy, TF.cross_entropy, [logits, image], reduction=reduction)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT}, {"ignore_index": 2}])
def test_nll_loss(options, reduction) -> None:
    for logs, target in ((X, CLASSES), (IMAGE, IMAGE_CLASSES), (X[0], CLASSES[0:1].reshape(()))):
        assert_same_function(
            F.nll_loss, TF.nll_loss, [logs, target], reduction=reduction, **options
        )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_and_binary_losses(reduction) -> None:
    assert_same_function(F.mse_loss, TF.mse_loss, [X, Y], reduction=reduction)
    assert_same_function(F.mse_loss, TF.mse_loss, [X, Y], reduction=reduction, weight=np.abs(Y))
    binary = (
        F.binary_cross_entropy_with_logits,
        TF.binary_cross_entropy_with_logits,
    )
    x = np.concatenate([X, [[0.0, 100.0, -100.0, 30.0, -30.0]]]).astype(np.float32)
    targets = np.concatenate([Y > 0, [[True, False, True, True, False]]]).astype(np.float32)
    assert_same_function(*binary, [x, targets], reduction=reduction)
    assert_same_function(*binary, [x, targets], reduction=reduction, weight=WEIGHT)
    assert_same_function(*binary, [x, targets], reduction=reduction, pos_weight=WEIGHT + 1)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_normalize(p) -> None:
    for dim in (0, 1, -1):
        assert_same_function(F.normalize, TF.normalize, [X], p=p, dim=dim)


def test_normalize_of_zero_is_zero_with_a_finite_gradient() -> None:
    x = mt.zeros(2, 3, requires_grad=True)
    out = F.normalize(x)
    assert (out == 0).all()
    out.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("widths", [(1, 2), (0, 0, 2, 1), (-1, 2, 1, -2), (-1, -1)])
def test_pad(widths) -> None:
    assert_same_function(F.pad, TF.pad, [X], pad=widths)
    assert_same_function(F.pad, TF.pad, [X], pad=widths, value=3.5)


def test_embedding_counts_a_negative_padding_index_from_the_end() -> None:
    assert_same_function(
        lambda w: F.embedding(mt.tensor([0, 3, 3]), w, padding_idx=-2),
        lambda w: TF.embedding(torch.tensor([0, 3, 3]), w, padding_idx=-2),
        [X[:, :2].repeat(2, 0)[:5]],
    )


def test_what_an_ignored_row_holds_does_not_matter() -> None:
    logs = X.copy()
    logs[2, 2] = -np.inf
    target = np.where(np.arange(4) == 2, -100, CLASSES)
    for reduction in ("mean", "sum", "none"):
        found = F.nll_loss(mt.tensor(logs), mt.tensor(target), reduction=reduction).numpy()
        expected = F.nll_loss(mt.tensor(X), mt.tensor(target), reduction=reduction).numpy()
        np.testing.assert_array_equal(found, expected)
    logs[2, 0] = -np.inf  # the class whose number stands in for the ignored one
    assert np.isfinite(F.nll_loss(mt.tensor(logs), mt.tensor(target)).item())


def test_one_hot() -> None:
    ids = np.array([[0, 3], [1, 1]])
    for classes in (-1, 4, 6):
        ours, theirs = F.one_hot(mt.tensor(ids), classes), TF.one_hot(torch.tensor(ids), classes)
        assert ours.dtype == mt.int64
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_softmax_casts_first() -> None:
    x = mt.tensor([1.0, 2.0])
    assert F.softmax(x, 0, dtype=mt.float64).dtype == mt.float64
    assert F.log_softmax(x, 0, dtype=mt.float64).dtype == mt.float64


def test_feed_forward_is_its_three_steps() -> None:
    x, w1, b1, w2, b2 = (
        mt.tensor(a, requires_grad=True)
        for a in random_arrays((2, 3, 4), (6, 4), (6,), (5, 6), (5,))
    )
    for name, function in (
        ("relu", F.relu),
        ("gelu", F.gelu),
        ("gelu_tanh", lambda x: F.gelu(x, "tanh")),
        ("silu", F.silu),
    ):
        fused = F.feed_forward(x, w1, b1, w2, b2, activation=name)
        plain = F.linear(function(F.linear(x, w1, b1)), w2, b2)
        np.testing.assert_allclose(fused.detach().numpy(), plain.detach().numpy(), atol=1e-5)
        gated = F.gated_feed_forward(x, w1, w1 * 2, w2, activation=name)
        plain = F.linear(function(F.linear(x, w1)) * F.linear(x, w1 * 2), w2)
        np.testing.assert_allclose(gated.detach().numpy(), plain.detach().numpy(), atol=1e-4)


def test_feed_forward_dropout_is_the_module_formula() -> None:
    x, w1, b1, w2, b2 = (mt.tensor(a) for a in random_arrays((2, 3, 4), (6, 4), (6,), (5, 6), (5,)))
    mt.manual_seed(3)
    fused = F.feed_forward(x, w1, b1, w2, b2, "gelu", dropout_p=0.4)
    mt.manual_seed(3)
    plain = F.linear(F.dropout(F.gelu(F.linear(x, w1, b1)), 0.4), w2, b2)
    np.testing.assert_allclose(fused.numpy(), plain.numpy(), atol=1e-5)


def test_rotary_turns_pairs() -> None:
    (x,) = random_arrays((1, 2, 3, 4))
    angles = np.arange(3)[:, None] * np.array([1.0, 0.1])
    cos, sin = (f(angles).astype(np.float32) for f in (np.cos, np.sin))
    halves = F.rotary(mt.tensor(x), mt.tensor(cos), mt.tensor(sin)).numpy()
    z = (x[..., :2] + 1j * x[..., 2:]) * (cos + 1j * sin)
    np.testing.assert_allclose(halves, np.concatenate([z.real, z.imag], -1), atol=1e-6)
    pairs = F.rotary(mt.tensor(x), mt.tensor(cos), mt.tensor(sin), interleaved=True).numpy()
    z = (x[..., ::2] + 1j * x[..., 1::2]) * (cos + 1j * sin)
    np.testing.assert_allclose(pairs, np.stack([z.real, z.imag], -1).reshape(x.shape), atol=1e-6)


ONE = mt.ones(2, 3)
Q = mt.ones(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (IndexError, "target 5", lambda: F.cross_entropy(ONE, mt.tensor([0, 5]))),
        (IndexError, "target -1", lambda: F.cross_entropy(ONE, mt.tensor([0, -1]))),
        (ValueError, "must have shape", lambda: F.cross_entropy(ONE, mt.tensor([0]))),
        (ValueError, "must have shape", lambda: F.cross_entropy(ONE, mt.ones(2))),
        (ValueError, "valid value", lambda: F.cross_entropy(ONE, mt.tensor([0, 1]), reduction="m")),
        (
            ValueError,
            "label_smoothing",
            lambda: F.cross_entropy(ONE, mt.tensor([0, 1]), label_smoothing=2.0),
        ),
        (
            RuntimeError,
            "all 3 classes",
            lambda: F.cross_entropy(ONE, mt.tensor([0, 1]), weight=mt.ones(2)),
        ),
        (TypeError, "replaced", lambda: F.cross_entropy(ONE, mt.tensor([0, 1]), reduce=True)),
        (IndexError, "target 7", lambda: F.nll_loss(ONE, mt.tensor([0, 7]))),
        (RuntimeError, "integers", lambda: F.nll_loss(ONE, mt.ones(2))),
        (
            ValueError,
            "must be the same",
            lambda: F.binary_cross_entropy_with_logits(ONE, mt.ones(3)),
        ),
        (RuntimeError, "non-negative, found -1", lambda: F.one_hot(mt.tensor([-1]))),
        (RuntimeError, "num_classes=2, found 2", lambda: F.one_hot(mt.tensor([2]), 2)),
        (RuntimeError, "pairs", lambda: F.pad(ONE, (1,))),
        (RuntimeError, "cuts more", lambda: F.pad(ONE, (-2, -2))),
        (NotImplementedError, "reflect", lambda: F.pad(ONE, (1, 1), mode="reflect")),
        (NotImplementedError, "max_norm", lambda: F.embedding(mt.tensor(0), ONE, max_norm=1.0)),
        (ValueError, "padding_idx", lambda: F.embedding(mt.tensor(0), ONE, padding_idx=2)),
        (ValueError, "probability", lambda: F.dropout(ONE, -0.1)),
        (ValueError, "activation", lambda: F.feed_forward(ONE, ONE, None, ONE, None, "elu")),
        (RuntimeError, "weight2", lambda: F.feed_forward(ONE, ONE, None, ONE, None)),
        (RuntimeError, "do not fit", lambda: F.gated_feed_forward(ONE, ONE, mt.ones(1, 3), ONE)),
        (RuntimeError, "last dimension", lambda: F.scaled_dot_product_attention(Q, ONE, ONE)),
        (
            RuntimeError,
            "should not be set",
            lambda: F.scaled_dot_product_attention(Q, Q, Q, mt.ones(3, 3), is_causal=True),
        ),
        (
            RuntimeError,
            "does not broadcast",
            lambda: F.scaled_dot_product_attention(Q, Q, Q, mt.ones(2, 3)),
        ),
        (
            RuntimeError,
            "bool or float",
            lambda: F.scaled_dot_product_attention(Q, Q, Q, mt.ones(3, 3).long()),
        ),
        (
            RuntimeError,
            "bool or float",
            lambda: F.scaled_dot_product_attention(Q, Q, Q, mt.ones(3, 3).double()),
        ),
        (
            RuntimeError,
            "enable_gqa=True",
            lambda: F.scaled_dot_product_attention(mt.ones(1, 4, 3, 4), Q, Q),
        ),
        (
            RuntimeError,
            "multiple",
            lambda: F.scaled_dot_product_attention(mt.ones(1, 3, 3, 4), Q, Q, enable_gqa=True),
        ),
    ],
)
def test_bad_input_is_named(error, text, call) -> None:
    with pytest.raises(error, match=text):
        call()


def test_mse_warns_of_broadcasting() -> None:
    with pytest.warns(UserWarning, match="broadcasting"):
        F.mse_loss(mt.ones(3, 1), mt.ones(3))


SHAPES = {
    "one length": ((2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4)),
    "two lengths": ((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)),
    "no heads": ((2, 5, 4), (2, 7, 4), (2, 7, 4)),
    "no batch": ((5, 4), (7, 4), (7, 3)),
    "broadcast batch": ((2, 3, 5, 4), (1, 3, 7, 4), (3, 7, 4)),
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
def test_attention_is_pytorchs(shapes) -> None:
    arrays = random_arrays(*shapes)
    L, S = shapes[0][-2], shapes[1][-2]
    allowed = np.tril(np.ones((L, S), bool), 1)
    for options in (
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": allowed},
        {"attn_mask": random_arrays((L, S))[0]},
    ):
        assert_same_function(
            F.scaled_dot_product_attention, TF.scaled_dot_product_attention, arrays, **options
        )


def test_grouped_queries_are_pytorchs() -> None:
    arrays = random_arrays((2, 6, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4))
    assert_same_function(
        F.scaled_dot_product_attention,
        TF.scaled_dot_product_attention,
        arrays,
        enable_gqa=True,
        is_causal=True,
    )


def test_the_mask_says_who_may_attend() -> None:
    values = mt.tensor([[1.0], [2.0]])
    mask = mt.tensor([[True, False], [False, False]])
    out = F.scaled_dot_product_attention(mt.ones(2, 1), mt.ones(2, 1), values, mask)
    assert out.tolist() == [[1.0], [0.0]]


def test_divergence_and_small_functions() -> None:
    logs = np.log(PROBABILITIES[::-1]).astype(np.float32)
    sparse = np.where(PROBABILITIES > 0.2, PROBABILITIES, 0).astype(np.float32)
    for reduction in ("batchmean", "sum", "none"):
        for target in (PROBABILITIES, sparse):
            ours, theirs = (
                f(g(logs), g(target), reduction=reduction).numpy()
                for f, g in ((F.kl_div, mt.tensor), (TF.kl_div, torch.tensor))
            )
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        assert_same_function(
            F.kl_div, TF.kl_div, [logs, logs[::-1].copy()], reduction=reduction, log_target=True
        )
    with pytest.warns(UserWarning, match="batchmean"):
        F.kl_div(mt.tensor(logs), mt.tensor(PROBABILITIES))
    extreme = np.array([[0.0, 100.0, -100.0, 20.0, -20.0]], np.float32)
    assert_same_function(F.logsigmoid, TF.logsigmoid, [np.concatenate([X, extreme])])
    assert_same_function(F.cosine_similarity, TF.cosine_similarity, [X, Y])


def causal(allowed: bool) -> mt.Tensor:
    lower = mt.ones(4, 4).tril().bool()
    return lower if allowed else ~lower


@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 4, 4)])
def test_a_causal_mask_of_the_wrong_sense_is_refused(shape) -> None:
    q = mt.ones(1, 2, 4, 4)
    for wrong, text in (
        (causal(allowed=False), "opposite sense: here True means may attend"),
        (causal(allowed=True).float(), "numbers 0 and 1"),
        (causal(allowed=False).float(), "numbers 0 and 1"),
    ):
        with pytest.raises(RuntimeError, match=text):
            F.scaled_dot_product_attention(q, q, q, wrong.view(*shape))
    attention = mt.nn.MultiheadAttention(4, 2, batch_first=True)
    x = mt.ones(1, 4, 4)
    with pytest.raises(RuntimeError, match="opposite sense: here True means may NOT attend"):
        attention(x, x, x, attn_mask=causal(allowed=True))
    with pytest.raises(RuntimeError, match="numbers 0 and 1"):
        attention(x, x, x, attn_mask=causal(allowed=True).float())
    # One position, all zeros, or any other pattern is nobody's mistake.
    attention(x, x, x, attn_mask=mt.zeros(4, 4))
    attention(x, x, x, attn_mask=causal(allowed=True) & ~mt.eye(4).bool())
    attention(x[:, :1], x[:, :1], x[:, :1], attn_mask=mt.ones(1, 1).bool())


def test_a_learned_bias_gets_its_gradient() -> None:
    q, k, v, bias = (
        mt.tensor(a, requires_grad=True)
        for a in random_arrays((2, 3, 4), (2, 3, 4), (2, 3, 4), (3, 3))
    )
    F.scaled_dot_product_attention(q, k, v, bias).sum().backward()
    assert bias.grad is not None and (bias.grad != 0).any()
