"""Memory that is used again: never while somebody looks at it, never by two threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.backend import aligned_empty, memory, scratch
from minitransformer.kernels.elementwise import select
from minitransformer.kernels.feed_forward import feed_forward_forward, gated_feed_forward_forward

LIKE = np.ones(1, np.float32)


def address(x: np.ndarray) -> int:
    return x.__array_interface__["data"][0]


@pytest.mark.parametrize("shape", [(0, 3), (1,), (3, 5), (3001, 7)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_begin_with_a_cache_line(shape: tuple[int, ...], dtype: type) -> None:
    for x in (aligned_empty(shape, np.ones(1, dtype)), scratch("test", np.ones(shape, dtype))):
        assert x.shape == shape and x.dtype == dtype and x.flags.c_contiguous
        assert address(x) % memory.LINE == 0 or x.nbytes < memory.SMALL


def test_memory_comes_back_when_the_last_view_is_gone() -> None:
    x = aligned_empty((1230, 70), LIKE)
    view, place = x.reshape(-1)[5:].view(np.int32), address(x)
    del x
    assert address(aligned_empty((1230, 70), LIKE)) != place
    view[...] = 1  # still ours
    del view
    assert address(aligned_empty((70, 1230), LIKE)) == place


def test_no_more_memory_is_kept_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "POOL", 10 * memory.SMALL)
    memory._free.clear()
    for size in range(memory.SMALL, memory.SMALL + 100):
        del_me = aligned_empty((size,), LIKE)
        del del_me
    assert 0 < memory._free_bytes() < 10 * memory.SMALL + 4 * (memory.SMALL + 100)


def test_threads_have_scratch_of_their_own() -> None:
    here, there = scratch("test", np.ones(9)), []
    thread = threading.Thread(target=lambda: there.append(scratch("test", np.ones(9))))
    thread.start()
    thread.join()
    assert not np.shares_memory(here, there[0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_not_selected_is_zero_whatever_it_was(dtype: type) -> None:
    x = np.array([[np.nan, np.inf, -2.0], [np.nan, np.inf, -2.0]], dtype)[:, ::-1]
    condition = np.array([[True], [False]])
    expected = np.where(condition, x, dtype(0))
    assert np.array_equal(select(condition, x), expected, equal_nan=True)
    assert not np.signbit(select(condition, x)[1]).any()


def test_nothing_is_kept_for_a_backward_pass_that_will_not_be() -> None:
    x, w = np.ones((3, 4), np.float32), np.ones((8, 4), np.float32)
    with_grad, saved = feed_forward_forward(x, w, None, w.T, None, activation="gelu")
    without, kept = feed_forward_forward(x, w, None, w.T, None, activation="gelu", needs_grad=False)
    assert np.array_equal(with_grad, without)
    size = [sum(a.nbytes for a in s if isinstance(a, np.ndarray)) for s in (saved, kept)]
    assert size[0] - size[1] == 3 * 8 * 4  # the slope
    assert np.array_equal(
        gated_feed_forward_forward(x, w, w, w.T)[0],
        gated_feed_forward_forward(x, w, w, w.T, needs_grad=False)[0],
    )
    t = mt.Tensor(x, requires_grad=True)
    with mt.no_grad():
        y = mt.nn.functional.feed_forward(t, mt.Tensor(w), None, mt.Tensor(w.T.copy()), None)
    assert y.node is None
