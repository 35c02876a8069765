"""The command line as a whole: help, versions, the doctor, errors without tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minitransformer import __version__
from minitransformer.cli import main

ROOT = Path(__file__).parents[1]


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    names = (
        "verify",
        "cards",
        "doctor",
        "generate",
        "chat",
        "embed",
        "fill-mask",
        "classify-image",
    )
    assert all(name in out for name in (*names, "transcribe", "inspect", "bench"))
    assert main(["verify", "--help"]) == 0
    assert "exit status" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"minitransformer {__version__}"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["doctor", "--nonsense"]])
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and "error" in err and "Traceback" not in err


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("NumPy".lower(), "BLAS", "threads", "cupy"))
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["minitransformer"] == __version__
    assert found["needed"]["numpy"]


def test_doctor_fails_where_something_needed_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import minitransformer.cli as cli

    found = cli.environment()
    found["needed"]["python-flint"] = None
    monkeypatch.setattr(cli, "environment", lambda: found)
    assert main(["doctor"]) == 1
    assert "not installed" in capsys.readouterr().out


def test_a_mistake_of_ours_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import minitransformer.cli as cli

    def fail() -> None:
        raise KeyError("lost")

    monkeypatch.setattr(cli, "environment", fail)
    assert main(["doctor"]) == 2
    err = capsys.readouterr().err
    assert "a mistake of ours" in err and len(err.splitlines()) == 1
    monkeypatch.setenv("MINITRANSFORMER_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["doctor"])


def test_a_closed_pipe_is_no_error() -> None:
    line = f"{sys.executable} -m minitransformer cards | head -n 1"
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr


def test_interrupt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import minitransformer.cli as cli

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "environment", stop)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "minitransformer: interrupted\n"
