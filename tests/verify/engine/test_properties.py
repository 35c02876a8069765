"""Properties that hold for whatever formula is drawn."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.verify.canonical import canonical
from minitransformer.verify.cards import find
from minitransformer.verify.compare import discrepancy
from minitransformer.verify.decide import EQUALS, decide
from minitransformer.verify.dimensions import Elaborator, IllTyped, Typing, align
from minitransformer.verify.evaluate import evaluate
from minitransformer.verify.expression import Expr, call, name, number
from minitransformer.verify.number_systems import EXACT, FLOATS, CannotEvaluate, precision

TYPING = Typing(
    {"Q": ("n", "d"), "K": ("m", "d"), "V": ("m", "e"), "x": ("d",), "y": ("d",), "s": (), "t": ()},
    {"d": "d", "n": "n", "m": "m"},
)
SIZES = {"n": 3, "m": 4, "d": 2, "e": 5}


def point(seed):
    from minitransformer.verify.number_systems import Point

    rng = np.random.default_rng(seed)
    inputs = {}
    for symbol, dims in TYPING.symbols.items():
        whole = rng.integers(-12, 13, size=tuple(SIZES[d] for d in dims))
        out = np.empty(np.shape(whole), dtype=object)
        out[...] = np.vectorize(lambda v: Fraction(int(v), 8), otypes=[object])(whole)
        inputs[symbol] = out
    return Point(inputs, SIZES)


def node(op, *args, value=None):
    return Expr(op, args, value)


leaves = st.sampled_from([name(s) for s in ("Q", "K", "V", "x", "y", "s", "t", "d")]) | st.builds(
    number, st.fractions(min_value=-3, max_value=3, max_denominator=4)
)


def grow(inner):
    return (
        st.builds(lambda a, b: node("add", a, b), inner, inner)
        | st.builds(lambda a, b: node("mul", a, b), inner, inner)
        | st.builds(lambda a, b: node("hadamard", a, b), inner, inner)
        | st.builds(lambda a, b: node("div", a, node("add", node("pow", b, number(2)), number(1))),
                    inner, inner)
        | st.builds(lambda a: node("neg", a), inner)
        | st.builds(lambda a: node("transpose", a), inner)
        | st.builds(lambda a: call("softmax", a), inner)
        | st.builds(lambda a: call("exp", a), inner)
        | st.builds(lambda a: call("tanh", a), inner)
        | st.builds(lambda a: call("sigmoid", a), inner)
        | st.builds(lambda a: node("expect", a), inner)
        | st.builds(lambda a: node("var", a), inner)
        | st.builds(lambda a: call("sum", a), inner)
        | st.builds(lambda a: node("norm", a, value="2"), inner)
    )  # fmt: skip


formulas = st.recursive(leaves, grow, max_leaves=6)


def typed(e):
    try:
        return Elaborator(TYPING)(e)
    except IllTyped:
        return None


@given(formulas, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_floats_lie_in_the_balls(e, seed):
    term = typed(e)
    if term is None:
        return
    at = point(seed)
    with precision(200) as m:
        balls = np.asarray(evaluate(term, at, m), dtype=object).ravel()
    floats = np.asarray(evaluate(term, at, FLOATS), dtype=np.float64).ravel()
    assert len(balls) == len(floats)
    scale = max([1.0, *(abs(float(b.mid())) for b in balls if b.is_finite())])
    for ball, value in zip(balls, floats):
        if ball.is_finite() and scale < 1e6:
            assert abs(float(ball.mid()) - value) <= 1e-9 * scale


@given(formulas, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_exact_values_lie_in_the_balls(e, seed):
    term = typed(e)
    if term is None:
        return
    at = point(seed)
    try:
        exact = np.asarray(evaluate(term, at, EXACT), dtype=object).ravel()
    except CannotEvaluate:
        return
    with precision(200) as m:
        balls = np.asarray(evaluate(term, at, m), dtype=object).ravel()
        for ball, value in zip(balls, exact):
            assert m.number(Fraction(value)).overlaps(m.number(ball))


@given(formulas, formulas)
@settings(max_examples=300, deadline=None)
def test_equal_canonical_forms_mean_equal_values(a, b):
    """The canonical form may miss an equality; it may never invent one."""
    first, second = typed(a), typed(b)
    if first is None or second is None:
        return
    forms = canonical(first), canonical(second)
    if None in forms or forms[0] != forms[1]:
        return
    for seed in range(3):
        x, y = evaluate(first, point(seed)), evaluate(second, point(seed))
        if np.isfinite(np.asarray(x, dtype=float)).all():
            assert discrepancy(x, y) < 1e-8


REWRITES = {
    "swap sums": lambda e: node("add", *e.args[::-1]) if e.op == "add" else e,
    "swap elementwise factors": lambda e: node("hadamard", *e.args[::-1])
    if e.op == "hadamard" else e,
    "double transpose": lambda e: node("transpose", node("transpose", e)) if e.op == "call" else e,
    "shift the softmax": lambda e: call("softmax", node("add", e.args[0], name("s")))
    if e.op == "call" and e.value == "softmax" else e,
    "double negation": lambda e: node("neg", node("neg", e)) if e.op == "transpose" else e,
}  # fmt: skip


@given(formulas, st.sampled_from(sorted(REWRITES)))
@settings(max_examples=200, deadline=None)
def test_sound_rewrites_keep_the_canonical_form(e, rewrite):
    before, after = typed(e), typed(e.map(REWRITES[rewrite]))
    if before is None:
        return
    assert after is not None
    form = canonical(before)
    if form is not None:
        assert canonical(after) == form


@given(st.permutations(["Q", "K", "V"]))
@settings(max_examples=6, deadline=None)
def test_operands_in_any_other_order_are_never_equal(order):
    renamed = dict(zip("QKV", (name(n) for n in order)))

    def change(e):
        return renamed.get(e.value, e) if e.op == "name" else e

    card = find("attention")
    finding = decide(card.tree().map(change), card, full=False)
    assert (finding.verdict in EQUALS) == (list(order) == ["Q", "K", "V"])


@given(st.integers(1, 40), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_only_one_power_of_the_size_is_right(numerator, denominator):
    exponent = number(Fraction(-numerator, denominator))
    scale = node("pow", name("d_k"), exponent)
    scores = node("mul", name("Q"), node("transpose", name("K")))
    e = node("mul", call("softmax", node("mul", scale, scores)), name("V"))
    finding = decide(e, "attention", full=False)
    assert (finding.verdict in EQUALS) == (Fraction(numerator, denominator) == Fraction(1, 2))


@pytest.mark.parametrize(
    ("dims", "onto", "axes"),
    [
        ((), ("n", "m"), ()),
        (("m",), ("n", "m"), (1,)),
        (("n",), ("n", "m"), (0,)),
        (("n", "m"), ("n", "m"), (0, 1)),
        (("m", "n"), ("n", "m"), None),
        (("k",), ("n", "m"), None),
    ],
)
def test_alignment_is_by_name_and_keeps_order(dims, onto, axes):
    assert align(dims, onto) == axes
