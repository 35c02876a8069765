r"""The tree that every reading of a formula becomes.

One generic node, so that rewriting, shrinking and repairing a formula are walks
over ``args`` and not a visitor per class. The operators:

=============  ====================================================================
op             meaning, ``args``, ``value``
=============  ====================================================================
number         an exact number; ``value`` a `fractions.Fraction`
name           a symbol; ``value`` its canonical spelling (``d_k``, ``W^Q``, ``γ``)
add            a + b + ...
neg            -a
mul            a scalar or elementwise-by-scalar product, as written: a b, a·b, a×b
hadamard       a ⊙ b, elementwise by decree and broadcasting; Python's ``*``
matmul         a matrix product, once the shapes decide so (the parser writes ``mul``,
               and ``matmul`` only for Python's ``@``)
div            a / b
pow            a ^ b
transpose      aᵀ
inverse        a⁻¹, of a matrix; of a scalar, its reciprocal
sqrt           √a, or the n-th root with ``args = (a, n)``
call           f(a, ...); ``value`` the function's name (``softmax``, ``exp``, ``max``);
               e^x is ``exp``, \log and \ln are ``log``, ℝ^{n×d} is ``ℝ``(n, d)
big            Σ, Π, max, mean over an index; ``value`` = (kind, index name),
               args = (body, lower, upper), (body, condition) or (body,);
               the index name is ``None`` where the text states none
index          a_i, a_{i,j}; args = (a, i, j, ...)
norm           ‖a‖ with ``value`` the order as text (``2``, ``1``, ``F``, ``""`` unsaid)
abs            |a|
expect, var    E[a], Var[a]; a second arg is what stands under 𝔼
concat         [a; b] or Concat(a, b)
matrix         rows of entries; ``value`` = (rows, columns), args row by row
cases          args = value, condition, value, condition, ...
partial        ∂a/∂b
relation       a = b, a ≈ b, a ∈ b, ...; ``value`` the sign
chain          a = b = c; ``value`` a tuple of signs
tuple          (a, b)
steps          statements one after another (lines of ``align``, ``..., where ...``);
               ``value`` = the word before each (``""``, ``"where"``, ``"if"``)
keyword        an argument by name, in a call's last args: ``value`` its name
               (``dim``, ``axis``, ``base`` of a log, ``over`` of softmax_j)
given          a | b, c inside a call: args = (a, b, c)
ellipsis       … which no reading may drop
=============  ====================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

# What stands for the axis where PyTorch picks one, with a warning, by the number of axes.
UNSAID_AXIS = "unsaid"


@dataclass(frozen=True)
class Expr:
    """A node of a formula.

    Parameters
    ----------
    op : str
        One of the operators in the module's table.
    args : tuple of Expr
        Sub-expressions in reading order.
    value : object
        What the operator's row in the table says; ``None`` where it says nothing.
    span : (int, int)
        Where the node stands in the source text; no part of equality.

    Examples
    --------
    >>> name("Q") == Expr("name", (), "Q", (3, 4))
    True
    """

    op: str
    args: tuple[Expr, ...] = ()
    value: Any = None
    span: tuple[int, int] = field(default=(0, 0), compare=False)

    def walk(self) -> Iterator[Expr]:
        """Yield this node and every node below it, parents first."""
        yield self
        for arg in self.args:
            yield from arg.walk()

    def map(self, change: Callable[[Expr], Expr]) -> Expr:
        """Rebuild the tree from the leaves up, passing each new node to `change`."""
        args = tuple(arg.map(change) for arg in self.args)
        return change(self if args == self.args else replace(self, args=args))


def number(value: int | str | Fraction) -> Expr:
    """Return an exact number, ``number("0.1")`` being one tenth."""
    return Expr("number", (), Fraction(value))


def name(value: str) -> Expr:
    """Return a symbol."""
    return Expr("name", (), value)


def call(function: str, *args: Expr) -> Expr:
    """Return ``function(args)``."""
    return Expr("call", args, function)
