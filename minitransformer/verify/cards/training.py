"""Blocks, counts and costs of whole models."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.cards.attention import VASWANI
from minitransformer.verify.cards.card import Card, Input, Mistake
from minitransformer.verify.dimensions import Dims
from minitransformer.verify.number_systems import Floats

RADFORD = "Radford et al., Language Models are Unsupervised Multitask Learners, 2019"
DEVLIN = "Devlin et al., BERT, NAACL 2019, arXiv:1810.04805"
DOSOVITSKIY = "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, arXiv:2010.11929"
XIONG = (
    "Xiong et al., On Layer Normalization in the Transformer Architecture, ICML 2020, "
    "arXiv:2002.04745"
)
KAPLAN = "Kaplan et al., Scaling Laws for Neural Language Models, 2020, arXiv:2001.08361"


def _array(m: Floats, values: list[Any]) -> Any:
    return np.array(values, dtype=float if m.name == "float64" else object)


def _norm(m: Floats, x: Any) -> Any:
    """A layer normalisation without gain, as an opaque function of block equations."""
    n = m.number(len(x))
    mean = sum(x[1:], x[0]) / n
    squares = [(v - mean) * (v - mean) for v in x]
    root = m.sqrt(sum(squares[1:], squares[0]) / n + 1)
    return _array(m, [(v - mean) / root for v in x])


def _sublayer(m: Floats, x: Any) -> Any:
    """Some nonlinear map that mixes components: any will tell the block forms apart."""
    n = len(x)
    return _array(m, [m.tanh(x[(k + 1) % n] * 2 - x[k]) + x[(k + 2) % n] / 4 for k in range(n)])


def _other(m: Floats, x: Any) -> Any:
    n = len(x)
    return _array(m, [m.sin(x[k] + x[(k + 1) % n]) for k in range(n)])


def _post(m: Floats, sizes: Any, x: Any) -> Any:
    return _norm(m, x + _sublayer(m, x))


def _pre(m: Floats, sizes: Any, x: Any) -> Any:
    return x + _sublayer(m, _norm(m, x))


def _gpt_block(m: Floats, sizes: Any, x: Any) -> Any:
    h = x + _sublayer(m, _norm(m, x))
    return h + _other(m, _norm(m, h))


def _bert_block(m: Floats, sizes: Any, x: Any) -> Any:
    h = _norm(m, x + _sublayer(m, x))
    return _norm(m, h + _other(m, h))


def _same(dims: Dims) -> Dims:
    return dims


NORM_NAMES = ("LayerNorm", "LN", "Norm", "layernorm")
ATTENTION_NAMES = (
    "Sublayer", "F", "sublayer", "Attention", "MSA", "MHA", "SelfAttention", "Attn", "MultiHead",
)  # fmt: skip
NORMS: dict[str, Callable[..., Any]] = dict.fromkeys(NORM_NAMES, _norm)
ATTENTIONS: dict[str, Callable[..., Any]] = dict.fromkeys(ATTENTION_NAMES, _sublayer)
MLPS: dict[str, Callable[..., Any]] = dict.fromkeys(("FFN", "MLP", "FeedForward"), _other)
RESIDUAL = {**NORMS, **ATTENTIONS}
BLOCK = {**NORMS, **ATTENTIONS, **MLPS}
STREAM = Input("x", ("d",), aliases=("x_l", "X", "x_l-1", "z_l-1"))


def _gpt_count(m: Floats, sizes: Any, V: Any, T: Any, d: Any, L: Any) -> Any:
    embeddings = V * d + T * d
    attention = d * 3 * d + 3 * d + d * d + d
    mlp = d * 4 * d + 4 * d + 4 * d * d + d
    norms = 2 * (d + d)
    return embeddings + L * (attention + mlp + norms) + d + d


def _bert_count(m: Floats, sizes: Any, V: Any, T: Any, d: Any, L: Any) -> Any:
    embeddings = (V + T + 2) * d + 2 * d
    attention = 4 * (d * d + d) + 2 * d
    mlp = d * 4 * d + 4 * d + 4 * d * d + d + 2 * d
    pooler = d * d + d
    return embeddings + L * (attention + mlp) + pooler


def _vit_count(m: Floats, sizes: Any, P: Any, N: Any, d: Any, L: Any, C: Any) -> Any:
    patches = 3 * P * P * d + d
    tokens = d + (N + 1) * d
    layer = 4 * (d * d + d) + d * 4 * d + 4 * d + 4 * d * d + d + 4 * d
    return patches + tokens + L * layer + 2 * d + d * C + C


def _masking(m: Floats, sizes: Any, kind: Any) -> Any:
    return m.number(Fraction(15, 100)) * m.number(Fraction(8, 10))


def _whole(*names: str) -> tuple[Input, ...]:
    return tuple(Input(n, (), "whole") for n in names)


def _product(*powers: tuple[int, int]) -> Callable[..., Any]:
    def cost(m: Floats, sizes: Any, *values: Any) -> Any:
        out = m.number(1)
        for k, times in powers:
            for _ in range(times):
                out = out * values[k]
        return out

    return cost


def _flops(m: Floats, sizes: Any, N: Any, D: Any) -> Any:
    forward, backward = 2 * N, 4 * N  # a multiply and an add per weight, twice that backward
    return (forward + backward) * D


N_INPUT = Input("n", (), "whole", aliases=("L", "T", "N"))
D_INPUT = Input("d", (), "whole", aliases=("d_model", "D", "d_k"))
K_INPUT = Input("k", (), "whole")
BLANK: tuple[dict[str, int], ...] = ({}, {}, {})

CARDS = (
    Card(
        id="post-ln",
        name="Post-LN residual connection",
        aliases=("post layer norm", "residual with layer norm"),
        heads=("x", "x_l+1", "y", "output"),
        latex=r"\mathrm{LayerNorm}(x + \mathrm{Sublayer}(x))",
        source=VASWANI,
        equation="section 3.1",
        inputs=(STREAM,),
        dims=("d",),
        output=("d",),
        functions=RESIDUAL,
        function_dims=dict.fromkeys(RESIDUAL, _same),
        reference=_post,
        torch="layer_norm_1(x + sublayer(x))",
        mistakes=(
            Mistake(r"\mathrm{LayerNorm}(\mathrm{Sublayer}(x))", "the residual is missing"),
            Mistake(
                r"x + \mathrm{LayerNorm}(\mathrm{Sublayer}(x))",
                "the norm is inside the branch, after the sublayer",
            ),
        ),
    ),
    Card(
        id="pre-ln",
        name="Pre-LN residual connection",
        aliases=("pre layer norm",),
        heads=("x", "x_l+1", "y"),
        latex=r"x + \mathrm{Sublayer}(\mathrm{LayerNorm}(x))",
        source=XIONG,
        equation="table 1",
        inputs=(STREAM,),
        dims=("d",),
        output=("d",),
        functions=RESIDUAL,
        function_dims=dict.fromkeys(RESIDUAL, _same),
        reference=_pre,
        torch="x + sublayer(layer_norm_1(x))",
    ),
    Card(
        id="gpt2-block",
        name="GPT-2 block",
        aliases=("pre-ln block", "vit block"),
        heads=("x_l+1", "z_l", "x"),
        latex=r"h + \mathrm{MLP}(\mathrm{LN}(h))",
        source=RADFORD + "; " + DOSOVITSKIY,
        equation="section 2.3 (in words); ViT (2) and (3)",
        inputs=(STREAM,),
        dims=("d",),
        output=("d",),
        derived={
            "h": r"x + \mathrm{MSA}(\mathrm{LN}(x))",
            "z'": r"x + \mathrm{MSA}(\mathrm{LN}(x))",
            "x'": r"x + \mathrm{MSA}(\mathrm{LN}(x))",
        },
        functions=BLOCK,
        function_dims=dict.fromkeys(BLOCK, _same),
        reference=_gpt_block,
        torch="(h := x + sublayer(layer_norm_1(x))) + mlp(layer_norm_1(h))",
    ),
    Card(
        id="bert-block",
        name="BERT block",
        aliases=("post-ln block",),
        heads=("x_l+1", "x"),
        latex=r"\mathrm{LN}(h + \mathrm{FFN}(h))",
        source=DEVLIN,
        equation="section 3, after Vaswani et al. section 3.1",
        inputs=(STREAM,),
        dims=("d",),
        output=("d",),
        derived={"h": r"\mathrm{LN}(x + \mathrm{MSA}(x))"},
        functions=BLOCK,
        function_dims=dict.fromkeys(BLOCK, _same),
        reference=_bert_block,
        torch="layer_norm_1((h := layer_norm_1(x + sublayer(x))) + mlp(h))",
    ),
    Card(
        id="gpt2-parameters",
        name="Parameters of GPT-2",
        aliases=("gpt-2 parameter count", "gpt2 parameter count"),
        heads=("N", "P", "params"),
        latex=r"Vd + Td + L(12d^2 + 13d) + 2d",
        source=RADFORD,
        equation="from the released layers, embeddings tied",
        inputs=_whole("V", "T", "d", "L"),
        output=(),
        shapes=BLANK,
        reference=_gpt_count,
        torch="count(embedding(V, d), embedding(T, d), *[block(d)] * int(L), norm(d))",
        note="V = 50257, T = 1024, d = 768, L = 12 gives 124,439,808.",
    ),
    Card(
        id="bert-parameters",
        name="Parameters of BERT",
        aliases=("bert parameter count",),
        heads=("N", "P", "params"),
        latex=r"(V + T + 2)d + 2d + L(12d^2 + 13d) + d^2 + d",
        source=DEVLIN,
        equation="from the released layers, with the pooler",
        inputs=_whole("V", "T", "d", "L"),
        output=(),
        shapes=BLANK,
        reference=_bert_count,
        torch="count(embedding(V, d), embedding(T, d), embedding(2, d), norm(d), "
        "*[block(d)] * int(L), linear(d, d))",
        note="V = 30522, T = 512, d = 768, L = 12 gives 109,482,240.",
    ),
    Card(
        id="vit-parameters",
        name="Parameters of the Vision Transformer",
        aliases=("vit parameter count",),
        heads=("N", "P", "params"),
        latex=r"(3P^2 + 1)d + d + (N + 1)d + L(12d^2 + 13d) + 2d + (d + 1)C",
        source=DOSOVITSKIY,
        equation="table 1, from the released layers",
        inputs=_whole("P", "N", "d", "L", "C"),
        output=(),
        shapes=BLANK,
        reference=_vit_count,
        torch="count(linear(3 * P * P, d), vector(d), embedding(N + 1, d), *[block(d)] * int(L), "
        "norm(d), linear(d, C))",
        note="P = 16, N = 196, d = 768, L = 12, C = 1000 gives 86,567,656.",
    ),
    Card(
        id="bert-masking",
        name="Share of tokens BERT replaces by [MASK]",
        aliases=("masked language model rate", "bert masking rates"),
        heads=("p_mask",),
        latex=r"0.15 \cdot 0.8",
        source=DEVLIN,
        equation="section 3.1: 15 % chosen; of these 80 % masked, 10 % random, 10 % kept",
        inputs=(),
        output=(),
        shapes=BLANK,
        reference=lambda m, sizes: _masking(m, sizes, None),
        torch="torch.tensor(0.15, dtype=torch.float64) * 0.8",
    ),
    Card(
        id="training-flops",
        name="Training cost of a language model",
        aliases=("6ND", "compute", "C = 6ND"),
        heads=("C", "FLOPs", "C_train"),
        latex=r"6ND",
        source=KAPLAN,
        equation="section 2.1",
        inputs=_whole("N", "D"),
        output=(),
        shapes=BLANK,
        reference=_flops,
        torch="6 * N * D",
        mistakes=(Mistake(r"2ND", "the backward pass is not counted"),),
    ),
    Card(
        id="complexity-attention",
        name="Cost of a self-attention layer",
        aliases=("self-attention complexity",),
        heads=("O",),
        latex=r"n^2 d",
        source=VASWANI,
        equation="table 1",
        inputs=(N_INPUT, D_INPUT),
        output=(),
        shapes=BLANK,
        reference=_product((0, 2), (1, 1)),
        torch="n * n * d",
        up_to=("scale",),
    ),
    Card(
        id="complexity-recurrent",
        name="Cost of a recurrent layer",
        aliases=("recurrent complexity", "rnn complexity"),
        heads=("O",),
        latex=r"n d^2",
        source=VASWANI,
        equation="table 1",
        inputs=(N_INPUT, D_INPUT),
        output=(),
        shapes=BLANK,
        reference=_product((0, 1), (1, 2)),
        torch="n * d * d",
        up_to=("scale",),
    ),
    Card(
        id="complexity-convolution",
        name="Cost of a convolutional layer",
        aliases=("convolution complexity",),
        heads=("O",),
        latex=r"k n d^2",
        source=VASWANI,
        equation="table 1",
        inputs=(K_INPUT, N_INPUT, D_INPUT),
        output=(),
        shapes=BLANK,
        reference=_product((0, 1), (1, 1), (2, 2)),
        torch="k * n * d * d",
        up_to=("scale",),
    ),
)
