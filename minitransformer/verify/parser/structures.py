r"""LaTeX's commands with arguments: ``\frac``, ``\sqrt``, ``\binom``, ``\underset``, ..."""

from __future__ import annotations

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser.big_operators import BIG_FUNCTIONS
from minitransformer.verify.parser.cursor import joined
from minitransformer.verify.parser.names import Names
from minitransformer.verify.tokenizer import CannotParse, Span, Token


class Structures(Names):
    """Reads a command and its arguments."""

    def structure(self) -> Expr:
        command = self.take()
        if command.text == "frac":
            return self._fraction(command)
        if command.text == "sqrt":
            return self._root(command.span)
        if command.text == "binom":
            args = (self.slot(), self.slot())
            return Expr("call", args, "binom", joined(command.span, args[1].span))
        if command.text == "boxed":
            return self.slot()
        if command.text in ("underbrace", "overbrace"):
            inner = self.slot()
            if self.at("_") or self.at("^"):  # the brace's annotation is prose
                self.take()
                self.script()
            return inner
        if command.text == "underset":  # \underset{i}{\arg\max}
            below, operator = self.script(), self.script()
            name = "".join(operator.texts)
            if name in BIG_FUNCTIONS:
                return self.big(name, command.span, below, None)
        raise CannotParse(f"\\{command.text} is not read here", command.span)

    def _root(self, span: Span) -> Expr:
        r"""Read ``\sqrt[n]{a}`` and ``\sqrt a``."""
        degree: tuple[Expr, ...] = ()
        if self.at("open", "["):
            close = self.matching(self.pos)
            if close is None:
                raise CannotParse("the root's degree is not closed", self.peek().span)
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
        return Expr("sqrt", (inner, *degree), None, self.since(span))

    def _fraction(self, command: Token) -> Expr:
        top = self.script()
        if self.pos >= len(self.tokens):
            raise self.fail("a fraction lacks its denominator")
        bottom = self.script()
        span = joined(command.span, bottom.span)
        if not top.tokens or not bottom.tokens:
            raise CannotParse("a fraction with an empty part", span)
        derivative = self.derivative(top.tokens, bottom.tokens, span)
        if derivative is not None:
            return derivative
        above, below = (
            self.child([t for t in part.tokens if t.kind != "quad"], part.span[1]).formula()
            for part in (top, bottom)
        )
        return Expr("div", (above, below), None, span)
