"""Functions: of every element, of an axis, of several arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from minitransformer.verify.dimensions.indices import Indices
from minitransformer.verify.dimensions.spellings import (
    ELEMENTWISE,
    REDUCTIONS,
    canonical_function,
)
from minitransformer.verify.dimensions.terms import IllTyped, Term, Unbound, show_dims
from minitransformer.verify.expression import UNSAID_AXIS, Expr, number

_GUESSED_AXIS = (
    "without dim PyTorch warns and takes axis 0 of an array with one or three axes and axis 1 of "
    "others, which is the last of two axes and not of three or four; write dim=-1"
)


_ONE = number(1)


class Calls(Indices):
    """Types calls by the function's name."""

    def _call(self, e: Expr) -> Term:
        given = str(e.value)
        over = [a for a in e.args if a.op == "keyword"]
        if over:
            return self._call_over(e, over)
        if given in self.typing.functions:
            return self._opaque(e, given)
        function, subscript = canonical_function(given)
        if function in ELEMENTWISE and len(e.args) == 1:
            return self._of_every_element(e, function, subscript)
        if function in ("max", "min") and len(e.args) > 1:
            args = tuple(self(a) for a in e.args)
            dims, places = self.broadcast(args, e, "compare")
            return Term("extreme", args, (function, places), dims, e.span)
        if function in REDUCTIONS and len(e.args) == 1:
            return self._reduction(function, self(e.args[0]), e)
        rules: dict[str, tuple[int | None, Callable[[Expr], Term]]] = {
            "softmax": (1, self._softmax),
            "log_softmax": (1, self._softmax),
            "softmax_column": (1, self._softmax),
            "rowsum": (1, self._rowsum),
            "pow": (2, self._pow),
            "clip": (3, self._clip),
            "concat": (None, self._concat),
            "diag": (1, self._diag),
            "tr": (1, self._trace),
            "norm": (None, self._norm),
            "kron": (2, self._kron),
        }
        if function not in rules:
            raise Unbound(given, e.span, "function")
        count, rule = rules[function]
        if count not in (None, len(e.args)):
            raise Unbound(f"{function} with that argument", e.span, "function")
        return rule(e)

    def _opaque(self, e: Expr, function: str) -> Term:
        """Leave a function uninterpreted, by the rule that its card has for dimensions."""
        args = tuple(self(a) for a in e.args)
        try:
            dims = self.typing.functions[function](*(a.dims for a in args))
        except (TypeError, ValueError, IndexError):
            shown = ", ".join(show_dims(a.dims) for a in args)
            raise IllTyped(f"{function} of {shown}", e.span, (), e) from None
        return Term("opaque", args, function, dims, e.span)

    def _of_every_element(self, e: Expr, function: str, subscript: str) -> Term:
        a = self(e.args[0])
        if subscript and function == "log":
            base = {"2": "log2", "10": "log10", "e": "log"}.get(subscript.strip("{}"))
            if base is None:
                raise Unbound(str(e.value), e.span, "function")
            function = base
        return Term("fn", (a,), function, a.dims, e.span, a.co)

    def _softmax(self, e: Expr) -> Term:
        function, _ = canonical_function(str(e.value))
        a = self(e.args[0])
        if not a.dims:
            raise IllTyped(f"{function} of a number", e.span, (), e)
        first = (self.convention.softmax == "first") != (function == "softmax_column")
        axis = 0 if first else len(a.dims) - 1
        op = "softmax" if function == "softmax_column" else function
        return Term(op, (a,), axis, a.dims, e.span, a.co)

    def _rowsum(self, e: Expr) -> Term:
        a = self(e.args[0])
        return Term("reduce", (a,), ("sum", (len(a.dims) - 1,)), a.dims[:-1], e.span)

    def _clip(self, e: Expr) -> Term:
        x, low, high = (self(a) for a in e.args)
        places = (None, () if x.dims else None)
        inner = Term("extreme", (x, low), ("max", places), x.dims)
        return Term("extreme", (inner, high), ("min", places), x.dims, e.span)

    def _diag(self, e: Expr) -> Term:
        a = self(e.args[0])
        dims = a.dims * 2 if len(a.dims) == 1 else a.dims[:1]
        return Term("diag", (a,), None, dims, e.span)

    def _trace(self, e: Expr) -> Term:
        return Term("trace", (self(e.args[0]),), None, (), e.span)

    def _kron(self, e: Expr) -> Term:
        a, b = (self(x) for x in e.args)
        if len(a.dims) != len(b.dims):
            what = f"no Kronecker product of {show_dims(a.dims)} and {show_dims(b.dims)}"
            raise IllTyped(what, e.span, (), e)
        dims = tuple(f"{p}*{q}" for p, q in zip(a.dims, b.dims))
        return Term("kron", (a, b), None, dims, e.span)

    # -- with an axis ---------------------------------------------------------------------
    def _call_over(self, e: Expr, over: list[Expr]) -> Term:
        """A call that names its axis: ``softmax(x, axis=-1)`` or ``softmax_j(x)``."""
        rest = replace(e, args=tuple(a for a in e.args if a.op != "keyword"))
        function, _ = canonical_function(str(e.value))
        if function == "log" and over[0].value == "base":
            base = self(over[0].args[0])
            top = self(rest)
            bottom = Term("fn", (base,), "log", (), e.span)
            return Term("div", (top, bottom), (None, () if top.dims else None), top.dims, e.span)
        if any(word.value == "over" and word.args[0] == _ONE for word in over):
            return self(rest)  # softmax_1
        axis, unbiased = self._axis(e, over)
        if not rest.args:
            raise Unbound(str(e.value), e.span, "function")
        if len(rest.args) > 1:
            raise Unbound(f"{e.value} with that argument", e.span, "function")
        a = self(rest.args[0])
        kind = f"{function}_unbiased" if unbiased else function
        if axis is None and function in REDUCTIONS:
            return self._reduction(kind, a, e)
        place = axis or 0
        if not -len(a.dims) <= place < len(a.dims):
            raise IllTyped(f"axis {place} of {show_dims(a.dims)}", e.span, (), e)
        return self._along(e, kind, a, place % len(a.dims))

    def _axis(self, e: Expr, over: list[Expr]) -> tuple[int | None, bool]:
        """Return the axis that keywords name, and whether a variance is the unbiased one."""
        axis: int | None = None
        unbiased = False
        for word in over:
            given = word.args[0]
            value = given.args[0] if given.op == "neg" else given
            if word.value in ("axis", "dim") and value.op == "number":
                axis = int(value.value) * (-1 if given.op == "neg" else 1)
            elif word.value == "correction" and value.op == "number" and value.value == 1:
                unbiased = True
            elif word.value in ("keepdims", "keepdim"):
                continue
            elif word.value == "over" and str(value.value) in ("row", "rows", "col", "column"):
                axis = 0 if str(value.value).startswith("col") else -1
            elif value.op == "name" and value.value == UNSAID_AXIS:
                raise Unbound(f"{e.value} without dim", e.span, "function", _GUESSED_AXIS)
            else:
                raise Unbound(f"{e.value} with {word.value}", e.span, "function")
        return axis, unbiased

    def _along(self, e: Expr, function: str, a: Term, axis: int) -> Term:
        """Apply a function along one axis."""
        left = tuple(d for k, d in enumerate(a.dims) if k != axis)
        if function == "size":
            size = a.dims[axis]
            if "*" in size or "+" in size:
                raise Unbound(f"the size {size}", e.span, "construct")
            return Term("size", (), size, (), e.span)
        if function in ("softmax", "log_softmax"):
            return Term(function, (a,), axis, a.dims, e.span, a.co)
        if function in REDUCTIONS or function in ("var_unbiased", "std_unbiased"):
            return Term("reduce", (a,), (function, (axis,)), left, e.span)
        if function.endswith("_unbiased"):
            raise Unbound(f"{e.value} with correction", e.span, "function")
        raise Unbound(str(e.value), e.span, "function")

    def _norm(self, e: Expr) -> Term:
        a = self(e.args[0])
        order = str((e.op == "norm" and e.value) or "2")
        if order not in ("1", "2", "F", "∞"):
            raise Unbound(f"norm of order {order}", e.span, "function")
        return Term("norm", (a,), order, (), e.span)
