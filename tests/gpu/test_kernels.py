"""Every kernel on a real GPU against float64, NumPy and PyTorch, forward and backward."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.backend import Key
from minitransformer.kernels.dropout import dropout_forward
from minitransformer.kernels.embedding import embedding_backward, embedding_forward
from tests.device import device_pair
from tests.kernels.cases import CASES, Case
from tests.kernels.check import check

from .place import back, there

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES.values(), ids=repr)
@settings(max_examples=8)
@given(data=st.data())
def test_kernels_equal_numpy_and_pytorch(case: Case, dtype: Any, data: st.DataObject) -> None:
    pair = device_pair(case, there, back, contextlib.nullcontext)
    check(case, data.draw(case.problems), dtype, pair)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_draws_the_same_bits_as_the_host(p: float) -> None:
    x = np.ones((1000, 37), np.float32)
    host, _ = dropout_forward(x, p=p, key=Key(3, 5, 7))
    device, _ = dropout_forward(there(x), p=p, key=Key(3, 5, 7))
    assert host.tobytes() == back(device).tobytes()


def test_fifty_embedding_gradients_are_bit_equal() -> None:
    rng = np.random.default_rng(0)
    ids = there(rng.integers(0, 50, (8, 512)))  # every row many times: atomics would differ
    weight = there(rng.standard_normal((50, 96)).astype(np.float32))
    dout = there(rng.standard_normal((8, 512, 96)).astype(np.float32))
    _, saved = embedding_forward(ids, weight)
    found = {back(embedding_backward(dout, saved)[1]).tobytes() for _ in range(50)}
    assert len(found) == 1
