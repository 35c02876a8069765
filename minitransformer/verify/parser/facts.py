"""What a pass over the whole formula finds, for the next: which letters are indices.

``d_k`` is a name and ``x_i`` an entry of x, though they are written alike. What decides is
the rest of the formula: letters under a sum, subscripts that compute (``t-1``), and what
follows from those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

# Base, its subscript's letters, and whether the subscript computes (``t-1``, ``2i``).
Subscript = tuple[str, tuple[str, ...], bool]

# Names whose subscript is a label whatever the formula sums over.
LABELLED = frozenset(
    ["d_k", "d_v", "d_q", "d_h", "d_model", "d_ff", "d_head", "d_e", "n_k", "n_q", "n_h",
     "n_heads", "d_m", "d_in", "d_out", "d_c", "d_r"]
)  # fmt: skip


def is_labelled(base: str, letters: Iterable[str]) -> bool:
    """Whether a base with one of these subscripts is a name that everyone knows."""
    return any(f"{base}_{letter}" in LABELLED for letter in letters)


def index_closure(subscripts: Iterable[Subscript], letters: Iterable[str]) -> frozenset[str]:
    """Return the letters that are indices, from the ones known to be.

    A base with one index among its subscripts has only indices there, so that
    `j` follows from `i` in ``e_{ij}``.

    Parameters
    ----------
    subscripts : iterable of (str, tuple of str, bool)
        Base, its subscript letters, and whether the subscript computes (``t-1``, ``2i``).
    letters : iterable of str
        Bound variables.

    Examples
    --------
    >>> sorted(index_closure([("e", ("i", "j"), False), ("d", ("k",), False)], ["i"]))
    ['i', 'j']
    """
    known = set(letters)
    pairs = [s for s in subscripts if not is_labelled(s[0], s[1])]
    grown = True
    while grown:
        grown = False
        for _, subs, computes in pairs:
            lower = {s for s in subs if len(s) == 1 and s.islower()}
            if (computes or known & set(subs)) and not lower <= known:
                known |= lower
                grown = True
    return frozenset(known)


@dataclass
class Facts:
    """What one pass found."""

    bound: set[str] = field(default_factory=set)  # variables of sums
    subscripts: list[Subscript] = field(default_factory=list)
    forced_letters: set[str] = field(default_factory=set)  # used as an index for certain
    bare: set[str] = field(default_factory=set)  # names that stand without arguments
    called: set[str] = field(default_factory=set)  # names on the left of f(x) = ...
    fonts: dict[str, set[str]] = field(default_factory=dict)
    index_letters: frozenset[str] = frozenset()

    def settle(self, before: Facts) -> bool:
        """Close the indices of this pass; return whether the pass before knew as much."""
        self.index_letters = index_closure(self.subscripts, self.bound | self.forced_letters)
        self.called |= before.called
        return (self.index_letters, self.bare, self.called, self.subscripts) == (
            before.index_letters, before.bare, before.called, before.subscripts,
        )  # fmt: skip

    def is_array(self, base: str) -> bool:
        """Whether a base has an index somewhere in the formula."""
        return any(
            b == base and (computes or self.index_letters & set(letters))
            for b, letters, computes in self.subscripts
            if not is_labelled(b, letters)
        )
