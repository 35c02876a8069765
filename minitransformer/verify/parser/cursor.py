"""A position in the tokens of a formula, and what every rule of the grammar uses.

The rules are methods, in classes that build on each other: `Cursor`, `Scripts`,
`Derivatives`, `BigOperators`, `Calls`, `Brackets`, `Names`, `Structures`, `Environments`,
`Parser`. A rule calls its own file and those before it; the few rules that a formula
inside a formula needs are declared here and written in `grammar`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser.facts import Facts
from minitransformer.verify.tokenizer import CannotParse, Choices, Span, Token

MAX_NESTING = 40  # groups inside groups
_OPENING = frozenset(["open", "{", "begin"])
_CLOSING = frozenset(["close", "}", "end"])
_ARGUMENTS = {"frac": 2, "sqrt": 1, "binom": 2, "overset": 2, "underset": 2, "stackrel": 2}
_ONE_TOKEN_SCRIPTS = frozenset(
    ["letter", "word", "text", "number", "func", "'", "ellipsis", "op"]
)  # fmt: skip

AnyCursor = TypeVar("AnyCursor", bound="Cursor")


class Script(NamedTuple):
    """The tokens of a sub- or superscript without its braces, and where it stands with them."""

    tokens: list[Token]
    span: Span

    @property
    def texts(self) -> list[str]:
        """What the tokens say."""
        return [token.text for token in self.tokens]


def joined(a: Span, b: Span) -> Span:
    """Return the span from the first to the last of two."""
    return (min(a[0], b[0]), max(a[1], b[1]))


def make(op: str, args: Sequence[Expr], value: object = None, span: Span | None = None) -> Expr:
    """Return a node that stands where its arguments do, unless told."""
    if span is None:
        span = args[0].span
        for arg in args[1:]:
            span = joined(span, arg.span)
    return Expr(op, tuple(args), value, span)


def product(factors: Sequence[Expr], op: str = "mul") -> Expr:
    """Return one factor as it is, several as a product."""
    return factors[0] if len(factors) == 1 else make(op, factors)


def outermost(tokens: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    """Yield the tokens outside every group with their positions, to the end of their own."""
    depth = 0
    for position, token in enumerate(tokens):
        depth += (token.kind in _OPENING) - (token.kind in _CLOSING)
        if depth < 0:
            return
        if depth == 0:
            yield position, token


def split_at(tokens: Sequence[Token], cuts: Callable[[Token], bool]) -> list[list[Token]]:
    """Split at the tokens outside every group that `cuts` accepts, and drop those."""
    borders = [p for p, token in outermost(tokens) if cuts(token)]
    starts = [0, *(b + 1 for b in borders)]
    return [list(tokens[a:b]) for a, b in zip(starts, [*borders, len(tokens)])]


class Cursor(ABC):
    """Reads the tokens of one formula or of a group in it.

    ``facts`` is what the pass before found in the whole formula, ``found`` collects the
    same for the next; both are shared by the cursors of all groups.
    """

    def __init__(
        self,
        tokens: Sequence[Token],
        choices: Choices,
        facts: Facts,
        found: Facts,
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
        self._check_depth()

    # -- rules that other rules call before they are written ------------------------------
    @abstractmethod
    def formula(self) -> Expr:
        """Parse everything: one expression, one relation, or several steps."""

    @abstractmethod
    def whole(self) -> Expr:
        """Parse everything as one expression."""

    @abstractmethod
    def relation(self, left: Expr | None = None) -> Expr:
        """Parse ``a = b = c``, or go on with `left`."""

    @abstractmethod
    def addition(self) -> Expr:
        """Parse ``a + b - c``."""

    @abstractmethod
    def term(self) -> Expr:
        """Parse a product."""

    @abstractmethod
    def postfix(self, force_call: bool = False) -> Expr:
        """Parse an atom with its scripts and arguments."""

    @abstractmethod
    def starts_factor(self) -> bool:
        """Whether another factor starts here."""

    # -- tokens ---------------------------------------------------------------------------
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

    def skip(self, *kinds: str) -> None:
        while self.peek().kind in kinds:
            self.take()

    def since(self, span: Span) -> Span:
        """Return the span from `span` to the last token taken."""
        return joined(span, self.tokens[self.pos - 1].span)

    def adjacent(self) -> bool:
        """Whether nothing stands between the last token and the next."""
        return self.pos > 0 and self.tokens[self.pos - 1].span[1] == self.peek().span[0]

    def fail(self, what: str) -> CannotParse:
        token = self.peek()
        found = "the formula ends" if token.kind == "end" else f"found {token.text!r}"
        return CannotParse(f"{what}: {found}", token.span)

    # -- groups ---------------------------------------------------------------------------
    def enter(self) -> None:
        """Go one level deeper; `leave` goes back."""
        self.depth += 1
        self._check_depth()

    def leave(self) -> None:
        self.depth -= 1

    def _check_depth(self) -> None:
        if self.depth > MAX_NESTING:
            what = f"more than {MAX_NESTING} groups inside each other"
            raise CannotParse(what, self.peek().span)

    def child(self: AnyCursor, tokens: Sequence[Token], end: int) -> AnyCursor:
        """Return a cursor on the tokens of a group."""
        return type(self)(tokens, self.choices, self.facts, self.found, self.depth + 1, end)

    def inside(self: AnyCursor, script: Script) -> AnyCursor:
        """Return a cursor on the tokens of a script."""
        return self.child(script.tokens, script.span[1])

    def group(self) -> Expr:
        """Parse ``{...}``."""
        script = self.script()
        tokens = [t for t in script.tokens if t.kind != "quad"]
        if not tokens:
            raise CannotParse("an empty group", script.span)
        return self.child(tokens, script.span[1]).formula()

    def slot(self) -> Expr:
        """Parse one argument of a command."""
        return self.group() if self.at("{") else self.inside(self.script()).whole()

    def matching(self, index: int) -> int | None:
        """Return the position of the delimiter that closes the one at `index`."""
        depth = 0
        for position in range(index, len(self.tokens)):
            kind = self.tokens[position].kind
            depth += (kind == "open") - (kind == "close")
            if depth == 0:
                return position
        return None

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

    # -- scripts --------------------------------------------------------------------------
    def script(self) -> Script:
        """Take the tokens of one script, or of one argument of a command."""
        first, start = self.peek(), self.pos
        if first.kind == "end":
            raise self.fail("a script is missing")
        if first.kind == "{":
            self.pos = self.skip_script(start)
            closed = self.pos <= len(self.tokens) and self.tokens[self.pos - 1].kind == "}"
            if not closed or self.pos == start + 1:
                raise CannotParse("a { is not closed", first.span)
            inside = list(self.tokens[start + 1 : self.pos - 1])
            return Script(inside, self.since(first.span))
        if first.kind == "open" and first.text == "(":
            close = self.matching(start)
            if close is None:
                raise CannotParse("a ( is not closed", first.span)
            self.pos = close + 1
        elif first.kind == "op" and first.text in "+-" and self.peek(1).kind in (
            "number", "letter"
        ):  # fmt: skip
            self.pos += 2
        elif first.kind == "cmd" and first.text in _ARGUMENTS:
            self.pos += 1
            for _ in range(_ARGUMENTS[first.text]):
                self.pos = self.skip_script(self.pos)
        elif first.kind in ("accent", "root"):
            self.pos = self.skip_script(start + 1)
        elif first.kind in _ONE_TOKEN_SCRIPTS:
            self.pos += 1
        else:
            raise self.fail("not a script")
        self.pos = min(self.pos, len(self.tokens))
        return Script(list(self.tokens[start : self.pos]), self.since(first.span))

    def raised(self) -> Script:
        """Take a superscript; ``x^(n+1)`` without braces groups, ``x^{(l)}`` labels."""
        tokens, span = self.script()
        if len(tokens) > 2 and tokens[0].kind == "open" and tokens[0].span[0] == span[0]:
            return Script(tokens[1:-1], span)
        return Script(tokens, span)

    def both_scripts(self) -> tuple[Script | None, Script | None]:
        """Take a subscript and a superscript, in either order."""
        taken: dict[str, Script] = {}
        while self.at("_") or self.at("^"):
            if self.peek().kind in taken:
                raise self.fail("a second script of the same kind")
            mark = self.take().kind
            taken[mark] = self.script()
        return taken.get("_"), taken.get("^")
