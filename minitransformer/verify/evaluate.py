"""Evaluate typed terms: one walk for the three arithmetics of `number_systems`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.dimensions import Term
from minitransformer.verify.number_systems import (
    FLOATS,
    Array,
    CannotEvaluate,
    Floats,
    Point,
    each,
    size_of,
)


def gelu(m: Floats, x: Any) -> Any:
    """Return x Φ(x)."""
    return x * phi(m, x)


def phi(m: Floats, x: Any) -> Any:
    """Return the standard normal's distribution function."""
    return (1 + m.erf(x / m.sqrt(m.number(2)))) * m.number(Fraction(1, 2))


def sigmoid(m: Floats, x: Any) -> Any:
    """Return 1 / (1 + e⁻ˣ)."""
    return 1 / (1 + m.exp(-x))


def _sign(m: Floats, x: Any) -> Any:
    return each(lambda v: m.number((v > 0) - (v < 0)), x)


FUNCTIONS: dict[str, Callable[[Floats, Any], Any]] = {
    "exp": lambda m, x: m.exp(x),
    "log": lambda m, x: m.log(x),
    "log2": lambda m, x: m.log(x) / m.log(m.number(2)),
    "log10": lambda m, x: m.log(x) / m.log(m.number(10)),
    "sqrt": lambda m, x: m.sqrt(x),
    "sin": lambda m, x: m.sin(x),
    "cos": lambda m, x: m.cos(x),
    "tan": lambda m, x: m.sin(x) / m.cos(x),
    "tanh": lambda m, x: m.tanh(x),
    "sinh": lambda m, x: (m.exp(x) - m.exp(-x)) / 2,
    "cosh": lambda m, x: (m.exp(x) + m.exp(-x)) / 2,
    "sigmoid": sigmoid,
    "erf": lambda m, x: m.erf(x),
    "relu": lambda m, x: m.maximum(x, m.number(0)),
    "gelu": gelu,
    "silu": lambda m, x: x * sigmoid(m, x),
    "Phi": phi,
    "softplus": lambda m, x: m.log(1 + m.exp(x)),
    "logsigmoid": lambda m, x: -m.log(1 + m.exp(-x)),
    "abs": lambda m, x: m.abs(x),
    "floor": lambda m, x: m.floor(x),
    "ceil": lambda m, x: -m.floor(-x),
    "sign": _sign,
    "heaviside": lambda m, x: (_sign(m, x) + 1) / 2,
}


