"""Single characters to tokens: keyboard marks, Unicode's mathematics, letters in a font."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

from minitransformer.verify.tokenizer.fonts import unstyled
from minitransformer.verify.tokenizer.runs import CJK, Runs
from minitransformer.verify.tokenizer.source import Raw
from minitransformer.verify.tokenizer.symbols import (
    CHARACTERS,
    INVISIBLE,
    LOOKALIKES,
    PAIRS,
    SPECIAL_LETTERS,
    SUBSCRIPTS,
    SUPERSCRIPTS,
)
from minitransformer.verify.tokenizer.tokens import CannotParse, Span

FONT_ENDS = "\0"  # a raw token that ends a font; no text may hold one


class Characters(Runs):
    """Reads one character, and with it the run or the pair that it starts."""

    def character(self, token: Raw, spaced: bool) -> None:
        span = token.span
        char = LOOKALIKES.get(token.text, token.text)
        following = self.ahead()
        if char == FONT_ENDS:
            if len(self.font) == 1:
                raise CannotParse("a NUL character", span)
            self.font.pop()
        elif token.text == "~" and self.latex:
            pass  # a space that does not break
        elif char in SUBSCRIPTS or char in SUPERSCRIPTS:
            self.raised(char, span, spaced)
        elif char == "{":
            self.braces.append(self.in_subscript())
            self.emit("{", "{", span, spaced)
        elif char == "}":
            if not self.braces:
                raise CannotParse("a } closes nothing", span)
            self.braces.pop()
            self.emit("}", "}", span, spaced)
        elif char == "|":
            if following == "|" and self.raw[self.pos].span != span:
                self.pos += 1
                self.emit("dbar", "‖", (span[0], span[1] + 1), spaced)
            else:
                self.emit("bar", "|", span, spaced)
        elif char == "⊤":
            kind = "letter" if self.behind() in ("^", "{", "op") else "transpose"
            self.emit(kind, "⊤", span, spaced)
        elif char == "*":
            if following == "*":
                self.pos += 1
                self.emit("^", "^", (span[0], span[1] + 1), spaced)
            else:
                self.emit("op", "*", span, spaced)
        elif char + following in PAIRS and not (self.latex and char + following == "<-"):
            self.pos += 1
            self.emit("rel", PAIRS[char + following], (span[0], span[1] + 1), spaced)
        elif char == "Σ" and (self._script_follows() or self._sums()):
            self.emit("big", "sum", span, spaced)
        elif char == "Π" and self._script_follows():
            self.emit("big", "prod", span, spaced)
        elif char in CHARACTERS:
            self.emit(*CHARACTERS[char], span, spaced)
        elif char.isdigit() or char == ".":
            self.number(token, spaced)
        elif CJK.match(char):
            self.cjk(token, spaced)
        elif char.isascii() and char.isalpha():
            self.letters(token, spaced)
        elif char in SPECIAL_LETTERS or char.isalpha():
            plain, font = (char, "") if char in SPECIAL_LETTERS else unstyled(char)
            self.in_font(font or self.font[-1], "letter", plain, span, spaced)
        elif unicodedata.combining(char) and self.behind() == "letter":
            self.out[-1] = replace(self.out[-1], text=self.out[-1].text + char)
        elif char not in INVISIBLE:
            self._decomposed(char, span, spaced)

    def in_font(self, font: str, kind: str, text: str, span: Span, spaced: bool) -> None:
        """Add one token in a font of its own."""
        self.font.append(font)
        self.emit(kind, text, span, spaced)
        self.font.pop()

    def _decomposed(self, char: str, span: Span, spaced: bool) -> None:
        """Read the plain characters that a compatibility character stands for: ``½``, ``ﬁ``."""
        plain = unicodedata.normalize("NFKC", char)
        for piece in plain:
            if piece != char and piece.isascii() and piece.isprintable():
                self.character(Raw(piece, span), spaced)
            elif plain == char or not piece.isspace():
                raise CannotParse(f"the character {char!r} has no meaning here", span)

    def _script_follows(self) -> bool:
        return self.ahead() == "_" or self.ahead() in SUBSCRIPTS

    def _sums(self) -> bool:
        """Whether a capital sigma in plain text is the sum of what stands after it."""
        following, after = self.ahead(), self.ahead(1)
        if self.latex or not (following.isalpha() or (following == " " and after.isalpha())):
            return False
        return self.choices.pick("capital sigma", "Σ is a sum", "Σ is a matrix") == 0
