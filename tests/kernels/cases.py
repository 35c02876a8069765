"""One case per kernel: inputs to draw, the plain reference, and PyTorch's own operation.

To add a kernel, add one `Case` here; every test over kernels then runs it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import assume
from hypothesis import strategies as st

from tests.kernels import reference as ref

Array = np.ndarray

LAYOUTS = ("contiguous", "fortran", "reversed", "spread", "repeated")


@dataclass(frozen=True)
class Problem:
    """One set of arguments.

    Floating arrays are float64 with values that float32 holds exactly, so that every dtype
    is asked about the same point.
    """

    arrays: tuple[Array | None, ...]
    options: dict[str, Any] = field(default_factory=dict)
    layouts: tuple[str, ...] = ()
    seed: int = 0
    extras: dict[str, Any] = field(default_factory=dict)  # options of the kernel alone
    inert: tuple[int, ...] = ()  # positions without a gradient in this problem

    def __repr__(self) -> str:
        shapes = [None if a is None else (a.shape, a.dtype.name) for a in self.arrays]
        return f"Problem({shapes}, {self.options}, {self.extras}, {self.layouts}, {self.seed})"


@dataclass(frozen=True)
class Case:
    """A kernel, where to find it, and what it is compared with.

    Attributes
    ----------
    name, module
        ``kernels/<module>.py`` holds ``<name>_forward`` and ``<name>_backward``.
    problems
        What to draw.
    reference
        The definition, from `tests.kernels.reference`.
    torch
        PyTorch's operation on tensors, or None where it has none.
    public
        Where PyTorch users find it: "F.name", "Tensor.name", or "" for none.
    published
        Whether it is a formula of a paper, so that its docstring needs References.
    naive
        The naive implementation, where it is not the reference run in the dtype under test.
    inert
        Positions of floating inputs that have no gradient.
    terms
        From the arrays, the options and what arrives, the size of the terms that may cancel in
        the output and in each gradient: the rule's scale is at least that.
    differences
        Whether finite differences of the reference give the gradient of a problem.
    """

    name: str
    module: str
    problems: st.SearchStrategy[Problem]
    reference: Callable[..., Any]
    torch: Callable[..., Any] | None
    public: str
    published: bool = False
    naive: Callable[..., Any] | None = None
    inert: tuple[int, ...] = ()
    terms: Callable[..., tuple[float, tuple[float, ...]]] | None = None
    differences: Callable[[Problem], bool] = lambda problem: True

    def __repr__(self) -> str:
        return self.name


# Drawing -----------------------------------------------------------------------------------

seeds = st.integers(0, 2**32 - 1)


def exactly(values: Any) -> Array:
    """Round to float32, keep as float64."""
    return np.asarray(values, np.float32).astype(np.float64)


def normal(seed: int, *shape: int, scale: float = 1.0) -> Array:
    return exactly(scale * np.random.default_rng(seed).standard_normal(shape))


def largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def apart(seed: int, *shape: int) -> Array:
    """Distinct values 0.125 from one another, never within 0.06 of zero."""
    size = math.prod(shape)
    order = np.random.default_rng(seed).permutation(size)
    return exactly((order - size // 2) * 0.125 + 0.0625).reshape(shape)


def unequal(seed: int, *shape: int) -> Array:
    """As `apart`, and no two of one size and opposite sign."""
    return exactly(apart(seed, *shape) + (0.015625 if seed % 2 else -0.015625))


def away_from_zero(seed: int, *shape: int) -> Array:
    x = normal(seed, *shape)
    return exactly(np.where(x < 0, x - 0.125, x + 0.125))


def positive(seed: int, *shape: int) -> Array:
    return exactly(np.abs(normal(seed, *shape)) + 0.25)


def layouts_of(number: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.tuples(*[st.sampled_from(LAYOUTS)] * (number + 1))


def repeat_where_broadcast(problem: Problem) -> Problem:
    """Make the values of inputs laid out as a repeated row equal along their first axis."""
    arrays = list(problem.arrays)
    for i, array in enumerate(arrays):
        if array is None or array.ndim == 0 or array.shape[0] < 2 or array.dtype.kind != "f":
            continue
        if i < len(problem.layouts) and problem.layouts[i] == "repeated":
            arrays[i] = np.broadcast_to(array[:1], array.shape)
    return replace(problem, arrays=tuple(arrays))


def lay_out(values: Array, layout: str, dtype: Any) -> Array:
    """`values` as a read-only array of `dtype` in the memory layout asked for."""
    array = np.array(values, dtype, order="C")
    if array.ndim:
        if layout == "fortran":
            array = np.array(array, order="F")
        elif layout == "reversed":
            array = np.flip(np.flip(array).copy())
        elif layout == "spread":
            buffer = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
            buffer[..., ::2] = array
            array = buffer[..., ::2]
        elif layout == "repeated" and array.shape[0] and (array == array[:1]).all():
            array = np.broadcast_to(array[:1].copy(), array.shape)
    array.flags.writeable = False
    return array


small_shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)
shapes_1d = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


@st.composite
def broadcastable(draw: Any, number: int = 2) -> list[tuple[int, ...]]:
    """Shapes that broadcast together in every way NumPy knows."""
    full = draw(small_shapes)
    shapes = []
    for _ in range(number):
        kept = full[draw(st.integers(0, len(full))) :]
        shapes.append(tuple(1 if draw(st.integers(0, 3)) == 0 else n for n in kept))
    return shapes


@st.composite
def unary(draw: Any, values: Callable[..., Array] = normal, **options: Any) -> Problem:
    shape = draw(small_shapes)
    return repeat_where_broadcast(
        Problem((values(draw(seeds), *shape),), options, draw(layouts_of(1)), draw(seeds))
    )


@st.composite
def binary(
    draw: Any, a: Callable[..., Array] = normal, b: Callable[..., Array] = normal
) -> Problem:
    one, two = draw(broadcastable())
    arrays = (a(draw(seeds), *one), b(draw(seeds), *two))
    return repeat_where_broadcast(Problem(arrays, {}, draw(layouts_of(2)), draw(seeds)))


def quarters(seed: int, *shape: int) -> Array:
    return exactly(np.round(4 * normal(seed, *shape)) / 4)


def quarters_and_an_eighth(seed: int, *shape: int) -> Array:
    return exactly(quarters(seed, *shape) + 0.125)


def mixed_signs(seed: int, *shape: int) -> Array:
    """Ordinary values with a few far out, where GELU and sigmoid saturate."""
    x = away_from_zero(seed, *shape)
    far = np.random.default_rng(seed + 1).random(shape) < 0.15
    return exactly(np.where(far, 6 * x, x))


# Elementwise -------------------------------------------------------------------------------


@st.composite
def clamp_problems(draw: Any) -> Problem:
    limits = draw(
        st.sampled_from(
            [{"min": -0.5, "max": 0.5}, {"min": None, "max": 0.5}, {"min": -0.5, "max": None}]
        )
    )
    shape = draw(small_shapes)
    values = quarters_and_an_eighth(draw(seeds), *shape)
    return repeat_where_broadcast(Problem((values,), limits, draw(layouts_of(1)), draw(seeds)))


@st.composite
def where_problems(draw: Any) -> Problem:
    c, a, b = draw(broadcastable(3))
    rng = np.random.default_rng(draw(seeds))
    arrays = (np.asarray(rng.random(c) < 0.5), normal(draw(seeds), *a), normal(draw(seeds), *b))
    return repeat_where_broadcast(Problem(arrays, {}, draw(layouts_of(3)), draw(seeds)))


@st.composite
def masked_fill_problems(draw: Any) -> Problem:
    shape = draw(small_shapes)
    mask_shape = tuple(1 if draw(st.integers(0, 3)) == 0 else n for n in shape)
    mask_shape = mask_shape[draw(st.integers(0, len(shape))) :]
    mask = np.asarray(np.random.default_rng(draw(seeds)).random(mask_shape) < 0.5)
    value = draw(st.sampled_from([0.0, -1.5, -math.inf, -3e38]))
    return repeat_where_broadcast(
        Problem((normal(draw(seeds), *shape), mask), {"value": value}, draw(layouts_of(2)), 5)
    )


def _elementwise() -> list[Case]:
    cases = []
    for name, reference, public, problems in [
        ("add", np.add, "Tensor.add", binary()),
        ("subtract", np.subtract, "Tensor.sub", binary()),
        ("multiply", np.multiply, "Tensor.mul", binary()),
        ("divide", np.divide, "Tensor.div", binary(normal, away_from_zero)),
        ("power", np.power, "Tensor.pow", binary(positive, normal)),
        ("maximum", np.maximum, "Tensor.maximum", binary(quarters, quarters_and_an_eighth)),
        ("minimum", np.minimum, "Tensor.minimum", binary(quarters, quarters_and_an_eighth)),
        ("negative", np.negative, "Tensor.neg", unary()),
        ("exp", np.exp, "Tensor.exp", unary()),
        ("log", np.log, "Tensor.log", unary(positive)),
        ("log1p", np.log1p, "Tensor.log1p", unary(positive)),
        ("sqrt", np.sqrt, "Tensor.sqrt", unary(positive)),
        ("rsqrt", lambda x: 1 / np.sqrt(x), "Tensor.rsqrt", unary(positive)),
        ("tanh", np.tanh, "Tensor.tanh", unary(mixed_signs)),
        ("sigmoid", ref.sigmoid, "Tensor.sigmoid", unary(mixed_signs)),
        ("erf", ref.erf, "Tensor.erf", unary(mixed_signs)),
        ("abs", np.abs, "Tensor.abs", unary(away_from_zero)),
        ("sin", np.sin, "Tensor.sin", unary(mixed_signs)),
        ("cos", np.cos, "Tensor.cos", unary(mixed_signs)),
    ]:
        operation = getattr(torch, public.removeprefix("Tensor."))
        cases.append(Case(name, "elementwise", problems, reference, operation, public))
    cases += [
        Case(
            "clamp",
            "elementwise",
            clamp_problems(),
            lambda x, *, min, max: np.clip(x, min, max),
            torch.clamp,
            "Tensor.clamp",
        ),
        Case("where", "elementwise", where_problems(), np.where, torch.where, "where"),
        Case(
            "masked_fill",
            "elementwise",
            masked_fill_problems(),
            lambda x, mask, *, value: np.where(mask, x.dtype.type(value), x),
            lambda x, mask, *, value: x.masked_fill(mask, value),
            "Tensor.masked_fill",
            differences=lambda problem: abs(problem.options["value"]) < 10,
        ),
        Case(
            "copy",
            "elementwise",
            st.sampled_from(["C", "K"]).flatmap(lambda order: unary(order=order)),
            lambda x, *, order: x.copy(order),
            lambda x, *, order: x.clone(),
            "Tensor.clone",
        ),
        Case(
            "move",
            "elementwise",
            unary(device="cpu"),
            lambda x, *, device: x,
            lambda x, *, device: x.to(device),
            "Tensor.to",
        ),
    ]
    return cases


# Reductions --------------------------------------------------------------------------------


@st.composite
def reductions(
    draw: Any,
    values: Callable[..., Array] = normal,
    axes: str = "any",
    keepdims: bool = True,
    **extra: st.SearchStrategy[Any],
) -> Problem:
    shape = draw(shapes_1d)
    single = st.integers(-len(shape), len(shape) - 1)
    if axes == "one":
        axis = draw(single)
    elif axes == "one or all":
        axis = draw(st.one_of(st.none(), single))
    else:
        several = st.lists(
            st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True
        )
        axis = draw(st.one_of(st.none(), single, several.map(tuple)))
    options: dict[str, Any] = {"axis": axis}
    if keepdims:
        options["keepdims"] = draw(st.booleans())
    options |= {name: draw(strategy) for name, strategy in extra.items()}
    array = values(draw(seeds), *shape)
    problem = Problem((array,), options, draw(layouts_of(1)), draw(seeds))
    return problem if values in (apart, unequal) else repeat_where_broadcast(problem)


@st.composite
def variances(draw: Any, at_least: int = 1) -> Problem:
    problem = draw(reductions(apart, correction=st.sampled_from([0, 1])))
    array, options = problem.arrays[0], problem.options
    number = math.prod(array.shape[a] for a in ref.reduced(array, options["axis"]))
    assume(number >= at_least)
    if number < 2:
        options["correction"] = 0
    return problem


def _torch_axis(x: Any, axis: Any) -> Any:
    return tuple(range(x.ndim)) if axis is None else axis


def _torch_prod(x: Any, *, axis: Any, keepdims: bool) -> Any:
    if axis is None:
        out = torch.prod(x)
        return out.reshape((1,) * x.ndim) if keepdims else out
    return torch.prod(x, axis, keepdim=keepdims)


def _torch_extreme(largest: bool) -> Callable[..., Any]:
    operation = torch.max if largest else torch.min

    def extreme(x: Any, *, axis: Any, keepdims: bool) -> Any:
        if axis is None:
            out = operation(x)
            return out.reshape((1,) * x.ndim) if keepdims else out
        return tuple(operation(x, axis, keepdim=keepdims))

    return extreme


def _reductions() -> list[Case]:
    return [
        Case(
            "sum",
            "reduction",
            reductions(),
            ref.one_by_one,
            lambda x, *, axis, keepdims: torch.sum(x, _torch_axis(x, axis), keepdim=keepdims),
            "Tensor.sum",
        ),
        Case(
            "mean",
            "reduction",
            reductions(),
            ref.mean,
            lambda x, *, axis, keepdims: torch.mean(x, _torch_axis(x, axis), keepdim=keepdims),
            "Tensor.mean",
        ),
        Case(
            "max",
            "reduction",
            reductions(apart, axes="one"),
            lambda x, **o: ref.extreme(x, largest=True, **o),
            _torch_extreme(True),
            "Tensor.max",
        ),
        Case(
            "min",
            "reduction",
            reductions(apart, axes="one"),
            lambda x, **o: ref.extreme(x, largest=False, **o),
            _torch_extreme(False),
            "Tensor.min",
        ),
        Case(
            "amax",
            "reduction",
            reductions(apart),
            lambda x, *, axis, keepdims: np.asarray(x.max(axis=axis, keepdims=keepdims)),
            lambda x, *, axis, keepdims: torch.amax(x, _torch_axis(x, axis), keepdim=keepdims),
            "Tensor.amax",
        ),
        Case(
            "amin",
            "reduction",
            reductions(apart),
            lambda x, *, axis, keepdims: np.asarray(x.min(axis=axis, keepdims=keepdims)),
            lambda x, *, axis, keepdims: torch.amin(x, _torch_axis(x, axis), keepdim=keepdims),
            "Tensor.amin",
        ),
        Case(
            "std",
            "reduction",
            variances(at_least=2),
            lambda x, **options: np.sqrt(ref.var(x, **options)),
            lambda x, *, axis, correction, keepdims: torch.std(
                x, _torch_axis(x, axis), correction=correction, keepdim=keepdims
            ),
            "Tensor.std",
        ),
        Case(
            "norm",
            "reduction",
            reductions(unequal, ord=st.sampled_from([2.5, math.inf, 1.0, 2.0])),
            ref.norm,
            lambda x, *, ord, axis, keepdims: torch.linalg.vector_norm(
                x, ord, _torch_axis(x, axis), keepdim=keepdims
            ),
            "Tensor.norm",
        ),
        Case(
            "var",
            "reduction",
            variances(),
            ref.var,
            lambda x, *, axis, correction, keepdims: torch.var(
                x, _torch_axis(x, axis), correction=correction, keepdim=keepdims
            ),
            "Tensor.var",
        ),
        Case(
            "logsumexp",
            "reduction",
            reductions(axes="one"),
            ref.logsumexp,
            lambda x, *, axis, keepdims: torch.logsumexp(x, axis, keepdim=keepdims),
            "Tensor.logsumexp",
        ),
        Case(
            "cumsum",
            "reduction",
            reductions(axes="one", keepdims=False),
            ref.cumsum,
            lambda x, *, axis: torch.cumsum(x, axis),
            "Tensor.cumsum",
        ),
        Case(
            "prod",
            "reduction",
            reductions(away_from_zero, axes="one or all"),
            ref.prod,
            _torch_prod,
            "Tensor.prod",
        ),
    ]


# Linear ------------------------------------------------------------------------------------

head_sizes = st.sampled_from([1, 2, 5, 17, 40])


@st.composite
def matmul_problems(draw: Any) -> Problem:
    n, m, k = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 9))
    form = draw(
        st.sampled_from(["batched", "matrix", "vector-vector", "left", "right", "inner", "batched"])
    )
    if form == "vector-vector":
        shapes = [(k,), (k,)]
    elif form == "left":
        shapes = [(k,), (*draw(st.sampled_from([(), (3,), (2, 3)])), k, m)]
    elif form == "right":
        shapes = [(*draw(st.sampled_from([(), (3,), (2, 3)])), n, k), (k,)]
    elif form == "matrix":
        shapes = [(n, k), (k, m)]
    elif form == "inner":  # one factor repeated in the middle, the other in front
        shapes = [(2, 1, 3, n, k), (4, 1, k, m)]
    else:
        one, two = draw(broadcastable())
        shapes = [(*one, n, k), (*two, k, m)]
    arrays = tuple(normal(draw(seeds), *shape) for shape in shapes)
    return repeat_where_broadcast(Problem(arrays, {}, draw(layouts_of(2)), draw(seeds)))


@st.composite
def linear_problems(draw: Any) -> Problem:
    batch = draw(st.lists(st.integers(1, 4), max_size=3))
    d_in, d_out = draw(head_sizes), draw(head_sizes)
    arrays = (
        normal(draw(seeds), *batch, d_in),
        normal(draw(seeds), d_out, d_in),
        normal(draw(seeds), d_out) if draw(st.booleans()) else None,
    )
    return repeat_where_broadcast(Problem(arrays, {}, draw(layouts_of(3)), draw(seeds)))


# Softmax and norms -------------------------------------------------------------------------


@st.composite
def along_an_axis(draw: Any) -> Problem:
    problem = draw(reductions(axes="one", keepdims=False))
    scale = draw(st.sampled_from([1.0, 4.0, 30.0]))
    arrays = (exactly(problem.arrays[0] * scale),)
    return Problem(arrays, problem.options, problem.layouts, problem.seed)


@st.composite
def norm_problems(draw: Any, bias: bool) -> Problem:
    over = draw(st.integers(1, 2))
    shape = (
        *draw(st.lists(st.integers(1, 4), max_size=3)),
        *[draw(st.sampled_from([2, 5, 17])) for _ in range(over)],
    )
    shift, spread = draw(st.sampled_from([0.0, 3.0])), draw(st.sampled_from([0.25, 1.0, 8.0]))
    x = exactly(shift + spread * normal(draw(seeds), *shape))
    if draw(st.booleans()):
        weight = exactly(1 + 0.5 * normal(draw(seeds), *shape[-over:]))
    else:
        weight = None
    arrays: tuple[Array | None, ...] = (x, weight)
    options: dict[str, Any] = {"normalized_ndim": over}
    if bias:
        has_bias = weight is not None and draw(st.booleans())
        arrays = (x, weight, normal(draw(seeds), *shape[-over:]) if has_bias else None)
        options["eps"] = draw(st.sampled_from([1e-5, 1e-12, 0.5]))
    else:
        options["eps"] = draw(st.sampled_from([None, 1e-6, 0.5]))
    layouts = draw(layouts_of(len(arrays)))
    # A row repeated along the axis that is normalised is constant: a regime of its own.
    layouts = tuple("spread" if layout == "repeated" else layout for layout in layouts)
    return Problem(arrays, options, layouts, draw(seeds))


# Attention ---------------------------------------------------------------------------------


@st.composite
def attention_problems(draw: Any) -> Problem:
    E, Ev = draw(st.sampled_from([1, 2, 5, 17])), draw(st.sampled_from([1, 3, 8]))
    L, S = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    G, per_group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    batch = draw(st.sampled_from([(), (1,), (2,), (2, 1)]))
    H = G * per_group
    Q = normal(draw(seeds), *batch, H, L, E)
    K = normal(draw(seeds), *batch, G, S, E)
    V = normal(draw(seeds), *batch, G, S, Ev)
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["none", "bool", "bool", "additive", "mixed", "padding"]))
    is_causal = kind in ("none", "padding") and draw(st.booleans())
    full = (*batch, H, L, S)
    mask: Array | None = None
    if kind == "padding":
        seen = rng.integers(0, S + 1, (*batch[:1], *[1] * (len(full) - 1 - len(batch[:1])), 1))
        mask = np.arange(S) < seen
    elif kind != "none":
        kept = full[draw(st.integers(0, len(full) - 2)) :]
        shape = tuple(1 if draw(st.integers(0, 3)) == 0 else n for n in kept)
        mask = rng.random(shape) < 0.7
        if kind != "bool":
            values = exactly(rng.standard_normal(shape))
            mask = values if kind == "additive" else np.where(mask, values, -np.inf)
    options: dict[str, Any] = {
        "is_causal": is_causal,
        "scale": draw(st.sampled_from([None, None, 0.25, 1.0])),
    }
    problem = Problem((Q, K, V, mask), options, draw(layouts_of(4)), draw(seeds))
    if mask is not None and mask.dtype != bool:
        wanted = draw(st.booleans())
        inert = () if wanted else (3,)
        problem = replace(problem, extras={"mask_gradient": wanted}, inert=inert)
    return repeat_where_broadcast(problem)


def torch_attention(
    Q: Any, K: Any, V: Any, mask: Any, *, is_causal: bool = False, scale: float | None = None
) -> Any:
    """The formula in PyTorch's primitives, zeros and no gradient for a query that sees nothing."""
    groups = Q.shape[-3] // K.shape[-3] if Q.ndim > 2 else 1
    if groups != 1:
        K, V = K.repeat_interleave(groups, -3), V.repeat_interleave(groups, -3)
    scale = 1 / math.sqrt(Q.shape[-1]) if scale is None else scale
    scores = Q @ K.transpose(-1, -2) * scale
    look = torch.ones(scores.shape, dtype=torch.bool)
    if is_causal:
        look = look.tril()
    if mask is not None and mask.dtype == torch.bool:
        look = look & mask
    elif mask is not None:
        look = look & (mask != -math.inf)
        scores = scores + torch.where(mask == -math.inf, 0.0, mask)
    scores = scores.masked_fill(~look, -1e30 if Q.dtype == torch.float32 else -1e300)
    weights = torch.softmax(scores, -1) * look
    return weights @ V


