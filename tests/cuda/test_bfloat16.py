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
        None
        if a is None
        else Tensor(there(a.astype(BFLOAT16) if a.dtype.kind == "f" else a))
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
