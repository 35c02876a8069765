"""Loss scaling against PyTorch's, and the training loop of the usual listing."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer.cuda.amp import GradScaler as OlderGradScaler
from tests.tolerance import assert_close


def scaled_run(library: Any, gradients: list[float], **options: Any) -> list[tuple[Any, ...]]:
    """Give a parameter these gradients, one a step; return what there is to see after each."""
    w = library.tensor([1.0, 2.0]).requires_grad_()
    optimizer = library.optim.SGD([w], lr=0.25)
    scaler = library.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3, **options)
    seen = []
    for gradient in gradients:
        optimizer.zero_grad()
        loss = (w * gradient).sum()
        scaler.scale(loss).backward()
        arrived = w.grad.tolist()
        scaler.step(optimizer)
        scaler.update()
        seen.append((arrived, w.grad.tolist(), w.tolist(), scaler.get_scale()))
    return [*seen, scaler.state_dict()]


@pytest.mark.parametrize(
    "options", [{}, {"growth_factor": 4.0, "backoff_factor": 0.25}, {"enabled": False}]
)
def test_scales_skips_and_grows_as_pytorch(options: dict[str, Any]) -> None:
    gradients = [1.0, 0.5, 0.25, 1.0, float("inf"), 1.0, float("nan"), 2.0, 1.0, 1.0, 0.5]
    ours, theirs = (scaled_run(library, gradients, **options) for library in (mt, torch))
    assert repr(ours) == repr(theirs)


def test_unscaled_gradients_can_be_clipped() -> None:
    results = []
    for library in (mt, torch):
        w = library.tensor([3.0, 4.0]).requires_grad_()
        optimizer = library.optim.SGD([w], lr=1.0)
        scaler = library.amp.GradScaler("cpu", init_scale=1024.0)
        scaler.scale((w * w).sum() / 2).backward()
        scaler.unscale_(optimizer)
        before = w.grad.tolist()
        library.nn.utils.clip_grad_norm_([w], 1.0)
        scaler.step(optimizer)
        scaler.update()
        results.append([before, *w.tolist()])
    np.testing.assert_allclose(results[0][1:], results[1][1:], rtol=1e-6)
    assert results[0][0] == results[1][0] == [3.0, 4.0]


def test_the_order_of_calls_is_pytorchs() -> None:
    for library in (mt, torch):
        w = library.ones(1, requires_grad=True)
        optimizer = library.optim.SGD([w], lr=1.0)
        scaler = library.amp.GradScaler("cpu")
        with pytest.raises(AssertionError, match="did not use"):
            scaler.step(optimizer)
        scaler.scale(w.sum()).backward()
        with pytest.raises(AssertionError, match="No inf checks"):
            scaler.update()
        scaler.unscale_(optimizer)
        with pytest.raises(RuntimeError, match="already been called"):
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        with pytest.raises(RuntimeError, match="after step"):
            scaler.unscale_(optimizer)
        with pytest.raises(RuntimeError, match="already been called"):
            scaler.step(optimizer)
        with pytest.raises(RuntimeError, match="Closure"):
            scaler.step(optimizer, closure=lambda: None)
        scaler.update(32.0)
        assert scaler.get_scale() == 32.0
        with pytest.raises(ValueError, match="iterable of Tensors"):
            scaler.scale(3)
        with pytest.raises(AssertionError, match="growth factor"):
            library.amp.GradScaler("cpu", growth_factor=1.0)
        with pytest.raises(AssertionError, match="backoff factor"):
            library.amp.GradScaler("cpu", backoff_factor=1.0)
        half = library.ones(1, dtype=library.float16, requires_grad=True)
        other = library.optim.SGD([half], lr=1.0)
        scaler.scale(half.sum()).backward()
        with pytest.raises(ValueError, match="FP16 gradients"):
            scaler.unscale_(other)


def test_one_overflow_skips_one_optimiser_and_lowers_the_scale() -> None:
    results = []
    for library in (mt, torch):
        good, bad = (library.ones(1, requires_grad=True) for _ in range(2))
        optimizers = [library.optim.SGD([w], lr=1.0) for w in (good, bad)]
        scaler = library.amp.GradScaler("cpu", init_scale=4.0)
        for loss in scaler.scale([good.sum(), (bad * float("inf")).sum()]):
            loss.backward()
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        results.append((good.item(), bad.item(), scaler.get_scale()))
    assert results[0] == results[1] == (0.0, 1.0, 2.0)


def test_the_state_goes_on() -> None:
    scaler = mt.amp.GradScaler("cpu", init_scale=2.0)
    theirs = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=7)
    scaler.load_state_dict(theirs.state_dict())
    assert scaler.state_dict() == theirs.state_dict()
    assert (scaler.get_growth_factor(), scaler.get_growth_interval()) == (2.0, 7)
    scaler.set_growth_factor(3.0)
    scaler.set_backoff_factor(0.75)
    scaler.set_growth_interval(5)
    assert list(scaler.state_dict().values())[1:4] == [3.0, 0.75, 5]
    assert scaler.get_backoff_factor() == 0.75
    with pytest.raises(RuntimeError, match="empty"):
        scaler.load_state_dict({})


def test_without_a_gpu_the_scaler_for_gpus_steps_aside() -> None:
    with pytest.warns(UserWarning, match="no GPU"):
        scaler = OlderGradScaler()
    assert not scaler.is_enabled() and scaler.get_scale() == 1.0 and scaler.state_dict() == {}
    assert not mt.cuda.is_bf16_supported()


def test_the_usual_training_loop_in_half_precision() -> None:
    """A listing's loop in both libraries, against float64: PyTorch's error is the measure."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 6)).astype(np.float32), rng.integers(0, 3, 16)
    start = {"0.weight": rng.standard_normal((8, 6)) / 2, "0.bias": np.zeros(8),
             "2.weight": rng.standard_normal((3, 8)) / 2, "2.bias": np.zeros(3)}  # fmt: skip
    start = {k: v.astype(np.float32) for k, v in start.items()}

    def train(torch: Any, dtype: str) -> tuple[list[float], list[np.ndarray]]:
        device_type, nn = "cpu", torch.nn
        ptdtype = {"float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
        ctx = (
            torch.amp.autocast(device_type=device_type, dtype=ptdtype[dtype])
            if dtype == "float16"
            else contextlib.nullcontext()
        )
        scaler = torch.amp.GradScaler(device_type, enabled=(dtype == "float16"))
        model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3))
        model.load_state_dict({k: torch.tensor(v) for k, v in start.items()})
        inputs, labels = torch.tensor(x), torch.tensor(y)
        if dtype == "float64":
            model, inputs = model.double(), inputs.double()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for _ in range(5):
            with ctx:
                loss = nn.functional.cross_entropy(model(inputs), labels)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        return losses, [p.detach().numpy() for p in model.parameters()]

    exact, theirs = train(torch, "float64"), train(torch, "float16")
    ours = train(mt, "float16")
    halves = [np.asarray(x).astype(np.float16) for x in (ours[0], theirs[0])]
    assert_close(halves[0], np.asarray(exact[0]), halves[1], name="losses")
    assert ours[0][-1] < ours[0][0]
    for i, (found, truth, plain) in enumerate(zip(ours[1], exact[1], theirs[1])):
        assert found.dtype == np.float32
        pair = [a.astype(np.float16) for a in (found, plain)]
        assert_close(pair[0], truth, pair[1], "backward", f"parameter {i}")
