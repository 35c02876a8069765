"""A text to its readings: every combination of the choices that it leaves open."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser.facts import Facts
from minitransformer.verify.parser.grammar import Parser
from minitransformer.verify.python_formula import (
    library_of,
    looks_like_python,
    parse_python,
    reads_both_ways,
)
from minitransformer.verify.tokenizer import MAX_LENGTH, CannotParse, Choices, Macro, tokenize

MAX_TREE_DEPTH = 120
MAX_READINGS = 8
MAX_CHOICES = 3  # that are tried both ways; the rest go the usual way
_PASSES = 3  # the second knows the sums, the third what follows from them

_EQUATION_NUMBER = re.compile(r"\\q?quad\s*(?:\\text\{)?\(\s*\d[\d.]*[a-z]?\s*\)\}?\s*[.,]?\s*$")
_OUTER = re.compile(r"^\s*(?:\$\$(.*)\$\$|\$([^$]*)\$|\\\[(.*)\\\]|\\\((.*)\\\))\s*$", re.S)


@dataclass(frozen=True)
class Reading:
    """One way to read a formula.

    Parameters
    ----------
    expr : Expr
        The tree.
    note : str
        What was decided where the text leaves a choice; empty where it leaves none.
    """

    expr: Expr
    note: str = ""


def parse(text: str, macros: Mapping[str, Macro] | None = None) -> list[Reading]:
    r"""Read a formula in LaTeX, Unicode or Python.

    Parameters
    ----------
    text : str
        The formula, with or without its dollar signs; at most 20,000 characters.
    macros : mapping of str to Macro, optional
        Commands that the document defines, by name without the backslash.

    Returns
    -------
    list of Reading
        The most usual reading first; more than one where the text is ambiguous.

    Raises
    ------
    CannotParse
        With the span of what could not be read.

    Examples
    --------
    >>> [reading] = parse(r"\frac{QK^T}{\sqrt{d_k}}")
    >>> reading.expr.op, [arg.op for arg in reading.expr.args]
    ('div', ['mul', 'sqrt'])
    >>> [reading.note for reading in parse("1/2x")]
    ['a/bc is read as a/(bc)', 'a/bc is read as (a/b)c']
    """
    if not isinstance(text, str):
        raise TypeError(f"a formula is a str, not {type(text).__name__}")
    return list(_parsed(text, tuple(sorted((macros or {}).items()))))


@functools.lru_cache(maxsize=4096)  # a document repeats its symbols
def _parsed(text: str, defined: tuple[tuple[str, Macro], ...]) -> tuple[Reading, ...]:
    offset = 0
    if len(text) <= MAX_LENGTH:
        outer = _OUTER.match(text)
        if outer:
            group = next(i for i in range(1, 5) if outer.group(i) is not None)
            text, offset = outer.group(group), outer.start(group)
        text = _EQUATION_NUMBER.sub("", text)
    try:
        readings = _python_readings(text) or _readings(text, dict(defined))
    except CannotParse as error:
        raise CannotParse(error.message, (error.span[0] + offset, error.span[1] + offset)) from None
    except RecursionError:
        raise CannotParse("a formula nested too deeply", (0, len(text))) from None
    return tuple(replace(r, expr=_shifted(r.expr, offset)) for r in readings)


def _shifted(expr: Expr, offset: int) -> Expr:
    if not offset:
        return expr
    return replace(
        expr,
        args=tuple(_shifted(a, offset) for a in expr.args),
        span=(expr.span[0] + offset, expr.span[1] + offset),
    )


def _python_readings(text: str) -> list[Reading]:
    """Read a text with Python's marks; a variance that no library is named for has two."""
    if not looks_like_python(text):
        return []
    tree = parse_python(text)
    if tree is None:
        return []
    if not library_of(text) and reads_both_ways(text):
        torch = parse_python(text, "torch")
        if torch is not None and torch != tree:
            return [
                Reading(tree, "the variance divides by n, as NumPy's does"),
                Reading(torch, "the variance divides by n − 1, as PyTorch's does"),
            ]
    return [Reading(tree)]


def _readings(text: str, macros: Mapping[str, Macro]) -> list[Reading]:
    first, seen = _read(text, macros, {})
    results: list[Reading] = []
    keys = list(seen)[:MAX_CHOICES]
    ways = itertools.product(*(range(len(seen[k])) for k in keys))
    for taken in itertools.islice(ways, MAX_READINGS):
        forced = dict(zip(keys, taken))
        expr, asked = _read(text, macros, forced) if any(taken) else (first, seen)
        if isinstance(expr, CannotParse):
            continue
        notes = [notes[forced.get(key, 0)] for key, notes in asked.items()]
        if all(expr != r.expr for r in results):
            results.append(Reading(expr, "; ".join(notes)))
    if not results:
        assert isinstance(first, CannotParse)
        raise first
    return results if len(results) > 1 else [replace(results[0], note="")]


def _read(
    text: str, macros: Mapping[str, Macro], forced: Mapping[str, int]
) -> tuple[Expr | CannotParse, dict[str, tuple[str, ...]]]:
    """Parse once with given choices; return the tree or the error, and what was asked."""
    choices = Choices(forced)
    try:
        tokens = tokenize(text, choices, macros)
        while tokens and tokens[-1].kind in ("comma", "semi"):
            tokens.pop()
        facts = Facts()
        for _ in range(_PASSES):
            found = Facts()
            expr = Parser(tokens, choices, facts, found).formula()
            settled = found.settle(facts)
            facts = found
            if settled:
                break
        expr = _imaginary(expr, facts, choices)
        if _depth(expr) > MAX_TREE_DEPTH:
            raise CannotParse(f"a formula nested deeper than {MAX_TREE_DEPTH}", (0, len(text)))
    except CannotParse as error:
        return error, choices.seen
    return expr, choices.seen


def _imaginary(expr: Expr, facts: Facts, choices: Choices) -> Expr:
    """Decide whether a bare `i` that indexes nothing is an index or √−1."""
    indexes = facts.bound | facts.index_letters
    if "i" not in facts.bare or "i" in indexes or expr.op == "name":
        return expr
    if any("i" in letters for _, letters, _ in facts.subscripts):
        return expr
    inside_exp = any(
        e.op == "call" and e.value == "exp"
        and any(x.op == "name" and x.value == "i" for x in e.walk())
        for e in expr.walk()
    )  # fmt: skip
    index, unit = "i is an index", "i is √−1"
    if inside_exp:
        imaginary = choices.pick("i in exp", unit, index) == 0
    else:
        imaginary = choices.pick("i", index, unit) == 1
    if not imaginary:
        return expr
    return expr.map(lambda e: replace(e, value="ⅈ") if e.op == "name" and e.value == "i" else e)


def _depth(expr: Expr) -> int:
    """Measure a tree's depth without recursion."""
    deepest, stack = 0, [(expr, 1)]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        stack += [(arg, level + 1) for arg in node.args]
    return deepest
