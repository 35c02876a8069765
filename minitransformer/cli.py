"""The command ``minitransformer``: it reads arguments, calls the library and prints.

Exit status: 0 all is well, 1 a claim is refuted or a check failed, 2 the command
was not understood or could not be carried out, 130 interrupted. Errors are one
line on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitransformer._version import __version__

if TYPE_CHECKING:
    from minitransformer.verify.report import Report

# Modules that add their own commands through `add_commands(subparsers)`.
COMMAND_MODULES = ("minitransformer.models.commands", "minitransformer.bench.commands")
OWN = ("verify", "cards", "doctor")
OPTION = re.compile(r"--?[A-Za-z][A-Za-z-]*(=.*)?", re.DOTALL)
VERIFY_EXAMPLES = r"""examples:
  minitransformer verify                                   what one published article claims
  minitransformer verify paper.md --html report.html       every formula of a document
  minitransformer verify 'softmax(\frac{QK^T}{d_k})V'      one formula
  minitransformer verify 'softmax(Q @ K.T / sqrt(d_k)) @ V' --against attention
  minitransformer verify my_file.py:my_attention --against attention
  minitransformer verify -- '-x'                           what looks like an option is a formula
  cat notes.tex | minitransformer verify - --json

exit status: 0 all hold (or are as the ledger records), 1 refuted, 2 no answer: not
understood, undecided, or a function that hangs, crashes or cheats
"""


class UsageError(Exception):
    """What the user asked for cannot be done; the message says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        The exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no mathematics gets question marks and not an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        options = _parser(arguments).parse_args(_formulas_apart(arguments))
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("minitransformer: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; Python must not fail again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("MINITRANSFORMER_TRACEBACK"):
            raise
        expected = isinstance(error, (UsageError, ValueError, OSError, ImportError, RuntimeError))
        text = " ".join(str(error).split()) or type(error).__name__
        if not expected:
            text = (
                f"{type(error).__name__}: {text} (a mistake of ours; "
                "MINITRANSFORMER_TRACEBACK=1 shows where)"
            )
        print(f"minitransformer: error: {text}", file=sys.stderr)
        return 2


def _formulas_apart(arguments: list[str]) -> list[str]:
    r"""Keep a formula that starts with a minus sign from being taken for an option.

    >>> _formulas_apart(["verify", r"-\log p", "--json"])
    ['verify', ' -\\log p', '--json']
    >>> _formulas_apart(["verify", "--", "-x", "--against", "relu"])
    ['verify', ' -x', '--against', 'relu']
    """
    if arguments[:1] != ["verify"]:
        return arguments
    out: list[str] = []
    literal = False
    for argument in arguments:
        if argument == "--" and not literal:
            literal = True
            continue
        formula = argument.startswith("-") and argument != "-" and not OPTION.fullmatch(argument)
        # argparse takes what starts with a space for a positional argument.
        out.append(f" {argument}" if literal or formula else argument)
        literal = False
    return out


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minitransformer",
        description="Verifies formulas, runs transformer models and measures itself.",
    )
    parser.add_argument("--version", action="version", version=f"minitransformer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_verify(commands)
    _add_cards(commands)
    doctor = commands.add_parser("doctor", help="show what this machine and installation offer")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=run_doctor)
    if not arguments or arguments[0] not in OWN:
        for name in COMMAND_MODULES:
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name).add_commands(commands)
    return parser


def _add_verify(commands: Any) -> None:
    verify = commands.add_parser(
        "verify",
        help="say whether a formula, a document or a function is right",
        description="Check formulas against trusted cards; without a target, the bundled ledger.",
        epilog=VERIFY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="a document, file.py:function, a formula, or - for standard input",
    )
    verify.add_argument("--against", metavar="CARD", help="the card to compare with")
    verify.add_argument("--json", action="store_true", help="print JSON (minitransformer.verify/1)")
    verify.add_argument("--sarif", metavar="PATH", type=Path, help="also write SARIF 2.1.0")
    verify.add_argument("--html", metavar="PATH", type=Path, help="also write one HTML page")
    verify.add_argument("--no-color", action="store_true", help="plain text")
    verify.add_argument(
        "--torch",
        action="store_true",
        help="ask PyTorch as a witness also about a single formula (starting it takes a second)",
    )
    verify.add_argument(
        "--time-limit",
        metavar="S",
        type=_positive,
        default=10.0,
        help="seconds that one call of a user's function may take (10)",
    )
    verify.set_defaults(run=run_verify)


def _add_cards(commands: Any) -> None:
    cards = commands.add_parser("cards", help="list the trusted formulas, or show one")
    cards.add_argument("name", nargs="?", metavar="NAME", help="a card's name")
    cards.add_argument("--json", action="store_true", help="print JSON")
    cards.set_defaults(run=run_cards)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


def run_verify(options: argparse.Namespace) -> int:
    """Carry out ``minitransformer verify``."""
    from minitransformer.verify import checking

    for path in (options.sarif, options.html):
        if path is not None and not path.resolve().parent.is_dir():
            raise UsageError(f"{path}: its folder does not exist")
    if options.against is not None:
        options.against = checking.find_card(options.against).id
    if options.torch and importlib.util.find_spec("torch") is not None:
        importlib.import_module("torch")
    with _progress(sys.stderr.isatty() and not options.json) as advance:
        report = _verify_target(options, advance)
    _write_reports(report, options)
    if report.interrupted:
        return 130
    return report.status


