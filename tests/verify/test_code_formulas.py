"""Formulas in Python code of documents: right ones, wrong ones, and what is left alone."""

from __future__ import annotations

import ast

import pytest

from minitransformer.verify.checking import check_document
from minitransformer.verify.code_formulas import named_card
from minitransformer.verify.document import findings
from minitransformer.verify.straight_line import Scope, Unreadable, returned

ATTENTION = """
import math, torch
def attention(query, key, value, mask=None, dropout=None):
    "Scaled dot-product attention."
    d_k = query.size(-1)
    scores = torch.matmul(query, key.transpose(-2, -1)) / {}
    if mask is not None:
        scores = scores.masked_fill(mask == 0, -1e9)
    p = scores.softmax(dim={})
    if dropout is not None:
        p = dropout(p)
    return torch.matmul(p, value){}, p
"""
NORM = """
class LayerNorm(nn.Module):
    def __init__(self, d, eps=1e-6):
        self.weight, self.bias, self.eps = nn.Parameter(d), nn.Parameter(d), eps
    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        {}
"""
SCRIPT = """
import numpy as np
np.random.seed(0)
Q, K = np.random.randn(3, 4), np.random.randn(5, 4)
V = np.random.randn(5, 2)
scores = Q @ K.T / {}
weights = softmax(scores)
output = weights @ V
print(output.shape)
"""
LLAMA = """
class RMSNorm(nn.Module):
    def _norm(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True){} + self.eps)
    def forward(self, x):
        output = self._norm(x.float()).type_as(x)
        return output * self.weight
"""
SELF = """
class Attention(nn.Module):
    def __init__(self, d):
        self.wq, self.wk = 1, 2
        self.q = nn.Linear(d, d)
        self.k = nn.Linear(d, d)
        self.v = nn.Linear(d, d)
        self.softmax = nn.Softmax(dim=-1)
        self.drop = nn.Dropout(0.1)
    def forward(self, x):
        B, T, D = x.shape
        q, k, v = self.q(x), self.k(x), self.v(x).view(B, T, D)
        return self.drop(self.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)))) @ v
"""
OWN_SOFTMAX = """
def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)
def scaled_dot_product_attention(Q, K, V):
    d_k = Q.shape[-1]
    return softmax(Q @ K.swapaxes(-1, -2) / np.sqrt(d_k)) @ V
"""

RIGHT = [
    (ATTENTION.format("math.sqrt(d_k)", "-1", ""), "attention"),
    (ATTENTION.format("d_k ** 0.5", "-1", ""), "attention"),
    (OWN_SOFTMAX, "attention"),
    (SCRIPT.format("np.sqrt(K.shape[1])"), "attention"),
    (NORM.format("return self.weight * (x - mean) / torch.sqrt(x.var(-1, keepdim=True, "
                 "unbiased=False) + self.eps) + self.bias"), "layer-norm"),
    (LLAMA.format(""), "rms-norm"),
    ("def attention(q, k, v):\n    q = q / q.size(-1) ** 0.5\n"
     "    return (q @ k.transpose(-2, -1)).softmax(-1) @ v", "attention"),
    ("def self_attention(x, W_q, W_k, W_v):\n    Q, K, V = x @ W_q, x @ W_k, x @ W_v\n"
     "    return softmax(Q @ K.T / np.sqrt(Q.shape[-1])) @ V", "attention"),
    ("def attention(Q, K, V):\n    S = Q @ K.T\n    S /= Q.shape[-1] ** 0.5\n"
     "    return softmax(S) @ V", "attention"),
    ("def softmax(scores):\n    e = np.exp(scores - np.max(scores))\n    return e / e.sum()",
     "softmax"),
    ("def softmax(x, temperature=1.0):\n    z = np.exp(x / temperature)\n"
     "    return z / z.sum(-1, keepdims=True)", "softmax"),
    ("def gelu(x):\n    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))",
     "gelu-tanh"),
    ("def gelu(x):\n    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))", "gelu"),
    ("def sigmoid(z):\n    return 0.5 * (1 + np.tanh(z / 2))", "sigmoid"),
    ("def swish(x, beta=1.0):\n    return x / (1 + np.exp(-beta * x))", "silu"),
    ("def relu(x, alpha=0.0):\n    return np.maximum(alpha * x, x)", "relu"),
    ("def relu(input): return (input > 0).astype(float) * input", "relu"),
    ("def layer_norm(x, eps=1e-5):\n"
     "    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)",
     "layer-norm"),
    ("def layer_norm(x):\n    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)",
     "layer-norm-no-eps"),
    ("def softmax(e): return np.exp(e) / np.exp(e).sum(-1, keepdims=True)", "softmax"),
    ("def sigmoid(x, derivative=False):\n    if derivative:\n        return x * (1 - x)\n"
     "    return 1 / (1 + np.exp(-x))", "sigmoid"),
    ("def attention(Q, K, V, d):\n    return softmax(Q @ K.T / np.sqrt(d)) @ V", "attention"),
    ("def attention(q, k, v):\n    k = k.transpose(-2, -1)\n"
     "    return softmax(q @ k / math.sqrt(q.shape[-1])) @ v", "attention"),
    ("def log_softmax(x): return x - x.logsumexp(-1, keepdim=True)", "log-softmax"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "card"), RIGHT)
