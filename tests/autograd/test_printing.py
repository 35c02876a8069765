"""repr and format give PyTorch's text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import minitransformer as mt

RNG = np.random.default_rng(5)

TENSORS = {
    "whole": np.arange(6.0).reshape(2, 3),
    "fractions": RNG.standard_normal((3, 4)),
    "large and small": np.array([1e-6, 1.0, 1234.5]),
    "large whole": np.array([1.0, 20000.0]),
    "huge whole": np.array([1.0, 2e9]),
    "tiny": np.array([1e-9, 2e-9]),
    "specials": np.array([np.nan, np.inf, -np.inf, 1.5]),
    "whole specials": np.array([np.nan, -np.inf, 2.0]),
    "only specials": np.array([np.nan, np.inf]),
    "zeros": np.zeros((2, 2)),
    "negative": np.array([-1.0, 0.5]),
    "integers": RNG.integers(-100, 100, (3, 4)),
    "booleans": np.array([[True, False], [False, True]]),
    "scalar": np.array(3.25),
    "whole scalar": np.array(3.0),
    "integer scalar": np.array(7),
    "empty": np.zeros((0,)),
    "empty matrix": np.zeros((0, 3)),
    "one long line": RNG.standard_normal(25),
    "cube": RNG.standard_normal((2, 2, 3)),
    "four dimensions": RNG.standard_normal((2, 1, 2, 2)),
    "summary": RNG.standard_normal((40, 30)),
    "long summary": np.arange(2000),
    "deep summary": RNG.standard_normal((11, 11, 11)),
    "int32": np.arange(3, dtype=np.int32),
    "uint8": np.arange(3, dtype=np.uint8),
    "wide integers": np.arange(60).reshape(2, 30) * 1000,
}


@pytest.mark.parametrize("name", TENSORS)
def test_repr(name):
    array = TENSORS[name]
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    assert repr(mt.from_numpy(array)) == repr(torch.from_numpy(array))


def test_repr_of_other_types():
    array = RNG.standard_normal((2, 3))
    assert repr(mt.from_numpy(array)) == repr(torch.from_numpy(array))
    half = array.astype(np.float16)
    assert repr(mt.from_numpy(half)) == repr(torch.from_numpy(half))


def test_repr_on_the_tape():
    def program(T):
        x = T.ones(2, 3, requires_grad=True)
        wide = T.ones(9, dtype=T.float64, requires_grad=True) / 3
        return [repr(x), repr(x.sum()), repr(x * 2), repr(x.sum().detach()), repr(wide)]

    assert program(mt) == program(torch)


def test_format():
    def program(T):
        x = T.tensor(3.14159)
        return [f"{x:.2f}", f"{x.item():.3f}", f"{T.tensor(7):04d}", f"{T.ones(2)}", str(T.ones(2))]

    assert program(mt) == program(torch)


def test_shapes_print_like_pytorch():
    assert str(mt.zeros(2, 3).shape) == str(torch.zeros(2, 3).shape) == "torch.Size([2, 3])"
    assert str(mt.zeros(2, 3).size()[:-1]) == "torch.Size([2])"
    assert repr(mt.device("cpu")) == "device(type='cpu')"


def test_parameters_and_modules_can_be_printed():
    text = repr(mt.nn.Parameter(mt.ones(2)))
    assert text == repr(torch.nn.Parameter(torch.ones(2)))


def test_print_options():
    array = RNG.standard_normal((30, 50)).astype(np.float32)

    def program(T):
        texts = []
        for options in (
            {"precision": 2, "linewidth": 60},
            {"threshold": 10, "edgeitems": 1},
            {"profile": "default", "sci_mode": True},
            {"profile": "default"},
        ):
            T.set_printoptions(**options)
            texts += [repr(T.from_numpy(array)), repr(T.arange(4.0))]
        return texts

    assert program(mt) == program(torch)
    with pytest.raises(ValueError, match="'full'"):
        mt.set_printoptions(profile="full")
