"""Loading and launching CUDA kernels through CuPy.

A ``.cu`` file is compiled on first use, once per storage type. Arguments are converted
by the kernel's own declaration, because CuPy would pass a Python float as a double and
an int as 64 bits whatever the kernel expects.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Array

_SIGNATURE = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)', re.S)
_SCALARS = {
    "int": np.int32,
    "long long": np.int64,
    "float": np.float32,
    "unsigned": np.uint32,
    "u64": np.uint64,
}
_STORAGE = {"float32": "float", "float16": "__half"}
_HEADERS = {"float": "", "__half": "#include <cuda_fp16.h>\n"}
_POINTERS = {
    "float": "float32",
    "long long": "int64",
    "unsigned": "uint32",
    "unsigned char": "bool",
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
    dtype: Any = np.float32, **defines: int,
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
        In the order of the declaration; ``None`` is a null pointer.
    dtype : dtype
        The storage type, ``scalar`` in the source.
    **defines : int
        Constants to compile in.

    Raises
    ------
    TypeError
        If an argument is not what the declaration says.
    """
    storage = _STORAGE[np.dtype(dtype).name]
    declared = _declarations(path)[kernel]
    if len(declared) != len(arguments):
        raise TypeError(f"{kernel} takes {len(declared)} arguments, found {len(arguments)}")
    function = _module(path, storage, tuple(sorted(defines.items()))).get_function(kernel)
    function(
        (*grid, 1, 1)[:3],
        (threads, 1, 1),
        tuple(_converted(kernel, p, a, dtype) for p, a in zip(declared, arguments)),
    )


@functools.cache
def _declarations(path: Path) -> dict[str, list[str]]:
    return signatures(path.read_text())


def _converted(kernel: str, parameter: str, value: Any, dtype: Any) -> Any:
    if "*" not in parameter:
        return _SCALARS[parameter.rsplit(" ", 1)[0]](value)
    if value is None:
        return np.uint64(0)
    pointed = parameter.removeprefix("const ").split("*")[0].strip()
    expected = np.dtype(_POINTERS.get(pointed, dtype))
    if value.dtype != expected or not value.flags.c_contiguous:
        raise TypeError(
            f"{kernel}: {parameter} needs a contiguous {expected} array, found {value.dtype}"
        )
    return value


def fits(*arrays: Array | None) -> bool:
    """Return whether CUDA kernels take these: on a GPU, not empty, all float32 or all float16."""
    types = {a.dtype.name for a in arrays if a is not None}
    return (
        not isinstance(arrays[0], (np.ndarray, np.generic))
        and len(types) == 1
        and types <= _STORAGE.keys()
        and all(a.size for a in arrays if a is not None)
    )
