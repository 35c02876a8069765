"""Symbols: a letter or a word with what stands above, below and behind it."""

from __future__ import annotations

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser.brackets import Brackets
from minitransformer.verify.parser.calls import REACHING
from minitransformer.verify.parser.cursor import Script, joined, make, product, split_at
from minitransformer.verify.parser.facts import is_labelled
from minitransformer.verify.tokenizer import (
    FUNCTIONS,
    CannotParse,
    Span,
    Token,
    canonical_function,
)


class Names(Brackets):
    """Reads a symbol: a name, an indexed name, a call, or one of the letters that do more."""

    def named(self, force_call: bool) -> Expr:
        """Parse a symbol with its sub- and superscripts, then its arguments if it takes some."""
        token = self.peek()
        if token.kind == "accent":
            base, span = self.accented()
            upright = len(base) > 2
        else:
            self.take()
            base, span = self.spelled(token), token.span
            upright = token.kind != "letter" or token.font == "upright"
        if token.kind == "letter":
            special = self._special_letter(token, base, span)
            if special is not None:
                return special
        name = canonical_function(base)
        if token.kind == "word" and base.lower() in FUNCTIONS and (
            self.takes_argument()
            or self.at("_")
            or (name in REACHING and self.starts_factor())
        ):  # fmt: skip
            return self.function(name, span)
        if base[0] == "𝔼" or (
            base in ("E", "𝕍") and (self.at("open", "[") or self._script_then_bracket())
        ):
            return self._expectation("var" if base == "𝕍" else "expect", span)
        if token.kind == "letter" and base == "ℝ" and self.at("^"):
            return self._real_space(span)
        return self._scripted(base, span, upright, force_call)

    def _special_letter(self, token: Token, base: str, span: Span) -> Expr | None:
        """Read ∂, ∇, an upright i, and ``W1`` typed without its underscore."""
        if base == "∂":
            return self.partial_inline(span)
        if base == "∇":
            return self.gradient(span)
        if token.text == "i" and token.font == "upright":
            return Expr("name", (), "ⅈ", span)
        after = self.peek()
        if not (after.kind == "number" and after.text.isdigit() and self.adjacent()):
            return None
        if token.font or not base[0].isalpha() or after.spaced:
            return None
        digits = self.take()
        base, span = f"{base}_{digits.text}", joined(span, digits.span)
        self.found.bare.add(base)
        return self.maybe_call(Expr("name", (), base, span), base, False, False)

    def _script_then_bracket(self) -> bool:
        if not self.at("_"):
            return False
        after = self.skip_script(self.pos + 1)
        return after < len(self.tokens) and self.tokens[after].text == "["

    # -- scripts --------------------------------------------------------------------------
    def _scripted(self, base: str, span: Span, upright: bool, force_call: bool) -> Expr:
        """Read ``_`` and ``^`` after a name: a label, an index, a power or a transpose."""
        sub: Script | None = None
        sup: Script | None = None
        label = ""
        while True:
            if self.at("_") and sub is None:
                self.take()
                sub = self.script()
            elif self.at("^") and sup is None:
                mark = self.pos
                self.take()
                raised = self.raised()
                if base == "e" and sub is None and raised.texts != ["⊤"]:
                    return self._exponential(span, raised)
                found = self.label(base, raised, sub is not None)
                if found is None:
                    self.pos = mark
                    break
                label, transposed = found
                if transposed:  # W^{QT}: a name, transposed
                    node = self.name_with(base, label, sub, span, force_call)
                    return make("transpose", (node,), None, joined(span, raised.span))
                sup = raised
            elif self.at("'") and self._prime_names(base):
                base += "′"
                span = joined(span, self.take().span)
            else:
                break
        if sup is not None:
            span = joined(span, sup.span)
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
            raised = self.tokens[self.pos + ahead + 1 : self.pos + ahead + 3]
            if any(t.text in ("T", "⊤") for t in raised):
                return True
        as_transpose, as_name = "the prime transposes", "the prime makes another name"
        if base[0].isupper():
            return self.choices.pick("prime capital", as_transpose, as_name) == 1
        return self.choices.pick("prime small", as_name, as_transpose) == 0

    def _exponential(self, span: Span, raised: Script) -> Expr:
        """Read ``e^x``, and the ``e^S_i`` that is typeset as (e^S)_i."""
        if self.at("_") and len(raised.tokens) == 1:
            mark = self.pos
            underscore = self.take()
            sub = self.script()
            meant = "e^S_i is read as e^{S_i}"
            typeset = "e^S_i is read as (e^S)_i, as it is typeset"
            if self.choices.pick("exponent subscript", meant, typeset) == 0:
                opening, closing = Token("{", "{", underscore.span), Token("}", "}", sub.span)
                tokens = [*raised.tokens, underscore, opening, *sub.tokens, closing]
                raised = Script(tokens, sub.span)
            else:
                self.pos = mark
        power = self.inside(raised).whole()
        return Expr("call", (power,), "exp", joined(span, raised.span))

    def name_with(
        self,
        base: str,
        label: str,
        sub: Script | None,
        span: Span,
        force_call: bool,
        upright: bool = False,
    ) -> Expr:
        """Build the name, or the indexed name, and its call."""
        if set(label) == {"′"}:
            base, label = base + label, ""
        raised = f"^{label}" if label else ""
        if sub is None:
            full = base + raised
            self.found.bare.add(full)
            return self.maybe_call(Expr("name", (), full, span), full, upright, force_call)
        span = joined(span, sub.span)
        if not sub.tokens:
            raise CannotParse("an empty subscript", sub.span)
        text, letters, computes, labelled = self.subscript_text(sub.tokens)
        spelled = f"{base}_{text}{raised}"
        if not labelled:
            self.found.subscripts.append((base, letters, computes))
        known = self.facts.index_letters & set(letters)
        capital = any(x.isupper() and x not in self.facts.bare for x in letters)
        indexed = not labelled and not is_labelled(base, [text]) and (
            computes or bool(known) or (self.facts.is_array(base) and not capital)
        )  # fmt: skip
        called = force_call or self.call_follows(spelled, upright)
        if indexed and (computes or known or not called):
            indices = self.inside(sub).indices()
            if called and self.at("open", "(", "["):
                args = self.arguments()
                return Expr("call", args, f"{base}{raised}_{text}", self.since(span))
            return make("index", (Expr("name", (), base + raised, span), *indices), None, span)
        self.found.bare.add(spelled)
        return self.maybe_call(Expr("name", (), spelled, span), spelled, upright, force_call)

    def rooted(self) -> Expr | None:
        """Parse a symbol with its subscript and nothing more, as under a bare √."""
        token = self.peek()
        if token.kind not in ("letter", "word"):
            return None
        self.take()
        base = self.spelled(token)
        sub = None
        if self.at("_"):
            self.take()
            sub = self.script()
        return self.child([], token.span[1]).name_with(base, "", sub, token.span, False)

    # -- letters that do more -------------------------------------------------------------
    def _expectation(self, op: str, span: Span) -> Expr:
        """Read ``𝔼_{x∼p}[f(x)]``."""
        keywords: list[Expr] = []
        if self.at("_"):
            self.take()
            keywords = [self.inside(self.script()).formula()]
        if self.takes_argument():
            args = self.arguments()
        else:
            factors: list[Expr] = []
            while self.starts_factor():
                factors.append(self.postfix())
            if not factors:
                return self.name_with("𝔼", "", None, span, False)
            args = (product(factors),)
        if len(args) != 1:
            raise CannotParse(f"an expectation of {len(args)} things", span)
        return Expr(op, (*args, *keywords), None, self.since(span))

    def _real_space(self, span: Span) -> Expr:
        r"""Read ``\mathbb{R}^{n \times d}`` with its dimensions apart."""
        self.take()
        tokens, where = self.script()
        dims = []
        for piece in split_at(tokens, lambda t: t.kind == "op" and t.text in "×*"):
            if not piece:
                raise CannotParse("a dimension is missing", where)
            dims.append(self.child(piece, where[1]).whole())
        return Expr("call", tuple(dims), "ℝ", joined(span, where))
