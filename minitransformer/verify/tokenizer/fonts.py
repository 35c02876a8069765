r"""Fonts: LaTeX's commands for them, and Unicode's letters in them."""

from __future__ import annotations

import unicodedata

# Commands that set a font, and what the tokens in it carry.
FONTS = {
    "mathbf": "bold", "boldsymbol": "bold", "bm": "bold", "pmb": "bold", "bold": "bold",
    "vec": "bold", "mathbfit": "bold", "mathcal": "script", "mathscr": "script",
    "mathbb": "double", "mathds": "double", "mathbbm": "double", "mathfrak": "fraktur",
    "mathnormal": "", "mathord": "", "mathbin": "", "mathrel": "", "ensuremath": "",
}  # fmt: skip
# TeX's own switches, written as LaTeX's commands with an argument.
OLD_FONTS = {"\\rm": "\\mathrm", "\\bf": "\\mathbf", "\\it": "\\mathit", "\\sf": "\\mathsf",
             "\\tt": "\\mathtt", "\\cal": "\\mathcal", "\\sl": "\\mathit"}  # fmt: skip
_NAMES = {"script": "SCRIPT", "double": "DOUBLE-STRUCK", "fraktur": "FRAKTUR", "bold": "BOLD"}


def styled(letter: str, font: str) -> str:
    """Return the Unicode mathematical letter of a font.

    Examples
    --------
    >>> styled("R", "double"), styled("L", "script")
    ('ℝ', 'ℒ')
    """
    if font not in _NAMES or len(letter) != 1:
        return letter
    if letter.isdigit():
        case = f"DIGIT {unicodedata.name(letter).split()[-1]}"
    elif letter.isascii() and letter.isalpha():
        case = f"{'CAPITAL' if letter.isupper() else 'SMALL'} {letter.upper()}"
    elif font == "bold" and unicodedata.name(letter, "").startswith("GREEK"):
        words = unicodedata.name(letter).split()
        case = f"{words[1]} {words[-1]}"
    else:
        return letter
    for form in (f"MATHEMATICAL {_NAMES[font]} {case}", f"{_NAMES[font]} {case}"):
        try:
            return unicodedata.lookup(form)
        except KeyError:
            continue
    return letter


def unstyled(letter: str) -> tuple[str, str]:
    """Return the plain letter and the font of a mathematical letter.

    Examples
    --------
    >>> unstyled("ℝ"), unstyled("x")
    (('R', 'double'), ('x', ''))
    """
    title = unicodedata.name(letter, "")
    if ord(letter) < 0x2100 or not (letter.isalpha() or letter.isdigit()) or letter == "ℓ":
        return letter, ""
    for word, font in (
        ("DOUBLE-STRUCK", "double"),
        ("SCRIPT", "script"),
        ("FRAKTUR", "fraktur"),
        ("BLACK-LETTER", "fraktur"),
        ("BOLD", "bold"),
        ("MATHEMATICAL", ""),
    ):
        if word in title:
            return unicodedata.normalize("NFKC", letter), font
    return letter, ""