def attention_terms(
    arrays: Sequence[Array | None], options: dict[str, Any], dout: Array
) -> tuple[float, tuple[float, ...]]:
    """Sizes of dP, of which D is subtracted, and of S, of which the log-sum-exp is.

    With one key the softmax cannot move and dP - D is zero; at large scores S - lse has the
    rounding of both, as in every attention that keeps the log-sum-exp alone.
    """
    Q, K, V, _ = arrays
    scale = options["scale"] or 1 / math.sqrt(max(1, Q.shape[-1]))
    arriving = largest(np.abs(dout).sum(-1))
    dP = arriving * largest(V)
    S = largest(Q) * largest(K) * scale
    return 0.0, (dP * largest(K) * scale, dP * largest(Q) * scale, arriving * S, dP)


# Feed-forward ------------------------------------------------------------------------------

smooth_activations = st.sampled_from(["gelu", "gelu_tanh", "silu"])
activations = st.one_of(st.just("relu"), smooth_activations)

TORCH_ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


@st.composite
def feed_forward_problems(draw: Any) -> Problem:
    batch = draw(st.lists(st.integers(1, 4), max_size=3))
    D, d_ff = draw(st.sampled_from([1, 4, 9])), draw(st.sampled_from([1, 6, 17]))
    biases = draw(st.booleans())
    # Quarters make every hidden value a multiple of 1/16, and b1 keeps it off the kink of ReLU.
    x, w1 = quarters(draw(seeds), *batch, D), quarters(draw(seeds), d_ff, D)
    arrays = (
        x,
        w1,
        exactly(quarters(draw(seeds), d_ff) + 1 / 32) if biases else None,
        normal(draw(seeds), D, d_ff),
        normal(draw(seeds), D) if biases else None,
    )
    options = {"activation": draw(activations if biases else smooth_activations)}
    return repeat_where_broadcast(Problem(arrays, options, draw(layouts_of(5)), draw(seeds)))


