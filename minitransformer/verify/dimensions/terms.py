"""What typing works with: dimensions, the errors it finds, conventions, typed terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

Dims = tuple[str, ...]
Span = tuple[int, int]


class IllTyped(Exception):
    """Dimensions that do not fit, at a place in the formula."""

    def __init__(self, message: str, span: Span, fits: tuple[str, ...] = (), node: Any = None):
        super().__init__(message)
        self.span = span
        self.fits = fits
        self.node = node


class Unbound(Exception):
    """A symbol or function that nothing gives a meaning to."""

    def __init__(self, symbol: str, span: Span, kind: str = "symbol", why: str = ""):
        super().__init__(f"{kind} {symbol} has no meaning here")
        self.symbol = symbol
        self.span = span
        self.kind = kind
        self.why = why or f"{self}; the text must say what it is"


@dataclass(frozen=True)
class Convention:
    """The choices a notation leaves open.

    ``vectors`` says whether a plain vector is a column (xᵀy is a number) or a row
    (xyᵀ is); ``product`` what two plain vectors side by side mean; ``single`` which
    axis one index of a matrix picks; ``softmax`` the axis a softmax runs over;
    ``reduce`` what a mean or sum of a matrix without an index runs over.
    """

    vectors: str = "column"
    product: str = "hadamard"
    single: str = "first"
    softmax: str = "last"
    reduce: str = "last"


@dataclass(frozen=True)
class Typing:
    """What the symbols of a formula stand for.

    ``symbols`` maps a symbol to its dimensions, ``sizes`` a symbol to the dimension
    whose size it is, ``functions`` a function left uninterpreted to a rule from
    the dimensions of its arguments to those of its value, ``indices`` a free index to
    the dimension it runs over.
    """

    symbols: Mapping[str, Dims]
    sizes: Mapping[str, str]
    functions: Mapping[str, Callable[..., Dims]] = field(default_factory=dict)
    indices: Mapping[str, str] = field(default_factory=dict)


class Term:
    """A typed node: an operator whose meaning no longer depends on anything else."""

    __slots__ = ("args", "co", "dims", "free", "op", "span", "value")

    def __init__(
        self,
        op: str,
        args: tuple[Term, ...] = (),
        value: Any = None,
        dims: Dims = (),
        span: Span = (0, 0),
        co: bool = False,
        free: frozenset[str] | None = None,
    ):
        self.op = op
        self.args = args
        self.value = value
        self.dims = dims
        self.span = span
        self.co = co  # a vector that was transposed
        if free is None:
            free = frozenset(i for a in args for i in a.free)
        self.free: frozenset[str] = free  # the index variables it depends on

    def __repr__(self) -> str:
        return f"Term({self.op}, {self.value!r}, {self.dims})"


def show_dims(dims: Dims) -> str:
    """Write dimensions as a reader would: ``n_q×d_k``, ``a number``."""
    return "×".join(dims) if dims else "a number"


def align(dims: Dims, onto: Dims) -> tuple[int, ...] | None:
    """Return the axes of `onto` on which `dims` lie, by name, or None.

    Examples
    --------
    >>> align(("n_q",), ("n_q", "n_k")), align(("d",), ("n", "d")), align(("x",), ("n", "d"))
    ((0,), (1,), None)
    """
    if dims == onto:
        return tuple(range(len(onto)))
    axes: list[int] = []
    end = len(onto)
    for dim in reversed(dims):
        position = next((k for k in range(end - 1, -1, -1) if onto[k] == dim), None)
        if position is None:
            return None
        axes.append(position)
        end = position
    return tuple(reversed(axes))


def whole(value: int, span: Span = (0, 0)) -> Term:
    """Return the term of a whole number."""
    return Term("number", (), Fraction(value), (), span)
