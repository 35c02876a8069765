"""What is checked of every kernel on one problem: values, gradients, and the contract.

`check` is run by the tests, by the table of errors and by the mutation run, so that all
three speak of the same thing.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from tests.kernels.cases import Case, Problem, lay_out
from tests.tolerance import allowance, assert_close, largest_error, relative_rounding

Array = np.ndarray
DTYPES = (np.float32, np.float64)
FEW = 512  # elements below which the naive error is measured on neighbouring inputs too
NEIGHBOURS = 12


class Pair(NamedTuple):
    """A kernel."""

    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., tuple[Any, ...]]


def pair_of(case: Case) -> Pair:
    module = importlib.import_module(f"minitransformer.kernels.{case.module}")
    return Pair(getattr(module, f"{case.name}_forward"), getattr(module, f"{case.name}_backward"))


# Helpers -----------------------------------------------------------------------------------


def arrays_in(value: Any) -> Iterator[Array]:
    """Every array inside nested tuples, lists, dicts and dataclasses."""
    if isinstance(value, np.ndarray | np.generic):
        yield np.asarray(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from arrays_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from arrays_in(item)
    elif dataclasses.is_dataclass(value):
        for f in dataclasses.fields(value):
            yield from arrays_in(getattr(value, f.name))


def freeze(value: Any) -> Any:
    """Make every array inside read-only: a kernel that writes to it raises."""
    for array in arrays_in(value):  # a NumPy scalar comes as a copy: it cannot be written to
        array.flags.writeable = False
    return value


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def same_bits(one: Any, two: Any) -> bool:
    """Whether two nested results hold the same shapes, dtypes and bits."""
    first, second = list(arrays_in(one)), list(arrays_in(two))
    return len(first) == len(second) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(first, second)
    )


def inputs_of(problem: Problem, dtype: Any) -> list[Array | None]:
    """The problem's arrays in `dtype`, laid out in memory as it says, read-only."""
    layouts = (*problem.layouts, *["contiguous"] * len(problem.arrays))
    return [
        None
        if array is None
        else lay_out(array, layout, dtype if array.dtype.kind == "f" else array.dtype)
        for array, layout in zip(problem.arrays, layouts)
    ]


def reference_options(problem: Problem, dtype: Any) -> dict[str, Any]:
    """Options for the reference, with PyTorch's dtype-dependent default epsilon written out."""
    options = dict(problem.options)
    if "eps" in options and options["eps"] is None:
        options["eps"] = relative_rounding(np.dtype(dtype))
    return options


def upstream(shape: tuple[int, ...], problem: Problem, number: int) -> Array:
    """The gradient that arrives: random, constant along its first axis if laid out as repeated."""
    values = np.random.default_rng((problem.seed, number)).standard_normal(shape)
    values = values.astype(np.float32).astype(np.float64)
    if problem.layouts and problem.layouts[-1] == "repeated" and values.ndim and shape[0] > 1:
        values = np.broadcast_to(values[:1], shape)
    return values


def tensor(array: Array | None, grad: bool) -> Any:
    if array is None:
        return None
    # PyTorch knows neither negative nor read-only strides.
    made = torch.from_numpy(np.array(array))
    return made.requires_grad_(grad and array.dtype.kind == "f")


def neighbours(problem: Problem) -> Iterator[tuple[list[Array | None], list[Array | None]]]:
    """The problem's arrays, a little moved, in double and single precision.

    The error of a naive form on a few numbers is luck; on a few neighbours it is a measure.
    """
    rng = np.random.default_rng((problem.seed, 8))
    for _ in range(NEIGHBOURS):
        singles = [
            (a * (1 + rng.uniform(-1, 1, a.shape) / 256)).astype(np.float32)
            if a is not None and a.dtype.kind == "f"
            else a
            for a in problem.arrays
        ]
        doubles = [
            a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in singles
        ]
        yield doubles, singles


def other_upstreams(douts: list[Array | None], seed: int) -> list[list[Array | None]]:
    """What else might arrive from above, for the neighbours of a problem."""
    rng = np.random.default_rng((seed, 7))
    return [
        [
            None
            if d is None
            else rng.standard_normal(d.shape).astype(np.float32).astype(np.float64)
            for d in douts
        ]
        for _ in range(NEIGHBOURS)
    ]


class TorchResult(NamedTuple):
    outs: tuple[Array, ...]
    grads: tuple[Array | None, ...]


def run_torch(
    case: Case, arrays: list[Array | None], options: dict[str, Any], douts: list[Array]
) -> TorchResult:
    """PyTorch's outputs and gradients, in the dtype of the arrays."""
    tensors = [tensor(a, i not in case.inert) for i, a in enumerate(arrays)]
    outs = as_tuple(case.torch(*tensors, **options))
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    heads = [
        (o, torch.from_numpy(np.array(d, o.detach().numpy().dtype)))
        for o, d in zip(outs, douts)
        if o.requires_grad
    ]
    found = iter(
        torch.autograd.grad([o for o, _ in heads], wanted, [d for _, d in heads], allow_unused=True)
        if heads
        else [None] * len(wanted)
    )
    grads: list[Array | None] = []
    for t in tensors:
        grad = next(found) if t is not None and t.requires_grad else None
        grads.append(None if grad is None else grad.numpy())
    return TorchResult(tuple(o.detach().resolve_conj().numpy() for o in outs), tuple(grads))


