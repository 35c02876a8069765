"""Formulas written as Python expressions: NumPy's and PyTorch's spelling to the same tree."""

from __future__ import annotations

from minitransformer.verify.expression import Expr
from minitransformer.verify.python_formula.library import library_of, looks_like_python
from minitransformer.verify.python_formula.reader import MAX_DEPTH, Reader
from minitransformer.verify.syntax import python_tree
from minitransformer.verify.tokenizer import CannotParse

__all__ = ["library_of", "looks_like_python", "parse_python", "reads_both_ways"]


def reads_both_ways(text: str) -> bool:
    """Whether a Python text takes a variance that NumPy and PyTorch compute differently."""
    source = text.strip()
    tree = python_tree(source)
    reader = Reader(source, 0, "")
    try:
        for node in tree.body if tree else ():
            reader.statement(node)
    except (RecursionError, CannotParse):
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
        if depth > MAX_DEPTH:
            raise CannotParse(f"more than {MAX_DEPTH} brackets inside each other", (0, len(text)))
    source = text.strip()
    offset = len(text) - len(text.lstrip())
    module = python_tree(source)
    if module is None:
        return None
    reader = Reader(source, offset, library)
    steps = [reader.statement(node) for node in module.body]
    if not steps:
        return None
    if len(steps) == 1:
        return steps[0]
    return Expr("steps", tuple(steps), ("",) * len(steps), (0, len(text)))
