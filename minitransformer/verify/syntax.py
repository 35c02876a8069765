"""Python's text to its syntax tree, for whoever reads code as data."""

from __future__ import annotations

import ast
import warnings


def python_tree(text: str) -> ast.Module | None:
    """Parse a text as Python, in silence; ``None`` where it is none.

    Examples
    --------
    >>> python_tree("x = 1") is None, python_tree("x = = 1") is None
    (False, True)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
