"""Numbers of parameters, of large models and of named ones."""

from __future__ import annotations

import re
from collections.abc import Iterator

from minitransformer.verify.extraction import Document, Prose
from minitransformer.verify.figures.lines import place_of, sentences
from minitransformer.verify.verdict import Finding, Verdict

# Parameters of published models, in their papers' own words.
PUBLISHED_PARAMETERS = {
    "bert-base": 110e6, "bert-large": 340e6, "gpt-1": 117e6, "gpt-2": 1.5e9, "gpt-3": 175e9,
    "t5-11b": 11e9, "vit-base": 86e6, "vit-large": 307e6, "vit-huge": 632e6, "alexnet": 60e6,
    "vgg-16": 138e6, "resnet-50": 25.6e6, "palm": 540e9, "chinchilla": 70e9, "bloom": 176e9,
    "roberta-large": 355e6, "gopher": 280e9,
}  # fmt: skip
_MODEL_SOURCES = {
    "bert-base": "Devlin et al. 2018", "bert-large": "Devlin et al. 2018",
    "gpt-2": "Radford et al. 2019", "gpt-3": "Brown et al. 2020",
    "alexnet": "Krizhevsky et al. 2012",
}  # fmt: skip
_UNITS_EN = {"thousand": 1e3, "thousands": 1e3, "million": 1e6, "millions": 1e6, "billion": 1e9,
             "billions": 1e9, "trillion": 1e12, "trillions": 1e12, "m": 1e6, "b": 1e9, "k": 1e3,
             "t": 1e12}  # fmt: skip
_UNITS_ZH = (("万亿", 1e12), ("千亿", 1e11), ("百亿", 1e10), ("十亿", 1e9), ("亿", 1e8),
             ("千万", 1e7), ("百万", 1e6), ("十万", 1e5), ("万", 1e4))  # fmt: skip
_RANGE_ZH = re.compile(
    r"((?:几|数|上)?(?:千|百|十)*(?:万亿|亿|万))\s*(?:个)?\s*(?:到|至|甚至|~|—|-)+\s*(?:上|达到)?"
    r"((?:几|数|上)?(?:千|百|十)*(?:万亿|亿|万))"
)
_RANGE_EN = re.compile(
    r"\b(?:from\s+|between\s+)?(?:hundreds\s+of\s+|tens\s+of\s+)?(thousands|millions|billions)\s+"
    r"(?:to|and|or(?:\s+even)?|up\s+to)\s+(?:hundreds\s+of\s+|tens\s+of\s+)?"
    r"(millions|billions|trillions)\b",
    re.I | re.A,
)
_LARGE = re.compile(
    r"大模型|大规模(?:预训练)?模型|large\s+(?:\w+\s+){0,2}models?|\bLLMs?\b", re.I | re.A
)
_PARAMETER_WORD = re.compile(r"参数|parameters?", re.I | re.A)
_DEFINES = re.compile(r"通常指|是指|指的是|一般指|定义|refers?\s+to|defined|are\s+(?:deep|neural|"
                      r"models?)|have|has|having|with|range|contain", re.I | re.A)  # fmt: skip
_MODEL_COUNT = re.compile(
    r"\b(BERT[- ]?(?:base|large)|GPT[- ]?[123]|ViT[- ]?(?:Base|Large|Huge)|AlexNet|VGG[- ]?16|"
    r"ResNet[- ]?50|PaLM|Chinchilla|BLOOM|Gopher|RoBERTa[- ]?large)\b([^.。;；\n]{0,60}?)"
    r"\b(\d+(?:\.\d+)?)\s*(thousand|million|billion|trillion|[MBKT](?![A-Za-z])|万亿|千亿|百亿|亿|万)"
    r"([^.。;；\n]{0,24})",
    re.I | re.A,
)


def _magnitude_zh(text: str) -> float:
    text = text.lstrip("几数上")
    for unit, size in _UNITS_ZH:
        if text.endswith(unit):
            head = text[: -len(unit)]
            return size * {"": 1, "十": 10, "百": 100, "千": 1000}.get(head, 1)
    return float("nan")