class Evaluator:
    """The values of terms at one point in one arithmetic, each computed once."""

    def __init__(self, point: Point, m: Floats, inputs: Mapping[str, Any] | None = None):
        self.m = m
        self.point = point
        self.inputs = (
            dict(inputs) if inputs is not None else {k: m.array(v) for k, v in point.inputs.items()}
        )
        self._memo: dict[int, tuple[Term, Any]] = {}
        self._at: dict[str, int] = {}

    def __call__(self, term: Term) -> Any:
        hit = self._memo.get(id(term))
        if hit is not None:
            return hit[1]
        value = getattr(self, "_" + term.op)(term)
        if not term.free:
            self._memo[id(term)] = (term, value)
        return value

    def _places(self, term: Term, places: Sequence[tuple[int, ...] | None]) -> list[Any]:
        values = [self(a) for a in term.args]
        rank = len(term.dims)
        out = []
        for value, place in zip(values, places):
            if place:
                shape = [1] * rank
                for axis, size in zip(place, np.shape(value)):
                    shape[axis] = size
                value = np.reshape(value, shape)
            out.append(value)
        return out

    def _number(self, t: Term) -> Any:
        return self.m.number(t.value)

    def _symbol(self, t: Term) -> Any:
        try:
            value = self.inputs[t.value]
        except KeyError:
            raise CannotEvaluate(f"no value for {t.value}") from None
        return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value

    def _size(self, t: Term) -> Any:
        return self.m.number(Fraction(size_of(t.value, self.point.sizes)))

    def _pi(self, t: Term) -> Any:
        if self.m.name == "exact":
            raise CannotEvaluate("π is not rational")
        return self.m.pi

    def _infinity(self, t: Term) -> Any:
        return self.m.inf

    def _indexvalue(self, t: Term) -> Any:
        return self.m.number(Fraction(self._at[t.value] + 1))

    def _add(self, t: Term) -> Any:
        first, *rest = self._places(t, t.value)
        for value in rest:
            first = first + value
        return first

    def _neg(self, t: Term) -> Any:
        return -self(t.args[0])

    def _same(self, t: Term) -> Any:
        return self(t.args[0])

    def _times(self, t: Term) -> Any:
        first, *rest = self._places(t, t.value)
        for value in rest:
            first = first * value
        return first

    def _div(self, t: Term) -> Any:
        a, b = self._places(t, t.value)
        try:
            return a / b
        except ZeroDivisionError:
            raise CannotEvaluate("division by zero") from None

    def _pow(self, t: Term) -> Any:
        a, b = self._places(t, t.value)
        try:
            return self.m.power(a, b)
        except ZeroDivisionError:
            raise CannotEvaluate("division by zero") from None

    def _fn(self, t: Term) -> Any:
        x = self(t.args[0])
        return FUNCTIONS[t.value](self.m, x)

    def _matmul(self, t: Term) -> Any:
        return np.matmul(self(t.args[0]), self(t.args[1]))

    def _dot(self, t: Term) -> Any:
        return (self(t.args[0]) * self(t.args[1])).sum()

    def _outer(self, t: Term) -> Any:
        return np.multiply.outer(self(t.args[0]), self(t.args[1]))

    def _kron(self, t: Term) -> Any:
        return np.kron(self(t.args[0]), self(t.args[1]))

    def _transpose(self, t: Term) -> Any:
        return self(t.args[0]).T

    def _inverse(self, t: Term) -> Any:
        a = self(t.args[0])
        if self.m.name == "float64":
            try:
                return np.linalg.inv(a)
            except np.linalg.LinAlgError:
                raise CannotEvaluate("a singular matrix") from None
        if self.m.name == "balls":
            from flint import arb_mat

            n = a.shape[0]
            try:
                inverse = arb_mat(a.tolist()).inv()
            except ZeroDivisionError:
                raise CannotEvaluate("a singular matrix") from None
            out = np.empty((n, n), dtype=object)
            for i in range(n):
                for j in range(n):
                    out[i, j] = inverse[i, j]
            return out
        raise CannotEvaluate("an exact inverse")

    def _softmax(self, t: Term) -> Any:
        x = self(t.args[0])
        x = x - self._extreme_along(x, t.value)
        e = self.m.exp(x)
        return e / e.sum(axis=t.value, keepdims=True)

    def _log_softmax(self, t: Term) -> Any:
        x = self(t.args[0])
        x = x - self._extreme_along(x, t.value)
        return x - self.m.log(self.m.exp(x).sum(axis=t.value, keepdims=True))

    def _extreme_along(self, x: Array, axis: int) -> Any:
        """Return the largest entry along an axis: any shift will do, so midpoints serve."""
        if self.m.name == "exact":
            raise CannotEvaluate("not a rational number")
        if self.m.name == "float64":
            top = x.max(axis=axis, keepdims=True)
            return np.where(np.isfinite(top), top, 0.0)
        return each(lambda v: v.mid(), np.max(x, axis=axis, keepdims=True))

    def _reduce(self, t: Term) -> Any:
        kind, axes = t.value
        x = self(t.args[0])
        n = math.prod(x.shape[k] for k in axes)
        if kind in ("max", "min"):
            return self._fold(self.m.maximum if kind == "max" else self.m.minimum, x, axes)
        if kind == "prod":
            return x.prod(axis=axes)
        if kind == "logsumexp":
            return self.m.log(self.m.exp(x).sum(axis=axes))
        if kind == "rms":
            return self.m.sqrt((x * x).sum(axis=axes) / self.m.number(Fraction(n)))
        total = x.sum(axis=axes)
        if kind == "sum":
            return total
        n = self.m.number(Fraction(n))
        if kind == "mean":
            return total / n
        centred = x - x.sum(axis=axes, keepdims=True) / n
        if kind.endswith("_unbiased"):
            n = n - 1
        var = (centred * centred).sum(axis=axes) / n
        return self.m.sqrt(var) if kind.startswith("std") else var

    def _fold(self, two: Callable[..., Any], x: Array, axes: tuple[int, ...]) -> Any:
        kept = [k for k in range(x.ndim) if k not in axes]
        flat = np.transpose(x, kept + list(axes)).reshape([x.shape[k] for k in kept] + [-1])
        out = flat[..., 0]
        for k in range(1, flat.shape[-1]):
            out = two(out, flat[..., k])
        return out

    def _norm(self, t: Term) -> Any:
        x = self(t.args[0])
        if np.ndim(x) == 0:
            return self.m.abs(x)
        if t.value == "1":
            return self.m.abs(x).sum()
        if t.value == "∞":
            return self._fold(self.m.maximum, self.m.abs(x), tuple(range(x.ndim)))
        return self.m.sqrt((x * x).sum())

    def _extreme(self, t: Term) -> Any:
        kind, places = t.value
        two = self.m.maximum if kind == "max" else self.m.minimum
        first, *rest = self._places(t, places)
        for value in rest:
            first = two(first, value)
        return first

    def _bigwhere(self, t: Term) -> Any:
        return self._big(t)

    def _big(self, t: Term) -> Any:
        kind, variable, dim = t.value
        if dim is not None:
            span: Sequence[int] = range(size_of(dim, self.point.sizes))
        else:
            low, high = (self._whole(self(a)) for a in t.args[1:])
            if high - low > 10_000:
                raise CannotEvaluate("a sum of over 10,000 terms")
            span = range(low - 1, high)
        before = self._at.get(variable)
        values = []
        for k in span:
            self._at[variable] = k
            if t.op == "bigwhere" and self(t.args[1]) == 0:
                continue
            values.append(self(t.args[0]))
        if before is None:
            self._at.pop(variable, None)
        else:
            self._at[variable] = before
        if not values:
            return self.m.number(Fraction(1 if kind == "prod" else 0))
        if kind == "concat":
            return np.concatenate(values, axis=-1)
        out = values[0]
        for value in values[1:]:
            if kind == "prod":
                out = out * value
            elif kind == "max":
                out = self.m.maximum(out, value)
            elif kind == "min":
                out = self.m.minimum(out, value)
            else:
                out = out + value
        return out / self.m.number(Fraction(len(values))) if kind == "mean" else out

    def _whole(self, value: Any) -> int:
        number = float(value.mid()) if hasattr(value, "mid") else float(value)
        if not math.isfinite(number) or number != round(number):
            raise CannotEvaluate("an index that is no whole number")
        return round(number)

    def _pick(self, t: Term) -> Any:
        base = self(t.args[0])
        where: list[Any] = [slice(None)] * np.ndim(base)
        for axis, pick in zip(t.value, t.args[1:]):
            k = self._at[pick.value] if pick.op == "indexvalue" else self._whole(self(pick)) - 1
            if not 0 <= k < base.shape[axis]:
                raise CannotEvaluate(f"index {k + 1} of {base.shape[axis]}")
            where[axis] = k
        return base[tuple(where)]

    def _table(self, t: Term) -> Any:
        variables = t.value
        sizes = [size_of(d, self.point.sizes) for d in t.dims[: len(variables)]]
        cells = []
        for where in np.ndindex(*sizes):
            self._at.update(zip(variables, where))
            cells.append(self(t.args[0]))
        for variable in variables:
            del self._at[variable]
        inner = np.shape(cells[0])
        out = np.empty(
            (len(cells), *inner), dtype=np.float64 if self.m.name == "float64" else object
        )
        for k, cell in enumerate(cells):
            out[k] = cell
        return out.reshape((*sizes, *inner))

    def _concat(self, t: Term) -> Any:
        return np.concatenate([self(a) for a in t.args], axis=t.value)

    def _stack(self, t: Term) -> Any:
        out = np.empty(len(t.args), dtype=np.float64 if self.m.name == "float64" else object)
        for k, arg in enumerate(t.args):
            out[k] = self(arg)
        return out if len(t.dims) == 1 else out.reshape(t.value)

    def _rows(self, t: Term) -> Any:
        values = [self(a) for a in t.args]
        width = max(np.shape(v)[0] for v in values if np.ndim(v))
        zero = (
            np.zeros(width)
            if self.m.name == "float64"
            else each(self.m.number, np.zeros(width, dtype=int))
        )
        return np.stack([v if np.ndim(v) else zero + v for v in values])

    def _columns(self, t: Term) -> Any:
        return self._rows(t).T

    def _diag(self, t: Term) -> Any:
        x = self(t.args[0])
        if x.ndim == 2:
            return np.diagonal(x).copy()
        n = len(x)
        out = (
            np.zeros((n, n))
            if self.m.name == "float64"
            else each(self.m.number, np.zeros((n, n), dtype=int))
        )
        for k in range(n):
            out[k, k] = x[k]
        return out

    def _trace(self, t: Term) -> Any:
        return np.diagonal(self(t.args[0])).sum()

    def _opaque(self, t: Term) -> Any:
        return self.point.functions[t.value](self.m, *(self(a) for a in t.args))

    def _compare(self, t: Term) -> Any:
        sign, places = t.value
        a, b = self._places(t, places)
        tests: dict[str, Callable[[Any, Any], bool]] = {
            "=": lambda u, v: u == v,
            "≠": lambda u, v: u != v,
            "<": lambda u, v: u < v,
            ">": lambda u, v: u > v,
            "≤": lambda u, v: u <= v,
            "≥": lambda u, v: u >= v,
        }
        if sign not in tests:
            raise CannotEvaluate(f"the condition {sign}")
        return each(lambda u, v: self.m.number(Fraction(int(bool(tests[sign](u, v))))), a, b)

    def _cases(self, t: Term) -> Any:
        values = self._places(t, t.value)

        def choose(*cells: Any) -> Any:
            for value, condition in zip(cells[::2], cells[1::2]):
                if condition != 0:
                    return value
            if len(cells) % 2:
                return cells[-1]
            raise CannotEvaluate("no case applies")

        out = each(choose, *values)
        return out.astype(np.float64) if self.m.name == "float64" and np.ndim(out) else out


def evaluate(term: Term, point: Point, m: Floats = FLOATS) -> Any:
    """Return the value of a term at a point."""
    with np.errstate(all="ignore"):
        return Evaluator(point, m)(term)
