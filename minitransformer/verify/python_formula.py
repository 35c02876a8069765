"""Formulas written as Python expressions: NumPy's and PyTorch's spelling to the same tree."""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings
from fractions import Fraction

from minitransformer.verify.expression import UNSAID_AXIS, Expr
from minitransformer.verify.tokenizer import FUNCTIONS, MAX_LENGTH, CannotParse, Span

_MARKS = re.compile(
    r"@|\*\*|\.m?T\b|\b(?:np|numpy|torch|F|math|jnp|nn|tf)\.\w|"
    r"\.(?:transpose|softmax|sum|mean|exp|sqrt|swapaxes|matmul|mm|bmm|pow)\(|"
    r"\b(?:dim|axis|keepdims?|unbiased|correction|ddof)\s*=|\bif\b.+\belse\b|"
    r"\b(?:[A-Za-z]\w*_(?:hat|bar|tilde)|lr|learning_rate)\b|"
    r"\.(?:var|std|max|min|amax|amin|relu|sigmoid|tanh|clamp|clip|square|rsqrt|log|abs|size)\(|"
    r"\.shape\["
)
_MODULES = {"np", "numpy", "torch", "F", "math", "jnp", "nn", "tf", "functional", "linalg",
            "special", "scipy", "jax", "nn.functional"}  # fmt: skip
_OPS = {ast.Add: "add", ast.Mult: "hadamard", ast.MatMult: "matmul", ast.Div: "div"}
_SIGNS = {
    ast.Eq: "=", ast.NotEq: "≠", ast.Lt: "<", ast.LtE: "≤", ast.Gt: ">", ast.GtE: "≥",
    ast.In: "∈", ast.NotIn: "∉",
}  # fmt: skip
_MAX_DEPTH = 60
_TORCH = re.compile(
    r"\b(?:torch|F|nn)\.\w|\b(?:dim|keepdim|unbiased)\s*=|\.(?:mT\b|bmm\(|size\(|masked_fill\()"
)
_NUMPY = re.compile(r"\b(?:np|numpy|jnp|tf)\.\w|\b(?:axis|keepdims|ddof)\s*=")
_BIASED = {"np", "numpy", "jnp", "jax", "tf"}  # modules whose variance divides by n
# Functions whose second argument is an axis, and those of a module or an array alone.
_OVER_AXIS = {"softmax", "log_softmax", "sum", "mean", "prod", "var", "std", "logsumexp",
              "amax", "amin"}  # fmt: skip
_OVER_AXIS_METHODS = _OVER_AXIS | {"max", "min"}
_ACCENTS = {"hat": "\N{COMBINING CIRCUMFLEX ACCENT}", "bar": "\N{COMBINING MACRON}",
            "tilde": "\N{COMBINING TILDE}"}  # fmt: skip
_LETTERS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε",
    "eta": "η", "theta": "θ", "lambda_": "λ", "lam": "λ", "mu": "μ", "pi": "π", "rho": "ρ",
    "sigma": "σ", "tau": "τ", "phi": "φ", "omega": "ω", "lr": "η", "learning_rate": "η",
}  # fmt: skip


def looks_like_python(text: str) -> bool:
    """Whether a formula carries marks that only Python has (``@``, ``.T``, ``np.``)."""
    return (
        len(text) <= MAX_LENGTH
        and "\\" not in text
        and not re.search(r"[√·×⊙ᵀ∑Σ∏^{]", text)
        and _MARKS.search(text) is not None
    )


def library_of(text: str) -> str:
    """Return whose functions a text calls: ``torch``, ``numpy`` or ``""`` where nothing tells.

    Examples
    --------
    >>> library_of("x.var(dim=-1)"), library_of("np.var(x)"), library_of("x.var(-1)")
    ('torch', 'numpy', '')
    """
    torch, numpy = _TORCH.search(text), _NUMPY.search(text)
    if bool(torch) == bool(numpy):
        return ""
    return "torch" if torch else "numpy"


