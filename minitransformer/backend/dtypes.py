"""Number types: PyTorch's names and its default.

bfloat16 is no type of NumPy's own. It comes from ``ml_dtypes``, as in CuPy, lives on GPUs
alone, and is imported when a program first asks for it.
"""

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
loaded_bfloat16: np.dtype[Any] | None = None  # once a program has asked for it


def default_dtype() -> np.dtype[Any]:
    """Return the type of floating-point tensors made without a ``dtype``: float32 at first."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Set the type of floating-point tensors made without a ``dtype``.

    Raises
    ------
    TypeError
        If `dtype` is not a floating-point type, or is bfloat16, which the CPU lacks.
    """
    global _default
    chosen = resolve_dtype(dtype)
    if not is_floating(chosen):
        raise TypeError(f"the default dtype must be floating point, found {chosen}")
    if is_bfloat16(chosen):
        raise TypeError("bfloat16 exists on GPUs only, so it cannot be the default dtype")
    _default = chosen


def resolve_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the NumPy dtype meant by a PyTorch name, a NumPy type or a Python type.

    Python's ``float`` means the default floating-point type, as in PyTorch.

    Raises
    ------
    TypeError
        If nothing of the kind exists here, or bfloat16's package is missing.

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
        return bfloat16()
    try:
        return np.dtype(_NAMES.get(text, dtype))
    except TypeError:
        raise TypeError(f"unknown dtype {dtype!r}; known: {', '.join(_NAMES)}, bfloat16") from None


def bfloat16() -> np.dtype[Any]:
    """Return the bfloat16 of ``ml_dtypes``, imported on the first call.

    Raises
    ------
    TypeError
        If the package is missing.
    """
    global loaded_bfloat16
    if loaded_bfloat16 is None:
        try:
            import ml_dtypes
        except ImportError:
            raise TypeError(
                "bfloat16 exists on GPUs only, and needs ml_dtypes there (pip install ml_dtypes); "
                "on the CPU use float32"
            ) from None
        loaded_bfloat16 = np.dtype(ml_dtypes.bfloat16)
    return loaded_bfloat16


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Return whether `dtype` is bfloat16, which NumPy counts among the types it does not know."""
    return dtype.kind == "V" and dtype == loaded_bfloat16


def is_floating(dtype: Any) -> bool:
    """Return whether `dtype` is a real floating-point type.

    >>> is_floating(np.float16), is_floating(np.int64)
    (True, False)
    """
    found = np.dtype(dtype)
    return found.kind == "f" or is_bfloat16(found)


def accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type to sum `dtype` in: float32 for the two half-precision types.

    >>> accumulator(np.dtype("float16")), accumulator(np.dtype("float64"))
    (dtype('float32'), dtype('float64'))
    """
    return np.dtype(np.float32) if dtype.itemsize == 2 and is_floating(dtype) else dtype


def limits(dtype: Any) -> Any:
    """Return ``numpy.finfo`` of a floating-point type, or bfloat16's like it.

    >>> float(limits(np.float16).max)
    65504.0
    """
    found = np.dtype(dtype)
    if is_bfloat16(found):
        import ml_dtypes

        return ml_dtypes.finfo(found)  # type: ignore[no-untyped-call]
    return np.finfo(found)


def lowest(dtype: Any) -> float:
    """Return the most negative finite number of a floating-point `dtype`."""
    return float(limits(dtype).min)
