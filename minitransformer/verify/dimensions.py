"""Named-dimension typing: from the tree of a formula to typed terms.

A formula says ``QK^T``; whether that is a matrix product, a scalar product or
nonsense is decided by the dimensions of ``Q`` and ``K``. `elaborate` decides it,
with names (``n_q``, ``d_k``) instead of sizes, so that no accident of two equal
numbers lets a wrong formula pass, and writes the decision into the tree it
returns. A mismatch is an `IllTyped` at the sub-expression that causes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from minitransformer.verify.expression import UNSAID_AXIS, Expr

Dims = tuple[str, ...]
Span = tuple[int, int]

# Functions that act on every element alone.
ELEMENTWISE = frozenset(
    """exp log log2 log10 sin cos tan tanh sinh cosh sigmoid erf relu gelu silu Phi softplus sign
    logsigmoid floor ceil abs sqrt heaviside""".split()  # noqa: SIM905
)
# Spellings of the functions known here, all lower case.
FUNCTION_ALIASES = {
    "ln": "log",
    "σ": "sigmoid",
    "logistic": "sigmoid",
    "sigm": "sigmoid",
    "swish": "silu",
    "sgn": "sign",
    "lg": "log10",
    "log_2": "log2",
    "log_{10}": "log10",
    "log_10": "log10",
    "logsoftmax": "log_softmax",
    "log-softmax": "log_softmax",
    "log_softmax": "log_softmax",
    "softmax": "softmax",
    "smax": "softmax",
    "softmaxrow": "softmax",
    "concat": "concat",
    "concatenate": "concat",
    "cat": "concat",
    "average": "mean",
    "avg": "mean",
    "trace": "tr",
    "clamp": "clip",
    "amax": "max",
    "amin": "min",
    "maximum": "max",
    "minimum": "min",
    "std": "std",
    "power": "pow",
    "log_sigmoid": "logsigmoid",
    "logσ": "logsigmoid",
    "softmax_row": "softmax",
    "softmax_rows": "softmax",
    "softmax_col": "softmax_column",
    "softmax_column": "softmax_column",
    "softmax_columns": "softmax_column",
}
_GUESSED_AXIS = (
    "without dim PyTorch warns and takes axis 0 of an array with one or three axes and axis 1 of "
    "others, which is the last of two axes and not of three or four; write dim=-1"
)
REDUCTIONS = frozenset(["sum", "mean", "max", "min", "var", "std", "prod", "logsumexp", "rms"])


class IllTyped(Exception):
    """Dimensions that do not fit, at a place in the formula."""

    def __init__(self, message: str, span: Span, fits: tuple[str, ...] = (), node: Any = None):
        super().__init__(message)
        self.span = span
        self.fits = fits
        self.node = node


class Unbound(Exception):
    """A symbol or function that nothing gives a meaning to."""

    def __init__(self, symbol: str, span: Span, kind: str = "symbol", why: str = ""):
        super().__init__(f"{kind} {symbol} has no meaning here")
        self.symbol = symbol
        self.span = span
        self.kind = kind
        self.why = why or f"{self}; the text must say what it is"


@dataclass(frozen=True)
class Convention:
    """The choices a notation leaves open.

    ``vectors`` says whether a plain vector is a column (xᵀy is a number) or a row
    (xyᵀ is); ``product`` what two plain vectors side by side mean; ``single`` which
    axis one index of a matrix picks; ``softmax`` the axis a softmax runs over;
    ``reduce`` what a mean or sum of a matrix without an index runs over.
    """

    vectors: str = "column"
    product: str = "hadamard"
    single: str = "first"
    softmax: str = "last"
    reduce: str = "last"


@dataclass(frozen=True)
class Typing:
    """What the symbols of a formula stand for.

    ``symbols`` maps a symbol to its dimensions, ``sizes`` a symbol to the dimension
    whose size it is, ``functions`` a function left uninterpreted to a rule from
    the dimensions of its arguments to those of its value, ``indices`` a free index to
    the dimension it runs over.
    """

    symbols: Mapping[str, Dims]
    sizes: Mapping[str, str]
    functions: Mapping[str, Callable[..., Dims]] = field(default_factory=dict)
    indices: Mapping[str, str] = field(default_factory=dict)


class Term:
    """A typed node: an operator whose meaning no longer depends on anything else."""

    __slots__ = ("args", "co", "dims", "free", "op", "span", "value")

    def __init__(
        self,
        op: str,
        args: tuple[Term, ...] = (),
        value: Any = None,
        dims: Dims = (),
        span: Span = (0, 0),
        co: bool = False,
        free: frozenset[str] | None = None,
    ):
        self.op = op
        self.args = args
        self.value = value
        self.dims = dims
        self.span = span
        self.co = co  # a vector that was transposed
        if free is None:
            free = frozenset(i for a in args for i in a.free)
        self.free: frozenset[str] = free  # the index variables it depends on

    def __repr__(self) -> str:
        return f"Term({self.op}, {self.value!r}, {self.dims})"


class _Index:
    """A summation or free index; its range becomes known by use."""

    def __init__(self, name: str, dim: str | None = None, first: int = 1):
        self.name = name
        self.dim = dim
        self.first = first  # the value at the first entry: 0 in a sum from 0 to n − 1


def show_dims(dims: Dims) -> str:
    """Write dimensions as a reader would: ``n_q×d_k``, ``a number``."""
    return "×".join(dims) if dims else "a number"


def align(dims: Dims, onto: Dims) -> tuple[int, ...] | None:
    """Return the axes of `onto` on which `dims` lie, by name, or None.

    Examples
    --------
    >>> align(("n_q",), ("n_q", "n_k")), align(("d",), ("n", "d")), align(("x",), ("n", "d"))
    ((0,), (1,), None)
    """
    if dims == onto:
        return tuple(range(len(onto)))
    axes: list[int] = []
    end = len(onto)
    for dim in reversed(dims):
        position = next((k for k in range(end - 1, -1, -1) if onto[k] == dim), None)
        if position is None:
            return None
        axes.append(position)
        end = position
    return tuple(reversed(axes))


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


def canonical_function(name: str) -> tuple[str, str]:
    """Return a function's canonical name and its subscript (``softmax_j`` → ``j``)."""
    if name == "Φ":
        return "Phi", ""  # the lower-case φ is by convention the density, not Φ
    low = name if name in ELEMENTWISE else name.lower()
    if low in FUNCTION_ALIASES:
        return FUNCTION_ALIASES[low], ""
    base, _, subscript = low.partition("_")
    base = FUNCTION_ALIASES.get(base, base)
    if subscript and base == "log":
        return base, subscript
    return low, ""


