"""cuBLAS on the CPU, from addresses alone: two products as NVIDIA documents them.

Names, argument order and constants are those of CuPy 14.2 (``cublas_names.json``, read from its
compiled module). Matrices are read by columns from an address, a leading dimension and a stride,
so a wrong flag, distance or stride gives wrong numbers or leaves the allocation, which is an
error here; a leading dimension that is too small, or a combination of types that cuBLAS does
not know, is the error that cuBLAS returns.
"""

from __future__ import annotations

import ctypes
import json
import re
import types
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

NAMES = json.loads((Path(__file__).parent / "cublas_names.json").read_text())
HANDLE = 0x5EED
CALLS: list[tuple[str, dict[str, int]]] = []  # of this process, for tests that count them

_constants = NAMES["constants"]
_runtime = NAMES["runtime"]
_TYPES = {
    _runtime["CUDA_R_16F"]: "float16",
    _runtime["CUDA_R_16BF"]: "bfloat16",
    _runtime["CUDA_R_32F"]: "float32",
    _runtime["CUDA_R_64F"]: "float64",
}
# compute type -> type of alpha and beta, and which (A and B, C) go with it
_COMBINATIONS = {
    "CUBLAS_COMPUTE_16F": ("float16", {("float16", "float16")}),
    "CUBLAS_COMPUTE_32F": (
        "float32",
        {
            ("float16", "float16"),
            ("float16", "float32"),
            ("bfloat16", "bfloat16"),
            ("bfloat16", "float32"),
            ("float32", "float32"),
        },
    ),
    "CUBLAS_COMPUTE_32F_FAST_TF32": ("float32", {("float32", "float32")}),
    "CUBLAS_COMPUTE_64F": ("float64", {("float64", "float64")}),
}
# first address -> the one behind the last, and whether that memory still lives
_allocations: dict[int, tuple[int, weakref.ref[np.ndarray]]] = {}


class CUBLASError(RuntimeError):
    """What CuPy raises for a status other than success."""


class OutOfBounds(RuntimeError):
    """What a device reports later as an illegal address, or not at all."""


def address(a: np.ndarray) -> int:
    """Return where `a` begins, and remember the memory that it is part of."""
    root = a
    while isinstance(root.base, np.ndarray):
        root = root.base
    low, high = byte_bounds(root)
    _allocations[low] = high, weakref.ref(root)
    return a.ctypes.data


def make() -> types.ModuleType:
    """Return a module to stand in for ``cupy_backends.cuda.libs.cublas``."""
    module = types.ModuleType("cupy_backends.cuda.libs.cublas")
    module.__dict__.update(_constants, CUBLASError=CUBLASError, gemmEx=gemmEx)
    module.gemmStridedBatchedEx = gemmStridedBatchedEx  # type: ignore[attr-defined]
    return module


def gemmEx(*arguments: int) -> None:
    """C = alpha op(A) op(B) + beta C."""
    _gemm("gemmEx", _bound("gemmEx", arguments))


def gemmStridedBatchedEx(*arguments: int) -> None:
    """The same for matrices that begin every so many elements."""
    _gemm("gemmStridedBatchedEx", _bound("gemmStridedBatchedEx", arguments))


def _bound(function: str, arguments: tuple[int, ...]) -> dict[str, int]:
    """Return arguments by name, converted as Cython does: an int of C has 32 bits."""
    declared = re.findall(r"([\w ]+) (\w+)[,)]", NAMES["functions"][function].partition("(")[2])
    if len(declared) != len(arguments):
        raise TypeError(f"{function}() takes exactly {len(declared)} positional arguments")
    for (kind, name), value in zip(declared, arguments):
        if isinstance(value, float) or not hasattr(value, "__index__"):
            raise TypeError(f"{function}: {name} must be an integer, found {value!r}")
        bits = 31 if kind.strip() == "int" else 63
        if not -(1 << bits) <= value < 1 << bits or (kind.strip() == "size_t" and value < 0):
            raise OverflowError(f"{function}: {name} = {value} does not fit {kind.strip()}")
    return {name: int(value) for (_, name), value in zip(declared, arguments)}


