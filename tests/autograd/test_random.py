"""Random tensors: repeatable, of the right distribution, refused where they make no sense."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt

DRAWS = {
    "rand": lambda **o: mt.rand(3, 4, **o),
    "randn": lambda **o: mt.randn((3, 4), **o),
    "randint": lambda **o: mt.randint(0, 100, (3, 4), **o),
    "randperm": lambda **o: mt.randperm(20, **o),
    "bernoulli": lambda **o: mt.bernoulli(mt.full((20,), 0.5), **o),
    "multinomial": lambda **o: mt.multinomial(mt.ones(3, 20), 5, **o),
    "multinomial replaced": lambda **o: mt.multinomial(mt.ones(20), 5, replacement=True, **o),
    "normal": lambda **o: mt.normal(0.0, 1.0, (5,), **o),
    "uniform_": lambda **o: mt.zeros(5).uniform_(**o),
    "normal_": lambda **o: mt.zeros(5).normal_(**o),
    "exponential_": lambda **o: mt.zeros(5).exponential_(**o),
    "bernoulli_": lambda **o: mt.zeros(20).bernoulli_(**o),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_seed_repeats_and_moves_on(name):
    draw = DRAWS[name]
    mt.manual_seed(3)
    first, second = draw(), draw()
    mt.manual_seed(3)
    assert mt.equal(draw(), first)
    assert not mt.equal(first, second)


@pytest.mark.parametrize("name", DRAWS)
def test_a_generator_is_a_stream_of_its_own(name):
    draw = DRAWS[name]
    g = mt.Generator()
    state = mt.get_rng_state()
    first = draw(generator=g.manual_seed(5))
    assert mt.get_rng_state() == state
    assert mt.equal(draw(generator=mt.Generator("cpu").manual_seed(5)), first)
    g.set_state(g.manual_seed(5).get_state())
    assert g.initial_seed() == 5
    assert mt.equal(draw(generator=g), first)


def test_moments():
    mt.manual_seed(0)
    n = 200_000
    x = mt.randn(n)
    assert abs(x.mean().item()) < 5 / n**0.5
    assert abs(x.std().item() - 1) < 5 / n**0.5
    u = mt.rand(n)
    assert u.min().item() >= 0 and u.max().item() < 1
    assert abs(u.mean().item() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    e = mt.zeros(n).exponential_(2.0)
    assert abs(e.mean().item() - 0.5) < 5 * 0.5 / n**0.5
    shifted = mt.normal(3.0, 0.5, (n,))
    assert abs(shifted.mean().item() - 3) < 5 * 0.5 / n**0.5
    each = mt.normal(mt.tensor([0.0, 100.0]), mt.tensor([0.1, 0.2]))
    assert abs(each[1].item() - 100) < 2


def test_randint_covers_its_range():
    mt.manual_seed(0)
    assert mt.randint(2, 6, (500,)).unique().tolist() == [2, 3, 4, 5]
    assert mt.randint(3, (500,)).unique().tolist() == [0, 1, 2]
    assert mt.randint(high=3, size=(4,), low=2).tolist() == [2, 2, 2, 2]
    assert mt.randint(0, 2, size=(2, 2), dtype=mt.float32).dtype == mt.float32
    assert sorted(mt.randperm(50).tolist()) == list(range(50))


@pytest.mark.parametrize("replacement", [False, True])
def test_multinomial_draws_by_weight(replacement):
    mt.manual_seed(1)
    weights = mt.tensor([0.0, 1.0, 3.0, 0.0])
    drawn = mt.multinomial(weights.expand(40_000, 4), 1, replacement=replacement)
    shares = mt.bincount(drawn.flatten(), minlength=4).float() / 40_000
    np.testing.assert_allclose(shares.tolist(), [0, 0.25, 0.75, 0], atol=0.015)
    assert drawn.shape == (40_000, 1) and drawn.dtype == mt.int64


def test_multinomial_without_replacement_takes_each_once():
    drawn = mt.multinomial(mt.tensor([[1.0, 2.0, 0.0, 3.0]]).expand(50, 4), 3)
    assert all(sorted(row) == [0, 1, 3] for row in drawn.tolist())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mt.multinomial(mt.tensor([0.5, -0.1]), 1), "negative, infinite or NaN"),
        (lambda: mt.multinomial(mt.tensor([0.5, mt.nan]), 1), "negative, infinite or NaN"),
        (lambda: mt.multinomial(mt.tensor([1.0, 0.0]), 2), "1 positive weights"),
        (lambda: mt.multinomial(mt.zeros(3), 1), "0 positive weights"),
        (lambda: mt.multinomial(mt.ones(3).long(), 1), "floating-point"),
        (lambda: mt.multinomial(mt.ones(2, 2, 2), 1), "vector or matrix"),
        (lambda: mt.bernoulli(mt.tensor([1.5])), "between 0 and 1"),
        (lambda: mt.randint(3, 3, (2,)), "no integer"),
    ],
)
def test_errors(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()
