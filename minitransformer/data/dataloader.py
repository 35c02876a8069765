"""The loader: draws samples from a dataset and collates them into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .dataset import IterableDataset, TensorDataset
from .sampler import BatchSampler, RandomSampler, SequentialSampler

__all__ = ["DataLoader", "default_collate"]


def default_collate(batch: Sequence[Any]) -> Any:
    """Join samples into one: tensors and numbers stacked, containers field by field.

    Parameters
    ----------
    batch : sequence of samples of one structure
        Tensors, NumPy arrays, numbers, strings, and tuples, lists or mappings of them.

    Returns
    -------
    The structure with a new first dimension in every tensor.

    Raises
    ------
    TypeError
        For samples of another type.
    RuntimeError
        If the samples' shapes or lengths differ.

    Examples
    --------
    >>> default_collate([(1, "a"), (2, "b")])
    [tensor([1, 2]), ('a', 'b')]
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return _stacked([sample.array for sample in batch])
    if isinstance(first, np.ndarray) or (isinstance(first, np.generic) and first.shape == ()):
        if first.dtype.kind not in "bfiu":
            raise TypeError(f"default_collate: cannot make a tensor of dtype {first.dtype}")
        return _stacked([np.asarray(sample) for sample in batch])
    if isinstance(first, (bool, int)):
        return Tensor(np.array(batch, dtype=bool if isinstance(first, bool) else np.int64))
    if isinstance(first, float):
        return Tensor(np.array(batch, dtype=np.float64))
    if isinstance(first, (str, bytes)):
        # What zip makes of a batch, and so what PyTorch's nested case returns.
        return tuple(batch)
    if isinstance(first, Mapping):
        return {key: default_collate([sample[key] for sample in batch]) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(field) for field in zip(*batch)))
    if isinstance(first, Sequence):
        if len({len(sample) for sample in batch}) > 1:
            raise RuntimeError("each element in list of batch should be of equal size")
        return [default_collate(field) for field in zip(*batch)]
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {type(first)}. Pass a collate_fn that handles it"
    )


def _stacked(arrays: list[Any]) -> Tensor:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise RuntimeError(
            f"default_collate: stack expects each tensor to be equal size, found {sorted(shapes)}; "
            "pad the samples or pass a collate_fn that does"
        )
    from ..backend import array_module

    return Tensor(array_module(arrays[0]).stack(arrays))


class DataLoader:
    """Iterate over a dataset in batches.

    Parameters
    ----------
    dataset : Dataset
        With `__getitem__` and `__len__`, or an `IterableDataset`.
    batch_size : int, optional
        None gives single samples.
    shuffle : bool, optional
        Draw the samples in another random order each time round.
    sampler : iterable of int, optional
        The order to use instead.
    batch_sampler : iterable of list of int, optional
        Batches of indices, in place of all the above.
    num_workers : int
        Accepted; samples are always loaded in the calling thread, in the same order.
    collate_fn : callable, optional
        Makes a batch of a list of samples; `default_collate` if not given.
    pin_memory : bool
        Accepted and without effect.
    drop_last : bool
        Leave out a last batch that is too short.
    timeout, worker_init_fn, multiprocessing_context
        Of worker processes, which there are none of; without effect.
    generator : Generator, optional
        Source of randomness for shuffling.
    prefetch_factor, persistent_workers, pin_memory_device, in_order
        Of worker processes; without effect.

    Raises
    ------
    ValueError
        If options exclude each other or are out of range.

    Examples
    --------
    >>> import minitransformer as mt
    >>> loader = DataLoader(TensorDataset(mt.arange(5)), batch_size=2)
    >>> [batch.tolist() for (batch,) in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"num_workers option should be non-negative, got {num_workers}")
        if timeout < 0:
            raise ValueError(f"timeout option should be non-negative, got {timeout}")
        stream = isinstance(dataset, IterableDataset)
        if stream and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError(
                "DataLoader with IterableDataset: expected unspecified shuffle, sampler and "
                "batch_sampler options; the stream has an order of its own"
            )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, "
                    "and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError(
                "batch_size=None option disables auto-batching and is mutually exclusive with "
                "drop_last"
            )
        if batch_size is not None and batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, got {batch_size}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.generator = generator
        if sampler is None and not stream:
            sampler = (
                RandomSampler(dataset, generator=generator)
                if shuffle
                else SequentialSampler(dataset)
            )
        self.sampler = sampler
        if batch_sampler is None and batch_size is not None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_sampler = batch_sampler
        batched = batch_size is not None or batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if batched else _single)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.dataset, IterableDataset):
            yield from self._from_stream()
        elif self.batch_sampler is not None:
            for indices in self.batch_sampler:
                yield self._batch(indices)
        else:
            for index in self.sampler or ():
                yield self.collate_fn(self.dataset[index])

    def _batch(self, indices: Sequence[int]) -> Any:
        if type(self.dataset) is TensorDataset and self.collate_fn is default_collate:
            # One indexing per tensor is what stacking the samples would give.
            rows = np.asarray(indices)
            return [Tensor(tensor.array[rows]) for tensor in self.dataset.tensors]
        return self.collate_fn([self.dataset[index] for index in indices])

    def _from_stream(self) -> Iterator[Any]:
        if self.batch_size is None:
            for sample in self.dataset:
                yield self.collate_fn(sample)
            return
        batch: list[Any] = []
        for sample in self.dataset:
            batch.append(sample)
            if len(batch) == self.batch_size:
                yield self.collate_fn(batch)
                batch = []
        if batch and not self.drop_last:
            yield self.collate_fn(batch)

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            n = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return n
            return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
        counted = self.sampler if self.batch_sampler is None else self.batch_sampler
        return len(counted)  # type: ignore[arg-type]


def _single(sample: Any) -> Any:
    """A sample that is not batched: arrays become tensors, the rest stays."""
    if isinstance(sample, (np.ndarray, np.generic)):
        return Tensor(np.asarray(sample))
    if isinstance(sample, tuple) and not hasattr(sample, "_fields"):
        return tuple(_single(part) for part in sample)
    return sample
