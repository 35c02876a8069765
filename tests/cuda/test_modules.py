"""The tests that hold every family of modules against PyTorch, with our side on the stand-in."""

from __future__ import annotations

from collections.abc import Iterator

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

from . import fake_cupy


@pytest.fixture(autouse=True)
def _pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(same, "device", "cuda")
    with fake_cupy.installed(), fake_cupy.synchronising():
        yield
