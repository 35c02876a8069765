"""The grammar's spine, from loose to tight.

Statements, relations, sums, ``· × / ⊙ ∘``, juxtaposition, scripts, atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minitransformer.verify.expression import Expr, number
from minitransformer.verify.parser.cursor import joined, make, outermost, product
from minitransformer.verify.parser.environments import Environments
from minitransformer.verify.tokenizer import CannotParse, Token, is_connector

_SEPARATORS = ("comma", "semi", "newline", "quad", "&", "colon")
_PRODUCTS = {"·": "mul", "×": "mul", "*": "mul", "@": "matmul", "⊙": "hadamard", "∘": "hadamard",
             "⊗": "hadamard"}  # fmt: skip
_FACTORS = frozenset(
    ["number", "letter", "word", "func", "big", "cmd", "accent", "begin", "open", "{", "ellipsis",
     "root"]
)  # fmt: skip
_MARKS = {"!": "factorial", "%": "percent"}


class Parser(Environments):
    """Reads a formula: one tree, as the choices say."""

    # -- statements -----------------------------------------------------------------------
    def formula(self) -> Expr:
        fraction = self._over()
        if fraction is not None:
            return fraction
        items: list[Expr] = []
        connectors: list[str] = []
        connector = ""
        only_commas = True
        while self.peek().kind != "end":
            token = self.peek()
            if token.kind in _SEPARATORS:
                only_commas &= self.take().kind == "comma"
                continue
            if token.kind == "text" and is_connector(token.text):
                connector = self.take().text.strip(" ,.:;").lower()
                continue
            if token.kind != "rel":
                items.append(self.relation())
                connectors.append(connector)
            elif items:
                items[-1] = self.relation(items[-1])
            else:
                raise CannotParse(f"nothing stands left of {token.text}", token.span)
            connector = ""
            if self.peek().kind not in ("end", "text", *_SEPARATORS):
                raise self.fail("the expression should end here")
            if self.at("text") and not is_connector(self.peek().text):
                raise self.fail("text that joins nothing")
        if not items:
            raise CannotParse("no formula here", (0, self.end))
        if len(items) == 1 and not connectors[0]:
            return items[0]
        related = any(i.op in ("relation", "chain") for i in items)
        if only_commas and not any(connectors) and not related:
            return make("tuple", items)
        return make("steps", items, tuple(connectors))

    def whole(self) -> Expr:
        fraction = self._over()
        if fraction is not None:
            return fraction
        node = self.addition()
        if self.peek().kind != "end":
            raise self.fail("the expression should end here")
        return node

    def _over(self) -> Expr | None:
        r"""Read ``a \over b``, TeX's own fraction of everything in a group."""
        for position, token in outermost(self.tokens):
            if token.kind == "cmd" and token.text == "over":
                top = self.child(self.tokens[:position], token.span[0]).whole()
                bottom = self.child(self.tokens[position + 1 :], self.end).whole()
                self.pos = len(self.tokens)
                return make("div", (top, bottom))
        return None

    def relation(self, left: Expr | None = None) -> Expr:
        parts: list[Expr]
        signs: list[str]
        if left is None:
            parts, signs = [self._left_side() or self.addition()], []
        elif left.op in ("relation", "chain"):
            parts = list(left.args)
            signs = [left.value] if left.op == "relation" else list(left.value)
        else:
            parts, signs = [left], []
        while self.at("rel") or (self.at("&") and self.peek(1).kind == "rel"):
            self.skip("&")
            sign = self.take()
            self.skip("&")
            signs.append(sign.text)
            if self.peek().kind in ("end", "newline", "comma"):
                raise CannotParse(f"nothing stands right of {sign.text}", sign.span)
            self.after_in = sign.text == "∈"
            parts.append(self._right_side())
            self.after_in = False
        if not signs:
            return parts[0]
        if len(signs) == 1:
            return make("relation", parts, signs[0])
        return make("chain", parts, tuple(signs))

    def _right_side(self) -> Expr:
        """Parse what stands right of a sign; an ellipsis in it makes a range."""
        right = self.addition()
        items = right.args
        if right.op == "mul" and [a.op for a in items[:2]] == ["number", "ellipsis"] and (
            len(items) == 3
        ):  # fmt: skip  # i = 1 ... n
            right = replace(right, op="tuple")
        if self.at("comma") and self.peek(1).kind == "ellipsis":  # i = 1, ..., n
            entries = [right]
            while self.at("comma"):
                self.take()
                entries.append(self.addition())
            right = make("tuple", entries)
        return right

    def _left_side(self) -> Expr | None:
        """Parse ``A(Q, K) =`` as a call, whatever letter A is; else nothing."""
        first = self.peek()
        if first.kind != "word" and not (first.kind == "letter" and first.text.isalpha()):
            return None
        index = self.pos + 1
        while index < len(self.tokens) and self.tokens[index].kind in ("_", "^"):
            index = self.skip_script(index + 1)
        opening = self.tokens[index : index + 1]
        if not (opening and opening[0].kind == "open" and opening[0].text in "(["):
            return None
        close = self.matching(index)
        sign = self.tokens[close + 1 : close + 2] if close is not None else ()
        if not (sign and sign[0].kind == "rel" and sign[0].text in "=≔≜≈∝≡"):
            return None
        start = self.pos
        left = self.postfix(force_call=True)
        if self.at("rel"):
            return left
        self.pos = start
        return None

    # -- sums and products ----------------------------------------------------------------
    def addition(self) -> Expr:
        self.enter()
        terms: list[Expr] = []
        sign = self.take() if self.at("op", "+", "-") else None
        while True:
            attached = sign is not None and sign.text == "⊕" and self._concatenates()
            term = self.term()
            if sign is not None and sign.text == "-":
                term = make("neg", (term,), None, joined(sign.span, term.span))
            if attached:
                terms[-1] = make("concat", (terms[-1], term))
            else:
                terms.append(term)
            while self.at("newline") and self._next_line_sign():
                self.take()
            while self.at("&") and self.peek(1).kind == "op":
                self.take()
            if self.at("op", "±", "∓"):
                raise CannotParse(f"{self.peek().text} stands for two formulas", self.peek().span)
            if not self.at("op", "+", "-", "⊕"):
                break
            sign = self.take()
            self.skip("newline", "&")
        self.leave()
        return terms[0] if len(terms) == 1 else make("add", terms)

    def _concatenates(self) -> bool:
        return self.choices.pick("oplus", "⊕ adds", "⊕ concatenates") == 1

    def _next_line_sign(self) -> str:
        """Return the operator that the line after a newline starts with, if it does."""
        index = 1
        while self.peek(index).kind in ("&", "newline"):
            index += 1
        return self.peek(index).text if self.peek(index).kind == "op" else ""

    def term(self) -> Expr:
        """Parse a product: juxtaposed factors joined by ``· × * / ⊙ ∘ ⊗ @``."""
        kind, parts = "mul", self._juxtaposed()
        while True:
            while self.at("newline") and self._next_line_sign() not in ("", "+", "-"):
                self.take()
            if not self.at("op", "/", *_PRODUCTS):
                return product(parts, kind)
            sign = self.take().text
            self.skip("newline", "&")
            outer = "⊗ multiplies elementwise", "⊗ is the outer (Kronecker) product"
            kronecker = sign == "⊗" and self.choices.pick("otimes", *outer) == 1
            right = self._juxtaposed()
            if sign == "/":
                left = product(parts, kind)
                if len(right) > 1 and self._divides_all(right):
                    right = [product(right)]
                kind, parts = "mul", [make("div", (left, right[0])), *right[1:]]
            elif kronecker:
                left = product(parts, kind)
                kind, parts = "mul", [make("call", (left, product(right)), "kron")]
            else:
                new = _PRODUCTS[sign]
                if new != kind and len(parts) > 1:
                    parts = [product(parts, kind)]
                kind, parts = new, parts + (right if new == "mul" else [product(right)])

    def _divides_all(self, right: list[Expr]) -> bool:
        """Whether ``a/b c`` is a/(b c)."""
        spaced = any(
            t.spaced and t.span[0] == right[1].span[0] for t in self.tokens[: self.pos]
        )  # fmt: skip
        whole, part = "a/bc is read as a/(bc)", "a/bc is read as (a/b)c"
        if spaced:
            return self.choices.pick("slash spaced", part, whole) == 1
        return self.choices.pick("slash", whole, part) == 0

    def _juxtaposed(self) -> list[Expr]:
        """Parse factors side by side."""
        if self.at("op", "-", "+"):  # a · -b
            self.enter()
            sign = self.take()
            operand = product(self._juxtaposed())
            self.leave()
            if sign.text == "+":
                return [operand]
            return [make("neg", (operand,), None, joined(sign.span, operand.span))]
        factors = [self.postfix()]
        while self.starts_factor():
            if self.at("number") and factors[-1].op == "number":
                raise CannotParse("two numbers side by side", self.peek().span)
            factors.append(self.postfix())
        return factors

    def starts_factor(self) -> bool:
        token = self.peek()
        if token.kind in ("bar", "dbar"):
            if token.text in self.bars:
                return False
            return not (self.bars and self.bars[-1] == "(" and self._separates(token.kind))
        if token.kind == "text":
            return not is_connector(token.text)
        return token.kind in _FACTORS

    def _separates(self, kind: str) -> bool:
        """Whether the bar here stands alone up to the end of its group: ``p(y | x)``."""
        ahead = outermost(self.tokens[self.pos :])
        return sum(token.kind == kind for _, token in ahead) % 2 == 1

    # -- atoms and what follows them ------------------------------------------------------
    def postfix(self, force_call: bool = False) -> Expr:
        self.enter()
        named = self.peek().kind in ("letter", "word", "text", "accent")
        node = self.named(force_call) if named else self._atom()
        while True:
            more = self._followed(node)
            if more is None:
                break
            node = more
        self.leave()
        return node

    def _atom(self) -> Expr:
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
            inner = self.rooted() or self._atom()
            return make("sqrt", (inner,), None, joined(token.span, inner.span))
        if token.kind == "begin":
            return self.environment()
        if token.kind == "ellipsis":
            self.take()
            return Expr("ellipsis", (), None, token.span)
        if token.kind in ("bar", "dbar"):
            return self.between_bars()
        raise self.fail("an operand is missing")

    def _followed(self, node: Expr) -> Expr | None:
        """Apply one script, transpose, mark or index that follows an expression."""
        token = self.peek()
        if token.kind in ("transpose", "'"):
            self.take()
            return make("transpose", (node,), None, joined(node.span, token.span))
        if token.kind == "op" and token.text in _MARKS:
            self.take()
            return make("call", (node,), _MARKS[token.text], joined(node.span, token.span))
        if token.kind == "^":
            self.take()
            return self.raise_to(node, self.raised())
        if token.kind == "_":
            if self.tokens[self.pos - 1].kind == "number":
                raise CannotParse("a subscript on a number", token.span)
            self.take()
            sub = self.script()
            self.force_indices(self.subscript_text(sub.tokens)[1])
            indices = self.inside(sub).indices()
            return make("index", (node, *indices), None, joined(node.span, sub.span))
        if self.at("open", "[") and node.op in ("name", "index") and not token.spaced and (
            self.adjacent()
        ):  # fmt: skip
            return self._bracket_index(node, token)
        return None

    def _bracket_index(self, node: Expr, opening: Token) -> Expr:
        """Read ``x[i]``, or ``x[a + b]`` as a product."""
        if self.matching(self.pos) is None:
            raise CannotParse("a [ is not closed", opening.span)
        indices: Sequence[Expr] = self.arguments()
        if not indices:
            raise CannotParse("an empty index", opening.span)
        if len(indices) == 1 and indices[0].op not in ("name", "number"):
            notes = (f"{node.value}[…] is a product", f"{node.value}[…] is an index")
            if self.choices.pick(f"bracket {node.value}", *notes) == 0:
                return make("mul", (node, indices[0]))
        return make("index", (node, *indices), None, self.since(node.span))
