"""Derivatives: ∂a/∂b in every way of writing it, and gradients."""

from __future__ import annotations

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser.cursor import Script, joined, outermost, product
from minitransformer.verify.parser.scripts import Scripts
from minitransformer.verify.tokenizer import CannotParse, Span, Token

_HIGHEST_ORDER = 4


def _is_d(token: Token) -> bool:
    return token.text == "∂" or (token.text == "d" and token.font == "upright")


class Derivatives(Scripts):
    """Reads quotients of differentials and ∇."""

    def derivative(self, top: list[Token], bottom: list[Token], span: Span) -> Expr | None:
        """Read ∂a/∂b, ∂²a/∂b², and da/db where nothing else can be meant."""
        if not (_is_d(top[0]) and _is_d(bottom[0])):
            italic = top[0].text == bottom[0].text == "d" and len(top) > 1 and len(bottom) == 2
            notes = ("d/d is a derivative", "d is a factor above and below")
            if not italic or self.choices.pick("derivative", *notes):
                return None
        order, rest = self._order(top[1:])
        under = bottom[1:]
        if not 1 <= order <= _HIGHEST_ORDER:
            raise CannotParse(f"a derivative of order {order}", span)
        if not under:
            raise CannotParse("a derivative by nothing", span)
        if any(_is_d(token) for _, token in outermost(under)):
            raise CannotParse("mixed partial derivatives", span)
        if order > 1 and under[-2:] and under[-1].text == str(order) and under[-2].kind == "^":
            under = under[:-2]  # x^2
        elif order > 1 and len(under) > 4 and under[-2].text == str(order):
            under = under[:-4]  # x^{2}
        by = self.child(under, span[1]).whole()
        what = self.child(rest, span[1]).whole() if rest else self.postfix()
        for _ in range(order):
            what = Expr("partial", (what, by), None, joined(span, what.span))
        return what

    @staticmethod
    def _order(top: list[Token]) -> tuple[int, list[Token]]:
        """Split ``^2 L`` or ``^{2} L`` after the first d into the order and what is derived."""
        raised = top[:1] and top[0].kind == "^"
        if raised and len(top) > 1 and top[1].kind == "number":
            return int(top[1].text), top[2:]
        if raised and len(top) > 3 and top[2].kind == "number":
            return int(top[2].text), top[4:]
        return 1, top

    def partial_inline(self, span: Span) -> Expr:
        """Read ``∂L/∂x``."""
        what = self.postfix()
        if not (self.at("op", "/") and self.peek(1).text == "∂"):
            raise CannotParse("∂ without a quotient", span)
        self.take()
        self.take()
        by = self.postfix()
        return Expr("partial", (what, by), None, joined(span, by.span))

    def gradient(self, span: Span) -> Expr:
        """Read ``∇ L`` and ``∇_x L``."""
        sub: Script | None = None
        if self.at("_"):
            self.take()
            sub = self.script()
        by = None if sub is None else self.inside(sub).whole()
        factors = []
        while self.starts_factor():
            factors.append(self.postfix())
        if not factors:
            raise self.fail("∇ of nothing")
        what = product(factors)
        if by is None:
            return Expr("call", (what,), "∇", joined(span, what.span))
        return Expr("partial", (what, by), None, joined(span, what.span))
