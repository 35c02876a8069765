"""Every CUDA kernel on the CPU, in random warp order, against float64; planted mistakes."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minitransformer.backend import Key, random_bits
from minitransformer.backend.cuda import signatures
from minitransformer.kernels import (
    activation,
    cross_entropy,
    layer_norm,
    shape,
    softmax,
)
from minitransformer.kernels.cuda import optimizer as table_kernels

from .shim import SOURCES, Program, compiled

SEEDS = range(2)
RUNS: dict[str, Callable[[Program, int], None]] = {}


def covers(*kernels: str) -> Callable[..., Callable[[Program, int], None]]:
    """Mark a check as the one that runs these kernels; it raises AssertionError on a difference."""

    def register(check: Callable[[Program, int], None]) -> Callable[[Program, int], None]:
        for name in kernels:
            RUNS[name] = check
        return check

    return register


def close(found: np.ndarray, expected: np.ndarray, units: float = 200.0) -> None:
    """Float32 with sums in another order: a few hundred eps of the largest entry of the row."""
    scale = np.maximum(1.0, np.abs(expected).max(axis=-1, keepdims=True))
    np.testing.assert_array_less(
        np.abs(found - expected) / scale, np.full(expected.shape, units * np.finfo(np.float32).eps)
    )


class Located(np.ndarray):
    """A host array that says where it is as a device array does."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return types.SimpleNamespace(ptr=self.ctypes.data)


def there(a: np.ndarray) -> Located:
    return a.view(Located)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shape_of(program: Program) -> tuple[int, int]:
    """Return the threads of a block, and how many rows it works on at a time."""
    team = program.defines.get("TEAM", 32)
    return (128, 4) if team == 32 else (team, 1)


