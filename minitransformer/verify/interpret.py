"""Readings of a claim, and every well-typed way to take one of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from minitransformer.verify.binding import Bound
from minitransformer.verify.cards.card import Card
from minitransformer.verify.compare import compare, term_value
from minitransformer.verify.dimensions import (
    Convention,
    Elaborator,
    IllTyped,
    Term,
    Typing,
    Unbound,
)
from minitransformer.verify.expression import Expr

_ORDERS = tuple(
    Convention(vectors=v, product=p, single=s, reduce=r)
    for r, s, p, v in itertools.product(
        ("last", "all"), ("first", "last"), ("hadamard", "dot"), ("column", "row")
    )
)


CONVENTIONS = tuple(sorted(_ORDERS, key=lambda c: (c.product == "dot", c.vectors == "row")))


@dataclass(frozen=True)
class Interpretation:
    """A typed way to read a formula whose result has the card's shape."""

    convention: Convention
    term: Term
    elaborate: Elaborator
    flipped: bool = False  # all matrices transposed, the column convention


@dataclass(frozen=True)
class Typed:
    """What typing a formula under every convention gave."""

    good: tuple[Interpretation, ...]
    wrong_shape: Term | None = None
    ill: IllTyped | None = None
    unbound: Unbound | None = None


def _same_term(a: Term, b: Term) -> bool:
    return (
        a.op == b.op
        and a.dims == b.dims
        and a.value == b.value
        and len(a.args) == len(b.args)
        and all(_same_term(x, y) for x, y in zip(a.args, b.args))
    )


def interpret(bound: Bound, card: Card) -> Typed:
    """Type a bound formula under every convention; keep the distinct results that fit."""
    good: list[Interpretation] = []
    wrong: Term | None = None
    ill: IllTyped | None = None
    unbound: Unbound | None = None
    for convention in CONVENTIONS:
        if good and (convention.vectors == "row" or convention.product == "dot"):
            continue  # vectors are columns, and multiply elementwise, wherever that can be read
        elaborator = Elaborator(bound.typing, convention)
        try:
            term = _fit(elaborator, bound, card)
        except IllTyped as error:
            ill = ill or error
            continue
        except Unbound as error:
            unbound = unbound or error
            continue
        if term.dims != card.output:
            wrong = wrong or term
        elif not any(_same_term(term, g.term) for g in good):
            good.append(Interpretation(convention, term, elaborator))
    if not good and wrong is None and ill is not None:
        flipped = _flip(bound)
        elaborator = Elaborator(flipped.typing, Convention(softmax="first"))
        try:
            term = elaborator.formula(flipped.expr, flipped.free)
            if term.dims == card.output[::-1]:
                term = _untranspose(term, bound)
                if len(term.dims) == 2:
                    term = Term("transpose", (term,), None, card.output, term.span)
                good.append(Interpretation(Convention(softmax="first"), term, elaborator, True))
        except (IllTyped, Unbound):
            pass
    return Typed(tuple(good), wrong, ill, unbound)


def _fit(elaborator: Elaborator, bound: Bound, card: Card) -> Term:
    term = elaborator.formula(bound.expr, bound.free)
    if term.dims != card.output and len(bound.free) == 2:
        other = elaborator.formula(bound.expr, bound.free[::-1])
        if other.dims == card.output:
            return other
    return term


def _flip(bound: Bound) -> Bound:
    """Give every matrix its dimensions in the other order."""
    symbols = {k: d[::-1] if len(d) == 2 else d for k, d in bound.typing.symbols.items()}
    return replace_bound(bound, Typing(symbols, bound.typing.sizes, bound.typing.functions))


def replace_bound(bound: Bound, typing: Typing) -> Bound:
    """Return the same formula under another typing."""
    return replace(bound, typing=typing)


def _untranspose(term: Term, bound: Bound) -> Term:
    """Feed the card's own matrices to a term typed with transposed ones."""
    if term.op == "symbol" and len(term.dims) == 2:
        inner = Term("symbol", (), term.value, term.dims[::-1], term.span)
        return Term("transpose", (inner,), None, term.dims, term.span)
    if not term.args:
        return term
    args = tuple(_untranspose(a, bound) for a in term.args)
    return Term(term.op, args, term.value, term.dims, term.span, term.co, term.free)


def trees(claim: Any) -> tuple[tuple[Expr, str], ...]:
    """Return every reading of a claim: text, a reading, a tree or several readings."""
    if isinstance(claim, str):
        from minitransformer.verify.parser import parse

        return tuple((r.expr, r.note) for r in parse(claim))
    if isinstance(claim, Expr):
        return ((claim, ""),)
    if hasattr(claim, "expr"):
        return ((claim.expr, getattr(claim, "note", "")),)
    return tuple(pair for reading in claim for pair in trees(reading))


def plausible(readings: Sequence[tuple[Expr, str]]) -> Sequence[tuple[Expr, str]]:
    """Drop readings that no formula about real numbers can have.

    The cards know no complex numbers, so an ``i`` is never √−1 here; and where a
    function's argument may end earlier or later, the usual extent is taken.
    """
    kept = [r for r in readings if "√−1" not in r[1]] or list(readings)
    extents = [r for r in kept if "reaches over" in r[1]]
    if len(extents) == len(kept) > 1:
        whole = [r for r in kept if "first factor only" not in r[1]]
        kept = whole or kept
    return kept


def quick_equal(typed: Typed, bound: Bound, card: Card) -> bool:
    """Return whether some reading of a formula agrees with a card in float64 everywhere."""
    return any(
        compare(term_value(i.term), card, bound.extra, certify=False).equal for i in typed.good
    )
