"""Checkable figures and statements in prose and program output.

Losses against e^loss and ln C, accuracies against the test sizes at which they can
occur, numbers of parameters, complexities, and the few statements about training and
scaling that can be decided without data. Everything is computed from what the text
says; a sentence that no rule covers gives nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from minitransformer.verify.declarations import Declarations
from minitransformer.verify.expression import Expr
from minitransformer.verify.extraction import Code, Document, Prose
from minitransformer.verify.parser import CannotParse, parse
from minitransformer.verify.printing import to_unicode
from minitransformer.verify.verdict import Finding, Place, Verdict

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
# Operations per layer for sequences of length n and width d, kernel width k (Vaswani et al. 2017,
# table 1).
LAYER_COMPLEXITY = {
    "self-attention": {"n": 2, "d": 1},
    "recurrent": {"n": 1, "d": 2},
    "convolution": {"k": 1, "n": 1, "d": 2},
    "restricted self-attention": {"r": 1, "n": 1, "d": 1},
}
_LARGEST_TEST = 1_000


@dataclass(frozen=True)
class _Line:
    text: str
    line: int
    output: bool


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
    lines = [_Line(s, p.line_of(s), False) for p in document.prose for s in _sentences(p.text)]
    for code in document.codes:
        if is_output(code):
            for offset, row in enumerate(code.text.split("\n")):
                lines.append(_Line(row, code.line + offset, True))
    lines.sort(key=lambda item: item.line)
    yield from _losses(document, lines)
    yield from _accuracies(document, lines)
    yield from _parameters(document)
    for prose in document.prose:
        yield from _complexity(document.name, prose)
        yield from _stages(document.name, prose)
        yield from _gradients(document, prose, declarations)


def is_output(code: Code) -> bool:
    """Whether a block shows what a program printed, whatever language it is marked with."""
    if code.language in ("output", "console", "text", "log", "txt"):
        return True
    if code.language in ("", "python", "py", "bash", "shell", "sh"):
        import ast
        import warnings

        marks = re.search(
            r"(?im)^\W*(?:epoch|step|iter|train|test|val|loss|acc)\w*\b[^=\n]*\d", code.text
        )
        if not marks:
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(code.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return True
    return False


def _place(document: str, line: int, text: str, end: int | None = None) -> Place:
    return Place(document, line, text.strip()[:300], end)


# -- losses -------------------------------------------------------------------------------
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


def _losses(document: Document, lines: Sequence[_Line]) -> Iterator[Finding]:
    values: list[tuple[float, str, _Line]] = []
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
    runs: list[list[tuple[float, str, _Line]]] = [[values[0]]]
    for value in values[1:]:
        if value[2].line - runs[-1][-1][2].line > 3:
            runs.append([])
        runs[-1].append(value)
    classes = _classes(document)
    texts = [p.text for p in document.prose] + [c.text for c in document.codes]
    entropy = any(re.search(r"cross.?entropy|交叉熵", text, re.I) for text in texts)
    for run in runs:
        yield _loss_run(document.name, run, classes, entropy)


def _perplexity(name: str, item: _Line, loss: str, perplexity: str) -> Finding:
    """Compare a perplexity with the exponential of the loss beside it."""
    places = len(perplexity.partition(".")[2])
    half = 0.5 * 10.0 ** -len(loss.partition(".")[2])
    low, high = math.exp(float(loss) - half), math.exp(float(loss) + half)
    slack = 0.5 * 10.0**-places
    fits = low - slack <= float(perplexity) <= high + slack
    return Finding(
        _place(name, item.line, item.text),
        Verdict.TRUE if fits else Verdict.FALSE,
        reading=f"perplexity {perplexity} at loss {loss}",
        explanation=f"e^{loss} lies between {low:.6g} and {high:.6g}"
        + ("." if fits else f", not at {perplexity}; in bits, 2^{loss} = {2 ** float(loss):.6g}."),
    )


def _loss_run(
    name: str, run: list[tuple[float, str, _Line]], classes: int | None, entropy: bool
) -> Finding:
    first, last = run[0], run[-1]
    text = first[1] if len(run) == 1 else f"{first[1]} → {last[1]}"
    place = _place(name, first[2].line, f"loss {text}", last[2].line)
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


# -- accuracies ---------------------------------------------------------------------------
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


def _accuracies(document: Document, lines: Sequence[_Line]) -> Iterator[Finding]:
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


def _accuracy(document: Document, item: _Line, percent: str, stated: int | None) -> Finding:
    place = _place(document.name, item.line, item.text)
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


# -- numbers of parameters ----------------------------------------------------------------
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


def _parameters(document: Document) -> Iterator[Finding]:
    everything = " ".join(p.text for p in document.prose)
    named = {
        key: value
        for key, value in PUBLISHED_PARAMETERS.items()
        if re.search(rf"\b{key.replace('-', '[- ]?')}\b", everything, re.I | re.A)
    }
    seen: set[tuple[float, float]] = set()
    for prose in document.prose:
        for sentence in _sentences(prose.text):
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
            _place(name, prose.line_of(sentence), sentence), Verdict.UNVERIFIABLE, reading=reading,
            explanation="No published model known here lies outside the range.",
        )  # fmt: skip
    return Finding(
        _place(name, prose.line_of(sentence), sentence), Verdict.IMPRECISE, reading=reading,
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
            _place(name, prose.line_of(sentence), sentence),
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


def _sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[。！？!?；;])|(?<=\.)\s+", text) if s and s.strip()]


# -- complexity ---------------------------------------------------------------------------
_LAYERS = {
    "restricted self-attention": r"restricted\s+self[- ]attention|受限自注意力",
    "self-attention": r"self[- ]attention|transformers?\b|自注意力|变换器",
    "recurrent": r"recurrent|\bRNNs?\b|\bLSTMs?\b|循环神经网络|循环层",
    "convolution": r"convolution\w*|\bCNNs?\b|卷积",
}
_COMPLEXITY = re.compile(
    r"复杂度|计算量|complexity|(?:computational\s+)?cost|FLOPs|operations", re.I | re.A
)
_LOWER = re.compile(
    r"更低|较低|更小|低于|小于|更少|lower|less|smaller|cheaper|fewer|reduc", re.I | re.A
)
_HIGHER = re.compile(
    r"更高|较高|更大|高于|大于|higher|greater|larger|more\s+expensive", re.I | re.A
)
_ORDER = re.compile(
    r"\$?\s*\\?(?:mathcal\s*\{?\s*)?[O𝒪]\s*\}?\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*\$?"
)


def _layers(text: str) -> list[tuple[int, str]]:
    found = []
    taken: list[tuple[int, int]] = []
    for layer, pattern in _LAYERS.items():
        for match in re.finditer(pattern, text, re.I | re.A):
            if not any(a <= match.start() < b for a, b in taken):
                found.append((match.start(), layer))
                taken.append(match.span())
    return sorted(found)


def _complexity(name: str, prose: Prose) -> Iterator[Finding]:
    for sentence in _sentences(prose.text):
        if len(sentence) > 2_000:
            continue
        layers = _layers(sentence)
        kinds = list(dict.fromkeys(layer for _, layer in layers))
        if len(kinds) == 2 and _COMPLEXITY.search(sentence):
            lower, higher = _LOWER.search(sentence), _HIGHER.search(sentence)
            if bool(lower) != bool(higher) and not _ORDER.search(sentence):
                yield _compared(name, prose, sentence, kinds, lower is not None)
        yield from _stated_orders(name, prose, sentence, layers)


def _compared(name: str, prose: Prose, sentence: str, kinds: list[str], lower: bool) -> Finding:
    """Compare two layers' costs: ``A is lower than B`` where one is named after "than"."""
    than = re.search(
        r"与[^，,]*?相比|相比|相较于?|比|\bthan\b|compared\s+(?:to|with)", sentence, re.I | re.A
    )
    subject, other = kinds
    if than is not None:
        zh = than.group().endswith("相比") and than.group().startswith("与")
        inside = _layers(than.group()) if zh else []
        after = _layers(sentence[than.end() :])
        base = inside[0][1] if inside else after[0][1] if after else other
        other = base
        subject = next(k for k in kinds if k != base)
    a, b = LAYER_COMPLEXITY[subject], LAYER_COMPLEXITY[other]
    ratio = {s: a.get(s, 0) - b.get(s, 0) for s in {*a, *b}}
    top = _monomial({s: p for s, p in ratio.items() if p > 0})
    bottom = _monomial({s: -p for s, p in ratio.items() if p < 0})
    cost = f"{_monomial(a)} against {_monomial(b)} operations per layer"
    sign = "<" if lower else ">"
    claim = f"{subject} costs {'less' if lower else 'more'} than {other}"
    if top == "1" or bottom == "1":
        right = (top == "1") == lower
        return Finding(
            _place(name, prose.line_of(sentence), sentence),
            Verdict.TRUE if right else Verdict.FALSE,
            reading=claim, explanation=f"{cost} (n length, d width).",
        )  # fmt: skip
    condition = f"{top} {sign} {bottom}"
    return Finding(
        _place(name, prose.line_of(sentence), sentence), Verdict.CONDITIONAL,
        detail=condition, reading=claim,
        explanation=f"{cost}: true only where {condition} (n length, d width"
        + (", k kernel width)." if "k" in ratio else ")."),
        repair=f"say: where {condition}",
    )  # fmt: skip


