"""GGUF, the format of llama.cpp: typed metadata, array descriptions, then (quantised) arrays.

Quantised arrays are stored in blocks along their last axis and come back as float32; the block
formulas below are those of ggml's reference dequantisation [1]_.

References
----------
.. [1] ggml-org/ggml, ``src/ggml-quants.c`` and ``docs/gguf.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
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
    element_count,
    plain,
    refuse_overlap,
)

MAGIC = b"GGUF"
#: Longest metadata list and longest name that is read.
MAX_ITEMS = 1 << 22
MAX_NAME = 1 << 16

# kind of a metadata value: its `struct` code
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd"))
_STRING, _ARRAY = 8, 9


def _blocks(raw: bytes, nbytes: int) -> Array:
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, nbytes)


def _half(blocks: Array, start: int) -> Array:
    """The float16 at byte `start` of every block as a float32 column."""
    halves: Array = np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2")
    wide: Array = halves.astype(np.float32)
    return wide


def _nibbles(packed: Array) -> Array:
    """Low halves of the bytes, then the high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _q4_0(raw: bytes, shape: tuple[int, ...]) -> Array:
    blocks = _blocks(raw, 18)
    q = _nibbles(blocks[:, 2:]).astype(np.float32)
    out: Array = _half(blocks, 0) * (q - np.float32(8))
    return out.reshape(shape)


def _q4_1(raw: bytes, shape: tuple[int, ...]) -> Array:
    blocks = _blocks(raw, 20)
    q = _nibbles(blocks[:, 4:]).astype(np.float32)
    out: Array = _half(blocks, 0) * q + _half(blocks, 2)
    return out.reshape(shape)


def _fifth_bits(blocks: Array, start: int) -> Array:
    bits: Array = np.unpackbits(blocks[:, start : start + 4], axis=1, bitorder="little")
    out: Array = np.left_shift(bits, np.uint8(4))
    return out


def _q5_0(raw: bytes, shape: tuple[int, ...]) -> Array:
    blocks = _blocks(raw, 22)
    q = (_nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)).astype(np.float32)
    out: Array = _half(blocks, 0) * (q - np.float32(16))
    return out.reshape(shape)


def _q5_1(raw: bytes, shape: tuple[int, ...]) -> Array:
    blocks = _blocks(raw, 24)
    q = (_nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)).astype(np.float32)
    out: Array = _half(blocks, 0) * q + _half(blocks, 2)
    return out.reshape(shape)


def _q8_0(raw: bytes, shape: tuple[int, ...]) -> Array:
    blocks = _blocks(raw, 34)
    q = blocks[:, 2:].view(np.int8).astype(np.float32)
    out: Array = _half(blocks, 0) * q
    return out.reshape(shape)


