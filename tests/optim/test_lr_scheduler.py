"""Schedules against PyTorch's: the rate at every step, momentum, state, errors."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer import nn, optim
from minitransformer.optim import lr_scheduler

SCHEDULES: dict[str, Any] = {
    "noam": lambda s, o: s.LambdaLR(o, lambda t: min((t + 1) ** -0.5, (t + 1) * 4**-1.5)),
    "per group": lambda s, o: s.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1.0 / (t + 1)]),
    "step": lambda s, o: s.StepLR(o, 3, 0.5),
    "milestones": lambda s, o: s.MultiStepLR(o, [2, 5, 5, 9], 0.5),
    "constant": lambda s, o: s.ConstantLR(o, 0.25, 4),
    "linear": lambda s, o: s.LinearLR(o),
    "linear down": lambda s, o: s.LinearLR(o, 1.0, 0.0, 7),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.8),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, 6, 0.01),
    "one cycle": lambda s, o: s.OneCycleLR(o, 0.5, 30),
    "one cycle of epochs": lambda s, o: s.OneCycleLR(
        o, [0.5, 0.2], epochs=5, steps_per_epoch=6, anneal_strategy="linear"
    ),
    "one cycle, three phases": lambda s, o: s.OneCycleLR(o, 0.5, 30, three_phase=True),
    "one cycle, fixed momentum": lambda s, o: s.OneCycleLR(
        o, 0.5, 30, pct_start=0.4, cycle_momentum=False, div_factor=5.0, final_div_factor=50.0
    ),
    "warm-up, then cosine": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=4), s.CosineAnnealingLR(o, 10)], [4]
    ),
    "three in a row": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, 0.5, 3), s.ExponentialLR(o, 0.9), s.StepLR(o, 2)], [3, 8]
    ),
}


def optimizer_of(package: Any, name: str = "SGD") -> Any:
    a, b = (package.nn.Parameter(package.ones(1)) for _ in range(2))
    options = {"momentum": 0.9} if name == "SGD" else {}
    return getattr(package.optim, name)(
        [{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.1, **options
    )


def trace(package: Any, build: Any, steps: int = 30, name: str = "SGD") -> list[Any]:
    optimizer = optimizer_of(package, name)
    scheduler = build(package.optim.lr_scheduler, optimizer)
    found = []
    for _ in range(steps):
        found.append(
            [
                (g["lr"], g["momentum"] if name == "SGD" else g["betas"][0])
                for g in optimizer.param_groups
            ]
        )
        assert list(scheduler.get_last_lr()) == [g["lr"] for g in optimizer.param_groups]
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("build", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_rates_and_momenta_are_pytorchs(build, name) -> None:
    np.testing.assert_allclose(
        trace(mt, build, name=name), trace(torch, build, name=name), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("build", SCHEDULES.values(), ids=SCHEDULES.keys())
@pytest.mark.parametrize("source", [mt, torch])
def test_state_travels(build, source) -> None:
    """Seven steps there, the rest here, are the steps of one run."""
    expected = trace(source, build)
    first = optimizer_of(source)
    scheduler = build(source.optim.lr_scheduler, first)
    for _ in range(7):
        first.step()
        scheduler.step()
    second = optimizer_of(mt)
    resumed = build(lr_scheduler, second)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    for rates in expected[7:]:
        np.testing.assert_allclose(
            [g["lr"] for g in second.param_groups], [r[0] for r in rates], rtol=1e-13
        )
        second.step()
        resumed.step()


@pytest.mark.parametrize("build", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_state_has_pytorchs_keys(build) -> None:
    ours, theirs = (
        build(package.optim.lr_scheduler, optimizer_of(package)).state_dict()
        for package in (mt, torch)
    )
    # PyTorch keeps a flag that guards its get_lr from being called by hand.
    assert set(ours) == set(theirs) - {"_get_lr_called_within_step"}


@pytest.mark.parametrize(
    "build",
    [
        lambda s, o: s.StepLR(o, 3, 0.5, last_epoch=4),
        lambda s, o: s.ExponentialLR(o, 0.8, last_epoch=4),
        lambda s, o: s.CosineAnnealingLR(o, 6, 0.01, last_epoch=4),
        lambda s, o: s.LinearLR(o, last_epoch=2),
        lambda s, o: s.LambdaLR(o, lambda t: 0.5**t, last_epoch=4),
    ],
)
def test_resuming_by_number_is_pytorchs(build) -> None:
    def resumed(package):
        optimizer = optimizer_of(package)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        scheduler = build(package.optim.lr_scheduler, optimizer)
        found = []
        for _ in range(8):
            found.append([g["lr"] for g in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
        return found

    np.testing.assert_allclose(resumed(mt), resumed(torch), rtol=1e-13)


METRICS = [1.0, 0.9, 0.9, 0.91, 0.9, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 1},
        {"patience": 1, "cooldown": 2, "factor": 0.5},
        {"patience": 0, "mode": "max", "threshold": 0.2},
        {"patience": 1, "threshold_mode": "abs", "threshold": 0.2},
        {"patience": 0, "mode": "max", "threshold_mode": "abs", "min_lr": [0.05, 0.2]},
        {"patience": 0, "eps": 0.02},
    ],
)
def test_plateau_is_pytorchs(options) -> None:
    traces = []
    for package in (mt, torch):
        optimizer = optimizer_of(package)
        scheduler = package.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        found = []
        for metric in METRICS:
            scheduler.step(package.tensor(metric))
            found.append([g["lr"] for g in optimizer.param_groups])
        traces.append((found, scheduler.state_dict()))
    (ours, our_state), (theirs, their_state) = traces
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    shared = set(our_state) & set(their_state)
    assert {"best", "num_bad_epochs", "cooldown_counter", "last_epoch"} <= shared


def test_callable_objects_keep_their_state() -> None:
    class Factor:
        def __init__(self, rate: float) -> None:
            self.rate = rate

        def __call__(self, step: int) -> float:
            return self.rate**step

    first = lr_scheduler.LambdaLR(optimizer_of(mt), Factor(0.5))
    second = lr_scheduler.LambdaLR(optimizer_of(mt), Factor(0.1))
    second.load_state_dict(first.state_dict())
    assert second.lr_lambdas[0].rate == 0.5


def test_wrong_order_warns() -> None:
    scheduler = lr_scheduler.StepLR(optimizer_of(mt), 2)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()


def test_a_step_of_an_own_optimizer_counts() -> None:
    class Still(optim.Optimizer):
        def step(self, closure=None) -> None:
            pass

    optimizer = Still([nn.Parameter(mt.ones(1))], {"lr": 1.0})
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.5]


def test_jumping_warns_and_jumps() -> None:
    optimizer = optimizer_of(mt)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    with pytest.warns(UserWarning, match="deprecated"):
        scheduler.step(3)
    np.testing.assert_allclose(scheduler.get_last_lr(), [0.1 / 8, 0.3 / 8])


def end_of_cycle() -> None:
    optimizer = optimizer_of(mt)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=2)
    for _ in range(3):
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (TypeError, "not an Optimizer", lambda s, o: s.StepLR(3, 1)),
        (KeyError, "initial_lr", lambda s, o: s.StepLR(o, 1, last_epoch=2)),
        (ValueError, "Expected 2 lr_lambdas, but got 1", lambda s, o: s.LambdaLR(o, [abs])),
        (ValueError, "between 0 and 1, got 2", lambda s, o: s.ConstantLR(o, 2)),
        (ValueError, "Starting", lambda s, o: s.LinearLR(o, 0)),
        (ValueError, "Ending", lambda s, o: s.LinearLR(o, 1.0, 2.0)),
        (ValueError, "at least one", lambda s, o: s.SequentialLR(o, [], [])),
        (ValueError, "one scheduler more", lambda s, o: s.SequentialLR(o, [s.StepLR(o, 1)], [1])),
        (
            ValueError,
            "index 0 has another",
            lambda s, o: s.SequentialLR(o, [s.StepLR(optimizer_of(mt), 1)], []),
        ),
        (
            ValueError,
            "ReduceLROnPlateau",
            lambda s, o: s.SequentialLR(o, [s.ReduceLROnPlateau(o)], []),
        ),
        (ValueError, "total_steps OR", lambda s, o: s.OneCycleLR(o, 0.1)),
        (ValueError, "positive integer total_steps", lambda s, o: s.OneCycleLR(o, 0.1, 0)),
        (ValueError, "pct_start", lambda s, o: s.OneCycleLR(o, 0.1, 9, pct_start=2.0)),
        (
            ValueError,
            "'cos' or 'linear'",
            lambda s, o: s.OneCycleLR(o, 0.1, 9, anneal_strategy="x"),
        ),
        (ValueError, "same length", lambda s, o: s.OneCycleLR(o, [0.1], 9)),
        (ValueError, "Tried to step 3 times", lambda s, o: end_of_cycle()),
        (ValueError, "Factor", lambda s, o: s.ReduceLROnPlateau(o, factor=1.0)),
        (ValueError, "mode low", lambda s, o: s.ReduceLROnPlateau(o, "low")),
        (ValueError, "threshold mode x", lambda s, o: s.ReduceLROnPlateau(o, threshold_mode="x")),
        (NotImplementedError, "get_lr", lambda s, o: s.LRScheduler(o)),
    ],
)
def test_bad_input_is_named(error, text, call) -> None:
    with pytest.raises(error, match=text):
        call(lr_scheduler, optimizer_of(mt))
