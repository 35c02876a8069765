"""Rows of a table by number, and the deterministic sum of their gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, blocks, run_blocks
from .shape import scatter_sum, sum_by_place

ROWS = 1024  # of one block of the gathered rows


def embedding_forward(
    ids: Array, weight: Array, *, padding_idx: int | None = None
) -> tuple[Array, tuple[Any, ...]]:
    """Look up rows, weight[ids].

    Parameters
    ----------
    ids : (...) integer array
        Row numbers in [0, V).
    weight : (V, D) array
        The table.
    padding_idx : int, optional
        A row whose gradient is zero.

    Returns
    -------
    out : (..., D) array
        As `weight`.
    saved : tuple
        `ids`, the table's shape and `padding_idx`.

    Raises
    ------
    IndexError
        If an id lies outside the table.
    TypeError
        If `ids` are not integers.

    Notes
    -----
    ``dweight[v] = Σ dout[i]`` over the positions i with id v, summed in the order of the
    positions: ids are sorted and each run of equal ids is one segment.

    References
    ----------
    .. [1] Bengio et al., "A neural probabilistic language model", JMLR 3 (2003),
       section 2, the mapping C.

    Examples
    --------
    >>> embedding_forward(np.array([1, 1]), np.array([[1.0], [2.0]]))[0].tolist()
    [[2.0], [2.0]]
    """
    xp = array_module(weight)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: ids must be integers, found {ids.dtype}")
    V, D = weight.shape
    if ids.size and xp is np:  # on a GPU the check would stop the queue: the host makes it
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= V:
            raise IndexError(
                f"embedding: id {low if low < 0 else high} is outside the table of {V} rows "
                f"(ids must lie in [0, {V}))"
            )
    flat = ids.reshape(-1)
    out = xp.empty((flat.size, D), weight.dtype)
    # NumPy's default mode gathers into a buffer first, to leave `out` alone if an id is wrong;
    # they have been checked
    unchecked = {"mode": "clip"} if xp is np else {}
    run_blocks(
        lambda r: xp.take(weight, flat[r], axis=0, out=out[r], **unchecked),
        blocks(flat.size, ROWS if xp is np else max(1, flat.size)),
    )
    return out.reshape(*ids.shape, D), (ids, weight.shape, padding_idx)


class SparseRows(NamedTuple):
    """A gradient that is zero but for a few rows.

    A table of 50,000 words has a few hundred in a batch. Where its gradient is added to another
    one, as in a model whose output projection is the table, only those rows are touched.

    Parameters
    ----------
    present : (n,) int array
        Distinct row numbers.
    rows : (n, D) array
        Their gradients.
    shape : (int, int)
        Of the whole.
    """

    present: Array
    rows: Array
    shape: tuple[int, int]

    def dense(self) -> Array:
        """Return the gradient with its zeros."""
        out = np.zeros(self.shape, self.rows.dtype)
        out[self.present] = self.rows
        return out

    def add_to(self, total: Array) -> None:
        """Add the rows to a dense gradient, in place."""
        total[self.present] += self.rows


def embedding_backward_sparse(
    dout: Array, saved: tuple[Any, ...]
) -> tuple[None, SparseRows | Array]:
    """Return ``(None, dweight)`` as `SparseRows`, or dense on a GPU, which has the bandwidth."""
    ids, (V, D), padding_idx = saved
    if array_module(dout) is not np or not ids.size:
        return embedding_backward(dout, saved)
    present, rows = sum_by_place(ids.reshape(-1), dout.reshape(-1, D))
    if padding_idx is not None:
        rows[present == padding_idx % V] = 0
    return None, SparseRows(present, rows, (V, D))


def embedding_backward(dout: Array, saved: tuple[Any, ...]) -> tuple[None, Array]:
    """Return ``(None, dweight)``."""
    ids, (V, D), padding_idx = saved
    dweight = scatter_sum(ids.reshape(-1), dout.reshape(-1, D), V)
    if padding_idx is not None:
        dweight[padding_idx] = 0
    return None, dweight
