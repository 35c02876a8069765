"""What every part of the tokenizer shares: the raw tokens ahead and the tokens made so far."""

from __future__ import annotations

from minitransformer.verify.tokenizer.source import Raw, take_group
from minitransformer.verify.tokenizer.tokens import MAX_TOKENS, CannotParse, Choices, Span, Token
from minitransformer.verify.tokenizer.words import Splitter


class Scanner:
    """A position in the raw tokens, the open braces and fonts, and the tokens behind."""

    def __init__(self, raw: list[Raw], latex: bool, choices: Choices) -> None:
        self.raw = raw
        self.latex = latex
        self.choices = choices
        self.split = Splitter(choices, latex)
        self.pos = 0
        self.out: list[Token] = []
        self.font: list[str] = [""]
        self.braces: list[bool] = []  # one for each open brace: whether it is in a subscript
        self.depth = 0  # of delimiters, for \quad

    def emit(self, kind: str, text: str, span: Span, spaced: bool = False) -> None:
        """Add a token in the font that is set."""
        if len(self.out) >= MAX_TOKENS:
            raise CannotParse(f"more than {MAX_TOKENS} tokens in one formula", span)
        self.depth += (kind == "open") - (kind == "close")
        self.out.append(Token(kind, text, span, spaced, self.font[-1]))

    def ahead(self, by: int = 0) -> str:
        """Return the text of a raw token not yet read, ``""`` behind the last."""
        index = self.pos + by
        return self.raw[index].text if index < len(self.raw) else ""

    def behind(self) -> str:
        """Return the kind of the last token, ``""`` before the first."""
        return self.out[-1].kind if self.out else ""

    def skip_spaces(self) -> None:
        while self.ahead() == " ":
            self.pos += 1

    def group(self, owner: Raw) -> list[Raw]:
        """Take the raw tokens of the next braced group, or the next token alone."""
        self.skip_spaces()
        stack = self.raw[self.pos :][:MAX_TOKENS][::-1]
        before = len(stack)
        taken = take_group(stack, owner)
        self.pos += before - len(stack)
        return taken

    def insert(self, opening: Span, inside: list[Raw], closing: Span) -> None:
        """Read some raw tokens next, as a group."""
        self.raw[self.pos : self.pos] = [Raw("{", opening), *inside, Raw("}", closing)]

    def in_subscript(self) -> bool:
        return self.behind() == "_" or (bool(self.braces) and self.braces[-1])
