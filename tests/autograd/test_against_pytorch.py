"""Every method and function of Tensor against PyTorch: values, dtypes and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import minitransformer as mt

from .parity import agree

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.2, 3.0, shape)


def integers(low: int, high: int, *shape: int) -> np.ndarray:
    return RNG.integers(low, high, shape)


A, B, P, V = normal(3, 4), normal(3, 4), positive(3, 4), normal(4)
C = normal(2, 3, 4)
N = integers(-5, 6, 3, 4)
M = RNG.random((3, 4)) < 0.5
TIES = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
ZEROS = np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 4.0], [1.0, 2.0, 3.0]])
CONSTANT = np.array([[5.0, 5.0, 5.0], [1.0, 2.0, 4.0]])
EDGE = np.array([0.0, -1.0, np.inf, -np.inf, np.nan, 2.0])

# name: (function of the library and tensors, arrays)
CASES = {
    "add": (lambda T, x, y: x + y, A, V),
    "add number": (lambda T, x: x + 2, A),
    "radd": (lambda T, x: 1.5 + x, A),
    "add alpha": (lambda T, x, y: T.add(x, y, alpha=0.3), A, B),
    "sub": (lambda T, x, y: x - y, A, V),
    "rsub": (lambda T, x: 1 - x, A),
    "sub alpha": (lambda T, x, y: x.sub(y, alpha=2), A, B),
    "mul": (lambda T, x, y: x * y, C, V),
    "mul itself": (lambda T, x: x * x, A),
    "mul number": (lambda T, x: 0.1 * x, A),
    "div": (lambda T, x, y: x / y, A, P),
    "div number": (lambda T, x: x / 3, A),
    "rdiv": (lambda T, x: 2 / x, P),
    "div ints": (lambda T, n, x: n / 2 + x, N, A),
    "div floor": (lambda T, x, y: T.div(x.detach(), y.detach(), rounding_mode="floor"), A, P),
    "div trunc": (lambda T, n: T.div(n, 2, rounding_mode="trunc"), N),
    "floor_divide": (lambda T, n: n // 2, N),
    "remainder": (lambda T, n: n % 3, N),
    "pow": (lambda T, x: x**2, A),
    "pow 3": (lambda T, x: x.pow(3), A),
    "pow half": (lambda T, x: x**0.5, P),
    "pow 0": (lambda T, x: x**0, A),
    "pow -1": (lambda T, x: x**-1, P),
    "pow tensor": (lambda T, x, y: x**y, P, B),
    "rpow": (lambda T, x: 2**x, A),
    "pow ints": (lambda T, n: n**2, N),
    "maximum": (lambda T, x, y: T.maximum(x, y), A, B),
    "maximum ties": (lambda T, x, y: T.maximum(x, y), TIES, TIES.copy()),
    "minimum": (lambda T, x, y: T.minimum(x, y), A, V),
    "neg": (lambda T, x: -x, A),
    "exp": (lambda T, x: x.exp(), A),
    "log": (lambda T, x: x.log(), P),
    "log1p": (lambda T, x: x.log1p(), P),
    "sqrt": (lambda T, x: x.sqrt(), P),
    "rsqrt": (lambda T, x: x.rsqrt(), P),
    "square": (lambda T, x: x.square(), A),
    "reciprocal": (lambda T, x: x.reciprocal(), P),
    "tanh": (lambda T, x: x.tanh(), A),
    "sigmoid": (lambda T, x: x.sigmoid(), A),
    "sigmoid far": (lambda T, x: (40 * x).sigmoid(), A),
    "relu": (lambda T, x: x.relu(), A),
    "erf": (lambda T, x: T.erf(x), A),
    "sin": (lambda T, x: x.sin(), A),
    "cos": (lambda T, x: x.cos(), A),
    "abs": (lambda T, x: x.abs(), ZEROS),
    "exp ints": (lambda T, n: T.exp(n), N),
    "clamp": (lambda T, x: x.clamp(-0.5, 0.5), A),
    "clamp min": (lambda T, x: T.clamp(x, min=0.1), A),
    "clamp max": (lambda T, x: x.clamp(max=0.1), A),
    "clamp tensor": (lambda T, x, y: x.clamp(min=y), A, B),
    "clamp ints": (lambda T, n: n.clamp(-2, 2), N),
    "floor": (lambda T, x: x.floor(), A),
    "round": (lambda T, x: (x * 4).round(), A),
    "sign": (lambda T, x: x.sign(), ZEROS),
    "softmax": (lambda T, x: x.softmax(-1), C),
    "softmax dim": (lambda T, x: T.softmax(x, dim=1), C),
    "log_softmax": (lambda T, x: x.log_softmax(dim=-1), C),
    "addcmul": (lambda T, x, y, z: T.addcmul(x, y, z, value=0.5), A, B, P),
    "addcdiv": (lambda T, x, y, z: T.addcdiv(x, y, z, value=0.5), A, B, P),
    "lerp": (lambda T, x, y: T.lerp(x, y, 0.3), A, B),
    "where": (lambda T, m, x, y: T.where(m, x, y), M, A, B),
    "where number": (lambda T, m, x: T.where(m, x, 0.0), M, A),
    "where method": (lambda T, m, x, y: x.where(m, y), M, A, V),
    "where numbers": (lambda T, m: T.where(m, 1.0, 0.0), M),
    "masked_fill": (lambda T, m, x: x.masked_fill(m, -1e9), M, A),
    "masked_fill inf": (lambda T, m, x: x.masked_fill(m, float("-inf")), M, A),
    "masked_fill broadcast": (lambda T, m, x: x.masked_fill(m, 0), M[0], C),
    "compare": (
        lambda T, x, y: [x < y, x <= y, x > y, x >= y, x == y, x != y, x == 1],
        A,
        B,
    ),
    "logic": (lambda T, m, x: [m & (x > 0), m | (x > 0), ~m, m ^ (x > 0)], M, A),
    "logical": (lambda T, n, m: [n.logical_and(m), n.logical_or(m), n.logical_not()], N, M),
    "tests": (lambda T, x: [x.isnan(), x.isinf(), x.isfinite()], EDGE),
    "equal": (lambda T, x, y: [T.equal(x, y), T.equal(x, x), T.allclose(x, x + 1e-9)], A, B),
    # reductions
    "sum": (lambda T, x: x.sum(), C),
    "sum dim": (lambda T, x: x.sum(1), C),
    "sum dims": (lambda T, x: x.sum((0, -1), keepdim=True), C),
    "sum ints": (lambda T, n: n.sum(0), N),
    "sum bools": (lambda T, m: m.sum(), M),
    "sum dtype": (lambda T, n: n.sum(dtype=T.float32), N),
    "mean": (lambda T, x: x.mean(), C),
    "mean dim": (lambda T, x: x.mean(-1, keepdim=True), C),
    "mean dims": (lambda T, x: T.mean(x, dim=(0, 2)), C),
    "var": (lambda T, x: x.var(), C),
    "var dim": (lambda T, x: x.var(-1, keepdim=True), C),
    "var biased": (lambda T, x: x.var(-1, unbiased=False), C),
    "var correction": (lambda T, x: x.var(dim=(0, 1), correction=0), C),
    "std": (lambda T, x: x.std(-1, keepdim=True), C),
    "std constant": (lambda T, x: x.std(-1), CONSTANT),
    "norm": (lambda T, x: x.norm(), C),
    "norm dim": (lambda T, x: x.norm(dim=-1, keepdim=True), C),
    "norm 1": (lambda T, x: x.norm(1), C),
    "norm 3": (lambda T, x: x.norm(p=3, dim=1), C),
    "norm inf": (lambda T, x: x.norm(float("inf"), dim=-1), C),
    "norm zero": (lambda T, x: (x * 0).norm(dim=-1), A),
    "prod": (lambda T, x: x.prod(), ZEROS),
    "prod dim": (lambda T, x: x.prod(1), ZEROS),
    "prod keepdim": (lambda T, x: x.prod(-1, keepdim=True), P),
    "cumsum": (lambda T, x: x.cumsum(-1), C),
    "cumsum 0": (lambda T, x: T.cumsum(x, dim=0), C),
    "cumsum ints": (lambda T, m: m.cumsum(1), M),
    "logsumexp": (lambda T, x: x.logsumexp(-1), C),
    "logsumexp dims": (lambda T, x: T.logsumexp(100 * x, (0, 2), keepdim=True), C),
    "amax": (lambda T, x: x.amax(-1), TIES),
    "amin": (lambda T, x: x.amin((0, 1)), TIES),
    "max": (lambda T, x: x.max(), A),
    "max ties": (lambda T, x: x.max(), TIES),
    "max dim": (lambda T, x: x.max(-1), C),
    "max keepdim": (lambda T, x: T.max(x, dim=1, keepdim=True), C),
    "max values": (lambda T, x: x.max(dim=0).values, C),
    "max other": (lambda T, x, y: T.max(x, y), A, B),
    "min dim": (lambda T, x: x.min(1), C),
    "min": (lambda T, x: x.min(), TIES),
    "argmax": (lambda T, x: [x.argmax(), x.argmax(-1), x.argmax(0, keepdim=True)], C),
    "argmin": (lambda T, x: [x.argmin(), T.argmin(x, dim=1)], C),
    "sort": (lambda T, x: x.sort(), C),
    "sort descending": (lambda T, x: T.sort(x, dim=1, descending=True), C),
    "argsort": (lambda T, x: [x.argsort(), x.argsort(0, descending=True)], C),
    "topk": (lambda T, x: x.topk(2), C),
    "topk smallest": (lambda T, x: T.topk(x, 2, dim=1, largest=False), C),
    "topk all": (lambda T, x: x.topk(4), C),
    "any all": (lambda T, m: [m.any(), m.all(), m.any(0), m.all(-1, keepdim=True)], M),
    "median": (lambda T, x: [x.median(), x.median(-1)], A),
    "unique": (lambda T, n: [n.unique(), n.unique(return_counts=True)[1]], N),
    "bincount": (lambda T, n: T.bincount(n.abs().flatten(), minlength=9), N),
    "count_nonzero": (lambda T, x: [x.count_nonzero(), T.count_nonzero(x, dim=0)], ZEROS),
    # shapes
    "view": (lambda T, x: x.view(2, -1), C),
    "view as": (lambda T, x: x.view((4, 6)).view_as(x), C),
    "reshape": (lambda T, x: x.transpose(0, 2).reshape(4, -1), C),
    "flatten": (lambda T, x: [x.flatten(), x.flatten(1), T.flatten(x, 0, 1)], C),
    "unflatten": (lambda T, x: x.unflatten(-1, (2, -1)), C),
    "permute": (lambda T, x: x.permute(2, 0, 1), C),
    "permute tuple": (lambda T, x: T.permute(x, (0, -1, 1)), C),
    "transpose": (lambda T, x: x.transpose(-2, -1), C),
    "t": (lambda T, x: [x.t(), x.T, x.mT], A),
    "movedim": (lambda T, x: [x.movedim(0, -1), T.movedim(x, (0, 1), (2, 0))], C),
    "squeeze": (lambda T, x: x[:, None, :, None].squeeze(), A),
    "squeeze dim": (lambda T, x: [x[:, None].squeeze(1), x[:, None].squeeze(0)], A),
    "unsqueeze": (lambda T, x: [x.unsqueeze(0), x.unsqueeze(-1), T.unsqueeze(x, 1)], A),
    "expand": (lambda T, x: x.unsqueeze(1).expand(3, 5, 4), A),
    "expand -1": (lambda T, x: x.expand(2, -1, -1), A),
    "expand_as": (lambda T, x, y: x.expand_as(y), V, A),
    "repeat": (lambda T, x: x.repeat(2, 1, 3), A),
    "repeat_interleave": (lambda T, x: [x.repeat_interleave(2), x.repeat_interleave(3, dim=1)], A),
    "tile": (lambda T, x: x.tile((2,)), A),
    "flip": (lambda T, x: [x.flip(0), T.flip(x, (0, 2))], C),
    "roll": (lambda T, x: [x.roll(1), x.roll(-1, 1), T.roll(x, (1, 2), (0, 2))], C),
    "tril": (lambda T, x: [x.tril(), T.tril(x, diagonal=-1), x.tril(1)], C),
    "triu": (lambda T, x: [x.triu(), T.triu(x, diagonal=1)], C),
    "diagonal": (lambda T, x: [x.diagonal(), T.diagonal(x, 1, -2, -1)], C),
    "diag": (lambda T, x, v: [x.diag(), T.diag(v), T.diag(v, 1)], A, V),
    "cat": (lambda T, x, y: T.cat([x, y], dim=-1), A, B),
    "cat 0": (lambda T, x, y: T.cat((x, y, x)), A, B),
    "cat types": (lambda T, x, n: T.cat([x, n]), A, N),
    "cat empty": (lambda T, x: T.cat([T.tensor([]), x.flatten()]), A),
    "stack": (lambda T, x, y: [T.stack([x, y]), T.stack((x, y), dim=-1)], A, B),
    "vstack": (lambda T, x, y: [T.vstack([x, y]), T.hstack([x, y])], A, B),
    "split": (lambda T, x: x.split(3, dim=-1), A),
    "split sizes": (lambda T, x: T.split(x, [1, 3], dim=1), A),
    "split unused": (lambda T, x: x.split(2, dim=1)[0] * 2, A),
    "chunk": (lambda T, x: [*x.chunk(2, dim=-1), *T.chunk(x, 2)], A),
    "chunk 3": (lambda T, x: x.chunk(3, dim=-1), A),
    "unbind": (lambda T, x: [*x.unbind(), *T.unbind(x, dim=-1)], A),
    "iterate": (lambda T, x: [row * i for i, row in enumerate(x)], A),
    "narrow": (lambda T, x: [x.narrow(1, 1, 2), x.select(0, -1)], A),
    "clone": (lambda T, x: [x.clone(), x.t().contiguous(), x.detach()], A),
    "to": (lambda T, x: [x.double().float(), x.to(T.float16).float()], A),
    "casts": (lambda T, x: [x.long(), x.int(), x.bool(), x.to(T.int64)], 3 * A),
    "gather": (lambda T, x, i: x.gather(1, i), A, integers(0, 4, 3, 6)),
    "gather 0": (lambda T, x, i: T.gather(x, 0, i), A, integers(0, 3, 2, 2)),
    "index_select": (lambda T, x, i: T.index_select(x, 1, i), A, integers(0, 4, 5)),
    "masked_select": (lambda T, x, m: x.masked_select(m), A, M),
    "nonzero": (lambda T, m: [m.nonzero(), *m.nonzero(as_tuple=True)], M),
    "scatter": (lambda T, x, y, i: x.scatter(1, i, y), A, B, np.argsort(normal(3, 4), 1)),
    "scatter number": (lambda T, x, i: x.scatter(1, i, 7.0), A, integers(0, 4, 3, 1)),
    "unfold": (lambda T, x: [x.unfold(-1, 2, 1), x.unfold(1, 2, 2)], C),
    "patches": (lambda T, x: x.unfold(0, 2, 2).unfold(1, 2, 2).reshape(4, 4), normal(4, 4)),
    "nan_to_num": (lambda T, x: T.nan_to_num(x, posinf=9.0, neginf=-9.0), EDGE),
    "names of NumPy": (
        lambda T, x: [
            x.sum(axis=1, keepdims=True),
            T.mean(x, axis=-1),
            x.std(axis=0),
            T.cat([x, x], axis=-1),
            x.softmax(axis=-1),
            x.max(axis=1)[0],
            x.argmax(axis=0),
        ],
        C,
    ),
    "meshgrid": (lambda T, x, y: T.meshgrid(x, y, indexing="ij"), V, normal(3)),
    # indexing
    "index int": (lambda T, x: [x[0], x[-1, 2], x[0, 1, 2]], C),
    "index slice": (lambda T, x: [x[:, 1:], x[..., :2], x[:, ::2, -1]], C),
    "index none": (lambda T, x: [x[None], x[:, None, 1:], x[..., None]], C),
    "index list": (lambda T, x: [x[[0, 1, 1]], x[:, [2, 0]]], C),
    "index tensor": (lambda T, x, i: x[i], A, integers(-3, 3, 2, 5)),
    "index two": (lambda T, x, i, j: x[i, j], C, integers(0, 2, 6), integers(0, 3, 6)),
    "index apart": (lambda T, x, i, j: x[i, :, j], C, integers(0, 2, 6), integers(0, 4, 6)),
    "index int apart": (lambda T, x, i: [x[0, :, i], x[i, 1]], C, integers(0, 2, 5)),
    "index mask": (lambda T, x, m: [x[m], x[x > 0]], A, M),
    "index mask rows": (lambda T, x, m: x[m], A, M[:, 0]),
    "index arange": (lambda T, x, i: x[T.arange(3), i], A, integers(0, 4, 3)),
    "index 0-d": (lambda T, x: [x[T.tensor(1)], x[: T.tensor(2)]], A),
    # products
    "matmul": (lambda T, x, y: x @ y, A, normal(4, 5)),
    "matmul stack": (lambda T, x, y: x @ y, C, normal(4, 5)),
    "matmul stacks": (lambda T, x, y: T.matmul(x, y), normal(2, 1, 3, 4), normal(5, 4, 2)),
    "matmul vector": (lambda T, x, y: [x @ y, y @ x.t(), y @ y], A, V),
    "matmul transposed": (lambda T, x, y: x @ y.transpose(-2, -1), C, normal(2, 5, 4)),
    "mm": (lambda T, x, y: [T.mm(x, y.t()), x.mm(y.t())], A, B),
    "bmm": (lambda T, x, y: T.bmm(x, y), C, normal(2, 4, 3)),
    "dot outer mv": (lambda T, x, y: [T.dot(y, y), T.outer(y, x[0]), T.mv(x, y)], A, V),
    "addmm": (lambda T, b, x, y: T.addmm(b, x, y, beta=0.5, alpha=2), V[:3], A, normal(4, 3)),
    "baddbmm": (
        lambda T, b, x, y: T.baddbmm(b, x, y, beta=0.5, alpha=0.25),
        normal(2, 3, 3),
        C,
        normal(2, 4, 3),
    ),
    "cosine": (lambda T, x, y: T.cosine_similarity(x, y, dim=-1), A, B),
    # compositions
    "layer norm by hand": (
        lambda T, x, g: g * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6),
        C,
        V,
    ),
    "attention by hand": (
        lambda T, q, k, v: (
            ((q @ k.transpose(-2, -1)) / 2.0)
            .masked_fill(T.tril(T.ones(3, 3)) == 0, float("-inf"))
            .softmax(-1)
            @ v
        ),
        C,
        normal(2, 3, 4),
        normal(2, 3, 5),
    ),
    "gelu by hand": (lambda T, x: 0.5 * x * (1.0 + T.erf(x / 2**0.5)), A),
    "cross entropy by hand": (
        lambda T, x, i: -x.log_softmax(-1)[T.arange(len(i)), i].mean(),
        A,
        integers(0, 4, 3),
    ),
    "in place": (lambda T, x, y: (x * 2).add_(y).mul_(0.5).relu_(), A, B),
    "augmented": (lambda T, x, y: augmented(x * 1, y), A, B),
    "assignment": (lambda T, x, y: assigned(T, x, y), A, B),
    "masked_fill_": (lambda T, x, m: (x * 1).masked_fill_(m, 0.0), A, M),
}


def augmented(x, y):
    x += y
    x -= 0.5
    x *= y
    x /= 3.0
    return x


def assigned(T, x, y):
    out = T.zeros(3, 4, dtype=x.dtype)
    out[0] = x[0]
    out[1:, 1] = y[1:, 0] * 2
    out[2, [0, 2]] = x[1, :2]
    return out


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, count):
    function, *arrays = CASES[name]
    count["arrays of Tensor methods against PyTorch"] += agree(function, *arrays, name=name)


@pytest.mark.parametrize(
    "name", ["add", "mul", "exp", "sum dim", "max dim", "softmax", "index tensor", "matmul"]
)
def test_float64(name):
    function, *arrays = CASES[name]
    agree(function, *arrays, dtype=np.float64, name=name)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda T, x: x.sum(0), (0, 3)),
        (lambda T, x: x.sum(), (0,)),
        (lambda T, x: x.mean(-1), (0, 3)),
        (lambda T, x: x @ T.ones(3, 2, dtype=x.dtype), (0, 3)),
        (lambda T, x: x.reshape(3, -1) if x.shape[0] else x.reshape(3, 0), (0, 3)),
        (lambda T, x: T.cat([x, x], 1), (0, 3)),
        (lambda T, x: x[:, [0, 0]], (0, 3)),
        (lambda T, x: x.softmax(-1), (0, 3)),
        (lambda T, x: x[x > 0], (2, 0)),
    ],
)
def test_nothing_at_all(function, shape):
    agree(function, np.zeros(shape))


@pytest.mark.parametrize(
    "op", ["log", "sqrt", "rsqrt", "reciprocal", "exp", "sigmoid", "tanh", "erf"]
)
def test_edges_of_the_number_line(op):
    # the pattern of inf and NaN, without a warning
    agree(lambda T, x: getattr(T, op)(x), EDGE, name=op)
    agree(lambda T, x: getattr(T, op)(x * 1e38), EDGE, name=op)


@pytest.mark.parametrize("op", ["sum", "mean", "amax", "amin"])
def test_reductions_let_nan_through(op):
    x = np.array([[1.0, np.nan, 2.0], [1.0, -np.inf, 2.0], [-np.inf, -np.inf, -np.inf]])
    agree(lambda T, x: getattr(T, op)(x, dim=-1), x, name=op)


def test_logsumexp_of_nothing_but_minus_infinity():
    # PyTorch's gradient is NaN here; zero is what a masked row needs
    x = mt.full((1, 3), -mt.inf, requires_grad=True)
    out = x.logsumexp(-1)
    out.sum().backward()
    assert out.tolist() == [-mt.inf]
    assert x.grad.tolist() == [[0.0, 0.0, 0.0]]


def test_float16_sums_in_float32():
    x = np.full(5000, 1.0)
    agree(lambda T, x: [x.sum(), x.mean()], x, dtype=np.float16)


def test_repeated_index_gradients_are_the_same_every_time():
    rng = np.random.default_rng(0)
    index, table = rng.integers(0, 5, 4000), rng.standard_normal((5, 8)).astype(np.float32)
    seen = set()
    for _ in range(3):
        x = mt.tensor(table, requires_grad=True)
        (x[mt.from_numpy(index)] * 0.1).sum().backward()
        seen.add(x.grad.numpy().tobytes())
    assert len(seen) == 1


def test_erf_in_float64_everywhere():
    x = np.concatenate([np.linspace(-7, 7, 20001), 10.0 ** np.linspace(-300, 300, 601)])
    ours = mt.erf(mt.from_numpy(x)).numpy()
    exact = torch.erf(torch.from_numpy(x)).numpy()
    assert np.max(np.abs(ours - exact) / np.spacing(np.abs(exact))) <= 5
