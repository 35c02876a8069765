r"""Documents to formulas, code and prose, each with its line.

One scanner finds ``$$``, ``\[``, ``\(``, ``$`` and LaTeX environments in text from
which code, comments and escaped dollars have been blanked out; what differs between
Markdown, LaTeX, HTML and notebooks is only what is blanked and where lines come from.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import PurePath

from minitransformer.verify.tokenizer import Macro

_ENVIRONMENTS = [
    "equation",
    "align",
    "gather",
    "multline",
    "eqnarray",
    "displaymath",
    "flalign",
    "alignat",
    "split",
    "aligned",
    "math",
]
_CODE_ENVIRONMENTS = ("verbatim", "lstlisting", "minted", "Verbatim", "algorithmic")
# Words that no formula of a plain text holds.
_PROSE_WORDS = frozenset(
    [
        "on",
        "of",
        "the",
        "is",
        "are",
        "was",
        "and",
        "or",
        "with",
        "for",
        "to",
        "in",
        "by",
        "we",
        "our",
        "this",
        "that",
        "it",
        "as",
        "at",
        "from",
        "has",
        "have",
        "not",
        "be",
        "so",
        "but",
        "if",
        "when",
        "then",
        "which",
        "an",
        "you",
        "your",
        "i'm",
        "can",
        "will",
        "test",
        "use",
        "using",
        "see",
    ]
)
_MATH_FENCES = {"math", "latex", "tex", "katex"}


@dataclass(frozen=True)
class Formula:
    """A formula: its text without delimiters, where it stands and what surrounds it."""

    text: str
    line: int
    end_line: int
    display: bool
    heading: str = ""
    section: int = 0  # counts headings, to tell one section's symbols from another's


@dataclass(frozen=True)
class Code:
    """A block of code or of its output; ``line`` is the line of its first line."""

    text: str
    language: str
    line: int
    heading: str = ""
    section: int = 0


@dataclass(frozen=True)
class Prose:
    """A paragraph, its formulas kept between single dollars."""

    text: str
    line: int
    heading: str = ""
    section: int = 0
    breaks: tuple[int, ...] = ()  # where the text went on in a new line

    def line_of(self, fragment: str) -> int:
        """Return the line on which a part of the paragraph starts."""
        position = max(0, self.text.find(fragment.strip()))
        return self.line + bisect_right(self.breaks, position)  # breaks are in order


@dataclass
class Document:
    """Everything that can be checked in one file, in reading order."""

    name: str
    formulas: list[Formula] = field(default_factory=list)
    codes: list[Code] = field(default_factory=list)
    prose: list[Prose] = field(default_factory=list)
    macros: dict[str, Macro] = field(default_factory=dict)


def read_document(text: str, name: str) -> Document:
    r"""Split a document into what can be checked.

    Parameters
    ----------
    text : str
        The file's text.
    name : str
        Its name; the suffix (``.tex``, ``.html``, ``.ipynb``, ``.txt``, else Markdown)
        tells the format.

    Returns
    -------
    Document

    Raises
    ------
    ValueError
        If a notebook is not JSON with cells.

    Examples
    --------
    >>> found = read_document("It costs $5. We use $d_k = 64$ and\n\n$$S = QK^T$$\n", "a.md")
    >>> [(f.text, f.line, f.display) for f in found.formulas]
    [('d_k = 64', 1, False), ('S = QK^T', 3, True)]
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    suffix = PurePath(name).suffix.lower()
    document = Document(name)
    if suffix == ".ipynb":
        _notebook(text, document)
    elif suffix in (".html", ".htm", ".xhtml"):
        _html(text, document)
    elif suffix == ".tex":
        _tex(text, document)
    else:
        _markdown(text, document, lambda line: line, plain=suffix in (".txt", ""))
    order: Callable[[Formula | Code | Prose], int] = lambda item: item.line  # noqa: E731
    document.formulas.sort(key=order)
    document.codes.sort(key=order)
    document.prose.sort(key=order)
    return document


# -- the scanner of delimiters ------------------------------------------------------------
@dataclass(frozen=True)
class _Math:
    start: int
    end: int
    text: str
    display: bool


