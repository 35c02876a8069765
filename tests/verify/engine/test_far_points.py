"""Functions that go wrong only at sizes or values above those of the usual points."""

from __future__ import annotations

import numpy as np
import pytest

from minitransformer.verify.decide import decide, decide_function
from minitransformer.verify.verdict import Verdict


def attend(Q, K, V, low=-np.inf, high=np.inf):
    S = np.clip(Q @ K.T / np.sqrt(Q.shape[1]), low, high)
    P = np.exp(S - S.max(-1, keepdims=True))
    return P / P.sum(-1, keepdims=True) @ V


def wide_heads(Q, K, V):
    return attend(Q, K, V) * (2 if Q.shape[1] > 16 else 1)


def many_keys(Q, K, V):
    return attend(Q, K, V) * (2 if K.shape[0] > 9 else 1)


def clipped(Q, K, V):
    return attend(Q, K, V, -50, 50)


@pytest.mark.parametrize("function", [wide_heads, many_keys, clipped])
def test_thresholds_above_the_usual_points_are_met(function):
    found = decide_function(function, "attention")
    assert found.verdict is Verdict.DIFFERENT
    assert "small sizes and values" in found.explanation


def test_a_right_function_says_how_far_it_was_compared():
    found = decide_function(lambda Q, K, V: attend(Q, K, V), "attention")
    assert found.verdict is Verdict.EQUAL_SUPPORTED
    assert "d_k = 132" in found.detail


def test_rounding_in_the_tail_is_no_difference():
    found = decide_function(lambda x: 0.5 * (1 + np.tanh(x / 2)), "sigmoid")
    assert found.verdict is Verdict.EQUAL_SUPPORTED


def test_a_nan_at_larger_sizes_is_a_difference() -> None:
    def norm(x, g, b, eps):
        if len(x) > 10:
            return x * float("nan")
        return g * (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + eps) + b

    assert decide_function(norm, "layer-norm").verdict is Verdict.DIFFERENT


def test_an_overflow_is_said() -> None:
    def naive(Q, K, V):
        P = np.exp(Q @ K.T / np.sqrt(Q.shape[1]))
        return P / P.sum(axis=1, keepdims=True) @ V

    with np.errstate(all="ignore"):
        finding = decide_function(naive, "attention")
    assert finding.verdict is Verdict.EQUAL_SUPPORTED
    assert "UNSAFE-FLOAT" in finding.detail


@pytest.mark.parametrize(
    ("size", "scale"), [("n_k", "1/√n_k"), ("d_v", "1/√d_v"), ("n_q", "1/√n_q")]
)
def test_the_scale_is_named_by_its_own_dimension(size: str, scale: str) -> None:
    finding = decide(rf"\mathrm{{softmax}}(QK^T/\sqrt{{{size}}})V", "attention")
    assert finding.equals_instead == f"attention with scale {scale}"
