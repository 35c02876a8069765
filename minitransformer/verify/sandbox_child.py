"""The process that runs a user's function; started by ``sandbox.py``, never imported.

It is a plain script so that it can refuse to load this package's references: it
imports nothing of minitransformer, is sent inputs only, and answers with outputs.
Messages on two private descriptors are an 8-byte length, a JSON header and the
arrays' raw bytes; nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import resource
import struct
import sys
import traceback
import warnings
from typing import Any

THIS_FILE = os.path.abspath(__file__)
REFERENCES = os.path.dirname(THIS_FILE)
REFUSED: list[str] = []
# Launching programs, network and reading the references are not part of any formula.
FORBIDDEN = {
    "subprocess.Popen": "start another program",
    "os.system": "start another program",
    "os.exec": "start another program",
    "os.posix_spawn": "start another program",
    "os.fork": "start another process",
    "os.forkpty": "start another process",
    "os.kill": "send a signal",
    "os.killpg": "send a signal",
    "socket.connect": "open a network connection",
    "socket.bind": "open a network connection",
}


class WrongReturn(TypeError):
    """The function gave back something that is not an array."""


def refuse(what: str) -> None:
    """Note a forbidden act, so that catching the error does not hide it."""
    if what not in REFUSED:
        REFUSED.append(what)
    raise ImportError(f"refused here: {what}")


class ReferenceGuard:
    """A finder that stands before all others and refuses the verifier itself."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "minitransformer.verify" or name.startswith("minitransformer.verify."):
            refuse(f"import {name} (that is where the reference is)")


def is_reference(path: str) -> bool:
    return os.path.abspath(path).startswith(REFERENCES + os.sep)


def audit(event: str, args: tuple[Any, ...]) -> None:
    """Refuse forbidden system events, and opening a file of the references."""
    if event in FORBIDDEN:
        refuse(FORBIDDEN[event])
    elif event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        path = os.fsdecode(args[0])
        # This script itself holds no answer, and libraries read the main file's source.
        if "verify" in path and os.path.abspath(path) != THIS_FILE and is_reference(path):
            refuse(f"read {os.path.basename(path)} (that is where the reference is)")


