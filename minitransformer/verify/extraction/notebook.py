"""Notebooks: the cells laid end to end, with the cell and line of each line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from minitransformer.verify.extraction.markdown import read_markdown
from minitransformer.verify.extraction.model import Code, Document, Spot
from minitransformer.verify.extraction.scan import Lines


def read_notebook(text: str, document: Document) -> None:
    """Find what a notebook's cells hold.

    Raises
    ------
    ValueError
        If the text is not JSON with cells.
    """
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{document.name}: not a notebook: {str(error)[:80]}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ValueError(f"{document.name}: a notebook without cells")
    reader = _Reader(text, document)
    for number, cell in enumerate(cells, start=1):
        if isinstance(cell, dict):
            reader.cell(number, cell)


class _Reader:
    """Reads cell after cell; headings and sections go on from one to the next."""

    def __init__(self, text: str, document: Document) -> None:
        self.document = document
        self.raw_lines = _RawLines(text)
        self.section = 0
        self.heading = ""

    def cell(self, number: int, cell: dict[str, Any]) -> None:
        source = _text(cell.get("source", ""))
        before = self.lay(source, f"cell {number}")
        if cell.get("cell_type") == "markdown":
            self.markdown(source, before)
        elif cell.get("cell_type") == "code":
            # Magics are no Python: %pip install, !ls.
            code = "\n".join("" if re.match(r"\s*[%!]", row) else row for row in source.split("\n"))
            self.code(code, "python", before)
            for output in cell.get("outputs", []) or []:
                if isinstance(output, dict) and "text" in output:
                    shown = _text(output["text"])
                    self.code(shown, "output", self.lay(shown, f"output of cell {number}"))

    def lay(self, text: str, cell: str) -> int:
        """Lay a text's lines behind those there are; return how many those were."""
        before = len(self.document.spots)
        for line, raw_line in enumerate(self.raw_lines.of(text), start=1):
            self.document.spots.append(Spot(cell, line, raw_line))
        return before

    def code(self, text: str, language: str, before: int) -> None:
        self.document.codes.append(Code(text, language, before + 1, self.heading, self.section))

    def markdown(self, source: str, before: int) -> None:
        part = Document(self.document.name)
        read_markdown(source, part, lambda line: before + line)
        self.document.macros |= part.macros
        for items, found in (
            (self.document.formulas, part.formulas),
            (self.document.codes, part.codes),
            (self.document.prose, part.prose),
        ):
            for item in found:
                section, heading = item.section + self.section, item.heading or self.heading
                items.append(replace(item, section=section, heading=heading))  # type: ignore[arg-type]
        titles = re.findall(r"(?m)^#{1,6}\s+(.*)$", source)
        self.section += len(titles)
        self.heading = titles[-1] if titles else self.heading


def _text(source: object) -> str:
    if isinstance(source, list):
        return "".join(str(part) for part in source)
    return str(source)


class _RawLines:
    """Find the line of the JSON file on which each line of a cell stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.line_at = Lines(text, lambda line: line)
        self.cursor = 0

    def of(self, source: str) -> list[int]:
        return [self.line(row) for row in source.split("\n")]

    def line(self, row: str) -> int:
        for ascii_only in (False, True) if row.strip() else ():
            encoded = json.dumps(row, ensure_ascii=ascii_only)[1:-1]
            found = self.text.find(encoded, self.cursor)
            if found >= 0:
                self.cursor = found + len(encoded)
                return self.line_at(found)
        return self.line_at(self.cursor)
