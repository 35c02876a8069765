"""Number types: PyTorch's names and its default."""

from __future__ import annotations

from typing import Any

import numpy as np

_NAMES = {
    "float16": np.float16,
    "half": np.float16,
    "float32": np.float32,
    "float": np.float32,
    "float64": np.float64,
    "double": np.float64,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "short": np.int16,
    "int32": np.int32,
    "int": np.int32,
    "int64": np.int64,
    "long": np.int64,
    "bool": np.bool_,
}
_default = np.dtype(np.float32)


def default_dtype() -> np.dtype[Any]:
    """Return the type of floating-point tensors made without a ``dtype``: float32 at first."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Set the type of floating-point tensors made without a ``dtype``.

    Raises
    ------
    TypeError
        If `dtype` is not a floating-point type.
    """
    global _default
    chosen = resolve_dtype(dtype)
    if not is_floating(chosen):
        raise TypeError(f"the default dtype must be floating point, found {chosen}")
    _default = chosen


def resolve_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the NumPy dtype meant by a PyTorch name, a NumPy type or a Python type.

    Python's ``float`` means the default floating-point type, as in PyTorch.

    Raises
    ------
    TypeError
        If nothing of the kind exists here; bfloat16 is named as such.

    Examples
    --------
    >>> resolve_dtype("half")
    dtype('float16')
    >>> resolve_dtype(int)
    dtype('int64')
    """
    if dtype is float:
        return _default
    if dtype is int:
        return np.dtype(np.int64)
    text = str(dtype).removeprefix("torch.")
    if text == "bfloat16":
        raise TypeError("bfloat16 exists on GPUs only; on the CPU use float32")
    try:
        return np.dtype(_NAMES.get(text, dtype))
    except TypeError:
        raise TypeError(f"unknown dtype {dtype!r}; known: {', '.join(_NAMES)}") from None


def is_floating(dtype: Any) -> bool:
    """Return whether `dtype` is a real floating-point type."""
    return np.dtype(dtype).kind == "f"


def lowest(dtype: Any) -> float:
    """Return the most negative finite number of a floating-point `dtype`."""
    return float(np.finfo(dtype).min)