def _verify_target(options: argparse.Namespace, advance: Callable[[int, int], None]) -> Report:
    from minitransformer.verify import checking, sandbox

    target: str | None = options.target
    if target is not None and target.startswith(" -"):
        target = target[1:]  # see _formulas_apart
    if target is None:
        from minitransformer.verify.ledger import check_ledger

        if options.against:
            raise UsageError("--against needs something to compare; name a formula or a function")
        return check_ledger(advance=advance)
    if target == "-":
        text = checking.decode(sys.stdin.buffer.read(checking.SIZE_LIMIT + 1), "standard input")
        return checking.check_text(text, "standard input", options.against, advance=advance)
    if sandbox.split_target(target):
        if options.against is None:
            raise UsageError(f"{target}: say which card it should compute, --against CARD")
        return checking.check_function(target, options.against, time_limit=options.time_limit)
    if _is_path(target):
        if Path(target).is_dir():
            raise UsageError(f"{target} is a folder; name a file in it")
        if not Path(target).exists():
            raise UsageError(f"{target}: no such file")
        return checking.check_file(target, options.against, advance=advance)
    return checking.check(target, options.against)


def _is_path(text: str) -> bool:
    """Tell a file's name from a formula: it exists, or ends like one."""
    if not text.strip() or len(text) > 1000 or not text.isprintable():
        return False
    if os.path.exists(text):  # Path.exists raises where a formula is too long for a name
        return True
    suffix = Path(text).suffix.lower()
    return suffix in {".md", ".tex", ".txt", ".html", ".htm", ".ipynb", ".py"} and " " not in text


def _write_reports(report: Report, options: argparse.Namespace) -> None:
    if options.sarif is not None:
        from minitransformer.verify.sarif import to_sarif

        _write(options.sarif, json.dumps(to_sarif(report), ensure_ascii=False, indent=1) + "\n")
    if options.html is not None:
        from minitransformer.verify.html import to_html

        _write(options.html, to_html(report))
    if options.json:
        print(report.to_json())
        return
    from rich.console import Console

    plain = options.no_color or "NO_COLOR" in os.environ
    report.print(
        Console(
            highlight=False,
            emoji=False,
            markup=False,
            no_color=plain,
            force_terminal=False if plain or not sys.stdout.isatty() else None,
        )
    )


def _write(path: Path, text: str) -> None:
    """Write beside the target and rename, so that a failure leaves the old file."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(wanted: bool) -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error once there is something to wait for."""
    if not wanted:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TextColumn("claims")
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("verify", total=None, visible=False)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=total > 5)

        yield advance


def run_cards(options: argparse.Namespace) -> int:
    """Carry out ``minitransformer cards``."""
    from minitransformer.verify import checking

    if options.name is not None:
        card = checking.describe_card(checking.find_card(options.name))
        print(json.dumps(card, ensure_ascii=False, indent=2) if options.json else _show(card))
        return 0
    cards = [checking.describe_card(card) for card in checking.all_cards()]
    if options.json:
        print(json.dumps(cards, ensure_ascii=False, indent=2))
        return 0
    width = max(len(card["id"]) for card in cards)
    for card in cards:
        print(f"{card['id']:<{width}}  {card['name']}  ({card['source']})")
    print(f"{len(cards)} cards; `minitransformer cards NAME` shows one")
    return 0


def _show(card: dict[str, Any]) -> str:
    lines = [f"{card['id']}: {card['name']}"]
    for label, value in card.items():
        if label in ("id", "name") or not value:
            continue
        values = value if isinstance(value, list) else [value]
        lines += [f"  {label if i == 0 else '':<14}{text}" for i, text in enumerate(values)]
    return "\n".join(lines)


def run_doctor(options: argparse.Namespace) -> int:
    """Carry out ``minitransformer doctor``; status 1 where a needed package is missing."""
    found = environment()
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for section, rows in found.items():
            print(section)
            for label, value in rows.items():
                print(f"  {label:<16}{value if value is not None else 'not installed'}")
    return 1 if None in found["needed"].values() else 0


def environment() -> dict[str, dict[str, str | None]]:
    """Say what this machine and installation offer, without importing a framework.

    Returns
    -------
    dict
        Sections ``machine``, ``needed``, ``optional`` and ``gpu``; a package that
        is not installed is ``None``.
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import numpy as np

    from minitransformer.backend import get_num_threads

    def installed(*names: str) -> str | None:
        for name in names:
            with contextlib.suppress(PackageNotFoundError):
                return version(name)
        return None

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    needed = ("numpy", "threadpoolctl", "rich", "markdown-it-py", "python-flint", "safetensors")
    optional = ("torch", "tokenizers", "pillow", "matplotlib", "onnx", "mpi4py")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": {
            "minitransformer": __version__,
            "Python": f"{platform.python_version()} ({platform.machine()}, {platform.system()})",
            "processors": str(cpus),
            "threads": str(get_num_threads()),
            "BLAS": f"{blas.get('name')} {blas.get('version')}",
        },
        "needed": {name: installed(name) for name in needed},
        "optional": {name: installed(name) for name in optional},
        "gpu": {
            "cupy": installed("cupy-cuda12x", "cupy-cuda13x", "cupy"),
            "device": _gpu(),
        },
    }


def _gpu() -> str:
    if importlib.util.find_spec("cupy") is None:
        return "none: CuPy is not installed (pip install 'minitransformer[cuda12]')"
    try:
        cupy = importlib.import_module("cupy")
        count = cupy.cuda.runtime.getDeviceCount()
        names = [
            cupy.cuda.runtime.getDeviceProperties(i)["name"].decode() for i in range(int(count))
        ]
    except Exception as error:
        return f"none: {' '.join(str(error).split())[:120]}"
    return ", ".join(names) or "none"
