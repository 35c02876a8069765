"""The scanner of formulas: delimiters in a text from which code has been blanked out."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minitransformer.verify.extraction.model import Document, Formula, Prose

LineOf = Callable[[int], int]
_LONGEST_INLINE = 2_000
_LONGEST_DISPLAY = 40_000
_ENVIRONMENTS = frozenset(
    ["equation", "align", "gather", "multline", "eqnarray", "displaymath", "flalign", "alignat",
     "split", "aligned", "math"]
)  # fmt: skip
_MARK = re.compile(r"\\\\|\\\$|\$\$|\$|\\\[|\\\(|\\begin\s*\{(\w+)(\*?)\}")


@dataclass(frozen=True)
class _Math:
    start: int
    end: int
    text: str
    display: bool


def _scan(text: str, tex: bool = False) -> Iterator[_Math]:
    """Yield the formulas of a text from which code has been blanked."""
    pos, hopeless = 0, set[str]()
    while True:
        found = _MARK.search(text, pos)
        if found is None:
            return
        token, start, pos = found.group(), found.start(), found.end()
        if token in ("\\\\", "\\$"):
            continue
        display = True
        if token == "$$":
            close, inner = "$$", pos
        elif token == "\\[":
            close, inner = "\\]", pos
        elif token == "\\(":
            close, inner, display = "\\)", pos, False
        elif token == "$":
            end = _inline_end(text, pos, tex)
            if end is not None:
                ticked = text[pos] == "`" and text[end - 1] == "`"
                inside = text[pos + ticked : end - ticked]
                if inside.strip():
                    yield _Math(start, end + 1, inside, False)
                pos = end + 1
            continue
        else:
            if found.group(1) not in _ENVIRONMENTS:
                continue
            close, inner = f"\\end{{{found.group(1)}{found.group(2)}}}", start
        if close in hopeless:
            continue
        end = _find(text, close, pos)
        if end < 0:
            hopeless.add(close)
            continue
        stop = end + len(close)
        inside = text[inner : stop if inner == start else end]
        if len(inside) > _LONGEST_DISPLAY or (token in ("$$", "\\[") and "\n\n\n" in inside):
            continue
        if inside.strip():
            yield _Math(start, stop, inside, display)
        pos = stop


def _find(text: str, close: str, pos: int) -> int:
    """Find a closing delimiter that is not escaped."""
    while True:
        end = text.find(close, pos)
        if end <= 0 or close[0] == "\\" or text[end - 1] != "\\":
            if close in ("\\]", "\\)") and end > 0 and text[end - 1] == "\\":  # \\[2pt]
                pos = end + 1
                continue
            return end
        pos = end + 1


def _inline_end(text: str, pos: int, tex: bool) -> int | None:
    """Return where ``$`` closes, by the rules that keep prices out of formulas."""
    if pos >= len(text) or (text[pos].isspace() and not tex):
        return None
    end = pos
    limit = min(len(text), pos + _LONGEST_INLINE)
    while end < limit:
        end = text.find("$", end, limit)
        if end < 0:
            return None
        if text[end - 1] == "\\":
            end += 1
            continue
        break
    else:
        return None
    inside = text[pos:end]
    if not inside or "\n\n" in inside or re.search(r"\n[ \t]*\n", inside):
        return None
    if tex:
        return end
    after = text[end + 1 : end + 2]
    if inside[-1].isspace() or after.isdigit():
        return None
    worded = re.search(r"[A-Za-z]{2,}[,.]?\s+[A-Za-z]{2,}", inside)
    if worded and not re.search(r"[\\^_={}]", inside):
        return None
    if re.match(r"\d[\d,.]*\s*[A-Za-z\u4e00-\u9fff]{2,}", inside) and "\\" not in inside:
        return None  # "$5 million and another $"
    if "|" in inside and re.match(r"\d", inside):
        return None  # prices in two cells of a table
    return end


class Lines:
    """The line of a position in a text."""

    def __init__(self, text: str, line_of: LineOf) -> None:
        self.starts = [0] + [m.end() for m in re.finditer("\n", text)]
        self.line_of = line_of

    def __call__(self, position: int) -> int:
        return self.line_of(bisect_right(self.starts, position))


def blank(text: str) -> str:
    """Replace everything but the ends of lines by spaces."""
    return re.sub(r"[^\n]", " ", text)


class Sections:
    """Headings by position, and the section that a position belongs to."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.titles: list[str] = []

    def add(self, position: int, title: str) -> None:
        self.positions.append(position)
        self.titles.append(re.sub(r"[*`#]+", "", title).strip())

    def at(self, position: int) -> tuple[str, int]:
        index = bisect_right(self.positions, position)
        return (self.titles[index - 1] if index else "", index)


def collect(
    text: str, document: Document, sections: Sections, lines: Lines, tex: bool = False
) -> None:
    """Find formulas in blanked text, and paragraphs with their formulas kept."""
    pieces: list[str] = []
    last = 0
    for math in _scan(text, tex):
        heading, section = sections.at(math.start)
        lead = len(math.text) - len(math.text.lstrip())
        first = lines(text.find(math.text, math.start) + lead)
        final = lines(max(math.start, math.end - 1))
        document.formulas.append(
            Formula(math.text.strip(), first, final, math.display, heading, section)
        )
        inline = " ".join(math.text.split())
        pieces.append(text[last : math.start])
        # Displays stay in the prose as a mark, so that a sentence around one stays whole.
        kept = f"${inline}$" if not math.display else " ⟦display⟧ "
        pieces.append(kept + "\n" * text.count("\n", math.start, math.end))
        last = math.end
    pieces.append(text[last:])
    prose = "".join(pieces)
    prose_lines = Lines(prose, lines.line_of)
    shift = _Shift(text, prose)
    for paragraph in re.finditer(
        r"[^\n]+(?:\n(?![ \t]*(?:\n|$|[-*+>|]\s|\d+[.)]\s))[^\n]+)*", prose
    ):
        content = paragraph.group().strip()
        if not content or content == "⟦display⟧":
            continue
        offset = len(paragraph.group()) - len(paragraph.group().lstrip())
        line = prose_lines(paragraph.start() + offset)
        heading, section = sections.at(shift(paragraph.start()))
        breaks = tuple(m.start() for m in re.finditer("\n", content))
        document.prose.append(Prose(" ".join(content.split("\n")), line, heading, section, breaks))


class _Shift:
    """Positions in a rewritten text to positions in the original, by line."""

    def __init__(self, original: str, rewritten: str) -> None:
        self.original = [0] + [m.end() for m in re.finditer("\n", original)]
        self.rewritten = [0] + [m.end() for m in re.finditer("\n", rewritten)]

    def __call__(self, position: int) -> int:
        line = bisect_right(self.rewritten, position) - 1
        return self.original[min(line, len(self.original) - 1)]


def without_comments(text: str, to_end: bool = False) -> str:
    """Blank ``<!-- -->``; one that is never closed hides the rest only in HTML."""
    out: list[str] = []
    pos = 0
    while True:
        start = text.find("<!--", pos)
        end = text.find("-->", start + 4) if start >= 0 else -1
        if end < 0:
            rest = text[pos:]
            if start >= 0 and to_end:
                rest = text[pos:start] + blank(text[start:])
            return "".join([*out, rest])
        out += [text[pos:start], blank(text[start : end + 3])]
        pos = end + 3


def unmarked(code: str) -> str:
    """Keep a code span's text, without what could open a formula."""
    return re.sub(r"[$\\]", " ", code)
