"""Gradient norms, clipping, flat vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer import nn
from minitransformer.nn import utils
from tests.nn.compare import random_arrays


def with_gradients(package, arrays):
    parameters = []
    for array in arrays:
        parameter = package.nn.Parameter(package.tensor(np.zeros_like(array)))
        parameter.grad = package.tensor(array.copy())
        parameters.append(parameter)
    return [*parameters, package.nn.Parameter(package.tensor(np.zeros(2, np.float32)))]


ARRAYS = random_arrays((3, 4), (5,), ())


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm_is_pytorchs(max_norm, norm_type) -> None:
    ours, theirs = with_gradients(mt, ARRAYS), with_gradients(torch, ARRAYS)
    total = utils.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert total.dtype == mt.float32 and tuple(total.shape) == ()
    np.testing.assert_allclose(total.item(), expected.item(), rtol=1e-6)
    for a, b in zip(ours[:-1], theirs[:-1]):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5)
    assert ours[-1].grad is None


def test_tiny_gradients_are_pytorchs() -> None:
    """Where the norm is near the constant in the divisor, the constant shows."""
    tiny = [1e-6 * array for array in ARRAYS]
    ours, theirs = with_gradients(mt, tiny), with_gradients(torch, tiny)
    utils.clip_grad_norm_(ours, 1e-6)
    torch.nn.utils.clip_grad_norm_(theirs, 1e-6)
    for a, b in zip(ours[:-1], theirs[:-1]):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5)


def test_gradients_below_the_norm_stay_as_they_are() -> None:
    ours = with_gradients(mt, ARRAYS)
    utils.clip_grad_norm_(ours, 1e6)
    for parameter, array in zip(ours, ARRAYS):
        np.testing.assert_array_equal(parameter.grad.numpy(), array)


def test_one_parameter_and_none() -> None:
    parameter = with_gradients(mt, ARRAYS[:1])[0]
    assert utils.clip_grad_norm_(parameter, 1.0).item() > 0
    assert utils.clip_grad_norm_([], 1.0).item() == 0.0
    with pytest.warns(UserWarning, match="empty generator"):
        utils.clip_grad_norm_((p for p in ()), 1.0)


def test_nonfinite_norm_is_an_error_on_request_before_any_change() -> None:
    ours = with_gradients(mt, [*ARRAYS, np.array([np.nan], np.float32)])
    with pytest.raises(RuntimeError, match="non-finite"):
        utils.clip_grad_norm_(ours, 0.1, error_if_nonfinite=True)
    np.testing.assert_array_equal(ours[0].grad.numpy(), ARRAYS[0])
    assert math.isnan(utils.clip_grad_norm_(ours, 0.1).item())
    assert np.isnan(ours[0].grad.numpy()).all()  # as in PyTorch: NaN is not hidden


def test_infinite_and_huge_gradients() -> None:
    ours = with_gradients(mt, [np.array([np.inf, 1.0], np.float32)])
    assert utils.clip_grad_norm_(ours, 1.0).item() == math.inf
    huge = with_gradients(mt, [np.array([3e38, 1.0], np.float32)])
    assert utils.get_total_norm([huge[0].grad]).item() == math.inf  # as PyTorch's


def test_clip_grad_value_is_pytorchs() -> None:
    ours, theirs = with_gradients(mt, ARRAYS), with_gradients(torch, ARRAYS)
    utils.clip_grad_value_(ours, 0.3)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    for a, b in zip(ours[:-1], theirs[:-1]):
        np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())


def test_vector_and_back() -> None:
    model = nn.Linear(3, 2)
    vector = utils.parameters_to_vector(model.parameters())
    expected = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    np.testing.assert_array_equal(vector.detach().numpy(), expected)
    vector.sum().backward()
    assert (model.weight.grad == 1).all()
    utils.vector_to_parameters(mt.arange(8).float(), model.parameters())
    assert model.weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert model.bias.tolist() == [6.0, 7.0]
    with pytest.raises(RuntimeError, match="hold 8 numbers, vec only 7"):
        utils.vector_to_parameters(mt.zeros(7), model.parameters())
    assert model.bias.tolist() == [6.0, 7.0]
    with pytest.raises(TypeError, match="expected a Tensor"):
        utils.vector_to_parameters(np.zeros(8), model.parameters())


def test_clipping_half_precision_sums_in_float32() -> None:
    parameter = mt.nn.Parameter(mt.zeros(4000, dtype=mt.float16))
    parameter.grad = mt.full((4000,), 8.0, dtype=mt.float16)
    total = mt.nn.utils.clip_grad_norm_([parameter], 1.0)
    assert float(total) == pytest.approx(8.0 * 4000**0.5, rel=1e-3)
    assert float(parameter.grad[0]) == pytest.approx(4000**-0.5, rel=1e-2)
