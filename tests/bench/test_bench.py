"""The bench commands at tiny sizes, the statistics, and a planted regression."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minitransformer.bench import models
from minitransformer.bench.limits import Limits
from minitransformer.bench.models import Model
from minitransformer.bench.report import load, regressions
from minitransformer.bench.timing import interleave, summarize
from minitransformer.cli import main

TINY = Model("tiny", 1, 16, 2, 8, 2, 11)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.MODELS, "tiny", TINY)


def test_the_interval_holds_the_median_and_narrows() -> None:
    few, many = summarize([float(i) for i in range(9)]), summarize([float(i) for i in range(900)])
    assert few.low <= few.median <= few.high
    assert (many.high - many.low) / 900 < (few.high - few.low) / 9
    with pytest.raises(ValueError, match="at least one"):
        summarize([])


def test_candidates_take_turns_and_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    samples = interleave(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        seconds=0.0, rounds=(4, 4), warmup=1,
    )  # fmt: skip
    assert "".join(calls) == "ab" + "abba" * 2
    assert samples["a"].rounds == samples["b"].rounds == 4


def test_what_bounds_a_kernel() -> None:
    limits = Limits(flops=1e9, bytes=1e9)
    assert limits.bound(5e8, 1e8, 1.0) == ("compute", 0.5)
    assert limits.bound(1e8, 5e8, 1.0) == ("bandwidth", 0.5)
    assert limits.bound(1e6, 1e6, 1.0)[0] == "launch"


def test_step_flops_and_parameters_are_those_of_the_model() -> None:
    network = models.our_model(TINY)
    assert TINY.parameters() == sum(p.array.size for p in network.parameters())
    assert models.MODELS["124M"].parameters() == 123738624


def _run(*arguments: str) -> int:
    return main(["bench", *arguments, "--seconds", "0"])


def test_kernels_against_torch_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "run.json"
    status = _run(
        "kernels", "--kernels", "softmax,dropout", "--models", "0.8M", "--against", "torch",
        "--json", str(path),
    )  # fmt: skip
    assert status == 0
    run = load(path)
    assert [r["name"] for r in run["rows"]] == [
        "softmax forward", "softmax backward", "dropout forward", "dropout backward",
    ]  # fmt: skip
    for r in run["rows"]:
        assert r["low"] <= r["median"] <= r["high"] and r["ratio"] > 0
        assert r["bound"] in ("compute", "bandwidth", "launch")
    assert run["environment"]["numpy"] and run["limits"]["flops"] > 0
    text = capsys.readouterr().out
    assert "softmax forward" in text and "\x1b" not in text  # no colours into a pipe


def test_a_planted_regression_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, arguments = tmp_path / "old.json", ("kernels", "--kernels", "gelu", "--models", "0.8M")
    assert _run(*arguments, "--json", str(old)) == 0
    assert _run(*arguments, "--compare", str(old), "--threshold", "1000") == 0
    planted = json.loads(old.read_text())
    planted["rows"][0]["median"] /= 1e6
    old.write_text(json.dumps(planted))
    capsys.readouterr()
    assert _run(*arguments, "--compare", str(old), "--threshold", "1000") == 1
    slower = [line for line in capsys.readouterr().out.splitlines() if line.startswith("slower")]
    assert len(slower) == 1 and "gelu forward" in slower[0]


def test_ratios_are_compared_before_medians() -> None:
    before = {"rows": [{"name": "a", "size": "1", "median": 1.0, "ratio": 1.0}]}
    busy = {"rows": [{"name": "a", "size": "1", "median": 9.0, "ratio": 1.05}]}
    worse = {"rows": [{"name": "a", "size": "1", "median": 1.0, "ratio": 1.5}]}
    assert regressions(before, busy) == []
    assert regressions(before, worse) == [("a 1", 1.5)]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("against", [(), ("--against", "torch")])
def test_train_and_generate(
    against: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if against:
        pytest.importorskip("torch")
    assert _run("train", "--models", "tiny", *against) == 0
    path = tmp_path / "generate.json"
    status = _run("generate", "--models", "tiny", "--batch", "1,2", *against, "--json", str(path))
    assert status == 0
    assert [r["size"] for r in load(path)["rows"]] == ["tiny B1 past 7", "tiny B2 past 7"]
    assert all(("ratio" in r) == bool(against) for r in load(path)["rows"])
    assert "tokens/s" in capsys.readouterr().out


def test_crossover_says_what_it_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    from minitransformer.backend import is_cuda_available

    assert _run("crossover", "--largest", "16") == 0
    text = capsys.readouterr().out
    assert "attention cpu" in text
    assert is_cuda_available() or "left out: the GPU" in text


def test_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "kernels.svg"
    assert _run("kernels", "--kernels", "gelu", "--models", "0.8M", "--plot", str(path)) == 0
    assert path.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kernels", "--kernels", "nothing"), "unknown kernel 'nothing'"),
        (("train", "--models", "9B"), "unknown model '9B'"),
        (("train", "--compile"), "--against torch"),
        (("kernels", "--kernels", "gelu", "--compare", __file__), "is no JSON file"),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
