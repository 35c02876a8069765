"""Markdown: fenced code, headings, and the formulas of what is left."""

from __future__ import annotations

import re

from minitransformer.verify.extraction.latex import find_macros
from minitransformer.verify.extraction.model import Code, Document, Formula
from minitransformer.verify.extraction.scan import (
    LineOf,
    Lines,
    Sections,
    blank,
    collect,
    unmarked,
    without_comments,
)

_FENCE = re.compile(r"^([ \t>]*(?:[-*+]\s+|\d+[.)]\s+)?)(`{3,}|~{3,})[ \t]*([^\n`]*)$")
_CODE_SPAN = re.compile(r"(?<![`$])(`+)(?!`)([^\n]*?[^`\n])\1(?!`)")
_TITLE = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)[ \t#]*$")
_UNDERLINE = re.compile(r"^ {0,3}(=+|-{3,})[ \t]*$")
_FRONT_MATTER = re.compile(r"---\n.*?\n---\n", re.S)
_MATH_LANGUAGES = {"math", "latex", "tex", "katex"}


def read_markdown(text: str, document: Document, line_of: LineOf) -> str:
    """Find what a Markdown text holds; return the text without its code."""
    text = without_comments(text)
    front = _FRONT_MATTER.match(text)
    if front:
        text = blank(front.group()) + text[front.end() :]
    document.macros |= find_macros(text)
    rows = text.split("\n")
    starts = [0]
    for row in rows:
        starts.append(starts[-1] + len(row) + 1)
    sections = Sections()
    kept: list[str] = []
    fences: list[tuple[int, int, str]] = []
    index = 0
    while index < len(rows):
        row = rows[index]
        fence = _FENCE.match(row)
        if fence:
            close = _closing(rows, index, fence.group(2))
            fences.append((index, close, fence.group(3).strip()))
            kept += [" " * len(r) for r in rows[index : close + 1]]
            index = close + 1
            continue
        title = _TITLE.match(row)
        if title:
            sections.add(starts[index], title.group(1))
        elif index and _UNDERLINE.match(row) and rows[index - 1].strip():
            before = rows[index - 1]
            if not re.match(r"^\s*([-*+|>]|\d+[.)])", before) and "$" not in before:
                sections.add(starts[index - 1], before)
        kept.append(row)
        index += 1
    for first, last, info in fences:
        _fenced(rows, first, last, info, document, line_of, *sections.at(starts[first]))
    left = "\n".join(kept)
    left = _CODE_SPAN.sub(lambda m: m[1] + unmarked(m[2]) + m[1], left)
    collect(left, document, sections, Lines(text, line_of))
    return left


def _closing(rows: list[str], opening: int, mark: str) -> int:
    """Return the row that ends a fence, or the number of rows."""
    closing = re.compile(rf"^[ \t>]*{re.escape(mark[0])}{{{len(mark)},}}[ \t]*$")
    after = range(opening + 1, len(rows))
    return next((i for i in after if closing.match(rows[i])), len(rows))


def _fenced(
    rows: list[str],
    first: int,
    last: int,
    info: str,
    document: Document,
    line_of: LineOf,
    heading: str,
    section: int,
) -> None:
    """Add what stands between two fences: a formula, or code."""
    indent = len(rows[first]) - len(rows[first].lstrip(" "))
    body = [r[indent:] if r[:indent].isspace() else r for r in rows[first + 1 : last]]
    language = re.split(r"[\s{},:]", info.strip("{."))[0].lower()
    if language not in _MATH_LANGUAGES:
        code = Code("\n".join(body), language, line_of(first + 2), heading, section)
        document.codes.append(code)
        return
    content = "\n".join(body).strip()
    if content:
        lead = next((i for i, r in enumerate(body) if r.strip()), 0)
        content = re.sub(r"^\$\$|\$\$$", "", content).strip()
        start = line_of(first + 2 + lead)
        document.formulas.append(Formula(content, start, line_of(last), True, heading, section))
