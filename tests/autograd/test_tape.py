"""The walk back: order, memory, sums of gradients, hooks, modes and clear errors."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.autograd import Tensor, record


def leaf(*numbers: float) -> mt.Tensor:
    return mt.tensor(numbers, requires_grad=True)


def test_a_chain_of_twenty_thousand():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + x
    y.backward()
    assert x.grad.item() == 20_001


def test_a_diamond_visits_each_node_once():
    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2**60 paths
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**60


def test_backward_twice_says_so():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"a second time.*retain_graph=True"):
        y.backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_retain_graph_adds_up():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4.0, 8.0]


def test_memory_goes_without_the_collector():
    gc.collect()
    gc.disable()
    try:
        x = mt.randn(64, 64, requires_grad=True)
        middle = (x @ x).exp()
        array = weakref.ref(middle)
        node = middle.node
        loss = middle.sum()
        assert node.saved is not None
        del middle
        loss.backward()
        assert node.saved is None  # freed as soon as it was used
        del loss, node
        assert array() is None
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_an_unused_graph_goes_without_the_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0)
        y = x
        for _ in range(10_000):
            y = y * 1.5
        y.retain_grad()
        del y
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_leaves_own_their_gradients():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (a + b).sum().backward()
    a.grad.zero_()
    assert b.grad.tolist() == [1.0, 1.0]


def test_the_gradient_that_was_given_is_not_changed():
    x = leaf(1.0, 2.0)
    direction = mt.tensor([1.0, 10.0])
    (x + x + x).backward(direction)
    x.grad.add_(1)
    assert direction.tolist() == [1.0, 10.0]
    x.grad = None
    y = x + 0
    y.backward(direction)
    y2 = x + 0
    y2.backward(direction)
    assert direction.tolist() == [1.0, 10.0]
    assert x.grad.tolist() == [2.0, 20.0]


@pytest.mark.parametrize("uses", [1, 2, 3, 5])
def test_sums_of_borrowed_gradients(uses):
    # add hands its own gradient on: neither the sum nor a third use may write into it
    x = leaf(1.0, 2.0)
    h = x * 1.0
    total = h + h.detach()
    for _ in range(uses - 1):
        total = total + h
    (total * mt.tensor([1.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [uses * 1.0, uses * 3.0]


def test_no_grad_is_a_context_and_a_decorator():
    x = leaf(1.0)

    @mt.no_grad()
    def called(t):
        return t * 2

    @mt.no_grad
    def bare(t):
        return t * 2

    with mt.no_grad():
        assert not mt.is_grad_enabled()
        assert not (x * 2).requires_grad
        with mt.enable_grad():
            assert (x * 2).requires_grad
        assert not mt.is_grad_enabled()
    assert not called(x).requires_grad
    assert not bare(x).requires_grad
    with mt.inference_mode():
        assert not (x * 2).requires_grad
    with mt.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_no_grad_ends_with_an_exception_and_stays_in_its_thread():
    with pytest.raises(KeyError), mt.no_grad():
        raise KeyError
    assert mt.is_grad_enabled()
    seen = []
    with mt.no_grad():
        thread = threading.Thread(target=lambda: seen.append(mt.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_hooks_see_and_replace_gradients():
    x = leaf(1.0, 2.0)
    y = x * 3
    seen = []
    handle = y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    y.sum().backward()
    assert seen == [[1.0, 1.0]]
    assert x.grad.tolist() == [31.0, 31.0]
    handle.remove()
    handle.remove()
    x.grad = None
    z = x * 3
    z.register_hook(lambda g: seen.append("z")).remove()
    z.sum().backward()
    assert seen == [[1.0, 1.0]]


def test_retain_grad_keeps_what_arrives_in_the_middle():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [12.0]
    assert x.grad.tolist() == [36.0]


def test_grad_changes_no_leaf():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    h = x * w
    gx, gh = mt.autograd.grad((h * h).sum(), [x, h])
    assert gh.tolist() == [6.0, 16.0]
    assert gx.tolist() == [18.0, 64.0]
    assert x.grad is None and w.grad is None


def test_grad_names_an_unused_input():
    x, unused = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="input 1 was not used"):
        mt.autograd.grad((x * x).sum(), [x, unused])
    assert mt.autograd.grad((x * x).sum(), [x, unused], allow_unused=True)[1] is None


def test_backward_into_chosen_inputs():
    x, w = leaf(1.0), leaf(5.0)
    (x * w).sum().backward(inputs=[x])
    assert x.grad.tolist() == [5.0] and w.grad is None


def test_an_output_that_nobody_uses_gets_no_gradient():
    x = leaf(3.0, 1.0, 2.0)
    values, indices = x.sort()
    assert not indices.requires_grad
    values[0].backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mt.ones(2).sum().backward(), "requires_grad=True"),
        (lambda: (leaf(1.0, 2.0) * 2).backward(), r"only for scalar outputs.*\(2,\)"),
        (lambda: (leaf(1.0, 2.0) * 2).backward(mt.ones(3)), r"gradient has shape \(3,\)"),
        (lambda: mt.ones(2, dtype=mt.int64).requires_grad_(), "only floating-point"),
        (lambda: mt.tensor([1, 2], requires_grad=True), "only floating-point"),
        (lambda: (leaf(1.0) * 2).requires_grad_(False), "use detach"),
        (lambda: mt.ones(2).register_hook(print), "does not require a gradient"),
    ],
)
def test_errors_of_backward(make, message):
    with pytest.raises(RuntimeError, match=message):
        make()


def test_second_derivatives_are_refused():
    x = leaf(1.0)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        (x * x).sum().backward(create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        mt.autograd.grad((x * x).sum(), x, create_graph=True)


class TestGradcheck:
    def test_accepts_a_right_gradient(self):
        x = mt.randn(3, 4, dtype=mt.float64, requires_grad=True)
        w = mt.randn(4, 2, dtype=mt.float64, requires_grad=True)
        assert mt.autograd.gradcheck(lambda a, b: ((a @ b).tanh(), a.sum(0)), (x, w))
        assert x.grad is None

    def test_refuses_a_wrong_one(self):
        def forward(x):
            return x * x, (x,)

        def backward(dout, saved):
            return (dout * saved[0],)  # the factor 2 is missing

        x = mt.randn(3, dtype=mt.float64, requires_grad=True)

        def wrong(t):
            return mt.autograd.record(forward, backward, t)

        with pytest.raises(RuntimeError, match="element 0 of output 0 by element 0 of input 0"):
            mt.autograd.gradcheck(wrong, x)
        assert not mt.autograd.gradcheck(wrong, x, raise_exception=False)

    def test_needs_float64(self):
        with pytest.raises(ValueError, match="must be float64"):
            mt.autograd.gradcheck(mt.exp, leaf(1.0))
        with pytest.raises(ValueError, match="no input requires"):
            mt.autograd.gradcheck(mt.exp, mt.ones(2))


def test_numpy_shares_memory_and_refuses_gradients():
    array = np.arange(3.0)
    x = mt.from_numpy(array)
    x[0] = 7
    assert array[0] == 7 and x.numpy() is array
    with pytest.raises(RuntimeError, match="detach"):
        leaf(1.0).numpy()
    with pytest.raises(RuntimeError, match="detach"):
        np.asarray(leaf(1.0))


@pytest.mark.parametrize("retain", [False, True])
def test_the_hook_of_a_leaf_sees_the_sum_once(retain: bool) -> None:
    gradients = []
    for torch in (mt, pytest.importorskip("torch")):
        seen: list[list[float]] = []
        a = torch.tensor([1.0, -2.0], requires_grad=True)
        a.register_hook(lambda g, seen=seen: seen.append(g.tolist()))
        a.register_hook(lambda g: g.clamp(max=1.0))
        loss = (a * 2 + a * 3).sum() + a.exp().sum()
        for _ in range(1 + retain):
            loss.backward(retain_graph=retain)
        gradients.append((seen, a.grad.tolist()))
    assert len(gradients[0][0]) == 1 + retain
    np.testing.assert_allclose(gradients[0][1], gradients[1][1], rtol=1e-6)
    np.testing.assert_allclose(gradients[0][0], gradients[1][0], rtol=1e-6)


def test_the_hook_of_a_leaf_that_is_the_root() -> None:
    x = leaf(2.0).reshape(()).detach().requires_grad_()
    x.register_hook(lambda gradient: gradient * 3)
    x.backward()
    assert x.grad.item() == 3.0


class TestSumsInPlace:
    """A gradient is added to where it lies only if nobody else sees that memory."""

    @staticmethod
    def gradient_of_two(first: Any, second: Any) -> np.ndarray:
        """Return x's gradient where one node sends it `first` and an earlier one `second`."""

        def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
            return x + 0, ()

        x = Tensor(np.zeros(3, np.float32), requires_grad=True)
        y = record(forward, lambda dout, saved: (second,), x)
        z = record(forward, lambda dout, saved: (first,), x)
        (y + z).sum().backward()
        return x.grad.array

    def test_views_of_one_array(self) -> None:
        both = np.arange(6, dtype=np.float32)
        before = both.copy()
        total = self.gradient_of_two(both[:3], both[1:4])
        assert total.tolist() == [1.0, 3.0, 5.0] and np.array_equal(both, before)

    def test_one_number_seen_three_times(self) -> None:
        def thrice() -> np.ndarray:
            return np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (3,), (0,))

        assert self.gradient_of_two(thrice(), thrice()).tolist() == [2.0, 2.0, 2.0]

    def test_a_view_that_cannot_be_written(self) -> None:
        fixed = np.broadcast_to(np.ones(3, np.float32), (3,))
        assert self.gradient_of_two(fixed, fixed).tolist() == [2.0, 2.0, 2.0]

    def test_an_array_that_the_kernel_keeps(self) -> None:
        kept = np.array([1.0, 2.0, 3.0], np.float32)
        x = Tensor(np.zeros(3, np.float32), requires_grad=True)
        for _ in range(2):
            for _ in range(2):
                record(lambda x: (x + 0, ()), lambda dout, saved: (kept,), x).sum().backward()
        assert kept.tolist() == [1.0, 2.0, 3.0] and x.grad.tolist() == [4.0, 8.0, 12.0]
        assert self.gradient_of_two(kept, kept).tolist() == [2.0, 4.0, 6.0]
        assert kept.tolist() == [1.0, 2.0, 3.0]

    def test_numbers_without_axes(self) -> None:
        x = Tensor(np.float32(3.0), requires_grad=True)
        y = x * 1
        doubled = [
            record(lambda x: (x * 2, ()), lambda dout, saved: (2 * dout,), y) for _ in range(3)
        ]
        (doubled[0] + doubled[1] + doubled[2]).backward()
        assert x.grad.item() == 6.0

    def test_a_read_only_array(self) -> None:
        def fixed() -> np.ndarray:
            array = np.ones(3, np.float32)
            array.flags.writeable = False
            return array

        assert self.gradient_of_two(fixed(), fixed()).tolist() == [2.0, 2.0, 2.0]

    def test_sums_are_made_in_the_first_array_of_ones_own(self) -> None:
        places = []

        def backward(dout: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray]:
            new = np.ones((1, 3), np.float32)
            places.append(new.ctypes.data)
            return (new.reshape(3),)

        x = Tensor(np.zeros(3, np.float32), requires_grad=True)
        y = x * 1
        z = [record(lambda x: (x + 0, ()), backward, y) for _ in range(2)]
        y.register_hook(lambda gradient: places.append(gradient.array.ctypes.data))
        (z[0] + z[1]).sum().backward()
        assert x.grad.tolist() == [2.0, 2.0, 2.0] and places[-1] == places[0]
