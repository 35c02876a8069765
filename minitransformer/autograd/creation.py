"""Tensors from data, from rules and from random numbers, by PyTorch's names."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import (
    Array,
    Key,
    accumulator,
    array_module,
    default_dtype,
    initial_seed,
    is_bfloat16,
    is_floating,
    next_key,
    random_integers,
    resolve_dtype,
    to_device,
    to_numpy,
)
from ..backend import normal as draw_normal
from ..backend import uniform as draw_uniform
from .operands import DType, check_place, is_scalar, raw, result_type, wrap
from .tape import Tracked

if TYPE_CHECKING:
    from .tensor import Tensor


class Generator:
    """A stream of random numbers of its own, apart from `manual_seed`.

    Parameters
    ----------
    device : str, optional
        Accepted for PyTorch's sake: the stream is the same on every device.

    Examples
    --------
    >>> import minitransformer as mt
    >>> g = mt.Generator().manual_seed(0)
    >>> a = mt.rand(3, generator=g)
    >>> mt.equal(a, mt.rand(3, generator=g.manual_seed(0)))
    True
    """

    def __init__(self, device: Any = "cpu") -> None:
        self._key = Key(initial_seed())

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream anew from `seed`, and return the generator."""
        self._key = Key(int(seed) & ((1 << 64) - 1))
        return self

    def initial_seed(self) -> int:
        """Return the seed in force."""
        return self._key.seed

    def next_key(self) -> Key:
        """Return the key of the next operation."""
        key = self._key
        self._key = key._replace(operation=key.operation + 1)
        return key

    def get_state(self) -> Key:
        """Return what `set_state` goes on from."""
        return self._key

    def set_state(self, state: Key) -> Generator:
        """Go on from a state that `get_state` returned."""
        self._key = Key(*state)
        return self


def _key(generator: Generator | None) -> Key:
    return next_key() if generator is None else generator.next_key()


def _sizes(name: str, size: tuple[Any, ...], keyword: Any = None) -> tuple[int, ...]:
    if keyword is not None:
        size = tuple(keyword) if isinstance(keyword, (tuple, list)) else (keyword,)
    elif len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    shape = tuple(operator.index(n) for n in size)
    if any(n < 0 for n in shape):
        raise RuntimeError(f"{name}: lengths must not be negative, found {shape}")
    return shape


def _module(device: Any) -> Any:
    """Return the library whose arrays live on `device`."""
    return np if device is None else array_module(to_device(np.zeros(0), device))


def _made(array: Array, dtype: DType, device: Any, requires_grad: bool) -> Tensor:
    chosen = array.dtype if dtype is None else resolve_dtype(dtype)
    if not is_bfloat16(chosen):
        array = array.astype(chosen, copy=False)
    array = array if device is None else to_device(array, device)
    check_place(chosen, array)
    result = wrap(array.astype(chosen, copy=False))
    return result.requires_grad_() if requires_grad else result


# -- from data -------------------------------------------------------------------------


def tensor(
    data: Any, *, dtype: DType = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return a tensor with a copy of `data`: a number, nested lists, an array.

    Python's floats take the default dtype, its integers int64; arrays keep theirs.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.tensor([1.0, 2.0]).dtype, mt.tensor([1, 2]).dtype
    (dtype('float32'), dtype('int64'))
    """
    found = raw(data)
    if device is None and type(found).__module__.startswith("cupy"):
        return _made(found.copy(), dtype, None, requires_grad)
    return _made(_plain(data).copy(), dtype, device, requires_grad)


def _plain(data: Any) -> Array:
    """Return `data` as a NumPy array of the dtype that PyTorch would choose."""
    data = raw(data)
    if hasattr(data, "dtype"):
        array = to_numpy(data)
    else:
        first = data
        while isinstance(first, (list, tuple, range)) and len(first):
            first = first[0]
        try:
            array = np.asarray(_without_tensors(data))
        except ValueError:
            raise ValueError(
                "tensor: the nested lists have different lengths, so they make no tensor"
            ) from None
        if array.size == 0 or (array.dtype.kind == "f" and not hasattr(raw(first), "dtype")):
            array = array.astype(default_dtype())
    if array.dtype.kind not in "bif" and array.dtype != np.uint8:
        raise TypeError(
            f"tensor: data must be numbers, lists of numbers or arrays, found {_kind(data)} of "
            f"type {array.dtype}"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _kind(x: object) -> str:
    return type(x).__name__


def _without_tensors(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_without_tensors(x) for x in data]
    return to_numpy(data.array) if isinstance(data, Tracked) else data


def as_tensor(data: Any, dtype: DType = None, device: Any = None) -> Tensor:
    """Return `data` as a tensor, without a copy where it is a tensor or an array already."""
    if isinstance(data, Tracked):
        return data.to(device=device, dtype=dtype)  # type: ignore[attr-defined]
    return _made(_plain(data), dtype, device, False)


def from_numpy(ndarray: Array) -> Tensor:
    """Return a tensor that shares the memory of a NumPy array."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: expected a NumPy array, found {_kind(ndarray)}")
    return wrap(_plain(ndarray))


