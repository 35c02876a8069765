"""Tokens of several characters: numbers, words, raised and lowered Unicode."""

from __future__ import annotations

import re

from minitransformer.verify.tokenizer.scanner import Scanner
from minitransformer.verify.tokenizer.source import Raw
from minitransformer.verify.tokenizer.symbols import SPELLED_GREEK, SUBSCRIPTS, SUPERSCRIPTS
from minitransformer.verify.tokenizer.tokens import CannotParse, Span
from minitransformer.verify.tokenizer.words import SIZES_RUN_TOGETHER, is_connector

CJK = re.compile(r"[\u3400-\u9fff\u3040-\u30ff\uac00-\ud7af]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_SCIENTIFIC = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)[eE][+-]?\d+(?![A-Za-z])")
_THOUSANDS = re.compile(r"\{,\}\d{3}(?!\d)")
_LONGEST_RUN = 80


class Runs(Scanner):
    """Reads what more than one character makes one token of."""

    def number(self, token: Raw, spaced: bool) -> None:
        """Read a number, an ellipsis of full stops, or the full stop of the sentence."""
        start = self.pos - 1
        end = start
        while end < len(self.raw) and self.raw[end].text in set("0123456789.eE+-"):
            end += 1
        text = "".join(raw.text for raw in self.raw[start:end])
        if text.startswith("..."):
            self.pos = start + 3
            self.emit("ellipsis", "…", (token.span[0], self.raw[start + 2].span[1]), spaced)
            return
        match = self._scientific(text) or _NUMBER.match(text)
        if match is None:
            if token.text == "." and all(r.text in " }," for r in self.raw[self.pos :]):
                return  # the full stop of the sentence
            raise CannotParse(f"{token.text!r} is not a number", token.span)
        value = match.group()
        if len(value) > 60:
            raise CannotParse("a number of more than 60 digits", token.span)
        self.pos = start + len(value)
        while _THOUSANDS.match("".join(self.ahead(i) for i in range(7))):
            value += "".join(self.ahead(i) for i in range(3, 6))
            self.pos += 6
        if self._only_first_digit(value):
            value = value[0]
            self.pos = start + 1
        self.emit("number", value, (token.span[0], self.raw[self.pos - 1].span[1]), spaced)

    def _scientific(self, text: str) -> re.Match[str] | None:
        match = _SCIENTIFIC.match(text)
        if match is not None and self.latex:  # 1e-5 typed in LaTeX
            notes = (f"{match.group()} is one number", "e is Euler's number")
            if self.choices.pick(f"number {match.group()}", *notes) == 1:
                return None
        return match

    def _only_first_digit(self, value: str) -> bool:
        r"""Whether TeX takes one digit here: ``\frac12`` is a half, ``x^10`` is x¹0."""
        if len(value) < 2 or not value.isdigit():
            return False
        last = [t.text if t.kind == "cmd" else t.kind for t in self.out[-2:]]
        if last[-1:] == ["frac"] or last == ["frac", "number"]:
            return True
        if not self.latex or self.behind() not in ("^", "_"):
            return False
        notes = (f"{value} is one number", f"as TeX typesets it, only {value[0]} is raised")
        return self.choices.pick(f"digits:{value}", *notes) == 1

    def cjk(self, token: Raw, spaced: bool) -> None:
        """Read a run of Chinese, Japanese or Korean characters as one word."""
        end = self.pos
        while end < len(self.raw) and CJK.match(self.raw[end].text):
            end += 1
        text = token.text + "".join(r.text for r in self.raw[self.pos : end])
        span = (token.span[0], self.raw[end - 1].span[1])
        self.pos = end
        self.emit("text" if is_connector(text) else "word", text, span, spaced)

    def raised(self, char: str, span: Span, spaced: bool) -> None:
        """Read a run of Unicode sub- or superscripts as one script."""
        table, mark = (SUBSCRIPTS, "_") if char in SUBSCRIPTS else (SUPERSCRIPTS, "^")
        pieces = [Raw(table[char], span)]
        while self.ahead() in table:
            pieces.append(Raw(table[self.ahead()], self.raw[self.pos].span))
            self.pos += 1
        whole = (span[0], pieces[-1].span[1])
        if mark == "^" and [p.text for p in pieces] == ["T"]:
            self.emit("transpose", "⊤", whole, spaced)
            return
        self.emit(mark, mark, whole, spaced)
        self.insert(whole, pieces, whole)

    def letters(self, token: Raw, spaced: bool) -> None:
        """Read a run of Latin letters: an identifier, a Greek letter, words and symbols."""
        end = self._letters_end()
        if self.raw[end : end + 1] and self.raw[end].text == r"\_" and self._goes_on(end):
            self._identifier(token, end, spaced)
            return
        raws = [token, *self.raw[self.pos : end]]
        run = "".join(r.text for r in raws)
        span = (token.span[0], raws[-1].span[1])
        after = next((r.text for r in self.raw[end : end + 2] if r.text != " "), "")
        paren = after in ("(", "\\left", "（") or after.startswith("\\big")
        self.pos = end
        greek = SPELLED_GREEK.get(run)
        if greek and self.behind() != "^" and (len(run) > 2 or not self.latex):
            self.emit("letter", greek, span, spaced)
        elif run in SIZES_RUN_TOGETHER and self._is_size(run):
            self.emit("letter", "d", span, spaced)
            self.emit("_", "_", span)
            self.emit("{", "{", span)
            self.emit("letter" if len(run) == 2 else "word", run[1:], span)
            self.emit("}", "}", span)
        else:
            offset = 0
            for piece in self._pieces(run, paren):
                part = raws[offset : offset + len(piece)]
                kind = "letter" if len(piece) == 1 else "word"
                if kind == "word" and is_connector(piece) and not self.in_subscript():
                    kind = "text"
                where = (part[0].span[0], part[-1].span[1])
                self.emit(kind, piece, where, spaced and not offset)
                offset += len(piece)

    def _letters_end(self) -> int:
        end = self.pos
        limit = min(len(self.raw), self.pos + _LONGEST_RUN)
        while end < limit and len(c := self.raw[end].text) == 1 and c.isascii() and c.isalpha():
            end += 1
        return end

    def _goes_on(self, at: int) -> bool:
        r"""Whether the ``\_`` at a position goes on with a letter or a digit."""
        limit = min(len(self.raw), self.pos + _LONGEST_RUN)
        return at + 1 < limit and self.raw[at + 1].text.isalnum()

    def _identifier(self, token: Raw, end: int, spaced: bool) -> None:
        r"""Read ``step\_num`` as one word."""
        start, limit = self.pos, min(len(self.raw), self.pos + _LONGEST_RUN)
        while self.raw[end : end + 1] and self.raw[end].text == r"\_" and self._goes_on(end):
            end += 1
            while end < limit and len(self.raw[end].text) == 1 and self.raw[end].text.isalnum():
                end += 1
        text = token.text + "".join(r.text.lstrip("\\") for r in self.raw[start:end])
        self.pos = end
        self.emit("word", text, (token.span[0], self.raw[end - 1].span[1]), spaced)

    def _is_size(self, run: str) -> bool:
        """Whether ``dk`` is d_k."""
        if self.behind() in ("^", "_") or self.in_subscript():
            return False
        notes = (f"{run} is d_{run[1:]}", f"{run} is a product of letters")
        return self.choices.pick(f"size {run}", *notes) == 0

    def _pieces(self, run: str, paren: bool) -> list[str]:
        if self.font[-1] in ("double", "script", "fraktur"):
            return list(run)
        if self.behind() == "_":
            return self.split.lowered(run)
        if self.behind() == "^":
            return self.split.raised(run, paren, self.in_subscript())
        if self.in_subscript():
            return self.split.inside_subscript(run)
        return self.split(run, paren)
