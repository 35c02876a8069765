"""The three models to train and decode, as classes a user would write, here and in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, to_numpy
from .devices import Device, Host, autocast


class Model(NamedTuple):
    """Sizes of a GPT and of a batch of its training."""

    name: str
    layers: int
    width: int
    heads: int
    length: int
    batch: int
    vocabulary: int

    def parameters(self) -> int:
        """Return the number of weights: embeddings, blocks, last norm; the output is tied."""
        D = self.width
        return (
            (self.vocabulary + self.length) * D + self.layers * (12 * D * D + 13 * D) + 2 * D
        )  # fmt: skip

    def step_flops(self) -> float:
        """Return the operations of one training step: three products for each one forward."""
        N, D, T = self.batch * self.length, self.width, self.length
        products = self.layers * 24 * D * D + 2 * D * self.vocabulary
        return 3.0 * N * (products + self.layers * 2 * T * D)  # causal: half of 4 T D

    def tokens(self, seed: int = 0) -> tuple[Array, Array]:
        """Return a batch of token numbers and the tokens after them, (B, T) each."""
        rng = np.random.default_rng(seed)
        ids = rng.integers(0, self.vocabulary, (self.batch, self.length + 1))
        return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


MODELS = {
    m.name: m
    for m in (
        Model("0.8M", 4, 128, 4, 64, 12, 65),
        Model("10.8M", 6, 384, 6, 256, 8, 65),
        Model("124M", 12, 768, 12, 64, 4, 50304),
        Model("124M T1024", 12, 768, 12, 1024, 16, 50304),
    )
}
SIZES = {"cpu": ("0.8M", "10.8M", "124M"), "cuda": ("124M T1024",)}  # measured unless told
LEARNING_RATE, WEIGHT_DECAY, BETAS = 1e-3, 0.1, (0.9, 0.95)


def find_models(names: list[str] | None, device: str) -> list[Model]:
    """Return the models of these names, or those that a device is measured with.

    Raises
    ------
    ValueError
        If there is none of a name; the message lists those there are.
    """
    for name in names or ():
        if name not in MODELS:
            raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    return [MODELS[name] for name in names or SIZES[device]]


def our_model(model: Model) -> Any:
    """Return a `GPT` of these sizes, without dropout."""
    from ..models.gpt import GPT, GPTConfig

    return GPT(
        GPTConfig(
            vocab_size=model.vocabulary, n_positions=model.length, n_embd=model.width,
            n_layer=model.layers, n_head=model.heads, dropout=0.0,
        )
    )  # fmt: skip


def our_optimizer(network: Any) -> Any:
    """Return our AdamW."""
    from ..optim import AdamW

    return AdamW(network.parameters(), LEARNING_RATE, BETAS, weight_decay=WEIGHT_DECAY)


def torch_optimizer(network: Any, torch: Any) -> Any:
    """Return PyTorch's fused AdamW."""
    return torch.optim.AdamW(
        network.parameters(), LEARNING_RATE, BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )


def our_step(
    model: Model, network: Any, dtype: str = "float32", optimizer: Any = None
) -> Callable[[], Any]:
    """Return a call that makes one training step, forward, backward, AdamW, and gives its loss.

    Nothing waits for the loss: it is a tensor. In bfloat16 the weights stay float32.
    """
    import minitransformer as mt

    optimizer = optimizer or our_optimizer(network)
    device = network.wte.weight.device.type
    ids, targets = (mt.as_tensor(x).to(device) for x in model.tokens())
    flat = targets.reshape(-1)

    def step() -> Any:
        with autocast(mt, dtype, device):
            logits = network(ids).logits
            loss = mt.nn.functional.cross_entropy(logits.reshape(-1, model.vocabulary), flat)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def torch_model(model: Model, torch: Any) -> Any:
    """Return the same model of PyTorch's modules."""
    nn, F = torch.nn, torch.nn.functional
    D, H = model.width, model.heads

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(D), nn.LayerNorm(D)
            self.c_attn, self.c_proj = nn.Linear(D, 3 * D), nn.Linear(D, D)
            self.c_fc, self.mlp_proj = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

        def forward(self, x: Any, past: Any = None) -> Any:
            B, T, _ = x.shape
            q, k, v = (
                part.view(B, T, H, D // H).transpose(1, 2)
                for part in self.c_attn(self.ln_1(x)).split(D, dim=2)
            )
            if past is not None:
                keys, values, length = past
                keys[:, :, length : length + T], values[:, :, length : length + T] = k, v
                k, v = keys[:, :, : length + T], values[:, :, : length + T]
            o = F.scaled_dot_product_attention(q, k, v, is_causal=past is None or T > 1)
            x = x + self.c_proj(o.transpose(1, 2).reshape(B, T, D))
            return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))

    class Network(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, positions: int) -> None:
            super().__init__()
            self.wte = nn.Embedding(model.vocabulary, D)
            self.wpe = nn.Embedding(positions, D)
            self.h = nn.ModuleList(Block() for _ in range(model.layers))
            self.ln_f = nn.LayerNorm(D)

        def forward(self, ids: Any, past: Any = None, length: int = 0) -> Any:
            places = torch.arange(length, length + ids.shape[1], device=ids.device)
            x = self.wte(ids) + self.wpe(places)
            for i, block in enumerate(self.h):
                x = block(x, None if past is None else (*past[i], length))
            return F.linear(self.ln_f(x), self.wte.weight)

    return Network(model.length)


def torch_twin(model: Model, network: Any, torch: Any, device: Device | None = None) -> Any:
    """Return PyTorch's model with the weights of ours, on the same device."""
    twin = torch_model(model, torch)
    copy_weights(network, twin, torch)
    return twin.to((device or Host()).tensor(torch, np.zeros(1)).device)


def copy_weights(source: Any, target: Any, torch: Any) -> None:
    """Copy the weights of our model into PyTorch's."""
    ours = {
        name.replace("attn.c_", "c_").replace("mlp.c_fc", "c_fc").replace("mlp.c_proj", "mlp_proj"):
        to_numpy(value.array)
        for name, value in source.state_dict().items()
    }  # fmt: skip
    target.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in ours.items()})


def torch_step(
    model: Model, network: Any, torch: Any, dtype: str = "float32", optimizer: Any = None
) -> Callable[[], Any]:
    """Return a call that makes one training step in PyTorch, with its fused AdamW."""
    optimizer = optimizer or torch_optimizer(network, torch)
    device = next(network.parameters()).device
    ids, targets = (torch.from_numpy(x).to(device) for x in model.tokens())
    flat = targets.view(-1)

    def step() -> Any:
        with autocast(torch, dtype, device.type):
            logits = network(ids)
            loss = torch.nn.functional.cross_entropy(logits.view(-1, model.vocabulary), flat)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
