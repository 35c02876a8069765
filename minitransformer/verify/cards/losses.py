"""Losses, divergences and their gradients."""

from __future__ import annotations

from typing import Any

from minitransformer.verify.cards.activations import GOODFELLOW, softmax_loop
from minitransformer.verify.cards.card import Card, Input, Mistake
from minitransformer.verify.number_systems import Floats

HINTON = (
    "Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531"
)
SIZES = {"K": "C", "C": "C", "n": "C", "V": "C", "M": "C"}
LOGITS = Input("z", ("C",), aliases=("x", "logits", "a", "o", "s"))
TARGET = Input("y", ("C",), "simplex", aliases=("t", "q"))


def _total(values: Any) -> Any:
    return sum(values[1:], values[0])


def _log_softmax(m: Floats, z: Any) -> list[Any]:
    total = m.log(_total([m.exp(v) for v in z]))
    return [v - total for v in z]


def _cross_entropy(m: Floats, sizes: Any, z: Any, y: Any) -> Any:
    return -_total([t * p for t, p in zip(y, _log_softmax(m, z))])


def _cross_entropy_probability(m: Floats, sizes: Any, y: Any, p: Any) -> Any:
    return -_total([t * m.log(q) for t, q in zip(y, p)])


def _cross_entropy_gradient(m: Floats, sizes: Any, z: Any, y: Any) -> Any:
    """Differentiate −Σ yᵢ log pᵢ term by term through ∂pᵢ/∂zⱼ."""
    p = softmax_loop(m, z)
    out = []
    for j in range(len(z)):
        terms = [-(y[i] / p[i]) * p[i] * ((1 if i == j else 0) - p[j]) for i in range(len(z))]
        out.append(_total(terms))
    return out


def _binary(m: Floats, sizes: Any, y: Any, p: Any) -> Any:
    return -(y * m.log(p) + (1 - y) * m.log(1 - p))


def _smoothing(m: Floats, sizes: Any, y: Any, eps: Any) -> Any:
    return [(1 - eps) * v + eps / m.number(len(y)) for v in y]


def _perplexity(m: Floats, sizes: Any, p: Any) -> Any:
    product = m.number(1)
    for v in p:
        product = product * v
    return m.power(product, -1 / m.number(len(p)))


def _entropy(m: Floats, sizes: Any, p: Any) -> Any:
    return -_total([v * m.log(v) for v in p])


def _kl(m: Floats, sizes: Any, p: Any, q: Any) -> Any:
    return _total([a * (m.log(a) - m.log(b)) for a, b in zip(p, q)])


def _distillation(m: Floats, sizes: Any, t: Any, s: Any, T: Any) -> Any:
    teacher = softmax_loop(m, [v / T for v in t])
    student = softmax_loop(m, [v / T for v in s])
    return T * T * _kl(m, sizes, teacher, student)


def _dpo(m: Floats, sizes: Any, w: Any, rw: Any, l: Any, rl: Any, beta: Any) -> Any:
    margin = beta * (m.log(w) - m.log(rw)) - beta * (m.log(l) - m.log(rl))
    return m.log(1 + m.exp(-margin))


def _skip_gram(m: Floats, sizes: Any, v: Any, u: Any, N: Any) -> Any:
    def log_sigmoid(x: Any) -> Any:
        return -m.log(1 + m.exp(-x))

    total = log_sigmoid(_total([a * b for a, b in zip(u, v)]))
    for row in N:
        total = total + log_sigmoid(-_total([a * b for a, b in zip(row, v)]))
    return total


def _glove_weight(m: Floats, x: Any) -> Any:
    """Any weighting will do for a comparison; the published one has its own card."""
    return x / (1 + x)


def _glove(m: Floats, sizes: Any, X: Any, W: Any, W2: Any, b: Any, b2: Any) -> Any:
    total = m.number(0)
    for i in range(len(W)):
        for j in range(len(W2)):
            gap = _total([a * c for a, c in zip(W[i], W2[j])]) + b[i] + b2[j] - m.log(X[i][j])
            total = total + _glove_weight(m, X[i][j]) * gap * gap
    return total


