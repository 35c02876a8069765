"""A bounded reader of the protocol buffer wire format, just enough for ONNX.

References
----------
.. [1] https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

from .entry import CheckpointError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """The integer at `at` and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise CheckpointError(f"a number is cut off or too long at byte {at}")


def signed(value: int) -> int:
    """A 64-bit pattern as a signed number."""
    return value - (1 << 64) if value >= 1 << 63 else value


def fields(data: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Walk over the fields of the message at ``data[at:end]``.

    Yields ``(number, kind, value, 0)`` for numbers and ``(number, kind, begin, end)`` for
    length-delimited and fixed-width fields, whose bytes are ``data[begin:end]``. Nothing is copied
    and nested messages are not entered.
    """
    while at < end:
        key, at = varint(data, at, end)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise CheckpointError(f"field number 0 at byte {at}")
        if kind == VARINT:
            value, at = varint(data, at, end)
            yield number, kind, value, 0
            continue
        if kind == BYTES:
            length, at = varint(data, at, end)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise CheckpointError(f"field {number} is of the unknown kind {kind} at byte {at}")
        if length > end - at:
            raise CheckpointError(
                f"field {number} claims {length} bytes at {at}, only {end - at} are left"
            )
        yield number, kind, at, at + length
        at += length
