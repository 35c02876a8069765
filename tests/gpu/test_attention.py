"""Flash attention on a real GPU: the problems of the pretended device, repeats, and memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.autograd import Tensor
from minitransformer.backend import is_cuda
from minitransformer.bench.devices import Cuda
from minitransformer.kernels.attention import attention_backward, attention_forward
from tests.cuda import test_attention as shared
from tests.cuda.test_attention import CASES, DTYPES, Case

from .place import as_it_lies, back

pytestmark = pytest.mark.gpu
LONG = {
    "long, causal": Case(1, 2, 2, 1000, 1000, 64, is_causal=True),
    "long, packed": Case(2, 4, 1, 520, 520, 128, is_causal=True, layout="packed"),
    "long, masked": Case(1, 2, 2, 300, 700, 64, mask="full"),
}


def run(case: Case, *arrays: Any) -> tuple[np.ndarray, ...]:
    """O, dQ, dK, dV and the log-sum-exp, from arrays that lie on the GPU as they lie here."""
    Q, K, V, mask, dO = (None if x is None else as_it_lies(x)[0] for x in arrays)
    O, saved = attention_forward(Q, K, V, mask, is_causal=case.is_causal, scale=case.scale)
    assert is_cuda(O)
    return tuple(map(back, (O, *attention_backward(dO, saved)[:3], saved[5])))


@pytest.mark.parametrize("name", [*CASES, *LONG])
@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_float64(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "run", run)
    for seed in range(2):
        shared.judge(replace((CASES | LONG)[name], seed=seed), DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_fifty_repeats_are_bit_equal(dtype: str) -> None:
    case = Case(2, 4, 2, 300, 300, 64, is_causal=True)
    arrays = case.arrays(DTYPES[dtype])
    assert len({tuple(x.tobytes() for x in run(case, *arrays)) for _ in range(50)}) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_is_linear_in_the_length(dtype: str) -> None:
    device = Cuda()

    def peak(length: int) -> int:
        x = device.place(np.ones((1, 4, length, 64), np.float32), dtype)
        q, k, v = (Tensor(x.copy()).requires_grad_() for _ in range(3))
        before = device.held()

        def both() -> None:
            F = mt.nn.functional
            F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()

        return device.peak(both) - before

    peak(512)  # what is compiled and cached is there from now on
    short, long = peak(4096), peak(16384)
    assert 0 < long < 4.5 * short
    assert long < 16384 * 16384  # bytes: far less than one score matrix of one head