def test_right_code(code: str, card: str) -> None:
    found = judged(code)
    assert {v for v, _ in found} <= {"EQUAL-PROVED", "EQUAL-SUPPORTED"}
    assert card in {c for _, c in found}


def judged(code: str) -> list[tuple[str, str | None]]:
    text = f"# Code\n\n```python\n{code}\n```\n"
    return [(f.verdict.value, f.card) for f in findings(text, "a.md") if f.card]


WRONG = [
    (ATTENTION.format("d_k", "-1", ""), "attention with scale 1/d_k"),
    (ATTENTION.format("math.sqrt(d_k)", "-2", ""), ""),
    (ATTENTION.format("math.sqrt(d_k)", "-1", " * d_k"), ""),
    (OWN_SOFTMAX.replace("np.sqrt(d_k)", "d_k"), "attention with scale 1/d_k"),
    (OWN_SOFTMAX.replace(" / np.sqrt(d_k)", ""), "attention with scale 1"),
    (SCRIPT.format("K.shape[-1]"), "attention with scale 1/d_k"),
    (NORM.format("std = x.std(-1, keepdim=True)\n        "
                 "return self.weight * (x - mean) / (std + self.eps) + self.bias"), ""),
    (LLAMA.format(".sqrt()"), ""),
    ("def sigmoid(x): return 1 / (1 + np.exp(x))", ""),
    ("def relu(x): return np.minimum(0, x)", ""),
    ("def gelu(x):\n    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.44715 * x**3)))",
     ""),
    ("def softmax(x):\n    e = np.exp(x - x.max(-1, keepdims=True))\n"
     "    return e / np.exp(x).sum(-1, keepdims=True)", ""),
    ("def rms_norm(x, g, eps):\n    return x / (np.mean(x**2, -1, keepdims=True) + eps) * g", ""),
    ("def layer_norm(x, eps):\n"
     "    return (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + eps)", ""),
]  # fmt: skip


@pytest.mark.parametrize(("code", "instead"), WRONG)
def test_wrong_code(code: str, instead: str) -> None:
    text = f"# Code\n\n```python\n{code}\n```\n"
    wrong = [f for f in findings(text, "a.md") if f.verdict.value == "DIFFERENT-CERTIFIED"]
    assert len(wrong) == 1
    assert instead in wrong[0].equals_instead
    assert wrong[0].counterexample is not None
    row = text.split("\n")[wrong[0].place.line - 1]
    assert row.lstrip().startswith(("def ", "output ="))