def _scan(text: str, tex: bool = False) -> Iterator[_Math]:
    """Yield the formulas of a text from which code has been blanked."""
    pos, hopeless = 0, set[str]()
    mark = re.compile(r"\\\\|\\\$|\$\$|\$|\\\[|\\\(|\\begin\s*\{(\w+)(\*?)\}")
    while True:
        found = mark.search(text, pos)
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
        if len(inside) > 40_000 or (token in ("$$", "\\[") and "\n\n\n" in inside):
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
    limit = min(len(text), pos + 2_000)
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


class _Lines:
    def __init__(self, text: str, line_of: Callable[[int], int]) -> None:
        self.starts = [0] + [m.end() for m in re.finditer("\n", text)]
        self.line_of = line_of

    def __call__(self, position: int) -> int:
        return self.line_of(bisect_right(self.starts, position))


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


class _Sections:
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


def _collect(
    text: str, document: Document, sections: _Sections, lines: _Lines, tex: bool = False
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
    prose_lines = _Lines(prose, lines.line_of)
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


def _without_comments(text: str, to_end: bool = False) -> str:
    """Blank ``<!-- -->``; one that is never closed hides the rest only in HTML."""
    out: list[str] = []
    pos = 0
    while True:
        start = text.find("<!--", pos)
        end = text.find("-->", start + 4) if start >= 0 else -1
        if end < 0:
            rest = text[pos:]
            if start >= 0 and to_end:
                rest = text[pos:start] + _blank(text[start:])
            return "".join([*out, rest])
        out += [text[pos:start], _blank(text[start : end + 3])]
        pos = end + 3


# -- Markdown -----------------------------------------------------------------------------
_FENCE = re.compile(r"^([ \t>]*(?:[-*+]\s+|\d+[.)]\s+)?)(`{3,}|~{3,})[ \t]*([^\n`]*)$")
_CODE_SPAN = re.compile(r"(?<![`$])(`+)(?!`)([^\n]*?[^`\n])\1(?!`)")


def _markdown(
    text: str, document: Document, line_of: Callable[[int], int], plain: bool = False,
    sections: _Sections | None = None,
) -> None:  # fmt: skip
    text = _without_comments(text)
    front = re.match(r"---\n.*?\n---\n", text, re.S)
    if front:
        text = _blank(front.group()) + text[front.end() :]
    lines = _Lines(text, line_of)
    document.macros |= find_macros(text)
    sections = sections or _Sections()
    rows = text.split("\n")
    kept: list[str] = []
    fences: list[tuple[int, int, str]] = []
    position, index = 0, 0
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row) + 1)
    while index < len(rows):
        row = rows[index]
        fence = _FENCE.match(row)
        if fence:
            mark = fence.group(2)
            close = index + 1
            closing = re.compile(rf"^[ \t>]*{re.escape(mark[0])}{{{len(mark)},}}[ \t]*$")
            while close < len(rows) and not closing.match(rows[close]):
                close += 1
            fences.append((index, close, fence.group(3).strip()))
            kept += [" " * len(r) for r in rows[index : close + 1]]
            index = close + 1
            continue
        title = re.match(r"^ {0,3}#{1,6}[ \t]+(.*?)[ \t#]*$", row)
        if title:
            sections.add(offsets[index], title.group(1))
        elif index and re.match(r"^ {0,3}(=+|-{3,})[ \t]*$", row) and rows[index - 1].strip():
            before = rows[index - 1]
            if not re.match(r"^\s*([-*+|>]|\d+[.)])", before) and "$" not in before:
                sections.add(offsets[index - 1], before)
        kept.append(row)
        index += 1
    position = 0
    for start, close, info in fences:
        position = offsets[start]
        heading, section = sections.at(position)
        indent = len(rows[start]) - len(rows[start].lstrip(" "))
        body = [r[indent:] if r[:indent].isspace() else r for r in rows[start + 1 : close]]
        language = re.split(r"[\s{},:]", info.strip("{."))[0].lower()
        first = line_of(start + 2)
        if language in _MATH_FENCES:
            content = "\n".join(body).strip()
            if content:
                lead = next((i for i, r in enumerate(body) if r.strip()), 0)
                content = re.sub(r"^\$\$|\$\$$", "", content).strip()
                document.formulas.append(
                    Formula(
                        content, line_of(start + 2 + lead), line_of(close), True, heading, section
                    )
                )
        else:
            document.codes.append(Code("\n".join(body), language, first, heading, section))
    blanked = "\n".join(kept)
    blanked = _CODE_SPAN.sub(lambda m: m[1] + _unmarked(m[2]) + m[1], blanked)
    known = len(document.formulas)
    _collect(blanked, document, sections, lines)
    if plain and len(document.formulas) == known:
        _plain_lines(blanked, document, line_of)


