"""A card: one trusted formula, with everything needed to compare another with it."""

from __future__ import annotations

import functools
import random
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.dimensions import Dims
from minitransformer.verify.expression import Expr
from minitransformer.verify.number_systems import Floats, Point, size_of

Reference = Callable[..., Any]


@dataclass(frozen=True)
class Input:
    """One input of a card.

    Parameters
    ----------
    name : str
        Its symbol, in canonical spelling.
    dims : tuple of str
        Its named dimensions; ``()`` for a number.
    domain : str
        ``real``, ``positive``, ``unit`` (between 0 and 1), ``simplex`` (positive, sums
        to one along the last axis), ``onehot``, ``whole`` (1, 2, 3, ...), ``mask``
        (0 or −∞, every row with at least one 0), ``bool`` (0 or 1), ``index:d`` (1 to the
        size of d).
    aliases : tuple of str
        Other spellings met in papers and code.
    constant : bool
        Whether texts write a number for it, as they do for ε.
    """

    name: str
    dims: Dims = ()
    domain: str = "real"
    aliases: tuple[str, ...] = ()
    constant: bool = False


@dataclass(frozen=True)
class Mistake:
    """A published or common wrong form: its formula, and what is wrong in words."""

    formula: str
    says: str
    seen: str = ""


@dataclass(frozen=True)
class Card:
    """A trusted formula.

    Parameters
    ----------
    id, name : str
        A short identifier (``attention``) and a title.
    latex : str
        The published form, parsed by our own parser; steps before it in ``derived``.
    source : str
        Paper and place.
    equation : str
        The equation's number or the section where the paper states it.
    inputs : tuple of Input
        What the formula depends on.
    dims : tuple of str
        Names of all dimensions, each drawn at a size of its own.
    output : tuple of str
        The dimensions of the result.
    reference : callable
        ``reference(m, **inputs)`` in plain loops, ``m`` supplying exp, log, sqrt, ... for
        float64 or for balls; sizes are read from the shapes or arrive as ``sizes``.
    torch : str
        The same in PyTorch, an expression over the inputs' ASCII names.
    kernel : str
        Dotted name of our kernel, and how to call it in ``kernel_call``.
    sizes : mapping
        Symbols that denote sizes, with their aliases, to dimensions.
    derived : mapping
        Quantities with a fixed meaning in this context (μ, σ²), as formulas.
    suggestions : mapping
        What a name often stands for that the text itself must define (S for the scaled
        scores): never assumed, only proposed.
    """

    id: str
    name: str
    latex: str
    source: str
    equation: str
    inputs: tuple[Input, ...]
    output: Dims
    reference: Reference
    dims: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()  # left-hand names that mean this card
    signature: tuple[str, ...] = ()  # inputs in the order a left-hand side lists them
    sizes: Mapping[str, str] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    suggestions: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    function_dims: Mapping[str, Callable[..., Dims]] = field(default_factory=dict)
    indices: Mapping[str, str] = field(default_factory=dict)  # free indices and their ranges
    shapes: tuple[Mapping[str, int], ...] = ()
    torch: str = ""
    kernel: str = ""
    kernel_call: str = ""
    up_to: tuple[str, ...] = ()
    approximable: bool = False
    properties: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    note: str = ""
    where: str = ""
    sampler: Callable[[random.Random, Mapping[str, int], Fraction], Mapping[str, Any]] | None = None
    alternatives: tuple[str, ...] = ()  # equal forms, published too
    explicit: bool = False  # matched only where the text names it

    def tree(self) -> Expr:
        """Return the published form as a tree in the card's own symbols."""
        return formula_tree(self.latex)

    def derived_tree(self, symbol: str) -> Expr:
        """Return what a quantity of the card is defined to be."""
        return formula_tree(self.derived[symbol])

    def value(self, m: Floats, point: Point) -> Any:
        """Return the reference's value at a point, in the arithmetic of `m`."""
        values = []
        for item in self.inputs:
            array = m.array(point.inputs[item.name])
            values.append(array.item() if np.ndim(array) == 0 and hasattr(array, "item") else array)
        with np.errstate(all="ignore"):
            out = self.reference(m, point.sizes, *values)
        if m.name == "float64":
            return np.asarray(out, dtype=np.float64)
        if np.ndim(out) == 0:
            return out.item() if isinstance(out, np.ndarray) else out
        return out if isinstance(out, np.ndarray) else np.array(out, dtype=object)

    def at_point(self, point: Point, m: Floats) -> Any:
        """Return the reference's value, its arguments in the order of a comparison."""
        return self.value(m, point)

    def point(self, seed: int, shape: int = 0, amplitude: Fraction = Fraction(1)) -> Point:
        """Return exact inputs drawn from a seed at one of the card's shapes."""
        sizes = self.all_shapes()[shape % len(self.all_shapes())]
        return self.at(sizes, seed, amplitude)

    def at(self, sizes: Mapping[str, int], seed: int, amplitude: Fraction = Fraction(1)) -> Point:
        """Return exact inputs drawn from a seed at given sizes."""
        rng = random.Random(f"{self.id}/{seed}")
        if self.sampler is not None:
            drawn = dict(self.sampler(rng, sizes, amplitude))
        else:
            drawn = {}
        for item in self.inputs:
            if item.name not in drawn:
                drawn[item.name] = draw(rng, item, sizes, amplitude)
        return Point({k: _object_array(v) for k, v in drawn.items()}, dict(sizes), self.functions)

    def all_shapes(self) -> tuple[Mapping[str, int], ...]:
        """Return the shapes a comparison uses: all sizes distinct and at least 2."""
        if self.shapes:
            return self.shapes
        n = len(self.dims)
        first = _order([3, 5, 4, 2, 7, 6, 9, 8], n)
        second = _order([2, 3, 5, 4, 6, 8, 7, 9], n)
        third = _order([5, 2, 3, 7, 4, 6, 8, 9], n)
        return tuple(dict(zip(self.dims, s)) for s in (first, second, third))

    def bind(self, name: str) -> Input | None:
        """Return the input that a symbol names, by name or alias."""
        return self._names.get(unicodedata.normalize("NFC", name))

    @functools.cached_property
    def _names(self) -> Mapping[str, Input]:
        """Every spelling of every input; a name of its own comes before any alias."""
        table: dict[str, Input] = {}
        for item in self.inputs:
            table.setdefault(unicodedata.normalize("NFC", item.name), item)
        for item in self.inputs:
            for spelled in item.aliases:
                table.setdefault(unicodedata.normalize("NFC", spelled), item)
        return table


