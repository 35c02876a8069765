"""Calls: which parenthesis holds arguments, what they are, and functions without one."""

from __future__ import annotations

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser.big_operators import BIG_FUNCTIONS, BigOperators
from minitransformer.verify.parser.cursor import Script, joined, make, outermost, product
from minitransformer.verify.tokenizer import FUNCTIONS, Span

CLOSING = {"(": ")", "[": "]", "{": "}", "⟨": "⟩", "⌊": "⌋", "⌈": "⌉", "|": "|", "‖": "‖"}
# Letters that act as functions before a parenthesis.
CALL_LETTERS = frozenset("fghpPEFGOℒ𝒪𝒩σφψΦΨΓδζ")
TRIGONOMETRIC = frozenset(["sin", "cos", "tan", "sinh", "cosh", "tanh"])
# Functions that people write without parentheses, also in plain text.
REACHING = TRIGONOMETRIC | {"log", "exp", "softmax", "sigmoid", "relu", "gelu", "erf", "trace"}
# Functions of one argument that have an operator of their own in the tree.
_OPERATORS = {"var": "var", "sqrt": "sqrt", "abs": "abs", "transpose": "transpose",
              "inv": "inverse", "inverse": "inverse", "expectation": "expect"}  # fmt: skip
# Functions whose subscript is a parameter, and the parameter's name.
_PARAMETERS = {"log": "base", "swish": "beta"}


