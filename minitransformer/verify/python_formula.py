"""Formulas written as Python expressions: NumPy's and PyTorch's spelling to the same tree."""

from __future__ import annotations

import ast
import re
import warnings
from fractions import Fraction

from minitransformer.verify.expression import Expr
from minitransformer.verify.tokenizer import FUNCTIONS, MAX_LENGTH, CannotParse, Span

_MARKS = re.compile(
    r"@|\*\*|\.m?T\b|\b(?:np|numpy|torch|F|math|jnp|nn|tf)\.\w|"
    r"\.(?:transpose|softmax|sum|mean|exp|sqrt|swapaxes|matmul|mm|bmm|pow)\(|"
    r"\b(?:dim|axis|keepdims?)\s*="
)
_MODULES = {"np", "numpy", "torch", "F", "math", "jnp", "nn", "tf", "functional", "linalg",
            "special", "scipy", "jax", "nn.functional"}  # fmt: skip
_OPS = {ast.Add: "add", ast.Mult: "hadamard", ast.MatMult: "matmul", ast.Div: "div"}
_SIGNS = {
    ast.Eq: "=", ast.NotEq: "≠", ast.Lt: "<", ast.LtE: "≤", ast.Gt: ">", ast.GtE: "≥",
    ast.In: "∈", ast.NotIn: "∉",
}  # fmt: skip
_MAX_DEPTH = 60
_LETTERS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε",
    "eta": "η", "theta": "θ", "lambda_": "λ", "lam": "λ", "mu": "μ", "pi": "π", "rho": "ρ",
    "sigma": "σ", "tau": "τ", "phi": "φ", "omega": "ω",
}  # fmt: skip


def looks_like_python(text: str) -> bool:
    """Whether a formula carries marks that only Python has (``@``, ``.T``, ``np.``)."""
    return (
        len(text) <= MAX_LENGTH
        and "\\" not in text
        and not re.search(r"[√·×⊙ᵀ∑Σ∏^{]", text)
        and _MARKS.search(text) is not None
    )


def parse_python(text: str) -> Expr | None:
    """Read a Python expression or assignments; ``None`` where it is not Python.

    ``*`` is elementwise, so it becomes ``hadamard`` unless one side is a plain number.

    Examples
    --------
    >>> tree = parse_python("Q @ K.T / np.sqrt(d_k)")
    >>> tree.op, tree.args[0].op, tree.args[1].op
    ('div', 'matmul', 'sqrt')
    """
    depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if depth > _MAX_DEPTH:
            raise CannotParse(f"more than {_MAX_DEPTH} brackets inside each other", (0, len(text)))
    source = text.strip()
    offset = len(text) - len(text.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    reader = _Reader(source, offset)
    steps = [reader.statement(node) for node in module.body]
    if not steps:
        return None
    if len(steps) == 1:
        return steps[0]
    return Expr("steps", tuple(steps), ("",) * len(steps), (0, len(text)))


class _Reader:
    def __init__(self, source: str, offset: int) -> None:
        self.offset = offset
        self.starts = [0]
        self.lines = source.split("\n")
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.depth = 0
        self.batched = "bmm" in source  # three axes

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
        if self.depth > _MAX_DEPTH:
            raise CannotParse(f"a formula nested deeper than {_MAX_DEPTH}", self.span(node))
        out = self.read(node)
        self.depth -= 1
        return out

    def read(self, node: ast.expr) -> Expr:
        span = self.span(node)
        if isinstance(node, ast.Constant):
            return self.constant(node, span)
        if isinstance(node, ast.Name):
            return Expr("name", (), _LETTERS.get(node.id, node.id), span)
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
            return Expr("number", (), Fraction(str(value)), span)
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
        if path and (len(path) == 1 or path[0] in _MODULES or path[0] == "self"):
            name = path[-1]
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
        return self.named_call(name, args, tuple(keywords), span, bool(receiver))

    def named_call(
        self,
        name: str,
        args: tuple[Expr, ...],
        keywords: tuple[Expr, ...],
        span: Span,
        method: bool,
    ) -> Expr:
        one = len(args) == 1 and not keywords
        if name == "sqrt" and one:
            return Expr("sqrt", args, None, span)
        if name in ("abs", "fabs", "absolute") and one:
            return Expr("abs", args, None, span)
        if name in ("inv", "inverse") and one:
            return Expr("inverse", args, None, span)
        if name in ("matmul", "mm", "bmm", "dot") and len(args) == 2 and not keywords:
            return Expr("matmul", args, None, span)
        if name in ("multiply", "mul") and len(args) == 2:
            return Expr("hadamard", args, None, span)
        if name in ("add", "subtract", "sub") and len(args) == 2:
            right = args[1] if name == "add" else Expr("neg", (args[1],), None, args[1].span)
            return Expr("add", (args[0], right), None, span)
        if name in ("divide", "div", "true_divide") and len(args) == 2:
            return Expr("div", args, None, span)
        if name in ("power", "pow") and len(args) == 2:
            return Expr("pow", args, None, span)
        if name == "square" and one:
            return Expr("pow", (args[0], Expr("number", (), Fraction(2), span)), None, span)
        if name == "reciprocal" and one:
            return Expr("div", (Expr("number", (), Fraction(1), span), args[0]), None, span)
        if name == "rsqrt" and one:
            root = Expr("sqrt", args, None, span)
            return Expr("div", (Expr("number", (), Fraction(1), span), root), None, span)
        if name in ("transpose", "swapaxes", "swapdims", "permute", "t"):
            return self.transposed(name, args, span)
        if name == "norm" and one:
            return Expr("norm", args, "", span)
        if name in ("concatenate", "concat", "cat", "hstack") and args and args[0].op in (
            "matrix", "tuple", "concat"
        ):  # fmt: skip
            return Expr("concat", (*args[0].args, *args[1:], *keywords), None, span)
        canonical = FUNCTIONS.get(name.lower(), name) if name.lower() in FUNCTIONS else name
        canonical = {"Var": "Var", "negative": "negative"}.get(canonical, canonical)
        if canonical == "negative" and one:
            return Expr("neg", args, None, span)
        return Expr("call", (*args, *keywords), canonical, span)

    def transposed(self, name: str, args: tuple[Expr, ...], span: Span) -> Expr:
        """Accept a transpose of the last two axes, and nothing else."""

        def axis(node: Expr) -> int | None:
            if node.op == "number" and node.value.denominator == 1:
                return int(node.value)
            if node.op == "neg" and node.args[0].op == "number":
                return -int(node.args[0].value)
            return None

        axes = [axis(a) for a in args[1:]]
        if (name == "t" and len(args) == 1) or (name == "transpose" and len(args) == 1):
            return Expr("transpose", args, None, span)
        last_two = [[-2, -1], [0, 1], [2, 3]] + ([[1, 2]] if self.batched else [])
        if name != "permute" and len(axes) == 2 and sorted(a or 0 for a in axes) in last_two:
            return Expr("transpose", (args[0],), None, span)
        raise CannotParse(f"{name} of other axes than the last two", span)

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
