"""Python code to the one expression that it computes: assignments put into each other.

Nothing is run. A function of assignments and a return is its returned expression with every
name replaced by what was assigned to it; calls of functions of the same document are put in
as well. Whatever could make the code mean something else (loops, branches on data, changes in
place, names of unknown origin) is `Unreadable`, with the reason.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SMALL = 1e-3  # a constant up to this guards a division or a logarithm
_MOST_NODES = 400
_DEEPEST_CALL = 4
_LIBRARIES = {
    "numpy": "np", "torch": "torch", "torch.nn.functional": "F", "torch.nn": "nn", "math": "math",
    "jax.numpy": "jnp",
}  # fmt: skip
# Methods that keep every value: changes of type, of place in memory.
_CASTS = frozenset(
    ["float", "double", "half", "to", "type_as", "astype", "contiguous", "detach", "clone", "copy",
     "cpu", "cuda"]
)  # fmt: skip
_PROJECTED = frozenset(["q", "k", "v", "query", "key", "value", "queries", "keys", "values"])
_MODULES = frozenset(["Softmax", "ReLU", "GELU", "SiLU", "Sigmoid", "Tanh"])
_VIEWS = frozenset(
    ["reshape", "view", "transpose", "swapaxes", "permute", "squeeze", "unsqueeze", "expand",
     "asarray", "contiguous", "detach", "flatten", "ravel", "chunk", "split", "t", "float",
     "to", "astype", "type_as", "broadcast_to", "expand_dims", "moveaxis", "view_as"]
)  # fmt: skip
_AXES = frozenset(["axis", "dim", "keepdim", "keepdims"])
_UNREADABLE = {
    ast.For: "a loop", ast.While: "a loop", ast.With: "a with block", ast.Try: "a try block",
    ast.FunctionDef: "a function inside it", ast.Delete: "a deletion",
}  # fmt: skip


Made = ast.expr | ast.FunctionDef


class Unreadable(ValueError):
    """Code that is not one expression; the message says why."""


@dataclass
class Scope:
    """What a document's code blocks define and import, up to the one that is read."""

    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)  # local name -> dotted name

    def add(self, tree: ast.Module, imports: Mapping[str, str]) -> None:
        """Add what a code block defines."""
        self.imports.update(imports)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                self.functions[node.name] = node

    def library(self) -> str | None:
        """Return whose functions the code calls, where its imports leave no doubt."""
        tops = {dotted.partition(".")[0] for dotted in self.imports.values()}
        if "torch" in tops and "numpy" not in tops:
            return "torch"
        return "numpy" if "numpy" in tops and "torch" not in tops else None


def returned(
    function: ast.FunctionDef, scope: Scope, made: Mapping[str, Made] | None = None
) -> tuple[ast.expr, tuple[str, ...]]:
    r"""Return what a function computes, and under which conditions.

    Parameters
    ----------
    function : ast.FunctionDef
        Parameters that default to None or to a flag or an axis keep their defaults.
    scope : Scope
        The functions that it may call.
    made : mapping of str to ast.expr or ast.FunctionDef, optional
        For a method what ``self.x`` is: what it was made by, or another method.

    Raises
    ------
    Unreadable
        If it is not one expression of its parameters.

    Examples
    --------
    >>> source = "def f(x, mask=None):\n e = g(x)\n if mask: e = e * mask\n return e / 2"
    >>> expression, conditions = returned(ast.parse(source).body[0], Scope())
    >>> ast.unparse(expression), conditions
    ('g(x) / 2', ('mask = None',))
    """
    _, defaults = _parameters(function)
    kept = {n: d for n, d in defaults.items() if _stays(n, d)}
    reader = Reader(scope, dict(kept), made or {}, frozenset(kept))
    out = reader.run(function.body)
    if out is None:
        raise Unreadable("returns nothing")
    numbers = [
        f"{name} = {ast.unparse(value)}"
        for name, value in kept.items()
        if name not in _AXES and isinstance(value, ast.Constant) and isinstance(value.value, float)
    ]
    return out, tuple(dict.fromkeys([*numbers, *reader.conditions]))


