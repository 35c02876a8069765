"""Points, and the three arithmetics that evaluate a term there.

`Floats` is NumPy float64. `Balls` puts `flint.arb` elements in object arrays, so that
every result comes with a proven radius and two disjoint results are a proof that two
formulas differ. `Exact` uses fractions and refuses anything transcendental.

References
----------
F. Johansson, "Arb: efficient arbitrary-precision midpoint-radius interval
arithmetic", IEEE Transactions on Computers 66(8), 2017.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class CannotEvaluate(Exception):
    """A term has no value at a point, or not in this arithmetic."""


@dataclass(frozen=True)
class Point:
    """Where formulas are compared: exact inputs and the size of every dimension.

    ``inputs`` maps each symbol to an object array of `fractions.Fraction` (a 0-d
    array for a number; ±inf may stand in masks as floats).
    """

    inputs: Mapping[str, Array]
    sizes: Mapping[str, int]
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


def size_of(dim: str, sizes: Mapping[str, int]) -> int:
    """Return the size of a dimension, which may be a sum or product of names.

    Examples
    --------
    >>> size_of("h*d_v", {"h": 2, "d_v": 3}), size_of("4", {})
    (6, 4)
    """
    if "+" in dim:
        return sum(size_of(part, sizes) for part in dim.split("+"))
    if "*" in dim:
        return math.prod(size_of(part, sizes) for part in dim.split("*"))
    if dim in sizes:
        return int(sizes[dim])
    try:
        return int(dim)
    except ValueError:
        raise CannotEvaluate(f"no size for dimension {dim}") from None


class Floats:
    """NumPy float64, and scalar functions for references written as loops."""

    name = "float64"
    pi = math.pi
    inf = math.inf

    def number(self, value: Any) -> Any:
        """Convert an exact number."""
        return np.float64(float(value))

    def array(self, values: Array) -> Array:
        """Convert an array of exact numbers."""
        return np.asarray(values).astype(np.float64)

    def exp(self, x: Any) -> Any:
        """Return eˣ."""
        return np.exp(x)

    def log(self, x: Any) -> Any:
        """Return the natural logarithm."""
        return np.log(x)

    def sqrt(self, x: Any) -> Any:
        """Return the square root."""
        return np.sqrt(x)

    def sin(self, x: Any) -> Any:
        """Return the sine."""
        return np.sin(x)

    def cos(self, x: Any) -> Any:
        """Return the cosine."""
        return np.cos(x)

    def tanh(self, x: Any) -> Any:
        """Return the hyperbolic tangent."""
        return np.tanh(x)

    def erf(self, x: Any) -> Any:
        """Return the error function."""
        x = np.asarray(x)
        if x.ndim == 0:
            return np.float64(math.erf(float(x)))
        return np.array([math.erf(v) for v in x.ravel()]).reshape(x.shape)

    def power(self, a: Any, b: Any) -> Any:
        """Return a to the power b."""
        return np.power(np.float64(a) if isinstance(a, (int, float)) else a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        """Return the larger of two."""
        return np.maximum(a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        """Return the smaller of two."""
        return np.minimum(a, b)

    def abs(self, x: Any) -> Any:
        """Return the absolute value."""
        return np.abs(x)

    def floor(self, x: Any) -> Any:
        """Return the largest integer not above."""
        return np.floor(x)


def each(function: Callable[..., Any], *arrays: Any) -> Any:
    """Apply a scalar function to the elements of broadcast object arrays."""
    arrays = tuple(np.asarray(a, dtype=object) for a in arrays)
    if all(a.ndim == 0 for a in arrays):
        return function(*(a.item() for a in arrays))
    if len(arrays) > 1:
        arrays = tuple(np.broadcast_arrays(*arrays))
    out = np.empty(arrays[0].shape, dtype=object)
    out.ravel()[...] = 0
    flat = [function(*values) for values in zip(*(a.ravel().tolist() for a in arrays))]
    for k, value in enumerate(flat):
        out.flat[k] = value
    return out


class Balls(Floats):
    """Ball arithmetic: `flint.arb` elements at the precision of `precision`."""

    name = "balls"

    def __init__(self) -> None:
        from flint import arb, fmpq

        self._arb = arb
        self._fmpq = fmpq

    @property
    def pi(self) -> Any:  # type: ignore[override]
        """The number π."""
        return self._arb.pi()

    @property
    def inf(self) -> Any:  # type: ignore[override]
        """Positive infinity."""
        return self._arb.pos_inf()

    def number(self, value: Any) -> Any:
        """Convert an exact number."""
        if isinstance(value, self._arb):
            return value
        if isinstance(value, Fraction):
            if value.denominator == 1:
                return self._arb(value.numerator)
            return self._arb(self._fmpq(value.numerator, value.denominator))
        if isinstance(value, float) and math.isinf(value):
            return self._arb.pos_inf() if value > 0 else self._arb.neg_inf()
        return self._arb(value.item() if hasattr(value, "item") else value)

    def array(self, values: Array) -> Any:
        """Convert an array of exact numbers."""
        out = each(self.number, values)
        return out

    def exp(self, x: Any) -> Any:
        """Return eˣ."""
        return each(lambda v: self.number(v).exp(), x)

    def log(self, x: Any) -> Any:
        """Return the natural logarithm."""
        return each(lambda v: self.number(v).log(), x)

    def sqrt(self, x: Any) -> Any:
        """Return the square root."""
        return each(lambda v: self.number(v).sqrt(), x)

    def sin(self, x: Any) -> Any:
        """Return the sine."""
        return each(lambda v: self.number(v).sin(), x)

    def cos(self, x: Any) -> Any:
        """Return the cosine."""
        return each(lambda v: self.number(v).cos(), x)

    def tanh(self, x: Any) -> Any:
        """Return the hyperbolic tangent."""
        return each(lambda v: self.number(v).tanh(), x)

    def erf(self, x: Any) -> Any:
        """Return the error function."""
        return each(lambda v: self.number(v).erf(), x)

    def power(self, a: Any, b: Any) -> Any:
        """Return a to the power b."""
        return each(lambda u, v: self.number(u) ** self.number(v), a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        """Return the larger of two, as a ball that certainly holds it."""
        return each(lambda u, v: self.number(u).max(self.number(v)), a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        """Return the smaller of two, as a ball that certainly holds it."""
        return each(lambda u, v: self.number(u).min(self.number(v)), a, b)

    def abs(self, x: Any) -> Any:
        """Return the absolute value."""
        return each(lambda v: abs(self.number(v)), x)

    def floor(self, x: Any) -> Any:
        """Return the largest integer not above."""
        return each(lambda v: self.number(v).floor(), x)


class Exact(Floats):
    """Fractions: sums, products, quotients, whole powers and perfect roots only."""

    name = "exact"

    def number(self, value: Any) -> Any:
        """Convert an exact number."""
        if isinstance(value, float) and not math.isfinite(value):
            raise CannotEvaluate("infinity is not rational")
        return Fraction(value)

    def array(self, values: Array) -> Any:
        """Convert an array of exact numbers."""
        return each(self.number, values)

    def _refuse(self, *_: Any) -> Any:
        raise CannotEvaluate("not a rational number")

    exp = log = sin = cos = tanh = erf = _refuse  # type: ignore[assignment]

    def sqrt(self, x: Any) -> Any:
        """Return the square root of a square."""

        def root(v: Fraction) -> Fraction:
            v = Fraction(v)
            if v < 0:
                self._refuse()
            out = Fraction(math.isqrt(v.numerator), math.isqrt(v.denominator))
            return out if out * out == v else self._refuse()

        return each(root, x)

    def power(self, a: Any, b: Any) -> Any:
        """Return a to a whole power."""

        def power(u: Fraction, v: Fraction) -> Fraction:
            v = Fraction(v)
            if v.denominator == 1 and (u != 0 or v >= 0):
                return Fraction(u) ** v.numerator
            if v.denominator == 2 and (u != 0 or v >= 0):
                return Fraction(self.sqrt(u)) ** v.numerator
            raise CannotEvaluate("not a rational number")

        return each(power, a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        """Return the larger of two."""
        return each(max, a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        """Return the smaller of two."""
        return each(min, a, b)

    def abs(self, x: Any) -> Any:
        """Return the absolute value."""
        return each(abs, x)

    def floor(self, x: Any) -> Any:
        """Return the largest integer not above."""
        return each(math.floor, x)


FLOATS = Floats()
EXACT = Exact()


@contextlib.contextmanager
def precision(bits: int) -> Iterator[Balls]:
    """Work in ball arithmetic of `bits` bits inside the block."""
    from flint import ctx

    before = ctx.prec
    ctx.prec = bits
    try:
        yield Balls()
    finally:
        ctx.prec = before