@functools.cache
def formula_tree(text: str) -> Expr:
    """Parse a formula of a card; the right-hand side where it is an equation."""
    from minitransformer.verify.parser import parse

    e: Expr = parse(text)[0].expr
    if e.op in ("relation", "chain"):
        e = e.args[-1]
    return e


def _order(sizes: list[int], n: int) -> list[int]:
    return sizes[:n]


def _object_array(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == object:
        return value
    if np.ndim(value) == 0:
        out = np.empty((), dtype=object)
        out[()] = value
        return out
    return np.array(value, dtype=object)


def draw(rng: random.Random, item: Input, sizes: Mapping[str, int], amplitude: Fraction) -> Any:
    """Return exact dyadic values for one input."""
    shape = tuple(size_of(d, sizes) for d in item.dims)
    count = int(np.prod(shape)) if shape else 1
    eighth = Fraction(1, 8)
    values: list[Any]
    if item.domain == "real":
        values = [
            Fraction(rng.choice([-1, 1]) * rng.randint(1, 16)) * eighth * amplitude
            for _ in range(count)
        ]
    elif item.domain == "positive":
        values = [Fraction(rng.randint(1, 24)) * eighth * amplitude for _ in range(count)]
    elif item.domain == "unit":
        values = [Fraction(rng.randint(1, 63), 64) for _ in range(count)]
    elif item.domain == "whole":
        values = [Fraction(rng.randint(2, 9)) for _ in range(count)]
    elif item.domain.startswith("index:"):
        top = size_of(item.domain[6:], sizes)
        values = [Fraction(rng.randint(1, top)) for _ in range(count)]
    elif item.domain == "bool":
        values = [Fraction(rng.randint(0, 1)) for _ in range(count)]
    elif item.domain in ("simplex", "onehot", "mask"):
        last = shape[-1]
        values = []
        for _ in range(count // last):
            if item.domain == "simplex":
                cuts = sorted(rng.sample(range(1, 64), last - 1))
                values += [Fraction(b - a, 64) for a, b in zip([0, *cuts], [*cuts, 64])]
            elif item.domain == "onehot":
                hot = rng.randrange(last)
                values += [Fraction(int(k == hot)) for k in range(last)]
            else:
                keep = rng.randrange(last)
                values += [
                    Fraction(0) if k == keep or rng.random() < 0.6 else -np.inf for k in range(last)
                ]
    else:
        raise ValueError(f"unknown domain {item.domain!r} of input {item.name!r}")
    if not shape:
        return values[0]
    out = np.empty(count, dtype=object)
    out[:] = values
    return out.reshape(shape)
