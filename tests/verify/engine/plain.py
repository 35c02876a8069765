"""A second evaluator of formulas: plain NumPy on arrays, no types, no balls.

It shares nothing with the verifier but the tree, and says which mutants of a
formula are the formula itself. What it cannot evaluate it refuses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minitransformer.verify.expression import Expr


class Refused(Exception):
    """The formula needs more than this evaluator has."""


UNARY = {
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "σ": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf),
    "Φ": np.vectorize(lambda x: (1 + math.erf(x / math.sqrt(2))) / 2),
    "gelu": np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "log2": np.log2,
    "log10": np.log10,
    "relu": lambda x: np.maximum(x, 0),
    "ceil": np.ceil,
}


def plain(e: Expr, names: dict[str, Any]) -> Any:
    """Return the value of a formula whose names have these values."""
    with np.errstate(all="ignore"):
        return _value(e, names)


def _value(e: Expr, names: dict[str, Any]) -> Any:
    op = e.op
    if op == "number":
        return float(e.value)
    if op == "name":
        if e.value == "π":
            return math.pi
        if e.value not in names:
            raise Refused(e.value)
        return names[e.value]
    if op in ("add", "hadamard", "neg", "div", "pow", "sqrt", "abs"):
        return _elementwise(e, names)
    if op in ("mul", "matmul"):
        out = _value(e.args[0], names)
        for k in range(1, len(e.args)):
            out = _product(out, _value(e.args[k], names), e.args[k - 1], e.args[k])
        return out
    if op == "transpose":
        return np.transpose(_value(e.args[0], names))
    if op == "norm":
        return np.sqrt((_value(e.args[0], names) ** 2).sum())
    if op == "index":
        base = _value(e.args[0], names)
        # A sum from 0 counts its entries from 0, any other index from 1.
        zero = names.get("from zero", frozenset())
        picks = tuple(
            round(_value(a, names)) - (0 if a.op == "name" and a.value in zero else 1)
            for a in e.args[1:]
        )
        if any(not 0 <= p < n for p, n in zip(picks, np.shape(base))):
            raise Refused("index")
        return base[picks]
    if op == "big":
        return _sum(e, names)
    if op == "call":
        return _call(e, names)
    raise Refused(op)


def _elementwise(e: Expr, names: dict[str, Any]) -> Any:
    args = [_value(a, names) for a in e.args]
    if e.op == "neg":
        return -args[0]
    if e.op == "abs":
        return np.abs(args[0])
    if e.op == "sqrt":
        return np.sqrt(args[0])
    if e.op == "div":
        return args[0] / args[1]
    if e.op == "pow":
        return np.power(args[0], args[1])
    out = args[0]
    for value in args[1:]:
        if np.ndim(out) and np.ndim(value) and np.shape(out) != np.shape(value):
            wide, thin = (out, value) if np.ndim(out) > np.ndim(value) else (value, out)
            if np.ndim(wide) == 2 and np.shape(wide)[0] == len(thin):
                thin = thin[:, None]
            out, value = wide, thin
        out = out + value if e.op == "add" else out * value
    return out


def _product(a: Any, b: Any, left: Expr, right: Expr) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return a * b
    if np.ndim(a) == np.ndim(b) == 1:
        if left.op == "transpose":
            return a @ b
        if right.op == "transpose":
            return np.outer(a, b)
        return a * b
    return a @ b


def _sum(e: Expr, names: dict[str, Any]) -> Any:
    kind, variable = e.value
    if len(e.args) != 3 or variable is None:
        raise Refused("range")
    low, high = (round(_value(a, names)) for a in e.args[1:])
    values = []
    if low == 0:
        names = {**names, "from zero": {*names.get("from zero", ()), variable}}
    for k in range(low, high + 1):
        values.append(_value(e.args[0], {**names, variable: float(k)}))
    if not values:
        raise Refused("an empty sum")
    fold = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}
    if kind not in fold:
        raise Refused(kind)
    return fold[kind](np.stack(values), axis=0)


def _call(e: Expr, names: dict[str, Any]) -> Any:
    function = str(e.value)
    args = [_value(a, names) for a in e.args if a.op != "keyword"]
    if function.lower() in UNARY and len(args) == 1:
        return UNARY[function.lower()](args[0])
    if function in UNARY and len(args) == 1:
        return UNARY[function](args[0])
    if function in ("softmax", "softmax_column"):
        axis = -1 if function == "softmax" else 0
        x = np.exp(args[0] - np.max(args[0], axis=axis, keepdims=True))
        return x / x.sum(axis=axis, keepdims=True)
    if function in ("max", "min") and len(args) == 2:
        return (np.maximum if function == "max" else np.minimum)(*args)
    if function == "rowsum":
        return np.sum(args[0], axis=-1)
    if function == "diag":
        return np.diag(args[0])
    raise Refused(function)