def _weighting(m: Floats, sizes: Any, x: Any, top: Any, alpha: Any) -> Any:
    return m.power(x / top, alpha) if x < top else m.number(1)


def _mse(m: Floats, sizes: Any, y: Any, p: Any) -> Any:
    return _total([(a - b) * (a - b) for a, b in zip(y, p)]) / m.number(len(y))


CARDS = (
    Card(
        id="cross-entropy",
        name="Cross-entropy of logits",
        aliases=("cross entropy", "softmax cross-entropy"),
        heads=("L", "CE", "ℒ", "loss", "Loss", "CrossEntropy", "L_CE", "ℒ_CE"),
        latex=r"-\sum_{i=1}^{C} y_i \log\left(\frac{e^{z_i}}{\sum_{j=1}^{C} e^{z_j}}\right)",
        source=GOODFELLOW,
        equation="section 6.2.2.3 with (6.29)",
        inputs=(LOGITS, TARGET),
        dims=("C",),
        output=(),
        sizes=SIZES,
        derived={"p": r"\mathrm{softmax}(z)", "ŷ": r"\mathrm{softmax}(z)"},
        reference=_cross_entropy,
        torch="torch.nn.functional.cross_entropy(z[None], y[None])",
        kernel="minitransformer.kernels.cross_entropy.cross_entropy_forward",
        kernel_call="kernel(z[None], y[None], None)[0]",
        mistakes=(Mistake(r"\sum_{i=1}^{C} y_i \log p_i", "the sign is missing"),),
    ),
    Card(
        id="cross-entropy-probabilities",
        name="Cross-entropy of probabilities",
        aliases=("cross entropy of two distributions",),
        heads=("H", "L", "CE", "ℒ", "loss", "CrossEntropy"),
        latex=r"-\sum_{i=1}^{C} y_i \log p_i",
        source=GOODFELLOW,
        equation="(3.51)",
        inputs=(
            Input("y", ("C",), "simplex", aliases=("t", "P")),
            Input("p", ("C",), "simplex", aliases=("ŷ", "q", "y_hat", "Q")),
        ),
        dims=("C",),
        output=(),
        sizes=SIZES,
        reference=_cross_entropy_probability,
        torch="-(y * p.log()).sum()",
        mistakes=(
            Mistake(r"-\sum_{i=1}^{C} p_i \log y_i", "the two distributions are swapped"),
            Mistake(r"\sum_{i=1}^{C} y_i \log p_i", "the sign is missing"),
        ),
    ),
    Card(
        id="negative-log-likelihood",
        name="Negative log-likelihood of a label",
        aliases=("nll", "log loss of the label"),
        heads=("L", "CE", "ℒ", "loss", "Loss", "NLL", "CrossEntropy", "L_CE", "ℒ_CE"),
        latex=r"-\log p_y",
        source=GOODFELLOW,
        equation="section 6.2.2.3, with a one-hot target",
        inputs=(
            Input("p", ("C",), "simplex", aliases=("ŷ", "q", "y_hat")),
            Input("y", (), "index:C", aliases=("t", "c", "k")),
        ),
        dims=("C",),
        output=(),
        sizes=SIZES,
        reference=lambda m, sizes, p, y: -m.log(p[round(float(y)) - 1]),
        torch="torch.nn.functional.nll_loss(p.log()[None], y.long()[None] - 1)",
    ),
    Card(
        id="cross-entropy-gradient",
        name="Gradient of the cross-entropy of logits",
        aliases=("cross entropy gradient", "softmax cross-entropy gradient"),
        heads=("∂L/∂z", "∂ℒ/∂z", "∂L/∂z_i", "∂ℒ/∂z_i", "∂L/∂z_j", "∂L/∂z_k", "dz", "∂CE/∂z"),
        latex=r"p - y",
        source=GOODFELLOW,
        equation="section 6.2.2.3",
        inputs=(LOGITS, TARGET),
        dims=("C",),
        output=("C",),
        sizes=SIZES,
        derived={"p": r"\mathrm{softmax}(z)", "ŷ": r"\mathrm{softmax}(z)"},
        reference=_cross_entropy_gradient,
        torch="torch.autograd.grad(torch.nn.functional.cross_entropy((l := z.clone()"
        ".requires_grad_())[None], y[None]), l)[0]",
        mistakes=(Mistake(r"y - p", "the sign is reversed"),),
    ),
    Card(
        id="binary-cross-entropy",
        name="Binary cross-entropy",
        aliases=("bce", "log loss"),
        heads=("BCE", "L", "ℒ"),
        latex=r"-(y \log p + (1 - y)\log(1 - p))",
        source=GOODFELLOW,
        equation="section 6.2.2.2",
        inputs=(
            Input("y", (), "unit", aliases=("t",)),
            Input("p", (), "unit", aliases=("ŷ", "q", "y_hat")),
        ),
        output=(),
        reference=_binary,
        torch="torch.nn.functional.binary_cross_entropy(p, y)",
        mistakes=(
            Mistake(r"-(y \log p + (1 - y)\log p)", "1 − p belongs in the second logarithm"),
        ),
    ),
    Card(
        id="label-smoothing",
        name="Label smoothing",
        aliases=("smoothed targets",),
        heads=("q'", "y'", "q", "ỹ", "q'(k)", "y_smooth"),
        latex=r"(1 - \epsilon) y + \frac{\epsilon}{K}",
        source="Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, arXiv:1512.00567",
        equation="section 7, with the uniform u(k) = 1/K",
        inputs=(
            Input("y", ("K",), "onehot", aliases=("δ", "q", "t", "δ_k,y", "y_k")),
            Input("ε", (), "unit", aliases=("α", "eps", "ϵ"), constant=True),
        ),
        dims=("K",),
        output=("K",),
        sizes={"K": "K", "C": "K", "n": "K", "V": "K"},
        reference=_smoothing,
        torch="(1 - ε) * y + ε / K",
        properties=("the targets sum to one",),
        mistakes=(
            Mistake(
                r"(1 - \epsilon) y + \epsilon",
                "the targets sum to more than one: ε is not divided by the number of classes",
                "ConvE#55",
            ),
            Mistake(
                r"(1 - \epsilon) y + \frac{1}{K}",
                "the targets sum to 2 − ε: the uniform part is not weighted by ε",
                "ConvE#55",
            ),
            Mistake(
                r"(1 - \epsilon) y + \frac{\epsilon}{K - 1}",
                "K − 1 belongs to the variant that skips the true class",
            ),
        ),
    ),
    Card(
        id="perplexity",
        name="Perplexity",
        aliases=("ppl",),
        heads=("PPL", "PP", "Perplexity", "perplexity", "ppl"),
        latex=r"\exp\left(-\frac{1}{N}\sum_{i=1}^{N} \log p_i\right)",
        source="Jelinek et al., Perplexity, Journal of the Acoustical Society of America 62, 1977",
        equation="the definition",
        inputs=(Input("p", ("N",), "unit", aliases=("q",)),),
        dims=("N",),
        output=(),
        sizes={"N": "N", "n": "N", "T": "N", "t": "N", "M": "N"},
        reference=_perplexity,
        torch="torch.exp(-p.log().mean())",
        mistakes=(
            Mistake(r"\exp\left(-\sum_{i=1}^{N} \log p_i\right)", "not averaged over the tokens"),
            Mistake(
                r"2^{-\frac{1}{N}\sum_{i=1}^{N} \log p_i}",
                "the base of the power is not that of the logarithm",
            ),
        ),
    ),
    Card(
        id="entropy",
        name="Entropy",
        aliases=("shannon entropy",),
        heads=("H", "entropy"),
        latex=r"-\sum_{i=1}^{C} p_i \log p_i",
        source=GOODFELLOW,
        equation="(3.49)",
        inputs=(Input("p", ("C",), "simplex", aliases=("P", "q")),),
        dims=("C",),
        output=(),
        sizes=SIZES,
        reference=_entropy,
        torch="torch.distributions.Categorical(probs=p).entropy()",
    ),
    Card(
        id="kl-divergence",
        name="Kullback-Leibler divergence",
        aliases=("kl", "relative entropy"),
        heads=("D_KL", "KL", "kl", "D"),
        latex=r"\sum_{i=1}^{C} p_i \log\left(\frac{p_i}{q_i}\right)",
        source=GOODFELLOW,
        equation="(3.50)",
        inputs=(
            Input("p", ("C",), "simplex", aliases=("P",)),
            Input("q", ("C",), "simplex", aliases=("Q",)),
        ),
        dims=("C",),
        output=(),
        sizes=SIZES,
        reference=_kl,
        torch="torch.nn.functional.kl_div(q.log(), p, reduction='sum')",
        properties=("zero for equal distributions, positive otherwise",),
        mistakes=(
            Mistake(
                r"\sum_{i=1}^{C} q_i \log\left(\frac{q_i}{p_i}\right)",
                "the two distributions are swapped: it is the reverse divergence",
            ),
        ),
    ),
    Card(
        id="distillation",
        name="Distillation loss",
        aliases=("knowledge distillation", "kd loss"),
        heads=("L_KD", "L_distill", "ℒ_KD", "L", "ℒ", "KD"),
        latex=r"T^2 \sum_{i=1}^{C} p_i \log\left(\frac{p_i}{q_i}\right)",
        source=HINTON,
        equation="(1), and section 2 for the factor T²",
        inputs=(
            Input("t", ("C",), aliases=("v", "z_t", "z^t")),
            Input("s", ("C",), aliases=("z", "z_s", "z^s")),
            Input("T", (), "positive", aliases=("τ", "temperature")),
        ),
        dims=("C",),
        output=(),
        sizes=SIZES,
        derived={"p": r"\mathrm{softmax}(t/T)", "q": r"\mathrm{softmax}(s/T)"},
        reference=_distillation,
        torch="T ** 2 * torch.nn.functional.kl_div(torch.log_softmax(s / T, -1), "
        "torch.softmax(t / T, -1), reduction='sum')",
        mistakes=(
            Mistake(
                r"\sum_{i=1}^{C} p_i \log\left(\frac{p_i}{q_i}\right)",
                "the factor T² is missing, so the gradient shrinks as 1/T²",
            ),
            Mistake(
                r"T \sum_{i=1}^{C} p_i \log\left(\frac{p_i}{q_i}\right)",
                "a factor T where T² belongs",
            ),
        ),
    ),
    Card(
        id="dpo",
        name="Direct preference optimisation",
        aliases=("dpo loss", "direct preference optimization"),
        heads=("L_DPO", "ℒ_DPO", "DPO", "L"),
        latex=r"-\log\sigma\left(\beta\log\frac{\pi_w}{\rho_w} - \beta\log\frac{\pi_l}{\rho_l}"
        r"\right)",
        source="Rafailov et al., Direct Preference Optimization, NeurIPS 2023, arXiv:2305.18290",
        equation="(7), for one pair",
        inputs=(
            Input("π_w", (), "unit", aliases=("π_θ(y_w|x)",)),
            Input("ρ_w", (), "unit", aliases=("π_ref(y_w|x)", "π_{ref}(y_w|x)")),
            Input("π_l", (), "unit", aliases=("π_θ(y_l|x)",)),
            Input("ρ_l", (), "unit", aliases=("π_ref(y_l|x)", "π_{ref}(y_l|x)")),
            Input("β", (), "positive"),
        ),
        output=(),
        reference=_dpo,
        torch="-torch.nn.functional.logsigmoid(β * (π_w / ρ_w).log() - β * (π_l / ρ_l).log())",
        mistakes=(
            Mistake(
                r"-\log\sigma\left(\beta\log\frac{\pi_l}{\rho_l} - "
                r"\beta\log\frac{\pi_w}{\rho_w}\right)",
                "the preferred and the rejected answer are swapped",
            ),
        ),
    ),
    Card(
        id="skip-gram",
        name="Skip-gram with negative sampling",
        aliases=("sgns", "negative sampling", "word2vec"),
        heads=("J", "SGNS", "NEG"),
        latex=r"\log\sigma(u^T v) + \sum_{i=1}^{k} \log\sigma(-N_i^T v)",
        source="Mikolov et al., Distributed Representations of Words and Phrases, NeurIPS 2013, "
        "arXiv:1310.4546",
        equation="(4), the expectation replaced by the k drawn words N",
        inputs=(
            Input("v", ("d",), aliases=("v_w_I", "v_c", "w")),
            Input("u", ("d",), aliases=("v'_w_O", "u_o", "c")),
            Input("N", ("k", "d"), aliases=("n",)),
        ),
        dims=("d", "k"),
        output=(),
        sizes={"k": "k", "K": "k", "d": "d"},
        reference=_skip_gram,
        torch="torch.nn.functional.logsigmoid(u @ v) + "
        "torch.nn.functional.logsigmoid(-N @ v).sum()",
        mistakes=(
            Mistake(
                r"\log\sigma(u^T v) + \sum_{i=1}^{k} \log\sigma(N_i^T v)",
                "the negative words lack their sign",
            ),
        ),
    ),
    Card(
        id="glove",
        name="GloVe objective",
        heads=("J", "GloVe"),
        latex=r"\sum_{i=1}^{n} \sum_{j=1}^{m} f(X_{ij}) \left(w_i^T v_j + b_i + c_j - "
        r"\log X_{ij}\right)^2",
        source="Pennington, Socher and Manning, GloVe, EMNLP 2014",
        equation="section 3, the weighted least-squares cost J",
        inputs=(
            Input("X", ("n", "m"), "positive"),
            Input("w", ("n", "d"), aliases=("W",)),
            Input("v", ("m", "d"), aliases=("w̃",)),
            Input("b", ("n",)),
            Input("c", ("m",), aliases=("b̃",)),
        ),
        dims=("n", "m", "d"),
        output=(),
        sizes={"n": "n", "m": "m"},
        functions={"f": _glove_weight},
        function_dims={"f": lambda dims: dims},
        reference=_glove,
        torch="((X / (1 + X)) * (w @ v.T + b[:, None] + c - X.log()) ** 2).sum()",
        note="The weighting f is left open; `glove-weighting` is the published choice.",
        mistakes=(
            Mistake(
                r"\sum_{i=1}^{n} \sum_{j=1}^{m} f(X_{ij}) \left(w_i^T v_j + b_i + c_j - "
                r"X_{ij}\right)^2",
                "the counts lack their logarithm",
            ),
        ),
    ),
    Card(
        id="glove-weighting",
        name="GloVe weighting",
        heads=("f", "f(x)"),
        latex=r"\min\left(1, (x/x_{max})^{\alpha}\right)",
        source="Pennington, Socher and Manning, GloVe, EMNLP 2014",
        equation="section 3, the weighting function f",
        inputs=(
            Input("x", (), "positive"),
            Input("x_max", (), "positive", aliases=("x_{max}",)),
            Input("α", (), "positive", aliases=("alpha",)),
        ),
        signature=("x",),
        output=(),
        reference=_weighting,
        torch="torch.clamp((x / x_max) ** α, max=1)",
    ),
    Card(
        id="mean-squared-error",
        name="Mean squared error",
        aliases=("mse", "l2 loss"),
        heads=("MSE", "L", "ℒ"),
        latex=r"\frac{1}{n}\sum_{i=1}^{n} (y_i - p_i)^2",
        source=GOODFELLOW,
        equation="(5.4)",
        inputs=(Input("y", ("n",), aliases=("t",)), Input("p", ("n",), aliases=("ŷ", "f", "x"))),
        dims=("n",),
        output=(),
        sizes={"n": "n", "N": "n", "m": "n"},
        reference=_mse,
        torch="torch.nn.functional.mse_loss(p, y)",
        mistakes=(Mistake(r"\sum_{i=1}^{n} (y_i - p_i)^2", "a sum where the mean belongs"),),
    ),
)
