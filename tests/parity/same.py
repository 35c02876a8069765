"""Run one program under PyTorch and under minitransformer and hold all results together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import minitransformer as mt
from tests.kernels.cases import lay_out
from tests.tolerance import assert_close

Array = np.ndarray
NEIGHBOURS = 4
device = "cpu"  # where our side works; tests of GPUs set another


def flat(value: Any) -> list[Any]:
    """Every tensor or number of nested tuples and lists, in order."""
    if isinstance(value, tuple | list):
        return [item for part in value for item in flat(part)]
    return [value]


def array_of(value: Any) -> Array:
    """A tensor of either library, or a number, as an array."""
    if isinstance(value, torch.Tensor):
        return value.detach().resolve_conj().numpy()
    if isinstance(value, mt.Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)


def tensor_in(library: Any, array: Array, dtype: Any, layout: str = "contiguous") -> Any:
    """`array` as a tensor of `library`, floating arrays in `dtype`."""
    kind = dtype if array.dtype.kind == "f" else array.dtype
    if library is torch:  # PyTorch knows no negative strides
        made = torch.from_numpy(np.array(array, kind))
    else:
        laid = lay_out(array, layout, kind)
        laid.flags.writeable = laid.base is None or laid.base.flags.writeable
        made = mt.from_numpy(laid).to(device)
    return made


def run(
    library: Any,
    program: Callable[..., Any],
    arrays: Sequence[Array],
    dtype: Any,
    layouts: Sequence[str] = (),
    seed: int = 0,
) -> tuple[list[Array], list[Array | None]]:
    """Outputs, and the gradient of every floating input along one random direction."""
    layouts = (*layouts, *["contiguous"] * len(arrays))
    inputs = [tensor_in(library, a, dtype, layout) for a, layout in zip(arrays, layouts)]
    for x in inputs:
        if x.is_floating_point():
            x.requires_grad_()
    outs = flat(program(library, *inputs))
    rng, total = np.random.default_rng(seed), None
    for out in outs:
        if getattr(out, "requires_grad", False):
            direction = rng.standard_normal(tuple(out.shape)).astype(np.float32)
            term = (out * tensor_in(library, np.asarray(direction), dtype)).sum()
            total = term if total is None else total + term
    if total is not None:
        total.backward()
    grads = [None if x.grad is None else array_of(x.grad) for x in inputs]
    return [array_of(out) for out in outs], grads


def same(
    program: Callable[..., Any],
    *arrays: Array,
    layouts: Sequence[str] = (),
    seed: int = 0,
    size: float = 0.0,
) -> int:
    """Hold outputs and gradients of `program(library, *tensors)` together, in both dtypes.

    `size` is that of terms that may cancel. Returns the number of arrays compared.
    """
    exact, exact_grads = run(torch, program, arrays, np.float64, seed=seed)
    naive, naive_grads = run(torch, program, arrays, np.float32, seed=seed)
    others = []
    rng = np.random.default_rng(seed)
    for i in range(NEIGHBOURS):
        moved = [
            (a * (1 + rng.uniform(-1, 1, a.shape) / 256)).astype(np.float32)
            if a.dtype.kind == "f"
            else a
            for a in arrays
        ]
        others.append([run(torch, program, moved, d, seed=i) for d in (np.float64, np.float32)])
    for dtype in (np.float32, np.float64):
        ours, grads = run(mt, program, arrays, dtype, layouts, seed)
        assert len(ours) == len(exact)
        for i, (found, truth, plain) in enumerate(zip(ours, exact, naive)):
            also = [(f64[0][i], f32[0][i]) for f64, f32 in others]
            also = [pair for pair in also if pair[0].dtype.kind == "f"]
            expected = plain.dtype if truth.dtype == plain.dtype else np.dtype(dtype)
            assert found.dtype == expected, f"output {i} is {found.dtype}, not {expected}"
            truth = truth.astype(np.float64) if truth.dtype.kind == "f" else truth
            assert_close(found, truth, plain, "forward", f"output {i}", also, size)
        for i, (found, truth, plain) in enumerate(zip(grads, exact_grads, naive_grads)):
            assert (found is None) == (truth is None), f"gradient {i} is {found}, not {truth}"
            if truth is not None:
                also = [(f64[1][i], f32[1][i]) for f64, f32 in others]
                assert_close(found, truth, plain, "backward", f"gradient {i}", also, size)
    return len(exact) + sum(g is not None for g in exact_grads)
