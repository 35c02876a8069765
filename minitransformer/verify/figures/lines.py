"""Sentences of prose and rows of output, with their lines."""

from __future__ import annotations

import re
from dataclasses import dataclass

from minitransformer.verify.extraction import Code
from minitransformer.verify.syntax import python_tree
from minitransformer.verify.verdict import Place


@dataclass(frozen=True)
class Line:
    text: str
    line: int
    output: bool


def is_output(code: Code) -> bool:
    """Whether a block shows what a program printed, whatever language it is marked with."""
    if code.language in ("output", "console", "text", "log", "txt"):
        return True
    if code.language in ("", "python", "py", "bash", "shell", "sh"):
        marks = re.search(
            r"(?im)^\W*(?:epoch|step|iter|train|test|val|loss|acc)\w*\b[^=\n]*\d", code.text
        )
        return marks is not None and python_tree(code.text) is None
    return False


def place_of(document: str, line: int, text: str, end: int | None = None) -> Place:
    return Place(document, line, text.strip()[:300], end)


def sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[。！？!?；;])|(?<=\.)\s+", text) if s and s.strip()]
