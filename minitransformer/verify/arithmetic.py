"""Worked examples with numbers: both sides of ``softmax([1, 2]) = [0.27, 0.73]`` computed.

Only closed expressions are computed, in float64; the decimals that the text prints say
how far a side may be off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitransformer.verify.expression import Expr

Array = NDArray[np.float64]
_LARGEST = 4_096  # entries of a result, terms of a sum


class NotClosed(Exception):
    """An expression with a symbol or an operator that has no number."""


def _softmax(x: Array) -> Array:
    flat = x - x.max(axis=-1, keepdims=True)
    return np.asarray(np.exp(flat) / np.exp(flat).sum(axis=-1, keepdims=True))


_FUNCTIONS: dict[str, Callable[[Array], Any]] = {
    "exp": np.exp, "log": np.log, "sin": np.sin, "cos": np.cos, "tan": np.tan, "tanh": np.tanh,
    "softmax": _softmax, "relu": lambda x: np.maximum(x, 0.0), "floor": np.floor, "ceil": np.ceil,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "mean": np.mean, "sum": np.sum, "max": np.max,
    "min": np.min, "sinh": np.sinh, "cosh": np.cosh, "percent": lambda x: x / 100,
}  # fmt: skip


def compute(expr: Expr, known: Mapping[str, float] | None = None) -> Array:
    r"""Return the value of a closed expression.

    Parameters
    ----------
    expr : Expr
        An expression.
    known : mapping of str to float, optional
        Values of names.

    Returns
    -------
    ndarray of float64
        A number (shape ``()``) or a matrix.

    Raises
    ------
    NotClosed
        Where something has no value.

    Examples
    --------
    >>> from minitransformer.verify.parser import parse
    >>> float(compute(parse(r"\frac{1}{\sqrt{d_k}}")[0].expr, {"d_k": 64.0}))
    0.125
    """
    with np.errstate(all="ignore"):
        value = np.asarray(_compute(expr, dict(known or {})), dtype=np.float64)
    if not np.isfinite(value).all():
        raise NotClosed("not a finite number")
    return value


def _compute(e: Expr, known: dict[str, float]) -> Array:
    if e.op == "number":
        return np.asarray(float(e.value))
    if e.op == "name":
        value = {"e": math.e, "π": math.pi, **known}.get(str(e.value))
        if value is None:
            raise NotClosed(str(e.value))
        return np.asarray(float(value))
    if e.op == "big":
        return _sum(e, known)
    if e.op in ("relation", "chain", "steps", "cases", "given", "keyword", "ellipsis"):
        raise NotClosed(e.op)
    args = [_compute(a, known) for a in e.args]
    if e.op == "add":
        return _total(args)
    if e.op == "neg":
        return -args[0]
    if e.op in ("mul", "matmul"):
        out = args[0]
        for arg in args[1:]:
            out = _times(out, arg)
        return out
    if e.op == "hadamard":
        return np.asarray(math.prod(args[1:], start=args[0]))
    if e.op == "div" and args[1].ndim == 0:
        return np.asarray(args[0] / args[1])
    if e.op == "pow" and args[0].ndim == args[1].ndim == 0:
        return np.asarray(np.power(args[0], args[1]))
    if e.op == "inverse" and args[0].ndim == 0:
        return np.asarray(1 / args[0])
    if e.op == "sqrt":
        root = float(args[1]) if len(args) > 1 else 2.0
        return np.asarray(np.power(args[0], 1 / root))
    if e.op == "transpose":
        return np.asarray(args[0].T)
    if e.op == "abs":
        return np.asarray(np.abs(args[0]))
    if e.op == "norm" and e.value in ("", "2", "F"):
        return np.asarray(np.sqrt((args[0] ** 2).sum()))
    if e.op == "matrix" and all(a.ndim == 0 for a in args):
        rows, columns = e.value
        return np.array(args, dtype=np.float64).reshape(rows, columns)
    if e.op == "call":
        return _call(str(e.value), args)
    raise NotClosed(e.op)


def _call(name: str, args: list[Array]) -> Array:
    if name in ("max", "min") and len(args) > 1 and all(a.ndim == 0 for a in args):
        return np.asarray((np.max if name == "max" else np.min)(args))
    if name == "softmax" and len(args) > 1 and all(a.ndim == 0 for a in args):
        return _softmax(np.asarray([args], dtype=np.float64).reshape(1, -1))
    if name == "factorial" and len(args) == 1 and 0 <= float(args[0]) <= 20:
        return np.asarray(float(math.factorial(int(args[0]))))
    function = _FUNCTIONS.get(name)
    if function is None or len(args) != 1:
        raise NotClosed(name)
    return np.asarray(function(args[0]), dtype=np.float64)


def _total(args: list[Array]) -> Array:
    out = args[0]
    for arg in args[1:]:
        if out.shape != arg.shape and out.ndim and arg.ndim:
            raise NotClosed("shapes")
        out = out + arg
    return np.asarray(out)


def _times(a: Array, b: Array) -> Array:
    if a.ndim == 0 or b.ndim == 0:
        return np.asarray(a * b)
    if a.shape[-1] != b.shape[0] or a.shape[0] * b.shape[-1] > _LARGEST:
        raise NotClosed("shapes")
    return np.asarray(a @ b)


def _sum(e: Expr, known: dict[str, float]) -> Array:
    kind, variable = e.value
    if kind not in ("sum", "prod") or len(e.args) != 3 or variable is None:
        raise NotClosed("big")
    low, high = (_compute(a, known) for a in e.args[1:])
    if low.ndim or high.ndim or not 0 <= float(high) - float(low) < _LARGEST:
        raise NotClosed("bounds")
    terms = [
        _compute(e.args[0], {**known, variable: float(i)}) for i in range(int(low), int(high) + 1)
    ]
    return _total(terms) if kind == "sum" else np.asarray(math.prod(terms[1:], start=terms[0]))


def printed_step(expr: Expr, text: str) -> float | None:
    """Return one unit in the last printed decimal of a literal side, else ``None``.

    Examples
    --------
    >>> from minitransformer.verify.parser import parse
    >>> printed_step(parse("[0.27, 0.73]")[0].expr, "[0.27, 0.73]")
    0.01
    """
    leaves = [e for e in expr.walk() if not e.args]
    literal = all(e.op == "number" for e in leaves) and all(
        e.op in ("number", "neg", "matrix", "tuple") or (e.op == "call" and e.value == "percent")
        for e in expr.walk()
    )
    if not literal:
        return None
    steps = []
    for leaf in leaves:
        digits = text[slice(*leaf.span)]
        steps.append(10.0 ** -len(digits.partition(".")[2]) if "." in digits else 0.0)
    scale = 0.01 if any(e.op == "call" for e in expr.walk()) else 1.0
    return max(steps) * scale if steps else None
