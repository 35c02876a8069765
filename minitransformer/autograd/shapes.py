"""Views, joins, cuts and selections: functions and methods of `Tensor`."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, array_module
from ..kernels import elementwise
from ..kernels import shape as kernels
from ..kernels.reduction import reduced_axes
from .operands import cast, numpy_names, raw, result_type, run, wrap
from .tape import Tracked, record

if TYPE_CHECKING:
    from .tensor import Tensor


def _view(base: Tensor, *call: Any, **options: Any) -> Tensor:
    """Record a kernel that returns a view; changes in place are counted for both."""
    result: Tensor = run(call[0], call[1], base, **options)
    result.version = base.version
    return result


def _sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Return a shape given as ``f(2, 3)`` or ``f((2, 3))``."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    return tuple(operator.index(n) for n in shape)


def axis_of(name: str, dim: int, ndim: int) -> int:
    """Return `dim` counted from the front; IndexError if there is no such dimension."""
    if not -ndim <= dim < ndim:
        raise IndexError(
            f"{name}: dim {dim} is out of range, expected {-ndim} to {ndim - 1}"
            if ndim
            else f"{name}: a tensor without dimensions has no dim {dim}"
        )
    return dim % ndim


# -- the same elements in another shape ----------------------------------------------


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """Return the elements in another shape; one length may be -1. A view where possible."""
    return _reshape("reshape", input, _sizes(shape))


def _reshape(name: str, input: Tensor, shape: tuple[int, ...]) -> Tensor:
    known = math.prod(n for n in shape if n != -1)
    size, free = input.array.size, shape.count(-1)
    fits = (known != 0 and size % known == 0) if free == 1 else (free == 0 and size == known)
    if not fits or any(n < -1 for n in shape):
        raise RuntimeError(
            f"{name}: shape {shape} is invalid for the {size} elements of a tensor of shape "
            f"{input.array.shape}"
        )
    out: Tensor = run(kernels.reshape_forward, kernels.reshape_backward, input, shape=shape)
    if _share(out, input):
        out.version = input.version
    return out


def _share(a: Tensor, b: Tensor) -> bool:
    return bool(array_module(a.array).may_share_memory(a.array, b.array))


def view(input: Tensor, *shape: Any) -> Tensor:
    """Return a view of the elements in another shape.

    Raises
    ------
    RuntimeError
        If the memory has another order than the shape needs, as after `transpose`.
    """
    if len(shape) == 1 and isinstance(shape[0], (np.dtype, type)):
        raise NotImplementedError("view(dtype) is not supported; use .to(dtype) to convert")
    out = _reshape("view", input, _sizes(shape))
    if out.array.size and not _share(out, input):
        raise RuntimeError(
            f"view: shape {tuple(out.array.shape)} would need a copy of a tensor of shape "
            f"{input.array.shape} whose memory has another order; use .reshape(), or "
            ".contiguous() first"
        )
    return out


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """Return a view in the shape of `other`."""
    return view(input, other.array.shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """Return the elements in the shape of `other`."""
    return reshape(input, other.array.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Return the tensor with dimensions `start_dim` to `end_dim` made one."""
    shape = input.array.shape
    if not shape:
        return reshape(input, 1)
    start, end = (axis_of("flatten", d, len(shape)) for d in (start_dim, end_dim))
    if start > end:
        raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    merged = math.prod(shape[start : end + 1])
    return reshape(input, shape[:start] + (merged,) + shape[end + 1 :])


def ravel(input: Tensor) -> Tensor:
    """Return the elements in one dimension."""
    return reshape(input, -1)


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Return the tensor with dimension `dim` made several."""
    shape = input.array.shape
    axis = axis_of("unflatten", dim, len(shape))
    known = math.prod(n for n in sizes if n != -1)
    if -1 in sizes and known and shape[axis] % known == 0:
        sizes = tuple(shape[axis] // known if n == -1 else n for n in sizes)
    if math.prod(sizes) != shape[axis]:
        raise RuntimeError(
            f"unflatten: sizes {tuple(sizes)} do not multiply to {shape[axis]}, the length of dim "
            f"{dim}"
        )
    return reshape(input, shape[:axis] + tuple(sizes) + shape[axis + 1 :])


def permute(input: Tensor, *dims: Any) -> Tensor:
    """Return the view whose dimensions are `dims` of the tensor."""
    order = _sizes(dims)
    ndim = input.array.ndim
    if sorted(axis_of("permute", d, ndim) for d in order) != list(range(ndim)):
        raise RuntimeError(f"permute: dims {order} must name each of {ndim} dimensions once")
    return _view(input, kernels.transpose_forward, kernels.transpose_backward, axes=order)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Return the view with two dimensions exchanged."""
    ndim = input.array.ndim
    if ndim == 0 and dim0 in (0, -1) and dim1 in (0, -1):
        return permute(input, ())
    a, b = axis_of("transpose", dim0, ndim), axis_of("transpose", dim1, ndim)
    order = list(range(ndim))
    order[a], order[b] = b, a
    return _view(input, kernels.transpose_forward, kernels.transpose_backward, axes=tuple(order))


