"""Kernels, modules and optimisers on the strict device: the array forms would run on CuPy."""

from __future__ import annotations

import importlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer import nn, optim
from minitransformer.backend import Key
from minitransformer.kernels import feed_forward
from minitransformer.kernels.cuda import optimizer as table_kernels
from minitransformer.models.gpt import GPT, GPTConfig
from tests.device import device_pair, train
from tests.kernels.cases import CASES, Case
from tests.kernels.check import check

from . import fake_cupy


@pytest.fixture
def cupy() -> Iterator[types.ModuleType]:
    with fake_cupy.installed() as module:
        yield module


def there(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return fake_cupy.ndarray(np.array(value))
    return value


def back(value: Any) -> Any:
    if isinstance(value, fake_cupy.ndarray):
        with fake_cupy.synchronising():
            return value.get()
    return value


@pytest.mark.parametrize("case", CASES.values(), ids=repr)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_kernels_on_the_device(case: Case, data: st.DataObject, cupy: Any) -> None:
    problem = data.draw(case.problems)
    check(case, problem, np.float32, device_pair(case, there, back, fake_cupy.synchronising))


def test_training_on_the_device_equals_the_host(cupy: Any) -> None:
    host, device = (train(name, fake_cupy.synchronising) for name in ("cpu", "cuda"))
    assert device[0] == pytest.approx(host[0], rel=1e-5)


@pytest.mark.parametrize("width", [96, 770, 1100, 8200])  # a warp, a block, too wide for both
@pytest.mark.parametrize("name", ["softmax", "layer_norm"])
def test_rows_of_any_width(name: str, width: int, cupy: Any) -> None:
    kernel = importlib.import_module(f"minitransformer.kernels.{name}")
    forward, backward = (getattr(kernel, f"{name}_{way}") for way in ("forward", "backward"))
    random = np.random.default_rng(0)
    x, dout = random.normal(size=(2, 3, width)).astype(np.float32)
    parameters = random.normal(size=(2, width)).astype(np.float32)
    given = (x, *parameters) if name == "layer_norm" else (x,)
    out, saved = forward(*map(there, given))
    exact, exact_saved = forward(*(a.astype(float) for a in given))
    pairs = [(out, exact)]
    pairs += zip(backward(there(dout), saved), backward(dout.astype(float), exact_saved))
    for found, expected in pairs:
        np.testing.assert_allclose(back(found), expected, rtol=2e-4, atol=2e-5)


def test_parameters_need_not_be_neighbours_in_memory(cupy: Any) -> None:
    x, table = np.random.default_rng(0).normal(size=(2, 24, 24)).astype(np.float32)
    norm = importlib.import_module("minitransformer.kernels.layer_norm")
    for kernel, arrays in (
        (norm.layer_norm_forward, lambda x, t: (x, t[:, 3], t[::-1, 5])),
        (feed_forward.feed_forward_forward, lambda x, t: (x, t, t[:, 3], t, t[:, 7])),
    ):
        found, expected = kernel(*arrays(there(x), there(table))), kernel(*arrays(x, table))
        np.testing.assert_allclose(back(found[0]), expected[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu"])
def test_feed_forward_in_one_kernel_between_its_products(
    activation: str, p: float, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    shapes = ((5, 16), (24, 16), (24,), (16, 24), (16,))
    arrays = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    options = {"activation": activation, "dropout_p": p, "key": Key(3, 1, 4)}
    expected, saved = feed_forward.feed_forward_forward(*arrays, **options)
    gradients = feed_forward.feed_forward_backward(expected, saved)
    monkeypatch.setattr(feed_forward, "_pieces", None)  # the array formula
    out, saved = feed_forward.feed_forward_forward(*map(there, arrays), **options)
    pairs = zip(feed_forward.feed_forward_backward(there(expected), saved), gradients)
    for found, wanted in [(out, expected), *pairs]:
        np.testing.assert_allclose(back(found), wanted, rtol=1e-4, atol=1e-4)


def gpt_steps(device: str, ids_on: str, steps: int = 2) -> tuple[list[Any], list[Any]]:
    """Train a small GPT with dropout, clipping and weight decay in two groups, as users do."""
    mt.manual_seed(0)
    config = GPTConfig(vocab_size=23, n_positions=8, n_embd=16, n_layer=2, n_head=2, dropout=0.1)
    model = GPT(config).to(device)
    split = [[p for p in model.parameters() if (p.ndim > 1) == matrix] for matrix in (True, False)]
    groups = [{"params": split[0], "weight_decay": 0.1}, {"params": split[1], "weight_decay": 0.0}]
    optimizer = optim.AdamW(groups, lr=1e-2)
    ids = mt.randint(0, 23, (3, 8)).to(ids_on)
    losses, norms = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5))
        optimizer.step()
        losses.append(loss.detach())
    return [*losses, *norms], [p.detach() for p in model.parameters()]


def test_a_training_step_never_waits_for_the_device(cupy: Any) -> None:
    """The stand-in refuses whatever would: nothing here is inside `synchronising`."""
    (numbers, parameters), host = gpt_steps("cuda", "cuda"), gpt_steps("cpu", "cpu")
    with fake_cupy.synchronising():
        for found, expected in zip([*numbers, *parameters], [*host[0], *host[1]]):
            np.testing.assert_allclose(found.cpu().numpy(), expected.numpy(), rtol=2e-3, atol=2e-5)


def test_clipping_and_the_optimiser_are_a_few_launches(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    launch = table_kernels.launch

    def counted(path: Any, kernel: str, *rest: Any, **options: Any) -> None:
        started.append(kernel)
        launch(path, kernel, *rest, **options)

    monkeypatch.setattr(table_kernels, "launch", counted)
    gpt_steps("cuda", "cuda", steps=1)
    assert started == ["squares", "root_of_sum", "clip", "adam", "adam"]


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: optim.Adam(parameters, lr=0.1, weight_decay=0.1, maximize=True),
        lambda parameters: optim.AdamW(parameters, lr=0.1, amsgrad=True),
        lambda parameters: optim.SGD(parameters, lr=0.1, weight_decay=0.1),
        lambda parameters: optim.SGD(
            parameters, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True
        ),
        lambda parameters: optim.SGD(parameters, 0.1, momentum=0.9, dampening=0.5),
    ],
)
def test_more_parameters_than_a_table_holds(make: Any, cupy: Any) -> None:
    def steps(device: str) -> list[np.ndarray]:
        values = np.random.default_rng(0).normal(size=(205, 3)).astype(np.float32)
        parameters = [nn.Parameter(mt.tensor(v).to(device)) for v in values]
        optimizer = make(parameters)
        for _ in range(2):
            for i, p in enumerate(parameters):
                p.grad = mt.tensor(values[-i]).to(device)
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        with fake_cupy.synchronising():
            return [p.detach().cpu().numpy() for p in (norm, *parameters)]

    for found, expected in zip(steps("cuda"), steps("cpu")):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


class TestTheStandIn:
    """A stand-in that lets things pass would prove nothing."""

    def test_refuses(self, cupy: Any) -> None:
        x = cupy.asarray(np.ones(3, np.float32))
        for mistake in (
            lambda: np.exp(x),
            lambda: np.asarray(x),
            lambda: x + np.ones(3, np.float32),
            lambda: float(x.sum()),
            lambda: bool((x > 0).all()),
            lambda: x[x > 0],
            lambda: x * np.float64(2),
            lambda: x.sum(where=x > 0),
            lambda: cupy.add(x, x, where=True),
            lambda: cupy.errstate(),
            lambda: cupy.vecdot(x, x, axes=1),
        ):
            with pytest.raises((TypeError, RuntimeError, AttributeError)):
                mistake()

    def test_memory_is_not_zero(self, cupy: Any) -> None:
        with fake_cupy.synchronising():
            assert np.isnan(cupy.empty(3, np.float32).get()).all()

    def test_duplicates_have_no_order(self, cupy: Any) -> None:
        winners = set()
        for _ in range(40):
            x = cupy.zeros(1, np.float32)
            x[cupy.asarray([0, 0])] = cupy.asarray(np.array([1, 2], np.float32))
            with fake_cupy.synchronising():
                winners.add(float(x[0]))
        assert winners == {1.0, 2.0}
