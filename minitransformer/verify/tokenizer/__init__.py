r"""Formula text to tokens: LaTeX and Unicode, with the span of every token.

Two stages: control sequences and characters, with the user's macros expanded within a
budget (`source`); then mathematical tokens, in which ``\frac``, ``½``-like characters, fonts
and delimiters have one spelling each. `scanner`, `runs`, `characters` and `commands` build
on each other in this order; `symbols`, `words` and `fonts` are their tables. Nothing is
dropped but spacing and labels, and a control sequence that is not in the tables is an error,
never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping

from minitransformer.verify.tokenizer.commands import Tokenizer
from minitransformer.verify.tokenizer.fonts import styled, unstyled
from minitransformer.verify.tokenizer.source import expand, lex, modern
from minitransformer.verify.tokenizer.symbols import ACCENTS, GREEK, RELATIONS
from minitransformer.verify.tokenizer.tokens import (
    MAX_LENGTH,
    CannotParse,
    Choices,
    Macro,
    Span,
    Token,
)
from minitransformer.verify.tokenizer.words import FUNCTIONS, canonical_function, is_connector

__all__ = [
    "ACCENTS",
    "FUNCTIONS",
    "GREEK",
    "MAX_LENGTH",
    "RELATIONS",
    "CannotParse",
    "Choices",
    "Macro",
    "Span",
    "Token",
    "canonical_function",
    "is_connector",
    "styled",
    "tokenize",
    "unstyled",
]


def tokenize(
    text: str, choices: Choices | None = None, macros: Mapping[str, Macro] | None = None
) -> list[Token]:
    r"""Split a formula into tokens.

    Parameters
    ----------
    text : str
        LaTeX or Unicode, at most 20,000 characters.
    choices : Choices, optional
        Where the text can be split in two ways, the way to take.
    macros : mapping of str to Macro, optional
        The user's commands, by name without the backslash.

    Returns
    -------
    list of Token

    Raises
    ------
    CannotParse
        At a command or a character that no table knows.

    Examples
    --------
    >>> [t.text for t in tokenize(r"QK^T / \sqrt{d_k}")]
    ['Q', 'K', '^', 'T', '/', 'sqrt', '{', 'd', '_', 'k', '}']
    """
    if len(text) > MAX_LENGTH:
        raise CannotParse(f"a formula of {len(text)} characters; the limit is {MAX_LENGTH}")
    latex = "\\" in text or "{" in text
    raw = lex(text, latex)
    if latex:
        raw = modern(raw)
    if macros:
        raw = expand(raw, macros)
    return Tokenizer(raw, latex, choices or Choices()).run()