def _monomial(powers: dict[str, int]) -> str:
    order = [s for s in "krnd" if powers.get(s)]
    if not order:
        return "1"
    return "·".join(s if powers[s] == 1 else s + {2: "²", 3: "³"}.get(powers[s], f"^{powers[s]}")
                    for s in order)  # fmt: skip


def _powers(text: str) -> dict[str, int] | None:
    r"""Read ``n^2 \cdot d`` as powers of its letters."""
    try:
        expr = parse(text)[0].expr
    except CannotParse:
        return None
    powers: dict[str, int] = {}

    def visit(e: Expr, times: int) -> bool:
        if e.op == "mul":
            return all(visit(a, times) for a in e.args)
        if e.op == "pow" and e.args[1].op == "number" and e.args[1].value.denominator == 1:
            return visit(e.args[0], times * int(e.args[1].value))
        if e.op == "name":
            symbol = {"L": "n", "T": "n", "N": "n", "D": "d", "d_model": "d"}.get(e.value, e.value)
            powers[symbol] = powers.get(symbol, 0) + times
            return True
        return bool(e.op == "number")

    return powers if visit(expr, 1) else None


def _stated_orders(
    name: str, prose: Prose, sentence: str, layers: list[tuple[int, str]]
) -> Iterator[Finding]:
    """Check O(...) after the name of a layer."""
    for found in _ORDER.finditer(sentence):
        before = [(p, k) for p, k in layers if p < found.start()]
        if not before or not re.search(r"layer|层|complexity|复杂度|per|cost", sentence, re.I):
            continue
        layer = before[-1][1]
        between = sentence[before[-1][0] : found.start()]
        if re.search(
            r"path|sequential|memory|路径|顺序|内存|显存|linear|sparse|flash", between, re.I
        ):
            continue
        powers = _powers(found.group(1))
        if powers is None or "n" not in powers:
            continue
        true = LAYER_COMPLEXITY[layer]
        known = {s: p for s, p in powers.items() if s in "nkdr"}
        if known != powers:
            continue
        without_width = {s: p for s, p in true.items() if s != "d"}
        if powers == true:
            verdict, words = Verdict.TRUE, f"{_monomial(true)} operations per layer."
        elif powers == without_width and layer == "self-attention":
            verdict = Verdict.IMPRECISE
            words = f"The width counts too: {_monomial(true)} operations per layer."
        else:
            verdict, words = Verdict.FALSE, f"It is {_monomial(true)} operations per layer."
        yield Finding(
            _place(name, prose.line_of(sentence), sentence), verdict,
            reading=f"{layer}: O({to_unicode(parse(found.group(1))[0].expr)})", explanation=words,
            repair="" if verdict is Verdict.TRUE else f"O({_monomial(true)})",
        )  # fmt: skip


