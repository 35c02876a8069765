r"""Documents to formulas, code and prose, each with its line.

One scanner (`scan`) finds ``$$``, ``\[``, ``\(``, ``$`` and LaTeX environments in text from
which code, comments and escaped dollars have been blanked out; what differs between
`markdown`, `latex`, `html` and `notebook` is only what is blanked and where lines come from.
"""

from __future__ import annotations

from pathlib import PurePath

from minitransformer.verify.extraction.html import read_html
from minitransformer.verify.extraction.latex import find_macros, read_latex
from minitransformer.verify.extraction.markdown import read_markdown
from minitransformer.verify.extraction.model import Code, Document, Formula, Prose
from minitransformer.verify.extraction.notebook import read_notebook
from minitransformer.verify.extraction.plain import add_plain_lines, format_of

__all__ = [
    "Code",
    "Document",
    "Formula",
    "Prose",
    "find_macros",
    "format_of",
    "read_document",
]


def read_document(text: str, name: str) -> Document:
    r"""Split a document into what can be checked.

    Parameters
    ----------
    text : str
        The file's text.
    name : str
        Its name; the suffix (``.tex``, ``.html``, ``.ipynb``, ``.py``, ``.txt``, else
        Markdown) tells the format. A text without one is what it looks like.

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
    said = PurePath(name).suffix.lower()
    suffix = said or format_of(text)
    document = Document(name)
    if suffix == ".ipynb":
        read_notebook(text, document)
    elif suffix in (".html", ".htm", ".xhtml"):
        read_html(text, document)
    elif suffix == ".tex":
        read_latex(text, document)
    elif suffix == ".py":
        document.codes.append(Code(text, "python", 1))
    else:
        left = read_markdown(text, document, lambda line: line)
        if said in ("", ".txt") and not document.formulas:
            add_plain_lines(left, document)
    document.formulas.sort(key=lambda formula: formula.line)
    document.codes.sort(key=lambda code: code.line)
    document.prose.sort(key=lambda prose: prose.line)
    return document
