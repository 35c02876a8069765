"""Verdicts: every kind is reached, conventions are acquitted, mistakes explained and repaired."""

from __future__ import annotations

import numpy as np
import pytest

from minitransformer.verify.binding import bind
from minitransformer.verify.cards import find
from minitransformer.verify.decide import EQUALS, contradictions, decide, decide_function, match
from minitransformer.verify.expression import Expr, call, name, number
from minitransformer.verify.numerics import decide_gradient
from minitransformer.verify.parser import parse
from minitransformer.verify.verdict import Verdict
from tests.verify.engine.trees import tree


def read(text):
    return parse(text)[0].expr


ROOT = read(r"\sqrt{d_k}")
PUBLISHED = (
    r"Attention(Q,K,V) = \frac{scale}{\sqrt{d_k}} \cdot softmax\left(\frac{QK^T}{d_k}\right) V"
)


@pytest.mark.parametrize(
    "text",
    [
        "softmax(Q @ K.T / sqrt(d_k)) @ V",
        "softmax((Q / sqrt(d_k)) @ K.T) @ V",
        "softmax((Q / d_k**0.25) @ (K / d_k**0.25).T) @ V",
        "softmax(d_k**(-1/2) * Q @ K.T) @ V",
        "softmax((K @ Q.T).T / sqrt(d_k)) @ V",
        "exp(Q@K.T/sqrt(d_k)) / sum_(j, exp(Q@K.T/sqrt(d_k))[j], 1, n_k) @ V",
        "sum_(j, exp(Q[i] @ K[j] / sqrt(d_k)) / sum_(l, exp(Q[i] @ K[l] / sqrt(d_k))) * V[j])",
    ],
)
def test_ways_to_write_attention_are_proved_equal(text):
    finding = decide(tree(text), "attention")
    assert finding.verdict is Verdict.EQUAL_PROVED
    assert finding.witnesses["shapes"] >= 2
    assert finding.witnesses["bits"] >= 200


@pytest.mark.parametrize(
    ("text", "card"),
    [
        (r"\sin(pos \cdot \exp(-2i \log(10000)/d_{model}))", "sinusoidal-even"),
        (r"\gamma \frac{x - E[x]}{\sqrt{Var[x] + \epsilon}} + \beta", "layer-norm"),
        (r"\gamma\frac{x-\mu}{\sqrt{\frac{1}{d}\sum_i x_i^2 - \mu^2 + \epsilon}} + \beta",
         "layer-norm"),
        (r"\frac{x}{2}(1+\mathrm{erf}(\frac{x}{\sqrt 2}))", "gelu"),
        (r"x \cdot \frac{1}{1+e^{-x}}", "silu"),
        (r"\frac{e^x}{1+e^x}", "sigmoid"),
        (r"1 - 2\sigma(-2x)", "tanh"),
        (r"\log\sum_j e^{z_j} - \sum_i y_i z_i", "cross-entropy"),
        (r"p_i(\delta_{ij} - p_j)", "softmax-jacobian"),
        (r"\prod_{i=1}^{N} p_i^{-1/N}", "perplexity"),
        (r"\frac{1}{1+e^{-x}} x", "silu"),
        (r"\theta - \alpha\frac{\sqrt{1-\beta_2^t}}{1-\beta_1^t}\frac{m_t}{\sqrt{v_t} + "
         r"\epsilon\sqrt{1-\beta_2^t}}", "adam"),
    ],
)  # fmt: skip
def test_conventions_are_acquitted(text, card):
    assert decide(text, card).verdict in EQUALS


def test_shapes_come_from_the_left_hand_side():
    finding = decide(r"f(A, B, C) = \mathrm{softmax}(AB^T/\sqrt{d_k})C", "attention")
    assert finding.verdict is Verdict.EQUAL_PROVED
    assert finding.witnesses["renamed"] == {"A": "Q", "B": "K", "C": "V"}


