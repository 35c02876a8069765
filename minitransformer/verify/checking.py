"""Check a formula, a function, a document or a file: what Python and the command line call."""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minitransformer.verify import sandbox
from minitransformer.verify.calling import LiveFunction, judge_function
from minitransformer.verify.cards import Card, UnknownCard, cards, find
from minitransformer.verify.number_systems import FLOATS
from minitransformer.verify.report import OUTCOME, Report
from minitransformer.verify.verdict import Finding, Place, Verdict

if TYPE_CHECKING:
    from minitransformer.verify.extraction import Document

SIZE_LIMIT = 10 << 20  # bytes of a document; a paper has a tenth of a megabyte
FORMULA_LIMIT = 20_000  # characters of one formula
MOST_LINES = 12  # that a note names
# What makes a piece of mathematics a statement or a formula, and not the name of something.
STATES = re.compile(r"[=+/<>≈(]|\\(frac|sum|prod|le|ge|approx)\b")
Advance = Callable[[int, int], None]
# Importing PyTorch takes a second or more, several times what one formula does.
WITNESS_WHERE_LOADED = ("formula",)


def check(
    subject: str | Callable[..., Any], against: str | None = None, *, time_limit: float = 10.0
) -> Report:
    r"""Say whether a formula or a function is right.

    Parameters
    ----------
    subject : str or callable
        A formula (LaTeX, Unicode or Python), ``file.py:name``, or a function on NumPy
        arrays or torch tensors. ``file.py:name`` runs in a process of its own with a
        time limit; a function object runs here.
    against : str, optional
        The card to compare with. A formula without one is matched with the cards it
        resembles; a function needs one.
    time_limit : float, default 10.0
        Seconds that one call of ``file.py:name`` may take.

    Returns
    -------
    Report
        One finding, with a readable ``repr``.

    Raises
    ------
    ValueError
        If there is no such card, or a function comes without one.

    Examples
    --------
    >>> check("softmax(Q @ K.T / sqrt(d_k)) @ V", "attention").holds
    True
    >>> report = check(r"\mathrm{softmax}(\frac{QK^T}{d_k})V", "attention")
    >>> report.status, report.findings[0].equals_instead
    (1, 'attention with scale 1/d_k')
    """
    if callable(subject):
        if against is None:
            raise ValueError("a function needs the card it should compute: check(f, 'attention')")
        return _check_live(subject, find_card(against))
    if not isinstance(subject, str):
        raise TypeError(f"expected a formula or a function, found {type(subject).__name__}")
    if sandbox.split_target(subject):
        if against is None:
            raise ValueError(f"{subject}: name the card that it should compute")
        return check_function(subject, against, time_limit=time_limit)
    card = None if against is None else find_card(against)
    started = time.perf_counter()
    finding = _formula(subject, card)
    return _report(_short(subject), "formula", (finding,), started)


def check_function(target: str, against: str, *, time_limit: float = 10.0) -> Report:
    """Check ``file.py:name`` in a process of its own.

    Parameters
    ----------
    target : str
        ``file.py:name``.
    against : str
        The card that the function should compute.
    time_limit : float, default 10.0
        Seconds that one call may take.

    Returns
    -------
    Report
        One finding. A function that hangs, crashes, prints, writes to its inputs or
        looks for the reference gets a finding that says so and is never called equal.

    Raises
    ------
    ValueError
        If there is no such card or file, or no such function in it.
    """
    card = find_card(against)
    started = time.perf_counter()
    path, name = sandbox.split_target(target) or (target, "")
    place = Place(path, _line_of(path, name), f"{name} of {Path(path).name}")
    notes: list[str] = []
    try:
        with sandbox.load(target, time_limit=time_limit) as function:
            finding = judge_function(function, card, place)
            notes += [f"{name} {note}" for note in function.notes]
            if function.printed:
                start = " ".join(function.printed.split())[:80]
                notes.append(f"{name} prints to standard output: {start!r}")
    except sandbox.SandboxError as error:
        if error.kind == "load":
            raise ValueError(str(error)) from None
        finding = _misdeed(place, card, error)
    return _report(target, "function", (finding,), started, notes)


def check_text(
    text: str, name: str, against: str | None = None, *, advance: Advance | None = None
) -> Report:
    r"""Check a text that has no file: a formula as `check` does, anything else as a document.

    Several lines, headings, fences, sentences or delimiters make a document.

    Parameters
    ----------
    text, name, against, advance
        As for `check_document`.

    Examples
    --------
    >>> check_text("softmax(QK^T/\\sqrt{d_k})V", "standard input", "attention").kind
    'formula'
    >>> check_text("# Sizes\n\nSo $2 + 3 = 6$.", "standard input").findings[0].place.line
    3
    """
    from minitransformer.verify.extraction import format_of

    if format_of(text):
        return check_document(text, name, against, advance=advance)
    return check(text.strip(), against)


