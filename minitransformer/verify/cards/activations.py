"""Activations, gates and the softmax family."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from minitransformer.verify.cards.card import Card, Input, Mistake
from minitransformer.verify.number_systems import Floats

HENDRYCKS = "Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, arXiv:1606.08415"
SHAZEER = "Shazeer, GLU Variants Improve Transformer, 2020, arXiv:2002.05202"
GOODFELLOW = "Goodfellow, Bengio and Courville, Deep Learning, MIT Press 2016"

X = Input("x", aliases=("z", "u", "a"))
VECTOR = Input("x", ("n",), aliases=("z", "a", "s", "X"))
N = {"n": "n", "K": "n", "C": "n", "V": "n", "N": "n", "J": "n"}


def _gelu(m: Floats, sizes: Any, x: Any) -> Any:
    return x * (1 + m.erf(x / m.sqrt(m.number(2)))) / 2


def _gelu_tanh(m: Floats, sizes: Any, x: Any) -> Any:
    inner = m.sqrt(2 / m.pi * m.number(1)) * (x + m.number(Fraction(44715, 10**6)) * x * x * x)
    return x * (1 + m.tanh(inner)) / 2


def _gelu_sigmoid(m: Floats, sizes: Any, x: Any) -> Any:
    return x / (1 + m.exp(-m.number(Fraction(1702, 1000)) * x))


def _silu(m: Floats, sizes: Any, x: Any) -> Any:
    return x / (1 + m.exp(-x))


def _sigmoid(m: Floats, sizes: Any, x: Any) -> Any:
    return m.exp(x) / (m.exp(x) + 1)


def _relu(m: Floats, sizes: Any, x: Any) -> Any:
    return x if x > 0 else x * 0


def _tanh(m: Floats, sizes: Any, x: Any) -> Any:
    up, down = m.exp(x), m.exp(-x)
    return (up - down) / (up + down)


def _row_times(m: Floats, x: Any, W: Any) -> list[Any]:
    return [sum((x[i] * W[i][j] for i in range(len(x))), m.number(0)) for j in range(len(W[0]))]


def _swiglu(m: Floats, sizes: Any, x: Any, W: Any, V: Any) -> Any:
    gate, up = _row_times(m, x, W), _row_times(m, x, V)
    return [g / (1 + m.exp(-g)) * u for g, u in zip(gate, up)]


def _glu(m: Floats, sizes: Any, x: Any, W: Any, V: Any) -> Any:
    gate, up = _row_times(m, x, W), _row_times(m, x, V)
    return [u / (1 + m.exp(-g)) for g, u in zip(gate, up)]


def _geglu(m: Floats, sizes: Any, x: Any, W: Any, V: Any) -> Any:
    gate, up = _row_times(m, x, W), _row_times(m, x, V)
    return [_gelu(m, sizes, g) * u for g, u in zip(gate, up)]


def softmax_loop(m: Floats, x: Any) -> list[Any]:
    """Return e^xᵢ / Σⱼ e^xⱼ."""
    weights = [m.exp(v) for v in x]
    total = sum(weights[1:], weights[0])
    return [w / total for w in weights]


def _softmax(m: Floats, sizes: Any, x: Any) -> Any:
    return softmax_loop(m, x)


def _log_softmax(m: Floats, sizes: Any, x: Any) -> Any:
    return [m.log(p) for p in softmax_loop(m, x)]


def _temperature(m: Floats, sizes: Any, x: Any, T: Any) -> Any:
    return softmax_loop(m, [v / T for v in x])


def _jacobian(m: Floats, sizes: Any, x: Any) -> Any:
    """Differentiate the quotient e^xᵢ / Z entry by entry."""
    e = [m.exp(v) for v in x]
    Z = sum(e[1:], e[0])
    return [
        [((e[i] * Z if i == j else 0 * Z) - e[i] * e[j]) / (Z * Z) for j in range(len(x))]
        for i in range(len(x))
    ]


GATE_INPUTS = (
    Input("x", ("d_model",), aliases=("X",)),
    Input("W", ("d_model", "d_ff"), aliases=("W_1", "W_gate", "W_g")),
    Input("V", ("d_model", "d_ff"), aliases=("W_2", "W_3", "W_up", "W_u")),
)
GATE_SIZES = {"d_model": "d_model", "d": "d_model", "d_ff": "d_ff"}

CARDS = (
    Card(
        id="relu",
        name="Rectified linear unit",
        heads=("ReLU", "relu"),
        latex=r"\max(0, x)",
        source="Nair and Hinton, Rectified Linear Units Improve Restricted Boltzmann Machines, "
        "ICML 2010",
        equation="section 2",
        inputs=(X,),
        output=(),
        reference=_relu,
        torch="torch.relu(x)",
        kernel="minitransformer.kernels.activation.relu_forward",
        kernel_call="kernel(x)[0]",
    ),
    Card(
        id="gelu",
        name="Gaussian error linear unit",
        aliases=("gelu exact",),
        heads=("GELU", "gelu", "GeLU"),
        latex=r"x \Phi(x)",
        source=HENDRYCKS,
        equation="section 2",
        inputs=(X,),
        output=(),
        reference=_gelu,
        torch="torch.nn.functional.gelu(x)",
        kernel="minitransformer.kernels.activation.gelu_forward",
        kernel_call="kernel(x)[0]",
        alternatives=(r"\frac{x}{2}\left(1 + \mathrm{erf}(x/\sqrt{2})\right)",),
        approximable=True,
        mistakes=(
            Mistake(r"\frac{x}{2}\left(1 + \mathrm{erf}(x)\right)", "x is not divided by √2"),
        ),
        note="The tanh and sigmoid forms are approximations, with cards of their own.",
    ),
    Card(
        id="gelu-tanh",
        name="GELU, tanh form",
        aliases=("gelu approximate", "gelu_new"),
        heads=("GELU", "gelu", "GeLU"),
        latex=r"\frac{1}{2} x \left(1 + \tanh\left(\sqrt{\frac{2}{\pi}}"
        r"\left(x + 0.044715 x^3\right)\right)\right)",
        source=HENDRYCKS,
        equation="section 2",
        inputs=(X,),
        output=(),
        reference=_gelu_tanh,
        torch="torch.nn.functional.gelu(x, approximate='tanh')",
        kernel="minitransformer.kernels.activation.gelu_forward",
        kernel_call="kernel(x, approximate='tanh')[0]",
    ),
    Card(
        id="gelu-sigmoid",
        name="GELU, sigmoid form",
        aliases=("quick gelu",),
        heads=("GELU", "QuickGELU", "gelu"),
        latex=r"x \sigma(1.702 x)",
        source=HENDRYCKS,
        equation="section 2",
        inputs=(X,),
        output=(),
        reference=_gelu_sigmoid,
        torch="x * torch.sigmoid(1.702 * x)",
    ),
    Card(
        id="silu",
        name="Sigmoid linear unit (Swish)",
        aliases=("swish", "swish-1"),
        heads=("SiLU", "silu", "Swish", "swish"),
        latex=r"x \sigma(x)",
        source="Ramachandran et al., Searching for Activation Functions, 2017, arXiv:1710.05941",
        equation="section 4, with β = 1",
        inputs=(X,),
        output=(),
        reference=_silu,
        torch="torch.nn.functional.silu(x)",
        kernel="minitransformer.kernels.activation.silu_forward",
        kernel_call="kernel(x)[0]",
    ),
    Card(
        id="sigmoid",
        name="Logistic sigmoid",
        aliases=("logistic function",),
        heads=("σ", "sigmoid", "S"),
        latex=r"\frac{1}{1 + e^{-x}}",
        source=GOODFELLOW,
        equation="(3.30)",
        inputs=(X,),
        output=(),
        reference=_sigmoid,
        torch="torch.sigmoid(x)",
        kernel="minitransformer.kernels.elementwise.sigmoid_forward",
        kernel_call="kernel(x)[0]",
    ),
    Card(
        id="tanh",
        name="Hyperbolic tangent",
        heads=("tanh",),
        latex=r"\frac{e^x - e^{-x}}{e^x + e^{-x}}",
        source=GOODFELLOW,
        equation="section 6.3.2",
        inputs=(X,),
        output=(),
        reference=_tanh,
        torch="torch.tanh(x)",
        kernel="minitransformer.kernels.elementwise.tanh_forward",
        kernel_call="kernel(x)[0]",
        alternatives=(r"2\sigma(2x) - 1",),
    ),
    Card(
        id="swiglu",
        name="SwiGLU gate",
        heads=("SwiGLU",),
        latex=r"\mathrm{Swish}(xW) \odot (xV)",
        source=SHAZEER,
        equation="(5), with β = 1 and no biases",
        inputs=GATE_INPUTS,
        signature=("x",),
        dims=("d_model", "d_ff"),
        output=("d_ff",),
        sizes=GATE_SIZES,
        reference=_swiglu,
        torch="torch.nn.functional.silu(x @ W) * (x @ V)",
        mistakes=(Mistake(r"\sigma(xW) \odot (xV)", "the gate is a sigmoid, not a Swish"),),
    ),
    Card(
        id="geglu",
        name="GEGLU gate",
        heads=("GEGLU",),
        latex=r"\mathrm{GELU}(xW) \odot (xV)",
        source=SHAZEER,
        equation="(5), without biases",
        inputs=GATE_INPUTS,
        signature=("x",),
        dims=("d_model", "d_ff"),
        output=("d_ff",),
        sizes=GATE_SIZES,
        reference=_geglu,
        torch="torch.nn.functional.gelu(x @ W) * (x @ V)",
    ),
    Card(
        id="glu",
        name="Gated linear unit",
        heads=("GLU",),
        latex=r"\sigma(xW) \odot (xV)",
        source=SHAZEER,
        equation="(4), without biases; after Dauphin et al., 2016, arXiv:1612.08083",
        inputs=GATE_INPUTS,
        signature=("x",),
        dims=("d_model", "d_ff"),
        output=("d_ff",),
        sizes=GATE_SIZES,
        reference=_glu,
        torch="torch.sigmoid(x @ W) * (x @ V)",
    ),
    Card(
        id="softmax",
        name="Softmax",
        heads=("softmax", "Softmax", "p", "p_i", "y_i"),
        latex=r"\frac{e^{x_i}}{\sum_{j=1}^{n} e^{x_j}}",
        source=GOODFELLOW,
        equation="(6.29)",
        inputs=(VECTOR,),
        dims=("n",),
        output=("n",),
        sizes=N,
        reference=_softmax,
        torch="torch.softmax(x, -1)",
        kernel="minitransformer.kernels.softmax.softmax_forward",
        kernel_call="kernel(x, axis=-1)[0]",
        alternatives=(r"\mathrm{softmax}(x)",),
        properties=("sums to one", "unchanged by a shift of x"),
        mistakes=(Mistake(r"\frac{x_i}{\sum_{j=1}^{n} x_j}", "the exponentials are missing"),),
    ),
    Card(
        id="softmax-temperature",
        name="Softmax with a temperature",
        aliases=("softened softmax",),
        heads=("q_i", "q", "p_i"),
        latex=r"\frac{\exp(z_i/T)}{\sum_{j=1}^{n} \exp(z_j/T)}",
        source="Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, "
        "arXiv:1503.02531",
        equation="(1)",
        inputs=(
            Input("z", ("n",), aliases=("x", "a")),
            Input("T", (), "positive", aliases=("τ", "temperature")),
        ),
        dims=("n",),
        output=("n",),
        sizes=N,
        reference=_temperature,
        torch="torch.softmax(z / T, -1)",
        mistakes=(
            Mistake(
                r"\frac{\exp(T z_i)}{\sum_{j=1}^{n} \exp(T z_j)}",
                "the temperature multiplies instead of dividing",
            ),
        ),
    ),
    Card(
        id="log-softmax",
        name="Log-softmax",
        heads=("log_softmax", "LogSoftmax", "logsoftmax"),
        latex=r"x_i - \log\left(\sum_{j=1}^{n} e^{x_j}\right)",
        source=GOODFELLOW,
        equation="(6.30)",
        inputs=(VECTOR,),
        dims=("n",),
        output=("n",),
        sizes=N,
        reference=_log_softmax,
        torch="torch.log_softmax(x, -1)",
        kernel="minitransformer.kernels.softmax.log_softmax_forward",
        kernel_call="kernel(x, axis=-1)[0]",
    ),
    Card(
        id="softmax-jacobian",
        name="Jacobian of the softmax",
        aliases=("softmax derivative", "softmax gradient"),
        heads=("∂p_i/∂x_j", "J", "∂p/∂x", "∂softmax/∂x", "∂p/∂z", "∂y/∂x", "J_ij"),
        latex=r"\mathrm{diag}(p) - p p^T",
        source=GOODFELLOW,
        equation="section 6.2.2.3 (the derivative of (6.29))",
        inputs=(VECTOR,),
        dims=("n",),
        output=("n", "n"),
        sizes=N,
        indices={"i": "n", "j": "n"},
        derived={
            "p": r"\mathrm{softmax}(x)",
            "y": r"\mathrm{softmax}(x)",
            "s": r"\mathrm{softmax}(x)",
            "σ": r"\mathrm{softmax}(x)",
        },
        reference=_jacobian,
        torch="torch.autograd.functional.jacobian(lambda z: torch.softmax(z, -1), x)",
        alternatives=(r"p_i(\delta_{ij} - p_j)",),
        mistakes=(Mistake(r"\mathrm{diag}(p) + p p^T", "the outer product has the wrong sign"),),
    ),
)
