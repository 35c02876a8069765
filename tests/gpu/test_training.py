"""Training on a real GPU: the host's results, the same bits every time, and no waiting."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import nn
from minitransformer.backend import cublas
from minitransformer.bench.models import Model, our_model, our_optimizer, our_step
from minitransformer.bench.profile import profile
from tests.device import train

pytestmark = pytest.mark.gpu
SMALL = Model("small", 2, 64, 2, 48, 3, 131)
PRECISIONS = ("float32", "tf32", "bfloat16")


def test_training_equals_the_host() -> None:
    host, device = (train(name, contextlib.nullcontext) for name in ("cpu", "cuda"))
    assert device[0] == pytest.approx(host[0], rel=1e-5)


def test_fifty_trainings_with_dropout_are_bit_equal() -> None:
    runs = [train("cuda", contextlib.nullcontext) for _ in range(50)]
    for loss, parameters in runs[1:]:
        assert loss == runs[0][0]
        assert all((a == b).all() for a, b in zip(parameters, runs[0][1]))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_fifty_steps_of_a_gpt_are_bit_equal(dtype: str) -> None:
    mt.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    start = our_model(SMALL).state_dict()
    found = set()
    for _ in range(50):
        network = our_model(SMALL)
        network.load_state_dict(start)
        step = our_step(SMALL, network.to("cuda"), dtype)
        losses = tuple(float(step()) for _ in range(2))
        found.add((losses, *(p.detach().cpu().numpy().tobytes() for p in network.parameters())))
    assert len(found) == 1


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_training_step_never_waits_for_the_gpu(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch's profiler sees no GPU: this PyTorch has no CUDA")
    mt.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    cublas.route()  # its self-test reads results back, once
    network = our_model(SMALL).to("cuda")
    step = our_step(SMALL, network, dtype)
    parameters = list(network.parameters())

    def whole() -> Any:
        nn.utils.clip_grad_norm_(parameters, 1.0)
        return step()

    step()
    whole()
    seen, planted = profile(whole, torch), profile(lambda: whole().item(), torch)
    assert seen["launches"] > 20, "the profiler does not see CuPy's kernels"
    assert planted["waits"] + planted["to host"] > 0, "the profiler does not see CuPy wait"
    assert (seen["waits"], seen["to host"]) == (0, 0)


def test_decoding_never_waits_for_the_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch's profiler sees no GPU: this PyTorch has no CUDA")
    from minitransformer.models.layers import KeyValueCache

    network = our_model(SMALL).to("cuda")
    network.eval()
    cache, ids = KeyValueCache(SMALL.length), mt.tensor([[1, 2, 3, 4]], device="cuda")

    def step() -> None:
        cache.length = 4
        with mt.no_grad():
            network(ids[:, :1], cache=cache)

    with mt.no_grad():
        network(ids, cache=cache)
    step()
    seen = profile(step, torch)
    assert seen["launches"] > 5 and (seen["waits"], seen["to host"]) == (0, 0)


def test_a_step_frees_what_it_made() -> None:
    from minitransformer.bench.devices import Cuda

    device, network = Cuda(), our_model(SMALL).to("cuda")
    optimizer = our_optimizer(network)
    step: Callable[[], Any] = our_step(SMALL, network, optimizer=optimizer)
    step()
    optimizer.zero_grad()
    before = device.held()
    for _ in range(3):
        step()
        optimizer.zero_grad()
    assert device.held() <= before


def test_float16_storage_is_close_to_float32() -> None:
    x = mt.randn(64, 128)
    norm = nn.LayerNorm(128)
    exact = norm(x).detach().numpy()
    half = norm.to("cuda").half()(x.to("cuda").half()).detach().cpu().numpy()
    assert half.dtype == np.float16
    # half a unit in the last place of the largest result, and one of the input's rounding
    bound = 2 * np.abs(exact).max() * np.finfo(np.float16).eps
    np.testing.assert_allclose(half.astype(np.float32), exact, atol=bound, rtol=0)
