"""Figures and statements in prose and output."""

from __future__ import annotations

from fractions import Fraction

import pytest

from minitransformer.verify.declarations import read_declarations
from minitransformer.verify.extraction import read_document
from minitransformer.verify.figures import figure_findings, possible_sizes
from minitransformer.verify.verdict import Finding, Verdict


def check(text: str) -> list[Finding]:
    document = read_document(text, "a.md")
    said = read_declarations(
        [(p.text, p.line, p.section) for p in document.prose],
        [(f.text, f.line, f.section) for f in document.formulas if f.display],
    )
    return list(figure_findings(document, said))


@pytest.mark.parametrize("percent", ["86.25", "97.3", "50", "99.99", "33.33"])
def test_possible_sizes_are_those_that_round_to_the_percentage(percent: str) -> None:
    places = len(percent.partition(".")[2])
    sizes = set(possible_sizes(percent, 300))
    for n in range(1, 301):
        rounded = {round(Fraction(100 * k, n), places) for k in range(n + 1)}
        if Fraction(percent) in rounded:
            assert n in sizes
        elif n in sizes:  # only a tie may go either way
            ties = {abs(Fraction(100 * k, n) - Fraction(percent)) for k in range(n + 1)}
            assert Fraction(1, 2 * 10**places) in ties


CLAIMS = [
    ("The accuracy is 97.3% on a test set of 100 examples.", "FALSE"),
    ("The accuracy is 97% on a test set of 100 examples.", "UNVERIFIABLE"),
    ("We reach an accuracy of 120%.", "FALSE"),
    ("测试集包含1000个样本，准确率为 86.25%。", "FALSE"),
    ("在测试集上准确率达到 86.25%。", "UNVERIFIABLE"),
    ("The loss is 2.30, a perplexity of 9.97.", "TRUE"),
    ("The loss is 2.30, a perplexity of 4.92.", "FALSE"),
    ("BERT-base has 110M parameters.", "TRUE"),
    ("BERT-base has 340M parameters.", "FALSE"),
    ("GPT-3 has 175 billion parameters.", "TRUE"),
    ("GPT-2 has 1.5 billion parameters.", "TRUE"),
    ("GPT-3拥有1750亿个参数。", "TRUE"),
    ("Large language models have millions to billions of parameters.", "IMPRECISE"),
    ("大模型是指参数规模在数千万到数百亿的模型。", "IMPRECISE"),
    ("Self-attention has lower complexity than convolution.", "CONDITIONAL"),
    ("Self-attention is cheaper in cost than recurrent layers: lower complexity.", "CONDITIONAL"),
    ("与循环神经网络相比，自注意力的计算复杂度更低。", "CONDITIONAL"),
    ("Convolution has a higher computational cost than recurrent layers.", "TRUE"),
    ("Convolution has a lower computational cost than recurrent layers.", "FALSE"),
    ("Self-attention layers cost $O(n^2 d)$ operations.", "TRUE"),
    ("Self-attention layers have complexity $O(n^2)$.", "IMPRECISE"),
    ("A recurrent layer has complexity $O(n d)$.", "FALSE"),
    ("Pre-training: the first stage is fine-tuning on unlabelled text.", "FALSE"),
    ("The first stage is pre-training, the second stage is fine-tuning.", "TRUE"),
    ("预训练的第一阶段是微调。", "FALSE"),
    ("The first phase is fine-tuning the guitar.", None),
    ("We like attention.", None),
    ("It costs $5, and 30% of users agree.", None),
    ("The accuracy of the model is good; see section 4.2.", None),
    ("Self-attention and convolution are both used.", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "verdict"), CLAIMS)
def test_statements(text: str, verdict: str | None) -> None:
    assert [f.verdict.value for f in check(text)] == ([] if verdict is None else [verdict])


def test_complexity_conditions() -> None:
    [found] = check("The complexity of self-attention is lower than that of convolution.")
    assert found.detail == "n < k·d"
    [found] = check("The complexity of self-attention is lower than that of an RNN.")
    assert found.detail == "n < d"


def test_losses_of_a_run() -> None:
    text = "```python\nvocab_size = 50\nf(vocab_size)\n```\n\n```\n" + "\n".join(
        f"Epoch {i}, Loss: {loss}" for i, loss in enumerate(["3.5", "2.0", "2.5"], 1)
    )
    [found] = check(text + "\n```\n")
    assert found.verdict is Verdict.UNVERIFIABLE
    assert found.place.line == 7 and found.place.end_line == 9
    assert "e^3.5 = 33.1" in found.explanation
    assert "ln 50 = 3.9120" in found.explanation
    assert "rises at 2.5" in found.explanation


def test_a_negative_cross_entropy() -> None:
    [found] = check("We minimise the cross-entropy; after ten epochs the loss is -0.25.")
    assert found.verdict is Verdict.FALSE


def test_an_unrounded_accuracy_allows_multiples_only() -> None:
    text = 'Accuracy: 86.25% was printed by\n\n```python\nprint(f"Accuracy: {100 * a / b}%")\n```\n'
    [found] = check(text)
    assert "multiples of 80" in found.explanation


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (r"A = c \cdot \mathrm{softmax}(QK^T) V", "outside the softmax"),
        (r"A = \mathrm{softmax}(c \cdot QK^T) V", "inside the softmax."),
    ],
)
def test_scaling_against_vanishing_gradients(formula: str, words: str) -> None:
    words_after = "where $c$ is a constant scale to prevent vanishing gradients."
    text = f"We scale:\n\n$$ {formula} $$\n\n{words_after}\n"
    [found] = check(text)
    assert found.verdict is Verdict.CONDITIONAL
    assert found.explanation.endswith(words if words.endswith(".") else words + ".")
