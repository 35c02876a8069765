"""One training step of the same GPT in each framework, from the same weights on the same tokens.

Each builder returns a call that makes one step (forward, backward, AdamW) and returns the
loss. A framework that is not installed raises ImportError and is left out by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minitransformer.bench.models import (
    BETAS,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Model,
    copy_weights,
    our_step,
    torch_model,
    torch_step,
)

Step = Callable[[], float]


def minitransformer(model: Model, network: Any) -> Step:
    """NumPy, through `models.gpt.GPT` and `optim.AdamW`."""
    return our_step(model, network)


def torch_eager(model: Model, network: Any) -> Step:
    """PyTorch modules with the fused AdamW."""
    import torch

    from minitransformer.backend import get_num_threads

    torch.set_num_threads(get_num_threads())
    other = torch_model(model, torch)
    copy_weights(network, other, torch)
    return torch_step(model, other, torch)


def torch_compiled(model: Model, network: Any) -> Step:
    """The same through torch.compile."""
    import torch

    from minitransformer.backend import get_num_threads

    torch.set_num_threads(get_num_threads())
    other = torch_model(model, torch)
    copy_weights(network, other, torch)
    return torch_step(model, torch.compile(other), torch)


def _weights(network: Any) -> dict[str, Any]:
    return {name: value.array.copy() for name, value in network.state_dict().items()}


def _loss(np_: Any, model: Model, p: dict[str, Any], ids: Any, targets: Any) -> Any:
    """Return the mean cross-entropy of a GPT, in any NumPy-like module."""
    (B, T), D, H = ids.shape, model.width, model.heads
    causal = np.where(np.tril(np.ones((T, T), bool)), 0.0, -1e30).astype(np.float32)

    def norm(x: Any, name: str) -> Any:
        centred = x - np_.mean(x, -1, keepdims=True)
        variance = np_.mean(centred * centred, -1, keepdims=True)
        return centred / np_.sqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x: Any, name: str) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def heads(x: Any) -> Any:
        return np_.transpose(np_.reshape(x, (B, T, H, D // H)), (0, 2, 1, 3))

    x = p["wte.weight"][ids] + p["wpe.weight"][np.arange(T)]
    for i in range(model.layers):
        qkv = linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")
        q, k, v = (heads(qkv[..., j * D : (j + 1) * D]) for j in range(3))
        scores = q @ np_.transpose(k, (0, 1, 3, 2)) / math.sqrt(D // H) + causal
        weights = np_.exp(scores - np_.max(scores, -1, keepdims=True))
        weights = weights / np_.sum(weights, -1, keepdims=True)
        mixed = np_.reshape(np_.transpose(weights @ v, (0, 2, 1, 3)), (B, T, D))
        x = x + linear(mixed, f"h.{i}.attn.c_proj")
        h = linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        h = 0.5 * h * (1 + np_.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h * h * h)))
        x = x + linear(h, f"h.{i}.mlp.c_proj")
    logits = np_.reshape(norm(x, "ln_f") @ p["wte.weight"].T, (B * T, model.vocabulary))
    top = np_.max(logits, -1, keepdims=True)
    lse = np_.log(np_.sum(np_.exp(logits - top), -1)) + top[:, 0]
    return np_.mean(lse - logits[np.arange(B * T), targets.reshape(-1)])


def _adamw(np_: Any, p: Any, g: Any, m: Any, v: Any, step: Any) -> tuple[Any, Any, Any]:
    beta1, beta2 = BETAS
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    update = m / (1 - beta1**step) / (np_.sqrt(v / (1 - beta2**step)) + 1e-8)
    return p * (1 - LEARNING_RATE * WEIGHT_DECAY) - LEARNING_RATE * update, m, v


def jax(model: Model, network: Any) -> Step:
    """JAX: the whole step under one ``jax.jit``, buffers donated."""
    import jax as library
    import jax.numpy as jnp

    library.config.update("jax_platforms", "cpu")
    p = {name: jnp.asarray(a) for name, a in _weights(network).items()}
    zeros = {name: jnp.zeros_like(a) for name, a in p.items()}
    state = [p, zeros, {name: jnp.zeros_like(a) for name, a in p.items()}, 1.0]
    ids, targets = model.tokens()

    def step(p: Any, m: Any, v: Any, t: Any) -> Any:
        loss, g = library.value_and_grad(lambda q: _loss(jnp, model, q, ids, targets))(p)
        new = {name: _adamw(jnp, p[name], g[name], m[name], v[name], t) for name in p}
        return loss, *({name: parts[i] for name, parts in new.items()} for i in range(3))

    compiled = library.jit(step, donate_argnums=(0, 1, 2))

    def call() -> float:
        loss, *state[:3] = compiled(*state)
        state[3] += 1.0
        return float(loss)

    return call


def hips_autograd(model: Model, network: Any) -> Step:
    """HIPS autograd: NumPy with a tape, AdamW in NumPy."""
    import autograd.numpy as anp
    from autograd import value_and_grad

    p = _weights(network)
    m = {name: np.zeros_like(a) for name, a in p.items()}
    v = {name: np.zeros_like(a) for name, a in p.items()}
    ids, targets = model.tokens()
    gradient = value_and_grad(lambda q: _loss(anp, model, q, ids, targets))
    count = [0]

    def call() -> float:
        loss, g = gradient(p)
        count[0] += 1
        for name in p:
            p[name], m[name], v[name] = _adamw(np, p[name], g[name], m[name], v[name], count[0])
        return float(loss)

    return call


def tinygrad(model: Model, network: Any) -> Step:
    """Tinygrad on its CPU device, the step under TinyJit."""
    from tinygrad import Tensor, TinyJit
    from tinygrad.nn.optim import AdamW

    p = {name: Tensor(a).contiguous().realize() for name, a in _weights(network).items()}
    for value in p.values():
        value.requires_grad = True
    optimizer = AdamW(list(p.values()), LEARNING_RATE, *BETAS, weight_decay=WEIGHT_DECAY)
    (B, T), D, H = (model.batch, model.length), model.width, model.heads
    ids, targets = (Tensor(x.astype(np.int32)) for x in model.tokens())

    def norm(x: Any, name: str) -> Any:
        return x.layernorm() * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x: Any, name: str) -> Any:
        return x.linear(p[f"{name}.weight"].T, p[f"{name}.bias"])

    @TinyJit
    @Tensor.train()
    def step() -> Any:
        x = p["wte.weight"][ids] + p["wpe.weight"]
        for i in range(model.layers):
            qkv = linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")
            q, k, v = (
                qkv[:, :, j * D : (j + 1) * D].reshape(B, T, H, D // H).transpose(1, 2)
                for j in range(3)
            )
            mixed = q.scaled_dot_product_attention(k, v, is_causal=True)
            x = x + linear(mixed.transpose(1, 2).reshape(B, T, D), f"h.{i}.attn.c_proj")
            h = linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc").gelu()
            x = x + linear(h, f"h.{i}.mlp.c_proj")
        logits = norm(x, "ln_f") @ p["wte.weight"].T
        loss = logits.reshape(B * T, -1).sparse_categorical_crossentropy(targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.realize()

    return lambda: float(step().item())


FRAMEWORKS: dict[str, Callable[[Model, Any], Step]] = {
    "minitransformer": minitransformer,
    "PyTorch eager": torch_eager,
    "torch.compile": torch_compiled,
    "JAX": jax,
    "HIPS autograd": hips_autograd,
    "tinygrad": tinygrad,
}
