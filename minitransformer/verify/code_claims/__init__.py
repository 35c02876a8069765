"""What PyTorch code in a document really does, found without running it.

The code is parsed with `ast`; calls are bound to PyTorch's signatures as a table holds
them, constants are followed through assignments and through the construction of the
class that uses them. Rules then compare what a call means with what its names suggest.
"""

from __future__ import annotations

from collections.abc import Iterator

from minitransformer.verify.code_claims.binding import binding_findings
from minitransformer.verify.code_claims.module import Module, read_code
from minitransformer.verify.code_claims.rules import Rules
from minitransformer.verify.code_claims.signatures import (
    OPTIMISERS,
    POSITIONAL,
    REQUIRED,
    SIGNATURES,
    decoder_layer_parameters,
    encoder_layer_parameters,
    transformer_parameters,
)
from minitransformer.verify.code_claims.usage import (
    evaluation_findings,
    softmax_findings,
    usage_findings,
)
from minitransformer.verify.extraction import Code, Document
from minitransformer.verify.verdict import Finding

__all__ = [
    "OPTIMISERS",
    "POSITIONAL",
    "PYTHON",
    "REQUIRED",
    "SIGNATURES",
    "code_findings",
    "decoder_layer_parameters",
    "encoder_layer_parameters",
    "read_code",
    "transformer_parameters",
]

# Languages of a fence that may hold Python; "" is a fence that names none.
PYTHON = frozenset(["", "python", "py", "python3", "ipython", "pycon"])


def code_findings(document: Document) -> Iterator[Finding]:
    """Yield what is wrong or conditional in the document's PyTorch code.

    Parameters
    ----------
    document : Document
        Its code blocks; blocks that are not Python give nothing.

    Yields
    ------
    Finding
        FALSE for what contradicts the code's own names or cannot work, CONDITIONAL for
        what depends on the data.
    """
    for code in document.codes:
        if code.language not in PYTHON:
            continue
        module = read_code(code.text)
        if module is not None:
            yield from _block(document.name, code, module)


def _block(document: str, code: Code, module: Module) -> Iterator[Finding]:
    rules = Rules(document, code, module)
    for call in module.calls:
        yield from binding_findings(rules, call)
    yield from usage_findings(rules)
    yield from evaluation_findings(rules)
    yield from softmax_findings(rules)