def _gemm(function: str, v: dict[str, int]) -> None:
    CALLS.append((function, v))
    if v["handle"] != HANDLE:
        raise CUBLASError("CUBLAS_STATUS_NOT_INITIALIZED")
    m, n, k, batch = v["m"], v["n"], v["k"], v.get("batchCount", 1)
    flags = _constants["CUBLAS_OP_N"], _constants["CUBLAS_OP_T"], _constants["CUBLAS_OP_C"]
    if v["transa"] not in flags or v["transb"] not in flags or min(m, n, k, batch) < 0:
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")
    a_shape = (m, k) if v["transa"] == flags[0] else (k, m)
    b_shape = (k, n) if v["transb"] == flags[0] else (n, k)
    if v["lda"] < max(1, a_shape[0]) or v["ldb"] < max(1, b_shape[0]) or v["ldc"] < max(1, m):
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")
    if min(v.get(name, 0) for name in ("strideA", "strideB", "strideC")) < 0:
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")  # not documented, so not to be used
    kinds = tuple(_TYPES.get(v[name]) for name in ("Atype", "Btype", "Ctype"))
    compute = {number: name for name, number in _constants.items()}[v["computeType"]]
    scalar, known = _COMBINATIONS.get(compute, ("", set()))
    if kinds[0] != kinds[1] or (kinds[0], kinds[2]) not in known:
        raise CUBLASError("CUBLAS_STATUS_NOT_SUPPORTED")
    if not (m and n and batch):
        return
    A = _matrices("A", v["A"], kinds[0], batch, a_shape, v["lda"], v.get("strideA", 0))
    B = _matrices("B", v["B"], kinds[1], batch, b_shape, v["ldb"], v.get("strideB", 0))
    C = _matrices("C", v["C"], kinds[2], batch, (m, n), v["ldc"], v.get("strideC", 0))
    if len(np.unique(_places(C))) < C.size:
        raise OutOfBounds("matrices C of one call overlap")
    if np.may_share_memory(C, A) and np.intersect1d(_places(C), _places(A)).size:
        raise OutOfBounds("C overlaps A")
    if np.may_share_memory(C, B) and np.intersect1d(_places(C), _places(B)).size:
        raise OutOfBounds("C overlaps B")
    A = A if v["transa"] == flags[0] else A.swapaxes(1, 2)
    B = B if v["transb"] == flags[0] else B.swapaxes(1, 2)
    A, B = (x.astype(scalar) for x in (A, B))
    if compute == "CUBLAS_COMPUTE_32F_FAST_TF32":
        A, B = _tf32(A), _tf32(B)
    alpha, beta = (_host_scalar(v[name], scalar) for name in ("alpha", "beta"))
    result = alpha * np.matmul(A, B)
    if beta != 0:  # otherwise C is not read, and may hold anything
        result = result + beta * C.astype(scalar)
    with np.errstate(over="ignore"):
        C[...] = result.astype(C.dtype)


def _matrices(
    name: str, start: int, kind: Any, batch: int, shape: tuple[int, int], lead: int, stride: int
) -> np.ndarray:
    """Return (batch, rows, columns) of what is stored by columns at an address."""
    dtype = np.dtype(kind)
    size = dtype.itemsize
    rows, columns = shape
    if start % size:
        raise OutOfBounds(f"{name} is not aligned to its elements")
    reach = [(batch - 1) * stride, (columns - 1) * lead, rows - 1]
    first = start + size * sum(min(0, r) for r in reach)
    behind = start + size * (sum(max(0, r) for r in reach) + 1)
    for low, (high, alive) in list(_allocations.items()):
        if alive() is None:
            del _allocations[low]
        elif low <= start < high:
            if first < low or behind > high:
                raise OutOfBounds(f"{name} leaves its memory by {max(low - first, behind - high)}")
            memory = (ctypes.c_char * (high - low)).from_address(low)
            strides = (stride * size, size, lead * size)
            return np.ndarray((batch, *shape), dtype, memory, start - low, strides)
    raise OutOfBounds(f"{name} is not on the device")


def _places(x: np.ndarray) -> np.ndarray:
    """Return the address of every element."""
    offsets = (np.arange(n) * step for n, step in zip(x.shape, x.strides))
    grid = np.ix_(*offsets)
    return (x.ctypes.data + grid[0] + grid[1] + grid[2]).ravel()


def _tf32(x: np.ndarray) -> np.ndarray:
    """Round float32 to the 10 bits behind the point that a tensor core reads."""
    bits = x.view(np.uint32)
    kept = (bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), kept.view(np.float32), x)


def _host_scalar(where: int, kind: str) -> Any:
    """Read alpha or beta, which lie on the host."""
    if any(
        low <= where < high for low, (high, alive) in _allocations.items() if alive() is not None
    ):
        raise OutOfBounds("alpha and beta are read on the host, found a device address")
    number = ctypes.c_float if kind == "float32" else ctypes.c_double
    return np.dtype(kind).type(number.from_address(where).value)
