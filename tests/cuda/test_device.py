"""Kernels, modules and optimisers on the strict device: the array forms would run on CuPy."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer import nn, optim
from tests.kernels.cases import CASES, Case
from tests.kernels.check import Pair, check, pair_of

from . import fake_cupy


@pytest.fixture
def cupy() -> Iterator[types.ModuleType]:
    with fake_cupy.installed() as module:
        yield module


def to_device(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return fake_cupy.ndarray(np.array(value))
    return tuple(map(to_device, value)) if isinstance(value, tuple) else value


def to_host(value: Any) -> Any:
    if isinstance(value, fake_cupy.ndarray):
        with fake_cupy.synchronising():
            return value.get()
    return tuple(map(to_host, value)) if isinstance(value, tuple) else value


def device_pair(case: Case) -> Pair:
    """The kernel with moves to and from the device around it."""
    forward, backward = pair_of(case)

    def device_forward(*arrays: Any, **options: Any) -> tuple[Any, Any]:
        if "index" in options:
            options["index"] = to_device(options["index"])
        with fake_cupy.synchronising() if case.name == "move" else contextlib.nullcontext():
            out, saved = forward(*map(to_device, arrays), **options)
        return to_host(out), (saved,)

    def device_backward(dout: Any, saved: Any) -> Any:
        return to_host(backward(to_device(dout), saved[0]))

    return Pair(device_forward, device_backward)


@pytest.mark.parametrize("case", CASES.values(), ids=repr)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_kernels_on_the_device(case: Case, data: st.DataObject, cupy: Any) -> None:
    problem = data.draw(case.problems)
    check(case, problem, np.float32, device_pair(case))


def test_training_on_the_device_equals_the_host(cupy: Any) -> None:
    losses = []
    for device in ("cpu", "cuda"):
        mt.manual_seed(0)
        model = nn.Transformer(16, 2, 1, 1, 32, dropout=0.1, batch_first=True).to(device)
        head = nn.Linear(16, 11).to(device)
        source, target = (mt.randn(3, n, 16).to(device) for n in (5, 4))
        labels = mt.randint(0, 11, (3, 4)).to(device)
        optimizer = optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            logits = head(model(source, target))
            loss = nn.functional.cross_entropy(logits.view(-1, 11), labels.view(-1))
            loss.backward()
            optimizer.step()
        with fake_cupy.synchronising():
            losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


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
