"""Run a user's function where it can do no harm and see no answer.

``load("file.py:name")`` starts one child process with a time and a memory limit
and gives back a callable that sends arrays over and brings the result home. The
child (``sandbox_child.py``) is sent inputs only: no card, no reference and no
expected value ever enters its memory, and it refuses to import or read this
package. Whatever the function does wrong becomes one line of `SandboxError`.

This guards a reviewer against accidents and shortcuts, not a machine against an
attacker: a determined program needs a container.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHILD = Path(__file__).with_name("sandbox_child.py")
OUTPUT_LIMIT = 1 << 20
REPLAYS, REPLAY_SECONDS = 64, 0.5
LOAD_LIMIT = 60.0  # importing a framework on a busy machine takes seconds


class SandboxError(Exception):
    """What a user's function did that keeps it from being judged, in one line.

    Parameters
    ----------
    kind : str
        ``load``, ``timeout``, ``crash``, ``raised``, ``type``, ``mutation``,
        ``unsteady`` or ``reference``.
    message : str
        The line to show.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def split_target(target: str) -> tuple[str, str] | None:
    """Split ``file.py:name``; ``None`` where the text does not have that form.

    >>> split_target("my_file.py:my_attention")
    ('my_file.py', 'my_attention')
    >>> split_target("softmax(Q): K") is None
    True
    """
    path, colon, name = target.rpartition(":")
    if not colon or not path.endswith(".py"):
        return None
    return (path, name) if all(p.isidentifier() for p in name.split(".")) else None


def load(
    target: str, *, time_limit: float = 10.0, memory_limit: int = 4 << 30
) -> SandboxedFunction:
    """Start a child process on ``file.py:name`` and return it as a function.

    Parameters
    ----------
    target : str
        A Python file and the name of a function in it, ``file.py:name``.
    time_limit : float, default 10.0
        Seconds that one call may take before its process is killed; processor seconds
        where the machine is busy with other work.
    memory_limit : int, default 4 GiB
        Bytes of memory the process may use.

    Returns
    -------
    SandboxedFunction
        A callable on NumPy arrays.

    Raises
    ------
    SandboxError
        If the file cannot be loaded or has no such function.
    """
    parts = split_target(target)
    if parts is None:
        raise SandboxError("load", f"{target}: expected file.py:name")
    return SandboxedFunction(*parts, time_limit=time_limit, memory_limit=memory_limit)


