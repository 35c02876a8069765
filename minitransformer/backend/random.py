"""Stateless random numbers: the same stream on every backend and in every process.

A number depends on a `Key` (seed, step, operation) and its index alone, never on
what was drawn before. So dropout is the same on CPU and GPU, when an activation
is recomputed, across processes and after a resume. The generator is
Philox4x64-10 [1]_, NumPy's own where the array is NumPy's.

References
----------
.. [1] Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array

_MASK = (1 << 64) - 1


class Key(NamedTuple):
    """What a stream of random numbers is keyed by.

    Parameters
    ----------
    seed : int
        The user's seed, from `manual_seed`.
    step : int
        The optimisation step, so that a resumed run draws what the first would have.
    operation : int
        The number of the drawing operation within the step.
    """

    seed: int
    step: int = 0
    operation: int = 0


_state: Key | None = None


def _current() -> Key:
    global _state
    if _state is None:  # unseeded programs differ from run to run, as in PyTorch
        _state = Key(int.from_bytes(os.urandom(8), "little") >> 1)
    return _state


def manual_seed(seed: int) -> None:
    """Start every stream anew from `seed`."""
    set_random_state(Key(int(seed) & _MASK))


def initial_seed() -> int:
    """Return the seed in force."""
    return _current().seed


def set_random_step(step: int) -> None:
    """Enter optimisation step `step`: operations are counted from zero again."""
    set_random_state(Key(_current().seed, int(step)))


def get_random_state() -> Key:
    """Return the key of the next operation: three integers, all a checkpoint needs."""
    return _current()


def set_random_state(state: Key) -> None:
    """Go on from a state that `get_random_state` returned."""
    global _state
    _state = Key(*state)


def next_key() -> Key:
    """Return the key of this operation and move on to the next."""
    global _state
    key = _current()
    _state = key._replace(operation=key.operation + 1)
    return key


def random_bits(key: Key, n: int, *, start: int = 0, xp: Any = np) -> Array:
    """Return elements ``start .. start + n`` of the stream `key`.

    Parameters
    ----------
    key : Key
        Which stream.
    n : int
        How many numbers.
    start : int, optional
        Index of the first one; a multiple of 8, so that blocks can be drawn apart.
    xp : module, optional
        NumPy or CuPy.

    Returns
    -------
    (n,) uint32 array
        Uniform bits.

    Examples
    --------
    >>> whole = random_bits(Key(1), 24)
    >>> bool((random_bits(Key(1), 16, start=8) == whole[8:]).all())
    True
    """
    if start % 8:
        raise ValueError(f"start must be a multiple of 8, found {start}")
    words = -(-n // 8) * 4  # four 64-bit words, eight numbers, per counter
    if xp is np:
        generator = np.random.Philox(
            counter=np.array([start // 8, key.step, key.operation, 0], np.uint64),
            key=np.array([key.seed & _MASK, 0], np.uint64),  # a list of large ints becomes floats
        )
        bits = generator.random_raw(words)
    else:
        bits = _philox(xp.arange(start // 8 + 1, start // 8 + 1 + words // 4), key, xp)
    return bits.astype("<u8", copy=False).view("<u4")[:n]


def uniform(key: Key, shape: tuple[int, ...], dtype: Any = np.float32, *, xp: Any = np) -> Array:
    """Return uniform numbers in [0, 1): 24 random bits in float32, 53 in float64.

    Examples
    --------
    >>> uniform(Key(0), (2, 3)).dtype
    dtype('float32')
    """
    n = math.prod(shape)
    if np.dtype(dtype) == np.float64:
        words = random_bits(key, 2 * n, xp=xp).view("<u8")
        return ((words >> 11) * 2.0**-53).reshape(shape)
    numbers = (random_bits(key, n, xp=xp) >> 8).astype(np.float32)
    numbers *= 2.0**-24
    return numbers.reshape(shape).astype(dtype, copy=False)


def normal(key: Key, shape: tuple[int, ...], dtype: Any = np.float32, *, xp: Any = np) -> Array:
    """Return standard normal numbers by the Box–Muller transform.

    References
    ----------
    .. [1] Box and Muller, "A note on the generation of random normal deviates", 1958.
    """
    n = math.prod(shape)
    wide = np.float64 if np.dtype(dtype) == np.float64 else np.float32
    half = (n + 1) // 2
    u = uniform(key, (2, half), wide, xp=xp)
    radius = xp.sqrt(-2.0 * xp.log1p(-u[0]))  # 1 - u is in (0, 1]: the logarithm is finite
    angle = (2.0 * math.pi) * u[1]
    numbers = xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])
    return numbers[:n].reshape(shape).astype(dtype, copy=False)


def random_integers(
    key: Key, low: int, high: int, shape: tuple[int, ...], *, xp: Any = np
) -> Array:
    """Return int64 numbers in [low, high), from 53 random bits each."""
    u = uniform(key, shape, np.float64, xp=xp)
    return (xp.floor(u * (high - low)) + low).astype(np.int64)


def _philox(counter: Array, key: Key, xp: Any) -> Array:
    """Return Philox4x64-10 of a vector of counters, as array code for any backend."""
    u64 = np.uint64

    def multiply(m: int, x: Array) -> tuple[Array, Array]:
        # the 128-bit product in halves: NumPy and CuPy have no 128-bit integers
        low32 = u64(0xFFFFFFFF)
        m0, m1, shift = u64(m & 0xFFFFFFFF), u64(m >> 32), u64(32)
        x0, x1 = x & low32, x >> shift
        middle = m1 * x0 + ((m0 * x0) >> shift)
        other = m0 * x1 + (middle & low32)
        return m1 * x1 + (middle >> shift) + (other >> shift), u64(m) * x

    c0 = counter.astype(u64)
    c1, c2, c3 = (xp.full_like(c0, u64(v)) for v in (key.step, key.operation, 0))
    k0, k1 = key.seed & _MASK, 0
    for _ in range(10):
        high0, low0 = multiply(0xD2E7470EE14C6C93, c0)
        high1, low1 = multiply(0xCA5A826395121157, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ u64(k0), low1, high0 ^ c3 ^ u64(k1), low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & _MASK, (k1 + 0xBB67AE8584CAA73B) & _MASK
    return xp.stack([c0, c1, c2, c3], axis=1).reshape(-1)
