"""Tensor's methods on the strict stand-in for CuPy: the same values and gradients as on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import minitransformer as mt
from tests.cuda import fake_cupy

from .parity import flat
from .test_against_pytorch import CASES

# These make tensors of their own, on the CPU, beside the ones that they are given.
ON_THE_CPU = {"attention by hand", "cat empty", "assignment"}
# This asks for float64, which the device reports.
IN_FLOAT64 = {"to"}


@pytest.fixture
def device() -> Iterator[None]:
    with fake_cupy.installed():
        yield


def run(function, arrays, place):
    args = []
    for a in arrays:
        x = mt.from_numpy(a.astype(np.float32) if a.dtype.kind == "f" else a.copy())
        x = x.to(place)
        args.append(x.requires_grad_() if x.is_floating_point() else x)
    outs = flat(function(mt, *args))
    wanted = [o for o in outs if getattr(o, "requires_grad", False)]
    if wanted:
        mt.autograd.backward(wanted, [mt.ones_like(o) for o in wanted])
    return outs + [x.grad for x in args if x.grad is not None]


@pytest.mark.parametrize("name", [name for name in CASES if name not in ON_THE_CPU | IN_FLOAT64])
def test_as_on_the_cpu(name, device):
    function, *arrays = CASES[name]
    expected = run(function, arrays, "cpu")
    with fake_cupy.synchronising():
        found = run(function, arrays, "cuda")
        assert len(found) == len(expected)
        for f, e in zip(found, expected):
            if isinstance(f, mt.Tensor):
                assert f.is_cuda and f.dtype == e.dtype, name
                np.testing.assert_allclose(
                    f.cpu().numpy(force=True), e.numpy(force=True), 1e-5, 1e-6
                )
            else:
                assert f == e


def test_random_numbers_are_those_of_the_cpu(device):
    def program(place):
        mt.manual_seed(11)
        draws = [
            mt.rand(3, 5, device=place),
            mt.randn(7, device=place),
            mt.randint(0, 9, (4,), device=place),
            mt.randperm(6, device=place),
            mt.bernoulli(mt.full((9,), 0.3, device=place)),
            mt.multinomial(mt.ones(2, 6, device=place), 3),
            mt.multinomial(mt.ones(2, 6, device=place), 8, replacement=True),
            mt.zeros(3, device=place).normal_(),
            mt.zeros(3, device=place).exponential_(),
        ]
        return [x.cpu() for x in draws]

    with fake_cupy.synchronising():
        for ours, theirs in zip(program("cuda"), program("cpu")):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)


def test_changes_in_place(device):
    with fake_cupy.synchronising():
        x = mt.zeros(3, 3, device="cuda")
        x[0] = 2.0
        x[1:, 1] = mt.ones(2, device="cuda")
        x[[0, 2], 2] = 5.0
        x.scatter_(1, mt.tensor([[0], [0], [1]], device="cuda"), 7.0)
        x.index_fill_(0, mt.tensor([1], device="cuda"), 4.0)
        x.add_(1).clamp_(max=6.0)
        assert x.cpu().tolist() == [[6.0, 3.0, 6.0], [5.0, 5.0, 5.0], [1.0, 6.0, 6.0]]
        assert "device='cuda:0'" in repr(x)


def test_devices_do_not_mix(device):
    a, b = mt.ones(2, device="cuda"), mt.ones(2)
    for call in (
        lambda: a + b,
        lambda: b * a,
        lambda: a @ b,
        lambda: mt.cat([a, b]),
        lambda: mt.stack([a, b]),
        lambda: a < b,
    ):
        with pytest.raises(RuntimeError, match=r"different devices, cpu and cuda"):
            call()
    with pytest.raises(TypeError, match=r"cpu\(\)\.numpy\(\)"):
        a.numpy()


def test_scalars_follow_to_the_device(device):
    with fake_cupy.synchronising():
        x = mt.ones(2, device="cuda")
        assert (x * mt.tensor(3.0)).cpu().tolist() == [3.0, 3.0]
        assert (mt.tensor(1.0) - x).is_cuda


def test_gradients_cross_devices(device):
    with fake_cupy.synchronising():
        x = mt.ones(2, requires_grad=True)
        (x.to("cuda") * 3).sum().backward()
        assert not x.grad.is_cuda and x.grad.tolist() == [3.0, 3.0]
