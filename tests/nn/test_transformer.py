"""The transformer's layers and stacks against PyTorch's."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer import nn
from minitransformer.nn import functional as F
from minitransformer.nn import transformer as module
from tests.nn.compare import assert_same_module, random_arrays

# PyTorch says of most options that its evaluation shortcut does not cover them.
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")

B, S, T, D, H = 2, 5, 4, 8, 2
OPTIONS = {
    "default": {},
    "norm first": {"norm_first": True},
    "gelu": {"activation": "gelu"},
    "without bias": {"bias": False},
    "large eps": {"layer_norm_eps": 0.1},
    "everything": {"norm_first": True, "activation": "gelu", "bias": False},
}
padding = np.zeros((B, S), bool)
padding[0, 3:] = True
tgt_padding = np.zeros((B, T), bool)
tgt_padding[1, 3:] = True
causal = np.triu(np.full((T, T), -np.inf, np.float32), 1)


def both(name: str, *args, **options) -> tuple:
    """Our module and PyTorch's; biases are drawn, since zeros would hide a mistake."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, dropout=0.0, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return getattr(nn, name)(*args, dropout=0.0, **options), theirs


def sequences(batch_first: bool, *lengths: int) -> list[np.ndarray]:
    arrays = random_arrays(*((B, n, D) for n in lengths))
    return arrays if batch_first else [np.ascontiguousarray(a.swapaxes(0, 1)) for a in arrays]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_encoder_layer(options, batch_first) -> None:
    ours, theirs = both("TransformerEncoderLayer", D, H, 16, batch_first=batch_first, **options)
    x = sequences(batch_first, S)
    for masks in (
        {},
        {"src_key_padding_mask": padding},
        {"src_mask": np.triu(np.ones((S, S), bool), 1), "is_causal": True},
    ):
        assert_same_module(ours, theirs, x, masks)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_decoder_layer(options, batch_first) -> None:
    ours, theirs = both("TransformerDecoderLayer", D, H, 16, batch_first=batch_first, **options)
    x = sequences(batch_first, T, S)
    for masks in (
        {},
        {"tgt_mask": causal, "tgt_is_causal": True},
        {"tgt_key_padding_mask": tgt_padding, "memory_key_padding_mask": padding},
        {"memory_mask": random_arrays((T, S))[0]},
    ):
        assert_same_module(ours, theirs, x, masks)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer(norm_first, batch_first) -> None:
    ours, theirs = both(
        "Transformer", D, H, 2, 2, 16, batch_first=batch_first, norm_first=norm_first
    )
    x = sequences(batch_first, S, T)
    for masks in (
        {},
        {"tgt_mask": causal},
        {
            "src_mask": random_arrays((S, S))[0],
            "tgt_mask": causal,
            "memory_mask": random_arrays((T, S), seed=1)[0],
        },
        {
            "tgt_mask": causal < 0,
            "src_key_padding_mask": padding,
            "tgt_key_padding_mask": tgt_padding,
            "memory_key_padding_mask": padding,
        },
    ):
        assert_same_module(ours, theirs, x, masks)


def test_unbatched_transformer() -> None:
    ours, theirs = both("Transformer", D, H, 1, 1, 16)
    assert_same_module(ours, theirs, random_arrays((S, D), (T, D)))


def test_evaluation_is_training_without_dropout() -> None:
    ours, theirs = both("Transformer", D, H, 1, 1, 16, batch_first=True)
    assert_same_module(ours.eval(), theirs.eval(), sequences(True, S, T))


def test_any_activation_will_do() -> None:
    for ours_activation, theirs_activation in (
        (mt.tanh, torch.tanh),
        (nn.GELU(), torch.nn.GELU()),
        (nn.GELU("tanh"), torch.nn.GELU("tanh")),
        (nn.ReLU(), torch.nn.ReLU()),
        (F.silu, torch.nn.functional.silu),
        (nn.SiLU(), torch.nn.SiLU()),
    ):
        torch.manual_seed(0)
        ours = nn.TransformerEncoderLayer(D, H, 16, 0.0, ours_activation)
        theirs = torch.nn.TransformerEncoderLayer(D, H, 16, 0.0, theirs_activation)
        assert_same_module(ours, theirs, sequences(False, S))