@pytest.mark.parametrize(
    "card", ["attention", "softmax", "adam", "kl-divergence", "dropout", "lora-unscaled"]
)
def test_a_card_equals_itself_under_renaming(card):
    card = find(card)
    names = {item.name: name(f"u_{{{k}}}") for k, item in enumerate(card.inputs)}

    def change(node):
        return names.get(node.value, node) if node.op == "name" else node

    lhs = call("f", *names.values())
    claim = Expr("relation", (lhs, bind(card.tree(), card).expr.map(change)), "=")
    assert decide(claim, card).verdict in EQUALS


def test_the_published_formula_of_the_document():
    finding = decide(PUBLISHED, "attention", declarations={"scale": [ROOT]})
    assert finding.verdict is Verdict.DIFFERENT_CERTIFIED
    assert finding.equals_instead == "attention with scale 1/d_k"
    assert "d_k = 1" in finding.coincidences
    assert "n_k = 1" in finding.coincidences
    cases = {c["value"]: c for c in finding.witnesses["cases"]}
    assert set(cases) == {"√dₖ", "1", "free"}
    assert cases["free"]["equals"] == "scale/√d_k times attention with scale 1/d_k"
    assert finding.counterexample.certificate["disjoint"]
    assert finding.counterexample.certificate["bits"] >= 200
    sizes = finding.counterexample.certificate["sizes"]
    assert sizes["d_k"] == 2
    assert sizes["n_k"] == 2
    assert decide(finding.repair_latex, "attention").verdict is Verdict.EQUAL_PROVED


def test_the_derivation_of_the_document():
    steps = {"S": read("QK^T"), "W": read(r"\mathrm{softmax}(S)"), "O": read("WV")}
    weights = decide(
        r"W = softmax(S) = \frac{e^S}{\sum_{i=1}^n e^S_i}", "attention-weights", definitions=steps
    )
    assert weights.verdict is Verdict.DIFFERENT_CERTIFIED
    assert weights.equals_instead == "attention weights with scale 1"
    assert weights.witnesses["chain"][1]["follows"] is True
    assert "11.09" in weights.unsafe_float
    last = r"Attention(Q,K,V) = \frac{scale}{\sqrt{d_k}} \cdot O"
    end = decide(last, "attention", definitions=steps, declarations={"scale": [ROOT]})
    assert end.equals_instead == "attention with scale 1"
    assert decide("S = QK^T", "attention-scores").verdict is Verdict.EQUAL_PROVED
    assert decide("O = WV", "attention-output").verdict is Verdict.EQUAL_PROVED
    found = contradictions([("Attention", read(PUBLISHED)), ("Attention", read(last))], steps)
    assert [f.verdict for f in found] == [Verdict.DIFFERENT_CERTIFIED]
    assert found[0].witnesses["pair"] == (0, 1)


def test_the_worked_example_of_the_document():
    scores = decide(
        r"S = QK^T = \begin{bmatrix} 1 & 0 & 1 \end{bmatrix} \begin{bmatrix} K_1 & K_2 & K_3 "
        r"\end{bmatrix} = \begin{bmatrix} 1 \cdot K_1 & 0 \cdot K_2 & 1 \cdot K_3 \end{bmatrix}",
        "attention-scores",
    )
    assert scores.verdict is Verdict.ILL_TYPED
    assert "Q ⊙ K, not QKᵀ" in scores.explanation
    weights = decide(r"W = \frac{e^{K_1}}{e^{K_1} + e^0 + e^{K_3}}", "attention-weights")
    assert weights.verdict is Verdict.WRONG_SHAPE
    assert "One weight of 3" in weights.explanation
    output = decide(
        r"O = \frac{e^{K_1}}{e^{K_1} + e^0 + e^{K_3}} \begin{bmatrix} V_1 \\ V_2 \\ V_3"
        r" \end{bmatrix}",
        "attention-output",
    )
    assert output.verdict in (Verdict.WRONG_SHAPE, Verdict.ILL_TYPED)


