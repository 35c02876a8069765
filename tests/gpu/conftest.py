"""Tests in this folder need CuPy and a GPU; elsewhere each is skipped with the reason."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest

import minitransformer as mt
from minitransformer.backend import is_cuda_available


@pytest.fixture(autouse=True)
def cupy() -> Iterator[types.ModuleType]:
    """CuPy itself, under the name that the stand-in has in the tests shared with it."""
    if not is_cuda_available():
        pytest.skip("CuPy finds no GPU here")
    import cupy

    yield cupy
    mt.set_float32_matmul_precision("highest")
