"""The PyTorch witness: a card's formula as PyTorch computes it.

The only module of the verifier that imports torch, and only when it is called.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minitransformer.verify.cards.card import Card
from minitransformer.verify.number_systems import Point


def identifier(symbol: str) -> str:
    """Return a symbol as a Python identifier: ``W^Q`` becomes ``W_Q``.

    Examples
    --------
    >>> identifier("W^Q"), identifier("γ")
    ('W_Q', 'γ')
    """
    return symbol.replace("^", "_").replace("'", "_").replace("{", "").replace("}", "")


def available() -> bool:
    """Return whether torch can be imported."""
    import importlib.util

    return importlib.util.find_spec("torch") is not None


def torch_value(card: Card, point: Point) -> Any:
    """Return the card's PyTorch expression at a point, in float64, as a NumPy array.

    Raises
    ------
    ValueError
        If the card has no PyTorch expression.
    """
    import torch

    if not card.torch:
        raise ValueError(f"card {card.id} has no PyTorch expression")
    names: dict[str, Any] = {"torch": torch, **_helpers(torch)}
    names.update({identifier(k): v for k, v in point.sizes.items()})
    for symbol, value in point.inputs.items():
        names[identifier(symbol)] = torch.tensor(
            np.asarray(value).astype(np.float64), dtype=torch.float64
        )
    out = eval(card.torch, names)  # our own text, from the card
    return out.detach().numpy() if hasattr(out, "detach") else np.asarray(float(out))


def witness(card: Card) -> float:
    """Return the largest relative difference of PyTorch and the card's reference."""
    from minitransformer.verify.compare import battery, discrepancy

    return max(discrepancy(torch_value(card, p.point), p.floats) for p in battery(card))


def _helpers(torch: Any) -> dict[str, Any]:
    """Return what the expressions of optimisers and model cards call."""
    nn = torch.nn

    def adam(
        p: Any,
        g: Any,
        m: Any,
        v: Any,
        t: Any,
        lr: Any,
        b1: Any,
        b2: Any,
        eps: Any,
        decay: Any = 0.0,
    ) -> Any:
        parameter = nn.Parameter(p.clone())
        parameter.grad = g.clone()
        optimiser = torch.optim.AdamW(
            [parameter],
            lr=float(lr),
            betas=(float(b1), float(b2)),
            eps=float(eps),
            weight_decay=float(decay),
        )
        optimiser.state[parameter] = {
            "step": torch.tensor(float(t) - 1),
            "exp_avg": m.clone(),
            "exp_avg_sq": v.clone(),
        }
        optimiser.step()
        return parameter

    def sgd(p: Any, b: Any, g: Any, lr: Any, mu: Any) -> Any:
        parameter = nn.Parameter(p.clone())
        parameter.grad = g.clone()
        optimiser = torch.optim.SGD([parameter], lr=float(lr), momentum=float(mu))
        optimiser.state[parameter]["momentum_buffer"] = b.clone()
        optimiser.step()
        return parameter

    def sublayer(x: Any) -> Any:
        return torch.tanh(x.roll(-1) * 2 - x) + x.roll(-2) / 4

    def mlp(x: Any) -> Any:
        return torch.sin(x + x.roll(-1))

    def layer_norm_1(x: Any) -> Any:
        return nn.functional.layer_norm(x, x.shape, eps=1.0)

    def on_meta(module: Any, *sizes: Any, **options: Any) -> Any:
        return module(*(int(s) for s in sizes), device="meta", **options)

    def vector(d: Any) -> Any:
        return nn.ParameterList([nn.Parameter(torch.empty(int(d), device="meta"))])

    def block(d: Any) -> Any:
        d = int(d)
        return nn.TransformerEncoderLayer(d, 1, 4 * d, device="meta")

    def count(*modules: Any) -> Any:
        return float(sum(p.numel() for m in modules for p in m.parameters()))

    return {
        "adam": adam,
        "sgd": sgd,
        "sublayer": sublayer,
        "mlp": mlp,
        "layer_norm_1": layer_norm_1,
        "embedding": lambda n, d: on_meta(nn.Embedding, n, d),
        "linear": lambda a, b: on_meta(nn.Linear, a, b),
        "norm": lambda d: on_meta(nn.LayerNorm, d),
        "vector": vector,
        "block": block,
        "count": count,
    }
