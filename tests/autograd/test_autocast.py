"""Autocast on the CPU in float16 against PyTorch's, and its lists against PyTorch's own."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer.autograd import precision
from tests.tolerance import assert_close

SHAPES = {"a": (3, 4), "b": (4, 5), "c": (5,), "d": (4,), "e": (3, 4), "q": (1, 2, 3, 4),
          "s": (2, 3, 4), "t": (2, 4, 5), "u": (2, 3, 5), "w": (5, 4)}  # fmt: skip

# By name, an operation on tensors of these letters, written for either library.
OPERATIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "linear": ("awc", lambda t, F, *x: F.linear(*x)),
    "matmul": ("ab", lambda t, F, a, b: a @ b),
    "mv": ("ad", lambda t, F, *x: t.mv(*x)),
    "dot": ("dd", lambda t, F, *x: t.dot(*x)),
    "bmm": ("st", lambda t, F, *x: t.bmm(*x)),
    "einsum": ("ab", lambda t, F, *x: t.einsum("ij,jk->ki", *x)),
    "addmm": ("cab", lambda t, F, *x: t.addmm(*x)),
    "baddbmm": ("ust", lambda t, F, *x: t.baddbmm(*x)),
    "attention": ("qqq", lambda t, F, *x: F.scaled_dot_product_attention(*x)),
    "softmax": ("a", lambda t, F, a: a.softmax(-1)),
    "log_softmax": ("a", lambda t, F, a: F.log_softmax(a, -1)),
    "layer_norm": ("add", lambda t, F, a, w, b: F.layer_norm(a, (4,), w, b)),
    "norm of product": ("abcc", lambda t, F, a, b, w, s: F.layer_norm(a @ b, (5,), w, s)),
    "rms_norm": ("ad", lambda t, F, a, w: F.rms_norm(a, (4,), w)),
    "gelu": ("a", lambda t, F, a: F.gelu(a)),
    "silu": ("a", lambda t, F, a: F.silu(a)),
    "relu": ("a", lambda t, F, a: F.relu(a)),
    "sigmoid": ("a", lambda t, F, a: a.sigmoid()),
    "tanh": ("a", lambda t, F, a: a.tanh()),
    "erf": ("a", lambda t, F, a: a.erf()),
    "logsigmoid": ("a", lambda t, F, a: F.logsigmoid(a)),
    "cross_entropy": ("a", lambda t, F, a: F.cross_entropy(a, t.tensor([0, 1, 2]))),
    "nll_loss": ("a", lambda t, F, a: F.nll_loss(a, t.tensor([0, 1, 2]))),
    "mse_loss": ("ae", lambda t, F, *x: F.mse_loss(*x)),
    "kl_div": ("ae", lambda t, F, *x: F.kl_div(*x, reduction="sum")),
    "bce": ("ae", lambda t, F, *x: F.binary_cross_entropy_with_logits(*x)),
    "cosine_similarity": ("ae", lambda t, F, *x: F.cosine_similarity(*x)),
    "normalize": ("a", lambda t, F, a: F.normalize(a)),
    "exp": ("a", lambda t, F, a: a.exp()),
    "log": ("a", lambda t, F, a: a.log()),
    "log1p": ("a", lambda t, F, a: a.log1p()),
    "pow": ("a", lambda t, F, a: a**2),
    "rsqrt": ("a", lambda t, F, a: a.rsqrt()),
    "sqrt": ("a", lambda t, F, a: a.sqrt()),
    "reciprocal": ("a", lambda t, F, a: a.reciprocal()),
    "sum": ("a", lambda t, F, a: a.sum()),
    "mean": ("a", lambda t, F, a: a.mean(0)),
    "var": ("a", lambda t, F, a: a.var(0)),
    "std": ("a", lambda t, F, a: a.std(0)),
    "norm": ("a", lambda t, F, a: a.norm()),
    "prod": ("a", lambda t, F, a: a.prod()),
    "cumsum": ("a", lambda t, F, a: a.cumsum(0)),
    "logsumexp": ("a", lambda t, F, a: a.logsumexp(0)),
    "max": ("a", lambda t, F, a: a.max()),
    "add": ("ae", lambda t, F, a, b: a + b),
    "div": ("ae", lambda t, F, a, b: a / b),
    "cat": ("ae", lambda t, F, *x: t.cat(x)),
    "stack": ("ae", lambda t, F, *x: t.stack(x)),
    "where": ("ae", lambda t, F, a, b: t.where(a > 0.5, a, b)),
    "addcmul": ("aee", lambda t, F, *x: t.addcmul(*x)),
    "outer": ("dd", lambda t, F, *x: t.outer(*x)),
}


def operands(letters: str, dtypes: list[str], library: Any) -> list[Any]:
    """Leaves of the two libraries with the same numbers, which float16 holds."""
    rng = np.random.default_rng(0)
    made = [rng.uniform(0.1, 0.9, SHAPES[x]).astype(np.float16).astype(np.float64) for x in letters]
    return [
        library.tensor(a.tolist(), dtype=getattr(library, d)).requires_grad_()
        for a, d in zip(made, dtypes)
    ]


def run(library: Any, name: str, dtypes: list[str], enabled: bool = True) -> tuple[Any, list[Any]]:
    """The output, and the gradients of its sum."""
    letters, operation = OPERATIONS[name]
    leaves = operands(letters, dtypes, library)
    with library.autocast("cpu", dtype=library.float16, enabled=enabled):
        out = operation(library, library.nn.functional, *leaves)
    out.sum().backward()
    return out, [x.grad for x in leaves]


def type_of(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


@pytest.mark.filterwarnings("ignore:Mismatch dtype:UserWarning")  # PyTorch's, of rms_norm
@pytest.mark.parametrize("given", ["float32", "float16", "float64", "mixed"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_types_are_pytorchs(name: str, given: str) -> None:
    letters, _ = OPERATIONS[name]
    dtypes = ["float16" if i else "float32" for i in range(len(letters))]
    dtypes = dtypes if given == "mixed" else [given] * len(letters)
    try:
        out, grads = run(torch, name, dtypes)
    except RuntimeError:
        pytest.skip("PyTorch does not take these types here")
    ours, ours_grads = run(mt, name, dtypes)
    assert type_of(ours) == type_of(out)
    for grad, theirs, dtype in zip(ours_grads, grads, dtypes):
        assert type_of(grad) == type_of(theirs) == dtype


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_values_are_within_the_rule(name: str) -> None:
    """float32 parameters under autocast: their gradients too are as good as half precision is."""
    width = len(OPERATIONS[name][0])
    out, grads = run(mt, name, ["float32"] * width)
    exact, exact_grads = run(torch, name, ["float64"] * width, enabled=False)
    plain, plain_grads = run(torch, name, ["float32"] * width)
    pairs = [(out.detach(), exact.detach(), plain.detach(), "forward")]
    pairs += [(*three, "backward") for three in zip(grads, exact_grads, plain_grads)]
    for ours, truth, naive, kind in pairs:
        half = [x.numpy().astype(np.float16) for x in (ours, naive)]
        size = float(abs(truth).max())
        assert_close(half[0], truth.numpy(), half[1], kind, name, size=size)


def test_the_lists_for_gpus_are_pytorchs() -> None:
    """Its header says what it computes in which type; names of ours that differ are mapped."""
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    text = header.read_text()

    def listed(macro: str) -> set[str]:
        body = re.search(rf"#define {macro}\(_\)(.*?)\n\n", text, re.S)
        assert body
        return set(re.findall(r"_\((?:ADD_NS\()?(\w+)", body.group(1)))

    ours = {"attention": "scaled_dot_product_attention", "power": "pow",
            "cross_entropy": "nll_loss"}  # fmt: skip
    alone = {"feed_forward", "gated_feed_forward"}
    lower = {ours.get(n, n) for n in precision.LOWER["cuda"] - alone}
    single = {ours.get(n, n) for n in precision.SINGLE["cuda"]}
    theirs = set().union(*map(listed, (
        "AT_FORALL_FP32", "AT_FORALL_FP32_SET_OPT_DTYPE", "AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE"
    )))  # fmt: skip
    assert lower <= listed("AT_FORALL_LOWER_PRECISION_FP")
    assert single <= theirs
    # whatever of theirs is an operation of ours is in our list
    kernels = {ours.get(n, n) for n in _names_of_kernels()}
    assert kernels & theirs <= single
    assert kernels & listed("AT_FORALL_LOWER_PRECISION_FP") <= lower


def _names_of_kernels() -> set[str]:
    from tests.kernels.cases import CASES

    return set(CASES) | set(mt.nn.functional.__all__)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.25}, {"reduction": "sum"}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hard", [False, True])
def test_a_loss_of_half_precision_logits_needs_no_copy(
    options: dict[str, Any], weighted: bool, hard: bool
) -> None:
    """The gradient has the logits' type, and loss and gradient are those of float32 logits."""
    rng = np.random.default_rng(0)
    logits = mt.tensor(rng.standard_normal((5, 7)), dtype=mt.float16, requires_grad=True)
    target = mt.tensor(rng.integers(0, 7, 5) if hard else rng.dirichlet(np.ones(7), 5))
    target = target if hard else target.float()
    weight = mt.rand(7) if weighted else None
    wide = logits.detach().float().requires_grad_()
    cross_entropy = mt.nn.functional.cross_entropy
    with mt.autocast("cpu", dtype=mt.float16):
        loss = cross_entropy(logits, target, weight, **options)
        expected = cross_entropy(wide, target, weight, **options)
    loss.backward()
    expected.backward()
    assert casts_of(loss) == 0 and loss.dtype == mt.float32 and loss.item() == expected.item()
    assert logits.grad.dtype == mt.float16
    assert mt.equal(logits.grad, wide.grad.half())


