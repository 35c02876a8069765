"""A kernel and the trusted formula it implements point at each other."""

from __future__ import annotations

import importlib

import pytest

from minitransformer.verify.cards import cards

LINKED = [card for card in cards() if card.kernel and ".elementwise." not in card.kernel]


@pytest.mark.parametrize("card", LINKED, ids=lambda card: card.id)
def test_the_kernel_names_its_card(card) -> None:
    module, name = card.kernel.rsplit(".", 1)
    kernel = getattr(importlib.import_module(module), name)
    assert f"``minitransformer cards {card.id}``" in kernel.__doc__


def test_there_are_links() -> None:
    assert len(LINKED) >= 15