class SandboxedFunction:
    """A user's function in its own process; call it with NumPy arrays.

    Object arrays of python-flint balls are passed exactly and come back as such,
    so a difference found in floats can be certified on the unmodified function.

    Attributes
    ----------
    parameters : list of dict
        Name, kind, whether required and default of each parameter.
    framework : str
        ``numpy``, ``torch`` or ``minitransformer``: what the function is given.
    notes : list of str
        What a report should mention, such as several return values.
    failure : SandboxError or None
        What the function did that ends its trial; raised again by every further call.
    """

    def __init__(
        self, path: str, name: str, *, time_limit: float = 10.0, memory_limit: int = 4 << 30
    ) -> None:
        self.path, self.name, self.time_limit = path, name, time_limit
        self.__name__ = name
        self.notes: list[str] = []
        self.framework = "numpy"
        self.parameters: list[dict[str, Any]] = []
        self.failure: SandboxError | None = None
        self._limit = self._started = self._used_before = 0.0
        self._first: tuple[tuple[Any, ...], dict[str, Any], NDArray[Any]] | None = None
        if not Path(path).is_file():
            raise SandboxError("load", f"{path}: no such file")
        to_child, self._outgoing = os.pipe()
        self._incoming, from_child = os.pipe()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close())
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD), str(to_child), str(from_child)],
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=self._printed,
            pass_fds=(to_child, from_child),
            start_new_session=True,
            # No bytecode beside a file that is only being looked at.
            env={**os.environ, **threads, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        os.close(to_child)
        os.close(from_child)
        job = {
            "path": str(Path(path).resolve()),
            "name": name,
            "memory": memory_limit,
            "cpu": int(max(10 * time_limit, 2 * LOAD_LIMIT)),
            "output": OUTPUT_LIMIT,
        }
        try:
            answer, _ = self._exchange(job, b"", max(time_limit, LOAD_LIMIT), "loading the file")
            if "error" in answer and not answer.get("refused"):
                raise SandboxError("load", f"{path}: {answer['error']}")
        except BaseException:
            self.close()
            raise
        self.parameters, self.framework = answer["parameters"], answer["framework"]
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter(
                    p["name"],
                    inspect._ParameterKind[p["kind"]],
                    default=inspect.Parameter.empty if p["required"] else p["default"],
                )
                for p in self.parameters
            ]
        )

    def __call__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        """Return the function's result as a NumPy array."""
        if self.failure is not None:
            raise self.failure
        exact = any(map(is_exact, (*args, *kwargs.values())))
        result = self._call(args, kwargs, repeat=not exact)
        if self._first is None and not exact:
            self._first = (args, kwargs, result)
        return result

    def replay(self) -> None:
        """Repeat the first call some times; a function with a memory answers differently now.

        Raises
        ------
        SandboxError
            If the same inputs give another result than they gave at first.
        """
        if self._first is None or self.failure is not None:
            return
        args, kwargs, before = self._first
        deadline = time.monotonic() + REPLAY_SECONDS
        for _ in range(REPLAYS):
            again = self._call(args, kwargs, repeat=False)
            if again.shape != before.shape or again.tobytes() != before.tobytes():
                raise self._fail(
                    "unsteady", "remembers earlier calls: the first inputs now give another result"
                )
            if time.monotonic() > deadline:
                return

    @property
    def printed(self) -> str:
        """The start of what the function printed."""
        position = self._printed.tell()
        self._printed.seek(0)
        text = self._printed.read(400).decode(errors="replace")
        self._printed.seek(position)
        return text

    def close(self) -> None:
        """Kill the child and everything it started."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for descriptor in (self._outgoing, self._incoming):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._outgoing = self._incoming = -1
        self._printed.close()

    def __enter__(self) -> SandboxedFunction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any], *, repeat: bool) -> NDArray[Any]:
        items, body = _encode([*args, *kwargs.values()])
        message = {"args": items, "names": list(kwargs), "repeat": repeat, "precision": 0}
        if any("balls" in item for item in items):
            import flint

            message["precision"] = flint.ctx.prec
        answer, data = self._exchange(message, body, self.time_limit, "the call")
        if "error" in answer:
            if message["precision"]:
                # Not every function runs on exact numbers; that is no fault of it.
                raise TypeError(answer["error"])
            # A wrong input for this function is an answer, not the end of its process.
            raise SandboxError(answer["kind"], answer["error"])
        if answer["changed"]:
            names = [p["name"] for p in self.parameters]
            what = [
                names[c] if isinstance(c, int) and c < len(names) else c for c in answer["changed"]
            ]
            raise self._fail("mutation", f"writes to its input {', '.join(map(str, what))}")
        if not answer["steady"]:
            raise self._fail("unsteady", "gives different results for the same inputs")
        self.framework = answer["framework"]
        for note in answer["notes"]:
            if note not in self.notes:
                self.notes.append(note)
        return _decode(answer, data)

    def _exchange(
        self, header: dict[str, Any], body: bytes, limit: float, what: str
    ) -> tuple[dict[str, Any], bytes]:
        """Send one message and wait for its answer, but not for longer than `limit`."""
        self._limit, self._started = limit, time.monotonic()
        self._used_before = self._processor_time()
        deadline = self._started + limit
        text = json.dumps(header).encode()
        try:
            data = memoryview(struct.pack("<QQ", len(text), len(body)) + text + body)
            while data:
                data = data[os.write(self._outgoing, data) :]
            sizes = struct.unpack("<QQ", self._read(16, deadline))
            answer = json.loads(self._read(sizes[0], deadline))
            payload = self._read(sizes[1], deadline)
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise self._fail("timeout", f"{what} took over {limit:g} s and was stopped") from None
        except (EOFError, BrokenPipeError, ValueError):
            raise self._fail("crash", f"{what} {self._epitaph()}") from None
        if answer.get("refused"):
            raise self._fail("reference", f"tried to {answer['refused'][0]}")
        return answer, payload

    def _read(self, count: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._incoming], [], [], left)[0]:
                deadline = self._more_time(deadline)
                continue
            part = os.read(self._incoming, min(count - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _more_time(self, deadline: float) -> float:
        """Move the deadline of a call that computes on a machine busy with other work.

        The limit is about the function's own time: where others had the processor, it
        may take up to ten times as long. A function that waits gets nothing.
        """
        used = self._processor_time() - self._used_before
        now = time.monotonic()
        waited = now - self._started
        if used >= self._limit or used < 0.05 * waited or waited > 10 * self._limit:
            raise TimeoutError
        return now + min(self._limit - used + 0.05, self._limit)

    def _processor_time(self) -> float:
        """Seconds of processor time that the child has used, 0 where the system does not say."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return 0.0

    def _epitaph(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if code == -signal.SIGXCPU or code == -signal.SIGKILL:
            return "used up its processor time or memory and was killed"
        if code < 0:
            return f"crashed with {signal.Signals(-code).name}"
        return f"ended its process with status {code}"

    def _fail(self, kind: str, message: str) -> SandboxError:
        self.failure = SandboxError(kind, message)
        return self.failure


def is_exact(value: Any) -> bool:
    """Say whether a value is a ball, or an array of them."""
    if isinstance(value, np.ndarray):
        return bool(value.dtype == object)
    return type(value).__module__.partition(".")[0] == "flint"


def _encode(values: Sequence[Any]) -> tuple[list[dict[str, Any]], bytes]:
    """Describe the values in JSON beside the raw bytes of the arrays."""
    items: list[dict[str, Any]] = []
    body = bytearray()
    for value in values:
        if is_exact(value):
            from flint import arb

            balls = []
            for entry in np.asarray(value, dtype=object).ravel():
                ball = entry if isinstance(entry, arb) else arb(entry)
                balls.append([str(n) for n in (*ball.mid().man_exp(), *ball.rad().man_exp())])
            shape = list(value.shape) if isinstance(value, np.ndarray) else None
            items.append({"balls": balls, "shape": shape})
        elif isinstance(value, (np.ndarray, np.generic)):
            data = np.asarray(value)
            raw = np.ascontiguousarray(data).tobytes()
            items.append(
                {"dtype": data.dtype.str, "shape": list(data.shape), "at": [len(body), len(raw)]}
            )
            body += raw
        else:
            items.append({"value": value})
    return items, bytes(body)


def _decode(header: dict[str, Any], data: bytes) -> NDArray[Any]:
    shape = tuple(header["shape"])
    if "balls" in header:
        from flint import arb

        balls: NDArray[Any] = np.empty(len(header["balls"]), dtype=object)
        for i, parts in enumerate(header["balls"]):
            m, e, rm, re = map(int, parts)
            balls[i] = arb((m, e), (rm, re)) if rm else arb((m, e))
        shaped: NDArray[Any] = balls.reshape(shape)
        return shaped
    numbers: NDArray[Any] = np.frombuffer(data, dtype=header["dtype"])
    result: NDArray[Any] = numbers.reshape(shape).copy()
    return result
