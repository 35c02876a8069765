"""Checkable figures and statements in prose and program output.

Losses against e^loss and ln C, accuracies against the test sizes at which they can
occur, numbers of parameters, complexities, and the few statements about training and
scaling that can be decided without data. Everything is computed from what the text
says; a sentence that no rule covers gives nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from minitransformer.verify.declarations import Declarations
from minitransformer.verify.extraction import Document
from minitransformer.verify.figures.accuracies import accuracy_findings, possible_sizes
from minitransformer.verify.figures.complexities import complexity_findings
from minitransformer.verify.figures.lines import Line, is_output, sentences
from minitransformer.verify.figures.losses import loss_findings
from minitransformer.verify.figures.parameters import parameter_findings
from minitransformer.verify.figures.statements import gradient_findings, stage_findings
from minitransformer.verify.verdict import Finding

__all__ = ["figure_findings", "possible_sizes"]


def figure_findings(document: Document, declarations: Declarations) -> Iterator[Finding]:
    """Yield a finding for every figure and statement that a rule covers.

    Parameters
    ----------
    document : Document
        Its prose and the blocks that are output rather than code.
    declarations : Declarations
        What the text says about symbols, for statements about them.

    Yields
    ------
    Finding
    """
    lines = [Line(s, p.line_of(s), False) for p in document.prose for s in sentences(p.text)]
    for code in document.codes:
        if is_output(code):
            for offset, row in enumerate(code.text.split("\n")):
                lines.append(Line(row, code.line + offset, True))
    lines.sort(key=lambda item: item.line)
    yield from loss_findings(document, lines)
    yield from accuracy_findings(document, lines)
    yield from parameter_findings(document)
    for prose in document.prose:
        yield from complexity_findings(document.name, prose)
        yield from stage_findings(document.name, prose)
        yield from gradient_findings(document, prose, declarations)
