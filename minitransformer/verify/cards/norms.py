"""Normalisation layers and their gradients."""

from __future__ import annotations

from typing import Any

from minitransformer.verify.cards.card import Card, Input, Mistake
from minitransformer.verify.number_systems import Floats

BA = "Ba, Kiros and Hinton, Layer Normalization, 2016, arXiv:1607.06450"
ZHANG = "Zhang and Sennrich, Root Mean Square Layer Normalization, NeurIPS 2019, arXiv:1910.07467"
IOFFE = "Ioffe and Szegedy, Batch Normalization, ICML 2015, arXiv:1502.03167"

X = Input("x", ("d",), aliases=("a", "h", "X"))
GAIN = Input("γ", ("d",), aliases=("g", "w", "weight", "gamma", "a_2"))
SHIFT = Input("β", ("d",), aliases=("b", "bias", "beta", "b_2"))
EPSILON = Input("ε", (), "positive", aliases=("eps", "ϵ", "epsilon"), constant=True)
SIZES = {"d": "d", "n": "d", "H": "d", "D": "d", "N": "d", "d_model": "d", "m": "d"}
# μ and σ of one vector, in the spellings of papers; the variance is the biased one.
MOMENTS = {
    "μ": r"\frac{1}{d}\sum_{i=1}^{d} x_i",
    "mu": r"\frac{1}{d}\sum_{i=1}^{d} x_i",
    "mean": r"\frac{1}{d}\sum_{i=1}^{d} x_i",
    "x̄": r"\frac{1}{d}\sum_{i=1}^{d} x_i",
    "σ": r"\sqrt{\frac{1}{d}\sum_{i=1}^{d} (x_i - \frac{1}{d}\sum_{j=1}^{d} x_j)^2}",
    "sigma": r"\sqrt{\frac{1}{d}\sum_{i=1}^{d} (x_i - \frac{1}{d}\sum_{j=1}^{d} x_j)^2}",
    "var": r"\frac{1}{d}\sum_{i=1}^{d} (x_i - \frac{1}{d}\sum_{j=1}^{d} x_j)^2",
}


def _moments(m: Floats, x: Any) -> tuple[Any, Any]:
    n = m.number(len(x))
    mean = sum(x[1:], x[0]) / n
    gaps = [(v - mean) * (v - mean) for v in x]
    return mean, sum(gaps[1:], gaps[0]) / n


def _layer_norm(m: Floats, sizes: Any, x: Any, gain: Any, shift: Any, eps: Any) -> Any:
    mean, var = _moments(m, x)
    root = m.sqrt(var + eps)
    return [(v - mean) / root * g + b for v, g, b in zip(x, gain, shift)]


def _layer_norm_bare(m: Floats, sizes: Any, x: Any, gain: Any, shift: Any) -> Any:
    return _layer_norm(m, sizes, x, gain, shift, m.number(0))


def _layer_norm_backward(m: Floats, sizes: Any, x: Any, dy: Any, gain: Any, eps: Any) -> Any:
    """Sum dyᵢ ∂yᵢ/∂xⱼ with every entry of the Jacobian written out."""
    n = m.number(len(x))
    mean, var = _moments(m, x)
    root = m.sqrt(var + eps)
    out = []
    for j in range(len(x)):
        total = m.number(0)
        for i in range(len(x)):
            same = m.number(1 if i == j else 0)
            slope = (same - 1 / n) / root
            slope = slope - (x[i] - mean) * (x[j] - mean) / (n * root * root * root)
            total = total + dy[i] * gain[i] * slope
        out.append(total)
    return out


def _rms(m: Floats, x: Any, eps: Any) -> Any:
    squares = [v * v for v in x]
    return m.sqrt(sum(squares[1:], squares[0]) / m.number(len(x)) + eps)


def _rms_norm(m: Floats, sizes: Any, x: Any, gain: Any, eps: Any) -> Any:
    root = _rms(m, x, eps)
    return [v / root * g for v, g in zip(x, gain)]


def _rms_norm_bare(m: Floats, sizes: Any, x: Any, gain: Any) -> Any:
    return _rms_norm(m, sizes, x, gain, m.number(0))