@covers("layer_norm_forward", "layer_norm_backward", "layer_norm_backward_sums")
def check_layer_norm(program: Program, seed: int) -> None:
    threads, at_once = shape_of(program)
    for rows, width in ((37, 70), (5, 256)):  # rows that start anywhere, and at 16 bytes
        x, dy = noise(1, rows, width) + 3, noise(4, rows, width)
        for gain, shift in ((noise(2, width), noise(3, width)), (None, None)):
            y, dx = np.full_like(x, np.nan), np.full_like(x, np.nan)
            mean, rstd = np.full((2, rows), np.nan, np.float32)
            program(
                "layer_norm_forward", (-(-rows // at_once),), threads,
                x, gain, shift, y, mean, rstd, rows, width, 1e-5, seed=seed,
            )  # fmt: skip
            exact, saved = layer_norm.layer_norm_forward(
                *(None if a is None else a.astype(float) for a in (x, gain, shift))
            )
            close(y, exact)
            parts = np.full((2, 3, width), np.nan, np.float32)
            program(
                "layer_norm_backward", (3,), threads,
                dy, x, gain, mean, rstd, dx, parts, rows, width, seed=seed,
            )  # fmt: skip
            sums = np.full((2, width), np.nan, np.float32)
            program(
                "layer_norm_backward_sums", (-(-width // 32), 2), 64, parts, sums, 3, width,
                seed=seed,
            )  # fmt: skip
            found = (dx, *sums)
            for a, b in zip(found, layer_norm.layer_norm_backward(dy.astype(float), saved)):
                if b is not None:
                    close(a, b)


@covers("softmax_forward", "softmax_backward")
def check_softmax(program: Program, seed: int) -> None:
    threads, at_once = shape_of(program)
    for width in (101, 200):
        x, dP = noise(1, 5, width) * 30, noise(2, 5, width)
        x[0] -= 500
        x[1, 7:] = -np.inf
        P, dx = np.full_like(x, np.nan), np.full_like(x, np.nan)
        grid = (-(-5 // at_once),)
        program("softmax_forward", grid, threads, x, P, 5, width, seed=seed)
        exact, saved = softmax.softmax_forward(x.astype(float))
        close(P, exact)
        program("softmax_backward", grid, threads, dP, P, dx, 5, width, seed=seed)
        close(dx, softmax.softmax_backward(dP.astype(float), saved)[0])


@covers("cross_entropy_forward", "cross_entropy_backward")
def check_cross_entropy(program: Program, seed: int) -> None:
    N, V = 6, 391  # rows start anywhere, and a thread has several packs
    logits, scale = noise(1, N, V) * 20, noise(2, N)
    logits[1, :300] = -np.inf
    logits[3] = np.sort(logits[3])  # the largest comes last, the sum is scaled down again and again
    target = np.array([0, 390, -100, 7, 7, 31])
    loss, top, lse = np.zeros((3, N), np.float32)
    program("cross_entropy_forward", (N,), 64, logits, target, loss, top, lse, V, -100, seed=seed)
    exact, saved = cross_entropy.cross_entropy_forward(
        logits.astype(float), target, None, reduction="none"
    )
    close(loss, exact)
    dlogits = np.full_like(logits, np.nan)
    program(
        "cross_entropy_backward",
        (N,),
        64,
        logits,
        target,
        top,
        lse,
        scale,
        dlogits,
        V,
        -100,
        seed=seed,
    )
    close(dlogits, cross_entropy.cross_entropy_backward(scale.astype(float), saved)[0])


@covers("activation_forward", "activation_backward")
def check_activation(program: Program, seed: int) -> None:
    x, bias = noise(1, 9, 40) * 4, noise(2, 40)
    x[0, :5] = 1e4, -1e4, 0, 15, 1e20
    odd = noise(3, 123)  # the last thread has three numbers, and nothing lies at 16 bytes
    key, no_key = Key(7, 1, 2), Key(0, 0, 0)
    for kind, name in enumerate(("relu", "gelu", "gelu_tanh", "silu")):
        forward = getattr(activation, f"{name.removesuffix('_tanh')}_forward")
        backward = getattr(activation, f"{name.removesuffix('_tanh')}_backward")
        options = {"approximate": "tanh"} if name == "gelu_tanh" else {}
        for rows, b, threshold in ((x, bias, 0), (odd[1:], None, 0), (x, bias, 2**30)):
            h, y, dh = (np.full_like(rows, np.nan) for _ in range(3))
            h[...], width = rows, 0 if b is None else len(b)
            stream = key if threshold else no_key
            program(
                "activation_forward", (2,), 64, h, b, h, y, h.size, width, kind, threshold,
                4 / 3 if threshold else 1.0, stream.step, stream.operation, stream.seed, seed=seed,
            )  # fmt: skip
            kept = np.where(random_bits(key, h.size) >= 2**30, 4 / 3, 0).reshape(h.shape)
            kept = kept if threshold else np.ones(h.shape)
            exact, saved = forward((rows + (0 if b is None else b)).astype(float), **options)
            close(y, exact * kept)
            close(h, backward(np.ones(h.shape), saved)[0] * kept)
            dy = noise(4, *rows.shape)
            program("activation_backward", (2,), 64, dy, rows, dh, h.size, kind, seed=seed)
            _, saved = forward(rows.astype(float), **options)
            close(dh, backward(dy.astype(float), saved)[0])


@covers("random_bits", "residual_dropout")
def check_dropout(program: Program, seed: int) -> None:
    key, n = Key(2**63 + 11, 5, 9), 1003
    bits = np.zeros(n, np.uint32)
    program("random_bits", (3,), 64, bits, n, 2, key.step, key.operation, key.seed, seed=seed)
    np.testing.assert_array_equal(bits, random_bits(key, n, start=16))
    x, residual, y = noise(1, n), noise(2, n), np.zeros(n, np.float32)
    program(
        "residual_dropout", (3,), 64, x, residual, y, n, 2**30, 4 / 3, key.step, key.operation,
        key.seed, seed=seed,
    )  # fmt: skip
    kept = np.where(random_bits(key, n) >= 2**30, x * 4 / 3, 0)
    close(y, residual + kept)
    program(
        "residual_dropout", (3,), 64, x, None, y, n, 2**30, 4 / 3, key.step, key.operation,
        key.seed, seed=seed,
    )  # fmt: skip
    close(y, kept)


def check_sgd(program: Program, seed: int, rows: list[Any]) -> None:
    """With `rows` of parameter, gradient and momentum, some without the last."""
    lr, momentum, fresh, l2 = 0.1, 0.9, 0.7, 0.2
    for nesterov, sign in ((0, 1.0), (1, -1.0)):
        given = [(p, g, None if i % 2 else b) for i, (p, g, b, _) in enumerate(rows)]
        expected = []
        for p, g, b in given:
            P, G = p.astype(float), sign * g.astype(float) + l2 * p.astype(float)
            B = None if b is None else momentum * b.astype(float) + fresh * G
            S = G if B is None else G + momentum * B if nesterov else B
            expected.append((P - lr * S, g.copy(), B))
        ((table, grid),) = table_kernels.tables(given, table_kernels.MOMENTA)
        program("sgd", grid, 64, table, lr, momentum, fresh, l2, sign, nesterov, seed=seed)
        for row, exact in zip(given, expected):
            for found, wanted in zip(row, exact):
                if found is not None:
                    close(found, wanted)


@covers("adam", "sgd", "squares", "root_of_sum", "clip")
def check_adam(program: Program, seed: int) -> None:
    sizes = (70, 20000, 1, 8192, 8193, 403)
    lr, (beta1, beta2), eps, t = 1e-2, (0.9, 0.99), 1e-8, 3
    rows = []
    for i, n in enumerate(sizes):
        whole = np.concatenate([noise(10 * i + k, n + 1) for k in range(4)])
        rows.append([there(a[i % 2 : n + i % 2].copy()) for a in np.split(whole, 4)])
        rows[-1][1] = there(whole[1 : n + 1])  # a gradient that no 16-byte load may read
        rows[-1][1][:5] = 0
        rows[-1][3][:] **= 2
    for decay, l2, sign in ((1 - lr * 0.1, 0.0, 1.0), (1.0, 0.1, -1.0)):
        expected = []
        for p, g, m, v in rows:
            P, G, M, W = (np.array(a, float) for a in (p, g, m, v))
            G = sign * G + l2 * P
            M = beta1 * M + (1 - beta1) * G
            W = beta2 * W + (1 - beta2) * G**2
            m_hat, v_hat = M / (1 - beta1**t), W / (1 - beta2**t)
            expected.append((decay * P - lr * m_hat / (np.sqrt(v_hat) + eps), g.copy(), M, W))
        ((table, grid),) = table_kernels.tables(rows, table_kernels.MOMENTS)
        program(
            "adam", grid, 64, table, lr / (1 - beta1**t), (1 - beta2**t) ** 0.5, beta1, beta2, eps,
            decay, l2, sign, seed=seed,
        )  # fmt: skip
        for row, exact in zip(rows, expected):
            for found, wanted in zip(row, exact):
                close(found, wanted)
    check_sgd(program, seed, rows)
    gradients = [row[1] for row in rows]
    exact_norm = np.sqrt(sum(np.square(g.astype(float)).sum() for g in gradients))
    ((table, grid),) = table_kernels.tables([(g,) for g in gradients], table_kernels.GRADIENTS)
    partial, norm = np.full(grid, np.nan, np.float32), np.full(1, np.nan, np.float32)
    program("squares", grid, 64, table, partial, seed=seed)
    program("root_of_sum", (1,), 64, partial, norm, len(partial), seed=seed)
    close(norm, np.array([exact_norm]))
    before = [g.copy() for g in gradients]
    for limit in (2 * exact_norm, 0.5 * exact_norm):
        program("clip", grid, 64, table, norm, limit, seed=seed)
        for found, g in zip(gradients, before):
            close(found, g.astype(float) * min(1.0, limit / exact_norm))


@covers("scatter_sum")
def check_scatter_sum(program: Program, seed: int) -> None:
    places = np.array([3, 1, 3, 3, 0, 7, 1, *[5] * 20])
    rows = noise(1, len(places), 50)
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], np.arange(10))
    out = np.full((9, 50), np.nan, np.float32)
    program("scatter_sum", (9,), 64, rows, order, starts, out, 50, seed=seed)
    close(out, shape.scatter_sum(places, rows.astype(float), 9))


# attention has a test of its own
FILES = sorted(path.name for path in SOURCES.glob("*.cu") if "attention" not in path.name)
KERNELS = [(file, name) for file in FILES for name in signatures((SOURCES / file).read_text())]


def test_every_kernel_is_run() -> None:
    assert {name for _, name in KERNELS} == set(RUNS)
    assert len(KERNELS) >= 15


# rows held by a warp, and by a block
ROWS = ({}, {"TEAM": 64, "PACKS": 1}, {"TEAM": 64, "PACKS": 2})
SHAPES = {file: ROWS if file in ("layer_norm.cu", "softmax.cu") else ({},) for file in FILES}


@pytest.mark.parametrize(
    ("file", "defines"), [(file, defines) for file in FILES for defines in SHAPES[file]]
)
def test_matches_float64_in_any_warp_order(file: str, defines: dict[str, int]) -> None:
    program = compiled(file, **defines)
    checks = {RUNS[name] for name in program.kernels}
    for check in checks:
        for seed in SEEDS:
            check(program, seed)


MISTAKES = [
    ("layer_norm.cu", "(v[k][j] - mu) * (v[k][j] - mu)", "v[k][j] * v[k][j]"),
    ("layer_norm.cu", "/ width + eps", "/ (width - 1) + eps"),
    ("layer_norm.cu", "(d[k][j] - sum - ", "(d[k][j] - "),
    ("layer_norm.cu", "row += gridDim.x * teams()", "row += gridDim.x"),
    ("layer_norm.cu", "dgain[k][j] += turn ? totals[0][c] : 0.0f", "dgain[k][j]"),
    ("layer_norm.cu", "sum += slots[k][lane];", "sum += slots[0][lane];"),
    ("layer_norm.cu", "(gridDim.x + blockIdx.x) * width", "blockIdx.x * width"),
    ("layer_norm.cu", "  slots[warp][lane] = sum;\n  __syncthreads();",
     "  slots[warp][lane] = sum;"),
    ("layer_norm.cu", "if (lane == 0) slots[warp] = v;\n  __syncthreads();",
     "if (lane == 0) slots[warp] = v;"),
    ("layer_norm.cu", "      }\n      __syncthreads();", "      }"),
    ("softmax.cu", "(v[k][j] - top) * LOG2E", "v[k][j] * LOG2E"),
    ("softmax.cu", "float top = slots[0];", "float top = 0.0f;"),
    ("softmax.cu", "(d[k][j] - dot)", "(d[k][j] + dot)"),
    ("softmax.cu", "(k * TEAM + threadIdx.x % TEAM) * LANES", "(k + threadIdx.x % TEAM) * LANES"),
    ("cross_entropy.cu", "load(row, y) - top", "load(row, y)"),
    ("cross_entropy.cu", "sum *= exp2f((top - larger) * LOG2E);", ""),
    ("cross_entropy.cu", "v[k] == -INFINITY ? 0.0f : ", ""),
    ("cross_entropy.cu", "return -(int)", "return (int)"),
    ("cross_entropy.cu", "i + k == y ? 1.0f : 0.0f", "k == y ? 1.0f : 0.0f"),
    ("cross_entropy.cu", "y == ignore_index ? 0.0f : p * s", "p * s"),
    ("activation.cu", "rest == 0.0f ? 0.0f : ", "x * 0.0f + "),
    ("activation.cu", "3.0f * TANH_CUBE", "2.0f * TANH_CUBE"),
    ("activation.cu", "bias + i % width", "bias"),
    ("activation.cu", "kind == SILU ? 1.0f : ", ""),
    ("activation.cu", "x <= 0.0f ? 0.0f : x", "x"),
    ("activation.cu", "philox(j + 1,", "philox(j,"),
    ("activation.cu", "a.slope * kept", "a.slope"),
    ("activation.cu", "if (k < left) v[k]", "if (k + 1 < left) v[k]"),
    ("activation.cu", "if (k < left) p[k]", "if (k + 1 < left) p[k]"),
    ("dropout.cu", "c0 = high1 ^ c1 ^ k0", "c0 = high1 ^ c1"),
    ("dropout.cu", "k % 2 ? 32 : 0", "k % 2 ? 0 : 32"),
    ("dropout.cu", ">= threshold", "< threshold"),
    ("dropout.cu", "if (residual) load_octet(residual", "if (residual) load_octet(x"),
    ("optimizer.cu", "/ root + eps", "+ eps"),
    ("optimizer.cu", "* decay -", "-"),
    ("optimizer.cu", "sign * g[k] + l2 * p[k]", "sign * g[k] - l2 * p[k]"),
    ("optimizer.cu", "slope + momentum * b[k] : b[k]", "slope : b[k]"),
    ("optimizer.cu", "momentum * b[k] + fresh * slope", "momentum * b[k] + slope"),
    ("optimizer.cu", "table.first[middle] <= chunk", "table.first[middle] < chunk"),
    ("optimizer.cu", "if (factor >= 1.0f) return;", ""),
    ("optimizer.cu", "*norm = sqrtf(sum)", "*norm = sum"),
    ("optimizer.cu", "sum += v[k] * v[k]", "sum += v[k]"),
    ("scatter_sum.cu", "k < last", "k < last - 1"),
]  # fmt: skip


@pytest.mark.slow  # compiles each spoiled kernel anew
@pytest.mark.parametrize(
    ("file", "old", "new"), MISTAKES, ids=[f"{m[0]}-{i}" for i, m in enumerate(MISTAKES)]
)
def test_planted_mistakes_are_caught(file: str, old: str, new: str) -> None:
    def caught(program: Program, name: str, seed: int) -> bool:
        try:
            RUNS[name](program, seed)
        except (AssertionError, RuntimeError):
            return True
        return False

    spoiled = (compiled(file, ((old, new),), **defines) for defines in SHAPES[file])
    assert any(
        caught(program, name, seed) for program in spoiled for name in program.kernels
        for seed in SEEDS
    )  # fmt: skip


def test_a_barrier_that_not_all_reach_is_reported() -> None:
    declaration = "__shared__ float slots[WARP];"
    leave = declaration + " if (threadIdx.x == 40) return;"
    program = compiled("softmax.cu", ((declaration, leave),), TEAM=64, PACKS=1)
    with pytest.raises(RuntimeError, match="left"):
        check_softmax(program, 0)
