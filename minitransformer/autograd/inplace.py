"""Changes in place: the methods of `Tensor` that end in an underscore, and assignment.

Off the tape, the array itself is written and its version counter raised; a kernel
that saved it notices at `backward`. On the tape, the tensor takes over the result
of the recorded operation and a new array, so that what earlier operations saved
stays as it was. That is refused where other tensors still share the memory: they
would neither see the new values nor their gradient.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Key, array_module, is_floating, next_key, normal, random_integers, uniform
from ..kernels import shape as kernels
from . import arithmetic, shapes
from .operands import cast, is_scalar, raw, wrap
from .tape import Tracked, is_grad_enabled, record

if TYPE_CHECKING:
    from .tensor import Tensor


def _references(x: Tracked) -> int:
    return sys.getrefcount(x.version)


# What a tensor counts whose version no view and no saved array shares.
_ALONE = _references(Tracked(np.zeros(1)))


def _recorded(name: str, x: Tensor, *others: Any) -> bool:
    """Return whether a change of `x` goes on the tape; refuse one that must not be made.

    Raises
    ------
    RuntimeError
        If `x` is a leaf that requires a gradient, or shares its memory.
    """
    wanted = x.requires_grad or any(isinstance(o, Tracked) and o.requires_grad for o in others)
    if not (wanted and is_grad_enabled()):
        if not isinstance(x.array, np.ndarray) or x.array.flags.writeable:
            return False
        raise RuntimeError(
            f"{name}: several elements of this tensor share one place in memory, as after "
            "expand(); clone() it before changing it in place"
        )
    if x.requires_grad and x.node is None:
        raise RuntimeError(
            f"{name}: a leaf tensor that requires a gradient cannot be changed in place while "
            "operations are recorded; use no_grad(), or the operation without the underscore"
        )
    if _references(x) > _ALONE:
        raise RuntimeError(
            f"{name}: other tensors, or what an operation saved for its backward, share this "
            "tensor's memory; use the operation without the underscore, as in x = x + y"
        )
    return True


def _take_over(x: Tensor, result: Tensor) -> Tensor:
    x.array, x.node, x.output = result.array, result.node, result.output
    x.requires_grad, x.version = result.requires_grad, result.version
    return x


def in_place(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the method that puts the result of `function` in the place of its first argument."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        recorded = _recorded(name, self, *args, *kwargs.values())
        result = function(self, *args, **kwargs)
        if result.array.shape != self.array.shape:
            raise RuntimeError(
                f"{name}: the result has shape {result.array.shape}, the tensor "
                f"{self.array.shape}; use the operation without the underscore"
            )
        if result.array.dtype != self.array.dtype:
            if is_floating(result.dtype) and not is_floating(self.dtype):
                raise RuntimeError(
                    f"{name}: a result of type {result.dtype} cannot be put into a tensor of "
                    f"type {self.dtype}; convert the tensor with .to() first"
                )
            result = cast(result, self.array.dtype)
        if recorded:
            return _take_over(self, result)
        self.array[...] = result.array
        self.version[0] += 1
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Do as {name.rstrip('_')}, in place."
    return method


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """Put `value`, a tensor or a number, at `index`."""
    recorded = _recorded("assignment", self, value)
    dtype, xp = self.array.dtype, array_module(self.array)
    if is_scalar(value):
        arithmetic.check_fits("assignment", value, dtype)
        value = xp.asarray(value, dtype=dtype)
    elif isinstance(value, Tracked):
        value = cast(value, dtype)
    else:
        value = xp.asarray(value, dtype=dtype)
    basic, inner = shapes.split_index(self.array, index)
    try:
        if recorded:
            kernel = (kernels.assign_forward, kernels.assign_backward)
            _take_over(self, record(*kernel, self, value, index=basic, inner=inner))
            return
        if inner is None:
            self.array[basic] = raw(value)
        else:
            self.array[basic][inner] = raw(value)
        self.version[0] += 1
    except ValueError as error:
        raise RuntimeError(
            f"assignment: a value of shape {raw(value).shape} does not fit the indexed part of a "
            f"tensor of shape {self.array.shape}: {error}"
        ) from None


# -- filling -----------------------------------------------------------------------


def copy_(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Take the elements of `src`, converted and broadcast."""
    setitem(self, ..., src.to(self.device) if isinstance(src, Tracked) else src)
    return self


def fill_(self: Tensor, value: Any) -> Tensor:
    """Set every element to `value`."""
    setitem(self, ..., value)
    return self


def zero_(self: Tensor) -> Tensor:
    """Set every element to zero."""
    setitem(self, ..., 0)
    return self


def _key(generator: Any) -> Key:
    return next_key() if generator is None else generator.next_key()


def uniform_(self: Tensor, a: float = 0, b: float = 1, *, generator: Any = None) -> Tensor:
    """Draw every element uniformly from [a, b)."""
    x = self.array
    numbers = uniform(_key(generator), x.shape, x.dtype, xp=array_module(x))
    setitem(self, ..., wrap(numbers * (b - a) + a))
    return self


def normal_(self: Tensor, mean: float = 0, std: float = 1, *, generator: Any = None) -> Tensor:
    """Draw every element from the normal distribution."""
    x = self.array
    numbers = normal(_key(generator), x.shape, x.dtype, xp=array_module(x))
    setitem(self, ..., wrap(numbers * std + mean))
    return self


