"""What this machine can do at most: its own product rate and its own copy rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import even_blocks, run_blocks
from ..kernels.linear import product
from .timing import interleave


class Limits(NamedTuple):
    """Rates of the machine with the threads in use.

    Parameters
    ----------
    flops : float
        Operations per second of a large matrix product.
    bytes : float
        Bytes per second read and written by a copy that no cache holds.
    """

    flops: float
    bytes: float

    def bound(self, flops: float, moved: float, seconds: float) -> tuple[str, float]:
        """Return what bounds a kernel, and the share of that limit it reached.

        A kernel that reaches a tenth of neither limit is bound by the cost of its calls.

        Examples
        --------
        >>> Limits(100.0, 10.0).bound(90.0, 1.0, 1.0)
        ('compute', 0.9)
        >>> Limits(100.0, 10.0).bound(1.0, 0.1, 1.0)
        ('launch', 0.01)
        """
        shares = {
            "compute": flops / seconds / self.flops,
            "bandwidth": moved / seconds / self.bytes,
        }
        name = max(shares, key=lambda key: shares[key])
        return (name if shares[name] >= 0.1 else "launch"), shares[name]


def measure_limits(dtype: Any = np.float32, *, size: int = 1536, seconds: float = 0.5) -> Limits:
    """Measure both rates.

    Parameters
    ----------
    dtype : dtype
        Of the product; half precision is multiplied in float32.
    size : int
        Side of the product's square matrices; the copy is of 16 · size² bytes.
    seconds : float
        About how long to measure.
    """
    rng = np.random.default_rng(0)
    a = rng.standard_normal((size, size)).astype(dtype)
    source = np.ones(4 * size * size, np.float32)
    target = np.empty_like(source)
    blocks = even_blocks(source.size, 1 << 20)

    def copy() -> None:
        run_blocks(lambda r: np.copyto(target[r], source[r]), blocks)

    samples = interleave({"product": lambda: product(a, a), "copy": copy}, seconds=seconds)
    # The limit is what the machine can do, so the quicker end of the interval.
    return Limits(2.0 * size**3 / samples["product"].low, 2.0 * source.nbytes / samples["copy"].low)
