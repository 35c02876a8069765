"""Planted mistakes: every kernel's source with one sign, term, axis, bound or order changed.

The list is made from the source itself, so that a new kernel gets its mistakes without anybody
writing them down, and none goes stale. `EQUIVALENT` holds those that change no result, each with
the reason; a reason that no longer fits a mutant fails the run.
"""

from __future__ import annotations

import ast
import copy
import functools
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minitransformer.kernels

KERNELS = Path(minitransformer.kernels.__file__).parent


@dataclass(frozen=True)
class Mutant:
    """One planted mistake.

    Attributes
    ----------
    module, function
        Where it is planted.
    line
        In the file.
    change
        What was done, as ``before -> after``.
    make
        Gives the module with the mistake, as a tree.
    """

    module: str
    function: str
    line: int
    change: str
    make: Callable[[], ast.Module]

    @property
    def kernel(self) -> str | None:
        """The kernel whose function it is; None for a helper."""
        for suffix in ("_forward", "_backward"):
            if self.function.endswith(suffix) and not self.function.startswith("_"):
                return self.function.removesuffix(suffix)
        return None

    @property
    def name(self) -> str:
        return f"{self.module}.{self.function}: {self.change}"

    def load(self) -> types.ModuleType:
        """The mutated module, in memory only."""
        module = types.ModuleType(f"minitransformer.kernels.{self.module}")
        module.__package__ = "minitransformer.kernels"
        module.__file__ = str(KERNELS / f"{self.module}.py")
        exec(compile(self.make(), module.__file__, "exec"), module.__dict__)
        return module

    def source(self) -> str:
        return ast.unparse(self.make())


# Branches for a GPU or half precision, which other tests run where there is one.
ELSEWHERE = re.compile(r"cuda|float16|half|\bxp is (not )?np\b|\bwide\b|on_gpu")

# Functions that decide how work is cut and not what is computed. `test_regimes.py` holds that no
# bit depends on the number of threads, and every cut gives the same result within the rule.
SCHEDULING = {
    "_block_size", "product", "tiles", "query_blocks", "key_blocks", "_row_items", "_rowwise",
    "_with_axis", "_count", "_tiles", "_pieces", "_unpacked", "_cost", "wide_type", "flat_rows",
    "rows_of",
}  # fmt: skip

SWAPPED_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NEGATED_COMPARISONS: dict[type, type] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
SWAPPED_NAMES = {
    "sin": "cos",
    "cos": "sin",
    "exp": "sqrt",
    "log": "sqrt",
    "sqrt": "exp",
    "tanh": "sin",
    "maximum": "minimum",
    "minimum": "maximum",
    "max": "min",
    "min": "max",
    "argmax": "argmin",
    "argmin": "argmax",
    "tril": "triu",
    "triu": "tril",
}
# Calls that may be left out: what remains is their first argument.
DROPPED_CALLS = {"unbroadcast", "_spread", "exp", "log", "sign", "abs", "isfinite"}


