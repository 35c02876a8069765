"""Reductions, sorting and search along dimensions: functions and methods of `Tensor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..backend import array_module, default_dtype, is_bfloat16, is_floating, resolve_dtype
from ..kernels import reduction
from .arithmetic import maximum, minimum
from .operands import DType, cast, numpy_names, run, wrap
from .shapes import flatten, gather
from .tape import Tracked, record

if TYPE_CHECKING:
    from .tensor import Tensor

Dim: TypeAlias = "int | tuple[int, ...] | list[int] | None"


class ValuesIndices(NamedTuple):
    """What `max`, `min`, `sort` and `topk` return: the elements, and where they are."""

    values: Any
    indices: Any


def _axis(dim: Dim) -> int | tuple[int, ...] | None:
    # PyTorch reads an empty list of dimensions as all of them
    return (tuple(dim) or None) if isinstance(dim, (tuple, list)) else dim


def _floating(name: str, input: Tensor, dtype: DType = None) -> Tensor:
    if dtype is not None:
        return input.to(dtype)
    if not is_floating(input.array.dtype):
        raise RuntimeError(
            f"{name}: the input must be floating point, found {input.dtype}; use .float(), or "
            "dtype= where it is taken"
        )
    return input


# -- sums --------------------------------------------------------------------------


@numpy_names
def sum(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: DType = None) -> Tensor:
    """Return the sum over `dim`, or over everything; integers are summed in int64."""
    if dtype is None and input.array.dtype.kind in "biu":
        dtype = np.int64
    x = input if dtype is None else cast(input, resolve_dtype(dtype))
    kernels = (reduction.sum_forward, reduction.sum_backward)
    return run(*kernels, x, axis=_axis(dim), keepdims=keepdim)


@numpy_names
def mean(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: DType = None) -> Tensor:
    """Return the mean over `dim`, or over everything."""
    kernels = (reduction.mean_forward, reduction.mean_backward)
    x = _floating("mean", input, dtype)
    return run(*kernels, x, axis=_axis(dim), keepdims=keepdim)


def _spread_options(
    dim: Any, unbiased: bool | None, correction: float | None, keepdim: bool
) -> dict[str, Any]:
    if isinstance(dim, bool):  # var(True): PyTorch's old spelling of unbiased=
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    return {"axis": _axis(dim), "correction": correction, "keepdims": keepdim}


@numpy_names
def var(
    input: Tensor,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Return the variance: squared deviations over ``n - correction``, by default n - 1."""
    options = _spread_options(dim, unbiased, correction, keepdim)
    x = _floating("var", input)
    return run(reduction.var_forward, reduction.var_backward, x, **options)


