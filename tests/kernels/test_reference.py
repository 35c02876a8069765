"""The oracles judge one another before they judge a kernel.

PyTorch, dressed as a kernel, goes through the very check that kernels go through: so a
reference that disagrees with PyTorch, or a check that cannot pass, shows here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.cases import CASES, Case
from tests.kernels.check import Pair, as_tuple, check, run_torch, tensor

WITH_TORCH = [case for case in CASES.values() if case.torch is not None]


def torch_as_a_kernel(case: Case) -> Pair:
    def forward(*arrays: Any, mask_gradient: bool = True, **options: Any) -> Any:
        outs = as_tuple(case.torch(*[tensor(a, False) for a in arrays], **options))
        outs = tuple(o.resolve_conj().numpy() for o in outs)
        dtype = next(a.dtype for a in arrays if a is not None and a.dtype.kind == "f")
        several = isinstance(case.torch(*[tensor(a, False) for a in arrays], **options), tuple)
        return (outs if several else outs[0]), (arrays, options, outs, dtype, mask_gradient)

    def backward(dout: Any, saved: Any) -> Any:
        arrays, options, _, _, mask_gradient = saved
        douts = [np.zeros(()) if d is None else d for d in as_tuple(dout)]
        grads = run_torch(case, list(arrays), options, douts).grads
        return grads if mask_gradient else (*grads[:3], None)

    return Pair(forward, backward)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", WITH_TORCH, ids=lambda case: case.name)
@given(data=st.data())
def test_reference_and_pytorch_agree(case, dtype, data):
    check(case, data.draw(case.problems), dtype, torch_as_a_kernel(case))