def test_copies_start_equal_and_are_apart() -> None:
    layer = nn.TransformerEncoderLayer(D, H, 16)
    encoder = nn.TransformerEncoder(layer, 2)
    first, second = encoder.layers
    assert first is not layer and second.linear1.weight is not first.linear1.weight
    assert (first.linear1.weight == second.linear1.weight).all()
    # Transformer draws every matrix anew.
    model = nn.Transformer(D, H, 2, 2, 16)
    assert (model.encoder.layers[0].linear1.weight != model.encoder.layers[1].linear1.weight).any()


def test_custom_parts_are_used() -> None:
    class Double(nn.Module):
        def forward(self, src, **masks):
            return src * 2

    class Add(nn.Module):
        def forward(self, tgt, memory, **masks):
            return tgt + memory

    model = nn.Transformer(D, H, custom_encoder=Double(), custom_decoder=Add())
    assert (model(mt.ones(S, B, D), mt.ones(S, B, D)) == 3).all()


def test_causal_mask_is_pytorchs_and_is_recognised() -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    theirs = torch.nn.Transformer.generate_square_subsequent_mask(4)
    np.testing.assert_array_equal(mask.numpy(), theirs.numpy())
    assert nn.Transformer.generate_square_subsequent_mask(2, dtype=mt.float64).dtype == mt.float64
    assert module._is_causal_mask(mask, None)
    assert module._is_causal_mask(mask < 0, None)
    assert not module._is_causal_mask(mask, False)
    assert not module._is_causal_mask(mask * 0, None)
    assert not module._is_causal_mask(mt.zeros(4, 3), None)
    assert not module._is_causal_mask(None, None)
    assert module._is_causal_mask(mask * 0, True)


def test_the_future_is_hidden() -> None:
    model = nn.Transformer(D, H, 1, 1, 16, batch_first=True).eval()
    src, tgt = (mt.tensor(a) for a in sequences(True, S, T))
    mask = model.generate_square_subsequent_mask(T)
    before = model(src, tgt, tgt_mask=mask).detach().clone()
    tgt[:, -1] += 1.0
    after = model(src, tgt, tgt_mask=mask)
    assert (after[:, :-1] == before[:, :-1]).all()
    assert (after[:, -1] != before[:, -1]).any()


def test_fused_feed_forward_gives_the_plain_numbers() -> None:
    """With a hook on a part, or a part replaced, the layer runs its parts one by one."""
    for activation in (F.relu, F.gelu, nn.GELU("tanh"), F.silu):
        layer = nn.TransformerEncoderLayer(D, H, 16, 0.3, activation)
        plain = copy.deepcopy(layer)
        seen: list[object] = []
        plain.linear1.register_forward_hook(lambda *call, seen=seen: seen.append(call))
        x = mt.tensor(sequences(False, S)[0])
        results = []
        for model in (layer, plain):
            mt.manual_seed(5)
            out = model(x)
            out.sum().backward()
            results.append([out.detach().numpy(), *(p.grad.numpy() for p in model.parameters())])
        assert len(seen) == 1
        for fused, separate in zip(*results):
            np.testing.assert_allclose(fused, separate, atol=1e-5)