def exponential_(self: Tensor, lambd: float = 1, *, generator: Any = None) -> Tensor:
    """Draw every element from the exponential distribution."""
    x = self.array
    xp = array_module(x)
    setitem(self, ..., wrap(-xp.log1p(-uniform(_key(generator), x.shape, x.dtype, xp=xp)) / lambd))
    return self


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    """Set every element to 1 with probability `p`, otherwise to 0."""
    x = self.array
    drawn = uniform(_key(generator), x.shape, np.float32, xp=array_module(x)) < raw(p)
    setitem(self, ..., wrap(drawn))
    return self


def random_(self: Tensor, from_: int = 0, to: int | None = None) -> Tensor:
    """Draw every element from the integers from `from_` to below `to`, or below `from_` alone."""
    low, high = (from_, to) if to is not None else (0, from_ or 2**24)
    xp = array_module(self.array)
    setitem(self, ..., wrap(random_integers(next_key(), low, high, self.array.shape, xp=xp)))
    return self


def fill_diagonal_(self: Tensor, value: float) -> Tensor:
    """Set the diagonal of a matrix to `value`."""
    i = array_module(self.array).arange(min(self.array.shape))
    setitem(self, (wrap(i),) * self.array.ndim, value)
    return self


# -- scattering ----------------------------------------------------------------------


def _places(name: str, x: Tensor, dim: int, index: Any) -> tuple[Any, ...]:
    """Return index arrays for ``x[i][index[i][j]]``, for any `dim`."""
    ids = raw(index)
    axis = shapes.axis_of(name, dim, x.array.ndim)
    kernels.gather_corner(name, x.array.shape, ids, axis)
    xp = array_module(x.array)
    places = [
        xp.arange(n).reshape((-1,) + (1,) * (ids.ndim - i - 1)) for i, n in enumerate(ids.shape)
    ]
    places[axis] = ids
    return tuple(wrap(p) for p in places)


def _source(index: Any, src: Any) -> Any:
    if is_scalar(src):
        return src
    return shapes.select_index(src, tuple(slice(n) for n in raw(index).shape))


def scatter_(
    self: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None
) -> Tensor:
    """Put ``src[i][j]`` at ``self[i][index[i][j]]`` (for dim 1); `src` may be a number."""
    if raw(index).size:
        source = _source(index, value if src is None else src)
        setitem(self, _places("scatter_", self, dim, index), source)
    return self


def scatter_add_(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Add ``src[i][j]`` to ``self[i][index[i][j]]`` (for dim 1), in a fixed order."""
    if _recorded("scatter_add_", self, src):
        raise NotImplementedError("scatter_add_ has no gradient here; use it under no_grad()")
    x = self.array
    places = (
        array_module(x)
        .arange(x.size)
        .reshape(x.shape)[tuple(raw(p) for p in _places("scatter_add_", self, dim, index))]
    )
    rows = raw(_source(index, src)).reshape(-1, 1).astype(x.dtype, copy=False)
    x += kernels.scatter_sum(places.reshape(-1), rows, x.size).reshape(x.shape)
    self.version[0] += 1
    return self


def index_fill_(self: Tensor, dim: int, index: Tensor, value: float) -> Tensor:
    """Set the slices along `dim` that `index` names to `value`."""
    axis = shapes.axis_of("index_fill_", dim, self.array.ndim)
    if raw(index).size:
        setitem(self, (slice(None),) * axis + (wrap(raw(index).reshape(-1)),), value)
    return self


def index_copy_(self: Tensor, dim: int, index: Tensor, tensor: Tensor) -> Tensor:
    """Put the slices of `tensor` where `index` says along `dim`."""
    axis = shapes.axis_of("index_copy_", dim, self.array.ndim)
    setitem(self, (slice(None),) * axis + (wrap(raw(index).reshape(-1)),), tensor)
    return self


def index_add_(
    self: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1
) -> Tensor:
    """Add the slices of `source` where `index` says along `dim`, in a fixed order."""
    if _recorded("index_add_", self, source):
        raise NotImplementedError("index_add_ has no gradient here; use it under no_grad()")
    axis = shapes.axis_of("index_add_", dim, self.array.ndim)
    xp = array_module(self.array)
    rows = xp.moveaxis(raw(source), axis, 0)
    n = self.array.shape[axis]
    total = kernels.scatter_sum(raw(index).reshape(-1), rows.reshape(len(rows), -1) * alpha, n)
    self.array += xp.moveaxis(total.reshape((n,) + rows.shape[1:]), 0, axis)
    self.version[0] += 1
    return self


def scatter(input: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    """Return a copy with ``src[i][j]`` at ``[i][index[i][j]]`` (for dim 1)."""
    return scatter_(shapes.clone(input), dim, index, src)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Return a copy with ``src[i][j]`` added at ``[i][index[i][j]]`` (for dim 1)."""
    return scatter_add_(shapes.clone(input), dim, index, src)


def index_fill(input: Tensor, dim: int, index: Tensor, value: float) -> Tensor:
    """Return a copy with the slices along `dim` that `index` names set to `value`."""
    return index_fill_(shapes.clone(input), dim, index, value)


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Return a copy with the slices of `source` added where `index` says."""
    return index_add_(shapes.clone(input), dim, index, source)
