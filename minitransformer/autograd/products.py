"""Products of vectors, matrices and stacks of matrices: functions and methods of `Tensor`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..kernels import linear
from .arithmetic import add, mul
from .operands import matched, run
from .precision import as_one_operation, is_autocast_enabled
from .reductions import sum
from .shapes import diagonal, expand, permute, reshape, unsqueeze
from .tape import Tracked

if TYPE_CHECKING:
    from .tensor import Tensor


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Return the matrix product; leading dimensions broadcast, vectors are rows or columns."""
    for x, label in ((input, "input"), (other, "other")):
        if not isinstance(x, Tracked):
            raise TypeError(f"matmul: argument '{label}' must be Tensor, found {type(x).__name__}")
    a, b = input.array, other.array
    if a.dtype == b.dtype:
        matched("matmul", input, other)
    elif not is_autocast_enabled():
        raise RuntimeError(
            f"matmul: dtypes differ, {a.dtype} and {b.dtype}; convert one with .to()"
        )
    if a.ndim == 0 or b.ndim == 0:
        raise RuntimeError(
            f"matmul: both arguments need at least 1 dimension, found {a.shape} and {b.shape}"
        )
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0] or not _stacks(a.shape[:-2], b.shape[:-2]):
        raise RuntimeError(
            f"matmul: shapes {a.shape} and {b.shape} cannot be multiplied: the last dimension of "
            "the first must be the last but one of the second, and leading ones must broadcast"
        )
    return run(linear.matmul_forward, linear.matmul_backward, input, other)


