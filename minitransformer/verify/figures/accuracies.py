"""Accuracies against the sizes of test sets at which they can occur."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from minitransformer.verify.extraction import Document
from minitransformer.verify.figures.lines import Line, place_of
from minitransformer.verify.verdict import Finding, Verdict

_LARGEST_TEST = 1_000
_ACCURACY = re.compile(
    r"(?:accuracy|\bacc\b|准确率|精确率|正确率|precision|recall|召回率|\bF1\b)[^\d\n%]{0,24}?"
    r"(\d{1,3}(?:\.\d+)?)\s*(?:\\?%|％|个百分点|percent)",
    re.I | re.A,
)
_TEST_SIZE = re.compile(
    r"(?:test(?:ing)?\s+set|held[- ]out\s+set|测试集|测试数据)[^\d\n。.]{0,20}?"
    r"(?:\bof|共|包含|包括|有|含|\bcontain\w*|\bhas|\bhold\w*)[^\d\n。.]{0,6}(\d[\d,]*)(?![\d.]*\s*[%％.\d])"
    r"|(\d[\d,]*)\s*(?:test(?:ing)?|held[- ]out)\s+(?:examples|samples|images|sentences|cases)",
    re.I | re.A,
)


def possible_sizes(percent: str, largest: int = _LARGEST_TEST) -> list[int]:
    """Return the test sizes at which a rounded percentage can occur.

    Parameters
    ----------
    percent : str
        As printed; its decimals say how it was rounded.
    largest : int, default=1000
        The largest size to try.

    Returns
    -------
    list of int
        Sizes n for which some k/n rounds to the percentage, either way at a tie.

    Examples
    --------
    >>> possible_sizes("86.25")[:5]
    [80, 160, 240, 269, 291]
    >>> possible_sizes("50")[:3]
    [2, 4, 6]
    """
    value = Fraction(percent) / 100
    half = Fraction(1, 2 * 100 * 10 ** len(percent.partition(".")[2]))
    return [n for n in range(1, largest + 1) if _occurs(value, half, n)]


def _occurs(value: Fraction, half: Fraction, n: int) -> bool:
    low = math.ceil((value - half) * n)
    return low <= (value + half) * n and low <= n


def accuracy_findings(document: Document, lines: Sequence[Line]) -> Iterator[Finding]:
    stated = None
    for item in lines:
        found = _TEST_SIZE.search(item.text)
        if found and not item.output and len(item.text) < 5_000:
            stated = int((found.group(1) or found.group(2)).replace(",", ""))
    seen: set[str] = set()
    for item in lines:
        if len(item.text) > 5_000:
            continue
        for found in _ACCURACY.finditer(item.text):
            percent = found.group(1)
            if percent in seen:
                continue
            seen.add(percent)
            yield _accuracy(document, item, percent, stated)


def _accuracy(document: Document, item: Line, percent: str, stated: int | None) -> Finding:
    place = place_of(document.name, item.line, item.text)
    if Fraction(percent) > 100:
        return Finding(place, Verdict.FALSE, reading=f"accuracy {percent} %",
                       explanation="An accuracy is at most 100 %.")  # fmt: skip
    value = Fraction(percent) / 100
    half = Fraction(1, 2 * 100 * 10 ** len(percent.partition(".")[2]))
    if stated is not None and 0 < stated <= 10**7 and not _occurs(value, half, stated):
        near = Fraction(round(value * stated), stated) * 100
        return Finding(
            place, Verdict.FALSE, reading=f"accuracy {percent} % of {stated}",
            explanation=f"No k of {stated} gives {percent} %; the nearest is {float(near):.4f} %.",
        )  # fmt: skip
    sizes = possible_sizes(percent)
    first = ", ".join(map(str, sizes[:5])) + (", ..." if len(sizes) > 5 else "")
    exact = value.denominator
    where = (
        f"possible only for test sizes such as {first}"
        if sizes
        else (f"impossible for a test of at most {_LARGEST_TEST}")
    )
    unrounded = any(
        "accuracy" in c.text.lower() and re.search(r"\{\s*100[^{}:]*/[^{}:]*\}\s*%", c.text)
        for c in document.codes
    )
    tail = ""
    if unrounded:
        tail = f" The code prints it unrounded: then only multiples of {exact}."
    elif stated is not None:
        tail = f" The {stated} that the text states is among the possible sizes."
    return Finding(
        place, Verdict.UNVERIFIABLE, reading=f"accuracy {percent} %", detail="no data",
        explanation=f"{percent} % is {where}.{tail}",
        witnesses={"sizes": sizes[:20]},
    )  # fmt: skip