# The check ---------------------------------------------------------------------------------


class Expected(NamedTuple):
    """What everybody else says of a problem; the same whatever kernel is checked."""

    options: dict[str, Any]
    doubles: list[Array | None]
    exact: tuple[Any, ...]
    naive: tuple[Any, ...]
    neighbours: list[tuple[Any, Any]]
    douts: list[Array | None]
    truth: TorchResult | None
    single: TorchResult | None
    neighbouring_grads: list[tuple[Any, Any]]


def expect(case: Case, problem: Problem, dtype: Any) -> Expected:
    """Run the reference and PyTorch on a problem and on its neighbours."""
    doubles = [
        a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in problem.arrays
    ]
    singles = [
        a.astype(np.float32) if a is not None and a.dtype.kind == "f" else a for a in problem.arrays
    ]
    options = reference_options(problem, dtype)
    naive_form = case.naive or case.reference
    others: list[Any] = []
    with np.errstate(over="ignore"):  # where float32 overflows, that is its answer
        exact = as_tuple(case.reference(*doubles, **options))
        naive = as_tuple(naive_form(*singles, **options))
        if sum(o.size for o in exact) < FEW:
            others = list(neighbours(problem))
        others_out = [
            (as_tuple(case.reference(*d, **options)), as_tuple(naive_form(*s, **options)))
            for d, s in others
        ]
    douts = [
        upstream(o.shape, problem, i) if o.dtype.kind == "f" else None for i, o in enumerate(exact)
    ]
    if case.torch is None:
        return Expected(options, doubles, exact, naive, others_out, douts, None, None, [])
    if not others and any(a is not None and 0 < a.size < FEW for a in problem.arrays):
        others = list(neighbours(problem))
    others_grads = [
        tuple(run_torch(case, arrays, options, arriving).grads for arrays in both)
        for both, arriving in zip(others, other_upstreams(douts, problem.seed))
    ]
    truth = run_torch(case, doubles, options, douts)
    single = run_torch(case, singles, options, douts)
    return Expected(options, doubles, exact, naive, others_out, douts, truth, single, others_grads)


def check(
    case: Case,
    problem: Problem,
    dtype: Any,
    pair: Pair | None = None,
    expected: Expected | None = None,
) -> dict[str, float]:
    """Run every comparison on one problem.

    Returns
    -------
    dict
        Largest errors in units of the rule: "forward", "backward", and PyTorch's own.
    """
    pair = pair or pair_of(case)
    want = expected or expect(case, problem, dtype)
    inert = {*case.inert, *problem.inert}
    dtype = np.dtype(dtype)
    inputs = inputs_of(problem, dtype)
    before = [None if a is None else a.tobytes() for a in inputs]
    units = {"forward": 0.0, "backward": 0.0, "torch forward": 0.0, "torch backward": 0.0}
    size, sizes = 0.0, (0.0,) * len(inputs)
    if case.terms is not None:
        size, sizes = case.terms(want.doubles, want.options, want.douts[0])

    # forward
    out, saved = pair.forward(*inputs, **problem.options, **problem.extras)
    outs = as_tuple(out)
    assert isinstance(saved, tuple), f"saved is {type(saved).__name__}, not a tuple"
    assert len(outs) == len(want.exact), f"{len(outs)} outputs, reference {len(want.exact)}"
    for i, ours in enumerate(outs):
        assert isinstance(ours, np.ndarray | np.generic), f"output {i} is {type(ours).__name__}"
        if ours.dtype.kind == "f":
            assert ours.dtype == dtype, f"output {i} is {ours.dtype} for {dtype} inputs"
        truth, plain, also = compared(i, want.exact, want.naive, want.neighbours)
        found = assert_close(ours, truth, plain, "forward", f"output {i}", also, size)
        units["forward"] = max(units["forward"], found)

    # backward
    layout = problem.layouts[-1] if problem.layouts else "contiguous"
    douts = [None if v is None else lay_out(v, layout, dtype) for v in want.douts]
    dout = tuple(douts) if isinstance(out, tuple) else douts[0]
    freeze(saved)
    grads = pair.backward(dout, saved)
    assert isinstance(grads, tuple), f"backward gave {type(grads).__name__}, not a tuple"
    assert len(grads) == len(inputs), f"{len(grads)} gradients for {len(inputs)} inputs"
    for i, (grad, array) in enumerate(zip(grads, inputs)):
        if array is None or array.dtype.kind != "f" or i in inert:
            assert grad is None, f"gradient {i} of an input that has none"
        elif grad is not None:
            assert isinstance(grad, np.ndarray | np.generic), f"gradient {i}: {type(grad).__name__}"
            assert grad.shape == array.shape, f"gradient {i} is {grad.shape} for {array.shape}"
            assert grad.dtype == dtype, f"gradient {i} is {grad.dtype} for {dtype}"

    # twice the same bits, nothing written
    again, saved_again = pair.forward(*inputs, **problem.options, **problem.extras)
    assert same_bits(out, again), "a second forward gave other bits"
    assert same_bits(grads, pair.backward(dout, saved)), "a second backward gave other bits"
    assert same_bits(grads, pair.backward(dout, freeze(saved_again))), "saved depends on the run"
    assert before == [None if a is None else a.tobytes() for a in inputs], "an input was changed"

    # PyTorch
    if want.truth is not None and want.single is not None:
        for i, theirs in enumerate(want.single.outs):
            if theirs.dtype.kind == "f" and dtype == np.float32:
                truth, plain, also = compared(i, want.exact, want.naive, want.neighbours)
                bound = _units(theirs, truth, plain, "forward", also, size)
                units["torch forward"] = max(units["torch forward"], bound)
            elif theirs.dtype.kind != "f":
                assert np.array_equal(outs[i], theirs), f"output {i} differs from PyTorch's"
        for i, (ours, truth, theirs) in enumerate(zip(grads, want.truth.grads, want.single.grads)):
            if i in problem.inert:
                continue
            if truth is None:
                assert ours is None or not ours.any(), f"gradient {i}: PyTorch has none"
                continue
            assert ours is not None, f"gradient {i} is None, PyTorch has one"
            also = [(truths[i], plains[i]) for truths, plains in want.neighbouring_grads]
            found = assert_close(ours, truth, theirs, "backward", f"gradient {i}", also, sizes[i])
            units["backward"] = max(units["backward"], found)
            if dtype == np.float32:
                bound = _units(theirs, truth, theirs, "backward", also, sizes[i])
                units["torch backward"] = max(units["torch backward"], bound)

    if dtype == np.float64 and case.differences(problem):
        check_by_differences(case, want.doubles, want.options, want.douts, grads, problem.seed)
    return units


