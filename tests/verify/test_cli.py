"""`minitransformer verify` and `cards` as a user types them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minitransformer.cli import main
from minitransformer.verify.verdict import Finding

ROOT = Path(__file__).parents[2]
RIGHT = r"\mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)V"
WRONG = r"\mathrm{softmax}\left(\frac{QK^T}{d_k}\right)V"
PAPER = f"""# A paper

The scores are mixed as

$$
{WRONG}
$$

and correctly as

$$
{RIGHT}
$$
"""
FUNCTIONS = """
import numpy as np

def right(Q, K, V):
    S = Q @ K.T / np.sqrt(Q.shape[-1])
    P = np.exp(S - S.max(axis=-1, keepdims=True))
    return P / P.sum(axis=-1, keepdims=True) @ V

def wrong(Q, K, V):
    S = Q @ K.T / Q.shape[-1]
    P = np.exp(S - S.max(axis=-1, keepdims=True))
    return P / P.sum(axis=-1, keepdims=True) @ V

def renamed(query, key, value):
    return right(query, key, value)

def wrong_axis(Q, K, V):
    P = np.exp(Q @ K.T / np.sqrt(Q.shape[-1]))
    return P / P.sum(axis=0) @ V

def single(Q, K, V):
    Q, K, V = (x.astype(np.float32) for x in (Q, K, V))
    P = np.exp(Q @ K.T / Q.shape[-1] ** 0.5)
    return P / P.sum(-1, keepdims=True) @ V

def batched(Q, K, V):
    B, H, L, E = Q.shape
    S = np.einsum("bhle,bhse->bhls", Q, K) / np.sqrt(E)
    P = np.exp(S)
    return P / P.sum(-1, keepdims=True) @ V

def masked(q, k, v, mask):
    return right(q, k, v), mask

def prints(Q, K, V):
    print("hello from inside")
    return right(Q, K, V)

def hangs(Q, K, V):
    while True:
        pass

def raises(Q, K, V):
    raise KeyError("no such thing")

def crashes(Q, K, V):
    import ctypes
    ctypes.string_at(0)

def writes(Q, K, V):
    Q *= 2
    return right(Q / 2, K, V)

def text(Q, K, V):
    return "0.5"

def narrow(Q, K, V):
    return right(Q, K, V)[:, :1]

def random(Q, K, V):
    return right(Q, K, V) + np.random.rand() * 1e-3

def peeks(Q, K, V):
    try:
        from minitransformer.verify.cards import find
    except ImportError:
        pass
    return right(Q, K, V)

def remembers(Q, K, V, seen=[]):
    seen.append(1)
    return right(Q, K, V) if len(seen) < 40 else Q @ K.T @ V

def by_dtype(Q, K, V):
    return right(Q, K, V) if Q.dtype == object else wrong(Q, K, V)
"""


TENSORS = """
import math
import torch
import torch.nn.functional as F

def attend(query, key, value, mask=None, dropout=None):
    scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(mask == 0, -1e9)
    weights = scores.softmax(dim=-1)
    return torch.matmul(weights, value), weights

def unscaled(query, key, value):
    return torch.softmax(query @ key.transpose(-2, -1), dim=-1) @ value

def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))

def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

def norm(x, weight, bias, eps):
    return F.layer_norm(x, x.shape[-1:], weight, bias, float(eps))

def annotated_norm(x, weight, bias, eps):
    return weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps) + bias

def keyword_norm(x, weight, bias, *, eps=1e-5):
    variance = x.var(-1, keepdim=True, unbiased=False)
    return weight * (x - x.mean(-1, keepdim=True)) / torch.sqrt(variance + eps) + bias
