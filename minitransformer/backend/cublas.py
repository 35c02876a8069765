"""Matrix products on a GPU by cuBLAS itself, through bindings that CuPy keeps to itself.

``cupy.matmul`` copies what is transposed or strided, widens half precision to float32 first,
does not add to its output and takes no bfloat16 stacks. cuBLAS needs none of this: it reads a
matrix by rows or by columns with any distance between them, and a stack by one stride more.

This is the one file that calls what CuPy does not promise to keep. Its version is checked, and a
self-test runs before the first product on a device; if either fails, a warning says why and
products are ``cupy.matmul``'s from then on.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array, array_module
from .precision import get_float32_matmul_precision

CUPY = "14"  # the major version whose bindings these are
CALL = 8 << 20  # bytes that a GPU copies in the time that one more call takes

_TYPES = {  # the names that CUDA gives to what it multiplies
    "float16": "CUDA_R_16F",
    "bfloat16": "CUDA_R_16BF",
    "float32": "CUDA_R_32F",
    "float64": "CUDA_R_64F",
}
_HALF = ("float16", "bfloat16")
# Factors of the product and of what is in the output already, which cuBLAS reads on the host.
_FACTORS = {name: np.array([0, 1], name) for name in ("float32", "float64")}
_ZERO = {name: pair.ctypes.data for name, pair in _FACTORS.items()}
_ONE = {name: pair.ctypes.data + pair.itemsize for name, pair in _FACTORS.items()}


def product(a: Array, b: Array, out: Array | None = None, *, accumulate: bool = False) -> Array:
    """Return ``a @ b`` of two matrices, or stacks of matrices, on a GPU.

    Parameters
    ----------
    a : (..., M, K) device array
        Transposed and strided views are read where they are, without a copy, if their rows or
        their columns are contiguous.
    b : (..., K, N) device array
        Leading axes broadcast.
    out : (..., M, N) device array, optional
        Where to write, of the factors' type; float32 if they are float16 or bfloat16. Shares
        no memory with them.
    accumulate : bool
        Add to what is in `out`, as for the gradient of a weight that is used twice.

    Returns
    -------
    (..., M, N) device array
        `out`, or a new array of the factors' type. Half precision is multiplied exactly and
        added in float32; float32 is rounded to TF32 only if `set_float32_matmul_precision`
        says so, and never for a single row or column.

    Raises
    ------
    ValueError
        If shapes do not fit.
    TypeError
        If `out` is of another type than said.
    """
    xp = array_module(a)
    if a.dtype != b.dtype:
        common = np.result_type(a.dtype, b.dtype)
        a, b = a.astype(common, copy=False), b.astype(common, copy=False)
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"product: {a.shape} and {b.shape} do not fit in their inner axis")
    stacked = a.ndim > 2 or b.ndim > 2
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) if stacked else ()
    shape = (*batch, a.shape[-2], b.shape[-1])
    if out is None:
        out, accumulate = xp.empty(shape, a.dtype), False
    elif out.shape != shape:
        raise ValueError(f"product: {a.shape} times {b.shape} is {shape}, out is {out.shape}")
    elif out.dtype != a.dtype and not (out.dtype == np.float32 and _name(a.dtype) in _HALF):
        raise TypeError(f"product: out of {a.dtype} factors cannot be {out.dtype}")
    bindings = _bindings(xp.cuda.runtime.getDevice())
    if bindings.library is None or _name(a.dtype) not in _TYPES:
        _plain(a, b, out, accumulate)
    elif out.size and a.shape[-1]:
        # sums are products with ones: a row or a column is never rounded, and gains no time by it
        wanted = get_float32_matmul_precision() != "highest" and min(shape[-2:]) > 1
        tf32 = bindings.has_tf32 and wanted
        _multiply(bindings.library, a, b, out, accumulate, tf32)
    elif not accumulate:
        out.fill(0)
    return out


def route() -> str:
    """Return by what the current device multiplies matrices, for a record of measurements.

    Examples
    --------
    On a GPU, ``'cuBLAS by CuPy 14.2.0, float32 without TF32'``.
    """
    import cupy

    bindings = _bindings(cupy.cuda.runtime.getDevice())
    if bindings.library is None:
        return f"cupy.matmul: {bindings.trouble}"
    tf32 = bindings.has_tf32 and get_float32_matmul_precision() != "highest"
    return f"cuBLAS by CuPy {cupy.__version__}, float32 with{'out' * (not tf32)} TF32"


class _Matrices(NamedTuple):
    """A matrix or a stack of them, whether stored by columns, and how far apart those begin."""

    array: Any
    turned: bool
    lead: int


def _multiply(library: Any, a: Array, b: Array, out: Array, accumulate: bool, tf32: bool) -> None:
    """Write or add the product of arrays that are not empty."""
    xp = array_module(a)
    target = _layout(out)
    if target is None:
        result = xp.empty(out.shape, out.dtype)
        _multiply(library, a, b, result, False, tf32)
        out[...] = out + result if accumulate else result
        return
    if target.turned:  # C = A B stored by columns is Cᵀ = Bᵀ Aᵀ stored by rows
        a, b, out = (x.swapaxes(-1, -2) for x in (b, a, out))
        return _multiply(library, a, b, out, accumulate, tf32)
    left, right = (_layout(x) or _copy(x) for x in (a, b))
    axes = _stack(out, left.array, right.array) if out.ndim > 2 else []
    if len(axes) > 1:
        calls = math.prod(size for size, _ in axes) // max(size for size, _ in axes)
        loose = (x.array.nbytes for x in (left, right) if not x.array.flags.c_contiguous)
        if sum(loose) < CALL * (calls - 1):  # copies cost less than the calls that they save
            left, right = (
                x if x.array.flags.c_contiguous else _copy(x.array) for x in (left, right)
            )
            axes = _stack(out, left.array, right.array)
    _gemm(library, left, right, target, axes, accumulate, tf32)


def _layout(x: Array) -> _Matrices | None:
    """Return how matrices are stored; None if neither by rows nor by columns, or backwards."""
    *_, rows, columns = x.shape
    *batch, down, across = x.strides
    if batch and min(batch) < 0:
        return None
    size = x.itemsize
    if (columns == 1 or across == size) and (rows == 1 or down >= columns * size):
        return _Matrices(x, False, down // size if rows > 1 else columns)
    if (rows == 1 or down == size) and across >= rows * size:
        return _Matrices(x, True, across // size)
    return None


def _copy(x: Array) -> _Matrices:
    return _Matrices(x.copy(), False, x.shape[-1])


def _stack(out: Array, *factors: Array) -> list[tuple[int, tuple[int, ...]]]:
    """Return lengths and strides, in elements, of the stack's axes, merged where one stride serves.

    Strides are those of `out` and the factors, 0 where one of these is broadcast.
    """
    axes: list[tuple[int, tuple[int, ...]]] = []
    for i in range(-out.ndim, -2):
        if out.shape[i] == 1:
            continue
        steps = tuple(
            x.strides[i] // x.itemsize if x.ndim >= -i and x.shape[i] > 1 else 0
            for x in (out, *factors)
        )
        size = out.shape[i]
        if axes and axes[-1][1] == tuple(size * step for step in steps):
            axes[-1] = axes[-1][0] * size, steps
        else:
            axes.append((size, steps))
    return axes


def _gemm(
    library: Any, a: _Matrices, b: _Matrices, out: _Matrices,
    axes: list[tuple[int, tuple[int, ...]]], accumulate: bool, tf32: bool,
) -> None:  # fmt: skip
    """Hand everything to cuBLAS: a call for the longest axis of the stack, a loop over the rest.

    cuBLAS counts by columns and so sees the transpose of what is stored by rows. It is asked
    for Cᵀ = Bᵀ Aᵀ, where factors stored by rows need no transposition.
    """
    cuda = array_module(a.array).cuda
    *_, M, K = a.array.shape
    N = b.array.shape[-1]
    name = _name(a.array.dtype)
    kind = getattr(cuda.runtime, _TYPES[name])
    out_kind = getattr(cuda.runtime, _TYPES[_name(out.array.dtype)])
    scalar, compute = "float32", library.CUBLAS_COMPUTE_32F
    if name == "float64":
        scalar, compute = "float64", library.CUBLAS_COMPUTE_64F
    elif name == "float32" and tf32:
        compute = library.CUBLAS_COMPUTE_32F_FAST_TF32
    handle, algorithm = cuda.device.get_cublas_handle(), library.CUBLAS_GEMM_DEFAULT
    head = handle, int(b.turned), int(a.turned), N, M, K, _ONE[scalar]
    before = (_ONE if accumulate else _ZERO)[scalar]
    at_out, at_a, at_b = (x.array.data.ptr for x in (out, a, b))
    if not axes:
        library.gemmEx(
            *head, at_b, kind, b.lead, at_a, kind, a.lead,
            before, at_out, out_kind, out.lead, compute, algorithm,
        )  # fmt: skip
        return
    longest = max(range(len(axes)), key=lambda i: axes[i][0])
    count, (out_step, a_step, b_step) = axes.pop(longest)
    for index in np.ndindex(*(size for size, _ in axes)):
        to_out, to_a, to_b = (
            x.array.itemsize * sum(i * steps[which] for i, (_, steps) in zip(index, axes))
            for which, x in enumerate((out, a, b))
        )
        library.gemmStridedBatchedEx(
            *head, at_b + to_b, kind, b.lead, b_step, at_a + to_a, kind, a.lead, a_step,
            before, at_out + to_out, out_kind, out.lead, out_step, count, compute, algorithm,
        )  # fmt: skip


@functools.cache
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # which NumPy makes anew each time, slower than all the rest of a product


def _plain(a: Array, b: Array, out: Array, accumulate: bool) -> None:
    """Write or add the product as CuPy itself makes it."""
    if _name(a.dtype) in _HALF:
        a, b = a.astype(np.float32), b.astype(np.float32)
    result = array_module(a).matmul(a, b)
    out[...] = out + result if accumulate else result


class _Bindings(NamedTuple):
    """CuPy's module for cuBLAS, or None and why it is not used; whether the device knows TF32."""

    library: Any
    trouble: str
    has_tf32: bool


