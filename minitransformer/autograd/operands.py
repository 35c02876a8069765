"""What an operation computes with: PyTorch's type promotion, and operands made to match.

Python numbers are weak: they take the tensor's dtype unless they are of a higher
kind (bool < int < float). Tensors without dimensions are weak against tensors with.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from ..backend import (
    Array,
    array_module,
    default_dtype,
    device_of,
    is_bfloat16,
    is_cuda,
    is_floating,
    quiet,
)
from ..kernels.elementwise import cast_backward, cast_forward
from .tape import Tracked, record

if TYPE_CHECKING:
    from .tensor import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])
Number: TypeAlias = "bool | int | float"
Other: TypeAlias = "Tensor | Number"
DType: TypeAlias = Any  # a NumPy dtype, a type, or PyTorch's name as text

run: Callable[..., Tensor] = record  # for kernels with one output
_KIND = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2}  # V: bfloat16


def numpy_names(function: Function) -> Function:
    """Let a function also take NumPy's ``axis=`` and ``keepdims=``, as PyTorch's do."""

    @functools.wraps(function)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        if "axis" in kwargs:
            kwargs["dim"] = kwargs.pop("axis")
        if "keepdims" in kwargs:
            kwargs["keepdim"] = kwargs.pop("keepdims")
        return function(*args, **kwargs)

    return renamed  # type: ignore[return-value]


def wrap(array: Array) -> Tensor:
    """Return a tensor, off the tape, around an array."""
    return Tracked.result_class(array)


def raw(x: Any) -> Any:
    """Return the array of a tensor, and anything else as it is."""
    return x.array if isinstance(x, Tracked) else x


def is_scalar(x: object) -> bool:
    """Return whether `x` is a Python number or a NumPy scalar.

    >>> is_scalar(2.0), is_scalar(np.float32(1)), is_scalar(np.ones(1))
    (True, True, False)
    """
    return isinstance(x, (numbers.Real, np.bool_))


def dtype_of_number(x: Any) -> np.dtype[Any]:
    """Return the dtype that a Python number has alone: bool, int64, or the default.

    >>> dtype_of_number(True), dtype_of_number(1), dtype_of_number(1.0)
    (dtype('bool'), dtype('int64'), dtype('float32'))
    """
    if isinstance(x, (bool, np.bool_)):
        return np.dtype(np.bool_)
    return np.dtype(np.int64) if isinstance(x, numbers.Integral) else default_dtype()


def promote(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that holds both as PyTorch sees it: floats win over any integer.

    >>> promote(np.dtype("float16"), np.dtype("int64"))
    dtype('float16')
    """
    if a == b:
        return a
    if is_floating(a) != is_floating(b):
        return a if is_floating(a) else b
    if {a.itemsize, b.itemsize} == {2} and is_floating(a):  # float16 and bfloat16
        return np.dtype(np.float32)
    return np.promote_types(a, b)


def result_type(*operands: Any) -> np.dtype[Any]:
    """Return the dtype of an operation on tensors and numbers.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.result_type(mt.arange(3), 1.5)
    dtype('float32')
    >>> mt.result_type(mt.ones(3), mt.tensor(1.0, dtype=mt.float64))
    dtype('float32')
    """
    ranks: list[np.dtype[Any] | None] = [None, None, None]  # with dimensions, without, numbers
    for x in operands:
        if is_scalar(x):
            rank, dtype = 2, dtype_of_number(x)
        else:
            rank, dtype = (0 if raw(x).ndim else 1), raw(x).dtype
        held = ranks[rank]
        ranks[rank] = dtype if held is None else promote(held, dtype)
    found: np.dtype[Any] | None = None
    for dtype_or_none in reversed(ranks):
        if dtype_or_none is not None:
            weaker = found is None or _KIND[found.kind] <= _KIND[dtype_or_none.kind]
            found = dtype_or_none if weaker or found is None else promote(dtype_or_none, found)
    if found is None:
        raise TypeError("result_type needs at least one tensor or number")
    return found


