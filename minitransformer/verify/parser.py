"""Formula text to trees: one tree per reading, each with a note that says how it was read.

A Pratt parser over the tokens of `tokenizer`. From loose to tight: statements, relations,
sums, ``· × / ⊙ ∘``, juxtaposition, scripts. Text with Python's marks (``@``, ``.T``, ``**``,
``np.``) goes to `python_formula`. Whatever can be read in two ways is read in both; whatever
cannot be read is a `CannotParse` with its span.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from minitransformer.verify.expression import Expr, number
from minitransformer.verify.python_formula import (
    library_of,
    looks_like_python,
    parse_python,
    reads_both_ways,
)
from minitransformer.verify.tokenizer import (
    FUNCTIONS,
    CannotParse,
    Choices,
    Macro,
    Span,
    Token,
    canonical_function,
    is_connector,
    styled,
    tokenize,
)

__all__ = ["CannotParse", "Macro", "Reading", "index_closure", "parse"]

MAX_NESTING = 40  # groups inside groups
MAX_TREE_DEPTH = 120
MAX_READINGS = 8

# Names whose subscript is a label whatever the formula sums over.
LABELLED = frozenset(
    [
        "d_k",
        "d_v",
        "d_q",
        "d_h",
        "d_model",
        "d_ff",
        "d_head",
        "d_e",
        "n_k",
        "n_q",
        "n_h",
        "n_heads",
        "d_m",
        "d_in",
        "d_out",
        "d_c",
        "d_r",
    ]
)
# Letters that act as functions before a parenthesis.
CALL_LETTERS = frozenset("fghpPEFGOℒ𝒪𝒩σφψΦΨΓδζ")
_LABEL_CAPITALS = frozenset("QKVO")
_BIG_KINDS = {"max": "max", "min": "min", "sup": "sup", "inf": "inf",
              "argmax": "argmax", "argmin": "argmin", "mean": "mean"}  # fmt: skip
_CLOSING = {
    "(": ")",
    "[": "]",
    "{": "}",
    "⟨": "⟩",
    "⌊": "⌋",
    "⌈": "⌉",
    "|": "|",
    "‖": "‖",
    ".": ".",
}
_GROUP_COMMANDS = {"frac": 2, "sqrt": 1, "binom": 2, "overset": 2, "underset": 2, "stackrel": 2}
_TRIGONOMETRIC = {"sin", "cos", "tan", "sinh", "cosh", "tanh"}
# Functions that people write without parentheses, also in plain text.
_REACHING = _TRIGONOMETRIC | {"log", "exp", "softmax", "sigmoid", "relu", "gelu", "erf", "trace"}
_STEPS = {"aligned", "align", "align*", "split", "gather", "gather*", "gathered", "multline",
          "multline*", "equation", "equation*", "eqnarray", "eqnarray*", "alignat", "alignat*",
          "displaymath", "math", "alignedat", "flalign", "flalign*"}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """One way to read a formula.

    Parameters
    ----------
    expr : Expr
        The tree.
    note : str
        What was decided where the text leaves a choice; empty where it leaves none.
    """

    expr: Expr
    note: str = ""


@dataclass
class _Facts:
    """What a first pass over the whole formula found, for the second."""

    bound: set[str] = field(default_factory=set)  # variables of sums
    subscripts: list[tuple[str, tuple[str, ...], bool]] = field(default_factory=list)
    forced_letters: set[str] = field(default_factory=set)  # used as an index for certain
    bare: set[str] = field(default_factory=set)  # names that stand without arguments
    called: set[str] = field(default_factory=set)  # names on the left of f(x) = ...
    fonts: dict[str, set[str]] = field(default_factory=dict)
    index_letters: frozenset[str] = frozenset()


def index_closure(
    subscripts: Iterable[tuple[str, tuple[str, ...], bool]], letters: Iterable[str]
) -> frozenset[str]:
    """Return the letters that are indices, from the ones known to be.

    A base with one index among its subscripts has only indices there, so that
    `j` follows from `i` in ``e_{ij}``.

    Parameters
    ----------
    subscripts : iterable of (str, tuple of str, bool)
        Base, its subscript letters, and whether the subscript computes (``t-1``, ``2i``).
    letters : iterable of str
        Bound variables.
    """
    known = set(letters)
    pairs = [(base, subs, computes) for base, subs, computes in subscripts]
    grown = True
    while grown:
        grown = False
        for base, subs, computes in pairs:
            if any(f"{base}_{letter}" in LABELLED for letter in subs):
                continue
            lower = {s for s in subs if len(s) == 1 and s.islower()}
            if (computes or known & set(subs)) and not lower <= known:
                known |= lower
                grown = True
    return frozenset(known)


def _joined(a: Span, b: Span) -> Span:
    return (min(a[0], b[0]), max(a[1], b[1]))


def _node(op: str, args: Sequence[Expr], value: object = None, span: Span | None = None) -> Expr:
    if span is None:
        span = args[0].span
        for arg in args[1:]:
            span = _joined(span, arg.span)
    return Expr(op, tuple(args), value, span)


def _product(factors: Sequence[Expr], op: str = "mul") -> Expr:
    return factors[0] if len(factors) == 1 else _node(op, factors)


class _Parser:
    def __init__(
        self,
        tokens: Sequence[Token],
        choices: Choices,
        facts: _Facts,
        found: _Facts,
        depth: int = 0,
        end: int = 0,
    ) -> None:
        self.tokens = tokens
        self.choices = choices
        self.facts = facts
        self.found = found
        self.depth = depth
        self.end = tokens[-1].span[1] if tokens else end
        self.pos = 0
        self.after_in = False  # right of ∈, where [a, b] is an interval
        self.bars: list[str] = []  # open | and ‖, and "(" for a call that may hold a |
        if depth > MAX_NESTING:
            raise CannotParse(f"more than {MAX_NESTING} groups inside each other", self.here())

    # -- tokens -----------------------------------------------------------------------
    def peek(self, ahead: int = 0) -> Token:
        index = self.pos + ahead
        if index < len(self.tokens):
            return self.tokens[index]
        return Token("end", "", (self.end, self.end))

    def take(self) -> Token:
        token = self.peek()
        self.pos += 1
        return token

    def at(self, kind: str, *texts: str) -> bool:
        token = self.peek()
        return token.kind == kind and (not texts or token.text in texts)

    def here(self) -> Span:
        return self.peek().span

    def child(self, tokens: Sequence[Token], end: int) -> _Parser:
        return _Parser(tokens, self.choices, self.facts, self.found, self.depth + 1, end)

    def fail(self, what: str) -> CannotParse:
        token = self.peek()
        found = "the formula ends" if token.kind == "end" else f"found {token.text!r}"
        return CannotParse(f"{what}: {found}", token.span)

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise CannotParse(f"more than {MAX_NESTING} groups inside each other", self.here())

    # -- statements -------------------------------------------------------------------
    def over(self) -> Expr | None:
        r"""Read ``a \over b``, TeX's own fraction of everything in a group."""
        depth = 0
        for position, token in enumerate(self.tokens):
            depth += (token.kind in ("open", "{")) - (token.kind in ("close", "}"))
            if depth == 0 and token.kind == "cmd" and token.text == "over":
                top = self.child(self.tokens[:position], token.span[0]).whole()
                bottom = self.child(self.tokens[position + 1 :], self.end).whole()
                self.pos = len(self.tokens)
                return _node("div", (top, bottom))
        return None

    def formula(self) -> Expr:
        """Parse everything: one expression, one relation, or several steps."""
        cut = self.over()
        if cut is not None:
            return cut
        items: list[Expr] = []
        connectors: list[str] = []
        connector = ""
        only_commas = True
        while self.peek().kind != "end":
            token = self.peek()
            if token.kind in ("comma", "semi", "newline", "quad", "&", "colon"):
                only_commas &= token.kind == "comma"
                self.take()
                continue
            if token.kind == "text" and is_connector(token.text):
                connector = self.take().text.strip(" ,.:;").lower()
                continue
            if token.kind == "rel" and items:
                items[-1] = self.relation(items[-1])
            else:
                if token.kind == "rel":
                    raise CannotParse(f"nothing stands left of {token.text}", token.span)
                items.append(self.relation())
                connectors.append(connector)
            connector = ""
            if self.peek().kind not in ("end", "comma", "semi", "newline", "quad", "&", "text",
                                        "colon"):  # fmt: skip
                raise self.fail("the expression should end here")
            if self.at("text") and not is_connector(self.peek().text):
                raise self.fail("text that joins nothing")
        if not items:
            raise CannotParse("no formula here", (0, self.end))
        if len(items) == 1 and not connectors[0]:
            return items[0]
        if (
            only_commas
            and not any(connectors)
            and not any(i.op in ("relation", "chain") for i in items)
        ):
            return _node("tuple", items)
        return _node("steps", items, tuple(connectors))

    def relation(self, left: Expr | None = None) -> Expr:
        """Parse ``a = b = c``, or go on with `left`."""
        parts, signs = [], []
        if left is None:
            left = self.left_side() or self.addition()
        elif left.op == "relation":
            parts, signs, left = [left.args[0]], [left.value], left.args[1]
        elif left.op == "chain":
            parts, signs, left = list(left.args[:-1]), list(left.value), left.args[-1]
        parts.append(left)
        while self.at("rel") or (self.at("&") and self.peek(1).kind == "rel"):
            if self.at("&"):
                self.take()
            sign = self.take()
            while self.at("&"):
                self.take()
            signs.append(sign.text)
            if self.peek().kind in ("end", "newline", "comma"):
                raise CannotParse(f"nothing stands right of {sign.text}", sign.span)
            self.after_in = sign.text == "∈"
            right = self.addition()
            self.after_in = False
            if (
                right.op == "mul"
                and len(right.args) == 3
                and right.args[1].op == "ellipsis"
                and (right.args[0].op == "number")
            ):  # i = 1 ... n
                right = replace(right, op="tuple")
            if self.at("comma") and self.peek(1).kind == "ellipsis":  # i = 1, ..., n
                items = [right]
                while self.at("comma"):
                    self.take()
                    items.append(self.addition())
                right = _node("tuple", items)
            parts.append(right)
        if not signs:
            return parts[0]
        if len(signs) == 1:
            return _node("relation", parts, signs[0])
        return _node("chain", parts, tuple(signs))

    def left_side(self) -> Expr | None:
        """Parse ``A(Q, K) =`` as a call, whatever letter A is; else nothing."""
        first = self.peek()
        if first.kind not in ("letter", "word"):
            return None
        index = self.pos + 1
        while index < len(self.tokens) and self.tokens[index].kind in ("_", "^"):
            index = self.skip_script(index + 1)
        if not (index < len(self.tokens) and self.tokens[index].kind == "open"
                and self.tokens[index].text in "(["):  # fmt: skip
            return None
        close = self.matching(index)
        if close is None or not (
            close + 1 < len(self.tokens) and self.tokens[close + 1].kind == "rel"
            and self.tokens[close + 1].text in "=≔≜≈∝≡"
        ):  # fmt: skip
            return None
        if first.kind == "letter" and not first.text.isalpha():
            return None
        start = self.pos
        left = self.postfix(force_call=True)
        if not self.at("rel"):
            self.pos = start
            return None
        return left

    def skip_script(self, index: int) -> int:
        """Return the position after the script that starts at `index`."""
        if index < len(self.tokens) and self.tokens[index].kind == "{":
            depth = 0
            while index < len(self.tokens):
                kind = self.tokens[index].kind
                depth += (kind == "{") - (kind == "}")
                index += 1
                if not depth:
                    return index
        return index + 1

    def matching(self, index: int) -> int | None:
        """Return the position of the delimiter that closes the one at `index`."""
        depth = 0
        for position in range(index, len(self.tokens)):
            kind = self.tokens[position].kind
            depth += (kind == "open") - (kind == "close")
            if depth == 0:
                return position
        return None

    # -- sums and products ------------------------------------------------------------
    def addition(self) -> Expr:
        """Parse ``a + b - c``."""
        self._deeper()
        terms: list[Expr] = []
        minus: Token | None = None
        if self.at("op", "+", "-"):
            minus = self.take()
        while True:
            term = self.term()
            if minus is not None and minus.text == "-":
                term = _node("neg", (term,), None, _joined(minus.span, term.span))
            terms.append(term)
            while self.at("newline") and self.continues():
                self.take()
            while self.at("&") and self.peek(1).kind == "op":
                self.take()
            if self.at("op", "±", "∓"):
                raise CannotParse(f"{self.peek().text} stands for two formulas", self.here())
            if self.at("op", "⊕"):
                minus = self.take()
                way = self.choices.pick("oplus", "⊕ adds", "⊕ concatenates")
                if way == 1:
                    right = self.term()
                    terms[-1] = _node("concat", (terms[-1], right))
                    minus = None
                    if not self.at("op", "+", "-", "⊕"):
                        break
                    minus = self.take()
                continue
            if not self.at("op", "+", "-"):
                break
            minus = self.take()
            while self.at("newline") or self.at("&"):
                self.take()
        self.depth -= 1
        return terms[0] if len(terms) == 1 else _node("add", terms)

    def continues(self) -> bool:
        """Whether the line after a newline goes on with + or - or a product sign."""
        index = 1
        while self.peek(index).kind in ("&", "newline"):
            index += 1
        return self.peek(index).kind == "op"

    def term(self) -> Expr:
        """Parse a product: juxtaposed factors joined by ``· × * / ⊙ ∘ ⊗ @``."""
        kind, parts = "mul", self.juxtaposed()
        while True:
            while self.at("newline") and self.continues() and self.product_sign_after():
                self.take()
            if not self.at("op", "·", "×", "*", "/", "⊙", "∘", "⊗", "@"):
                return _product(parts, kind)
            sign = self.take()
            while self.at("newline") or self.at("&"):
                self.take()
            if sign.text == "/":
                right = self.juxtaposed()
                left = _product(parts, kind)
                if len(right) > 1 and self._slash(left, right):
                    parts = [_node("div", (left, _product(right)))]
                else:
                    parts = [_node("div", (left, right[0])), *right[1:]]
                kind = "mul"
                continue
            new = "mul" if sign.text in "·×*" else "matmul" if sign.text == "@" else "hadamard"
            if sign.text == "⊗" and self.choices.pick(
                "otimes", "⊗ multiplies elementwise", "⊗ is the outer (Kronecker) product"
            ):
                left = _product(parts, kind)
                right_side = _product(self.juxtaposed())
                kind, parts = "mul", [_node("call", (left, right_side), "kron")]
                continue
            right = self.juxtaposed()
            if new != kind and len(parts) > 1:
                parts = [_product(parts, kind)]
            kind = new
            parts = parts + (right if new == "mul" else [_product(right)])

    def product_sign_after(self) -> bool:
        index = 1
        while self.peek(index).kind in ("&", "newline"):
            index += 1
        return self.peek(index).text not in "+-"

    def _slash(self, left: Expr, right: list[Expr]) -> bool:
        """Whether ``a/b c`` is a/(b c)."""
        tight = not any(
            self.tokens[i].spaced
            for i in range(self.pos)
            if right[1].span[0] == self.tokens[i].span[0]
        )
        whole, part = "a/bc is read as a/(bc)", "a/bc is read as (a/b)c"
        if tight:
            return self.choices.pick("slash", whole, part) == 0
        return self.choices.pick("slash spaced", part, whole) == 1

    def juxtaposed(self) -> list[Expr]:
        """Parse factors side by side."""
        if self.at("op", "-", "+"):  # a · -b
            self._deeper()
            sign = self.take()
            operand = _product(self.juxtaposed())
            self.depth -= 1
            if sign.text == "+":
                return [operand]
            return [_node("neg", (operand,), None, _joined(sign.span, operand.span))]
        factors = [self.postfix()]
        while self.starts_factor():
            token = self.peek()
            if token.kind == "number" and factors[-1].op == "number":
                raise CannotParse("two numbers side by side", token.span)
            factors.append(self.postfix())
        return factors

    def starts_factor(self) -> bool:
        token = self.peek()
        if token.kind in ("bar", "dbar"):
            if token.text in self.bars:
                return False
            return not (self.bars and self.bars[-1] == "(" and self.separates(token.kind))
        if token.kind == "text":
            return not is_connector(token.text)
        return token.kind in ("number", "letter", "word", "func", "big", "cmd", "accent", "begin",
                              "open", "{", "ellipsis", "root")  # fmt: skip

    def separates(self, kind: str) -> bool:
        """Whether the bar here stands alone up to the end of its group: ``p(y | x)``."""
        depth, bars = 0, 0
        for token in self.tokens[self.pos :]:
            depth += (token.kind in ("open", "{")) - (token.kind in ("close", "}"))
            if depth < 0:
                break
            bars += depth == 0 and token.kind == kind
        return bars % 2 == 1

    # -- scripts and calls ------------------------------------------------------------
    def postfix(self, force_call: bool = False) -> Expr:
        """Parse an atom with its scripts and arguments."""
        self._deeper()
        start = self.peek()
        if start.kind in ("letter", "word", "text", "accent"):
            node = self.named(force_call)
        else:
            node = self.atom()
        node = self.scripts(node)
        self.depth -= 1
        return node

    def script(self) -> tuple[list[Token], Span]:
        """Take the tokens of one script."""
        first = self.peek()
        start = self.pos
        if first.kind == "end":
            raise self.fail("a script is missing")
        if first.kind == "{":
            self.pos = self.skip_script(self.pos)
            if (
                self.pos > len(self.tokens)
                or self.tokens[self.pos - 1].kind != "}"
                or (self.pos == start + 1)
            ):
                raise CannotParse("a { is not closed", first.span)
            inside = list(self.tokens[start + 1 : self.pos - 1])
            return inside, (first.span[0], self.tokens[self.pos - 1].span[1])
        if first.kind == "open" and first.text == "(":
            close = self.matching(self.pos)
            if close is None:
                raise CannotParse("a ( is not closed", first.span)
            self.pos = close + 1
            return list(self.tokens[start : self.pos]), _joined(first.span, self.tokens[close].span)
        if first.kind == "op" and first.text in "+-" and self.peek(1).kind in ("number", "letter"):
            self.pos += 2
        elif first.kind == "cmd" and first.text in _GROUP_COMMANDS:
            self.pos += 1
            for _ in range(_GROUP_COMMANDS[first.text]):
                self.pos = self.skip_script(self.pos)
        elif first.kind == "accent" or (first.kind == "root"):
            self.pos = self.skip_script(self.pos + 1)
        elif first.kind in ("letter", "word", "text", "number", "func", "'", "ellipsis", "op"):
            self.pos += 1
        else:
            raise self.fail("not a script")
        self.pos = min(self.pos, len(self.tokens))
        return list(self.tokens[start : self.pos]), _joined(
            first.span, self.tokens[self.pos - 1].span
        )

    def raised(self) -> tuple[list[Token], Span]:
        """Take a superscript; ``x^(n+1)`` without braces groups, ``x^{(l)}`` labels."""
        tokens, span = self.script()
        if len(tokens) > 2 and tokens[0].kind == "open" and tokens[0].span[0] == span[0]:
            return tokens[1:-1], span
        return tokens, span

    def named(self, force_call: bool) -> Expr:
        """Parse a symbol with its sub- and superscripts, then its arguments if it takes some."""
        token = self.peek()
        if token.kind == "accent":
            base, span = self.accented()
            upright = len(base) > 2
            plain = False
        else:
            self.take()
            base, span = self.spelled(token), token.span
            upright = token.kind != "letter" or token.font == "upright"
            plain = not upright and token.font == ""
        if token.kind == "letter":
            if base == "∂":
                return self.partial_inline(span)
            if base == "∇":
                return self.gradient(span)
            if token.text == "i" and token.font == "upright":
                return Expr("name", (), "ⅈ", span)
            if (
                plain
                and base[0].isalpha()
                and not self.at("_")
                and self.peek().kind == "number"
                and (not self.peek().spaced and self.peek().text.isdigit() and self.adjacent())
            ):
                digits = self.take()  # W1, typed without the underscore
                base, span = f"{base}_{digits.text}", _joined(span, digits.span)
                self.found.bare.add(base)
                return self.maybe_call(Expr("name", (), base, span), base, upright, False)
        if (
            token.kind == "word"
            and base.lower() in FUNCTIONS
            and (
                self.takes_argument()
                or self.at("_")
                or (canonical_function(base) in _REACHING and self.starts_factor())
            )
        ):
            return self.function(canonical_function(base), span)
        if base[0] == "𝔼" or (
            base in ("E", "𝕍") and (self.at("open", "[") or self._script_then_bracket())
        ):
            return self.expectation("var" if base == "𝕍" else "expect", span)
        if token.kind == "letter" and base == "ℝ" and self.at("^"):
            return self.real_space(span)
        return self.subscripted(base, span, upright, plain, force_call)

    def adjacent(self) -> bool:
        return self.pos > 0 and self.tokens[self.pos - 1].span[1] == self.peek().span[0]

    def _script_then_bracket(self) -> bool:
        if not self.at("_"):
            return False
        after = self.skip_script(self.pos + 1)
        return after < len(self.tokens) and self.tokens[after].text == "["

    def spelled(self, token: Token) -> str:
        """Return the canonical spelling of a letter or a word."""
        if token.kind == "letter" and token.font in ("double", "script", "fraktur", "bold"):
            plain = token.text
            self.found.fonts.setdefault(plain, set()).add(token.font)
            if token.font == "bold" and "" not in self.facts.fonts.get(plain, ()):
                return plain
            return styled(plain[0], token.font) + plain[1:]
        if token.kind == "letter":
            self.found.fonts.setdefault(token.text, set()).add("")
        return token.text

    def accented(self) -> tuple[str, Span]:
        accent = self.take()
        tokens, span = self.script()
        if len(tokens) == 1 and tokens[0].kind in ("letter", "word"):
            text = self.spelled(tokens[0])
        elif tokens and tokens[0].kind == "accent":
            inner = self.child(tokens, span[1])
            text, _ = inner.accented()
        else:
            raise CannotParse("an accent over an expression", _joined(accent.span, span))
        return text + accent.text, _joined(accent.span, span)

    def subscripted(
        self, base: str, span: Span, upright: bool, plain: bool, force_call: bool
    ) -> Expr:
        """Read ``_`` and ``^`` after a name: a label, an index, a power or a transpose."""
        sub: tuple[list[Token], Span] | None = None
        sup: tuple[list[Token], Span] | None = None
        sup_first = False
        label = ""
        while True:
            if self.at("_") and sub is None:
                self.take()
                sub = self.script()
            elif self.at("^") and sup is None:
                mark = self.pos
                self.take()
                candidate = self.raised()
                exponential = base == "e" and sub is None and not self._transposes(candidate[0])
                if not exponential:
                    found = self._label(base, candidate[0], sub is not None)
                    if found is None:
                        self.pos = mark
                        break
                    label, rest = found
                    if rest:  # W^{QT}: a name, transposed
                        node = self.name_with(base, label, sub, span, force_call)
                        return _node("transpose", (node,), None, _joined(span, candidate[1]))
                sup, sup_first = candidate, sub is None
                if exponential:
                    break
            elif self.at("'") and self._prime_names(base):
                base += "′"
                span = _joined(span, self.take().span)
            else:
                break
        if base == "e" and sup is not None and sub is None and not label:
            return self.exponential(span, sup)
        del sup_first
        if sup is not None:
            span = _joined(span, sup[1])
        return self.name_with(base, label, sub, span, force_call, upright)

    def _prime_names(self, base: str) -> bool:
        """Whether the prime after a name makes another name, and does not transpose."""
        ahead = 1
        while self.peek(ahead).kind == "'":
            ahead += 1
        after = self.peek(ahead)
        if after.kind == "transpose" or ahead > 1 or (after.kind == "open" and after.text == "("):
            return True
        if after.kind == "^":
            inside = self.tokens[self.pos + ahead + 1 : self.pos + ahead + 3]
            if any(t.text in ("T", "⊤") for t in inside):
                return True
        as_transpose, as_name = "the prime transposes", "the prime makes another name"
        if base[0].isupper():
            return self.choices.pick("prime capital", as_transpose, as_name) == 1
        return self.choices.pick("prime small", as_name, as_transpose) == 0

    def exponential(self, span: Span, sup: tuple[list[Token], Span]) -> Expr:
        """Read ``e^x``, and the ``e^S_i`` that is typeset as (e^S)_i."""
        tokens, where = sup
        if self.at("_") and len(tokens) == 1:
            mark = self.pos
            underscore = self.take()
            sub, sub_span = self.script()
            meant = "e^S_i is read as e^{S_i}"
            typeset = "e^S_i is read as (e^S)_i, as it is typeset"
            if self.choices.pick("exponent subscript", meant, typeset) == 0:
                brace = Token("{", "{", underscore.span), Token("}", "}", sub_span)
                inner = [*tokens, underscore, brace[0], *sub, brace[1]]
                power = self.child(inner, sub_span[1]).whole()
                return Expr("call", (power,), "exp", _joined(span, sub_span))
            self.pos = mark
        power = self.child(tokens, where[1]).whole()
        return Expr("call", (power,), "exp", _joined(span, where))

    def whole(self) -> Expr:
        """Parse all tokens as one expression."""
        cut = self.over()
        if cut is not None:
            return cut
        node = self.addition()
        if self.peek().kind != "end":
            raise self.fail("the expression should end here")
        return node

    def _transposes(self, tokens: list[Token]) -> bool:
        return len(tokens) == 1 and tokens[0].text in ("⊤",)

    def _label(self, base: str, tokens: list[Token], indexed: bool) -> tuple[str, bool] | None:
        """Return the label in a superscript, and whether a transpose follows it."""
        if not tokens:
            raise CannotParse("an empty superscript", self.here())
        texts = [t.text for t in tokens]
        kinds = {t.kind for t in tokens}
        if texts in (["⊤"], ["T"], ["-", "1"], ["-", "T"], ["-", "⊤"]):
            return None
        if len(tokens) == 1:
            token = tokens[0]
            if token.kind in ("word", "text", "func"):
                return (token.text, False)
            if token.kind == "letter" and token.font == "upright" and token.text != "i":
                return (token.text, False)
            if token.text in ("*", "′", "+", "-", "†"):
                return ({"'": "′"}.get(token.text, token.text), False)
            if token.kind == "'":
                return ("′" * len(token.text), False)
            if token.text in _LABEL_CAPITALS and base[0].isupper() and token.kind == "letter":
                return (token.text, False)
            if indexed and token.text in "QKV" and token.kind == "letter":  # a_{ij}^K
                return (token.text, False)
            return None
        if kinds == {"'"}:
            return ("′" * len(tokens), False)
        if texts[0] == "(" and texts[-1] == ")" and len(texts) == 3:
            inner = tokens[1]
            if inner.kind in ("letter", "word", "number"):
                if inner.text in self.facts.index_letters:
                    return None
                self.found.bare.discard(inner.text)
                return (f"({inner.text})", False)
        if texts[0] + texts[-1] == "[]" and len(texts) == 3:  # the layer of W^{[l]}
            return (f"[{texts[1]}]", False)
        counted = any(t.kind == "number" for t in tokens) and kinds & {"op"} and kinds & {"letter"}
        if texts[0] + texts[-1] == "()" and counted and len(texts) == 5:  # h^{(l+1)}
            return ("".join(texts), False)
        transposed = texts[-1] in ("⊤", "T") and kinds == {"letter"} and len(texts) > 1
        body = texts[:-1] if transposed else texts
        if (
            kinds == {"letter"}
            and base[0].isupper()
            and all(len(t) == 1 and t.isascii() and t.isupper() for t in body)
        ):
            if len(body) == 1 and body[0] not in _LABEL_CAPITALS:
                return None
            return ("".join(body), transposed)
        return None

    def name_with(
        self,
        base: str,
        label: str,
        sub: tuple[list[Token], Span] | None,
        span: Span,
        force_call: bool,
        upright: bool = False,
    ) -> Expr:
        """Build the name, or the indexed name, and its call."""
        if label and set(label) == {"′"}:
            base, label = base + label, ""
        full = f"{base}^{label}" if label else base
        if sub is None:
            self.found.bare.add(full)
            return self.maybe_call(Expr("name", (), full, span), full, upright, force_call)
        tokens, where = sub
        span = _joined(span, where)
        if not tokens:
            raise CannotParse("an empty subscript", where)
        text, letters, computes, labelled = self.subscript_text(tokens)
        spelled = f"{base}_{text}" + (f"^{label}" if label else "")
        if not labelled:
            self.found.subscripts.append((base, letters, computes))
        known = self.facts.index_letters
        array_base = any(
            b == base and (c or known & set(ls)) and not any(f"{b}_{x}" in LABELLED for x in ls)
            for b, ls, c in self.facts.subscripts
        )
        capital = [x for x in letters if x.isupper() and x not in self.facts.bare]
        indexed = (
            not labelled
            and f"{base}_{text}" not in LABELLED
            and (computes or bool(known & set(letters)) or (array_base and not capital))
        )
        called = force_call or self._call_follows(spelled, upright)
        if indexed and not (called and not computes and not known & set(letters)):
            indices = self.child(tokens, where[1]).indices()
            node = _node("index", (Expr("name", (), full, span), *indices), None, span)
            if called and self.at("open", "(", "["):
                args = self.arguments()
                name = f"{full}_{text}"
                return Expr("call", args, name, _joined(span, self.tokens[self.pos - 1].span))
            return node
        self.found.bare.add(spelled)
        return self.maybe_call(Expr("name", (), spelled, span), spelled, upright, force_call)

    def subscript_text(self, tokens: list[Token]) -> tuple[str, tuple[str, ...], bool, bool]:
        """Return a subscript's spelling, its letters, whether it computes, and if it is a label."""
        text = "".join(self.spelled(t) if t.kind == "letter" else t.text for t in tokens
                       if t.kind not in ("{", "}"))  # fmt: skip
        text = text.replace("⊤", "T")
        letters = tuple(t.text for t in tokens if t.kind == "letter" and t.font != "upright")
        words = any(
            t.kind in ("word", "text", "func") or (t.kind == "letter" and t.font == "upright")
            for t in tokens
        )
        if words and not any(t.kind == "op" for t in tokens) and not letters:
            return text, (), False, True
        arithmetic = any(t.kind == "op" and t.text in "+-*/·×" for t in tokens)
        numbers = any(t.kind == "number" for t in tokens)
        computes = bool(letters) and (
            (arithmetic and len(tokens) > 1)
            or (numbers and not any(t.kind == "comma" for t in tokens)
                and tokens[0].kind == "number")
            or (tokens[0].text == "(" and any(t.kind == "comma" for t in tokens))
        )  # fmt: skip
        odd = {t.kind for t in tokens} - {
            "letter", "number", "comma", "op", "word", "open", "close", "{", "}", "text", "_", "^",
            "'", "transpose", "cmd",
        }  # fmt: skip
        labelled = bool(odd) or any(t.text == "∖" for t in tokens)
        return text, letters, computes and not labelled, labelled

    def indices(self) -> list[Expr]:
        """Parse the content of a subscript as indices."""
        if self.at("open", "(") and self.matching(self.pos) == len(self.tokens) - 1:
            self.take()
            inner = self.child(self.tokens[self.pos : -1], self.end)
            return inner.indices()
        if all(t.kind == "letter" for t in self.tokens):
            letters = [Expr("name", (), self.spelled(t), t.span) for t in self.tokens]
            self.found.forced_letters |= {t.text for t in self.tokens if t.text.islower()} & set(
                self.facts.index_letters
            )
            return letters
        out = [self.addition()]
        while self.at("comma"):
            self.take()
            out.append(self.addition())
        if self.peek().kind != "end":
            raise self.fail("an index should end here")
        return out

    # -- calls ------------------------------------------------------------------------
    def takes_argument(self) -> bool:
        return self.at("open", "(", "[", "{")

    def _call_follows(self, name: str, upright: bool) -> bool:
        """Whether the parenthesis after a name holds its arguments."""
        if not self.at("open", "(", "["):
            return False
        opening = self.peek()
        close = self.matching(self.pos)
        if close is None:
            return False
        inside = self.tokens[self.pos + 1 : close]
        base = name.split("_")[0].split("^")[0]
        if opening.text == "[":
            return upright and len(base) > 1
        if upright and len(base) > 1:
            return True
        if name in self.facts.called:
            return True
        depth = 0
        for token in inside:
            depth += (token.kind in ("open", "{")) - (token.kind in ("close", "}"))
            if depth == 0 and token.kind in ("comma", "semi"):
                return True
        if base and base[0] in CALL_LETTERS:
            if name in self.facts.bare:
                notes = (f"{name}(…) is a function's value", f"{name}(…) is a product")
                return self.choices.pick(f"call {name}", *notes) == 0
            return True
        if any(sum(t.kind == kind for t in inside) % 2 for kind in ("bar", "dbar")):
            return True
        if len(inside) == 1 and inside[0].kind == "letter":  # L(θ)
            if name not in self.facts.bare:
                return True
            argument = inside[0].text
            notes = (
                f"{name}({argument}) is a function's value",
                f"{name}({argument}) is a product",
            )
            return self.choices.pick(f"call {name}", *notes) == 0
        return False

    def maybe_call(self, node: Expr, name: str, upright: bool, force: bool) -> Expr:
        if not self.at("open", "(", "["):
            return node
        if not force and not self._call_follows(name, upright):
            return node
        self.found.bare.discard(name)
        if force:
            self.found.called.add(name)
        args = self.arguments()
        span = _joined(node.span, self.tokens[self.pos - 1].span)
        if name == "E" and not upright:  # an energy; the expectation has brackets
            return Expr("call", args, name, span)
        return self.build_call(name, args, span)

    def arguments(self) -> tuple[Expr, ...]:
        """Parse ``(a, b | c)`` or ``[a; b]`` after a function's name."""
        opening = self.take()
        closing = _CLOSING[opening.text]
        self.bars.append("(")
        self._deeper()
        args: list[Expr] = []
        while True:
            if self.peek().kind == "close":
                break
            if self.peek().kind in ("newline", "&"):
                self.take()
                continue
            args.append(self.argument())
            if self.peek().kind in ("comma", "semi", "dbar", "colon"):
                self.take()
                if self.peek().kind == "close":
                    break
                continue
            break
        self.depth -= 1
        self.bars.pop()
        if not self.at("close", closing, "."):
            raise self.fail(f"{opening.text} should be closed by {closing}")
        self.take()
        return tuple(args)

    def argument(self) -> Expr:
        token = self.peek()
        if token.kind == "word" and self.peek(1).text == "=":  # dim=-1
            self.take()
            self.take()
            value = self.addition()
            return _node("keyword", (value,), token.text, _joined(token.span, value.span))
        node = self.relation()
        if self.at("bar"):
            self.take()
            rest = [node, self.relation()]
            while self.at("comma") or self.at("semi"):
                self.take()
                rest.append(self.relation())
            return _node("given", rest)
        return node

    def build_call(self, name: str, args: tuple[Expr, ...], span: Span) -> Expr:
        lower = name.lower()
        if lower in ("concat", "concatenate", "cat") and args:
            return Expr("concat", args, None, span)
        if lower == "var" and len(args) == 1:
            return Expr("var", args, None, span)
        if lower == "sqrt" and len(args) == 1:
            return Expr("sqrt", args, None, span)
        if lower == "abs" and len(args) == 1:
            return Expr("abs", args, None, span)
        if lower == "transpose" and len(args) == 1:
            return Expr("transpose", args, None, span)
        if lower in ("inv", "inverse") and len(args) == 1:
            return Expr("inverse", args, None, span)
        if (name == "E" or lower == "expectation") and len(args) == 1:
            return Expr("expect", args, None, span)
        return Expr("call", args, name, span)

    def function(self, name: str, span: Span) -> Expr:
        """Parse a named function: its scripts, then a parenthesis or what stands beside it."""
        if name == "arg" and self.at("func", "max", "min"):
            name = "arg" + self.take().text
        sub: tuple[list[Token], Span] | None = None
        sup: tuple[list[Token], Span] | None = None
        while self.at("_") or self.at("^"):
            if self.at("_") and sub is None:
                self.take()
                sub = self.script()
            elif self.at("^") and sup is None:
                self.take()
                sup = self.script()
            else:
                raise self.fail("a second script of the same kind")
        if name in _BIG_KINDS and sub is not None:
            return self.big(name, span, sub, sup)
        if sup is not None and name[0].isupper():
            found = self._label(name, sup[0], False)
            if found is not None and not found[1]:
                name, sup = f"{name}^{found[0]}", None
        keywords: list[Expr] = []
        if sub is not None:
            inner = self.child(sub[0], sub[1][1])
            if name == "log":
                keywords = [Expr("keyword", (inner.whole(),), "base", sub[1])]
            elif name == "swish":
                keywords = [Expr("keyword", (inner.whole(),), "beta", sub[1])]
            elif name in FUNCTIONS.values():
                text, letters, _, labelled = self.subscript_text(sub[0])
                if labelled:
                    over: tuple[Expr, ...] = (Expr("name", (), text, sub[1]),)
                else:
                    over = tuple(inner.indices())
                    self.found.forced_letters |= {x for x in letters if x.islower()}
                keywords = [Expr("keyword", over, "over", sub[1])]
            else:
                first, _, label = name.partition("^")
                name = f"{first}_{self.subscript_text(sub[0])[0]}" + (f"^{label}" if label else "")
        if self.at("open", "(", "["):
            args = self.arguments()
            node = self.build_call(
                name, (*args, *keywords), _joined(span, self.tokens[self.pos - 1].span)
            )
        elif self.at("{") and not keywords:
            inner_node = self.group()
            node = self.build_call(name, (inner_node,), _joined(span, inner_node.span))
        elif self.starts_factor() and self.peek().kind != "ellipsis":
            argument = self.reach(name)
            node = self.build_call(name, (argument, *keywords), _joined(span, argument.span))
        elif keywords:
            node = Expr("call", tuple(keywords), name, span)
        else:
            self.found.bare.add(name)
            node = Expr("name", (), name, span)
        if sup is not None:
            texts = [t.text for t in sup[0]]
            if texts == ["-", "1"]:
                if node.op == "call" and name in ("sin", "cos", "tan", "sinh", "cosh", "tanh"):
                    return replace(node, value=f"arc{name}")
                return _node("inverse", (node,), None, _joined(span, sup[1]))
            return self.raise_to(node, sup)
        return node

    def reach(self, name: str) -> Expr:
        """Parse the argument of a function written without parentheses."""
        factors = [self.postfix()]
        while self.starts_factor() and self.peek().kind not in ("func", "big", "ellipsis"):
            if self.peek().kind == "word" and self.peek().text.lower() in FUNCTIONS:
                break
            counted = all(f.op == "number" for f in factors)
            if not counted and factors[0].op not in ("name", "number"):
                break  # log p(x) y, sin (a) b
            if not counted and name not in _TRIGONOMETRIC:
                all_of = f"{name} reaches over the whole product"
                first = f"{name} reaches over the first factor only"
                if self.choices.pick(f"reach {name}", all_of, first):
                    break
            factors.append(self.postfix())
        return _product(factors)

    def expectation(self, op: str, span: Span) -> Expr:
        keywords: list[Expr] = []
        if self.at("_"):
            self.take()
            tokens, where = self.script()
            keywords = [self.child(tokens, where[1]).formula()]
        if self.at("open", "(", "[", "{"):
            args = self.arguments()
        else:
            factors = [self.postfix()] if self.starts_factor() else []
            while factors and self.starts_factor():
                factors.append(self.postfix())
            if not factors:
                return self.name_with("𝔼", "", None, span, False)
            args = (_product(factors),)
        if len(args) != 1:
            raise CannotParse(f"an expectation of {len(args)} things", span)
        end = self.tokens[self.pos - 1].span
        return Expr(op, (*args, *keywords), None, _joined(span, end))

    def real_space(self, span: Span) -> Expr:
        r"""Read ``\mathbb{R}^{n \times d}`` with its dimensions apart."""
        self.take()
        tokens, where = self.script()
        pieces: list[list[Token]] = [[]]
        depth = 0
        for token in tokens:
            depth += (token.kind in ("open", "{")) - (token.kind in ("close", "}"))
            if depth == 0 and token.kind == "op" and token.text in "×*":
                pieces.append([])
            else:
                pieces[-1].append(token)
        dims = []
        for piece in pieces:
            if not piece:
                raise CannotParse("a dimension is missing", where)
            dims.append(self.child(piece, where[1]).whole())
        return Expr("call", tuple(dims), "ℝ", _joined(span, where))

    def scripts(self, node: Expr) -> Expr:
        """Apply the scripts, transposes and factorials that follow any expression."""
        while True:
            token = self.peek()
            if token.kind == "transpose" or token.kind == "'":
                self.take()
                node = _node("transpose", (node,), None, _joined(node.span, token.span))
            elif token.kind == "op" and token.text == "!":
                self.take()
                node = Expr("call", (node,), "factorial", _joined(node.span, token.span))
            elif token.kind == "op" and token.text == "%":
                self.take()
                node = Expr("call", (node,), "percent", _joined(node.span, token.span))
            elif token.kind == "^":
                self.take()
                node = self.raise_to(node, self.raised())
            elif token.kind == "_":
                if self.tokens[self.pos - 1].kind == "number":
                    raise CannotParse("a subscript on a number", token.span)
                self.take()
                tokens, where = self.script()
                _, letters, _, _ = self.subscript_text(tokens)
                self.found.forced_letters |= {x for x in letters if x.islower() and len(x) == 1}
                indices = self.child(tokens, where[1]).indices()
                node = _node("index", (node, *indices), None, _joined(node.span, where))
            elif (
                token.kind == "open"
                and token.text == "["
                and node.op in ("name", "index")
                and (self.adjacent() and not token.spaced)
            ):
                close = self.matching(self.pos)
                if close is None:
                    raise CannotParse("a [ is not closed", token.span)
                indices = list(self.arguments())
                if not indices:
                    raise CannotParse("an empty index", token.span)
                if len(indices) == 1 and indices[0].op not in ("name", "number"):
                    notes = (f"{node.value}[…] is a product", f"{node.value}[…] is an index")
                    if self.choices.pick(f"bracket {node.value}", *notes) == 0:
                        return _node("mul", (node, indices[0]))
                end = self.tokens[self.pos - 1].span
                node = _node("index", (node, *indices), None, _joined(node.span, end))
            else:
                return node

    def raise_to(self, node: Expr, script: tuple[list[Token], Span]) -> Expr:
        tokens, where = script
        span = _joined(node.span, where)
        texts = [t.text for t in tokens]
        if not tokens:
            raise CannotParse("an empty superscript", where)
        bold = tokens[0].font == "bold"
        if texts == ["⊤"] or (texts == ["T"] and not bold):
            if texts == ["T"] and "T" in self.facts.bare:
                notes = ("^T transposes", "^T is the power T")
                if self.choices.pick("power T", *notes):
                    return _node("pow", (node, Expr("name", (), "T", where)), None, span)
            return _node("transpose", (node,), None, span)
        if texts == ["†"]:
            return _node("transpose", (node,), None, span)
        if texts in (["-", "1"],):
            return _node("inverse", (node,), None, span)
        if texts in (["-", "T"], ["-", "⊤"]):
            inner = _node("inverse", (node,), None, span)
            return _node("transpose", (inner,), None, span)
        if node.op == "name" and len(texts) == 3 and texts[0] == "(" and texts[2] == ")" and (
            tokens[1].text in self.facts.index_letters
        ):  # fmt: skip
            index = Expr("name", (), tokens[1].text, tokens[1].span)
            return _node("index", (node, index), None, span)
        if any(t.kind == "'" for t in tokens) or texts in (["*"], ["+"], ["-"]):
            raise CannotParse("a mark raised over an expression", where)
        power = self.child(tokens, where[1]).whole()
        return _node("pow", (node, power), None, span)

    # -- atoms ------------------------------------------------------------------------
    def atom(self) -> Expr:
        token = self.peek()
        if token.kind == "number":
            self.take()
            return replace(number(token.text), span=token.span)
        if token.kind == "{":
            return self.group()
        if token.kind == "open":
            return self.bracketed()
        if token.kind == "func":
            self.take()
            return self.function(token.text, token.span)
        if token.kind == "big":
            return self.summation()
        if token.kind == "cmd":
            return self.structure()
        if token.kind == "root":
            self.take()
            if self.at("open", "("):
                inner = self.bracketed()
            else:
                inner = self.rooted()
            return _node("sqrt", (inner,), None, _joined(token.span, inner.span))
        if token.kind == "begin":
            return self.environment()
        if token.kind == "ellipsis":
            self.take()
            return Expr("ellipsis", (), None, token.span)
        if token.kind in ("bar", "dbar"):
            return self.between_bars()
        raise self.fail("an operand is missing")

    def rooted(self) -> Expr:
        """Parse what stands under a bare √: one symbol or number with its subscript."""
        token = self.peek()
        if token.kind in ("letter", "word"):
            self.take()
            base = self.spelled(token)
            sub = None
            if self.at("_"):
                self.take()
                sub = self.script()
            bars, tokens, end = self.bars, self.tokens, self.end
            node = self.child([], token.span[1]).name_with(base, "", sub, token.span, False)
            self.bars, self.tokens, self.end = bars, tokens, end
            return node
        return self.atom()

    def group(self) -> Expr:
        """Parse ``{...}``."""
        opening = self.peek()
        tokens, span = self.script()
        if opening.kind != "{":
            span = opening.span
        tokens = [t for t in tokens if t.kind != "quad"]
        if not tokens:
            raise CannotParse("an empty group", span)
        inner = self.child(tokens, span[1])
        node = inner.formula()
        return node

    def bracketed(self) -> Expr:
        """Parse ``(a)``, ``(a, b)``, ``[a; b]``, ``[1, 0]``, ``⟨a, b⟩``, ``⌊a⌋``."""
        interval, self.after_in = self.after_in, False
        opening = self.take()
        if opening.text not in _CLOSING or opening.text == ".":
            raise CannotParse(f"{opening.text} opens nothing", opening.span)
        closing = _CLOSING[opening.text]
        saved, self.bars = self.bars, [opening.text] if opening.text in "|‖" else []
        if opening.text in ("⟨", "{", "("):
            self.bars = ["("] if opening.text in "⟨{" else []
        self._deeper()
        items: list[Expr] = []
        separators: set[str] = set()
        while not self.at("close"):
            if self.peek().kind in ("newline", "&"):
                self.take()
                continue
            items.append(self.relation())
            if self.at("comma") or self.at("semi") or (self.at("bar") and opening.text in "⟨{"):
                separators.add(self.take().kind)
            elif self.at("newline"):
                continue
            else:
                break
        self.depth -= 1
        self.bars = saved
        if not self.at("close"):
            raise self.fail(f"{opening.text} should be closed by {closing}")
        end = self.take()
        half_open = opening.text in "([" and end.text in ")]"
        if end.text not in (closing, ".") and not half_open:
            raise CannotParse(f"{opening.text} is closed by {end.text}", end.span)
        span = _joined(opening.span, end.span)
        if not items:
            raise CannotParse("empty brackets", span)
        if interval and opening.text == "[" and separators == {"comma"} and len(items) == 2:
            return Expr("call", tuple(items), "interval", span)
        return self.built(opening.text, end.text, items, separators, span)

    def built(
        self, opening: str, closing: str, items: list[Expr], separators: set[str], span: Span
    ) -> Expr:
        """Make the node that a bracket stands for."""
        one = len(items) == 1
        if opening in "|‖":
            if not one:
                raise CannotParse("several things between bars", span)
            if opening == "|":
                return Expr("abs", (items[0],), None, span)
            return self.norm(items[0], span)
        if opening == "⟨":
            return Expr("call", tuple(items), "inner", span)
        if opening in "⌊⌈":
            if not one:
                raise CannotParse("several things inside ⌊ ⌋", span)
            return Expr("call", tuple(items), "floor" if opening == "⌊" else "ceil", span)
        if opening == "{" and not one:
            return Expr("call", tuple(items), "set", span)
        if opening + closing in ("(]", "[)"):
            return Expr("call", tuple(items), "interval", span)
        if one:
            if opening == "[" and items[0].op == "number" and not separators:
                return Expr("matrix", (items[0],), (1, 1), span)
            return replace(items[0], span=span)
        if opening == "[":
            if separators == {"semi"}:
                return Expr("concat", tuple(items), None, span)
            row = Expr("matrix", tuple(items), (1, len(items)), span)
            if "semi" in separators:
                raise CannotParse("commas and semicolons in one bracket", span)
            if all(i.op == "number" or (i.op == "neg" and i.args[0].op == "number")
                   for i in items):  # fmt: skip
                return row
            notes = ("[a, b] is a row of entries", "[a, b] is a concatenation")
            if self.choices.pick("bracket list", *notes):
                return Expr("concat", tuple(items), None, span)
            return row
        return Expr("tuple", tuple(items), None, span)

    def between_bars(self) -> Expr:
        opening = self.take()
        self.bars.append(opening.text)
        self._deeper()
        inner = self.addition()
        self.depth -= 1
        self.bars.pop()
        if not self.at(opening.kind):
            raise self.fail(f"{opening.text} is not closed")
        end = self.take()
        span = _joined(opening.span, end.span)
        if opening.kind == "bar":
            return Expr("abs", (inner,), None, span)
        return self.norm(inner, span)

    def norm(self, inner: Expr, span: Span) -> Expr:
        """Read the order of a norm from its subscript."""
        order = ""
        if self.at("_"):
            self.take()
            tokens, where = self.script()
            order = "".join(t.text for t in tokens if t.kind not in "{}")
            span = _joined(span, where)
        return Expr("norm", (inner,), order, span)

    def summation(self) -> Expr:
        token = self.take()
        sub = sup = None
        while self.at("_") or self.at("^"):
            if self.take().kind == "_":
                sub = self.script()
            else:
                sup = self.script()
        return self.big(token.text, token.span, sub, sup)

    def big(
        self,
        kind: str,
        span: Span,
        sub: tuple[list[Token], Span] | None,
        sup: tuple[list[Token], Span] | None,
    ) -> Expr:
        """Build a sum, product, maximum, ... from its scripts and the term that follows."""
        variables: list[str] = []
        bounds: list[Expr] = []
        if sub is not None:
            span = _joined(span, sub[1])
            condition = self.child(sub[0], sub[1][1]).condition()
            if condition.op == "name":
                variables = [str(condition.value)]
            elif condition.op in ("tuple", "mul") and all(a.op == "name" for a in condition.args):
                variables = [str(a.value) for a in condition.args]
            elif (
                condition.op == "tuple"
                and sup is not None
                and condition.args[-1].op == "relation"
                and condition.args[-1].value == "="
                and all(a.op == "name" for a in (*condition.args[:-1], condition.args[-1].args[0]))
            ):
                last = condition.args[-1]
                variables = [str(a.value) for a in (*condition.args[:-1], last.args[0])]
                bounds = [last.args[1]]
            elif condition.op == "relation" and condition.value == "=" and (
                condition.args[0].op == "name"
                and sup is not None
            ):  # fmt: skip
                variables = [str(condition.args[0].value)]
                bounds = [condition.args[1]]
            else:
                first = next((e for e in condition.walk() if e.op == "name"), None)
                if first is None:
                    raise CannotParse("no variable under the sum", sub[1])
                variables = [str(first.value)]
                bounds = [condition]
        if sup is not None:
            upper = self.child(sup[0], sup[1][1]).whole()
            if sub is None:
                raise CannotParse("an upper bound without a variable", sup[1])
            if len(bounds) != 1:
                bounds = bounds or [Expr("name", (), "", sub[1])]
                if bounds[0].value == "":  # \sum_i^n: the lower bound is not said
                    bounds = [number(1)]
            if bounds[0].op == "relation":
                raise CannotParse("a condition and an upper bound together", sup[1])
            bounds.append(upper)
        self.found.bound |= {v for v in variables if "_" not in v}
        if not self.starts_factor() and not self.at("op", "-"):
            raise self.fail(f"nothing stands after {kind}")
        self._deeper()
        body = self.big_body(variables)
        self.depth -= 1
        node = body
        for index, variable in enumerate(reversed(variables or [""])):
            args = (node, *bounds) if index == 0 or len(bounds) == 2 else (node,)
            node = Expr("big", args, (kind, variable or None), _joined(span, body.span))
        return node

    def condition(self) -> Expr:
        """Parse what stands under a sum."""
        items = [self.relation()]
        while self.at("comma") or self.at("newline"):
            self.take()
            items.append(self.relation())
        if self.peek().kind == "colon":
            raise self.fail("a colon under a sum")
        if self.peek().kind != "end":
            raise self.fail("the condition should end here")
        return items[0] if len(items) == 1 else _node("tuple", items)

    def big_body(self, variables: list[str]) -> Expr:
        """Parse the summand: one term, or all terms that still use the variable."""
        body = self.term()
        if not self.at("op", "+", "-") or not variables:
            return body
        depth, used = 0, False
        for token in self.tokens[self.pos :]:
            depth += (token.kind in ("open", "{")) - (token.kind in ("close", "}"))
            if depth < 0 or (depth == 0 and token.kind in ("rel", "comma", "newline", "quad")):
                break
            if token.kind == "big":
                break
            used |= token.kind == "letter" and token.text in variables
        if not used:
            return body
        notes = (f"the sum over {variables[0]} reaches over the + after it",
                 f"the sum over {variables[0]} stops at the +")  # fmt: skip
        if self.choices.pick(f"sum reach {self.pos}", *notes) == 1:
            return body
        terms = [body]
        while self.at("op", "+", "-"):
            sign = self.take()
            term = self.term()
            terms.append(
                term if sign.text == "+" else _node("neg", (term,), None,
                                                    _joined(sign.span, term.span))
            )  # fmt: skip
        return _node("add", terms)

    # -- LaTeX structures -------------------------------------------------------------
    def slot(self) -> Expr:
        """Parse one argument of a command."""
        if self.at("{"):
            return self.group()
        tokens, span = self.script()
        return self.child(tokens, span[1]).whole()

    def structure(self) -> Expr:
        command = self.take()
        if command.text == "frac":
            return self.fraction(command)
        if command.text == "sqrt":
            degree: tuple[Expr, ...] = ()
            if self.at("open", "["):
                close = self.matching(self.pos)
                if close is None:
                    raise CannotParse("the root's degree is not closed", self.here())
                inside = self.tokens[self.pos + 1 : close]
                self.pos = close + 1
                degree = (self.child(inside, self.tokens[close].span[0]).whole(),)
            bare = not self.at("{")
            inner = self.slot()
            if bare and inner.op == "name" and self.at("_"):  # \sqrt d_k
                meant = "the root covers the subscript"
                typeset = "the subscript is on the root, as it is typeset"
                if self.choices.pick("root subscript", meant, typeset) == 0:
                    self.take()
                    inner = self.name_with(str(inner.value), "", self.script(), inner.span, False)
            end = self.tokens[self.pos - 1].span
            return Expr("sqrt", (inner, *degree), None, _joined(command.span, end))
        if command.text == "binom":
            args = (self.slot(), self.slot())
            return Expr("call", args, "binom", _joined(command.span, args[1].span))
        if command.text == "boxed":
            return self.slot()
        if command.text in ("underbrace", "overbrace"):
            inner = self.slot()
            if self.at("_") or self.at("^"):  # the brace's annotation is prose
                self.take()
                self.script()
            return inner
        if command.text == "underset":
            below, span = self.script()
            inner_tokens, _ = self.script()
            if len(inner_tokens) == 1 and inner_tokens[0].text in _BIG_KINDS:
                return self.big(inner_tokens[0].text, command.span, (below, span), None)
            if [t.text for t in inner_tokens] in (["arg", "max"], ["arg", "min"]):
                name = "arg" + inner_tokens[1].text
                return self.big(name, command.span, (below, span), None)
        raise CannotParse(f"\\{command.text} is not read here", command.span)

    def fraction(self, command: Token) -> Expr:
        top, top_span = self.script()
        if not self.tokens[self.pos :]:
            raise self.fail("a fraction lacks its denominator")
        bottom, bottom_span = self.script()
        span = _joined(command.span, bottom_span)
        if not top or not bottom:
            raise CannotParse("a fraction with an empty part", span)
        derivative = self.derivative(top, bottom, span)
        if derivative is not None:
            return derivative
        above = self.child([t for t in top if t.kind != "quad"], top_span[1]).formula()
        below = self.child([t for t in bottom if t.kind != "quad"], bottom_span[1]).formula()
        return Expr("div", (above, below), None, span)

    def derivative(self, top: list[Token], bottom: list[Token], span: Span) -> Expr | None:
        """Read ∂a/∂b, ∂²a/∂b², and da/db where nothing else can be meant."""

        def is_d(token: Token) -> bool:
            return token.text == "∂" or (token.text == "d" and token.font == "upright")

        if not (is_d(top[0]) and is_d(bottom[0])):
            italic = top[0].text == bottom[0].text == "d" and len(top) > 1 and len(bottom) == 2
            if not italic:
                return None
            notes = ("d/d is a derivative", "d is a factor above and below")
            if self.choices.pick("derivative", *notes):
                return None
        order, rest, under = 1, top[1:], bottom[1:]
        if len(rest) > 1 and rest[0].kind == "^" and rest[1].kind == "number":
            order, rest = int(rest[1].text), rest[2:]
        elif len(rest) > 3 and rest[0].kind == "^" and rest[2].kind == "number":
            order, rest = int(rest[2].text), rest[4:]
        if not 1 <= order <= 4:
            raise CannotParse(f"a derivative of order {order}", span)
        if not under:
            raise CannotParse("a derivative by nothing", span)
        if any(is_d(t) for t in self.outermost(under)):
            raise CannotParse("mixed partial derivatives", span)
        if order > 1 and under[-2:] and under[-1].text == str(order) and under[-2].kind == "^":
            under = under[:-2]
        elif order > 1 and len(under) > 4 and under[-2].text == str(order):
            under = under[:-4]
        by = self.child(under, span[1]).whole()
        if rest:
            what = self.child(rest, span[1]).whole()
        else:
            what = self.postfix()
        for _ in range(order):
            what = Expr("partial", (what, by), None, _joined(span, what.span))
        return what

    @staticmethod
    def outermost(tokens: Sequence[Token]) -> list[Token]:
        """Return the tokens outside every group."""
        depth, out = 0, []
        for token in tokens:
            depth -= token.kind in ("close", "}")
            if depth == 0:
                out.append(token)
            depth += token.kind in ("open", "{")
        return out

    def partial_inline(self, span: Span) -> Expr:
        """Read ``∂L/∂x``."""
        what = self.postfix()
        if not (self.at("op", "/") and self.peek(1).text == "∂"):
            raise CannotParse("∂ without a quotient", span)
        self.take()
        self.take()
        by = self.postfix()
        return Expr("partial", (what, by), None, _joined(span, by.span))

    def gradient(self, span: Span) -> Expr:
        by: Expr | None = None
        if self.at("_"):
            self.take()
            tokens, where = self.script()
            by = self.child(tokens, where[1]).whole()
        factors = []
        while self.starts_factor():
            factors.append(self.postfix())
        if not factors:
            raise self.fail("∇ of nothing")
        what = _product(factors)
        if by is None:
            return Expr("call", (what,), "∇", _joined(span, what.span))
        return Expr("partial", (what, by), None, _joined(span, what.span))

    def environment(self) -> Expr:
        opening = self.take()
        depth, start = 1, self.pos
        while depth:
            token = self.take()
            if token.kind == "end" and not token.text:
                raise CannotParse(f"\\begin{{{opening.text}}} is not ended", opening.span)
            depth += (token.kind == "begin") - (token.kind == "end")
        closing = self.tokens[self.pos - 1]
        if closing.text != opening.text:
            raise CannotParse(f"\\begin{{{opening.text}}} ended by {closing.text}", closing.span)
        inside = list(self.tokens[start : self.pos - 1])
        span = _joined(opening.span, closing.span)
        kind = opening.text
        if kind == "array" and inside and inside[0].kind == "{":
            skip = self.child(inside, span[1]).skip_script(0)
            inside = inside[skip:]
        if kind in ("matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"):
            return self.matrix(self.rows(inside), span)
        if kind == "vmatrix":
            return Expr("call", (self.matrix(self.rows(inside), span),), "det", span)
        if kind in ("cases", "dcases", "rcases"):
            return self.cases(self.rows(inside), span)
        if kind in _STEPS:
            if kind.startswith("aligned") and [t.text for t in inside[:3:2]] == ["[", "]"]:
                inside = inside[3:]
            if kind.startswith("alignat") and inside and inside[0].kind == "{":
                inside = inside[self.child(inside, span[1]).skip_script(0) :]
            return replace(self.child(inside, span[1]).formula(), span=span)
        raise CannotParse(f"the environment {kind} is not read", opening.span)

    def rows(self, tokens: list[Token]) -> list[list[list[Token]]]:
        rows: list[list[list[Token]]] = [[[]]]
        depth = 0
        for token in tokens:
            depth += (token.kind in ("open", "{", "begin")) - (token.kind in ("close", "}", "end"))
            if depth == 0 and token.kind == "&":
                rows[-1].append([])
            elif depth == 0 and token.kind in ("newline", "semi"):
                rows.append([[]])
            elif token.kind != "quad":
                rows[-1][-1].append(token)
        if rows[-1] == [[]]:
            rows.pop()
        return rows

    def matrix(self, rows: list[list[list[Token]]], span: Span) -> Expr:
        if not rows or len({len(row) for row in rows}) != 1:
            raise CannotParse("a matrix whose rows differ in length", span)
        entries = []
        for row in rows:
            for cell in row:
                if not cell:
                    raise CannotParse("a matrix with an empty entry", span)
                entries.append(self.child(cell, span[1]).whole())
        return Expr("matrix", tuple(entries), (len(rows), len(rows[0])), span)

    def cases(self, rows: list[list[list[Token]]], span: Span) -> Expr:
        args: list[Expr] = []
        for row in rows:
            cells = [cell for cell in row if cell]
            if len(cells) == 1:  # "x, if x > 0" without the &
                cut = next((i for i, t in enumerate(cells[0]) if t.kind in ("comma", "text")), None)
                if cut is not None:
                    cells = [cells[0][:cut], cells[0][cut + (cells[0][cut].kind == "comma") :]]
            if len(cells) != 2 or not cells[0]:
                raise CannotParse("a case needs a value and a condition", span)
            value, condition = cells
            while value and value[-1].kind in ("comma", "semi"):
                value = value[:-1]
            otherwise = False
            while condition and condition[0].kind in ("text", "comma", "quad"):
                otherwise |= condition[0].text.lower().strip(" ,.") in ("otherwise", "else", "否则")
                condition = condition[1:]
            while condition and condition[-1].kind in ("comma", "semi"):
                condition = condition[:-1]
            args.append(self.child(value, span[1]).whole())
            if otherwise and not condition:
                args.append(Expr("name", (), "otherwise", span))
            elif not condition:
                raise CannotParse("a case without a condition", span)
            else:
                inner = self.child(condition, span[1])
                args.append(inner.formula())
        if not args:
            raise CannotParse("cases without a case", span)
        return Expr("cases", tuple(args), None, span)


