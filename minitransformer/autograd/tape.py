"""The tape: which kernel made a tensor, and the walk back.

`record` is the only bridge from kernels to gradients. It runs a forward function
on raw arrays and, where an input wants a gradient, notes the backward function
and what it saved in a `Node`. A node knows the nodes it came from and never its
own output, so nothing here waits for the garbage collector.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..backend import Array, array_module, dtypes
from ..kernels.elementwise import add
from ..kernels.embedding import SparseRows

Function = TypeVar("Function", bound=Callable[..., Any])
Hook = Callable[[Any], Any]


class Node:
    """One recorded call of a kernel.

    Attributes
    ----------
    name : str
        The kernel's name, as in ``layer_norm``.
    backward : callable
        ``backward(dout, saved)`` gives one gradient per input; for a kernel with
        a tuple of outputs ``dout`` is a tuple with ``None`` where nothing arrived.
    inputs : tuple
        Per input the leaf tensor, or the pair (node, output number), or ``None``.
    saved : tuple or None
        What the forward function saved; ``None`` once it has been used.
    guards : tuple
        Version counters of saved tensors, to notice changes in place.
    outputs : int or None
        How long the kernel's tuple of outputs is; ``None`` for one that returns an array.
    hooks : dict
        Per output number the functions that see its gradient.
    shared : bool
        Whether several graphs go through it, as through a parameter's cast under `autocast`;
        what it saved is then kept.
    """

    __slots__ = ("backward", "guards", "hooks", "inputs", "name", "outputs", "saved", "shared")

    def __init__(
        self,
        name: str,
        backward: Callable[..., tuple[Any, ...]],
        inputs: tuple[Any, ...],
        saved: tuple[Any, ...],
        outputs: int | None,
    ) -> None:
        self.name = name
        self.backward = backward
        self.inputs = inputs
        self.saved: tuple[Any, ...] | None = saved
        self.outputs = outputs
        self.guards: tuple[tuple[list[int], int], ...] = ()
        self.hooks: dict[int, list[Hook]] = {}
        self.shared = False

    def __repr__(self) -> str:
        return f"<{self.name} backward>"


class Tracked:
    """An array with its place on the tape; `Tensor` adds the methods.

    Attributes
    ----------
    array : array
        The numbers.
    grad : Tensor or None
        The accumulated gradient of a leaf.
    requires_grad : bool
        Whether a gradient is wanted.
    node : Node or None
        The call that made the tensor; ``None`` for a leaf.
    output : int
        Which output of that call it is.
    version : list of int
        One counter, shared by all views of the array; changes in place raise it.
    hooks : list
        Functions that see a leaf's gradient before it is added.
    """

    __slots__ = (
        "__weakref__", "array", "grad", "hooks", "node", "output", "requires_grad", "version",
    )  # fmt: skip

    result_class: ClassVar[Callable[..., Any]]  # set to Tensor where Tensor is defined

    def __init__(
        self, array: Array, requires_grad: bool = False, node: Node | None = None, output: int = 0
    ) -> None:
        self.array = array
        self.grad: Any = None
        self.requires_grad = requires_grad
        self.node = node
        self.output = output
        self.version = [0]
        self.hooks: list[Hook] = []


class State(threading.local):
    """What a thread's `record` does.

    Attributes
    ----------
    enabled : bool
        Whether operations are recorded.
    casts : dict or None
        By kind of device, the type that `autocast` has products compute in.
    inside : bool
        Whether the types of the kernel at hand have been chosen.
    """

    enabled = True
    casts: dict[str, Any] | None = None
    inside = False


state = State()


def is_grad_enabled() -> bool:
    """Return whether operations are recorded."""
    return state.enabled


class set_grad_enabled(contextlib.ContextDecorator):
    """Switch recording on or off, at once, and back at the end of a ``with`` block."""

    def __init__(self, mode: bool) -> None:
        self.before = state.enabled
        self.mode = state.enabled = bool(mode)

    def __enter__(self) -> None:
        state.enabled = self.mode

    def __exit__(self, *error: object) -> None:
        state.enabled = self.before


class _GradMode:
    """A context manager and a decorator that sets the mode for its extent."""

    mode: ClassVar[bool]

    def __init__(self) -> None:
        self.stack: list[bool] = []

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        # PyTorch allows both @no_grad and @no_grad()
        return cls()(function) if callable(function) else super().__new__(cls)

    def __enter__(self) -> None:
        self.stack.append(state.enabled)
        state.enabled = self.mode

    def __exit__(self, *error: object) -> None:
        state.enabled = self.stack.pop()

    def __call__(self, function: Function) -> Function:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]


class no_grad(_GradMode):
    """Record nothing: a context manager, or a decorator."""

    mode = False


class enable_grad(_GradMode):
    """Record again inside a `no_grad` block: a context manager, or a decorator."""

    mode = True


def record(
    forward: Callable[..., tuple[Any, tuple[Any, ...]]],
    backward: Callable[..., tuple[Any, ...]],
    *inputs: Any,
    **options: Any,
) -> Any:
    """Run a kernel and put it on the tape.

    Parameters
    ----------
    forward : callable
        ``forward(*arrays, **options) -> (out, saved)``; a tuple `out` makes a tuple
        of tensors.
    backward : callable
        ``backward(dout, saved)``, one gradient per input.
    *inputs : Tensor, array or None
        The positional arguments of `forward`.
    **options
        Its keyword arguments.

    Returns
    -------
    Tensor or tuple of Tensor

    Examples
    --------
    >>> import numpy as np
    >>> from minitransformer.autograd import Tensor, record
    >>> def double_forward(x):
    ...     return 2 * x, ()
    >>> def double_backward(dout, saved):
    ...     return (2 * dout,)
    >>> x = Tensor(np.ones(2), requires_grad=True)
    >>> record(double_forward, double_backward, x).sum().backward()
    >>> x.grad.tolist()
    [2.0, 2.0]
    """
    if (state.casts is not None or dtypes.loaded_bfloat16 is not None) and not state.inside:
        from .precision import dispatch

        return dispatch(forward, backward, inputs, options)
    out, saved = forward(*[x.array if isinstance(x, Tracked) else x for x in inputs], **options)
    make = Tracked.result_class
    wanted = state.enabled and any(isinstance(x, Tracked) and x.requires_grad for x in inputs)
    if not wanted:
        return tuple(make(o) for o in out) if isinstance(out, tuple) else make(out)

    outs = out if isinstance(out, tuple) else (out,)
    edges = tuple(
        None
        if not (isinstance(x, Tracked) and x.requires_grad)
        else (x if x.node is None else (x.node, x.output))
        for x in inputs
    )
    name = forward.__name__.removesuffix("_forward")
    node = Node(name, backward, edges, saved, len(outs) if isinstance(out, tuple) else None)
    tensors = tuple(
        make(o, requires_grad=True, node=node, output=i) if o.dtype.kind in "fV" else make(o)
        for i, o in enumerate(outs)
    )
    kept = {id(s) for s in saved}
    node.guards = tuple(
        (t.version, t.version[0])
        for t in (*inputs, *tensors)
        if isinstance(t, Tracked) and id(t.array) in kept
    )
    return tensors if isinstance(out, tuple) else tensors[0]


def run_backward(
    roots: Sequence[Tracked],
    gradients: Sequence[Array],
    *,
    retain_graph: bool = False,
    capture: Sequence[Tracked] | None = None,
) -> list[Any]:
    """Walk the tape from `roots` and bring gradients to the leaves.

    Parameters
    ----------
    roots : sequence of Tensor
        Where to start.
    gradients : sequence of array
        The gradient of each root.
    retain_graph : bool
        Keep what the nodes saved, so that the walk can be made again.
    capture : sequence of Tensor, optional
        Return the gradients of these tensors and leave every ``grad`` alone.

    Returns
    -------
    list of array or None
        In the order of `capture`; empty without it.

    Raises
    ------
    RuntimeError
        If the graph was used before, or a saved tensor was changed in place.
    """
    sums: dict[Any, list[_Sum]] = {}
    captured = {_place(t): _Sum() for t in capture or ()}
    waiting: dict[Node | Tracked, int] = {}  # how many consumers have not run yet
    hooked: dict[Tracked, _Sum] = {}  # leaves whose hooks wait for the whole sum

    def arrive(edge: Any, gradient: Any, fresh: bool) -> None:
        if isinstance(edge, Tracked) and edge in waiting:
            dense = gradient.dense() if isinstance(gradient, SparseRows) else gradient
            hooked.setdefault(edge, _Sum()).add(dense, fresh)
        elif isinstance(edge, Tracked):
            _arrive_at_leaf(edge, gradient, fresh, captured, capture is None)
        else:
            node, output = edge
            if isinstance(gradient, SparseRows):
                gradient = gradient.dense()
            if node not in sums:
                sums[node] = [_Sum() for _ in range(node.outputs or 1)]
            sums[node][output].add(gradient, fresh)

    starts = list(dict.fromkeys(t.node for t in roots if t.node is not None))
    found = list(starts)
    waiting.update(dict.fromkeys(starts, 0))
    while found:
        for edge in found.pop().inputs:
            if isinstance(edge, tuple):
                if edge[0] not in waiting:
                    waiting[edge[0]] = 0
                    found.append(edge[0])
                waiting[edge[0]] += 1
            elif edge is not None and edge.hooks:
                waiting[edge] = waiting.get(edge, 0) + 1
    for root, gradient in zip(roots, gradients):
        if root.node is None and root not in waiting:  # a leaf that nothing was made from
            gradient = _after_hooks(gradient, root.hooks)
        arrive(root if root.node is None else (root.node, root.output), gradient, False)

    ready = [node for node in starts if waiting[node] == 0]
    while ready:
        node = ready.pop()
        arrived = sums.pop(node, None)
        gradients_in: tuple[Any, ...] = (None,) * len(node.inputs)
        if arrived is not None:
            douts = [_after_hooks(s.value, node.hooks.get(i, ())) for i, s in enumerate(arrived)]
            for i, dout in enumerate(douts):
                if (node, i) in captured and dout is not None:
                    captured[node, i].add(dout, False)
            dout = douts[0] if node.outputs is None else tuple(douts)
            saved = _take_saved(node, retain_graph)
            gradients_in = node.backward(dout, saved)
            held = {id(x) for x in (*saved, *douts)}  # what others may hold is not ours
            del saved, arrived, douts, dout
        seen: set[int] = set()
        for edge, gradient in zip(node.inputs, gradients_in):
            if edge is not None and gradient is not None:
                others = id(gradient) in held or id(gradient) in seen
                seen.add(id(gradient))
                fresh = not others and _alone(gradient)
                arrive(edge, gradient, fresh)
            if isinstance(edge, tuple):
                waiting[edge[0]] -= 1
                if waiting[edge[0]] == 0:
                    ready.append(edge[0])
            elif edge in waiting:
                waiting[edge] -= 1
                if waiting[edge] == 0 and edge in hooked:
                    total = _after_hooks(hooked.pop(edge).value, edge.hooks)
                    _arrive_at_leaf(edge, total, False, captured, capture is None)
        gradients_in = ()
    return [captured[_place(t)].value for t in capture or ()]


class _Sum:
    """A sum of gradients, made in the first of them that is nobody else's."""

    __slots__ = ("owned", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.owned = False

    def add(self, gradient: Array, fresh: bool) -> None:
        if self.value is None:
            self.value, self.owned = gradient, fresh
            return
        out = self.value if self.owned else gradient if fresh else None
        self.value = add(self.value, gradient, out=out)
        self.owned = not isinstance(self.value, np.generic)  # NumPy's sums without axes


def _alone(gradient: Any) -> bool:
    """Return whether nobody else holds the memory of a gradient, so that it may be added to.

    A kernel's new array is often seen through a reshape: then its base has that one holder.
    """
    if isinstance(gradient, SparseRows):
        return True
    if isinstance(gradient, np.generic) or not getattr(gradient.flags, "writeable", True):
        return False
    base = getattr(gradient, "base", None)
    return (
        sys.getrefcount(gradient) <= _ALONE[0]
        and (base is None or sys.getrefcount(base) <= _ALONE[1])
        and 0 not in gradient.strides  # one number seen several times
    )


def _references(gradient: Array) -> tuple[int, int]:
    base = gradient.base
    return sys.getrefcount(gradient), sys.getrefcount(base)


def _references_of_new(gradients: tuple[Array, ...]) -> tuple[int, int]:
    for _, gradient in zip((None,), gradients):  # as `run_backward` holds what a kernel returns
        return _references(gradient)
    raise AssertionError


_ALONE = _references_of_new((np.empty(2)[:1],))


def _place(t: Tracked) -> Any:
    return t if t.node is None else (t.node, t.output)


def _take_saved(node: Node, retain_graph: bool) -> tuple[Any, ...]:
    if node.saved is None:
        raise RuntimeError(
            f"backward through {node.name} a second time: its saved arrays were freed by the "
            "first; pass retain_graph=True to the first backward, or run the forward again"
        )
    if any(version[0] != before for version, before in node.guards):
        raise RuntimeError(
            f"an array that {node.name} saved for its backward was changed in place since; "
            "change a clone, or make the change after backward"
        )
    saved = node.saved
    if not (retain_graph or node.shared):
        node.saved = None
    return saved


def _after_hooks(gradient: Any, hooks: Sequence[Hook]) -> Any:
    """Return the gradient as the hooks leave it; each sees a tensor and may return another."""
    if gradient is not None:
        for hook in hooks:
            answer = hook(Tracked.result_class(gradient))
            gradient = gradient if answer is None else answer.array
    return gradient


def _arrive_at_leaf(
    leaf: Tracked, gradient: Any, fresh: bool, captured: dict[Any, _Sum], keep: bool
) -> None:
    if isinstance(gradient, SparseRows):
        if keep and leaf.grad is not None:
            gradient.add_to(leaf.grad.array)
            return
        gradient = gradient.dense()
    if leaf in captured:
        captured[leaf].add(gradient, fresh)
    elif keep and leaf.grad is None:
        # a leaf owns its buffer, otherwise two leaves could share one array
        leaf.grad = Tracked.result_class(gradient if fresh else gradient.copy())
    elif keep:
        leaf.grad.array += gradient


def grad_root(t: Tracked, gradient: Array | None) -> Array:
    """Return the gradient to start from at `t`: ones for a scalar unless given.

    Raises
    ------
    RuntimeError
        If `t` does not require a gradient, is no scalar, or the shapes differ.
    """
    if not t.requires_grad:
        raise RuntimeError(
            "backward needs a tensor that depends on one with requires_grad=True; this one does not"
        )
    if gradient is None:
        if t.array.size != 1:
            raise RuntimeError(
                "grad can be implicitly created only for scalar outputs: this tensor has shape "
                f"{t.array.shape}; pass gradient=, or reduce it with sum() or mean()"
            )
        return array_module(t.array).ones_like(t.array)
    if gradient.shape != t.array.shape:
        raise RuntimeError(
            f"gradient has shape {gradient.shape}, the tensor {t.array.shape}; they must be equal"
        )
    return gradient