# -- statements about training and scaling ------------------------------------------------
_PRETRAIN = re.compile(r"预训练|pre-?train", re.I | re.A)
_FINETUNE = r"(?:微调|fine[- ]?tun\w*)"
_FIRST_IS = re.compile(
    rf"(?:第一(?:个)?(?:阶段|步)|first\s+(?:stage|step|phase))[^。.;；]{{0,20}}?"
    rf"(?:是|为|即|：|:|\bis\b|,|consists\s+of)\s*(?:the\s+)?{_FINETUNE}",
    re.I | re.A,
)
_PRETRAIN_FIRST = re.compile(
    r"(?:第一(?:个)?(?:阶段|步)|first\s+(?:stage|step|phase))[^。.;；]{0,20}?"
    r"(?:是|为|即|：|:|\bis\b)\s*(?:the\s+)?(?:\w+\s+){0,2}(?:预训练|pre-?training)",
    re.I | re.A,
)


def _stages(name: str, prose: Prose) -> Iterator[Finding]:
    if len(prose.text) > 5_000 or not _PRETRAIN.search(prose.text):
        return
    found = _FIRST_IS.search(prose.text)
    if found:
        again = len(re.findall(_FINETUNE, prose.text[found.end() :], re.I))
        yield Finding(
            _place(name, prose.line_of(found.group()), found.group()), Verdict.FALSE,
            reading="the first stage of pretraining is fine-tuning",
            explanation="Fine-tuning starts from weights that pretraining has made, so it is not "
            "pretraining's first stage: pretraining comes first, on unlabelled data, and "
            "fine-tuning after it."
            + (" The same sentence names fine-tuning as the second stage too." if again else ""),
            repair="first stage: pretraining; second stage: fine-tuning on the task",
        )  # fmt: skip
    elif _PRETRAIN_FIRST.search(prose.text) and re.search(_FINETUNE, prose.text, re.I):
        match = _PRETRAIN_FIRST.search(prose.text)
        assert match is not None
        yield Finding(
            _place(name, prose.line_of(match.group()), match.group()), Verdict.TRUE,
            reading="pretraining comes before fine-tuning",
            explanation="Fine-tuning starts from the weights that pretraining has made.",
        )  # fmt: skip


