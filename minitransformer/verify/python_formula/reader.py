"""Python's syntax tree to a formula's."""

from __future__ import annotations

import ast
import unicodedata

from minitransformer.verify.expression import Expr
from minitransformer.verify.python_formula.axes import numeral, whole
from minitransformer.verify.python_formula.calls import Calls
from minitransformer.verify.tokenizer import CannotParse, Span

_MODULES = {"np", "numpy", "torch", "F", "math", "jnp", "nn", "tf", "functional", "linalg",
            "special", "scipy", "jax", "nn.functional"}  # fmt: skip
_OPS = {ast.Add: "add", ast.Mult: "hadamard", ast.MatMult: "matmul", ast.Div: "div"}
_SIGNS = {
    ast.Eq: "=", ast.NotEq: "≠", ast.Lt: "<", ast.LtE: "≤", ast.Gt: ">", ast.GtE: "≥",
    ast.In: "∈", ast.NotIn: "∉",
}  # fmt: skip
MAX_DEPTH = 60
_ACCENTS = {"hat": "\N{COMBINING CIRCUMFLEX ACCENT}", "bar": "\N{COMBINING MACRON}",
            "tilde": "\N{COMBINING TILDE}"}  # fmt: skip
_LETTERS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε",
    "eta": "η", "theta": "θ", "lambda_": "λ", "lam": "λ", "mu": "μ", "pi": "π", "rho": "ρ",
    "sigma": "σ", "tau": "τ", "phi": "φ", "omega": "ω", "lr": "η", "learning_rate": "η",
}  # fmt: skip


