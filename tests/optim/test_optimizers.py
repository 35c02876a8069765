"""Optimisers against PyTorch's, step by step; state, groups, errors."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer import nn, optim
from minitransformer.optim.update import BLOCK
from tests.tolerance import assert_close

SHAPES = [(7, 5), (3,), (), (2, 3, 4)]
STEPS = 10

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd decay": ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    "sgd momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    "sgd nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "sgd up": ("SGD", {"lr": 0.1, "momentum": 0.5, "maximize": True, "weight_decay": 0.1}),
    "adam": ("Adam", {}),
    "adam decay": ("Adam", {"lr": 0.1, "weight_decay": 0.1}),
    "adam decoupled": ("Adam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "adam betas": ("Adam", {"lr": 0.1, "betas": (0.5, 0.7), "eps": 0.1}),
    "adam amsgrad": ("Adam", {"lr": 0.1, "betas": (0.5, 0.7), "amsgrad": True}),
    "adam up": ("Adam", {"lr": 0.1, "maximize": True, "weight_decay": 0.1}),
    "adam zero rate": ("Adam", {"lr": 0.0}),
    "adamw": ("AdamW", {}),
    "adamw large": ("AdamW", {"lr": 0.1, "weight_decay": 0.5}),
    "adamw amsgrad": ("AdamW", {"lr": 0.1, "amsgrad": True, "betas": (0.5, 0.7)}),
    "adamw up": ("AdamW", {"lr": 0.1, "maximize": True}),
}


def start_and_gradients(seed: int = 0) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    rng = np.random.default_rng(seed)

    def draw(scale: float = 1.0) -> list[np.ndarray]:
        return [(scale * rng.standard_normal(s)).astype(np.float32) for s in SHAPES]

    # Small and zero gradients are where the place of epsilon shows.
    return draw(), [
        draw(10.0 ** -(2 * i)) if i < 8 else [0 * g for g in draw()] for i in range(STEPS)
    ]


def trained(package: Any, name: str, options: dict[str, Any], dtype: Any) -> list[np.ndarray]:
    """The parameters after ten steps with given gradients."""
    start, gradients = start_and_gradients()
    parameters = [package.nn.Parameter(package.tensor(a, dtype=dtype)) for a in start]
    optimizer = getattr(package.optim, name)(parameters, **options)
    for step in gradients:
        for parameter, gradient in zip(parameters, step):
            parameter.grad = package.tensor(gradient, dtype=dtype)
        optimizer.step()
    return [p.detach().numpy() for p in parameters]


@pytest.mark.parametrize(("name", "options"), OPTIONS.values(), ids=OPTIONS.keys())
def test_ten_steps_are_pytorchs(name, options) -> None:
    found = trained(mt, name, options, mt.float32)
    exact = trained(torch, name, options, torch.float64)
    naive = trained(torch, name, options, torch.float32)
    for i, (value, truth, other) in enumerate(zip(found, exact, naive)):
        assert_close(value, truth, other, "forward", f"parameter {i}")
    for value, truth in zip(trained(mt, name, options, mt.float64), exact):
        np.testing.assert_allclose(value, truth, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "options"), OPTIONS.values(), ids=OPTIONS.keys())
def test_state_has_pytorchs_form(name, options) -> None:
    states = []
    for package in (mt, torch):
        parameter = package.nn.Parameter(package.ones(2))
        unused = package.nn.Parameter(package.ones(2))
        optimizer = getattr(package.optim, name)([parameter, unused], **options)
        parameter.grad = package.ones(2)
        optimizer.step()
        states.append(optimizer.state_dict())
    ours, theirs = states
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, entry in theirs["state"].items():
        assert ours["state"][number].keys() == entry.keys()
        for key, value in entry.items():
            if value is None:
                continue
            found = ours["state"][number][key]
            assert tuple(found.shape) == tuple(value.shape)
            assert str(found.dtype) == str(value.dtype).removeprefix("torch.")
            np.testing.assert_allclose(found.numpy(), value.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("source", [mt, torch])
def test_state_travels(name, source) -> None:
    """Five steps there, then five here from the saved state, give ten steps' numbers."""
    options = {"lr": 0.1, **({"momentum": 0.9} if name == "SGD" else {"amsgrad": True})}
    start, gradients = start_and_gradients()

    def run(package, parameters, optimizer, steps) -> None:
        for step in steps:
            for parameter, gradient in zip(parameters, step):
                parameter.grad = package.tensor(gradient)
            optimizer.step()

    first = [source.nn.Parameter(source.tensor(a)) for a in start]
    optimizer = getattr(source.optim, name)(first, **options)
    run(source, first, optimizer, gradients[:5])
    second = [nn.Parameter(mt.tensor(p.detach().numpy())) for p in first]
    resumed = getattr(optim, name)(second, lr=7.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert resumed.param_groups[0]["lr"] == 0.1
    run(mt, second, resumed, gradients[5:])
    for ours, expected in zip(second, trained(mt, name, options, mt.float32)):
        if source is mt:
            np.testing.assert_array_equal(ours.detach().numpy(), expected)
        else:
            np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_loading_does_not_share_memory_and_casts() -> None:
    parameter = nn.Parameter(mt.ones(2))
    optimizer = optim.Adam([parameter])
    parameter.grad = mt.ones(2)
    optimizer.step()
    state = optimizer.state_dict()
    other = optim.Adam([nn.Parameter(mt.ones(2, dtype=mt.float64))])
    other.load_state_dict(state)
    (entry,) = other.state.values()
    assert entry["exp_avg"].dtype == mt.float64 and entry["step"].dtype == mt.float32
    before = entry["exp_avg"].clone()
    optimizer.step()
    assert (entry["exp_avg"] == before).all() and entry["step"].item() == 1.0


def test_groups_override_and_can_be_added() -> None:
    a, b, c = (nn.Parameter(mt.ones(1)) for _ in range(3))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.25)
    optimizer.add_param_group({"params": [c], "lr": 1.0})
    for p in (a, b, c):
        p.grad = mt.ones(1)
    optimizer.step()
    assert [p.item() for p in (a, b, c)] == [0.75, 0.5, 0.0]


