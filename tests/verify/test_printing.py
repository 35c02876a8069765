"""What is printed is read back as the same tree."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minitransformer.verify.expression import Expr, call, name, number
from minitransformer.verify.parser import parse
from minitransformer.verify.printing import to_latex, to_mathml, to_unicode

NAMES = ["Q", "K", "V", "x", "y", "d_k", "d_model", "W^Q", "W_1", "γ", "β_1", "scale", "x̂", "ℒ",
         "head_1", "b_max", "θ", "ℓ", "x^*", "n", "x^(l)", "W_q^O", "pos"]  # fmt: skip
# operator, value, number of operands (0: two to four)
SHAPES = [
    ("add", None, 0), ("mul", None, 0), ("hadamard", None, 0), ("concat", None, 0),
    ("tuple", None, 0), ("neg", None, 1), ("transpose", None, 1), ("sqrt", None, 1),
    ("abs", None, 1), ("inverse", None, 1), ("norm", "2", 1), ("norm", "F", 1), ("norm", "", 1),
    ("expect", None, 1), ("var", None, 1), ("div", None, 2), ("pow", None, 2), ("sqrt", None, 2),
    ("call", "softmax", 1), ("call", "exp", 1), ("call", "log", 1), ("call", "σ", 1),
    ("call", "f", 1), ("call", "LayerNorm", 1), ("call", "max", 2), ("call", "Attention", 3),
    ("call", "inner", 2), ("matrix", (2, 2), 4), ("matrix", (1, 3), 3), ("matrix", (3, 1), 3),
    ("call", "f_θ", 1), ("partial", None, 2), ("call", "factorial", 1), ("call", "ℝ", 2),
    ("big", ("sum", "i"), 1), ("big", ("sum", "j"), 3), ("big", ("prod", "t"), 3),
    ("index", None, 1),
]  # fmt: skip
INDEXED = [Expr("index", (name(b), name(i))) for b in ("S", "α") for i in "ijt"]
LEAVES = [
    *map(name, NAMES),
    *map(number, (0, 1, 2, 10, 512, "0.5", "0.044715", "2.25")),
    *INDEXED,
]


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> Expr:
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(LEAVES))
    op, value, size = draw(st.sampled_from(SHAPES))
    size = size or draw(st.integers(2, 4))
    args = tuple(draw(trees(depth=depth - 1)) for _ in range(size))
    if op == "index":
        args = (*args, *map(name, draw(st.sampled_from(["i", "ij", "t"]))))
    return Expr(op, args, value)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
def test_latex_is_read_back_as_the_same_tree(tree: Expr) -> None:
    text = to_latex(tree)
    readings = [reading.expr for reading in parse(text)]
    assert tree in readings, (text, readings)


@settings(max_examples=100, deadline=None)
@given(trees(), trees())
def test_relations_and_chains_are_read_back(a: Expr, b: Expr) -> None:
    for tree in (Expr("relation", (a, b), "="), Expr("chain", (a, b, a), ("≤", "≈"))):
        assert tree in [reading.expr for reading in parse(to_latex(tree))]


@settings(max_examples=100, deadline=None)
@given(trees())
def test_unicode_and_mathml_print_every_tree(tree: Expr) -> None:
    assert to_unicode(tree)
    ET.fromstring(to_mathml(tree))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (r"\mathrm{softmax}\left(\frac{QK^\top}{\sqrt{d_k}}\right)V", "softmax(QKᵀ / √dₖ) · V"),
        (r"a - b + c", "a − b + c"),
        (r"-x^2", "−x²"),
        (r"\sum_{i=1}^n x_i", "∑_(i=1..n) x[i]"),
        (r"(a+b)c", "(a + b) · c"),
        (r"W = A \odot B", "W = A ⊙ B"),
        (r"x^{-0.5}", "x^(-0.5)"),
        (r"[h; x]", "[h; x]"),
        (r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", "[[1, 2], [3, 4]]"),
    ],
)
def test_the_echoed_reading(text: str, line: str) -> None:
    assert to_unicode(parse(text)[0].expr) == line


def test_mathml_marks_the_sub_expression_that_covers_a_span() -> None:
    text = r"softmax(\frac{QK^T}{d_k})V"
    tree = parse(text)[0].expr
    start = text.index("d_k")
    out = to_mathml(tree, span=(start, start + 3))
    assert out.count('class="marked"') == 1
    assert '<mrow class="marked"><msub><mi>d</mi><mi>k</mi></msub></mrow>' in out


def test_mathml_escapes_text() -> None:
    out = to_mathml(Expr("relation", (name("a<b"), call("f&g", name("x"))), "<"))
    ET.fromstring(out)
    assert "a&lt;b" in out
