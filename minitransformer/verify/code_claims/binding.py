"""What each argument is called, against the parameter that it binds to."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from minitransformer.verify.code_claims.module import Call
from minitransformer.verify.code_claims.rules import Rules
from minitransformer.verify.code_claims.signatures import (
    OPTIMISERS,
    SIGNATURES,
    transformer_parameters,
)
from minitransformer.verify.verdict import Finding, Verdict

# Names that people use for a size, and the parameters they may bind to.
_MEANT = {
    "num_layers": {"num_layers"}, "n_layers": {"num_layers"}, "nlayers": {"num_layers"},
    "n_layer": {"num_layers"}, "layers": {"num_layers"}, "num_blocks": {"num_layers"},
    "depth": {"num_layers"},
    "num_heads": {"nhead", "num_heads"}, "n_heads": {"nhead", "num_heads"},
    "nheads": {"nhead", "num_heads"}, "heads": {"nhead", "num_heads"},
    "n_head": {"nhead", "num_heads"}, "nhead": {"nhead", "num_heads"},
    "d_ff": {"dim_feedforward"}, "dff": {"dim_feedforward"}, "ff_dim": {"dim_feedforward"},
    "dim_ff": {"dim_feedforward"}, "d_hid": {"dim_feedforward"}, "nhid": {"dim_feedforward"},
    "hidden_dim": {"dim_feedforward", "d_model", "embed_dim"},
    "dim_feedforward": {"dim_feedforward"}, "ffn_dim": {"dim_feedforward"},
    "dropout": {"dropout"}, "dropout_rate": {"dropout"}, "drop": {"dropout"},
    "num_encoder_layers": {"num_encoder_layers", "num_layers"},
    "num_decoder_layers": {"num_decoder_layers", "num_layers"},
}  # fmt: skip
_CHECKED = frozenset(
    ["Transformer", "TransformerEncoderLayer", "TransformerDecoderLayer", "TransformerEncoder",
     "TransformerDecoder", "MultiheadAttention"]
)  # fmt: skip


def _spelled(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _shown(call: Call) -> str:
    return f"nn.{call.name}" if call.name not in OPTIMISERS else f"optim.{call.name}"


def binding_findings(rules: Rules, call: Call) -> Iterator[Finding]:
    """Compare what each argument is called with what it binds to."""
    written = ast.unparse(call.node) if len(ast.dump(call.node)) < 4_000 else _shown(call)
    if call.error:
        yield rules.finding(call.node, Verdict.FALSE, written, f"{call.error}: a TypeError.")
        return
    if call.name == "Transformer":
        yield from _layer_counts(rules, call, written)
    if call.name in _CHECKED:
        for parameter, argument in call.bound.items():
            meant = _MEANT.get(_spelled(argument))
            if (
                meant is None
                or parameter in meant
                or (
                    call.name == "Transformer"
                    and ("num_layers" in meant and parameter.endswith("_layers"))
                )
            ):
                continue
            fits = [p for p in SIGNATURES[call.name] if p in meant]
            fix = f"{fits[0]}={_spelled(argument)}" if fits else ""
            where = f"write {fix}" if fix else f"{_shown(call)} takes no such number"
            default = ""
            if fits and fits[0] not in call.bound:
                default = f"; {fits[0]} keeps {SIGNATURES[call.name][fits[0]]}"
            yield rules.finding(
                call.node, Verdict.FALSE, written,
                f"{_spelled(argument)} binds to {parameter}{default}; {where}.",
                detail=f"{parameter} = {_spelled(argument)}", repair=fix,
            )  # fmt: skip
    width = {"MultiheadAttention": "embed_dim"}.get(call.name, "d_model")
    heads = {"MultiheadAttention": "num_heads"}.get(call.name, "nhead")
    if call.name in _CHECKED and width in SIGNATURES[call.name]:
        d, h = rules.value(call, width), rules.value(call, heads)
        if isinstance(d, int) and isinstance(h, int) and h > 0 and d % h:
            yield rules.finding(
                call.node, Verdict.FALSE, written,
                f"{width} = {d} is not a multiple of {heads} = {h}: PyTorch refuses it.",
            )  # fmt: skip


def _layer_counts(rules: Rules, call: Call, written: str) -> Iterator[Finding]:
    """One count of layers given by position sets the encoder's alone."""
    only = "num_encoder_layers" in call.positional and "num_decoder_layers" not in call.bound
    if not only:
        return
    argument = call.bound["num_encoder_layers"]
    meant = _MEANT.get(_spelled(argument), set())
    if meant == {"num_encoder_layers", "num_layers"} or not (
        "num_layers" in meant or isinstance(argument, ast.Constant)
    ):
        return
    spelled = ast.unparse(argument)
    layers = rules.value(call, "num_encoder_layers")
    kept = SIGNATURES["Transformer"]["num_decoder_layers"]
    if layers == kept:
        return
    d, f = rules.value(call, "d_model"), rules.value(call, "dim_feedforward")
    counts, witnesses = "", {}
    if all(isinstance(x, int) and 0 < x < 10**6 for x in (d, f, layers)):
        real = transformer_parameters(d, layers, kept, f)
        both = transformer_parameters(d, layers, layers, f)
        at = f" and {spelled} = {layers}" if spelled != str(layers) else ""
        counts = (
            f" At d_model = {d}{at} that is {real:,} parameters, against "
            f"{both:,} with {layers} layers in each."
        )
        witnesses = {"parameters": real, "intended": both}
    named = not isinstance(argument, ast.Constant)
    yield rules.finding(
        call.node, Verdict.FALSE if named else Verdict.CONDITIONAL, written,
        f"The third argument is num_encoder_layers; num_decoder_layers keeps {kept}.{counts}",
        detail=f"num_encoder_layers = {spelled}, num_decoder_layers = {kept}",
        repair=f"num_encoder_layers={spelled}, num_decoder_layers={spelled}",
        witnesses=witnesses,
    )  # fmt: skip
