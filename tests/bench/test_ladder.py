"""Every rung computes what the first one does, and a wrong rung is not timed."""

from __future__ import annotations

import numpy as np
import pytest

from minitransformer.backend import get_num_threads
from minitransformer.bench.ladder import TOLERANCE, Ladder, climb, difference, ladders

LADDERS = ladders()


@pytest.mark.parametrize("kernel", LADDERS)
def test_every_rung_is_checked_and_timed(kernel: str) -> None:
    ladder = LADDERS[kernel]._replace(sizes=LADDERS[kernel].small)
    before = get_num_threads()
    results = list(climb(ladder, seconds=0.0))
    assert [r.rung for r in results] == [r.name for r in ladder.rungs if r.device == "cpu"]
    assert all(r.error <= TOLERANCE[r.dtype] and r.sample.median > 0 for r in results)
    assert get_num_threads() == before


@pytest.mark.parametrize("kernel", LADDERS)
def test_a_wrong_rung_is_not_timed(kernel: str) -> None:
    ladder = LADDERS[kernel]
    right = ladder.rungs[1]

    def wrong(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        out, *rest = right.run(*inputs)
        return (out * np.float32(1.001), *rest)

    spoiled: Ladder = ladder._replace(rungs=(ladder.rungs[0], right._replace(run=wrong)))
    spoiled = spoiled._replace(sizes=spoiled.small)
    with pytest.raises(ArithmeticError, match="not timed"):
        list(climb(spoiled, seconds=0.0))


def test_difference_sees_shape_and_nan() -> None:
    one = np.ones((2, 2))
    assert difference((one,), (one,)) == 0
    assert difference((one[0],), (one,)) == float("inf")
    assert difference((one * np.nan,), (one,)) == float("inf")


def test_loops_and_matrix_gradients_of_attention_agree() -> None:
    """The loops take their gradients from the matrix form, so that form has its own witness."""
    ladder = LADDERS["attention"]
    arrays = ladder.inputs(np.random.default_rng(1), L=5, S=4, E=3)
    Q, K, V, dO = (a.astype(float) for a in arrays)
    _, *gradients = ladder.rungs[0].run(Q, K, V, dO)
    for i, gradient in enumerate(gradients):
        direction = np.random.default_rng(i).standard_normal(gradient.shape)
        step = [1e-6 * direction if k == i else 0 for k in range(3)]
        ahead, behind = (
            (ladder.rungs[0].run(*(a + s * b for a, b in zip((Q, K, V), step)), dO)[0] * dO).sum()
            for s in (1, -1)
        )
        assert (ahead - behind) / 2e-6 == pytest.approx((gradient * direction).sum(), rel=1e-6)
