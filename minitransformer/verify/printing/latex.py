"""Trees to canonical LaTeX, which the parser reads back as the same tree."""

from __future__ import annotations

import re

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser import CALL_LETTERS, LABELLED, index_closure
from minitransformer.verify.printing.printer import (
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
_LATEX_DELIMITERS = {
    "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "{": r"\{", "}": r"\}",
}  # fmt: skip
_SIGNS = {"hadamard": r" \odot ", "matmul": " @ "}


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


class _Latex(Printer):
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
        first, sub, _ = split_name(str(base.value))
        return ("" if sub else first), tuple(letters), computes

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
        base, sub, sup = split_name(text)
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

    def op_number(self, e: Expr) -> str:
        text = decimal(e.value)
        if "/" in text:
            top, bottom = text.split("/")
            return f"\\frac{{{top}}}{{{bottom}}}"
        return text

    def op_add(self, e: Expr) -> str:
        out = ""
        for position, arg in enumerate(e.args):
            if arg.op == "neg" and position:
                out += f" - {self.wrap(arg.args[0], PRODUCT)}"
            else:
                # A sum that is not last would swallow the terms that use its index.
                text = self.wrap(arg, NEG)
                if self.ends_big(arg) and position + 1 < len(e.args):
                    text = f"\\left({self.write(arg)}\\right)"
                out += (" + " if position else "") + text
        return out

    def ends_big(self, e: Expr) -> bool:
        while e.op in ("mul", "neg", "hadamard", "matmul"):
            e = e.args[-1]
        return e.op == "big"

    def op_neg(self, e: Expr) -> str:
        return f"-{self.wrap(e.args[0], PRODUCT)}"

    def op_mul(self, e: Expr) -> str:
        out = ""
        for position, arg in enumerate(e.args):
            # A sum in last place needs no parentheses; a product in a product does.
            last_big = arg.op == "big" and position == len(e.args) - 1
            text = self.write(arg) if last_big else self.wrap(arg, FACTOR)
            if position:
                plain = text[0].isalpha() or re.match(
                    r"\\(?!left|begin|sum|prod|mathbb|lVert|lvert)", text)  # fmt: skip
                out += " " if plain and text[:1] != "(" else r" \cdot "
            out += text
        return out

    def op_div(self, e: Expr) -> str:
        return f"\\frac{{{self.write(e.args[0])}}}{{{self.write(e.args[1])}}}"

    def base(self, e: Expr) -> str:
        """Write what a script is put on."""
        plain = e.op in ("number", "call", "norm", "abs", "matrix", "concat", "tuple", "expect",
                         "var", "sqrt") or e in self.plain  # fmt: skip
        if e.op == "name":
            _, _, sup = split_name(str(e.value))
            plain = not sup and "′" not in str(e.value) and str(e.value) not in ("e", "ℝ", "ⅈ")
        if e.op == "call" and e.value in ("exp", "ℝ", "factorial", "percent"):
            plain = e.value == "exp"
        if e.op == "number" and "/" in decimal(e.value):
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
            dims = r" \times ".join(self.wrap(a, NEG) for a in args)
            return f"\\mathbb{{R}}^{{{dims}}}"
        if name in MARKS:
            return self.base(args[0]) + MARKS[name].replace("%", r"\%")
        if name == "binom":
            return f"\\binom{{{self.write(args[0])}}}{{{self.write(args[1])}}}"
        if name == "det" and args[0].op == "matrix":
            return self.op_matrix(args[0]).replace("bmatrix", "vmatrix")
        between = delimiters(e)
        if between is not None:
            return self.arguments(args, *(_LATEX_DELIMITERS[d] for d in between))
        if name == "∇":
            return f"\\nabla {self.wrap(args[0], POSTFIX)}"
        scripts = ""
        positional = tuple(a for a in args if a.op != "keyword" or a.value not in ("base", "over"))
        for keyword in args:
            if keyword not in positional:
                scripts += f"_{{{', '.join(self.write(a) for a in keyword.args)}}}"
        if name in _COMMAND_CALLS:
            head = f"\\{name}"
        else:
            base, sub, sup = split_name(name)
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
        text = self.write(body) if body.op == "big" else self.wrap(body, PRODUCT)
        return f"{sign}{scripts} {text}"

    def op_index(self, e: Expr) -> str:
        inside = ", ".join(self.write(a) for a in e.args[1:])
        base = e.args[0]
        if e not in self.plain:
            return f"\\left({self.write(base)}\\right)_{{{inside}}}"
        if base.op == "name":
            first, _, sup = split_name(str(base.value))
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
        rows = [" & ".join(row) for row in table(e, [self.write(a) for a in e.args])]
        return "\\begin{bmatrix} " + r" \\ ".join(rows) + " \\end{bmatrix}"

    def op_cases(self, e: Expr) -> str:
        rows = []
        for value, condition in zip(e.args[::2], e.args[1::2]):
            rows.append(f"{self.write(value)} & {self.write(condition)}")
        return "\\begin{cases} " + r" \\ ".join(rows) + " \\end{cases}"

    def op_partial(self, e: Expr) -> str:
        what, by = (f"\\partial {self.wrap(a, FACTOR)}" for a in e.args)
        return f"\\frac{{{what}}}{{{by}}}"

    def signed(self, args: tuple[Expr, ...], signs: tuple[str, ...]) -> str:
        out = self.wrap(args[0], SUM)
        for sign, arg in zip(signs, args[1:]):
            command = _RELATION_COMMANDS.get(sign)
            spelled = sign if sign in "=<>" or command is None else "\\" + command
            out += f" {spelled} {self.wrap(arg, SUM)}"
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
        return f"{self.wrap(e.args[0], SUM)} \\mid {rest}"

    def op_ellipsis(self, e: Expr) -> str:
        return r"\ldots"

    def parenthesised(self, text: str) -> str:
        return f"\\left({text}\\right)"

    def joined(self, args: tuple[Expr, ...], sign: str, level: int) -> str:
        return _SIGNS[sign].join(self.wrap(a, level) for a in args)
