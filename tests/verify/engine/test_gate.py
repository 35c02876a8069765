"""The mutation gate: whatever one or two typed edits make of a card's formula is convicted.

Edits of the second layer are sampled with a fixed seed. An edit may of course leave
the value alone (the factors of a scalar product swapped, two symmetric sizes
exchanged): whether it does is for a second evaluator to say, which shares no code
with the verifier.
"""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from minitransformer.verify.binding import bind
from minitransformer.verify.cards import cards
from minitransformer.verify.compare import battery
from minitransformer.verify.decide import EQUALS, decide, vocabulary
from minitransformer.verify.repair import edits
from minitransformer.verify.verdict import Verdict
from tests.verify.engine.plain import Refused, plain

FIRST, SECOND = 10, 8  # second layer: so many edits of so many first edits
CONVICTIONS = frozenset(
    [
        Verdict.DIFFERENT_CERTIFIED,
        Verdict.DIFFERENT,
        Verdict.ILL_TYPED,
        Verdict.WRONG_SHAPE,
        Verdict.COINCIDES_ONLY_WHEN,
    ]
)
# Edits that change only how a product is written.
NEUTRAL = re.compile(
    r"swap the factors|⊙ for the product|the matrix product for ⊙|transpose |drop the transpose"
)


def mutants(card):
    tree = card.tree()
    words = vocabulary(card, bind(tree, card))
    first = {}
    for edit in edits(tree, words):
        if edit.expr != tree:
            first.setdefault(edit.expr, edit.says)
    found = dict(first)
    rng = random.Random(0)
    for expr, says in rng.sample(list(first.items()), min(FIRST, len(first))):
        second = list(edits(expr, words))
        for edit in rng.sample(second, min(SECOND, len(second))):
            if edit.expr != tree:
                found.setdefault(edit.expr, f"{says}; {edit.says}")
    return found


def is_identity(card, mutant):
    """Whether a mutant is the formula itself, by an evaluator of its own; None: unknown."""
    bound = bind(mutant, card)
    for probe in battery(card):
        names = {k: np.asarray(v).astype(float) for k, v in probe.point.inputs.items()}
        names.update({s: float(probe.point.sizes[d]) for s, d in card.sizes.items()})
        names.update({d: float(n) for d, n in probe.point.sizes.items()})
        try:
            if bound.free:
                value = table(bound, names, card, probe)
            else:
                value = plain(bound.expr, names)
        except (Refused, ValueError, TypeError, IndexError, OverflowError):
            return None
        if not np.isfinite(probe.floats).all():
            continue
        if np.shape(value) != probe.floats.shape:
            return None
        if not np.allclose(value, probe.floats, rtol=1e-9, atol=1e-12):
            return False
    return True


def table(bound, names, card, probe):
    """The values of a formula with free indices, one entry per choice of the indices."""
    shape = probe.floats.shape
    out = np.empty(shape)
    for where in np.ndindex(*shape):
        at = {i: float(k + 1) for i, k in zip(bound.free, where)}
        out[where] = plain(bound.expr, {**names, **at})
    return out


@pytest.mark.parametrize("card", cards(), ids=lambda c: c.id)
def test_every_mutant_is_convicted(card, count):
    survivors = []
    for mutant, says in mutants(card).items():
        finding = decide(mutant, card, full=False)
        if finding.verdict in CONVICTIONS:
            count["mutants of cards: convicted"] += 1
        elif finding.verdict in EQUALS and is_identity(card, mutant):
            count["mutants of cards: equal, as a second evaluator says"] += 1
        elif (
            finding.verdict in EQUALS
            and is_identity(card, mutant) is None
            and all(NEUTRAL.match(step) for step in says.split("; "))
        ):
            count["mutants of cards: equal, beyond the second evaluator"] += 1
        elif finding.verdict is Verdict.EQUAL_UP_TO and finding.detail.startswith("transpose"):
            count["mutants of cards: the transposed convention"] += 1
        elif finding.verdict in (Verdict.UNDER_SPECIFIED, Verdict.AMBIGUOUS):
            count["mutants of cards: refused"] += 1
        else:
            survivors.append((says, finding.verdict.value, finding.reading))
    assert not survivors


def test_one_step_mutants_of_attention_are_all_convicted(count):
    """The twenty mistakes people make with attention, none of them equal."""
    wrong = [
        r"\mathrm{softmax}(QK^T)V",
        r"\mathrm{softmax}(QK^T/d_k)V",
        r"\mathrm{softmax}(QK^T/d_k^2)V",
        r"\mathrm{softmax}(QK^T\sqrt{d_k})V",
        r"\mathrm{softmax}(QK^T/\sqrt{d_v})V",
        r"\mathrm{softmax}(QK^T/\sqrt{n_k})V",
        r"\mathrm{softmax}(QK^T)V/\sqrt{d_k}",
        r"\mathrm{softmax}(QK^T/\sqrt{d_k})V/\sqrt{d_k}",
        r"\mathrm{softmax}(KQ^T/\sqrt{d_k})V",
        r"\mathrm{softmax}(Q^TK/\sqrt{d_k})V",
        r"\mathrm{softmax}(QK/\sqrt{d_k})V",
        r"\mathrm{softmax}(QV^T/\sqrt{d_k})V",
        r"\mathrm{softmax}(QQ^T/\sqrt{d_k})V",
        r"\mathrm{softmax}(KK^T/\sqrt{d_k})V",
        r"\mathrm{softmax}(QK^T/\sqrt{d_k})K",
        r"\mathrm{softmax}(QK^T/\sqrt{d_k})V^T",
        r"V\mathrm{softmax}(QK^T/\sqrt{d_k})",
        r"\mathrm{softmax}_{column}(QK^T/\sqrt{d_k})V",
        r"QK^TV/\sqrt{d_k}",
        r"\mathrm{softmax}(-QK^T/\sqrt{d_k})V",
    ]
    typed = 0
    for text in wrong:
        finding = decide(text, "attention", full=False)
        assert finding.verdict not in EQUALS, text
        typed += finding.verdict in (Verdict.ILL_TYPED, Verdict.WRONG_SHAPE)
    count["mutants of attention caught by types alone, of 20"] += typed
