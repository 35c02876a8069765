"""Trees to one line of Unicode, the typed reading that a report echoes."""

from __future__ import annotations

import re

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

_SCRIPT_UP = dict(zip("0123456789+-()in", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁱⁿ"))
_SCRIPT_DOWN = dict(zip("0123456789aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ"))
_SIGNS = {"hadamard": " ⊙ ", "matmul": " @ "}
_LETTER = re.compile(r"[^\W\d_][ᵀ⁻¹₀-₉²³]*")


def to_unicode(expr: Expr) -> str:
    r"""Write a tree as one line of Unicode, every product and call explicit.

    Examples
    --------
    >>> from minitransformer.verify.parser import parse
    >>> to_unicode(parse(r"\frac{QK^T}{\sqrt{d_k}} V")[0].expr)
    '(QKᵀ / √dₖ) · V'
    """
    return _Unicode().write(expr)


def rows_in_brackets(rows: list[str]) -> str:
    """Join rows of a matrix; one row needs one pair of brackets."""
    if len(rows) == 1:
        return f"[{rows[0]}]"
    return "[" + ", ".join(f"[{row}]" for row in rows) + "]"


def _small(text: str, table: dict[str, str], mark: str) -> str:
    if text and all(c in table for c in text):
        return "".join(table[c] for c in text)
    return f"{mark}{text}" if re.fullmatch(r"[^\W_]+", text) else f"{mark}({text})"


class _Unicode(Printer):
    def parenthesised(self, text: str) -> str:
        return f"({text})"

    def level(self, e: Expr) -> int:
        return PRODUCT if e.op == "div" else super().level(e)

    def scripted(self, e: Expr) -> str:
        """Print what a script is put on; a name with one already is put in parentheses."""
        text = self.wrap(e, ATOM)
        return f"({text})" if e.op == "name" and "^" in str(e.value) else text

    def commas(self, args: tuple[Expr, ...]) -> str:
        return ", ".join(self.write(a) for a in args)

    def joined(self, args: tuple[Expr, ...], sign: str, level: int) -> str:
        return _SIGNS[sign].join(self.wrap(a, level) for a in args)

    def signed(self, args: tuple[Expr, ...], signs: tuple[str, ...]) -> str:
        out = self.wrap(args[0], SUM)
        for sign, arg in zip(signs, args[1:]):
            out += f" {sign} {self.wrap(arg, SUM)}"
        return out

    def name(self, text: str) -> str:
        base, sub, sup = split_name(text)
        if sub:
            base += _small(sub, _SCRIPT_DOWN, "_") if len(sub) == 1 else f"_{sub}"
        return base + (f"^{sup}" if sup else "")

    # -- arithmetic -----------------------------------------------------------------------
    def op_number(self, e: Expr) -> str:
        return decimal(e.value)

    def op_add(self, e: Expr) -> str:
        out = ""
        for position, arg in enumerate(e.args):
            minus = arg.op == "neg" and position
            text = self.wrap(arg.args[0] if minus else arg, PRODUCT if minus else NEG)
            out += (" − " if minus else " + " if position else "") + text
        return out

    def op_neg(self, e: Expr) -> str:
        return f"−{self.wrap(e.args[0], PRODUCT)}"

    def op_mul(self, e: Expr) -> str:
        out = ""
        for position, arg in enumerate(e.args):
            text = self.wrap(arg, FACTOR)
            letters = _LETTER.fullmatch(text) and _LETTER.fullmatch(out[-2:].strip() or "·")
            counted = position == 1 and e.args[0].op == "number" and text[0].isalpha()
            counted = counted and arg.op in ("name", "pow", "index")
            out += ("" if not position or letters or counted else " · ") + text
        return out

    def op_div(self, e: Expr) -> str:
        return f"{self.wrap(e.args[0], PRODUCT)} / {self.wrap(e.args[1], FACTOR)}"

    def op_pow(self, e: Expr) -> str:
        power = self.write(e.args[1]).replace("−", "-")
        return self.scripted(e.args[0]) + _small(power, _SCRIPT_UP, "^")

    def op_transpose(self, e: Expr) -> str:
        return self.scripted(e.args[0]) + "ᵀ"

    def op_inverse(self, e: Expr) -> str:
        return self.scripted(e.args[0]) + "⁻¹"

    def op_sqrt(self, e: Expr) -> str:
        inside = self.write(e.args[0])
        if len(e.args) > 1 and not (e.args[1].op == "number" and int(e.args[1].value) == 2):
            return f"root({inside}, {self.write(e.args[1])})"
        return f"√{inside}" if e.args[0].op in ("name", "number") else f"√({inside})"

    # -- calls and what is written like them ------------------------------------------------
    def op_call(self, e: Expr) -> str:
        name = str(e.value)
        if name == "ℝ":
            return "ℝ^(" + " × ".join(self.wrap(a, PRODUCT) for a in e.args) + ")"
        between = delimiters(e)
        if between is not None:
            return between[0] + self.commas(e.args) + between[1]
        if name in MARKS:
            return self.scripted(e.args[0]) + MARKS[name]
        return f"{self.name(name)}({self.commas(e.args)})"

    def op_big(self, e: Expr) -> str:
        kind, variable = e.value
        under = f"_{variable}" if variable else ""
        if len(e.args) == 2:
            under = f"_({self.write(e.args[1])})"
        if len(e.args) == 3:
            under = f"_({variable}={self.write(e.args[1])}..{self.write(e.args[2])})"
        return f"{BIG_SIGNS.get(kind, kind)}{under} {self.wrap(e.args[0], PRODUCT)}"

    def op_index(self, e: Expr) -> str:
        return f"{self.wrap(e.args[0], POSTFIX)}[{self.commas(e.args[1:])}]"

    def op_norm(self, e: Expr) -> str:
        order = _small(str(e.value), _SCRIPT_DOWN, "_") if e.value else ""
        return f"‖{self.write(e.args[0])}‖{order}"

    def op_abs(self, e: Expr) -> str:
        return f"|{self.write(e.args[0])}|"

    def op_expect(self, e: Expr) -> str:
        under = f"_({self.write(e.args[1])})" if len(e.args) > 1 else ""
        return f"{'𝔼' if e.op == 'expect' else 'Var'}{under}[{self.write(e.args[0])}]"

    op_var = op_expect

    def op_concat(self, e: Expr) -> str:
        return f"[{'; '.join(self.write(a) for a in e.args)}]"

    def op_matrix(self, e: Expr) -> str:
        return rows_in_brackets([", ".join(r) for r in table(e, [self.write(a) for a in e.args])])

    def op_cases(self, e: Expr) -> str:
        pairs = zip(e.args[::2], e.args[1::2])
        return "{" + "; ".join(f"{self.write(v)} if {self.write(c)}" for v, c in pairs) + "}"

    def op_partial(self, e: Expr) -> str:
        return f"∂{self.wrap(e.args[0], POSTFIX)}/∂{self.wrap(e.args[1], POSTFIX)}"

    # -- statements -----------------------------------------------------------------------
    def op_tuple(self, e: Expr) -> str:
        return f"({self.commas(e.args)})"

    def op_steps(self, e: Expr) -> str:
        return "; ".join(f"{c} {self.write(a)}".strip() for c, a in zip(e.value, e.args))

    def op_keyword(self, e: Expr) -> str:
        return f"{e.value}={self.commas(e.args)}"

    def op_given(self, e: Expr) -> str:
        return f"{self.write(e.args[0])} | {self.commas(e.args[1:])}"

    def op_ellipsis(self, e: Expr) -> str:
        return "…"
