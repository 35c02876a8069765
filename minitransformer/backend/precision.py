"""How exactly a GPU multiplies float32 matrices: PyTorch's switch under PyTorch's names."""

from __future__ import annotations

_PRECISIONS = ("highest", "high", "medium")
_precision = "highest"


def set_float32_matmul_precision(precision: str) -> None:
    """Set how exactly products of float32 matrices are computed on a GPU.

    Parameters
    ----------
    precision : {"highest", "high", "medium"}
        "highest", the default, multiplies all 24 bits of a float32. The others round the factors
        to the 11 bits of TF32, for tensor cores, and add in float32. On a CPU, and for other types,
        nothing changes.

    Raises
    ------
    RuntimeError
        If `precision` is none of the three.

    Examples
    --------
    >>> set_float32_matmul_precision("highest")
    >>> get_float32_matmul_precision()
    'highest'
    """
    global _precision
    if precision not in _PRECISIONS:
        raise RuntimeError(f"precision must be 'highest', 'high' or 'medium', found {precision!r}")
    _precision = precision


def get_float32_matmul_precision() -> str:
    """Return how exactly products of float32 matrices are computed on a GPU."""
    return _precision


class MatmulSwitch:
    """PyTorch's older name for the same switch, ``backends.cuda.matmul.allow_tf32``.

    Examples
    --------
    >>> MatmulSwitch().allow_tf32
    False
    """

    __slots__ = ()  # assigning to a misspelt switch is an error

    @property
    def allow_tf32(self) -> bool:
        """Whether float32 factors may be rounded to TF32; True means "high"."""
        return _precision != "highest"

    @allow_tf32.setter
    def allow_tf32(self, allowed: bool) -> None:
        set_float32_matmul_precision("high" if allowed else "highest")