def _sizes(*arrays: Array | None) -> list[Array | None]:
    return [None if a is None else np.abs(a) for a in arrays]


def feed_forward_terms(
    arrays: Sequence[Array | None], options: dict[str, Any], dout: Array
) -> tuple[float, tuple[float, ...]]:
    """The sums of absolute values: no activation exceeds its argument, no slope exceeds 1.13."""
    x, w1, b1, w2, b2 = _sizes(*arrays)
    dout = np.abs(dout)
    hidden = ref.linear(x, w1, b1)
    da = dout @ w2
    flat = [v.reshape(-1, v.shape[-1]) for v in (x, hidden, da, dout)]
    return largest(ref.linear(hidden, w2, b2)), (
        largest(da @ w1),
        largest(flat[2].T @ flat[0]),
        largest(flat[2].sum(0)),
        largest(flat[3].T @ flat[1]),
        largest(flat[3].sum(0)),
    )


def gated_terms(
    arrays: Sequence[Array | None], options: dict[str, Any], dout: Array
) -> tuple[float, tuple[float, ...]]:
    x, w_gate, w_up, w_down = _sizes(*arrays)
    dout = np.abs(dout)
    gate, up = ref.linear(x, w_gate, None), ref.linear(x, w_up, None)
    ds = dout @ w_down
    flat = [v.reshape(-1, v.shape[-1]) for v in (x, ds * up, ds * gate, dout, gate * up)]
    return largest(ref.linear(gate * up, w_down, None)), (
        largest((ds * up) @ w_gate) + largest((ds * gate) @ w_up),
        largest(flat[1].T @ flat[0]),
        largest(flat[2].T @ flat[0]),
        largest(flat[3].T @ flat[4]),
    )


