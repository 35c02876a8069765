"""How a transformer is called and evaluated: masks, positions, the order of axes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from minitransformer.verify.code_claims.module import constant, dotted
from minitransformer.verify.code_claims.rules import Rules, attributes, calls_of
from minitransformer.verify.code_claims.signatures import (
    SIGNATURES,
)
from minitransformer.verify.verdict import Finding, Verdict

_POSITIONS = re.compile(r"pos(?:ition|_|\b|enc|emb)|\bpe\b|rotary|rope|alibi|sinusoid", re.I)


def usage_findings(rules: Rules) -> Iterator[Finding]:
    """Rules about how a transformer is called: masks, positions, the order of axes."""
    held = attributes(rules, frozenset(["Transformer"]))
    text = rules.code.text
    for node, made in calls_of(rules, held):
        given = {str(k.arg) for k in node.keywords} | set(
            ["src", "tgt", "src_mask", "tgt_mask"][: len(node.args)]
        )
        written = ast.unparse(node)
        if "tgt_mask" not in given and "tgt_is_causal" not in given and "None" not in given:
            shift = _unshifted(rules)
            yield rules.finding(
                node, Verdict.FALSE, written,
                "No tgt_mask: every position of the decoder attends to the later targets, so the "
                "gradient of an output with respect to later targets is not zero." + shift,
                detail="tgt_mask missing",
                repair="tgt_mask=nn.Transformer.generate_square_subsequent_mask(tgt.size(0))",
            )  # fmt: skip
        if not _POSITIONS.search(text):
            yield rules.finding(
                node, Verdict.FALSE, written,
                "Nothing adds positions to the embeddings: permuting the source permutes the "
                "encoder's output and changes nothing else, so word order is invisible.",
                detail="no positions",
            )  # fmt: skip
        if "batch_first" not in made.bound:
            first = _batch_first_data(rules)
            yield rules.finding(
                node, Verdict.FALSE if first else Verdict.CONDITIONAL, written,
                "batch_first keeps False, so the axes are (length, batch, width); "
                + (first or "right only if the data puts the length first, while a DataLoader "
                            "stacks the batch first: then attention runs across the batch."),
                detail="batch_first = False",
                repair="batch_first=True",
            )  # fmt: skip


def _unshifted(rules: Rules) -> str:
    """Say that the decoder's input is also its label, where it is."""
    models = {
        dotted(t)
        for n in ast.walk(rules.module.tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
        and isinstance(n.value.func, ast.Name) and n.value.func.id in rules.module.classes
        for t in n.targets
    }  # fmt: skip
    fed: set[str] = set()
    labels: set[str] = set()
    losses = attributes(rules, frozenset(["CrossEntropyLoss"]))
    for node in ast.walk(rules.module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in models and len(node.args) > 1:
            fed |= {a.id for a in node.args[1:2] if isinstance(a, ast.Name)}
        if (name in losses or name.endswith("cross_entropy")) and len(node.args) > 1:
            label = node.args[1]
            while isinstance(label, ast.Call) and isinstance(label.func, ast.Attribute):
                label = label.func.value
            labels |= {label.id} if isinstance(label, ast.Name) else set()
    both = fed & labels
    if not both:
        return ""
    word = sorted(both)[0]
    return f" {word} is the decoder's input and its label, not shifted by one: it can copy it."


def _batch_first_data(rules: Rules) -> str:
    """Say that the code itself puts the batch first, where it does."""
    found = re.search(
        r"(?:torch\.)?(?:randint|randn|rand|zeros|ones)\(\s*(?:\d+\s*,\s*){0,2}\(?\s*"
        r"(batch_size|batch|bs|B)\s*,", rules.code.text,
    )  # fmt: skip
    return f"the code makes tensors whose first axis is {found.group(1)}." if found else ""


def evaluation_findings(rules: Rules) -> Iterator[Finding]:
    """An argmax over axis 1 of (length, batch, vocabulary) is over the batch."""
    sequence = frozenset(
        ["Transformer", "TransformerEncoder", "TransformerDecoder", "TransformerEncoderLayer"]
    )
    used = [c for c in rules.module.calls if c.name in sequence]
    if not used:
        return
    pooled = re.search(r"\.mean\(|\[:,\s*0\]|\[:,\s*-1\]|\[0\]|\[-1\]|pool|cls", rules.code.text)
    if pooled:
        return
    models = {
        n.targets[0].id
        for n in ast.walk(rules.module.tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
        and isinstance(n.targets[0], ast.Name) and isinstance(n.value.func, ast.Name)
        and n.value.func.id in rules.module.classes
    } | {"model"}  # fmt: skip
    outputs = {
        n.targets[0].id
        for n in ast.walk(rules.module.tree)
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
        and isinstance(n.value, ast.Call) and dotted(n.value.func) in models
    }  # fmt: skip
    compared = [n for n in ast.walk(rules.module.tree) if isinstance(n, ast.Compare)]
    for node in ast.walk(rules.module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        short = name.rpartition(".")[2]
        if short not in ("max", "argmax"):
            continue
        if name.startswith("torch."):
            operands, rest = node.args[:1], node.args[1:]
        elif isinstance(node.func, ast.Attribute):
            operands, rest = [node.func.value], node.args
        else:
            continue
        axis = rest[0] if rest else next((k.value for k in node.keywords if k.arg == "dim"), None)
        operand = operands[0] if operands else None
        while isinstance(operand, ast.Attribute) and operand.attr == "data":
            operand = operand.value
        if not (isinstance(operand, ast.Name) and operand.id in outputs):
            continue
        if axis is None or constant(axis, {}) != 1:
            continue
        against = next(
            (ast.unparse(c) for c in compared if c.lineno > node.lineno
             and isinstance(c.ops[0], ast.Eq)), "")  # fmt: skip
        batch_first = any(rules.value(c, "batch_first") is True for c in used
                          if "batch_first" in SIGNATURES[c.name])  # fmt: skip
        axes = "(batch, length, vocabulary)" if batch_first else "(length, batch, vocabulary)"
        second = "length" if batch_first else "batch"
        tail = f"; then {against} compares shapes that do not match" if against else ""
        yield rules.finding(
            node, Verdict.FALSE, ast.unparse(node),
            f"For outputs {axes} axis 1 is the {second}, not the vocabulary{tail}. It is the "
            "vocabulary only for one unbatched sequence.",
            detail=f"axis 1 is the {second}",
            repair=ast.unparse(node).replace(", 1)", ", -1)").replace("dim=1", "dim=-1"),
        )  # fmt: skip


def softmax_findings(rules: Rules) -> Iterator[Finding]:
    """Cross-entropy takes logits; a softmax before it is applied twice."""
    if not any(c.name == "CrossEntropyLoss" for c in rules.module.calls) and (
        "cross_entropy(" not in rules.code.text
    ):
        return
    held = attributes(rules, frozenset(["Softmax"]))
    for made in rules.module.classes.values():
        for method in made.body:
            if not (isinstance(method, ast.FunctionDef) and method.name == "forward"):
                continue
            last: dict[str, ast.expr] = {}
            for statement in method.body:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    last[statement.targets[0].id] = statement.value
                if not isinstance(statement, ast.Return) or statement.value is None:
                    continue
                value: ast.expr | None = statement.value
                if isinstance(value, ast.Name):
                    value = last.get(value.id)
                if not isinstance(value, ast.Call):
                    continue
                name = dotted(value.func)
                if name.rpartition(".")[2] == "softmax" or name in held:
                    yield rules.finding(
                        value, Verdict.FALSE, ast.unparse(value),
                        "The model returns probabilities, and cross-entropy applies a log-softmax "
                        "to them once more; it takes logits.",
                        detail="softmax twice", repair="return the logits",
                    )  # fmt: skip