def read_exactly(fd: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = os.read(fd, min(count - len(data), 1 << 20))
        if not part:
            # The parent is gone; leave without running the user's exit handlers.
            os._exit(0)
        data += part
    return bytes(data)


def receive(fd: int) -> tuple[dict[str, Any], bytes]:
    header_size, body_size = struct.unpack("<QQ", read_exactly(fd, 16))
    header = json.loads(read_exactly(fd, header_size))
    return header, read_exactly(fd, body_size)


def send(fd: int, header: dict[str, Any], body: bytes = b"") -> None:
    text = json.dumps(header).encode()
    data = memoryview(struct.pack("<QQ", len(text), len(body)) + text + body)
    while data:
        data = data[os.write(fd, data) :]


def decode(items: list[dict[str, Any]], body: bytes) -> list[Any]:
    """Rebuild the arguments: arrays, arrays of balls, and plain JSON values."""
    import numpy as np

    values: list[Any] = []
    for item in items:
        if "balls" in item:
            from flint import arb

            flat = [
                arb((int(m), int(e)), (int(rm), int(re))) if int(rm) else arb((int(m), int(e)))
                for m, e, rm, re in item["balls"]
            ]
            array = np.empty(len(flat), dtype=object)
            array[:] = flat
            values.append(flat[0] if item["shape"] is None else array.reshape(item["shape"]))
        elif "dtype" in item:
            start, size = item["at"]
            part = np.frombuffer(body[start : start + size], dtype=item["dtype"])
            values.append(part.reshape(item["shape"]).copy())
        else:
            values.append(item["value"])
    return values


def framework_of(function: Any, module: Any) -> str:
    """Say which arrays the function was written for, by its module's own globals."""
    annotations = " ".join(map(str, getattr(function, "__annotations__", {}).values()))
    if "ndarray" in annotations:
        return "numpy"
    torch = sys.modules.get("torch")
    if torch is not None:
        for value in vars(module).values():
            home = getattr(value, "__module__", "") or ""
            if value is torch or (inspect.ismodule(value) and value.__name__.startswith("torch.")):
                return "torch"
            if isinstance(home, str) and (home == "torch" or home.startswith("torch.")):
                return "torch"
    for value in vars(module).values():
        if inspect.ismodule(value) and value.__name__.split(".")[0] == "minitransformer":
            return "minitransformer"
    return "numpy"


def to_framework(value: Any, framework: str) -> Any:
    """Turn a NumPy array into the function's kind of array; leave the rest alone."""
    import numpy as np

    if not isinstance(value, np.ndarray) or framework == "numpy":
        return value.copy() if isinstance(value, np.ndarray) else value
    if value.dtype == object:
        raise WrongReturn("exact arithmetic needs a function on NumPy arrays")
    if framework == "torch":
        return sys.modules["torch"].from_numpy(value.copy())
    return sys.modules["minitransformer"].tensor(value.copy())


def to_numpy(result: Any) -> tuple[Any, list[str]]:
    """Take the array out of whatever the function returned, or say what is wrong."""
    import numpy as np

    notes: list[str] = []
    if isinstance(result, (tuple, list)) and result and hasattr(result[0], "shape"):
        if len(result) > 1:
            notes.append(f"returns {len(result)} values; the first one is compared")
        result = result[0]
    if result is None:
        raise WrongReturn("returned None; is a `return` missing?")
    if hasattr(result, "detach"):
        result = result.detach()
        if hasattr(result, "cpu"):
            result = result.cpu()
        if "bfloat16" in str(getattr(result, "dtype", "")):
            result = result.float()
        result = result.numpy()
    elif not isinstance(result, (np.ndarray, np.generic, int, float)) and type(result).__name__ in (
        "arb",
        "fmpq",
    ):
        wrapped = np.empty((), dtype=object)
        wrapped[()] = result
        return wrapped, notes
    if isinstance(result, (bool, str, bytes)) or not isinstance(
        result, (np.ndarray, np.generic, int, float)
    ):
        raise WrongReturn(f"returned {type(result).__name__}, not an array")
    array = np.asarray(result)
    if array.dtype.kind not in "fiubO":
        raise WrongReturn(f"returned an array of dtype {array.dtype}, not of real numbers")
    return array, notes


def was_changed(before: Any, after: Any) -> bool:
    """Say whether a function wrote to an input that it was given."""
    import numpy as np

    if not isinstance(before, np.ndarray):
        return False
    now = after.detach().numpy() if hasattr(after, "detach") else np.asarray(after)
    if now.shape != before.shape:
        return True
    if before.dtype == object:
        return any(a is not b for a, b in zip(now.ravel(), before.ravel(), strict=True))
    return bool(now.tobytes() != before.tobytes())


def encode(array: Any) -> tuple[dict[str, Any], bytes]:
    import numpy as np

    if array.dtype == object:
        from flint import arb

        balls = []
        for entry in array.ravel():
            ball = entry if isinstance(entry, arb) else arb(entry)
            if not ball.is_finite():
                raise WrongReturn("returned a value that is not finite in exact arithmetic")
            middle, radius = ball.mid().man_exp(), ball.rad().man_exp()
            balls.append([str(n) for n in (*middle, *radius)])
        return {"balls": balls, "shape": list(array.shape)}, b""
    data = np.ascontiguousarray(array)
    return {"dtype": data.dtype.str, "shape": list(array.shape)}, data.tobytes()


def one_line(error: BaseException, path: str) -> str:
    """Name the error and the line of the user's own file that it came from."""
    if isinstance(error, MemoryError):
        text = "needed more memory than the limit allows"
    elif isinstance(error, OSError) and error.errno == 27:
        text = "printed or wrote more than the limit allows"
    elif isinstance(error, SystemExit):
        text = f"called exit({error.code!r})"
    else:
        detail = " ".join(str(error).split())
        text = f"{type(error).__name__}: {detail}" if detail else type(error).__name__
    # Frames only: no source line is needed.
    lines = [
        number
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == path
    ]
    where = f" (line {lines[-1]})" if lines else ""
    if isinstance(error, SyntaxError) and error.filename == path:
        where, text = f" (line {error.lineno})", f"SyntaxError: {error.msg}"
    return text[:400] + where


def load_module(path: str) -> Any:
    """Load a file: as a module of its package where it has one, else on its own."""
    folder, name = os.path.dirname(path), os.path.splitext(os.path.basename(path))[0]
    packages: list[str] = []
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        packages.insert(0, package)
    sys.path[0] = folder
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    if packages:
        return importlib.import_module(".".join([*packages, name]))
    spec = importlib.util.spec_from_file_location("user_formula", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["user_formula"] = module
    spec.loader.exec_module(module)
    return module


class Runner:
    """The loaded function and the kind of arrays it takes."""

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        module = load_module(path)
        target: Any = module
        for part in name.split("."):
            if not hasattr(target, part):
                found = [k for k, v in vars(module).items() if inspect.isfunction(v)]
                raise AttributeError(f"no {name!r} in the file; functions there: {found}")
            target = getattr(target, part)
        if inspect.isclass(target):
            raise TypeError(f"{name} is a class; name a function or an instance")
        if not callable(target):
            raise TypeError(f"{name} is a {type(target).__name__}, not a function")
        self.function = target
        self.framework = framework_of(target, module)
        self.settled = False
        if "torch" in sys.modules:
            torch = sys.modules["torch"]
            # A constant built inside the function must not bring float32 rounding along.
            torch.set_default_dtype(torch.float64)
            torch.set_num_threads(1)

    def describe(self) -> dict[str, Any]:
        try:
            parameters = [
                {
                    "name": p.name,
                    "kind": p.kind.name,
                    "required": p.default is p.empty,
                    "default": p.default if isinstance(p.default, (int, float, str)) else None,
                }
                for p in inspect.signature(self.function).parameters.values()
            ]
        except (TypeError, ValueError):
            parameters = []
        return {"parameters": parameters, "framework": self.framework}

    def run(self, args: list[Any], kwargs: dict[str, Any], framework: str) -> tuple[Any, ...]:
        """Call once on fresh copies; also say which inputs were written to."""
        given = [to_framework(a, framework) for a in args]
        named = {k: to_framework(v, framework) for k, v in kwargs.items()}
        result = self.function(*given, **named)
        array, notes = to_numpy(result)
        changed = []
        originals = [*enumerate(args), *kwargs.items()]
        for (label, before), after in zip(originals, [*given, *named.values()], strict=True):
            if was_changed(before, after):
                changed.append(label)
        return array, notes, changed

    def call(self, args: list[Any], kwargs: dict[str, Any], repeat: bool) -> tuple[Any, ...]:
        """Call with the settled kind of arrays, or find the kind on the first call."""
        kinds = [self.framework]
        if not self.settled and self.framework != "numpy":
            kinds.append("numpy")
        errors = []
        for kind in kinds:
            try:
                array, notes, changed = self.run(args, kwargs, kind)
            except (TypeError, AttributeError, RuntimeError, ValueError) as error:
                errors.append(error)
                continue
            if not self.settled and array.dtype.kind != "O":
                self.framework, self.settled = kind, True
            steady = True
            if repeat:
                again = self.run(args, kwargs, kind)[0]
                steady = again.shape == array.shape and again.tobytes() == array.tobytes()
            return array, notes, changed, steady
        raise errors[0]


def main() -> None:
    """Load what the first message names, then answer calls until the pipe closes."""
    incoming, outgoing = int(sys.argv[1]), int(sys.argv[2])
    job, _ = receive(incoming)
    for limit, value in (
        # Memory that can be written to; a CUDA runtime reserves far more addresses than that.
        (resource.RLIMIT_DATA, job["memory"]),
        (resource.RLIMIT_AS, max(8 * job["memory"], 1 << 36)),
        (resource.RLIMIT_CPU, job["cpu"]),
        (resource.RLIMIT_FSIZE, job["output"]),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    # Warnings of the user's code (an overflow, a deprecation) are not its result.
    warnings.simplefilter("ignore")
    import numpy as np

    np.seterr(all="ignore")
    sys.meta_path.insert(0, ReferenceGuard())
    sys.addaudithook(audit)
    try:
        runner = Runner(job["path"], job["name"])
    except BaseException as error:
        send(outgoing, {"error": one_line(error, job["path"]), "refused": REFUSED})
        return
    send(outgoing, {**runner.describe(), "refused": REFUSED})
    while True:
        message, body = receive(incoming)
        if message.get("precision"):
            import flint

            flint.ctx.prec = message["precision"]
        try:
            values = decode(message["args"], body)
            names = message["names"]
            cut = len(values) - len(names)
            array, notes, changed, steady = runner.call(
                values[:cut], dict(zip(names, values[cut:], strict=True)), message["repeat"]
            )
            header, data = encode(array)
            header.update(notes=notes, changed=changed, steady=steady, framework=runner.framework)
        except WrongReturn as error:
            header, data = {"error": str(error), "kind": "type"}, b""
        except BaseException as error:
            header, data = {"error": one_line(error, job["path"]), "kind": "raised"}, b""
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        header["refused"] = REFUSED
        send(outgoing, header, data)


if __name__ == "__main__":
    main()
