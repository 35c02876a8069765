"""A user's function in its process: the right answer comes home, every misdeed is one line."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from minitransformer.verify.sandbox import SandboxError, load, split_target

USER_FILE = """
import math, os, sys
import numpy as np

calls = 0

def good(Q, K, V, scale=None):
    S = Q @ K.T * (1 / math.sqrt(Q.shape[-1]) if scale is None else scale)
    P = np.exp(S - S.max(-1, keepdims=True))
    return P / P.sum(-1, keepdims=True) @ V

def prints(Q, K, V):
    print("inside", Q.shape)
    return Q

def returns_two(Q, K, V):
    return Q, K

def hangs(Q, K, V):
    while True:
        pass

def works_a_second(Q, K, V):
    import time
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        pass
    return Q

def sleeps(Q, K, V):
    import time
    time.sleep(60)

def segfaults(Q, K, V):
    import ctypes
    ctypes.string_at(0)

def leaves(Q, K, V):
    os._exit(3)

def exits(Q, K, V):
    sys.exit("enough")

def raises(Q, K, V):
    return Q @ K

def recurses(Q, K, V):
    return recurses(Q, K, V)

def floods(Q, K, V):
    while True:
        print("x" * 1000)

def hoards(Q, K, V):
    return np.ones((1 << 20, 1 << 14))

def writes(Q, K, V):
    K[0, 0] = 7
    return Q

def guesses(Q, K, V):
    return np.random.rand(2, 2)

def remembers(Q, K, V):
    global calls
    calls += 1
    return Q if calls < 5 else 2 * Q

def forgets(Q, K, V):
    Q @ K.T

def says(Q, K, V):
    return "0.5"

def is_complex(Q, K, V):
    return Q * 1j

def imports_reference(Q, K, V):
    try:
        import minitransformer.verify.decide
    except ImportError:
        pass
    return good(Q, K, V)

def reads_reference(Q, K, V):
    import importlib.util
    try:
        open(REFERENCE).read()
    except Exception:
        pass
    return good(Q, K, V)

def starts_program(Q, K, V):
    import subprocess
    try:
        subprocess.run(["true"])
    except ImportError:
        pass
    return good(Q, K, V)

class Attention:
    def __call__(self, Q, K, V):
        return good(Q, K, V)

