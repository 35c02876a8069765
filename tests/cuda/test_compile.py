"""Every `.cu` file compiled for real by NVRTC, which needs no GPU."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minitransformer.kernels.cuda.attention import _tensor_rung
from minitransformer.kernels.cuda.grid import WIDEST, team

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

    def log(self, file: str, scalar: str, arch: int, **defines: int) -> tuple[bool, str]:
        """Return whether there is machine code, and what the compiler and the assembler said."""
        source = TYPES[scalar] + (SOURCES / file).read_text()
        program = ctypes.c_void_p()
        assert not self.library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), file.encode(), 0, None, None
        )
        options = [
            f"-arch=sm_{arch}", "-std=c++17", f"-DSCALAR={scalar}", f"-I{SOURCES}",
            f"-I{self.include}", f"-I{self.cccl}", "--ptxas-options=-v",
            *(f"-D{name}={value}" for name, value in defines.items()),
        ]  # fmt: skip
        values = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        failed = self.library.nvrtcCompileProgram(program, len(options), values)
        size = ctypes.c_size_t()
        assert not self.library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetProgramLog(program, log)
        if not failed:
            assert not self.library.nvrtcGetCUBINSize(program, ctypes.byref(size))
            assert size.value > 500, "the machine code is empty"
        return not failed, log.value.decode()


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    folder = tmp_path_factory.mktemp("nvrtc")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, *WHEELS], check=True, capture_output=True)
    return Compiler(folder)


KERNELS = [
    (path.name, scalar)
    for path in sorted(SOURCES.glob("*.cu"))
    for scalar in TYPES
    if scalar != "float" or "mma" not in path.name  # tensor cores take halves
]


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize(("file", "scalar"), KERNELS)
def test_compiles(compiler: Compiler, file: str, scalar: str, arch: int) -> None:
    made, log = compiler.log(file, scalar, arch)
    assert made, log


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("head", [16, 32, 48, 64, 80, 96, 128])
@pytest.mark.parametrize("scalar", ["__half", "__nv_bfloat16"])
def test_tensor_core_attention_stays_in_registers(
    compiler: Compiler, scalar: str, head: int, arch: int
) -> None:
    made, log = compiler.log("attention_mma.cu", scalar, arch, **_tensor_rung(head).defines)
    assert made, log
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill stores", log)]
    assert len(spills) >= 3
    assert max(spills) <= 64, log  # words of a mask or an address, no part of an accumulator


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("width", [128, 768, 1024, 4096, WIDEST])
@pytest.mark.parametrize("scalar", ["float", "__nv_bfloat16"])
@pytest.mark.parametrize("file", ["layer_norm.cu", "softmax.cu"])
def test_rows_stay_in_registers(
    compiler: Compiler, file: str, scalar: str, width: int, arch: int
) -> None:
    by = team(width, np.dtype(np.float32 if scalar == "float" else np.float16))
    made, log = compiler.log(file, scalar, arch, **by.defines)
    assert made, log
    assert set(re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill", log)) == {("0", "0")}, log


@pytest.mark.slow
def test_what_strides_over_memory_has_nothing_in_it(compiler: Compiler) -> None:
    """An array indexed at run time, or a table of arguments, would be copied to local memory."""
    for file in (
        "activation.cu",
        "optimizer.cu",
        "cross_entropy.cu",
        "dropout.cu",
        "scatter_sum.cu",
    ):
        for scalar in ("float", "__nv_bfloat16"):
            made, log = compiler.log(file, scalar, 90)
            assert made, log
            frames = set(re.findall(r"(\d+) bytes stack frame", log))
            assert frames == {"0"}, f"{file} {scalar}: {log}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "scalar"), [("attention.cu", "float"), ("attention_mma.cu", "__nv_bfloat16")]
)
def test_attention_compiles_with_dropout(compiler: Compiler, file: str, scalar: str) -> None:
    made, log = compiler.log(file, scalar, 90, DROPOUT=1)
    assert made, log


@pytest.mark.slow
def test_a_broken_kernel_is_noticed(compiler: Compiler, tmp_path: Path) -> None:
    broken = tmp_path / "broken.cu"
    broken.write_text('extern "C" __global__ void f(float *x) { x[0] = undeclared; }')
    made, log = compiler.log(str(broken), "float", 80)
    assert not made and "undeclared" in log