@functools.cache
def _bindings(device: int) -> _Bindings:
    """Return what products on a device go through, after the self-test."""
    import cupy

    library: Any = None
    has_tf32 = int(cupy.cuda.Device(device).compute_capability) >= 80
    if cupy.__version__.partition(".")[0] == CUPY:
        try:
            from cupy_backends.cuda.libs import cublas

            library, trouble = cublas, self_test(cublas, has_tf32)
        except (ImportError, AttributeError, TypeError, RuntimeError) as error:
            trouble = f"{type(error).__name__}: {error}"
    else:
        trouble = f"only CuPy {CUPY} is known, found {cupy.__version__}"
    if not trouble:
        return _Bindings(library, "", has_tf32)
    warnings.warn(
        f"matrix products go through cupy.matmul, which is slower: {trouble}",
        RuntimeWarning,
        stacklevel=3,
    )
    return _Bindings(None, trouble, has_tf32)


def self_test(library: Any, has_tf32: bool) -> str:
    """Return what `library` multiplies wrongly on the current device; nothing if all is well.

    Small whole numbers, whose products are exact in every type, through every layout; then
    sums that only float32 holds.
    """
    import cupy

    packed = (np.arange(2 * 5 * 3 * 2 * 3) * 7 % 11 - 5.0).reshape(2, 5, 3, 2, 3)
    types = _types(has_tf32)
    for name in types:
        there = cupy.asarray(packed.astype(name))
        cases = itertools.product(
            zip(_problems(packed), _problems(there)),
            dict.fromkeys((name, "float32" if name in _HALF else name)),
            (False, True),
            (False, True) if name == "float32" and has_tf32 else (False,),
        )
        for ((what, a, b), (_, x, y)), out_name, accumulate, tf32 in cases:
            expected = a @ b + accumulate
            out = cupy.asarray(np.ones(expected.shape, out_name))
            _multiply(library, x, y, out, accumulate, tf32)
            if (out.get() != expected).any():
                return (
                    f"cuBLAS is wrong about {name} {what}, result in {out_name}"
                    f"{', added' * accumulate}{', in TF32' * tf32}"
                )
    for name in types:
        # 2048 + 1 is no float16 and no bfloat16; 1 + 2^-12 is no TF32
        a = np.full((16, 16), 1 if name in _HALF else 1 + 2**-12)
        a[:, 0] = 2048
        out = cupy.empty((16, 16), "float32" if name in _HALF else name)
        x, ones = (cupy.asarray(v.astype(name)) for v in (a, np.ones((16, 16))))
        _multiply(library, x, ones, out, False, False)
        if (out.get() != a.sum(axis=1, keepdims=True)).any():
            return f"cuBLAS adds {name} in less than float32"
    return ""