# -- blocks ---------------------------------------------------------------------------------


def product_type() -> str:
    x = mt.ones(2, 2)
    return type_of(x @ x)


def test_blocks_nest_and_end() -> None:
    with mt.autocast("cpu", dtype=mt.float16):
        assert product_type() == "float16" and mt.is_autocast_enabled("cpu")
        with mt.autocast("cpu", enabled=False):
            assert product_type() == "float32" and not mt.is_autocast_enabled("cpu")
            with mt.autocast("cpu", dtype="half"):
                assert product_type() == "float16"
        with mt.autocast("cuda", dtype=mt.float16):
            assert product_type() == "float16" and mt.get_autocast_dtype("cuda") == mt.float16
        assert product_type() == "float16"
    assert product_type() == "float32" and not mt.is_autocast_enabled()
    with pytest.raises(ZeroDivisionError), mt.autocast("cpu", dtype=mt.float16):
        raise ZeroDivisionError
    assert not mt.is_autocast_enabled()


def test_as_a_decorator() -> None:
    @mt.autocast("cpu", dtype=mt.float16)
    def depth(n: int) -> list[str]:
        return [product_type()] + (depth(n - 1) if n else [])

    assert depth(2) == ["float16"] * 3 and product_type() == "float32"


def test_blocks_are_a_threads_own() -> None:
    found = []
    with mt.autocast("cpu", dtype=mt.float16):
        thread = threading.Thread(target=lambda: found.append(product_type()))
        thread.start()
        thread.join()
    assert found == ["float32"]