swapaxes = transpose


def t(input: Tensor) -> Tensor:
    """Return the transpose of a matrix; a vector stays as it is."""
    if input.array.ndim > 2:
        raise RuntimeError(f"t: expected at most 2 dimensions, found {input.array.ndim}")
    return transpose(input, 0, 1) if input.array.ndim == 2 else permute(input, range_of(input))


def range_of(input: Tensor) -> tuple[int, ...]:
    """Return the numbers of all dimensions, in order."""
    return tuple(range(input.array.ndim))


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Return the view with dimensions `source` moved to `destination`."""
    ndim = input.array.ndim
    from_ = reduced_axes(tuple(source) if isinstance(source, (list, tuple)) else source, ndim)
    to = reduced_axes(
        tuple(destination) if isinstance(destination, (list, tuple)) else destination, ndim
    )
    order = [d for d in range(ndim) if d not in from_]
    for target, d in sorted(zip(to, from_)):
        order.insert(target, d)
    return permute(input, order)


def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Return the tensor without its dimensions of length 1, or without `dim` if it is one."""
    shape = input.array.shape
    dims = tuple(dim) if isinstance(dim, (list, tuple)) else dim
    axes = reduced_axes(dims, len(shape))
    return reshape(input, tuple(n for i, n in enumerate(shape) if n != 1 or i not in axes))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Return the tensor with a new dimension of length 1 at `dim`."""
    shape = input.array.shape
    axis = axis_of("unsqueeze", dim, len(shape) + 1)
    return reshape(input, shape[:axis] + (1,) + shape[axis:])


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Return a view that repeats dimensions of length 1; -1 keeps a length."""
    wanted, shape = _sizes(sizes), input.array.shape
    lead = len(wanted) - len(shape)
    full = tuple(shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(wanted))
    fits = lead >= 0 and all(n in (1, m) for n, m in zip(shape, full[max(lead, 0) :]))
    if not fits or any(n < 0 for n in full):
        raise RuntimeError(
            f"expand: shape {shape} cannot be expanded to {wanted}: only dimensions of length 1, "
            "and new ones in front, can be repeated"
        )
    return _view(input, kernels.expand_forward, kernels.expand_backward, shape=full)


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """Return a view repeated to the shape of `other`."""
    return expand(input, other.array.shape)


def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a view repeated to `shape`."""
    return expand(input, tuple(shape))


def repeat(input: Tensor, *sizes: Any) -> Tensor:
    """Return copies of the tensor side by side, ``sizes[i]`` of them along dimension i."""
    times, shape = _sizes(sizes), input.array.shape
    if len(times) < len(shape):
        raise RuntimeError(
            f"repeat: {len(times)} repeats for {len(shape)} dimensions; give one for each, and "
            "more in front for new ones"
        )
    shape = (1,) * (len(times) - len(shape)) + shape
    between = [n for pair in zip((1,) * len(shape), shape) for n in pair]
    wide = [n for pair in zip(times, shape) for n in pair]
    repeated = expand(reshape(input, between), wide)
    return reshape(repeated, tuple(r * n for r, n in zip(times, shape))).contiguous()


def tile(input: Tensor, dims: Sequence[int]) -> Tensor:
    """Return copies side by side, as `repeat`, with missing repeats taken as 1."""
    return repeat(input, (1,) * (input.array.ndim - len(dims)) + tuple(dims))


def repeat_interleave(input: Tensor, repeats: Any, dim: int | None = None) -> Tensor:
    """Return the tensor with each element repeated in place, along `dim` or flattened."""
    x = flatten(input) if dim is None else input
    axis = axis_of("repeat_interleave", 0 if dim is None else dim, x.array.ndim)
    xp = array_module(x.array)
    times = raw(repeats)
    times = times.tolist() if hasattr(times, "tolist") else times
    return index_select(x, axis, wrap(xp.asarray(np.repeat(np.arange(x.array.shape[axis]), times))))


def flip(input: Tensor, *dims: Any) -> Tensor:
    """Return a copy with the order reversed along `dims`."""
    out: Tensor = run(kernels.flip_forward, kernels.flip_backward, input, axis=_sizes(dims))
    return out.contiguous()


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Return a copy moved by `shifts` along `dims`, around the ends."""
    as_tuple = tuple(shifts) if isinstance(shifts, (list, tuple)) else shifts
    axes = tuple(dims) if isinstance(dims, (list, tuple)) else dims
    if isinstance(as_tuple, tuple) and axes is None:
        as_tuple = sum(as_tuple)
    return run(kernels.roll_forward, kernels.roll_backward, input, shifts=as_tuple, axis=axes)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """Return the lower triangle, zero above `diagonal`."""
    _matrix("tril", input)
    return run(kernels.tril_forward, kernels.tril_backward, input, diagonal=diagonal)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """Return the upper triangle, zero below `diagonal`."""
    _matrix("triu", input)
    return run(kernels.triu_forward, kernels.triu_backward, input, diagonal=diagonal)