# What is no mistake, or what the code does not tell: never called wrong.
LEFT_ALONE = [
    ("def attention(q, k, v):\n    for i in range(3):\n        q = q + k\n    return q @ v",
     "a loop"),
    ("def attention(hidden, states):\n    return F.softmax(torch.tanh(hidden @ states.T), dim=-1)",
     "UNDER-SPECIFIED"),
    ("def attention(q, k, v, scale):\n"
     "    return torch.softmax(q @ k.transpose(-1, -2) * scale, -1) @ v", "no value"),
    ("def attention(Q, K, V, d_k=64):\n    return softmax(Q @ K.T / 8) @ V", "only when"),
    ("def attention(Q, K, V):\n    S = Q @ K.T\n    S[mask] = -np.inf\n    return softmax(S) @ V",
     "a part of something"),
    ("def attention(q, k, v):\n    w = q\n    w *= 2\n    return softmax(q @ k.T) @ v", "in place"),
    ("def softmax(x): return np.exp(x) / np.sum(np.exp(x), axis=0)", "axis 0"),
    ("def softmax(x): return F.softmax(x)", "write dim=-1"),
    ("def sigmoid(x, k=2.0): return 1 / (1 + np.exp(-k * x))", "k = 2.0"),
    ("def sigmoid(x): return 1 / (1 + np.exp(-np.clip(x, -500, 500)))", "a clip"),
    ("def gelu(x): return x * norm.cdf(x)", "norm"),
    ("@cached\ndef relu(x): return np.minimum(x, 0)", "the decorator cached"),
    ("def relu(x):\n    if x.sum() > 0:\n        return x\n    return -x", "a branch"),
    ("def relu(*x): return x[0]", "any number"),
    ("def relu(x): return helper(x)\ndef helper(x):\n    while True: pass", "a loop"),
    ("def relu(x): return [max(0, v) for v in x]", "ListComp"),
    ("def relu(x): return np.minimum(x, 0, out=x)", "into an argument"),
    ("class GELU:\n    def forward(self, x): return self.inner(x)", "self.inner"),
    ("def attention(q, k, v):\n    q, k = q.softmax(-1), k.softmax(-1)\n"
     "    return q @ (k.transpose(-2, -1) @ v)", "DIFFERENT"),
    ("def attention(q, k, v): return softmax(q @ k.T / np.sqrt(q.shape[0])) @ v", "two axes"),
    ("def softmax(x, dim): return torch.softmax(x, dim=dim)", "with dim"),
    ("def attention(q, k, v, mask):\n"
     "    return softmax(q @ k.T / np.sqrt(k.shape[-1]) * mask) @ v", "mask"),
    ("def loss(p, y): return ((p - y) ** 2).sum()", ""),
    ("def norm(x): return x / x.sum()", ""),
    ("def softmax_grad(s): return s * (1 - s)", ""),
    ("def feed_forward(x): return gelu(x @ W1 + b1) @ W2 + b2", ""),
    ("def leaky_relu(x): return np.where(x > 0, x, 0.01 * x)", ""),
    ("scores = Q @ K.T\nweights = softmax(scores)", ""),
    ("x = 3\nfor i in range(3):\n    x = x + i\ny = x / 2", ""),
    ("Q = np.random.randn(2, 3)\nQ = f(Q)\nout = softmax(Q @ K.T) @ V", ""),
    ("", ""),
    ("not python at all (", ""),
]  # fmt: skip


@pytest.mark.parametrize(("code", "why"), LEFT_ALONE)
def test_what_is_not_certain_is_left_alone(code: str, why: str) -> None:
    assert "DIFFERENT-CERTIFIED" not in [v for v, _ in judged(code)]
    report = check_document(f"# Code\n\n```python\n{code}\n```\n", "a.md")
    notes = [n for n in report.notes if n.startswith("not checked: line")]
    assert (why in " ".join(notes)) if why else not notes


@pytest.mark.parametrize(
    ("code", "verdict", "words"),
    [
        ("def attention(q, k, v): return softmax(q @ k.T) @ v", "CONDITIONAL", "without a scale"),
        ("def softmax(x):\n    e = np.exp(x)\n    return e / (e.sum(-1, keepdims=True) + 1e-9)",
         "CONDITIONAL", "small constant"),
        ("def rms_norm(x, w, eps):\n"
         "    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * (1 + w)",
         "CONDITIONAL", "counted from one"),
        ("def gelu(x): return 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x ** 3)))",
         "APPROXIMATES", "0.00047"),
    ],
)  # fmt: skip
def test_what_is_right_with_a_condition(code: str, verdict: str, words: str) -> None:
    [found] = findings(f"```python\n{code}\n```", "a.md")
    assert found.verdict.value == verdict
    assert words in found.explanation


