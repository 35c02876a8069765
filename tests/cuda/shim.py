"""Compile a `.cu` file for the CPU and call its kernels on NumPy arrays."""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minitransformer.backend.cuda import signatures

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "minitransformer" / "kernels" / "cuda"
_TYPES = {
    "int": ctypes.c_int,
    "long long": ctypes.c_longlong,
    "float": ctypes.c_float,
    "unsigned": ctypes.c_uint,
    "u64": ctypes.c_ulonglong,
}
STORAGE = {"float": "float32", "__half": "float16", "__nv_bfloat16": "bfloat16"}
_folder = tempfile.TemporaryDirectory(prefix="minitransformer-shim-")  # gone at exit
_built = Path(_folder.name)


class Program:
    """One compiled `.cu` text; ``program(name, grid, threads, *arguments)`` runs a kernel.

    `mistakes` are (old, new) replacements in the source, each of which must apply: a
    planted mistake that finds nothing to spoil would prove nothing.
    """

    def __init__(
        self,
        source: str,
        *,
        defines: Mapping[str, Any] = {},
        mistakes: tuple[tuple[str, str], ...] = (),
    ) -> None:
        source = self.whole(source)
        for old, new in mistakes:
            assert old in source, f"nothing to spoil: {old!r} is not in the source"
            source = source.replace(old, new, 1)
        self.kernels, self.defines = signatures(source), dict(defines)
        self.scalar = STORAGE[str(defines.get("SCALAR", "float"))]
        doors = "\n".join(_door(name, p) for name, p in self.kernels.items())
        flags = [f"-D{key}={value}" for key, value in defines.items()]
        text = f'#include "shim.h"\n{source}\n{doors}\n'
        library = _built / (hashlib.sha256((text + str(flags)).encode()).hexdigest() + ".so")
        if not library.exists():
            compiler = shutil.which("g++") or shutil.which("c++")
            assert compiler, "the CUDA kernels' CPU tests need a C++ compiler (g++)"
            code = library.with_suffix(".cpp")
            code.write_text(text)
            subprocess.run(
                [compiler, "-std=c++17", "-O1", "-w", "-fPIC", "-shared", f"-I{HERE}", *flags,
                 str(code), "-o", str(library)],
                check=True,
            )  # fmt: skip
        self.library = ctypes.CDLL(str(library))

    @staticmethod
    def whole(source: str) -> str:
        """Return `source` with the package's headers in it."""
        source = re.sub(r"#include <cuda_\w+\.h>\n", "", source)  # their types are in shim.h
        return _with_headers(source, set())

    def __call__(
        self, name: str, grid: tuple[int, ...], threads: int, *arguments: Any, shared: int = 0,
        seed: int = 0,
    ) -> None:  # fmt: skip
        parameters = self.kernels[name]
        assert len(parameters) == len(arguments), f"{name} takes {parameters}"
        converted = [_convert(p, a, self.scalar) for p, a in zip(parameters, arguments)]
        door = getattr(self.library, f"run_{name}")
        door.restype = ctypes.c_char_p
        x, y = (*grid, 1)[:2]
        fault = door(*map(ctypes.c_uint, (x, y, threads, shared, seed)), *converted)
        if fault:
            raise RuntimeError(f"{name}: {fault.decode()}")


def compiled(file: str, mistakes: tuple[tuple[str, str], ...] = (), **defines: Any) -> Program:
    """Compile one of the package's files, spoiled or not."""
    return Program((SOURCES / file).read_text(), defines=defines, mistakes=mistakes)


def _with_headers(source: str, seen: set[str]) -> str:
    """Return `source` with the package's own headers written out, each once."""

    def header(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return ""
        seen.add(name)
        return _with_headers((SOURCES / name).read_text().replace("#pragma once", ""), seen)

    return re.sub(r'#include "(\w+\.cuh)"', header, source)


def _door(name: str, parameters: list[str]) -> str:
    """Return a C function that starts a kernel on the fibers."""
    names = ", ".join(re.findall(r"(\w+)$", p)[0] for p in parameters)
    return (
        f'extern "C" const char *run_{name}(unsigned shim_x, unsigned shim_y, '
        "unsigned shim_threads, unsigned shim_shared, unsigned shim_seed, "
        f"{', '.join(parameters)}) {{\n"
        f"  return shim::run(dim3{{shim_x, shim_y, 1}}, shim_threads, shim_shared, "
        f"shim_seed, [=] {{ {name}({names}); }});\n}}"
    )


def _convert(parameter: str, value: Any, scalar: str) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.names:  # a structure, by value
        assert value.nbytes <= 4096 - 64, "a kernel takes 4 KiB of arguments"

        class Structure(ctypes.Structure):
            _fields_ = (("words", ctypes.c_ulonglong * (value.nbytes // 8)),)

        return Structure.from_buffer_copy(value)
    if "*" in parameter:
        if value is None:
            return ctypes.c_void_p(None)
        assert isinstance(value, np.ndarray), parameter
        assert value.flags.c_contiguous or "strided" in parameter, parameter
        kind = parameter.removeprefix("const ").split("*")[0].strip()
        expected = {"scalar": scalar, "strided": scalar, "float": "float32", "long long": "int64",
                    "unsigned": "uint32", "unsigned char": "uint8",
                    "strided_bool": "uint8"}[kind]  # fmt: skip
        assert value.dtype == expected or (expected == "uint8" and value.dtype == bool), (
            f"{parameter} got {value.dtype}"
        )
        return ctypes.c_void_p(value.ctypes.data)
    return _TYPES[parameter.rsplit(" ", 1)[0]](value)
