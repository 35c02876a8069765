"""Loading and launching CUDA kernels through CuPy.

A ``.cu`` file is compiled on first use, once per storage type. Arguments are converted
by the kernel's own declaration, because CuPy would pass a Python float as a double and
an int as 64 bits whatever the kernel expects.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Array

_SIGNATURE = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(([^)]*)\)', re.S
)
_SCALARS = {
    "int": np.int32,
    "long long": np.int64,
    "float": np.float32,
    "unsigned": np.uint32,
    "u64": np.uint64,
}
_NULL = np.uint64(0)
_STORAGE = {"float32": "float", "float16": "__half", "bfloat16": "__nv_bfloat16"}
_HEADERS = {
    "float": "",
    "__half": "#include <cuda_fp16.h>\n",
    "__nv_bfloat16": "#include <cuda_bf16.h>\n",
}
_POINTERS = {
    "float": "float32",
    "long long": "int64",
    "unsigned": "uint32",
    "unsigned char": "bool",
    "strided_bool": "bool",
}


def signatures(source: str) -> dict[str, list[str]]:
    """Return the parameter declarations of every kernel in a ``.cu`` text.

    Examples
    --------
    >>> signatures('extern "C" __global__ void f(const float *x, int n) {}')
    {'f': ['const float *x', 'int n']}
    """
    return {
        name: [" ".join(p.split()) for p in parameters.split(",")]
        for name, parameters in _SIGNATURE.findall(source)
    }


@functools.cache
def _module(path: Path, storage: str, defines: tuple[tuple[str, int], ...]) -> Any:
    import cupy

    options = ("-std=c++17", f"-DSCALAR={storage}", f"-I{path.parent}")
    return cupy.RawModule(
        code=_HEADERS[storage] + path.read_text(),
        options=options + tuple(f"-D{name}={value}" for name, value in defines),
    )


def launch(
    path: Path, kernel: str, grid: tuple[int, ...], threads: int, *arguments: Any,
    dtype: Any = np.float32, shared: int = 0, **defines: int,
) -> None:  # fmt: skip
    """Start a kernel of the file `path`.

    Parameters
    ----------
    path : Path
        The ``.cu`` file.
    kernel : str
        Which of its kernels.
    grid : tuple of int
        Blocks per axis.
    threads : int
        Of a block.
    *arguments : array, number or None
        In the order of the declaration; ``None`` is a null pointer, and a structure taken by
        value is a 0-d NumPy array of its layout.
    dtype : dtype
        The storage type, ``scalar`` in the source.
    shared : int
        Bytes of shared memory of a block, besides what the source declares.
    **defines : int
        Constants to compile in.

    Raises
    ------
    TypeError
        If an argument is not what the declaration says.
    """
    function, converters = _prepared(path, kernel, dtype, shared, tuple(defines.items()))
    if len(converters) != len(arguments):
        raise TypeError(f"{kernel} takes {len(converters)} arguments, found {len(arguments)}")
    values = tuple([convert(a) for convert, a in zip(converters, arguments)])
    function(grid, (threads,), values, shared_mem=shared)


@functools.cache
def _prepared(
    path: Path, kernel: str, dtype: Any, shared: int, defines: tuple[tuple[str, int], ...]
) -> tuple[Any, list[Callable[[Any], Any]]]:
    """Return a compiled kernel and what converts each of its arguments, once per kernel.

    The function is kept, because CuPy looks a new one up in the driver at its first launch.
    """
    module = _module(path, _STORAGE[np.dtype(dtype).name], tuple(sorted(defines)))
    parameters = signatures(path.read_text())[kernel]
    function = module.get_function(kernel)
    if shared:
        function.max_dynamic_shared_size_bytes = shared  # more than 48 KiB must be asked for
    return function, [_converter(kernel, p, dtype) for p in parameters]


def _converter(kernel: str, parameter: str, dtype: Any) -> Callable[[Any], Any]:
    kind = parameter.removeprefix("const ").rsplit(" ", 1)[0]
    if "*" not in parameter:
        return _SCALARS.get(kind, _structure)
    strided = kind.startswith("strided")  # the kernel gets the strides too
    expected = np.dtype(_POINTERS.get(kind, dtype))

    def pointer(value: Any) -> Any:
        if value is None:
            return _NULL
        if value.dtype != expected or not (strided or value.flags.c_contiguous):
            raise TypeError(
                f"{kernel}: {parameter} needs a contiguous {expected} array, found {value.dtype}"
            )
        return value

    return pointer


def _structure(value: Any) -> Any:
    """A structure that the kernel takes by value: CuPy passes a 0-d array of records so."""
    assert isinstance(value, np.ndarray) and not value.ndim and value.dtype.names
    return value


def fits(*arrays: Array | None) -> bool:
    """Return whether CUDA kernels take these: on a GPU, not empty, of one type that they store."""
    first: Any = arrays[0]
    if first is None or isinstance(first, (np.ndarray, np.generic)):
        return False
    dtype = first.dtype
    return _stored(dtype) and all(a is None or (a.size > 0 and a.dtype == dtype) for a in arrays)


@functools.cache
def _stored(dtype: Any) -> bool:
    return dtype.name in _STORAGE
