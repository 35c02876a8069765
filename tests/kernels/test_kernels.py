"""Every kernel against its definition, finite differences and PyTorch."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.cases import CASES, Case
from tests.kernels.check import DTYPES, check


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@given(data=st.data())
def test_kernel(case: Case, dtype: type, data: st.DataObject, count: Counter) -> None:
    check(case, data.draw(case.problems), dtype)
    count["kernel problems, forward and every gradient"] += 1
