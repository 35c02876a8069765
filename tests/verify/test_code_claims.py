"""The table of signatures against PyTorch, the counts, and one snippet per rule."""

from __future__ import annotations

import inspect
import textwrap

import pytest

from minitransformer.verify.code_claims import (
    OPTIMISERS,
    POSITIONAL,
    REQUIRED,
    SIGNATURES,
    code_findings,
    decoder_layer_parameters,
    encoder_layer_parameters,
    read_code,
    transformer_parameters,
)
from minitransformer.verify.extraction import Code, Document
from minitransformer.verify.verdict import Finding, Verdict

torch = pytest.importorskip("torch")
# PyTorch warns that a fast path is off where batch_first is.
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_pytorchs(name: str) -> None:
    home = torch.optim if name in OPTIMISERS else torch.nn
    real = list(inspect.signature(getattr(home, name)).parameters.values())
    assert [p.name for p in real] == list(SIGNATURES[name])
    for parameter in real:
        ours = SIGNATURES[name][parameter.name]
        if parameter.default is inspect.Parameter.empty:
            assert ours is REQUIRED
        elif callable(parameter.default):
            assert ours == parameter.default.__name__
        else:
            assert ours == parameter.default
    positional = [p for p in real if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert POSITIONAL.get(name, len(SIGNATURES[name])) == len(positional)


@pytest.mark.parametrize(("d", "f"), [(16, 32), (24, 7), (64, 128)])
def test_counts_of_parameters_are_pytorchs(d: int, f: int) -> None:
    def count(module: object) -> int:
        return sum(p.numel() for p in module.parameters())  # type: ignore[attr-defined]

    nn = torch.nn
    assert count(nn.TransformerEncoderLayer(d, 4, f)) == encoder_layer_parameters(d, f)
    assert count(nn.TransformerDecoderLayer(d, 4, f)) == decoder_layer_parameters(d, f)
    whole = nn.Transformer(d, 4, 2, 3, f)
    assert count(whole) == transformer_parameters(d, 2, 3, f)


def check(source: str) -> list[Finding]:
    document = Document("a.md", codes=[Code(textwrap.dedent(source).strip("\n"), "python", 10)])
    return list(code_findings(document))


def test_one_count_of_layers_leaves_the_decoder_at_six() -> None:
    [found] = check(
        """
        import torch.nn as nn
        width, depth = 128, 2
        model = nn.Transformer(width, 8, depth)
        """
    )
    assert found.verdict is Verdict.FALSE and found.place.line == 12
    assert found.detail == "num_encoder_layers = depth, num_decoder_layers = 6"
    real = sum(p.numel() for p in torch.nn.Transformer(128, 8, 2).parameters())
    both = sum(p.numel() for p in torch.nn.Transformer(128, 8, 2, 2).parameters())
    assert found.witnesses == {"parameters": real, "intended": both}


def test_constants_are_followed_into_the_class_that_uses_them() -> None:
    found = check(
        """
        from torch import nn
        class Net(nn.Module):
            def __init__(self, size, heads, num_layers=3):
                self.core = nn.Transformer(size, heads, num_layers)
        net = Net(64, 4)
        """
    )
    assert found[0].witnesses["intended"] == transformer_parameters(64, 3, 3, 2048)


@pytest.mark.parametrize(
    "source",
    [
        "nn.Transformer(512, 8, 6)",  # six is what the decoder has
        "nn.Transformer(512, 8, 2, 2)",
        "nn.Transformer(d_model=512, nhead=8, num_encoder_layers=num_layers, "
        "num_decoder_layers=num_layers)",
        "nn.Transformer(512, 8, num_encoder_layers)",
        "nn.TransformerEncoder(layer, num_layers)",
        "nn.MultiheadAttention(512, num_heads)",
        "nn.Linear(10, 20)",
        "Transformer(512, 8, num_layers)",  # somebody's own class
        "optim.Adam(model.parameters(), lr=0.001)",
        "nn.TransformerEncoderLayer(d_model, nhead, d_ff, dropout)",
    ],
)
def test_calls_that_are_right(source: str) -> None:
    assert check(source) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nn.TransformerEncoderLayer(512, 8, num_layers)", "num_layers binds to dim_feedforward"),
        ("nn.TransformerEncoderLayer(512, 8, dropout)", "dropout binds to dim_feedforward"),
        ("nn.MultiheadAttention(num_heads, 512)", "num_heads binds to embed_dim"),
        ("nn.MultiheadAttention(100, 8)", "not a multiple"),
        ("nn.Transformer(512, 8, num_layers=6)", "no argument num_layers"),
        ("nn.Linear(3)", "lacks out_features"),
        ("nn.Dropout(0.1, False, 3)", "at most 2"),
        ("optim.Adam(p, learning_rate=1e-3)", "no argument learning_rate"),
        ("nn.Linear(3, 4, in_features=3)", "twice"),
    ],
)
def test_calls_that_are_wrong(source: str, words: str) -> None:
    [found] = check(source)
    assert found.verdict is Verdict.FALSE
    assert words in found.explanation


MODEL = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        {extra}
        self.core = nn.Transformer(32, 4, 2, 2{options})
        self.out = nn.Linear(32, 100)
    def forward(self, a, b):
        x = self.core(self.embed(a), self.embed(b){mask})
        return self.out(x)
net = Net()
score = net(src, tgt)
best = {best}
right = (best == tgt).sum()
"""


def model(
    extra: str = "", options: str = "", mask: str = "", best: str = "score.argmax(-1)"
) -> str:
    return MODEL.format(extra=extra, options=options, mask=mask, best=best)


def details(source: str) -> list[str]:
    return [found.detail for found in check(source)]


def test_a_transformer_without_mask_positions_and_order() -> None:
    assert details(model()) == ["tgt_mask missing", "no positions", "batch_first = False"]


def test_a_complete_model_has_no_finding() -> None:
    good = model("self.positions = nn.Embedding(50, 32)", ", batch_first=True", ", tgt_mask=m")
    assert details(good) == []


@pytest.mark.parametrize(
    ("best", "wrong"),
    [
        ("torch.max(score.data, 1)[1]", True),
        ("torch.argmax(score, dim=1)", True),
        ("score.argmax(1)", True),
        ("score.argmax(dim=-1)", False),
        ("torch.max(score, 2)[1]", False),
        ("other.argmax(1)", False),
    ],
)
def test_the_axis_of_the_prediction(best: str, wrong: bool) -> None:
    source = model("self.positions = 1", ", batch_first=True", ", tgt_mask=m", best)
    assert details(source) == (["axis 1 is the length"] if wrong else [])


def test_softmax_before_cross_entropy() -> None:
    source = """
    class Net(nn.Module):
        def forward(self, x):
            return torch.softmax(self.f(x), dim=-1)
    loss = nn.CrossEntropyLoss()
    """
    assert details(source) == ["softmax twice"]
    assert details(source.replace("CrossEntropyLoss", "NLLLoss")) == []


@pytest.mark.parametrize(
    "source", ["def broken(:", "Epoch 1, Loss: 2", "", "\x00", "(" * 500, "x = " + "-" * 9000 + "1"]
)
def test_what_is_not_python_gives_nothing(source: str) -> None:
    assert check(source) == []


def test_prompts_are_stripped() -> None:
    module = read_code(">>> a = 3\n>>> b = 4 * a\n12")
    assert module is not None and module.constants == {"a": 3, "b": 12}
