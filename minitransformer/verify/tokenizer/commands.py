r"""LaTeX's control sequences to tokens; one that no table knows is an error, never a guess."""

from __future__ import annotations

import re

from minitransformer.verify.tokenizer.characters import FONT_ENDS, Characters
from minitransformer.verify.tokenizer.fonts import FONTS
from minitransformer.verify.tokenizer.source import Raw
from minitransformer.verify.tokenizer.symbols import (
    BAR_KINDS,
    COMMAND_FUNCTIONS,
    COMMANDS,
    DELIMITER_CHARACTERS,
    DELIMITERS,
    DROP_ARGUMENT,
    LETTERS,
    LOOKALIKES,
    NEGATED,
    SPACING,
    UNREAD,
    UPRIGHT,
)
from minitransformer.verify.tokenizer.tokens import CannotParse, Span, Token
from minitransformer.verify.tokenizer.words import canonical_function, is_connector

_SIZES = re.compile(r"[bB]ig{1,2}([lrm]?)$")
_SIDES = ("left", "right", "middle")
_SIDES_OF_SIZES = {"": "", "l": "left", "r": "right", "m": "middle"}
_LINE_SPACE = re.compile(r"-?[\d.]+\s*(pt|em|ex|mm|cm)")
_WRITTEN_SPACES = {"\\,": " ", "\\ ": " ", "\\_": "_", "\\-": "-", "~": " ", "\\;": " "}
_ARGUMENT_MAXIMA = {"\\argmax": "argmax", "\\arg\\max": "argmax",
                    "\\argmin": "argmin", "\\arg\\min": "argmin"}  # fmt: skip


