"""LaTeX documents, and the macros of any document."""

from __future__ import annotations

import re

from minitransformer.verify.extraction.model import Code, Document
from minitransformer.verify.extraction.scan import Lines, Sections, blank, collect
from minitransformer.verify.tokenizer import Macro

_CODE_ENVIRONMENTS = ("verbatim", "lstlisting", "minted", "Verbatim", "algorithmic")


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


def read_latex(text: str, document: Document) -> None:
    """Find what a LaTeX document holds."""
    text = re.sub(r"(?<!\\)%[^\n]*", lambda m: " " * len(m.group()), text)
    document.macros |= find_macros(text)
    lines = Lines(text, lambda line: line)
    start = text.find("\\begin{document}")
    if start >= 0:
        text = blank(text[:start]) + " " * 16 + text[start + 16 :]
    sections = Sections()
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
        text = pattern.sub(lambda m: blank(m.group()), text)
    text = re.sub(r"\\verb\*?([^A-Za-z\s]).*?\1", lambda m: blank(m.group()), text)
    collect(text, document, sections, lines, tex=True)