class Reader(Calls):
    """Reads statements and expressions, with the span of each."""

    def __init__(self, source: str, offset: int, library: str | None) -> None:
        super().__init__(source, library)
        self.offset = offset
        self.lines = source.split("\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.depth = 0

    def span(self, node: ast.expr | ast.stmt) -> Span:
        def position(line: int, column: int) -> int:
            prefix = self.lines[line - 1].encode()[:column].decode(errors="replace")
            return self.offset + self.starts[line - 1] + len(prefix)

        return (
            position(node.lineno, node.col_offset),
            position(node.end_lineno or node.lineno, node.end_col_offset or 0),
        )

    def statement(self, node: ast.stmt) -> Expr:
        if isinstance(node, ast.Expr):
            return self.expr(node.value)
        if isinstance(node, ast.Return) and node.value is not None:
            return self.expr(node.value)
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            sides = (self.expr(node.targets[0]), self.expr(node.value))
            return Expr("relation", sides, "=", self.span(node))
        raise CannotParse(f"a Python {type(node).__name__} is not a formula", self.span(node))

    def expr(self, node: ast.expr) -> Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise CannotParse(f"a formula nested deeper than {MAX_DEPTH}", self.span(node))
        out = self.read(node)
        self.depth -= 1
        return out

    def read(self, node: ast.expr) -> Expr:
        span = self.span(node)
        if isinstance(node, ast.Constant):
            return self.constant(node, span)
        if isinstance(node, ast.Name):
            return Expr("name", (), _symbol(node.id), span)
        if isinstance(node, ast.BinOp):
            return self.binary(node, span)
        if isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.USub):
                return Expr("neg", (self.expr(node.operand),), None, span)
            if isinstance(node.op, ast.UAdd):
                return self.expr(node.operand)
            if isinstance(node.op, ast.Invert | ast.Not):
                return Expr("call", (self.expr(node.operand),), "not", span)
        if isinstance(node, ast.Call):
            return self.call(node, span)
        if isinstance(node, ast.Attribute):
            return self.attribute(node, span)
        if isinstance(node, ast.Compare):
            parts = (self.expr(node.left), *(self.expr(c) for c in node.comparators))
            signs = [_SIGNS.get(type(op)) for op in node.ops]
            if None in signs:
                raise CannotParse("a comparison that is no formula", span)
            if len(signs) == 1:
                return Expr("relation", parts, signs[0], span)
            return Expr("chain", parts, tuple(signs), span)
        if isinstance(node, ast.Tuple):
            return Expr("tuple", tuple(self.expr(e) for e in node.elts), None, span)
        if isinstance(node, ast.List):
            return self.list(node, span)
        if isinstance(node, ast.Subscript):
            shape = self.shape(node, span)
            if shape is not None:
                return shape
            index = node.slice
            items = index.elts if isinstance(index, ast.Tuple) else [index]
            indices = tuple(self.index(i) for i in items)
            return Expr("index", (self.expr(node.value), *indices), None, span)
        if isinstance(node, ast.IfExp):
            otherwise = Expr("name", (), "otherwise", span)
            args = (self.expr(node.body), self.expr(node.test), self.expr(node.orelse), otherwise)
            return Expr("cases", args, None, span)
        raise CannotParse(f"a Python {type(node).__name__} is not a formula", span)

    def constant(self, node: ast.Constant, span: Span) -> Expr:
        value = node.value
        if value is True or value is False or value is None:
            return Expr("name", (), str(value), span)
        if value is Ellipsis:
            return Expr("ellipsis", (), None, span)
        if isinstance(value, int | float):
            if isinstance(value, int) and abs(value) >= 10**60:
                raise CannotParse("a number of more than 60 digits", span)
            if isinstance(value, float) and not abs(value) < float("inf"):
                return Expr("name", (), "∞", span)
            return numeral(str(value), span)
        if isinstance(value, str) and len(value) < 80:
            return Expr("name", (), repr(value), span)
        raise CannotParse(f"the constant {str(value)[:40]!r} is not a formula", span)

    def binary(self, node: ast.BinOp, span: Span) -> Expr:
        operator = type(node.op)
        # A chain of one operator is flattened, iteratively: it may be long.
        operands: list[ast.expr] = [node.right]
        inner = node.left
        while (
            isinstance(inner, ast.BinOp)
            and type(inner.op) is operator
            and operator not in (ast.Div, ast.Pow, ast.Sub)
        ):
            operands.append(inner.right)
            inner = inner.left
        operands.append(inner)
        if operator is ast.Sub:
            left, right = self.expr(node.left), self.expr(node.right)
            minus = Expr("neg", (right,), None, right.span)
            terms = left.args if left.op == "add" and isinstance(node.left, ast.BinOp) else (left,)
            return Expr("add", (*terms, minus), None, span)
        parts = tuple(self.expr(o) for o in reversed(operands))
        if operator is ast.Pow:
            return Expr("pow", parts, None, span)
        if operator is ast.Mult:
            scalars = sum(_is_number(p) for p in parts)
            op = "mul" if scalars >= len(parts) - 1 else "hadamard"
            return Expr(op, parts, None, span)
        if operator is ast.Add and parts[0].op == "add" and isinstance(operands[-1], ast.BinOp):
            parts = (*parts[0].args, *parts[1:])
        if operator in _OPS:
            return Expr(_OPS[operator], parts, None, span)
        if operator is ast.BitXor:
            raise CannotParse("^ is not a power in Python; write **", span)
        if operator is ast.Mod:
            return Expr("call", parts, "mod", span)
        raise CannotParse(f"the Python operator {operator.__name__} is not a formula", span)

    def path(self, node: ast.expr) -> list[str] | None:
        """Return ``["torch", "nn", "functional", "softmax"]`` for a dotted name."""
        names: list[str] = []
        while isinstance(node, ast.Attribute) and len(names) < 10:
            names.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        return [*names, node.id][::-1]

    def attribute(self, node: ast.Attribute, span: Span) -> Expr:
        if node.attr in ("T", "mT", "H"):
            return Expr("transpose", (self.expr(node.value),), None, span)
        path = self.path(node)
        if path and path[0] in _MODULES:
            word = {"pi": "π", "inf": "∞", "e": "e", "newaxis": "None"}.get(path[-1])
            if word:
                return Expr("name", (), word, span)
        if path and path[0] == "self":
            return Expr("name", (), path[-1], span)
        raise CannotParse(f"the attribute .{node.attr} is not part of a formula", span)

    def call(self, node: ast.Call, span: Span) -> Expr:
        if isinstance(node.func, ast.Call):  # nn.Softmax(dim=-1)(x)
            made = self.path(node.func.func)
            if made and made[0] in _MODULES and not node.func.args and made[-1][0].isupper():
                whole = ast.Call(node.func.func, node.args, [*node.func.keywords, *node.keywords])
                return self.call(ast.copy_location(whole, node), span)
        path = self.path(node.func)
        receiver: tuple[Expr, ...] = ()
        library = ""
        if path and (len(path) == 1 or path[0] in _MODULES or path[0] == "self"):
            name = path[-1]
            library = path[0] if len(path) > 1 and path[0] in _MODULES else ""
        elif isinstance(node.func, ast.Attribute):
            name = node.func.attr
            receiver = (self.expr(node.func.value),)
        else:
            raise CannotParse("a call of something that is no name", span)
        if any(isinstance(a, ast.Starred) for a in node.args):
            raise CannotParse("unpacked arguments", span)
        args = receiver + tuple(self.expr(a) for a in node.args)
        keywords = []
        for keyword in node.keywords:
            if keyword.arg is None:
                raise CannotParse("unpacked arguments", span)
            value = self.expr(keyword.value)
            keywords.append(Expr("keyword", (value,), keyword.arg, value.span))
        args, keywords = self.axes(name, args, keywords, bool(receiver), library, span)
        return self.named_call(name, args, tuple(keywords), span, bool(receiver))

    def shape(self, node: ast.Subscript, span: Span) -> Expr | None:
        """Read ``K.shape[-1]`` as the size of an axis."""
        if not (isinstance(node.value, ast.Attribute) and node.value.attr == "shape"):
            return None
        axis = whole(self.expr(node.slice))
        if axis is None:
            raise CannotParse("a shape without the number of its axis", span)
        return self.size(self.expr(node.value.value), axis, span)

    def list(self, node: ast.List, span: Span) -> Expr:
        items = [self.expr(e) for e in node.elts]
        if not items:
            raise CannotParse("an empty list", span)
        if all(i.op == "matrix" and i.value[0] == 1 for i in items) and (
            len({i.value[1] for i in items}) == 1
        ):
            entries = tuple(e for i in items for e in i.args)
            return Expr("matrix", entries, (len(items), items[0].value[1]), span)
        return Expr("matrix", tuple(items), (1, len(items)), span)

    def index(self, node: ast.expr) -> Expr:
        span = self.span(node)
        if isinstance(node, ast.Slice):
            parts = [p for p in (node.lower, node.upper, node.step) if p is not None]
            if not parts:
                return Expr("name", (), ":", span)
            raise CannotParse("a slice with bounds", span)
        return self.expr(node)


def _is_number(expr: Expr) -> bool:
    if expr.op in ("neg", "sqrt", "div", "pow", "mul"):
        return all(_is_number(a) for a in expr.args)
    return expr.op == "number"


def _symbol(identifier: str) -> str:
    """Return the symbol a Python name spells: ``y_hat`` is ŷ, ``eps`` is ε."""
    base, _, accent = identifier.rpartition("_")
    if base and accent in _ACCENTS:
        base = _LETTERS.get(base, base)
        return unicodedata.normalize("NFC", base[0] + _ACCENTS[accent] + base[1:])
    return _LETTERS.get(identifier, identifier)
