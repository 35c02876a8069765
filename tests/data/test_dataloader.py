"""Datasets, samplers, collation and the loader, beside PyTorch's where nothing is random."""

from __future__ import annotations

from collections import Counter, namedtuple

import numpy as np
import pytest
import torch
import torch.utils.data as torch_data

import minitransformer as mt
from minitransformer.utils import data

Point = namedtuple("Point", "x y")


class Squares(data.Dataset):
    def __init__(self, n: int = 7) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> int:
        return index**2


class Stream(data.IterableDataset):
    def __iter__(self):
        return iter(range(5))


def plain(batch):
    """Tensors of either package as (dtype, values); containers as they are."""
    if hasattr(batch, "tolist"):
        return str(batch.dtype).removeprefix("torch."), batch.tolist()
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(plain(value) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(plain(value) for value in batch)
    return batch


SAMPLES = {
    "int": [1, 2],
    "float": [1.5, 2.5],
    "bool": [True, False],
    "array": [np.ones(2, np.float32), np.zeros(2, np.float32)],
    "scalar": [np.float32(1), np.float32(2)],
    "tuple": [(1, 2.0), (3, 4.0)],
    "list": [[1, 2], [3, 4]],
    "mapping": [{"a": 1, "b": (1, 2)}, {"a": 2, "b": (3, 4)}],
    "named": [Point(1, 2.0), Point(3, 4.0)],
    "text": [("a", 1), ("b", 2)],
}


@pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES.keys())
def test_collation_is_pytorchs(samples) -> None:
    assert plain(data.default_collate(samples)) == plain(torch_data.default_collate(samples))


def test_tensors_are_stacked() -> None:
    batch = data.default_collate([(mt.ones(2), 0), (mt.zeros(2), 1)])
    assert batch[0].tolist() == [[1.0, 1.0], [0.0, 0.0]] and batch[1].tolist() == [0, 1]
    with pytest.raises(RuntimeError, match="equal size"):
        data.default_collate([mt.ones(2), mt.ones(3)])
    with pytest.raises(RuntimeError, match="equal size"):
        data.default_collate([[1], [1, 2]])
    with pytest.raises(TypeError, match="collate_fn"):
        data.default_collate([object()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 3},
        {"batch_size": 3, "drop_last": True},
        {"batch_size": None},
        {"batch_size": 2, "sampler": [4, 0, 4]},
        {"batch_sampler": [[1, 2], [6]]},
        {"batch_size": 3, "collate_fn": sum},
        {"batch_size": 2, "num_workers": 0, "pin_memory": False},
    ],
)
def test_loader_is_pytorchs(options) -> None:
    ours = data.DataLoader(Squares(), **options)
    theirs = torch_data.DataLoader(Squares(), **options)
    assert len(ours) == len(theirs)
    for _ in range(2):
        assert [plain(b) for b in ours] == [plain(b) for b in theirs]


@pytest.mark.parametrize(
    "options", [{"batch_size": 2}, {"batch_size": 2, "drop_last": True}, {"batch_size": None}]
)
def test_streams(options) -> None:
    class TorchStream(torch_data.IterableDataset):
        def __iter__(self):
            return iter(range(5))

    ours, theirs = (
        data.DataLoader(Stream(), **options),
        torch_data.DataLoader(TorchStream(), **options),
    )
    assert [plain(b) for b in ours] == [plain(b) for b in theirs]


def test_tensor_dataset_gives_rows_and_batches() -> None:
    x, y = mt.arange(12).float().view(6, 2), mt.arange(6)
    dataset = data.TensorDataset(x, y)
    assert len(dataset) == 6
    assert [part.tolist() for part in dataset[2]] == [[4.0, 5.0], 2]
    loader = data.DataLoader(dataset, batch_size=4)
    plainly = data.DataLoader(dataset, batch_size=4, collate_fn=lambda b: data.default_collate(b))
    assert [plain(b) for b in loader] == [plain(b) for b in plainly]
    assert isinstance(next(iter(loader)), list)
    with pytest.raises(ValueError, match=r"\[6, 5\]"):
        data.TensorDataset(x, y[:5])


def test_shuffling_is_a_permutation_that_the_seed_decides() -> None:
    loader = data.DataLoader(Squares(50), batch_size=8, shuffle=True)

    def order() -> list[int]:
        return [int(x) for batch in loader for x in batch.tolist()]

    mt.manual_seed(0)
    first, second = order(), order()
    assert sorted(first) == [i**2 for i in range(50)] and first != sorted(first)
    assert first != second
    mt.manual_seed(0)
    assert order() == first


def test_a_generator_keeps_to_itself() -> None:
    g = mt.Generator().manual_seed(3)
    loader = data.DataLoader(Squares(20), batch_size=20, shuffle=True, generator=g)
    (first,) = loader
    mt.rand(5)
    g.manual_seed(3)
    (again,) = loader
    assert first.tolist() == again.tolist()