class Elaborator:
    """Turn trees into terms under one `Typing` and one `Convention`.

    Sub-trees that depend on no index are remembered by identity, so a mutant costs
    only the path from its edit to the root.
    """

    def __init__(self, typing: Typing, convention: Convention = Convention()):
        self.typing = typing
        self.convention = convention
        self._memo: dict[int, tuple[Expr, Term]] = {}
        self._scope: dict[str, _Index] = {}

    # -- entry --------------------------------------------------------------

    def formula(self, e: Expr, free: tuple[str, ...] = ()) -> Term:
        """Elaborate a whole formula; `free` names its free indices in order.

        The value of a formula with free indices is the table of its values, one
        axis per index.
        """
        if not free:
            return self(e)
        indices = [_Index(i, self.typing.indices.get(i)) for i in free]
        self._scope.update({i.name: i for i in indices})
        try:
            term = self(e)
            for i in indices:
                if i.dim is None:
                    raise Unbound(i.name, e.span, "index")
            term = self(e)  # again, now that every range is known
        finally:
            for i in indices:
                del self._scope[i.name]
        dims = tuple(str(i.dim) for i in indices)
        return Term("table", (term,), free, dims + term.dims, e.span, free=term.free - set(free))

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

    # -- leaves -------------------------------------------------------------

    def _number(self, e: Expr) -> Term:
        return Term("number", (), Fraction(e.value), (), e.span)

    def _name(self, e: Expr) -> Term:
        symbol = e.value
        if symbol in self._scope:
            value = Term("indexvalue", (), symbol, (), e.span, free=frozenset([symbol]))
            if self._scope[symbol].first == 1:
                return value
            minus = Term("number", (), Fraction(-1), (), e.span)
            return Term("add", (value, minus), (None, None), (), e.span)
        if symbol in self.typing.symbols:
            return Term("symbol", (), symbol, self.typing.symbols[symbol], e.span)
        if symbol in self.typing.sizes:
            return Term("size", (), self.typing.sizes[symbol], (), e.span)
        if symbol == "e":
            return Term("fn", (Term("number", (), Fraction(1), (), e.span),), "exp", (), e.span)
        if symbol in ("π", "pi"):
            return Term("pi", (), None, (), e.span)
        if symbol in ("∞", "inf"):
            return Term("infinity", (), None, (), e.span)
        raise Unbound(symbol, e.span)

    # -- elementwise --------------------------------------------------------

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
        one = Term("number", (), Fraction(1))
        return Term("pow", (a, Term("div", (one, n), (None, None))), (None, ()), a.dims, e.span)

    def _abs(self, e: Expr) -> Term:
        a = self(e.args[0])
        return Term("fn", (a,), "abs", a.dims, e.span, a.co)

    # -- products -----------------------------------------------------------

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

    def _inverse(self, e: Expr) -> Term:
        a = self(e.args[0])
        if len(a.dims) < 2:
            one = Term("number", (), Fraction(-1))
            return Term("pow", (a, one), (None, ()) if a.dims else (None, None), a.dims, e.span)
        if a.dims[0] != a.dims[1]:
            raise IllTyped(f"cannot invert {show_dims(a.dims)}", e.span, (), e)
        return Term("inverse", (a,), None, a.dims, e.span)

    # -- indices and sums ---------------------------------------------------

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
                index = self._scope[pick.value]
                if index.dim is None:
                    index.dim = base.dims[axis]
                elif index.dim != base.dims[axis]:
                    raise IllTyped(
                        f"index {index.name} runs over {index.dim} but picks along "
                        f"{base.dims[axis]}",
                        e.span,
                        (),
                        e,
                    )
            if pick.op == "name" and pick.value in self._scope:
                chosen.append(
                    Term("indexvalue", (), pick.value, (), pick.span, free=frozenset([pick.value]))
                )
            else:
                chosen.append(self(pick))
                if chosen[-1].dims:
                    raise Unbound(str(pick.value or "that index"), pick.span, "index")
        dims = tuple(d for k, d in enumerate(base.dims) if k not in axes)
        return Term("pick", (base, *chosen), tuple(axes), dims, e.span)

    def _big(self, e: Expr) -> Term:
        kind, variable = e.value
        kind = {"expect": "mean", "average": "mean"}.get(kind, kind)
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
        index = _Index(variable, dim, 0 if zero else 1)
        outer = self._scope.get(variable)
        self._scope[variable] = index
        try:
            body = self(e.args[0])
            if index.dim is not None and dim is None and lower is None:
                body = self(e.args[0])  # again: the range found may decide an axis
        finally:
            if outer is None:
                del self._scope[variable]
            else:
                self._scope[variable] = outer
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
        index = _Index(variable)
        outer = self._scope.get(variable)
        self._scope[variable] = index
        try:
            inner = self(body)
            if index.dim is None:
                raise Unbound(variable, e.span, "index")
            inner, test = self(body), self(condition)
        finally:
            if outer is None:
                del self._scope[variable]
            else:
                self._scope[variable] = outer
        free = (inner.free | test.free) - {variable}
        return Term(
            "bigwhere", (inner, test), (kind, variable, index.dim), inner.dims, e.span, free=free
        )

    # -- functions ----------------------------------------------------------

    def _call(self, e: Expr) -> Term:
        given = str(e.value)
        over = [a for a in e.args if a.op == "keyword"]
        if over:
            return self._call_over(e, over)
        if given in self.typing.functions:
            args = tuple(self(a) for a in e.args)
            try:
                dims = self.typing.functions[given](*(a.dims for a in args))
            except (TypeError, ValueError, IndexError):
                shown = ", ".join(show_dims(a.dims) for a in args)
                raise IllTyped(f"{given} of {shown}", e.span, (), e) from None
            return Term("opaque", args, given, dims, e.span)
        function, subscript = canonical_function(given)
        if function in ELEMENTWISE:
            if len(e.args) != 1:
                raise Unbound(given, e.span, "function")
            a = self(e.args[0])
            if subscript and function == "log":
                base = {"2": "log2", "10": "log10", "e": "log"}.get(subscript.strip("{}"))
                if base is None:
                    raise Unbound(given, e.span, "function")
                function = base
            return Term("fn", (a,), function, a.dims, e.span, a.co)
        if function in ("softmax", "log_softmax", "softmax_column"):
            if len(e.args) != 1:
                raise Unbound(f"{function} with that argument", e.span, "function")
            a = self(e.args[0])
            if not a.dims:
                raise IllTyped(f"{function} of a number", e.span, (), e)
            axis = len(a.dims) - 1
            if (self.convention.softmax == "first") != (function == "softmax_column"):
                axis = 0
            op = "softmax" if function == "softmax_column" else function
            return Term(op, (a,), axis, a.dims, e.span, a.co)
        if function in ("max", "min") and len(e.args) > 1:
            args = tuple(self(a) for a in e.args)
            dims, places = self.broadcast(args, e, "compare")
            return Term("extreme", args, (function, places), dims, e.span)
        if function in REDUCTIONS and len(e.args) == 1:
            return self._reduction(function, self(e.args[0]), e)
        if function == "rowsum" and len(e.args) == 1:
            a = self(e.args[0])
            axis = len(a.dims) - 1
            return Term("reduce", (a,), ("sum", (axis,)), a.dims[:-1], e.span)
        if function == "pow" and len(e.args) == 2:
            return self._pow(e)
        if function == "clip" and len(e.args) == 3:
            x, low, high = (self(a) for a in e.args)
            inner = Term("extreme", (x, low), ("max", (None, () if x.dims else None)), x.dims)
            return Term(
                "extreme", (inner, high), ("min", (None, () if x.dims else None)), x.dims, e.span
            )
        if function == "concat":
            return self._concat(e)
        if function == "diag" and len(e.args) == 1:
            a = self(e.args[0])
            dims = a.dims * 2 if len(a.dims) == 1 else a.dims[:1]
            return Term("diag", (a,), None, dims, e.span)
        if function == "tr" and len(e.args) == 1:
            a = self(e.args[0])
            return Term("trace", (a,), None, (), e.span)
        if function == "norm":
            return self._norm(e)
        if function == "kron" and len(e.args) == 2:
            a, b = (self(x) for x in e.args)
            if len(a.dims) == len(b.dims):
                dims = tuple(f"{p}*{q}" for p, q in zip(a.dims, b.dims))
                return Term("kron", (a, b), None, dims, e.span)
            raise IllTyped(
                f"no Kronecker product of {show_dims(a.dims)} and {show_dims(b.dims)}",
                e.span,
                (),
                e,
            )
        raise Unbound(given, e.span, "function")

    def _call_over(self, e: Expr, over: list[Expr]) -> Term:
        """A call that names its axis: ``softmax(x, axis=-1)`` or ``softmax_j(x)``."""
        rest = replace(e, args=tuple(a for a in e.args if a.op != "keyword"))
        axis = 0
        if canonical_function(str(e.value))[0] == "log" and over[0].value == "base":
            base = self(over[0].args[0])
            top = self(rest)
            bottom = Term("fn", (base,), "log", (), e.span)
            return Term("div", (top, bottom), (None, () if top.dims else None), top.dims, e.span)
        correction = Fraction(0)
        along = False
        for word in over:
            given = word.args[0]
            sign = -1 if given.op == "neg" else 1
            value = given.args[0] if given.op == "neg" else given
            if word.value in ("axis", "dim") and value.op == "number":
                axis = sign * int(value.value)
                along = True
            elif word.value == "correction" and value.op == "number" and value.value == 1:
                correction = Fraction(1)
            elif word.value == "keepdims" or word.value == "keepdim":
                continue
            elif word.value == "over" and str(value.value) in ("row", "rows", "col", "column"):
                axis = 0 if str(value.value).startswith("col") else -1
                along = True
            elif value.op == "name" and value.value == UNSAID_AXIS:
                raise Unbound(f"{e.value} without dim", e.span, "function", _GUESSED_AXIS)
            elif not (word.value == "over" and value.op == "number" and value.value == 1):
                raise Unbound(f"{e.value} with {word.value}", e.span, "function")
            else:
                return self(rest)
        if not rest.args:
            raise Unbound(str(e.value), e.span, "function")
        if len(rest.args) > 1:
            raise Unbound(f"{e.value} with that argument", e.span, "function")
        a = self(rest.args[0])
        rank = len(a.dims)
        function, _ = canonical_function(str(e.value))
        if not along and function in REDUCTIONS:
            kind = f"{function}_unbiased" if correction else function
            return self._reduction(kind, a, e)
        if not -rank <= axis < rank:
            raise IllTyped(f"axis {axis} of {show_dims(a.dims)}", e.span, (), e)
        axis %= rank
        if function == "size":
            size = a.dims[axis]
            if "*" in size or "+" in size:
                raise Unbound(f"the size {size}", e.span, "construct")
            return Term("size", (), size, (), e.span)
        if correction:
            function = f"{function}_unbiased"
            if function not in ("var_unbiased", "std_unbiased"):
                raise Unbound(f"{e.value} with correction", e.span, "function")
            dims = tuple(d for k, d in enumerate(a.dims) if k != axis)
            return Term("reduce", (a,), (function, (axis,)), dims, e.span)
        if function in ("softmax", "log_softmax"):
            return Term(function, (a,), axis, a.dims, e.span, a.co)
        if function in REDUCTIONS:
            dims = tuple(d for k, d in enumerate(a.dims) if k != axis)
            return Term("reduce", (a,), (function, (axis,)), dims, e.span)
        raise Unbound(str(e.value), e.span, "function")

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

    def _norm(self, e: Expr) -> Term:
        a = self(e.args[0])
        order = str((e.op == "norm" and e.value) or "2")
        if order not in ("1", "2", "F", "∞"):
            raise Unbound(f"norm of order {order}", e.span, "function")
        return Term("norm", (a,), order, (), e.span)

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

    def _cases(self, e: Expr) -> Term:
        args = tuple(self._condition(a) if k % 2 else self(a) for k, a in enumerate(e.args))
        dims, places = self.broadcast(args, e, "choose between")
        return Term("cases", args, places, dims, e.span)

    def _condition(self, e: Expr) -> Term:
        if e.op == "name" and str(e.value).lower() in (
            "otherwise",
            "else",
            "otherwise.",
            "其他",
            "其它",
        ):
            return Term("number", (), Fraction(1), (), e.span)
        return self._relation(e) if e.op == "relation" else self(e)

    def _relation(self, e: Expr) -> Term:
        args = tuple(self(a) for a in e.args)
        dims, places = self.broadcast(args, e, "compare")
        return Term("compare", args, (e.value, places), dims, e.span)


def _range_dim(lower: Term, upper: Term) -> str | None:
    """Return the dimension that ``lower..upper`` runs over, if it is a whole one."""
    if upper.op == "size" and lower.op == "number" and lower.value == 1:
        return str(upper.value)
    if lower.op == "number" and lower.value == 0 and upper.op == "add" and len(upper.args) == 2:
        size, minus = upper.args
        if size.op == "size" and minus.op == "neg" and minus.args[0].value == 1:
            return str(size.value)
    return None
