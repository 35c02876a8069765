"""Run a module of ours and its PyTorch counterpart on the same numbers and compare everything.

PyTorch in float64 is the truth, PyTorch in float32 the naive form of the tolerance rule.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

import minitransformer as mt
from tests.tolerance import assert_close


def random_arrays(*shapes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def to_ours(value: Any, requires_grad: bool = False) -> Any:
    """A NumPy array as our Tensor; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    tensor = mt.tensor(value)
    if requires_grad and value.dtype.kind == "f":
        tensor.requires_grad_(True)
    return tensor


def to_torch(value: Any, dtype: torch.dtype, requires_grad: bool = False) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    tensor = torch.tensor(value)
    if tensor.is_floating_point():
        tensor = tensor.to(dtype)
        tensor.requires_grad_(requires_grad)
    return tensor


def first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def run(module: Any, args: list[Any], options: dict[str, Any], upstream: Any) -> dict[str, Any]:
    """Outputs, gradients of the floating arguments, gradients of the parameters, by name."""
    output = module(*args, **options)
    found = {"output": first(output)}
    if isinstance(output, tuple) and output[1] is not None:
        found["weights"] = output[1]
    (first(output) * upstream).sum().backward()
    for i, arg in enumerate(args):
        if getattr(arg, "grad", None) is not None:
            found[f"argument {i}"] = arg.grad
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            found[name] = parameter.grad
    return {name: value.detach().numpy() for name, value in found.items()}


def assert_same_module(
    ours: Any,
    theirs: Any,
    args: list[Any],
    options: dict[str, Any] | None = None,
    gradients: bool = True,
) -> None:
    """Give our module PyTorch's numbers and compare outputs and every gradient."""
    options = options or {}
    ours.load_state_dict(theirs.state_dict())
    theirs64 = copy.deepcopy(theirs).double()
    theirs.float()
    with torch.no_grad():
        shape = first(
            theirs(
                *(to_torch(a, torch.float32) for a in args),
                **{k: to_torch(v, torch.float32) for k, v in options.items()},
            )
        ).shape
    (upstream,) = random_arrays(tuple(shape), seed=99)

    def pytorch(module: Any, dtype: torch.dtype) -> dict[str, Any]:
        return run(
            module,
            [to_torch(a, dtype, gradients) for a in args],
            {k: to_torch(v, dtype) for k, v in options.items()},
            torch.tensor(upstream, dtype=dtype),
        )

    exact, naive = pytorch(theirs64, torch.float64), pytorch(theirs, torch.float32)
    found = run(
        ours,
        [to_ours(a, gradients) for a in args],
        {k: to_ours(v) for k, v in options.items()},
        mt.tensor(upstream),
    )
    assert found.keys() == exact.keys()
    for name, value in found.items():
        kind = "forward" if name in ("output", "weights") else "backward"
        # A gradient that cancels to nothing is judged at the size of its neighbours.
        size = 0.0 if kind == "forward" else float(np.abs(exact["output"]).max())
        assert_close(value, exact[name], naive[name], kind, name, size=size)
