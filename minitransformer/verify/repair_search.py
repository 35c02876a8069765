"""The search for a repair: what may be edited, what passes quickly, what is confirmed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitransformer.verify import repair
from minitransformer.verify.binding import Bound
from minitransformer.verify.cards.card import Card
from minitransformer.verify.compare import (
    battery,
    compare,
    discrepancy,
    extend,
    term_value,
)
from minitransformer.verify.dimensions import (
    Convention,
    Elaborator,
    IllTyped,
    Unbound,
)
from minitransformer.verify.evaluate import Evaluator
from minitransformer.verify.expression import Expr
from minitransformer.verify.interpret import Interpretation
from minitransformer.verify.number_systems import FLOATS, CannotEvaluate


def vocabulary(card: Card, bound: Bound) -> repair.Vocabulary:
    """Return what edits may put into a formula bound to a card."""
    used = {n.value for n in bound.expr.walk() if n.op == "name"}
    sizes = [d for d in card.dims if d in used]
    sizes += [s for s in card.sizes if s in used and s not in sizes]
    sizes += [d for d in card.dims if d not in sizes]
    groups: dict[tuple[str, ...], list[str]] = {}
    for item in card.inputs:
        key = ("m",) if len(item.dims) == 2 else item.dims
        groups.setdefault(key, []).append(item.name)
    scalars = tuple(i.name for i in card.inputs if not i.dims) + bound.unknown
    matrices = tuple(i.name for i in card.inputs if len(i.dims) == 2)
    return repair.Vocabulary(
        tuple(sizes[:4]), tuple(tuple(g) for g in groups.values() if len(g) > 1), scalars, matrices
    )


def _search(
    bound: Bound, card: Card, conventions: Sequence[Convention], budget: int, depth: int = 3
) -> repair.Repair | None:
    probe = battery(card)[0]
    point = extend(probe.point, bound.extra, probe.seed)
    elaborators = [Elaborator(bound.typing, c) for c in conventions]
    evaluator = Evaluator(point, FLOATS)

    def quick(e: Expr) -> bool:
        for elaborator in elaborators:
            try:
                term = elaborator.formula(e, bound.free)
                if term.dims != card.output:
                    continue
                with np.errstate(all="ignore"):
                    value = evaluator(term)
                if discrepancy(value, probe.floats) < 1e-9:
                    return True
            except (
                IllTyped,
                Unbound,
                CannotEvaluate,
                ValueError,
                TypeError,
                IndexError,
                ArithmeticError,
            ):
                continue
        return False

    def confirmed(e: Expr) -> bool:
        for elaborator in elaborators:
            try:
                term = elaborator.formula(e, bound.free)
            except (IllTyped, Unbound):
                continue
            if term.dims == card.output and compare(term_value(term), card, bound.extra).equal:
                return True
        return False

    loops = sum(n.op == "big" for n in bound.expr.walk())  # each costs a loop per candidate
    budget = min(budget, 20_000 // (repair.size_of_tree(bound.expr) * (1 + 3 * loops)))
    found = repair.repairs(
        bound.expr, vocabulary(card, bound), quick, confirmed, budget=budget, depth=depth
    )
    return repair.tidy(found[0], quick, confirmed) if found else None


def repaired(i: Interpretation, bound: Bound, card: Card) -> repair.Repair | None:
    if i.flipped:
        return None
    return _search(bound, card, (i.convention,), budget=1500)


def typed_repair(bound: Bound, card: Card) -> repair.Repair | None:
    return _search(bound, card, (Convention(), Convention(product="dot")), budget=500, depth=2)
