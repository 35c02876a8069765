"""Trees to text: canonical LaTeX, a Unicode line, and MathML.

The LaTeX is what `parser.parse` reads back as the same tree; the Unicode line is the
typed reading that a report echoes; the MathML is for the HTML page and can mark one
sub-expression.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser import CALL_LETTERS, LABELLED, index_closure
from minitransformer.verify.tokenizer import ACCENTS, GREEK, RELATIONS, unstyled

_GREEK_COMMANDS = {letter: name for name, letter in GREEK.items() if not name[0].isupper()} | {
    letter: name for name, letter in GREEK.items()
    if name in ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi",
                "Omega")
}  # fmt: skip
_LETTER_COMMANDS = _GREEK_COMMANDS | {
    "ε": "epsilon", "φ": "phi", "ℓ": "ell", "∞": "infty", "∅": "emptyset", "ℏ": "hbar",
    "ℜ": "Re", "ℑ": "Im", "ı": "imath", "ȷ": "jmath", "∀": "forall", "⊥": "perp",
}  # fmt: skip
_FONT_COMMANDS = {"double": "mathbb", "script": "mathcal", "fraktur": "mathfrak", "bold": "mathbf"}
_RELATION_COMMANDS = {sign: name for name, sign in reversed(list(RELATIONS.items()))}
_ACCENT_COMMANDS = {mark: name for name, mark in reversed(list(ACCENTS.items()))}
_COMMAND_CALLS = {"exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arctan", "arcsin",
                  "arccos", "det", "max", "min"}  # fmt: skip
_DELIMITED = {"inner": ("⟨", "⟩"), "floor": ("⌊", "⌋"), "ceil": ("⌈", "⌉"), "set": ("{", "}")}
_LATEX_DELIMITERS = {
    "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "{": r"\{", "}": r"\}",
}  # fmt: skip
_BIG_SIGNS = {"sum": "∑", "prod": "∏"}
_SCRIPT_UP = dict(zip("0123456789+-()in", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁱⁿ"))
_SCRIPT_DOWN = dict(zip("0123456789aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ"))

# How tightly an operator holds its operands; a looser child gets parentheses.
_STATEMENT, _SUM, _NEG, _PRODUCT, _FACTOR, _POSTFIX, _ATOM = range(7)
_LEVELS = {
    "steps": _STATEMENT, "relation": _STATEMENT, "chain": _STATEMENT, "given": _STATEMENT,
    "add": _SUM, "neg": _NEG, "mul": _PRODUCT, "hadamard": _PRODUCT, "matmul": _PRODUCT,
    "big": _NEG, "pow": _POSTFIX, "transpose": _POSTFIX, "inverse": _POSTFIX, "index": _POSTFIX,
    "partial": _FACTOR, "keyword": _STATEMENT,
}  # fmt: skip


def _level(expr: Expr) -> int:
    if expr.op == "number" and "/" in _decimal(expr.value):
        return _FACTOR
    if expr.op == "call" and expr.value in ("factorial", "percent"):
        return _POSTFIX
    return _LEVELS.get(expr.op, _ATOM)


def _decimal(value: Fraction) -> str:
    """Write a fraction as a terminating decimal where it has one.

    Examples
    --------
    >>> _decimal(Fraction(1, 8)), _decimal(Fraction(1, 3))
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


def _split_name(name: str) -> tuple[str, str, str]:
    """Split a canonical spelling into base, subscript and superscript label."""
    match = re.fullmatch(r"([^_^]+)(?:_(.+?))?(?:\^(.+))?", name, re.S)
    if match is None:
        return name, "", ""
    return match.group(1), match.group(2) or "", match.group(3) or ""


