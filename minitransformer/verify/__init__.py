r"""Is this formula right? Parse it, compare it with a trusted card, prove the answer.

>>> from minitransformer.verify import check
>>> check(r"\mathrm{softmax}(QK^T/\sqrt{d_k})V", "attention").holds
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitransformer.verify.checking import (
        check,
        check_document,
        check_file,
        check_function,
    )
    from minitransformer.verify.conformance import NotConforming, assert_conforms
    from minitransformer.verify.ledger import check_ledger
    from minitransformer.verify.report import Report
    from minitransformer.verify.verdict import Finding, Verdict

__all__ = [
    "Finding",
    "NotConforming",
    "Report",
    "Verdict",
    "assert_conforms",
    "check",
    "check_document",
    "check_file",
    "check_function",
    "check_ledger",
]

_HOMES = {
    "Finding": "verdict",
    "NotConforming": "conformance",
    "Report": "report",
    "Verdict": "verdict",
    "assert_conforms": "conformance",
    "check": "checking",
    "check_document": "checking",
    "check_file": "checking",
    "check_function": "checking",
    "check_ledger": "ledger",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for; a test suite that uses the kit alone loads no cards."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
