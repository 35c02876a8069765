"""Axes and what a reduction divides by, as each library counts and defaults them."""

from __future__ import annotations

from fractions import Fraction

from minitransformer.verify.expression import UNSAID_AXIS, Expr
from minitransformer.verify.python_formula.library import library_of, rank_of
from minitransformer.verify.tokenizer import CannotParse, Span

_BIASED = {"np", "numpy", "jnp", "jax", "tf"}  # modules whose variance divides by n
# Functions whose second argument is an axis, and those of a module or an array alone.
_OVER_AXIS = {"softmax", "log_softmax", "sum", "mean", "prod", "var", "std", "logsumexp",
              "amax", "amin"}  # fmt: skip
_OVER_AXIS_METHODS = _OVER_AXIS | {"max", "min"}


def numeral(value: int | str | Fraction, span: Span) -> Expr:
    """Return a number; a whole one below zero is the negation of its opposite."""
    if isinstance(value, int) and value < 0:
        return Expr("neg", (numeral(-value, span),), None, span)
    return Expr("number", (), Fraction(value), span)


def whole(e: Expr) -> int | None:
    """Return the whole number an expression is, if it is one."""
    inner = e.args[0] if e.op == "neg" else e
    if inner.op != "number" or inner.value.denominator != 1:
        return None
    return -int(inner.value) if e.op == "neg" else int(inner.value)


class Axes:
    """Knows the text's library, and how many axes its arrays have."""

    def __init__(self, source: str, library: str | None) -> None:
        self.library = library_of(source) if library is None else library
        self.undecided = False  # whether a variance was read for want of a library as NumPy's
        self.rank = rank_of(source)  # of batched operands; 0 where axes count from a matrix

    def axes(
        self,
        name: str,
        args: tuple[Expr, ...],
        keywords: list[Expr],
        method: bool,
        library: str,
        span: Span,
    ) -> tuple[tuple[Expr, ...], list[Expr]]:
        """Write positional axes, flags and defaults of a library as keywords."""
        given = {str(k.value): k for k in keywords}
        if self.picks_axis(name, args, given, method, library):
            unsaid = Expr("name", (), UNSAID_AXIS, span)
            return args, [*keywords, Expr("keyword", (unsaid,), "dim", span)]
        known = _OVER_AXIS_METHODS if method or library else _OVER_AXIS
        if name in ("var", "std"):
            given, args = self.variance(name, given, args, library, span)
        elif name not in known:
            return args, keywords
        for extra in args[1:]:
            if whole(extra) is not None and not {"dim", "axis"} & set(given):
                given["dim"] = Expr("keyword", (extra,), "dim", extra.span)
            elif extra.op == "name" and extra.value in ("True", "False"):
                given["keepdim"] = Expr("keyword", (extra,), "keepdim", extra.span)
            elif name in ("max", "min"):
                return args, keywords  # the larger of two
            else:
                raise CannotParse(f"{name} with that argument", extra.span)
        for word in ("dim", "axis"):
            value = given[word].args[0] if word in given else None
            if value is None:
                continue
            if value.op == "name" and value.value == "None":
                del given[word]
                continue
            axis = whole(value)
            if axis is not None and axis >= 0 and self.rank:
                value = numeral(axis - self.rank, value.span)
                given[word] = Expr("keyword", (value,), word, value.span)
        given.pop("dtype", None)
        return args[:1], list(given.values())

    def picks_axis(
        self,
        name: str,
        args: tuple[Expr, ...],
        given: dict[str, Expr],
        method: bool,
        library: str,
    ) -> bool:
        """Whether PyTorch picks a softmax's axis by the number of axes; NumPy has none."""
        torch = library in ("torch", "nn", "F") or (method and self.library == "torch")
        softmax = name.lower().replace("_", "") in ("softmax", "logsoftmax")
        return torch and softmax and len(args) == 1 and not {"dim", "axis"} & set(given)

    def variance(
        self, name: str, given: dict[str, Expr], args: tuple[Expr, ...], library: str, span: Span
    ) -> tuple[dict[str, Expr], tuple[Expr, ...]]:
        """Settle what a variance divides by: n, or n − 1 as PyTorch does unless told."""
        given = dict(given)
        stated: Fraction | None = None
        flags = [a for a in args[1:] if a.op == "name" and a.value in ("True", "False")]
        torch = library in ("torch", "nn", "F") or (
            not library and (self.library == "torch" or {"dim", "keepdim"} & set(given))
        )
        if torch and flags:  # x.var(-1, False), x.var(False): unbiased
            stated = Fraction(int(flags[0].value == "True"))
            args = tuple(a for a in args if a is not flags[0])
        for word in ("unbiased", "correction", "ddof"):
            if word not in given:
                continue
            value = given.pop(word).args[0]
            if value.op == "name" and value.value in ("True", "False"):
                stated = Fraction(int(value.value == "True"))
            elif whole(value) is not None:
                stated = Fraction(whole(value) or 0)
            else:
                raise CannotParse(f"{name} with that {word}", value.span)
        if stated is None:
            if torch:
                stated = Fraction(1)
            else:
                stated = Fraction(0)
                sure = library in _BIASED or self.library == "numpy"
                self.undecided = self.undecided or not (sure or {"axis", "keepdims"} & set(given))
        if stated:
            number = numeral(stated, span)
            given["correction"] = Expr("keyword", (number,), "correction", span)
        return given, args

    def size(self, of: Expr, axis: int, span: Span) -> Expr:
        if axis >= 0 and self.rank:
            axis -= self.rank
        return Expr(
            "call", (of, Expr("keyword", (numeral(axis, span),), "dim", span)), "size", span
        )

    def transposed(self, name: str, args: tuple[Expr, ...], span: Span) -> Expr:
        """Accept a transpose of the last two axes, and nothing else."""
        axes = [whole(a) for a in args[1:]]
        if (name == "t" and len(args) == 1) or (name == "transpose" and len(args) == 1):
            return Expr("transpose", args, None, span)
        rank = self.rank or 2
        numbers = [a - rank if a is not None and a >= 0 else a for a in axes]
        if name != "permute" and len(axes) == 2 and sorted(a or 0 for a in numbers) == [-2, -1]:
            return Expr("transpose", (args[0],), None, span)
        order = [*range(-rank, -2), -1, -2]
        if name in ("permute", "transpose") and len(axes) >= 2 and numbers == order:
            return Expr("transpose", (args[0],), None, span)
        raise CannotParse(f"{name} of other axes than the last two", span)