def test_random_orders_are_uniform() -> None:
    """Each of the six orders of three things comes about 1000 times in 6000."""
    mt.manual_seed(0)
    counts = Counter(tuple(data.RandomSampler(range(3))) for _ in range(6000))
    assert len(counts) == 6
    assert all(abs(n - 1000) < 5 * 29 for n in counts.values())


def test_sampler_with_replacement_and_more_than_once_round() -> None:
    mt.manual_seed(0)
    drawn = list(data.RandomSampler(range(4), replacement=True, num_samples=4000))
    assert all(abs(drawn.count(i) - 1000) < 5 * 28 for i in range(4))
    rounds = list(data.RandomSampler(range(4), num_samples=10))
    assert sorted(rounds[:4]) == sorted(rounds[4:8]) == [0, 1, 2, 3] and len(rounds) == 10


def test_weighted_sampler() -> None:
    mt.manual_seed(0)
    drawn = list(data.WeightedRandomSampler([1.0, 0.0, 3.0], 4000))
    assert drawn.count(1) == 0 and abs(drawn.count(2) - 3000) < 5 * 28
    for _ in range(20):
        assert set(data.WeightedRandomSampler([1.0, 0.0, 3.0], 2, replacement=False)) == {0, 2}
    first = [
        next(iter(data.WeightedRandomSampler([1.0, 3.0], 1, replacement=False)))
        for _ in range(2000)
    ]
    assert abs(first.count(1) - 1500) < 5 * 20


def test_subsets_and_concatenation() -> None:
    both = Squares(3) + Squares(2)
    assert [both[i] for i in range(len(both))] == [0, 1, 4, 0, 1]
    assert both[-1] == 1
    subset = data.Subset(both, [4, 2])
    assert [subset[i] for i in range(len(subset))] == [1, 4]
    with pytest.raises(ValueError, match="out of range"):
        both[5]
    with pytest.raises(ValueError, match="IterableDataset"):
        data.ConcatDataset([Stream()])
    with pytest.raises(ValueError, match="empty"):
        data.ConcatDataset([])


@pytest.mark.parametrize("lengths", [[3, 4], [0.5, 0.5], [0.2, 0.3, 0.5], [1.0]])
def test_random_split_lengths_are_pytorchs(lengths) -> None:
    parts = data.random_split(Squares(7), lengths)
    theirs = torch_data.random_split(Squares(7), lengths)
    assert [len(p) for p in parts] == [len(p) for p in theirs]
    assert sorted(i for part in parts for i in part.indices) == list(range(7))


class Empty(data.Dataset):
    pass


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "positive integer", lambda: data.DataLoader(Squares(), batch_size=0)),
        (ValueError, "num_workers", lambda: data.DataLoader(Squares(), num_workers=-1)),
        (ValueError, "timeout", lambda: data.DataLoader(Squares(), timeout=-1)),
        (
            ValueError,
            "exclusive with shuffle",
            lambda: data.DataLoader(Squares(), shuffle=True, sampler=[1]),
        ),
        (
            ValueError,
            "batch_sampler option",
            lambda: data.DataLoader(Squares(), 2, batch_sampler=[[1]]),
        ),
        (ValueError, "drop_last", lambda: data.DataLoader(Squares(), None, drop_last=True)),
        (ValueError, "IterableDataset", lambda: data.DataLoader(Stream(), shuffle=True)),
        (ValueError, "num_samples", lambda: data.RandomSampler(range(3), num_samples=0)),
        (TypeError, "replacement", lambda: data.RandomSampler(range(3), replacement=1)),
        (ValueError, "batch_size", lambda: data.BatchSampler(range(3), 0, False)),
        (ValueError, "drop_last", lambda: data.BatchSampler(range(3), 1, 0)),
        (ValueError, "num_samples", lambda: data.WeightedRandomSampler([1.0], 0)),
        (ValueError, "1d", lambda: data.WeightedRandomSampler([[1.0]], 1)),
        (ValueError, "non-negative", lambda: data.WeightedRandomSampler([-1.0], 1)),
        (
            ValueError,
            "as many positive",
            lambda: data.WeightedRandomSampler([1.0, 0.0], 2, replacement=False),
        ),
        (ValueError, "does not equal", lambda: data.random_split(Squares(7), [3, 3])),
        (NotImplementedError, "__getitem__", lambda: Empty()[0]),
        (NotImplementedError, "__iter__", lambda: iter(data.IterableDataset())),
        (NotImplementedError, "__iter__", lambda: iter(data.Sampler())),
    ],
)
def test_bad_input_is_named(error, text, call) -> None:
    with pytest.raises(error, match=text):
        call()


def test_generic_annotations_are_accepted() -> None:
    assert data.Dataset[int] is data.Dataset and data.Sampler[int] is data.Sampler
    assert torch.utils.data is torch_data