def activation_terms(
    arrays: Sequence[Array | None], options: dict[str, Any], dout: Array
) -> tuple[float, tuple[float, ...]]:
    """1 + erf(x) cancels far below zero, in everyone's float."""
    return largest(arrays[0]), (largest(dout),)


@st.composite
def gated_problems(draw: Any) -> Problem:
    batch = draw(st.lists(st.integers(1, 4), max_size=3))
    D, d_ff = draw(st.sampled_from([1, 4, 9])), draw(st.sampled_from([1, 6, 17]))
    arrays = (
        normal(draw(seeds), *batch, D),
        normal(draw(seeds), d_ff, D),
        normal(draw(seeds), d_ff, D),
        normal(draw(seeds), D, d_ff),
    )
    options = {"activation": draw(smooth_activations)}
    return repeat_where_broadcast(Problem(arrays, options, draw(layouts_of(4)), draw(seeds)))


def torch_feed_forward(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, *, activation: str) -> Any:
    return F.linear(TORCH_ACTIVATIONS[activation](F.linear(x, w1, b1)), w2, b2)


def torch_gated(x: Any, w_gate: Any, w_up: Any, w_down: Any, *, activation: str) -> Any:
    return F.linear(TORCH_ACTIVATIONS[activation](F.linear(x, w_gate)) * F.linear(x, w_up), w_down)