def _stacks(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(n == m or 1 in (n, m) for n, m in zip(reversed(a), reversed(b)))


def _dims(name: str, *expected: tuple[Tensor, int]) -> None:
    if any(x.array.ndim != n for x, n in expected):
        raise RuntimeError(
            f"{name}: expected tensors of {', '.join(str(n) for _, n in expected)} dimensions, "
            f"found shapes {', '.join(str(x.array.shape) for x, _ in expected)}"
        )


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Return the product of two matrices."""
    _dims("mm", (input, 2), (mat2, 2))
    return matmul(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Return the products of two stacks of matrices, of equal length."""
    _dims("bmm", (input, 3), (mat2, 3))
    if input.array.shape[0] != mat2.array.shape[0]:
        raise RuntimeError(
            f"bmm: stacks of different length, shapes {input.array.shape} and {mat2.array.shape}"
        )
    return matmul(input, mat2)


@as_one_operation
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Return the product of a matrix and a vector."""
    _dims("mv", (input, 2), (vec, 1))
    return matmul(input, vec)


@as_one_operation
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Return the inner product of two vectors."""
    _dims("dot", (input, 1), (tensor, 1))
    return matmul(input, tensor)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """Return the matrix of all products of two vectors' elements."""
    _dims("outer", (input, 1), (vec2, 1))
    return mul(unsqueeze(input, 1), unsqueeze(vec2, 0))


@as_one_operation
def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """Return ``beta * input + alpha * (mat1 @ mat2)``."""
    return add(_scaled(input, beta), mm(mat1, mat2), alpha=alpha)


@as_one_operation
def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """Return ``beta * input + alpha * (batch1 @ batch2)`` for stacks of matrices."""
    return add(_scaled(input, beta), bmm(batch1, batch2), alpha=alpha)


def _scaled(x: Tensor, beta: float) -> Tensor:
    return x if beta == 1 else mul(x, beta)


@as_one_operation
def einsum(equation: str, *operands: Any) -> Tensor:
    """Return the sum of products that Einstein's notation names.

    Parameters
    ----------
    equation : str
        As in ``"bhqd,bhkd->bhqk"``. A letter that the result lacks is summed over; a
        letter twice in one operand takes its diagonal; ``...`` stands for leading
        dimensions that broadcast; without ``->`` the letters that occur once follow in
        alphabetical order.
    *operands : Tensor
        One for each part of the equation, or a list of them.

    Returns
    -------
    Tensor

    Raises
    ------
    RuntimeError
        If the equation and the shapes do not fit; the message says where.

    Notes
    -----
    Operands are contracted from left to right, each pair as one stack of matrix
    products, after summing over letters that nothing later needs.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.einsum("ij,kj->ik", mt.ones(2, 3), mt.ones(4, 3)).shape
    torch.Size([2, 4])
    """
    xs: Sequence[Tensor] = operands[0] if isinstance(operands[0], (list, tuple)) else operands
    terms, result = _parse(equation, xs)
    sizes: dict[str, int] = {}
    parts: list[tuple[str, Tensor]] = []
    for term, x in zip(terms, xs):
        for letter, n in zip(term, x.array.shape):
            known = sizes.setdefault(letter, n)
            if n != known and 1 not in (n, known):
                raise RuntimeError(
                    f"einsum {equation!r}: letter {letter!r} has length {known} and {n} in shapes "
                    f"{[tuple(y.array.shape) for y in xs]}"
                )
            sizes[letter] = max(known, n) if 0 not in (known, n) else 0
        parts.append(_diagonals(term, x))
    left, x = parts[0]
    for i, (right, y) in enumerate(parts[1:], start=1):
        needed = set(result).union(*(term for term, _ in parts[i + 1 :]))
        left, x = _contract(left, x, right, y, needed, sizes)
    left, x = _keep(left, x, set(result))
    return permute(x, [left.index(letter) for letter in result])


def _parse(equation: str, xs: Sequence[Tensor]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result, with ``...`` written out."""
    text = equation.replace(" ", "")
    inputs, arrow, result = text.partition("->")
    terms = inputs.split(",")
    if len(terms) != len(xs):
        raise RuntimeError(
            f"einsum {equation!r}: {len(terms)} operands in the equation, {len(xs)} given"
        )
    letters = text.replace("...", "").replace(",", "").replace("->", "")
    if letters and not (letters.isalpha() and letters.isascii()):
        raise RuntimeError(f"einsum {equation!r}: dimensions are named by letters")
    # Digits name the dimensions that "..." stands for, counted from the last.
    extra = [x.array.ndim - len(t.replace("...", "")) for t, x in zip(terms, xs)]
    for term, x, n in zip(terms, xs, extra):
        if n < 0 or (n > 0 and "..." not in term):
            raise RuntimeError(
                f"einsum {equation!r}: {term!r} does not name the dimensions of an operand of "
                f"shape {x.array.shape}"
            )
    dots = "".join(chr(ord("0") + i) for i in reversed(range(max(extra))))
    full = [t.replace("...", dots[len(dots) - n :]) for t, n in zip(terms, extra)]
    if arrow:
        out = result.replace("...", dots)
    else:
        out = dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if len(set(out)) < len(out) or not set(out) <= set("".join(full)):
        raise RuntimeError(
            f"einsum {equation!r}: the result must name letters of the operands, each once"
        )
    return full, out


def _diagonals(term: str, x: Tensor) -> tuple[str, Tensor]:
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            a = term.index(letter)
            b = term.index(letter, a + 1)
            x = diagonal(x, 0, a, b)
            term = term[:a] + term[a + 1 : b] + term[b + 1 :] + letter
    return term, x


def _keep(term: str, x: Tensor, needed: set[str]) -> tuple[str, Tensor]:
    """Sum over the letters that nobody needs."""
    spare = [i for i, letter in enumerate(term) if letter not in needed]
    if not spare:
        return term, x
    return "".join(c for c in term if c in needed), sum(x, tuple(spare))


def _contract(
    left: str, x: Tensor, right: str, y: Tensor, needed: set[str], sizes: dict[str, int]
) -> tuple[str, Tensor]:
    left, x = _keep(left, x, needed | set(right))
    right, y = _keep(right, y, needed | set(left))
    both = [c for c in left if c in right]
    batch = "".join(c for c in both if c in needed)
    summed = "".join(c for c in both if c not in needed)
    rows = "".join(c for c in left if c not in right)
    columns = "".join(c for c in right if c not in left)
    if not summed:  # nothing to sum: a product with broadcasting
        order = batch + rows + columns
        return order, mul(_spread(left, x, order), _spread(right, y, order))

    def matrices(term: str, z: Tensor, first: str, second: str) -> Tensor:
        z = permute(z, [term.index(c) for c in batch + first + second])
        shape = [sizes[c] for c in batch + first + second]
        if tuple(shape) != z.array.shape:
            z = expand(z, shape)  # a length of 1 against a longer one
        return reshape(z, [sizes[c] for c in batch] + [_length(first), _length(second)])

    def _length(term: str) -> int:
        return math.prod(sizes[c] for c in term)

    product = matmul(matrices(left, x, rows, summed), matrices(right, y, summed, columns))
    order = batch + rows + columns
    return order, reshape(product, [sizes[c] for c in order])


def _spread(term: str, x: Tensor, order: str) -> Tensor:
    """Permute `x` to `order`, with length 1 for the letters it lacks."""
    x = permute(x, [term.index(c) for c in order if c in term])
    lengths = iter(x.array.shape)
    return reshape(x, [next(lengths) if c in term else 1 for c in order])


@as_one_operation
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Return ``x1 . x2 / max(|x1| |x2|, eps)`` along `dim`."""
    return x1.mul(x2).sum(dim) / (x1.norm(dim=dim).clamp(eps) * x2.norm(dim=dim).clamp(eps))