def compared(i: int, exact: Any, naive: Any, others: Any) -> tuple[Array, Array, list[Any]]:
    """Output number `i`: the truth in float64, the naive form, and both for the neighbours."""

    def typed(truth: Any, plain: Any) -> tuple[Array, Array]:
        truth, plain = np.asarray(truth), np.asarray(plain)
        if truth.dtype.kind == "f":
            truth, plain = truth.astype(np.float64), plain.astype(np.float32)
        return truth, plain

    return (*typed(exact[i], naive[i]), [typed(truths[i], plains[i]) for truths, plains in others])


def _units(
    theirs: Array,
    exact: Array,
    naive: Array,
    kind: Any,
    also: Sequence[tuple[Array, Array]],
    size: float = 0.0,
) -> float:
    """PyTorch's error in the same units, not held to them."""
    if theirs.shape != exact.shape:
        return 0.0
    bound = allowance(exact, naive, theirs.dtype, kind, also, size)
    return largest_error(theirs, exact) / bound


def check_by_differences(
    case: Case,
    arrays: list[Array | None],
    options: dict[str, Any],
    douts: list[Array | None],
    grads: tuple[Array | None, ...],
    seed: int,
) -> None:
    """Hold gradients against differences of the reference along one random direction per input.

    Five points and two step sizes: their disagreement tells how far the differences can be
    trusted, so the bound is measured, not chosen.
    """

    def loss(moved: list[Array | None]) -> float:
        outs = as_tuple(case.reference(*moved, **options))
        return sum(
            float((np.where(d == 0, 0, np.asarray(o) * d)).sum())
            for o, d in zip(outs, douts)
            if d is not None
        )

    for i, (array, grad) in enumerate(zip(arrays, grads)):
        if array is None or grad is None or not array.size:
            continue
        direction = np.random.default_rng((seed, i, 99)).standard_normal(array.shape)
        direction = np.where(np.isfinite(array), direction, 0.0)

        def along(t: float, i: int = i, array: Array = array, v: Array = direction) -> float:
            return loss([array + t * v if j == i else a for j, a in enumerate(arrays)])

        slopes = [five_points(along, h) for h in (2e-4, 1e-4)]
        claimed = float((grad * direction).sum())
        size = float(np.abs(grad * direction).sum()) + 1.0
        trust = abs(slopes[0] - slopes[1])
        height = max(abs(along(0.0)), size)
        assert trust <= 1e-3 * height, f"gradient {i}: differences disagree, a poor test point"
        error = abs(claimed - slopes[1])
        # 1e-4 is the step: float64's rounding in five values, each divided by it.
        bound = 2 * trust + 64 * relative_rounding(np.dtype(np.float64)) / 1e-4 * height
        assert error <= bound, (
            f"gradient {i}: along a direction it says {claimed!r}, differences {slopes[1]!r} "
            f"(off by {error:.3g}, trusted to {bound:.3g})"
        )


def five_points(function: Callable[[float], float], h: float) -> float:
    """Fourth-order central difference."""
    one = function(h) - function(-h)
    two = function(2 * h) - function(-2 * h)
    return (8 * one - two) / (12 * h)
