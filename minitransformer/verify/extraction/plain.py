"""Plain text: lines that are formulas, and what a text without a name is."""

from __future__ import annotations

import re

from minitransformer.verify.extraction.model import Document, Formula
from minitransformer.verify.syntax import python_tree

# Words that no formula of a plain text holds.
_PROSE_WORDS = frozenset(
    ["on", "of", "the", "is", "are", "was", "and", "or", "with", "for", "to", "in", "by", "we",
     "our", "this", "that", "it", "as", "at", "from", "has", "have", "not", "be", "so", "but",
     "if", "when", "then", "which", "an", "you", "your", "i'm", "can", "will", "test", "use",
     "using", "see"]
)  # fmt: skip
_FORMULAS = ("relation", "chain", "mul", "matmul", "call", "div", "steps")
_WORD_RUN = re.compile(r"\b[a-z]{2,}\s+[a-z]{2,}\s+[a-z]{2,}\b")
_CJK_RUN = re.compile(r"[\u4e00-\u9fff]{3,}")
_MARKUP = re.compile(
    r"^\s*(?:#{1,6}\s|```|~~~|>\s|[-*+]\s+\S|\d+[.)]\s)|\\(?:section|documentclass|begin\{document\})"
    r"|<(?:p|div|h[1-6]|html|body|li)\b",
    re.M,
)


def is_prose(line: str) -> bool:
    """Whether a line of a plain text is a sentence and no formula.

    Examples
    --------
    >>> is_prose("Attention divides by the root of the key size."), is_prose("y = x W + b")
    (True, False)
    """
    words = re.findall(r"[A-Za-z\u4e00-\u9fff]+", line)
    return (
        _WORD_RUN.search(line) is not None
        or len(words) > 40
        or _CJK_RUN.search(line) is not None
        or re.search(r"[A-Za-z]{2,}\s*:\s", line) is not None  # a log's "loss: 2.5"
        or any(len(w) > 1 and w.lower() in _PROSE_WORDS for w in words)
    )


def add_plain_lines(text: str, document: Document) -> None:
    """Take the lines of a plain text that are formulas and nothing else."""
    from minitransformer.verify.parser import CannotParse, parse

    for number, line in enumerate(text.split("\n"), start=1):
        content = line.strip()
        if not 3 <= len(content) <= 500 or not re.search(r"[=^_/√∑ᵀ·@]|\w\(", content):
            continue
        if is_prose(content):
            continue
        try:
            readings = parse(content)
        except CannotParse:
            continue
        if readings[0].expr.op in _FORMULAS:
            document.formulas.append(Formula(content, number, number, True))


_CODE = re.compile(r"^(?:def|class|import|from|async def|@\w+)\b", re.M)
_CONTINUES = re.compile(r"[-+*/=·×&,(\[{\\]\s*$|^\s*[-+*/=·×&)\]}]")


def format_of(text: str) -> str:
    r"""Return the suffix of the document that a text without a name is; ``""`` for a formula.

    Examples
    --------
    >>> format_of("# Attention\n\nIt is $QK^T$."), format_of("softmax(QK^T/\\sqrt{d_k})V")
    ('.md', '')
    >>> format_of("We divide by the root of the size of a key.")
    '.txt'
    """
    stripped = text.strip()
    if stripped.startswith("{") and '"cells"' in stripped:
        return ".ipynb"
    if _CODE.search(text) and python_tree(text) is not None:
        return ".py"
    markup = _MARKUP.search(text)
    if markup:
        return {"\\": ".tex", "<": ".html"}.get(markup.group().lstrip()[0], ".md")
    if "$" in stripped.strip("$"):
        return ".md"
    rows = [row for row in stripped.split("\n") if row.strip()]
    if any(is_prose(re.sub(r"\\[A-Za-z]+\*?(?:\{[^{}]*\})?", " ", row)) for row in rows):
        return ".txt"
    # Lines that go on in the next are one formula; lines that do not are several.
    return ".txt" if len(rows) > 1 and not any(map(_goes_on, rows)) else ""


def _goes_on(row: str) -> bool:
    brackets = sum(row.count(c) for c in "([{") - sum(row.count(c) for c in ")]}")
    return brackets != 0 or _CONTINUES.search(row) is not None or "\\begin" in row