# Embedding, positions, loss ----------------------------------------------------------------


@st.composite
def embedding_problems(draw: Any) -> Problem:
    V, D = draw(st.integers(1, 7)), draw(st.sampled_from([1, 3, 8]))
    shape = draw(st.lists(st.integers(1, 6), max_size=3))
    ids = np.random.default_rng(draw(seeds)).integers(0, V, shape)  # few words: ids repeat
    padding = draw(st.one_of(st.none(), st.integers(0, V - 1)))
    return repeat_where_broadcast(
        Problem(
            (ids, normal(draw(seeds), V, D)),
            {"padding_idx": padding},
            draw(layouts_of(2)),
            draw(seeds),
        )
    )


@st.composite
def rotary_problems(draw: Any) -> Problem:
    half, T = draw(st.sampled_from([1, 2, 5])), draw(st.integers(1, 6))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    angles = np.random.default_rng(draw(seeds)).uniform(-3, 3, (T, half))
    return repeat_where_broadcast(
        Problem(
            (
                normal(draw(seeds), *batch, T, 2 * half),
                exactly(np.cos(angles)),
                exactly(np.sin(angles)),
            ),
            {"interleaved": draw(st.booleans())},
            draw(layouts_of(3)),
            draw(seeds),
        )
    )


def torch_rotary(x: Any, cos: Any, sin: Any, *, interleaved: bool) -> Any:
    """PyTorch has none; complex multiplication is an independent way to write the rotation."""
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
    else:
        a, b = x.chunk(2, -1)
    turned = torch.complex(a, b) * torch.complex(cos, sin)
    parts = (turned.real, turned.imag)
    return torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)