class _Latex:
    """The printer; knows which subscripts the parser will take for indices."""

    def __init__(self, root: Expr) -> None:
        self.indexed: set[str] = set()  # letters that are indices in this formula
        self.bases: set[str] = set()
        self.plain: set[Expr] = set()  # index nodes that print as x_{i}
        bound = {str(e.value[1]) for e in root.walk() if e.op == "big" and e.value[1]}
        pairs = []
        forced: set[str] = set(bound)
        for node in root.walk():
            if node.op == "index":
                base, letters, computes = self.pair(node)
                if base:
                    pairs.append((base, letters, computes))
                else:
                    forced |= {x for x in letters if x.islower()}
            if node.op == "keyword" and node.value == "over":
                forced |= {str(e.value) for e in node.walk() if e.op == "name"}
        letters_known = index_closure(pairs, forced)
        for _, letters, computes in pairs:
            if not (computes or letters_known & set(letters)):
                letters_known = index_closure(pairs, letters_known | set(letters))
        self.indexed = set(letters_known)
        for node in root.walk():
            if node.op == "index":
                base, letters, computes = self.pair(node)
                natural = index_closure(pairs, forced)
                if (
                    base
                    and (computes or natural & set(letters))
                    and not any(f"{base}_{x}" in LABELLED for x in letters)
                ):
                    self.bases.add(base)
        for node in root.walk():
            if node.op == "index":
                base, letters, _ = self.pair(node)
                if base in self.bases and not any(f"{base}_{x}" in LABELLED for x in letters):
                    self.plain.add(node)

    @staticmethod
    def pair(node: Expr) -> tuple[str, tuple[str, ...], bool]:
        """Return an index node as the parser would record it."""
        base = node.args[0]
        letters: list[str] = []
        computes = False
        for index in node.args[1:]:
            letters += [str(e.value) for e in index.walk() if e.op == "name"]
            computes |= index.op in ("add", "mul", "neg") and any(
                e.op == "name" for e in index.walk()
            )
        if base.op != "name":
            return "", tuple(letters), computes
        first, sub, _ = _split_name(str(base.value))
        return ("" if sub else first), tuple(letters), computes

    # -- names ------------------------------------------------------------------------
    def symbol(self, text: str, upright: bool = False) -> str:
        """Write a base: a letter with its accents and font, or a word."""
        marks = ""
        while len(text) > 1 and text[-1] in _ACCENT_COMMANDS:
            marks, text = text[-1] + marks, text[:-1]
        primes = len(text) - len(text.rstrip("′"))
        text = text.rstrip("′")
        if text == "ⅈ":
            out = r"\mathrm{i}"
        elif len(text) == 1:
            letter, font = unstyled(text)
            if text in _LETTER_COMMANDS:
                out = "\\" + _LETTER_COMMANDS[text]
            elif font:
                out = f"\\{_FONT_COMMANDS[font]}{{{letter}}}"
            else:
                out = f"\\mathrm{{{text}}}" if upright else text
        elif re.fullmatch(r"[\w\-]+", text):
            out = f"\\mathrm{{{text}}}"
        else:
            out = f"\\text{{{text}}}"
        for mark in marks:
            out = f"\\{_ACCENT_COMMANDS[mark]}{{{out}}}"
        return out + ("^{" + r"\prime" * primes + "}" if primes else "")

    def label(self, text: str, upright: bool) -> str:
        """Write a sub- or superscript that is part of a name."""
        pieces = re.findall(r"[A-Za-z]+|\d+|\W|[^\W\d_A-Za-z]+|_", text)
        out = []
        for piece in pieces:
            if len(piece) > 1 and piece.isalpha() and piece.isascii():
                out.append(f"\\mathrm{{{piece}}}")
            elif piece.isalpha() and len(piece) == 1:
                out.append(self.symbol(piece, upright and piece.isascii()))
            elif piece in "′{}":
                out.append({"′": r"\prime"}.get(piece, "\\" + piece))
            else:
                out.append(piece if piece.isascii() or not piece.isalpha() else self.symbol(piece))
        return " ".join(out) if any(p.startswith("\\") for p in out) else "".join(out)

    def name(self, text: str) -> str:
        if text in ("otherwise",):
            return r"\text{otherwise}"
        if text == "":
            return "{}"
        base, sub, sup = _split_name(text)
        out = self.symbol(base)
        if sub:
            letters = re.findall(r"[^\W\d_]", sub) if not re.search(r"[A-Za-z]{2}", sub) else []
            clash = base in self.bases or bool(self.indexed & set(letters))
            clash = clash and f"{base}_{sub}" not in LABELLED
            out += f"_{{{self.label(sub, clash)}}}"
        if sup:
            single = len(sup) == 1 and sup.isalpha()
            plain = single and sup in "QKVO" and base[0].isupper()
            if sup in ("*", "+", "-", "†"):
                inner = {"†": r"\dagger"}.get(sup, sup)
            elif set(sup) == {"′"}:
                inner = r"\prime" * len(sup)
            elif re.fullmatch(r"\([^()]+\)|\[[^\[\]]+\]", sup):
                inner = sup[0] + self.label(sup[1:-1], False) + sup[-1]
            else:
                inner = sup if plain else f"\\mathrm{{{sup}}}"
            out += f"^{{{inner}}}"
        return out

    # -- expressions ------------------------------------------------------------------
    def wrap(self, expr: Expr, level: int) -> str:
        text = self.write(expr)
        return f"\\left({text}\\right)" if _level(expr) < level else text

    def write(self, expr: Expr) -> str:
        method: Callable[[Expr], str] | None = getattr(self, f"op_{expr.op}", None)
        if method is None:
            raise ValueError(f"no way to print the operator {expr.op!r}")
        return method(expr)

    def op_number(self, e: Expr) -> str:
        text = _decimal(e.value)
        if "/" in text:
            top, bottom = text.split("/")
            return f"\\frac{{{top}}}{{{bottom}}}"
        return text

    def op_name(self, e: Expr) -> str:
        return self.name(str(e.value))

    def op_add(self, e: Expr) -> str:
        out = ""
        for position, arg in enumerate(e.args):
            if arg.op == "neg" and position:
                out += f" - {self.wrap(arg.args[0], _PRODUCT)}"
            else:
                # A sum that is not last would swallow the terms that use its index.
                text = self.wrap(arg, _NEG)
                if self.ends_big(arg) and position + 1 < len(e.args):
                    text = f"\\left({self.write(arg)}\\right)"
                out += (" + " if position else "") + text
        return out

    def ends_big(self, e: Expr) -> bool:
        while e.op in ("mul", "neg", "hadamard", "matmul"):
            e = e.args[-1]
        return e.op == "big"

    def op_neg(self, e: Expr) -> str:
        return f"-{self.wrap(e.args[0], _PRODUCT)}"

    def op_mul(self, e: Expr) -> str:
        out = ""
        for position, arg in enumerate(e.args):
            # A sum in last place needs no parentheses; a product in a product does.
            last_big = arg.op == "big" and position == len(e.args) - 1
            text = self.write(arg) if last_big else self.wrap(arg, _FACTOR)
            if position:
                plain = text[0].isalpha() or re.match(
                    r"\\(?!left|begin|sum|prod|mathbb|lVert|lvert)", text)  # fmt: skip
                out += " " if plain and text[:1] != "(" else r" \cdot "
            out += text
        return out

    def op_hadamard(self, e: Expr) -> str:
        return r" \odot ".join(self.operand(a) for a in e.args)

    def op_matmul(self, e: Expr) -> str:
        return " @ ".join(self.operand(a) for a in e.args)

    def operand(self, a: Expr) -> str:
        return self.wrap(a, _FACTOR)

    def op_div(self, e: Expr) -> str:
        return f"\\frac{{{self.write(e.args[0])}}}{{{self.write(e.args[1])}}}"

    def base(self, e: Expr) -> str:
        """Write what a script is put on."""
        plain = e.op in ("number", "call", "norm", "abs", "matrix", "concat", "tuple", "expect",
                         "var", "sqrt") or e in self.plain  # fmt: skip
        if e.op == "name":
            _, _, sup = _split_name(str(e.value))
            plain = not sup and "′" not in str(e.value) and str(e.value) not in ("e", "ℝ", "ⅈ")
        if e.op == "call" and e.value in ("exp", "ℝ", "factorial", "percent"):
            plain = e.value == "exp"
        if e.op == "number" and "/" in _decimal(e.value):
            plain = False
        text = self.write(e)
        return text if plain else f"\\left({text}\\right)"

    def op_pow(self, e: Expr) -> str:
        power = self.write(e.args[1])
        minus_one = power == "-1"
        label = e.args[0].op == "name" and e.args[1].op == "name"
        if minus_one or (label and re.fullmatch(r"[A-Z]", power)):
            power = f"{{({power})}}" if minus_one else power
        base = self.base(e.args[0])
        if e.args[1].op in ("name", "mul") and e.args[0].op == "name":
            base = f"\\left({base}\\right)"
        elif e.args[1].op == "name":
            power = f"{{{power}}}"
        return f"{base}^{{{power}}}"

    def op_transpose(self, e: Expr) -> str:
        return f"{self.base(e.args[0])}^{{\\top}}"

    def op_inverse(self, e: Expr) -> str:
        return f"{self.base(e.args[0])}^{{-1}}"

    def op_sqrt(self, e: Expr) -> str:
        degree = f"[{self.write(e.args[1])}]" if len(e.args) > 1 else ""
        return f"\\sqrt{degree}{{{self.write(e.args[0])}}}"

    def arguments(self, args: tuple[Expr, ...], opening: str = "(", closing: str = ")") -> str:
        inside = ", ".join(self.write(a) for a in args)
        return f"\\left{opening}{inside}\\right{closing}"

    def op_call(self, e: Expr) -> str:
        name, args = str(e.value), e.args
        if name == "ℝ":
            dims = r" \times ".join(self.wrap(a, _NEG) for a in args)
            return f"\\mathbb{{R}}^{{{dims}}}"
        if name in ("factorial", "percent"):
            return self.base(args[0]) + {"factorial": "!", "percent": r"\%"}[name]
        if name == "binom":
            return f"\\binom{{{self.write(args[0])}}}{{{self.write(args[1])}}}"
        if name == "det" and args[0].op == "matrix":
            return self.op_matrix(args[0]).replace("bmatrix", "vmatrix")
        if name in _DELIMITED and (name != "set" or len(args) > 1):
            opening, closing = (_LATEX_DELIMITERS[d] for d in _DELIMITED[name])
            return self.arguments(args, opening, closing)
        if name == "∇":
            return f"\\nabla {self.wrap(args[0], _POSTFIX)}"
        scripts = ""
        positional = tuple(a for a in args if a.op != "keyword" or a.value not in ("base", "over"))
        for keyword in args:
            if keyword not in positional:
                scripts += f"_{{{', '.join(self.write(a) for a in keyword.args)}}}"
        if name in _COMMAND_CALLS:
            head = f"\\{name}"
        else:
            base, sub, sup = _split_name(name)
            if base in CALL_LETTERS:
                head = self.name(name)
            elif len(base) == 1 or sub or sup:
                head = f"\\operatorname{{{base}}}" if base.isascii() else self.symbol(base)
                head += f"_{{{self.label(sub, False)}}}" if sub else ""
                head += f"^{{{self.label(sup, False)}}}" if sup else ""
            else:
                head = f"\\operatorname{{{name}}}"
        return head + scripts + self.arguments(positional)

    def op_big(self, e: Expr) -> str:
        kind, variable = e.value
        sign = (
            "\\" + kind
            if kind in ("sum", "prod", "max", "min", "sup", "inf")
            else (f"\\operatorname{{{kind}}}")
        )
        scripts = f"_{{{self.name(variable)}}}" if variable else ""
        if len(e.args) == 2:
            scripts = f"_{{{self.write(e.args[1])}}}"
        elif len(e.args) == 3:
            scripts = f"_{{{self.name(variable)} = {self.write(e.args[1])}}}"
            scripts += f"^{{{self.write(e.args[2])}}}"
        body = e.args[0]
        text = self.write(body) if body.op == "big" else self.wrap(body, _PRODUCT)
        return f"{sign}{scripts} {text}"

    def op_index(self, e: Expr) -> str:
        inside = ", ".join(self.write(a) for a in e.args[1:])
        base = e.args[0]
        if e not in self.plain:
            return f"\\left({self.write(base)}\\right)_{{{inside}}}"
        if base.op == "name":
            first, _, sup = _split_name(str(base.value))
            label = f"^{{{sup}}}" if sup else ""
            if sup:
                label = self.name(str(base.value)).removeprefix(self.symbol(first))
            return f"{self.symbol(first)}_{{{inside}}}{label}"
        return f"\\left({self.write(base)}\\right)_{{{inside}}}"

    def op_norm(self, e: Expr) -> str:
        order = f"_{{{e.value}}}" if e.value else ""
        order = order.replace("∞", r"\infty")
        return f"\\left\\lVert {self.write(e.args[0])} \\right\\rVert{order}"

    def op_abs(self, e: Expr) -> str:
        return f"\\left\\lvert {self.write(e.args[0])} \\right\\rvert"

    def op_expect(self, e: Expr) -> str:
        under = f"_{{{self.write(e.args[1])}}}" if len(e.args) > 1 else ""
        return f"\\mathbb{{E}}{under}\\left[{self.write(e.args[0])}\\right]"

    def op_var(self, e: Expr) -> str:
        if len(e.args) > 1:
            under = f"_{{{self.write(e.args[1])}}}"
            return f"\\mathbb{{V}}{under}\\left[{self.write(e.args[0])}\\right]"
        return f"\\operatorname{{Var}}\\left({self.write(e.args[0])}\\right)"

    def op_concat(self, e: Expr) -> str:
        return "\\operatorname{Concat}" + self.arguments(e.args)

    def op_matrix(self, e: Expr) -> str:
        _, columns = e.value
        cells = [self.write(a) for a in e.args]
        rows = [" & ".join(cells[i : i + columns]) for i in range(0, len(cells), columns)]
        return "\\begin{bmatrix} " + r" \\ ".join(rows) + " \\end{bmatrix}"

    def op_cases(self, e: Expr) -> str:
        rows = []
        for value, condition in zip(e.args[::2], e.args[1::2]):
            rows.append(f"{self.write(value)} & {self.write(condition)}")
        return "\\begin{cases} " + r" \\ ".join(rows) + " \\end{cases}"

    def op_partial(self, e: Expr) -> str:
        return f"\\frac{{\\partial {self.wrap(e.args[0], _FACTOR)}}}{{\\partial {self.wrap(e.args[1], _FACTOR)}}}"  # noqa: E501

    def op_relation(self, e: Expr) -> str:
        return self.signed(e.args, (e.value,))

    def op_chain(self, e: Expr) -> str:
        return self.signed(e.args, e.value)

    def signed(self, args: tuple[Expr, ...], signs: tuple[str, ...]) -> str:
        out = self.wrap(args[0], _SUM)
        for sign, arg in zip(signs, args[1:]):
            command = _RELATION_COMMANDS.get(sign)
            spelled = sign if sign in "=<>" or command is None else "\\" + command
            out += f" {spelled} {self.wrap(arg, _SUM)}"
        return out

    def op_tuple(self, e: Expr) -> str:
        return self.arguments(e.args)

    def op_steps(self, e: Expr) -> str:
        lines = []
        for connector, arg in zip(e.value, e.args):
            lines.append((f"\\text{{{connector} }} " if connector else "") + self.write(arg))
        return "\\begin{aligned} " + r" \\ ".join(lines) + " \\end{aligned}"

    def op_keyword(self, e: Expr) -> str:
        return f"\\mathrm{{{e.value}}} = {self.write(e.args[0])}"

    def op_given(self, e: Expr) -> str:
        rest = ", ".join(self.write(a) for a in e.args[1:])
        return f"{self.wrap(e.args[0], _SUM)} \\mid {rest}"

    def op_ellipsis(self, e: Expr) -> str:
        return r"\ldots"