def test_assumptions_are_said() -> None:
    [found] = findings(f"```python{ATTENTION.format('d_k ** 0.5', '-1', '')}```", "a.md")
    assert found.explanation == "Judged for mask = None, dropout = None."
    assert (found.place.line, found.place.end_line) == (3, 12)
    *_, found = findings(f"```python{SELF}```", "a.md")
    assert "projected queries" in found.explanation and "dropout off" in found.explanation


def test_definitions_reach_later_blocks() -> None:
    own = "def softmax(x): return np.exp(x) / np.exp(x).{}(-1, keepdims=True)"
    use = "def sdpa(Q, K, V): return softmax(Q @ K.T / np.sqrt(Q.shape[-1])) @ V"
    for function, verdict in (("sum", "EQUAL-PROVED"), ("max", "DIFFERENT-CERTIFIED")):
        text = f"```python\n{own.format(function)}\n```\n\n```python\n{use}\n```\n"
        assert [f.verdict.value for f in findings(text, "a.md")] == [verdict] * 2


def test_imports_say_whose_variance_it_is() -> None:
    code = (
        "def layer_norm(x, w, b, eps):\n"
        "    return w * (x - x.mean(-1)) / (x.var(-1) + eps) ** 0.5 + b"
    )
    assert "DIFFERENT-CERTIFIED" not in [v for v, _ in judged(code)]
    assert judged(f"import numpy as np\n{code}") == [("EQUAL-SUPPORTED", "layer-norm")]
    assert judged(f"import torch\n{code}") == [("DIFFERENT-CERTIFIED", "layer-norm")]


def test_code_is_never_run(tmp_path: object) -> None:
    code = "import os\nraise SystemExit(3)\nos._exit(3)\ndef relu(x): return os._exit(3)"
    assert judged(code) == []


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("my_layer_norm", "layer-norm"), ("softmax_np", "softmax"), ("GELU", "gelu"),
        ("_attention", "attention"), ("ScaledDotProductAttention", "attention"),
        ("feed_forward", None), ("loss", None), ("norm", None), ("cross_entropy", None),
    ],
)  # fmt: skip
def test_names_that_mean_one_formula(name: str, card: str | None) -> None:
    found = named_card(name)
    assert (found.id if found else None) == card


def test_straight_lines() -> None:
    def read(source: str) -> str:
        [function] = ast.parse(source).body
        assert isinstance(function, ast.FunctionDef)
        return ast.unparse(returned(function, Scope())[0])

    assert read("def f(x):\n a, b = x, 2\n a, b = b, a\n return a - b") == "2 - x"
    assert read("def f(x):\n n, d = x.shape\n return x / d") == "x / x.shape[-1]"
    assert read("def f(x, y=None):\n if y is None:\n  y = x\n return y + x") == "x + x"
    assert read("def f(x, flag=False):\n if not flag: return x\n return -x") == "x"
    for source, why in [
        ("def f(x):\n x.sort()\n return x", "effect"),
        ("def f(x):\n x, y = g(x)\n return x", "several names"),
        ("def f(x): pass", "returns nothing"),
        ("def f(x):\n return f(x)", "inside each other"),
        ("def f(x):\n return (lambda: x)()", "Lambda"),
    ]:
        [function] = ast.parse(source).body
        assert isinstance(function, ast.FunctionDef)
        with pytest.raises(Unreadable, match=why):
            returned(function, Scope({"f": function}))


@pytest.mark.parametrize(
    ("root", "verdict"), [("np.sqrt", "EQUAL"), ("torch.sqrt", "DIFFERENT"), ("my.sqrt", "EQUAL")]
)
def test_a_function_s_own_library_comes_before_the_imports(root: str, verdict: str) -> None:
    text = f"""
```python
import torch
```
```python
def layer_norm(x, gamma, beta, eps=1e-5):
    mu = x.mean(axis=-1, keepdims=True)
    var = x.var(axis=-1, keepdims=True)
    return gamma * (x - mu) / {root}(var + eps) + beta
```
"""
    found = [f for f in check_document(text, "norm.md").findings if f.card == "layer-norm"]
    assert all(f.verdict.name.startswith(verdict) for f in found)
    assert found or root == "my.sqrt"