def _matrix(name: str, input: Tensor) -> None:
    if input.array.ndim < 2:
        raise RuntimeError(
            f"{name}: expected at least 2 dimensions, found shape {input.array.shape}"
        )


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """Return the diagonal of two dimensions as the last dimension."""
    a, b = (axis_of("diagonal", d, input.array.ndim) for d in (dim1, dim2))
    moved = movedim(input, (a, b), (0, 1))
    rows, columns = moved.array.shape[:2]
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    xp = array_module(input.array)
    i = xp.arange(length)
    index = (i - min(offset, 0), i + max(offset, 0))
    picked = run(kernels.index_forward, kernels.index_backward, moved, index=index)
    return movedim(picked, 0, -1)


_diagonal = diagonal  # `diag` has an argument of that name


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """Return the diagonal of a matrix, or the matrix with a vector on its diagonal."""
    if input.array.ndim == 2:
        return _diagonal(input, diagonal)
    if input.array.ndim != 1:
        raise RuntimeError(f"diag: expected a vector or a matrix, found shape {input.shape}")
    xp, n = array_module(input.array), input.array.size + abs(diagonal)
    i = xp.arange(input.array.size)
    index = (i - min(diagonal, 0), i + max(diagonal, 0))
    empty = wrap(xp.zeros((n, n), dtype=input.array.dtype))
    return run(kernels.assign_forward, kernels.assign_backward, empty, input, index=index)


# -- joining and cutting -----------------------------------------------------------------


def _alike(name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"{name}: expected a list or tuple of tensors, found {_kind(tensors)}")
    if not tensors:
        raise RuntimeError(f"{name}: expected at least one tensor, found an empty list")
    for i, x in enumerate(tensors):
        if not isinstance(x, Tracked):
            raise TypeError(f"{name}: element {i} must be a Tensor, found {_kind(x)}")
    places = {str(x.device) for x in tensors}
    if len(places) > 1:
        raise RuntimeError(f"{name}: tensors on different devices, {' and '.join(sorted(places))}")
    dtype = result_type(*tensors)
    return [cast(x, dtype) for x in tensors]


def _kind(x: object) -> str:
    return type(x).__name__


@numpy_names
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return the tensors one after another along `dim`."""
    xs = _alike("cat", tensors)
    xs = [x for x in xs if x.array.shape != (0,)] or xs[:1]  # PyTorch skips empty vectors
    axis = axis_of("cat", dim, xs[0].array.ndim)
    shapes = [x.array.shape for x in xs]
    if len({s[:axis] + (0,) + s[axis + 1 :] for s in shapes}) > 1:
        raise RuntimeError(f"cat: shapes {shapes} must be equal except in dim {dim}")
    return run(kernels.concat_forward, kernels.concat_backward, *xs, axis=axis)


concat = concatenate = cat


@numpy_names
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return tensors of one shape along a new dimension `dim`."""
    xs = _alike("stack", tensors)
    if len({x.array.shape for x in xs}) > 1:
        raise RuntimeError(f"stack: shapes {[x.array.shape for x in xs]} must be equal")
    axis = axis_of("stack", dim, xs[0].array.ndim + 1)
    return run(kernels.stack_forward, kernels.stack_backward, *xs, axis=axis)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Return the tensors side by side: along dim 1, or 0 for vectors."""
    return cat(tensors, 1 if tensors[0].array.ndim > 1 else 0)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Return the tensors below one another, vectors as rows."""
    return cat([x if x.array.ndim > 1 else reshape(x, 1, -1) for x in tensors], 0)


