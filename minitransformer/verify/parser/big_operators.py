"""Σ, Π, max and their like: what runs, from where to where, and how far the operator reaches."""

from __future__ import annotations

from minitransformer.verify.expression import Expr, number
from minitransformer.verify.parser.cursor import Script, joined, make
from minitransformer.verify.parser.derivatives import Derivatives
from minitransformer.verify.tokenizer import CannotParse, Span

BIG_FUNCTIONS = frozenset(["max", "min", "sup", "inf", "argmax", "argmin", "mean"])


class BigOperators(Derivatives):
    """Reads an operator over an index with the term behind it."""

    def summation(self) -> Expr:
        token = self.take()
        return self.big(token.text, token.span, *self.both_scripts())

    def big(self, kind: str, span: Span, sub: Script | None, sup: Script | None) -> Expr:
        """Build a sum, product, maximum, ... from its scripts and the term that follows."""
        variables: list[str] = []
        bounds: list[Expr] = []
        if sub is not None:
            span = joined(span, sub.span)
            variables, bounds = self._range(sub, sup is not None)
        if sup is not None:
            upper = self.inside(sup).whole()
            if sub is None:
                raise CannotParse("an upper bound without a variable", sup.span)
            if bounds and bounds[0].op == "relation":
                raise CannotParse("a condition and an upper bound together", sup.span)
            bounds = [bounds[0] if bounds else number(1), upper]  # \sum_i^n starts at one
        self.found.bound |= {v for v in variables if "_" not in v}
        if not self.starts_factor() and not self.at("op", "-"):
            raise self.fail(f"nothing stands after {kind}")
        self.enter()
        body = self._body(variables)
        self.leave()
        node = body
        for index, variable in enumerate(reversed(variables or [""])):
            args = (node, *bounds) if index == 0 or len(bounds) == 2 else (node,)
            node = Expr("big", args, (kind, variable or None), joined(span, body.span))
        return node

    def _range(self, sub: Script, bounded: bool) -> tuple[list[str], list[Expr]]:
        """Return the variables under an operator, and their lower bound or condition."""
        condition = self.inside(sub).condition()
        parts = condition.args if condition.op in ("tuple", "mul") else (condition,)
        if all(p.op == "name" for p in parts):  # i, or i, j, or ij
            return [str(p.value) for p in parts], []
        last = parts[-1]
        starts = condition.op != "mul" and last.op == "relation" and last.value == "="
        names = (*parts[:-1], last.args[0]) if starts else ()
        if bounded and starts and all(n.op == "name" for n in names):  # i = 1, or i, j = 1
            return [str(n.value) for n in names], [last.args[1]]
        first = next((e for e in condition.walk() if e.op == "name"), None)
        if first is None:
            raise CannotParse("no variable under the sum", sub.span)
        return [str(first.value)], [condition]

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
        return items[0] if len(items) == 1 else make("tuple", items)

    def _body(self, variables: list[str]) -> Expr:
        """Parse the summand: one term, or all terms that still use the variable."""
        body = self.term()
        if not self.at("op", "+", "-") or not self._used_ahead(variables):
            return body
        notes = (f"the sum over {variables[0]} reaches over the + after it",
                 f"the sum over {variables[0]} stops at the +")  # fmt: skip
        if self.choices.pick(f"sum reach {self.pos}", *notes) == 1:
            return body
        terms = [body]
        while self.at("op", "+", "-"):
            sign = self.take()
            term = self.term()
            if sign.text == "-":
                term = make("neg", (term,), None, joined(sign.span, term.span))
            terms.append(term)
        return make("add", terms)

    def _used_ahead(self, variables: list[str]) -> bool:
        """Whether a variable occurs in the terms up to the next statement or big operator."""
        end = len(self.tokens)
        depth = 0
        for position in range(self.pos, end):
            token = self.tokens[position]
            depth += (token.kind in ("open", "{")) - (token.kind in ("close", "}"))
            stops = token.kind in ("rel", "comma", "newline", "quad") and depth == 0
            if depth < 0 or stops or token.kind == "big":
                end = position
                break
        ahead = self.tokens[self.pos : end]
        return any(t.kind == "letter" and t.text in variables for t in ahead)
