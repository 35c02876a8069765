"""What NumPy and PyTorch mean by their functions, and sides that small points never reach."""

from __future__ import annotations

import pytest

from minitransformer.verify.decide import EQUALS, decide, match
from minitransformer.verify.parser import CannotParse
from minitransformer.verify.verdict import Verdict

NORM = "gamma*(x-x.mean(-1,keepdim=True))/torch.sqrt({}+eps)+beta"
BMM = "torch.bmm(F.softmax(torch.bmm(Q,K.transpose(1,2))/math.sqrt(d_k),dim={}),V)"
SDPA = "F.softmax(Q @ K.transpose(-2,-1) / math.sqrt({}), {}) @ V"
EINSUM = (
    "torch.einsum('bqk,bkd->bqd', "
    "torch.softmax(torch.einsum('bqd,bkd->bqk', Q, K)/math.sqrt(d_k), dim={}), V)"
)

RIGHT = [
    ("layer-norm", NORM.format("x.var(-1,keepdim=True,unbiased=False)")),
    ("layer-norm", "F.layer_norm(x, (d,), gamma, beta, eps)"),
    ("layer-norm", "F.layer_norm(x, (d,), gamma, beta)"),
    ("layer-norm-variance", "torch.var(x,dim=-1,correction=0)"),
    ("layer-norm-variance", "torch.var(x, unbiased=False)"),
    ("layer-norm-variance", "np.var(x)"),
    ("layer-norm-variance", "x.var(axis=-1)"),
    ("layer-norm-deviation", "np.std(x, ddof=0)"),
    ("attention", BMM.format(2)),
    ("attention", BMM.format(-1)),
    ("attention", SDPA.format("Q.size(-1)", "dim=-1")),
    ("attention", SDPA.format("K.shape[-1]", "-1")),
    ("attention", EINSUM.format(-1)),
    ("attention", EINSUM.format(2)),
    ("attention", "F.scaled_dot_product_attention(Q, K, V)"),
    ("attention", r"\mathrm{softmax}_{row}(QK^T/\sqrt{d_k})V"),
    ("relu", "torch.clamp(x, min=0)"),
    ("relu", "x if x > 0 else 0"),
    ("gelu", "F.gelu(x)"),
    ("gelu", r"x\Phi(x)"),
    ("gelu-tanh", "F.gelu(x, approximate='tanh')"),
    ("swiglu", "F.silu(x@W)*(x@V)"),
    ("mean-squared-error", "((y-y_hat)**2).mean()"),
    ("attention", "torch.softmax(Q @ K.T * d_k**-0.5, -1) @ V"),
    ("attention", "torch.softmax(torch.matmul(Q, K.permute(1,0)) / math.sqrt(d_k), dim=1) @ V"),
    ("attention", "nn.Softmax(dim=-1)(Q @ K.T / math.sqrt(d_k)) @ V"),
    ("attention", "np.exp(Q@K.T/np.sqrt(d_k))/np.exp(Q@K.T/np.sqrt(d_k)).sum(-1,keepdims=True)@V"),
    ("rms-norm", "x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * g"),
    ("softmax", "torch.exp(x - torch.max(x)) / torch.sum(torch.exp(x - torch.max(x)))"),
    ("log-softmax", "x - x.max() - np.log(np.exp(x - x.max()).sum())"),
    ("relu", "torch.where(x>0, x, 0)"),
    ("relu", "torch.maximum(x, torch.tensor(0))"),
    ("relu", "(x+np.abs(x))/2"),
    ("relu", r"\begin{cases} x & x > 0 \\ 0 & x \le 0 \end{cases}"),
    ("cross-entropy", "-(y*torch.log_softmax(z, -1)).sum()"),
    ("cross-entropy", r"-\log p_y"),
    ("kl-divergence", "(p*(np.log(p)-np.log(q))).sum()"),
    ("layer-norm", "gamma*(x-np.mean(x))/np.sqrt(np.var(x)+eps)+beta"),
    ("adam", "theta - lr*m_hat/(torch.sqrt(v_hat)+eps)"),
    ("softmax-jacobian", r"\frac{\partial s_i}{\partial x_j}=s_i(\delta_{ij}-s_j)"),
    ("layer-norm-mean", r"\mu=\frac1n\sum x_i"),
    (
        "causal-attention",
        r"o_i=\sum_{j\le i} \frac{\exp(q_i^\top k_j/\sqrt{d_k})}"
        r"{\sum_{l\le i} \exp(q_i^\top k_l/\sqrt{d_k})} v_j",
    ),
]