@pytest.mark.parametrize(
    ("text", "card", "verdict"),
    [
        (r"\mathrm{softmax}(QK^T/\sqrt{d_k})V", "attention", Verdict.EQUAL_PROVED),
        (r"2\sigma(2x) - 1", "tanh", Verdict.EQUAL_PROVED),
        (r"1 - 2\sigma(-2x)", "tanh", Verdict.EQUAL_SUPPORTED),
        (r"V\,\mathrm{softmax}(K^TQ/\sqrt{d_k})", "attention", Verdict.EQUAL_UP_TO),
        (r"O(3 n^2 d)", "complexity-attention", Verdict.EQUAL_UP_TO),
        (r"x\sigma(1.702x)", "gelu", Verdict.APPROXIMATES),
        (r"\mathrm{softmax}(QK^T/8)V", "attention", Verdict.COINCIDES_ONLY_WHEN),
        (r"\mathrm{softmax}(QK^T/d_k)V", "attention", Verdict.DIFFERENT_CERTIFIED),
        (r"\log(-x^2)", "relu", Verdict.DIFFERENT),
        (r"\mathrm{softmax}(QK/\sqrt{d_k})V", "attention", Verdict.ILL_TYPED),
        (r"\mathrm{softmax}(QK^T/\sqrt{d_k})", "attention", Verdict.WRONG_SHAPE),
        (r"\mathrm{softmax}(QK^T/c)V", "attention", Verdict.UNDER_SPECIFIED),
        (r"\frac{e^{QK^T/\sqrt{d_k}}}{\sum_j e^{(QK^T/\sqrt{d_k})_j}}V", "attention",
         Verdict.AMBIGUOUS),
    ],
)  # fmt: skip
def test_every_kind_of_verdict_is_reached(text, card, verdict):
    assert decide(text, card).verdict is verdict


def test_a_number_in_place_of_a_size():
    finding = decide(r"\mathrm{softmax}(QK^T/8)V", "attention")
    assert finding.detail == "d_k = 64"
    assert "√d_k" in finding.repair


def test_a_guessed_symbol_is_a_refusal_with_the_value_that_would_do():
    finding = decide(r"\mathrm{softmax}(\alpha QK^T)V", "attention")
    assert finding.verdict is Verdict.UNDER_SPECIFIED
    assert "1 / √dₖ" in finding.explanation
    unknown = decide(r"\mathrm{softmax}(AB^T/\sqrt{d})C", "attention")
    assert unknown.verdict is Verdict.UNDER_SPECIFIED
    for pair in ("A = Q", "B = K", "C = V"):
        assert pair in unknown.explanation


def test_an_undeclared_shift_is_refused_and_a_declared_number_is_not():
    text = r"\mathrm{softmax}(QK^T/\sqrt{d_k} + c)V"
    assert decide(text, "attention").verdict is Verdict.UNDER_SPECIFIED
    assert decide(text, "attention", declarations={"c": ()}).verdict is Verdict.EQUAL_PROVED
    shape = {"c": ("n_q", "n_k")}
    assert decide(text, "attention", declarations=shape).verdict is Verdict.DIFFERENT_CERTIFIED


@pytest.mark.parametrize(
    ("text", "card", "detail"),
    [
        (
            r"\gamma\frac{x-\mu}{\sqrt{\sigma^2+10^{-5}}}+\beta",
            "layer-norm",
            "reparametrisation: ε = 1e-05",
        ),
        (r"0.9 y + 0.1/K", "label-smoothing", "reparametrisation: ε = 0.1"),
    ],
)
def test_a_number_in_place_of_a_constant(text, card, detail):
    finding = decide(text, card)
    assert finding.verdict is Verdict.EQUAL_UP_TO
    assert finding.detail == detail


