"""Statements about training and scaling that can be decided without data."""

from __future__ import annotations

import re
from collections.abc import Iterator

from minitransformer.verify.declarations import Declarations
from minitransformer.verify.extraction import Document, Prose
from minitransformer.verify.figures.lines import place_of
from minitransformer.verify.parser import CannotParse, parse
from minitransformer.verify.verdict import Finding, Verdict

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


def stage_findings(name: str, prose: Prose) -> Iterator[Finding]:
    if len(prose.text) > 5_000 or not _PRETRAIN.search(prose.text):
        return
    found = _FIRST_IS.search(prose.text)
    if found:
        again = len(re.findall(_FINETUNE, prose.text[found.end() :], re.I))
        yield Finding(
            place_of(name, prose.line_of(found.group()), found.group()), Verdict.FALSE,
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
            place_of(name, prose.line_of(match.group()), match.group()), Verdict.TRUE,
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


def gradient_findings(
    document: Document, prose: Prose, declarations: Declarations
) -> Iterator[Finding]:
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
        place_of(document.name, prose.line_of(found.group()), found.group()), Verdict.CONDITIONAL,
        detail="inside the softmax",
        reading=f"scaling {'' if scaled else 'by '}{symbol} keeps gradients from vanishing",
        explanation="Dividing the scores by √d_k inside the softmax keeps it from saturating, and "
        "so its gradient P∘(dP − rowsum(dP∘P)) from vanishing; a factor outside multiplies the "
        f"gradient but cannot change the saturation. Here it stands {where}.",
    )  # fmt: skip
