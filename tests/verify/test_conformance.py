"""The conformance kit: right attentions pass, each planted mistake is found and named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minitransformer.verify.conformance import NotConforming, assert_conforms


def T(x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, -1, -2)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def scores(Q: np.ndarray, K: np.ndarray) -> np.ndarray:
    return Q @ T(K) / math.sqrt(Q.shape[-1])


def right(Q: Any, K: Any, V: Any, mask: Any = None, is_causal: bool = False) -> Any:
    S = scores(Q, K)
    if is_causal:
        mask = np.tri(S.shape[-2], S.shape[-1], dtype=bool)
    if mask is None:
        return softmax(S) @ V
    S = np.where(mask, S, -np.inf)
    top = S.max(-1, keepdims=True)
    P = np.exp(S - np.where(np.isfinite(top), top, 0))
    total = P.sum(-1, keepdims=True)
    # 0 · NaN is NaN: rows of V that nobody may see must not enter the product.
    return P / np.where(total == 0, 1, total) @ np.where(np.isnan(V), 0, V)


def plain(Q: Any, K: Any, V: Any) -> Any:
    return softmax(scores(Q, K)) @ V


def only_two_dimensions(Q: Any, K: Any, V: Any) -> Any:
    return softmax(Q @ K.T / math.sqrt(Q.shape[-1])) @ V


def only_four_dimensions(Q: Any, K: Any, V: Any) -> Any:
    assert Q.ndim == 4
    return softmax(np.einsum("bhle,bhse->bhls", Q, K) / math.sqrt(Q.shape[3])) @ V


def single_precision(Q: Any, K: Any, V: Any) -> Any:
    return plain(*(x.astype(np.float32) for x in (Q, K, V)))


@pytest.mark.parametrize(
    ("function", "ranks"),
    [
        (right, (2, 3, 4)),
        (plain, (2, 3, 4)),
        (only_two_dimensions, (2,)),
        (only_four_dimensions, (4,)),
        (single_precision, (2, 3, 4)),
    ],
)
def test_right_attentions_conform(function: Callable[..., Any], ranks: tuple[int, ...]) -> None:
    result = assert_conforms(function, "attention")
    assert result.ranks == ranks
    assert not result.failed
    assert "value" in result.passed
    assert "✓ value" in repr(result)


def test_masks_are_checked_where_there_is_one() -> None:
    with_mask = assert_conforms(right)
    assert {"mask", "no look-ahead", "masked NaN", "fully masked row"} <= set(with_mask.passed)
    without = {c.name: c.ok for c in assert_conforms(plain).checks}
    assert without["mask"] is None and without["no look-ahead"] is None


def mistake(words: str, *failing: str) -> Callable[[Callable[..., Any]], Any]:
    return lambda f: pytest.param(f, words, failing, id=f.__name__)


@mistake("divided by E and not by √E (as in delzac/cntkx#10)", "value")
def no_root(Q: Any, K: Any, V: Any) -> Any:
    return softmax(Q @ T(K) / Q.shape[-1]) @ V


@mistake("not scaled at all", "value")
def no_scale(Q: Any, K: Any, V: Any) -> Any:
    return softmax(Q @ T(K)) @ V


@mistake("multiplied by √E", "value")
def scale_upside_down(Q: Any, K: Any, V: Any) -> Any:
    return softmax(Q @ T(K) * math.sqrt(Q.shape[-1])) @ V


@mistake("at E = 8", "value")
def constant_scale(Q: Any, K: Any, V: Any) -> Any:
    return softmax(Q @ T(K) / math.sqrt(3)) @ V


@mistake("the factor stands after the softmax", "value", "rows sum to one")
def scale_after(Q: Any, K: Any, V: Any) -> Any:
    return softmax(Q @ T(K)) / math.sqrt(Q.shape[-1]) @ V


@mistake("over the queries and not over the keys", "value", "rows sum to one")
def wrong_axis(Q: Any, K: Any, V: Any) -> Any:
    return softmax(scores(Q, K), axis=-2) @ V


@mistake("(3-d arrays)", "value", "rows sum to one")
def axis_one(Q: Any, K: Any, V: Any) -> Any:
    return softmax(scores(Q, K), axis=1) @ V


@mistake("there is no softmax", "value", "rows sum to one")
def no_softmax(Q: Any, K: Any, V: Any) -> Any:
    return scores(Q, K) @ V


@mistake("scores of a few thousand overflow", "large scores")
def naive_softmax(Q: Any, K: Any, V: Any) -> Any:
    e = np.exp(scores(Q, K))
    return e / e.sum(-1, keepdims=True) @ V


@mistake("the mask has the opposite sense", "mask", "no look-ahead")
def inverted_mask(Q: Any, K: Any, V: Any, mask: Any = None) -> Any:
    return right(Q, K, V, None if mask is None else ~mask)


@mistake("the mask has no effect", "mask", "no look-ahead")
def ignored_mask(Q: Any, K: Any, V: Any, mask: Any = None) -> Any:
    return plain(Q, K, V)


@mistake("masked after the softmax", "mask")
def late_mask(Q: Any, K: Any, V: Any, mask: Any = None) -> Any:
    P = softmax(scores(Q, K))
    return (P if mask is None else P * mask) @ V


@mistake("a NaN in a masked row of V reaches the output", "masked NaN")
def multiplies_masked_values(Q: Any, K: Any, V: Any, mask: Any = None) -> Any:
    S = scores(Q, K)
    return softmax(S if mask is None else np.where(mask, S, -1e30)) @ V


@mistake("a query that may see no key gives nan", "fully masked row")
def infinite_mask(Q: Any, K: Any, V: Any, mask: Any = None) -> Any:
    S = scores(Q, K)
    P = softmax(S if mask is None else np.where(mask, S, -np.inf))
    return P @ np.where(np.isnan(V), 0, V)


@mistake("changing keys after position 0", "no look-ahead")
def future_seen(Q: Any, K: Any, V: Any, is_causal: bool = False) -> Any:
    return right(Q, K, V, np.tri(*scores(Q, K).shape[-2:], 1, dtype=bool) if is_causal else None)


@mistake("reordering keys", "keys permute")
def position_matters(Q: Any, K: Any, V: Any) -> Any:
    return softmax(scores(Q, K) + 0.1 * np.arange(K.shape[-2])) @ V


@mistake("f(2V − 3W)", "linear in V")
def activated(Q: Any, K: Any, V: Any) -> Any:
    return np.maximum(plain(Q, K, V), 0)


@mistake("writes to its inputs")
def writes(Q: Any, K: Any, V: Any) -> Any:
    Q /= math.sqrt(Q.shape[-1])
    return softmax(Q @ T(K)) @ V


random = np.random.default_rng(0)


@mistake("two calls give different results", "repeats")
def drops_out(Q: Any, K: Any, V: Any) -> Any:
    return plain(Q, K, V) * (random.random() + 0.5)


@mistake("alone on the keys so far", "cached")
def normalises_over_queries(Q: Any, K: Any, V: Any) -> Any:
    return plain(Q - Q.mean(-2, keepdims=True), K, V)


MISTAKES = [value for value in list(globals().values()) if type(value).__name__ == "ParameterSet"]


@pytest.mark.parametrize(("function", "words", "failing"), MISTAKES)
def test_mistakes_are_found_and_named(
    function: Callable[..., Any], words: str, failing: tuple[str, ...]
) -> None:
    with pytest.raises(NotConforming) as caught:
        assert_conforms(function, "attention")
    text = str(caught.value)
    assert words in text
    for name in failing:
        assert f"✗ {name}" in text


def test_every_check_can_fail() -> None:
    from minitransformer.verify.conformance import CHECKS

    found = {name for parameters in MISTAKES for name in parameters.values[2]}
    # "zero gradient" needs a tape; test_torch_gradient makes it fail.
    assert found | {"zero gradient"} == set(CHECKS)


def test_mask_meanings() -> None:
    def blocks(Q: Any, K: Any, V: Any, mask: Any = None) -> Any:
        return right(Q, K, V, None if mask is None else ~mask)

    def adds(Q: Any, K: Any, V: Any, attn_mask: Any = None) -> Any:
        return right(Q, K, V, None if attn_mask is None else attn_mask == 0)

    assert "mask" in assert_conforms(blocks, mask_means="block").passed
    assert "mask" in assert_conforms(adds, mask_means="add").passed


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="no conformance kit for 'gelu'"):
        assert_conforms(plain, "gelu")
    with pytest.raises(ValueError, match="mask_means is 'keep'"):
        assert_conforms(plain, mask_means="keep")
    with pytest.raises(ValueError, match="skip names"):
        assert_conforms(plain, skip=("speed",))
    with pytest.raises(NotConforming, match="takes no Q"):
        assert_conforms(lambda Q: Q)
    with pytest.raises(NotConforming, match=r"result has shape \(5, 7\)"):
        assert_conforms(lambda Q, K, V: Q @ K.T)


def test_torch_gradient() -> None:
    torch = pytest.importorskip("torch")

    def leaks(q: Any, k: Any, v: Any, is_causal: bool = False) -> Any:
        s = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
        if is_causal:
            # Small enough to pass for zero in the output, not in the gradient.
            s = s + torch.triu(torch.full(s.shape[-2:], -60.0, dtype=s.dtype), 1)
        return torch.softmax(s, -1) @ v

    with pytest.raises(NotConforming, match=r"✗ zero gradient +output 0 has gradient"):
        assert_conforms(leaks)
    attention = torch.nn.functional.scaled_dot_product_attention
    result = assert_conforms(attention, skip=("masked NaN",))
    assert result.arrays == "torch" and "zero gradient" in result.passed
    with pytest.raises(NotConforming, match="✗ masked NaN"):
        assert_conforms(attention)