def split(input: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Return views of `split_size` elements along `dim`, or of the given lengths."""
    axis = axis_of("split", dim, input.array.ndim)
    n = input.array.shape[axis]
    if isinstance(split_size_or_sections, (list, tuple)):
        sizes = [operator.index(s) for s in split_size_or_sections]
    else:
        step = operator.index(split_size_or_sections)
        if step < 1 and n:
            raise RuntimeError(f"split: split_size must be positive, found {step}")
        sizes = [min(step, n - i) for i in range(0, n, step)] if n else [0]
    out: tuple[Tensor, ...] = record(
        kernels.split_forward, kernels.split_backward, input, sizes=sizes, axis=axis
    )
    for piece in out:
        piece.version = input.version
    return out


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Return at most `chunks` views of equal length along `dim`, the last one shorter."""
    if chunks < 1:
        raise RuntimeError(f"chunk: chunks must be positive, found {chunks}")
    n = input.array.shape[axis_of("chunk", dim, input.array.ndim)]
    return split(input, max(1, -(-n // chunks)), dim)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Return the slices along `dim`."""
    axis = axis_of("unbind", dim, input.array.ndim)
    n = input.array.shape[axis]
    return tuple(squeeze(piece, axis) for piece in split(input, 1, axis)) if n else ()


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """Return the view of `length` elements from `start` on along `dim`."""
    axis = axis_of("narrow", dim, input.array.ndim)
    n = input.array.shape[axis]
    start = start + n if start < 0 else start
    if not 0 <= start <= start + length <= n:
        raise RuntimeError(
            f"narrow: start {start} and length {length} exceed dim {dim} of length {n}"
        )
    return select_index(input, (slice(None),) * axis + (slice(start, start + length),))


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Return the windows of `size` elements, `step` apart, along a dimension; they come last."""
    axis = axis_of("unfold", dimension, input.array.ndim)
    n = input.array.shape[axis]
    if not 0 <= size <= n or step < 1:
        raise RuntimeError(
            f"unfold: windows of {size} in steps of {step} do not fit dim {dimension} of length {n}"
        )
    xp = array_module(input.array)
    places = xp.arange(0, n - size + 1, step)[:, None] + xp.arange(size)
    return movedim(getitem(input, (slice(None),) * axis + (wrap(places),)), axis + 1, -1)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """Return the view of slice `index` along `dim`."""
    axis = axis_of("select", dim, input.array.ndim)
    return select_index(input, (slice(None),) * axis + (index,))


# -- selection -----------------------------------------------------------------------------


def split_index(x: Array, index: Any) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
    """Return an index as a basic one, which gives a view, and one of arrays upon it, or None.

    NumPy lets an integer beside an index array take part in the broadcasting of
    arrays; PyTorch selects with the integers first. Two steps do as PyTorch does.
    """
    xp = array_module(x)
    given = index if isinstance(index, tuple) else (index,)
    parts: list[Any] = [_index_part(p, xp) for p in given]
    covered = [_covered(p) for p in parts]
    if sum(covered) > x.ndim:
        raise IndexError(
            f"too many indices: {sum(covered)} for a tensor of {x.ndim} dimensions, shape {x.shape}"
        )
    at = next((i for i, p in enumerate(parts) if p is Ellipsis), len(parts))
    if not any(hasattr(p, "dtype") for p in parts):
        # with an Ellipsis NumPy returns a view, never a scalar
        return tuple(parts) + ((...,) if at == len(parts) else ()), None
    parts[at : at + 1] = [slice(None)] * (x.ndim - sum(covered))
    basic: list[Any] = []
    inner: list[Any] = []
    for p in parts:
        if hasattr(p, "dtype"):
            basic += [slice(None)] * _covered(p)
            inner.append(p)
        else:
            basic.append(p)
            inner += [] if isinstance(p, int) else [slice(None)]
    while isinstance(inner[-1], slice):
        inner.pop()
    return tuple(basic), tuple(inner)


def _covered(p: Any) -> int:
    """Return how many dimensions one part of an index takes up."""
    if p is None or p is Ellipsis:
        return 0
    return int(p.ndim) if hasattr(p, "dtype") and p.dtype.kind == "b" else 1


def _index_part(p: Any, xp: Any) -> Any:
    """Return one part of an index as an int, a slice, None, Ellipsis or an array of `xp`."""
    if isinstance(p, Tracked):
        p = p.array
    if isinstance(p, (list, range)):
        p = np.asarray([raw(q) for q in p])
        p = p.astype(np.int64) if p.size == 0 else p
    if isinstance(p, slice):
        if p.step is not None and operator.index(p.step) < 1:
            raise ValueError(f"slice step must be greater than zero, found {p.step}; use flip()")
        return slice(*(None if q is None else operator.index(q) for q in (p.start, p.stop, p.step)))
    if p is None or p is Ellipsis:
        return p
    if isinstance(p, (bool, np.bool_)):
        return xp.asarray(p)
    kind = getattr(p, "dtype", np.dtype(np.int64)).kind
    if kind not in "iub":
        raise IndexError(f"tensors used as indices must be integer or bool, found {p.dtype}")
    if getattr(p, "ndim", 0) == 0 and kind != "b":
        try:
            return operator.index(p.item() if hasattr(p, "item") else p)
        except TypeError:
            raise TypeError(f"an index cannot be of type {_kind(p)}") from None
    return xp.asarray(p)


def getitem(input: Tensor, index: Any) -> Tensor:
    """Return ``input[index]``: a view for integers and slices, a copy for masks and arrays."""
    basic, inner = split_index(input.array, index)
    if inner is None:
        return select_index(input, basic)
    if any(not isinstance(p, slice) or p != slice(None) for p in basic):
        input = select_index(input, basic)
    return run(kernels.index_forward, kernels.index_backward, input, index=inner)


def select_index(input: Tensor, index: tuple[Any, ...]) -> Tensor:
    """Return ``input[index]`` for an index as the kernel takes it."""
    return _view(input, kernels.index_forward, kernels.index_backward, index=index)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Return the slices along `dim` that a vector of integers names."""
    axis = axis_of("index_select", dim, input.array.ndim)
    ids = raw(index).reshape(-1)
    kernels.check_range(ids, input.array.shape[axis], f"index_select along dim {dim}", False)
    place = (slice(None),) * axis + (ids,)
    return run(kernels.index_forward, kernels.index_backward, input, index=place)


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Return the elements along `dim` that `index` names, place by place."""
    ids = raw(index)
    if ids.dtype.kind not in "iu":
        raise RuntimeError(f"gather: index must be an integer tensor, found {ids.dtype}")
    if input.array.ndim == 0:
        return reshape(gather(reshape(input, 1), 0, wrap(ids.reshape(-1))), ids.shape)
    axis = axis_of("gather", dim, input.array.ndim)
    return run(kernels.gather_forward, kernels.gather_backward, input, ids, axis=axis)


def take_along_dim(input: Tensor, indices: Tensor, dim: int) -> Tensor:
    """Return the elements along `dim` that `indices` names."""
    return gather(input, dim, indices)


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """Return the elements where `mask` is true, in one dimension."""
    shape = np.broadcast_shapes(input.array.shape, mask.array.shape)
    return getitem(expand(input, shape), expand(mask, shape))


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Return the indices of the elements that are not zero, one row for each."""
    xp = array_module(input.array)
    found = xp.nonzero(xp.atleast_1d(input.array))[: max(input.array.ndim, 1)]
    if as_tuple:
        return tuple(wrap(i) for i in found)
    return wrap(xp.stack(found, axis=1)[:, : input.array.ndim])


def contiguous(input: Tensor) -> Tensor:
    """Return the tensor itself if its memory is in order, otherwise a copy."""
    if input.array.flags.c_contiguous:
        return input
    return run(elementwise.copy_forward, elementwise.copy_backward, input, order="C")


def clone(input: Tensor) -> Tensor:
    """Return a copy that passes its gradient on."""
    return run(elementwise.copy_forward, elementwise.copy_backward, input)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Return the coordinates of a grid, one tensor for each vector."""
    vectors = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    shape = tuple(v.array.size for v in vectors)
    grids = [
        expand(reshape(v, tuple(-1 if j == i else 1 for j in range(len(shape)))), shape)
        for i, v in enumerate(vectors)
    ]
    return tuple(transpose(g, 0, 1) if indexing == "xy" and len(grids) > 1 else g for g in grids)
