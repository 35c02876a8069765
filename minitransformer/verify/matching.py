"""Find the cards that a formula resembles: by its name, its symbols and its structure."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from minitransformer.verify.binding import bind, defines, head_of, inline, sides
from minitransformer.verify.cards import cards
from minitransformer.verify.cards.card import Card, formula_tree
from minitransformer.verify.dimensions import IllTyped, Unbound, canonical_function
from minitransformer.verify.expression import Expr
from minitransformer.verify.interpret import interpret, plausible, quick_equal, trees

ENOUGH = 0.55  # what a formula without a known name must reach
NAMED = 0.33  # what one with a card's name must reach
LETTER = 0.4  # what one under a single letter must reach to be convicted, with a function
PLAIN = 0.75  # and without any
LONG = 9  # nodes of a formula that resembles a card by itself
LONG_WITH_CALLS = 7  # and of one that calls functions, as softmax(QKᵀ)V does
SMALL = 6  # trees up to this many nodes resemble too much to go without a name


def features(e: Expr) -> frozenset[str]:
    """Return what a formula consists of: functions, operators with roles, and symbols.

    Examples
    --------
    >>> from minitransformer.verify.expression import call, name
    >>> sorted(features(call("softmax", name("x"))))
    ['call softmax', 'name x', 'softmax(name)']
    """
    found = set()
    for node in e.walk():
        if node.op == "call":
            function = canonical_function(str(node.value))[0]
            found.add(f"call {function}")
            found.update(f"{function}({a.op})" for a in node.args if a.op != "keyword")
        elif node.op == "name":
            found.add(f"name {node.value}")
        elif node.op == "number":
            if node.value not in (0, 1, 2):
                found.add(f"number {node.value}")
        elif node.op == "big":
            found.add(f"big {node.value[0]}")
        elif node.op in (
            "sqrt",
            "transpose",
            "norm",
            "cases",
            "matrix",
            "concat",
            "pow",
            "div",
            "hadamard",
            "expect",
            "var",
            "abs",
        ):
            inner = node.args[0].op if node.args else ""
            found.update((node.op, f"{node.op}({inner})"))
        elif node.op == "add":
            found.add("add")
            if any(a.op == "neg" for a in node.args):
                found.add("subtract")
    return frozenset(found)


def _in_card_symbols(e: Expr, card: Card) -> Expr:
    def change(node: Expr) -> Expr:
        if node.op == "call" and len(node.args) == 1 and node.args[0].op in ("name", "given"):
            vector = card.bind(str(node.value))
            if vector is not None and vector.dims:  # P(i) for an entry of P
                return Expr("name", (), vector.name, node.span)
            return node
        if node.op != "name":
            return node
        found = card.bind(str(node.value))
        if found is not None:
            return Expr("name", (), found.name, node.span)
        if node.value in card.sizes:
            return Expr("name", (), card.sizes[node.value], node.span)
        meaning = {**card.suggestions, **card.derived}.get(str(node.value))
        if meaning is not None:
            return formula_tree(meaning)
        base, _, index = str(node.value).rpartition("_")
        if base and len(index) == 1 and (card.bind(base) or base in card.derived):
            return change(Expr("name", (), base, node.span))
        return node

    return e.map(change)


@functools.lru_cache(maxsize=1)
def _profiles() -> tuple[tuple[Card, tuple[frozenset[str], ...], bool], ...]:
    out = []
    for card in cards():
        texts = (card.latex, *card.alternatives, *(m.formula for m in card.mistakes))
        trees = []
        for text in texts:
            tree = _in_card_symbols(formula_tree(text), card)
            trees.append(tree)
        small = sum(1 for _ in trees[0].walk()) <= SMALL and not any(
            n.op == "call" for n in trees[0].walk()
        )
        out.append((card, tuple(features(t) for t in trees), small))
    return tuple(out)


def _plain(name: str) -> str:
    name = unicodedata.normalize("NFD", name)
    return "".join(c for c in name.lower() if c.isalnum() or c in "^'̂̃")


def _heads(lhs: Expr | None) -> frozenset[str]:
    """Return the spellings of what a left-hand side defines: ``m_t`` and, of an index, ``m``."""
    full, base = defines(lhs), head_of(lhs)
    found = {_plain(full), _plain(base)}
    if lhs is not None and lhs.op == "name":
        found.add(_plain(str(lhs.value).rpartition("_")[0]))
    return frozenset(found - {""})


def resemblance(e: Expr, card: Card, profiles: tuple[frozenset[str], ...]) -> float:
    """Return how much of a formula and of a card's forms is shared, from 0 to 1."""
    own = features(_in_card_symbols(e, card))
    if not own:
        return 0.0
    return max(len(own & p) / len(own | p) for p in profiles if p or own)