WRONG = [
    ("layer-norm", NORM.format("x.var(-1,keepdim=True)")),
    ("layer-norm-variance", "torch.var(x)"),
    ("layer-norm-variance", "torch.var(x,dim=-1,correction=1)"),
    ("layer-norm-variance", "x.var(-1, keepdim=True)"),
    ("layer-norm-variance", "np.var(x, ddof=1)"),
    ("layer-norm-deviation", "torch.std(x)"),
    ("attention", BMM.format(1)),
    ("attention", EINSUM.format(1)),
    ("attention", SDPA.format("K.shape[-2]", "-1")),
    ("attention", SDPA.format("K.shape[-1]", "0")),
    ("attention", "F.scaled_dot_product_attention(Q, K, V, scale=1.0)"),
    ("relu", "torch.clamp(x, 0, 6)"),
    ("relu", r"\min(\max(0,x),10^6)"),
    ("relu", "np.clip(x, 0, 1e9)"),
    ("swiglu", "F.silu(x@W)@(x@V)"),
    ("attention", "np.exp(Q@K.T/np.sqrt(d_k))/np.exp(Q@K.T/np.sqrt(d_k)).sum(axis=-1)@V"),
    ("attention", "np.exp(Q@K.T/np.sqrt(d_k))/np.exp(Q@K.T/np.sqrt(d_k)).sum(0,keepdims=True)@V"),
    ("attention", "torch.softmax(Q @ K.T, -1) / d_k**0.5 @ V"),
    ("attention", "torch.softmax(Q @ K.T / math.sqrt(V.shape[-1]), -1) @ V"),
    ("attention", "nn.Softmax(dim=0)(Q @ K.T / math.sqrt(d_k)) @ V"),
    ("rms-norm", "x * torch.rsqrt(x.var(-1, keepdim=True, unbiased=False) + eps) * g"),
    ("softmax", "np.exp(x - np.max(x)) / np.exp(x).sum()"),
    ("relu", "torch.where(x>0, x, 0.01*x)"),
    ("silu", r"\frac{x}{1+e^{-x}} + \max(0, x-100)"),
    ("silu", "x*torch.sigmoid(x.clamp(-30,30))"),
    ("sigmoid", "torch.sigmoid(x.clamp(max=88))"),
    ("cross-entropy", r"\log p_y"),
    ("kl-divergence", "(q*(np.log(p)-np.log(q))).sum()"),
    ("layer-norm", "gamma*(x-np.mean(x))/(np.std(x)+eps)+beta"),
    ("adam", "theta - lr*m_hat/torch.sqrt(v_hat+eps)"),
    ("mean-squared-error", "((y-y_hat)**2).sum()"),
    ("cross-entropy", r"z_y-\log\sum_j e^{z_j}"),
    ("softmax-jacobian", r"\frac{\partial s_i}{\partial x_j}=s_i(\delta_{ij}+s_j)"),
    (
        "causal-attention",
        r"o_i=\sum_{j<i} \frac{\exp(q_i^\top k_j/\sqrt{d_k})}"
        r"{\sum_{l<i} \exp(q_i^\top k_l/\sqrt{d_k})} v_j",
    ),
]
CONVICTED = (
    Verdict.DIFFERENT_CERTIFIED,
    Verdict.DIFFERENT,
    Verdict.ILL_TYPED,
    Verdict.WRONG_SHAPE,
    Verdict.COINCIDES_ONLY_WHEN,
)


@pytest.mark.parametrize(("card", "formula"), RIGHT)
def test_right_forms_are_equal(card, formula):
    found = decide(formula, card)
    assert found.verdict in EQUALS, found


@pytest.mark.parametrize(("card", "formula"), WRONG)
def test_wrong_forms_are_convicted(card, formula):
    found = decide(formula, card)
    assert found.verdict in CONVICTED, found


@pytest.mark.parametrize(
    ("card", "formula", "told"),
    [
        ("layer-norm-variance", "x.var(-1)", "PyTorch"),
        ("attention", r"\sigma\left(\frac{QK^\top}{\sqrt{d}}\right)V", "softmax"),
    ],
)
def test_two_meanings_are_both_named(card, formula, told):
    found = decide(formula, card)
    assert found.verdict is Verdict.AMBIGUOUS
    assert told in found.detail