def check_document(
    text: str, name: str, against: str | None = None, *, advance: Advance | None = None
) -> Report:
    """Check every formula, worked example, code listing and figure of a document.

    Parameters
    ----------
    text : str
        The document: Markdown, LaTeX, HTML, a notebook's JSON or plain text.
    name : str
        Its file name, shown with each finding; the suffix tells the format.
    against : str, optional
        One card for all formulas; by default each is matched with the cards it resembles.
    advance : callable, optional
        Called with the numbers of claims done and to do.

    Returns
    -------
    Report
        A finding per claim. Ctrl-C ends early and keeps the findings there are.
    """
    from minitransformer.verify.document import judged
    from minitransformer.verify.extraction import read_document

    card = None if against is None else find_card(against)
    started = time.perf_counter()
    document = read_document(text, name)
    findings: list[Finding] = []
    interrupted = False
    try:
        for finding in judged(document, card=card, advance=advance):
            findings.append(finding)
    except KeyboardInterrupt:
        interrupted = True
    # Whoever interrupts wants to see what there is, not to wait for a witness.
    notes = [] if interrupted else _left_out(document, findings)
    report = _report(name, "document", tuple(findings), started, notes, ask=not interrupted)
    return replace(report, interrupted=interrupted)


def _left_out(document: Document, findings: list[Finding]) -> list[str]:
    """Say which formulas and code blocks of a document got no finding, and why if it is known."""
    spoken = {
        (f.place.cell, line)
        for f in findings
        for line in range(f.place.line, (f.place.end_line or f.place.line) + 1)
    }

    def silent(first: int, last: int) -> bool:
        spots = map(document.spot, range(first, last + 1))
        return spoken.isdisjoint((spot.cell, spot.line) for spot in spots)

    formulas = [
        f.line
        for f in document.formulas
        if STATES.search(f.text) and silent(f.line, f.end_line)
    ]  # fmt: skip
    codes = [c.line for c in document.codes if silent(c.line, c.line + c.text.count("\n"))]
    notes = []
    for lines, what in ((sorted(set(formulas)), "formula"), (sorted(set(codes)), "code block")):
        if lines:
            more = ", …" if len(lines) > MOST_LINES else ""
            said = document.say(lines[:MOST_LINES]) + more
            notes.append(f"not checked: {len(lines)} {what}{'s' * (len(lines) > 1)}, {said}")
    reasons = list(document.unread.items())[:MOST_LINES]
    notes += [f"not checked: {document.say([line])}, {why}" for line, why in reasons]
    return [*notes, "prose is read only for claims of known kinds"] if document.prose else notes


