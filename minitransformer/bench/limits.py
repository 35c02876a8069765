"""What this machine can do at most: its own product rate and its own copy rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..backend import array_module, even_blocks, run_blocks
from ..kernels.linear import product
from .devices import Device, Host, product_precision
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

    def bound(
        self, flops: float, moved: float, seconds: float, launching: float = 0.0
    ) -> tuple[str, float]:
        """Return what bounds a kernel, and the share of that limit it reached.

        A kernel that reaches a tenth of neither limit, or that the host needs longer to issue
        than a device to run, is bound by the cost of its calls.

        Examples
        --------
        >>> Limits(100.0, 10.0).bound(90.0, 1.0, 1.0)
        ('compute', 0.9)
        >>> Limits(100.0, 10.0).bound(1.0, 0.1, 1.0)
        ('launch', 0.01)
        >>> Limits(100.0, 10.0).bound(90.0, 1.0, 1.0, launching=2.0)
        ('launch', 0.9)
        """
        shares = {
            "compute": flops / seconds / self.flops,
            "bandwidth": moved / seconds / self.bytes,
        }
        name = max(shares, key=lambda key: shares[key])
        quick = shares[name] < 0.1 or launching > seconds
        return ("launch" if quick else name), shares[name]


def rates(
    dtype: str = "float32", *, device: Device | None = None, torch: Any = None,
    size: int | None = None, seconds: float = 0.5,
) -> dict[str, Limits]:  # fmt: skip
    """Measure both rates with our product and copy, and with PyTorch's if it is given.

    Parameters
    ----------
    dtype : str
        Of the product, one of `devices.DTYPES`; the copy is of float32.
    device : Device, optional
        Where; the CPU if not given.
    torch : module, optional
        PyTorch.
    size : int, optional
        Side of the product's square matrices; the copy is of 16 · size² bytes.
    seconds : float
        About how long to measure.

    Returns
    -------
    dict of str to Limits
        By "minitransformer" and "PyTorch".
    """
    device = device or Host()
    size = size or (1536 if device.name == "cpu" else 8192)
    rng = np.random.default_rng(0)
    square = rng.standard_normal((size, size), np.float32)
    long = np.resize(square, 4 * size * size)
    a, source = device.place(square, dtype), device.place(long)
    target = array_module(source).empty_like(source)
    calls: dict[str, Callable[[], Any]] = {
        "minitransformer product": lambda: product(a, a),
        "minitransformer copy": lambda: _copy(source, target),
    }
    sides = ["minitransformer"]
    if torch is not None:
        b, long_b = device.tensor(torch, square, dtype), device.tensor(torch, long)
        target_b = torch.empty_like(long_b)
        calls["PyTorch product"] = lambda: torch.matmul(b, b)
        calls["PyTorch copy"] = lambda: target_b.copy_(long_b)
        sides.append("PyTorch")
    with product_precision(dtype, torch):
        samples = interleave(calls, seconds=seconds, clock=device.clock)
    # The limit is what the machine can do, so the quicker end of the interval.
    return {
        side: Limits(
            2.0 * size**3 / samples[f"{side} product"].low,
            2.0 * long.nbytes / samples[f"{side} copy"].low,
        )
        for side in sides
    }


def measure_limits(dtype: str = "float32", **options: Any) -> Limits:
    """Return the better of the `rates`, whose options these are."""
    found = rates(dtype, **options).values()
    return Limits(max(r.flops for r in found), max(r.bytes for r in found))


def _copy(source: Any, target: Any) -> None:
    xp = array_module(source)
    blocks = even_blocks(source.size, 1 << 20 if xp is np else source.size)
    run_blocks(lambda r: xp.copyto(target[r], source[r]), blocks)
