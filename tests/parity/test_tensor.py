"""Tensor methods and functions of the top level: one line each, run under both libraries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.cases import LAYOUTS, apart, away_from_zero, normal, positive, seeds
from tests.parity.same import same

sizes = st.integers(1, 4)

# Each program takes the library and tensors x (a, b, c), y (a, b, c), m (b, d), v (c,).
PROGRAMS: dict[str, Callable[..., Any]] = {
    # arithmetic, also with numbers and the wrong way round
    "add": lambda t, x, y, m, v: (x + y, x + v, x + 1, 2.5 + x, t.add(x, y, alpha=3)),
    "sub": lambda t, x, y, m, v: (x - y, x - v, x - 1, 2.5 - x, t.sub(x, y, alpha=2)),
    "mul": lambda t, x, y, m, v: (x * y, x * v, x * 2, 0.5 * x, t.mul(x, 3)),
    "div": lambda t, x, y, m, v: (x / 4, t.div(x, 2.0)),
    "neg": lambda t, x, y, m, v: (-x, x.neg(), t.neg(x)),
    "square": lambda t, x, y, m, v: (x**2, x.pow(3), t.square(x), x**2.0),
    "in place": lambda t, x, y, m, v: x.clone().add_(y).mul_(2).sub_(1),
    "addcmul": lambda t, x, y, m, v: t.addcmul(x, y, v, value=0.5),
    "lerp": lambda t, x, y, m, v: (t.lerp(x, y, 0.25), x.lerp(y, v)),
    # shapes
    "view": lambda t, x, y, m, v: (x.view(-1), x.view(x.size(0), -1), x.reshape(-1, x.size(2))),
    "transpose": lambda t, x, y, m, v: (x.transpose(0, 2), x.transpose(-1, -2), m.t(), m.T, x.mT),
    "permute": lambda t, x, y, m, v: (x.permute(2, 0, 1), t.permute(x, (1, 2, 0)).contiguous()),
    "flatten": lambda t, x, y, m, v: (x.flatten(), x.flatten(1), t.flatten(x, 0, 1)),
    "unsqueeze": lambda t, x, y, m, v: (
        x.unsqueeze(0),
        x.unsqueeze(-1),
        x.unsqueeze(1).squeeze(1),
        x.squeeze(),
    ),
    "expand": lambda t, x, y, m, v: (
        v.expand(3, 2, -1),
        v[None].expand(4, v.size(0)),
        x.expand_as(x[None]),
    ),
    "repeat": lambda t, x, y, m, v: (v.repeat(3), x.repeat(2, 1, 3), m.repeat_interleave(2, dim=1)),
    "split": lambda t, x, y, m, v: (x.split(1, dim=1), t.split(x, 2, -1), x.split(x.size(0))),
    "chunk": lambda t, x, y, m, v: (x.chunk(2, dim=-1), t.chunk(x, 3, dim=0), x.chunk(1)),
    "unbind": lambda t, x, y, m, v: (x.unbind(1), t.unbind(x)),
    "cat": lambda t, x, y, m, v: (t.cat([x, y]), t.cat((x, y, x), dim=-1)),
    "stack": lambda t, x, y, m, v: (t.stack([x, y]), t.stack((x, y), dim=-1)),
    "narrow": lambda t, x, y, m, v: (x.narrow(1, 0, 1), x.select(2, -1)),
    "tril": lambda t, x, y, m, v: (x.tril(), t.triu(x, 1), m.tril(-1), t.triu(m, -1)),
    "flip": lambda t, x, y, m, v: (x.flip(0, 2), t.roll(x, 1, 1), x.roll(-2, -1)),
    "index": lambda t, x, y, m, v: (
        x[0],
        x[-1, :, 0],
        x[..., -1],
        x[:, None],
        x[:, ::2],
        x[..., :1],
    ),
    "index by tensor": lambda t, x, y, m, v: (
        x[t.tensor([0, 0, -1])],
        v[t.tensor([[0, 0], [-1, 0]])],
        x[:, t.tensor([0])],
    ),
    "index by mask": lambda t, x, y, m, v: (x[y > 0].sum(), x.masked_select(y > 0).sum()),
    "gather": lambda t, x, y, m, v: (
        x.gather(2, (y > 0).long() * (x.size(2) - 1)),
        x.index_select(1, t.tensor([0, 0])),
        t.take_along_dim(x, x.argsort(dim=1), dim=1),
    ),
    "scatter": lambda t, x, y, m, v: (
        t.zeros_like(x).scatter(2, x.argsort(dim=2), y.detach()),
        x.detach().scatter_add(0, t.zeros_like(x).long(), y.detach()),
    ),
    "diagonal": lambda t, x, y, m, v: (m.diagonal(), t.diag(v)),
    "meshgrid": lambda t, x, y, m, v: t.meshgrid(v, v, indexing="ij"),
    # reductions
    "sum": lambda t, x, y, m, v: (x.sum(), x.sum(1), x.sum((0, 2)), x.sum(-1, keepdim=True)),
    "mean": lambda t, x, y, m, v: (x.mean(), x.mean(-1), t.mean(x, (0, 1), keepdim=True)),
    "max": lambda t, x, y, m, v: (x.max(), *x.max(1), *t.max(x, -1, keepdim=True), x.amax((0, 1))),
    "min": lambda t, x, y, m, v: (x.min(), *x.min(1), *t.min(x, -1, keepdim=True), x.amin(2)),
    "argmax": lambda t, x, y, m, v: (x.argmax(), x.argmax(1), t.argmin(x, -1, keepdim=True)),
    "logsumexp": lambda t, x, y, m, v: (x.logsumexp(1), t.logsumexp(x, (0, 2), keepdim=True)),
    "cumsum": lambda t, x, y, m, v: (x.cumsum(1), t.cumsum(x, -1)),
    "topk": lambda t, x, y, m, v: (*x.topk(1), *t.topk(x, x.size(1), dim=1)),
    "sort": lambda t, x, y, m, v: (*x.sort(dim=1), *t.sort(x, descending=True)),
    "norm": lambda t, x, y, m, v: (m.norm(), x.norm(dim=-1), x.norm(p=1, dim=1, keepdim=True)),
    # products
    "matmul": lambda t, x, y, m, v: (
        x.transpose(1, 2) @ m,
        x @ v,
        v @ v,
        t.matmul(x, y.transpose(-1, -2)),
    ),
    "bmm": lambda t, x, y, m, v: (t.bmm(x, y.transpose(1, 2)), t.mm(m.t(), m)),
    "einsum": lambda t, x, y, m, v: (
        t.einsum("abc,bd->acd", x, m),
        t.einsum("abc,abc->a", x, y),
        t.einsum("abc->cb", x),
        t.einsum("...c,c->...", x, v),
        t.einsum("abc,adc->abd", x, y),
    ),
    "outer": lambda t, x, y, m, v: (t.outer(v, v), t.dot(v, v), t.addmm(m.t() @ m, m.t(), m)),
    # selection and comparison
    "where": lambda t, x, y, m, v: (
        t.where(x > y, x, y),
        t.where(x > 0, x, 0.0),
        x.where(y > 0, v),
    ),
    "masked_fill": lambda t, x, y, m, v: (
        x.masked_fill(y > 0, -1e9),
        x.masked_fill(y[:, :1] > 0, float("-inf")),
    ),
    "clamp": lambda t, x, y, m, v: (x.clamp(-0.4, 0.4), x.clamp(min=0.1), t.clamp(x, max=0.2)),
    "compare": lambda t, x, y, m, v: (x > y, x <= 0, x == x, x != y, (x > 0) & (y > 0), ~(x > 0)),
    "any": lambda t, x, y, m, v: ((x > 0).any(), (x > 0).all(1), t.isfinite(x).all()),
    "maximum": lambda t, x, y, m, v: (t.maximum(x, y), t.minimum(x, v)),
    # types and creation
    "cast": lambda t, x, y, m, v: (
        x.double() * 2,
        (x > 0).float(),
        x.long(),
        (x > 0).to(t.int64),
        x.to(y),
    ),
    "like": lambda t, x, y, m, v: (
        t.zeros_like(x),
        t.ones_like(x),
        t.full_like(x, 2.5),
        x.new_zeros(2, 3),
        t.arange(5),
        t.arange(1, 9, 2),
        t.linspace(0, 1, 5),
        t.eye(3),
        t.full((2,), 7),
        t.zeros(2, 3),
        t.ones((4,)),
        t.tensor([[1, 2], [3, 4]]),
        t.tril(t.ones(3, 3)),
    ),
    "detach": lambda t, x, y, m, v: (x * x.detach(), x.data.sum(), x.clone()),
    "loop": lambda t, x, y, m, v: [row.sum() * i for i, row in enumerate(x)],
    "one tensor many times": lambda t, x, y, m, v: x * x + x.transpose(1, 2).sum(1)[..., None] * x,
    # a whole head of attention as published listings write it
    "attention by hand": lambda t, x, y, m, v: (
        (x @ y.transpose(-2, -1) / x.size(-1) ** 0.5)
        .masked_fill(t.tril(t.ones(x.size(1), x.size(1))) == 0, float("-inf"))
        .softmax(dim=-1)
        @ y
    ),
    "softmax": lambda t, x, y, m, v: (x.softmax(-1), t.softmax(x, dim=1), x.log_softmax(0)),
}

# Functions of values that have to be positive, or away from a kink.
SMOOTH: dict[str, Callable[..., Any]] = {
    "exp": lambda t, x, p: (x.exp(), t.exp(x)),
    "log": lambda t, x, p: (p.log(), t.log(p), t.log1p(p)),
    "sqrt": lambda t, x, p: (p.sqrt(), t.rsqrt(p), p**0.5, p**-1.5, 1 / p, t.reciprocal(p)),
    "pow": lambda t, x, p: (p**x, 2**x, t.pow(p, 3)),
    "div": lambda t, x, p: (x / p, 1.5 / p, p / x, x.div(p)),
    "trigonometry": lambda t, x, p: (x.sin(), t.cos(x)),
    "sigmoid": lambda t, x, p: (x.sigmoid(), t.tanh(x), t.erf(x)),
    "abs": lambda t, x, p: (x.abs(), t.relu(x), x.sign(), t.abs(x)),
    "var": lambda t, x, p: (x.var(), x.var(0, correction=0), x.std(-1, unbiased=False)),
    "prod": lambda t, x, p: (x.prod(1), x.prod()),
    "round": lambda t, x, p: (x.floor(), x.ceil(), x.round(), x.detach() // p.detach()),
    "norms": lambda t, x, p: (t.cosine_similarity(x, p, dim=-1),),
}


@pytest.mark.parametrize("name", PROGRAMS)
@settings(max_examples=8)
@given(a=sizes, b=sizes, c=sizes, d=sizes, seed=seeds, layouts=st.data())
def test_tensor(name: str, a: int, b: int, c: int, d: int, seed: int, layouts: Any, count: Counter):
    drawn = layouts.draw(st.tuples(*[st.sampled_from(LAYOUTS[:4])] * 4))
    arrays = (apart(seed, a, b, c), apart(seed + 1, a, b, c), normal(seed, b, d), normal(seed, c))
    arrays = (arrays[0], arrays[1] + 0.03125, *arrays[2:])  # no two equal, for max and sort
    largest = float(np.abs(arrays[0]).max() * np.abs(arrays[1]).max())
    same(PROGRAMS[name], *arrays, layouts=drawn, seed=seed, size=largest)
    count["parity: tensor programs against PyTorch"] += 1


@pytest.mark.parametrize("name", SMOOTH)
@settings(max_examples=8)
@given(a=sizes, b=st.integers(2, 4), seed=seeds, layouts=st.data())
def test_smooth_function(name: str, a: int, b: int, seed: int, layouts: Any, count: Counter):
    drawn = layouts.draw(st.tuples(*[st.sampled_from(LAYOUTS[:4])] * 2))
    same(SMOOTH[name], away_from_zero(seed, a + 1, b), positive(seed + 1, a + 1, b), layouts=drawn)
    count["parity: tensor programs against PyTorch"] += 1


def test_a_split_into_one_piece_has_a_gradient() -> None:
    """The tape hands a lone output's gradient over bare; a split gave a tuple of one."""
    same(lambda t, x: x.split(x.size(0)), normal(3, 4, 2))
    same(lambda t, x: (x.chunk(1, dim=1)[0] * 2).sum(), normal(3, 4, 2))