def to_latex(expr: Expr) -> str:
    r"""Write a tree as canonical LaTeX.

    Parameters
    ----------
    expr : Expr
        The tree.

    Returns
    -------
    str
        LaTeX that `parser.parse` reads as `expr` again.

    Examples
    --------
    >>> from minitransformer.verify.parser import parse
    >>> to_latex(parse("softmax(QKᵀ/√dₖ)V")[0].expr)
    '\\operatorname{softmax}\\left(\\frac{Q K^{\\top}}{\\sqrt{d_{k}}}\\right) V'
    """
    return _Latex(expr).write(expr)


# -- Unicode ------------------------------------------------------------------------------
def _small(text: str, table: dict[str, str], mark: str) -> str:
    if text and all(c in table for c in text):
        return "".join(table[c] for c in text)
    return f"{mark}{text}" if re.fullmatch(r"[^\W_]+", text) else f"{mark}({text})"


class _Unicode:
    def wrap(self, e: Expr, level: int) -> str:
        mine = _PRODUCT if e.op == "div" else _level(e)
        if e.op == "name" and "^" in str(e.value) and level == _ATOM:
            mine = _POSTFIX
        text = self.write(e)
        return f"({text})" if mine < level else text

    def write(self, e: Expr) -> str:
        args, w = e.args, self.wrap
        if e.op == "number":
            return _decimal(e.value)
        if e.op == "name":
            return self.name(str(e.value))
        if e.op == "add":
            out = ""
            for position, arg in enumerate(args):
                minus = arg.op == "neg" and position
                text = w(arg.args[0] if minus else arg, _PRODUCT if minus else _NEG)
                out += (" − " if minus else " + " if position else "") + text
            return out
        if e.op == "neg":
            return f"−{w(args[0], _PRODUCT)}"
        if e.op == "mul":
            return self.product(e)
        if e.op in ("hadamard", "matmul"):
            sign = " ⊙ " if e.op == "hadamard" else " @ "
            return sign.join(w(a, _FACTOR) for a in args)
        if e.op == "div":
            return f"{w(args[0], _PRODUCT)} / {w(args[1], _FACTOR)}"
        if e.op == "pow":
            power = self.write(args[1]).replace("−", "-")
            return w(args[0], _ATOM) + _small(power, _SCRIPT_UP, "^")
        if e.op == "transpose":
            return w(args[0], _ATOM) + "ᵀ"
        if e.op == "inverse":
            return w(args[0], _ATOM) + "⁻¹"
        if e.op == "sqrt":
            root = {2: "√"}.get(int(args[1].value), "") if len(args) > 1 and (
                args[1].op == "number") else ""  # fmt: skip
            if len(args) > 1 and not root:
                return f"root({self.write(args[0])}, {self.write(args[1])})"
            simple = args[0].op in ("name", "number")
            return "√" + (self.write(args[0]) if simple else f"({self.write(args[0])})")
        if e.op == "call":
            return self.call(e)
        if e.op == "big":
            kind, variable = e.value
            sign = _BIG_SIGNS.get(kind, kind)
            under = f"_{variable}" if variable else ""
            if len(args) == 2:
                under = f"_({self.write(args[1])})"
            if len(args) == 3:
                under = f"_({variable}={self.write(args[1])}..{self.write(args[2])})"
            return f"{sign}{under} {w(args[0], _PRODUCT)}"
        if e.op == "index":
            return f"{w(args[0], _POSTFIX)}[{', '.join(self.write(a) for a in args[1:])}]"
        if e.op == "norm":
            order = _small(str(e.value), _SCRIPT_DOWN, "_") if e.value else ""
            return f"‖{self.write(args[0])}‖{order}"
        if e.op == "abs":
            return f"|{self.write(args[0])}|"
        if e.op in ("expect", "var"):
            under = f"_({self.write(args[1])})" if len(args) > 1 else ""
            return f"{'𝔼' if e.op == 'expect' else 'Var'}{under}[{self.write(args[0])}]"
        if e.op == "concat":
            return f"[{'; '.join(self.write(a) for a in args)}]"
        if e.op == "matrix":
            columns = e.value[1]
            cells = [self.write(a) for a in args]
            rows = [", ".join(cells[i : i + columns]) for i in range(0, len(cells), columns)]
            return rows_in_brackets(rows)
        if e.op == "cases":
            pairs = zip(args[::2], args[1::2])
            return "{" + "; ".join(f"{self.write(v)} if {self.write(c)}" for v, c in pairs) + "}"
        if e.op == "partial":
            return f"∂{w(args[0], _POSTFIX)}/∂{w(args[1], _POSTFIX)}"
        if e.op in ("relation", "chain"):
            signs = (e.value,) if e.op == "relation" else e.value
            out = w(args[0], _SUM)
            for sign, arg in zip(signs, args[1:]):
                out += f" {sign} {w(arg, _SUM)}"
            return out
        if e.op == "tuple":
            return f"({', '.join(self.write(a) for a in args)})"
        if e.op == "steps":
            return "; ".join(f"{c} {self.write(a)}".strip() for c, a in zip(e.value, args))
        if e.op == "keyword":
            return f"{e.value}={', '.join(self.write(a) for a in args)}"
        if e.op == "given":
            return f"{self.write(args[0])} | {', '.join(self.write(a) for a in args[1:])}"
        if e.op == "ellipsis":
            return "…"
        raise ValueError(f"no way to print the operator {e.op!r}")

    def name(self, text: str) -> str:
        base, sub, sup = _split_name(text)
        if sub:
            base += _small(sub, _SCRIPT_DOWN, "_") if len(sub) == 1 else f"_{sub}"
        return base + (f"^{sup}" if sup else "")

    def product(self, e: Expr) -> str:
        out = ""
        for position, arg in enumerate(e.args):
            text = self.wrap(arg, _FACTOR)
            letters = (
                position
                and re.fullmatch(r"[^\W\d_][ᵀ⁻¹₀-₉²³]*", text)
                and re.fullmatch(r"[^\W\d_][ᵀ⁻¹₀-₉²³]*", out[-2:].strip() or "·")
            )
            counted = position == 1 and e.args[0].op == "number" and text[0].isalpha()
            counted = counted and arg.op in ("name", "pow", "index")
            out += ("" if not position or letters or counted else " · ") + text
        return out

    def call(self, e: Expr) -> str:
        name = str(e.value)
        if name == "ℝ":
            return "ℝ^(" + " × ".join(self.wrap(a, _PRODUCT) for a in e.args) + ")"
        if name in _DELIMITED and (name != "set" or len(e.args) > 1):
            opening, closing = _DELIMITED[name]
            return opening + ", ".join(self.write(a) for a in e.args) + closing
        if name in ("factorial", "percent"):
            return self.wrap(e.args[0], _ATOM) + {"factorial": "!", "percent": "%"}[name]
        return f"{self.name(name)}({', '.join(self.write(a) for a in e.args)})"


