"""Out-of-bounds accesses and races of the kernels, by NVIDIA's own checker."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.gpu

# Every array is an allocation of its own, so that one byte beyond it is seen.
PROGRAM = """
import cupy
cupy.cuda.set_allocator(None)
import minitransformer as mt
from minitransformer.bench.models import Model, our_model, our_step
F = mt.nn.functional
for dtype in ("float32", "bfloat16"):
    model = Model("small", 1, 48, 3, 37, 2, 65)
    step = our_step(model, our_model(model).to("cuda"), dtype)
    print(dtype, float(step()))
for dtype in (mt.float32, mt.float16, mt.bfloat16):
    for E in (17, 64, 128):
        q = mt.randn(1, 2, 70, E, device="cuda").to(dtype).requires_grad_()
        mask = mt.ones(70, 70, device="cuda").tril().bool()
        F.scaled_dot_product_attention(q, q, q, attn_mask=mask).sum().backward()
        F.dropout(F.softmax(q, -1), 0.3).sum().backward()
print("finished")
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_the_sanitizer_finds_nothing(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not on the PATH")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "finished" in done.stdout
