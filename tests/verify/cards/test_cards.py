"""Every card agrees three ways, and with our kernel where it has one."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from minitransformer.verify.cards import UnknownCard, cards, find
from minitransformer.verify.compare import battery, discrepancy, extend
from minitransformer.verify.decide import EQUALS, decide, match
from minitransformer.verify.torch_oracle import identifier, torch_value
from minitransformer.verify.verdict import Verdict

CARDS = cards()
# Float64 rounding of a few hundred operations, amplitudes up to 4.
ROUNDING = 1e-12


def by_id(card):
    return card.id


def midpoints(balls):
    flat = [float(b.mid()) for b in np.asarray(balls, dtype=object).ravel()]
    return np.array(flat).reshape(np.shape(balls))


def test_there_are_at_least_forty_cards_with_names_of_their_own():
    assert len(CARDS) >= 40
    assert len({c.id for c in CARDS}) == len(CARDS)


@pytest.mark.parametrize("card", CARDS, ids=by_id)
def test_card_says_where_it_comes_from(card):
    assert card.source
    assert card.equation
    assert card.torch
    assert card.latex


@pytest.mark.parametrize("card", CARDS, ids=by_id)
def test_sizes_are_distinct_and_at_least_two(card):
    shapes = card.all_shapes()
    assert len(shapes) >= 2
    for sizes in shapes:
        assert all(size >= 2 for size in sizes.values())
        if not card.shapes:
            assert len(set(sizes.values())) == len(sizes)


@pytest.mark.parametrize("card", CARDS, ids=by_id)
def test_float64_pytorch_and_200_bits_agree(card, count):
    for probe in battery(card):
        assert discrepancy(torch_value(card, probe.point), probe.floats) < ROUNDING
        balls = probe.balls(200)
        flat = np.asarray(balls, dtype=object).ravel()
        finite = [b for b in flat if b.is_finite()]
        assert all(float(b.rad()) < 1e-45 * max(1.0, abs(float(b.mid()))) for b in finite)
        assert discrepancy(midpoints(balls), probe.floats) < ROUNDING
    count["cards: reference, PyTorch and 200 bits at one point"] += len(battery(card))


@pytest.mark.parametrize("card", [c for c in CARDS if c.kernel], ids=by_id)
def test_kernel_agrees_with_its_card(card, count):
    module, name = card.kernel.rsplit(".", 1)
    kernel = getattr(importlib.import_module(module), name)
    for probe in battery(card):
        names = {"kernel": kernel, "np": np}
        for symbol, value in probe.point.inputs.items():
            names[identifier(symbol)] = np.asarray(value).astype(np.float64)
        assert discrepancy(eval(card.kernel_call, names), probe.floats) < ROUNDING
    count["cards: kernel against reference at one point"] += len(battery(card))


@pytest.mark.parametrize("card", CARDS, ids=by_id)
def test_published_form_equals_the_reference(card):
    for text in (card.latex, *card.alternatives):
        finding = decide(text, card)
        assert finding.verdict in EQUALS, (text, finding)


@pytest.mark.parametrize(
    ("card", "mistake"),
    [pytest.param(c, m, id=f"{c.id}-{k}") for c in CARDS for k, m in enumerate(c.mistakes)],
)
def test_known_mistake_is_convicted_and_named(card, mistake):
    finding = decide(mistake.formula, card)
    assert finding.verdict in (Verdict.DIFFERENT_CERTIFIED, Verdict.DIFFERENT)
    assert finding.witnesses["mistake"]["says"] == mistake.says
    assert finding.counterexample is not None


def test_find_by_id_name_and_alias():
    assert find("attention") is find("Scaled dot-product attention") is find("SDPA")
    assert find("layer norm") is find("layer-norm")


def test_unknown_card_suggests_the_nearest():
    with pytest.raises(UnknownCard, match="layer-norm"):
        find("layernrm")
    with pytest.raises(UnknownCard, match="minitransformer cards"):
        find("☃")


@pytest.mark.parametrize("card", [c for c in CARDS if not c.explicit], ids=by_id)
def test_a_card_recognises_its_own_formula(card):
    matched = match(card.latex, context=card.name)
    assert matched
    assert card in matched[:3]


@pytest.mark.parametrize(
    "text", ["E = mc^2", "a^2 + b^2 = c^2", "y = Wx + b", "f(x) = x^2", "F = ma", "x"]
)
def test_what_resembles_nothing_matches_nothing(text):
    assert match(text) == ()


def test_a_matched_card_must_be_asked_for_where_it_is_the_exception():
    assert match(r"\mathrm{softmax}(QK^T/d_k)V")[0].id == "attention"
    assert match(r"\mathrm{softmax}(QK^T/d_k)V", context="With µP attention")[0].id in (
        "mup-attention",
        "attention",
    )


def test_points_are_exact_and_repeatable():
    card = find("attention")
    first, second = card.point(3), card.point(3)
    for name, array in first.inputs.items():
        assert (array == second.inputs[name]).all()
        assert all(float(v) == v for v in array.ravel())
    assert extend(first, (), 0) is first