def _parameters(function: ast.FunctionDef) -> tuple[list[str], dict[str, ast.expr]]:
    """Return the names of the parameters and the defaults that are constants."""
    given = function.args
    if given.vararg or given.kwarg:
        raise Unreadable("takes arguments of any number")
    names = [a.arg for a in (*given.posonlyargs, *given.args)]
    defaults = dict(zip(reversed(names), reversed(given.defaults)))
    for parameter, default in zip(given.kwonlyargs, given.kw_defaults):
        names.append(parameter.arg)
        if default is not None:
            defaults[parameter.arg] = default
    return [n for n in names if n not in ("self", "cls")], defaults


def _stays(name: str, default: ast.expr) -> bool:
    """Whether a default is kept: a flag, a choice, an axis, a factor; no ε and no size."""
    if isinstance(default, ast.UnaryOp):
        default = default.operand
    if not isinstance(default, ast.Constant):
        return False
    if isinstance(default.value, float):
        return default.value == 0 or abs(default.value) > SMALL
    return default.value is None or isinstance(default.value, bool | str) or name in _AXES


class Reader:
    """Follows straight-line code; ``values`` holds what each name stands for."""

    def __init__(
        self,
        scope: Scope,
        values: dict[str, ast.expr],
        made: Mapping[str, Made],
        defaulted: frozenset[str] = frozenset(),
        depth: int = 0,
    ) -> None:
        self.scope = scope
        self.values = values
        self.made = made
        self.defaulted = defaulted  # parameters that have their defaults by assumption
        self.depth = depth
        self.conditions: list[str] = []

    def run(self, statements: Sequence[ast.stmt]) -> ast.expr | None:
        """Follow some statements; return what they return."""
        for statement in statements:
            if isinstance(statement, ast.Return):
                return self.result(statement.value)
            if isinstance(statement, ast.If):
                out = self.run(self.branch(statement))
                if out is not None:
                    return out
            else:
                self.step(statement)
        return None

    def result(self, value: ast.expr | None) -> ast.expr:
        if value is None:
            raise Unreadable("returns nothing")
        first = value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value
        return self.read(first)

    def step(self, statement: ast.stmt) -> None:
        """Follow one statement that neither branches nor returns."""
        if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass | ast.Assert):
            return
        if isinstance(statement, ast.Expr):
            shown = isinstance(statement.value, ast.Call) and _name(statement.value.func) == "print"
            if not (isinstance(statement.value, ast.Constant) or shown):
                raise Unreadable("a call for its effect")
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            self.assign(statement.targets[0], statement.value)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self.assign(statement.target, statement.value)
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            if not all(map(_is_fresh, self.values.values())):
                raise Unreadable("a change in place of what another name holds too")
            left = ast.Name(statement.target.id, ast.Load())
            self.assign(statement.target, ast.BinOp(left, statement.op, statement.value))
        else:
            raise Unreadable(_UNREADABLE.get(type(statement), "a statement that is no formula"))

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        several = isinstance(target, ast.Tuple)
        targets = target.elts if isinstance(target, ast.Tuple) else [target]
        names = [t.id for t in targets if isinstance(t, ast.Name)]
        if len(names) != len(targets):
            raise Unreadable("an assignment to a part of something")
        if several and not (isinstance(value, ast.Tuple) and len(value.elts) == len(names)):
            self.values.update(zip(names, self.sizes(value, len(names))))
            return
        parts = value.elts if several and isinstance(value, ast.Tuple) else [value]
        given = [n.lower() in _PROJECTED and self.is_projection(v) for n, v in zip(names, parts)]
        read = [None if keep else self.read(v) for keep, v in zip(given, parts)]
        for name, new in zip(names, read):
            if new is None:
                self.values.pop(name, None)
                self.conditions.append("the projected queries, keys and values")
            else:
                self.values[name] = new

    def is_projection(self, value: ast.expr) -> bool:
        """Whether a value is ``x @ W`` or a layer of x, in whatever shape."""
        while isinstance(value, ast.Call) and _attribute(value.func) in _VIEWS | _CASTS:
            assert isinstance(value.func, ast.Attribute)
            value = value.func.value
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.MatMult):
            left, right = value.left, value.right
            weight = isinstance(right, ast.Name | ast.Attribute)
        elif isinstance(value, ast.Call) and len(value.args) == 1 and not value.keywords:
            owner = value.func.value if isinstance(value.func, ast.Attribute) else value.func
            made = self.made.get(_attribute(value.func))
            left, weight = value.args[0], _name(owner) == "self" and _is_linear(made)
        else:
            return False
        return weight and _name(left) != "" and _name(left) not in self.values

    def sizes(self, value: ast.expr, count: int) -> list[ast.expr]:
        """Read ``B, T, C = x.shape``: the sizes, counted from the last."""
        if isinstance(value, ast.Call) and not value.args and _attribute(value.func) == "size":
            value = value.func
        if _attribute(value) not in ("shape", "size"):
            raise Unreadable("an assignment to several names")
        assert isinstance(value, ast.Attribute)
        shape = ast.Attribute(self.read(value.value), "shape", ast.Load())
        return [
            ast.Subscript(shape, ast.UnaryOp(ast.USub(), ast.Constant(count - i)), ast.Load())
            for i in range(count)
        ]

    # -- branches -------------------------------------------------------------------------
    def branch(self, statement: ast.If) -> list[ast.stmt]:
        """Return the branch that is taken where the condition is about a default."""
        test, wanted = statement.test, True
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, wanted = test.operand, False
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and _is_none(test.comparators[0]):
            none = isinstance(test.ops[0], ast.Is | ast.Eq)
            name, value = self.decided(test.left)
            taken = (value is None) == none
        else:
            name, value = self.decided(test)
            if value is not None and not isinstance(value, bool):
                raise Unreadable("a branch")
            taken = bool(value)
        if name in self.defaulted:
            self.conditions.append(f"{name} = {value}")
        return statement.body if taken == wanted else statement.orelse

    def decided(self, test: ast.expr) -> tuple[str, object]:
        """Return a parameter's name and the constant that it stands for."""
        name = _name(test)
        value = self.values.get(name)
        if not isinstance(value, ast.Constant):
            raise Unreadable("a branch")
        return name, value.value

    # -- expressions ----------------------------------------------------------------------
    def read(self, node: ast.expr) -> ast.expr:
        """Return an expression with its names replaced."""
        out: ast.expr = _Replace(self).visit(copy.deepcopy(node))
        if sum(1 for _ in ast.walk(out)) > _MOST_NODES:
            raise Unreadable("too long")
        return out

    def call(self, node: ast.Call) -> ast.expr:
        """Put the body of a known function in for its call, its arguments read."""
        name = _name(node.func)
        if any(k.arg == "out" for k in node.keywords):
            raise Unreadable("a result written into an argument")
        if isinstance(node.func, ast.Attribute) and _name(node.func.value) == "self":
            return self.module_call(node, node.func.attr)
        if name in self.values:
            raise Unreadable(f"a call of {name}, whose meaning is given elsewhere")
        if _dotted(node.func) in ("F.dropout", "nn.functional.dropout") and node.args:
            self.conditions.append("dropout off")
            return node.args[0]
        function = self.scope.functions.get(name)
        return node if function is None else self.inlined(function, node)

    def inlined(self, function: ast.FunctionDef, node: ast.Call) -> ast.expr:
        if self.depth >= _DEEPEST_CALL:
            raise Unreadable(f"calls of {function.name} inside each other")
        names, defaults = _parameters(function)
        if any(isinstance(a, ast.Starred) for a in node.args) or len(node.args) > len(names):
            raise Unreadable(f"a call of {function.name} with other arguments")
        given = dict(defaults) | dict(zip(names, node.args))
        for keyword in node.keywords:
            if keyword.arg not in names:
                raise Unreadable(f"a call of {function.name} with other arguments")
            given[str(keyword.arg)] = keyword.value
        if set(names) - set(given):
            raise Unreadable(f"a call of {function.name} without all its arguments")
        inner = Reader(self.scope, given, self.made, depth=self.depth + 1)
        try:
            out = inner.run(function.body)
        except Unreadable as error:
            raise Unreadable(f"a call of {function.name}, which has {error}") from None
        if out is None:
            raise Unreadable(f"a call of {function.name}, which returns nothing")
        self.conditions += inner.conditions
        return out

    def module_call(self, node: ast.Call, attribute: str) -> ast.expr:
        """Read ``self.softmax(x)`` by what ``__init__`` made it of."""
        made = self.made.get(attribute)
        if isinstance(made, ast.FunctionDef):
            return self.inlined(made, node)
        kind = _dotted(made.func).rpartition(".")[2] if isinstance(made, ast.Call) else ""
        if kind == "Dropout" and node.args:
            self.conditions.append("dropout off")
            return node.args[0]
        if made is None or kind not in _MODULES:
            raise Unreadable(f"a call of self.{attribute}")
        return ast.Call(made, node.args, node.keywords)


