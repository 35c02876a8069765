"""Bind the symbols of a formula to those of a card."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from minitransformer.verify.cards.card import Card, Input
from minitransformer.verify.dimensions import (
    ELEMENTWISE,
    REDUCTIONS,
    Typing,
    canonical_function,
)
from minitransformer.verify.expression import Expr, name, number

INDEX_LETTERS = frozenset("ijklmnpqrstuvc")
# Functions of more than one shape or argument; the others are elementwise or reductions.
OTHER_FUNCTIONS = frozenset(
    [
        "softmax",
        "softmax_column",
        "log_softmax",
        "rowsum",
        "clip",
        "concat",
        "diag",
        "tr",
        "norm",
        "pow",
        "kron",
    ]
)
OTHERWISE = frozenset(["otherwise", "else", "otherwise.", "其他", "其它"])
STATES = frozenset("= ≈ := ≔ ≡ ∝ ∼ ≜ ← ∈ ≤ ≥".split())  # noqa: SIM905
CONSTANTS = frozenset(["e", "π", "pi", "∞", "inf"])


@dataclass
class Bound:
    """A formula whose symbols are a card's, and what was done to get there.

    ``unknown`` lists the symbols nothing gives a meaning to; they are typed as
    numbers. ``renamed`` maps the formula's spelling to the card's.
    """

    expr: Expr
    typing: Typing
    free: tuple[str, ...]
    unknown: tuple[str, ...]
    renamed: dict[str, str] = field(default_factory=dict)
    extra: tuple[Input, ...] = ()
    classes: tuple[str, ...] = ()  # inputs that the formula uses as the number of a class


def sides(e: Expr) -> tuple[Expr | None, tuple[Expr, ...], tuple[str, ...]]:
    """Split a relation or chain into its left-hand side and the claims after it."""
    if e.op == "relation" and e.value in (
        "=",
        "≈",
        ":=",
        "≔",
        "≡",
        "∝",
        "∼",
        "≜",
        "←",
        "∈",
        "≤",
        "≥",
    ):
        return e.args[0], e.args[1:], (str(e.value),)
    if e.op == "chain":
        return e.args[0], e.args[1:], tuple(e.value)
    return None, (e,), ()


def head_of(lhs: Expr | None) -> str:
    """Return the name a left-hand side defines: ``Attention`` of ``Attention(Q, K, V)``."""
    if lhs is None:
        return ""
    if lhs.op in ("call", "name"):
        return str(lhs.value)
    if lhs.op == "pow" and lhs.args[0].op == "name":
        return f"{lhs.args[0].value}^{_plain(lhs.args[1])}"
    if lhs.op in ("index", "pow", "hadamard", "transpose"):
        return head_of(lhs.args[0])
    if lhs.op == "partial":
        return "∂" + head_of(lhs.args[0]) + "/∂" + head_of(lhs.args[1])
    if lhs.op == "var":
        return "Var"
    return ""


def substitute(e: Expr, values: Mapping[str, Expr]) -> Expr:
    """Replace names by expressions, keeping the place of the name in the source."""

    def change(node: Expr) -> Expr:
        if node.op == "name" and node.value in values:
            # Every node of the definition is marked where the name stands.
            return values[node.value].map(lambda part: replace(part, span=node.span))
        return node

    return e.map(change) if values else e


def defines(lhs: Expr | None) -> str:
    """Return the key under which a left-hand side defines something, or ``""``.

    A name is its own key, a square ``σ²`` has the key ``σ^2`` and an entry ``e_{ij}`` the
    key ``e_i,j``; `inline` finds each of them where it is used.
    """
    if lhs is None:
        return ""
    if lhs.op == "name":
        return str(lhs.value)
    if lhs.op == "pow" and lhs.args[0].op == "name" and lhs.args[1].op == "number":
        return f"{lhs.args[0].value}^{lhs.args[1].value}"
    if lhs.op == "index" and lhs.args[0].op == "name":
        return f"{lhs.args[0].value}_{','.join(_plain(a) for a in lhs.args[1:])}"
    return ""


def inline(e: Expr, definitions: Mapping[str, Expr], depth: int = 12) -> Expr:
    """Replace defined names by their definitions, definitions of definitions included."""
    if not definitions:
        return e
    entries: dict[tuple[str, int], tuple[str, list[str]]] = {}
    for key in definitions:
        base, _, letters = key.rpartition("_")
        recurrent = any(
            n.op == "index" and n.args[0].value == base for n in definitions[key].walk()
        )
        if base and "^" not in key and not recurrent:
            entries.setdefault((base, len(letters.split(","))), (key, letters.split(",")))

    def whole(node: Expr) -> Expr:
        """Replace the squares and entries that have definitions of their own."""
        key = defines(node) if node.op in ("pow", "index") else ""
        if key in definitions:
            return definitions[key].map(lambda part: replace(part, span=node.span))
        if node.op == "index" and node.args[0].op == "name":
            found = entries.get((str(node.args[0].value), len(node.args) - 1))
            if found and all(x.isalpha() and len(x) == 1 for x in found[1]):
                meant = dict(zip(found[1], node.args[1:]))
                body = substitute(definitions[found[0]], meant)
                return body.map(lambda part: replace(part, span=node.span))
        return node

    for _ in range(depth):
        before = e
        e = e.map(whole)
        used = {n.value for n in e.walk() if n.op == "name"} & set(definitions)
        e = substitute(e, {k: definitions[k] for k in used})
        for key in used:
            if key in {n.value for n in definitions[key].walk() if n.op == "name"}:
                return e  # defined by itself: an update, not a definition
        if e == before:
            return e
    return e


class Binder:
    """Resolve the names of one formula against one card."""

    def __init__(self, card: Card, renames: Mapping[str, str], declared: Mapping[str, Any]):
        self.card = card
        self.renames = dict(renames)
        self.declared = declared
        self.free: list[str] = []
        self.unknown: list[str] = []
        self.classes: list[str] = []
        self.renamed: dict[str, str] = {}

    def __call__(self, e: Expr, scope: frozenset[str] = frozenset()) -> Expr:
        if e.op == "name":
            return self._name(e, scope)
        if e.op == "keyword":
            return e  # axis=-1, keepdims=True: no symbols of the formula
        if e.op == "concat":
            e = self._whole_concat(e)
        if e.op == "big":
            variable = e.value[1]
            inner = scope | {variable} if variable else scope
            bounds = inner if len(e.args) == 2 else scope  # Σ over j ≤ i: a condition on j
            return replace(e, args=(self(e.args[0], inner), *(self(a, bounds) for a in e.args[1:])))
        if e.op == "index":
            base, *picks = e.args
            chosen = self._class(base, picks, scope)
            if chosen is not None:
                return chosen
            if base.op == "name":
                spelled = f"{base.value}_{','.join(_plain(p) for p in picks)}"
                if self.card.bind(spelled) or spelled in self.card.derived:
                    return self._name(Expr("name", (), spelled, e.span), scope)
                found = self.card.bind(self.renames.get(base.value, base.value))
                if found is not None and not found.dims and spelled not in self.unknown:
                    self.unknown.append(spelled)
                    return Expr("name", (), spelled, e.span)
            base = self(base, scope)
            return replace(e, args=(base, *(self._pick(p, scope) for p in picks)))
        if e.op == "call":
            return self._call(e, scope)
        if e.op == "cases":
            return replace(
                e,
                args=tuple(
                    a if a.op == "name" and str(a.value).lower() in OTHERWISE else self(a, scope)
                    for a in e.args
                ),
            )
        return replace(e, args=tuple(self(a, scope) for a in e.args)) if e.args else e

    def _class(self, base: Expr, picks: Sequence[Expr], scope: frozenset[str]) -> Expr | None:
        """Read z_y, with y a distribution over the classes, as the entry of the class y."""
        if len(picks) != 1 or picks[0].op != "name" or str(picks[0].value) in scope:
            return None
        label = self.card.bind(str(picks[0].value))
        if label is None or label.domain not in ("simplex", "onehot") or len(label.dims) != 1:
            return None
        self.classes.append(label.name)
        whole = Expr("hadamard", (Expr("name", (), label.name, picks[0].span), self(base, scope)))
        return Expr("call", (replace(whole, span=base.span),), "sum", base.span)

    def _call(self, e: Expr, scope: frozenset[str]) -> Expr:
        """A name before parentheses is a function, unless it names an input."""
        spelled = f"{e.value}({','.join(_plain(a) for a in e.args)})"
        found = self.card.bind(spelled)
        if found is not None:
            return replace(self._name(Expr("name", (), found.name), scope), span=e.span)
        softmax = self._softmax_over(e, scope)
        if softmax is not None:
            return softmax
        given = str(e.value)
        function, _ = canonical_function(given)
        if (
            len(e.args) == 1
            and given not in self.card.function_dims
            and function not in ELEMENTWISE | REDUCTIONS | OTHER_FUNCTIONS
        ):
            entry = self._entry(given, e, scope)
            if entry is not None:
                return entry
            if (
                self.card.bind(given)
                or given in self.card.sizes
                or given in self.card.derived
                or self._indexed(e, given, scope) is not None
            ):
                factor = self(Expr("name", (), given, e.span), scope)
                return Expr("mul", (factor, self(e.args[0], scope)), None, e.span)
        return replace(e, args=tuple(self(a, scope) for a in e.args))

    def _entry(self, given: str, e: Expr, scope: frozenset[str]) -> Expr | None:
        """Read P(i) as an entry of a vector P, and p(w_i | w_<i) as its entry i."""
        vector = self.card.bind(given)
        if vector is None or len(vector.dims) != 1:
            return None
        (arg,) = e.args
        if arg.op == "name":
            index = str(arg.value)
            if index not in scope and index not in INDEX_LETTERS:
                return None
        elif arg.op == "given":
            index = _plain(arg.args[0]).rpartition("_")[2]
            if index not in scope:
                return None
        else:
            return None
        picked = (Expr("name", (), given, e.span), Expr("name", (), index, arg.span))
        return self(Expr("index", picked, None, e.span), scope)

    def _softmax_over(self, e: Expr, scope: frozenset[str]) -> Expr | None:
        """Write softmax_j(a_ij) out: e^a_ij / Σ_l e^a_il."""
        over = [a for a in e.args if a.op == "keyword" and a.value == "over"]
        if str(e.value).lower() != "softmax" or len(over) != 1 or len(e.args) != 2:
            return None
        index = over[0].args[0]
        body = next(a for a in e.args if a.op != "keyword")
        if index.op != "name" or not any(n == index for n in body.walk()):
            return None
        top = Expr("call", (body,), "exp", e.span)
        other = str(index.value) + "′"
        renamed = substitute(top, {str(index.value): Expr("name", (), other)})
        total = Expr("big", (renamed,), ("sum", other), e.span)
        return self(Expr("div", (top, total), None, e.span), scope)

    def _whole_concat(self, e: Expr) -> Expr:
        """Read Concat(head_1, …, head_h) as a concatenation over an index."""
        if len(e.args) != 3 or e.args[1].op != "ellipsis":
            return e
        first, _, last = e.args
        low, high = (_plain(x).rpartition("_") for x in (first, last))
        if low[0] != high[0] or low[2] != "1":
            return e
        for key in self.card.derived:
            base, _, index = key.rpartition("_")
            if base == low[0] and index in INDEX_LETTERS:
                body = self.card.derived_tree(key)
                bounds = (number(1), Expr("name", (), high[2], last.span))
                return Expr("big", (body, *bounds), ("concat", index), e.span)
        return e

    def _pick(self, e: Expr, scope: frozenset[str]) -> Expr:
        if e.op == "name":
            if e.value in scope:
                return e
            if self.card.bind(e.value) is None and e.value not in self.card.sizes:
                if e.value not in self.free:
                    self.free.append(e.value)
                return e
        return self(e, scope)

    def _name(self, e: Expr, scope: frozenset[str]) -> Expr:
        spelled = str(e.value)
        if spelled in scope or spelled in self.free:
            return e
        if spelled in self.card.indices:
            self.free.append(spelled)
            return e
        target = unicodedata.normalize("NFC", self.renames.get(spelled, spelled))
        found = self.card.bind(target)
        # s is softmax(x) where the card says so, though s is also another spelling of x.
        if found is not None and not (found.name != target and target in self.card.derived):
            if found.name != spelled:
                self.renamed[spelled] = found.name
            return replace(e, value=found.name)
        if target in self.card.sizes or target in self.card.dims:
            return replace(e, value=target)
        derived = {unicodedata.normalize("NFC", k): k for k in self.card.derived}
        if target in derived:
            target = derived[target]
            inner = self(self.card.derived_tree(target), scope)
            return inner.map(lambda part: replace(part, span=e.span))
        split = self._indexed(e, target, scope)
        if split is not None:
            return split
        if spelled in CONSTANTS:
            return e
        if spelled not in self.unknown:
            self.unknown.append(spelled)
        return e

    def _indexed(self, e: Expr, spelled: str, scope: frozenset[str]) -> Expr | None:
        """Read ``x_i`` as an entry of x, where x is known and i is an index or a number."""
        head = re.fullmatch(r"(\w+)_(\w+)\^(\w+)", spelled)
        if head:
            spelled = f"{head[1]}^{head[3]}_{head[2]}"
        if spelled in ("δ_ij", "δ_{ij}", "δ_i,j"):
            i, j = (self._pick(Expr("name", (), k, e.span), scope) for k in "ij")
            same = Expr("relation", (i, j), "=", e.span)
            return Expr("cases", (number(1), same, number(0)), None, e.span)
        base, _, suffix = spelled.rpartition("_")
        if not base:
            return None
        found = self.card.bind(self.renames.get(base, base))
        derived = base in self.card.derived
        label = (
            self._class(Expr("name", (), base, e.span), (Expr("name", (), suffix, e.span),), scope)
            if found is not None or derived
            else None
        )
        if label is not None:
            return label
        if (found is None or not found.dims) and not derived:
            return None
        suffix = suffix.strip("{}")
        parts = suffix.split(",") if "," in suffix else [suffix]
        if len(parts) == 1 and len(suffix) == 2 and suffix.isalpha():
            parts = list(suffix)
        picks = []
        for part in (p.strip().replace("'", "′") for p in parts):
            if part.isdigit():
                picks.append(replace(number(int(part)), span=e.span))
            elif (
                part in scope
                or (len(part) == 1 and part in INDEX_LETTERS)
                or self.card.bind(part) is not None
            ):
                picks.append(self._pick(Expr("name", (), part, e.span), scope))
            else:
                return None
        inner = self._name(Expr("name", (), base, e.span), scope)
        return Expr("index", (inner, *picks), None, e.span)


def bind(
    e: Expr,
    card: Card,
    lhs: Expr | None = None,
    declarations: Mapping[str, Any] | None = None,
) -> Bound:
    """Return the formula in the card's symbols.

    A left-hand side ``f(A, B, C)`` binds A, B, C to the card's inputs in order, and
    its indices come first among the free ones.
    """
    declared = dict(declarations or {})
    e = e.map(_counted)
    renames: dict[str, str] = {}
    order = tuple(i.name for i in card.inputs)
    inner = lhs
    while inner is not None and inner.op in ("index", "transpose"):
        inner = inner.args[0]
    if inner is not None and len(inner.args) == len(card.signature) > 0:
        order = card.signature
    if inner is not None and inner.op == "call" and len(inner.args) == len(order):
        for arg, target in zip(inner.args, order):
            if arg.op == "name":
                renames[str(arg.value)] = target
    if len(set(renames.values())) < len(renames):
        renames = {}
    binder = Binder(card, renames, declared)
    lhs_free: list[str] = []
    if lhs is not None and lhs.op == "index":
        lhs_free = [str(p.value) for p in lhs.args[1:] if p.op == "name"]
        if lhs.args[0].op == "call" and any(p.op == "number" for p in lhs.args[1:]):
            lhs_free = []
    for index in lhs_free:
        if card.bind(index) is None and index not in card.sizes:
            binder.free.append(index)
    bound = binder(e)
    free = tuple(binder.free)
    used = {n.value for n in bound.walk() if n.op == "name"}
    free = tuple(i for i in free if i in used)
    stated = [i for i in lhs_free if i in free]
    free = (*stated, *sorted(i for i in free if i not in stated))
    symbols = {i.name: i.dims for i in card.inputs}
    sizes = {d: d for d in card.dims}
    sizes.update(card.sizes)
    shapes = {u: _declared_dims(declared.get(u), sizes) for u in binder.unknown}
    symbols.update(shapes)
    typing = Typing(symbols, sizes, dict(card.function_dims), dict(card.indices))
    extra = tuple(Input(u, shapes[u], "real" if shapes[u] else "positive") for u in binder.unknown)
    classes = tuple(dict.fromkeys(binder.classes))
    return Bound(bound, typing, free, tuple(binder.unknown), binder.renamed, extra, classes)


def _counted(e: Expr) -> Expr:
    """Give a Σ x_i without an index the only index letter that its body has."""
    if e.op != "big" or e.value[1] or len(e.args) != 1:
        return e
    letters = {str(n.value) for n in _picks(e.args[0])}
    if len(letters) != 1:
        return e
    (letter,) = letters
    body = e.args[0].map(lambda n: _entry_of(n, letter))
    return replace(e, args=(body,), value=(e.value[0], letter))


def _picks(e: Expr) -> list[Expr]:
    """Return the index letters of a formula's entries: i of x_i."""
    found: list[Expr] = []
    for n in e.walk():
        if n.op == "index":
            found += [p for p in n.args[1:] if p.op == "name"]
        elif n.op == "name":
            base, _, suffix = str(n.value).rpartition("_")
            if base and len(suffix) == 1 and suffix in INDEX_LETTERS - {"n", "k", "m", "v", "q"}:
                found.append(Expr("name", (), suffix, n.span))
    return found


