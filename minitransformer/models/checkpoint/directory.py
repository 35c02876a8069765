"""Which format a path is in, and directories: weights, configuration and a manifest together."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .ctranslate2 import read_ctranslate2
from .entry import Array, Checkpoint, CheckpointError
from .gguf import read_gguf
from .onnx import read_onnx
from .safetensors import parse_json, read_safetensors, write_safetensors

#: Longest configuration or index file that is read.
MAX_JSON = 16 << 20

_REFUSED = {
    b"PK\x03\x04": "a zip archive: a PyTorch or NumPy file, which may hold pickled code",
    b"\x80\x02": "a pickle, which may run code when it is loaded",
    b"\x80\x03": "a pickle, which may run code when it is loaded",
    b"\x80\x04": "a pickle, which may run code when it is loaded",
    b"\x80\x05": "a pickle, which may run code when it is loaded",
    b"\x93NUMPY": "a NumPy .npy file, which may hold pickled objects",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip file",
    b"version https://git-lfs": "a Git LFS pointer, not the weights themselves; run `git lfs pull`",
}


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint of any format that is read; the content decides, not the name.

    Parameters
    ----------
    path : str or pathlib.Path
        A ``.safetensors``, ``.gguf`` or ``.onnx`` file, a CTranslate2 ``model.bin``, or a
        directory with one of them (also a sharded ``model.safetensors.index.json``).

    Returns
    -------
    Checkpoint
        The arrays by name, each read when it is looked up.

    Raises
    ------
    CheckpointError
        If there is nothing to read, the content is refused (pickles, archives, object arrays), or
        the file is damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _open_directory(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file or directory")
    with open(path, "rb") as file:
        head = file.read(64)
    # Before the magic numbers: a header of 640 bytes begins as a pickle does.
    if head[8:9] == b"{" and head[4:8] == bytes(4):
        return read_safetensors(path)
    for magic, what in _REFUSED.items():
        if head.startswith(magic):
            raise CheckpointError(
                f"{path}: this is {what}; convert it to safetensors where you trust it"
            )
    if head.startswith(b"GGUF"):
        return read_gguf(path)
    if head[1:4] == b"\0\0\0" and head[6:] and head[6 : 6 + head[4]].endswith(b"\0"):
        return read_ctranslate2(path)
    if head[:1] == b"\x08":  # field 1 of ModelProto, the version, which exporters write first
        return read_onnx(path)
    raise CheckpointError(
        f"{path}: not a safetensors, GGUF, ONNX or CTranslate2 file ({len(head)} bytes read, "
        f"beginning {head[:8].hex(' ') or 'with nothing'})"
    )


def _open_directory(path: Path) -> Checkpoint:
    index = path / "model.safetensors.index.json"
    single = [path / "model.safetensors", path / "model.bin"]
    single += sorted(path.glob("*.gguf")) + sorted(path.glob("*.onnx"))
    single += sorted(p for p in path.glob("*.safetensors") if p not in single)
    for candidate in single[:1]:
        if candidate.is_file():
            return open_checkpoint(candidate)
    if index.is_file():
        return _open_shards(path, index)
    found = [candidate for candidate in single if candidate.is_file()]
    if len(found) == 1:
        return open_checkpoint(found[0])
    if found:
        names = ", ".join(p.name for p in found)
        raise CheckpointError(f"{path}: several checkpoints ({names}); name the one to load")
    pickles = [p.name for p in sorted(path.glob("*.bin")) + sorted(path.glob("*.pt*"))]
    hint = f"; {', '.join(pickles)} would have to be converted to safetensors" if pickles else ""
    raise CheckpointError(f"{path}: no model.safetensors, .gguf, .onnx or model.bin here{hint}")


def _open_shards(path: Path, index: Path) -> Checkpoint:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index}: no weight_map from names to files")
    entries = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{index}: the file {shard!r} lies outside the directory")
        if not (path / shard).is_file():
            raise CheckpointError(f"{path / shard}: named in {index.name}, but not there")
        for name, entry in read_safetensors(path / shard).entries.items():
            if weight_map.get(name) != shard:
                raise CheckpointError(f"{path / shard}: {name!r} is not listed in {index.name}")
            entries[name] = entry
    missing = sorted(set(weight_map) - set(entries))
    if missing:
        raise CheckpointError(f"{index}: {missing[:5]} are listed but in none of the files")
    return Checkpoint(path, "safetensors", entries)


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object from a file of bounded size.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    CheckpointError
        If the file is missing, too long, not UTF-8 JSON, not an object, or names a key twice.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    size = os.path.getsize(path)
    if size > MAX_JSON:
        raise CheckpointError(f"{path}: {size} bytes, at most {MAX_JSON} are read")
    content = parse_json(path.read_bytes(), str(path))
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def save_directory(
    path: str | Path,
    arrays: Mapping[str, Array],
    config: Mapping[str, Any],
    texts: Mapping[str, str] | None = None,
) -> None:
    """Save arrays and configuration as a directory that appears whole or not at all.

    Parameters
    ----------
    path : str or pathlib.Path
        The directory to make; it must not exist.
    arrays : mapping of str to numpy.ndarray
        Written to ``model.safetensors``.
    config : mapping
        Written to ``config.json``.
    texts : mapping of str to str, optional
        Further files by name, for example ``tokenizer.json``.

    Raises
    ------
    FileExistsError
        If `path` exists; nothing is overwritten.

    Notes
    -----
    Everything is written into a temporary directory beside `path` and synchronised to the disk,
    ``manifest.json`` with the SHA-256 of every file last; then the directory is renamed, and the
    rename itself is synchronised. A crash at any moment leaves no `path` or a complete one.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; choose another directory or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        write_safetensors(arrays, work / "model.safetensors", {"format": "np"})
        files = {"config.json": json.dumps(dict(config), indent=2, sort_keys=True) + "\n"}
        files.update(texts or {})
        for name, text in files.items():
            (work / name).write_text(text, encoding="utf-8")
        manifest = {}
        for file in sorted(work.iterdir()):
            _sync(file)
            manifest[file.name] = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        listed = json.dumps({"files": manifest}, indent=2) + "\n"
        (work / "manifest.json").write_text(listed, encoding="utf-8")
        _sync(work / "manifest.json")
        _sync(work)
        os.chmod(work, 0o777 & ~_umask())
        os.rename(work, path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    _sync(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def verify_directory(path: str | Path) -> None:
    """Check every file that the directory's manifest lists.

    Parameters
    ----------
    path : str or pathlib.Path
        A directory that :func:`save_directory` wrote.

    Raises
    ------
    CheckpointError
        If the manifest or a file is missing, or a file's size or SHA-256 differs.
    """
    path = Path(path)
    listed = read_json(path / "manifest.json").get("files")
    if not isinstance(listed, dict):
        raise CheckpointError(f"{path / 'manifest.json'}: lists no files")
    for name, item in listed.items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise CheckpointError(f"{file}: listed in the manifest, but not there")
        if not isinstance(item, dict) or file.stat().st_size != item.get("bytes"):
            raise CheckpointError(f"{file}: {file.stat().st_size} bytes, the manifest says {item}")
        if _sha256(file) != item.get("sha256"):
            raise CheckpointError(f"{file}: the content is not what the manifest recorded")
