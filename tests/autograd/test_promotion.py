"""Which dtype comes out, and in which dtype tensors are made: PyTorch's table."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import minitransformer as mt

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
NUMBERS = {"True": True, "2": 2, "1.5": 1.5}


def operands(T):
    """Tensors with and without dimensions, and Python numbers, by name."""
    made = {}
    for name in DTYPES:
        made[f"{name} vector"] = T.ones(2, dtype=getattr(T, name))
        made[f"{name} scalar"] = T.tensor(1, dtype=getattr(T, name))
    return made | NUMBERS


OURS, THEIRS = operands(mt), operands(torch)
PAIRS = [
    pair
    for pair in itertools.product(OURS, repeat=2)
    if not (pair[0] in NUMBERS and pair[1] in NUMBERS)
]


def test_the_whole_table():
    for a, b in PAIRS:
        found, expected = mt.result_type(OURS[a], OURS[b]), torch.result_type(THEIRS[a], THEIRS[b])
        assert f"torch.{found}" == str(expected), (a, b)
    assert len(PAIRS) == 21 * 21 - 9


@pytest.mark.parametrize("op", ["add", "mul", "div", "lt", "eq", "maximum", "where"])
def test_operations_follow_it(op):
    functions = {
        "add": lambda T, x, y: x + y,
        "mul": lambda T, x, y: x * y,
        "div": lambda T, x, y: x / y,
        "lt": lambda T, x, y: x < y,
        "eq": lambda T, x, y: x == y,
        "maximum": lambda T, x, y: T.maximum(x, y),
        "where": lambda T, x, y: T.where(T.tensor([True, False]), x, y),
    }
    compared = 0
    for a, b in PAIRS:
        if op == "maximum" and (a in NUMBERS or b in NUMBERS):
            continue
        theirs = functions[op](torch, THEIRS[a], THEIRS[b])
        ours = functions[op](mt, OURS[a], OURS[b])
        assert f"torch.{ours.dtype}" == str(theirs.dtype), (op, a, b)
        assert ours.tolist() == theirs.tolist(), (op, a, b)
        compared += 1
    assert compared > 300


@pytest.mark.parametrize(
    "make",
    [
        lambda T: T.tensor([1.0, 2.0]),
        lambda T: T.tensor([[1, 2], [3, 4]]),
        lambda T: T.tensor([True, False]),
        lambda T: T.tensor(3.5),
        lambda T: T.tensor([1, 2.5]),
        lambda T: T.tensor([]),
        lambda T: T.tensor(np.arange(3.0)),
        lambda T: T.tensor(np.arange(3, dtype=np.int32)),
        lambda T: T.tensor([1, 2], dtype=T.float32),
        lambda T: T.as_tensor(np.ones(2, dtype=np.float32)),
        lambda T: T.zeros(2, 3),
        lambda T: T.zeros((2, 3)),
        lambda T: T.zeros(2, dtype=T.long),
        lambda T: T.ones([2]),
        lambda T: T.full((2, 2), 7),
        lambda T: T.full((2, 2), 7.0),
        lambda T: T.full((2,), True),
        lambda T: T.full((2, 2), float("-inf")),
        lambda T: T.eye(3),
        lambda T: T.eye(2, 3),
        lambda T: T.arange(5),
        lambda T: T.arange(2, 9, 3),
        lambda T: T.arange(0, 1, 0.3),
        lambda T: T.arange(5.0),
        lambda T: T.arange(0, 8, 2, dtype=T.float32),
        lambda T: T.arange(5, 0, -2),
        lambda T: T.linspace(0, 1, 5),
        lambda T: T.logspace(0, 2, 3),
        lambda T: T.zeros_like(T.ones(2, dtype=T.float64)),
        lambda T: T.ones_like(T.arange(3)),
        lambda T: T.ones_like(T.arange(3), dtype=T.float32),
        lambda T: T.full_like(T.ones(2), 3),
        lambda T: T.ones(2, dtype=T.float64).new_zeros(3),
        lambda T: T.arange(3).new_tensor([1.7, 2.2]),
        lambda T: T.ones(2).new_full((2,), 4),
        lambda T: T.tril_indices(3, 4, 1),
        lambda T: T.triu_indices(3, 3, offset=1),
        lambda T: T.ones(2).half().float().double().long().int().bool(),
        lambda T: T.arange(3).type_as(T.ones(1)),
        lambda T: T.LongTensor([1, 2]),
        lambda T: T.FloatTensor([1, 2]),
        lambda T: T.Tensor([1, 2]),
        lambda T: T.tensor([T.tensor(1.0), T.tensor(2.0)]),
        lambda T: T.from_numpy(np.arange(4)),
        lambda T: T.tensor(5).float(),
        lambda T: T.tensor(np.float64(0.5)),
    ],
)
def test_creation(make):
    ours, theirs = make(mt), make(torch)
    assert f"torch.{ours.dtype}" == str(theirs.dtype)
    assert tuple(ours.shape) == tuple(theirs.shape)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_the_default_dtype_can_be_set():
    mt.set_default_dtype(mt.float64)
    try:
        assert mt.zeros(1).dtype == mt.tensor([1.0]).dtype == mt.randn(2).dtype == mt.float64
        assert (mt.arange(2) / 2).dtype == mt.float64
        assert repr(mt.ones(1)) == "tensor([1.])"
        assert repr(mt.ones(1, dtype=mt.float32)) == "tensor([1.], dtype=torch.float32)"
    finally:
        mt.set_default_dtype(mt.float32)
    with pytest.raises(TypeError, match="floating point"):
        mt.set_default_dtype(mt.int64)


def test_bfloat16_is_refused_by_name():
    with pytest.raises(TypeError, match="bfloat16 exists on GPUs only"):
        mt.ones(2).to(mt.bfloat16)