def _entry_of(e: Expr, letter: str) -> Expr:
    """Write the name x_i as the entry i of x."""
    if e.op == "name" and str(e.value).endswith(f"_{letter}"):
        picked = Expr("name", (), letter, e.span)
        return Expr(
            "index", (replace(e, value=str(e.value)[: -len(letter) - 1]), picked), None, e.span
        )
    return e


def _declared_dims(declared: Any, sizes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the shape a text declares, in the card's dimensions; ``()`` if it does not."""
    if isinstance(declared, tuple) and all(d in sizes for d in declared):
        return tuple(sizes[d] for d in declared)
    return ()


def _plain(e: Expr) -> str:
    """Write a subscript as names spell it: ``t-1``, ``y_w|x``."""
    if e.op in ("name", "number"):
        return str(e.value)
    if e.op == "add":
        return "".join(
            ("-" + _plain(a.args[0]) if a.op == "neg" else ("+" if k else "") + _plain(a))
            for k, a in enumerate(e.args)
        )
    if e.op == "given":
        return "|".join(_plain(a) for a in e.args)
    if e.op == "index":
        return f"{_plain(e.args[0])}_{','.join(_plain(a) for a in e.args[1:])}"
    if e.op == "mul":
        return "".join(_plain(a) for a in e.args)
    return e.op


def size_names(card: Card) -> tuple[Expr, ...]:
    """Return the names of the card's sizes, as expressions for edits and trials."""
    return tuple(name(d) for d in card.dims)