def _q6_k(raw: bytes, shape: tuple[int, ...]) -> Array:
    # 256 values: 128 bytes of low nibbles, 64 bytes of high pairs, 16 int8 scales, one float16.
    blocks = _blocks(raw, 210)
    n = len(blocks)
    low = blocks[:, :128].reshape(n, 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    high = blocks[:, 128:192].reshape(n, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(
        1, 1, 4, 1
    )
    q = (low & 15).reshape(n, 8, 32) | ((high & 3).reshape(n, 8, 32) << np.uint8(4))
    q = (q.astype(np.int8) - np.int8(32)).astype(np.float32).reshape(n, 16, 16)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    out: Array = (_half(blocks, 208) * scales)[:, :, None] * q
    return out.reshape(shape)


Decoder = Callable[[bytes, tuple[int, ...]], Array]

# type number: (name, elements per block, bytes per block, decoder)
_TYPES: dict[int, tuple[str, int, int, Decoder]] = {
    0: ("F32", 1, 4, plain("<f4")),
    1: ("F16", 1, 2, plain("<f2")),
    2: ("Q4_0", 32, 18, _q4_0),
    3: ("Q4_1", 32, 20, _q4_1),
    6: ("Q5_0", 32, 22, _q5_0),
    7: ("Q5_1", 32, 24, _q5_1),
    8: ("Q8_0", 32, 34, _q8_0),
    14: ("Q6_K", 256, 210, _q6_k),
    24: ("I8", 1, 1, plain("<i1")),
    25: ("I16", 1, 2, plain("<i2")),
    26: ("I32", 1, 4, plain("<i4")),
    27: ("I64", 1, 8, plain("<i8")),
    28: ("F64", 1, 8, plain("<f8")),
    30: ("BF16", 1, 2, bfloat16),
}


def _string(cursor: Cursor, what: str) -> str:
    return cursor.text(cursor.unsigned(8, what), what)


def _value(cursor: Cursor, kind: int, what: str, depth: int = 0) -> Any:
    if kind == _STRING:
        return _string(cursor, what)
    if kind == _ARRAY:
        if depth > 2:
            raise CheckpointError(f"{cursor.path}: {what} nests lists too deeply")
        inner, count = cursor.unsigned(4, what), cursor.unsigned(8, what)
        if count > MAX_ITEMS:
            raise CheckpointError(
                f"{cursor.path}: {what} claims {count} items, at most {MAX_ITEMS} are read"
            )
        if inner in _SCALARS:
            code = _SCALARS[inner]
            raw = cursor.take(count * struct.calcsize("<" + code), what)
            return list(struct.unpack(f"<{count}{code}", raw))
        # every item takes its own eight bytes of length, so this cannot outgrow the file
        cursor.need(8 * count, what)
        return [_value(cursor, inner, what, depth + 1) for _ in range(count)]
    if kind in _SCALARS:
        code = "<" + _SCALARS[kind]
        return struct.unpack(code, cursor.take(struct.calcsize(code), what))[0]
    raise CheckpointError(f"{cursor.path}: {what} is of the unknown kind {kind}")


def read_gguf(path: str | Path) -> Checkpoint:
    """Open a ``.gguf`` file.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    Checkpoint
        Its arrays, in NumPy's order of axes (GGUF lists the fastest first) and dequantised to
        float32 when they are looked up; `metadata` holds the file's keys and values.

    Raises
    ------
    CheckpointError
        If the file is damaged, of another version or byte order, or uses a type that is not read.
    """
    path = Path(path)
    with open(path, "rb") as file:
        cursor = Cursor(file, path)
        if cursor.take(4, "the magic") != MAGIC:
            raise CheckpointError(f"{path}: not a GGUF file")
        version = cursor.unsigned(4, "the version")
        if version not in (2, 3):
            raise CheckpointError(
                f"{path}: GGUF version {version}; versions 2 and 3 in little-endian order are read"
            )
        n_arrays, n_keys = cursor.unsigned(8, "the counts"), cursor.unsigned(8, "the counts")
        # a key takes at least 13 bytes, an array's description at least 24
        cursor.need(13 * n_keys + 24 * n_arrays, "the list of keys and arrays")

        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = _string(cursor, "a key")
            if len(key) > MAX_NAME or key in metadata:
                raise CheckpointError(f"{path}: the key {key[:80]!r} is too long or appears twice")
            metadata[key] = _value(cursor, cursor.unsigned(4, key), f"the value of {key!r}")

        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 16 or alignment % 8:
            raise CheckpointError(f"{path}: general.alignment is {alignment!r}")

        described = []
        for _ in range(n_arrays):
            name = _string(cursor, "the name of an array")
            rank = cursor.unsigned(4, f"the rank of {name!r}")
            if rank > 4:
                raise CheckpointError(f"{path}: {name!r} has {rank} dimensions, GGUF has up to 4")
            sizes = [cursor.unsigned(8, f"the shape of {name!r}") for _ in range(rank)]
            kind = cursor.unsigned(4, f"the type of {name!r}")
            offset = cursor.unsigned(8, f"the offset of {name!r}")
            described.append((name, tuple(reversed(sizes)), kind, offset))
        start = -(-cursor.position // alignment) * alignment
        size = cursor.size

    entries: dict[str, Entry] = {}
    for name, shape, kind, offset in described:
        if name in entries or len(name) > MAX_NAME:
            raise CheckpointError(f"{path}: {name[:80]!r} is too long or appears twice")
        if kind not in _TYPES:
            known = ", ".join(t[0] for t in _TYPES.values())
            raise CheckpointError(
                f"{path}: {name!r} is of GGML type {kind}, which is not read; read are {known}"
            )
        stored, per_block, block_bytes, decode = _TYPES[kind]
        count = element_count(shape, path, name)
        if (shape[-1] if shape else 1) % per_block:
            raise CheckpointError(
                f"{path}: {name!r} of shape {shape} does not divide into {stored} blocks"
            )
        nbytes = count // per_block * block_bytes
        if offset % alignment or start + offset + nbytes > size:
            raise CheckpointError(
                f"{path}: {name!r} of shape {shape} and {stored} takes {nbytes} bytes at "
                f"{start + offset}; the file has {size}"
            )
        entries[name] = Entry(name, shape, stored, path, start + offset, nbytes, decode)
    refuse_overlap(entries, path)
    return Checkpoint(path, "gguf", entries, metadata)
