"""Kernels, modules and training moved to a device and back, a real GPU or a pretended one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

import minitransformer as mt
from minitransformer import nn, optim
from tests.kernels.cases import Case
from tests.kernels.check import Pair, pair_of

Move = Callable[[Any], Any]
Waiting = Callable[[], contextlib.AbstractContextManager[Any]]


def nested(move: Move) -> Move:
    """Return `move` for every array inside nested tuples."""

    def moved(value: Any) -> Any:
        return tuple(map(moved, value)) if isinstance(value, tuple) else move(value)

    return moved


def device_pair(case: Case, to_device: Move, to_host: Move, waiting: Waiting) -> Pair:
    """The kernel with moves to and from the device around it."""
    forward, backward = pair_of(case)
    there, back = nested(to_device), nested(to_host)
    # a move, and an index with a boolean mask, cannot but wait for the device
    patience = waiting if case.name in ("move", "index", "assign") else contextlib.nullcontext

    def device_forward(*arrays: Any, **options: Any) -> tuple[Any, Any]:
        if "index" in options:
            options["index"] = there(options["index"])
        with patience():
            out, saved = forward(*map(there, arrays), **options)
        return back(out), (saved,)

    def device_backward(dout: Any, saved: Any) -> Any:
        with patience():
            return back(backward(there(dout), saved[0]))

    return Pair(device_forward, device_backward)


def train(device: str, waiting: Waiting, steps: int = 3) -> tuple[list[float], list[np.ndarray]]:
    """Train a small Transformer with dropout; return every loss, and the parameters at the end."""
    losses = []
    mt.manual_seed(0)
    model = nn.Transformer(16, 2, 1, 1, 32, dropout=0.1, batch_first=True).to(device)
    head = nn.Linear(16, 11).to(device)
    source, target = (mt.randn(3, n, 16).to(device) for n in (5, 4))
    labels = mt.randint(0, 11, (3, 4)).to(device)
    optimizer = optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = head(model(source, target))
        loss = nn.functional.cross_entropy(logits.view(-1, 11), labels.view(-1))
        loss.backward()
        optimizer.step()
        with waiting():
            losses.append(loss.item())
    with waiting():
        parameters = [p.detach().cpu().numpy() for p in optimizer.param_groups[0]["params"]]
    return losses, parameters
