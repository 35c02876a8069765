"""state_dict and load_state_dict: PyTorch's keys, every complaint at once, all or nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer import nn

BUILDERS = {
    "linear": lambda nn: nn.Linear(3, 2),
    "linear without bias": lambda nn: nn.Linear(3, 2, bias=False),
    "embedding": lambda nn: nn.Embedding(5, 3, padding_idx=0),
    "layer norm": lambda nn: nn.LayerNorm((2, 3)),
    "layer norm without bias": lambda nn: nn.LayerNorm(3, bias=False),
    "layer norm without parameters": lambda nn: nn.LayerNorm(3, elementwise_affine=False),
    "rms norm": lambda nn: nn.RMSNorm(3),
    "attention": lambda nn: nn.MultiheadAttention(4, 2),
    "attention without bias": lambda nn: nn.MultiheadAttention(4, 2, bias=False),
    "attention with extra keys": lambda nn: nn.MultiheadAttention(4, 2, add_bias_kv=True),
    "attention of three sizes": lambda nn: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
    "encoder layer": lambda nn: nn.TransformerEncoderLayer(4, 2, 8),
    "decoder layer": lambda nn: nn.TransformerDecoderLayer(4, 2, 8, bias=False),
    "transformer": lambda nn: nn.Transformer(4, 2, 2, 2, 8),
    "weighted loss": lambda nn: nn.CrossEntropyLoss(),
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())
def test_keys_shapes_and_values_travel_both_ways(build) -> None:
    ours, theirs = build(nn), build(torch.nn)
    state = theirs.state_dict()
    assert [(k, tuple(v.shape)) for k, v in ours.state_dict().items()] == [
        (k, tuple(v.shape)) for k, v in state.items()
    ]
    report = ours.load_state_dict(state)
    assert repr(report) == "<All keys matched successfully>"
    for key, value in ours.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[key].numpy())
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})


def test_a_shared_module_has_all_its_names() -> None:
    def build(nn):
        layer = nn.Linear(2, 2)
        return nn.Sequential(layer, nn.ReLU(), layer)

    ours, theirs = build(nn), build(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert len(list(ours.parameters())) == 2


def test_takes_arrays_tensors_and_bfloat16() -> None:
    layer = nn.Linear(2, 1)
    bias = torch.tensor([1.5], dtype=torch.bfloat16)
    layer.load_state_dict({"weight": np.array([[1, 2]]), "bias": bias})
    assert layer.weight.tolist() == [[1.0, 2.0]] and layer.weight.dtype == mt.float32
    assert layer.bias.tolist() == [1.5]
    layer.load_state_dict({"weight": mt.zeros(1, 2), "bias": mt.zeros(1)})
    assert layer.weight.tolist() == [[0.0, 0.0]]


def test_loading_copies() -> None:
    source = {"weight": np.ones((1, 2), np.float32), "bias": np.ones(1, np.float32)}
    layer = nn.Linear(2, 1)
    weight = layer.weight
    layer.load_state_dict(source)
    source["weight"][:] = 5.0
    assert layer.weight is weight and weight.tolist() == [[1.0, 1.0]]


def test_assign_takes_the_arrays_over() -> None:
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": np.ones((1, 2)), "bias": np.ones(1)}, assign=True)
    assert layer.weight.dtype == mt.float64 and type(layer.weight) is nn.Parameter


def test_every_complaint_comes_at_once_and_nothing_changes() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    state = {
        "0.weight": np.zeros((3, 2)),
        "0.bias": np.zeros(4),
        "1.weight": "text",
        "2.weight": np.zeros(1),
    }
    with pytest.raises(RuntimeError) as error:
        model.load_state_dict(state)
    text = str(error.value)
    assert "Error(s) in loading state_dict for Sequential" in text
    assert 'Missing key(s) in state_dict: "1.bias"' in text
    assert 'Unexpected key(s) in state_dict: "2.weight"' in text
    assert "size mismatch for 0.bias" in text and "(4,)" in text and "(3,)" in text
    assert "wrong type for 1.weight" in text
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])


def test_not_strict_reports_and_loads_the_rest() -> None:
    model = nn.Linear(2, 1)
    report = model.load_state_dict({"weight": np.ones((1, 2)), "other": np.ones(1)}, strict=False)
    assert report.missing_keys == ["bias"] and report.unexpected_keys == ["other"]
    assert model.weight.tolist() == [[1.0, 1.0]]
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        model.load_state_dict({"weight": np.ones((1, 3))}, strict=False)


def test_not_a_mapping() -> None:
    with pytest.raises(TypeError, match="dict-like"):
        nn.Linear(1, 1).load_state_dict([("weight", 1)])


def test_complex_and_fractional_values_are_refused() -> None:
    model = nn.Linear(1, 1, bias=False)
    with pytest.raises(RuntimeError, match="dtype mismatch for weight"):
        model.load_state_dict({"weight": np.ones((1, 1), complex)})
    model.register_buffer("count", mt.tensor(3))
    with pytest.raises(RuntimeError, match="dtype mismatch for count"):
        model.load_state_dict({"weight": np.ones((1, 1)), "count": np.array(0.5)})


def test_a_change_after_forward_is_noticed_by_backward() -> None:
    layer = nn.Linear(2, 1)
    out = layer(mt.ones(1, 2, requires_grad=True)).sum()
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        out.backward()