@st.composite
def cross_entropy_problems(draw: Any) -> Problem:
    N, V = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(seeds))
    logits = exactly(rng.standard_normal((N, V)) * draw(st.sampled_from([1.0, 8.0])))
    options: dict[str, Any] = {
        "label_smoothing": draw(st.sampled_from([0.1, 0.0, 0.0, 0.25, 1.0])),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
    }
    if draw(st.integers(0, 2)) == 0:
        target = exactly(rng.dirichlet(np.ones(V), N))
    else:
        target = rng.integers(0, V, N)
        options["ignore_index"] = draw(st.sampled_from([-100, 0, V - 1]))
        if (target == options["ignore_index"]).all():
            options["ignore_index"] = -100
        elif options["ignore_index"] == -100:
            target[rng.random(N) < 0.2] = -100
            target[0] = 0
    weight = exactly(rng.uniform(0.25, 2, V)) if draw(st.booleans()) else None
    return repeat_where_broadcast(
        Problem((logits, target, weight), options, draw(layouts_of(3)), draw(seeds))
    )


def _formulas() -> list[Case]:
    return [
        Case("matmul", "linear", matmul_problems(), ref.matmul, torch.matmul, "Tensor.matmul"),
        Case("linear", "linear", linear_problems(), ref.linear, F.linear, "F.linear"),
        Case("relu", "activation", unary(away_from_zero), ref.relu, F.relu, "F.relu"),
        Case(
            "gelu",
            "activation",
            st.one_of(unary(mixed_signs), unary(mixed_signs, approximate="tanh")),
            ref.gelu,
            F.gelu,
            "F.gelu",
            published=True,
            naive=ref.naive_gelu,
            terms=activation_terms,
        ),
        Case("silu", "activation", unary(mixed_signs), ref.silu, F.silu, "F.silu", published=True),
        Case(
            "softmax",
            "softmax",
            along_an_axis(),
            ref.softmax,
            lambda x, *, axis: F.softmax(x, axis),
            "F.softmax",
        ),
        Case(
            "log_softmax",
            "softmax",
            along_an_axis(),
            ref.log_softmax,
            lambda x, *, axis: F.log_softmax(x, axis),
            "F.log_softmax",
        ),
        Case(
            "layer_norm",
            "layer_norm",
            norm_problems(bias=True),
            ref.layer_norm,
            lambda x, weight, bias, *, normalized_ndim, eps: F.layer_norm(
                x, x.shape[x.ndim - normalized_ndim :], weight, bias, eps
            ),
            "F.layer_norm",
            published=True,
        ),
        Case(
            "rms_norm",
            "rms_norm",
            norm_problems(bias=False),
            ref.rms_norm,
            lambda x, weight, *, normalized_ndim, eps: F.rms_norm(
                x, x.shape[x.ndim - normalized_ndim :], weight, eps
            ),
            "F.rms_norm",
            published=True,
        ),
        Case(
            "attention",
            "attention",
            attention_problems(),
            ref.attention,
            torch_attention,
            "F.scaled_dot_product_attention",
            published=True,
            terms=attention_terms,
        ),
        Case(
            "feed_forward",
            "feed_forward",
            feed_forward_problems(),
            ref.feed_forward,
            torch_feed_forward,
            "",
            published=True,
            naive=functools.partial(ref.feed_forward, activations=ref.NAIVE_ACTIVATIONS),
            terms=feed_forward_terms,
        ),
        Case(
            "gated_feed_forward",
            "feed_forward",
            gated_problems(),
            ref.gated_feed_forward,
            torch_gated,
            "",
            published=True,
            naive=functools.partial(ref.gated_feed_forward, activations=ref.NAIVE_ACTIVATIONS),
            terms=gated_terms,
        ),
        Case(
            "embedding",
            "embedding",
            embedding_problems(),
            ref.embedding,
            F.embedding,
            "F.embedding",
            # The padding row takes part in the forward pass and is denied its gradient.
            differences=lambda problem: problem.options["padding_idx"] is None,
        ),
        Case(
            "rotary",
            "positional",
            rotary_problems(),
            ref.rotary,
            torch_rotary,
            "",
            published=True,
            inert=(1, 2),
        ),
        Case(
            "cross_entropy",
            "cross_entropy",
            cross_entropy_problems(),
            ref.cross_entropy,
            lambda logits, target, weight, **o: F.cross_entropy(logits, target, weight, **o),
            "F.cross_entropy",
            published=True,
            inert=(2,),
        ),
    ]


