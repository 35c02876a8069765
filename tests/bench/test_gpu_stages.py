"""The stages of the GPU programme, measured on the pretended device at tiny sizes."""

from __future__ import annotations

import importlib.util
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import report, stages
from benchmarks.gpu.part import Part
from minitransformer.bench import devices, limits, models
from minitransformer.bench.ladder import TOLERANCE, climb, ladders
from minitransformer.bench.limits import Limits
from minitransformer.bench.models import Model
from minitransformer.bench.profile import bound, group_of, summarize
from minitransformer.cli import main
from tests.cuda import fake_cupy, fake_device

torch = pytest.importorskip("torch")

TINY = Model("tiny", 1, 16, 2, 8, 2, 11)
RATES = {dtype: Limits(1e12, 1e12) for dtype in stages.PRECISIONS}


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    monkeypatch.setattr(devices, "HEAD_START", 64)
    with fake_device.installed() as module, fake_cupy.synchronising():
        yield module


@pytest.fixture
def part(cupy: Any, tmp_path: Path) -> Part:
    return Part(tmp_path / "stage.json", 300.0, devices.Cuda(), torch, RATES)


def found(part: Part) -> dict[str, Any]:
    """What is on disk."""
    run: dict[str, Any] = json.loads(part.path.read_text())
    return run


def test_the_pretended_device_has_cupy_s_names(cupy: Any) -> None:
    for kind in (fake_device.Event, fake_device.MemoryPool, fake_device.MemoryHook):
        public = {name for name in vars(kind) if not name.startswith("_")}
        assert public - {"active", "used", "time"} <= set(fake_device.NAMES[kind.__name__])
    assert fake_device.NAMES["cuda"] == ["Event", "MemoryHook", "get_elapsed_time"]
    assert len(fake_device.NAMES["runtime"]) == 3 and "synchronize" in fake_device.NAMES["Device"]


def test_limits(part: Part) -> None:
    stages.limits(part, size=16)
    rates = found(part)["rates"]
    assert set(rates) == {"bfloat16", "float32", "tf32"}, part.run["left out"]
    assert all(set(sides) == {"minitransformer", "PyTorch"} for sides in rates.values())
    assert found(part)["environment"]["gpu"]["name"] == "Pretended GPU"


def test_decoding(part: Part) -> None:
    stages.decoding(part, TINY, (1, 3), 5, 0.0)
    assert part.run["left out"] == []
    assert [r["size"] for r in found(part)["rows"]] == ["tiny B1 past 5", "tiny B3 past 5"]


@pytest.mark.parametrize(
    "words",
    [
        ("kernels", "--kernels", "softmax", "--dtype", "bfloat16"),
        ("train", "--dtype", "tf32"),
        ("generate", "--batch", "2", "--past", "3"),
    ],
    ids=lambda words: words[0],
)
def test_the_bench_command_on_a_gpu(
    words: tuple[str, ...], cupy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.MODELS, "tiny", TINY)
    monkeypatch.setattr(limits, "measure_limits", lambda *_, **__: Limits(1e12, 1e12))
    path = tmp_path / "run.json"
    words = (*words, "--models", "tiny", "--backend", "cupy", "--against", "torch")
    assert main(["bench", *words, "--seconds", "0", "--json", str(path)]) == 0
    run = json.loads(path.read_text())
    assert run["left out"] == [] and run["environment"]["gpu"]["cupy"] == cupy.__version__
    assert all(r["device"] == "cuda" and r["ratio"] > 0 for r in run["rows"])


@pytest.mark.parametrize(
    ("kernel", "dtype"), [("layer_norm", "float32"), ("attention", "bfloat16")]
)
def test_the_ladder_has_a_rung_on_the_gpu(kernel: str, dtype: str, cupy: Any) -> None:
    whole = ladders()[kernel]
    short = whole._replace(sizes=whole.small, rungs=(whole.rungs[0], whole.rungs[-1]))
    definition, last = climb(short, seconds=0.0)
    assert (definition.device, last.device) == ("cpu", "cuda") and last.dtype == dtype
    assert last.peak_bytes > 0 and 0 < last.error < TOLERANCE[dtype]


def test_without_pytorch_the_gap_is_named(cupy: Any, tmp_path: Path) -> None:
    alone = Part(tmp_path / "stage.json", 300.0, devices.Cuda(), limits=RATES)
    stages.attention(alone, (8,), 16, (16,), 0.0)
    assert all("ratio" not in r for r in found(alone)["rows"]) and len(found(alone)["rows"]) == 4
    assert found(alone)["left out"] == [
        "every comparison: PyTorch with CUDA is not installed"
    ]  # fmt: skip


