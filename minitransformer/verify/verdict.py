"""What the verifier can answer, and the record of why."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Verdict(str, Enum):
    """The possible answers about a formula or a claim."""

    EQUAL_PROVED = "EQUAL-PROVED"
    EQUAL_SUPPORTED = "EQUAL-SUPPORTED"
    EQUAL_UP_TO = "EQUAL-UP-TO"
    APPROXIMATES = "APPROXIMATES"
    COINCIDES_ONLY_WHEN = "COINCIDES-ONLY-WHEN"
    DIFFERENT_CERTIFIED = "DIFFERENT-CERTIFIED"
    DIFFERENT = "DIFFERENT"
    ILL_TYPED = "ILL-TYPED"
    WRONG_SHAPE = "WRONG-SHAPE"
    UNDER_SPECIFIED = "UNDER-SPECIFIED"
    AMBIGUOUS = "AMBIGUOUS"
    CANNOT_PARSE = "CANNOT-PARSE"
    NO_CARD = "NO-CARD"
    TRUE = "TRUE"
    FALSE = "FALSE"
    CONDITIONAL = "CONDITIONAL"
    IMPRECISE = "IMPRECISE"
    UNVERIFIABLE = "UNVERIFIABLE"


@dataclass(frozen=True)
class Place:
    """Where a claim stands: a file's name, a line (from 1) and its own text."""

    file: str
    line: int
    text: str
    end_line: int | None = None
    cell: str = ""  # of a notebook, whose lines are counted in it
    raw_line: int | None = None  # the line of a notebook's file, for tools that open that

    @property
    def where(self) -> str:
        """The line in words: ``line 3``, or ``cell 2 line 3`` of a notebook."""
        return f"{self.cell} line {self.line}".lstrip()


@dataclass(frozen=True)
class Counterexample:
    """The smallest point found at which a claim and its reference differ.

    ``inputs`` maps each symbol to nested lists of exact numbers (as text);
    ``claimed`` and ``reference`` are what the two sides give there.
    ``certificate`` says how the difference is known: seed, bits and the balls.
    """

    inputs: dict[str, Any]
    claimed: Any
    reference: Any
    certificate: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One row of a report: a claim, its verdict and everything that supports it."""

    place: Place
    verdict: Verdict
    card: str | None = None
    reading: str = ""
    detail: str = ""  # what stands inside the braces of a verdict: a scale, a span, a list
    explanation: str = ""
    equals_instead: str = ""
    repair: str = ""
    repair_latex: str = ""
    counterexample: Counterexample | None = None
    coincidences: tuple[str, ...] = ()
    unsafe_float: str = ""
    witnesses: dict[str, Any] = field(default_factory=dict)  # e.g. {"torch": max difference}
    span: tuple[int, int] | None = None
