"""Optimisers and schedules: the same loop in both libraries, every parameter at every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import minitransformer as mt
import minitransformer.nn.utils
import minitransformer.optim
from tests.kernels.cases import normal, seeds
from tests.parity.same import array_of, tensor_in
from tests.tolerance import assert_close

STEPS = 6


def trajectory(
    library: Any,
    make: Callable[..., Any],
    dtype: Any,
    seed: int,
    schedule: Callable[..., Any] | None = None,
    clip: float | None = None,
) -> tuple[list[np.ndarray], list[float]]:
    """Parameters after every step, and the learning rates."""
    shapes = [(3, 4), (4,), (2, 1, 3)]
    parameters = [
        library.nn.Parameter(tensor_in(library, normal(seed + i, *s), dtype))
        for i, s in enumerate(shapes)
    ]
    optimizer = make(library.optim, parameters)
    scheduler = None if schedule is None else schedule(library.optim.lr_scheduler, optimizer)
    history, rates = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = 0
        for i, p in enumerate(parameters):
            if step == 2 and i == 1:
                continue  # a parameter without a gradient is left alone
            target = tensor_in(library, normal(seed + 10 * step + i, *shapes[i]), dtype)
            loss = loss + ((p - target) ** 2).sum() * (0.0 if step == 4 else 1.0)
        loss.backward()
        if clip is not None:
            library.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        rates += [group["lr"] for group in optimizer.param_groups]
        if scheduler is not None:
            scheduler.step()
        history += [array_of(p).copy() for p in parameters]
    return history, rates


def same_trajectory(make: Callable[..., Any], seed: int, **options: Any) -> None:
    exact, rates = trajectory(torch, make, np.float64, seed, **options)
    naive, _ = trajectory(torch, make, np.float32, seed, **options)
    for dtype in (np.float32, np.float64):
        ours, our_rates = trajectory(mt, make, dtype, seed, **options)
        assert our_rates == pytest.approx(rates, rel=1e-12)
        for i, (found, truth, plain) in enumerate(zip(ours, exact, naive)):
            # A few numbers, each the sum of steps of size lr and of itself.
            assert_close(found, truth, plain, "backward", f"step {i // 3}, parameter {i % 3}")


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "SGD": lambda optim, p: optim.SGD(p, lr=0.05),
    "SGD momentum": lambda optim, p: optim.SGD(p, lr=0.05, momentum=0.9),
    "SGD all": lambda optim, p: optim.SGD(
        p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "SGD dampening": lambda optim, p: optim.SGD(
        p, lr=0.05, momentum=0.8, dampening=0.3, maximize=True
    ),
    "Adam": lambda optim, p: optim.Adam(p, lr=0.01),
    "Adam decay": lambda optim, p: optim.Adam(p, lr=0.02, betas=(0.8, 0.95), weight_decay=0.1),
    "Adam amsgrad": lambda optim, p: optim.Adam(p, lr=0.01, amsgrad=True, eps=1e-6),
    "AdamW": lambda optim, p: optim.AdamW(p),
    "AdamW groups": lambda optim, p: optim.AdamW(
        [
            {"params": p[:1], "weight_decay": 0.2},
            {"params": p[1:], "lr": 0.05, "weight_decay": 0.0},
        ],
        lr=0.01,
    ),
    "AdamW maximize": lambda optim, p: optim.AdamW(p, lr=0.01, maximize=True),
}

SCHEDULES: dict[str, Callable[..., Any]] = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda step: min((step + 1) ** -0.5, (step + 1) / 4)),
    "StepLR": lambda s, o: s.StepLR(o, 2, gamma=0.3),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [1, 4], gamma=0.5),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.8),
    "ConstantLR": lambda s, o: s.ConstantLR(o, factor=0.5, total_iters=3),
    "LinearLR": lambda s, o: s.LinearLR(o, start_factor=0.2, total_iters=4),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 5, eta_min=0.001),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.1, total_steps=STEPS),
    "OneCycleLR linear": lambda s, o: s.OneCycleLR(
        o, 0.1, total_steps=STEPS, anneal_strategy="linear", three_phase=True
    ),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=2), s.CosineAnnealingLR(o, 4)], milestones=[2]
    ),
}


@settings(max_examples=5)
@pytest.mark.parametrize("name", OPTIMIZERS)
@given(seed=seeds)
def test_optimizer(name: str, seed: int, count: Counter) -> None:
    same_trajectory(OPTIMIZERS[name], seed)
    count["parity: optimiser and schedule runs against PyTorch"] += 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name: str, count: Counter) -> None:
    # SGD: OneCycleLR also moves its momentum.
    same_trajectory(
        lambda optim, p: optim.SGD(p, lr=0.05, momentum=0.9), 3, schedule=SCHEDULES[name]
    )
    same_trajectory(lambda optim, p: optim.AdamW(p, lr=0.05), 4, schedule=SCHEDULES[name])
    count["parity: optimiser and schedule runs against PyTorch"] += 2


@settings(max_examples=5)
@pytest.mark.parametrize("largest", [0.1, 1e6])
@given(seed=seeds)
def test_clipping(largest: float, seed: int, count: Counter) -> None:
    same_trajectory(lambda optim, p: optim.SGD(p, lr=0.05), seed, clip=largest)
    count["parity: optimiser and schedule runs against PyTorch"] += 1


def test_no_step_without_a_gradient() -> None:
    p = mt.nn.Parameter(mt.ones(3))
    for optimizer in (mt.optim.SGD([p], lr=1.0), mt.optim.AdamW([p], lr=1.0)):
        optimizer.step()
        assert p.tolist() == [1, 1, 1]


def test_adam_at_its_first_step_and_without_a_gradient_to_follow() -> None:
    """At t = 1 the corrected moments are the gradient itself: a step of lr, whatever its size."""
    for size in (1e-3, 1.0, 1e6):
        p = mt.nn.Parameter(mt.zeros(2))
        p.grad = mt.tensor([size, -size])
        mt.optim.Adam([p], lr=0.1).step()
        np.testing.assert_allclose(array_of(p), [-0.1, 0.1], rtol=1e-4)
    p = mt.nn.Parameter(mt.ones(2))
    p.grad = mt.zeros(2)
    mt.optim.Adam([p], lr=0.1).step()
    assert p.tolist() == [1, 1]