_EQUATION_NUMBER = re.compile(r"\\q?quad\s*(?:\\text\{)?\(\s*\d[\d.]*[a-z]?\s*\)\}?\s*[.,]?\s*$")
_OUTER = re.compile(r"^\s*(?:\$\$(.*)\$\$|\$([^$]*)\$|\\\[(.*)\\\]|\\\((.*)\\\))\s*$", re.S)


def _depth(expr: Expr) -> int:
    """Measure a tree's depth without recursion."""
    deepest, stack = 0, [(expr, 1)]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        stack += [(arg, level + 1) for arg in node.args]
    return deepest


def _read(
    text: str, macros: Mapping[str, Macro] | None, forced: Mapping[str, int]
) -> tuple[Expr | CannotParse, dict[str, tuple[str, ...]]]:
    """Parse once with given choices: facts first, then the tree."""
    choices = Choices(forced)
    try:
        tokens = tokenize(text, choices, macros)
        while tokens and tokens[-1].kind in ("comma", "semi"):
            tokens.pop()
        facts = _Facts()
        expr = Expr("ellipsis")
        for _ in range(3):  # the second pass knows the sums; the third what follows from them
            found = _Facts()
            expr = _Parser(tokens, choices, facts, found).formula()
            found.index_letters = index_closure(
                found.subscripts, found.bound | found.forced_letters
            )
            found.called |= facts.called
            stable = (found.index_letters, found.bare, found.called, found.subscripts) == (
                facts.index_letters, facts.bare, facts.called, facts.subscripts,
            )  # fmt: skip
            facts = found
            if stable:
                break
        expr = _imaginary(expr, facts, choices)
        if _depth(expr) > MAX_TREE_DEPTH:
            raise CannotParse(f"a formula nested deeper than {MAX_TREE_DEPTH}", (0, len(text)))
    except CannotParse as error:
        return error, choices.seen
    return expr, choices.seen


