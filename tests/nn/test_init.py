"""Initial values: PyTorch's distributions, by bounds and moments, and the layers' defaults."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer import nn
from minitransformer.nn import init

GAINS = [
    ("linear", None),
    ("conv2d", None),
    ("sigmoid", None),
    ("tanh", None),
    ("relu", None),
    ("leaky_relu", None),
    ("leaky_relu", 0.3),
    ("selu", None),
]


@pytest.mark.parametrize(("name", "param"), GAINS)
def test_gains(name, param) -> None:
    assert init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uniform_", {"a": -2.0, "b": 3.0}),
        ("normal_", {"mean": 1.0, "std": 0.5}),
        ("trunc_normal_", {"std": 2.0, "a": -1.0, "b": 3.0}),
        ("xavier_uniform_", {"gain": 2.0}),
        ("xavier_normal_", {}),
        ("kaiming_uniform_", {"nonlinearity": "relu"}),
        ("kaiming_uniform_", {"a": math.sqrt(5), "mode": "fan_out"}),
        ("kaiming_normal_", {}),
    ],
)
@pytest.mark.parametrize("shape", [(100, 300), (60, 20, 25)])
def test_distributions_are_pytorchs(name, options, shape) -> None:
    """30,000 draws: moments within five standard errors, the ends close to one another."""
    mt.manual_seed(0)
    torch.manual_seed(0)
    ours = mt.empty(*shape)
    assert getattr(init, name)(ours, **options) is ours
    x = ours.numpy().ravel().astype(np.float64)
    y = getattr(torch.nn.init, name)(torch.empty(*shape), **options).numpy().ravel()
    error = 5 * y.std() * math.sqrt(2 / len(x))
    assert abs(x.mean() - y.mean()) < error
    assert abs(x.std() - y.std()) < error
    deciles = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(x, deciles), np.quantile(y, deciles), atol=3 * error)
    if "uniform" in name or "trunc" in name:
        np.testing.assert_allclose([x.min(), x.max()], [y.min(), y.max()], rtol=2e-3, atol=1e-3)


LAYERS = {
    "linear": lambda nn: nn.Linear(50, 400),
    "embedding": lambda nn: nn.Embedding(200, 100, padding_idx=3),
    "layer norm": lambda nn: nn.LayerNorm(20),
    "rms norm": lambda nn: nn.RMSNorm(20),
    "attention": lambda nn: nn.MultiheadAttention(60, 2, add_bias_kv=True),
    "attention of three sizes": lambda nn: nn.MultiheadAttention(60, 2, kdim=40, vdim=50),
    "transformer": lambda nn: nn.Transformer(40, 2, 1, 1, 90, batch_first=True),
}


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS.keys())
def test_layers_start_as_pytorchs_do(build) -> None:
    mt.manual_seed(0)
    torch.manual_seed(0)
    theirs = dict(build(torch.nn).named_parameters())
    for name, parameter in build(nn).named_parameters():
        x, y = parameter.detach().numpy(), theirs[name].detach().numpy()
        if y.std() == 0:
            np.testing.assert_array_equal(x, y)
            continue
        error = 6 * y.std() * math.sqrt(2 / y.size)
        assert abs(x.mean() - y.mean()) < error, name
        assert abs(x.std() - y.std()) < error, name
        if y.size >= 400:
            assert abs(np.abs(x).max() / np.abs(y).max() - 1) < 0.25, name


def test_the_seed_decides() -> None:
    def draw() -> np.ndarray:
        return init.normal_(mt.empty(10)).numpy()

    mt.manual_seed(1)
    once, other = draw(), draw()
    mt.manual_seed(1)
    assert (draw() == once).all() and (once != other).any()
    g = mt.Generator().manual_seed(1)
    twice = [init.uniform_(mt.empty(10), generator=g).numpy() for _ in range(2)]
    g.manual_seed(1)
    assert (init.uniform_(mt.empty(10), generator=g).numpy() == twice[0]).all()
    assert (twice[0] != twice[1]).any()


def test_constants() -> None:
    assert init.constant_(mt.empty(2), 3.5).tolist() == [3.5, 3.5]
    assert init.ones_(mt.empty(2)).tolist() == [1.0, 1.0]
    assert init.zeros_(mt.ones(2)).tolist() == [0.0, 0.0]
    assert init.eye_(mt.empty(2, 3)).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (3, 2, 2)])
def test_orthogonal(shape) -> None:
    q = init.orthogonal_(mt.empty(*shape), gain=2.0).numpy().reshape(shape[0], -1)
    product = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_parameters_can_be_filled_while_recording() -> None:
    parameter = nn.Parameter(mt.empty(3))
    assert init.ones_(parameter) is parameter and parameter.requires_grad
    assert parameter.grad_fn is None


def test_empty_tensors_warn() -> None:
    with pytest.warns(UserWarning, match="no-op"):
        init.kaiming_uniform_(mt.empty(0, 3))
    with pytest.warns(UserWarning, match="no-op"):
        init.kaiming_normal_(mt.empty(0, 3))


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("fewer than 2 dimensions", lambda: init.xavier_uniform_(mt.empty(3))),
        ("Mode fan not supported", lambda: init.kaiming_normal_(mt.empty(2, 2), mode="fan")),
        ("Unsupported nonlinearity", lambda: init.calculate_gain("elu")),
        ("not a valid number", lambda: init.calculate_gain("leaky_relu", True)),
        ("only matrices", lambda: init.eye_(mt.empty(3))),
        ("2 or more dimensions", lambda: init.orthogonal_(mt.empty(3))),
        ("next to nothing", lambda: init.trunc_normal_(mt.empty(3), 0.0, 1.0, 9.0, 10.0)),
    ],
)
def test_bad_input_is_named(text, call) -> None:
    with pytest.raises(ValueError, match=text):
        call()
