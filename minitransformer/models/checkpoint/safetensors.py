"""The safetensors format: a JSON header, then the bytes of the arrays.

Reading is done here and not by the `safetensors` library, because the header must be judged before
anything is allocated, because each array is read when it is asked for, and because the NumPy side
of the library knows no bfloat16. Writing goes through the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .entry import (
    Array,
    Checkpoint,
    CheckpointError,
    Cursor,
    Entry,
    bfloat16,
    boolean,
    element_count,
    plain,
)

#: Longest header that is read. A real one takes about 100 bytes per array.
MAX_HEADER = 16 << 20

# name: (bytes per element, decoder)
_DTYPES = {
    "BOOL": (1, boolean),
    "U8": (1, plain("<u1")),
    "I8": (1, plain("<i1")),
    "U16": (2, plain("<u2")),
    "I16": (2, plain("<i2")),
    "U32": (4, plain("<u4")),
    "I32": (4, plain("<i4")),
    "U64": (8, plain("<u8")),
    "I64": (8, plain("<i8")),
    "F16": (2, plain("<f2")),
    "BF16": (2, bfloat16),
    "F32": (4, plain("<f4")),
    "F64": (8, plain("<f8")),
}


def parse_json(raw: bytes, what: str) -> Any:
    """Parse JSON, refusing duplicate keys, which readers resolve differently."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise CheckpointError(f"{what}: the key {twice!r} appears twice")
        return keys

    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what}: not valid JSON ({str(error)[:120]})") from None


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def read_safetensors(path: str | Path) -> Checkpoint:
    """Open a ``.safetensors`` file.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    Checkpoint
        Its arrays, read when they are looked up; `metadata` is the file's own string map.

    Raises
    ------
    CheckpointError
        If the header is too long, is not JSON, names a key twice, uses an unknown dtype, or its
        shapes and offsets do not cover the rest of the file exactly.
    """
    path = Path(path)
    with open(path, "rb") as file:
        cursor = Cursor(file, path)
        length = cursor.unsigned(8, "the header's length")
        if length > MAX_HEADER:
            raise CheckpointError(
                f"{path}: the header claims {length} bytes, at most {MAX_HEADER} are read; "
                "this is not a safetensors file or it is damaged"
            )
        header = parse_json(cursor.take(length, "the header"), f"{path}: header")
        start, available = cursor.position, cursor.remaining
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is {type(header).__name__}, not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ is not a map of strings")

    entries = {}
    for name, item in header.items():
        if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
            raise CheckpointError(
                f"{path}: {name!r} is not described by dtype, shape and data_offsets"
            )
        dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise CheckpointError(
                f"{path}: {name!r} has dtype {dtype!r}; read are {', '.join(_DTYPES)}"
            )
        if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
            raise CheckpointError(f"{path}: {name!r} has shape {shape} and offsets {offsets}")
        width, decode = _DTYPES[dtype]
        nbytes = element_count(tuple(shape), path, name) * width
        begin, end = offsets
        if end - begin != nbytes or end > available:
            raise CheckpointError(
                f"{path}: {name!r} of shape {tuple(shape)} and {dtype} takes {nbytes} bytes, its "
                f"offsets are {begin}..{end} and the file holds {available}"
            )
        entries[name] = Entry(name, tuple(shape), dtype, path, start + begin, nbytes, decode)

    position = start
    for entry in sorted(entries.values(), key=lambda e: (e.offset, e.nbytes)):
        if entry.offset != position:
            raise CheckpointError(f"{path}: a gap or an overlap before {entry.name!r}")
        position += entry.nbytes
    if position != start + available:
        raise CheckpointError(
            f"{path}: {start + available - position} bytes at the end belong to no array"
        )
    return Checkpoint(path, "safetensors", entries, metadata)


def write_safetensors(
    arrays: Mapping[str, Array], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays to a ``.safetensors`` file.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        The arrays; object arrays are refused.
    path : str or pathlib.Path
        The file to write.
    metadata : mapping of str to str, optional
        Strings to keep in the header.

    Raises
    ------
    CheckpointError
        If an array is of a dtype the format has no name for.

    Notes
    -----
    ``safetensors.numpy.save_file`` writes the buffer behind an array without regard to its
    strides, so a transposed array would come back with wrong values and no error. Every array is
    made contiguous and little-endian first.
    """
    from safetensors.numpy import save_file

    ready = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        known = array.dtype.kind in "biuf" or array.dtype.name == "bfloat16"
        if not known or array.dtype.itemsize > 8:
            raise CheckpointError(f"{name!r} has dtype {array.dtype}, which is not saved")
        little = array.dtype.newbyteorder("<")
        # `ascontiguousarray` would turn a scalar into a vector.
        ready[name] = np.require(array.astype(little, copy=False), requirements="C")
    save_file(ready, path, dict(metadata) if metadata else None)