def test_named_parameters_keep_their_names() -> None:
    model = nn.Linear(2, 1)
    optimizer = optim.Adam(model.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


def test_late_parameters_count_their_own_steps() -> None:
    """A parameter without gradients at first is corrected for its own number of steps."""
    results = []
    for package in (mt, torch):
        a, b = (package.nn.Parameter(package.ones(2)) for _ in range(2))
        optimizer = package.optim.Adam([a, b], lr=0.1)
        for step in range(4):
            a.grad = package.ones(2)
            b.grad = package.ones(2) if step > 1 else None
            optimizer.step()
        results.append((a.detach().numpy(), b.detach().numpy()))
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_blocks_and_threads_do_not_show() -> None:
    """Several blocks, a last short one, and any number of threads give the same bits."""
    rng = np.random.default_rng(0)
    start, gradient = (rng.standard_normal(2 * BLOCK + 17).astype(np.float32) for _ in range(2))
    results = []
    before = mt.get_num_threads()
    try:
        for threads in (1, 2, 3):
            mt.set_num_threads(threads)
            parameter = nn.Parameter(mt.tensor(start))
            optimizer = optim.AdamW([parameter], lr=0.1)
            for _ in range(2):
                parameter.grad = mt.tensor(gradient)
                optimizer.step()
            results.append(parameter.detach().numpy())
    finally:
        mt.set_num_threads(before)
    assert (results[0] == results[1]).all() and (results[0] == results[2]).all()
    theirs = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.AdamW([theirs], lr=0.1)
    for _ in range(2):
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(results[0], theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_parameters_of_any_layout_are_updated_in_place() -> None:
    for layout in (np.ones((3, 4), np.float32).T, np.ones((4, 6), np.float32)[:, ::2]):
        parameter = nn.Parameter(mt.from_numpy(layout))
        array = parameter.array
        optimizer = optim.AdamW([parameter], lr=0.1, weight_decay=0.0)
        parameter.grad = mt.ones(*layout.shape)
        optimizer.step()
        assert parameter.array is array
        np.testing.assert_allclose(array, 0.9, rtol=1e-5)


def test_gradients_are_left_alone() -> None:
    for name, options in OPTIONS.values():
        parameter = nn.Parameter(mt.ones(3))
        optimizer = getattr(optim, name)([parameter], **options)
        parameter.grad = mt.full((3,), 2.0)
        optimizer.step()
        optimizer.step()
        assert (parameter.grad == 2.0).all()


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_an_update_between_forward_and_backward_is_noticed(name) -> None:
    layer = nn.Linear(2, 1)
    optimizer = getattr(optim, name)(layer.parameters(), lr=0.1)
    loss = layer(mt.ones(1, 2, requires_grad=True)).sum()
    layer.weight.grad = mt.ones(1, 2)
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_zero_grad() -> None:
    parameter = nn.Parameter(mt.ones(1))
    optimizer = optim.SGD([parameter])
    parameter.grad = mt.ones(1)
    optimizer.zero_grad(set_to_none=False)
    assert parameter.grad.tolist() == [0.0]
    optimizer.zero_grad()
    assert parameter.grad is None
    optimizer.step()
    assert parameter.item() == 1.0


def test_closure_is_run_with_gradients_on() -> None:
    parameter = nn.Parameter(mt.ones(1))
    optimizer = optim.SGD([parameter], lr=0.5)

    def closure() -> mt.Tensor:
        optimizer.zero_grad()
        loss = (2 * parameter).sum()
        loss.backward()
        return loss

    with mt.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 2.0 and parameter.item() == 0.0


def test_rate_may_be_a_tensor() -> None:
    parameter = nn.Parameter(mt.ones(1))
    optimizer = optim.SGD([parameter], lr=mt.tensor(0.5))
    parameter.grad = mt.ones(1)
    optimizer.step()
    assert parameter.item() == 0.5


def test_repr_is_pytorchs() -> None:
    texts = [
        repr(package.optim.AdamW([package.nn.Parameter(package.ones(1))]))
        for package in (mt, torch)
    ]
    assert texts[0] == texts[1]


P = nn.Parameter(mt.ones(2))


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "empty parameter list", lambda: optim.SGD([])),
        (TypeError, "iterable of Tensors", lambda: optim.SGD(P)),
        (TypeError, "only optimize Tensors", lambda: optim.SGD([1.0])),
        (TypeError, "sets", lambda: optim.SGD([{"params": {P}}])),
        (ValueError, "non-leaf", lambda: optim.SGD([P * 2])),
        (ValueError, "more than one parameter group", lambda: optim.SGD([{"params": [P]}] * 2)),
        (ValueError, "with/without names", lambda: optim.SGD([("p", P), P])),
        (TypeError, "must be a dict", lambda: optim.SGD([P]).add_param_group([P])),
        (ValueError, "learning rate: -1", lambda: optim.SGD([P], lr=-1)),
        (ValueError, "momentum value: -1", lambda: optim.SGD([P], momentum=-1)),
        (ValueError, "Nesterov", lambda: optim.SGD([P], nesterov=True)),
        (ValueError, "learning rate: nan", lambda: optim.Adam([P], lr=float("nan"))),
        (ValueError, "epsilon value: -1", lambda: optim.Adam([P], eps=-1)),
        (ValueError, "index 1: 1.0", lambda: optim.Adam([P], betas=(0.9, 1.0))),
        (ValueError, "weight_decay value: -1", lambda: optim.AdamW([P], weight_decay=-1)),
        (NotImplementedError, "capturable", lambda: optim.AdamW([P], capturable=True)),
        (NotImplementedError, "differentiable", lambda: optim.SGD([P], differentiable=True)),
    ],
)
def test_bad_input_is_named(error, text, call) -> None:
    with pytest.raises(error, match=text):
        call()


def test_duplicates_warn() -> None:
    with pytest.warns(UserWarning, match="duplicate"):
        optim.SGD([P, P])


def test_a_wrong_state_changes_nothing() -> None:
    parameter = nn.Parameter(mt.ones(2))
    optimizer = optim.Adam([parameter], lr=0.5)
    parameter.grad = mt.ones(2)
    optimizer.step()
    good = optimizer.state_dict()
    bad = copy.deepcopy(good)
    bad["state"][0]["exp_avg"] = mt.ones(3)
    bad["param_groups"][0]["lr"] = 9.0
    with pytest.raises(ValueError, match=r"'exp_avg' of shape \(3,\) for parameter 0"):
        optimizer.load_state_dict(bad)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})
    with pytest.raises(ValueError, match="group 0 has 2 parameters"):
        optimizer.load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]})
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert len(optimizer.state) == 1


def test_base_class_needs_step() -> None:
    with pytest.raises(NotImplementedError, match="step"):
        optim.Optimizer([P], {}).step()
