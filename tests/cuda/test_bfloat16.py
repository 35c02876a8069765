"""bfloat16 on the strict device: every kernel on the tape, modules, and training under autocast."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.autograd import Tensor, record
from minitransformer.models.checkpoint import read_safetensors, write_safetensors
from tests.device import nested
from tests.kernels.cases import CASES, Case, Problem
from tests.kernels.check import as_tuple, pair_of, reference_options, run_torch, upstream
from tests.tolerance import assert_close

from . import fake_cupy
from .test_device import there

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# a move to the CPU is refused, a cast has its own type, and a boolean mask makes the host wait
ELSEWHERE = {"cast", "move"}


@pytest.fixture
def cupy() -> Iterator[types.ModuleType]:
    mt.bfloat16  # noqa: B018 the kernels look out for it from now on
    with fake_cupy.installed() as module:
        yield module


def host(x: Any) -> np.ndarray:
    with fake_cupy.synchronising():
        return (x.array if isinstance(x, Tensor) else x).get()


def rounded(a: np.ndarray | None) -> np.ndarray | None:
    """Values that bfloat16 holds, in float64."""
    if a is None or a.dtype.kind != "f":
        return a
    return a.astype(BFLOAT16).astype(np.float64)


def torch_in_bfloat16(case: Case, problem: Problem, options: Any, douts: list[Any]) -> Any:
    """PyTorch's own results in bfloat16, or None where it has none."""
    tensors = [
        None
        if a is None
        else torch.from_numpy(np.array(a)).bfloat16().requires_grad_(i not in case.inert)
        if a.dtype.kind == "f"
        else torch.from_numpy(np.array(a))
        for i, a in enumerate(map(rounded, problem.arrays))
    ]
    try:
        outs = as_tuple(case.torch(*tensors, **options))
        wanted = [t for t in tensors if t is not None and t.requires_grad]
        heads = [(o, torch.from_numpy(np.array(d)).to(o)) for o, d in zip(outs, douts)
                 if o.requires_grad]  # fmt: skip
        grads = iter(
            torch.autograd.grad(
                [o for o, _ in heads], wanted, [d for _, d in heads], allow_unused=True
            )
        )
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None
    if any(o.dtype != torch.bfloat16 for o in outs if o.is_floating_point()):
        return None
    found = [next(grads) if t is not None and t.requires_grad else None for t in tensors]
    return [[None if t is None else numbers(t) for t in some] for some in (outs, found)]


def numbers(t: torch.Tensor) -> np.ndarray:
    t = t.detach()
    return t.float().numpy().astype(BFLOAT16) if t.dtype == torch.bfloat16 else t.numpy()


def nearest(exact: np.ndarray) -> np.ndarray:
    """The best that bfloat16 can do: the naive form where PyTorch has none."""
    return exact.astype(BFLOAT16) if exact.dtype.kind == "f" else exact


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.name not in ELSEWHERE], ids=repr)
@settings(
    max_examples=4, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_kernels_on_the_tape(case: Case, data: st.DataObject, cupy: Any) -> None:
    problem = data.draw(case.problems)
    doubles = [rounded(a) for a in problem.arrays]
    options = reference_options(problem, np.float32)
    with np.errstate(all="ignore"):
        exact = [np.asarray(o) for o in as_tuple(case.reference(*doubles, **options))]
    douts = [
        rounded(upstream(o.shape, problem, i)) if o.dtype.kind == "f" else None
        for i, o in enumerate(exact)
    ]
    plain = torch_in_bfloat16(case, problem, options, douts) if case.torch else None
    outs_of_torch, grads_of_torch = plain or (None, None)

    tensors = [
        None if a is None else Tensor(there(a.astype(BFLOAT16) if a.dtype.kind == "f" else a))
        for a in doubles
    ]
    for i, t in enumerate(tensors):
        if t is not None and t.is_floating_point():
            t.requires_grad_(i not in case.inert)
    given_options = dict(problem.options)
    if "index" in given_options:
        given_options["index"] = nested(there)(given_options["index"])
    with fake_cupy.synchronising():
        out = record(*pair_of(case), *tensors, **given_options, **problem.extras)
        outs = as_tuple(out)
        for tensor, dout in zip(outs, douts):
            if tensor.requires_grad:
                tensor.backward(Tensor(there(dout.astype(BFLOAT16))), retain_graph=True)
    size, sizes = 0.0, (0.0,) * len(tensors)
    if case.terms is not None:
        size, sizes = case.terms(doubles, options, douts[0])
    for i, (tensor, truth) in enumerate(zip(outs, exact)):
        ours = host(tensor)
        if truth.dtype.kind == "f":
            assert ours.dtype == BFLOAT16, f"output {i} is {ours.dtype}"
            truth = truth.astype(np.float64)
        naive = outs_of_torch[i] if outs_of_torch else nearest(truth)
        if naive.shape != truth.shape:
            naive = nearest(truth)
        assert_close(ours, truth, naive, "forward", f"output {i}", size=size)
    if case.torch is None:
        return
    truths = run_torch(case, doubles, options, douts).grads
    for i, (tensor, truth) in enumerate(zip(tensors, truths)):
        if truth is None or i in {*case.inert, *problem.inert}:
            continue
        ours = host(tensor.grad)
        assert ours.dtype == BFLOAT16, f"gradient {i} is {ours.dtype}"
        naive = grads_of_torch[i] if grads_of_torch and grads_of_torch[i] is not None else None
        naive = nearest(truth) if naive is None else naive
        assert_close(ours, truth, naive, "backward", f"gradient {i}", size=sizes[i])


# -- modules and training -----------------------------------------------------------------

WIDTH, CLASSES, STEPS = 16, 11, 4


def layers(nn: Any) -> Any:
    """A small transformer, of either library."""
    return nn.ModuleList(
        [
            nn.Embedding(CLASSES, WIDTH),
            nn.TransformerEncoderLayer(
                WIDTH, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            ),
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, CLASSES),
        ]
    )


