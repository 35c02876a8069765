"""Gradients on request, and gradients compared with finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import to_numpy
from .operands import wrap
from .tape import grad_root, no_grad, run_backward
from .tensor import Tensor


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the sum of `outputs`, and change no ``grad``.

    Parameters
    ----------
    outputs : Tensor or sequence of Tensor
        What to differentiate.
    inputs : Tensor or sequence of Tensor
        By what; they need not be leaves.
    grad_outputs : Tensor or sequence of Tensor, optional
        The gradient to start from at each output.
    retain_graph : bool, optional
        Keep what was saved.
    create_graph : bool
        Not supported.
    allow_unused : bool
        Return None for an input that no output depends on.

    Returns
    -------
    tuple of Tensor or None

    Raises
    ------
    NotImplementedError
        If `create_graph` is asked for.
    RuntimeError
        If an input was not used, or does not require a gradient.

    Examples
    --------
    >>> import minitransformer as mt
    >>> x = mt.tensor([1.0, 2.0], requires_grad=True)
    >>> mt.autograd.grad((x * x).sum(), x)
    (tensor([2., 4.]),)
    """
    if create_graph:
        raise NotImplementedError("create_graph=True: minitransformer has no second derivatives")
    roots = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or ())
    given += [None] * (len(roots) - len(given))
    for i, x in enumerate(wanted):
        if not x.requires_grad:
            raise RuntimeError(f"grad: input {i} does not require a gradient")
    starts = [grad_root(t, None if g is None else g.array) for t, g in zip(roots, given)]
    found = run_backward(roots, starts, retain_graph=bool(retain_graph), capture=wanted)
    for i, g in enumerate(found):
        if g is None and not allow_unused:
            raise RuntimeError(
                f"grad: input {i} was not used to compute the outputs; pass allow_unused=True to "
                "get None for it"
            )
    return tuple(None if g is None else wrap(g) for g in found)


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
) -> None:
    """Bring the gradient of the sum of `tensors` to the leaves."""
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = [grad_tensors] if isinstance(grad_tensors, Tensor) else list(grad_tensors or ())
    given += [None] * (len(roots) - len(given))
    starts = [grad_root(t, None if g is None else g.array) for t, g in zip(roots, given)]
    run_backward(roots, starts, retain_graph=bool(retain_graph))


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Return whether the gradients of `func` agree with central differences.

    Parameters
    ----------
    func : callable
        Takes the inputs, returns a tensor or a tuple of tensors.
    inputs : Tensor or sequence
        Those that require gradients must be float64: in float32 the differences
        are mostly rounding.
    eps : float
        The step.
    atol, rtol : float
        Allowed is ``atol + rtol * |numerical|``.
    raise_exception : bool
        Raise on a disagreement instead of returning False.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If no input requires a gradient, or one that does is not float64.
    RuntimeError
        If the gradients differ; the message names the place.

    Examples
    --------
    >>> import minitransformer as mt
    >>> gradcheck(mt.tanh, mt.tensor([0.5], dtype=mt.float64, requires_grad=True))
    True
    """
    args = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [(i, x) for i, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input requires a gradient")
    for i, x in checked:
        if x.dtype != np.float64:
            raise ValueError(f"gradcheck: input {i} must be float64, found {x.dtype}")
    outputs = _outputs(func, args)
    numerical = {i: _differences(func, args, x, eps) for i, x in checked}
    for o, out in enumerate(outputs):
        for e in range(out.numel()):
            start = np.zeros(out.numel())
            start[e] = 1
            seed = wrap(start.reshape(out.array.shape).astype(out.dtype)).to(out.device)
            rows = grad(out, [x for _, x in checked], seed, retain_graph=True, allow_unused=True)
            for (i, x), row in zip(checked, rows):
                exact = np.zeros(x.numel()) if row is None else to_numpy(row.array).reshape(-1)
                differences = numerical[i][o][:, e]
                off = ~(abs(exact - differences) <= atol + rtol * abs(differences))
                if off.any():
                    if not raise_exception:
                        return False
                    at = int(off.argmax())
                    raise RuntimeError(
                        f"gradcheck: the gradient of element {e} of output {o} by element {at} of "
                        f"input {i} is {exact[at]:.8g}, finite differences give "
                        f"{differences[at]:.8g}"
                    )
    return True


def _outputs(func: Callable[..., Any], args: Sequence[Any]) -> list[Tensor]:
    out = func(*args)
    return [t for t in (out if isinstance(out, tuple) else (out,)) if t.requires_grad]


def _differences(
    func: Callable[..., Any], args: Sequence[Any], x: Tensor, eps: float
) -> list[np.ndarray[Any, Any]]:
    """Return, per output, the matrix of (f(x + eps) - f(x - eps)) / 2 eps: inputs by outputs."""
    kept = x.array
    columns: list[list[Any]] = []
    wanted = [t.requires_grad for t in _all(func(*args))]
    try:
        for i in range(x.numel()):
            ends = []
            for step in (eps, -eps):
                moved = kept.copy()
                moved.reshape(-1)[i] += step
                x.array = moved
                with no_grad():
                    ends.append([to_numpy(t.array).reshape(-1) for t in _all(func(*args))])
            columns.append([(a - b) / (2 * eps) for a, b, w in zip(ends[0], ends[1], wanted) if w])
    finally:
        x.array = kept
    return [np.stack(column) for column in zip(*columns)]


def _all(out: Any) -> tuple[Any, ...]:
    return out if isinstance(out, tuple) else (out,)
