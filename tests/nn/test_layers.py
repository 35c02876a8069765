"""Layers against PyTorch's: outputs and every gradient; and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer import nn
from tests.nn.compare import assert_same_module, random_arrays

CASES = {
    "linear": (lambda nn: nn.Linear(5, 3), (2, 4, 5)),
    "linear without bias": (lambda nn: nn.Linear(5, 3, bias=False), (7, 5)),
    "linear of a vector": (lambda nn: nn.Linear(5, 3), (5,)),
    "layer norm": (lambda nn: nn.LayerNorm(6), (3, 4, 6)),
    "layer norm of two axes": (lambda nn: nn.LayerNorm((4, 6), eps=1e-3), (3, 4, 6)),
    "layer norm without bias": (lambda nn: nn.LayerNorm(6, bias=False), (3, 6)),
    "layer norm without parameters": (lambda nn: nn.LayerNorm(6, elementwise_affine=False), (3, 6)),
    "rms norm": (lambda nn: nn.RMSNorm(6), (3, 4, 6)),
    "rms norm with eps": (lambda nn: nn.RMSNorm((4, 6), eps=0.1), (3, 4, 6)),
    "relu": (lambda nn: nn.ReLU(), (3, 4)),
    "gelu": (lambda nn: nn.GELU(), (3, 4)),
    "gelu tanh": (lambda nn: nn.GELU("tanh"), (3, 4)),
    "silu": (lambda nn: nn.SiLU(), (3, 4)),
    "tanh": (lambda nn: nn.Tanh(), (3, 4)),
    "sigmoid": (lambda nn: nn.Sigmoid(), (3, 4)),
    "softmax": (lambda nn: nn.Softmax(dim=1), (3, 4, 2)),
    "log softmax": (lambda nn: nn.LogSoftmax(dim=-1), (3, 4)),
    "dropout of nothing": (lambda nn: nn.Dropout(0.0), (3, 4)),
    "flatten": (lambda nn: nn.Flatten(), (3, 4, 2)),
    "a stack": (
        lambda nn: nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 5)),
        (3, 5),
    ),
}


@pytest.mark.parametrize(("build", "shape"), CASES.values(), ids=CASES.keys())
def test_same_as_pytorch(build, shape) -> None:
    torch.manual_seed(0)
    assert_same_module(build(nn), build(torch.nn), random_arrays(shape))


def test_embedding_is_pytorchs_with_and_without_padding() -> None:
    ids = np.array([[0, 2, 2], [1, 0, 4]])
    for padding_idx in (None, 0, -1):
        torch.manual_seed(0)
        assert_same_module(
            nn.Embedding(5, 3, padding_idx=padding_idx),
            torch.nn.Embedding(5, 3, padding_idx=padding_idx),
            [ids],
        )


def test_embedding_from_pretrained() -> None:
    table = nn.Embedding.from_pretrained(mt.eye(3), padding_idx=-1)
    assert table(mt.tensor(1)).tolist() == [0.0, 1.0, 0.0]
    assert not table.weight.requires_grad and table.padding_idx == 2
    assert nn.Embedding.from_pretrained(mt.eye(3), freeze=False).weight.requires_grad


def test_padding_row_starts_at_zero_and_stays() -> None:
    table = nn.Embedding(4, 2, padding_idx=1)
    assert table.weight[1].tolist() == [0.0, 0.0]
    table(mt.tensor([0, 1, 1])).sum().backward()
    assert table.weight.grad[1].tolist() == [0.0, 0.0]
    assert table.weight.grad[0].tolist() == [1.0, 1.0]


def test_in_place_activations_change_their_input() -> None:
    for module in (nn.ReLU(inplace=True), nn.SiLU(inplace=True), nn.Dropout(1.0, inplace=True)):
        x = mt.tensor([-1.0, 2.0])
        assert module(x) is x
        assert x.tolist() != [-1.0, 2.0]
        assert "inplace=True" in repr(module)


def test_dropout_scales_what_it_keeps_and_rests_in_evaluation() -> None:
    mt.manual_seed(0)
    drop = nn.Dropout(0.25)
    x = mt.ones(100, 100, requires_grad=True)
    out = drop(x)
    kept = out.detach().numpy() != 0
    assert abs(kept.mean() - 0.75) < 0.02
    np.testing.assert_allclose(out.detach().numpy()[kept], 1 / 0.75, rtol=1e-6)
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), out.detach().numpy())
    assert (drop(x) != out).any()
    mt.manual_seed(0)
    assert (drop(x) == out).all()
    drop.eval()
    assert drop(x) is x


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "between 0 and 1, but got 1.5", lambda: nn.Dropout(1.5)),
        (RuntimeError, "cannot be multiplied", lambda: nn.Linear(3, 2)(mt.ones(2, 4))),
        (RuntimeError, "expected one dtype", lambda: nn.Linear(3, 2)(mt.ones(2, 3).double())),
        (TypeError, "'input' must be a Tensor", lambda: nn.Linear(3, 2)(np.ones((2, 3)))),
        (IndexError, "id 5 is outside the table of", lambda: nn.Embedding(5, 3)(mt.tensor([0, 5]))),
        (
            IndexError,
            "id -1 is outside the table of",
            lambda: nn.Embedding(5, 3)(mt.tensor([0, -1])),
        ),
        (RuntimeError, "must hold integers", lambda: nn.Embedding(5, 3)(mt.ones(2))),
        (ValueError, "padding_idx", lambda: nn.Embedding(5, 3, padding_idx=5)),
        (NotImplementedError, "max_norm", lambda: nn.Embedding(5, 3, max_norm=1.0)),
        (ValueError, "does not match", lambda: nn.Embedding(5, 3, _weight=mt.ones(5, 4))),
        (RuntimeError, "normalized_shape", lambda: nn.LayerNorm(3)(mt.ones(2, 4))),
        (RuntimeError, "normalized_shape", lambda: nn.RMSNorm((2, 3))(mt.ones(3))),
        (RuntimeError, "none or tanh", lambda: nn.GELU("sigmoid")(mt.ones(1))),
        (IndexError, "dimension out of range", lambda: nn.Softmax(dim=2)(mt.ones(1))),
    ],
)
def test_bad_input_is_named(error, text, call) -> None:
    with pytest.raises(error, match=text):
        call()


def test_softmax_without_dim_warns_and_chooses_as_pytorch() -> None:
    for shape in ((3,), (3, 2), (3, 2, 4), (3, 2, 4, 2)):
        (x,) = random_arrays(shape)
        with pytest.warns(UserWarning, match="Implicit dimension"):
            ours = nn.Softmax()(mt.tensor(x))
        with pytest.warns(UserWarning, match="Implicit dimension"):
            theirs = torch.nn.Softmax()(torch.tensor(x))
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)
