"""Which library an array belongs to, and moves between host and device."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# A NumPy array for the type checker; at run time it may as well be CuPy's.
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Device:
    """Where an array lives: ``cpu``, or ``cuda`` with the number of the GPU.

    Examples
    --------
    >>> parse_device("cuda:1")
    device(type='cuda', index=1)
    """

    type: str
    index: int | None = None

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        # PyTorch users write `x.device == "cuda"` as often as they compare two devices.
        if isinstance(other, str):
            return str(self) == other
        if isinstance(other, Device):
            return (self.type, self.index) == (other.type, other.index)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))


def array_module(x: Any) -> Any:
    """Return the module that computes on `x`: NumPy, or the library of a device array.

    Parameters
    ----------
    x : array
        A NumPy array or scalar, or an array of a NumPy-like device library.

    Returns
    -------
    module
        ``numpy`` or, for a CuPy array, ``cupy``.

    Examples
    --------
    >>> import numpy as np
    >>> array_module(np.zeros(3)).__name__
    'numpy'
    """
    if isinstance(x, (np.ndarray, np.generic)):
        return np
    return sys.modules[type(x).__module__.partition(".")[0]]


def is_cuda(x: Any) -> bool:
    """Return whether `x` lives on a GPU."""
    return not isinstance(x, (np.ndarray, np.generic))


def to_numpy(x: Any) -> Array:
    """Return `x` as a NumPy array, copied from the device if it lives on one."""
    if isinstance(x, np.ndarray):
        return x
    return x.get() if hasattr(x, "get") else np.asarray(x)


def is_cuda_available() -> bool:
    """Return whether CuPy is installed and sees a GPU."""
    try:
        import cupy
    except ImportError:
        return False
    try:
        return int(cupy.cuda.runtime.getDeviceCount()) > 0
    except cupy.cuda.runtime.CUDARuntimeError:
        return False


def parse_device(device: str | int | Device) -> Device:
    """Return the `Device` meant by PyTorch's spelling: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``1``.

    Raises
    ------
    ValueError
        If the text names neither.
    """
    if isinstance(device, Device):
        return device
    if isinstance(device, int):
        return Device("cuda", device)
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N', found {device!r}")
    return Device(kind, int(index) if index else None)


def device_of(x: Any) -> Device:
    """Return the device that holds `x`."""
    if not is_cuda(x):
        return Device("cpu")
    device = getattr(x, "device", None)
    return Device("cuda", int(getattr(device, "id", 0)))


def to_device(x: Any, device: str | int | Device) -> Any:
    """Return `x` on `device`, itself where it is there already.

    Raises
    ------
    RuntimeError
        If a GPU is asked for and CuPy or the GPU is missing; the message says which.
    """
    target = parse_device(device)
    if target.type == "cpu":
        if is_cuda(x) and x.dtype.name == "bfloat16":
            raise TypeError("bfloat16 exists on GPUs only; use .float() before the CPU")
        return to_numpy(x)
    try:
        import cupy
    except ImportError:
        raise RuntimeError(
            f"device {str(target)!r} needs CuPy, which is not installed: "
            "pip install 'minitransformer[cuda12]' or 'minitransformer[cuda13]'"
        ) from None
    if not is_cuda_available():
        raise RuntimeError(f"device {str(target)!r} was asked for, but CuPy finds no GPU here")
    if target.index is None and is_cuda(x):
        return x
    with cupy.cuda.Device(target.index or 0):
        return cupy.asarray(x)


def quiet(xp: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which overflow and invalid operations give inf and NaN silently.

    PyTorch never warns about them, CuPy cannot; NumPy does unless told otherwise.
    """
    return np.errstate(all="ignore") if xp is np else contextlib.nullcontext()
