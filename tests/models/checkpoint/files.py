"""Tiny checkpoints of every format, written byte by byte from the formats' own descriptions."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "weight": rng.standard_normal((3, 4)).astype(np.float32),
        "bias": rng.standard_normal(4).astype(np.float16),
        "step": np.array(7, dtype=np.int64),
    }


def safetensors(path: Path) -> dict[str, np.ndarray]:
    names = {"float32": "F32", "float16": "F16", "int64": "I64"}
    header, data = {}, b""
    for name, array in arrays().items():
        raw = array.tobytes()
        header[name] = {
            "dtype": names[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return arrays()


def gguf(path: Path) -> dict[str, np.ndarray]:
    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    rng = np.random.default_rng(1)
    weight = rng.standard_normal((3, 4)).astype(np.float32)
    q = rng.integers(0, 16, 32)
    low, high = q[:16], q[16:]
    block = np.array([0.5, -2.0], "<f2").tobytes() + (low | high << 4).astype(np.uint8).tobytes()
    body = string("general.architecture") + struct.pack("<I", 8) + string("llama")
    body += string("list") + struct.pack("<IIQ3I", 9, 4, 3, 1, 2, 3)
    body += string("words") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("bc")
    body += string("weight") + struct.pack("<IQQIQ", 2, 4, 3, 0, 0)
    body += string("packed") + struct.pack("<IQIQ", 1, 32, 3, 64)
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 3) + body
    head += bytes(-len(head) % 32)
    path.write_bytes(head + weight.tobytes() + bytes(16) + block)
    return {"weight": weight, "packed": (0.5 * q - 2.0).astype(np.float32)}


def _field(number: int, raw: bytes) -> bytes:
    assert len(raw) < 128
    return bytes([number << 3 | 2, len(raw)]) + raw


def onnx(path: Path) -> dict[str, np.ndarray]:
    weight = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
    tensor = (
        b"\x08\x03\x08\x04\x10\x01" + _field(8, b"onnx::MatMul_7") + _field(9, weight.tobytes())
    )
    steps = b"\x08\x02\x10\x07" + _field(8, b"steps") + _field(7, b"\x05\x07")
    node = _field(1, b"x") + _field(1, b"onnx::MatMul_7") + _field(3, b"/layer.0/fc/MatMul")
    graph = _field(1, node + _field(4, b"MatMul")) + _field(5, tensor) + _field(5, steps)
    head = bytes([0x08, 0x07])
    length = len(graph)
    path.write_bytes(head + bytes([0x3A, length & 127 | 128, length >> 7]) + graph)
    return {"onnx::MatMul_7": weight, "steps": np.array([5, 7])}


def ctranslate2(path: Path) -> dict[str, np.ndarray]:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    weight = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float16)
    raw = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, 2)
    raw += string("encoder/weight") + struct.pack("<BIIBI", 2, 3, 4, 4, 24) + weight.tobytes()
    raw += string("encoder/heads") + struct.pack("<BBIh", 0, 2, 2, 6)
    raw += struct.pack("<I", 1) + string("decoder/weight") + string("encoder/weight")
    path.write_bytes(raw)
    return {"encoder/weight": weight, "encoder/heads": np.array(6, np.int16)}


WRITERS = {
    "safetensors": safetensors,
    "gguf": gguf,
    "onnx": onnx,
    "ctranslate2": ctranslate2,
}
