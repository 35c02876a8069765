"""Whole programs: training in both libraries from the same initial weights, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import minitransformer as mt
import minitransformer.nn.utils
import minitransformer.optim
from tests.kernels.cases import normal
from tests.parity.same import array_of, tensor_in
from tests.parity.words import BEGIN, PAD, VOCABULARY, batch, ids_of, words
from tests.tolerance import assert_close

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")


def without_dropout(library: Any, model: Any) -> Any:
    """Training mode, in which nothing is random."""
    for module in model.modules():
        if isinstance(module, library.nn.Dropout):
            module.p = 0.0
        if isinstance(module, library.nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def in_dtype(library: Any, model: Any, state: dict[str, Any], dtype: Any) -> Any:
    if dtype == np.float64:
        model = model.double()
        state = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
    model.load_state_dict(state)
    return without_dropout(library, model)


# Ten steps of AdamW ------------------------------------------------------------------------


def ten_steps(
    library: Any, state: dict[str, Any], dtype: Any, options: dict[str, Any]
) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """Loss and every parameter after each step of a translation model in the small."""
    model = in_dtype(library, transformer_and_head(library, options), state, dtype)
    optimizer = library.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    causal = library.nn.Transformer.generate_square_subsequent_mask(5)
    causal = causal.to(library.float64 if dtype == np.float64 else library.float32)
    padding = tensor_in(library, np.arange(6) >= np.array([[6], [4], [5]]), dtype)
    criterion = library.nn.CrossEntropyLoss(label_smoothing=0.1)
    for step in range(10):
        source = tensor_in(library, normal(step, 3, 6, 16), dtype)
        target = tensor_in(library, normal(step + 100, 3, 5, 16), dtype)
        classes = np.random.default_rng(step).integers(0, 7, (3, 5))
        optimizer.zero_grad()
        hidden = model[0](
            source,
            target,
            tgt_mask=causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        logits = model[1](hidden)
        loss = criterion(logits.reshape(-1, 7), tensor_in(library, classes, dtype).reshape(-1))
        loss.backward()
        library.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.item(), {n: array_of(p).copy() for n, p in model.named_parameters()}


def transformer_and_head(library: Any, options: dict[str, Any]) -> Any:
    nn = library.nn
    return nn.ModuleList(
        [nn.Transformer(16, 4, 2, 2, 32, batch_first=True, **options), nn.Linear(16, 7)]
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"norm_first": True, "activation": "gelu"}],
    ids=["as published", "norm first, GELU"],
)
def test_ten_steps_of_adamw(options: dict[str, Any], count: Counter) -> None:
    torch.manual_seed(0)
    state = {k: v.clone() for k, v in transformer_and_head(torch, options).state_dict().items()}
    exact = list(ten_steps(torch, state, np.float64, options))
    naive = list(ten_steps(torch, state, np.float32, options))
    for dtype in (np.float32, np.float64):
        ours = list(ten_steps(mt, state, dtype, options))
        losses = [np.array([loss for loss, _ in run]) for run in (ours, exact, naive)]
        assert_close(
            losses[0].astype(dtype), losses[1], losses[2].astype(np.float32), "backward", "losses"
        )
        assert losses[1][-1] < losses[1][0]
        for name in exact[0][1]:
            # All ten steps at once: the error of one step alone may be small by luck.
            found, truth, plain = (np.stack([p[name] for _, p in r]) for r in (ours, exact, naive))
            assert found.dtype == dtype
            if name.endswith("in_proj_bias"):
                # No gradient reaches a key's bias, for a softmax does not see a shift: what
                # Adam makes steps of there is the rounding of a zero.
                keys = slice(16, 32)
                assert np.abs(found[-1, keys] - found[0, keys]).max() < 10 * 1e-3
                found, truth, plain = (np.delete(a, keys, axis=1) for a in (found, truth, plain))
            assert_close(found, truth, plain, "backward", name)
    count["parity: training runs against PyTorch"] += 2


# A sequence-to-sequence program as tutorials write it --------------------------------------


def tutorial(library: Any, dtype: Any, state: Any = None) -> tuple[list[float], float, Any]:
    """Embed, nn.Transformer, project; Adam; the loss of the last pair after every epoch.

    The program keeps the mistakes of its kind: no masks, no positions, the target as its own
    input, a third argument that counts the layers of the encoder alone, and an accuracy that
    takes the largest entry along axis 1. That axis is the vocabulary only because a sequence
    comes without a batch axis.
    """
    nn, optim = library.nn, library.optim

    class Seq2Seq(nn.Module):
        def __init__(self, vocab_size: int, d_model: int, nhead: int, num_layers: int) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocab_size, d_model)
            self.transformer = nn.Transformer(d_model, nhead, num_layers)
            self.fc = nn.Linear(d_model, vocab_size)

        def forward(self, src: Any, tgt: Any) -> Any:
            return self.fc(self.transformer(self.embedding(src), self.embedding(tgt)))

    model = Seq2Seq(VOCABULARY, 16, 2, 2)
    assert len(model.transformer.encoder.layers) == 2
    assert len(model.transformer.decoder.layers) == 6
    if state is None:
        state = {name: value.clone() for name, value in model.state_dict().items()}
    model = in_dtype(library, model, state, dtype)

    def pairs(chosen: tuple[str, ...]) -> list[Any]:
        return [(library.tensor(ids_of(w)), library.tensor(ids_of(w)[::-1])) for w in chosen]

    train_loader, test_loader = pairs(words()[:4]), pairs(words()[4:12])
    optimizer = optim.Adam(model.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()
    losses = []
    for _ in range(10):
        for src, tgt in train_loader:
            optimizer.zero_grad()
            out = model(src, tgt)
            loss = criterion(out.view(-1, VOCABULARY), tgt.view(-1))
            loss.backward()
            optimizer.step()
        losses.append(loss.item())

    with library.no_grad():
        correct = total = 0
        for src, tgt in test_loader:
            out = model(src, tgt)
            _, predicted = library.max(out.data, 1)
            total += tgt.size(0)
            correct += (predicted == tgt).sum().item()
    return losses, 100 * correct / total, state


def test_the_tutorials_program_gives_the_same_numbers(count: Counter) -> None:
    torch.manual_seed(1)
    exact, accuracy, state = tutorial(torch, np.float64)
    naive, naive_accuracy, _ = tutorial(torch, np.float32, state)
    assert exact[-1] < exact[0] and 0 < accuracy < 100
    for dtype in (np.float32, np.float64):
        ours, our_accuracy, _ = tutorial(mt, dtype, state)
        assert our_accuracy == (accuracy if dtype == np.float64 else naive_accuracy)
        assert_close(
            np.array(ours).astype(dtype), np.array(exact), np.array(naive, np.float32), "backward"
        )
    count["parity: training runs against PyTorch"] += 1


def test_the_tutorials_accuracy_does_not_fit_a_batch() -> None:
    """For (length, batch, vocabulary) axis 1 is the batch: what comes out is no prediction."""
    for library in (torch, mt):
        out = tensor_in(library, normal(1, 5, 3, VOCABULARY), np.float32)
        _, predicted = library.max(out.data, 1)
        assert tuple(predicted.shape) == (5, VOCABULARY)
        with pytest.raises(RuntimeError):
            predicted == library.zeros(5, 3)  # noqa: B015 - the comparison is what fails


# The same, corrected -----------------------------------------------------------------------


class Reverser(mt.nn.Module):
    """Positions, a causal mask, padding masks, and as many decoder as encoder layers."""

    def __init__(self, d_model: int = 64, layers: int = 1) -> None:
        super().__init__()
        nn = mt.nn
        self.embedding = nn.Embedding(VOCABULARY, d_model)
        self.position = nn.Embedding(16, d_model)
        self.transformer = nn.Transformer(
            d_model, 4, layers, layers, 2 * d_model, dropout=0.0, batch_first=True
        )
        self.fc = nn.Linear(d_model, VOCABULARY)

    def embed(self, ids: Any) -> Any:
        return self.embedding(ids) + self.position(mt.arange(ids.size(1)))

    def forward(self, source: Any, target: Any) -> Any:
        padding = source == PAD
        hidden = self.transformer(
            self.embed(source),
            self.embed(target),
            tgt_mask=mt.nn.Transformer.generate_square_subsequent_mask(target.size(1)),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.fc(hidden)


def test_the_corrected_program_learns_to_reverse_words() -> None:
    """On words it has not seen, letter by letter from its own output, over 95 % are right."""
    mt.manual_seed(0)
    unseen, seen = list(words()[:200]), list(words()[200:])
    assert len(seen) > 1000 and not set(unseen) & set(seen)
    model = Reverser()
    steps = 700
    optimizer = mt.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = mt.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    criterion = mt.nn.CrossEntropyLoss(ignore_index=PAD)
    order = np.random.default_rng(0)
    for _ in range(steps):
        source, target = map(
            mt.from_numpy, batch([seen[i] for i in order.integers(0, len(seen), 48)])
        )
        optimizer.zero_grad()
        logits = model(source, target[:, :-1])
        loss = criterion(logits.reshape(-1, VOCABULARY), target[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        schedule.step()

    model.eval()
    source, target = map(mt.from_numpy, batch(unseen))
    written = mt.full((len(unseen), 1), BEGIN, dtype=mt.int64)
    with mt.no_grad():
        while written.size(1) < target.size(1):
            following = model(source, written)[:, -1].argmax(dim=-1)
            written = mt.cat([written, following[:, None]], dim=1)
    real = (target != PAD).numpy()[:, 1:]
    right = (written == target).numpy()[:, 1:]
    assert right[real].mean() > 0.95
    assert (right | ~real).all(axis=1).mean() > 0.80
