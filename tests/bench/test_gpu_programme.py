"""The programme's order of events with real processes: limits, failures, restarts, the report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import command, programme, report
from benchmarks.gpu.part import Part
from benchmarks.gpu.stages import STAGES
from minitransformer.backend import is_cuda_available
from minitransformer.bench.devices import Host

# Each writes what it found first and then comes to its own end.
ENDS = {
    "good": "",
    "broken": "print('before it broke'); raise ValueError('this is why')",
    "hanging": "import time; time.sleep(60)",
    "noisy child": "import subprocess, sys, time; "
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)",
    "crashed": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
}
STAGE = "import json, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps({'rows': [1]}))"


def stage(name: str, part: Path, seconds: float) -> Sequence[str]:
    return [sys.executable, "-c", f"{STAGE}; {ENDS[name]}" if ENDS[name] else STAGE, str(part)]


def test_every_end_of_a_stage_is_recorded_and_the_next_goes_on(tmp_path: Path) -> None:
    limits = {"broken": 20.0, "hanging": 2.0, "crashed": 20.0, "good": 20.0}
    found = programme.run(limits, tmp_path, 120.0, command=stage)
    status = {name: s["status"] for name, s in found["stages"].items()}
    assert status == {
        "broken": "failed: 1", "hanging": "stopped after 2 s", "crashed": "failed: -11",
        "good": "done",
    }  # fmt: skip
    assert all(s["rows"] == [1] for s in found["stages"].values())  # kept, whatever came after
    assert found["stages"]["broken"]["error"][-1] == "ValueError: this is why"
    assert "before it broke" in (tmp_path / "gpu.log").read_text()
    assert json.loads((tmp_path / "gpu.json").read_text()) == found
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gpu.json", "gpu.log"]


def test_a_stage_ends_with_all_that_it_started(tmp_path: Path) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("processes are listed in /proc")
    programme.run({"noisy child": 2.0}, tmp_path, 60.0, command=stage)

    def alive() -> list[str]:
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return [line for line in lines if str(tmp_path) in line]

    assert alive() == []


def test_a_budget_shortens_and_skips_the_last(tmp_path: Path) -> None:
    started: list[tuple[str, float]] = []

    def noted(name: str, part: Path, seconds: float) -> Sequence[str]:
        started.append((name, seconds))
        return stage("good", part, seconds)

    limits = {"first": 8.0, "second": 100.0, "third": 100.0}
    found = programme.run(limits, tmp_path, 9.0, command=noted)
    assert [name for name, _ in started] == ["first"] and started[0][1] == 8.0
    assert found["stages"]["third"]["status"].startswith("skipped: ")
    started.clear()
    programme.run(limits, tmp_path / "more", 60.0, command=noted)
    assert started[1][1] < 60.0  # what was left of the budget, not its own 100


def test_resume_keeps_what_is_done(tmp_path: Path) -> None:
    limits = {"good": 20.0, "broken": 20.0}
    programme.run(limits, tmp_path, 60.0, command=stage)
    started: list[str] = []

    def noted(name: str, part: Path, seconds: float) -> Sequence[str]:
        started.append(name)
        return stage("good", part, seconds)

    found = programme.run(limits, tmp_path, 60.0, resume=True, command=noted)
    assert started == ["broken"]
    assert {s["status"] for s in found["stages"].values()} == {"done"}
    started.clear()
    programme.run(limits, tmp_path, 60.0, command=noted)
    assert started == ["good", "broken"]


def test_what_matters_comes_first() -> None:
    within = [sum(s.seconds for s in list(STAGES.values())[:n]) for n in range(len(STAGES) + 1)]
    assert within[8] <= 570  # all but sanitizer and torch.compile, though each takes its limit
    assert list(STAGES)[:3] == ["limits", "tests", "training"]


def test_a_stage_is_started_by_a_command_line_that_the_parser_takes(tmp_path: Path) -> None:
    words = programme.stage_command("limits", tmp_path / "limits.json", 30.0)
    assert words[:4] == [sys.executable, "-m", "benchmarks", "gpu"]
    if is_cuda_available():
        pytest.skip("it would run")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "CuPy" in done.stderr, done.stderr


def test_without_a_gpu_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if is_cuda_available():
        pytest.skip("there is one")
    from benchmarks.__main__ import main

    monkeypatch.setattr(sys, "argv", ["benchmarks", "gpu"])
    assert main() == 2
    error = capsys.readouterr().err
    assert "CuPy" in error and error.count("\n") == 1


def test_a_part_keeps_rows_and_names_failures(tmp_path: Path) -> None:
    part = Part(tmp_path / "p.json", 60.0, Host())
    part.attempt("two rows", lambda: iter([{"name": "a"}, {"name": "b"}]))

    def breaks() -> Any:
        yield {"name": "c"}
        raise RuntimeError("out of memory\nand more")

    part.attempt("a broken one", breaks)
    run = json.loads((tmp_path / "p.json").read_text())
    assert [r["name"] for r in run["rows"]] == ["a", "b", "c"]
    assert run["left out"][-1] == "a broken one: RuntimeError: out of memory"


def measured(tmp_path: Path) -> dict[str, Any]:
    sides = {"minitransformer": {"flops": 1e12, "bytes": 2e12}}
    step = {
        "name": "training step", "size": "124M T1024", "dtype": "bfloat16", "median": 0.05,
        "low": 0.049, "high": 0.051, "ratio": 0.8, "tokens_per_second": 327680.0,
        "their_tokens_per_second": 262144.0, "compiled": False, "bound": "compute",
        "ours peak": 2**34, "theirs peak": 2**35,
    }  # fmt: skip
    norm = {"name": "layer_norm forward", "size": "N1 D1", "dtype": "float32", "gbytes": 1900.0}
    environment = {
        "gpu": {"name": "GPU of a test", "cupy": "14.2.0"}, "python": "3", "numpy": "2",
    }  # fmt: skip
    return {
        "schema": programme.SCHEMA, "revision": "abc",
        "stages": {
            "limits": {"status": "done", "rates": {"float32": sides}, "environment": environment},
            "training": {"status": "done", "rows": [step], "left out": ["TF32: no time"]},
            "kernels": {"status": "stopped after 75 s", "rows": [norm]},
        },
    }  # fmt: skip


def test_the_table_says_what_is_met_and_what_was_not_measured(tmp_path: Path) -> None:
    lines = {work: rest for work, *rest in report.targets(measured(tmp_path))}
    assert lines["GPT-2 124M step, bfloat16, PyTorch eager"] == [
        "≥ 1.00 × PyTorch's speed", "1.25 × PyTorch's speed", "yes"
    ]  # fmt: skip
    assert lines["layer norm"][1:] == ["95% of the copy bandwidth", "yes"]
    assert lines["the same in float32"][1:] == [report.MISSING, ""]
    text = "\n".join([*report.summary(measured(tmp_path)), *report.details(measured(tmp_path))])
    assert "| bfloat16 | 327,680 | 262,144 | 16.0 GiB | 32.0 GiB | compute |" in text
    assert "GPU of a test" in text and "Stage `kernels`: stopped after 75 s." in text
    assert "left out: TF32: no time" in text and report.RULES[0] in text


def test_the_pages_are_written_from_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, path in (("ROOT", tmp_path), ("RESULTS", tmp_path / "results")):
        monkeypatch.setattr(command, name, path)
    (tmp_path / "results").mkdir()
    page = tmp_path / "README.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    monkeypatch.setattr(command, "PAGES", {page: False})
    run = tmp_path / "gpu.json"
    run.write_text(json.dumps(measured(tmp_path)))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "gpu", "--report", str(run)])
    from benchmarks.__main__ import main

    assert main() == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| layer norm | ≥ 90% of the copy bandwidth | 95% of the copy bandwidth | yes |" in text
    assert "(results/gpu.svg)" in text
    page.write_text("no place")
    with pytest.raises(ValueError, match="no place for results"):
        report.rewrite(page, "text")


def test_the_committed_pages_hold_the_committed_results() -> None:
    records = [programme.load(p) for p in sorted(command.RESULTS.glob("gpu*.json"))]
    for page, detailed in command.PAGES.items():
        inside = page.read_text().partition(report.BEGIN)[2].partition(report.END)[0]
        picture = (command.RESULTS / "gpu.svg").relative_to(page.parent).as_posix()
        assert inside.strip() == report.block(records, detailed, picture).strip(), page


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_a_file_that_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"gpu\.json is no"):
        programme.load(path)


def test_ctrl_c_ends_the_stage_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait: Callable[..., int] = subprocess.Popen.wait

    def interrupted(self: Any, timeout: float | None = None) -> int:
        if timeout == 30.0:  # the programme's own wait for its stage
            time.sleep(1.0)
            raise KeyboardInterrupt
        return wait(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        programme.run({"hanging": 30.0}, tmp_path, 60.0, command=stage)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["stages"]["hanging"]["status"] == "interrupted"
    assert found["stages"]["hanging"]["rows"] == [1]
