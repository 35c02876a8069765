"""Memory is freed as backward walks; attention's is linear; a step needs no more than PyTorch's."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.autograd import Tensor
from minitransformer.backend import get_num_threads, memory, set_num_threads
from minitransformer.kernels.attention import attention_backward, attention_forward
from minitransformer.models.gpt import GPT, GPTConfig

CONFIG = GPTConfig(vocab_size=65, n_positions=64, n_embd=64, n_layer=3, n_head=4, dropout=0.0)


def test_nothing_but_gradients_is_alive_after_backward() -> None:
    model = GPT(CONFIG)
    ids = np.random.default_rng(0).integers(0, 65, (4, 64))
    for _ in range(2):  # from here on gradients exist, and the memory to make them in
        model(ids, labels=ids).loss.backward()
    threads = get_num_threads()
    gc.disable()  # what lives must not need the collector
    try:
        set_num_threads(1)  # another may need its first scratch array only now
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        model(ids, labels=ids).loss.backward()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()
        set_num_threads(threads)
    activations = 4 * 64 * 64 * 4  # one (B, L, D) float32 array
    assert after - before < activations


def test_an_intermediate_array_dies_while_backward_walks() -> None:
    x = Tensor(np.ones((64, 64), np.float32), requires_grad=True)
    y = x * 2.0
    z = y.exp()
    early, late = weakref.ref(z.array), []
    # x * 2 runs last in backward; by then exp's output must be gone
    y.register_hook(lambda gradient: late.append(early()))
    loss = z.sum()
    del z
    loss.backward()
    assert late == [None]


def test_no_grad_keeps_nothing() -> None:
    model = GPT(CONFIG)
    with mt.no_grad():
        logits = model(np.zeros((1, 8), np.int64)).logits
    assert logits.node is None


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_attention_memory_is_linear_in_the_length(direction: str) -> None:
    def peak(length: int) -> int:
        rng = np.random.default_rng(0)
        Q, K, V = (rng.standard_normal((1, 1, length, 16), np.float32) for _ in range(3))
        out, saved = attention_forward(Q, K, V, is_causal=True)
        memory._free.clear()  # or what earlier calls left would serve one length and not the other
        memory._buffers = threading.local()
        tracemalloc.start()
        if direction == "forward":
            attention_forward(Q, K, V, is_causal=True)
        else:
            attention_backward(out, saved)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    # four times the length: a matrix of scores would take sixteen times the memory
    assert peak(16384) < 5 * peak(4096)


STEP = """
import sys
from minitransformer.bench.models import MODELS, our_model, our_step, torch_model, torch_step
model = MODELS["10.8M"]._replace(layers=4, batch=8)
if sys.argv[1] == "ours":
    step = our_step(model, our_model(model))
else:
    import torch
    torch.set_num_threads(1)
    step = torch_step(model, torch_model(model, torch), torch)
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if name in line)
with open("/proc/self/clear_refs", "w") as control:
    control.write("5")  # the peak starts anew: building a model may have taken more
before = kilobytes("VmRSS")
for _ in range(2):
    step()
print(kilobytes("VmHWM") - before)
"""


def test_a_training_step_needs_no_more_memory_than_in_pytorch() -> None:
    pytest.importorskip("torch")
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read from Linux")

    def growth(side: str) -> int:
        command = [sys.executable, "-c", STEP, side]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        return int(done.stdout)

    ours, theirs = growth("ours"), growth("theirs")
    assert ours <= 1.05 * theirs, f"{ours} KiB against PyTorch's {theirs} KiB"
