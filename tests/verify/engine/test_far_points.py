"""Functions that go wrong only at sizes or values above those of the usual points."""

from __future__ import annotations

import numpy as np
import pytest

from minitransformer.verify.decide import decide_function
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
