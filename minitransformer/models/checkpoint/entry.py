"""What every checkpoint reader returns: named entries that are read one at a time.

A file from elsewhere is untrusted. The readers in this package therefore work in two steps. They
first parse the small description in the file, compare every size in it with the size of the file
and hand out a :class:`Checkpoint` of :class:`Entry` objects; nothing in proportion to what the
file *claims* has been allocated by then. An array is read when it is asked for, after the model
has checked its name, shape and dtype.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Most dimensions an array may have; NumPy itself stops at 64 (32 before NumPy 2).
MAX_DIMENSIONS = 8


class CheckpointError(ValueError):
    """A checkpoint that is damaged, hostile, of another kind, or not for this model."""


@dataclass(frozen=True)
class Entry:
    """One array of a checkpoint, still on disk.

    Attributes
    ----------
    name : str
        Its name in the file.
    shape : tuple of int
        Its shape once decoded.
    stored : str
        The type it is stored as, in the format's own word (``"F16"``, ``"Q4_1"``).
    path : pathlib.Path
        The file.
    offset, nbytes : int
        Where its bytes lie in the file.
    decode : callable
        Turns those bytes into an array of `shape`.
    """

    name: str
    shape: tuple[int, ...]
    stored: str
    path: Path
    offset: int
    nbytes: int
    decode: Callable[[bytes, tuple[int, ...]], Array]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def read(self) -> Array:
        """Read the array.

        Returns
        -------
        numpy.ndarray, ``shape``
            Possibly read-only. Quantised and bfloat16 entries come back as float32.

        Raises
        ------
        CheckpointError
            If the file has become shorter since it was opened.
        """
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            raw = file.read(self.nbytes)
        if len(raw) != self.nbytes:
            raise CheckpointError(
                f"{self.path}: {self.name!r} needs {self.nbytes} bytes at {self.offset}, "
                f"only {len(raw)} are there; the file is incomplete or changed while it was read"
            )
        return self.decode(raw, self.shape)


@dataclass(frozen=True)
class Checkpoint(Mapping[str, Array]):
    """The arrays of a checkpoint by name; each is read when it is looked up.

    Attributes
    ----------
    path : pathlib.Path
        The file, or the directory of a sharded checkpoint.
    format : str
        ``"safetensors"``, ``"gguf"``, ``"onnx"`` or ``"ctranslate2"``.
    entries : dict of str to Entry
        What is in it.
    metadata : dict
        What the file says about itself.
    """

    path: Path
    format: str
    entries: dict[str, Entry]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.entries[name].read()

    def __contains__(self, name: object) -> bool:  # the inherited one would read the array
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Cursor:
    """Reads a binary file forwards and never past its end.

    Every read names what it is for, so that a truncated file is reported as "ends inside ...".
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0

    @property
    def remaining(self) -> int:
        return self.size - self.position

    def need(self, count: int, what: str) -> None:
        if not 0 <= count <= self.remaining:
            raise CheckpointError(
                f"{self.path}: {what} takes {count} bytes at {self.position}, "
                f"but only {self.remaining} are left; the file is truncated or damaged"
            )

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        raw = self.file.read(count)
        if len(raw) != count:
            raise CheckpointError(f"{self.path}: the file became shorter while it was read")
        self.position += count
        return raw

    def skip(self, count: int, what: str) -> None:
        self.need(count, what)
        self.position += count
        self.file.seek(self.position)

    def unsigned(self, width: int, what: str) -> int:
        return int.from_bytes(self.take(width, what), "little")

    def text(self, count: int, what: str) -> str:
        raw = self.take(count, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.path}: {what} is not UTF-8") from None


def element_count(shape: tuple[int, ...], path: Path, name: str) -> int:
    """Number of elements of `shape`, in Python integers, which do not overflow."""
    if len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(
            f"{path}: {name!r} has {len(shape)} dimensions, at most {MAX_DIMENSIONS} are read"
        )
    if any(size < 0 for size in shape):
        raise CheckpointError(f"{path}: {name!r} has a negative size in its shape {shape}")
    return math.prod(shape)


def refuse_overlap(entries: dict[str, Entry], path: Path) -> None:
    """Refuse entries that share bytes: a small file could otherwise describe a huge model."""
    end, before = 0, ""
    for entry in sorted(entries.values(), key=lambda e: (e.offset, e.nbytes)):
        if entry.nbytes and entry.offset < end:
            raise CheckpointError(f"{path}: {entry.name!r} and {before!r} overlap in the file")
        end, before = max(end, entry.offset + entry.nbytes), entry.name


def plain(dtype: str) -> Callable[[bytes, tuple[int, ...]], Array]:
    """A decoder for little-endian arrays of a NumPy dtype."""

    def decode(raw: bytes, shape: tuple[int, ...]) -> Array:
        array = np.frombuffer(raw, dtype=np.dtype(dtype)).reshape(shape)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    return decode


def boolean(raw: bytes, shape: tuple[int, ...]) -> Array:
    """Bytes to bool; any byte that is not zero is true (a raw bool of 2 would misbehave)."""
    return np.not_equal(np.frombuffer(raw, dtype=np.uint8), 0).reshape(shape)


def bfloat16(raw: bytes, shape: tuple[int, ...]) -> Array:
    """bfloat16 to float32, exactly: it is the upper half of a float32."""
    upper = np.frombuffer(raw, dtype="<u2").astype(np.uint32)
    wide: Array = np.left_shift(upper, np.uint32(16)).view(np.float32)
    return wide.reshape(shape)