def _imaginary(expr: Expr, facts: _Facts, choices: Choices) -> Expr:
    """Decide whether a bare `i` that indexes nothing is an index or √−1."""
    if "i" not in facts.bare or "i" in facts.bound or "i" in facts.index_letters:
        return expr
    if any("i" in letters for _, letters, _ in facts.subscripts):
        return expr
    if expr.op == "name":
        return expr
    inside_exp = any(
        e.op == "call" and e.value == "exp" and any(x.op == "name" and x.value == "i"
                                                    for x in e.walk())
        for e in expr.walk()
    )  # fmt: skip
    index, unit = "i is an index", "i is √−1"
    if inside_exp:
        imaginary = choices.pick("i in exp", unit, index) == 0
    else:
        imaginary = choices.pick("i", index, unit) == 1
    if not imaginary:
        return expr
    return expr.map(lambda e: replace(e, value="ⅈ") if e.op == "name" and e.value == "i" else e)


def parse(text: str, macros: Mapping[str, Macro] | None = None) -> list[Reading]:
    r"""Read a formula in LaTeX, Unicode or Python.

    Parameters
    ----------
    text : str
        The formula, with or without its dollar signs; at most 20,000 characters.
    macros : mapping of str to Macro, optional
        Commands that the document defines, by name without the backslash.

    Returns
    -------
    list of Reading
        The most usual reading first; more than one where the text is ambiguous.

    Raises
    ------
    CannotParse
        With the span of what could not be read.

    Examples
    --------
    >>> [reading] = parse(r"\frac{QK^T}{\sqrt{d_k}}")
    >>> reading.expr.op, [arg.op for arg in reading.expr.args]
    ('div', ['mul', 'sqrt'])
    >>> [reading.note for reading in parse("1/2x")]
    ['a/bc is read as a/(bc)', 'a/bc is read as (a/b)c']
    """
    if not isinstance(text, str):
        raise TypeError(f"a formula is a str, not {type(text).__name__}")
    return list(_parsed(text, tuple(sorted((macros or {}).items()))))


