"""The tests that hold every family of modules against PyTorch, with our side on a real GPU."""

from __future__ import annotations

import pytest

from tests.parity import same
from tests.parity.test_modules import (  # noqa: F401
    test_activations_and_containers,
    test_embedding,
    test_linear,
    test_losses,
    test_multihead_attention,
    test_norms,
    test_transformer,
    test_transformer_layers,
)

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _really_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same, "device", "cuda")
