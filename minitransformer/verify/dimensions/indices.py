"""Indices, and the operators that run over them."""

from __future__ import annotations

from minitransformer.verify.dimensions.elementwise import Index
from minitransformer.verify.dimensions.products import Products
from minitransformer.verify.dimensions.terms import Dims, IllTyped, Term, Unbound, show_dims
from minitransformer.verify.expression import Expr

_MEANS = {"expect": "mean", "average": "mean"}


class Indices(Products):
    """Types entries, sums over an index, and reductions without one."""

    def _index(self, e: Expr) -> Term:
        base = self(e.args[0])
        picks = e.args[1:]
        if not base.dims:
            raise IllTyped("cannot index a number", e.span, (), e)
        if len(picks) > len(base.dims):
            raise IllTyped(f"{len(picks)} indices for {show_dims(base.dims)}", e.span, (), e)
        axes = list(range(len(picks)))
        if len(picks) == 1 and len(base.dims) == 2:
            index = self._scope.get(picks[0].value) if picks[0].op == "name" else None
            dim = index.dim if index else None
            # Which axis S_i means follows from the range of i; a transpose is meant as written.
            known = dim in base.dims and base.dims[0] != base.dims[1]
            if base.op == "transpose":
                axes = [0]
            elif dim is not None and known:
                axes = [base.dims.index(dim)]
            else:
                axes = [0 if self.convention.single == "first" else 1]
        chosen = []
        for axis, pick in zip(axes, picks):
            if pick.op == "name" and pick.value in self._scope:
                chosen.append(self._entry(pick, base.dims[axis], e))
                continue
            chosen.append(self(pick))
            if chosen[-1].dims:
                raise Unbound(str(pick.value or "that index"), pick.span, "index")
        dims = tuple(d for k, d in enumerate(base.dims) if k not in axes)
        return Term("pick", (base, *chosen), tuple(axes), dims, e.span)

    def _entry(self, pick: Expr, dim: str, e: Expr) -> Term:
        """Pick along a dimension by an index, whose range this may be the first to tell."""
        index = self._scope[pick.value]
        if index.dim is None:
            index.dim = dim
        elif index.dim != dim:
            what = f"index {index.name} runs over {index.dim} but picks along {dim}"
            raise IllTyped(what, e.span, (), e)
        return Term("indexvalue", (), pick.value, (), pick.span, free=frozenset([pick.value]))

    def _big(self, e: Expr) -> Term:
        kind, variable = e.value
        kind = _MEANS.get(kind, kind)
        if not variable:
            return self._reduction(kind, self(e.args[0]), e)
        if len(e.args) == 2:
            return self._big_where(e, kind, variable)
        lower = upper = None
        dim: str | None = None
        if len(e.args) >= 3:
            lower, upper = self(e.args[1]), self(e.args[2])
            dim = _range_dim(lower, upper)
        zero = dim is not None and lower is not None and lower.value == 0
        index = Index(variable, dim, 0 if zero else 1)
        with self._running(index):
            body = self(e.args[0])
            if index.dim is not None and dim is None and lower is None:
                body = self(e.args[0])  # again: the range found may decide an axis
        free = body.free - {variable}
        if kind == "concat":
            if dim is None:
                raise Unbound(variable, e.span, "index")
            if not body.dims:
                raise IllTyped("cannot concatenate numbers", e.span, (), e)
            dims = (*body.dims[:-1], f"{dim}*{body.dims[-1]}")
            return Term("big", (body,), (kind, variable, dim), dims, e.span, free=free)
        dim = dim or (index.dim if lower is None else None)
        if dim is None and lower is None:
            raise Unbound(variable, e.span, "index")
        args = (body,) if dim is not None or lower is None else (body, lower, upper)
        if dim is None:
            free = free | lower.free | upper.free  # type: ignore[union-attr]
        return Term("big", args, (kind, variable, dim), body.dims, e.span, free=free)  # type: ignore[arg-type]

    def _big_where(self, e: Expr, kind: str, variable: str) -> Term:
        """A sum with a condition: over i ≠ j, i < t."""
        body, condition = e.args
        if condition.op != "relation" or condition.value in ("∈", "∼", "∝"):
            raise Unbound(f"a sum over {variable} with that condition", e.span, "construct")
        index = Index(variable)
        with self._running(index):
            inner = self(body)
            if index.dim is None:
                raise Unbound(variable, e.span, "index")
            inner, test = self(body), self(condition)
        free = (inner.free | test.free) - {variable}
        return Term(
            "bigwhere", (inner, test), (kind, variable, index.dim), inner.dims, e.span, free=free
        )

    def _reduction(self, kind: str, a: Term, e: Expr) -> Term:
        if not a.dims:
            return a
        axes: tuple[int, ...] = tuple(range(len(a.dims)))
        dims: Dims = ()
        if len(a.dims) > 1 and self.convention.reduce == "last":
            axes, dims = (len(a.dims) - 1,), a.dims[:-1]
        return Term("reduce", (a,), (kind, axes), dims, e.span)

    def _expect(self, e: Expr) -> Term:
        return self._reduction("mean", self(e.args[0]), e)

    def _var(self, e: Expr) -> Term:
        return self._reduction("var", self(e.args[0]), e)


def _range_dim(lower: Term, upper: Term) -> str | None:
    """Return the dimension that ``lower..upper`` runs over, if it is a whole one."""
    if upper.op == "size" and lower.op == "number" and lower.value == 1:
        return str(upper.value)
    if lower.op == "number" and lower.value == 0 and upper.op == "add" and len(upper.args) == 2:
        size, minus = upper.args
        if size.op == "size" and minus.op == "neg" and minus.args[0].value == 1:
            return str(size.value)
    return None
