"""Products: which of them ``AB`` is follows from the dimensions of A and B."""

from __future__ import annotations

from minitransformer.verify.dimensions.elementwise import Elementwise
from minitransformer.verify.dimensions.terms import Dims, IllTyped, Span, Term, show_dims
from minitransformer.verify.expression import Expr


class Products(Elementwise):
    """Types products, transposes and what is put together from vectors."""

    def _mul(self, e: Expr) -> Term:
        args = [self(a) for a in e.args]
        out = args[0]
        start = e.args[0].span[0]
        for arg, source in zip(args[1:], e.args[1:]):
            out = self._product(out, arg, e, (start, max(source.span[1], start)))
        return out

    def _matmul(self, e: Expr) -> Term:
        """Read ``@``: two vectors give their inner product, never an elementwise one."""
        args = [self(a) for a in e.args]
        out = args[0]
        start = e.args[0].span[0]
        for arg, source in zip(args[1:], e.args[1:]):
            span = (start, max(source.span[1], start))
            if len(out.dims) == len(arg.dims) == 1 and out.co == arg.co:
                if out.dims != arg.dims:
                    shown = f"{show_dims(out.dims)} and {show_dims(arg.dims)}"
                    raise IllTyped(f"cannot take the inner product of {shown}", span, (), e)
                out = Term("dot", (out, arg), None, (), span)
            else:
                out = self._product(out, arg, e, span)
        return out

    def _product(self, a: Term, b: Term, e: Expr, span: Span) -> Term:
        if not a.dims or not b.dims:
            dims = a.dims or b.dims
            return Term(
                "times",
                (a, b),
                (None, None)
                if not dims
                else (() if not a.dims else None, () if not b.dims else None),
                dims,
                span,
                a.co if a.dims else b.co,
            )
        ra, rb = len(a.dims), len(b.dims)
        if ra == 1 and rb == 1:
            return self._vector_product(a, b, e, span)
        if ra <= 2 and rb <= 2 and a.dims[-1] == b.dims[0] and not (rb == 1 and b.co and ra == 1):
            dims = a.dims[:-1] + b.dims[1:]
            return Term("matmul", (a, b), None, dims, span, ra == 1 and a.co)
        fits = []
        for names, x, y in (
            ("transpose the right operand", a.dims, b.dims[::-1]),
            ("transpose the left operand", a.dims[::-1], b.dims),
            ("transpose both operands", a.dims[::-1], b.dims[::-1]),
            ("swap the operands", b.dims, a.dims),
        ):
            if x[-1] == y[0]:
                fits.append(f"{names}: {show_dims(x[:-1] + y[1:])}")
        if a.dims == b.dims:
            fits.append("an elementwise product ⊙")
        raise IllTyped(
            f"cannot multiply {show_dims(a.dims)} by {show_dims(b.dims)}: "
            f"{a.dims[-1]} meets {b.dims[0]}",
            span,
            tuple(fits),
            e,
        )

    def _vector_product(self, a: Term, b: Term, e: Expr, span: Span) -> Term:
        rows = self.convention.vectors == "row"
        same = a.dims == b.dims
        if a.co != b.co:
            if a.co != rows:  # xᵀy for columns, xyᵀ for rows: a number
                if not same:
                    raise IllTyped(
                        f"cannot take the inner product of {show_dims(a.dims)} and "
                        f"{show_dims(b.dims)}",
                        span,
                        (),
                        e,
                    )
                return Term("dot", (a, b), None, (), span)
            return Term("outer", (a, b), None, a.dims + b.dims, span)
        if not same:
            raise IllTyped(
                f"cannot multiply vectors of {show_dims(a.dims)} and {show_dims(b.dims)}",
                span,
                ("transpose one of them: an outer product",),
                e,
            )
        if self.convention.product == "dot":
            return Term("dot", (a, b), None, (), span)
        return Term("times", (a, b), (None, None), a.dims, span, a.co)

    def _transpose(self, e: Expr) -> Term:
        a = self(e.args[0])
        if len(a.dims) > 2:
            raise IllTyped(f"cannot transpose {show_dims(a.dims)}", e.span, (), e)
        if len(a.dims) < 2:
            return Term("same", (a,), None, a.dims, e.span, not a.co)
        return Term("transpose", (a,), None, a.dims[::-1], e.span)

    def _concat(self, e: Expr) -> Term:
        args = tuple(self(a) for a in e.args)
        ranks = {len(a.dims) for a in args}
        if ranks == {1}:
            return Term("concat", args, 0, ("+".join(a.dims[0] for a in args),), e.span)
        if ranks == {2} and len({a.dims[0] for a in args}) == 1:
            dims = (args[0].dims[0], "+".join(a.dims[1] for a in args))
            return Term("concat", args, 1, dims, e.span)
        if ranks == {2} and len({a.dims[1] for a in args}) == 1:
            dims = ("+".join(a.dims[0] for a in args), args[0].dims[1])
            return Term("concat", args, 0, dims, e.span)
        shown = ", ".join(show_dims(a.dims) for a in args)
        raise IllTyped(f"cannot concatenate {shown}", e.span, (), e)

    def _matrix(self, e: Expr) -> Term:
        rows, columns = e.value
        args = tuple(self(a) for a in e.args)
        inner = {a.dims for a in args}
        if inner == {()}:
            dims: Dims = (str(rows), str(columns))
            if rows == 1:
                dims = (str(columns),)
            elif columns == 1:
                dims = (str(rows),)
            return Term("stack", args, (rows, columns), dims, e.span, rows == 1 and columns > 1)
        vectors = inner - {()}
        if len(vectors) == 1 and len(next(iter(vectors))) == 1 and 1 in (rows, columns):
            (v,) = next(iter(vectors))
            along = str(max(rows, columns))
            if rows == 1:  # vectors side by side: columns
                return Term("columns", args, None, (v, along), e.span)
            return Term("rows", args, None, (along, v), e.span)
        raise IllTyped("entries of different kinds in one matrix", e.span, (), e)