def cast(x: Any, dtype: np.dtype[Any]) -> Any:
    """Return `x` in `dtype`, recorded; itself where it has that dtype.

    Raises
    ------
    TypeError
        If a tensor on the CPU is to be bfloat16.
    """
    if x.dtype == dtype:
        return x
    if is_bfloat16(dtype):
        check_place(dtype, raw(x))
    return record(cast_forward, cast_backward, x, dtype=dtype)


def check_place(dtype: np.dtype[Any], array: Array) -> None:
    """Raise TypeError if `dtype` is bfloat16 and `array` lives on the CPU."""
    if is_bfloat16(dtype) and not is_cuda(array):
        raise TypeError("bfloat16 exists on GPUs only; on the CPU use float32")


def matched(name: str, *operands: Any, floating: bool = False) -> list[Any]:
    """Return the operands in one dtype and on one device, numbers as they are.

    Parameters
    ----------
    name : str
        The operation, for error messages.
    *operands : Tensor, array or number
        At least one is a tensor.
    floating : bool
        Whether integers become the default floating-point type.

    Raises
    ------
    TypeError
        If an operand is something else.
    RuntimeError
        If two tensors live on different devices.
    """
    first = operands[0]
    if len(operands) == 2 and isinstance(first, Tracked) and first.array.dtype.kind == "f":
        second = operands[1]  # by far the most frequent cases, without ceremony
        if type(second) in (float, int):
            return [first, second]
        if (
            isinstance(second, Tracked)
            and second.array.dtype == first.array.dtype
            and is_cuda(first.array) == is_cuda(second.array)
        ):
            return [first, second]
    for i, x in enumerate(operands):
        if not (isinstance(x, (Tracked, np.ndarray)) or is_scalar(x)):
            raise TypeError(
                f"{name}: argument {i + 1} must be a Tensor or a number, found {type(x).__name__}"
            )
    dtype = result_type(*operands)
    if floating and not is_floating(dtype):
        dtype = default_dtype()
    arrays = [x for x in operands if not is_scalar(x)]
    places = {str(device_of(raw(x))) for x in arrays if raw(x).ndim} or {
        str(device_of(raw(x))) for x in arrays
    }
    if len(places) > 1:
        raise RuntimeError(
            f"{name}: tensors on different devices, {' and '.join(sorted(places))}; "
            "move one with .to()"
        )
    (place,) = places or {"cpu"}
    return [_matching(x, dtype, place) for x in operands]


def _matching(x: Any, dtype: np.dtype[Any], place: str) -> Any:
    if is_scalar(x):
        return x.item() if isinstance(x, np.generic) else x
    if not isinstance(x, Tracked):
        x = wrap(x)
    x = cast(x, dtype)
    return x if str(device_of(x.array)) == place else x.to(place)


def apply(
    name: str, forward: Callable[..., Any], backward: Callable[..., Any], *operands: Any
) -> Tensor:
    """Record a kernel on operands that `matched` has made ready.

    Raises
    ------
    RuntimeError
        If their shapes do not broadcast.
    """
    try:
        return record(forward, backward, *operands)
    except ValueError as error:
        shapes = [tuple(raw(x).shape) for x in operands if isinstance(x, Tracked)]
        try:
            np.broadcast_shapes(*shapes)
        except ValueError:
            raise RuntimeError(
                f"{name}: shapes {' and '.join(map(str, shapes))} do not broadcast: counted from "
                "the last, dimensions must be equal or 1"
            ) from None
        raise RuntimeError(f"{name}: {error}") from error


def compare(name: str, a: Any, b: Any) -> Tensor:
    """Return the elements of ``a <op> b`` for the ufunc `name`, off the tape."""
    a, b = (raw(x) for x in matched(name, a, b))
    xp = array_module(b if is_scalar(a) else a)
    try:
        with quiet(xp):
            return wrap(getattr(xp, name)(a, b))
    except ValueError:
        raise RuntimeError(
            f"{name}: shapes {np.shape(a)} and {np.shape(b)} do not broadcast"
        ) from None