@functools.lru_cache(maxsize=4096)  # a document repeats its symbols
def _parsed(text: str, defined: tuple[tuple[str, Macro], ...]) -> tuple[Reading, ...]:
    macros = dict(defined)
    offset = 0
    if len(text) <= 20_000:
        outer = _OUTER.match(text)
        if outer:
            group = next(i for i in range(1, 5) if outer.group(i) is not None)
            text, offset = outer.group(group), outer.start(group)
        text = _EQUATION_NUMBER.sub("", text)
    try:
        if looks_like_python(text):
            python = parse_python(text)
            if python is not None:
                plain = (Reading(_shifted(python, offset)),)
                if not library_of(text) and reads_both_ways(text):
                    torch = parse_python(text, "torch")
                    if torch is not None and torch != python:
                        numpy_note = "the variance divides by n, as NumPy's does"
                        torch_note = "the variance divides by n − 1, as PyTorch's does"
                        return (
                            replace(plain[0], note=numpy_note),
                            Reading(_shifted(torch, offset), torch_note),
                        )
                return plain
        readings = _readings(text, macros)
    except CannotParse as error:
        raise CannotParse(error.message, (error.span[0] + offset, error.span[1] + offset)) from None
    except RecursionError:
        raise CannotParse("a formula nested too deeply", (0, len(text))) from None
    return tuple(replace(r, expr=_shifted(r.expr, offset)) for r in readings)


def _shifted(expr: Expr, offset: int) -> Expr:
    if not offset:
        return expr
    return replace(
        expr,
        args=tuple(_shifted(a, offset) for a in expr.args),
        span=(expr.span[0] + offset, expr.span[1] + offset),
    )


def _readings(text: str, macros: Mapping[str, Macro] | None) -> list[Reading]:
    first, seen = _read(text, macros, {})
    results: list[Reading] = []
    keys = list(seen)[:3]
    ways = [range(len(seen[k])) for k in keys]
    for ways_taken in itertools.islice(itertools.product(*ways), MAX_READINGS):
        forced = dict(zip(keys, ways_taken))
        expr, now = (first, seen) if not any(ways_taken) else _read(text, macros, forced)
        if isinstance(expr, CannotParse):
            continue
        notes = [now[k][forced.get(k, 0)] for k in now if not k.startswith("word:") or any(
            forced.values()) or len(seen) > 0]  # fmt: skip
        if all(expr != r.expr for r in results):
            results.append(Reading(expr, "; ".join(notes)))
    if not results:
        assert isinstance(first, CannotParse)
        raise first
    if len(results) == 1 and results[0].note:
        results[0] = replace(results[0], note="")
    return results
