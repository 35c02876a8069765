"""Products on a device: every layout through a cuBLAS that knows nothing but addresses."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.backend import Key, cublas
from minitransformer.kernels import attention
from minitransformer.kernels.attention import attention_backward, attention_forward
from minitransformer.kernels.linear import linear_backward, linear_forward
from tests.layouts import cast, mask_of_outside, problems

from . import fake_cublas, fake_cupy

ml_dtypes = pytest.importorskip("ml_dtypes")
TYPES = ["float16", "bfloat16", "float32", "float64"]


@pytest.fixture(scope="module")
def cupy() -> Iterator[ModuleType]:
    with fake_cupy.installed() as module:
        yield module


def there(x: np.ndarray) -> Any:
    """Put a view on the device as it is, without a copy that would straighten it."""
    return fake_cupy.ndarray(x)


def back(x: Any) -> np.ndarray:
    with fake_cupy.synchronising():
        return x.get().astype(np.float64)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    problem=problems(),
    kind=st.sampled_from(TYPES),
    wide=st.booleans(),
    accumulate=st.booleans(),
    given_out=st.booleans(),
    call=st.sampled_from([0, cublas.CALL]),
    tf32=st.booleans(),
)
def test_every_layout(
    problem: Any, kind: str, wide: bool, accumulate: bool, given_out: bool, call: int, tf32: bool,
    cupy: Any,
) -> None:  # fmt: skip
    """Whole numbers are exact in every type, so the results are too; nothing else is written."""
    a, b, out = problem
    expected = a @ b
    x, y = there(cast(a, kind)), there(cast(b, kind))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cublas, "CALL", call)  # copy views into order, or call for each part
        mt.set_float32_matmul_precision("high" if tf32 else "highest")
        try:
            if not given_out:
                result = cublas.product(x, y, accumulate=accumulate)  # to nothing
                assert result.dtype == kind
                np.testing.assert_array_equal(back(result), expected)
                return
            place = cast(out, "float32" if wide and "16" in kind else kind)
            before, memory = place.astype(np.float64), place.base
            outside = mask_of_outside(place)
            untouched = memory.ravel()[outside].copy()
            target = there(place)
            assert cublas.product(x, y, target, accumulate=accumulate) is target
        finally:
            mt.set_float32_matmul_precision("highest")
    np.testing.assert_array_equal(back(target), expected + before * accumulate)
    np.testing.assert_array_equal(memory.ravel()[outside], untouched)


def test_an_inner_size_of_zero(cupy: Any) -> None:
    x = there(np.ones((2, 0), np.float32))
    for accumulate, expected in ((False, 0), (True, 7)):
        out = there(np.full((2, 2), 7, np.float32))
        assert (back(cublas.product(x, x.T, out, accumulate=accumulate)) == expected).all()


def test_rows_that_overlap(cupy: Any) -> None:
    """A window that slides is no matrix for cuBLAS: rows begin closer than they are long."""
    windows = np.lib.stride_tricks.sliding_window_view(np.arange(7.0), 3)
    x = there(windows)
    np.testing.assert_array_equal(back(cublas.product(x, x.T)), windows @ windows.T)
    np.testing.assert_array_equal(back(cublas.product(x.T, x)), windows.T @ windows)


class TestWithoutCopies:
    """What a model multiplies is read where it is."""

    @pytest.fixture(autouse=True)
    def _count(self, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_cublas.CALLS.clear()

        def refuse(self: Any) -> Any:
            raise AssertionError(f"an array of shape {self.shape} was copied")

        monkeypatch.setattr(fake_cupy.ndarray, "copy", refuse, raising=False)

    def calls(self) -> list[tuple[str, int]]:
        return [(name, v.get("batchCount", 1)) for name, v in fake_cublas.CALLS]

    def test_a_linear_layer_and_its_gradients(self) -> None:
        x, weight, bias = (there(np.ones(s, np.float32)) for s in ((2, 3, 4), (5, 4), (5,)))
        y, saved = linear_forward(x, weight, bias)
        linear_backward(there(np.ones((2, 3, 5), np.float32)), saved)
        assert [name for name, _ in self.calls()].count("gemmEx") == len(self.calls()) <= 4
        assert back(y).tolist() == [[[5.0] * 5] * 3] * 2

    def test_stacks_whose_axes_merge_are_one_call(self) -> None:
        scores, values = (there(np.ones(s, np.float32)) for s in ((2, 3, 4, 5), (2, 3, 5, 6)))
        cublas.product(scores, values)
        cublas.product(scores.swapaxes(-1, -2), scores)
        assert self.calls() == [("gemmStridedBatchedEx", 6)] * 2

    def test_an_axis_of_one_separates_nothing(self) -> None:
        x = there(np.ones((3, 2, 5, 4), np.float32).swapaxes(0, 1)[:1])  # (1, 3, 5, 4), gaps
        y = there(np.ones((2, 1, 3, 4, 5), np.float32))
        cublas.product(y.swapaxes(-1, -2), y)
        cublas.product(x, x.swapaxes(-1, -2))
        assert self.calls() == [("gemmStridedBatchedEx", 6), ("gemmStridedBatchedEx", 3)]

    def test_packed_heads_of_one_sequence_are_one_call(self) -> None:
        q, k, v = (there(np.ones((1, 7, 3, 2, 4), np.float32))[:, :, i].swapaxes(1, 2)
                   for i in range(3))  # fmt: skip
        scores = cublas.product(q, k.swapaxes(-1, -2))
        cublas.product(scores, v)
        assert self.calls() == [("gemmStridedBatchedEx", 2)] * 2

    def test_packed_heads_of_large_batches_are_a_call_each(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cublas, "CALL", 0)
        q, k, _ = (there(np.ones((3, 7, 3, 5, 4), np.float32))[:, :, i].swapaxes(1, 2)
                   for i in range(3))  # fmt: skip
        cublas.product(q, k.swapaxes(-1, -2))
        assert self.calls() == [("gemmStridedBatchedEx", 5)] * 3


class TestPrecision:
    def product_of(self, value: float, kind: str, rows: int = 2) -> float:
        x, one = there(np.full((rows, 1), value, kind)), there(np.ones((1, 2), kind))
        return float(back(cublas.product(x, one))[0, 0])

    @pytest.mark.parametrize(("precision", "kept"), [("highest", True), ("high", False)])
    def test_tf32_only_when_allowed(self, precision: str, kept: bool, cupy: Any) -> None:
        assert mt.get_float32_matmul_precision() == "highest"
        mt.set_float32_matmul_precision(precision)
        try:
            assert (self.product_of(1 + 2**-12, "float32") == 1 + 2**-12) is kept
            assert self.product_of(1 + 2**-40, "float64") == 1 + 2**-40
            assert self.product_of(1 + 2**-12, "float32", rows=1) == 1 + 2**-12  # as a sum has
            assert ("without TF32" in cublas.route()) is kept
        finally:
            mt.set_float32_matmul_precision("highest")

    def test_pytorchs_names_are_one_switch(self) -> None:
        try:
            mt.backends.cuda.matmul.allow_tf32 = True
            assert mt.get_float32_matmul_precision() == "high"
            mt.set_float32_matmul_precision("medium")
            assert mt.backends.cuda.matmul.allow_tf32
            mt.backends.cuda.matmul.allow_tf32 = False
            assert mt.get_float32_matmul_precision() == "highest"
        finally:
            mt.set_float32_matmul_precision("highest")
        with pytest.raises(RuntimeError, match="'highest', 'high' or 'medium'"):
            mt.set_float32_matmul_precision("exact")
        with pytest.raises(AttributeError, match="allow_tf16"):
            mt.backends.cuda.matmul.allow_tf16 = True
        mt.backends.cudnn.allow_tf32 = True  # nanoGPT's line: accepted, and nothing to switch
        assert mt.get_float32_matmul_precision() == "highest"
        mt.backends.cudnn.allow_tf32 = False

    @pytest.mark.parametrize("kind", ["float16", "bfloat16"])
    def test_half_precision_is_added_in_float32(self, kind: str, cupy: Any) -> None:
        row, ones = np.ones((1, 64), kind), np.ones((64, 1), kind)
        row[0, 0] = 2048
        out = there(np.empty((1, 1), np.float32))
        assert back(cublas.product(there(row), there(ones), out)) == 2048 + 63

    @pytest.mark.parametrize("kind", ["float16", "bfloat16"])
    def test_a_bias_is_added_before_rounding(self, kind: str, cupy: Any) -> None:
        """2048 + 1 - 1: the sum of the products alone would lose its 1, and then one too many."""
        x, weight, bias = (there(np.array(v, kind)) for v in ([[2048, 1]], [[1, 1]], [-1]))
        assert back(linear_forward(x, weight, bias)[0]) == 2048


class TestRefusals:
    def test_shapes_and_types(self, cupy: Any) -> None:
        x = there(np.ones((2, 3), np.float32))
        for out, error in (
            (np.empty((2, 3), np.float32), ValueError),
            (np.empty((2, 2), np.float64), TypeError),
            (np.empty((2, 2), np.float16), TypeError),
        ):
            with pytest.raises(error, match="out"):
                cublas.product(x, x.T, there(out))
        with pytest.raises(ValueError, match="inner"):
            cublas.product(x, x)

    def test_other_types_are_multiplied_by_cupy(self, cupy: Any) -> None:
        fake_cublas.CALLS.clear()
        x = there(np.arange(6).reshape(2, 3))
        assert back(cublas.product(x, x.T)).tolist() == [[5.0, 14.0], [14.0, 50.0]]
        half = there(np.ones((3, 1), np.float16))
        mixed = cublas.product(there(np.ones((2, 3), np.float32)), half)
        assert mixed.dtype == np.float32 and back(mixed).tolist() == [[3.0], [3.0]]
        assert [name for name, _ in fake_cublas.CALLS] == ["gemmEx"]


def test_small_views_are_copied_rather_than_called_for_one_by_one(cupy: Any) -> None:
    fake_cublas.CALLS.clear()
    q, k, _ = (there(np.ones((3, 7, 3, 5, 4), np.float32))[:, :, i].swapaxes(1, 2)
               for i in range(3))  # fmt: skip
    cublas.product(q, k.swapaxes(-1, -2))
    assert [v["batchCount"] for _, v in fake_cublas.CALLS] == [15]


def test_tiles_of_attention_stay_in_one_thread(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's device, stream and cuBLAS handle belong to a thread; another one has its own."""
    Q, K, V, dO = np.random.default_rng(0).standard_normal((4, 2, 3, 9, 4)).astype(np.float32)
    options = {"dropout_p": 0.25, "key": Key(1, 2, 3), "is_causal": True}
    mask = np.random.default_rng(1).standard_normal((9, 9)).astype(np.float32)  # no kernel adds one
    expected, saved = attention_forward(Q, K, V, mask, **options)
    gradients = attention_backward(dO, saved)[:3]
    threads = set()

    def product(*arrays: Any, **options: Any) -> Any:
        threads.add(threading.get_ident())
        return right(*arrays, **options)

    right = cublas.product
    monkeypatch.setattr(cublas, "product", product)
    monkeypatch.setattr(attention, "GPU_SCORES", 64)
    out, saved = attention_forward(there(Q), there(K), there(V), there(mask), **options)
    for ours, host in zip((out, *attention_backward(there(dO), saved)[:3]), (expected, *gradients)):
        np.testing.assert_allclose(back(ours), host, rtol=1e-4, atol=1e-5)
    assert threads == {threading.get_ident()}


