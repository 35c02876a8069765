"""Attention and what surrounds it."""

from __future__ import annotations

from typing import Any

from minitransformer.verify.cards.card import Card, Input, Mistake
from minitransformer.verify.evaluate import Floats

VASWANI = "Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762"

Q = Input("Q", ("n_q", "d_k"), aliases=("q", "query", "Query", "queries"))
K = Input("K", ("n_k", "d_k"), aliases=("k", "key", "Key", "keys"))
V = Input("V", ("n_k", "d_v"), aliases=("v", "value", "Value", "values"))
SIZES = {
    "d": "d_k", "d_head": "d_k", "head_dim": "d_k", "d_h": "d_k", "d_{head}": "d_k", "D": "d_k",
    "d_q": "d_k", "E": "d_k", "n": "n_k", "m": "n_k", "S": "n_k", "T": "n_k", "N": "n_k",
    "n_k": "n_k", "n_q": "n_q", "L": "n_q", "d_v": "d_v", "d_k": "d_k", "dim": "d_k",
}


def _scores(m: Floats, Q: Any, K: Any, scale: Any) -> list[list[Any]]:
    return [
        [sum((Q[i][e] * K[j][e] for e in range(len(K[j]))), m.number(0)) * scale
         for j in range(len(K))]
        for i in range(len(Q))
    ]


def softmax_loop(m: Floats, row: Any) -> list[Any]:
    """Return e^xᵢ / Σⱼ e^xⱼ of one row."""
    weights = [m.exp(x) for x in row]
    total = sum(weights, m.number(0))
    return [w / total for w in weights]


def _mix(m: Floats, P: Any, V: Any) -> list[list[Any]]:
    return [
        [sum((P[i][j] * V[j][c] for j in range(len(V))), m.number(0)) for c in range(len(V[0]))]
        for i in range(len(P))
    ]


def _attention(m: Floats, sizes: Any, Q: Any, K: Any, V: Any) -> Any:
    S = _scores(m, Q, K, 1 / m.sqrt(m.number(len(Q[0]))))
    return _mix(m, [softmax_loop(m, row) for row in S], V)


def _weights(m: Floats, sizes: Any, Q: Any, K: Any) -> Any:
    S = _scores(m, Q, K, 1 / m.sqrt(m.number(len(Q[0]))))
    return [softmax_loop(m, row) for row in S]


def _mu(m: Floats, sizes: Any, Q: Any, K: Any, V: Any) -> Any:
    S = _scores(m, Q, K, 1 / m.number(len(Q[0])))
    return _mix(m, [softmax_loop(m, row) for row in S], V)


MISTAKES = (
    Mistake(r"\mathrm{softmax}(\frac{QK^T}{d_k})V", "the scores are divided by d_k, not by √d_k",
            "cntkx#10"),
    Mistake(r"\mathrm{softmax}(QK^T)V", "the scores are not scaled by 1/√d_k"),
    Mistake(r"\frac{\mathrm{softmax}(QK^T)}{\sqrt{d_k}}V",
            "the scale stands outside the softmax", "FrancescoSaverioZuppichini/ViT#6"),
    Mistake(r"\mathrm{softmax}(\sqrt{d_k}QK^T)V", "the scores are multiplied by √d_k"),
)

CARDS = (
    Card(
        id="attention",
        name="Scaled dot-product attention",
        aliases=("scaled dot-product attention", "sdpa", "self-attention"),
        heads=("Attention", "attention", "Att", "Attn", "attn", "SelfAttention", "SDPA",
               "ScaledDotProductAttention", "self-attention", "SA"),
        latex=r"\mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)V",
        source=VASWANI,
        equation="(1)",
        inputs=(Q, K, V),
        dims=("n_q", "n_k", "d_k", "d_v"),
        output=("n_q", "d_v"),
        sizes=SIZES,
        reference=_attention,
        torch="torch.nn.functional.scaled_dot_product_attention(Q, K, V)",
        kernel="minitransformer.kernels.attention.attention_forward",
        kernel_call="kernel(Q, K, V, None)[0]",
        derived={
            "S": r"QK^T/\sqrt{d_k}", "P": r"\mathrm{softmax}(QK^T/\sqrt{d_k})",
            "W": r"\mathrm{softmax}(QK^T/\sqrt{d_k})", "A": r"\mathrm{softmax}(QK^T/\sqrt{d_k})",
        },
        properties=("rows of the weights sum to one", "linear in V",
                    "unchanged when keys and values are permuted together"),
        mistakes=MISTAKES,
    ),
    Card(
        id="attention-weights",
        name="Attention weights",
        aliases=("attention matrix", "attention probabilities"),
        heads=("W", "A", "P", "weights", "AttentionWeights", "α", "a"),
        latex=r"\mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)",
        source=VASWANI,
        equation="(1), the factor of V",
        inputs=(Q, K),
        dims=("n_q", "n_k", "d_k"),
        output=("n_q", "n_k"),
        sizes={k: v for k, v in SIZES.items() if v != "d_v"},
        derived={"S": r"QK^T/\sqrt{d_k}"},
        reference=_weights,
        torch="torch.softmax(Q @ K.T / Q.shape[-1] ** 0.5, -1)",
        properties=("rows sum to one",),
    ),
    Card(
        id="mup-attention",
        name="µP attention, scaled by 1/d",
        aliases=("mup attention", "µP attention", "muP attention"),
        heads=("Attention",),
        latex=r"\mathrm{softmax}\left(\frac{QK^T}{d_k}\right)V",
        source="Yang et al., Tensor Programs V, NeurIPS 2021, arXiv:2203.03466",
        equation="Definition 4.1: 1/d attention",
        inputs=(Q, K, V),
        dims=("n_q", "n_k", "d_k", "d_v"),
        output=("n_q", "d_v"),
        sizes=SIZES,
        reference=_mu,
        torch="torch.nn.functional.scaled_dot_product_attention(Q, K, V, scale=1 / Q.shape[-1])",
        kernel="minitransformer.kernels.attention.attention_forward",
        kernel_call="kernel(Q, K, V, None, scale=1 / Q.shape[-1])[0]",
        note="µP divides by d on purpose, so that a wide model's logits stay put while "
        "training; it is not the attention of Vaswani et al.",
    ),
)