class Tokenizer(Characters):
    """Reads a whole formula."""

    def run(self) -> list[Token]:
        spaced = False
        while self.pos < len(self.raw):
            token = self.raw[self.pos]
            self.pos += 1
            if token.text == " ":
                spaced = True
                continue
            self.one(token, spaced)
            spaced = False
        return self.out

    def one(self, token: Raw, spaced: bool) -> None:
        if token.text[0] == "\\":
            self.command(token, spaced)
        else:
            self.character(token, spaced)

    def command(self, token: Raw, spaced: bool) -> None:
        name, span = token.text[1:], token.span
        size = _SIZES.match(name)
        side = _SIDES_OF_SIZES[size.group(1)] if size else name if name in _SIDES else ""
        if name == "\\":
            self.new_line(span, spaced)
        elif name in ("quad", "qquad"):
            if self.depth == 0 and not self.braces:
                self.emit("quad", "\\quad", span)
        elif name == "":
            if self.pos >= len(self.raw):
                raise CannotParse("a lone backslash at the end", span)
        elif name in SPACING or (size and not side):
            pass
        elif name in DROP_ARGUMENT:
            self.group(token)
        elif side:
            self.delimiter(side, token, spaced)
        elif name in UPRIGHT:
            self.upright(token, spaced)
        elif name in FONTS:
            self.fonted(FONTS[name], token, spaced)
        elif name == "prime" and self.behind() not in ("", "^"):
            self.emit("'", "'", span, spaced)
        elif name in COMMANDS:
            self.emit(*COMMANDS[name], span, spaced)
        elif name == "not":
            self.skip_spaces()
            after = self.ahead()
            if after not in NEGATED:
                raise CannotParse(f"\\not before {after or 'nothing'}", span)
            self.pos += 1
            self.emit("rel", NEGATED[after], span, spaced)
        elif name in ("begin", "end"):
            environment = "".join(r.text for r in self.group(token))
            if "matrix" in environment or environment == "cases":
                self.depth += 1 if name == "begin" else -1
            self.emit(name, environment, span, spaced)
        elif name in ("#", "$", "&"):
            raise CannotParse(f"a literal {name} in a formula", span)
        elif name in UNREAD:
            raise CannotParse(f"\\{name} is not read by this parser", span)
        else:
            raise CannotParse(f"unknown command {token.text}", span)

    def new_line(self, span: Span, spaced: bool) -> None:
        r"""Read ``\\``, with the space that ``\\[2pt]`` adds."""
        self.skip_spaces()
        if self.ahead() == "[":
            ahead = "".join(self.ahead(i) for i in range(12))
            inside = ahead[1:].partition("]")[0]
            if "]" in ahead and _LINE_SPACE.fullmatch(inside):
                self.pos += len(inside) + 2
        self.emit("newline", "\\\\", span, spaced)

    def delimiter(self, side: str, owner: Raw, spaced: bool) -> None:
        r"""Read what stands after ``\left``, ``\right``, ``\middle`` and their sizes."""
        self.skip_spaces()
        if self.pos >= len(self.raw):
            raise CannotParse(f"{owner.text} without a delimiter", owner.span)
        raw = self.raw[self.pos]
        self.pos += 1
        text = DELIMITERS.get(raw.text[1:], "") if raw.text[0] == "\\" else raw.text
        text = LOOKALIKES.get(text, text)
        if text not in DELIMITER_CHARACTERS:
            raise CannotParse(f"{owner.text} before {raw.text}, not a delimiter", raw.span)
        text = {"<": "⟨", ">": "⟩"}.get(text, text)
        span = (owner.span[0], max(raw.span[1], owner.span[1]))
        if text == "/":
            self.emit("op", text, span, spaced)
        elif side == "middle":
            self.emit(BAR_KINDS.get(text, "bar"), text, span, spaced)
        else:
            self.emit("open" if side == "left" else "close", text, span, spaced)

    # -- fonts --------------------------------------------------------------------------
    def upright(self, owner: Raw, spaced: bool) -> None:
        r"""Read ``\mathrm{word}``: letters make one symbol, anything else is mathematics."""
        start = self.pos
        group = self.group(owner)
        plain = "".join(_WRITTEN_SPACES.get(r.text, r.text) for r in group)
        end = max([owner.span[1]] + [r.span[1] for r in group])
        if self.pos > start and self.raw[self.pos - 1].text == "}":
            end = max(end, self.raw[self.pos - 1].span[1])
        function = owner.text.startswith("\\operatorname")
        if function:
            plain = re.sub(r"\s+", "", plain.replace("\\!", ""))
            plain = _ARGUMENT_MAXIMA.get(plain, plain)
        identifier = "_" not in plain or re.fullmatch(r"[A-Za-z]\w*", plain)
        if identifier and not re.search(r"[\\{}$^&%#]", plain):
            self.word(plain.strip(), owner, (owner.span[0], end), spaced, function)
        else:
            self.insert(owner.span, group, owner.span)  # mathematics inside

    def word(self, text: str, owner: Raw, span: Span, spaced: bool, function: bool) -> None:
        """Add the token that an upright text is."""
        if not text:
            return
        if re.fullmatch(r"\d+(\.\d+)?", text):
            self.emit("number", text, span, spaced)
        elif text in ("+", "-", "/", "*"):
            self.emit("op", text, span, spaced)
        elif text in ("=", "<", ">"):
            self.emit("rel", text, span, spaced)
        elif set(text) <= set(",;.:"):
            if text in (",", ";"):
                self.emit("comma", ",", span, spaced)
        elif function:
            self.emit("func", canonical_function(text), span, spaced)
        elif owner.text == "\\mathop" and text in COMMAND_FUNCTIONS:
            self.emit("func", COMMAND_FUNCTIONS[text], span, spaced)
        elif len(text) == 1:
            self.in_font("upright", "letter", text, span, spaced)
        elif re.fullmatch(r"[^\W\d_](?:[\w\-’']*)", text) and not is_connector(text):
            self.emit("word", text, span, spaced)
        else:
            self.emit("text", re.sub(r"\s+", " ", text), span, spaced)

    def fonted(self, font: str, owner: Raw, spaced: bool) -> None:
        r"""Read the argument of ``\mathbf``, ``\mathcal``, ... in its font."""
        self.skip_spaces()
        if self.pos >= len(self.raw):
            raise CannotParse(f"{owner.text} lacks an argument", owner.span)
        braced = self.ahead() == "{"
        group = self.group(owner)
        span = (owner.span[0], self.raw[self.pos - 1].span[1])
        letters = [r for r in group if r.text != " "]
        joined = "".join(r.text for r in letters)
        self.font.append(font)
        if len(letters) == 1 and joined[0] != "\\":
            self.in_one_font(joined, span, spaced)
        elif not braced:
            self.command(letters[0], spaced)
        elif len(letters) == 1 and joined[1:] in LETTERS:
            self.emit("letter", LETTERS[joined[1:]], span, spaced)
        elif font == "bold" and joined.isalpha() and len(joined) > 2:
            self.font.pop()
            self.emit("word", joined, span, spaced)
            return
        else:  # the font goes on to the end of the group
            start, end = (span[0], span[0]), (span[1], span[1])
            self.insert(start, [*group, Raw(FONT_ENDS, span)], end)
            return
        self.font.pop()

    def in_one_font(self, char: str, span: Span, spaced: bool) -> None:
        r"""Add one character in the font that is set; ``\mathbb{1}`` is a letter."""
        if char.isdigit():
            indicator = self.font[-1] == "double" and char in "01"
            self.emit("letter" if indicator else "number", char, span, spaced)
        elif char.isalpha():
            self.emit("letter", char, span, spaced)
        else:
            self.character(Raw(char, span), spaced)
