"""HTML pages: text by source line, formulas from scripts and MathML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from minitransformer.verify.extraction.latex import find_macros
from minitransformer.verify.extraction.model import Code, Document, Formula
from minitransformer.verify.extraction.scan import (
    Lines,
    Sections,
    collect,
    unmarked,
    without_comments,
)

_BLOCKS = {
    "p", "div", "li", "ul", "ol", "table", "tr", "td", "th", "section", "article", "br", "h1",
    "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "figure", "header", "footer", "body", "main",
}  # fmt: skip


class _Page(HTMLParser):
    """Collect an HTML page's text, one output line per source line."""

    def __init__(self, document: Document) -> None:
        super().__init__(convert_charrefs=True)
        self.document = document
        self.sections = Sections()
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
        self.add(unmarked(data) if self.inline_code else data)


def _language(given: dict[str, str]) -> str:
    match = re.search(r"(?:language|lang|highlight-source)-(\w+)", given.get("class", ""))
    return match.group(1).lower() if match else ""


def _unwrapped(text: str) -> str:
    r"""Drop what converters wrap around a formula: CDATA and ``{\displaystyle ...}``."""
    text = re.sub(r"^%?\s*<!\[CDATA\[|%?\s*\]\]>$", "", text.strip()).strip()
    style = re.fullmatch(r"\{\\displaystyle\s*(.*)\}", text, re.S)
    return style.group(1).strip() if style else text


def read_html(text: str, document: Document) -> None:
    """Find what an HTML page holds."""
    text = without_comments(text, to_end=True)
    parser = _Page(document)
    document.macros |= find_macros(text)
    parser.feed(text)
    parser.close()
    flat = "".join(parser.out)
    rows = parser.rows
    lines = Lines(flat, lambda line: rows[min(line, len(rows)) - 1])
    # Formulas already taken from scripts stay in the prose behind a mark; blank the mark.
    marked = [m.span() for m in re.finditer(r"⟦\$[^$]*\$", flat)]
    taken = {re.sub(r"\s+", " ", flat[a + 2 : b - 1]) for a, b in marked}
    flat = flat.replace("⟦$", " $")
    before = list(document.formulas)
    document.formulas.clear()
    collect(flat, document, parser.sections, lines)
    document.formulas[:] = [f for f in document.formulas if " ".join(f.text.split()) not in taken]
    document.formulas += before
