"""The arrays of an ONNX file (the initialisers of its graph), without the `onnx` package.

The graph is not run. Its nodes are read for their names only: exporters fold a transposed weight
into an array called ``onnx::MatMul_1966``, and the node that uses it,
``/encoder/layer.0/attention/query/MatMul``, tells what it was.

References
----------
.. [1] onnx/onnx, ``onnx/onnx.proto3``: ModelProto, GraphProto, NodeProto, TensorProto.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .entry import (
    Array,
    Checkpoint,
    CheckpointError,
    Entry,
    bfloat16,
    boolean,
    element_count,
    plain,
    refuse_overlap,
)
from .protobuf import BYTES, VARINT, fields, signed, varint

# TensorProto.DataType: (name, bytes per element, decoder)
_TYPES: dict[int, tuple[str, int, Callable[[bytes, tuple[int, ...]], Array]]] = {
    1: ("FLOAT", 4, plain("<f4")),
    2: ("UINT8", 1, plain("<u1")),
    3: ("INT8", 1, plain("<i1")),
    4: ("UINT16", 2, plain("<u2")),
    5: ("INT16", 2, plain("<i2")),
    6: ("INT32", 4, plain("<i4")),
    7: ("INT64", 8, plain("<i8")),
    9: ("BOOL", 1, boolean),
    10: ("FLOAT16", 2, plain("<f2")),
    11: ("DOUBLE", 8, plain("<f8")),
    12: ("UINT32", 4, plain("<u4")),
    13: ("UINT64", 8, plain("<u8")),
    16: ("BFLOAT16", 2, bfloat16),
}
# fields with typed values in place of raw bytes: those whose wire bytes are the array's bytes
_FLOAT_DATA, _INT32_DATA, _INT64_DATA, _RAW_DATA, _DOUBLE_DATA = 4, 5, 7, 9, 10
_MAX_SCALARS = 1 << 16
_MAX_INITIALISERS = 1 << 17


def _text(data: memoryview, begin: int, end: int) -> str:
    if end - begin > 4096:
        raise CheckpointError(f"a name of {end - begin} bytes at {begin}")
    try:
        return bytes(data[begin:end]).decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"a name at byte {begin} is not UTF-8") from None


def _integers(data: memoryview, kind: int, begin: int, end: int) -> list[int]:
    """One value or a packed run of a repeated integer field."""
    if kind == VARINT:
        return [signed(begin)]
    if kind != BYTES or end - begin > 10 * _MAX_SCALARS:
        raise CheckpointError(f"a list of numbers at byte {begin} is too long or malformed")
    values = []
    while begin < end:
        value, begin = varint(data, begin, end)
        values.append(signed(value))
    return values


def _initialiser(data: memoryview, begin: int, end: int, path: Path) -> Entry:
    name, shape, kind = "", [], 0
    spans: dict[int, tuple[int, int]] = {}
    small: list[int] = []  # values of int32_data and int64_data, which are varints
    for number, wire, a, b in fields(data, begin, end):
        if number == 1:
            shape += _integers(data, wire, a, b)
            if len(shape) > 64:
                raise CheckpointError(f"{path}: an array has more than 64 dimensions")
        elif number == 2 and wire == VARINT:
            kind = a
        elif number == 8 and wire == BYTES:
            name = _text(data, a, b)
        elif number == 13 or (number == 14 and a != 0):
            raise CheckpointError(
                f"{path}: {name!r} is kept in another file; save the model with its data inside"
            )
        elif number in (_RAW_DATA, _FLOAT_DATA, _DOUBLE_DATA) and wire == BYTES:
            if number in spans:
                raise CheckpointError(f"{path}: the data of {name!r} is in several pieces")
            spans[number] = (a, b)
        elif number in (_INT32_DATA, _INT64_DATA):
            small += _integers(data, wire, a, b)
            if len(small) > _MAX_SCALARS:
                raise CheckpointError(f"{path}: {name!r} lists too many integers one by one")
    if kind not in _TYPES:
        known = ", ".join(t[0] for t in _TYPES.values())
        raise CheckpointError(f"{path}: {name!r} has the data type {kind}; read are {known}")
    stored, width, decode = _TYPES[kind]
    count = element_count(tuple(shape), path, name)
    if len(spans) + bool(small) > 1:
        raise CheckpointError(f"{path}: {name!r} has its data twice")
    if small:
        return _from_integers(name, tuple(shape), stored, small, path)
    a, b = next(iter(spans.values()), (begin, begin))
    if b - a != count * width:
        raise CheckpointError(
            f"{path}: {name!r} of shape {tuple(shape)} and {stored} takes {count * width} bytes, "
            f"{b - a} are there"
        )
    return Entry(name, tuple(shape), stored, path, a, b - a, decode)


def _from_integers(
    name: str, shape: tuple[int, ...], stored: str, values: list[int], path: Path
) -> Entry:
    dtypes = {
        "UINT8": "u1", "INT8": "i1", "UINT16": "u2", "INT16": "i2", "INT32": "i4",
        "INT64": "i8", "BOOL": "u1", "FLOAT16": "u2", "BFLOAT16": "u2",
    }  # fmt: skip
    if stored not in dtypes or len(values) != element_count(shape, path, name):
        raise CheckpointError(
            f"{path}: {name!r} of shape {shape} and {stored} lists {len(values)} integers"
        )
    try:
        array = np.array(values, dtype=dtypes[stored])
    except OverflowError:
        raise CheckpointError(f"{path}: a value of {name!r} does not fit {stored}") from None
    decode = next(t[2] for t in _TYPES.values() if t[0] == stored)
    fixed = decode(array.tobytes(), shape)
    return Entry(name, shape, stored, path, 0, 0, lambda _raw, _shape: fixed)


def read_onnx(path: str | Path) -> Checkpoint:
    """Open an ``.onnx`` file and list its initialisers.

    Parameters
    ----------
    path : str or pathlib.Path
        The file; data kept in other files is refused.

    Returns
    -------
    Checkpoint
        The initialisers by name. ``metadata["uses"]`` maps the name of an initialiser to the
        list of ``(operator, node name, input position)`` that read it.

    Raises
    ------
    CheckpointError
        If the file is damaged or is not an ONNX model.
    """
    path = Path(path)
    size = os.path.getsize(path)
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    entries: dict[str, Entry] = {}
    inputs: list[tuple[str, str, list[str]]] = []
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        data = memoryview(mapped)
        try:
            graphs = [
                (a, b) for number, kind, a, b in fields(data, 0, size) if (number, kind) == (7, 2)
            ]
            if len(graphs) != 1:
                raise CheckpointError(f"expected one graph, found {len(graphs)}; not a model")
            for number, kind, a, b in fields(data, *graphs[0]):
                if kind != BYTES or number not in (1, 5, 15):
                    continue
                if number == 15:
                    raise CheckpointError("sparse initialisers are not read")
                if number == 1:
                    inputs.append(_node(data, a, b))
                    continue
                entry = _initialiser(data, a, b, path)
                if entry.name in entries or len(entries) >= _MAX_INITIALISERS:
                    raise CheckpointError(f"{entry.name!r} appears twice or there are too many")
                entries[entry.name] = entry
        except (CheckpointError, struct.error) as error:
            message = str(error)
            prefix = "" if message.startswith(str(path)) else f"{path}: not a readable ONNX file: "
            raise CheckpointError(prefix + message) from None
        finally:
            data.release()
    refuse_overlap(entries, path)
    uses: dict[str, list[tuple[str, str, int]]] = {}
    for operator, node, names in inputs:
        for position, name in enumerate(names):
            if name in entries:
                uses.setdefault(name, []).append((operator, node, position))
    return Checkpoint(path, "onnx", entries, {"uses": uses})


def _node(data: memoryview, begin: int, end: int) -> tuple[str, str, list[str]]:
    names, node, operator = [], "", ""
    for number, kind, a, b in fields(data, begin, end):
        if kind != BYTES:
            continue
        if number == 1:
            names.append(_text(data, a, b))
        elif number == 3:
            node = _text(data, a, b)
        elif number == 4:
            operator = _text(data, a, b)
    return operator, node, names


def original_names(checkpoint: Checkpoint) -> dict[str, tuple[str, bool]]:
    """Names of the initialisers as PyTorch would have them.

    Parameters
    ----------
    checkpoint : Checkpoint
        What :func:`read_onnx` returned.

    Returns
    -------
    dict of str to (str, bool)
        For every initialiser that an exporter renamed, the parameter it was and whether it is
        stored transposed.
    """
    names: dict[str, tuple[str, bool]] = {}
    uses: dict[str, Any] = checkpoint.metadata.get("uses", {})
    for name in checkpoint:
        if not name.startswith("onnx::"):
            continue
        for operator, node, position in uses.get(name, []):
            if operator == "MatMul" and position == 1 and node.endswith("/MatMul"):
                module = node[: -len("/MatMul")].strip("/").replace("/", ".")
                names[name] = (f"{module}.weight", True)
    return names