"""


@pytest.fixture
def functions(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["verify", *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


@pytest.mark.parametrize(
    "formula",
    [
        RIGHT,
        "softmax(QKᵀ/√dₖ)V",
        "softmax(Q @ K.T / sqrt(d_k)) @ V",
        "softmax(Q K^T / \\sqrt{d_k}) V",
    ],
)
def test_right_formulas_in_three_notations(
    capsys: pytest.CaptureFixture[str], formula: str
) -> None:
    status, out, _ = run(capsys, formula, "--against", "attention")
    assert status == 0
    assert "✓ EQUAL-PROVED" in out


def test_wrong_formula(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, WRONG, "--against", "attention")
    assert status == 1
    assert "✗ DIFFERENT-CERTIFIED" in out and "attention with scale 1/d_k" in out


@pytest.mark.parametrize(
    "arguments",
    [
        [r"-\sum_i y_i \log p_i", "--against", "cross-entropy"],
        ["--against", "cross-entropy", r"-\sum_i y_i\log p_i"],
        ["--against=cross-entropy", r"-\sum_i{y_i\log p_i}"],
        ["--", r"-\sum_i{y_i\log p_i}", "--against", "cross-entropy"],
    ],
)
def test_a_formula_may_start_with_a_minus_sign(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, err) == (0, "")
    assert "claim     -" in out


def test_what_looks_like_an_option_follows_two_dashes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, _ = run(capsys, "--", "-x", "--against", "relu")
    assert status == 1 and "claim     -x" in out
    status, _, err = run(capsys, "-x", "--against", "relu")
    assert status == 2 and "unrecognized arguments: -x" in err


def test_a_formula_finds_its_card(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "Attention(Q, K, V) = " + RIGHT)
    assert status == 0
    assert "against attention" in out


@pytest.mark.parametrize(
    ("formula", "verdict"),
    [
        ("softmax(", "CANNOT-PARSE"),
        (r"\frac{Q", "CANNOT-PARSE"),
        ("", "CANNOT-PARSE"),
        ("   ", "CANNOT-PARSE"),
        ("\x00\x01", "CANNOT-PARSE"),
        ("x" * 30_000, "CANNOT-PARSE"),
        ("(" * 5000, "CANNOT-PARSE"),
        ("E = mc^2", "NO-CARD"),
        ("the quick brown fox", None),
        ("🦊 ⊛ 🐇", "CANNOT-PARSE"),
    ],
)
def test_nonsense_is_a_verdict(
    capsys: pytest.CaptureFixture[str], formula: str, verdict: str | None
) -> None:
    status, out, err = run(capsys, formula)
    assert status == 2
    assert "EQUAL" not in out
    if verdict:
        assert f"? {verdict}" in out
    assert len(err.splitlines()) <= 1


def test_json_is_only_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, WRONG, "--against", "attention", "--json")
    report = json.loads(out)
    assert (status, err) == (1, "")
    assert report["schema"] == "minitransformer.verify/1"
    (finding,) = report["findings"]
    assert finding["verdict"] == "DIFFERENT-CERTIFIED"
    assert finding["counterexample"]["certificate"]["disjoint"] is True


def test_files_are_written_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sarif, page = tmp_path / "out.sarif", tmp_path / "out.html"
    page.write_text("old")
    status, *_ = run(
        capsys, WRONG, "--against", "attention", "--sarif", str(sarif), "--html", str(page)
    )
    assert status == 1
    assert json.loads(sarif.read_text())["version"] == "2.1.0"
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.html", "out.sarif"]
    status, _, err = run(capsys, RIGHT, "--html", str(tmp_path / "absent" / "x.html"))
    assert status == 2 and "its folder does not exist" in err


@pytest.mark.parametrize("name", ["right", "renamed", "single", "prints", "batched", "masked"])
def test_right_functions(capsys: pytest.CaptureFixture[str], functions: str, name: str) -> None:
    status, out, err = run(capsys, f"{functions}:{name}", "--against", "attention")
    assert (status, err) == (0, "")
    assert "✓ EQUAL-SUPPORTED" in out
    assert ("prints to standard output: 'hello" in out) == (name == "prints")


@pytest.mark.parametrize(
    ("kernel", "card"),
    [
        ("attention.py:attention_forward", "attention"),
        ("softmax.py:softmax_forward", "softmax"),
        ("softmax.py:log_softmax_forward", "log-softmax"),
        ("layer_norm.py:layer_norm_forward", "layer-norm"),
        ("rms_norm.py:rms_norm_forward", "rms-norm"),
        ("activation.py:gelu_forward", "gelu"),
        ("activation.py:silu_forward", "silu"),
    ],
)
def test_our_own_kernels_as_a_user_would_ask(
    capsys: pytest.CaptureFixture[str], kernel: str, card: str
) -> None:
    path = ROOT / "minitransformer" / "kernels" / kernel
    status, out, err = run(capsys, str(path), "--against", card)
    assert (status, err) == (0, "")
    assert "✓ EQUAL-SUPPORTED" in out


@pytest.mark.parametrize(
    ("name", "card", "verdict"),
    [
        ("attend", "attention", "EQUAL-SUPPORTED"),
        ("unscaled", "attention", "DIFFERENT"),
        ("gelu", "gelu", "EQUAL-SUPPORTED"),
        ("gelu_tanh", "gelu-tanh", "EQUAL-SUPPORTED"),
        ("gelu_tanh", "gelu", "APPROXIMATES"),
        ("norm", "layer-norm", "EQUAL-SUPPORTED"),
        ("annotated_norm", "layer-norm", "DIFFERENT"),
        ("keyword_norm", "layer-norm", "EQUAL-SUPPORTED"),
    ],
)
def test_functions_on_tensors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, card: str, verdict: str
) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "tensors.py"
    path.write_text(TENSORS)
    status, out, _ = run(capsys, f"{path}:{name}", "--against", card)
    assert verdict in out.splitlines()[0]
    assert status == (0 if verdict.startswith("EQUAL") else 1)
    assert ("unbiased variance" in out) == (name == "annotated_norm")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong", "DIFFERENT"),
        ("wrong_axis", "DIFFERENT"),
        ("narrow", "WRONG-SHAPE"),
        ("by_dtype", "DIFFERENT"),
        ("hangs", "took over 0.5 s"),
        ("raises", "KeyError: 'no such thing' (line"),
        ("crashes", "SIGSEGV"),
        ("writes", "writes to its input Q"),
        ("text", "returned str, not an array"),
        ("random", "different results for the same inputs"),
        ("peeks", "import minitransformer.verify"),
        ("remembers", ""),
    ],
)
def test_wrong_functions_are_never_equal(
    capsys: pytest.CaptureFixture[str], functions: str, name: str, words: str
) -> None:
    target = f"{functions}:{name}"
    status, out, err = run(capsys, target, "--against", "attention", "--time-limit", "0.5")
    assert (status, err) == (2 if "UNVERIFIABLE" in out else 1, "")
    assert "EQUAL" not in out
    assert words in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["softmax(Q)", "--against", "atention"], "did you mean attention"),
        (["no_such_file.md"], "no such file"),
        (["no_such_file.py:f", "--against", "attention"], "no such file"),
        (["{functions}:absent", "--against", "attention"], "no 'absent' in the file"),
        (["{functions}:right"], "--against CARD"),
        (["{functions}:right", "--against", "attention", "--time-limit", "-1"], "--time-limit"),
        (["."], "is a folder"),
        (["--against", "attention"], "needs something to compare"),
        (["--wrong-option"], "unrecognized arguments"),
    ],
)
def test_usage_errors_are_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], functions: str, arguments: list[str], words: str
) -> None:
    status, out, err = run(capsys, *[a.format(functions=functions) for a in arguments])
    assert (status, out) == (2, "")
    assert words in err
    assert err.splitlines()[-1].startswith("minitransformer")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"\x7fELF\x00\x00\x01", "binary"),
        (b"\xff\xfa\xfb text", "not UTF-8"),
        (b"a" * ((10 << 20) + 1), "over 10 MiB"),
    ],
)
def test_unfit_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "paper.md"
    path.write_bytes(content)
    status, out, err = run(capsys, str(path))
    assert (status, out) == (2, "")
    assert words in err and len(err.splitlines()) == 1


def test_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "paper.md"
    path.write_text(PAPER)
    status, out, _ = run(capsys, str(path))
    assert status == 1
    assert "paper.md:5" in out or "paper.md:6" in out
    assert "✗ DIFFERENT-CERTIFIED" in out and "✓ EQUAL-PROVED" in out
    assert "2 claims: 1 holds, 1 refuted" in out


def test_a_document_says_what_was_not_checked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "paper.md"
    path.write_text(PAPER + "\nThe size $n$ grows with $k(n + 1)$.\n\n```text\nnothing\n```\n")
    _, out, _ = run(capsys, str(path))
    assert "not checked: 1 formula, line 15" in out
    assert "not checked: 1 code block, line 18" in out
    assert "line 6" not in out.partition("note:")[2]


def test_a_document_without_formulas_is_fine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Nothing to see here.\n")
    status, out, _ = run(capsys, str(path))
    assert status == 0
    assert "nothing to check" in out


@pytest.mark.parametrize(("text", "status"), [(PAPER, 1), (WRONG, 1), (RIGHT, 0), ("", 2)])
def test_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, status: int
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    found, out, _ = run(capsys, "-", "--against", "attention")
    assert found == status
    assert ("DIFFERENT-CERTIFIED" in out) == (status == 1)


LINES = "S = Q K^T / d_k\nW = softmax(S)\n"
ONE_FORMULA = "softmax(\n  Q K^T / \\sqrt{d_k}\n) V"
PROSE = "The weights of attention are divided by the root of the size of a key.\n"
NOTEBOOK = '{"cells": [{"cell_type": "markdown", "source": ["# T\\n", "$2 + 3 = 6$"]}]}'


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        (LINES, "document", "standard input:"),
        (ONE_FORMULA, "formula", "EQUAL-PROVED"),
        (PROSE, "document", "nothing to check"),
        ("# Heading\n\nsoftmax(QKᵀ/dₖ)V\n", "document", "standard input:3"),
        ("See:\n\n```python\nx = 1\n```\n", "document", "not checked: 1 code block, line 4"),
        ("import math\n\nx = 1\n", "document", "not checked: 1 code block, line 1"),
        (NOTEBOOK, "document", "standard input cell 1 line 2"),
    ],
)
def test_standard_input_is_a_formula_or_a_document(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    kind: str,
    shown: str,
) -> None:
    for option in ((), ("--json",)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        _, out, err = run(capsys, "-", *option)
        assert not err
        if option:
            assert json.loads(out)["kind"] == kind
        else:
            assert shown in out


def test_ledger_is_as_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys)
    assert status == 0, out
    assert "all as the ledger records" in out
    assert "attention with scale 1/d_k" in out
    assert out.count("(as recorded)") >= 9


def test_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cards"]) == 0
    listing = capsys.readouterr().out
    assert "attention" in listing and "cards; `minitransformer cards NAME` shows one" in listing
    assert main(["cards", "Scaled dot-product attention"]) == 0
    shown = capsys.readouterr().out
    assert "Vaswani" in shown and r"\sqrt{d_k}" in shown and "n_q × d_k" in shown
    assert main(["cards", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert {"id", "formula", "source", "equation"} <= set(cards[0])
    assert main(["cards", "atention"]) == 2
    assert "did you mean attention" in capsys.readouterr().err


def command(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "minitransformer", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def test_the_command_itself(functions: str) -> None:
    wrong = command("verify", WRONG, "--against", "attention")
    assert wrong.returncode == 1
    assert "DIFFERENT-CERTIFIED" in wrong.stdout and "\x1b" not in wrong.stdout
    assert wrong.stderr == ""
    ascii_only = command("verify", RIGHT, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ascii_only.returncode == 0
    assert "Traceback" not in ascii_only.stderr


def test_interrupt_keeps_what_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from minitransformer.verify import document

    def interrupted(*arguments: object, **options: object) -> Iterator[Finding]:
        for number, finding in enumerate(findings(*arguments, **options)):
            if number == 3:
                raise KeyboardInterrupt  # where a signal would arrive
            yield finding

    findings = document.judged
    monkeypatch.setattr(document, "judged", interrupted)
    path = tmp_path / "long.md"
    path.write_text("\n".join(f"$$\n{WRONG} + {i} V\n$$\n\ntext\n" for i in range(30)))
    status, out, _ = run(capsys, str(path), "--json", "--html", str(tmp_path / "page.html"))
    report = json.loads(out)
    assert status == 130
    assert report["interrupted"] is True
    assert len(report["findings"]) == 3
    assert "stopped early" in (tmp_path / "page.html").read_text()


def test_a_real_interrupt_leaves_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "long.md"
    path.write_text("\n".join(f"$$\n{WRONG} + {i} V\n$$\n\ntext\n" for i in range(3000)))
    process = subprocess.Popen(
        [sys.executable, "-m", "minitransformer", "verify", str(path), "--json"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # Where the machine is so busy that the interpreter is still starting, it dies of the signal.
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err


def test_progress_is_told_to_the_caller() -> None:
    from minitransformer.verify import check_document

    told: list[tuple[int, int]] = []
    check_document(PAPER, "paper.md", advance=lambda done, total: told.append((done, total)))
    assert told[-1] == (2, 2)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_check_from_python(functions: str) -> None:
    from minitransformer.verify import check

    assert check(RIGHT, "attention").holds
    assert check(f"{functions}:right", "attention").holds
    assert not check(f"{functions}:wrong", "attention").holds
    namespace: dict[str, object] = {}
    exec(textwrap.dedent(FUNCTIONS), namespace)
    assert check(namespace["right"], "attention").holds  # type: ignore[arg-type]
    report = check(namespace["wrong"], "attention")  # type: ignore[arg-type]
    assert "DIFFERENT" in repr(report)
    for name, words in (("writes", "writes to its inputs"), ("random", "different results")):
        report = check(namespace[name], "attention")  # type: ignore[arg-type]
        assert report.status == 2 and words in repr(report)
    with pytest.raises(ValueError, match="a function needs the card"):
        check(namespace["right"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="did you mean"):
        check(RIGHT, "atention")
    with pytest.raises(TypeError, match="expected a formula or a function"):
        check(3)  # type: ignore[arg-type]