def test_a_side_that_no_point_reached_is_said():
    found = decide(r"-\sum_i y_i \log \max(p_i, 10^{-12})", "cross-entropy-probabilities")
    assert found.verdict is Verdict.UNDER_SPECIFIED
    assert "never reached" in found.detail


def test_the_name_on_the_left_decides_what_is_claimed():
    assert "silu" not in {card.id for card in match(r"\mathrm{GELU}(x)=x\sigma(x)")}


def test_the_density_is_not_the_distribution_function():
    assert decide(r"x\phi(x)", "gelu").verdict is Verdict.UNDER_SPECIFIED


@pytest.mark.parametrize(
    ("card", "formula", "condition"),
    [
        (
            "masked-attention",
            r"\mathrm{softmax}\left(\frac{QK^T+M}{\sqrt{d_k}}\right)V",
            "M holds 0 and −∞ alone",
        ),
        ("cross-entropy", r"-\log\frac{e^{z_y}}{\sum_j e^{z_j}}", "y is a class"),
    ],
)
def test_what_holds_on_a_condition_says_it(card, formula, condition):
    found = decide(formula, card)
    assert found.verdict is Verdict.EQUAL_UP_TO
    assert condition in found.detail


@pytest.mark.parametrize(
    "formula",
    [
        "F.scaled_dot_product_attention(Q, K, V, is_causal=True)",
        "torch.einsum('ij,ij->i', Q, K)",
        "F.layer_norm(x, (n, d))",
    ],
)
def test_other_calls_are_refused_by_name(formula):
    with pytest.raises(CannotParse):
        decide(formula, "attention")


@pytest.mark.parametrize(
    "formula",
    [
        r"-\log \sigma(x)",
        r"\frac{1}{1+x}",
        r"L=\frac12(y-\hat y)^2",
        r"\hat y=Wx+b",
    ],
)
def test_nothing_is_convicted_of_a_name_it_does_not_claim(formula):
    assert match(formula) == ()


@pytest.mark.parametrize(
    "formula",
    [
        r"\mathrm{Attention}(Q,K,V)=\mathrm{softmax}(QK^T/d_k)V",
        r"\mathrm{softmax}(QK^T/d_k)V",
    ],
)
def test_what_claims_to_be_attention_is_still_compared(formula):
    assert match(formula)[0].id == "attention"


@pytest.mark.parametrize(
    ("formula", "card"),
    [
        (r"PE_{(pos,2i)} = \cos(pos/10000^{2i/d_{model}})", "sinusoidal-even"),
        (r"PE_{(pos,2i+1)} = \cos(pos/10000^{2i/d_{model}})", "sinusoidal-odd"),
    ],
)
def test_the_entries_on_the_left_choose_the_card(formula, card):
    assert match(formula)[0].id == card


@pytest.mark.parametrize(
    ("card", "formula"),
    [
        ("sigmoid", r"\frac{1}{1+e^{-x}} + 10^{-100}"),
        ("silu", r"x\sigma(x)\cdot\tanh(1000)"),
        ("softmax", r"\frac{e^{x_i}}{\sum_{j=1}^{n} e^{x_j} + 10^{-70}}"),
    ],
)
def test_a_difference_below_two_hundred_bits_is_seen(card, formula):
    assert decide(formula, card).verdict not in EQUALS


def test_the_sample_variance_is_no_claim_about_layer_norm():
    assert match(r"s^2=\frac{1}{n-1}\sum_{i=1}^n(x_i-\bar x)^2") == ()


@pytest.mark.parametrize(
    "text",
    [
        "F.softmax(Q @ K.T / math.sqrt(d_k)) @ V",
        "torch.softmax(Q @ K.T / math.sqrt(d_k)) @ V",
        "nn.Softmax()(Q @ K.T / math.sqrt(d_k)) @ V",
        "torch.matmul((Q @ K.T / math.sqrt(d_k)).softmax(), V)",
    ],
)
def test_an_axis_that_pytorch_would_pick_is_asked_for(text: str) -> None:
    found = decide(text, "attention")
    assert found.verdict is Verdict.UNDER_SPECIFIED
    assert found.detail == "softmax without dim" and "dim=-1" in found.explanation