def test_a_block_for_gpus_leaves_the_cpu_alone() -> None:
    with mt.autocast("cuda", dtype=mt.bfloat16), mt.amp.autocast(device_type="cuda"):
        assert product_type() == "float32"
    with mt.cuda.amp.autocast():
        assert mt.is_autocast_enabled("cuda") and mt.get_autocast_dtype("cuda") == "float16"
        assert product_type() == "float32"
    with mt.autocast("cuda", dtype=mt.float32):  # as listings write with dtype = 'float32'
        assert not mt.is_autocast_enabled()


def test_what_is_refused() -> None:
    with pytest.raises(RuntimeError, match="on the CPU compute in float32"):
        mt.autocast("cpu", dtype=mt.bfloat16)
    with pytest.raises(RuntimeError, match="bfloat16 exists on GPUs only"):
        mt.autocast("cpu")
    mt.autocast("cpu", dtype=mt.bfloat16, enabled=False)
    with pytest.raises(RuntimeError, match="'cuda' or 'cpu'"):
        mt.autocast("tpu")
    with pytest.raises(ValueError, match="must be text"):
        mt.autocast(mt.float16)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="float16 or bfloat16"):
        mt.autocast("cuda", dtype=mt.int64)
    with pytest.raises(RuntimeError, match="dtypes differ"):
        mt.ones(2, 2) @ mt.ones(2, 2).half()