def loss_of(model: Any, functional: Any, ids: Any, labels: Any) -> Any:
    embedding, block, norm, head = model
    logits = head(norm(block(embedding(ids))))
    return functional.cross_entropy(logits.view(-1, CLASSES), labels.view(-1))


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, CLASSES, (3, 8)), rng.integers(0, CLASSES, (3, 8))


def initial() -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    return {k: v.numpy() for k, v in layers(torch.nn).state_dict().items()}


def torch_training(double: bool) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses and first gradients of PyTorch on the CPU, in float64 or under bfloat16 autocast."""
    model = layers(torch.nn)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in initial().items()})
    model = model.double() if double else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids, labels = map(torch.from_numpy, batch())
    losses, gradients = [], {}
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not double):
            loss = loss_of(model, torch.nn.functional, ids, labels)
        loss.backward()
        gradients = gradients or {k: p.grad.numpy().copy() for k, p in model.named_parameters()}
        optimizer.step()
        losses.append(loss.item())
    return losses, gradients


def test_training_under_autocast_is_as_near_to_float64_as_pytorchs(cupy: Any) -> None:
    truth, theirs = torch_training(True), torch_training(False)
    model = layers(mt.nn)
    model.load_state_dict(initial())
    model.to("cuda")
    optimizer = mt.optim.AdamW(model.parameters(), lr=1e-2)
    ids, labels = (mt.tensor(a, device="cuda") for a in batch())
    losses, gradients = [], {}
    for _ in range(STEPS):
        optimizer.zero_grad()
        with mt.autocast("cuda", dtype=mt.bfloat16):
            loss = loss_of(model, mt.nn.functional, ids, labels)
        assert loss.dtype == mt.float32
        loss.backward()
        gradients = gradients or {k: host(p.grad) for k, p in model.named_parameters()}
        optimizer.step()
        with fake_cupy.synchronising():
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32  # the master weights' own type
        exact, plain = truth[1][name], theirs[1][name]
        size = float(np.abs(exact).max())
        assert_close(
            gradient.astype(BFLOAT16), exact, plain.astype(BFLOAT16), "backward", name, size=size
        )
    for step, (ours, exact, plain) in enumerate(zip(losses, truth[0], theirs[0])):
        ours, plain = (np.asarray(x).astype(BFLOAT16) for x in (ours, plain))
        assert_close(ours, np.asarray(exact), plain, name=f"loss {step}")


def test_a_module_in_bfloat16(cupy: Any) -> None:
    model = layers(mt.nn)
    model.load_state_dict(initial())
    model.to("cuda", mt.bfloat16)
    assert {p.dtype for p in model.parameters()} == {mt.bfloat16}
    ids, labels = (mt.tensor(a, device="cuda") for a in batch())
    loss = loss_of(model, mt.nn.functional, ids, labels)
    loss.backward()
    reference = layers(torch.nn)
    reference.load_state_dict({k: torch.from_numpy(v) for k, v in initial().items()})
    results = {}
    for dtype in (torch.bfloat16, torch.float64):
        twin = layers(torch.nn).to(dtype)
        twin.load_state_dict({k: torch.from_numpy(v).bfloat16() for k, v in initial().items()})
        theirs = loss_of(twin, torch.nn.functional, *map(torch.from_numpy, batch()))
        theirs.backward()
        results[dtype] = [theirs, *(p.grad for p in twin.parameters())]
    found = [loss, *(p.grad for p in model.parameters())]
    for i, ours in enumerate(found):
        assert ours.dtype == mt.bfloat16
        exact = results[torch.float64][i].detach().numpy()
        naive = numbers(results[torch.bfloat16][i])
        assert_close(host(ours), exact, naive, "backward", f"gradient {i - 1}")


def test_what_a_bfloat16_tensor_does(cupy: Any, tmp_path: Any) -> None:
    with fake_cupy.synchronising():
        x = mt.tensor([1.0, 2.5, -3.0]).to("cuda", dtype=mt.bfloat16)
        assert x.dtype == mt.bfloat16 and x.is_floating_point() and x.type().endswith("16Tensor")
        assert repr(x) == (
            "tensor([ 1.0000,  2.5000, -3.0000], device='cuda:0', dtype=torch.bfloat16)"
        )
        assert x.tolist() == [1.0, 2.5, -3.0] and x[1].item() == 2.5
        assert (x * 2).dtype == (x * 0.5).dtype == (1 / x).dtype == mt.bfloat16
        assert (x + mt.ones(3, device="cuda")).dtype == mt.float32
        assert (x + x.half()).dtype == mt.float32  # as PyTorch: neither holds the other
        assert (x * mt.arange(3, device="cuda")).dtype == mt.bfloat16
        assert x.sort().values.tolist() == [-3.0, 1.0, 2.5]
        assert x.topk(1).values.dtype == mt.bfloat16 and x.max().item() == 2.5
        assert x.masked_fill(x > 2, 0.0).tolist() == [1.0, 0.0, -3.0]
        assert mt.where(x > 2, x, 0.0).dtype == mt.bfloat16
        assert mt.zeros(2, device="cuda", dtype=mt.bfloat16).bfloat16().dtype == mt.bfloat16
        assert mt.rand(2, device="cuda", dtype=mt.bfloat16).dtype == mt.bfloat16
        assert x.float().cpu().tolist() == [1.0, 2.5, -3.0]
        x += 1.0
        x[0] = 7.0
        assert x.tolist() == [7.0, 3.5, -2.0]
        for mistake in (
            x.cpu,
            lambda: mt.ones(2).to(mt.bfloat16),
            lambda: mt.nn.Linear(2, 2).bfloat16(),
        ):
            with pytest.raises(TypeError, match="bfloat16 exists on GPUs only"):
                mistake()


def test_a_float32_checkpoint_fills_bfloat16_parameters(cupy: Any) -> None:
    with fake_cupy.synchronising():
        model = mt.nn.Linear(3, 2).to("cuda").bfloat16()
        weights = {"weight": np.full((2, 3), 1.001, np.float32), "bias": np.ones(2, np.float32)}
        model.load_state_dict(weights)
        assert model.weight.dtype == mt.bfloat16
        assert model.weight.tolist() == [[1.0] * 3] * 2
        again = mt.nn.Linear(3, 2).to("cuda")
        again.load_state_dict(model.state_dict())
        assert again.weight.dtype == mt.float32 and again.weight.tolist() == [[1.0] * 3] * 2


def test_the_optimisers_take_bfloat16_parameters(cupy: Any) -> None:
    start, gradient = (
        np.linspace(-1, 1, 8, dtype=np.float32),
        np.linspace(2, -1, 8, dtype=np.float32),
    )
    for name, options in (("AdamW", {"lr": 0.1}), ("Adam", {"lr": 0.1}),
                          ("SGD", {"lr": 0.1, "momentum": 0.9})):  # fmt: skip
        results = []
        for dtype in (torch.float64, torch.bfloat16):
            p = torch.from_numpy(start).bfloat16().to(dtype).requires_grad_()
            optimizer = getattr(torch.optim, name)([p], **options)
            for _ in range(3):
                p.grad = torch.from_numpy(gradient).bfloat16().to(dtype)
                optimizer.step()
            results.append(numbers(p))
        with fake_cupy.synchronising():
            ours = mt.tensor(start, device="cuda").bfloat16().requires_grad_()
            optimizer = getattr(mt.optim, name)([ours], **options)
            for _ in range(3):
                ours.grad = mt.tensor(gradient, device="cuda").bfloat16()
                optimizer.step()
        assert ours.dtype == mt.bfloat16
        assert_close(host(ours), *results, name=name, size=1.0)


def test_bfloat16_gradients_are_clipped(cupy: Any) -> None:
    with fake_cupy.synchronising():
        p = mt.zeros(4, device="cuda", dtype=mt.bfloat16, requires_grad=True)
        p.grad = mt.full((4,), 512.0, device="cuda", dtype=mt.bfloat16)
        assert mt.nn.utils.clip_grad_norm_([p], 1.0).item() == 1024.0
        assert p.grad.dtype == mt.bfloat16 and p.grad.tolist() == [0.5] * 4


def test_bfloat16_is_written_as_it_is_and_read_as_float32(tmp_path: Any) -> None:
    file = tmp_path / "model.safetensors"
    values = np.array([[1.0, -2.5], [3e38, 0.0]]).astype(BFLOAT16)
    write_safetensors({"w": values.T}, file)
    assert b'"dtype":"BF16"' in file.read_bytes()
    read = read_safetensors(file)["w"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.T.astype(np.float32))


def test_float16_gradients_of_a_scaled_loss(cupy: Any) -> None:
    """float16 autocast with a scaler on the device: one look at the gradients a step."""
    model = layers(mt.nn)
    model.load_state_dict(initial())
    model.to("cuda")
    optimizer = mt.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = mt.amp.GradScaler("cuda", init_scale=2.0**10)
    ids, labels = (mt.tensor(a, device="cuda") for a in batch())
    losses = []
    for _ in range(3):
        with mt.autocast("cuda"):
            loss = loss_of(model, mt.nn.functional, ids, labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)  # without waiting
        with fake_cupy.synchronising():
            scaler.step(optimizer)
            losses.append(loss.item())
        scaler.update()
        optimizer.zero_grad()
    assert losses[2] < losses[0] and scaler.get_scale() == 2.0**10


LISTING = """
import math
from contextlib import nullcontext

