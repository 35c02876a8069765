import json
import os

import numpy as np
import pytest

from minitransformer.models.checkpoint import (
    CheckpointError,
    open_checkpoint,
    read_json,
    save_directory,
    verify_directory,
    write_safetensors,
)
from minitransformer.models.checkpoint import directory as module

ARRAYS = {"a": np.arange(6.0).reshape(2, 3)}


def test_saves_and_verifies(tmp_path):
    target = tmp_path / "deep" / "model"
    save_directory(target, ARRAYS, {"size": 3}, {"tokenizer.json": "{}"})
    verify_directory(target)
    np.testing.assert_array_equal(open_checkpoint(target)["a"], ARRAYS["a"])
    assert read_json(target / "config.json") == {"size": 3}
    assert [p.name for p in target.parent.iterdir()] == ["model"]


def test_nothing_is_overwritten(tmp_path):
    save_directory(tmp_path / "m", ARRAYS, {})
    with pytest.raises(FileExistsError, match="exists"):
        save_directory(tmp_path / "m", {}, {})
    verify_directory(tmp_path / "m")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_damage_is_found(name, tmp_path):
    save_directory(tmp_path / "m", ARRAYS, {"size": 3})
    raw = bytearray((tmp_path / "m" / name).read_bytes())
    raw[len(raw) // 2] ^= 4
    (tmp_path / "m" / name).write_bytes(raw)
    with pytest.raises(CheckpointError):
        verify_directory(tmp_path / "m")


def test_a_crash_at_any_step_leaves_nothing_or_everything(tmp_path, monkeypatch):
    """Every fsync, rename and write is made to fail in turn."""
    calls = {"count": 0, "fail": -1}

    def failing(real):
        def call(*arguments, **options):
            calls["count"] += 1
            if calls["count"] == calls["fail"]:
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(module.os, "fsync", failing(os.fsync))
    monkeypatch.setattr(module.os, "rename", failing(os.rename))
    monkeypatch.setattr(module, "write_safetensors", failing(write_safetensors))
    save_directory(tmp_path / "whole", ARRAYS, {})
    steps = calls["count"]
    assert steps >= 6
    for fail in range(1, steps + 1):
        calls.update(count=0, fail=fail)
        target = tmp_path / f"m{fail}"
        with pytest.raises(OSError, match="No space"):
            save_directory(target, ARRAYS, {})
        if target.exists():
            verify_directory(target)
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_shards(tmp_path):
    write_safetensors({"a": np.zeros(2)}, tmp_path / "one.safetensors")
    write_safetensors({"b": np.ones(3)}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    checkpoint = open_checkpoint(tmp_path)
    assert sorted(checkpoint) == ["a", "b"] and checkpoint["b"].sum() == 3
    for wrong in ({"a": "../one.safetensors"}, {"a": "no.safetensors"}, {"c": "one.safetensors"}):
        path.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(CheckpointError):
            open_checkpoint(tmp_path)


def test_a_directory_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        open_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}.")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        open_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1, "a": 2}', "\udcff", "{", "[" * 99999])
def test_bad_configuration(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError):
        read_json(tmp_path / "config.json")
