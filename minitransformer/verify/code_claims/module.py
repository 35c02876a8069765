"""A code block parsed, its constants followed and its calls bound to PyTorch's signatures."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minitransformer.verify.code_claims.signatures import (
    OPTIMISERS,
    POSITIONAL,
    REQUIRED,
    SIGNATURES,
)
from minitransformer.verify.syntax import python_tree


@dataclass
class Call:
    """A call of a class in the table, with its arguments bound."""

    name: str
    node: ast.Call
    bound: dict[str, ast.expr]
    positional: set[str]
    error: str = ""


@dataclass
class Module:
    """A parsed code block and what is known of its names."""

    tree: ast.Module
    constants: dict[str, Any] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)  # local name -> dotted name
    calls: list[Call] = field(default_factory=list)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)


def read_code(text: str) -> Module | None:
    """Parse a block and bind its calls; ``None`` where it is not Python."""
    if len(text) > 400_000 or not text.strip():
        return None
    if re.search(r"(?m)^\s*>>> ", text):
        rows = [re.match(r"\s*(?:>>>|\.\.\.) ?(.*)", row) for row in text.split("\n")]
        text = "\n".join(m.group(1) if m else "" for m in rows)
    tree = python_tree(text)
    if tree is None:
        return None
    module = Module(tree)
    try:
        _names(module)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = _torch_class(node.func, module)
                if name:
                    module.calls.append(_bind(name, node))
    except RecursionError:
        return None
    module.calls.sort(key=lambda c: (c.node.lineno, c.node.col_offset))
    return module


def _names(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module.imports[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module.imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.ClassDef):
            module.classes[node.name] = node
    for statement in module.tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            pairs: list[tuple[ast.expr, ast.expr]] = [(target, statement.value)]
            if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                pairs = list(zip(target.elts, statement.value.elts))
            for left, right in pairs:
                value = constant(right, module.constants)
                if isinstance(left, ast.Name):
                    if value is None:
                        module.constants.pop(left.id, None)
                    else:
                        module.constants[left.id] = value
        elif (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and statement.value is not None
        ):
            value = constant(statement.value, module.constants)
            if value is not None:
                module.constants[statement.target.id] = value
    # A class's own parameters take the values it is built with, once.
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            made = module.classes.get(node.func.id)
            init = next((f for f in made.body if isinstance(f, ast.FunctionDef)
                         and f.name == "__init__"), None) if made else None  # fmt: skip
            if init is None:
                continue
            names = [a.arg for a in init.args.args[1:]]
            given = dict(zip(names, node.args)) | {
                k.arg: k.value for k in node.keywords if k.arg in names
            }
            defaults = dict(zip(reversed(names), reversed(init.args.defaults)))
            for parameter, expression in (defaults | given).items():
                value = constant(expression, module.constants)
                if value is not None and parameter is not None:
                    module.constants.setdefault(parameter, value)
    for made in module.classes.values():
        for method in made.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                names = [a.arg for a in method.args.args]
                for parameter, expression in zip(reversed(names), reversed(method.args.defaults)):
                    value = constant(expression, module.constants)
                    if value is not None:
                        module.constants.setdefault(parameter, value)


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv, ast.Div: operator.truediv,
}  # fmt: skip


def constant(node: ast.expr, known: dict[str, Any]) -> Any:
    """Return an expression's number or flag, or ``None`` where it is not constant.

    Examples
    --------
    >>> constant(ast.parse("4 * d").body[0].value, {"d": 128})
    512
    """
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 10**15):
            return value
        return None
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return known.get(node.attr) if node.value.id in ("self", "config", "args", "cfg") else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = constant(node.operand, known)
        return None if value is None else -value
    if isinstance(node, ast.BinOp):
        left, right = constant(node.left, known), constant(node.right, known)
        work = _ARITHMETIC.get(type(node.op))
        if left is None or right is None or work is None:
            return None
        try:
            return work(left, right)
        except (ZeroDivisionError, OverflowError):
            return None
    return None


def dotted(node: ast.expr) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute) and len(names) < 12:
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(names)])


def _torch_class(func: ast.expr, module: Module) -> str:
    """Return the table's name of a called class, where it is PyTorch's."""
    path = dotted(func)
    if not path:
        return ""
    first, _, rest = path.partition(".")
    # Snippets leave the imports out; nn.Transformer is still PyTorch's.
    usual = {"nn": "torch.nn", "torch": "torch", "optim": "torch.optim"}
    full = module.imports.get(first, usual.get(first, first)) + (f".{rest}" if rest else "")
    name = full.rpartition(".")[2]
    where = full.rpartition(".")[0]
    right = "torch.optim" if name in OPTIMISERS else "torch.nn"
    return name if name in SIGNATURES and where.startswith(right) else ""


def _bind(name: str, node: ast.Call) -> Call:
    """Bind a call's arguments to the signature as Python would."""
    parameters = list(SIGNATURES[name])
    call = Call(name, node, {}, set())
    if any(isinstance(a, ast.Starred) for a in node.args) or any(
        k.arg is None for k in node.keywords
    ):
        return call  # unpacked: nothing is known
    limit = POSITIONAL.get(name, len(parameters))
    if len(node.args) > limit:
        call.error = f"{name} takes at most {limit} arguments by position, {len(node.args)} given"
    for parameter, value in zip(parameters, node.args):
        call.bound[parameter] = value
        call.positional.add(parameter)
    for keyword in node.keywords:
        given = str(keyword.arg)
        if given not in SIGNATURES[name]:
            near = [p for p in parameters if given in p or p in given]
            hint = f"; there is {near[0]}" if near else ""
            call.error = f"{name} has no argument {given}{hint}"
        elif given in call.bound:
            call.error = f"{name} gets {given} twice"
        else:
            call.bound[given] = keyword.value
    missing = [p for p, d in SIGNATURES[name].items() if d is REQUIRED and p not in call.bound]
    if missing and not call.error:
        call.error = f"{name} lacks {', '.join(missing)}"
    return call
