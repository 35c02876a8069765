"""Run one function under PyTorch and under minitransformer, and hold the results together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import minitransformer as mt
from tests.tolerance import assert_close


def flat(out: Any) -> list[Any]:
    """Tensors of an output that may be a tensor, a named tuple, a list or a number."""
    if isinstance(out, (tuple, list)):
        return [t for part in out for t in flat(part)]
    return [out]


def values(x: Any) -> np.ndarray:
    return np.asarray(x.detach().numpy() if hasattr(x, "detach") else x)


def wide(x: np.ndarray) -> np.ndarray:
    """The truth as float64 where a cast made it narrower."""
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def run(
    library: Any, function: Callable[..., Any], arrays: Sequence[np.ndarray], dtype: Any
) -> tuple[list[Any], list[np.ndarray | None]]:
    """Outputs of `function`, and gradients of its floating arguments along a fixed direction."""
    make = torch.from_numpy if library is torch else mt.from_numpy
    args = []
    for a in arrays:
        x = make(a.astype(dtype) if a.dtype.kind == "f" else a.copy())
        args.append(x.requires_grad_() if a.dtype.kind == "f" else x)
    outs = flat(function(library, *args))
    wanted = [o for o in outs if getattr(o, "requires_grad", False)]
    if wanted:
        rng = np.random.default_rng(1)
        total = None
        for o in wanted:
            direction = rng.standard_normal(tuple(o.shape)).astype(dtype)
            term = (o * make(np.asarray(direction))).sum()
            total = term if total is None else total + term
        total.backward()
    gradients = [None if getattr(x, "grad", None) is None else x.grad.numpy() for x in args]
    return outs, gradients


def agree(
    function: Callable[..., Any], *arrays: np.ndarray, dtype: Any = np.float32, name: str = "result"
) -> int:
    """Compare outputs and gradients by the tolerance rule; return how many arrays were compared."""
    exact, exact_gradients = run(torch, function, arrays, np.float64)
    naive, naive_gradients = run(torch, function, arrays, dtype)
    ours, our_gradients = run(mt, function, arrays, dtype)
    assert len(ours) == len(naive), f"{name}: {len(ours)} outputs, PyTorch {len(naive)}"
    for i, (o, e, n) in enumerate(zip(ours, exact, naive)):
        label = f"{name} output {i}"
        assert hasattr(o, "requires_grad") == hasattr(n, "requires_grad"), label
        if hasattr(o, "requires_grad"):
            assert tuple(o.shape) == tuple(n.shape), f"{label}: {o.shape}, PyTorch {n.shape}"
            assert o.requires_grad == n.requires_grad, f"{label}: requires_grad {o.requires_grad}"
            assert f"torch.{o.dtype}" == str(n.dtype), f"{label}: {o.dtype}, PyTorch {n.dtype}"
        assert_close(values(o), wide(values(e)), values(n), name=label)
    for i, (o, e, n) in enumerate(zip(our_gradients, exact_gradients, naive_gradients)):
        label = f"{name} gradient {i}"
        assert (o is None) == (n is None), f"{label}: one of them is missing"
        if o is not None:
            assert_close(o, e, n, kind="backward", name=label)
    return len(ours) + len(our_gradients)