def match(
    claim: Any,
    context: str = "",
    *,
    definitions: Mapping[str, Expr] | None = None,
) -> tuple[Card, ...]:
    """Return the cards a formula resembles, best first; an empty tuple for none.

    Parameters
    ----------
    claim : str, Expr, reading or sequence of readings
        The formula.
    context : str
        The text around it; a card named there is preferred.
    definitions : mapping, optional
        Formulas of the names used, as for `decide`.

    Examples
    --------
    >>> match("LayerNorm(x) = (x - μ) / (σ + ε) * γ + β")[0].id
    'layer-norm'
    >>> match("E = m c^2")
    ()
    """
    e = plausible(trees(claim))[0][0]
    lhs, claims, signs = sides(e)
    if lhs is None and e.op == "call" and str(e.value) in ("O", "𝒪", "Θ") and len(e.args) == 1:
        lhs, claims = e, e.args
    heads = _heads(lhs)
    nearby = context.lower()
    scored: list[tuple[float, int, Card]] = []
    claimed: set[str] = set()  # cards the text gives real evidence of meaning
    plain = claims[-1] if claims else e
    bodies = [c for c in claims if c.op not in ("name", "number")] or [plain]
    steps = {k: v for k, v in (definitions or {}).items() if k != head_of(lhs)}
    if steps:
        bodies += [inline(body, steps) for body in bodies]
    entries = _parity(lhs)
    words = {h for h in heads if len(h.split("_")[0]) > 2}
    meant = {c.id for c, _, _ in _profiles() if words & {_plain(h) for h in c.heads}}
    for order, (card, profiles, small) in enumerate(_profiles()):
        if entries and entries not in ("", *_parities(card)) and _parities(card):
            continue  # PE(pos, 2i) = cos … is not about the odd entries
        if meant and card.id not in meant:
            continue  # GELU(x) = x σ(x) claims to be GELU, whatever else it equals
        named = bool(heads) and not heads.isdisjoint(_plain(h) for h in card.heads)
        spoken = any(
            len(word) > 3 and word.lower() in nearby
            for word in (card.name, card.id.replace("-", " "), *card.aliases)
        )
        if card.explicit and not spoken:
            continue
        likeness = max(resemblance(body, card, profiles) for body in bodies)
        score = likeness + (0.6 if named else 0.0) + (0.25 if spoken else 0.0)
        enough = NAMED if named else ENOUGH
        if small and not named and not (spoken and likeness >= ENOUGH):
            continue
        if heads and not named and not spoken and likeness < 0.75:
            continue
        if likeness >= enough:
            scored.append((score, -order, card))
            if _claims(bodies, card, heads, named, likeness, spoken):
                claimed.add(card.id)
    scored.sort(reverse=True, key=lambda s: s[:2])
    best = [card for _, _, card in scored[:6]]
    equal = [c for c in best if "≈" not in signs and _equal(claims, lhs, c, definitions or {})]
    return tuple(equal + [c for c in best if c not in equal and c.id in claimed])


def _parity(lhs: Expr | None) -> str:
    """Return ``2i`` or ``2i+1`` where a left-hand side is about every other entry."""
    if lhs is None or lhs.op not in ("index", "call"):
        return ""

    def even(e: Expr) -> bool:
        return e.op == "mul" and len(e.args) == 2 and e.args[0].value == 2

    for pick in lhs.args[lhs.op == "index" :]:
        if even(pick):
            return "2i"
        if pick.op == "add" and len(pick.args) == 2 and even(pick.args[0]):
            return "2i+1" if pick.args[1].value == 1 else ""
    return ""


def _parities(card: Card) -> frozenset[str]:
    """Return which of every other entries a card's left-hand names are about."""
    found = (h.rstrip(")").rpartition(",")[2].replace("j", "i") for h in card.heads)
    return frozenset(found) & {"2i", "2i+1"}


def _claims(
    bodies: Sequence[Expr],
    card: Card,
    heads: frozenset[str],
    named: bool,
    likeness: float,
    spoken: bool,
) -> bool:
    """Return whether a formula that is not a card's still claims to be it.

    A word before the equals sign (``Attention``, ``GELU``) or in the prose is a claim. A
    single letter is none, and neither is a likeness that formulas this short share with
    others: then the structure itself must be the card's.
    """
    words = {h for h in heads if len(h.split("_")[0]) > 2}
    if spoken or (named and words & {_plain(h) for h in card.heads}):
        return True
    nodes = max(sum(1 for _ in body.walk()) for body in bodies)
    calls = any(n.op == "call" for body in bodies for n in body.walk())
    if named:
        enough = LETTER if calls else PLAIN
        return (nodes > SMALL or calls) and likeness >= enough and _fits(bodies, card)
    if heads and not calls:
        return False  # s² = … is another thing than the card's σ²
    return nodes >= (LONG_WITH_CALLS if calls else LONG) and likeness >= ENOUGH


def _fits(bodies: Sequence[Expr], card: Card) -> bool:
    """Return whether a formula can at least be read with the card's dimensions."""
    for body in bodies:
        try:
            if interpret(bind(body, card), card).good:
                return True
        except (IllTyped, Unbound, IndexError, KeyError):
            continue
    return False


def _equal(
    claims: tuple[Expr, ...], lhs: Expr | None, card: Card, definitions: Mapping[str, Expr]
) -> bool:
    own = {k: v for k, v in definitions.items() if k != head_of(lhs) and card.bind(k) is None}
    try:
        bound = bind(inline(claims[-1], own), card, lhs)
        typed = interpret(bound, card)
        return bool(typed.good) and not bound.unknown and quick_equal(typed, bound, card)
    except (IllTyped, Unbound, IndexError, KeyError):
        return False
