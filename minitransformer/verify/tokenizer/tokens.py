r"""What the tokenizer hands to the parser: tokens, errors, and the choices that a text leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_LENGTH = 20_000  # characters of one formula
MAX_TOKENS = 6_000

Span = tuple[int, int]


class CannotParse(ValueError):
    """A formula, or a part of one, that no reading covers.

    Parameters
    ----------
    message : str
        What was found and what was expected.
    span : (int, int)
        Where it stands in the text.
    """

    def __init__(self, message: str, span: Span = (0, 0)) -> None:
        super().__init__(message)
        self.message = message
        self.span = span


class Choices:
    """The decisions that the text leaves open, and which way each one goes.

    Tokenizer and parser ask `pick` wherever two readings exist; a second run with
    another answer gives the other reading.
    """

    def __init__(self, forced: Mapping[str, int] | None = None) -> None:
        self.forced = dict(forced or {})
        self.seen: dict[str, tuple[str, ...]] = {}

    def pick(self, key: str, *notes: str) -> int:
        """Return which of the readings described by `notes` to take."""
        self.seen.setdefault(key, notes)
        return self.forced.get(key, 0)


@dataclass(frozen=True)
class Macro:
    r"""A user's ``\newcommand``: its number of arguments, default and body."""

    arguments: int
    body: str
    default: str | None = None


@dataclass(frozen=True)
class Token:
    """One mathematical token.

    ``kind`` is one of number, letter, word, text, func, big, cmd, accent, begin, end, op,
    rel, open, close, bar, dbar, ``{``, ``}``, ``^``, ``_``, ``'``, transpose, comma, semi,
    colon, ``&``, newline, quad, ellipsis, root.
    """

    kind: str
    text: str
    span: Span
    spaced: bool = False
    font: str = ""