def _batch_norm(m: Floats, sizes: Any, x: Any, gain: Any, shift: Any, eps: Any) -> Any:
    mean, var = _moments(m, x)
    root = m.sqrt(var + eps)
    return [gain * (v - mean) / root + shift for v in x]


def _mean(m: Floats, sizes: Any, x: Any) -> Any:
    return _moments(m, x)[0]


def _variance(m: Floats, sizes: Any, x: Any) -> Any:
    return _moments(m, x)[1]


def _normalised(m: Floats, sizes: Any, x: Any, eps: Any) -> Any:
    mean, var = _moments(m, x)
    return [(v - mean) / m.sqrt(var + eps) for v in x]


CARDS = (
    Card(
        id="root-mean-square",
        name="Root mean square",
        aliases=("rms",),
        heads=("RMS", "rms"),
        latex=r"\sqrt{\frac{1}{d}\sum_{i=1}^{d} x_i^2}",
        source=ZHANG,
        equation="(4)",
        inputs=(X,),
        signature=("x",),
        dims=("d",),
        output=(),
        sizes=SIZES,
        reference=lambda m, sizes, x: _rms(m, x, m.number(0)),
        torch="x.square().mean().sqrt()",
        mistakes=(Mistake(r"\sqrt{\sum_{i=1}^{d} x_i^2}", "a sum where the mean belongs"),),
    ),
    Card(
        id="normalised",
        name="A vector normalised, before gain and shift",
        aliases=("standardised", "normalized activations"),
        heads=("x̂", "x̂_i", "x_hat", "z", "z_i", "norm"),
        latex=r"\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}",
        source=BA + "; " + IOFFE,
        equation="(3) of Ba et al. for μ and σ; algorithm 1 of Ioffe and Szegedy for the ε",
        inputs=(X, EPSILON),
        signature=("x",),
        dims=("d",),
        output=("d",),
        sizes=SIZES,
        derived=MOMENTS,
        reference=_normalised,
        torch="torch.nn.functional.layer_norm(x, x.shape, eps=float(ε))",
        mistakes=(
            Mistake(r"\frac{x - \mu}{\sigma + \epsilon}", "ε stands outside the root"),
            Mistake(r"\frac{x - \mu}{\sigma^2 + \epsilon}", "the variance lacks its root"),
        ),
    ),
    Card(
        id="layer-norm-mean",
        name="Mean of a vector",
        aliases=("layer norm mean",),
        heads=("μ", "mean", "x̄", "μ_B", "E"),
        latex=r"\frac{1}{d}\sum_{i=1}^{d} x_i",
        source=BA,
        equation="(3)",
        inputs=(X,),
        dims=("d",),
        output=(),
        sizes=SIZES,
        reference=_mean,
        torch="x.mean()",
        mistakes=(Mistake(r"\sum_{i=1}^{d} x_i", "a sum where the mean belongs"),),
    ),
    Card(
        id="layer-norm-variance",
        name="Variance of a vector, biased as layer normalisation takes it",
        aliases=("layer norm variance", "biased variance"),
        heads=("σ^2", "Var", "var", "σ_B^2", "σ_ℬ^2"),
        latex=r"\frac{1}{d}\sum_{i=1}^{d} (x_i - \mu)^2",
        source=BA,
        equation="(3), squared",
        inputs=(X,),
        dims=("d",),
        output=(),
        sizes=SIZES,
        derived={k: v for k, v in MOMENTS.items() if k in ("μ", "mu", "mean", "x̄")},
        reference=_variance,
        torch="x.var(correction=0)",
        mistakes=(
            Mistake(
                r"\frac{1}{d-1}\sum_{i=1}^{d} (x_i - \mu)^2",
                "the unbiased variance, divided by d − 1",
                "annotated-transformer#119",
            ),
            Mistake(r"\sum_{i=1}^{d} (x_i - \mu)^2", "a sum where the mean belongs"),
        ),
    ),
    Card(
        id="layer-norm-deviation",
        name="Standard deviation of a vector, biased",
        aliases=("layer norm deviation",),
        heads=("σ", "std", "sigma"),
        latex=r"\sqrt{\frac{1}{d}\sum_{i=1}^{d} (x_i - \mu)^2}",
        source=BA,
        equation="(3)",
        inputs=(X,),
        dims=("d",),
        output=(),
        sizes=SIZES,
        derived={k: v for k, v in MOMENTS.items() if k in ("μ", "mu", "mean", "x̄")},
        reference=lambda m, sizes, x: m.sqrt(_variance(m, sizes, x)),
        torch="x.std(correction=0)",
        mistakes=(
            Mistake(
                r"\sqrt{\frac{1}{d-1}\sum_{i=1}^{d} (x_i - \mu)^2}",
                "the unbiased deviation, divided by d − 1",
                "annotated-transformer#119",
            ),
        ),
    ),
    Card(
        id="layer-norm",
        name="Layer normalisation",
        aliases=("layernorm", "layer normalization", "LN"),
        heads=("LayerNorm", "LN", "layer_norm", "layernorm", "y"),
        latex=r"\gamma \odot \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta",
        source=BA,
        equation="(3) and (4), with the ε of every implementation",
        inputs=(X, GAIN, SHIFT, EPSILON),
        signature=("x",),
        dims=("d",),
        output=("d",),
        sizes=SIZES,
        derived=MOMENTS,
        reference=_layer_norm,
        torch="torch.nn.functional.layer_norm(x, x.shape, γ, β, float(ε))",
        kernel="minitransformer.kernels.layer_norm.layer_norm_forward",
        kernel_call="kernel(x, γ, β, eps=float(ε))[0]",
        properties=("unchanged by a shift of x",),
        mistakes=(
            Mistake(
                r"\gamma \odot \frac{x - \mu}{\sigma + \epsilon} + \beta",
                "ε stands outside the root",
            ),
            Mistake(
                r"\gamma \odot \frac{x-\mu}{\sqrt{\frac{1}{d-1}\sum_{i=1}^{d}(x_i-\mu)^2}"
                r" + \epsilon} + \beta",
                "unbiased variance, and ε outside the root",
                "annotated-transformer#119",
            ),
            Mistake(
                r"\gamma \odot \frac{x-\mu}{\sqrt{\frac{1}{d-1}\sum_{i=1}^{d}(x_i-\mu)^2"
                r" + \epsilon}} + \beta",
                "the variance is the unbiased one",
            ),
            Mistake(
                r"\gamma \odot \frac{x - \mu}{\sigma^2 + \epsilon} + \beta",
                "the variance is used without its root",
            ),
        ),
    ),
    Card(
        id="layer-norm-no-eps",
        name="Layer normalisation as first published, without ε",
        aliases=("layer norm without epsilon",),
        heads=("LayerNorm", "LN", "h"),
        latex=r"\gamma \odot \frac{x - \mu}{\sigma} + \beta",
        source=BA,
        equation="(4)",
        inputs=(X, GAIN, SHIFT),
        signature=("x",),
        dims=("d",),
        output=("d",),
        sizes=SIZES,
        derived=MOMENTS,
        reference=_layer_norm_bare,
        torch="torch.nn.functional.layer_norm(x, x.shape, γ, β, 0.0)",
    ),
    Card(
        id="layer-norm-backward",
        name="Gradient of layer normalisation",
        aliases=("layernorm backward", "layer norm gradient"),
        heads=("dx", "∂L/∂x"),
        latex=r"r \left(\mathrm{dy} \odot \gamma - \frac{1}{d}\sum_{i=1}^{d} \mathrm{dy}_i \gamma_i"
        r" - \hat{x} \frac{1}{d}\sum_{i=1}^{d} \mathrm{dy}_i \gamma_i \hat{x}_i\right)",
        source=BA,
        equation="the derivative of (3) and (4); in this form in llm.c",
        inputs=(X, Input("dy", ("d",)), Input("γ", ("d",), aliases=("g", "w")), EPSILON),
        dims=("d",),
        output=("d",),
        sizes=SIZES,
        derived={
            **MOMENTS,
            "r": r"\frac{1}{\sqrt{\sigma^2 + \epsilon}}",
            "rstd": r"\frac{1}{\sqrt{\sigma^2 + \epsilon}}",
            "x̂": r"\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}",
        },
        reference=_layer_norm_backward,
        torch="torch.autograd.grad((torch.nn.functional.layer_norm(z := x.clone()"
        ".requires_grad_(), x.shape, γ, None, float(ε)) * dy).sum(), z)[0]",
    ),
    Card(
        id="rms-norm",
        name="Root mean square normalisation",
        aliases=("rmsnorm", "RMS layer norm"),
        heads=("RMSNorm", "y"),
        latex=r"\frac{x}{\sqrt{\frac{1}{d}\sum_{i=1}^{d} x_i^2 + \epsilon}} \odot \gamma",
        source=ZHANG,
        equation="(4), with the ε of every implementation",
        inputs=(X, GAIN, EPSILON),
        signature=("x",),
        dims=("d",),
        output=("d",),
        sizes=SIZES,
        reference=_rms_norm,
        torch="torch.nn.functional.rms_norm(x, x.shape, γ, float(ε))",
        kernel="minitransformer.kernels.rms_norm.rms_norm_forward",
        kernel_call="kernel(x, γ, eps=float(ε))[0]",
        mistakes=(
            Mistake(
                r"\frac{x}{\sqrt{\frac{1}{d}\sum_{i=1}^{d} x_i^2} + \epsilon} \odot \gamma",
                "ε stands outside the root",
            ),
            Mistake(
                r"\frac{x}{\sqrt{\sum_{i=1}^{d} x_i^2 + \epsilon}} \odot \gamma",
                "a sum of squares where their mean belongs",
            ),
        ),
    ),
    Card(
        id="rms-norm-no-eps",
        name="Root mean square normalisation as published, without ε",
        aliases=("rmsnorm without epsilon",),
        heads=("RMSNorm", "ā", "ā_i", "y"),
        latex=r"\frac{x}{\sqrt{\frac{1}{d}\sum_{i=1}^{d} x_i^2}} \odot \gamma",
        source=ZHANG,
        equation="(4)",
        inputs=(X, GAIN),
        signature=("x",),
        dims=("d",),
        output=("d",),
        sizes=SIZES,
        alternatives=(r"\frac{x}{\mathrm{RMS}(x)} \odot \gamma",),
        reference=_rms_norm_bare,
        torch="torch.nn.functional.rms_norm(x, x.shape, γ, 0.0)",
    ),
    Card(
        id="batch-norm",
        name="Batch normalisation of one feature",
        aliases=("batchnorm", "batch normalization", "BN"),
        heads=("BN", "BatchNorm", "y_i"),
        latex=r"\gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta",
        source=IOFFE,
        equation="algorithm 1",
        inputs=(
            Input("x", ("m",), aliases=("X",)),
            Input("γ", aliases=("g", "gamma")),
            Input("β", aliases=("b", "beta")),
            EPSILON,
        ),
        signature=("x",),
        dims=("m",),
        output=("m",),
        sizes={"m": "m", "N": "m", "n": "m"},
        derived={
            "μ": r"\frac{1}{m}\sum_{i=1}^{m} x_i",
            "μ_B": r"\frac{1}{m}\sum_{i=1}^{m} x_i",
            "μ_ℬ": r"\frac{1}{m}\sum_{i=1}^{m} x_i",
            "σ": r"\sqrt{\frac{1}{m}\sum_{i=1}^{m} (x_i - \frac{1}{m}\sum_{j=1}^{m} x_j)^2}",
            "σ_B": r"\sqrt{\frac{1}{m}\sum_{i=1}^{m} (x_i - \frac{1}{m}\sum_{j=1}^{m} x_j)^2}",
            "σ_ℬ": r"\sqrt{\frac{1}{m}\sum_{i=1}^{m} (x_i - \frac{1}{m}\sum_{j=1}^{m} x_j)^2}",
        },
        reference=_batch_norm,
        torch="torch.nn.functional.batch_norm(x[:, None], None, None, γ[None], β[None], "
        "training=True, eps=float(ε))[:, 0]",
        mistakes=(
            Mistake(
                r"\gamma \frac{x - \mu}{\sigma + \epsilon} + \beta", "ε stands outside the root"
            ),
        ),
    ),
)