@numpy_names
def std(
    input: Tensor,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Return the standard deviation, the square root of `var`."""
    options = _spread_options(dim, unbiased, correction, keepdim)
    x = _floating("std", input)
    return run(reduction.std_forward, reduction.std_backward, x, **options)


@numpy_names
def norm(
    input: Tensor, p: float | str | None = "fro", dim: Dim = None, keepdim: bool = False
) -> Tensor:
    """Return the vector norm of order `p`, by default 2, over `dim` or everything."""
    order = 2.0 if p in ("fro", None) else p
    if isinstance(order, str):
        raise RuntimeError(f"norm: p must be a number or 'fro', found {p!r}")
    kernels = (reduction.norm_forward, reduction.norm_backward)
    x = _floating("norm", input)
    return run(*kernels, x, ord=order, axis=_axis(dim), keepdims=keepdim)


@numpy_names
def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: DType = None
) -> Tensor:
    """Return the product along `dim`, or of everything."""
    if dtype is None and input.array.dtype.kind in "biu":
        dtype = np.int64
    x = input if dtype is None else cast(input, resolve_dtype(dtype))
    kernels = (reduction.prod_forward, reduction.prod_backward)
    return run(*kernels, x, axis=dim, keepdims=keepdim)


@numpy_names
def cumsum(input: Tensor, dim: int, *, dtype: DType = None) -> Tensor:
    """Return the running sum along `dim`."""
    if dtype is None and input.array.dtype.kind in "biu":
        dtype = np.int64
    x = input if dtype is None else cast(input, resolve_dtype(dtype))
    return run(reduction.cumsum_forward, reduction.cumsum_backward, x, axis=dim)


@numpy_names
def logsumexp(input: Tensor, dim: Dim, keepdim: bool = False) -> Tensor:
    """Return ``log(sum(exp(input)))`` over `dim`, without overflow."""
    kernels = (reduction.logsumexp_forward, reduction.logsumexp_backward)
    x = input if is_floating(input.array.dtype) else cast(input, default_dtype())
    return run(*kernels, x, axis=_axis(dim), keepdims=keepdim)


# -- extremes ------------------------------------------------------------------------


@numpy_names
def amax(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the largest elements over `dim`; equal ones share the gradient."""
    kernels = (reduction.amax_forward, reduction.amax_backward)
    return run(*kernels, input, axis=_axis(dim), keepdims=keepdim)


@numpy_names
def amin(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the smallest elements over `dim`; equal ones share the gradient."""
    kernels = (reduction.amin_forward, reduction.amin_backward)
    return run(*kernels, input, axis=_axis(dim), keepdims=keepdim)


@numpy_names
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Return the largest element; along `dim`, (values, indices); of two tensors, the larger."""
    if isinstance(dim, Tracked) or other is not None:
        return maximum(input, other if dim is None else dim)
    if dim is None:
        return amax(input)
    kernels = (reduction.max_forward, reduction.max_backward)
    return ValuesIndices(*record(*kernels, input, axis=dim, keepdims=keepdim))


@numpy_names
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Return the smallest element; along `dim`, (values, indices); of two tensors, the smaller."""
    if isinstance(dim, Tracked) or other is not None:
        return minimum(input, other if dim is None else dim)
    if dim is None:
        return amin(input)
    kernels = (reduction.min_forward, reduction.min_backward)
    return ValuesIndices(*record(*kernels, input, axis=dim, keepdims=keepdim))


@numpy_names
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return where the largest elements are, counted in the flat tensor without `dim`."""
    return _where_extreme("argmax", input, dim, keepdim)


@numpy_names
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return where the smallest elements are, counted in the flat tensor without `dim`."""
    return _where_extreme("argmin", input, dim, keepdim)


def _where_extreme(name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    x = input.array
    if x.size == 0:
        raise IndexError(f"{name}: a tensor of shape {x.shape} has no elements to choose from")
    reduction.reduced_axes(dim, x.ndim)
    found = array_module(x).asarray(getattr(x, name)(axis=dim if x.ndim else None))
    if keepdim:
        ones = (1,) * x.ndim
        found = found.reshape(ones) if dim is None else array_module(x).expand_dims(found, dim)
    return wrap(found)


# -- order -----------------------------------------------------------------------------


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Return the indices that sort `input` along `dim`; equal elements keep their order."""
    x = input.array
    if x.ndim == 0:
        return wrap(array_module(x).zeros((), dtype=np.int64))
    reduction.reduced_axes(dim, x.ndim)
    if not descending:
        return wrap(_stable(x, dim))
    xp = array_module(x)
    backwards = xp.flip(_stable(xp.flip(x, dim), dim), dim)
    return wrap(x.shape[dim] - 1 - backwards)


def _stable(x: Any, axis: int) -> Any:
    xp = array_module(x)
    x = _sortable(x)
    return x.argsort(axis=axis, kind="stable") if xp is np else xp.argsort(x, axis=axis)


def _sortable(x: Any) -> Any:
    """Return `x` in a type that CuPy sorts: bfloat16 as float32, which keeps its order."""
    return x.astype(np.float32) if is_bfloat16(x.dtype) else x


def sort(
    input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False
) -> ValuesIndices:
    """Return the elements in order along `dim`, and where each came from."""
    indices = argsort(input, dim, descending, stable)
    return ValuesIndices(gather(input, dim, indices), indices)


def topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> ValuesIndices:
    """Return the `k` largest (or smallest) elements along `dim`, in order."""
    x = _sortable(input.array)
    xp = array_module(x)
    n = x.shape[dim] if x.ndim else 1
    if not 0 <= k <= n:
        raise RuntimeError(f"topk: k = {k} is not between 0 and the length {n} of dim {dim}")
    if x.ndim == 0 or k == 0 or k == n:
        indices = argsort(input, dim, descending=largest).array
        indices = indices if k else indices.take(xp.arange(0), axis=dim)
    else:
        chosen = xp.arange(n - k, n) if largest else xp.arange(k)
        first = n - k if largest else k - 1
        part = xp.argpartition(x, first, axis=dim).take(chosen, axis=dim)
        order = argsort(wrap(xp.take_along_axis(x, part, axis=dim)), dim, descending=largest)
        indices = xp.take_along_axis(part, order.array, axis=dim)
    found = wrap(indices)
    return ValuesIndices(gather(input, dim, found), found)


def unique(input: Tensor, sorted: bool = True, return_counts: bool = False) -> Any:
    """Return the distinct elements in order, and how often each occurs if asked."""
    xp = array_module(input.array)
    found = xp.unique(_sortable(input.array), return_counts=return_counts)
    values, *counts = found if return_counts else (found,)
    values = wrap(values.astype(input.array.dtype, copy=False))
    return (values, *map(wrap, counts)) if return_counts else values


def bincount(input: Tensor, minlength: int = 0) -> Tensor:
    """Return how often each of 0, 1, 2, ... occurs."""
    return wrap(array_module(input.array).bincount(input.array, minlength=minlength))


# -- truth -------------------------------------------------------------------------------


@numpy_names
def any(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return whether one element is true, along `dim` or at all."""
    return wrap(array_module(input.array).any(input.array, axis=_axis(dim), keepdims=keepdim))


@numpy_names
def all(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return whether every element is true, along `dim` or at all."""
    return wrap(array_module(input.array).all(input.array, axis=_axis(dim), keepdims=keepdim))


def count_nonzero(input: Tensor, dim: Dim = None) -> Tensor:
    """Return how many elements are not zero."""
    return wrap((input.array != 0).sum(axis=_axis(dim)))


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the lower median; along `dim`, (values, indices)."""
    if dim is None:
        x = flatten(input)
        return gather(x, 0, wrap(argsort(x).array[(x.numel() - 1) // 2 :][:1])).squeeze(0)
    order = argsort(input, dim)
    middle = order.narrow(dim, (input.size(dim) - 1) // 2, 1)
    values = gather(input, dim, middle)
    return ValuesIndices(
        *((values, middle) if keepdim else (values.squeeze(dim), middle.squeeze(dim)))
    )