_VANISHING = re.compile(
    r"(?:防止|避免|缓解|解决|prevent\w*|avoid\w*|counteract\w*|mitigat\w*|against)[^。.;；]{0,24}?"
    r"(?:梯度(?:消失|弥散)|vanishing\s+gradients?|gradients?\s+(?:from\s+)?vanish\w*|"
    r"small\s+gradients?)",
    re.I | re.A,
)
_SCALES = re.compile(r"缩放|scal(?:e|ing)|除以|divid", re.I | re.A)


def _gradients(document: Document, prose: Prose, declarations: Declarations) -> Iterator[Finding]:
    """Judge "the scale prevents vanishing gradients" by where the scale stands."""
    found = _VANISHING.search(prose.text) if len(prose.text) < 5_000 else None
    if found is None or not _SCALES.search(prose.text):
        return
    before = re.findall(r"\$([^$]+)\$", prose.text[: found.start()])
    after = re.findall(r"\$([^$]+)\$", prose.text[found.end() :])
    symbol = before[-1].strip() if before else (after[0].strip() if after else "")
    inside = outside = scaled = False
    for formula in document.formulas:
        if not formula.display or abs(formula.line - prose.line) > 20:
            continue
        try:
            expr = parse(formula.text, document.macros)[0].expr
            wanted = parse(symbol, document.macros)[0].expr if symbol else None
        except CannotParse:
            continue
        softmax = [e for e in expr.walk() if e.op == "call" and e.value == "softmax"]
        within = {id(x) for call in softmax for x in call.walk()}
        for node in expr.walk():
            if wanted is not None and node == wanted:
                if id(node) in within:
                    inside = True
                elif (
                    wanted.op == "name"
                    and wanted.value in declarations
                    and declarations[str(wanted.value)].constant
                ):
                    outside = True
        if (
            wanted is not None
            and expr.op == "relation"
            and expr.args[1].op == "mul"
            and (wanted in expr.args[1].args and len(expr.args[1].args) == 2 and not softmax)
        ):  # the output scaled: Attention = c · O
            outside = scaled = True
    if not (inside or outside):
        return
    where = "outside the softmax" if outside else "inside the softmax"
    yield Finding(
        _place(document.name, prose.line_of(found.group()), found.group()), Verdict.CONDITIONAL,
        detail="inside the softmax",
        reading=f"scaling {'' if scaled else 'by '}{symbol} keeps gradients from vanishing",
        explanation="Dividing the scores by √d_k inside the softmax keeps it from saturating, and "
        "so its gradient P∘(dP − rowsum(dP∘P)) from vanishing; a factor outside multiplies the "
        f"gradient but cannot change the saturation. Here it stands {where}.",
    )  # fmt: skip