# -- constant -----------------------------------------------------------------------------


def full(
    size: Sequence[int],
    fill_value: Any,
    *,
    dtype: DType = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor of `size` filled with one number."""
    value = fill_value.item() if isinstance(fill_value, Tracked) else fill_value  # type: ignore[attr-defined]
    chosen = result_type(value) if dtype is None else resolve_dtype(dtype)
    array = _module(device).full(_sizes("full", (size,)), value, dtype=chosen)
    return _made(array, None, device, requires_grad)


def zeros(
    *size: Any,
    dtype: DType = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor of zeros, as in ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    chosen = default_dtype() if dtype is None else resolve_dtype(dtype)
    array = _module(device).zeros(_sizes("zeros", size), dtype=chosen)
    return _made(array, None, device, requires_grad)


def ones(
    *size: Any,
    dtype: DType = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor of ones."""
    chosen = default_dtype() if dtype is None else resolve_dtype(dtype)
    array = _module(device).ones(_sizes("ones", size), dtype=chosen)
    return _made(array, None, device, requires_grad)


empty = zeros  # the same promise, and no chance to read what was never written


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: DType = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return the matrix with ones on its diagonal."""
    chosen = default_dtype() if dtype is None else resolve_dtype(dtype)
    return _made(_module(device).eye(n, m, dtype=chosen), None, device, requires_grad)


def _like(input: Tensor, dtype: DType, device: Any) -> dict[str, Any]:
    return {
        "dtype": input.array.dtype if dtype is None else dtype,
        "device": input.device if device is None else device,
    }


def zeros_like(
    input: Tensor, *, dtype: DType = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return zeros in the shape, dtype and place of a tensor."""
    return zeros(input.array.shape, requires_grad=requires_grad, **_like(input, dtype, device))


def ones_like(
    input: Tensor, *, dtype: DType = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return ones in the shape, dtype and place of a tensor."""
    return ones(input.array.shape, requires_grad=requires_grad, **_like(input, dtype, device))


empty_like = zeros_like


def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: DType = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return one number in the shape, dtype and place of a tensor."""
    like = _like(input, dtype, device)
    return full(input.array.shape, fill_value, requires_grad=requires_grad, **like)


# -- ranges ------------------------------------------------------------------------------


def arange(
    start: Any,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: DType = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return the numbers from `start` to below `end`, or from 0 to below `start`."""
    bounds = [x.item() if hasattr(x, "item") else x for x in (start, end, step)]
    first, last, by = bounds if end is not None else (0, bounds[0], bounds[2])
    if by == 0 or (last - first) * by < 0:
        raise RuntimeError(f"arange: cannot go from {first} to {last} in steps of {by}")
    chosen = result_type(first, last, by) if dtype is None else resolve_dtype(dtype)
    xp = _module(device)
    if all(isinstance(x, int) for x in (first, last, by)):
        array = xp.arange(first, last, by).astype(chosen, copy=False)
    else:
        # in float64 until the end, as PyTorch does
        array = (first + by * xp.arange(math.ceil((last - first) / by), dtype=np.float64)).astype(
            chosen
        )
    return _made(array, None, device, requires_grad)


def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: DType = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return `steps` numbers at equal distances from `start` to `end`, both included."""
    array = np.linspace(raw(start), raw(end), steps, dtype=np.float64)
    chosen = default_dtype() if dtype is None else dtype
    return _made(array, chosen, device, requires_grad)


def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: DType = None,
    device: Any = None,
) -> Tensor:
    """Return ``base`` to the powers of `linspace`."""
    exponents = np.linspace(start, end, steps, dtype=np.float64)
    return _made(base**exponents, default_dtype() if dtype is None else dtype, device, False)


def tril_indices(row: int, col: int, offset: int = 0, *, device: Any = None) -> Tensor:
    """Return the indices of a lower triangle: a row of rows and a row of columns."""
    return _made(np.stack(np.tril_indices(row, offset, col)), np.int64, device, False)


def triu_indices(row: int, col: int, offset: int = 0, *, device: Any = None) -> Tensor:
    """Return the indices of an upper triangle: a row of rows and a row of columns."""
    return _made(np.stack(np.triu_indices(row, offset, col)), np.int64, device, False)


# -- random -------------------------------------------------------------------------------


def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: DType = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return uniform numbers in [0, 1)."""
    chosen = default_dtype() if dtype is None else resolve_dtype(dtype)
    array = draw_uniform(_key(generator), _sizes("rand", size), chosen, xp=_module(device))
    return _made(array, None, device, requires_grad)


def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: DType = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return standard normal numbers."""
    chosen = default_dtype() if dtype is None else resolve_dtype(dtype)
    array = draw_normal(_key(generator), _sizes("randn", size), chosen, xp=_module(device))
    return _made(array, None, device, requires_grad)


def rand_like(input: Tensor, *, dtype: DType = None, device: Any = None) -> Tensor:
    """Return uniform numbers in the shape, dtype and place of a tensor."""
    return rand(input.array.shape, **_like(input, dtype, device))


def randn_like(input: Tensor, *, dtype: DType = None, device: Any = None) -> Tensor:
    """Return standard normal numbers in the shape, dtype and place of a tensor."""
    return randn(input.array.shape, **_like(input, dtype, device))


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: DType = None,
    device: Any = None,
) -> Tensor:
    """Return integers from `low` to below `high`: ``randint(high, size)`` starts from 0."""
    if size is None and isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None:
        raise TypeError("randint: give the size, as in randint(0, 10, (2, 3))")
    if not low < high:
        raise RuntimeError(f"randint: from {low} to below {high} there is no integer")
    shape = _sizes("randint", (size,))
    array = random_integers(_key(generator), low, high, shape, xp=_module(device))
    return _made(array, dtype, device, False)


def randint_like(input: Tensor, low: int, high: int | None = None) -> Tensor:
    """Return random integers in the shape, dtype and place of a tensor."""
    first, last = (0, low) if high is None else (low, high)
    return randint(first, last, input.array.shape, **_like(input, None, None))


def randperm(
    n: int, *, generator: Generator | None = None, dtype: DType = None, device: Any = None
) -> Tensor:
    """Return the numbers below `n` in random order."""
    order = draw_uniform(_key(generator), (n,), np.float64).argsort(kind="stable")
    return _made(order, np.int64 if dtype is None else dtype, device, False)


def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Return 1 with the probability that each element gives, otherwise 0."""
    p = input.array
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise RuntimeError("bernoulli: every probability must be between 0 and 1")
    drawn = draw_uniform(_key(generator), p.shape, p.dtype, xp=array_module(p)) < p
    return wrap(drawn.astype(p.dtype))


def normal(
    mean: Any,
    std: Any = 1.0,
    size: Sequence[int] | None = None,
    *,
    generator: Generator | None = None,
    dtype: DType = None,
    device: Any = None,
) -> Tensor:
    """Return normal numbers with the given mean and standard deviation, tensors or numbers."""
    if size is None:
        size = np.broadcast_shapes(np.shape(raw(mean)), np.shape(raw(std)))
        if is_scalar(mean) and is_scalar(std):
            raise TypeError("normal: give the size where mean and std are numbers")
        like = next(x for x in (mean, std) if isinstance(x, Tracked))
        dtype, device = like.array.dtype, like.device  # type: ignore[attr-defined]
    chosen = default_dtype() if dtype is None else resolve_dtype(dtype)
    numbers = draw_normal(_key(generator), tuple(size), chosen, xp=_module(device))
    return _made(numbers * raw(std) + raw(mean), chosen, device, False)


def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Return indices drawn with the probabilities, or weights, in each row.

    Raises
    ------
    RuntimeError
        If a weight is negative, infinite or NaN, a row has too few that are positive,
        or `input` is no vector or matrix.

    Notes
    -----
    The `num_samples` largest of ``weight / e`` with ``e`` exponential are a draw
    without replacement; with it, each sample inverts the cumulative distribution.
    """
    weights = input.array
    xp = array_module(weights)
    if weights.ndim not in (1, 2) or not is_floating(weights.dtype):
        raise RuntimeError(
            "multinomial: expected a floating-point vector or matrix, found "
            f"{weights.dtype} of shape {weights.shape}"
        )
    if not bool(((weights >= 0) & (weights < math.inf)).all()):
        raise RuntimeError("multinomial: a probability is negative, infinite or NaN")
    rows = weights.reshape(-1, weights.shape[-1])
    rows = rows.astype(accumulator(rows.dtype), copy=False)
    enough = 1 if replacement else num_samples
    positive = int((rows > 0).sum(axis=1).min()) if rows.size else 0
    if num_samples < 1 or positive < enough:
        raise RuntimeError(
            f"multinomial: {num_samples} samples {'with' if replacement else 'without'} "
            f"replacement from a row with {positive} positive weights"
        )
    # Uniform numbers of 53 bits: with 24, one in 2**24 is zero and would let any token win.
    shape = (len(rows), num_samples) if replacement else rows.shape
    u = draw_uniform(_key(generator), shape, np.float64, xp=xp)
    if replacement:
        bounds = rows.cumsum(axis=1)
        drawn = xp.stack([xp.searchsorted(b, v * b[-1], side="right") for b, v in zip(bounds, u)])
    else:
        score = xp.log(xp.where(rows > 0, rows, 1)) - xp.log(-xp.log1p(-u) + 1e-300)
        drawn = (-xp.where(rows > 0, score, -math.inf)).argsort(axis=1)[:, :num_samples]
    return wrap(drawn.astype(np.int64).reshape(weights.shape[:-1] + (num_samples,)))
