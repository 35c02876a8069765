"""Matrix products on a real GPU: CuPy's bindings are as pinned, and cuBLAS multiplies right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.backend import cublas
from tests.cuda.fake_cublas import NAMES
from tests.layouts import cast, mask_of_outside, problems

from .place import as_it_lies

pytestmark = pytest.mark.gpu
ml_dtypes = pytest.importorskip("ml_dtypes")
TYPES = ["float16", "bfloat16", "float32", "float64"]
# of one rounding; TF32 keeps 10 bits behind the point
EPS = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-24, "float64": 2**-53, "tf32": 2**-11}


def test_the_bindings_are_the_pinned_ones() -> None:
    import cupy
    from cupy_backends.cuda.libs import cublas as library

    for name, signature in NAMES["functions"].items():
        assert getattr(library, name).__doc__.strip() == signature
    for name, value in NAMES["constants"].items():
        assert getattr(library, name) == value
    for name, value in NAMES["runtime"].items():
        assert getattr(cupy.cuda.runtime, name) == value


def test_the_self_test_passes() -> None:
    assert cublas.route().startswith("cuBLAS by CuPy")


@settings(max_examples=500)
@given(
    problem=problems(),
    kind=st.sampled_from(TYPES),
    wide=st.booleans(),
    accumulate=st.booleans(),
    call=st.sampled_from([0, cublas.CALL]),
    precision=st.sampled_from(["highest", "high"]),
)
def test_every_layout(
    problem: Any, kind: str, wide: bool, accumulate: bool, call: int, precision: str
) -> None:
    """Whole numbers are exact in every type, so the results are too; nothing else is written."""
    a, b, out = problem
    place = cast(out, "float32" if wide and "16" in kind else kind)
    (x, _), (y, _) = as_it_lies(cast(a, kind)), as_it_lies(cast(b, kind))
    target, memory = as_it_lies(place)
    before, outside = place.astype(np.float64), mask_of_outside(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cublas, "CALL", call)
        mt.set_float32_matmul_precision(precision)
        cublas.product(x, y, target, accumulate=accumulate)
    found = memory.get()
    written = np.ndarray(
        place.shape, place.dtype, found,
        place.ctypes.data - place.base.ctypes.data if place.size else 0, place.strides,
    )  # fmt: skip
    np.testing.assert_array_equal(written.astype(np.float64), a @ b + before * accumulate)
    np.testing.assert_array_equal(found.ravel()[outside], place.base.ravel()[outside])


def check(kind: str, a: Any, b: Any) -> None:
    """The error of a sum of K terms stays within what rounding factors, terms and sum allows."""
    result = cublas.product(a, b).get()
    assert result.tobytes() == cublas.product(a, b).get().tobytes()
    A, B = (x.get().astype(np.float64) for x in (a, b))
    rounded = A.shape[-1] * EPS["float64" if kind == "float64" else "float32"] + 2 * EPS[kind]
    bound = rounded * (np.abs(A) @ np.abs(B))
    assert (np.abs(result.astype(np.float64) - A @ B) <= bound).all()


@pytest.mark.parametrize("kind", [*TYPES, "tf32"])
@pytest.mark.parametrize("shape", [(1024, 768, 2304), (1, 768, 50257), (97, 1, 64), (257, 1023, 9)])
def test_large_products(shape: tuple[int, int, int], kind: str) -> None:
    import cupy

    M, K, N = shape
    dtype = "float32" if kind == "tf32" else kind
    mt.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    random = np.random.default_rng(0)
    x, weight = (
        cupy.asarray(random.standard_normal(s).astype(dtype)) for s in ((M, K), (N, K))
    )  # fmt: skip
    check(kind, x, weight.T)


@pytest.mark.parametrize("kind", TYPES)
def test_packed_attention(kind: str) -> None:
    """Scores and values of heads that lie in one (B, T, 3, H, E) array, as a model has them."""
    import cupy

    packed = np.random.default_rng(0).standard_normal((3, 130, 3, 5, 64)).astype(kind)
    q, k, v = (cupy.asarray(packed)[:, :, i].swapaxes(1, 2) for i in range(3))
    check(kind, q, k.swapaxes(-1, -2))
    scores = cublas.product(q, k.swapaxes(-1, -2))
    check(kind, scores, v)
    check(kind, scores.swapaxes(-1, -2), q)
