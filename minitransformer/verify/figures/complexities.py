"""Complexities of layers, and which of two is lower."""

from __future__ import annotations

import re
from collections.abc import Iterator

from minitransformer.verify.expression import Expr
from minitransformer.verify.extraction import Prose
from minitransformer.verify.figures.lines import place_of, sentences
from minitransformer.verify.parser import CannotParse, parse
from minitransformer.verify.printing import to_unicode
from minitransformer.verify.verdict import Finding, Verdict

# Operations per layer for sequences of length n and width d, kernel width k (Vaswani et al. 2017,
# table 1).
LAYER_COMPLEXITY = {
    "self-attention": {"n": 2, "d": 1},
    "recurrent": {"n": 1, "d": 2},
    "convolution": {"k": 1, "n": 1, "d": 2},
    "restricted self-attention": {"r": 1, "n": 1, "d": 1},
}
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


def complexity_findings(name: str, prose: Prose) -> Iterator[Finding]:
    for sentence in sentences(prose.text):
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
            place_of(name, prose.line_of(sentence), sentence),
            Verdict.TRUE if right else Verdict.FALSE,
            reading=claim, explanation=f"{cost} (n length, d width).",
        )  # fmt: skip
    condition = f"{top} {sign} {bottom}"
    return Finding(
        place_of(name, prose.line_of(sentence), sentence), Verdict.CONDITIONAL,
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
            place_of(name, prose.line_of(sentence), sentence), verdict,
            reading=f"{layer}: O({to_unicode(parse(found.group(1))[0].expr)})", explanation=words,
            repair="" if verdict is Verdict.TRUE else f"O({_monomial(true)})",
        )  # fmt: skip
