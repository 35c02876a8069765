"""Factors of matrix products in every memory layout, and places for the products."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st


@st.composite
def layouts(draw: st.DrawFn, shape: tuple[int, ...], *, writable: bool = False) -> np.ndarray:
    """A float64 view of this shape: axes in any order, gaps, offsets, backwards, repeated."""
    order = draw(st.permutations(range(len(shape))))
    if draw(st.booleans()):  # the layouts that need no copy, more often than chance has them
        order = [*sorted(order[:-2]), *sorted(order[-2:], reverse=draw(st.booleans()))]
    steps = [draw(st.sampled_from([1] * 8 + [2, -1])) for _ in shape]
    before, behind = ([draw(st.integers(0, 2)) for _ in shape] for _ in range(2))
    repeated = [not writable and draw(st.integers(0, 11)) == 0 for _ in shape]
    lengths = [1 if r else n * abs(s) for n, s, r in zip(shape, steps, repeated)]
    whole = [lengths[i] + before[i] + behind[i] for i in order]
    memory = np.arange(int(np.prod(whole)), dtype=np.float64).reshape(whole) * 5 % 7 - 3
    inverse = np.argsort(order)
    view = memory.transpose(inverse)
    for axis, (n, s, r) in enumerate(zip(lengths, steps, repeated)):
        window = slice(before[axis], before[axis] + n)
        view = view[(slice(None),) * axis + (window,)]
        view = view[(slice(None),) * axis + (slice(None, None, 1 if r else s),)]
    result = np.broadcast_to(view, shape)
    return view if writable else result


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors and a place for their product, as float64 views."""
    sizes = st.sampled_from([1, 2, 2, 3, 3, 4, 5] * 3 + [0])
    batch = tuple(draw(st.lists(sizes, max_size=3)))
    M, N, K = (draw(sizes) for _ in range(3))

    def part() -> tuple[int, ...]:
        kept = batch[draw(st.integers(0, len(batch))) :]
        return tuple(1 if draw(st.integers(0, 4)) == 0 else n for n in kept)

    a, b = draw(layouts((*part(), M, K))), draw(layouts((*part(), K, N)))
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), M, N)
    return a, b, draw(layouts(shape, writable=True))


def cast(view: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the view of the same memory layout in another type."""
    root = view
    while isinstance(root.base, np.ndarray):
        root = root.base
    other = root.astype(dtype)
    offset = (view.ctypes.data - root.ctypes.data) // 8 * other.itemsize
    strides = [s // 8 * other.itemsize for s in view.strides]
    return np.ndarray(view.shape, dtype, other, offset if view.size else 0, strides)


def mask_of_outside(view: np.ndarray) -> np.ndarray:
    """Return which elements of a view's memory are not in it."""
    numbers = np.arange(view.base.size)
    start = (view.ctypes.data - view.base.ctypes.data) if view.size else 0
    strides = [s // view.itemsize * 8 for s in view.strides]
    inside = np.ndarray(view.shape, np.int64, numbers, start // view.itemsize * 8, strides)
    return np.setdiff1d(numbers, inside)