def test_a_replaced_linear_layer_is_used() -> None:
    class Adapter(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base = base

        def forward(self, x):
            return self.base(x) * 0

    layer = nn.TransformerEncoderLayer(D, H, 16, 0.0, norm_first=True)
    layer.linear2 = Adapter(layer.linear2)
    layer.self_attn.out_proj.weight.data = mt.zeros(D, D)
    layer.self_attn.out_proj.bias.data = mt.zeros(D)
    x = mt.tensor(sequences(False, S)[0])
    assert (layer(x) == x).all()


def plain(layer: nn.Module) -> list[str]:
    """Hook every dropout, which forbids the fused sum; return where their names are noted."""
    seen: list[str] = []
    for name, part in layer.named_modules():
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(lambda *_, name=name: seen.append(name))
    return seen


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", ["Encoder", "Decoder"])
def test_residual_and_dropout_in_one_kernel_give_the_plain_numbers(kind, norm_first) -> None:
    layer = getattr(nn, f"Transformer{kind}Layer")(D, H, 16, dropout=0.3, norm_first=norm_first)
    inputs = [mt.tensor(a) for a in sequences(False, T, S)[: 1 if kind == "Encoder" else 2]]
    results = []
    for hooked in (False, True):
        seen = plain(layer) if hooked else []
        mt.manual_seed(3)
        layer.zero_grad()
        out = layer(*inputs)
        out.square().sum().backward()
        results.append([out.detach().numpy(), *(p.grad.numpy() for p in layer.parameters())])
    assert seen == ["dropout1", *(["dropout2"] if kind == "Decoder" else []), "dropout",
                    "dropout3" if kind == "Decoder" else "dropout2"]  # fmt: skip
    for fused, apart in zip(*results):
        np.testing.assert_allclose(fused, apart, rtol=1e-5, atol=1e-6)


def test_what_users_put_in_the_place_of_a_part_is_called() -> None:
    x = mt.tensor(sequences(False, S)[0])
    calls = []

    class Own(nn.Dropout):
        def forward(self, input):
            calls.append("module")
            return super().forward(input)

    class Layer(nn.TransformerEncoderLayer):
        def _sa_block(self, x, attn_mask, key_padding_mask, is_causal=False):
            calls.append("method")
            return super()._sa_block(x, attn_mask, key_padding_mask, is_causal)

    layer = Layer(D, H, 16, dropout=0.3)
    mt.manual_seed(1)
    expected = nn.TransformerEncoderLayer(D, H, 16, dropout=0.3)
    expected.load_state_dict(layer.state_dict())
    mt.manual_seed(3)
    out = layer(x).detach().numpy()
    mt.manual_seed(3)
    np.testing.assert_allclose(out, expected(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    layer.dropout2 = Own(0.3)
    block = layer._ff_block

    @functools.wraps(block)
    def wrapped(x):
        calls.append("function")
        return block(x)

    layer._ff_block = wrapped
    layer.dropout1.forward = lambda x: calls.append("forward") or x
    layer(x)
    assert calls == ["method", "method", "forward", "function", "module"]


def test_dropout_is_on_in_training_and_off_in_evaluation() -> None:
    model = nn.Transformer(D, H, 1, 1, 16)
    src, tgt = (mt.tensor(a) for a in sequences(False, S, T))
    assert (model(src, tgt) != model(src, tgt)).any()
    model.eval()
    assert (model(src, tgt) == model(src, tgt)).all()


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (RuntimeError, "relu/gelu, not swish", lambda: nn.Transformer(D, H, activation="swish")),
        (ValueError, "divisible", lambda: nn.Transformer(D, 3)),
        (
            RuntimeError,
            "batch number of src and tgt",
            lambda: nn.Transformer(D, H, 1, 1, 8)(mt.ones(S, 2, D), mt.ones(S, 3, D)),
        ),
        (
            RuntimeError,
            "equal to d_model=8, found 8 and 6",
            lambda: nn.Transformer(D, H, 1, 1, 8)(mt.ones(S, 2, D), mt.ones(S, 2, 6)),
        ),
        (
            RuntimeError,
            "attn_mask",
            lambda: nn.TransformerEncoderLayer(D, H, 8)(mt.ones(S, 2, D), mt.zeros(S + 1, S + 1)),
        ),
    ],
)
def test_bad_input_is_named(error, text, call) -> None:
    with pytest.raises(error, match=text):
        call()
