"""Kernels, modules and optimisers on the strict device: the array forms would run on CuPy."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
