"""Every `.cu` file compiled for real by NVRTC, which needs no GPU."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from .shim import SOURCES

# NVRTC itself, and the packages that hold cuda_fp16.h, cuda_bf16.h and what they include
WHEELS = [f"nvidia-cuda-{part}==13.0.*" for part in ("nvrtc", "runtime", "crt", "cccl")]
TYPES = {
    "float": "",
    "__half": "#include <cuda_fp16.h>\n",
    "__nv_bfloat16": "#include <cuda_bf16.h>\n",
}


class Compiler:
    """NVRTC through ctypes."""

    def __init__(self, folder: Path) -> None:
        # loaded first, because NVRTC looks for its builtins by name alone
        ctypes.CDLL(str(next(folder.rglob("libnvrtc-builtins.so.*"))), ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(next(folder.rglob("libnvrtc.so.*"))))
        self.include = next(folder.rglob("cuda_fp16.h")).parent
        self.cccl = next((p.parent.parent for p in folder.rglob("nv/target")), self.include)

    def errors(self, file: str, scalar: str, arch: int) -> str:
        """Return the compiler's log, empty where it made machine code."""
        source = TYPES[scalar] + (SOURCES / file).read_text()
        program = ctypes.c_void_p()
        assert not self.library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), file.encode(), 0, None, None
        )
        options = [
            f"-arch=sm_{arch}", "-std=c++17", f"-DSCALAR={scalar}", f"-I{SOURCES}",
            f"-I{self.include}", f"-I{self.cccl}",
        ]  # fmt: skip
        values = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        failed = self.library.nvrtcCompileProgram(program, len(options), values)
        size = ctypes.c_size_t()
        query = self.library.nvrtcGetProgramLogSize if failed else self.library.nvrtcGetCUBINSize
        assert not query(program, ctypes.byref(size))
        if not failed:
            return "" if size.value > 500 else "the machine code is empty"
        log = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetProgramLog(program, log)
        return log.value.decode() or "failed without a log"


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    folder = tmp_path_factory.mktemp("nvrtc")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, *WHEELS], check=True, capture_output=True)
    return Compiler(folder)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("scalar", TYPES)
@pytest.mark.parametrize("file", sorted(path.name for path in SOURCES.glob("*.cu")))
def test_compiles(compiler: Compiler, file: str, scalar: str, arch: int) -> None:
    assert compiler.errors(file, scalar, arch) == ""


@pytest.mark.slow
def test_a_broken_kernel_is_noticed(compiler: Compiler, tmp_path: Path) -> None:
    broken = tmp_path / "broken.cu"
    broken.write_text('extern "C" __global__ void f(float *x) { x[0] = undeclared; }')
    assert "undeclared" in compiler.errors(str(broken), "float", 80)
