"""The asserter is itself asserted: every planted mistake must be caught."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tolerance import allowance, assert_close


@pytest.fixture
def triple() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sum of 64 numbers: pairwise in float32, truth in float64, one by one in float32."""
    x = np.random.default_rng(7).standard_normal((5, 4, 64)).astype(np.float32)
    naive = np.zeros((5, 4), np.float32)
    for i in range(64):
        naive += x[..., i]
    return x.sum(-1), x.astype(np.float64).sum(-1), naive


def test_a_right_result_passes_and_is_measured(triple):
    ours, exact, naive = triple
    units = assert_close(ours, exact, naive)
    assert 0 < units <= 1
    error = np.abs(ours - exact).max()
    assert units == pytest.approx(error / allowance(exact, naive, ours.dtype))


def test_the_truth_itself_has_no_error(triple):
    _, exact, naive = triple
    assert assert_close(exact, exact, exact) == 0.0
    assert assert_close(exact, exact, naive, "backward") == 0.0


def test_backward_allows_one_and_a_half_times_forward_of_the_naive_error(triple):
    _, exact, naive = triple
    error = np.abs(naive - exact).max()
    forward = allowance(exact, naive, np.dtype(np.float32), "forward")
    backward = allowance(exact, naive, np.dtype(np.float32), "backward")
    assert backward - forward == pytest.approx(error)


def test_a_naive_form_that_is_right_by_luck_is_asked_again(triple):
    exact = triple[1]
    lucky = exact.astype(np.float32)
    error = 8 * np.finfo(np.float32).eps * np.abs(exact).max()
    worse = (exact + error).astype(np.float32)
    with pytest.raises(AssertionError):
        assert_close(worse, exact, lucky)
    assert assert_close(worse, exact, lucky, also=[(exact, worse)]) <= 1
    with pytest.raises(AssertionError):
        assert_close(worse, exact, lucky, also=[(exact, np.full_like(lucky, np.nan))])


def _one_element(ours):
    ours[2, 3] += 1e-4
    return ours


def _one_nan(ours):
    ours[0, 0] = np.nan
    return ours


def _one_infinity(ours):
    ours[0, 0] = np.inf
    return ours


PLANTED = {
    "wider dtype": lambda ours: ours.astype(np.float64),
    "narrower dtype": lambda ours: ours.astype(np.float16),
    "integers": lambda ours: ours.astype(np.int64),
    "transposed": lambda ours: ours.T,
    "extra axis": lambda ours: ours[None],
    "kept axis": lambda ours: ours[..., None],
    "one row, which would broadcast": lambda ours: ours[:1],
    "a scalar, which would broadcast": lambda ours: ours[0, 0],
    "empty": lambda ours: ours[:0],
    "NaN everywhere": lambda ours: np.full_like(ours, np.nan),
    "one NaN": _one_nan,
    "one infinity": _one_infinity,
    "zeros": np.zeros_like,
    "one wrong element": _one_element,
    "the sign": lambda ours: -ours,
    "one part in ten thousand": lambda ours: ours * np.float32(1.0001),
    "rows reversed": lambda ours: ours[::-1],
    "half precision on the way": lambda ours: ours.astype(np.float16).astype(np.float32),
}


@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("mistake", PLANTED)
def test_planted_mistake_is_caught(triple, mistake, kind):
    ours, exact, naive = triple
    assert_close(ours, exact, naive, kind)
    with pytest.raises(AssertionError):
        assert_close(PLANTED[mistake](ours.copy()), exact, naive, kind)


def test_a_reference_of_nan_does_not_pass(triple):
    ours, exact, naive = triple
    nothing = np.full_like(exact, np.nan)
    with pytest.raises(AssertionError, match="NaN"):
        assert_close(ours, nothing, naive)
    with pytest.raises(AssertionError, match="NaN"):
        assert_close(ours, nothing, np.full_like(naive, np.nan))


def test_a_naive_form_that_broke_down_excuses_nothing(triple):
    ours, exact, naive = triple
    with pytest.raises(AssertionError):
        assert_close(ours * np.float32(1.1), exact, np.full_like(naive, np.inf))
    with pytest.raises(AssertionError):
        assert_close(ours * np.float32(1.1), exact, np.full_like(naive, np.nan))


def test_a_reference_in_single_precision_is_refused(triple):
    ours, exact, naive = triple
    with pytest.raises(AssertionError, match="float64"):
        assert_close(ours, exact.astype(np.float32), naive)


def test_python_numbers_and_lists_are_refused(triple):
    ours, exact, naive = triple
    with pytest.raises(TypeError):
        assert_close(ours.tolist(), exact, naive)
    with pytest.raises(TypeError):
        assert_close(1.0, np.float64(1.0), np.float32(1.0))


def test_unknown_kind_is_refused(triple):
    with pytest.raises(ValueError, match="kind"):
        assert_close(*triple, kind="sideways")


def test_where_infinities_belong_they_are_required():
    exact = np.array([1.0, np.inf, -np.inf])
    right = exact.astype(np.float32)
    assert assert_close(right, exact, right) == 0.0
    for wrong in ([1, np.inf, np.inf], [1, 3e38, -np.inf], [np.inf, np.inf, -np.inf]):
        with pytest.raises(AssertionError, match="infinit"):
            assert_close(np.array(wrong, np.float32), exact, right)


def test_where_nan_belongs_it_is_required():
    exact = np.array([1.0, np.nan])
    right = exact.astype(np.float32)
    assert assert_close(right, exact, right) == 0.0
    with pytest.raises(AssertionError, match="NaN"):
        assert_close(np.ones(2, np.float32), exact, right)


def test_overflow_of_the_smaller_dtype_is_the_right_answer():
    exact = np.array([1.0, 1e39])
    right = np.array([1, np.inf], np.float32)
    assert assert_close(right, exact, right) == 0.0


def test_empty_arrays_must_have_the_same_shape_and_dtype():
    empty = np.zeros((0, 3))
    assert assert_close(empty, empty, empty) == 0.0
    with pytest.raises(AssertionError):
        assert_close(np.zeros((3, 0)), empty, empty)
    with pytest.raises(AssertionError):
        assert_close(empty, empty, empty.astype(np.float32).astype(np.float64)[:, :2])
    with pytest.raises(AssertionError):
        assert_close(empty.astype(int), empty, empty)


def test_integers_are_compared_exactly():
    ids = np.arange(4)
    assert assert_close(ids, ids, ids) == 0.0
    with pytest.raises(AssertionError):
        assert_close(ids, ids + 1, ids)
    with pytest.raises(AssertionError):
        assert_close(ids, ids.astype(np.float64), ids)
