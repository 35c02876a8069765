"""On a real GPU: NumPy = CuPy = PyTorch, the same bits every time, memory within bounds."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer import nn
from minitransformer.backend import is_cuda, is_cuda_available, to_device, to_numpy
from tests.device import device_pair, train
from tests.kernels.cases import CASES, Case
from tests.kernels.check import check

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not is_cuda_available():
        pytest.skip("CuPy finds no GPU here")


def there(x: Any) -> Any:
    return to_device(x, "cuda") if isinstance(x, (np.ndarray, np.generic)) else x


def back(x: Any) -> Any:
    return to_numpy(x) if x is not None and is_cuda(x) else x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES.values(), ids=repr)
@settings(max_examples=20)
@given(data=st.data())
def test_kernels_equal_numpy_and_pytorch(case: Case, dtype: Any, data: st.DataObject) -> None:
    pair = device_pair(case, there, back, contextlib.nullcontext)
    check(case, data.draw(case.problems), dtype, pair)


def test_training_equals_the_host() -> None:
    host, device = (train(name, contextlib.nullcontext) for name in ("cpu", "cuda"))
    assert device[0] == pytest.approx(host[0], rel=1e-5)


def test_fifty_repeats_are_bit_equal() -> None:
    runs = [train("cuda", contextlib.nullcontext) for _ in range(50)]
    for loss, parameters in runs[1:]:
        assert loss == runs[0][0]
        assert all((a == b).all() for a, b in zip(parameters, runs[0][1]))


def test_attention_memory_is_linear() -> None:
    import cupy

    pool, peaks = cupy.get_default_memory_pool(), []
    for length in (2048, 4096, 8192):
        q = mt.randn(1, 4, length, 64, device="cuda", requires_grad=True)
        pool.free_all_blocks()
        before = pool.total_bytes()
        nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
        peaks.append(pool.total_bytes() - before)
    assert peaks[2] < 2.5 * peaks[1] < 6.25 * peaks[0]


def test_float16_storage_is_close_to_float32() -> None:
    x = mt.randn(64, 128)
    norm = nn.LayerNorm(128)
    exact = norm(x).detach().numpy()
    half = norm.to("cuda").half()(x.to("cuda").half()).detach().cpu().numpy()
    assert half.dtype == np.float16
    np.testing.assert_allclose(half.astype(np.float32), exact, atol=4e-3)


def test_the_sanitizer_finds_nothing() -> None:
    """Out-of-bounds reads and races of every kernel, by NVIDIA's own checker."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    program = "from contextlib import nullcontext as n; from tests.device import train; "
    program += "train('cuda', n, 1)"
    for tool in ("memcheck", "racecheck"):
        command = [
            sanitizer,
            "--tool",
            tool,
            "--error-exitcode",
            "9",
            sys.executable,
            "-c",
            program,
        ]
        command += [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:]