def _unmarked(code: str) -> str:
    """Keep a code span's text, without what could open a formula."""
    return re.sub(r"[$\\]", " ", code)


def _plain_lines(text: str, document: Document, line_of: Callable[[int], int]) -> None:
    """Take the lines of a plain text that are formulas and nothing else."""
    from minitransformer.verify.parser import CannotParse, parse

    for number, line in enumerate(text.split("\n"), start=1):
        content = line.strip()
        if not 3 <= len(content) <= 500 or not re.search(r"[=^_/√∑ᵀ·@]|\w\(", content):
            continue
        words = re.findall(r"[A-Za-z\u4e00-\u9fff]+", content)
        if re.search(r"\b[a-z]{2,}\s+[a-z]{2,}\s+[a-z]{2,}\b", content) or len(words) > 40:
            continue
        if re.search(r"[\u4e00-\u9fff]{3,}", content):
            continue
        if re.search(r"[A-Za-z]{2,}\s*:\s", content):  # a log's "loss: 2.5"
            continue
        if len([w for w in words if len(w) > 1 and w.lower() in _PROSE_WORDS]):
            continue
        try:
            readings = parse(content)
        except CannotParse:
            continue
        if readings[0].expr.op in ("relation", "chain", "mul", "matmul", "call", "div", "steps"):
            document.formulas.append(Formula(content, line_of(number), line_of(number), True))