def test_a_wrong_kernel_is_not_timed(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    from minitransformer.bench import workloads

    def wrong(x: Any, *, axis: int = -1) -> Any:
        out, saved = forward(x, axis=axis)
        return out * np.float32(1.1), saved

    forward = workloads.softmax_forward
    monkeypatch.setattr(workloads, "softmax_forward", wrong)
    stages.kernels(part, TINY, 0.0, ("softmax", "linear"))
    assert not any(r["name"].startswith("softmax") for r in found(part)["rows"])
    assert any("softmax" in line and "not timed" in line for line in found(part)["left out"])
    assert any(r["name"] == "linear forward" for r in found(part)["rows"])


def test_a_stage_out_of_time_says_what_it_left_out(cupy: Any, tmp_path: Path) -> None:
    late = Part(tmp_path / "stage.json", 0.0, devices.Cuda(), torch, RATES)
    stages.decoding(late, TINY, (1,), 5, 0.0)
    assert found(late)["rows"] == []
    assert found(late)["left out"] == ["decoding, batch 1: the time of this stage was over"]


def test_the_tests_stage_counts_line_by_line(part: Part, tmp_path: Path) -> None:
    if importlib.util.find_spec("xdist") is None:
        pytest.skip("pytest-xdist is not installed")
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 0\n"
        "@pytest.mark.skip\ndef test_skipped(): pass\n"
    )
    for workers in ("0", "2"):
        with pytest.raises(SystemExit, match="status 1"):
            stages.run_pytest(part, [str(tmp_path), "-n", workers, "-p", "no:cacheprovider"])
        seen = found(part)["tests"]
        assert seen["counts"] == {"passed": 1, "failed": 1, "skipped": 1}
        assert len(seen["failed"]) == 1 and seen["failed"][0].endswith("::test_bad")


def test_the_sanitizer_is_said_to_be_missing(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    stages.sanitizer(part)
    assert found(part)["left out"] == ["everything: compute-sanitizer is not on the PATH"]


def _event(key: str, seconds: float, count: int = 1, kind: str = "CUDA") -> Any:
    device = getattr(torch.autograd.DeviceType, kind)
    return types.SimpleNamespace(
        key=key, count=count, device_type=device, self_device_time_total=seconds * 1e6
    )


def test_a_profile_sorts_kernels_and_counts_waits() -> None:
    seen = summarize([
        _event("nvjet_tst_128x256_64x4", 0.5, 24),
        _event("attention_forward", 0.2, 12),
        _event("cupy_add__float32_float32_float32", 0.1, 30),
        _event("Memcpy DtoH (Device -> Pageable)", 0.001, 3),
        _event("cudaStreamSynchronize", 0.0, 4, "CPU"),
        _event("cuLaunchKernel", 0.0, 66, "CPU"),
    ])  # fmt: skip
    assert list(seen["groups"]) == ["products", "attention", "elementwise and the rest", "memory"]
    assert seen["launches"] == 69 and seen["to host"] == 3 and seen["waits"] == 4
    assert bound(seen, 0.9) == "compute" and bound(seen, 2.0) == "launch"
    assert group_of("void at::native::vectorized_layer_norm_kernel") == "layer norm"


@pytest.mark.slow  # compiles every CUDA kernel for the CPU, in two types
def test_every_stage_fills_its_lines_of_the_table(cupy: Any, tmp_path: Path) -> None:
    record: dict[str, Any] = {"schema": "", "revision": "abc", "stages": {}}
    sizes: dict[str, dict[str, Any]] = {
        "limits": {"size": 16}, "kernels": {"model": TINY, "seconds": 0.0},
        "training": {"model": TINY, "seconds": 0.0}, "profiles": {"model": TINY},
        "attention": {"lengths": (8, 16), "width": 32, "heads": (16,), "seconds": 0.0},
        "decoding": {"model": TINY, "batches": (1,), "past": 5, "seconds": 0.0},
        "crossover": {"largest": 4, "seconds": 0.0, "names": ["softmax"]},
    }  # fmt: skip
    for name, options in sizes.items():
        part = Part(tmp_path / f"{name}.json", 300.0, devices.Cuda(), torch, RATES)
        stages.STAGES[name].run.__call__(part, **options)
        assert part.run["left out"] == [], name
        record["stages"][name] = {"status": "done", **found(part)}

    rows = report.rows(record, "kernels")
    names = {r["name"] for r in rows}
    assert {"AdamW", "clip_grad_norm_", "layer_norm backward", "embedding backward"} <= names
    assert {r["dtype"] for r in rows} == {"float32", "bfloat16"}
    assert all(r["device"] == "cuda" and r["ratio"] > 0 for r in rows)
    assert all(r["gbytes"] > 0 and r["launching"] > 0 for r in rows)
    rows = report.rows(record, "attention")
    assert len(rows) == 2 * 2 * 2  # lengths, types, directions
    assert {r["size"] for r in rows} == {"B2 H2 T8 E16 causal", "B1 H2 T16 E16 causal"}
    rows = report.rows(record, "training")
    assert [r["dtype"] for r in rows] == ["bfloat16", "float32", "tf32"]
    for r in rows:
        assert len(r["losses"]["ours"]) == len(r["losses"]["theirs"]) == 5
        assert r["ours peak"] > 0 and r["tokens_per_second"] > 0
    rows = report.rows(record, "profiles")
    assert all(set(r["profiles"]) == {"ours", "theirs"} for r in rows) and len(rows) == 3
    names = {r["name"] for r in report.rows(record, "crossover")}
    assert {"softmax cpu", "softmax gpu", "softmax transfer"} <= names
    assert set(record["stages"]["crossover"]["wins"]["softmax"]) == {"kernel", "with transfers"}

    lines = report.targets(record)
    missing = [work for work, _, measured, _ in lines if measured == report.MISSING]
    assert missing == ["the same in bfloat16, torch.compile"]
    assert all(met in ("yes", "no") for _, target, _, met in lines if target)
    text = report.block([record], True, "gpu.svg")
    assert "Pretended GPU" in text and "| bfloat16 |" in text and "rows from which on" in text
    if importlib.util.find_spec("matplotlib") is not None:
        report.draw([record], tmp_path / "gpu.svg")
        first = (tmp_path / "gpu.svg").read_bytes()
        report.draw([record], tmp_path / "gpu.svg")
        assert (tmp_path / "gpu.svg").read_bytes() == first
