"""Updates, schedules, initialisation and regularisation."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from minitransformer.verify.cards.attention import VASWANI
from minitransformer.verify.cards.card import Card, Input, Mistake
from minitransformer.verify.number_systems import Floats

KINGMA = "Kingma and Ba, Adam, ICLR 2015, arXiv:1412.6980"
LOSHCHILOV = (
    "Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, arXiv:1711.05101"
)

ADAM_INPUTS = (
    Input("θ", aliases=("θ_t-1", "w", "w_t-1", "p", "θ_{t-1}")),
    Input("g", aliases=("g_t", "∇", "grad")),
    Input("m", aliases=("m_t-1", "m_{t-1}")),
    Input("v", (), "positive", aliases=("v_t-1", "v_{t-1}")),
    Input("t", (), "whole"),
    Input("α", (), "positive", aliases=("η", "lr", "η_t", "γ")),
    Input("β_1", (), "unit", aliases=("β1", "beta1"), constant=True),
    Input("β_2", (), "unit", aliases=("β2", "beta2"), constant=True),
    Input("ε", (), "positive", aliases=("eps", "ϵ"), constant=True),
)
M = r"(\beta_1 m + (1 - \beta_1) g)"
V = r"(\beta_2 v + (1 - \beta_2) g^2)"
ADAM_DERIVED = {
    "m_t": M, "v_t": V,
    **dict.fromkeys(("m̂", "m̂_t"), rf"\frac{{{M}}}{{1 - \beta_1^t}}"),
    **dict.fromkeys(("v̂", "v̂_t"), rf"\frac{{{V}}}{{1 - \beta_2^t}}"),
}  # fmt: skip


def _moments(m: Floats, g: Any, m0: Any, v0: Any, t: Any, b1: Any, b2: Any) -> tuple[Any, Any]:
    first = b1 * m0 + (1 - b1) * g
    second = b2 * v0 + (1 - b2) * g * g
    return first / (1 - m.power(b1, t)), second / (1 - m.power(b2, t))


def _adam(
    m: Floats,
    sizes: Any,
    p: Any,
    g: Any,
    m0: Any,
    v0: Any,
    t: Any,
    lr: Any,
    b1: Any,
    b2: Any,
    eps: Any,
) -> Any:
    first, second = _moments(m, g, m0, v0, t, b1, b2)
    return p - lr * first / (m.sqrt(second) + eps)


def _adamw(
    m: Floats,
    sizes: Any,
    p: Any,
    g: Any,
    m0: Any,
    v0: Any,
    t: Any,
    lr: Any,
    b1: Any,
    b2: Any,
    eps: Any,
    decay: Any,
) -> Any:
    first, second = _moments(m, g, m0, v0, t, b1, b2)
    return p - lr * decay * p - lr * first / (m.sqrt(second) + eps)


def _adam_first(m: Floats, sizes: Any, m0: Any, g: Any, b1: Any) -> Any:
    return m0 - (1 - b1) * (m0 - g)


def _adam_second(m: Floats, sizes: Any, v0: Any, g: Any, b2: Any) -> Any:
    return v0 - (1 - b2) * (v0 - g * g)


def _adam_correction(m: Floats, sizes: Any, m_t: Any, t: Any, b1: Any) -> Any:
    return m_t / (1 - m.power(b1, t))


def _momentum(m: Floats, sizes: Any, p: Any, b: Any, g: Any, lr: Any, mu: Any) -> Any:
    return p - lr * (mu * b + g)


def _clip(m: Floats, sizes: Any, g: Any, c: Any) -> Any:
    squares = [v * v for v in g]
    norm = m.sqrt(sum(squares[1:], squares[0]))
    return [v * c / norm for v in g] if norm > c else list(g)


def _noam(m: Floats, sizes: Any, step: Any, warmup: Any) -> Any:
    rise = step / (warmup * m.sqrt(warmup))
    fall = 1 / m.sqrt(step)
    return (rise if step < warmup else fall) / m.sqrt(m.number(sizes["d_model"]))


def _cosine(m: Floats, sizes: Any, low: Any, high: Any, t: Any, T: Any) -> Any:
    return low + (high - low) * (1 + m.cos(m.pi * t / T)) / 2


def _xavier(m: Floats, sizes: Any) -> Any:
    total = m.number(sizes["n_in"] + sizes["n_out"])
    return m.sqrt(m.number(6)) / m.sqrt(total)


def _xavier_variance(m: Floats, sizes: Any) -> Any:
    """The variance of a uniform number between ±limit is limit²/3."""
    limit = _xavier(m, sizes)
    return limit * limit / 3


def _he(m: Floats, sizes: Any) -> Any:
    return m.number(2) / m.number(sizes["n_in"])


def _dropout(m: Floats, sizes: Any, x: Any, keep: Any, p: Any) -> Any:
    return [v * k / (1 - p) for v, k in zip(x, keep)]


def _dp_sgd(m: Floats, sizes: Any, G: Any, noise: Any, C: Any, sigma: Any) -> Any:
    total = [sigma * C * z for z in noise]
    for row in G:
        total = [a + b for a, b in zip(total, _clip(m, sizes, row, C))]
    return [v / m.number(len(G)) for v in total]


def _lora(m: Floats, sizes: Any, W: Any, B: Any, A: Any, x: Any, alpha: Any) -> Any:
    down = [sum((a * b for a, b in zip(row, x)), m.number(0)) for row in A]
    out = []
    for row, up in zip(W, B):
        base = sum((a * b for a, b in zip(row, x)), m.number(0))
        low = sum((a * b for a, b in zip(up, down)), m.number(0))
        out.append(base + alpha / m.number(len(A)) * low)
    return out


ONE = Fraction(1)
CARDS = (
    Card(
        id="adam",
        name="Adam update",
        aliases=("adam step",),
        heads=("θ_t", "θ", "Adam"),
        latex=r"\theta - \alpha \frac{\hat{m}_t}{\sqrt{\hat{v}_t} + \epsilon}",
        source=KINGMA,
        equation="algorithm 1",
        inputs=ADAM_INPUTS,
        output=(),
        dims=(),
        shapes=({}, {}, {}),
        derived=ADAM_DERIVED,
        reference=_adam,
        torch="adam(θ, g, m, v, t, α, β_1, β_2, ε)",
        mistakes=(
            Mistake(
                r"\theta - \alpha \frac{\hat{m}_t}{\sqrt{\hat{v}_t + \epsilon}}",
                "ε stands inside the root",
            ),
            Mistake(
                r"\theta - \alpha \frac{m_t}{\sqrt{v_t} + \epsilon}",
                "the moments are not corrected for their start at zero",
            ),
            Mistake(
                r"\theta - \alpha \frac{\hat{m}_t}{\hat{v}_t + \epsilon}",
                "the second moment lacks its root",
            ),
        ),
    ),
    Card(
        id="adam-first-moment",
        name="Adam's first moment",
        heads=("m_t",),
        latex=r"\beta_1 m + (1 - \beta_1) g",
        source=KINGMA,
        equation="algorithm 1",
        inputs=(ADAM_INPUTS[2], ADAM_INPUTS[1], ADAM_INPUTS[6]),
        output=(),
        dims=(),
        shapes=({}, {}, {}),
        reference=_adam_first,
        torch="torch.lerp(g, m, β_1)",
    ),
    Card(
        id="adam-second-moment",
        name="Adam's second moment",
        heads=("v_t",),
        latex=r"\beta_2 v + (1 - \beta_2) g^2",
        source=KINGMA,
        equation="algorithm 1",
        inputs=(ADAM_INPUTS[3], ADAM_INPUTS[1], ADAM_INPUTS[7]),
        output=(),
        dims=(),
        shapes=({}, {}, {}),
        reference=_adam_second,
        torch="torch.lerp(g * g, v, β_2)",
    ),
    Card(
        id="adam-bias-correction",
        name="Adam's bias correction",
        heads=("m̂_t", "m̂"),
        latex=r"\frac{m_t}{1 - \beta_1^t}",
        source=KINGMA,
        equation="algorithm 1, section 3",
        inputs=(Input("m_t", aliases=("m",)), ADAM_INPUTS[4], ADAM_INPUTS[6]),
        output=(),
        dims=(),
        shapes=({}, {}, {}),
        reference=_adam_correction,
        torch="m_t / (1 - β_1 ** t)",
        mistakes=(Mistake(r"\frac{m_t}{1 - \beta_1}", "β₁ lacks its power t"),),
    ),
    Card(
        id="adam-bias-correction-second",
        name="Adam's bias correction of the second moment",
        heads=("v̂_t", "v̂"),
        latex=r"\frac{v_t}{1 - \beta_2^t}",
        source=KINGMA,
        equation="algorithm 1, section 3",
        inputs=(Input("v_t", aliases=("v",)), ADAM_INPUTS[4], ADAM_INPUTS[7]),
        output=(),
        dims=(),
        shapes=({}, {}, {}),
        reference=_adam_correction,
        torch="v_t / (1 - β_2 ** t)",
        mistakes=(Mistake(r"\frac{v_t}{1 - \beta_2}", "β₂ lacks its power t"),),
    ),
    Card(
        id="adamw",
        name="AdamW update",
        aliases=("decoupled weight decay",),
        heads=("θ_t", "θ", "AdamW"),
        latex=r"\theta - \alpha\left(\frac{\hat{m}_t}{\sqrt{\hat{v}_t} + \epsilon} + "
        r"\lambda\theta\right)",
        source=LOSHCHILOV,
        equation="algorithm 2, with the learning rate also on the decay as in PyTorch",
        inputs=(*ADAM_INPUTS, Input("λ", (), "positive", aliases=("wd", "weight_decay"))),
        output=(),
        dims=(),
        shapes=({}, {}, {}),
        derived=ADAM_DERIVED,
        reference=_adamw,
        torch="adam(θ, g, m, v, t, α, β_1, β_2, ε, decay=λ)",
        mistakes=(
            Mistake(
                r"\theta - \alpha\frac{\hat{m}_t}{\sqrt{\hat{v}_t} + \epsilon} + "
                r"\alpha\lambda\theta",
                "the decay has the wrong sign",
            ),
            Mistake(
                r"\theta - \alpha\frac{\hat{m}_t + \lambda\theta}{\sqrt{\hat{v}_t} + \epsilon}",
                "the decay is divided by the second moment, as in Adam with L2",
            ),
        ),
    ),
    Card(
        id="sgd-momentum",
        name="Gradient descent with momentum",
        aliases=("momentum", "sgd"),
        heads=("θ_t", "θ", "w_t"),
        latex=r"\theta - \alpha(\mu b + g)",
        source="Sutskever et al., On the Importance of Initialization and Momentum, ICML 2013",
        equation="(1) and (2), in PyTorch's form",
        inputs=(
            Input("θ", aliases=("θ_t-1", "w", "w_t-1")),
            Input("b", aliases=("b_t-1", "u", "v_t-1")),
            Input("g", aliases=("g_t",)),
            Input("α", (), "positive", aliases=("η", "lr", "γ")),
            Input("μ", (), "unit", aliases=("momentum", "ρ")),
        ),
        output=(),
        dims=(),
        shapes=({}, {}, {}),
        derived={"b_t": r"\mu b + g"},
        reference=_momentum,
        torch="sgd(θ, b, g, α, μ)",
    ),
    Card(
        id="gradient-clipping",
        name="Gradient clipping by norm",
        aliases=("clip_grad_norm", "clipping"),
        heads=("g", "ĝ", "clip", "g'", "g̃"),
        latex=r"g \min\left(1, \frac{c}{\|g\|_2}\right)",
        source="Pascanu, Mikolov and Bengio, On the Difficulty of Training Recurrent Neural "
        "Networks, ICML 2013, arXiv:1211.5063",
        equation="algorithm 1",
        inputs=(
            Input("g", ("n",), aliases=("grad", "∇")),
            Input("c", (), "positive", aliases=("C", "τ", "max_norm", "threshold", "θ")),
        ),
        dims=("n",),
        output=("n",),
        sizes={"n": "n"},
        reference=_clip,
        torch="g * torch.clamp(c / g.norm(), max=1)",
        alternatives=(r"\frac{g}{\max\left(1, \frac{\|g\|_2}{c}\right)}",),
        mistakes=(
            Mistake(r"g \frac{c}{\|g\|_2}", "short gradients are lengthened too"),
            Mistake(r"g \max\left(1, \frac{c}{\|g\|_2}\right)", "max for min: it lengthens only"),
        ),
    ),
    Card(
        id="noam",
        name="Noam learning-rate schedule",
        aliases=("transformer learning rate", "warmup schedule"),
        heads=("lrate", "lr", "η"),
        latex=r"d_{model}^{-0.5} \min\left(s^{-0.5}, s\, w^{-1.5}\right)",
        source=VASWANI,
        equation="(3)",
        inputs=(
            Input("s", (), "whole", aliases=("step", "step_num", "t", "stepnum")),
            Input(
                "w", (), "whole", aliases=("warmup", "warmup_steps", "warmup_step", "warmupsteps")
            ),
        ),
        dims=("d_model",),
        output=(),
        sizes={"d_model": "d_model", "d": "d_model"},
        reference=_noam,
        torch="d_model ** -0.5 * torch.minimum(s ** -0.5, s * w ** -1.5)",
        mistakes=(
            Mistake(
                r"d_{model}^{-0.5} \min\left(s^{-0.5}, s\, w^{-0.5}\right)",
                "the warm-up exponent is −1.5, so that the two branches meet",
            ),
            Mistake(r"d_{model}^{-0.5} \max\left(s^{-0.5}, s\, w^{-1.5}\right)", "max for min"),
        ),
    ),
    Card(
        id="cosine-schedule",
        name="Cosine schedule",
        aliases=("cosine annealing", "sgdr"),
        heads=("η_t", "lr", "η"),
        latex=r"a + \frac{1}{2}(b - a)\left(1 + \cos\left(\frac{t}{T}\pi\right)\right)",
        source="Loshchilov and Hutter, SGDR, ICLR 2017, arXiv:1608.03983",
        equation="(5)",
        inputs=(
            Input("a", (), "positive", aliases=("η_min", "η_{min}")),
            Input("b", (), "positive", aliases=("η_max", "η_{max}")),
            Input("t", (), "positive", aliases=("T_cur", "T_{cur}")),
            Input("T", (), "positive", aliases=("T_i", "T_max", "T_{max}")),
        ),
        output=(),
        dims=(),
        shapes=({}, {}, {}),
        reference=_cosine,
        torch="a + (b - a) * torch.cos(torch.pi * t / T / 2) ** 2",
    ),
    Card(
        id="xavier",
        name="Xavier uniform bound",
        aliases=("glorot", "xavier initialisation", "xavier uniform"),
        heads=("a", "limit", "r"),
        latex=r"\sqrt{\frac{6}{n_{in} + n_{out}}}",
        source="Glorot and Bengio, Understanding the Difficulty of Training Deep Feedforward "
        "Neural Networks, AISTATS 2010",
        equation="(16)",
        inputs=(),
        dims=("n_in", "n_out"),
        output=(),
        sizes={
            "n_in": "n_in",
            "n_out": "n_out",
            "n_j": "n_in",
            "n_j+1": "n_out",
            "fan_in": "n_in",
            "fan_out": "n_out",
        },
        reference=_xavier,
        torch="torch.tensor(6 / (n_in + n_out), dtype=torch.float64).sqrt()",
    ),
    Card(
        id="xavier-variance",
        name="Xavier normal variance",
        aliases=("glorot variance",),
        heads=("Var", "σ^2", "σ"),
        latex=r"\frac{2}{n_{in} + n_{out}}",
        source="Glorot and Bengio, AISTATS 2010",
        equation="(12)",
        inputs=(),
        dims=("n_in", "n_out"),
        output=(),
        sizes={"n_in": "n_in", "n_out": "n_out", "fan_in": "n_in", "fan_out": "n_out"},
        reference=_xavier_variance,
        torch="torch.tensor(2 / (n_in + n_out), dtype=torch.float64)",
    ),
    Card(
        id="he-variance",
        name="He initialisation variance",
        aliases=("kaiming", "he initialisation"),
        heads=("Var", "σ^2"),
        latex=r"\frac{2}{n_{in}}",
        source="He et al., Delving Deep into Rectifiers, ICCV 2015, arXiv:1502.01852",
        equation="(10)",
        inputs=(),
        dims=("n_in",),
        output=(),
        sizes={"n_in": "n_in", "fan_in": "n_in", "n_l": "n_in", "n": "n_in"},
        reference=_he,
        torch="torch.tensor(2 / n_in, dtype=torch.float64)",
    ),
    Card(
        id="dropout",
        name="Inverted dropout",
        aliases=("dropout scaling",),
        heads=("Dropout", "dropout", "y"),
        latex=r"\frac{m \odot x}{1 - p}",
        source="Srivastava et al., Dropout, JMLR 15, 2014",
        equation="section 10: kept units scaled up in training, weights left alone at test",
        inputs=(
            Input("x", ("n",), aliases=("h", "y")),
            Input("m", ("n",), "bool", aliases=("mask", "r", "M")),
            Input("p", (), "unit", aliases=("rate",)),
        ),
        dims=("n",),
        output=("n",),
        sizes={"n": "n"},
        reference=_dropout,
        torch="x * m / (1 - p)",
        mistakes=(
            Mistake(r"\frac{m \odot x}{p}", "divided by the rate of dropping, not of keeping"),
            Mistake(r"m \odot x", "the kept entries are not scaled up"),
        ),
    ),
    Card(
        id="dp-sgd",
        name="Differentially private gradient",
        aliases=("dp-sgd step", "private sgd"),
        heads=("g̃_t", "g̃", "g"),
        latex=r"\frac{1}{L}\left(\sum_{i=1}^{L} \frac{G_i}{\max\left(1, \frac{\|G_i\|_2}{C}\right)}"
        r" + \sigma C z\right)",
        source="Abadi et al., Deep Learning with Differential Privacy, CCS 2016, arXiv:1607.00133",
        equation="algorithm 1",
        inputs=(
            Input("G", ("L", "d"), aliases=("g", "g_t")),
            Input("z", ("d",), aliases=("ξ",)),
            Input("C", (), "positive"),
            Input("σ", (), "positive"),
        ),
        dims=("L", "d"),
        output=("d",),
        sizes={"L": "L", "d": "d", "B": "L", "N": "L", "n": "L"},
        reference=_dp_sgd,
        torch="(sum(g * torch.clamp(C / g.norm(), max=1) for g in G) + σ * C * z) / L",
        mistakes=(
            Mistake(
                r"\frac{1}{L}\left(\sum_{i=1}^{L} \frac{G_i}{\max\left(1, \frac{\|G_i\|_2}{C}"
                r"\right)} + \sigma z\right)",
                "the noise lacks its factor C",
            ),
        ),
    ),
    Card(
        id="lora-unscaled",
        name="Low-rank adaptation before scaling",
        heads=("h",),
        latex=r"W_0 x + B A x",
        source="Hu et al., LoRA, ICLR 2022, arXiv:2106.09685",
        equation="(3)",
        inputs=(
            Input("W_0", ("d", "k"), aliases=("W",)),
            Input("B", ("d", "r")),
            Input("A", ("r", "k")),
            Input("x", ("k",)),
        ),
        signature=("x",),
        dims=("d", "k", "r"),
        output=("d",),
        sizes={"d": "d", "k": "k", "r": "r"},
        derived={"ΔW": "B A"},
        reference=lambda m, sizes, W, B, A, x: _lora(m, sizes, W, B, A, x, m.number(len(A))),
        torch="W_0 @ x + B @ (A @ x)",
    ),
    Card(
        id="lora-weight",
        name="Low-rank adaptation of a weight",
        heads=("W", "W'", "W_new", "W_adapted"),
        latex=r"W_0 + B A",
        source="Hu et al., LoRA, ICLR 2022, arXiv:2106.09685",
        equation="section 4.1",
        inputs=(
            Input("W_0", ("d", "k"), aliases=("W",)),
            Input("B", ("d", "r")),
            Input("A", ("r", "k")),
        ),
        dims=("d", "k", "r"),
        output=("d", "k"),
        sizes={"d": "d", "k": "k", "r": "r"},
        reference=lambda m, sizes, W, B, A: [
            [
                W[i][j] + sum((B[i][r] * A[r][j] for r in range(len(A))), m.number(0))
                for j in range(len(W[0]))
            ]
            for i in range(len(W))
        ],
        torch="W_0 + B @ A",
    ),
    Card(
        id="lora",
        name="Low-rank adaptation",
        aliases=("low rank adaptation",),
        heads=("h", "LoRA"),
        latex=r"W_0 x + \frac{\alpha}{r} B A x",
        source="Hu et al., LoRA, ICLR 2022, arXiv:2106.09685",
        equation="section 4.1: the update of (3) scaled by α/r",
        inputs=(
            Input("W_0", ("d", "k"), aliases=("W",)),
            Input("B", ("d", "r")),
            Input("A", ("r", "k")),
            Input("x", ("k",)),
            Input("α", (), "positive"),
        ),
        signature=("x",),
        dims=("d", "k", "r"),
        output=("d",),
        sizes={"d": "d", "k": "k", "r": "r"},
        derived={"ΔW": r"\frac{\alpha}{r} B A"},
        reference=_lora,
        torch="W_0 @ x + α / r * (B @ (A @ x))",
        mistakes=(Mistake(r"W_0 x + \frac{r}{\alpha} B A x", "the scale is inverted"),),
    ),
)