# Shapes ------------------------------------------------------------------------------------


@st.composite
def several(draw: Any, joined: bool) -> Problem:
    shape = list(draw(shapes_1d))
    number = draw(st.integers(1, 4))
    axis = draw(st.integers(-len(shape) - (not joined), len(shape) - joined))
    axis = max(axis, -len(shape)) if joined else axis
    arrays = []
    for _ in range(number):
        if joined:
            shape[axis] = draw(st.integers(0 if number > 1 else 1, 4))
        arrays.append(normal(draw(seeds), *shape))
    return repeat_where_broadcast(
        Problem(tuple(arrays), {"axis": axis}, draw(layouts_of(number)), draw(seeds))
    )


@st.composite
def reshapes(draw: Any) -> Problem:
    problem = draw(unary())
    array = problem.arrays[0]
    factors = [n for n in array.shape if n > 1]
    order = draw(st.permutations(factors)) if factors else []
    cut = draw(st.integers(0, len(order)))
    shape = (math.prod(order[:cut]), *order[cut:])
    return Problem((array,), {"shape": shape}, problem.layouts, problem.seed)


@st.composite
def permutations(draw: Any) -> Problem:
    problem = draw(unary())
    axes = tuple(draw(st.permutations(range(problem.arrays[0].ndim))))
    return Problem(problem.arrays, {"axes": axes}, problem.layouts, problem.seed)


@st.composite
def expansions(draw: Any) -> Problem:
    problem = draw(unary())
    shape = tuple(draw(st.integers(1, 4)) if n == 1 else n for n in problem.arrays[0].shape)
    shape = (*draw(st.lists(st.integers(1, 3), max_size=2)), *shape)
    return Problem(problem.arrays, {"shape": shape}, problem.layouts, problem.seed)


@st.composite
def indexings(draw: Any) -> Problem:
    shape = draw(st.lists(st.integers(2, 5), min_size=2, max_size=3).map(tuple))
    rng = np.random.default_rng(draw(seeds))
    index = draw(
        st.sampled_from(
            [
                (0,),
                (-1, slice(None)),
                (slice(None), slice(None, None, 2)),
                (Ellipsis, 1),
                (None, Ellipsis, slice(1, None)),
                (slice(0, 0),),
                (rng.integers(-shape[0], shape[0], 7),),  # repeats: gradients add up
                (slice(None), rng.integers(-shape[1], shape[1], (2, 3))),
                (rng.integers(-shape[0], shape[0], 4), rng.integers(-shape[1], shape[1], 4)),
                (rng.integers(0, shape[0], (2, 2)), rng.integers(0, shape[1], 2)),
                (rng.random(shape) < 0.5,),
                (rng.random(shape[0]) < 0.5, 1),
            ]
        )
    )
    return repeat_where_broadcast(
        Problem((normal(draw(seeds), *shape),), {"index": index}, draw(layouts_of(1)), 3)
    )


def _torch_indices(index: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(torch.from_numpy(np.array(i)) if isinstance(i, np.ndarray) else i for i in index)


def _torch_index(x: Any, *, index: tuple[Any, ...]) -> Any:
    return x[_torch_indices(index)]


@st.composite
def splits(draw: Any) -> Problem:
    shape = list(draw(shapes_1d))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    sizes = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    shape[axis] = sum(sizes)
    options = {"sizes": sizes, "axis": axis}
    return repeat_where_broadcast(
        Problem((normal(draw(seeds), *shape),), options, draw(layouts_of(1)), draw(seeds))
    )


def split(x: Array, *, sizes: tuple[int, ...], axis: int) -> tuple[Array, ...]:
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=axis))


@st.composite
def triangles(draw: Any) -> Problem:
    shape = (*draw(st.lists(st.integers(1, 3), max_size=2)), *[draw(st.integers(1, 6))] * 1, 4)
    options = {"diagonal": draw(st.integers(-4, 5))}
    return repeat_where_broadcast(
        Problem((normal(draw(seeds), *shape),), options, draw(layouts_of(1)), draw(seeds))
    )


@st.composite
def gathers(draw: Any) -> Problem:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    ids_shape = list(shape)
    ids_shape[axis] = draw(st.integers(1, 6))
    ids = np.random.default_rng(draw(seeds)).integers(0, shape[axis], ids_shape)
    return repeat_where_broadcast(
        Problem(
            (normal(draw(seeds), *shape), ids), {"axis": axis}, draw(layouts_of(2)), draw(seeds)
        )
    )