def edits_of(node: ast.AST) -> Iterator[ast.AST]:
    """Every mistaken form of one expression or statement."""
    new: Any
    if isinstance(node, ast.BinOp) and not _is_text(node):
        if type(node.op) in SWAPPED_OPERATORS:
            new = copy.deepcopy(node)
            new.op = SWAPPED_OPERATORS[type(node.op)]()
            yield new
        if isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
            yield copy.deepcopy(node.left)  # the second term or factor is left out
        if isinstance(node.op, ast.MatMult):
            new = copy.deepcopy(node)
            new.left, new.right = new.right, new.left
            yield new
    elif isinstance(node, ast.AugAssign):
        new = copy.deepcopy(node)
        new.op = SWAPPED_OPERATORS.get(type(node.op), ast.Add)()
        yield new
        yield ast.Pass()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
        if not _is_number(node):
            yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in NEGATED_COMPARISONS:
        new = copy.deepcopy(node)
        new.ops[0] = NEGATED_COMPARISONS[type(node.ops[0])]()
        yield new
    elif isinstance(node, ast.keyword) and node.arg == "axis":
        if _is_number(node.value):  # another axis of two: the first for the last, and back
            first = ast.unparse(node.value) == "0"
            yield ast.keyword(node.arg, ast.Constant(-1 if first else 0))
    elif isinstance(node, ast.Constant) and type(node.value) is float:
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Attribute) and node.attr in SWAPPED_NAMES:
        new = copy.deepcopy(node)
        new.attr = SWAPPED_NAMES[node.attr]
        yield new
    elif isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if called in DROPPED_CALLS and node.args:
            yield copy.deepcopy(node.args[0])
        if called == "where" and len(node.args) == 3:
            new = copy.deepcopy(node)
            new.args[1], new.args[2] = new.args[2], new.args[1]
            yield new
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
        elements = node.value.elts
        if len(elements) > 1 and ast.dump(elements[0]) != ast.dump(elements[1]):
            new = copy.deepcopy(node)
            new.value.elts[:2] = reversed(new.value.elts[:2])
            yield new


def _is_number(node: ast.AST) -> bool:
    return bool(re.fullmatch(r"-?\d+", ast.unparse(node)))


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(part, ast.JoinedStr)
        or (isinstance(part, ast.Constant) and isinstance(part.value, str))
        for part in ast.walk(node)
    )


def _sites(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Nodes of a function's body, without docstrings, annotations, checks and messages."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.arguments):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.If) and all(isinstance(part, ast.Raise) for part in node.body):
            return
        if isinstance(node, ast.If | ast.IfExp) and ELSEWHERE.search(ast.unparse(node.test)):
            rest = node.orelse if isinstance(node.orelse, list) else [node.orelse]
            for part in rest:
                yield from walk(part)
            return
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from walk(node.value)
            return
        yield node
        if isinstance(node, ast.keyword) and node.arg == "axis" and _is_number(node.value):
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    for statement in function.body:
        yield from walk(statement)
        if (
            isinstance(statement, ast.If)
            and ELSEWHERE.search(ast.unparse(statement.test))
            and "xp is np" in ast.unparse(statement.test)
            and isinstance(statement.body[-1], ast.Return)
        ):
            return  # what follows is for the GPU


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else super().visit(node)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) < 70 else text[:67] + "..."


def mutants_of(module: str, per_function: int | None = None) -> list[Mutant]:
    """The mistakes in one module; at most `per_function`, spread over each function."""
    text = (KERNELS / f"{module}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    found: list[Mutant] = []
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    inner = {id(n) for f in functions for n in ast.walk(f) if n is not f}
    for function in functions:
        if id(function) in inner or function.name.startswith(("_check", "check_")):
            continue
        if function.name in SCHEDULING:
            continue
        here = []
        for node in _sites(function):
            for edit in edits_of(node):
                here.append((node, edit))
        if per_function is not None and len(here) > per_function:
            step = len(here) / per_function
            here = [here[int(i * step)] for i in range(per_function)]
        for node, edit in here:
            changed = functools.partial(_changed, tree, node, edit)
            line = getattr(node, "lineno", function.lineno)
            change = f"{_short(node)} -> {_short(edit)}"
            found.append(Mutant(module, function.name, line, change, changed))
    return found


def unchanged(module: str) -> Mutant:
    """The module as it is: what the tests must let live."""
    tree = ast.parse((KERNELS / f"{module}.py").read_text(encoding="utf-8"))
    return Mutant(module, "-", 1, "nothing", lambda: tree)


def _changed(tree: ast.Module, old: ast.AST, new: ast.AST) -> ast.Module:
    position = next(i for i, n in enumerate(ast.walk(tree)) if n is old)
    marked = copy.deepcopy(tree)
    target = next(n for i, n in enumerate(ast.walk(marked)) if i == position)
    changed = _Replace(target, new).visit(marked)
    return ast.fix_missing_locations(changed)