def _types(has_tf32: bool) -> list[str]:
    """Return the types to test: bfloat16 where NumPy has it, on devices as new as TF32."""
    try:
        import ml_dtypes  # noqa: F401
    except ImportError:
        has_tf32 = False
    return [name for name in _TYPES if name != "bfloat16" or has_tf32]


def _problems(packed: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield factors in every layout, all of them views of one (B, T, 3, H, E) array."""
    q, k, v = (packed[:, :, i].swapaxes(1, 2) for i in range(3))
    row, column = q[0, 0], k[1, 1]  # (T, E), a few elements apart
    few, wide = packed[1, 2, :, 1], packed.reshape(-1)[1:21].reshape(4, 5)  # (3, E), (4, T)
    yield "rows by rows", row, few
    yield "rows by columns", row, column.T
    yield "columns by rows", row.T, column
    yield "columns by columns", row.T, wide.T
    yield "one row", row[2:3], column.T
    yield "one column", row, column.T[:, 1:2]
    yield "an inner size of one", row[:, 1:2], column.T[1:2]
    yield "views with gaps", row[:, ::2], column.T[::2]
    yield "views that run backwards", row[::-1], column.T[:, ::-1]
    yield "stacks of rows by columns", q, k.swapaxes(-1, -2)
    yield "stacks of columns by rows", q.swapaxes(-1, -2), v
    yield "a stack by a matrix", q, few
    yield "broadcast stacks", q[:, :1], k[:1].swapaxes(-1, -2)