def reads_both_ways(text: str) -> bool:
    """Whether a Python text takes a variance that NumPy and PyTorch compute differently."""
    try:
        reader = _Reader(text.strip(), 0, "")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(text.strip())
        for node in module.body:
            reader.statement(node)
    except (SyntaxError, ValueError, MemoryError, RecursionError, CannotParse):
        return False
    return reader.undecided


def parse_python(text: str, library: str | None = None) -> Expr | None:
    """Read a Python expression or assignments; ``None`` where it is not Python.

    ``*`` is elementwise, so it becomes ``hadamard`` unless one side is a plain number.
    `library` says whose variance is meant where the text does not: ``torch`` divides by
    n − 1, ``numpy`` by n.

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
    reader = _Reader(source, offset, library if library is not None else library_of(source))
    steps = [reader.statement(node) for node in module.body]
    if not steps:
        return None
    if len(steps) == 1:
        return steps[0]
    return Expr("steps", tuple(steps), ("",) * len(steps), (0, len(text)))


class _Reader:
    def __init__(self, source: str, offset: int, library: str) -> None:
        self.offset = offset
        self.library = library
        self.undecided = False  # whether a variance was read for want of a library as NumPy's
        self.starts = [0]
        self.lines = source.split("\n")
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.depth = 0
        self.rank = _rank(source)  # of batched operands; 0 where axes count from a matrix

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

    def axes(
        self,
        name: str,
        args: tuple[Expr, ...],
        keywords: list[Expr],
        method: bool,
        library: str,
        span: Span,
    ) -> tuple[tuple[Expr, ...], list[Expr]]:
        """Write positional axes, flags and defaults of a library as keywords."""
        given = {str(k.value): k for k in keywords}
        if self.picks_axis(name, args, given, method, library):
            unsaid = Expr("name", (), UNSAID_AXIS, span)
            return args, [*keywords, Expr("keyword", (unsaid,), "dim", span)]
        known = _OVER_AXIS_METHODS if method or library else _OVER_AXIS
        if name in ("var", "std"):
            given, args = self.variance(name, given, args, library, span)
        elif name not in known:
            return args, keywords
        for extra in args[1:]:
            if _whole(extra) is not None and not {"dim", "axis"} & set(given):
                given["dim"] = Expr("keyword", (extra,), "dim", extra.span)
            elif extra.op == "name" and extra.value in ("True", "False"):
                given["keepdim"] = Expr("keyword", (extra,), "keepdim", extra.span)
            elif name in ("max", "min"):
                return args, keywords  # the larger of two
            else:
                raise CannotParse(f"{name} with that argument", extra.span)
        for word in ("dim", "axis"):
            value = given[word].args[0] if word in given else None
            if value is None:
                continue
            if value.op == "name" and value.value == "None":
                del given[word]
                continue
            axis = _whole(value)
            if axis is not None and axis >= 0 and self.rank:
                minus = Expr("number", (), Fraction(self.rank - axis), value.span)
                value = Expr("neg", (minus,), None, value.span)
                given[word] = Expr("keyword", (value,), word, value.span)
        given.pop("dtype", None)
        return args[:1], list(given.values())

    def picks_axis(
        self,
        name: str,
        args: tuple[Expr, ...],
        given: dict[str, Expr],
        method: bool,
        library: str,
    ) -> bool:
        """Whether PyTorch picks a softmax's axis by the number of axes; NumPy has none."""
        torch = library in ("torch", "nn", "F") or (method and self.library == "torch")
        softmax = name.lower().replace("_", "") in ("softmax", "logsoftmax")
        return torch and softmax and len(args) == 1 and not {"dim", "axis"} & set(given)

    def variance(
        self, name: str, given: dict[str, Expr], args: tuple[Expr, ...], library: str, span: Span
    ) -> tuple[dict[str, Expr], tuple[Expr, ...]]:
        """Settle what a variance divides by: n, or n − 1 as PyTorch does unless told."""
        given = dict(given)
        stated: Fraction | None = None
        flags = [a for a in args[1:] if a.op == "name" and a.value in ("True", "False")]
        torch = library in ("torch", "nn", "F") or (
            not library and (self.library == "torch" or {"dim", "keepdim"} & set(given))
        )
        if torch and flags:  # x.var(-1, False), x.var(False): unbiased
            stated = Fraction(int(flags[0].value == "True"))
            args = tuple(a for a in args if a is not flags[0])
        for word in ("unbiased", "correction", "ddof"):
            if word not in given:
                continue
            value = given.pop(word).args[0]
            if value.op == "name" and value.value in ("True", "False"):
                stated = Fraction(int(value.value == "True"))
            elif _whole(value) is not None:
                stated = Fraction(_whole(value) or 0)
            else:
                raise CannotParse(f"{name} with that {word}", value.span)
        if stated is None:
            if torch:
                stated = Fraction(1)
            else:
                stated = Fraction(0)
                sure = library in _BIASED or self.library == "numpy"
                self.undecided = self.undecided or not (sure or {"axis", "keepdims"} & set(given))
        if stated:
            number = Expr("number", (), stated, span)
            given["correction"] = Expr("keyword", (number,), "correction", span)
        return given, args

    def shape(self, node: ast.Subscript, span: Span) -> Expr | None:
        """Read ``K.shape[-1]`` as the size of an axis."""
        if not (isinstance(node.value, ast.Attribute) and node.value.attr == "shape"):
            return None
        axis = _whole(self.expr(node.slice))
        if axis is None:
            raise CannotParse("a shape without the number of its axis", span)
        return self.size(self.expr(node.value.value), axis, span)

    def size(self, of: Expr, axis: int, span: Span) -> Expr:
        if axis >= 0 and self.rank:
            axis -= self.rank
        number = Expr("number", (), Fraction(abs(axis)), span)
        word = Expr("neg", (number,), None, span) if axis < 0 else number
        return Expr("call", (of, Expr("keyword", (word,), "dim", span)), "size", span)

    def named_call(
        self,
        name: str,
        args: tuple[Expr, ...],
        keywords: tuple[Expr, ...],
        span: Span,
        method: bool,
    ) -> Expr:
        one = len(args) == 1 and not keywords
        words = {str(k.value): k.args[0] for k in keywords}
        if name == "size" and method and len(args) == 2 and not keywords:
            axis = _whole(args[1])
            if axis is not None:
                return self.size(args[0], axis, span)
        if name in ("clamp", "clip"):
            return self.clamp(args, words, span)
        if name in ("clamp_min", "clamp_max") and len(args) == 2 and not keywords:
            return Expr("call", args, name[-3:], span)
        if name == "gelu" and set(words) == {"approximate"} and len(args) == 1:
            return _gelu(args[0], str(words["approximate"].value), span)
        if name == "where" and len(args) == 3 and not keywords:
            otherwise = Expr("name", (), "otherwise", span)
            return Expr("cases", (args[1], args[0], args[2], otherwise), None, span)
        if name in ("tensor", "zeros_like") and len(args) == 1 and not keywords:
            if name == "zeros_like":
                return Expr("number", (), Fraction(0), span)
            if args[0].op in ("number", "neg"):
                return args[0]
        if name == "einsum":
            return self.einsum(args, span)
        if name == "scaled_dot_product_attention":
            return self.sdpa(args, words, span)
        if name == "layer_norm":
            return self.layer_norm(args, words, span)
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

    def clamp(self, args: tuple[Expr, ...], words: dict[str, Expr], span: Span) -> Expr:
        """Read a clamp as the smaller and the larger of two."""
        bounds = dict(zip(("min", "max"), args[1:]))
        for word, value in words.items():
            bounds[{"a_min": "min", "a_max": "max"}.get(word, word)] = value
        bounds = {k: v for k, v in bounds.items() if not (v.op == "name" and v.value == "None")}
        if not args or len(args) > 3 or not bounds or not set(bounds) <= {"min", "max"}:
            raise CannotParse("a clamp with other arguments than x, min and max", span)
        out = args[0]
        if "min" in bounds:
            out = Expr("call", (out, bounds["min"]), "max", span)
        if "max" in bounds:
            out = Expr("call", (out, bounds["max"]), "min", span)
        return out

    def einsum(self, args: tuple[Expr, ...], span: Span) -> Expr:
        """Read an einsum of two operands that is a matrix product, batched or not."""
        spec = str(args[0].value).strip("'\"").replace(" ", "") if args else ""
        found = re.fullmatch(
            r"(\.\.\.|)([a-zA-Z]*),(\.\.\.|)([a-zA-Z]*)->(\.\.\.|)([a-zA-Z]*)", spec
        )
        if len(args) != 3 or not found or not found[1] == found[3] == found[5]:
            raise CannotParse("an einsum other than of two named operands", span)
        left, right, out = found[2], found[4], found[6]
        batch = [c for c in left if c in right and c in out]
        a, b, c = ("".join(x for x in part if x not in batch) for part in (left, right, out))
        shared = [x for x in a if x in b]
        if (
            len(a) != 2
            or len(b) != 2
            or len(c) != 2
            or len(shared) != 1
            or set(c) != set(a) ^ set(b)
        ):
            raise CannotParse(f"the einsum {spec} is no matrix product", span)
        (k,) = shared
        first, second = args[1], args[2]
        if a[0] == k:
            first = Expr("transpose", (first,), None, span)
        if b[1] == k:
            second = Expr("transpose", (second,), None, span)
        product = Expr("matmul", (first, second), None, span)
        straight = c[0] in a
        return product if straight else Expr("transpose", (product,), None, span)

    def sdpa(self, args: tuple[Expr, ...], words: dict[str, Expr], span: Span) -> Expr:
        """Write ``F.scaled_dot_product_attention`` out; a mask is added inside the softmax."""
        values = dict(zip(("query", "key", "value", "attn_mask"), args)) | words
        named = {"query", "key", "value"}
        off = {k for k, v in values.items() if v.op == "name" and v.value in ("None", "False")}
        off |= {
            k for k, v in values.items() if k == "dropout_p" and v.op == "number" and not v.value
        }
        extra = set(values) - off - named - {"scale"}
        if not named <= set(values) or extra:
            told = ", ".join(sorted(extra)) or "fewer than three arguments"
            raise CannotParse(f"scaled_dot_product_attention with {told}", span)
        q, k, v = (values[n] for n in ("query", "key", "value"))
        scores = Expr("matmul", (q, Expr("transpose", (k,), None, span)), None, span)
        if "scale" in values and "scale" not in off:
            scaled = Expr("hadamard", (scores, values["scale"]), None, span)
        else:
            root = Expr("sqrt", (self.size(q, -1, span),), None, span)
            scaled = Expr("div", (scores, root), None, span)
        last = Expr("neg", (Expr("number", (), Fraction(1), span),), None, span)
        weights = (scaled, Expr("keyword", (last,), "dim", span))
        return Expr("matmul", (Expr("call", weights, "softmax", span), v), None, span)

    def layer_norm(self, args: tuple[Expr, ...], words: dict[str, Expr], span: Span) -> Expr:
        """Write ``F.layer_norm`` over the last axis out."""
        values = dict(zip(("input", "normalized_shape", "weight", "bias", "eps"), args)) | words
        unknown = set(values) - {"input", "normalized_shape", "weight", "bias", "eps"}
        if unknown or not {"input", "normalized_shape"} <= set(values):
            raise CannotParse("layer_norm with other arguments", span)
        values = {k: v for k, v in values.items() if not (v.op == "name" and v.value == "None")}
        shape = values["normalized_shape"]
        if shape.op in ("tuple", "matrix") and len(shape.args) != 1:
            raise CannotParse("layer_norm over more than the last axis", span)
        x = values["input"]
        last = Expr("neg", (Expr("number", (), Fraction(1), span),), None, span)
        over = Expr("keyword", (last,), "dim", span)
        mean, var = (Expr("call", (x, over), f, span) for f in ("mean", "Var"))
        eps = values.get("eps", Expr("number", (), Fraction(1, 100_000), span))
        gap = Expr("add", (x, Expr("neg", (mean,), None, span)), None, span)
        root = Expr("sqrt", (Expr("add", (var, eps), None, span),), None, span)
        out = Expr("div", (gap, root), None, span)
        if "weight" in values:
            out = Expr("hadamard", (out, values["weight"]), None, span)
        return Expr("add", (out, values["bias"]), None, span) if "bias" in values else out

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
        rank = self.rank or 2
        numbers = [a - rank if a is not None and a >= 0 else a for a in axes]
        if name != "permute" and len(axes) == 2 and sorted(a or 0 for a in numbers) == [-2, -1]:
            return Expr("transpose", (args[0],), None, span)
        order = [*range(-rank, -2), -1, -2]
        if name in ("permute", "transpose") and len(axes) >= 2 and numbers == order:
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


