"""Formulas written as Python expressions, for tests that must not depend on the parser.

``A @ B`` and ``A * B`` are the parser's ``mul``, ``A ^ B`` is ⊙, ``A.T`` a transpose,
``x[i]`` an index and ``sum_(i, body, low, high)`` a sum.
"""

from __future__ import annotations

import ast
from fractions import Fraction

from minitransformer.verify.expression import Expr

BINARY = {
    ast.Add: "add",
    ast.Mult: "mul",
    ast.MatMult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
    ast.BitXor: "hadamard",
}
BIG = {"sum_": "sum", "prod_": "prod", "max_": "max", "min_": "min", "mean_": "mean"}
NODES = {"sqrt": "sqrt", "abs": "abs", "E": "expect", "Var": "var", "concat": "concat"}


def tree(text: str) -> Expr:
    """Build the tree of a Python-like formula."""
    return _node(ast.parse(text.strip(), mode="eval").body)


def _node(n: ast.expr) -> Expr:
    span = (n.col_offset, n.end_col_offset or 0)

    def made(op: str, args: list[Expr], value: object = None) -> Expr:
        return Expr(op, tuple(args), value, span)

    if isinstance(n, ast.BinOp):
        left, right = _node(n.left), _node(n.right)
        if isinstance(n.op, ast.Sub):
            return made("add", [left, made("neg", [right])])
        return made(BINARY[type(n.op)], [left, right])
    if isinstance(n, ast.UnaryOp):
        return made("neg", [_node(n.operand)])
    if isinstance(n, ast.Constant):
        return made("number", [], Fraction(str(n.value)))
    if isinstance(n, ast.Name):
        return made("name", [], n.id)
    if isinstance(n, ast.Attribute):
        return made("transpose", [_node(n.value)])
    if isinstance(n, ast.Subscript):
        picks = n.slice.elts if isinstance(n.slice, ast.Tuple) else [n.slice]
        return made("index", [_node(n.value), *map(_node, picks)])
    if isinstance(n, ast.Call):
        assert isinstance(n.func, ast.Name)
        function, args = n.func.id, n.args
        if function in BIG:
            assert isinstance(args[0], ast.Name)
            return made("big", [_node(a) for a in args[1:]], (BIG[function], args[0].id))
        nodes = [_node(a) for a in args]
        if function in NODES:
            return made(NODES[function], nodes)
        if function == "norm":
            return made("norm", nodes, "2")
        return made("call", nodes, function)
    raise ValueError(ast.dump(n))