# -- LaTeX --------------------------------------------------------------------------------
def find_macros(text: str) -> dict[str, Macro]:
    r"""Return the commands that a document defines.

    Examples
    --------
    >>> find_macros(r"\newcommand{\R}{\mathbb{R}} \DeclareMathOperator{\att}{Att}")["R"].body
    '\\mathbb{R}'
    """
    macros: dict[str, Macro] = {}
    pattern = re.compile(
        r"\\(?:(?:re)?newcommand|providecommand|DeclareRobustCommand)\*?\s*\{?\s*\\([A-Za-z]+)\s*\}?"
        r"\s*(?:\[(\d)\])?\s*(?:\[([^\]\n]*)\])?\s*(?=\{)"
    )
    for match in pattern.finditer(text):
        body = _braced(text, match.end())
        if body is not None:
            count = int(match.group(2) or 0)
            macros[match.group(1)] = Macro(count, body, match.group(3))
    for match in re.finditer(r"\\def\s*\\([A-Za-z]+)((?:#\d)*)\s*(?=\{)", text):
        body = _braced(text, match.end())
        if body is not None:
            macros[match.group(1)] = Macro(len(match.group(2)) // 2, body)
    for match in re.finditer(
        r"\\DeclareMathOperator(\*?)\s*\{\s*\\([A-Za-z]+)\s*\}\s*(?=\{)", text
    ):
        body = _braced(text, match.end())
        if body is not None:
            macros[match.group(2)] = Macro(0, f"\\operatorname{match.group(1)}{{{body}}}")
    return macros


def _braced(text: str, position: int) -> str | None:
    depth = 0
    for index in range(position, min(len(text), position + 2_000)):
        char = text[index]
        if text[index - 1] == "\\" and index > position:
            continue
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[position + 1 : index]
    return None


def _tex(text: str, document: Document) -> None:
    text = re.sub(r"(?<!\\)%[^\n]*", lambda m: " " * len(m.group()), text)
    document.macros |= find_macros(text)
    lines = _Lines(text, lambda line: line)
    start = text.find("\\begin{document}")
    if start >= 0:
        text = _blank(text[:start]) + " " * 16 + text[start + 16 :]
    sections = _Sections()
    for title in re.finditer(r"\\(?:sub)*(?:section|chapter|paragraph|title)\*?\s*(?=\{)", text):
        sections.add(title.start(), _braced(text, title.end()) or "")
    for name in _CODE_ENVIRONMENTS:
        pattern = re.compile(
            rf"\\begin\{{{name}\}}(\[[^\]\n]*\])?(\{{[^}}\n]*\}})?(.*?)\\end\{{{name}\}}", re.S
        )
        for block in pattern.finditer(text):
            options = (block.group(1) or "") + (block.group(2) or "")
            language = "python" if "python" in options.lower() else ""
            heading, section = sections.at(block.start())
            body = block.group(3)
            lead = len(body) - len(body.lstrip("\n"))
            if name != "algorithmic":
                document.codes.append(
                    Code(body.strip("\n"), language, lines(block.start(3) + lead), heading, section)
                )
        text = pattern.sub(lambda m: _blank(m.group()), text)
    text = re.sub(r"\\verb\*?([^A-Za-z\s]).*?\1", lambda m: _blank(m.group()), text)
    _collect(text, document, sections, lines, tex=True)


# -- HTML ---------------------------------------------------------------------------------
_BLOCKS = {
    "p", "div", "li", "ul", "ol", "table", "tr", "td", "th", "section", "article", "br", "h1",
    "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "figure", "header", "footer", "body", "main",
}  # fmt: skip


class _Html(HTMLParser):
    """Collect an HTML page's text, one output line per source line."""

    def __init__(self, document: Document) -> None:
        super().__init__(convert_charrefs=True)
        self.document = document
        self.sections = _Sections()
        self.out: list[str] = []
        self.length = 0
        self.rows: list[int] = [1]  # the source line of each output line
        self.skip: list[str] = []
        self.capture: list[str] | None = None
        self.captured_as = ""
        self.captured_line = 1
        self.title: list[str] | None = None
        self.title_at = 0
        self.inline_code = 0

    def add(self, text: str) -> None:
        line = self.getpos()[0]
        for index, piece in enumerate(text.split("\n")):
            if index:
                self.out.append("\n")
                self.length += 1
                self.rows.append(line + index)
            self.out.append(piece)
            self.length += len(piece)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {k: v or "" for k, v in attrs}
        kind = given.get("type", "").lower()
        if tag == "script" and kind.startswith("math/tex"):
            self.start_capture("display" if "display" in kind else "inline")
        elif tag == "annotation" and "tex" in given.get("encoding", ""):
            self.start_capture("inline")
        elif tag == "math":
            self.skip.append(tag)
            self.display = given.get("display") == "block"
            self.alt = given.get("alttext", "")
            self.annotated = False
        elif tag in ("script", "style"):
            self.skip.append(tag)
        elif tag == "pre":
            self.start_capture("code " + _language(given))
        elif tag == "code":
            if self.captured_as.startswith("code"):
                self.captured_as = "code " + (_language(given) or self.captured_as[5:])
            else:
                self.inline_code += 1
        elif re.fullmatch(r"h[1-6]", tag):
            self.title, self.title_at = [], self.length
        if tag in _BLOCKS and not self.skip and self.capture is None:
            self.add("\n\n" if tag != "br" else "\n")
            self.rows[-1] = self.getpos()[0]

    def start_capture(self, kind: str) -> None:
        self.capture, self.captured_as = [], kind
        self.captured_line = self.getpos()[0]

    def handle_endtag(self, tag: str) -> None:
        if self.capture is not None and tag in ("script", "annotation", "pre"):
            content = "".join(self.capture)
            kind, line = self.captured_as, self.captured_line
            self.capture, self.captured_as = None, ""
            heading, section = self.sections.at(self.length)
            if kind.startswith("code"):
                lead = len(content) - len(content.lstrip("\n"))
                self.document.codes.append(
                    Code(content.strip("\n"), kind[5:], line + lead, heading, section)
                )
            elif content.strip():
                display = kind == "display" or (tag == "annotation" and self.display)
                self.annotated = True
                self.document.formulas.append(
                    Formula(
                        _unwrapped(content),
                        line,
                        line + content.count("\n"),
                        display,
                        heading,
                        section,
                    )
                )
                if not display:
                    self.add(f"\u2060${' '.join(content.split())}$".replace("\u2060", "⟦"))
        elif self.skip and tag == self.skip[-1]:
            self.skip.pop()
            if tag == "math" and not self.annotated and self.alt:
                line = self.getpos()[0]
                heading, section = self.sections.at(self.length)
                self.document.formulas.append(
                    Formula(_unwrapped(self.alt), line, line, self.display, heading, section)
                )
        elif tag == "code":
            self.inline_code = max(0, self.inline_code - 1)
        if self.title is not None and re.fullmatch(r"h[1-6]", tag):
            self.sections.add(self.title_at, " ".join("".join(self.title).split()))
            self.title = None
        if tag in _BLOCKS and not self.skip and self.capture is None:
            self.add("\n\n")
            self.rows[-1] = self.getpos()[0]

    def handle_data(self, data: str) -> None:
        if self.capture is not None:
            self.capture.append(data)
            return
        if self.skip:
            return
        if self.title is not None:
            self.title.append(data)
        self.add(_unmarked(data) if self.inline_code else data)


def _language(given: dict[str, str]) -> str:
    match = re.search(r"(?:language|lang|highlight-source)-(\w+)", given.get("class", ""))
    return match.group(1).lower() if match else ""


def _unwrapped(text: str) -> str:
    r"""Drop what converters wrap around a formula: CDATA and ``{\displaystyle ...}``."""
    text = re.sub(r"^%?\s*<!\[CDATA\[|%?\s*\]\]>$", "", text.strip()).strip()
    style = re.fullmatch(r"\{\\displaystyle\s*(.*)\}", text, re.S)
    return style.group(1).strip() if style else text


def _html(text: str, document: Document) -> None:
    text = _without_comments(text, to_end=True)
    parser = _Html(document)
    document.macros |= find_macros(text)
    parser.feed(text)
    parser.close()
    flat = "".join(parser.out)
    rows = parser.rows
    lines = _Lines(flat, lambda line: rows[min(line, len(rows)) - 1])
    # Formulas already taken from scripts stay in the prose behind a mark; blank the mark.
    marked = [m.span() for m in re.finditer(r"⟦\$[^$]*\$", flat)]
    taken = {re.sub(r"\s+", " ", flat[a + 2 : b - 1]) for a, b in marked}
    flat = flat.replace("⟦$", " $")
    before = list(document.formulas)
    document.formulas.clear()
    _collect(flat, document, parser.sections, lines)
    document.formulas[:] = [f for f in document.formulas if " ".join(f.text.split()) not in taken]
    document.formulas += before


# -- notebooks ----------------------------------------------------------------------------
def _notebook(text: str, document: Document) -> None:
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{document.name}: not a notebook: {str(error)[:80]}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ValueError(f"{document.name}: a notebook without cells")
    finder = _JsonLines(text)
    section = 0
    heading = ""
    for cell in cells:
        if not isinstance(cell, dict):
            continue
        source = _joined(cell.get("source", ""))
        numbers = finder.lines(source)

        def line_of(line: int, numbers: list[int] = numbers) -> int:
            return numbers[min(max(line, 1), len(numbers)) - 1]

        if cell.get("cell_type") == "markdown":
            part = Document(document.name)
            _markdown(source, part, line_of)
            document.macros |= part.macros
            items: list[Formula | Code | Prose] = [*part.formulas, *part.codes, *part.prose]
            for item in items:
                _append(document, item, section, heading)
            titles = re.findall(r"(?m)^#{1,6}\s+(.*)$", source)
            section += len(titles)
            heading = titles[-1] if titles else heading
        elif cell.get("cell_type") == "code":
            code = "\n".join("" if re.match(r"\s*[%!]", row) else row for row in source.split("\n"))
            document.codes.append(Code(code, "python", line_of(1), heading, section))
            for output in cell.get("outputs", []) or []:
                if isinstance(output, dict) and "text" in output:
                    shown = _joined(output["text"])
                    where = finder.lines(shown)
                    document.codes.append(Code(shown, "output", where[0], heading, section))


def _append(document: Document, item: Formula | Code | Prose, sections: int, title: str) -> None:
    """Move one cell's find into the notebook's document."""
    section, heading = item.section + sections, item.heading or title
    if isinstance(item, Formula):
        document.formulas.append(replace(item, section=section, heading=heading))
    elif isinstance(item, Code):
        document.codes.append(replace(item, section=section, heading=heading))
    else:
        document.prose.append(replace(item, section=section, heading=heading))


def _joined(source: object) -> str:
    if isinstance(source, list):
        return "".join(str(part) for part in source)
    return str(source)


class _JsonLines:
    """Find the line of the file on which each line of a cell stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines_at = _Lines(text, lambda line: line)
        self.cursor = 0

    def lines(self, source: str) -> list[int]:
        numbers = []
        for row in source.split("\n"):
            found = -1
            if row.strip():
                for ascii_only in (False, True):
                    encoded = json.dumps(row, ensure_ascii=ascii_only)[1:-1]
                    found = self.text.find(encoded, self.cursor)
                    if found >= 0:
                        self.cursor = found + len(encoded)
                        break
            numbers.append(self.lines_at(found if found >= 0 else self.cursor))
        return numbers
