"""Losses against e^loss, the perplexity and ln C of the classes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from minitransformer.verify.extraction import Document
from minitransformer.verify.figures.lines import Line, place_of
from minitransformer.verify.verdict import Finding, Verdict

_LOSS = re.compile(
    r"(?:\bloss\b|损失(?:值)?|\bcross[- ]entropy\b)[^\d\n.,;，。]{0,16}?"
    r"(-?\d+\.\d+|-?\d+(?=\D|$))(?!\s*%)",
    re.I | re.A,
)
_PERPLEXITY = re.compile(r"(?:perplexity|\bppl\b|困惑度)[^\d\n]{0,12}(\d+(?:\.\d+)?)", re.I | re.A)
_CLASSES = re.compile(
    r"\b(?:vocab(?:ulary)?_?size|num_classes|n_classes|num_labels|n_vocab|ntokens?)\s*=\s*"
    r"(\d[\d_]*)"
)


def _classes(document: Document) -> int | None:
    """Return the number of classes that the document's code states."""
    for code in document.codes:
        found = _CLASSES.search(code.text)
        if found:
            value = int(found.group(1).replace("_", ""))
            return value if value > 1 else None
    return None


def loss_findings(document: Document, lines: Sequence[Line]) -> Iterator[Finding]:
    values: list[tuple[float, str, Line]] = []
    for item in lines:
        if len(item.text) > 5_000:
            continue
        perplexity = _PERPLEXITY.search(item.text)
        loss = _LOSS.search(item.text)
        if perplexity and loss:
            yield _perplexity(document.name, item, loss.group(1), perplexity.group(1))
            continue
        for found in _LOSS.finditer(item.text):
            if item.output or "." in found.group(1):
                values.append((float(found.group(1)), found.group(1), item))
    if not values:
        return
    runs: list[list[tuple[float, str, Line]]] = [[values[0]]]
    for value in values[1:]:
        if value[2].line - runs[-1][-1][2].line > 3:
            runs.append([])
        runs[-1].append(value)
    classes = _classes(document)
    texts = [p.text for p in document.prose] + [c.text for c in document.codes]
    entropy = any(re.search(r"cross.?entropy|交叉熵", text, re.I) for text in texts)
    for run in runs:
        yield _loss_run(document.name, run, classes, entropy)


def _perplexity(name: str, item: Line, loss: str, perplexity: str) -> Finding:
    """Compare a perplexity with the exponential of the loss beside it."""
    places = len(perplexity.partition(".")[2])
    half = 0.5 * 10.0 ** -len(loss.partition(".")[2])
    low, high = math.exp(float(loss) - half), math.exp(float(loss) + half)
    slack = 0.5 * 10.0**-places
    fits = low - slack <= float(perplexity) <= high + slack
    return Finding(
        place_of(name, item.line, item.text),
        Verdict.TRUE if fits else Verdict.FALSE,
        reading=f"perplexity {perplexity} at loss {loss}",
        explanation=f"e^{loss} lies between {low:.6g} and {high:.6g}"
        + ("." if fits else f", not at {perplexity}; in bits, 2^{loss} = {2 ** float(loss):.6g}."),
    )


def _loss_run(
    name: str, run: list[tuple[float, str, Line]], classes: int | None, entropy: bool
) -> Finding:
    first, last = run[0], run[-1]
    text = first[1] if len(run) == 1 else f"{first[1]} → {last[1]}"
    place = place_of(name, first[2].line, f"loss {text}", last[2].line)
    if any(value < 0 for value, _, _ in run):
        return Finding(
            place, Verdict.FALSE if entropy else Verdict.UNVERIFIABLE, reading=f"losses {text}",
            explanation="A cross-entropy of class labels is never negative"
            + ("." if entropy else "; the text does not say which loss this is."),
        )  # fmt: skip
    unsure = f"{math.exp(min(first[0], 700)):.3g}"
    parts = [f"e^{first[1]} = {unsure}: as unsure as among {unsure} equally likely classes"]
    if len(run) > 1:
        parts.append(f"at the end e^{last[1]} = {math.exp(min(last[0], 700)):.3g}")
    if classes is not None:
        chance = math.log(classes)
        relation = "below" if first[0] < chance else "above"
        parts.append(
            f"guessing evenly among the {classes} classes of the code gives ln {classes} = "
            f"{chance:.4f}, so {first[1]} is {relation} chance"
        )
    rising = [b[1] for a, b in pairwise(run) if b[0] > a[0]]
    if len(run) > 2:
        parts.append("every value is below the one before" if not rising
                     else f"it rises at {', '.join(rising[:3])}")  # fmt: skip
    return Finding(
        place, Verdict.UNVERIFIABLE, reading=f"losses {text}",
        detail="no data and no weights",
        explanation="; ".join(parts) + ". The run itself cannot be repeated from the text.",
    )  # fmt: skip