# -- casts of parameters ----------------------------------------------------------------------


def casts_of(loss: Any) -> int:
    """How many casts lie on the graph of a loss."""
    seen, found = set(), [loss.node]
    while found:
        node = found.pop()
        if node in seen:
            continue
        seen.add(node)
        found += [edge[0] for edge in node.inputs if isinstance(edge, tuple)]
    return sum(node.name == "cast" for node in seen)


@pytest.mark.parametrize(("cached", "casts"), [(True, 1), (None, 1), (False, 3)])
def test_a_parameter_is_cast_once_a_block(cached: bool | None, casts: int) -> None:
    w = mt.randn(3, 3, requires_grad=True)
    x = mt.ones(1, 3)
    with mt.autocast("cpu", dtype=mt.float16, cache_enabled=cached):
        y = x @ w @ w @ w
    assert casts_of(y) == casts
    y.sum().backward()
    assert w.grad.dtype == mt.float32


def test_the_casts_end_with_the_outermost_block() -> None:
    w = mt.ones(2, 2, requires_grad=True)
    with mt.autocast("cpu", dtype=mt.float16):
        with mt.autocast("cpu", dtype=mt.float16):
            w @ w
        assert len(precision._casts.made) == 1
        mt.clear_autocast_cache()
        assert not precision._casts.made
        w @ w
    assert not precision._casts.made


def test_a_changed_parameter_is_cast_again() -> None:
    w, x = mt.ones(2, 2, requires_grad=True), mt.ones(1, 2)
    with mt.autocast("cpu", dtype=mt.float16):
        assert (x @ w).tolist() == [[2.0, 2.0]]
        with mt.no_grad():
            w.mul_(3)
        assert (x @ w).tolist() == [[6.0, 6.0]]


def test_a_cast_without_gradients_serves_no_training() -> None:
    w, x = mt.ones(2, 2, requires_grad=True), mt.ones(1, 2)
    with mt.autocast("cpu", dtype=mt.float16):
        with mt.no_grad():
            x @ w
        (x @ w).sum().backward()
    assert w.grad.tolist() == [[1.0, 1.0]] * 2


def test_several_backwards_in_one_block_as_in_pytorch() -> None:
    """Gradient accumulation with the backward inside: the shared cast serves every graph."""
    results = []
    for library in (mt, torch):
        w, x = library.ones(2, 2, requires_grad=True), library.ones(1, 2)
        with library.autocast("cpu", dtype=library.float16):
            first, second = (x @ w).sum(), (2 * x @ w).sum()
            first.backward()
            (x @ w).sum().backward()
            second.backward()
        results.append(w.grad.tolist())
    assert results[0] == results[1] == [[4.0, 4.0]] * 2


def test_nothing_is_asked_where_nothing_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitransformer.backend.dtypes.loaded_bfloat16", None)
    monkeypatch.setattr(precision, "dispatch", None)  # calling it would fail
    assert product_type() == "float32"
