"""Changes in place: what they reach, what is refused, and what backward notices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import minitransformer as mt


def leaf(*numbers: float) -> mt.Tensor:
    return mt.tensor(numbers, requires_grad=True)


def test_views_see_the_change():
    x = mt.zeros(2, 3)
    row, flat = x[1], x.view(-1)
    row += 2
    flat[0] = 5
    x.t()[2] = 9
    assert x.tolist() == [[5, 0, 9], [2, 2, 9]]


def test_a_scalar_view_writes_through():
    x = mt.zeros(3)
    x[1].fill_(4)
    assert x.tolist() == [0, 4, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.add_(1),
        lambda w: w.zero_(),
        lambda w: w.fill_(3),
        lambda w: w.copy_(mt.ones(2)),
        lambda w: w.normal_(),
        lambda w: w.__setitem__(0, 1.0),
        lambda w: w.__iadd__(1),
        lambda w: w.mul_(2),
    ],
)
def test_a_leaf_that_requires_a_gradient_is_refused(change):
    w = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="leaf"):
        change(w)
    assert w.tolist() == [1.0, 2.0]
    with mt.no_grad():
        change(w)
    assert w.requires_grad and w.is_leaf


def test_backward_notices_a_saved_tensor_that_changed():
    w = leaf(1.0, 2.0)
    y = (w * w).sum()
    with mt.no_grad():
        w.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_backward_notices_a_change_through_a_view():
    w = leaf(1.0, 2.0)
    h = w * 1
    y = h.exp()
    z = y.sum()
    with mt.no_grad():
        y.view(-1)[0] = 0
    with pytest.raises(RuntimeError, match=r"exp.*changed in place"):
        z.backward()


def test_data_is_outside_the_watch():
    w = leaf(1.0, 2.0)
    w.data.mul_(3)
    assert w.tolist() == [3.0, 6.0]
    w.data = mt.tensor([5.0])
    assert w.shape == (1,) and w.requires_grad


def test_recorded_change_takes_over_the_tensor():
    w = leaf(1.0, 2.0)
    h = w * 2
    same = h
    h += w
    h *= 3
    assert same is h
    h.sum().backward()
    assert w.grad.tolist() == [9.0, 9.0]


def test_recorded_change_of_shared_memory_is_refused():
    w = leaf(1.0, 2.0)
    h = w * 2
    view = h.view(2, 1)
    with pytest.raises(RuntimeError, match="share this tensor's memory"):
        h += 1
    with pytest.raises(RuntimeError, match="share this tensor's memory"):
        view.mul_(2)
    del h
    view *= 2  # nobody else sees the memory now
    view.sum().backward()
    assert w.grad.tolist() == [4.0, 4.0]


def test_what_an_operation_saved_survives_or_is_refused():
    w = leaf(1.0, 2.0)
    h = w * 2
    y = h.square()
    with pytest.raises(RuntimeError, match="saved for its backward"):
        h.add_(1)
    y.sum().backward()
    assert w.grad.tolist() == [8.0, 16.0]


def test_overwriting_stops_the_gradient():
    def program(T):
        w = T.ones(3, requires_grad=True)
        h = w * 2
        h.fill_(1)
        h = h + w
        k = w * 3
        k[1:] = 0
        (h + k).sum().backward()
        return w.grad.tolist()

    assert program(mt) == program(torch)


def test_expanded_memory_is_refused():
    x = mt.zeros(3, 1).expand(3, 4)
    with pytest.raises(RuntimeError, match="clone"):
        x.add_(1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda: mt.zeros(2).add_(mt.zeros(3, 2)), RuntimeError, r"\(3, 2\)"),
        (lambda: mt.zeros(2, dtype=mt.int64).add_(0.5), RuntimeError, "float32.*int64"),
        (lambda: mt.zeros(2, 3).__setitem__(0, mt.zeros(4)), RuntimeError, r"\(4,\).*\(2, 3\)"),
        (lambda: mt.zeros(2).__setitem__(5, 1), IndexError, "5"),
        (lambda: mt.zeros(2, dtype=mt.float16).fill_(1e6), RuntimeError, "overflow"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        change()


PROGRAMS = {
    "arithmetic": lambda T, x: x.add_(1).sub_(2, alpha=0.5).mul_(x).div_(3).pow_(2).neg_(),
    "functions": lambda T, x: x.abs_().add_(1).log_().exp_().sqrt_().tanh_().sigmoid_().rsqrt_(),
    "bounds": lambda T, x: x.clamp_(-0.5, 0.5).relu_(),
    "triangles": lambda T, x: x.tril_().add_(x.clone().triu_()),
    "fused": lambda T, x: x.addcmul_(x, x, value=0.1).addcdiv_(x, x + 9, value=2).lerp_(x * 2, 0.3),
    "masks": lambda T, x: x.masked_fill_(x > 0, -1.0),
    "scatter": lambda T, x: x.scatter_(1, T.tensor([[0], [2], [1]]), 8.0),
    "scatter source": lambda T, x: x.scatter_(0, T.tensor([[0, 2, 1]]), T.ones(2, 3)),
    "scatter add": lambda T, x: x.scatter_add_(1, T.tensor([[0, 0], [2, 1]]), T.ones(2, 2)),
    "index fill": lambda T, x: x.index_fill_(1, T.tensor([0, 2]), 0.5),
    "index add": lambda T, x: x.index_add_(0, T.tensor([1, 1]), T.ones(2, 3), alpha=2),
    "index copy": lambda T, x: x.index_copy_(0, T.tensor([2, 0]), T.ones(2, 3)),
    "diagonal": lambda T, x: x.fill_diagonal_(0),
    "copy": lambda T, x: x.copy_(T.arange(3)),
    "set mask": lambda T, x: x.__setitem__(x < 0, 0.0) or x,
    "set rows": lambda T, x: x.__setitem__([0, 2], T.ones(3)) or x,
    "set column": lambda T, x: x.__setitem__((slice(None), 1), T.arange(3.0)) or x,
    "set apart": lambda T, x: x.view(1, 3, 3).__setitem__((0, slice(None), [0, 2]), 4.0) or x,
    "set step": lambda T, x: x.__setitem__((Ellipsis, slice(0, None, 2)), x[:, 1:2]) or x,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_as_in_pytorch(name):
    start = np.random.default_rng(3).standard_normal((3, 3)).astype(np.float32)
    ours = PROGRAMS[name](mt, mt.from_numpy(start.copy()))
    theirs = PROGRAMS[name](torch, torch.from_numpy(start.copy()))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6, atol=1e-7)


def test_one_hot_rows_of_label_smoothing():
    def program(T):
        target = T.tensor([2, 1, 0])
        rows = T.full((3, 5), 0.1 / 3)
        rows.scatter_(1, target.data.unsqueeze(1), 0.9)
        rows[:, 0] = 0
        mask = T.nonzero(target.data == 0)
        if mask.dim() > 0:
            rows.index_fill_(0, mask.squeeze(), 0.0)
        return rows.tolist()

    np.testing.assert_allclose(program(mt), program(torch))