Mistake = Callable[[dict[str, int]], None]


def _beta_is_zero(v: dict[str, int]) -> None:
    v["beta"] = cublas._ZERO["float64" if v["Atype"] == 1 else "float32"]


def _exchange(first: str, second: str) -> Mistake:
    def mistake(v: dict[str, int]) -> None:
        if first in v:
            v[first], v[second] = v[second], v[first]

    return mistake


def _set(name: str, change: Callable[[int], int]) -> Mistake:
    def mistake(v: dict[str, int]) -> None:
        if name in v:
            v[name] = change(v[name])

    return mistake


MISTAKES: dict[str, Mistake] = {
    "flags exchanged": _exchange("transa", "transb"),
    "first flag turned": _set("transa", lambda flag: 1 - flag),
    "second flag turned": _set("transb", lambda flag: 1 - flag),
    "factors exchanged": _exchange("A", "B"),
    "sizes exchanged": _exchange("m", "n"),
    "leading dimensions exchanged": _exchange("lda", "ldb"),
    "first leading dimension": _set("lda", lambda n: n + 1),
    "second leading dimension": _set("ldb", lambda n: n + 1),
    "leading dimension of the result": _set("ldc", lambda n: n + 1),
    "strides exchanged": _exchange("strideA", "strideB"),
    "first stride": _set("strideA", lambda n: n + 1),
    "second stride": _set("strideB", lambda n: n - 1),
    "stride of the result": _set("strideC", lambda n: n + 1),
    "stack not strided": _set("strideA", lambda n: 0),
    "one matrix too few": _set("batchCount", lambda n: n - 1),
    "one matrix too many": _set("batchCount", lambda n: n + 1),
    "beta missing": _beta_is_zero,
    "alpha zero": _set("alpha", lambda where: where - 4),
    "compute in float16": _set("computeType", lambda n: 64),
    "compute in TF32": _set("computeType", lambda n: 77 if n == 68 else n),
    "result in another type": _set("Ctype", lambda n: 0 if n == 2 else n),
    "handle": _set("handle", lambda n: 0),
    "inner size": _set("k", lambda n: n - 1),
}  # fmt: skip