def check_file(
    path: str | Path, against: str | None = None, *, advance: Advance | None = None
) -> Report:
    """Check a document in a file; see `check_document`.

    Raises
    ------
    ValueError
        If the file is empty, binary, too large or not text.
    OSError
        If it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        text = decode(file.read(SIZE_LIMIT + 1), str(path))
    return check_document(text, str(path), against, advance=advance)


def decode(data: bytes, name: str) -> str:
    """Turn a document's bytes into text, or say why they are none.

    Raises
    ------
    ValueError
        If there is nothing, too much, or something that is not UTF-8 text.
    """
    if len(data) > SIZE_LIMIT:
        raise ValueError(f"{name}: over {SIZE_LIMIT >> 20} MiB; split it or name the part you mean")
    if b"\0" in data[:8192] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{name}: a binary file, not a document")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise ValueError(f"{name}: empty")
    return text


def find_card(name: str) -> Card:
    """Return a card by its id, name or alias.

    Raises
    ------
    ValueError
        If there is none; the message suggests the nearest.
    """
    try:
        return find(name)
    except UnknownCard as error:
        raise ValueError(str(error)) from None


def all_cards() -> tuple[Card, ...]:
    """Return every card."""
    return cards()


def describe_card(card: Card) -> dict[str, Any]:
    """Return what a card says as text, lists of text and ``None``."""
    inputs = [
        f"{i.name}: {' × '.join(i.dims) or 'a number'}"
        + ("" if i.domain == "real" else f", {i.domain}")
        for i in card.inputs
    ]
    mistakes = [
        f"{m.formula}  {m.says}" + (f" ({m.seen})" if m.seen else "") for m in card.mistakes
    ]
    return {
        "id": card.id,
        "name": card.name,
        "formula": card.latex,
        "also": list(card.alternatives),
        "source": card.source,
        "equation": card.equation,
        "inputs": inputs,
        "result": " × ".join(card.output) or "a number",
        "where": [f"{symbol} = {formula}" for symbol, formula in card.derived.items()],
        "PyTorch": card.torch or None,
        "kernel": card.kernel or None,
        "properties": list(card.properties),
        "mistakes": mistakes,
        "aliases": list(card.aliases),
        "note": card.note or None,
    }


def _formula(text: str, card: Card | None) -> Finding:
    """The finding about one formula: unreadable, without a card, or decided."""
    from minitransformer.verify import decide
    from minitransformer.verify.parser import CannotParse, parse
    from minitransformer.verify.printing import to_unicode

    place = Place("formula", 1, text)
    if not text.strip():
        return Finding(place, Verdict.CANNOT_PARSE, explanation="There is nothing to read.")
    if len(text) > FORMULA_LIMIT:
        shown = replace(place, text=text[:200] + " …")
        return Finding(
            shown,
            Verdict.CANNOT_PARSE,
            explanation=f"A formula of {len(text)} characters; the limit is {FORMULA_LIMIT}.",
        )
    try:
        readings = parse(text)
    except CannotParse as error:
        return Finding(
            place,
            Verdict.CANNOT_PARSE,
            detail=text[slice(*error.span)],
            explanation=f"{error}.",
            span=error.span,
        )
    if card is None:
        matched = decide.match(readings)
        if not matched:
            return Finding(
                place,
                Verdict.NO_CARD,
                reading=to_unicode(readings[0].expr),
                explanation="It resembles no card; --against CARD names one to compare with.",
            )
        card = matched[0]
    return replace(decide.decide(readings, card), place=place)


def _misdeed(place: Place, card: Card, error: sandbox.SandboxError) -> Finding:
    name = place.text.split()[0]
    text = str(error)
    if error.kind in ("timeout", "crash"):
        text = text.replace("the call", "a call", 1)
    return Finding(
        place,
        Verdict.UNVERIFIABLE,
        card=card.id,
        detail=error.kind,
        explanation=f"{name}: {text}.",
    )


def _check_live(function: Callable[..., Any], card: Card) -> Report:
    """Check a function object in this process."""
    started = time.perf_counter()
    name = getattr(function, "__name__", type(function).__name__)
    file, line = "python", 1
    try:
        file = inspect.getsourcefile(function) or file
        line = inspect.getsourcelines(function)[1] or 1
    except (TypeError, OSError):
        pass
    place = Place(file, line, name)
    live = LiveFunction(function)
    try:
        finding = judge_function(live, card, place)
    except sandbox.SandboxError as error:
        finding = _misdeed(place, card, error)
    return _report(name, "function", (finding,), started, [f"{name} {n}" for n in live.notes])


def _report(
    source: str,
    kind: str,
    findings: tuple[Finding, ...],
    started: float,
    notes: list[str] | None = None,
    *,
    ask: bool = True,
) -> Report:
    version = _torch_version()
    asked = (
        ask and version is not None and (kind not in WITNESS_WHERE_LOADED or "torch" in sys.modules)
    )
    if asked:
        findings = tuple(map(_with_torch, findings))
    elif version is not None:
        version += ", not asked"
    return Report(
        source,
        kind,
        findings,
        seconds=time.perf_counter() - started,
        witnesses={"PyTorch": version},
        notes=tuple(notes or ()),
    )


def _with_torch(finding: Finding) -> Finding:
    """Say whether PyTorch gives the card's value where the finding was decided."""
    from minitransformer.verify.torch_oracle import torch_value
    from minitransformer.verify.worked import UNREADABLE, point_of

    held = OUTCOME[finding.verdict] == "holds"
    # Two formulas of a document that contradict each other are no matter of the card.
    if finding.card is None or {"torch", "pair"} & set(finding.witnesses):
        return finding
    if not held and finding.counterexample is None:
        return finding
    card = find(finding.card)
    if not card.torch:
        return finding
    try:
        example = finding.counterexample
        point = card.point(1) if example is None else point_of(card, example.inputs)
        reference = np.asarray(card.value(FLOATS, point), dtype=np.float64)
        value = np.asarray(torch_value(card, point), dtype=np.float64)
    except (*UNREADABLE, RuntimeError):
        return finding
    if value.shape != reference.shape:
        said = f"disagrees with the card: shapes {value.shape} and {reference.shape}"
    else:
        off = float(np.max(np.abs(value - reference), initial=0.0))
        same = off <= 1e-9 * max(1.0, float(np.max(np.abs(reference), initial=0.0)))
        said = "gives the reference" if same else "disagrees with the card"
        said += f", off by {off:.1e}" if off else " exactly"
    return replace(finding, witnesses={**finding.witnesses, "torch": said})


def _torch_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def _line_of(path: str, name: str) -> int:
    """The line where a function is defined, 1 where the file does not say."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 1
    wanted = name.rpartition(".")[2]
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith((f"def {wanted}(", f"async def {wanted}(", f"{wanted} =")):
            return number
    return 1


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else flat[:79] + "…"