class _Replace(ast.NodeTransformer):
    """Replaces names by their values, calls by their bodies, and imports by usual names."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def visit_Name(self, node: ast.Name) -> ast.expr:
        value = self.reader.values.get(node.id)
        if value is not None:
            return copy.deepcopy(value)
        full = self.reader.scope.imports.get(node.id, "")
        if full in _LIBRARIES:
            return ast.Name(_LIBRARIES[full], ast.Load())
        library, _, last = full.rpartition(".")
        if library in _LIBRARIES:  # from torch.nn.functional import softmax
            return ast.Attribute(ast.Name(_LIBRARIES[library], ast.Load()), last, ast.Load())
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        node.args = [self.visit(a) for a in node.args]
        for keyword in node.keywords:
            keyword.value = self.visit(keyword.value)
        name = _name(node.func)
        if name in self.reader.scope.functions or name in self.reader.values:
            return self.reader.call(node)
        if not (isinstance(node.func, ast.Attribute) and _name(node.func.value) == "self"):
            node.func = self.visit(node.func)
            if isinstance(node.func, ast.Attribute) and node.func.attr in _CASTS:
                return node.func.value
        return self.reader.call(node)

    def refuse(self, node: ast.AST) -> ast.AST:
        raise Unreadable(f"a Python {type(node).__name__}")

    visit_Lambda = visit_ListComp = visit_GeneratorExp = visit_NamedExpr = refuse
    visit_DictComp = visit_SetComp = visit_Await = visit_Yield = visit_Starred = refuse


def stored_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that some code may assign to or change in place."""
    return {
        name.id
        for node in nodes
        for name in ast.walk(node)
        if isinstance(name, ast.Name)
        and (isinstance(name.ctx, ast.Store | ast.Del) or isinstance(node, ast.Expr))
    }


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _attribute(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ""


def _is_linear(made: Made | None) -> bool:
    return isinstance(made, ast.Call) and _dotted(made.func).rpartition(".")[2] == "Linear"


def _is_fresh(value: ast.expr) -> bool:
    """Whether a value is an array of its own, and no view of another."""
    if isinstance(value, ast.Call):
        return (_attribute(value.func) or _name(value.func)) not in _VIEWS
    return isinstance(value, ast.BinOp | ast.UnaryOp | ast.Constant | ast.Compare)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return _name(node)