class TestTheSelfTest:
    """It decides at run time what is right, so it must see every mistake."""

    @pytest.mark.parametrize("mistake", MISTAKES)
    def test_sees(self, mistake: str, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        right = fake_cublas._gemm

        def wrong(function: str, v: dict[str, int]) -> None:
            MISTAKES[mistake](v)
            right(function, v)

        monkeypatch.setattr(fake_cublas, "_gemm", wrong)
        with fake_cupy.synchronising():
            try:
                trouble = cublas.self_test(fake_cublas.make(), True)
            except (fake_cublas.CUBLASError, fake_cublas.OutOfBounds) as error:
                trouble = str(error)
        assert trouble

    def test_passes_what_is_right(self, cupy: Any) -> None:
        with fake_cupy.synchronising():
            assert cublas.self_test(fake_cublas.make(), True) == ""

    @pytest.mark.parametrize("cause", ["version", "missing", "wrong"])
    def test_trouble_is_said_once_and_avoided(
        self, cause: str, cupy: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        libs = fake_cupy.sys.modules["cupy_backends.cuda.libs"]
        if cause == "version":
            monkeypatch.setattr(cupy, "__version__", "15.1.0")
        elif cause == "missing":
            monkeypatch.delattr(libs, "cublas")
        else:
            monkeypatch.setattr(fake_cublas, "_gemm", lambda function, v: None)
        a, b = np.arange(6.0).reshape(2, 3), np.arange(3.0).reshape(3, 1)
        cublas._bindings.cache_clear()
        try:
            with fake_cupy.synchronising(), pytest.warns(RuntimeWarning, match=r"cupy\.matmul"):
                cublas.product(there(a), there(b))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for kind in TYPES:
                    out = there(np.ones((2, 1), "float32" if "16" in kind else kind))
                    x, y = there(a.astype(kind)), there(b.astype(kind))
                    cublas.product(x, y, out, accumulate=True)
                    np.testing.assert_array_equal(back(out), a @ b + 1)
                    np.testing.assert_array_equal(back(cublas.product(x, y)), a @ b)
            assert cublas.route().startswith("cupy.matmul: ")
        finally:
            cublas._bindings.cache_clear()
            monkeypatch.undo()
            with fake_cupy.synchronising():
                cublas._bindings(0)


class TestTheStandIn:
    """A stand-in that lets things pass would prove nothing."""

    def call(self, **changes: int) -> None:
        a, b, c = (np.ones(s, np.float32) for s in ((3, 2), (4, 3), (4, 2)))
        runtime = fake_cublas.NAMES["runtime"]["CUDA_R_32F"]
        arguments = {
            "handle": fake_cublas.HANDLE, "transa": 0, "transb": 0, "m": 2, "n": 4, "k": 3,
            "alpha": cublas._ONE["float32"], "A": fake_cublas.address(a), "Atype": runtime,
            "lda": 2, "B": fake_cublas.address(b), "Btype": runtime, "ldb": 3,
            "beta": cublas._ZERO["float32"], "C": fake_cublas.address(c), "Ctype": runtime,
            "ldc": 2, "computeType": fake_cublas.NAMES["constants"]["CUBLAS_COMPUTE_32F"],
            "algo": -1,
        }  # fmt: skip
        changes = {k: v + arguments["A"] if k == "C" else v for k, v in changes.items()}
        fake_cublas.gemmEx(*(arguments | changes).values())
        assert (c == 3).all()

    def test_multiplies(self) -> None:
        self.call()

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"lda": 1}, fake_cublas.CUBLASError),
            ({"ldb": 2}, fake_cublas.CUBLASError),
            ({"ldc": 1}, fake_cublas.CUBLASError),
            ({"m": -1}, fake_cublas.CUBLASError),
            ({"transa": 7}, fake_cublas.CUBLASError),
            ({"Atype": 2}, fake_cublas.CUBLASError),
            ({"Ctype": 1}, fake_cublas.CUBLASError),
            ({"computeType": 64}, fake_cublas.CUBLASError),
            ({"computeType": 70}, fake_cublas.CUBLASError),
            ({"handle": 1}, fake_cublas.CUBLASError),
            ({"lda": 3}, fake_cublas.OutOfBounds),
            ({"A": 4096}, fake_cublas.OutOfBounds),
            ({"C": 0}, fake_cublas.OutOfBounds),
            ({"m": 1 << 31}, OverflowError),
        ],
    )
    def test_refuses(self, changes: dict[str, int], error: type[Exception]) -> None:
        with pytest.raises(error):
            self.call(**changes)

    def test_counts_arguments(self) -> None:
        with pytest.raises(TypeError, match="exactly 19"):
            fake_cublas.gemmEx(1, 2, 3)
        with pytest.raises(TypeError, match="exactly 23"):
            fake_cublas.gemmStridedBatchedEx(1, 2, 3)
