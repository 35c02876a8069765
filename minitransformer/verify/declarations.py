r"""What the text around formulas says about their symbols, in English and Chinese.

Three sources: ``Q \in \mathbb{R}^{n \times d_k}``, ``d_k = 64``, and sentences such as
"where d_k is the dimension of the keys" or "其中，$d_k$ 表示键向量的维度". A sentence that
no pattern covers declares nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser import CannotParse, parse
from minitransformer.verify.printing import to_unicode
from minitransformer.verify.tokenizer import Macro


@dataclass(frozen=True)
class Declaration:
    """What is known of one symbol.

    Parameters
    ----------
    symbol : str
        Its canonical spelling.
    dims : tuple of str, optional
        The named sizes of its axes; ``()`` for a number.
    meaning : str
        The words that describe it.
    constant : bool
        Whether the text calls it a constant.
    value : Expr, optional
        What it is said to be.
    usual : tuple of Expr
        What it is said to be usually.
    line : int
        Where that is said.
    section : int
        The section where that is said.
    """

    symbol: str
    dims: tuple[str, ...] | None = None
    meaning: str = ""
    constant: bool = False
    value: Expr | None = None
    usual: tuple[Expr, ...] = ()
    line: int = 0
    section: int = 0


@dataclass
class Declarations:
    """The declarations of a text, by symbol."""

    by_symbol: dict[str, list[Declaration]] = field(default_factory=dict)

    def add(self, declaration: Declaration) -> None:
        """Record one more thing said about a symbol."""
        self.by_symbol.setdefault(declaration.symbol, []).append(declaration)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self.by_symbol

    def __getitem__(self, symbol: str) -> Declaration:
        return self.near(symbol, None)

    def near(self, symbol: str, section: int | None) -> Declaration:
        """Return everything said about a symbol; what its own section says comes first."""
        said = sorted(self.by_symbol[symbol], key=lambda d: (d.section != section, d.line))
        merged = said[0]
        for other in said[1:]:
            merged = replace(
                merged,
                dims=merged.dims if merged.dims is not None else other.dims,
                meaning=merged.meaning or other.meaning,
                constant=merged.constant or other.constant,
                value=merged.value if merged.value is not None or merged.usual else other.value,
                usual=merged.usual or (() if merged.value is not None else other.usual),
            )
        return merged

    def number(self, symbol: str, section: int, line: int) -> float | None:
        """Return the one number a symbol has near a line, or ``None`` if it has several."""
        said = [
            d for d in self.by_symbol.get(symbol, ())
            if d.value is not None and d.value.op == "number"
        ]  # fmt: skip
        for near in (
            [d for d in said if d.line == line],
            [d for d in said if d.section == section],
            said,
        ):
            values = {float(d.value.value) for d in near if d.value is not None}
            if values:
                return values.pop() if len(values) == 1 else None
        return None

    def for_section(self, section: int | None = None) -> dict[str, Any]:
        """Return what the decision procedure takes: sizes, values, usual values or words."""
        out: dict[str, Any] = {}
        for symbol in self.by_symbol:
            said = self.near(symbol, section)
            if said.value is not None:
                out[symbol] = said.value
            elif said.usual:
                out[symbol] = list(said.usual)
            elif said.dims is not None:
                out[symbol] = said.dims
            else:
                out[symbol] = said.meaning or "constant"
        return out


_MATH = re.compile(r"\$([^$]+)\$")
_SLOT = re.compile(r"⟦(\d+)⟧")
_LIST = r"((?:⟦\d+⟧(?:[\s,，、;&和与及或]|以及|and\b|or\b)*)+)"
_END = r"(?=[。；;\n]|[.,，](?:\s|$|⟦|[\u4e00-\u9fff])|$)"
_MEANS_ZH = re.compile(
    _LIST + r"\s*(?:则|就)?(?:分别)?(?:表示|代表|是指|指的是|指|是|为)(?!\s*⟦)\s*(.{1,80}?)" + _END
)
_MEANS_EN = re.compile(
    _LIST + r"\s*(?:\([^)]*\)\s*)?(?:,\s*)?(?:respectively\s+)?"
    r"(?:is|are|denotes?|represents?|stands?\s+for|means?|refers?\s+to|indicates?|"
    r"corresponds?\s+to|contains?|be)\s+(?!⟦)(?:the\s+|a\s+|an\s+)?(.{1,120}?)" + _END,
    re.I,
)
_NOUN_EN = re.compile(  # the dimension ⟦0⟧; a scaling factor of ⟦0⟧ is no name
    r"\b(?:the|a|an)\s+((?:\w+[ -]){0,3}?(?:dimension|size|length|number|rate|temperature|"
    r"weights?|matri(?:x|ces)|vectors?|bias(?:es)?|factor|constant|quer(?:y|ies)|keys?|values?))"
    r"\s+⟦(\d+)⟧",
    re.I,
)
_NOUN_ZH = re.compile(
    r"([\u4e00-\u9fff]{0,6}(?:维度|向量|矩阵|数量|长度|常数|参数|因子|权重|系数|温度))\s*⟦(\d+)⟧"
)
_USUAL = re.compile(
    r"(?:通常|一般|常常|往往|默认)(?:情况下)?(?:都)?(?:取值?|设置?|设定|选|等于|取为|是)*(?:值)?"
    r"(?:为|成|是|作)?\s*⟦(\d+)⟧"
    r"|(?:usually|typically|often|commonly|normally|generally|by\s+default|in\s+practice)\s+"
    r"(?:(?:is|are|be)\s+)?(?:(?:set|equal|chosen|taken|fixed)\s+)?(?:to|as|at|be|with)?\s*"
    r"(?:the\s+value\s+)?⟦(\d+)⟧"
    r"|(?:a\s+)?(?:common|usual|typical)\s+(?:choice|value)s?\s+(?:is|are|being)\s+⟦(\d+)⟧",
    re.I,
)
_EXACT = re.compile(
    r"⟦(\d+)⟧\s*(?:is|are|be)?\s*(?:(?:the|an?)\s+[\w ]{0,40}?,?\s*)?(?:always\s+)?"
    r"(?:set|equal|equals|fixed)\s+(?:to\s+)?⟦(\d+)⟧"
    r"|⟦(\d+)⟧\s*(?:设为|设置为|等于|取值为|取为|固定为|取)\s*⟦(\d+)⟧",
    re.I,
)
_LISTED = re.compile(r"(.*?)(?:,?\s*respectively|,?\s*(?:and\s+)?⟦|[.;]|$)", re.S | re.I)
_CONSTANT = re.compile(
    r"常数|常量|缩放因子|超参数|\bconstant\b|\bscal(?:ing|e)\s+factor\b|\bhyper-?parameter\b", re.I
)
_SENTENCE = re.compile(r"[^。！？!?；;]+?(?:[。！？!?；;]|\.(?=\s|$)|$)", re.S)


def read_declarations(
    texts: Iterable[tuple[str, int, int]],
    formulas: Iterable[tuple[str, int, int]] = (),
    macros: Mapping[str, Macro] | None = None,
) -> Declarations:
    r"""Collect what a document declares.

    Parameters
    ----------
    texts : iterable of (str, int, int)
        Paragraphs with formulas between single dollars, their line and section.
    formulas : iterable of (str, int, int)
        Formulas that stand by themselves, their line and section.
    macros : mapping, optional
        The document's own commands.

    Returns
    -------
    Declarations

    Examples
    --------
    >>> said = read_declarations([("where $d_k$ is the dimension of the keys, and $s$ is a "
    ...                            "constant, usually set to $\\sqrt{d_k}$.", 3, 1)])
    >>> said["d_k"].meaning, said["s"].constant, to_unicode(said["s"].usual[0])
    ('dimension of the keys', True, '√dₖ')
    """
    out = Declarations()
    for text, line, section in formulas:
        for declaration in _from_formula(text, macros):
            out.add(replace(declaration, line=line, section=section))
    for text, line, section in texts:
        for sentence in _SENTENCE.findall(text):
            for declaration in _from_sentence(sentence, macros):
                out.add(replace(declaration, line=line, section=section))
    return out


def _read(text: str, macros: Mapping[str, Macro] | None) -> Expr | None:
    try:
        return parse(text, macros)[0].expr
    except CannotParse:
        return None


def _symbols(expr: Expr | None) -> list[str]:
    """Return the symbols of ``Q`` or ``Q, K, V``; nothing for a formula."""
    if expr is None:
        return []
    parts = expr.args if expr.op in ("tuple", "steps") else (expr,)
    out = []
    for part in parts:
        if part.op == "name":
            out.append(str(part.value))
        elif part.op == "index" and part.args[0].op == "name":
            out.append(f"{part.args[0].value}_{','.join(to_unicode(a) for a in part.args[1:])}")
        elif part.op == "transpose" and part.args[0].op == "name":
            out.append(str(part.args[0].value))
        else:
            return []
    return out


def _from_formula(text: str, macros: Mapping[str, Macro] | None) -> Iterator[Declaration]:
    """Read memberships and values out of one formula."""
    if len(text) > 600 or not re.search(r"\\in\b|∈|=|\\mathbb|\\R", text):
        return
    expr = _read(text, macros)
    if expr is None:
        return
    statements = expr.args if expr.op in ("steps", "tuple") else (expr,)
    waiting: list[str] = []
    for statement in statements:
        if statement.op == "name":
            waiting.append(str(statement.value))  # the Q, K of "Q, K, V ∈ ℝ^(n × d)"
            continue
        if statement.op == "relation" and statement.value == "∈":
            left, right = statement.args
            dims = shape_of(right)
            for symbol in [*waiting, *_symbols(left)] if dims is not None else []:
                yield Declaration(symbol, dims=dims)
        elif statement.op == "relation" and statement.value in ("=", "≔", "≜"):
            left, right = statement.args
            if left.op == "name" and right.op == "number":
                yield Declaration(str(left.value), value=right)
        elif (
            statement.op == "chain"
            and set(statement.value) == {"="}
            and statement.args[0].op == "name"
            and statement.args[-1].op == "number"
        ):  # d_k = d_model / h = 64
            yield Declaration(str(statement.args[0].value), value=statement.args[-1])
        elif statement.op == "chain" and statement.value[-1:] == ("∈",):  # A = QK^T ∈ ℝ^(n × n)
            dims = shape_of(statement.args[-1])
            for symbol in _symbols(statement.args[0]) if dims is not None else []:
                yield Declaration(symbol, dims=dims)
        waiting = []


def shape_of(space: Expr) -> tuple[str, ...] | None:
    """Return the named sizes of ℝ or ℝ^(n × d); ``None`` for any other set."""
    if space.op == "name" and space.value == "ℝ":
        return ()
    if space.op == "call" and space.value == "ℝ":
        return tuple(
            str(a.value) if a.op == "name" else to_unicode(a).replace(" ", "") for a in space.args
        )
    return None


def _from_sentence(sentence: str, macros: Mapping[str, Macro] | None) -> Iterator[Declaration]:
    formulas: list[str] = []

    def slot(match: re.Match[str]) -> str:
        formulas.append(match.group(1))
        return f"⟦{len(formulas) - 1}⟧"

    text = _MATH.sub(slot, sentence)
    if not formulas or len(formulas) > 60 or len(text) > 4_000:
        return
    for formula in formulas:
        yield from _from_formula(formula, macros)
    trees = [_read(f, macros) if len(f) < 300 else None for f in formulas]
    names = [_symbols(t) for t in trees]
    text = re.sub(r"[*`]+", "", text)
    last: list[str] = []
    for pattern in (_MEANS_ZH, _MEANS_EN):
        for match in pattern.finditer(text):
            symbols = [s for i in _SLOT.findall(match.group(1)) for s in names[int(i)]]
            words = match.group(2)
            if len(symbols) > 1 and pattern is _MEANS_EN:  # a list of meanings has commas
                listed = _LISTED.match(text[match.start(2) :])
                words = listed.group(1) if listed else words
            words = _SLOT.sub(lambda m: formulas[int(m.group(1))], words).strip()
            meanings = _shared(words, len(symbols))
            for symbol, meaning in zip(symbols, meanings):
                constant = bool(_CONSTANT.search(meaning))
                yield Declaration(symbol, meaning=meaning, constant=constant)
            last = symbols or last
    for pattern in (_NOUN_EN, _NOUN_ZH):
        for match in pattern.finditer(text):
            for symbol in names[int(match.group(2))]:
                meaning = match.group(1).strip()
                yield Declaration(symbol, meaning=meaning, constant=bool(_CONSTANT.search(meaning)))
    for match in _USUAL.finditer(text):
        index = int(next(g for g in match.groups() if g is not None))
        before = [i for i in map(int, _SLOT.findall(text[: match.start()])) if names[i]]
        value = trees[index]
        if not before or value is None or value.op in ("relation", "chain", "steps"):
            continue
        symbols = names[before[-1]]
        if len(symbols) == 1 and symbols != names[index]:
            constant = bool(_CONSTANT.search(text[: match.start()]))
            yield Declaration(symbols[0], usual=(value,), constant=constant)
    for match in _EXACT.finditer(text):
        left, right = (int(g) for g in match.groups() if g is not None)
        value = trees[right]
        if len(names[left]) == 1 and value is not None and names[left] != names[right]:
            usual = _USUAL.search(text[max(0, match.start() - 4) : match.end()])
            if usual is None:
                yield Declaration(names[left][0], value=value)


def _shared(words: str, count: int) -> list[str]:
    """Deal "queries, keys and values" out to Q, K and V; one meaning goes to all."""
    parts = [p.strip() for p in re.split(r"\s*(?:、|,|，|和|与|以及|\band\b)\s*", words)]
    parts = [re.sub(r"^(?:the|a|an|一个)\s*", "", p) for p in parts if p]
    tail = re.sub(r"[,，]?\s*respectively$", "", parts[-1]) if parts else ""
    parts = [*parts[:-1], tail] if parts else parts
    parts = [p for p in parts if p]
    if count > 1 and len(parts) == count:
        return parts
    return [re.sub(r"[,，]?\s*respectively$", "", words)] * count
