import json
import struct
import tracemalloc

import numpy as np
import pytest

from minitransformer.models.checkpoint import (
    CheckpointError,
    open_checkpoint,
    original_names,
    read_gguf,
    read_onnx,
    read_safetensors,
    write_safetensors,
)

from .files import WRITERS


def read_all(path):
    checkpoint = open_checkpoint(path)
    return {name: checkpoint[name] for name in checkpoint}


@pytest.mark.parametrize("kind", WRITERS)
def test_reads_what_was_written(kind, tmp_path):
    path = tmp_path / "model"
    expected = WRITERS[kind](path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == kind
    assert set(checkpoint) == set(expected)
    for name, array in expected.items():
        got = checkpoint[name]
        assert got.dtype == array.dtype and got.shape == array.shape
        np.testing.assert_array_equal(got, array)
        assert checkpoint.entries[name].size == array.size


@pytest.mark.parametrize("kind", WRITERS)
def test_truncation_at_every_byte(kind, tmp_path):
    path = tmp_path / "model"
    WRITERS[kind](path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as caught:
            read_all(path)
        assert str(path) in str(caught.value), length


@pytest.mark.parametrize("kind", WRITERS)
def test_every_single_bit_flip(kind, tmp_path):
    """A flipped bit gives CheckpointError or arrays; never another error, never much memory."""
    path = tmp_path / "model"
    WRITERS[kind](path)
    whole = path.read_bytes()
    refused = 0
    tracemalloc.start()
    try:
        for position in range(len(whole) * 8):
            flipped = bytearray(whole)
            flipped[position // 8] ^= 1 << position % 8
            path.write_bytes(flipped)
            try:
                read_all(path)
            except CheckpointError:
                refused += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused > 0
    assert peak < 4 << 20


def test_transposed_arrays_are_saved_as_they_look(tmp_path):
    """`safetensors.numpy.save_file` alone writes the buffer of a transposed array, silently."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    views = {"t": array.T, "r": array[::-1, ::-1], "s": array[:, ::2], "b": array.astype(">f4")}
    views["scalar"] = np.float32(3.0)
    write_safetensors(views, tmp_path / "model")
    read = read_all(tmp_path / "model")
    for name, view in views.items():
        np.testing.assert_array_equal(read[name], view)
        assert read[name].shape == np.shape(view)


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
)
def test_every_dtype_and_the_library_agree(dtype, tmp_path):
    from safetensors.numpy import load_file

    array = np.arange(12).reshape(3, 4).astype(dtype)
    write_safetensors({"a": array, "empty": array[:0]}, tmp_path / "model")
    mine, theirs = read_all(tmp_path / "model"), load_file(tmp_path / "model")
    for name in ("a", "empty"):
        assert mine[name].dtype == theirs[name].dtype == array.dtype
        np.testing.assert_array_equal(mine[name], theirs[name])


def test_bfloat16_is_read_as_float32(tmp_path):
    values = np.array([1.0, -2.5, 3e38, np.inf], np.float32)
    raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(header)) + header + raw)
    read = read_all(tmp_path / "m")["a"]
    np.testing.assert_array_equal(read, (values.view(np.uint32) & 0xFFFF0000).view(np.float32))


@pytest.mark.parametrize("bad", [np.array([None]), np.array(["a"]), np.zeros(2, np.complex64)])
def test_unsaveable_arrays_are_refused(bad, tmp_path):
    with pytest.raises(CheckpointError, match="dtype"):
        write_safetensors({"a": bad}, tmp_path / "m")
    assert not (tmp_path / "m").exists()


HOSTILE = {
    "duplicate key": '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
    '"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
    "overflowing product": '{"a":{"dtype":"U8","shape":[4294967296,4294967296],'
    '"data_offsets":[0,0]}}',
    "negative size": '{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}',
    "boolean size": '{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}',
    "unknown dtype": '{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}',
    "unhashable dtype": '{"a":{"dtype":[],"shape":[1],"data_offsets":[0,1]}}',
    "backwards": '{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}',
    "not described": '{"a":7}',
    "a list": "[1]",
    "deep": "[" * 100000,
    "huge number": '{"a":{"dtype":"U8","shape":[' + "9" * 5000 + '],"data_offsets":[0,1]}}',
    "many dimensions": '{"a":{"dtype":"U8","shape":[' + "1," * 99 + '1],"data_offsets":[0,1]}}',
    "a gap": '{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
    "metadata": '{"__metadata__":{"a":1}}',
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_headers(what, tmp_path):
    text = HOSTILE[what].encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(text)) + text + b"\0\0")
    with pytest.raises(CheckpointError):
        read_safetensors(tmp_path / "m")


def test_a_header_longer_than_the_cap_is_not_read(tmp_path):
    (tmp_path / "m").write_bytes(struct.pack("<Q", 1 << 62) + b"{")
    with pytest.raises(CheckpointError, match="claims 4611686018427387904 bytes"):
        read_safetensors(tmp_path / "m")


def test_a_header_whose_length_looks_like_a_pickle(tmp_path):
    """640 is ``80 02`` in the file, a pickle's first two bytes; such files were refused."""
    text = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    for length in (0x0280, 0x0480, 0x8B1F):
        padded = text + b" " * (length - len(text))
        (tmp_path / "m").write_bytes(struct.pack("<Q", length) + padded + b"\x07")
        assert read_all(tmp_path / "m")["a"].tolist() == [7]


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


@pytest.mark.parametrize("name", ["m.pt", "m.bin", "m.safetensors", "m.npy", "m.npz", "m.gguf"])
def test_pickles_are_refused_by_content(name, tmp_path):
    import pickle

    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, np.array([1, None], dtype=object), allow_pickle=True)
    elif name.endswith((".npz", ".pt")):
        np.savez(tmp_path / "m.npz", a=np.zeros(2))
        (tmp_path / "m.npz").replace(path)
    else:
        path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(CheckpointError, match="pickle"):
        open_checkpoint(path)


def test_torch_files_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    for new in (True, False):
        torch.save({"a": torch.zeros(2)}, tmp_path / "m", _use_new_zipfile_serialization=new)
        with pytest.raises(CheckpointError, match="pickle"):
            open_checkpoint(tmp_path / "m")


@pytest.mark.slow
def test_gguf_agrees_with_the_gguf_package(tmp_path):
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((4, 512)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_array("words", ["a", "ü"])
    names = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
    expected = {}
    for name in names:
        kind = gguf.GGMLQuantizationType[name]
        raw = gguf.quants.quantize(weights, kind)
        expected[name] = gguf.quants.dequantize(raw, kind)
        writer.add_tensor(name, raw, raw_dtype=kind)
    # the package quantises no Q6_K; any bytes are a valid block once its scale is finite
    blocks = rng.integers(0, 256, (4 * 2, 210), dtype=np.uint8)
    blocks[:, 208:] = np.full((8, 1), 0.25, "<f2").view(np.uint8)
    kind = gguf.GGMLQuantizationType.Q6_K
    blocks = blocks.reshape(4, 420)
    expected["Q6_K"] = gguf.quants.dequantize(blocks, kind)
    writer.add_tensor("Q6_K", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = read_gguf(tmp_path / "m.gguf")
    assert checkpoint.metadata["llama.block_count"] == 3
    assert checkpoint.metadata["words"] == ["a", "ü"]
    for name, array in expected.items():
        assert checkpoint[name].shape == (4, 512), name
        np.testing.assert_array_equal(checkpoint[name], array, err_msg=name)


@pytest.mark.parametrize("count", [1 << 21, 1 << 40, (1 << 64) - 1])
def test_gguf_counts_larger_than_the_file(count, tmp_path):
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
    (tmp_path / "m").write_bytes(head + struct.pack("<IIQ", 9, 8, count))
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / "m")


def test_gguf_overlapping_arrays_are_refused(tmp_path):
    def described(name: bytes) -> bytes:
        return struct.pack("<Q", 1) + name + struct.pack("<IQIQ", 1, 8, 0, 0)

    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + described(b"a") + described(b"b")
    (tmp_path / "m").write_bytes(head + bytes(-len(head) % 32) + bytes(32))
    with pytest.raises(CheckpointError, match="overlap"):
        open_checkpoint(tmp_path / "m")


def test_onnx_agrees_with_the_onnx_package(tmp_path):
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    arrays = {
        str(np.dtype(t)): rng.integers(0, 2, (2, 3)).astype(t)
        for t in ["f2", "f4", "f8", "u1", "i1", "u2", "i2", "i4", "i8", "u4", "u8", "?"]
    }
    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()]
    helper = onnx.helper
    values = {"floats": (1, [1.5, 2.0]), "ints": (6, [-3, 4]), "longs": (7, [-5, 6])}
    for name, (kind, numbers) in values.items():
        tensors.append(helper.make_tensor(name, kind, [2], numbers))
        arrays[name] = onnx.numpy_helper.to_array(tensors[-1])
    graph = helper.make_graph([], "g", [], [], tensors)
    onnx.save(helper.make_model(graph), str(tmp_path / "m.onnx"))
    checkpoint = open_checkpoint(tmp_path / "m.onnx")
    for name, array in arrays.items():
        assert checkpoint[name].dtype == array.dtype
        np.testing.assert_array_equal(checkpoint[name], array)


def test_onnx_external_data_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.numpy_helper.from_array(np.zeros(600, np.float32), "a")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    model = onnx.helper.make_model(graph)
    onnx.save(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin")
    with pytest.raises(CheckpointError, match="another file"):
        open_checkpoint(tmp_path / "m.onnx")


def test_onnx_renamed_weights_get_their_names_back(tmp_path):
    WRITERS["onnx"](tmp_path / "m.onnx")
    checkpoint = read_onnx(tmp_path / "m.onnx")
    assert original_names(checkpoint) == {"onnx::MatMul_7": ("layer.0.fc.weight", True)}
