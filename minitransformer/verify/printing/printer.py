"""What the three ways of printing share: how tightly operators hold, and which method prints."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from fractions import Fraction

from minitransformer.verify.expression import Expr

# How tightly an operator holds its operands; a looser child gets parentheses.
STATEMENT, SUM, NEG, PRODUCT, FACTOR, POSTFIX, ATOM = range(7)
_LEVELS = {
    "steps": STATEMENT, "relation": STATEMENT, "chain": STATEMENT, "given": STATEMENT,
    "add": SUM, "neg": NEG, "mul": PRODUCT, "hadamard": PRODUCT, "matmul": PRODUCT,
    "big": NEG, "pow": POSTFIX, "transpose": POSTFIX, "inverse": POSTFIX, "index": POSTFIX,
    "partial": FACTOR, "keyword": STATEMENT,
}  # fmt: skip
_DELIMITED = {"inner": ("⟨", "⟩"), "floor": ("⌊", "⌋"), "ceil": ("⌈", "⌉"), "set": ("{", "}")}
MARKS = {"factorial": "!", "percent": "%"}
BIG_SIGNS = {"sum": "∑", "prod": "∏"}


class Printer(ABC):
    """Prints the operator ``add`` by the method ``op_add``."""

    def write(self, e: Expr) -> str:
        method: Callable[[Expr], str] | None = getattr(self, f"op_{e.op}", None)
        if method is None:
            raise ValueError(f"no way to print the operator {e.op!r}")
        return method(e)

    def level(self, e: Expr) -> int:
        """Return how tightly a tree holds together."""
        if e.op == "number" and "/" in decimal(e.value):
            return FACTOR
        if e.op == "call" and e.value in MARKS:
            return POSTFIX
        return _LEVELS.get(e.op, ATOM)

    def wrap(self, e: Expr, level: int) -> str:
        """Print a tree, in parentheses where it holds looser than its place wants."""
        text = self.write(e)
        return self.parenthesised(text) if self.level(e) < level else text

    @abstractmethod
    def parenthesised(self, text: str) -> str:
        """Put something printed into parentheses."""

    # -- operators that differ in their sign alone ------------------------------------------
    @abstractmethod
    def joined(self, args: tuple[Expr, ...], sign: str, level: int) -> str:
        """Print several operands with a sign between them."""

    @abstractmethod
    def signed(self, args: tuple[Expr, ...], signs: tuple[str, ...]) -> str:
        """Print ``a = b ≈ c``."""

    def op_hadamard(self, e: Expr) -> str:
        return self.joined(e.args, "hadamard", FACTOR)

    def op_matmul(self, e: Expr) -> str:
        return self.joined(e.args, "matmul", FACTOR)

    def op_relation(self, e: Expr) -> str:
        return self.signed(e.args, (e.value,))

    def op_chain(self, e: Expr) -> str:
        return self.signed(e.args, e.value)

    def op_name(self, e: Expr) -> str:
        return self.name(str(e.value))

    @abstractmethod
    def name(self, text: str) -> str:
        """Print a symbol."""


def decimal(value: Fraction) -> str:
    """Write a fraction as a terminating decimal where it has one.

    Examples
    --------
    >>> decimal(Fraction(1, 8)), decimal(Fraction(1, 3))
    ('0.125', '1/3')
    """
    value = Fraction(value)
    bottom, places = value.denominator, 0
    while bottom % 10 == 0:
        bottom, places = bottom // 10, places + 1
    twos = fives = 0
    while bottom % 2 == 0:
        bottom, twos = bottom // 2, twos + 1
    while bottom % 5 == 0:
        bottom, fives = bottom // 5, fives + 1
    if bottom != 1:
        return f"{value.numerator}/{value.denominator}"
    places += max(twos, fives)
    if not places:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def split_name(name: str) -> tuple[str, str, str]:
    """Split a canonical spelling into base, subscript and superscript label."""
    match = re.fullmatch(r"([^_^]+)(?:_(.+?))?(?:\^(.+))?", name, re.S)
    if match is None:
        return name, "", ""
    return match.group(1), match.group(2) or "", match.group(3) or ""


def delimiters(e: Expr) -> tuple[str, str] | None:
    """Return what a call is written between: ``⌊x⌋``, ``⟨a, b⟩``; ``None`` for parentheses."""
    if e.value == "set" and len(e.args) < 2:
        return None
    return _DELIMITED.get(str(e.value))


def table(e: Expr, cells: list[str]) -> Iterator[list[str]]:
    """Yield the rows of a matrix, its entries printed."""
    columns = e.value[1]
    for start in range(0, len(cells), columns):
        yield cells[start : start + columns]
