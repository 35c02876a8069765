"""Results do not depend on the number of threads, and the caller's BLAS setting comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from minitransformer.backend import (
    get_num_threads,
    run_blocks,
    set_num_threads,
    single_threaded_blas,
)
from minitransformer.bench.models import Model, our_model, our_step
from minitransformer.bench.workloads import KERNELS, Workload
from minitransformer.models.gpt import GPT

# Large enough for several blocks of every kernel.
SIZES = {
    "attention": (3, 160, 48, 3, 65),
    "cross_entropy": (2, 8, 8, 2, 50304),
    "feed_forward": (3, 200, 96, 3, 65),
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)


def _workloads() -> list[Workload]:
    return [
        w for name, make in KERNELS.items() for w in make(*SIZES.get(name, (8, 128, 192, 4, 65)))
    ]


@pytest.mark.parametrize("workload", _workloads(), ids=lambda w: f"{w.kernel} {w.size}")
def test_kernels_are_bit_equal_on_one_two_and_three_threads(workload: Workload) -> None:
    def results() -> list[np.ndarray]:
        out, saved = workload.forward(*workload.inputs, **workload.options)
        dout = np.random.default_rng(0).standard_normal(out.shape).astype(out.dtype)
        return [out, *(g for g in workload.backward(dout, saved) if g is not None)]

    set_num_threads(1)
    expected = results()
    for n in (2, 3):
        set_num_threads(n)
        for found, array in zip(results(), expected, strict=True):
            assert found.tobytes() == array.tobytes()


def test_training_is_bit_equal_on_one_and_two_threads() -> None:
    model = Model("test", 2, 96, 3, 40, 6, 65)
    start = {name: t.array.copy() for name, t in our_model(model).state_dict().items()}

    def trained(threads: int) -> dict[str, np.ndarray]:
        set_num_threads(threads)
        network: GPT = our_model(model)
        for name, value in network.state_dict().items():
            value.array[...] = start[name]
        step = our_step(model, network)
        for _ in range(3):
            step()
        return {name: t.array for name, t in network.state_dict().items()}

    one, two = trained(1), trained(2)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


def _numpy_blas() -> list[int]:
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    return [lib.get_num_threads() for lib in libraries if "numpy" in lib.filepath]


@pytest.mark.parametrize("n", [1, 2])
def test_the_callers_blas_setting_comes_back(n: int) -> None:
    if not _numpy_blas():
        pytest.skip("NumPy's BLAS is not one that threadpoolctl knows")
    inside: list[list[int]] = []
    with threadpool_limits(n, user_api="blas"):
        before = _numpy_blas()
        run_blocks(lambda _: inside.append(_numpy_blas()), range(4))
        assert _numpy_blas() == before
        with pytest.raises(ZeroDivisionError):
            run_blocks(lambda i: 1 // i, range(4))
        assert _numpy_blas() == before
        with single_threaded_blas(), single_threaded_blas():
            assert set(_numpy_blas()) == {1}
        assert _numpy_blas() == before
    assert all(set(seen) == {1} for seen in inside)


def test_every_item_runs_once_and_the_first_error_is_raised() -> None:
    set_num_threads(3)
    lock, seen = threading.Lock(), []

    def work(i: int) -> None:
        with lock:
            seen.append(i)

    for _ in range(50):
        seen.clear()
        run_blocks(work, range(37))
        assert sorted(seen) == list(range(37))

    def fail(i: int) -> None:
        if i == 5:
            raise KeyError("five")

    with pytest.raises(KeyError, match="five"):
        run_blocks(fail, range(37))
    run_blocks(work, range(3))  # and the threads live on


def test_blocks_inside_blocks_run_in_place() -> None:
    set_num_threads(2)
    outer: dict[int, set[str]] = {}

    def work(i: int) -> None:
        names: set[str] = set()
        run_blocks(lambda _: names.add(threading.current_thread().name), range(8))
        outer[i] = names

    run_blocks(work, range(4))
    assert all(len(names) == 1 for names in outer.values())