def rows_in_brackets(rows: list[str]) -> str:
    """Join rows of a matrix; one row needs one pair of brackets."""
    if len(rows) == 1:
        return f"[{rows[0]}]"
    return "[" + ", ".join(f"[{row}]" for row in rows) + "]"


def to_unicode(expr: Expr) -> str:
    r"""Write a tree as one line of Unicode, every product and call explicit.

    Examples
    --------
    >>> from minitransformer.verify.parser import parse
    >>> to_unicode(parse(r"\frac{QK^T}{\sqrt{d_k}} V")[0].expr)
    '(QKᵀ / √dₖ) · V'
    """
    return _Unicode().write(expr)


# -- MathML -------------------------------------------------------------------------------
class _MathML:
    def __init__(self, mark: Callable[[Expr], bool]) -> None:
        self.mark = mark

    @staticmethod
    def tag(tag: str, *children: str, **attributes: str) -> str:
        given = "".join(f' {k}="{html.escape(v)}"' for k, v in attributes.items())
        return f"<{tag}{given}>{''.join(children)}</{tag}>"

    def mo(self, text: str, **attributes: str) -> str:
        return self.tag("mo", html.escape(text), **attributes)

    def mi(self, text: str) -> str:
        if len(text) > 1 and not unicodedata.combining(text[1]):
            return self.tag("mi", html.escape(text), mathvariant="normal")
        return self.tag("mi", html.escape(text))

    def row(self, *children: str) -> str:
        return children[0] if len(children) == 1 else self.tag("mrow", *children)

    def fenced(self, inside: str, opening: str = "(", closing: str = ")") -> str:
        return self.tag("mrow", self.mo(opening), inside, self.mo(closing))

    def wrap(self, e: Expr, level: int) -> str:
        text = self.write(e)
        return self.fenced(text) if _level(e) < level else text

    def commas(self, args: tuple[Expr, ...]) -> str:
        out: list[str] = []
        for arg in args:
            out += ([self.mo(",")] if out else []) + [self.write(arg)]
        return self.row(*out) if out else self.tag("mrow")

    def write(self, e: Expr) -> str:
        text = self.plain(e)
        if self.mark(e):
            return self.tag("mrow", text, **{"class": "marked"})
        return text

    def scripted(self, base: str, sub: str, sup: str) -> str:
        if sub and sup:
            return self.tag("msubsup", base, sub, sup)
        if sub:
            return self.tag("msub", base, sub)
        return self.tag("msup", base, sup) if sup else base

    def name(self, text: str) -> str:
        base, sub, sup = _split_name(text)
        return self.scripted(self.mi(base), self.mi(sub) if sub else "",
                             self.mi(sup) if sup else "")  # fmt: skip

    def joined(self, args: tuple[Expr, ...], sign: str, level: int) -> str:
        out: list[str] = []
        for arg in args:
            out += ([self.mo(sign)] if out else []) + [self.wrap(arg, level)]
        return self.tag("mrow", *out)

    def plain(self, e: Expr) -> str:
        args, w, tag, mo = e.args, self.wrap, self.tag, self.mo
        if e.op == "number":
            return tag("mn", _decimal(e.value))
        if e.op == "name":
            return self.name(str(e.value))
        if e.op == "add":
            out: list[str] = []
            for position, arg in enumerate(args):
                minus = arg.op == "neg" and position and not self.mark(arg)
                if position:
                    out.append(mo("−" if minus else "+"))
                out.append(w(arg.args[0], _PRODUCT) if minus else w(arg, _NEG))
            return tag("mrow", *out)
        if e.op == "neg":
            return tag("mrow", mo("−"), w(args[0], _PRODUCT))
        if e.op in ("mul", "hadamard", "matmul"):
            sign = {"mul": "\u2062", "hadamard": "⊙", "matmul": "\u2062"}[e.op]
            return self.joined(args, sign, _FACTOR)
        if e.op == "div":
            return tag("mfrac", self.write(args[0]), self.write(args[1]))
        if e.op == "pow":
            return tag("msup", w(args[0], _ATOM), self.write(args[1]))
        if e.op == "transpose":
            return tag("msup", w(args[0], _ATOM), mo("⊤"))
        if e.op == "inverse":
            return tag("msup", w(args[0], _ATOM), tag("mrow", mo("−"), tag("mn", "1")))
        if e.op == "sqrt":
            if len(args) > 1:
                return tag("mroot", self.write(args[0]), self.write(args[1]))
            return tag("msqrt", self.write(args[0]))
        if e.op == "call":
            return self.call(e)
        if e.op == "big":
            return self.big(e)
        if e.op == "index":
            return tag("msub", w(args[0], _POSTFIX), self.commas(args[1:]))
        if e.op == "norm":
            inside = self.fenced(self.write(args[0]), "‖", "‖")
            return self.scripted(inside, self.mi(str(e.value)) if e.value else "", "")
        if e.op == "abs":
            return self.fenced(self.write(args[0]), "|", "|")
        if e.op in ("expect", "var"):
            head = self.mi("𝔼" if e.op == "expect" else "Var")
            if len(args) > 1:
                head = tag("msub", head, self.write(args[1]))
            return tag("mrow", head, self.fenced(self.write(args[0]), "[", "]"))
        if e.op == "concat":
            return tag("mrow", self.mi("Concat"), self.fenced(self.commas(args)))
        if e.op == "matrix":
            columns = e.value[1]
            cells = [tag("mtd", self.write(a)) for a in args]
            rows = [tag("mtr", *cells[i : i + columns]) for i in range(0, len(cells), columns)]
            return self.fenced(tag("mtable", *rows), "[", "]")
        if e.op == "cases":
            rows = [
                tag("mtr", tag("mtd", self.write(v)), tag("mtd", self.write(c)))
                for v, c in zip(args[::2], args[1::2])
            ]
            return tag("mrow", mo("{"), tag("mtable", *rows))
        if e.op == "partial":
            parts = [tag("mrow", mo("∂"), w(a, _FACTOR)) for a in args]
            return tag("mfrac", *parts)
        if e.op in ("relation", "chain"):
            signs = (e.value,) if e.op == "relation" else e.value
            out = [w(args[0], _SUM)]
            for sign, arg in zip(signs, args[1:]):
                out += [mo(sign), w(arg, _SUM)]
            return tag("mrow", *out)
        if e.op == "tuple":
            return self.fenced(self.commas(args))
        if e.op == "steps":
            rows = []
            for connector, arg in zip(e.value, args):
                word = tag("mtext", html.escape(connector) + "\u00a0") if connector else ""
                rows.append(tag("mtr", tag("mtd", word, self.write(arg))))
            return tag("mtable", *rows)
        if e.op == "keyword":
            return tag("mrow", self.mi(str(e.value)), mo("="), self.commas(args))
        if e.op == "given":
            return tag("mrow", self.write(args[0]), mo("|"), self.commas(args[1:]))
        if e.op == "ellipsis":
            return mo("…")
        raise ValueError(f"no way to print the operator {e.op!r}")

    def call(self, e: Expr) -> str:
        name = str(e.value)
        if name == "ℝ":
            return self.tag("msup", self.mi("ℝ"), self.joined(e.args, "×", _FACTOR))
        if name == "exp" and len(e.args) == 1:
            return self.tag("msup", self.mi("e"), self.write(e.args[0]))
        if name in _DELIMITED and (name != "set" or len(e.args) > 1):
            return self.fenced(self.commas(e.args), *_DELIMITED[name])
        if name in ("factorial", "percent"):
            sign = {"factorial": "!", "percent": "%"}[name]
            return self.tag("mrow", self.wrap(e.args[0], _ATOM), self.mo(sign))
        head = self.name(name)
        unders = [a for a in e.args if a.op == "keyword" and a.value in ("base", "over")]
        rest = tuple(a for a in e.args if a not in unders)
        if unders:
            head = self.tag("msub", head, self.commas(unders[0].args))
        return self.tag("mrow", head, self.mo("\u2061"), self.fenced(self.commas(rest)))

    def big(self, e: Expr) -> str:
        kind, variable = e.value
        sign = self.mo(_BIG_SIGNS[kind]) if kind in _BIG_SIGNS else self.mi(kind)
        under = self.mi(variable) if variable else ""
        if len(e.args) == 2:
            under = self.write(e.args[1])
        if len(e.args) == 3:
            under = self.tag("mrow", self.mi(variable), self.mo("="), self.write(e.args[1]))
            sign = self.tag("munderover", sign, under, self.write(e.args[2]))
        elif under:
            sign = self.tag("munder", sign, under)
        return self.tag("mrow", sign, self.wrap(e.args[0], _PRODUCT))


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
            target = min(covering, key=lambda e: (e.span[1] - e.span[0], _size(e)))
    identical = target is not None and any(e is target for e in expr.walk())

    def marked(node: Expr) -> bool:
        return node is target if identical else target is not None and node == target

    kind = "block" if display else "inline"
    body = _MathML(marked).write(expr)
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="{kind}">{body}</math>'


def _size(expr: Expr) -> int:
    return sum(1 for _ in expr.walk())
