"""The mutation gate: whatever one or two typed edits make of a card's formula is convicted.

Edits of the second layer are sampled with a fixed seed. An edit may of course leave
the value alone (the factors of a scalar product swapped, two symmetric sizes
exchanged): those are listed, by kind or one by one, and must be judged equal too.
"""

from __future__ import annotations

import random
import re

import pytest

from minitransformer.verify.binding import bind
from minitransformer.verify.cards import cards
from minitransformer.verify.decide import EQUALS, decide, vocabulary
from minitransformer.verify.repair import edits
from minitransformer.verify.verdict import Verdict

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
# Edits that leave the value alone wherever they type at all: the order of commuting
# factors, the product of numbers written with ⊙, a transpose that types both ways.
NEUTRAL = re.compile(
    r"swap the factors|⊙ for the product|the matrix product for ⊙|transpose |drop the transpose"
)
# Pairs of edits that undo each other or use a symmetry of the formula.
IDENTITIES = {
    ("perplexity", "divide by √N inside exp; √N for N"),
    ("rotation", "θ for m; m for θ"),
    ("embedding-scale", "d_model − 1 for d_model; 0 for 1"),
    ("gradient-clipping", "square norm; divide by the root of norm^2"),
}
SYMMETRIC = re.compile(r"(\S+) for (\S+); \2 for \1|0 for 1; (\S+) − 1 for \3|-(\S+) for \4; -")


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


def is_neutral(card, says):
    steps = says.split("; ")
    return (
        all(NEUTRAL.match(s) for s in steps)
        or (card.id, says) in IDENTITIES
        or bool(SYMMETRIC.match(says))
        or (len(steps) == 2 and sum(bool(NEUTRAL.match(s)) for s in steps) == 1)
    )


@pytest.mark.parametrize("card", cards(), ids=lambda c: c.id)
def test_every_mutant_is_convicted(card, count):
    survivors = []
    for mutant, says in mutants(card).items():
        finding = decide(mutant, card, full=False)
        if finding.verdict in CONVICTIONS:
            count["mutants of cards: convicted"] += 1
        elif finding.verdict in EQUALS and is_neutral(card, says):
            count["mutants of cards: equal, as they are"] += 1
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
