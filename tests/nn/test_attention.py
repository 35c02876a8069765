"""MultiheadAttention against PyTorch's: every option, both layouts, all masks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer import nn
from minitransformer.nn import functional as F
from tests.nn.compare import assert_same_module, random_arrays

B, L, S, D, H = 2, 5, 7, 8, 2

OPTIONS = {
    "default": {},
    "no bias": {"bias": False},
    "extra key": {"add_bias_kv": True},
    "zero key": {"add_zero_attn": True},
    "both": {"add_bias_kv": True, "add_zero_attn": True},
    "other sizes": {"kdim": 3, "vdim": 6},
    "other sizes, no bias": {"kdim": 3, "bias": False},
}
padding = np.zeros((B, S), bool)
padding[1, 4:] = True
forbidden = np.triu(np.ones((L, S), bool), 2)
MASKS = {
    "none": {},
    "padding": {"key_padding_mask": padding},
    "boolean": {"attn_mask": forbidden},
    "additive": {"attn_mask": random_arrays((L, S))[0]},
    "per head": {"attn_mask": random_arrays((B * H, L, S))[0]},
    "per head boolean": {"attn_mask": np.repeat(forbidden[None], B * H, 0)},
    "both boolean": {"attn_mask": forbidden, "key_padding_mask": padding},
    "both additive": {
        "attn_mask": random_arrays((L, S))[0],
        "key_padding_mask": random_arrays((B, S))[0],
    },
}


def inputs(batch_first: bool, options: dict) -> list[np.ndarray]:
    kdim, vdim = options.get("kdim", D), options.get("vdim", D)
    arrays = random_arrays((B, L, D), (B, S, kdim), (B, S, vdim))
    return arrays if batch_first else [np.ascontiguousarray(a.swapaxes(0, 1)) for a in arrays]


def pair(**options) -> tuple:
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(D, H, **options)
    with torch.no_grad():  # biases start at zero, which would hide a mistake
        for parameter in theirs.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    return nn.MultiheadAttention(D, H, **options), theirs


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_options(options, batch_first, need_weights) -> None:
    ours, theirs = pair(batch_first=batch_first, **options)
    for masks in ({}, MASKS["both boolean"]):
        assert_same_module(
            ours, theirs, inputs(batch_first, options), {"need_weights": need_weights, **masks}
        )


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS.keys())
def test_masks(masks, need_weights) -> None:
    ours, theirs = pair(batch_first=True)
    assert_same_module(ours, theirs, inputs(True, {}), {"need_weights": need_weights, **masks})


@pytest.mark.parametrize("need_weights", [True, False])
def test_unbatched(need_weights) -> None:
    ours, theirs = pair()
    args = random_arrays((L, D), (S, D), (S, D))
    for masks in ({}, {"key_padding_mask": padding[1]}, {"attn_mask": random_arrays((H, L, S))[0]}):
        assert_same_module(ours, theirs, args, {"need_weights": need_weights, **masks})


def test_weights_per_head() -> None:
    ours, theirs = pair(batch_first=True)
    assert_same_module(ours, theirs, inputs(True, {}), {"average_attn_weights": False})


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_self_attention_uses_one_projection(batch_first, need_weights) -> None:
    ours, theirs = pair(batch_first=batch_first)
    x = random_arrays((B, L, D))[0]
    for key_is in ("query", "memory"):

        class OurSelf(nn.Module):
            def __init__(self, attention) -> None:
                super().__init__()
                self.attention = attention

            def forward(self, x, memory):
                key = x if key_is == "query" else memory  # noqa: B023
                return self.attention(x, key, key, need_weights=need_weights)

        class TheirSelf(torch.nn.Module):
            def __init__(self, attention) -> None:
                super().__init__()
                self.attention = attention

            forward = OurSelf.forward

        memory = random_arrays((B, S, D) if batch_first else (L + 2, L, D), seed=5)[0]
        assert_same_module(OurSelf(ours), TheirSelf(theirs), [x, memory])


def test_causal_hint_gives_the_mask_s_numbers() -> None:
    ours, _ = pair(batch_first=True)
    x = mt.tensor(random_arrays((B, L, D))[0])
    mask = nn.Transformer.generate_square_subsequent_mask(L)
    expected = ours(x, x, x, attn_mask=mask, need_weights=False)[0].detach().numpy()
    hinted = ours(x, x, x, attn_mask=mask, need_weights=False, is_causal=True)[0]
    np.testing.assert_allclose(hinted.detach().numpy(), expected, atol=1e-6)
    padded = mt.zeros(B, L).bool()
    both = ours(x, x, x, padded, False, mask, is_causal=True)[0]
    np.testing.assert_allclose(both.detach().numpy(), expected, atol=1e-6)


def test_causal_hint_does_not_hide_the_extra_keys() -> None:
    ours, _ = pair(batch_first=True, add_bias_kv=True)
    x = mt.tensor(random_arrays((B, L, D))[0])
    mask = nn.Transformer.generate_square_subsequent_mask(L)
    expected = ours(x, x, x, attn_mask=mask, need_weights=False)[0]
    hinted = ours(x, x, x, attn_mask=mask, need_weights=False, is_causal=True)[0]
    np.testing.assert_array_equal(hinted.detach().numpy(), expected.detach().numpy())


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("additive", [True, False])
def test_a_row_that_may_attend_to_nothing_is_zero(need_weights, additive) -> None:
    ours = nn.MultiheadAttention(D, H, batch_first=True, bias=False)
    x = mt.tensor(random_arrays((B, L, D))[0], requires_grad=True)
    mask = np.zeros((L, L), bool)
    mask[2] = True
    given = np.where(mask, -np.inf, 0.0).astype(np.float32) if additive else mask
    out, weights = ours(x, x, x, attn_mask=mt.tensor(given), need_weights=need_weights)
    assert (out[:, 2] == 0).all() and (out[:, 1] != 0).any()
    if need_weights:
        assert (weights[:, 2] == 0).all()
        np.testing.assert_allclose(weights[:, 1].sum(-1).detach().numpy(), 1.0, rtol=1e-5)
    out.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    assert np.isfinite(ours.in_proj_weight.grad.numpy()).all()


@pytest.mark.parametrize("need_weights", [True, False])
def test_what_padding_holds_does_not_matter(need_weights) -> None:
    ours = nn.MultiheadAttention(D, H, batch_first=True)
    q, k = random_arrays((B, L, D), (B, S, D))

    def run() -> np.ndarray:
        memory = mt.tensor(k)
        masked = mt.tensor(padding)
        return ours(mt.tensor(q), memory, memory, masked, need_weights)[0].detach().numpy()

    before = run()
    for other in (1e3, np.nan, np.inf):
        k[padding] = other
        np.testing.assert_allclose(run(), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("need_weights", [True, False])
def test_dropout_acts_in_training_alone(need_weights) -> None:
    ours = nn.MultiheadAttention(D, H, dropout=0.5, batch_first=True)
    x = mt.tensor(random_arrays((B, L, D))[0])

    def run() -> np.ndarray:
        return ours(x, x, x, need_weights=need_weights)[0].detach().numpy()

    assert (run() != run()).any()
    ours.eval()
    np.testing.assert_array_equal(run(), run())
    mt.manual_seed(1)
    ours.train()
    once = run()
    mt.manual_seed(1)
    np.testing.assert_array_equal(run(), once)


def test_weights_have_a_gradient_too() -> None:
    ours, theirs = pair(batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    values = random_arrays((B, L, D))[0]
    gradients = []
    for module, x in (
        (ours, mt.tensor(values, requires_grad=True)),
        (theirs, torch.tensor(values, requires_grad=True)),
    ):
        (module(x, x, x)[1] ** 2).sum().backward()
        gradients.append(x.grad.numpy())
    np.testing.assert_allclose(*gradients, atol=1e-6)


X = mt.ones(B, L, D)
ATTENTION = nn.MultiheadAttention(D, H, batch_first=True)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "divisible", lambda: nn.MultiheadAttention(8, 3)),
        (ValueError, "greater than 0", lambda: nn.MultiheadAttention(8, 0)),
        (ValueError, "between 0 and 1", lambda: nn.MultiheadAttention(8, 2, dropout=2.0)),
        (RuntimeError, "embedding dimension of 8", lambda: ATTENTION(*[mt.ones(B, L, 6)] * 3)),
        (RuntimeError, "3-D", lambda: ATTENTION(X, X[0], X[0])),
        (RuntimeError, "4-D", lambda: ATTENTION(*[X[None]] * 3)),
        (RuntimeError, "agree in the batch", lambda: ATTENTION(X, X[:1], X[:1])),
        (RuntimeError, "agree in the batch", lambda: ATTENTION(X, X, X[:, :3])),
        (TypeError, "must be a Tensor", lambda: ATTENTION(np.ones((B, L, D)), X, X)),
        (RuntimeError, "Need attn_mask", lambda: ATTENTION(X, X, X, is_causal=True)),
        (
            RuntimeError,
            r"attn_mask is \(7, 5\), but should be \(5, 5\)",
            lambda: ATTENTION(X, X, X, attn_mask=mt.zeros(7, 5)),
        ),
        (
            RuntimeError,
            r"key_padding_mask is \(5, 2\), but should be \(2, 5\)",
            lambda: ATTENTION(X, X, X, mt.zeros(L, B).bool()),
        ),
        (
            RuntimeError,
            "mask == 0",
            lambda: ATTENTION(X, X, X, mt.ones(B, L).long()),
        ),
    ],
)
def test_bad_input_is_named(error, text, call) -> None:
    with pytest.raises(error, match=text):
        call()


def test_static_keys_are_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="static_k"):
        F.multi_head_attention_forward(
            *[X] * 3, D, H, None, None, None, None, False, 0.0, X, None, static_k=X
        )


def test_every_pair_of_masks_agrees_with_and_without_weights() -> None:
    ours, _ = pair(batch_first=True)
    q, k, v = (mt.tensor(a) for a in inputs(True, {}))
    for attn, pad in itertools.product(("none", "boolean", "additive", "per head"), (False, True)):
        masks = {name: mt.tensor(value) for name, value in MASKS[attn].items()}
        if pad:
            masks["key_padding_mask"] = mt.tensor(padding)
        fused = ours(q, k, v, need_weights=False, **masks)[0].detach().numpy()
        formed = ours(q, k, v, need_weights=True, **masks)[0].detach().numpy()
        np.testing.assert_allclose(fused, formed, atol=2e-6)
