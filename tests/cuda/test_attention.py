"""Flash attention on the pretended device: both rungs, end to end, and planted mistakes.

The kernels run on the CPU (shim.h) through `kernels.attention` as a model calls it, with warps
in random order, and are held against float64 and a naive form that rounds every step to the
storage type.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minitransformer.backend import Key, cuda, random_bits
from minitransformer.backend.cuda import signatures
from minitransformer.kernels import attention
from minitransformer.kernels.cuda.attention import _PROBLEM, _rung
from tests.tolerance import assert_close

from . import fake_cupy
from .shim import SOURCES, Program, compiled

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": BFLOAT16}


@dataclass(frozen=True)
class Case:
    """One problem."""

    B: int
    H: int
    G: int
    L: int
    S: int
    E: int
    is_causal: bool = False
    mask: str = ""  # "full" (B, H, L, S), "padding" (B, 1, 1, S)
    layout: str = "heads"  # "heads" (B, H, L, E) in memory, "rows" (B, L, H, E), "packed" QKV
    size: float = 1.0  # of the queries
    negative: bool = False  # every score far below zero
    sunk: bool = False  # the first key scores minus infinity
    hidden: float = 0.0  # what keys and values hold where nobody sees them
    scale: float | None = None
    dropout_p: float = 0.0
    seed: int = 0

    @property
    def options(self) -> dict[str, Any]:
        key = Key(2**63 + 7, 3, 5) if self.dropout_p else None
        return {
            "is_causal": self.is_causal, "scale": self.scale, "dropout_p": self.dropout_p,
            "key": key,
        }  # fmt: skip

    def arrays(self, dtype: np.dtype) -> tuple[np.ndarray, ...]:
        """Return Q, K, V, mask (or None) and dO."""
        rng = np.random.default_rng(self.seed)
        B, H, G, L, S, E = self.B, self.H, self.G, self.L, self.S, self.E

        def noise(*shape: int) -> np.ndarray:
            return rng.normal(size=shape).astype(np.float32).astype(dtype)

        if self.layout == "packed":  # (B, L, H + 2 G, E), as one product leaves it
            packed = noise(B, L, H + 2 * G, E).transpose(0, 2, 1, 3)
            Q, K, V = np.split(packed, (H, H + G), axis=1)
            dO = noise(B, L, H, E).transpose(0, 2, 1, 3)
        elif self.layout == "rows":
            Q, K, V, dO = (
                noise(B, n, h, E).transpose(0, 2, 1, 3) for n, h in ((L, H), (S, G), (S, G), (L, H))
            )
        else:
            Q, K, V, dO = noise(B, H, L, E), noise(B, G, S, E), noise(B, G, S, E), noise(B, H, L, E)
        Q *= dtype.type(self.size)
        if self.negative:
            Q[:], K[:] = np.abs(Q), -np.abs(K)
        if self.sunk:
            Q[..., 0], K[:, :, 0, 0] = np.abs(Q[..., 0]) + dtype.type(1), -np.inf
        mask = None
        if self.mask == "full":
            mask = rng.random((B, H, L, S)) < 0.6
            mask[0, 0, L // 2] = False  # a query that sees nothing
            mask[..., S // 2] = False  # a key that nobody sees
        elif self.mask == "padding":
            mask = np.arange(S) < rng.integers(1, S, (B, 1, 1, 1))
        if mask is not None and self.hidden:
            nobody = ~mask.any(axis=(1, 2))
            for b in range(B):
                K[b, :, nobody[b]] = V[b, :, nobody[b]] = self.hidden
        return Q, K, V, mask, dO


def exact(case: Case, Q: Any, K: Any, V: Any, mask: Any, dO: Any) -> tuple[np.ndarray, ...]:
    """Return O, dQ, dK, dV of the array formula in float64."""
    O, saved = attention.attention_forward(
        *(x.astype(float) for x in (Q, K, V)), mask, **case.options
    )
    return O, *attention.attention_backward(dO.astype(float), saved)[:3]


def keep(case: Case) -> Any:
    """Return the factors of the weights, drawn from the stream as the documentation says."""
    if not case.dropout_p:
        return np.float32(1.0)
    B, H, L, S = case.B, case.H, case.L, case.S
    row = -(-S // 8) * 8
    bits = random_bits(case.options["key"], B * H * L * row).reshape(B, H, L, row)[..., :S]
    return (bits >= round(case.dropout_p * 2**32)) * np.float32(1 / (1 - case.dropout_p))


def naive(case: Case, Q: Any, K: Any, V: Any, mask: Any, dO: Any) -> tuple[np.ndarray, ...]:
    """Return O, dQ, dK, dV with every intermediate result rounded to the storage type."""
    dtype, R = Q.dtype, case.H // case.G

    def rounded(x: np.ndarray) -> np.ndarray:
        return x.astype(dtype).astype(np.float32)

    Q, dO = Q.astype(np.float32), dO.astype(np.float32)
    K, V = (x.astype(np.float32).repeat(R, axis=1) for x in (K, V))
    K, V = (np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=-np.inf) for x in (K, V))
    scale = np.float32(case.E**-0.5 if case.scale is None else case.scale)
    seen = np.ones((case.L, case.S), bool)
    seen = np.tril(seen) if case.is_causal else seen
    seen = seen if mask is None else seen & mask
    S = np.where(seen, rounded(rounded(Q @ K.mT) * scale), -np.inf)
    top = S.max(-1, keepdims=True)
    P = rounded(np.exp(S - np.where(top == -np.inf, 0.0, top)))
    total = P.sum(-1, keepdims=True)
    P = rounded(P / np.where(total == 0, 1.0, total))
    kept = keep(case)
    O = rounded(rounded(P * kept) @ V)
    dP = rounded(rounded(dO @ V.mT) * kept)
    dS = rounded(P * (dP - rounded((dO * O).sum(-1, keepdims=True))))
    dK, dV = rounded(scale * (dS.mT @ Q)), rounded(rounded(P * kept).mT @ dO)
    dK, dV = (x.reshape(case.B, case.G, R, case.S, case.E).sum(2) for x in (dK, dV))
    return O, rounded(scale * (dS @ np.nan_to_num(K, neginf=0.0))), dK, dV


def terms(case: Case, Q: Any, K: Any, V: Any, mask: Any, dO: Any) -> tuple[float, ...]:
    """Return how large what cancels in O, dQ, dK, dV can be: dP - D is zero with one key."""
    scale = case.E**-0.5 if case.scale is None else abs(case.scale)
    q, k, v, arriving = (
        float(np.nan_to_num(x.astype(float), posinf=0.0).max(initial=0.0))
        for x in (*map(np.abs, (Q, K, V)), np.abs(dO.astype(float)).sum(-1))
    )
    return 0.0, arriving * v * k * scale, arriving * v * q * scale, 0.0


@contextlib.contextmanager
def device(seed: int = 0, mistake: tuple[str, str] | None = None) -> Iterator[None]:
    """Pretend there is a device; its warps run in the order of `seed`, its sources spoiled."""
    found = []

    class Seeded(Program):
        def __init__(self, source: str, **options: Any) -> None:
            here = mistake and mistake[0] in self.whole(source)
            found.append(bool(here))
            super().__init__(source, mistakes=(mistake,) if here and mistake else (), **options)

        def __call__(self, *arguments: Any, **options: Any) -> None:
            super().__call__(*arguments, seed=seed, **options)

    before = fake_cupy.Program
    fake_cupy.Program = Seeded  # type: ignore[misc]
    cuda._module.cache_clear()
    cuda._prepared.cache_clear()
    try:
        with fake_cupy.installed():
            yield
    finally:
        fake_cupy.Program = before  # type: ignore[misc]
        cuda._module.cache_clear()
        cuda._prepared.cache_clear()
        assert mistake is None or any(found), f"nothing to spoil: {mistake[0]!r}"


def run(case: Case, *arrays: Any) -> tuple[np.ndarray, ...]:
    """Return O, dQ, dK, dV and the log-sum-exp from the device."""
    Q, K, V, mask, dO = (None if x is None else fake_cupy.ndarray(x) for x in arrays)
    assert cuda.fits(Q, K, V)
    O, saved = attention.attention_forward(Q, K, V, mask, **case.options)
    gradients = attention.attention_backward(dO, saved)
    return tuple(x._a for x in (O, *gradients[:3], saved[5]))


def judge(case: Case, dtype: np.dtype) -> None:
    """Raise AssertionError where the device is further from the truth than the rule allows."""
    arrays = case.arrays(dtype)
    truth, rough = exact(case, *arrays), naive(case, *arrays)
    found = run(case, *arrays)
    if case.sunk:  # a slope of zero times a key of minus infinity: zero here, as under a mask
        truth = tuple(np.nan_to_num(x) for x in truth)
    sizes = terms(case, *arrays)
    for name, ours, x, y, size in zip(("O", "dQ", "dK", "dV"), found, truth, rough, sizes):
        assert ours.dtype == dtype
        kind = "forward" if name == "O" else "backward"
        # halves too are held to the naive error alone: sums are float32, and so is the slack
        assert_close(ours.astype(np.float32), x, y.astype(np.float32), kind, name, size=size)


CASES = {
    "ragged, grouped": Case(1, 4, 2, 130, 150, 64),
    "causal, packed": Case(2, 2, 1, 140, 140, 64, is_causal=True, layout="packed"),
    "more queries than keys": Case(1, 2, 2, 150, 60, 32, is_causal=True, layout="rows"),
    "more keys than queries": Case(1, 1, 1, 40, 170, 32, is_causal=True),
    "mask, garbage hidden": Case(2, 2, 1, 37, 70, 40, mask="full", hidden=np.nan),
    "padding, infinity hidden": Case(2, 2, 1, 20, 100, 48, mask="padding", hidden=np.inf),
    "mask and causal": Case(
        1, 2, 2, 100, 100, 16, is_causal=True, mask="full", layout="rows", hidden=np.nan
    ),
    "scores far below zero": Case(1, 1, 1, 40, 50, 32, size=40.0, negative=True),
    "large scores": Case(1, 1, 1, 70, 90, 64, size=30.0),
    "dropout": Case(2, 4, 2, 45, 70, 64, mask="full", dropout_p=0.3, hidden=np.nan),
    "dropout, all visible": Case(1, 2, 1, 40, 70, 64, dropout_p=0.5),
    "dropout, causal": Case(
        1, 2, 1, 70, 70, 128, is_causal=True, dropout_p=0.1, layout="packed"
    ),
    "minus infinity": Case(1, 2, 1, 40, 40, 32, is_causal=True, sunk=True),
    "large head": Case(1, 2, 1, 70, 80, 128, is_causal=True, layout="packed"),
    "head of 96": Case(1, 1, 1, 33, 34, 96, mask="full"),
    "no multiple of 8": Case(1, 2, 1, 33, 65, 17, is_causal=True),
    "one of each": Case(1, 1, 1, 1, 1, 8),
    "negative scale": Case(1, 1, 1, 20, 40, 32, scale=-0.3),
}  # fmt: skip
CASES["large head"] = replace(CASES["large head"], S=70)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_float64_in_any_warp_order(name: str, dtype: str) -> None:
    for seed in range(2):
        with device(seed):
            judge(replace(CASES[name], seed=seed), DTYPES[dtype])


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_problem(dtype: str, data: st.DataObject) -> None:
    G, R = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    L, S = data.draw(st.integers(1, 80)), data.draw(st.integers(2, 80))
    layout = data.draw(st.sampled_from(["heads", "rows", "packed"]))
    case = Case(
        data.draw(st.integers(1, 2)), G * R, G, L, L if layout == "packed" else S,
        data.draw(st.sampled_from([8, 64])), is_causal=data.draw(st.booleans()),
        mask=data.draw(st.sampled_from(["", "full"] + ["padding"] * (layout != "packed"))),
        layout=layout, seed=data.draw(st.integers(0, 99)),
    )  # fmt: skip
    with device(case.seed):
        judge(case, DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_to_come_is_not_seen_before(dtype: str) -> None:
    case = Case(1, 2, 1, 70, 70, 64, is_causal=True)
    Q, K, V, mask, dO = case.arrays(DTYPES[dtype])
    clean = exact(case, Q, K, V, mask, dO)
    K[0, 0, 41, 3], V[0, 0, 50, 7] = np.nan, np.inf
    with device():
        O, dQ, *_ = run(case, Q, K, V, mask, dO)
    with np.errstate(invalid="ignore"):
        truth = exact(case, Q, K, V, mask, dO)
    for found, expected, before in zip((O, dQ), truth, clean):
        found = found.astype(float)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(found[:, :, :41], before[:, :, :41], atol=0.02)
        assert np.isnan(found[:, :, 41:]).any(axis=-1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_hidden_does_not_matter(dtype: str) -> None:
    """The same bits, whatever lies beyond the last row and column or under the mask."""
    case = Case(1, 2, 1, 33, 50, 40, mask="padding", layout="packed")
    case = replace(case, S=33)
    arrays = case.arrays(DTYPES[dtype])
    with device(1):
        first = run(case, *arrays)
        nobody = ~arrays[3][0, 0, 0]
        for x in arrays[1:3]:
            x[:, :, nobody] = 1000.0
        second = run(case, *arrays)
    for a, b in zip((*first[:2], first[4]), (*second[:2], second[4])):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_repeats_are_bit_equal_in_any_warp_order(dtype: str) -> None:
    case = Case(1, 4, 2, 70, 70, 64, is_causal=True, layout="packed")
    results = []
    for seed in range(3):
        with device(seed):
            results.append(run(case, *case.arrays(DTYPES[dtype])))
    for other in results[1:]:
        for a, b in zip(results[0], other):
            assert a.tobytes() == b.tobytes()


def test_the_log_sum_exp_is_the_formula_s() -> None:
    case = Case(1, 2, 1, 20, 30, 32, mask="full")
    for dtype in DTYPES.values():
        arrays = case.arrays(dtype)
        with device():
            lse = run(case, *arrays)[4]
        exact_lse = attention.attention_forward(*(x.astype(float) for x in arrays[:3]), arrays[3])
        np.testing.assert_allclose(lse, exact_lse[1][5], rtol=1e-5)


def test_packed_views_are_read_in_place_and_outputs_lie_as_rows() -> None:
    case = Case(2, 4, 2, 40, 40, 32, is_causal=True, layout="packed")
    copies = []
    copy = fake_cupy.ndarray.__getattr__

    def watched(self: Any, name: str) -> Any:
        if name == "copy":
            copies.append(self.shape)
        return copy(self, name)

    for dtype in (np.dtype(np.float32), BFLOAT16):
        arrays = case.arrays(dtype)
        with device(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(fake_cupy.ndarray, "__getattr__", watched)
            results = run(case, *arrays)
        assert not copies
        for x in results[:4]:  # (B, L, H, E) in memory
            assert x.transpose(0, 2, 1, 3).flags.c_contiguous


class TestTheChoice:
    def rung(self, dtype: Any, E: int, scale: float = 1.0, capability: str = "90") -> str:
        with device(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(fake_cupy.Device, "compute_capability", capability)
            return _rung(fake_cupy.ndarray(np.zeros((1, 1, 1, 1, E), dtype)), scale).suffix

    def test_halves_go_to_tensor_cores(self) -> None:
        assert self.rung(BFLOAT16, 64) == self.rung(np.float16, 40) == "_mma"

    def test_the_rest_does_not(self) -> None:
        assert self.rung(np.float32, 64) == ""
        assert self.rung(np.float16, 20) == ""  # rows are no multiple of 16 bytes
        assert self.rung(np.float16, 64, scale=-1.0) == ""  # the largest score is not the largest
        assert self.rung(np.float16, 64, capability="75") == ""

    def test_blocks_fit_the_smallest_card(self) -> None:
        """99 KiB: what a block may have on cards of capability 8.6 and 8.9."""
        for dtype in DTYPES.values():
            for E in range(8, 129, 8):
                with device():
                    rung = _rung(fake_cupy.ndarray(np.zeros((1, 1, 1, 1, E), dtype)), 1.0)
                assert max(shared for _, shared in rung[2:]) <= 99 << 10


# The instructions -------------------------------------------------------------------------

INSTRUCTIONS = """
#include "mma.cuh"
extern "C" __global__ void product(const unsigned *a, const unsigned *b, float *c) {
  int lane = threadIdx.x;
  mma_m16n8k16(c + 4 * lane, a + 4 * lane, b[2 * lane], b[2 * lane + 1]);
}
extern "C" __global__ void matrices(const scalar *x, unsigned *plain, unsigned *transposed) {
  DYNAMIC_SHARED(memory);
  scalar *rows = (scalar *)memory;
  cp_async_16(rows + 8 * threadIdx.x, x + 8 * threadIdx.x, true);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  ldmatrix_x4(plain + 4 * threadIdx.x, rows + 8 * threadIdx.x);
  ldmatrix_x4_trans(transposed + 4 * threadIdx.x, rows + 8 * threadIdx.x);
}
"""


@pytest.mark.parametrize("storage", ["__half", "__nv_bfloat16"])
def test_the_shim_multiplies_fragments_as_documented(storage: str) -> None:
    """PTX ISA, matrix fragments for mma.m16n8k16 with floating-point types, its own formulas."""
    dtype = DTYPES[{"__half": "float16", "__nv_bfloat16": "bfloat16"}[storage]]
    program = Program(INSTRUCTIONS, defines={"SCALAR": storage})
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(16, 16)).astype(dtype), rng.normal(size=(16, 8)).astype(dtype)
    C = rng.normal(size=(16, 8)).astype(np.float32)
    a, b, c = np.empty((32, 8), dtype), np.empty((32, 4), dtype), np.empty((32, 4), np.float32)

    def in_c(lane: int, i: int) -> tuple[int, int]:
        group, member = lane >> 2, lane % 4
        return (group if i < 2 else group + 8), member * 2 + (i & 1)

    for lane in range(32):
        group, member = lane >> 2, lane % 4
        for i in range(8):
            row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
            a[lane, i] = A[row, member * 2 + (i & 1) + (0 if i < 4 else 8)]
        for i in range(4):
            b[lane, i] = B[member * 2 + (i & 1) + (0 if i < 2 else 8), group]
            c[lane, i] = C[in_c(lane, i)]
    program("product", (1,), 32, a.view(np.uint32), b.view(np.uint32), c)
    expected = C + A.astype(np.float32) @ B.astype(np.float32)
    for lane in range(32):
        for i in range(4):
            assert c[lane, i] == pytest.approx(expected[in_c(lane, i)], abs=1e-5)


def test_the_shim_loads_matrices_as_documented() -> None:
    """PTX ISA, ldmatrix: thread 4 r + t has elements 2 t and 2 t + 1 of row r of each matrix."""
    program = Program(INSTRUCTIONS, defines={"SCALAR": "__half"})
    x = np.arange(4 * 8 * 8).astype(np.float16).reshape(4, 8, 8)
    plain, transposed = np.zeros((2, 32, 4), np.uint32)
    program("matrices", (1,), 32, x, plain, transposed, shared=512)
    for found, matrices in ((plain, x), (transposed, x.mT)):
        pairs = found.view(np.float16).reshape(8, 4, 4, 2)  # row, pair of columns, matrix
        np.testing.assert_array_equal(pairs.transpose(2, 0, 1, 3).reshape(4, 8, 8), matrices)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("rows + 8 * threadIdx.x);", "rows + 8 * threadIdx.x + 4);", "unaligned"),
        ("rows + 8 * threadIdx.x);", "rows + 64 * threadIdx.x);", "outside"),
        ("rows + 8 * threadIdx.x);", "rows + 8 * (threadIdx.x % 8 * 8 % 32));", "banks"),
        ("  ldmatrix_x4(", "  if (threadIdx.x) ldmatrix_x4(", "different instructions"),
    ],
)
def test_the_shim_refuses(old: str, new: str, fault: str) -> None:
    program = Program(INSTRUCTIONS, defines={"SCALAR": "__half"}, mistakes=((old, new),))
    with pytest.raises(RuntimeError, match=fault):
        program(
            "matrices", (1,), 32, np.zeros(256, np.float16), *np.zeros((2, 128), np.uint32),
            shared=512,
        )  # fmt: skip


def test_a_copy_not_waited_for_has_not_come() -> None:
    program = Program(
        INSTRUCTIONS, defines={"SCALAR": "__half"}, mistakes=(("  cp_async_wait<0>();\n", ""),)
    )
    plain, transposed = np.zeros((2, 128), np.uint32)
    with pytest.raises(RuntimeError, match="under way"):
        program("matrices", (1,), 32, np.zeros(256, np.float16), plain, transposed, shared=512)
    assert np.isnan(plain.view(np.float16)).all()


def test_the_structure_is_the_sources() -> None:
    source = '#include "attention.cuh"\nextern "C" __global__ void size(long long *n) {\n'
    program = Program(source + "  n[0] = sizeof(Problem);\n}")
    n = np.zeros(1, np.int64)
    program("size", (1,), 32, n)
    assert n[0] == _PROBLEM.itemsize
    assert ctypes.sizeof(ctypes.c_longlong) == 8


def test_every_kernel_is_run() -> None:
    names = set()

    class Noted(Program):
        def __call__(self, name: str, *arguments: Any, **options: Any) -> None:
            names.add(name)

    for dtype in (np.float32, np.float16):
        with device(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(fake_cupy, "Program", Noted)
            case = Case(1, 1, 1, 8, 8, 8)
            run(case, *case.arrays(np.dtype(dtype)))
    files = [SOURCES / f for f in ("attention.cu", "attention_mma.cu")]
    assert names == {name for f in files for name in signatures(f.read_text())}


# Planted mistakes --------------------------------------------------------------------------

BOTH = [
    ("key > query", "key >= query"),
    ("b, h / p.R);\n  V", "b, h % (p.H / p.R));\n  V"),
    ("first + row < n && column < E", "first + row < n"),
    ("top == -INFINITY ? 0.0f : ", ""),
    ("if (mask) mask += b * p.mask.batch + h * p.mask.head;", ""),
    ("query * sight.row + key * sight.column", "query * sight.S + key"),
    ("if (weight == 0.0f) continue;", ""),
    ("((p.S + 7) / 8) + group + 1", "(p.S / 8) + group + 1"),
    ("p *= keep_bits(problem, line, key / 8) >> key % 8 & 1 ? problem.kept : 0.0f", "p *= 1.0f"),
]
SIMT = [
    ("l[i] * decay + s[i][0]", "l[i] + s[i][0]"),
    ("sum = {sum.x * decay", "sum = {sum.x"),
    ("l[i] == 0.0f ? 0.0f : 1.0f / l[i]", "1.0f"),
    ("other = 8; other > 0", "other = 4; other > 0"),
    ("    __syncthreads();\n    fetch(k, K", "    fetch(k, K"),
    ("fetch(v, V, p.V.row, first, S, E);\n    __syncthreads();",
     "fetch(v, V, p.V.row, first, S, E);"),
    ("  __syncwarp();  // others may still read what was there\n", ""),
    ("= P[i][j];\n  __syncwarp();", "= P[i][j];"),
    ("scores + (4 * y + i) * NEXT + k", "scores + (4 * y + i) * NEXT"),
    ("if (doubtful >> 16 * half & 0xffff)", "if (false)"),
    ("(slopes[i][j] * factor - dot)", "(slopes[i][j] * factor)"),
    ("(slopes[i][j] - dot[i])", "slopes[i][j]"),
    ("write_row(dk[i], p.scale", "write_row(dk[i], 1.0f"),
    ("p.causal ? first : 0", "p.causal ? first + TILE : 0"),
    ("{finite(v.x), finite(v.y), finite(v.z), finite(v.w)}", "v"),
    ("int h = g * p.R; h < (g + 1) * p.R", "int h = g * p.R; h < g * p.R + 1"),
    ("load(dO, e) * load(O, e)", "load(dO, e)"),
    ("line + 4 * y + x % 4, group + x / 4", "line + 4 * y + x / 4, group + x % 4"),
    ("i + 4 * (2 * j + x / 8)", "i + 4 * (j + x / 8)"),
    (">> y % 2 * 4 : 0", "& 255 : 0"),
    ("bits >> i & 1 ? p.kept", "bits & 1 ? p.kept"),
    ("(slopes[i][j] * factor - dot)", "(slopes[i][j] - dot)"),
]  # fmt: skip
MMA = [
    # fragments
    ("mma_m16n8k16(c[m][n], a[m], b[0], b[2]);", "mma_m16n8k16(c[m][n], a[m], b[0], b[1]);"),
    ("mma_m16n8k16(c[m][e], a[m], b[0], b[1]);", "mma_m16n8k16(c[m][e], a[m], b[0], b[2]);"),
    ("ldmatrix_x4_trans(b, block(B, 8 * n, 8 * e))", "ldmatrix_x4(b, block(B, 8 * n, 8 * e))"),
    ("P[m][n + i / 2][i % 2 * 2]", "P[m][n + i % 2][i / 2 * 2]"),
    ("(row + lane % 16) * PITCH + column + lane / 16 * 8",
     "(row + lane / 2) * PITCH + column + lane % 2 * 8"),
    # memory
    ("#define PITCH (HEAD + 8)", "#define PITCH HEAD"),  # banks
    ("#define PITCH (HEAD + 8)", "#define PITCH (HEAD + 4)"),  # alignment
    ("    cp_async_wait<0>();\n    __syncthreads();  // this tile", "    __syncthreads();  // "),
    ("    cp_async_wait<0>();\n    __syncthreads();  // this tile",
     "    cp_async_wait<1>();\n    __syncthreads();  // "),
    ("    __syncthreads();  // this tile is there, and nobody reads the one before\n", ""),
    ("fetch<KEYS>(k + other", "fetch<KEYS>(k + stage"),
    ("first / KEYS % 2 * KEYS", "first / KEYS % 1 * KEYS"),
    ("  cp_async_wait<0>();  // without", "  // "),
    ("c[m][e][2 * half + 1]);\n  __syncwarp();", "c[m][e][2 * half + 1]);"),
    # forward
    ("p.causal && first > own + 31", "p.causal && first + KEYS > own + 31"),
    ("p.causal && first + KEYS - 1 > own)", "p.causal && first > own)"),
    ("first + KEYS > S ||", ""),
    ("l[i][half] * decay + sum", "l[i][half] + sum"),
    ("o[i][e][2 * half + 1] *= decay;", ""),
    ("o[i][e][j] *= inverse;", ""),
    ("__shfl_xor_sync(FULL, top, 2)", "__shfl_xor_sync(FULL, top, 1)"),
    ("__shfl_xor_sync(FULL, sum, 2)", "__shfl_xor_sync(FULL, sum, 1)"),
    ("(doubtful[i / 2][i % 2] >> 4 * g & 15)", "false"),
    ("p.scale * m[i][half] + logf(sum)", "m[i][half] + logf(sum)"),
    # keys
    ("(slope * factor - dot)", "(slope * factor)"),
    ("edge && (query >= L || ", "edge && ("),
    ("bases[stage + i], dot", "bases[i], dot"),
    ("base == -INFINITY ? 0.0f : base * LOG2E", "base * LOG2E"),
    ("int h = g * p.R + turn / steps", "int h = g + turn / steps"),
    ("int h = g * p.R + turn / steps", "int h = g * p.R"),
    ("p.causal ? first / STEP : 0", "p.causal ? first / STEP + 1 : 0"),
    ("start + STEP - 1 < own", "start - 1 < own"),
    ("start < own + 16 * BLOCKS - 1", "start < own"),
    ("dk[m][e][j] *= p.scale;", "dk[m][e][j] *= 1.0f;"),
    ("cp_async_wait<0>();\n    __syncthreads();\n    if (t", "__syncthreads();\n    if (t"),
    ("cp_async_wait<0>();\n    __syncthreads();\n    if (t", "cp_async_wait<0>();\n    if (t"),
    ("(threadIdx.x < STEP ? lse : D)", "lse"),
    # dropout
    ("unit % (2 * M) * 8 + lane / 4, group", "unit % (2 * M) * 8, group"),
    ("lane / 4 * 4 + unit % 4) >> lane % 4 * 2", "lane / 4 * 4 + unit % 4)"),
    ("column / 2 * 8 + lane % 4 * 2 + column % 2", "column * 4 + lane % 4 * 2"),
    ("byte >> lane / 4 & 1", "byte >> lane % 4 & 1"),
    ("if (DROPOUT) drop(slopes, p,", "if (false) drop(slopes, p,"),
    ("slope = weight * (slope * factor - dot);", "slope = weight * (slope - dot);"),
    # queries
    ("lse[line] != -INFINITY ? lse[line] * LOG2E", "true ? lse[line] * LOG2E"),
    ("slope = weight * (slope - dot[m][j / 2]);", "slope = weight * slope;"),
    ("first + STEP > S ||", ""),
    ("b[i] = finite(b[i]);", "b[i] = b[i];"),
    ("dq[m][e][j] *= p.scale;", "dq[m][e][j] *= 1.0f;"),
    ("if (!__syncthreads_or(nan)) break;", "if (!nan) break;"),
]  # fmt: skip
PLANTED = [
    *(("float32", m) for m in BOTH + SIMT), *(("bfloat16", m) for m in BOTH + MMA)
]  # fmt: skip
TELLING = [
    "mask, garbage hidden", "ragged, grouped", "causal, packed", "padding, infinity hidden",
    "more queries than keys", "large scores", "mask and causal", "scores far below zero",
    "more keys than queries",
    "minus infinity",
    "dropout, all visible",
    "dropout",
]  # fmt: skip


@pytest.mark.slow  # compiles each spoiled kernel anew
@pytest.mark.parametrize(
    ("dtype", "mistake"), PLANTED, ids=[f"{d}-{m[0][:40]}-{i}" for i, (d, m) in enumerate(PLANTED)]
)
def test_planted_mistakes_are_caught(dtype: str, mistake: tuple[str, str]) -> None:
    def caught(name: str, seed: int) -> bool:
        with device(seed, mistake), np.errstate(all="ignore"):
            try:
                judge(replace(CASES[name], seed=seed), DTYPES[dtype])
            except (AssertionError, RuntimeError):
                return True
        return False

    assert any(caught(name, seed) for seed in range(3) for name in TELLING)


def test_a_mistake_that_finds_nothing_to_spoil_is_noticed() -> None:
    with pytest.raises(AssertionError, match="nothing to spoil"):
        compiled("attention.cu", (("no such line", ""),))