@st.composite
def paddings(draw: Any) -> Problem:
    shape = draw(shapes_1d)
    widths = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in shape)
    options = {"widths": widths, "value": draw(st.sampled_from([0.0, -1.5]))}
    return repeat_where_broadcast(
        Problem((normal(draw(seeds), *shape),), options, draw(layouts_of(1)), draw(seeds))
    )


def _torch_pad(x: Any, *, widths: Any, value: float) -> Any:
    flat = [n for pair in reversed(widths) for n in pair]
    return F.pad(x, flat, value=value)


@st.composite
def assignments(draw: Any) -> Problem:
    shape = draw(st.lists(st.integers(2, 5), min_size=2, max_size=3).map(tuple))
    rng = np.random.default_rng(draw(seeds))
    index = draw(
        st.sampled_from(
            [
                (1,),
                (slice(None), 0),
                (Ellipsis, slice(1, None)),
                (rng.permutation(shape[0])[:2],),
                (rng.random(shape) < 0.5,),
            ]
        )
    )
    inner = draw(st.sampled_from([None, None, 0, slice(0, 1)]))
    if not all(isinstance(i, slice | type(Ellipsis)) for i in index):
        inner = None
    part = np.zeros(shape)[index]
    part = part if inner is None else part[inner]
    value_shape = part.shape if draw(st.booleans()) else (1,) * min(part.ndim, 1)
    return repeat_where_broadcast(
        Problem(
            (normal(draw(seeds), *shape), normal(draw(seeds), *value_shape)),
            {"index": index, "inner": inner},
            draw(layouts_of(2)),
            draw(seeds),
        )
    )


def assign(x: Array, value: Array, *, index: Any, inner: Any) -> Array:
    out = np.array(x)
    part = out if inner is None else out[index]
    part[index if inner is None else inner] = value
    return out


def _torch_assign(x: Any, value: Any, *, index: Any, inner: Any) -> Any:
    out = x.clone()
    index = _torch_indices(index)
    part = out if inner is None else out[index]
    part[index if inner is None else inner] = value
    return out


@st.composite
def flips(draw: Any, roll: bool = False) -> Problem:
    shape = draw(shapes_1d)
    axes = tuple(draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True)))
    options: dict[str, Any] = {"axis": axes}
    if roll:
        options["shifts"] = tuple(draw(st.integers(-7, 7)) for _ in axes)
        if draw(st.booleans()):  # one shift, of one axis or of all elements in a row
            axis = draw(st.sampled_from([None, axes[0]]))
            options = {"axis": axis, "shifts": options["shifts"][0]}
    return repeat_where_broadcast(
        Problem((normal(draw(seeds), *shape),), options, draw(layouts_of(1)), draw(seeds))
    )


def _shape_operations() -> list[Case]:
    rows = [
        (
            "reshape",
            reshapes(),
            lambda x, *, shape: x.reshape(shape),
            lambda x, *, shape: x.reshape(shape),
            "Tensor.reshape",
        ),
        (
            "transpose",
            permutations(),
            lambda x, *, axes: x.transpose(axes),
            lambda x, *, axes: x.permute(axes),
            "Tensor.permute",
        ),
        (
            "expand",
            expansions(),
            lambda x, *, shape: np.broadcast_to(x, shape),
            lambda x, *, shape: x.expand(shape),
            "Tensor.expand",
        ),
        ("index", indexings(), lambda x, *, index: x[index], _torch_index, "Tensor.__getitem__"),
        (
            "concat",
            several(joined=True),
            lambda *xs, axis: np.concatenate(xs, axis),
            lambda *xs, axis: torch.cat(xs, axis),
            "cat",
        ),
        (
            "stack",
            several(joined=False),
            lambda *xs, axis: np.stack(xs, axis),
            lambda *xs, axis: torch.stack(xs, axis),
            "stack",
        ),
        (
            "split",
            splits(),
            split,
            lambda x, *, sizes, axis: torch.split(x, list(sizes), axis),
            "Tensor.split",
        ),
        (
            "tril",
            triangles(),
            lambda x, *, diagonal: np.tril(x, diagonal),
            lambda x, *, diagonal: torch.tril(x, diagonal),
            "Tensor.tril",
        ),
        (
            "triu",
            triangles(),
            lambda x, *, diagonal: np.triu(x, diagonal),
            lambda x, *, diagonal: torch.triu(x, diagonal),
            "Tensor.triu",
        ),
        (
            "gather",
            gathers(),
            lambda x, index, *, axis: np.take_along_axis(x, index, axis),
            lambda x, index, *, axis: torch.gather(x, axis, index),
            "Tensor.gather",
        ),
        ("assign", assignments(), assign, _torch_assign, "Tensor.__setitem__"),
        (
            "pad",
            paddings(),
            lambda x, *, widths, value: np.pad(x, widths, constant_values=value),
            _torch_pad,
            "F.pad",
        ),
        (
            "flip",
            flips(),
            lambda x, *, axis: np.flip(x, axis),
            lambda x, *, axis: torch.flip(x, axis),
            "Tensor.flip",
        ),
        (
            "roll",
            flips(roll=True),
            lambda x, *, shifts, axis: np.roll(x, shifts, axis),
            lambda x, *, shifts, axis: torch.roll(x, shifts, () if axis is None else axis),
            "Tensor.roll",
        ),
    ]
    return [
        Case(name, "shape", problems, reference, operation, public)
        for name, problems, reference, operation, public in rows
    ]


CASES: dict[str, Case] = {
    case.name: case
    for case in [*_elementwise(), *_reductions(), *_shape_operations(), *_formulas()]
}
