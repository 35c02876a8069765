"""Samplers: the order in which samples are drawn, one by one or in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np

from ..backend import Key, next_key, uniform

__all__ = [
    "BatchSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "WeightedRandomSampler",
]


def _key(generator: Any) -> Key:
    return next_key() if generator is None else generator.next_key()


def permutation(n: int, generator: Any = None) -> list[int]:
    """Return 0..n-1 in random order, from one key of the random stream.

    Examples
    --------
    >>> sorted(permutation(4))
    [0, 1, 2, 3]
    """
    order: list[int] = np.argsort(
        uniform(_key(generator), (n,), np.float64), kind="stable"
    ).tolist()
    return order


class Sampler:
    """Base of samplers: subclasses define `__iter__` over indices and, if known, `__len__`."""

    def __class_getitem__(cls, item: Any) -> type[Sampler]:
        # Listings annotate `Sampler[int]`; the parameter means nothing at run time.
        return cls

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("Subclasses of Sampler should implement __iter__.")


class SequentialSampler(Sampler):
    """All samples in order.

    Parameters
    ----------
    data_source : sized

    Examples
    --------
    >>> list(SequentialSampler("abc"))
    [0, 1, 2]
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler):
    """Samples in random order, another one each time round.

    Parameters
    ----------
    data_source : sized
    replacement : bool
        Whether a sample can come twice.
    num_samples : int, optional
        How many to draw; the dataset's length if not given.
    generator : Generator, optional
        Source of randomness.

    Raises
    ------
    ValueError
        If `num_samples` is not positive.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Any = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got {replacement!r}")
        if num_samples is not None and (not isinstance(num_samples, int) or num_samples <= 0):
            raise ValueError(
                f"num_samples should be a positive integer value, but got num_samples={num_samples}"
            )
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator

    @property
    def num_samples(self) -> int:
        """How many indices one round has."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        n, wanted = len(self.data_source), self.num_samples
        if self.replacement:
            draws = uniform(_key(self.generator), (wanted,), np.float64) * n
            yield from draws.astype(np.int64).tolist()
            return
        while wanted > 0:
            order = permutation(n, self.generator)
            yield from order[:wanted]
            wanted -= n

    def __len__(self) -> int:
        return self.num_samples


class WeightedRandomSampler(Sampler):
    """Samples drawn with given probabilities.

    Parameters
    ----------
    weights : sequence of float
        Need not add up to one.
    num_samples : int
    replacement : bool
        Whether a sample can come twice.
    generator : Generator, optional
        Source of randomness.

    Raises
    ------
    ValueError
        If the weights are no vector of non-negative numbers, or too few are positive.
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: Any = None,
    ) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(
                f"num_samples should be a positive integer value, but got num_samples={num_samples}"
            )
        probabilities = np.asarray(weights, dtype=np.float64)
        if probabilities.ndim != 1:
            raise ValueError(
                f"weights should be a 1d sequence, but they have shape {probabilities.shape}"
            )
        if not (probabilities >= 0).all() or not probabilities.sum() > 0:
            raise ValueError("weights must be non-negative numbers, at least one of them positive")
        if not replacement and num_samples > int((probabilities > 0).sum()):
            raise ValueError(
                f"num_samples={num_samples} without replacement needs as many positive weights, "
                f"found {int((probabilities > 0).sum())}"
            )
        self.weights = probabilities
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        key = _key(self.generator)
        if self.replacement:
            edges = np.cumsum(self.weights)
            draws = uniform(key, (self.num_samples,), np.float64) * edges[-1]
            yield from np.searchsorted(edges, draws, side="right").tolist()
            return
        # The largest of u^(1/w) are a weighted draw without replacement (Efraimidis, Spirakis).
        u = 1.0 - uniform(key, self.weights.shape, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            keys = np.where(self.weights > 0, np.log(u) / self.weights, -np.inf)
        yield from np.argsort(-keys, kind="stable")[: self.num_samples].tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler):
    """Lists of indices of a fixed length.

    Parameters
    ----------
    sampler : iterable of int
    batch_size : int
    drop_last : bool
        Leave out a last batch that is too short.

    Raises
    ------
    ValueError
        If `batch_size` is not positive or `drop_last` no bool.

    Examples
    --------
    >>> list(BatchSampler(range(5), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(
                f"batch_size should be a positive integer value, but got batch_size={batch_size}"
            )
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
