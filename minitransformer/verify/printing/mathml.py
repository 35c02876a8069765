"""Trees to presentation MathML, for the HTML page; one sub-expression can be marked."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable

from minitransformer.verify.expression import Expr
from minitransformer.verify.printing.printer import (
    ATOM,
    BIG_SIGNS,
    FACTOR,
    MARKS,
    NEG,
    POSTFIX,
    PRODUCT,
    SUM,
    Printer,
    decimal,
    delimiters,
    split_name,
    table,
)

_SIGNS = {"mul": "\u2062", "hadamard": "⊙", "matmul": "\u2062", "×": "×"}


def to_mathml(
    expr: Expr,
    *,
    mark: Expr | None = None,
    span: tuple[int, int] | None = None,
    display: bool = True,
) -> str:
    """Write a tree as presentation MathML.

    Parameters
    ----------
    expr : Expr
        The tree.
    mark : Expr, optional
        A sub-expression to highlight: every node that equals it (the node itself, where
        it is part of the tree) is wrapped in ``<mrow class="marked">``.
    span : (int, int), optional
        Highlight instead the smallest sub-expression that covers this source span.
    display : bool, default=True
        Whether the formula stands on its own line.

    Returns
    -------
    str
        One ``<math>`` element.

    Examples
    --------
    >>> from minitransformer.verify.expression import name
    >>> to_mathml(name("x"), display=False)
    '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mi>x</mi></math>'
    """
    target = mark
    if target is None and span is not None:
        covering = [e for e in expr.walk() if e.span[0] <= span[0] and span[1] <= e.span[1]]
        if covering:
            target = min(covering, key=lambda e: (e.span[1] - e.span[0], sum(1 for _ in e.walk())))
    identical = target is not None and any(e is target for e in expr.walk())

    def marked(node: Expr) -> bool:
        return node is target if identical else target is not None and node == target

    kind = "block" if display else "inline"
    body = _MathML(marked).write(expr)
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="{kind}">{body}</math>'


def _tag(tag: str, *children: str, **attributes: str) -> str:
    given = "".join(f' {k}="{html.escape(v)}"' for k, v in attributes.items())
    return f"<{tag}{given}>{''.join(children)}</{tag}>"


def _mo(text: str) -> str:
    return _tag("mo", html.escape(text))


def _mi(text: str) -> str:
    if len(text) > 1 and not unicodedata.combining(text[1]):
        return _tag("mi", html.escape(text), mathvariant="normal")
    return _tag("mi", html.escape(text))


def _fenced(inside: str, opening: str = "(", closing: str = ")") -> str:
    return _tag("mrow", _mo(opening), inside, _mo(closing))


def _scripted(base: str, sub: str, sup: str = "") -> str:
    if sub and sup:
        return _tag("msubsup", base, sub, sup)
    if sub:
        return _tag("msub", base, sub)
    return _tag("msup", base, sup) if sup else base


class _MathML(Printer):
    def __init__(self, mark: Callable[[Expr], bool]) -> None:
        self.mark = mark

    def write(self, e: Expr) -> str:
        text = super().write(e)
        return _tag("mrow", text, **{"class": "marked"}) if self.mark(e) else text

    def parenthesised(self, text: str) -> str:
        return _fenced(text)

    def commas(self, args: tuple[Expr, ...]) -> str:
        out: list[str] = []
        for arg in args:
            out += ([_mo(",")] if out else []) + [self.write(arg)]
        return out[0] if len(out) == 1 else _tag("mrow", *out)

    def name(self, text: str) -> str:
        base, sub, sup = split_name(text)
        return _scripted(_mi(base), _mi(sub) if sub else "", _mi(sup) if sup else "")

    def joined(self, args: tuple[Expr, ...], sign: str, level: int) -> str:
        out: list[str] = []
        for arg in args:
            out += ([_mo(_SIGNS[sign])] if out else []) + [self.wrap(arg, level)]
        return _tag("mrow", *out)

    def signed(self, args: tuple[Expr, ...], signs: tuple[str, ...]) -> str:
        out = [self.wrap(args[0], SUM)]
        for sign, arg in zip(signs, args[1:]):
            out += [_mo(sign), self.wrap(arg, SUM)]
        return _tag("mrow", *out)

    # -- arithmetic -----------------------------------------------------------------------
    def op_number(self, e: Expr) -> str:
        return _tag("mn", decimal(e.value))

    def op_add(self, e: Expr) -> str:
        out: list[str] = []
        for position, arg in enumerate(e.args):
            minus = arg.op == "neg" and position and not self.mark(arg)
            if position:
                out.append(_mo("−" if minus else "+"))
            out.append(self.wrap(arg.args[0], PRODUCT) if minus else self.wrap(arg, NEG))
        return _tag("mrow", *out)

    def op_neg(self, e: Expr) -> str:
        return _tag("mrow", _mo("−"), self.wrap(e.args[0], PRODUCT))

    def op_mul(self, e: Expr) -> str:
        return self.joined(e.args, "mul", FACTOR)

    def op_div(self, e: Expr) -> str:
        return _tag("mfrac", self.write(e.args[0]), self.write(e.args[1]))

    def op_pow(self, e: Expr) -> str:
        return _tag("msup", self.wrap(e.args[0], ATOM), self.write(e.args[1]))

    def op_transpose(self, e: Expr) -> str:
        return _tag("msup", self.wrap(e.args[0], ATOM), _mo("⊤"))

    def op_inverse(self, e: Expr) -> str:
        return _tag(
            "msup", self.wrap(e.args[0], ATOM), _tag("mrow", _mo("−"), _tag("mn", "1"))
        )  # fmt: skip

    def op_sqrt(self, e: Expr) -> str:
        kind = "mroot" if len(e.args) > 1 else "msqrt"
        return _tag(kind, *(self.write(a) for a in e.args))

    # -- calls and what is written like them ------------------------------------------------
    def op_call(self, e: Expr) -> str:
        name = str(e.value)
        if name == "ℝ":
            return _tag("msup", _mi("ℝ"), self.joined(e.args, "×", FACTOR))
        if name == "exp" and len(e.args) == 1:
            return _tag("msup", _mi("e"), self.write(e.args[0]))
        between = delimiters(e)
        if between is not None:
            return _fenced(self.commas(e.args), *between)
        if name in MARKS:
            return _tag("mrow", self.wrap(e.args[0], ATOM), _mo(MARKS[name]))
        head = self.name(name)
        unders = [a for a in e.args if a.op == "keyword" and a.value in ("base", "over")]
        if unders:
            head = _tag("msub", head, self.commas(unders[0].args))
        rest = tuple(a for a in e.args if a not in unders)
        return _tag("mrow", head, _mo("\u2061"), _fenced(self.commas(rest)))

    def op_big(self, e: Expr) -> str:
        kind, variable = e.value
        sign = _mo(BIG_SIGNS[kind]) if kind in BIG_SIGNS else _mi(kind)
        under = _mi(variable) if variable else ""
        if len(e.args) == 2:
            under = self.write(e.args[1])
        if len(e.args) == 3:
            under = _tag("mrow", _mi(variable), _mo("="), self.write(e.args[1]))
            sign = _tag("munderover", sign, under, self.write(e.args[2]))
        elif under:
            sign = _tag("munder", sign, under)
        return _tag("mrow", sign, self.wrap(e.args[0], PRODUCT))

    def op_index(self, e: Expr) -> str:
        return _tag("msub", self.wrap(e.args[0], POSTFIX), self.commas(e.args[1:]))

    def op_norm(self, e: Expr) -> str:
        inside = _fenced(self.write(e.args[0]), "‖", "‖")
        return _scripted(inside, _mi(str(e.value)) if e.value else "")

    def op_abs(self, e: Expr) -> str:
        return _fenced(self.write(e.args[0]), "|", "|")

    def op_expect(self, e: Expr) -> str:
        head = _mi("𝔼" if e.op == "expect" else "Var")
        if len(e.args) > 1:
            head = _tag("msub", head, self.write(e.args[1]))
        return _tag("mrow", head, _fenced(self.write(e.args[0]), "[", "]"))

    op_var = op_expect

    def op_concat(self, e: Expr) -> str:
        return _tag("mrow", _mi("Concat"), _fenced(self.commas(e.args)))

    def op_matrix(self, e: Expr) -> str:
        cells = [_tag("mtd", self.write(a)) for a in e.args]
        rows = [_tag("mtr", *row) for row in table(e, cells)]
        return _fenced(_tag("mtable", *rows), "[", "]")

    def op_cases(self, e: Expr) -> str:
        rows = [
            _tag("mtr", _tag("mtd", self.write(v)), _tag("mtd", self.write(c)))
            for v, c in zip(e.args[::2], e.args[1::2])
        ]
        return _tag("mrow", _mo("{"), _tag("mtable", *rows))

    def op_partial(self, e: Expr) -> str:
        return _tag("mfrac", *(_tag("mrow", _mo("∂"), self.wrap(a, FACTOR)) for a in e.args))

    # -- statements -----------------------------------------------------------------------
    def op_tuple(self, e: Expr) -> str:
        return _fenced(self.commas(e.args))

    def op_steps(self, e: Expr) -> str:
        rows = []
        for connector, arg in zip(e.value, e.args):
            word = _tag("mtext", html.escape(connector) + "\u00a0") if connector else ""
            rows.append(_tag("mtr", _tag("mtd", word, self.write(arg))))
        return _tag("mtable", *rows)

    def op_keyword(self, e: Expr) -> str:
        return _tag("mrow", _mi(str(e.value)), _mo("="), self.commas(e.args))

    def op_given(self, e: Expr) -> str:
        return _tag("mrow", self.write(e.args[0]), _mo("|"), self.commas(e.args[1:]))

    def op_ellipsis(self, e: Expr) -> str:
        return _mo("…")
