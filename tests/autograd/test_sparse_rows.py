"""The gradient of a table that is also an output projection: a few rows added to a dense one."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt
import minitransformer.nn.functional as F


def _loss(weight: mt.Tensor, ids: mt.Tensor, order: str) -> mt.Tensor:
    hidden = F.embedding(ids, weight)
    logits = F.linear(hidden if order == "through" else hidden.detach(), weight)
    return (logits * logits).sum() + (hidden.sum() if order == "both" else 0.0)


@pytest.mark.parametrize("order", ["through", "both"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_equals_pytorch(order: str, accumulate: int) -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal((7, 3))
    numbers = np.array([[1, 1, 5], [0, 5, 1]])
    ours = mt.tensor(values, requires_grad=True)
    theirs = torch.tensor(values, requires_grad=True)
    for _ in range(accumulate):
        _loss(ours, mt.tensor(numbers), order).backward()
        hidden = torch.nn.functional.embedding(torch.tensor(numbers), theirs)
        logits = torch.nn.functional.linear(
            hidden if order == "through" else hidden.detach(), theirs
        )
        ((logits * logits).sum() + (hidden.sum() if order == "both" else 0.0)).backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-12)


def test_padding_hooks_and_captured_gradients() -> None:
    weight = mt.ones(4, 2, requires_grad=True)
    ids = mt.tensor([0, 3, 3])
    F.embedding(ids, weight, padding_idx=0).sum().backward()
    assert weight.grad.tolist() == [[0, 0], [0, 0], [0, 0], [2, 2]]
    F.embedding(ids, weight).sum().backward()
    assert weight.grad.tolist() == [[1, 1], [0, 0], [0, 0], [4, 4]]
    (captured,) = mt.autograd.grad(F.embedding(ids, weight).sum(), [weight])
    assert captured.tolist() == [[1, 1], [0, 0], [0, 0], [2, 2]]
    seen = []
    weight.register_hook(lambda g: seen.append(g.tolist()))
    F.embedding(ids, weight).sum().backward()
    assert seen == [captured.tolist()]
    assert weight.grad.tolist() == [[2, 2], [0, 0], [0, 0], [6, 6]]


def test_a_table_that_was_computed() -> None:
    base = mt.ones(4, 2, requires_grad=True)
    F.embedding(mt.tensor([1, 1]), base * 3).sum().backward()
    assert base.grad.tolist() == [[0, 0], [6, 6], [0, 0], [0, 0]]
