"""The tests of bfloat16 and autocast that the pretended device passes, on a real GPU."""

from __future__ import annotations

import pytest

from tests.cuda import test_bfloat16 as shared
from tests.cuda.test_bfloat16 import (  # noqa: F401
    test_a_float32_checkpoint_fills_bfloat16_parameters,
    test_a_module_in_bfloat16,
    test_kernels_on_the_tape,
    test_the_optimisers_take_bfloat16_parameters,
    test_training_under_autocast_is_as_near_to_float64_as_pytorchs,
    test_what_a_bfloat16_tensor_does,
)

from .place import there

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _really_there(monkeypatch: pytest.MonkeyPatch) -> None:
    shared.mt.bfloat16  # noqa: B018 the kernels look out for it from now on
    monkeypatch.setattr(shared, "there", there)
