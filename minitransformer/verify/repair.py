"""Edits of a formula: the mistakes people make, forwards and backwards.

The same edits serve twice: `repairs` searches them for the shortest way from a
wrong formula to a right one, and the tests apply them to each card's own formula
and demand that every result that differs is convicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from minitransformer.verify.expression import Expr, name, number

HALF = Fraction(1, 2)
SWAPS = {
    "sin": ("cos",), "cos": ("sin",), "tanh": ("sigmoid",), "sigmoid": ("tanh",),
    "σ": ("tanh",), "log": ("log2", "log10"), "ln": ("log2", "log10"), "exp": (),
    "max": ("min",), "min": ("max",), "softmax": ("softmax_column",), "relu": ("gelu",),
    "log2": ("log",), "log10": ("log",), "silu": ("sigmoid",),
}  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """One changed formula and the change in words."""

    expr: Expr
    says: str
    cost: int = 1


@dataclass(frozen=True)
class Vocabulary:
    """What an edit may put in: size names, and inputs that share dimensions."""

    sizes: tuple[str, ...] = ()
    kin: tuple[tuple[str, ...], ...] = ()
    scalars: tuple[str, ...] = ()
    matrices: tuple[str, ...] = ()


def size_of_tree(e: Expr) -> int:
    """Count the nodes of a tree."""
    return sum(1 for _ in e.walk())


def edits(e: Expr, vocabulary: Vocabulary) -> Iterator[Edit]:
    """Yield every formula one typed edit away."""
    yield from _walk(e, vocabulary, lambda node: node)


def _walk(e: Expr, v: Vocabulary, rebuild: Callable[[Expr], Expr]) -> Iterator[Edit]:
    for edit in _local(e, v):
        yield Edit(rebuild(edit.expr), edit.says, edit.cost)
    for k, arg in enumerate(e.args):

        def deeper(node: Expr, k: int = k) -> Expr:
            return rebuild(replace(e, args=(*e.args[:k], node, *e.args[k + 1 :])))

        yield from _walk(arg, v, deeper)


def _sqrt(e: Expr) -> Expr:
    return Expr("sqrt", (e,), None, e.span)


def _mul(*args: Expr) -> Expr:
    return Expr("mul", args, None, args[-1].span)


def _div(a: Expr, b: Expr) -> Expr:
    return Expr("div", (a, b), None, a.span)


def _call(function: str, arg: Expr) -> Expr:
    return Expr("call", (arg,), function, arg.span)


def _text(e: Expr) -> str:
    """Write a small expression in words."""
    if e.op == "name":
        return str(e.value)
    if e.op == "number":
        return str(e.value)
    if e.op == "sqrt" and len(e.args) == 1:
        inner = _text(e.args[0])
        return f"√{inner}" if e.args[0].op in ("name", "number") else f"√({inner})"
    if e.op == "transpose":
        return f"{_text(e.args[0])}ᵀ"
    if e.op == "neg":
        return f"−{_text(e.args[0])}"
    if e.op == "add":
        return " + ".join(_text(a) for a in e.args).replace("+ −", "− ")
    if e.op in ("mul", "matmul"):
        return " ".join(_text(a) if a.op != "add" else f"({_text(a)})" for a in e.args)
    if e.op == "hadamard":
        return " ⊙ ".join(_text(a) for a in e.args)
    if e.op == "div":
        a, b = (
            _text(x) if x.op in ("name", "number", "sqrt", "call", "transpose") else f"({_text(x)})"
            for x in e.args
        )
        return f"{a}/{b}"
    if e.op == "pow":
        return f"{_text(e.args[0])}^{_text(e.args[1])}"
    if e.op == "call":
        return f"{e.value}({', '.join(_text(a) for a in e.args)})"
    if e.op == "index":
        return f"{_text(e.args[0])}_{','.join(_text(a) for a in e.args[1:])}"
    return e.op


def _local(e: Expr, v: Vocabulary) -> Iterator[Edit]:
    op = e.op
    if op == "sqrt" and len(e.args) == 1:
        (a,) = e.args
        yield Edit(a, f"drop the root: {_text(a)} for {_text(e)}")
        if a.op == "add" and len(a.args) == 2:
            x, y = a.args
            yield Edit(Expr("add", (_sqrt(x), y), None, e.span), f"take {_text(y)} out of the root")
    if op == "name" and e.value in v.sizes:
        yield Edit(_sqrt(e), f"√{e.value} for {e.value}")
        for other in v.sizes:
            if other != e.value:
                yield Edit(replace(e, value=other), f"{other} for {e.value}")
        yield Edit(
            Expr("add", (e, Expr("neg", (number(1),))), None, e.span),
            f"{e.value} − 1 for {e.value}",
        )
    elif op == "name":
        for group in v.kin:
            if e.value in group:
                for other in group:
                    if other != e.value:
                        yield Edit(replace(e, value=other), f"{other} for {e.value}")
    if op == "number":
        value = e.value
        near = (value + 1, value - 1, value * 2, value / 2, -value, 1 / value if value else value)
        for changed in dict.fromkeys(near):
            if changed != value:
                yield Edit(replace(e, value=Fraction(changed)), f"{changed} for {value}")
    if op == "neg":
        yield Edit(e.args[0], f"+ for − before {_text(e.args[0])}")
    if op == "add":
        for k, arg in enumerate(e.args):
            rest = (*e.args[:k], *e.args[k + 1 :])
            left = rest[0] if len(rest) == 1 else replace(e, args=rest)
            yield Edit(left, f"drop {_text(arg)}")
            if arg.op != "neg":
                flipped = (*e.args[:k], Expr("neg", (arg,), None, arg.span), *e.args[k + 1 :])
                yield Edit(replace(e, args=flipped), f"− for + before {_text(arg)}")
        if len(e.args) == 2 and e.args[0].op == "sqrt":
            root, added = e.args
            yield Edit(
                _sqrt(Expr("add", (root.args[0], added), None, e.span)),
                f"take {_text(added)} into the root",
            )
    if op in ("mul", "hadamard", "matmul"):
        for k, arg in enumerate(e.args):
            rest = (*e.args[:k], *e.args[k + 1 :])
            left = rest[0] if len(rest) == 1 else replace(e, args=rest)
            yield Edit(left, f"drop the factor {_text(arg)}")
        if op == "mul":
            yield Edit(replace(e, op="hadamard"), "⊙ for the product")
        if op == "hadamard":
            yield Edit(replace(e, op="mul"), "the matrix product for ⊙")
        if len(e.args) == 2 and op in ("mul", "matmul"):
            a, b = e.args
            if a.op == "transpose" and b.op != "transpose":
                moved = (a.args[0], Expr("transpose", (b,), None, b.span))
                yield Edit(replace(e, args=moved), f"transpose {_text(b)}, not {_text(a.args[0])}")
            elif b.op == "transpose" and a.op != "transpose":
                moved = (Expr("transpose", (a,), None, a.span), b.args[0])
                yield Edit(replace(e, args=moved), f"transpose {_text(a)}, not {_text(b.args[0])}")
            yield Edit(replace(e, args=(b, a)), "swap the factors")
            for x, f in ((a, b), (b, a)):
                if f.op == "call" and len(f.args) == 1 and x.op != "call":
                    taken = replace(f, args=(_mul(x, f.args[0]),))
                    yield Edit(taken, f"take {_text(x)} into {f.value}", 2)
    if op == "div":
        a, b = e.args
        yield Edit(a, f"drop the divisor {_text(b)}")
        yield Edit(_mul(a, b), f"multiply by {_text(b)} instead of dividing")
        if a.op == "call" and len(a.args) == 1:
            yield Edit(
                replace(a, args=(_div(a.args[0], b),)),
                f"move the divisor {_text(b)} into {a.value}",
                2,
            )
        if a.op in ("mul", "matmul"):
            for k, arg in enumerate(a.args):
                if arg.op == "call" and len(arg.args) == 1:
                    inner = replace(arg, args=(_div(arg.args[0], b),))
                    yield Edit(
                        replace(a, args=(*a.args[:k], inner, *a.args[k + 1 :])),
                        f"move the divisor {_text(b)} into {arg.value}",
                        2,
                    )
        if b.op == "sqrt":
            yield Edit(_div(a, b.args[0]), f"divide by {_text(b.args[0])}, not its root")
        elif not (b.op == "name" and b.value in v.sizes):
            yield Edit(_div(a, _sqrt(b)), f"divide by the root of {_text(b)}")
    if op == "pow":
        base, exponent = e.args
        yield Edit(base, f"drop the exponent {_text(exponent)}")
        if exponent.op == "number":
            yield Edit(
                replace(e, args=(base, replace(exponent, value=exponent.value + HALF))),
                f"exponent {exponent.value + HALF} for {exponent.value}",
            )
            yield Edit(
                replace(e, args=(base, replace(exponent, value=exponent.value - HALF))),
                f"exponent {exponent.value - HALF} for {exponent.value}",
            )
    if op == "transpose":
        yield Edit(e.args[0], f"drop the transpose of {_text(e.args[0])}")
    elif (op == "name" and e.value in v.matrices) or (op == "call" and e.value == "softmax"):
        yield Edit(Expr("transpose", (e,), None, e.span), f"transpose {_text(e)}")
    if op == "call" and len(e.args) == 1:
        (a,) = e.args
        function = str(e.value)
        for other in SWAPS.get(function, ()):
            yield Edit(replace(e, value=other), f"{other} for {function}")
        if function in ("softmax", "log_softmax", "exp", "sigmoid", "σ", "tanh", "log"):
            yield Edit(a, f"drop {function}")
        if a.op == "div":
            x, y = a.args
            yield Edit(
                _div(replace(e, args=(x,)), y), f"take the divisor {_text(y)} out of {function}", 2
            )
        if function in ("softmax", "log_softmax", "exp", "sigmoid", "tanh"):
            for s in v.sizes:
                if a.op != "div":
                    yield Edit(
                        replace(e, args=(_div(a, _sqrt(name(s))),)),
                        f"divide by √{s} inside {function}",
                    )
    if op == "call" and len(e.args) > 1 and str(e.value) in ("max", "min"):
        other = "min" if e.value == "max" else "max"
        yield Edit(replace(e, value=other), f"{other} for {e.value}")
    if op == "big":
        kind, variable = e.value
        body = e.args[0]
        if kind == "sum":
            yield Edit(replace(e, value=("mean", variable)), "a mean for the sum")
            yield Edit(replace(e, value=("max", variable)), "a maximum for the sum")
        if kind == "mean":
            yield Edit(replace(e, value=("sum", variable)), "a sum for the mean")
        yield Edit(body, "drop the sum")
    if op == "index" and len(e.args) == 3:
        base, i, j = e.args
        yield Edit(replace(e, args=(base, j, i)), f"swap the indices of {_text(base)}")
    if op == "var":
        yield Edit(_sqrt(e), "the deviation for the variance")
    if op == "abs" or op == "norm":
        yield Edit(Expr("pow", (e, number(2)), None, e.span), f"square {op}")


@dataclass(frozen=True)
class Repair:
    """A formula equal to the reference, and the edits that lead to it."""

    expr: Expr
    steps: tuple[str, ...]
    cost: int


def repairs(
    e: Expr,
    vocabulary: Vocabulary,
    passes: Callable[[Expr], bool],
    confirms: Callable[[Expr], bool],
    *,
    depth: int = 3,
    budget: int = 2500,
    wanted: int = 3,
    key: Callable[[Expr], object] | None = None,
) -> Sequence[Repair]:
    """Search breadth first for the smallest edits that make a formula right.

    Parameters
    ----------
    passes : callable
        A quick test at one point.
    confirms : callable
        The whole battery; only what it confirms is returned.
    budget : int
        How many candidates to try in all.
    """
    seen: set[object] = {key(e) if key else e}
    layer: list[tuple[Expr, tuple[str, ...], int]] = [(e, (), 0)]
    found: list[Repair] = []
    tried = 0
    for _ in range(depth):
        following = []
        for expr, steps, cost in layer:
            for edit in edits(expr, vocabulary):
                tried += 1
                if tried > budget:
                    return _ranked(found, wanted)
                mark = key(edit.expr) if key else edit.expr
                if mark in seen:
                    continue
                seen.add(mark)
                trail = (*steps, edit.says)
                if passes(edit.expr):
                    if confirms(edit.expr):
                        found.append(Repair(edit.expr, trail, cost + edit.cost))
                else:
                    following.append((edit.expr, trail, cost + edit.cost))
        if found:
            return _ranked(found, wanted)
        layer = following
    return _ranked(found, wanted)


def tidy(found: Repair, passes: Callable[[Expr], bool], confirms: Callable[[Expr], bool]) -> Repair:
    """Drop the factors of a repaired formula that are 1 in disguise, such as √d/√d."""
    e, steps = found.expr, list(found.steps)
    for edit in edits(e, Vocabulary()):
        if edit.says.startswith("drop the factor") and passes(edit.expr) and confirms(edit.expr):
            return Repair(edit.expr, (*steps, f"{edit.says}, which is 1"), found.cost + 1)
    return found


def _ranked(found: list[Repair], wanted: int) -> list[Repair]:
    return sorted(found, key=lambda r: (r.cost, size_of_tree(r.expr)))[:wanted]
