"""A strict stand-in for CuPy on machines without a GPU: NumPy inside, a GPU's manners outside.

An array here is no NumPy array and refuses to become one. A function or keyword that CuPy
14.2 lacks (``cupy_names.json``, read from CuPy itself) is an error, and so are mixing with
host arrays, looking at a value without saying so (`synchronising`), and a float64 result
of float32 operands. Memory from ``empty`` is NaN, and of several values assigned to one
place a random one wins.
"""

from __future__ import annotations

import contextlib
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minitransformer.backend import cublas

from . import fake_cublas
from .shim import Program

NAMES = json.loads((Path(__file__).parent / "cupy_names.json").read_text())
# looking at these is looking at values: the host waits for the device
SYNCHRONISING = {"nonzero", "flatnonzero", "argwhere", "unique", "allclose", "array_equal"}
_random = np.random.default_rng(0)
_synchronising = 0


@contextlib.contextmanager
def synchronising() -> Iterator[None]:
    """Allow the host to look at values on the device."""
    global _synchronising
    _synchronising += 1
    try:
        yield
    finally:
        _synchronising -= 1


def _wait(what: str) -> None:
    if not _synchronising:
        raise RuntimeError(f"{what} makes the host wait for the device")


class ndarray:
    """An array on the pretended device."""

    __slots__ = ("_a",)
    __array_ufunc__ = None  # NumPy's operators and functions refuse

    def __init__(self, a: np.ndarray) -> None:
        self._a = a

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use .get()")

    def get(self) -> np.ndarray:
        _wait(".get()")
        return self._a.copy()

    @property
    def base(self) -> Any:
        return None if self._a.base is None else ndarray(self._a.base)

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=fake_cublas.address(self._a))

    @property
    def device(self) -> Any:
        return Device(0)

    def __len__(self) -> int:
        return len(self._a)

    def __repr__(self) -> str:
        return f"fake_cupy.ndarray{self._a.shape}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in NAMES["ndarray"]:
            raise AttributeError(f"cupy.ndarray has no attribute {name!r}")
        if name in ("item", "tolist"):
            _wait(f".{name}()")
        value = getattr(self._a, name)
        if _is_bfloat16(self._a):
            if name not in _BFLOAT16_METHODS:
                raise NotImplementedError(f"nobody vouches for cupy.ndarray.{name} of bfloat16")
            value = _in_float32(self._a, name) if name in ("sum", "prod") else value
        if not callable(value):
            return _wrap(value) if isinstance(value, np.ndarray) else value

        def method(*args: Any, **kwargs: Any) -> Any:
            refused = {"where", "initial"} & kwargs.keys()
            if refused:
                raise TypeError(f"cupy.ndarray.{name} takes no {refused}")
            return _checked(value(*_unwrap(args), **_unwrap(kwargs)), (self, *args), kwargs)

        return method

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        for part in index if isinstance(index, tuple) else (index,):
            if isinstance(part, ndarray) and part.dtype == bool:
                _wait("boolean indexing")
        return _wrap(self._a[_unwrap(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("cannot assign a NumPy array to a cupy.ndarray")
        index, value = _unwrap(index), _unwrap(value)
        if isinstance(index, np.ndarray) and index.ndim == 1 and index.dtype != bool:
            order = _random.permutation(len(index))  # duplicates: nobody knows who is last
            index = index[order]
            value = value[order] if np.ndim(value) == self._a.ndim else value
        self._a[index] = value

    def __bool__(self) -> bool:
        _wait("bool()")
        return bool(self._a)

    def __int__(self) -> int:
        _wait("int()")
        return int(self._a)

    def __float__(self) -> float:
        _wait("float()")
        return float(self._a)

    def __index__(self) -> int:
        _wait("an index")
        return self._a.__index__()


def _wrap(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    if isinstance(value, (tuple, list)):
        wrapped = [_wrap(v) for v in value]
        return type(value)(*wrapped) if hasattr(value, "_fields") else type(value)(wrapped)
    return value


def _unwrap(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: host and device arrays mixed")
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrap(v) for v in value)
    if isinstance(value, dict):
        return {k: _unwrap(v) for k, v in value.items()}
    return value


def _checked(value: Any, args: Any, kwargs: Any) -> Any:
    """Wrap a result, after a look at its type: float64 out of float32 is a silent slowdown."""
    given = [a.dtype for a in _leaves((args, kwargs)) if isinstance(a, ndarray)]
    halves = any(d.itemsize == 2 and d.kind in "fV" for d in given)
    narrow = (halves or np.float32 in given) and np.float64 not in given
    for out in _leaves(value):
        if narrow and isinstance(out, (np.ndarray, np.generic)) and out.dtype == np.float64:
            raise TypeError(f"float64 out of {sorted(map(str, set(given)))}")
    return _wrap(value)


def _is_bfloat16(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.name == "bfloat16"


# What NumPy does to bfloat16 as CuPy does: CuPy's ufuncs with a loop for it, and functions that
# only move elements. `where` and `clip` have none and give float32; a Python float does, too.
_BFLOAT16 = {
    "abs", "absolute", "add", "ceil", "concatenate", "copyto", "cos", "divide", "equal", "exp",
    "expand_dims", "flip", "floor", "full_like", "greater", "greater_equal", "isfinite", "isinf",
    "isnan", "less", "less_equal", "log", "log1p", "maximum", "minimum", "moveaxis", "multiply",
    "negative", "not_equal", "ones_like", "power", "reciprocal", "rint", "roll", "sign", "sin",
    "sqrt", "square", "stack", "subtract", "take", "take_along_axis", "tanh", "true_divide",
    "trunc", "zeros_like", "broadcast_to", "ascontiguousarray", "squeeze", "where", "clip",
    "may_share_memory",
}  # fmt: skip
_BFLOAT16_METHODS = {
    "any", "all", "argmax", "argmin", "astype", "copy", "dtype", "fill", "flags", "get", "item",
    "itemsize", "max", "min", "nbytes", "ndim", "prod", "ravel", "reshape", "shape", "size",
    "squeeze", "strides", "sum", "swapaxes", "take", "tolist", "transpose", "view", "T",
}  # fmt: skip


def _bfloat16_result(name: str, result: Any) -> Any:
    if name not in _BFLOAT16:
        raise NotImplementedError(f"nobody vouches for cupy.{name} of bfloat16")
    widened = name in ("where", "clip") and result.dtype.name == "bfloat16"
    return result.astype(np.float32) if widened else result


def _in_float32(a: np.ndarray, name: str) -> Any:
    """A sum or product that is rounded once, at its end."""

    def reduced(*args: Any, dtype: Any = None, **kwargs: Any) -> Any:
        wide = getattr(a.astype(np.float32), name)(*args, **kwargs)
        return np.asarray(wide).astype(dtype or a.dtype)

    return reduced


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for v in value:
            yield from _leaves(v)
    else:
        yield value


class _Function:
    """A function of the module that takes device arrays alone."""

    def __init__(self, name: str, function: Any) -> None:
        self.name, self.function = name, function
        self.entry = NAMES["functions"][name]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if "ufunc" in self.entry:
            allowed = {"out", "dtype", "casting"}
        else:
            allowed = set(self.entry["parameters"] or ())
        if not kwargs.keys() <= allowed and "kwargs" not in allowed:
            raise TypeError(f"cupy.{self.name} takes no {set(kwargs) - allowed}")
        if self.name in SYNCHRONISING:
            _wait(f"cupy.{self.name}")
        result = self.function(*_unwrap(args), **_unwrap(kwargs))
        if any(isinstance(a, ndarray) and _is_bfloat16(a._a) for a in _leaves((args, kwargs))):
            result = _bfloat16_result(self.name, result)
        out = kwargs.get("out")
        return out if out is not None else _checked(result, args, kwargs)

    def __getattr__(self, method: str) -> Any:
        if method not in self.entry.get("ufunc", ()):
            raise AttributeError(f"cupy.{self.name} has no {method}")
        if method == "reduce" and self.name not in ("add", "multiply"):
            raise NotImplementedError(f"cupy.{self.name}.reduce")
        function = getattr(self.function, method)
        return lambda *a, **k: _checked(function(*_unwrap(a), **_unwrap(k)), a, k)


def _empty(make: Any) -> Any:
    def filled(*args: Any, **kwargs: Any) -> ndarray:
        a = make(*_unwrap(args), **_unwrap(kwargs))
        a.fill(
            np.nan if a.dtype.kind in "fV" else np.iinfo(a.dtype).max if a.dtype.kind in "iu" else 1
        )
        return ndarray(a)

    return filled


def _asarray(a: Any, dtype: Any = None, order: Any = None, **_: Any) -> ndarray:
    """Copy from the host: the one door in."""
    a = a._a if isinstance(a, ndarray) else np.array(a)
    return ndarray(a if dtype is None else a.astype(dtype, copy=False))


def _operator(name: str) -> Any:
    function = getattr(np.ndarray, name)

    def operate(self: ndarray, *others: Any) -> Any:
        if "matmul" in name and _is_bfloat16(self._a):
            raise NotImplementedError("cupy.matmul of bfloat16 fails beyond two dimensions")
        result = function(self._a, *_unwrap(others))
        if result is NotImplemented:
            return NotImplemented
        if name.startswith("__i") and name not in ("__invert__",):
            return self  # in place: the same array, with its own type
        return _checked(result, (self, *others), {})

    return operate


for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
):
    for _form in ("__{}__", "__r{}__", "__i{}__"):
        if hasattr(np.ndarray, _form.format(_name)):
            setattr(ndarray, _form.format(_name), _operator(_form.format(_name)))
for _name in ("neg", "pos", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
ndarray.__hash__ = None  # type: ignore[assignment]


def _module(name: str, prefix: str, source: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    for full in NAMES["functions"]:
        head, _, tail = full.rpartition(".")
        if (head + "." if head else "") == prefix and hasattr(source, tail):
            setattr(module, tail, _Function(full, getattr(source, tail)))
    return module


class RawModule:
    """The CUDA kernels themselves, run by the shim."""

    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        defines = dict(o[2:].split("=") for o in options if o.startswith("-D"))
        self.program = Program(code, defines=defines)

    def get_function(self, name: str) -> Any:
        def run(
            grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...],
            *, shared_mem: int = 0,
        ) -> None:  # fmt: skip
            asked = getattr(run, "max_dynamic_shared_size_bytes", 48 << 10)
            assert shared_mem <= asked, f"{shared_mem} bytes of shared memory, {asked} allowed"
            if not all(
                isinstance(a, (ndarray, np.generic)) or (a.ndim == 0 and a.dtype.names)
                for a in arguments
            ):
                raise TypeError(f"{name}: CuPy would pass Python numbers as 64 bits: {arguments}")
            plain = [
                a._a if isinstance(a, ndarray) else None if a.dtype == np.uint64 and "*" in p else a
                for a, p in zip(arguments, self.program.kernels[name])
            ]
            self.program(name, grid[:2], block[0], *plain, shared=shared_mem)

        return run


class Device(contextlib.nullcontext[None]):
    """The one pretended device."""

    compute_capability = "90"

    def __init__(self, number: int = 0) -> None:
        super().__init__()
        self.id = number


def make() -> types.ModuleType:
    """Return a module to stand in for ``cupy``."""
    cupy = _module("cupy", "", np)
    cupy.linalg = _module("cupy.linalg", "linalg.", np.linalg)  # type: ignore[attr-defined]
    cupy.ndarray = ndarray  # type: ignore[attr-defined]
    for name in ("empty", "empty_like"):
        setattr(cupy, name, _empty(getattr(np, name)))
    for name in ("asarray", "array"):
        setattr(cupy, name, _asarray)
    for name in ("float16", "float32", "float64", "int64", "int32", "uint32", "bool_", "newaxis",
                 "inf", "nan", "pi", "finfo", "iinfo", "dtype", "broadcast_shapes"):  # fmt: skip
        setattr(cupy, name, getattr(np, name))
    cupy.RawModule = RawModule  # type: ignore[attr-defined]
    cupy.__version__ = fake_cublas.NAMES["cupy"]  # type: ignore[attr-defined]
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        CUDARuntimeError=RuntimeError,
        **fake_cublas.NAMES["runtime"],
    )
    cupy.cuda = types.SimpleNamespace(  # type: ignore[attr-defined]
        runtime=runtime,
        Device=Device,
        device=types.SimpleNamespace(get_cublas_handle=lambda: fake_cublas.HANDLE),
    )
    return cupy


@contextlib.contextmanager
def installed() -> Iterator[types.ModuleType]:
    """Let ``import cupy`` find the stand-in."""
    ndarray.__module__ = "cupy"
    libraries = types.ModuleType("cupy_backends.cuda.libs")
    libraries.cublas = fake_cublas.make()  # type: ignore[attr-defined]
    pretended = {"cupy": make(), "cupy_backends.cuda.libs": libraries}
    pretended |= {name: types.ModuleType(name) for name in ("cupy_backends", "cupy_backends.cuda")}
    before = {name: sys.modules.get(name) for name in pretended}
    sys.modules.update(pretended)
    if before["cupy"] is not None:  # what is known of a real device is not true of this one
        cublas._bindings.cache_clear()
    try:
        with synchronising():
            cublas._bindings(0)  # its self-test looks at values
        yield pretended["cupy"]
    finally:
        if before["cupy"] is not None:
            cublas._bindings.cache_clear()
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
