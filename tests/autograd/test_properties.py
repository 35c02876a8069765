"""Hypothesis: shapes, strides, indices and equations against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import minitransformer as mt

from .parity import agree

LENGTHS = st.integers(1, 4)
SHAPES = st.lists(LENGTHS, min_size=0, max_size=4).map(tuple)
SEEDS = st.integers(0, 2**32 - 1)


def array(shape, seed, low=-3.0, high=3.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


@st.composite
def broadcastable(draw):
    shapes = draw(npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4))
    return shapes.input_shapes


@given(broadcastable(), SEEDS, st.sampled_from(["add", "sub", "mul", "div", "pow", "maximum"]))
def test_broadcasting(shapes, seed, op):
    a = array(shapes[0], seed, 0.5, 2.0)
    b = array(shapes[1], seed + 1, 0.5, 2.0)
    agree(lambda T, x, y: getattr(T, op)(x, y), a, b, name=op)


@given(SHAPES, SEEDS, st.data())
def test_reductions_over_any_dims(shape, seed, data):
    op = data.draw(st.sampled_from(["sum", "mean", "var", "amax", "logsumexp", "norm"]))
    dims = data.draw(st.sets(st.integers(0, max(len(shape) - 1, 0)))) if shape else set()
    dims = tuple(d - len(shape) if data.draw(st.booleans()) else d for d in dims)
    keep = data.draw(st.booleans())
    if op == "var":
        assume(np.prod([shape[d] for d in dims] if dims else shape) > 1)
    if op == "norm":  # of three dimensions PyTorch takes no "fro"
        assume(len(dims) < 3)
    if op == "logsumexp":
        assume(dims)
    agree(lambda T, x: getattr(x, op)(dim=dims, keepdim=keep), array(shape, seed), name=op)


@st.composite
def strided(draw):
    """A function that makes a tensor a view with other strides, for both libraries."""
    order = draw(st.permutations(range(3)))
    steps = draw(st.tuples(*[st.integers(1, 2)] * 3))
    spread = draw(st.booleans())

    def view(x):
        x = x.permute(*order)[tuple(slice(None, None, s) for s in steps)]
        return x.unsqueeze(1).expand(-1, 2, -1, -1) if spread else x

    return view


@given(strided(), SEEDS)
def test_strides_do_not_matter(view, seed):
    def program(T, x):
        v = view(x)
        return [
            v.exp(),
            v.sum(-1),
            v.softmax(-1),
            v.max(0)[0],
            v.reshape(-1),
            v @ v.transpose(-2, -1),
            T.cat([v, v], 0),
            v.contiguous().view(-1),
        ]

    agree(program, array((3, 4, 4), seed))


@given(st.data(), SEEDS)
def test_indexing(data, seed):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
    kinds = ["int", "slice", "list", "slice"]
    parts = []
    lists = data.draw(st.integers(1, 4))
    for n in shape[: data.draw(st.integers(1, len(shape)))]:
        kind = data.draw(st.sampled_from(kinds))
        if kind == "int":
            parts.append(data.draw(st.integers(-n, n - 1)))
        elif kind == "slice":
            start = data.draw(st.none() | st.integers(-n, n))
            stop = data.draw(st.none() | st.integers(-n, n))
            parts.append(slice(start, stop, data.draw(st.integers(1, 2))))
        else:
            parts.append(
                data.draw(st.lists(st.integers(-n, n - 1), min_size=lists, max_size=lists))
            )
        if data.draw(st.integers(0, 5)) == 0:
            parts.append(None)
    if data.draw(st.booleans()):
        parts.append(Ellipsis)
    agree(lambda T, x: x[_index(T, parts)], array(shape, seed), name=f"{shape} {parts}")


def _index(T, parts):
    return tuple(T.tensor(p) if isinstance(p, list) else p for p in parts)


@given(st.data(), SEEDS)
def test_masks(data, seed):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    covered = data.draw(st.integers(1, len(shape)))
    mask = data.draw(npst.arrays(bool, shape[:covered]))
    agree(lambda T, x, m: [x[m], x * 1], array(shape, seed), mask)

    def assigned(T, x, m):
        out = x * 1
        out[m] = 2.5
        return out

    agree(assigned, array(shape, seed), mask)


@given(st.data(), SEEDS)
def test_assignment(data, seed):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=3).map(tuple))
    row = data.draw(st.integers(-shape[0], shape[0] - 1))
    start = data.draw(st.integers(0, shape[1]))

    def program(T, x, y):
        out = x * 1
        out[row, start:] = y[start:] * 2 if len(shape) == 2 else y[start:] * 3
        return out

    agree(program, array(shape, seed), array(shape[1:], seed + 1))


EQUATIONS = [
    "ij,jk->ik",
    "ij,kj->ik",
    "bij,bjk->bik",
    "bhqd,bhkd->bhqk",
    "bhqk,bhkd->bqhd",
    "bqhd,bkhd->bhqk",
    "nqhd,nkhd->nhqk",
    "i,j->ij",
    "i,i->",
    "ij->ji",
    "ij->",
    "ij->j",
    "ii->i",
    "ii",
    "ij,ij->i",
    "ij,jk",
    "ba",
    "...ij,...jk->...ik",
    "...d,de->...e",
    "b...d,d->b...",
    "bld,hde->blhe",
    "ij,jk,kl->il",
    "i,ij,j->",
    "bij,bkj,bi->ik",
    "aab,bc->ac",
    " i j , j k -> k i ",
]


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_einsum(equation, seed):
    rng = np.random.default_rng(seed)
    lengths = {c: int(rng.integers(1, 5)) for c in "abcdehijklnq"}
    dots = tuple(rng.integers(1, 4, 2).tolist())
    operands = []
    for term in equation.replace(" ", "").partition("->")[0].split(","):
        before, dot, after = term.partition("...")
        shape = (
            [lengths[c] for c in before] + list(dots if dot else ()) + [lengths[c] for c in after]
        )
        operands.append(rng.standard_normal(shape))
    agree(lambda T, *xs: T.einsum(equation, *xs), *operands, name=equation)


def test_einsum_broadcasts_length_one():
    a, b = np.ones((1, 3, 4)), np.ones((5, 4, 2))
    agree(lambda T, x, y: T.einsum("bij,bjk->bik", x, y), a, b)
    agree(lambda T, x, y: T.einsum("...ij,...jk->...ik", [x, y]), a, b)


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [
        ("ij,jk->ik", [(2, 3), (4, 5)], "letter 'j' has length 3 and 4"),
        ("ij->ik", [(2, 3)], "result must name letters"),
        ("ij,jk->ik", [(2, 3)], "2 operands in the equation, 1 given"),
        ("ijk->i", [(2, 3)], "does not name the dimensions"),
        ("i?->i", [(2, 3)], "named by letters"),
        ("ij->ii", [(2, 3)], "each once"),
    ],
)
def test_einsum_errors(equation, shapes, message):
    with pytest.raises(RuntimeError, match=message):
        mt.einsum(equation, *[mt.ones(s) for s in shapes])


@given(st.integers(1, 5), st.integers(1, 6), st.booleans(), SEEDS)
def test_topk_of_ties_names_what_it_took(k, n, largest, seed):
    assume(k <= n)
    x = np.random.default_rng(seed).integers(0, 3, (4, n)).astype(np.float32)
    values, indices = mt.from_numpy(x).topk(k, largest=largest)
    np.testing.assert_array_equal(
        values.numpy(), torch.from_numpy(x).topk(k, largest=largest).values.numpy()
    )
    np.testing.assert_array_equal(np.take_along_axis(x, indices.numpy(), 1), values.numpy())
    assert all(len(set(row)) == k for row in indices.tolist())
