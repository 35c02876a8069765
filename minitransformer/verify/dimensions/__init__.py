"""Named-dimension typing: from the tree of a formula to typed terms.

A formula says ``QK^T``; whether that is a matrix product, a scalar product or
nonsense is decided by the dimensions of ``Q`` and ``K``. `Elaborator` decides it,
with names (``n_q``, ``d_k``) instead of sizes, so that no accident of two equal
numbers lets a wrong formula pass, and writes the decision into the term it
returns. A mismatch is an `IllTyped` at the sub-expression that causes it.

The rules are in `elementwise`, `products`, `indices` and `calls`, each on top of the one
before; `terms` has what they work with, `spellings` the names of functions.
"""

from __future__ import annotations

from minitransformer.verify.dimensions.calls import Calls
from minitransformer.verify.dimensions.elementwise import Index
from minitransformer.verify.dimensions.spellings import (
    ELEMENTWISE,
    REDUCTIONS,
    canonical_function,
)
from minitransformer.verify.dimensions.terms import (
    Convention,
    Dims,
    IllTyped,
    Term,
    Typing,
    Unbound,
    align,
    show_dims,
)
from minitransformer.verify.expression import Expr

__all__ = [
    "ELEMENTWISE",
    "REDUCTIONS",
    "Convention",
    "Dims",
    "Elaborator",
    "IllTyped",
    "Term",
    "Typing",
    "Unbound",
    "align",
    "canonical_function",
    "show_dims",
]


class Elaborator(Calls):
    """Turn trees into terms under one `Typing` and one `Convention`."""

    def formula(self, e: Expr, free: tuple[str, ...] = ()) -> Term:
        """Elaborate a whole formula; `free` names its free indices in order.

        The value of a formula with free indices is the table of its values, one
        axis per index.
        """
        if not free:
            return self(e)
        indices = [Index(i, self.typing.indices.get(i)) for i in free]
        with self._running(*indices):
            term = self(e)
            for i in indices:
                if i.dim is None:
                    raise Unbound(i.name, e.span, "index")
            term = self(e)  # again, now that every range is known
        dims = tuple(str(i.dim) for i in indices)
        return Term("table", (term,), free, dims + term.dims, e.span, free=term.free - set(free))