def _whole(e: Expr) -> int | None:
    """Return the whole number an expression is, if it is one."""
    inner = e.args[0] if e.op == "neg" else e
    if inner.op != "number" or inner.value.denominator != 1:
        return None
    return -int(inner.value) if e.op == "neg" else int(inner.value)


def _symbol(identifier: str) -> str:
    """Return the symbol a Python name spells: ``y_hat`` is ŷ, ``eps`` is ε."""
    base, _, accent = identifier.rpartition("_")
    if base and accent in _ACCENTS:
        base = _LETTERS.get(base, base)
        return unicodedata.normalize("NFC", base[0] + _ACCENTS[accent] + base[1:])
    return _LETTERS.get(identifier, identifier)


def _rank(source: str) -> int:
    """Return the rank that a batched product or a transpose of later axes implies."""
    pair = r"\.?(?:transpose|swapaxes)\([^()]*?\b"
    if re.search(pair + r"(?:2\s*,\s*3|3\s*,\s*2)\s*\)", source) or re.search(
        r"permute\([^()]*0\s*,\s*1\s*,\s*3\s*,\s*2\s*\)", source
    ):
        return 4
    if "bmm" in source or re.search(pair + r"(?:1\s*,\s*2|2\s*,\s*1)\s*\)", source):
        return 3
    if re.search(r"(?:permute|transpose)\([^()]*0\s*,\s*2\s*,\s*1\s*\)", source):
        return 3
    spec = re.search(r"einsum\(\s*['\"]\s*([a-zA-Z]+)\s*,", source)
    return len(spec[1]) if spec and len(spec[1]) > 2 else 0


def _gelu(x: Expr, form: str, span: Span) -> Expr:
    """Return GELU in the form that PyTorch's ``approximate`` names."""
    form = form.strip("'\"")
    if form == "none":
        return Expr("call", (x,), "gelu", span)
    if form != "tanh":
        raise CannotParse(f"gelu with approximate={form}", span)

    def number(value: Fraction | int) -> Expr:
        return Expr("number", (), Fraction(value), span)

    def times(*parts: Expr) -> Expr:
        return Expr("mul", parts, None, span)

    root = Expr(
        "sqrt", (Expr("div", (number(2), Expr("name", (), "π", span)), None, span),), None, span
    )
    cube = Expr("pow", (x, number(3)), None, span)
    inner = Expr("add", (x, times(number(Fraction(44715, 10**6)), cube)), None, span)
    tanh = Expr("call", (times(root, inner),), "tanh", span)
    return times(number(Fraction(1, 2)), x, Expr("add", (number(1), tanh), None, span))
