"""Leaves, and what acts on every element alone: sums, quotients, powers, cases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from minitransformer.verify.dimensions.spellings import REDUCTIONS, canonical_function
from minitransformer.verify.dimensions.terms import (
    Convention,
    Dims,
    IllTyped,
    Term,
    Typing,
    Unbound,
    align,
    show_dims,
    whole,
)
from minitransformer.verify.expression import Expr

_OTHERWISE = frozenset(["otherwise", "else", "otherwise.", "其他", "其它"])


class Index:
    """A summation or free index; its range becomes known by use."""

    def __init__(self, name: str, dim: str | None = None, first: int = 1):
        self.name = name
        self.dim = dim
        self.first = first  # the value at the first entry: 0 in a sum from 0 to n − 1


def _drops_axis(e: Expr) -> bool:
    """Return whether a Python expression reduces an axis and does not keep it."""
    drops = False
    for node in e.walk():
        words = {str(a.value): a.args[0] for a in node.args if a.op == "keyword"}
        if {"axis", "dim"} & set(words) and canonical_function(str(node.value))[0] in REDUCTIONS:
            kept = [words[k] for k in ("keepdim", "keepdims") if k in words]
            if kept and kept[0].value == "True":
                return False
            drops = True
    return drops


class Elementwise:
    """Types a tree rule by rule: the operator ``add`` is the method ``_add``.

    Sub-trees that depend on no index are remembered by identity, so a mutant costs
    only the path from its edit to the root.
    """

    def __init__(self, typing: Typing, convention: Convention | None = None):
        self.typing = typing
        self.convention = convention or Convention()
        self._memo: dict[int, tuple[Expr, Term]] = {}
        self._scope: dict[str, Index] = {}

    def __call__(self, e: Expr) -> Term:
        hit = self._memo.get(id(e))
        if hit is not None:
            return hit[1]
        method = getattr(self, "_" + e.op, None)
        if method is None:
            raise Unbound(e.op, e.span, "construct")
        term: Term = method(e)
        if not term.free and not (self._scope and self._mentions_index(e)):
            self._memo[id(e)] = (e, term)
        return term

    def _mentions_index(self, e: Expr) -> bool:
        return any(n.op == "name" and n.value in self._scope for n in e.walk())

    @contextmanager
    def _running(self, *indices: Index) -> Iterator[None]:
        """Let some indices mean something in what is typed inside."""
        outer = {i.name: self._scope[i.name] for i in indices if i.name in self._scope}
        self._scope.update({i.name: i for i in indices})
        try:
            yield
        finally:
            for i in indices:
                del self._scope[i.name]
            self._scope.update(outer)

    # -- leaves ---------------------------------------------------------------------------
    def _number(self, e: Expr) -> Term:
        return Term("number", (), Fraction(e.value), (), e.span)

    def _name(self, e: Expr) -> Term:
        symbol = e.value
        if symbol in self._scope:
            value = Term("indexvalue", (), symbol, (), e.span, free=frozenset([symbol]))
            if self._scope[symbol].first == 1:
                return value
            minus = whole(-1, e.span)
            return Term("add", (value, minus), (None, None), (), e.span)
        if symbol in self.typing.symbols:
            return Term("symbol", (), symbol, self.typing.symbols[symbol], e.span)
        if symbol in self.typing.sizes:
            return Term("size", (), self.typing.sizes[symbol], (), e.span)
        if symbol == "e":
            return Term("fn", (whole(1, e.span),), "exp", (), e.span)
        if symbol in ("π", "pi"):
            return Term("pi", (), None, (), e.span)
        if symbol in ("∞", "inf"):
            return Term("infinity", (), None, (), e.span)
        raise Unbound(symbol, e.span)

    # -- elementwise ----------------------------------------------------------------------
    def broadcast(
        self, terms: tuple[Term, ...], e: Expr, what: str
    ) -> tuple[Dims, tuple[Any, ...]]:
        """Return the common dimensions of `terms` and where each lies in them."""
        widest = max(terms, key=lambda t: len(t.dims)).dims
        places: list[Any] = []
        for term in terms:
            place = align(term.dims, widest) if term.dims else ()
            if place is None:
                shown = " and ".join(show_dims(t.dims) for t in terms if t.dims)
                fits = []
                if len(terms) == 2 and len(widest) == 2:
                    a, b = terms
                    if a.dims == b.dims[::-1]:
                        fits = ["transpose either operand"]
                raise IllTyped(f"cannot {what} {shown}", e.span, tuple(fits), e)
            if place == (0,) and len(widest) == 2 and len(terms) == len(e.args):
                source = e.args[len(places)]
                if _drops_axis(source):
                    shown = f"{show_dims(widest)} with {show_dims(term.dims)}"
                    raise IllTyped(
                        f"cannot {what} {shown}: the axes meet at the end",
                        e.span,
                        ("keep the reduced axis: keepdim=True",),
                        e,
                    )
            places.append(place if place != tuple(range(len(widest))) else None)
        return widest, tuple(places)

    def _elementwise(self, op: str, e: Expr, what: str) -> Term:
        args = tuple(self(a) for a in e.args)
        dims, places = self.broadcast(args, e, what)
        co = any(a.co for a in args if len(a.dims) == 1) and len(dims) == 1
        if len(dims) == 1 and any(a.co != co for a in args if len(a.dims) == 1):
            co = False
        return Term(op, args, places, dims, e.span, co)

    def _add(self, e: Expr) -> Term:
        return self._elementwise("add", e, "add")

    def _hadamard(self, e: Expr) -> Term:
        return self._elementwise("times", e, "multiply elementwise")

    def _neg(self, e: Expr) -> Term:
        (a,) = (self(x) for x in e.args)
        return Term("neg", (a,), None, a.dims, e.span, a.co)

    def _div(self, e: Expr) -> Term:
        a, b = (self(x) for x in e.args)
        if not a.dims and b.dims and len(b.dims) > 1:
            raise IllTyped(f"cannot divide a number by {show_dims(b.dims)}", e.span, (), e)
        dims, places = self.broadcast((a, b), e, "divide")
        if len(b.dims) > len(a.dims) > 0:
            raise IllTyped(
                f"cannot divide {show_dims(a.dims)} by {show_dims(b.dims)}", e.span, (), e
            )
        return Term("div", (a, b), places, dims, e.span, a.co)

    def _pow(self, e: Expr) -> Term:
        base, exponent = e.args
        if base.op == "name" and base.value == "e" and "e" not in self.typing.symbols:
            x = self(exponent)
            return Term("fn", (x,), "exp", x.dims, e.span, x.co)
        a, b = self(base), self(exponent)
        if len(a.dims) == 2 and b.op == "number" and b.value == -1:
            return self._inverse(e)
        dims, places = self.broadcast((a, b), e, "raise")
        return Term("pow", (a, b), places, dims, e.span, a.co)

    def _sqrt(self, e: Expr) -> Term:
        a = self(e.args[0])
        if len(e.args) == 1:
            return Term("fn", (a,), "sqrt", a.dims, e.span, a.co)
        n = self(e.args[1])
        one = whole(1)
        return Term("pow", (a, Term("div", (one, n), (None, None))), (None, ()), a.dims, e.span)

    def _abs(self, e: Expr) -> Term:
        a = self(e.args[0])
        return Term("fn", (a,), "abs", a.dims, e.span, a.co)

    def _inverse(self, e: Expr) -> Term:
        a = self(e.args[0])
        if len(a.dims) < 2:
            one = whole(-1)
            return Term("pow", (a, one), (None, ()) if a.dims else (None, None), a.dims, e.span)
        if a.dims[0] != a.dims[1]:
            raise IllTyped(f"cannot invert {show_dims(a.dims)}", e.span, (), e)
        return Term("inverse", (a,), None, a.dims, e.span)

    def _cases(self, e: Expr) -> Term:
        args = tuple(self._condition(a) if k % 2 else self(a) for k, a in enumerate(e.args))
        dims, places = self.broadcast(args, e, "choose between")
        return Term("cases", args, places, dims, e.span)

    def _condition(self, e: Expr) -> Term:
        if e.op == "name" and str(e.value).lower() in _OTHERWISE:
            return whole(1, e.span)
        return self._relation(e) if e.op == "relation" else self(e)

    def _relation(self, e: Expr) -> Term:
        args = tuple(self(a) for a in e.args)
        dims, places = self.broadcast(args, e, "compare")
        return Term("compare", args, (e.value, places), dims, e.span)
