"""Attention and what surrounds it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from minitransformer.verify.cards.card import Card, Input, Mistake
from minitransformer.verify.dimensions import Dims
from minitransformer.verify.number_systems import Floats

VASWANI = "Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762"

Q = Input("Q", ("n_q", "d_k"), aliases=("q", "query", "Query", "queries"))
K = Input("K", ("n_k", "d_k"), aliases=("k", "key", "Key", "keys"))
V = Input("V", ("n_k", "d_v"), aliases=("v", "value", "Value", "values"))
SIZES = {
    "d": "d_k",
    "d_head": "d_k",
    "head_dim": "d_k",
    "d_h": "d_k",
    "d_{head}": "d_k",
    "D": "d_k",
    "d_q": "d_k",
    "E": "d_k",
    "n": "n_k",
    "m": "n_k",
    "S": "n_k",
    "T": "n_k",
    "N": "n_k",
    "n_k": "n_k",
    "n_q": "n_q",
    "L": "n_q",
    "d_v": "d_v",
    "d_k": "d_k",
    "dim": "d_k",
}


def _scores(m: Floats, Q: Any, K: Any, scale: Any) -> list[list[Any]]:
    return [
        [
            sum((Q[i][e] * K[j][e] for e in range(len(K[j]))), m.number(0)) * scale
            for j in range(len(K))
        ]
        for i in range(len(Q))
    ]


def softmax_loop(m: Floats, row: Any) -> list[Any]:
    """Return e^(xᵢ−max) / Σⱼ e^(xⱼ−max) of one row: shifted, so that float64 stays finite."""
    top = row[0]
    for x in row[1:]:
        top = m.maximum(top, x)
    weights = [m.exp(x - top) for x in row]
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


def _dot_products(m: Floats, sizes: Any, Q: Any, K: Any) -> Any:
    return _scores(m, Q, K, m.number(1))


def _scaled_scores(m: Floats, sizes: Any, Q: Any, K: Any) -> Any:
    return _scores(m, Q, K, 1 / m.sqrt(m.number(len(Q[0]))))


def _weighted(m: Floats, sizes: Any, P: Any, V: Any) -> Any:
    return _mix(m, P, V)


def _masked(m: Floats, sizes: Any, Q: Any, K: Any, V: Any, M: Any) -> Any:
    S = _scores(m, Q, K, 1 / m.sqrt(m.number(len(Q[0]))))
    P = [softmax_loop(m, [s + b for s, b in zip(row, bias)]) for row, bias in zip(S, M)]
    return _mix(m, P, V)


def _causal_mask(m: Floats, sizes: Any) -> Any:
    n = sizes["n"]
    return [[m.number(0) if j <= i else -m.inf for j in range(n)] for i in range(n)]


def _causal(m: Floats, sizes: Any, Q: Any, K: Any, V: Any) -> Any:
    scale = 1 / m.sqrt(m.number(len(Q[0])))
    out = []
    for i in range(len(Q)):
        row = _scores(m, Q[i : i + 1], K[: i + 1], scale)[0]
        out.append(_mix(m, [softmax_loop(m, row)], V[: i + 1])[0])
    return out


def _multi_head(
    m: Floats, sizes: Any, Q: Any, K: Any, V: Any, WQ: Any, WK: Any, WV: Any, WO: Any
) -> Any:
    heads = [
        _attention(m, sizes, _mix(m, Q, WQ[h]), _mix(m, K, WK[h]), _mix(m, V, WV[h]))
        for h in range(len(WQ))
    ]
    joined = [[x for head in heads for x in head[i]] for i in range(len(Q))]
    return _mix(m, joined, WO)


def _heads(m: Floats, sizes: Any, Q: Any, K: Any, V: Any, WQ: Any, WK: Any, WV: Any) -> Any:
    return np.array(
        [
            _attention(m, sizes, _mix(m, Q, WQ[h]), _mix(m, K, WK[h]), _mix(m, V, WV[h]))
            for h in range(len(WQ))
        ]
    )


def _grouped(m: Floats, sizes: Any, Q: Any, K: Any, V: Any) -> Any:
    share = len(Q) // len(K)
    return np.array(
        [_attention(m, sizes, Q[h], K[h // share], V[h // share]) for h in range(len(Q))]
    )


def _backward(m: Floats, sizes: Any, P: Any, dP: Any) -> Any:
    out = []
    for p, dp in zip(P, dP):
        inner = sum((a * b for a, b in zip(p, dp)), m.number(0))
        out.append([a * (b - inner) for a, b in zip(p, dp)])
    return out


def _online(m: Floats, sizes: Any, m_1: Any, m_2: Any, l_1: Any, l_2: Any) -> Any:
    top = m_1 if m_1 >= m_2 else m_2
    return m.exp(m_1 - top) * l_1 + m.exp(m_2 - top) * l_2


def _variance(m: Floats, sizes: Any) -> Any:
    """Average (q·k)² over every q and k with entries ±1, which have mean 0 and variance 1."""
    d = sizes["d_k"]
    total = sum(
        sum(a * b for a, b in zip(q, k)) ** 2
        for q in itertools.product((-1, 1), repeat=d)
        for k in itertools.product((-1, 1), repeat=d)
    )
    return m.number(total) / 4**d


def _alibi(m: Floats, sizes: Any, Q: Any, K: Any, slope: Any) -> Any:
    S = _scores(m, Q, K, m.number(1))
    return [[S[i][j] - slope * (i - j) for j in range(len(K))] for i in range(len(Q))]


def _feed_forward(m: Floats, sizes: Any, x: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> Any:
    hidden = [
        m.maximum(sum((x[i] * W1[i][j] for i in range(len(x))), b1[j]), m.number(0))
        for j in range(len(b1))
    ]
    return [sum((hidden[j] * W2[j][k] for j in range(len(hidden))), b2[k]) for k in range(len(b2))]


def _as_array(m: Floats, values: Any) -> Any:
    return np.array(values, dtype=float if m.name == "float64" else object)


MULTI_HEAD_INPUTS = (
    Input("Q", ("n_q", "d_model")), Input("K", ("n_k", "d_model")), Input("V", ("n_k", "d_model")),
    Input("W^Q", ("h", "d_model", "d_k")), Input("W^K", ("h", "d_model", "d_k")),
    Input("W^V", ("h", "d_model", "d_v")),
    Input("W^O", ("h*d_v", "d_model"), aliases=("W_O", "W^o")),
)  # fmt: skip
MULTI_HEAD_SHAPES = (
    {"n_q": 5, "n_k": 6, "d_model": 7, "d_k": 3, "d_v": 4, "h": 2},
    {"n_q": 4, "n_k": 7, "d_model": 6, "d_k": 2, "d_v": 5, "h": 3},
)
MULTI_HEAD_SIZES = {"d_k": "d_k", "d_v": "d_v", "h": "h", "d_model": "d_model", "H": "h"}
ATTENTION_FUNCTION = {
    "Attention": lambda m, q, k, v: _as_array(m, _attention(m, {}, q, k, v)),
}


def _attention_dims(q: Dims, k: Dims, v: Dims) -> Dims:
    if q[1] != k[1] or k[0] != v[0]:
        raise ValueError("queries, keys and values do not fit")
    return (q[0], v[1])


ATTENTION_DIMS = {"Attention": _attention_dims}
SELF = {"n": "n", "d_k": "d_k", "d": "d_k", "d_v": "d_v", "N": "n", "L": "n", "T": "n"}

MISTAKES = (
    Mistake(
        r"\mathrm{softmax}(\frac{QK^T}{d_k})V",
        "the scores are divided by d_k, not by √d_k",
        "cntkx#10",
    ),
    Mistake(r"\mathrm{softmax}(QK^T)V", "the scores are not scaled by 1/√d_k"),
    Mistake(
        r"\frac{\mathrm{softmax}(QK^T)}{\sqrt{d_k}}V",
        "the scale stands outside the softmax",
        "FrancescoSaverioZuppichini/ViT#6",
    ),
    Mistake(r"\mathrm{softmax}(\sqrt{d_k}QK^T)V", "the scores are multiplied by √d_k"),
)

CARDS = (
    Card(
        id="attention",
        name="Scaled dot-product attention",
        aliases=("scaled dot-product attention", "sdpa", "self-attention"),
        heads=(
            "Attention",
            "attention",
            "Att",
            "Attn",
            "attn",
            "SelfAttention",
            "SDPA",
            "ScaledDotProductAttention",
            "self-attention",
            "SA",
        ),
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
        kernel_call="kernel(Q[None], K[None], V[None], None)[0][0]",
        suggestions={
            "S": r"QK^T/\sqrt{d_k}",
            "P": r"\mathrm{softmax}(QK^T/\sqrt{d_k})",
            "W": r"\mathrm{softmax}(QK^T/\sqrt{d_k})",
            "A": r"\mathrm{softmax}(QK^T/\sqrt{d_k})",
        },
        properties=(
            "rows of the weights sum to one",
            "linear in V",
            "unchanged when keys and values are permuted together",
        ),
        alternatives=(
            r"\sum_{j} \frac{\exp(q_i^T k_j/\sqrt{d_k})}{\sum_{l} \exp(q_i^T k_l/\sqrt{d_k})} v_j",
        ),
        mistakes=MISTAKES,
    ),
    Card(
        id="attention-weights",
        name="Attention weights",
        aliases=("attention matrix", "attention probabilities"),
        heads=("W", "A", "P", "weights", "AttentionWeights", "α", "a", "w"),
        latex=r"\mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)",
        source=VASWANI,
        equation="(1), the factor of V",
        inputs=(Q, K),
        dims=("n_q", "n_k", "d_k"),
        output=("n_q", "n_k"),
        sizes={k: v for k, v in SIZES.items() if v != "d_v"},
        suggestions={"S": r"QK^T/\sqrt{d_k}"},
        reference=_weights,
        torch="torch.softmax(Q @ K.T / Q.shape[-1] ** 0.5, -1)",
        alternatives=(r"\frac{\exp(q_i^T k_j/\sqrt{d_k})}{\sum_{l} \exp(q_i^T k_l/\sqrt{d_k})}",),
        properties=("rows sum to one",),
    ),
    Card(
        id="mup-attention",
        name="µP attention, scaled by 1/d",
        aliases=("mup attention", "µP attention", "muP attention"),
        heads=("Attention",),
        explicit=True,
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
        kernel_call="kernel(Q[None], K[None], V[None], None, scale=1 / Q.shape[-1])[0][0]",
        note="µP divides by d on purpose, so that a wide model's logits stay put while "
        "training; it is not the attention of Vaswani et al.",
    ),
    Card(
        id="attention-scores",
        name="Dot-product scores",
        aliases=("similarity matrix", "attention scores", "query-key products"),
        heads=("S", "scores", "E", "e", "score", "sim", "e_ij", "s_ij"),
        latex=r"QK^T",
        source=VASWANI,
        equation="section 3.2.1: the dot products of a query with all keys",
        inputs=(Q, K),
        dims=("n_q", "n_k", "d_k"),
        output=("n_q", "n_k"),
        sizes={k: v for k, v in SIZES.items() if v != "d_v"},
        reference=_dot_products,
        torch="Q @ K.T",
    ),
    Card(
        id="attention-scores-scaled",
        name="Scaled dot-product scores",
        aliases=("scaled scores",),
        heads=("S", "scores", "E", "e", "score", "e_ij", "s_ij"),
        latex=r"\frac{QK^T}{\sqrt{d_k}}",
        source=VASWANI,
        equation="(1), the argument of the softmax",
        inputs=(Q, K),
        dims=("n_q", "n_k", "d_k"),
        output=("n_q", "n_k"),
        sizes={k: v for k, v in SIZES.items() if v != "d_v"},
        reference=_scaled_scores,
        torch="Q @ K.T / Q.shape[-1] ** 0.5",
    ),
    Card(
        id="attention-output",
        name="Weighted sum of the values",
        aliases=("weighted values",),
        heads=("O", "Output", "Z", "o", "output"),
        latex=r"WV",
        source=VASWANI,
        equation="(1), the product with V",
        inputs=(
            Input("W", ("n_q", "n_k"), "simplex", aliases=("P", "A", "α", "weights", "attn")),
            V,
        ),
        dims=("n_q", "n_k", "d_v"),
        output=("n_q", "d_v"),
        sizes={k: v for k, v in SIZES.items() if v != "d_k"},
        reference=_weighted,
        torch="W @ V",
    ),
    Card(
        id="masked-attention",
        name="Attention with an additive mask",
        aliases=("padding mask", "masked attention", "additive mask"),
        heads=("Attention", "MaskedAttention"),
        latex=r"\mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}} + M\right)V",
        source=VASWANI,
        equation="(1) with section 3.2.3: illegal connections set to −∞ before the softmax",
        inputs=(Q, K, V, Input("M", ("n_q", "n_k"), "mask", aliases=("mask", "B"))),
        dims=("n_q", "n_k", "d_k", "d_v"),
        output=("n_q", "d_v"),
        sizes=SIZES,
        reference=_masked,
        torch="torch.nn.functional.scaled_dot_product_attention(Q, K, V, attn_mask=M)",
        kernel="minitransformer.kernels.attention.attention_forward",
        kernel_call="kernel(Q[None], K[None], V[None], M[None])[0][0]",
        properties=("a constant added to a row of the mask changes nothing",),
        mistakes=(
            Mistake(
                r"\mathrm{softmax}(\frac{QK^T}{\sqrt{d_k}} - M)V",
                "the mask has the wrong sign",
                "LLMs-from-scratch#1062 (an inverted mask)",
            ),
        ),
        note="A padding mask is M with −∞ in the columns of padding.",
    ),
    Card(
        id="causal-mask",
        name="Causal mask",
        aliases=("look-ahead mask", "autoregressive mask"),
        heads=("M", "mask", "Mask"),
        latex=r"\begin{cases} 0 & j \le i \\ -\infty & \text{otherwise} \end{cases}",
        source=VASWANI,
        equation="section 3.2.3",
        inputs=(),
        dims=("n",),
        output=("n", "n"),
        sizes={"n": "n"},
        indices={"i": "n", "j": "n"},
        reference=_causal_mask,
        torch="torch.triu(torch.full((n, n), -torch.inf), 1)",
        mistakes=(
            Mistake(
                r"\begin{cases} 0 & j < i \\ -\infty & \text{otherwise} \end{cases}",
                "a position may not see itself",
            ),
            Mistake(
                r"\begin{cases} 0 & j \ge i \\ -\infty & \text{otherwise} \end{cases}",
                "the mask hides the past and shows the future",
            ),
        ),
    ),
    Card(
        id="causal-attention",
        name="Causal self-attention",
        aliases=("masked self-attention", "decoder attention"),
        heads=("CausalAttention",),
        latex=r"\mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}} + M\right)V",
        source=VASWANI,
        equation="(1) with section 3.2.3",
        inputs=(
            Input("Q", ("n", "d_k"), aliases=("q",)),
            Input("K", ("n", "d_k"), aliases=("k",)),
            Input("V", ("n", "d_v"), aliases=("v",)),
        ),
        dims=("n", "d_k", "d_v"),
        output=("n", "d_v"),
        sizes=SELF,
        derived={"M": r"\mathrm{causalmask}(QK^T)", "mask": r"\mathrm{causalmask}(QK^T)"},
        functions={"causalmask": lambda m, S: _as_array(m, _causal_mask(m, {"n": len(S)}))},
        function_dims={"causalmask": lambda dims: dims},
        reference=_causal,
        torch="torch.nn.functional.scaled_dot_product_attention(Q, K, V, is_causal=True)",
        kernel="minitransformer.kernels.attention.attention_forward",
        kernel_call="kernel(Q[None], K[None], V[None], None, is_causal=True)[0][0]",
        properties=("a later token never changes an earlier output",),
    ),
    Card(
        id="multi-head-attention",
        name="Multi-head attention",
        aliases=("mha", "multihead", "multi-head self-attention"),
        heads=("MultiHead", "MultiHeadAttention", "MHA", "MSA"),
        latex=r"\mathrm{Concat}(\mathrm{head}_1, \ldots, \mathrm{head}_h)W^O",
        source=VASWANI,
        equation="section 3.2.2",
        inputs=MULTI_HEAD_INPUTS,
        signature=("Q", "K", "V"),
        dims=("n_q", "n_k", "d_model", "d_k", "d_v", "h"),
        shapes=MULTI_HEAD_SHAPES,
        output=("n_q", "d_model"),
        sizes=MULTI_HEAD_SIZES,
        derived={"head_i": r"\mathrm{Attention}(QW_i^Q, KW_i^K, VW_i^V)"},
        functions=ATTENTION_FUNCTION,
        function_dims=ATTENTION_DIMS,
        reference=_multi_head,
        torch="torch.cat([torch.nn.functional.scaled_dot_product_attention(Q @ W_Q[i], "
        "K @ W_K[i], V @ W_V[i]) for i in range(len(W_Q))], -1) @ W_O",
    ),
    Card(
        id="attention-head",
        name="One head of multi-head attention",
        heads=("head_i", "head", "head_h", "head_j"),
        latex=r"\mathrm{Attention}(QW_i^Q, KW_i^K, VW_i^V)",
        source=VASWANI,
        equation="section 3.2.2",
        inputs=MULTI_HEAD_INPUTS[:6],
        signature=("Q", "K", "V"),
        dims=("n_q", "n_k", "d_model", "d_k", "d_v", "h"),
        shapes=MULTI_HEAD_SHAPES,
        output=("h", "n_q", "d_v"),
        sizes=MULTI_HEAD_SIZES,
        indices={"i": "h"},
        functions=ATTENTION_FUNCTION,
        function_dims=ATTENTION_DIMS,
        reference=_heads,
        torch="torch.stack([torch.nn.functional.scaled_dot_product_attention(Q @ W_Q[i], "
        "K @ W_K[i], V @ W_V[i]) for i in range(len(W_Q))])",
        mistakes=(
            Mistake(
                r"\mathrm{Attention}(QW_i^Q, KW_i^Q, VW_i^V)",
                "keys are projected by the queries' matrix",
            ),
        ),
    ),
    Card(
        id="grouped-query-attention",
        name="Grouped-query attention",
        aliases=("gqa", "multi-query attention", "mqa"),
        heads=("O", "GQA"),
        latex=r"\mathrm{softmax}\left(\frac{Q_h K_{\lceil hG/H\rceil}^T}{\sqrt{d_k}}\right)"
        r"V_{\lceil hG/H\rceil}",
        source="Ainslie et al., GQA, EMNLP 2023, arXiv:2305.13245",
        equation="section 2.2 (in words)",
        inputs=(
            Input("Q", ("H", "n_q", "d_k")),
            Input("K", ("G", "n_k", "d_k")),
            Input("V", ("G", "n_k", "d_v")),
        ),
        dims=("H", "G", "n_q", "n_k", "d_k", "d_v"),
        shapes=(
            {"H": 6, "G": 2, "n_q": 3, "n_k": 4, "d_k": 5, "d_v": 2},
            {"H": 6, "G": 3, "n_q": 2, "n_k": 5, "d_k": 3, "d_v": 4},
        ),
        output=("H", "n_q", "d_v"),
        sizes={"H": "H", "G": "G", "d_k": "d_k", "d": "d_k"},
        indices={"h": "H"},
        reference=_grouped,
        torch="torch.nn.functional.scaled_dot_product_attention(Q[None], K[None], V[None], "
        "enable_gqa=True)[0]",
        kernel="minitransformer.kernels.attention.attention_forward",
        kernel_call="kernel(Q, K, V, None)[0]",
        note="One group is multi-query attention, as many groups as heads multi-head attention.",
    ),
    Card(
        id="attention-backward",
        name="Gradient of the softmax in attention",
        aliases=("softmax backward", "attention backward", "dS"),
        heads=("dS", "∂S"),
        latex=r"P \odot (\mathrm{dP} - \mathrm{rowsum}(\mathrm{dP} \odot P))",
        source="Dao et al., FlashAttention, NeurIPS 2022, arXiv:2205.14135",
        equation="appendix B.2",
        inputs=(Input("P", ("n_q", "n_k"), "simplex"), Input("dP", ("n_q", "n_k"))),
        dims=("n_q", "n_k"),
        output=("n_q", "n_k"),
        sizes={"n_q": "n_q", "n_k": "n_k"},
        reference=_backward,
        torch="torch.autograd.grad((torch.softmax(S := torch.log(P).requires_grad_(), -1)"
        " * dP).sum(), S)[0]",
        properties=("rows of the gradient sum to zero",),
        mistakes=(
            Mistake(
                r"P \odot \mathrm{dP} - \mathrm{rowsum}(\mathrm{dP} \odot P)",
                "the row sum is not multiplied by P",
            ),
        ),
    ),
    Card(
        id="online-softmax",
        name="Online softmax: merging two normalisers",
        aliases=("safe softmax merge", "flash attention rescaling"),
        heads=("ℓ", "l"),
        latex=r"e^{m_1 - \max(m_1, m_2)} l_1 + e^{m_2 - \max(m_1, m_2)} l_2",
        source="Milakov and Gimelshein, Online normalizer calculation for softmax, 2018, "
        "arXiv:1805.02867; Dao et al., FlashAttention, section 3.1",
        equation="(4) of Milakov and Gimelshein",
        inputs=(
            Input("m_1", aliases=("m^(1)",)),
            Input("m_2", aliases=("m^(2)",)),
            Input("l_1", (), "positive", aliases=("ℓ_1", "l^(1)")),
            Input("l_2", (), "positive", aliases=("ℓ_2", "l^(2)")),
        ),
        derived={"m": r"\max(m_1, m_2)"},
        output=(),
        reference=_online,
        torch="torch.exp(torch.logaddexp(m_1 + l_1.log(), m_2 + l_2.log())"
        " - torch.maximum(m_1, m_2))",
    ),
    Card(
        id="qk-variance",
        name="Variance of a query-key product",
        aliases=("variance of q·k", "variance of the scores"),
        heads=("Var", "var"),
        latex=r"d_k",
        source=VASWANI,
        equation="section 3.2.1, footnote 4",
        inputs=(),
        dims=("d_k",),
        shapes=({"d_k": 2}, {"d_k": 3}, {"d_k": 5}),
        output=(),
        sizes={"d_k": "d_k", "d": "d_k"},
        reference=_variance,
        torch="torch.tensor(float(d_k))",
        note="For q and k with independent entries of mean 0 and variance 1.",
    ),
    Card(
        id="alibi",
        name="ALiBi scores",
        aliases=("attention with linear biases",),
        heads=("ALiBi",),
        latex=r"q_i^T k_j - m(i - j)",
        source="Press et al., Train Short, Test Long, ICLR 2022, arXiv:2108.12409",
        equation="section 3",
        inputs=(
            Input("Q", ("n_q", "d_k"), aliases=("q",)),
            Input("K", ("n_k", "d_k"), aliases=("k",)),
            Input("m", (), "positive", aliases=("slope",)),
        ),
        dims=("n_q", "n_k", "d_k"),
        output=("n_q", "n_k"),
        sizes={"d_k": "d_k", "d": "d_k"},
        reference=_alibi,
        torch="Q @ K.T - m * (torch.arange(len(Q))[:, None] - torch.arange(len(K)))",
    ),
    Card(
        id="feed-forward",
        name="Position-wise feed-forward network",
        aliases=("ffn", "mlp block", "position-wise feed-forward"),
        heads=("FFN", "FeedForward", "MLP"),
        latex=r"\max(0, xW_1 + b_1)W_2 + b_2",
        source=VASWANI,
        equation="(2)",
        inputs=(
            Input("x", ("d_model",), aliases=("X", "h")),
            Input("W_1", ("d_model", "d_ff"), aliases=("W1",)),
            Input("b_1", ("d_ff",), aliases=("b1",)),
            Input("W_2", ("d_ff", "d_model"), aliases=("W2",)),
            Input("b_2", ("d_model",), aliases=("b2",)),
        ),
        signature=("x",),
        dims=("d_model", "d_ff"),
        output=("d_model",),
        sizes={"d_model": "d_model", "d_ff": "d_ff"},
        reference=_feed_forward,
        torch="torch.relu(x @ W_1 + b_1) @ W_2 + b_2",
        kernel="minitransformer.kernels.feed_forward.feed_forward_forward",
        kernel_call="kernel(x[None], W_1.T, b_1, W_2.T, b_2)[0][0]",
        mistakes=(Mistake(r"(xW_1 + b_1)W_2 + b_2", "the nonlinearity is missing"),),
    ),
)