class Calls(BigOperators):
    """Reads functions with their arguments."""

    # -- parentheses ----------------------------------------------------------------------
    def takes_argument(self) -> bool:
        return self.at("open", "(", "[", "{")

    def call_follows(self, name: str, upright: bool) -> bool:
        """Whether the parenthesis after a name holds its arguments."""
        close = self.matching(self.pos) if self.at("open", "(", "[") else None
        if close is None:
            return False
        inside = self.tokens[self.pos + 1 : close]
        base = name.split("_")[0].split("^")[0]
        if self.at("open", "[") or (upright and len(base) > 1):
            return upright and len(base) > 1
        if name in self.facts.called:
            return True
        if any(token.kind in ("comma", "semi") for _, token in outermost(inside)):
            return True
        if base[:1] and base[0] in CALL_LETTERS:
            return name not in self.facts.bare or self._is_value(name, "…")
        if any(sum(t.kind == kind for t in inside) % 2 for kind in ("bar", "dbar")):
            return True
        if len(inside) == 1 and inside[0].kind == "letter":  # L(θ)
            return name not in self.facts.bare or self._is_value(name, inside[0].text)
        return False

    def _is_value(self, name: str, argument: str) -> bool:
        """Ask whether a name that also stands alone is a function or a factor."""
        call = f"{name}({argument})"
        notes = (f"{call} is a function's value", f"{call} is a product")
        return self.choices.pick(f"call {name}", *notes) == 0

    def maybe_call(self, node: Expr, name: str, upright: bool, force: bool) -> Expr:
        """Read the arguments of a name, if what follows it are arguments."""
        if not self.at("open", "(", "["):
            return node
        if not force and not self.call_follows(name, upright):
            return node
        self.found.bare.discard(name)
        if force:
            self.found.called.add(name)
        args = self.arguments()
        span = self.since(node.span)
        if name == "E" and not upright:  # an energy; the expectation has brackets
            return Expr("call", args, name, span)
        return self.build_call(name, args, span)

    def arguments(self) -> tuple[Expr, ...]:
        """Parse ``(a, b | c)`` or ``[a; b]`` after a function's name."""
        opening = self.take()
        closing = CLOSING[opening.text]
        self.bars.append("(")
        self.enter()
        args: list[Expr] = []
        self.skip("newline", "&")
        while self.peek().kind != "close":
            args.append(self._argument())
            if self.peek().kind not in ("comma", "semi", "dbar", "colon"):
                break
            self.take()
            self.skip("newline", "&")
        self.leave()
        self.bars.pop()
        if not self.at("close", closing, "."):
            raise self.fail(f"{opening.text} should be closed by {closing}")
        self.take()
        return tuple(args)

    def _argument(self) -> Expr:
        token = self.peek()
        if token.kind == "word" and self.peek(1).text == "=":  # dim=-1
            self.take()
            self.take()
            value = self.addition()
            return make("keyword", (value,), token.text, joined(token.span, value.span))
        node = self.relation()
        if not self.at("bar"):
            return node
        self.take()
        given = [node, self.relation()]
        while self.at("comma") or self.at("semi"):
            self.take()
            given.append(self.relation())
        return make("given", given)

    def build_call(self, name: str, args: tuple[Expr, ...], span: Span) -> Expr:
        """Make the node that a call stands for."""
        lower = name.lower()
        if lower in ("concat", "concatenate", "cat") and args:
            return Expr("concat", args, None, span)
        op = "expect" if name == "E" else _OPERATORS.get(lower)
        if op is not None and len(args) == 1:
            return Expr(op, args, None, span)
        return Expr("call", args, name, span)

    # -- named functions ------------------------------------------------------------------
    def function(self, name: str, span: Span) -> Expr:
        """Parse a named function: its scripts, then a parenthesis or what stands beside it."""
        if name == "arg" and self.at("func", "max", "min"):
            name = "arg" + self.take().text
        sub, sup = self.both_scripts()
        if name in BIG_FUNCTIONS and sub is not None:
            return self.big(name, span, sub, sup)
        if sup is not None and name[0].isupper():
            found = self.label(name, sup, False)
            if found is not None and not found[1]:
                name, sup = f"{name}^{found[0]}", None
        keywords: tuple[Expr, ...] = ()
        if sub is not None and name in FUNCTIONS.values():
            keywords = (self._parameter(name, sub),)
        elif sub is not None:
            first, _, label = name.partition("^")
            name = f"{first}_{self.subscript_text(sub.tokens)[0]}" + (f"^{label}" if label else "")
        node = self._applied(name, keywords, span)
        if sup is None:
            return node
        if sup.texts != ["-", "1"]:
            return self.raise_to(node, sup)
        if node.op == "call" and name in TRIGONOMETRIC:
            return make("call", node.args, f"arc{name}", node.span)
        return make("inverse", (node,), None, joined(span, sup.span))

    def _parameter(self, name: str, sub: Script) -> Expr:
        """Read a function's subscript: the base of a log, or the index it runs over."""
        if name in _PARAMETERS:
            return Expr("keyword", (self.inside(sub).whole(),), _PARAMETERS[name], sub.span)
        text, letters, _, labelled = self.subscript_text(sub.tokens)
        if labelled:
            return Expr("keyword", (Expr("name", (), text, sub.span),), "over", sub.span)
        over = tuple(self.inside(sub).indices())
        self.force_indices(letters)
        return Expr("keyword", over, "over", sub.span)

    def _applied(self, name: str, keywords: tuple[Expr, ...], span: Span) -> Expr:
        """Apply a function to what follows, in parentheses or without."""
        if self.at("open", "(", "["):
            args = self.arguments()
            return self.build_call(name, (*args, *keywords), self.since(span))
        if self.starts_factor() and self.peek().kind != "ellipsis":
            braced = self.at("{") and not keywords
            argument = self.group() if braced else self._reached(name)
            return self.build_call(name, (argument, *keywords), joined(span, argument.span))
        if keywords:
            return Expr("call", keywords, name, span)
        self.found.bare.add(name)
        return Expr("name", (), name, span)

    def _reached(self, name: str) -> Expr:
        """Parse the argument of a function written without parentheses."""
        factors = [self.postfix()]
        while self.starts_factor() and self.peek().kind not in ("func", "big", "ellipsis"):
            if self.peek().kind == "word" and self.peek().text.lower() in FUNCTIONS:
                break
            counted = all(f.op == "number" for f in factors)
            if not counted and factors[0].op not in ("name", "number"):
                break  # log p(x) y, sin (a) b
            if not counted and name not in TRIGONOMETRIC:
                all_of = f"{name} reaches over the whole product"
                first = f"{name} reaches over the first factor only"
                if self.choices.pick(f"reach {name}", all_of, first):
                    break
            factors.append(self.postfix())
        return product(factors)
