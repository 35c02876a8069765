"""The catalogue of trusted formulas."""

from __future__ import annotations

import difflib
import functools
import importlib

from minitransformer.verify.cards.card import Card, Input, Mistake

__all__ = ["Card", "Input", "Mistake", "UnknownCard", "cards", "find"]

FAMILIES = (
    "attention", "norms", "activations", "losses", "positions", "optimizers", "training",
)  # fmt: skip


class UnknownCard(KeyError):
    """No card has this name; the message lists the nearest."""

    def __str__(self) -> str:
        return str(self.args[0])


@functools.lru_cache(maxsize=1)
def cards() -> tuple[Card, ...]:
    """Return every card, family by family.

    Examples
    --------
    >>> cards()[0].id
    'attention'
    """
    found: list[Card] = []
    for family in FAMILIES:
        found += importlib.import_module(f"{__name__}.{family}").CARDS
    return tuple(found)


def find(name: str) -> Card:
    """Return the card with this id, name or alias.

    Raises
    ------
    UnknownCard
        If there is none; its text suggests the nearest names.

    Examples
    --------
    >>> find("Scaled dot-product attention").id
    'attention'
    """
    wanted = _plain(name)
    table: dict[str, Card] = {}
    for card in cards():
        for spelled in (card.id, card.name, *card.aliases):
            table.setdefault(_plain(spelled), card)
    if wanted in table:
        return table[wanted]
    near = difflib.get_close_matches(wanted, list(table), n=6, cutoff=0.4)
    near += [k for k in table if wanted and wanted in k and k not in near]
    ids = list(dict.fromkeys(table[k].id for k in near))[:4]
    hint = f"; did you mean {', '.join(ids)}?" if ids else ""
    raise UnknownCard(
        f"no card is named {name!r}{hint} `minitransformer cards` lists them all"
        if ids
        else f"no card is named {name!r}; `minitransformer cards` lists all"
    )


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