def test_a_constant_left_out_is_no_instance():
    assert decide(r"m \odot x", "dropout").verdict is Verdict.DIFFERENT_CERTIFIED
    assert decide(r"0.9 y + 0.2/K", "label-smoothing").verdict is Verdict.DIFFERENT_CERTIFIED


def test_a_tiny_difference_is_certified():
    finding = decide(r"\mathrm{softmax}(QK^T/(\sqrt{d_k}+10^{-12}))V", "attention")
    assert finding.verdict is Verdict.DIFFERENT_CERTIFIED


def test_a_declared_value_is_used():
    text = r"\mathrm{softmax}(\alpha QK^T)V"
    right = decide(text, "attention", declarations={"α": read(r"1/\sqrt{d_k}")})
    assert right.verdict is Verdict.EQUAL_PROVED
    wrong = decide(text, "attention", declarations={"α": number(1)})
    assert wrong.verdict is Verdict.DIFFERENT_CERTIFIED


@pytest.mark.parametrize(
    ("text", "card", "repaired"),
    [
        (r"\mathrm{softmax}(QK^T/d_k)V", "attention", "√d_k for d_k"),
        (r"\frac{1}{\sqrt{d_k}}\mathrm{softmax}(QK^T)V", "attention", "softmax"),
        (r"\mathrm{softmax}(QK/\sqrt{d_k})V", "attention", "transpose K"),
        (r"\mathrm{softmax}(Q^TK/\sqrt{d_k})V", "attention", "transpose K, not Q"),
        (r"\gamma\frac{x-\mu}{\sigma+\epsilon}+\beta", "layer-norm", ""),
        (r"\frac{x}{\sqrt{\frac1d\sum_{i=1}^d x_i^2}+\epsilon}\odot\gamma", "rms-norm", "ε"),
        (r"y - p", "cross-entropy-gradient", ""),
        (r"x\sigma(x) + 1", "silu", "drop 1"),
        (r"d_{model}^{-0.5}\max(s^{-0.5}, s w^{-1.5})", "noam", "min for max"),
    ],
)  # fmt: skip
def test_repairs_are_small_and_right(text, card, repaired):
    finding = decide(text, card)
    assert finding.verdict not in EQUALS
    if repaired:
        assert repaired in finding.repair
    if finding.repair_latex:
        assert decide(finding.repair_latex, card).verdict in EQUALS


def test_a_prefactor_cannot_be_hidden_by_small_weights():
    # Weights of size 0.02 and a tolerance of 1e-2 acquit this one; exact points do not.
    assert decide(PUBLISHED, "attention").verdict is Verdict.DIFFERENT_CERTIFIED


def test_epsilon_placement_is_visible():
    inside = r"\theta - \alpha\frac{\hat m_t}{\sqrt{\hat v_t + \epsilon}}"
    assert decide(inside, "adam").verdict is Verdict.DIFFERENT_CERTIFIED


def test_typing_error_is_marked_where_it_stands():
    text = r"\mathrm{softmax}(QK/\sqrt{d_k})V"
    finding = decide(text, "attention")
    assert text[slice(*finding.span)] == "QK"
    assert "transpose the right operand" in finding.explanation


@pytest.mark.parametrize(
    "text",
    ["1/0", "x_{99}", "V^{-1}", "softmax(1)", r"\sum_{i=1}^{1000000} 1", r"\log(0)", "Q^{V}",
     r"\sqrt{-1}", "K_{0}", r"\frac{\partial L}{\partial Q}", "f(Q)", "e^{e^{e^{e^{9}}}}"],
)  # fmt: skip
def test_nonsense_is_never_equal_and_never_an_exception(text):
    for card in ("attention", "relu", "softmax"):
        assert decide(text, card).verdict not in EQUALS


def naive_attention(Q, K, V):
    S = Q @ K.T / np.sqrt(Q.shape[-1])
    P = np.exp(S - S.max(axis=-1, keepdims=True))
    return P / P.sum(axis=-1, keepdims=True) @ V


