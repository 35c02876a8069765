"""What is printed is read back as the same tree."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minitransformer.verify.expression import Expr, call, name, number
from minitransformer.verify.parser import parse
from minitransformer.verify.printing import to_latex, to_mathml, to_unicode

NAMES = ["Q", "K", "V", "x", "y", "d_k", "d_model", "W^Q", "W_1", "γ", "β_1", "scale", "x̂",
         "ℒ", "head_1", "h_(l)", "b_max", "θ", "ℓ", "x^*", "n", "x^(l)", "W_q^O", "pos"]  # fmt: skip
NAMES.remove("h_(l)")
VARIABLES = st.sampled_from(["i", "j", "t"])

leaves = st.one_of(
    st.sampled_from(NAMES).map(name),
    st.integers(0, 999).map(number),
    st.sampled_from(["0.5", "0.044715", "2.25"]).map(lambda t: number(Fraction(t))),
)


def nodes(children: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    def make(op: str, value: object = None, size: int = 1) -> st.SearchStrategy[Expr]:
        return st.tuples(*[children] * size).map(lambda args: Expr(op, args, value))

    several = st.lists(children, min_size=2, max_size=4).map(tuple)
    return st.one_of(
        several.map(lambda args: Expr("add", args)),
        several.map(lambda args: Expr("mul", args)),
        several.map(lambda args: Expr("hadamard", args)),
        several.map(lambda args: Expr("concat", args)),
        several.map(lambda args: Expr("tuple", args)),
        make("neg"), make("transpose"), make("sqrt"), make("abs"), make("inverse"),
        make("norm", "2"), make("norm", "F"), make("norm", ""), make("expect"), make("var"),
        make("div", None, 2), make("pow", None, 2), make("sqrt", None, 2),
        make("call", "softmax"), make("call", "exp"), make("call", "log"), make("call", "σ"),
        make("call", "f"), make("call", "LayerNorm"), make("call", "max", 2),
        make("call", "Attention", 3), make("call", "inner", 2), make("matrix", (2, 2), 4),
        make("matrix", (1, 3), 3), make("matrix", (3, 1), 3), make("call", "f_θ"),
        make("partial", None, 2), make("call", "factorial"), make("call", "ℝ", 2),
        st.tuples(children, VARIABLES).map(lambda p: Expr("big", (p[0],), ("sum", p[1]))),
        st.tuples(children, children, children, VARIABLES).map(
            lambda p: Expr("big", p[:3], ("prod", p[3]))
        ),
        st.tuples(st.sampled_from(["S", "α"]).map(name), VARIABLES.map(name)).map(
            lambda p: Expr("index", p)
        ),
        st.tuples(children, VARIABLES.map(name), VARIABLES.map(name)).map(
            lambda p: Expr("index", p)
        ),
    )  # fmt: skip


trees = st.recursive(leaves, nodes, max_leaves=12)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees)
def test_latex_is_read_back_as_the_same_tree(tree: Expr) -> None:
    text = to_latex(tree)
    readings = [reading.expr for reading in parse(text)]
    assert tree in readings, (text, readings)


@settings(max_examples=100, deadline=None)
@given(trees, trees)
def test_relations_and_chains_are_read_back(a: Expr, b: Expr) -> None:
    for tree in (Expr("relation", (a, b), "="), Expr("chain", (a, b, a), ("≤", "≈"))):
        assert tree in [reading.expr for reading in parse(to_latex(tree))]


@settings(max_examples=100, deadline=None)
@given(trees)
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
