"""Groups, brackets and bars."""

from __future__ import annotations

from dataclasses import replace

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser.calls import CLOSING, Calls
from minitransformer.verify.parser.cursor import joined
from minitransformer.verify.tokenizer import CannotParse, Span

_CALLS = {"⟨": "inner", "⌊": "floor", "⌈": "ceil"}


class Brackets(Calls):
    """Reads what stands between two delimiters."""

    def bracketed(self) -> Expr:
        """Parse ``(a)``, ``(a, b)``, ``[a; b]``, ``[1, 0]``, ``⟨a, b⟩``, ``⌊a⌋``."""
        interval, self.after_in = self.after_in, False
        opening = self.take()
        if opening.text not in CLOSING:
            raise CannotParse(f"{opening.text} opens nothing", opening.span)
        closing = CLOSING[opening.text]
        outer = self.bars
        self.bars = ["("] if opening.text in "⟨{" else [opening.text] * (opening.text in "|‖")
        self.enter()
        items: list[Expr] = []
        separators: set[str] = set()
        while not self.at("close"):
            if self.peek().kind in ("newline", "&"):
                self.take()
                continue
            items.append(self.relation())
            if self.at("comma") or self.at("semi") or (self.at("bar") and opening.text in "⟨{"):
                separators.add(self.take().kind)
            elif not self.at("newline"):
                break
        self.leave()
        self.bars = outer
        if not self.at("close"):
            raise self.fail(f"{opening.text} should be closed by {closing}")
        end = self.take()
        half_open = opening.text in "([" and end.text in ")]"
        if end.text not in (closing, ".") and not half_open:
            raise CannotParse(f"{opening.text} is closed by {end.text}", end.span)
        span = joined(opening.span, end.span)
        if not items:
            raise CannotParse("empty brackets", span)
        if interval and opening.text == "[" and separators == {"comma"} and len(items) == 2:
            return Expr("call", tuple(items), "interval", span)
        return self._built(opening.text, end.text, items, separators, span)

    def _built(
        self, opening: str, closing: str, items: list[Expr], separators: set[str], span: Span
    ) -> Expr:
        """Make the node that a bracket stands for."""
        several = len(items) > 1
        if several and opening in "|‖":
            raise CannotParse("several things between bars", span)
        if several and opening in "⌊⌈":
            raise CannotParse("several things inside ⌊ ⌋", span)
        if opening == "|":
            return Expr("abs", (items[0],), None, span)
        if opening == "‖":
            return self._norm(items[0], span)
        if opening in _CALLS:
            return Expr("call", tuple(items), _CALLS[opening], span)
        if opening == "{" and several:
            return Expr("call", tuple(items), "set", span)
        if opening + closing in ("(]", "[)"):
            return Expr("call", tuple(items), "interval", span)
        if opening == "[":
            return self._row(items, separators, span)
        return Expr("tuple", tuple(items), None, span) if several else replace(items[0], span=span)

    def _row(self, items: list[Expr], separators: set[str], span: Span) -> Expr:
        """Make what square brackets stand for: a row, a concatenation, or nothing but a group."""
        numbers = all(
            i.op == "number" or (i.op == "neg" and i.args[0].op == "number") for i in items
        )
        row = Expr("matrix", tuple(items), (1, len(items)), span)
        if len(items) == 1:
            entry = items[0].op == "number" and not separators
            return row if entry else replace(items[0], span=span)
        if separators == {"semi"}:
            return Expr("concat", tuple(items), None, span)
        if "semi" in separators:
            raise CannotParse("commas and semicolons in one bracket", span)
        notes = ("[a, b] is a row of entries", "[a, b] is a concatenation")
        if not numbers and self.choices.pick("bracket list", *notes):
            return Expr("concat", tuple(items), None, span)
        return row

    def between_bars(self) -> Expr:
        """Parse ``|a|`` and ``‖a‖``."""
        opening = self.take()
        self.bars.append(opening.text)
        self.enter()
        inner = self.addition()
        self.leave()
        self.bars.pop()
        if not self.at(opening.kind):
            raise self.fail(f"{opening.text} is not closed")
        self.take()
        span = self.since(opening.span)
        if opening.kind == "bar":
            return Expr("abs", (inner,), None, span)
        return self._norm(inner, span)

    def _norm(self, inner: Expr, span: Span) -> Expr:
        """Read the order of a norm from its subscript."""
        order = ""
        if self.at("_"):
            self.take()
            tokens, where = self.script()
            order = "".join(t.text for t in tokens if t.kind not in "{}")
            span = joined(span, where)
        return Expr("norm", (inner,), order, span)