def parameter_findings(document: Document) -> Iterator[Finding]:
    everything = " ".join(p.text for p in document.prose)
    named = {
        key: value
        for key, value in PUBLISHED_PARAMETERS.items()
        if re.search(rf"\b{key.replace('-', '[- ]?')}\b", everything, re.I | re.A)
    }
    seen: set[tuple[float, float]] = set()
    for prose in document.prose:
        for sentence in sentences(prose.text):
            if len(sentence) > 2_000 or not _PARAMETER_WORD.search(sentence):
                continue
            if _LARGE.search(sentence) and _DEFINES.search(sentence):
                found = _RANGE_ZH.search(sentence)
                english = None if found else _RANGE_EN.search(sentence)
                if found:
                    low, high = (_magnitude_zh(found.group(i)) for i in (1, 2))
                elif english:
                    low, high = (_UNITS_EN[english.group(i).lower()] for i in (1, 2))
                else:
                    low = high = float("nan")
                if low < high:
                    again = (low, high) in seen
                    seen.add((low, high))
                    yield _range(document.name, prose, sentence, low, high, named, again)
            yield from _named_model(document.name, prose, sentence)


def _range(
    name: str, prose: Prose, sentence: str, low: float, high: float, named: dict[str, float],
    again: bool,
) -> Finding:  # fmt: skip
    """Judge "large models have A to B parameters" by models that are published."""
    top = high * 10  # "billions" reaches up to ten billion
    over = {k: v for k, v in (named or PUBLISHED_PARAMETERS).items() if v > top}
    over = over or {k: v for k, v in PUBLISHED_PARAMETERS.items() if v > top}
    small = {k: v for k, v in PUBLISHED_PARAMETERS.items()
             if k in ("alexnet", "resnet-50", "vgg-16") and low <= v}  # fmt: skip
    parts = []
    if over:
        model, count = max(over.items(), key=lambda kv: kv[1])
        parts.append(f"{_title(model)} has {_count(count)} parameters, above {_count(top)}")
    if small:
        model, count = min(small.items(), key=lambda kv: kv[1])
        parts.append(
            f"{_title(model)}, no large model, has {_count(count)}, inside the range from "
            f"{_count(low)}"
        )
    reading = f"large models have {_count(low)} to {_count(top)} parameters"
    if not parts:
        return Finding(
            place_of(name, prose.line_of(sentence), sentence), Verdict.UNVERIFIABLE,
            reading=reading, explanation="No published model known here lies outside the range.",
        )  # fmt: skip
    return Finding(
        place_of(name, prose.line_of(sentence), sentence), Verdict.IMPRECISE, reading=reading,
        explanation="The range does not tell large models from others: " + "; ".join(parts) + "."
        + (" The document says it a second time." if again else ""),
    )  # fmt: skip


def _named_model(name: str, prose: Prose, sentence: str) -> Iterator[Finding]:
    for found in _MODEL_COUNT.finditer(sentence):
        model, between, digits, unit, after = found.groups()
        if not _PARAMETER_WORD.search(between + after) or re.search(r"token|词|GB|layer|层", after):
            continue
        key = re.sub(r"[- ]+", "-", re.sub(r"(?<=[A-Za-z])(?=\d)", "-", model.lower()))
        published = PUBLISHED_PARAMETERS.get(key)
        if published is None:
            continue
        scale = _UNITS_EN.get(unit.lower()) or _magnitude_zh(unit)
        claimed = float(digits) * scale
        places = len(digits.partition(".")[2])
        slack = max(0.5 * 10.0**-places * scale, 0.02 * published)
        right = abs(claimed - published) <= slack
        source = _MODEL_SOURCES.get(key, "its paper")
        yield Finding(
            place_of(name, prose.line_of(sentence), sentence),
            Verdict.TRUE if right else Verdict.FALSE,
            reading=f"{model} has {_count(claimed)} parameters",
            explanation=f"Published: {_count(published)} ({source}).",
            repair="" if right else _count(published),
        )  # fmt: skip


def _count(value: float) -> str:
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if value >= size:
            return f"{value / size:g} {word}"
    return f"{value:g}"


def _title(key: str) -> str:
    special = {"alexnet": "AlexNet", "resnet-50": "ResNet-50", "palm": "PaLM", "vgg-16": "VGG-16",
               "chinchilla": "Chinchilla", "gopher": "Gopher", "bloom": "BLOOM"}  # fmt: skip
    return special.get(key) or key.upper().replace("VIT", "ViT").replace("BASE", "base").replace(
        "LARGE", "large"
    )