def unscaled_attention(Q, K, V):
    P = np.exp(Q @ K.T)
    return P / P.sum(axis=-1, keepdims=True) @ V


def test_functions_are_decided_on_floats_and_on_balls():
    assert decide_function(naive_attention, "attention").verdict is Verdict.EQUAL_SUPPORTED
    wrong = decide_function(unscaled_attention, "attention")
    assert wrong.verdict is Verdict.DIFFERENT_CERTIFIED
    assert wrong.equals_instead == "attention with scale 1"


def test_a_function_with_arguments_in_its_own_order():
    def swapped(V, K, Q):
        return naive_attention(Q, K, V)

    assert decide_function(swapped, "attention").verdict is Verdict.EQUAL_SUPPORTED


def test_rotary_halves_are_equal_up_to_a_permutation():
    def halves(x, m):
        d = len(x)
        angle = m * 10000.0 ** (-np.arange(d // 2) * 2 / d)
        c, s = np.cos(angle), np.sin(angle)
        a, b = x[: d // 2], x[d // 2 :]
        return np.concatenate([a * c - b * s, b * c + a * s])

    finding = decide_function(halves, "rotary")
    assert finding.verdict is Verdict.EQUAL_UP_TO
    assert finding.detail == "permutation"


def test_a_function_of_the_wrong_shape_or_that_fails():
    assert decide_function(lambda Q, K, V: Q, "attention").verdict is Verdict.WRONG_SHAPE
    assert decide_function(lambda Q, K, V: Q @ K, "attention").verdict is Verdict.DIFFERENT


def test_matching_prefers_what_the_formula_equals():
    assert match(r"PE_{(pos,2i)} = \sin(pos/10000^{2i/d_{model}})")[0].id == "sinusoidal-even"
    assert match(r"PE_{(pos,2i+1)} = \cos(pos/10000^{2i/d_{model}})")[0].id == "sinusoidal-odd"
    assert match(r"O(n d^2)")[0].id == "complexity-recurrent"
    assert match(r"GELU(x) = 0.5x(1+\tanh(\sqrt{2/\pi}(x+0.044715x^3)))")[0].id == "gelu-tanh"


def test_a_backward_formula_of_another_forward_is_convicted():
    sigmoid_form = r"x\sigma(1.702x)"
    own = r"\sigma(1.702x) + 1.702x\sigma(1.702x)(1-\sigma(1.702x))"
    tanh_form = (
        r"\frac{1}{2}\left(1+\tanh\left(\sqrt{\frac{2}{\pi}}(x+0.044715x^3)\right)\right)"
        r" + \frac{x}{2}\left(1-\tanh\left(\sqrt{\frac{2}{\pi}}(x+0.044715x^3)\right)^2\right)"
        r"\sqrt{\frac{2}{\pi}}(1+3\cdot 0.044715x^2)"
    )
    assert decide_gradient(sigmoid_form, own, "gelu-sigmoid").verdict in EQUALS
    assert decide_gradient(find("gelu-tanh").latex, tanh_form, "gelu-tanh").verdict in EQUALS
    mixed = decide_gradient(sigmoid_form, tanh_form, "gelu-sigmoid")
    assert mixed.verdict is Verdict.DIFFERENT


def test_bits_lost_in_short_floats_are_reported():
    finding = decide(r"\mathrm{softmax}(QK^T/\sqrt{d_k})V", "attention")
    lost = finding.witnesses["lost_bits"]
    assert set(lost) == {"float16", "bfloat16", "float32"}
    assert all(0 <= bits < 6 for bits in lost.values())
    cancelling = decide(
        r"\gamma\frac{x-\mu}{\sqrt{\frac{1}{d}\sum_i x_i^2 - \mu^2 + \epsilon}} + \beta",
        "layer-norm",
    )
    assert "lost_bits" in cancelling.witnesses
