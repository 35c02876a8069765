"""Positions: sinusoids, rotations and the embedding's scale."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from minitransformer.verify.cards.attention import VASWANI
from minitransformer.verify.cards.card import Card, Input, Mistake
from minitransformer.verify.number_systems import Floats

SU = "Su et al., RoFormer, Neurocomputing 2024, arXiv:2104.09864"


def _angle(m: Floats, sizes: Any, pos: Any, i: Any) -> Any:
    return pos / m.power(m.number(10000), 2 * i / m.number(sizes["d_model"]))


def _even(m: Floats, sizes: Any, pos: Any, i: Any) -> Any:
    return m.sin(_angle(m, sizes, pos, i))


def _odd(m: Floats, sizes: Any, pos: Any, i: Any) -> Any:
    return m.cos(_angle(m, sizes, pos, i))


def _rotation(m: Floats, sizes: Any, x: Any, position: Any, theta: Any) -> Any:
    c, s = m.cos(position * theta), m.sin(position * theta)
    return [c * x[0] - s * x[1], s * x[0] + c * x[1]]


def _rotary(m: Floats, sizes: Any, x: Any, position: Any) -> Any:
    """Rotate the pairs (x₁, x₂), (x₃, x₄), ... by position · 10000^(−2(i−1)/d)."""
    d = len(x)
    out = [m.number(0)] * d
    for i in range(d // 2):
        theta = m.power(m.number(10000), m.number(Fraction(-2 * i, d)))
        c, s = m.cos(position * theta), m.sin(position * theta)
        out[2 * i] = x[2 * i] * c - x[2 * i + 1] * s
        out[2 * i + 1] = x[2 * i + 1] * c + x[2 * i] * s
    return out


def _angles(m: Floats, d: int) -> list[Any]:
    return [m.power(m.number(10000), m.number(Fraction(-2 * (k // 2), d))) for k in range(d)]


def _cos_table(m: Floats, x: Any, position: Any) -> Any:
    return _column([m.cos(position * t) for t in _angles(m, len(x))])


def _sin_table(m: Floats, x: Any, position: Any) -> Any:
    return _column([m.sin(position * t) for t in _angles(m, len(x))])


def _rotate_pairs(m: Floats, x: Any) -> Any:
    return _column([v for k in range(0, len(x), 2) for v in (-x[k + 1], x[k])])


def _column(values: list[Any]) -> Any:
    return np.array(values, dtype=float if isinstance(values[0], float) else object)


def _embedding(m: Floats, sizes: Any, E: Any) -> Any:
    return [m.sqrt(m.number(len(E))) * v for v in E]


POSITION = Input("pos", (), "whole", aliases=("p", "t", "position"))
PAIR = Input("i", (), "whole", aliases=("k", "j"))
SIZES = {"d_model": "d_model", "d": "d_model", "D": "d_model"}
EVEN_SHAPES = ({"d": 4}, {"d": 6}, {"d": 2})

CARDS = (
    Card(
        id="sinusoidal-even",
        name="Sinusoidal position encoding, even components",
        aliases=("positional encoding", "sinusoidal positions", "sinusoidal"),
        heads=("PE", "PE_(pos,2i)", "p_i,2j"),
        latex=r"\sin\left(\frac{pos}{10000^{2i/d_{model}}}\right)",
        source=VASWANI,
        equation="section 3.5",
        inputs=(POSITION, PAIR),
        dims=("d_model",),
        output=(),
        sizes=SIZES,
        reference=_even,
        torch="torch.sin(pos / 10000 ** (2 * i / d_model))",
        alternatives=(r"\sin\left(pos \exp\left(-\frac{2i}{d_{model}}\log(10000)\right)\right)",),
        mistakes=(
            Mistake(
                r"\sin\left(\frac{pos}{10000^{i/d_{model}}}\right)",
                "the exponent lacks its factor 2",
            ),
            Mistake(
                r"\cos\left(\frac{pos}{10000^{2i/d_{model}}}\right)", "sine and cosine are swapped"
            ),
        ),
    ),
    Card(
        id="sinusoidal-odd",
        name="Sinusoidal position encoding, odd components",
        heads=("PE", "PE_(pos,2i+1)", "p_i,2j+1"),
        latex=r"\cos\left(\frac{pos}{10000^{2i/d_{model}}}\right)",
        source=VASWANI,
        equation="section 3.5",
        inputs=(POSITION, PAIR),
        dims=("d_model",),
        output=(),
        sizes=SIZES,
        reference=_odd,
        torch="torch.cos(pos / 10000 ** (2 * i / d_model))",
        alternatives=(r"\cos\left(pos \exp\left(-\frac{2i}{d_{model}}\log(10000)\right)\right)",),
        mistakes=(
            Mistake(
                r"\cos\left(\frac{pos}{10000^{(2i+1)/d_{model}}}\right)",
                "the odd components share the angle of the even ones",
            ),
        ),
    ),
    Card(
        id="rotation",
        name="Rotary position embedding of one pair",
        aliases=("rope 2d",),
        heads=("f", "f_{q,k}", "RoPE"),
        latex=r"\begin{pmatrix} \cos(m\theta) & -\sin(m\theta) \\ \sin(m\theta) & \cos(m\theta)"
        r" \end{pmatrix} x",
        source=SU,
        equation="(13)",
        inputs=(
            Input("x", ("2",), aliases=("q", "k")),
            Input("m", aliases=("pos", "n")),
            Input("θ", aliases=("θ_i",)),
        ),
        signature=("x", "m"),
        dims=(),
        shapes=({}, {}),
        output=("2",),
        reference=_rotation,
        torch="torch.stack([torch.cos(m * θ) * x[0] - torch.sin(m * θ) * x[1], "
        "torch.sin(m * θ) * x[0] + torch.cos(m * θ) * x[1]])",
        properties=("lengths are kept", "⟨R_m q, R_n k⟩ depends on m − n alone"),
        mistakes=(
            Mistake(
                r"\begin{pmatrix} \cos(m\theta) & \sin(m\theta) \\ -\sin(m\theta) & "
                r"\cos(m\theta) \end{pmatrix} x",
                "it rotates the other way",
            ),
        ),
    ),
    Card(
        id="rotary",
        name="Rotary position embedding",
        aliases=("rope", "roformer"),
        heads=("RoPE", "rope", "R"),
        latex=r"x \odot C + \mathrm{rotate}(x) \odot S",
        source=SU,
        equation="(34)",
        inputs=(
            Input("x", ("d",), aliases=("q", "k")),
            Input("m", (), "whole", aliases=("pos", "position")),
        ),
        dims=("d",),
        shapes=EVEN_SHAPES,
        output=("d",),
        sizes={"d": "d"},
        derived={"C": r"\mathrm{costable}(x, m)", "S": r"\mathrm{sintable}(x, m)"},
        functions={"costable": _cos_table, "sintable": _sin_table, "rotate": _rotate_pairs},
        function_dims={
            "costable": lambda x, m: x,
            "sintable": lambda x, m: x,
            "rotate": lambda x: x,
        },
        reference=_rotary,
        torch="(lambda t: torch.stack([x[0::2] * t.cos() - x[1::2] * t.sin(), "
        "x[1::2] * t.cos() + x[0::2] * t.sin()], -1).flatten())"
        "(m * 10000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d))",
        kernel="minitransformer.kernels.positional.rotary_forward",
        kernel_call="kernel(x[None], *(getattr(np, f)(float(m) * 10000.0 ** "
        "(-np.arange(0, len(x), 2) / len(x)))[None] for f in ('cos', 'sin')), "
        "interleaved=True)[0][0]",
        up_to=("permutation",),
        note="Halves instead of pairs is the same map after a fixed permutation of components.",
    ),
    Card(
        id="embedding-scale",
        name="Embedding scaled by √d_model",
        aliases=("scaled embedding",),
        heads=("emb", "Embedding"),
        latex=r"\sqrt{d_{model}} E",
        source=VASWANI,
        equation="section 3.4",
        inputs=(Input("E", ("d_model",), aliases=("x", "e", "emb")),),
        dims=("d_model",),
        output=("d_model",),
        sizes=SIZES,
        reference=_embedding,
        torch="E * d_model ** 0.5",
    ),
)