attend = Attention()
number = 3
"""


@pytest.fixture
def user_file(tmp_path: Path) -> str:
    import minitransformer.verify.verdict as verdict

    path = tmp_path / "mine.py"
    path.write_text(f"REFERENCE = {verdict.__file__!r}\n" + textwrap.dedent(USER_FILE))
    return str(path)


def inputs() -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(0)
    return random.normal(size=(2, 3)), random.normal(size=(4, 3)), random.normal(size=(4, 5))


def reference(Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> np.ndarray:
    P = np.exp(Q @ K.T / np.sqrt(Q.shape[-1]))
    return P / P.sum(-1, keepdims=True) @ V


@pytest.mark.parametrize("name", ["good", "attend"])
def test_result_comes_home(user_file: str, name: str) -> None:
    with load(f"{user_file}:{name}") as function:
        out = function(*inputs())
        assert out.dtype == np.float64
        np.testing.assert_allclose(out, reference(*inputs()), rtol=1e-14)
        function.replay()


def test_signature_and_keywords(user_file: str) -> None:
    Q, K, V = inputs()
    with load(f"{user_file}:good") as function:
        assert [p["name"] for p in function.parameters] == ["Q", "K", "V", "scale"]
        assert [p["required"] for p in function.parameters] == [True, True, True, False]
        np.testing.assert_allclose(function(Q, K, V=V, scale=0.0)[0], V.mean(0), rtol=1e-14)


def test_exact_balls_travel_both_ways(user_file: str) -> None:
    flint = pytest.importorskip("flint")
    Q, K, V = (np.vectorize(flint.arb, otypes=[object])(x) for x in inputs())
    with flint.ctx.workprec(200), load(f"{user_file}:good") as function:
        out = function(Q, K, V, 0.5)
    assert out.dtype == object
    assert all(float(ball.rad()) < 1e-55 for ball in out.ravel())
    Qf, Kf, Vf = inputs()
    P = np.exp(Qf @ Kf.T * 0.5)
    np.testing.assert_allclose(
        np.vectorize(float)(out), P / P.sum(-1, keepdims=True) @ Vf, rtol=1e-14
    )


def test_printing_is_kept_apart(user_file: str, capfd: pytest.CaptureFixture[str]) -> None:
    with load(f"{user_file}:prints") as function:
        function(*inputs())
        assert function.printed.startswith("inside (2, 3)\n")
    assert capfd.readouterr() == ("", "")


def test_first_of_several_values(user_file: str) -> None:
    with load(f"{user_file}:returns_two") as function:
        assert function(*inputs()).shape == (2, 3)
        assert function.notes == ["returns 2 values; the first one is compared"]


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("segfaults", "crash", "SIGSEGV"),
        ("leaves", "crash", "status 3"),
        ("exits", "raised", "called exit"),
        ("raises", "raised", "ValueError"),
        ("recurses", "raised", "RecursionError"),
        ("floods", "raised", "printed or wrote more"),
        ("hoards", "raised", "memory"),
        ("writes", "mutation", "writes to its input K"),
        ("guesses", "unsteady", "different results"),
        ("forgets", "type", "returned None"),
        ("says", "type", "returned str"),
        ("is_complex", "type", "complex128"),
        ("imports_reference", "reference", "import minitransformer.verify"),
        ("reads_reference", "reference", "read verdict.py"),
        ("starts_program", "reference", "start another program"),
    ],
)
def test_misdeeds_are_one_line(user_file: str, name: str, kind: str, words: str) -> None:
    with (
        load(f"{user_file}:{name}", time_limit=5) as function,
        pytest.raises(SandboxError) as caught,
    ):
        function(*inputs())
    assert caught.value.kind == kind
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hanging_function_is_stopped(user_file: str) -> None:
    started = time.monotonic()
    with load(f"{user_file}:hangs", time_limit=0.3) as function:
        for _ in range(3):
            with pytest.raises(SandboxError, match=r"took over 0\.3 s"):
                function(*inputs())
    assert time.monotonic() - started < 30


def test_the_limit_is_the_functions_own_time(
    user_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(f"{user_file}:works_a_second", time_limit=0.4) as function:
        spent = iter([0.0, *(0.05 * i for i in range(1, 100))])
        # A busy machine: the clock runs, the process gets little of the processor.
        monkeypatch.setattr(function, "_processor_time", lambda: next(spent))
        assert function(*inputs()).shape == (2, 3)
    with (
        load(f"{user_file}:works_a_second", time_limit=0.2) as function,
        pytest.raises(SandboxError, match=r"took over 0\.2 s"),
    ):
        function(*inputs())
    with (
        load(f"{user_file}:sleeps", time_limit=0.3) as function,
        pytest.raises(SandboxError, match=r"took over 0\.3 s"),
    ):
        function(*inputs())


def test_a_function_with_a_memory_is_found(user_file: str) -> None:
    with load(f"{user_file}:remembers") as function:
        function(*inputs())
        function(*inputs())
        with pytest.raises(SandboxError, match="remembers earlier calls"):
            function.replay()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("{file}:absent", "no 'absent' in the file"),
        ("{file}:Attention", "is a class"),
        ("{file}:number", "is a int, not a function"),
        ("absent.py:f", "no such file"),
        ("{file}", "expected file.py:name"),
    ],
)
def test_bad_targets(user_file: str, target: str, words: str) -> None:
    with pytest.raises(SandboxError, match=words) as caught:
        load(target.format(file=user_file))
    assert caught.value.kind == "load"


def test_file_that_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("def f(:\n")
    with pytest.raises(SandboxError, match=r"SyntaxError.*\(line 1\)"):
        load(f"{path}:f")
    path.write_text("import minitransformer.verify\ndef f(x): return x\n")
    with pytest.raises(SandboxError, match=r"tried to import minitransformer\.verify"):
        load(f"{path}:f")


def test_torch_function_gets_tensors(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "with_torch.py"
    path.write_text(
        "import math, torch\n"
        "def attend(q, k, v, mask=None):\n"
        "    w = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)), dim=-1)\n"
        "    return w @ v, w\n"
    )
    with load(f"{path}:attend") as function:
        out = function(*inputs())
        assert function.framework == "torch"
        np.testing.assert_allclose(out, reference(*inputs()), rtol=1e-13)


def test_split_target() -> None:
    assert split_target("a/b.py:f") == ("a/b.py", "f")
    assert split_target("a.py:Model.forward") == ("a.py", "Model.forward")
    assert split_target("a.py") is None
    assert split_target("a.py:not a name") is None