import torch
import torch.nn as nn
from torch.nn import functional as F


class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        q, k, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class GPT(nn.Module):
    def __init__(self, vocab_size, block_size, n_embd, n_head):
        super().__init__()
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.wpe = nn.Embedding(block_size, n_embd)
        self.ln_1, self.ln_2, self.ln_f = (nn.LayerNorm(n_embd) for _ in range(3))
        self.attn = CausalSelfAttention(n_embd, n_head)
        self.mlp = nn.Sequential(nn.Linear(n_embd, 4 * n_embd), nn.GELU(),
                                 nn.Linear(4 * n_embd, n_embd))
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, idx, targets):
        pos = torch.arange(0, idx.size(1), dtype=torch.long, device=idx.device)
        x = self.wte(idx) + self.wpe(pos)
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        logits = self.lm_head(self.ln_f(x))
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)
        return logits, loss


def train(device, dtype, state, data, steps, scaled):
    device_type = "cuda" if "cuda" in device else "cpu"
    ptdtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    ctx = nullcontext() if device_type == "cpu" else torch.amp.autocast(
        device_type=device_type, dtype=ptdtypes[dtype])
    model = GPT(13, 8, 16, 2)
    model.load_state_dict(state)
    model.to(device)
    scaler = torch.cuda.amp.GradScaler(enabled=(dtype == "float16" and scaled))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
    X, Y = (torch.tensor(d).to(device) for d in data)
    for _ in range(steps):
        for micro_step in range(2):
            with ctx:
                logits, loss = model(X, Y)
                loss = loss / 2
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        yield 2 * loss.item(), logits
"""


@pytest.mark.filterwarnings("ignore:.*GradScaler.*deprecated:FutureWarning")  # PyTorch's
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_gpt_listing_with_its_import_lines_changed(cupy: Any, dtype: str) -> None:
    theirs: dict[str, Any] = {}
    exec(LISTING, theirs)
    torch.manual_seed(0)
    state = {k: v.numpy() for k, v in theirs["GPT"](13, 8, 16, 2).state_dict().items()}
    rng = np.random.default_rng(0)
    data = rng.integers(0, 13, (2, 8)).tolist(), rng.integers(0, 13, (2, 8)).tolist()
    source = LISTING.replace("import torch\n", "import minitransformer as torch\n")
    source = source.replace("import torch.nn as nn", "from minitransformer import nn")
    source = source.replace("from torch.nn import", "from minitransformer.nn import")
    ours: dict[str, Any] = {}
    exec(source, ours)
    with fake_cupy.synchronising():
        losses = []
        for loss, logits in ours["train"]("cuda", dtype, state, data, 3, True):
            losses.append(loss)
            assert logits.dtype == getattr(mt, dtype)
    torch_state = {k: torch.from_numpy(v) for k, v in state.items()}
    exact = [x for x, _ in theirs["train"]("cpu", "float32", torch_state, data, 3, False)]
    # PyTorch's float32 stands for the truth, to the digits of the lower type
    eps = mt.finfo(getattr(mt, dtype)).eps
    assert np.abs(np.subtract(losses, exact)).max() <= 4 * eps * max(exact)
    assert losses[-1] < losses[0]
