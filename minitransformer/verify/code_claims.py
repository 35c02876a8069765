"""What PyTorch code in a document really does, found without running it.

The code is parsed with `ast`; calls are bound to PyTorch's signatures as a table holds
them, constants are followed through assignments and through the construction of the
class that uses them. Rules then compare what a call means with what its names suggest.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from minitransformer.verify.extraction import Code, Document
from minitransformer.verify.verdict import Finding, Place, Verdict

# Languages of a fence that may hold Python; "" is a fence that names none.
PYTHON = frozenset(["", "python", "py", "python3", "ipython", "pycon"])
REQUIRED = object()  # an argument without a default

# Parameters in order, with their defaults, as PyTorch has them; tests/verify compares every
# row with the installed PyTorch.
SIGNATURES: dict[str, dict[str, Any]] = {
    "Transformer": {
        "d_model": 512, "nhead": 8, "num_encoder_layers": 6, "num_decoder_layers": 6,
        "dim_feedforward": 2048, "dropout": 0.1, "activation": "relu", "custom_encoder": None,
        "custom_decoder": None, "layer_norm_eps": 1e-5, "batch_first": False, "norm_first": False,
        "bias": True, "device": None, "dtype": None,
    },
    "TransformerEncoderLayer": {
        "d_model": REQUIRED, "nhead": REQUIRED, "dim_feedforward": 2048, "dropout": 0.1,
        "activation": "relu", "layer_norm_eps": 1e-5, "batch_first": False, "norm_first": False,
        "bias": True, "device": None, "dtype": None,
    },
    "TransformerDecoderLayer": {
        "d_model": REQUIRED, "nhead": REQUIRED, "dim_feedforward": 2048, "dropout": 0.1,
        "activation": "relu", "layer_norm_eps": 1e-5, "batch_first": False, "norm_first": False,
        "bias": True, "device": None, "dtype": None,
    },
    "TransformerEncoder": {
        "encoder_layer": REQUIRED, "num_layers": REQUIRED, "norm": None,
        "enable_nested_tensor": True, "mask_check": True,
    },
    "TransformerDecoder": {"decoder_layer": REQUIRED, "num_layers": REQUIRED, "norm": None},
    "MultiheadAttention": {
        "embed_dim": REQUIRED, "num_heads": REQUIRED, "dropout": 0.0, "bias": True,
        "add_bias_kv": False, "add_zero_attn": False, "kdim": None, "vdim": None,
        "batch_first": False, "device": None, "dtype": None,
    },
    "Linear": {
        "in_features": REQUIRED, "out_features": REQUIRED, "bias": True, "device": None,
        "dtype": None,
    },
    "Embedding": {
        "num_embeddings": REQUIRED, "embedding_dim": REQUIRED, "padding_idx": None,
        "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False, "sparse": False,
        "_weight": None, "_freeze": False, "device": None, "dtype": None,
    },
    "LayerNorm": {
        "normalized_shape": REQUIRED, "eps": 1e-5, "elementwise_affine": True, "bias": True,
        "device": None, "dtype": None,
    },
    "Dropout": {"p": 0.5, "inplace": False},
    "Softmax": {"dim": None},
    "CrossEntropyLoss": {
        "weight": None, "size_average": None, "ignore_index": -100, "reduce": None,
        "reduction": "mean", "label_smoothing": 0.0,
    },
    "Adam": {
        "params": REQUIRED, "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0,
        "amsgrad": False, "foreach": None, "maximize": False, "capturable": False,
        "differentiable": False, "fused": None, "decoupled_weight_decay": False,
    },
    "AdamW": {
        "params": REQUIRED, "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2,
        "amsgrad": False, "maximize": False, "foreach": None, "capturable": False,
        "differentiable": False, "fused": None,
    },
}  # fmt: skip
# How many arguments may be given without their names, where that is not all of them.
POSITIONAL = {"Adam": 6, "AdamW": 6}
OPTIMISERS = frozenset(["Adam", "AdamW"])

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


def encoder_layer_parameters(d: int, f: int) -> int:
    """Return the parameters of one encoder layer: 4d² + 4d, 2df + f + d, two norms of 2d."""
    return 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d


def decoder_layer_parameters(d: int, f: int) -> int:
    """Return the parameters of one decoder layer: two attentions and three norms."""
    return 2 * (4 * d * d + 4 * d) + 2 * d * f + f + d + 6 * d


def transformer_parameters(d: int, encoder: int, decoder: int, f: int) -> int:
    """Return the parameters of ``nn.Transformer``, its two final norms included.

    Examples
    --------
    >>> transformer_parameters(512, 2, 6, 2048), transformer_parameters(512, 2, 2, 2048)
    (31531008, 14714880)
    """
    return (
        encoder * encoder_layer_parameters(d, f)
        + decoder * decoder_layer_parameters(d, f)
        + (2 * d + 2 * d)
    )


@dataclass
class Call:
    """A call of a class in the table, with its arguments bound."""

    name: str
    node: ast.Call
    bound: dict[str, ast.expr]
    positional: set[str]
    error: str = ""


@dataclass
class Module:
    """A parsed code block and what is known of its names."""

    tree: ast.Module
    constants: dict[str, Any] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)  # local name -> dotted name
    calls: list[Call] = field(default_factory=list)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)


def code_findings(document: Document) -> Iterator[Finding]:
    """Yield what is wrong or conditional in the document's PyTorch code.

    Parameters
    ----------
    document : Document
        Its code blocks; blocks that are not Python give nothing.

    Yields
    ------
    Finding
        FALSE for what contradicts the code's own names or cannot work, CONDITIONAL for
        what depends on the data.
    """
    for code in document.codes:
        if code.language not in PYTHON:
            continue
        module = read_code(code.text)
        if module is not None:
            yield from _block(document.name, code, module)


def read_code(text: str) -> Module | None:
    """Parse a block and bind its calls; ``None`` where it is not Python."""
    if len(text) > 400_000 or not text.strip():
        return None
    if re.search(r"(?m)^\s*>>> ", text):
        rows = [re.match(r"\s*(?:>>>|\.\.\.) ?(.*)", row) for row in text.split("\n")]
        text = "\n".join(m.group(1) if m else "" for m in rows)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    module = Module(tree)
    try:
        _names(module)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = _torch_class(node.func, module)
                if name:
                    module.calls.append(_bind(name, node))
    except RecursionError:
        return None
    module.calls.sort(key=lambda c: (c.node.lineno, c.node.col_offset))
    return module


def _names(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module.imports[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module.imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.ClassDef):
            module.classes[node.name] = node
    for statement in module.tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            pairs: list[tuple[ast.expr, ast.expr]] = [(target, statement.value)]
            if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                pairs = list(zip(target.elts, statement.value.elts))
            for left, right in pairs:
                value = constant(right, module.constants)
                if isinstance(left, ast.Name):
                    if value is None:
                        module.constants.pop(left.id, None)
                    else:
                        module.constants[left.id] = value
        elif (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and statement.value is not None
        ):
            value = constant(statement.value, module.constants)
            if value is not None:
                module.constants[statement.target.id] = value
    # A class's own parameters take the values it is built with, once.
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            made = module.classes.get(node.func.id)
            init = next((f for f in made.body if isinstance(f, ast.FunctionDef)
                         and f.name == "__init__"), None) if made else None  # fmt: skip
            if init is None:
                continue
            names = [a.arg for a in init.args.args[1:]]
            given = dict(zip(names, node.args)) | {
                k.arg: k.value for k in node.keywords if k.arg in names
            }
            defaults = dict(zip(reversed(names), reversed(init.args.defaults)))
            for parameter, expression in (defaults | given).items():
                value = constant(expression, module.constants)
                if value is not None and parameter is not None:
                    module.constants.setdefault(parameter, value)
    for made in module.classes.values():
        for method in made.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                names = [a.arg for a in method.args.args]
                for parameter, expression in zip(reversed(names), reversed(method.args.defaults)):
                    value = constant(expression, module.constants)
                    if value is not None:
                        module.constants.setdefault(parameter, value)


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv, ast.Div: operator.truediv,
}  # fmt: skip


def constant(node: ast.expr, known: dict[str, Any]) -> Any:
    """Return an expression's number or flag, or ``None`` where it is not constant.

    Examples
    --------
    >>> constant(ast.parse("4 * d").body[0].value, {"d": 128})
    512
    """
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 10**15):
            return value
        return None
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return known.get(node.attr) if node.value.id in ("self", "config", "args", "cfg") else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = constant(node.operand, known)
        return None if value is None else -value
    if isinstance(node, ast.BinOp):
        left, right = constant(node.left, known), constant(node.right, known)
        work = _ARITHMETIC.get(type(node.op))
        if left is None or right is None or work is None:
            return None
        try:
            return work(left, right)
        except (ZeroDivisionError, OverflowError):
            return None
    return None


def _dotted(node: ast.expr) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute) and len(names) < 12:
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(names)])


def _torch_class(func: ast.expr, module: Module) -> str:
    """Return the table's name of a called class, where it is PyTorch's."""
    dotted = _dotted(func)
    if not dotted:
        return ""
    first, _, rest = dotted.partition(".")
    # Snippets leave the imports out; nn.Transformer is still PyTorch's.
    usual = {"nn": "torch.nn", "torch": "torch", "optim": "torch.optim"}
    full = module.imports.get(first, usual.get(first, first)) + (f".{rest}" if rest else "")
    name = full.rpartition(".")[2]
    where = full.rpartition(".")[0]
    right = "torch.optim" if name in OPTIMISERS else "torch.nn"
    return name if name in SIGNATURES and where.startswith(right) else ""


def _bind(name: str, node: ast.Call) -> Call:
    """Bind a call's arguments to the signature as Python would."""
    parameters = list(SIGNATURES[name])
    call = Call(name, node, {}, set())
    if any(isinstance(a, ast.Starred) for a in node.args) or any(
        k.arg is None for k in node.keywords
    ):
        return call  # unpacked: nothing is known
    limit = POSITIONAL.get(name, len(parameters))
    if len(node.args) > limit:
        call.error = f"{name} takes at most {limit} arguments by position, {len(node.args)} given"
    for parameter, value in zip(parameters, node.args):
        call.bound[parameter] = value
        call.positional.add(parameter)
    for keyword in node.keywords:
        given = str(keyword.arg)
        if given not in SIGNATURES[name]:
            near = [p for p in parameters if given in p or p in given]
            hint = f"; there is {near[0]}" if near else ""
            call.error = f"{name} has no argument {given}{hint}"
        elif given in call.bound:
            call.error = f"{name} gets {given} twice"
        else:
            call.bound[given] = keyword.value
    missing = [p for p, d in SIGNATURES[name].items() if d is REQUIRED and p not in call.bound]
    if missing and not call.error:
        call.error = f"{name} lacks {', '.join(missing)}"
    return call


# -- the rules ----------------------------------------------------------------------------
@dataclass
class _Rules:
    document: str
    code: Code
    module: Module

    def place(self, node: ast.AST) -> Place:
        line = self.code.line + getattr(node, "lineno", 1) - 1
        text = self.code.text.split("\n")[getattr(node, "lineno", 1) - 1].strip()
        return Place(self.document, line, text[:300])

    def value(self, call: Call, parameter: str) -> Any:
        if parameter in call.bound:
            return constant(call.bound[parameter], self.module.constants)
        default = SIGNATURES[call.name][parameter]
        return None if default is REQUIRED else default

    def finding(
        self, node: ast.AST, verdict: Verdict, reading: str, explanation: str, **more: Any
    ) -> Finding:
        return Finding(self.place(node), verdict, reading=reading, explanation=explanation, **more)


def _block(document: str, code: Code, module: Module) -> Iterator[Finding]:
    rules = _Rules(document, code, module)
    for call in module.calls:
        yield from _binding(rules, call)
    yield from _usage(rules)
    yield from _evaluation(rules)
    yield from _double_softmax(rules)


def _spelled(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _shown(call: Call) -> str:
    return f"nn.{call.name}" if call.name not in OPTIMISERS else f"optim.{call.name}"


def _binding(rules: _Rules, call: Call) -> Iterator[Finding]:
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


def _layer_counts(rules: _Rules, call: Call, written: str) -> Iterator[Finding]:
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


def _attributes(rules: _Rules, kinds: frozenset[str]) -> dict[str, Call]:
    """Return the names (``self.x`` or ``x``) that hold a module of some kind."""
    by_node = {id(c.node): c for c in rules.module.calls if c.name in kinds}
    held: dict[str, Call] = {}
    for node in ast.walk(rules.module.tree):
        if isinstance(node, ast.Assign) and id(node.value) in by_node:
            for target in node.targets:
                name = _dotted(target)
                if name:
                    held[name] = by_node[id(node.value)]
    return held


def _calls_of(rules: _Rules, names: dict[str, Call]) -> Iterator[tuple[ast.Call, Call]]:
    for node in ast.walk(rules.module.tree):
        if isinstance(node, ast.Call):
            held = names.get(_dotted(node.func))
            if held is not None:
                yield node, held


_POSITIONS = re.compile(r"pos(?:ition|_|\b|enc|emb)|\bpe\b|rotary|rope|alibi|sinusoid", re.I)


def _usage(rules: _Rules) -> Iterator[Finding]:
    """Rules about how a transformer is called: masks, positions, the order of axes."""
    held = _attributes(rules, frozenset(["Transformer"]))
    text = rules.code.text
    for node, made in _calls_of(rules, held):
        given = {str(k.arg) for k in node.keywords} | set(
            ["src", "tgt", "src_mask", "tgt_mask"][: len(node.args)]
        )
        written = ast.unparse(node)
        if "tgt_mask" not in given and "tgt_is_causal" not in given and "None" not in given:
            shift = _unshifted(rules)
            yield rules.finding(
                node, Verdict.FALSE, written,
                "No tgt_mask: every position of the decoder attends to the later targets, so the "
                "gradient of an output with respect to later targets is not zero." + shift,
                detail="tgt_mask missing",
                repair="tgt_mask=nn.Transformer.generate_square_subsequent_mask(tgt.size(0))",
            )  # fmt: skip
        if not _POSITIONS.search(text):
            yield rules.finding(
                node, Verdict.FALSE, written,
                "Nothing adds positions to the embeddings: permuting the source permutes the "
                "encoder's output and changes nothing else, so word order is invisible.",
                detail="no positions",
            )  # fmt: skip
        if "batch_first" not in made.bound:
            first = _batch_first_data(rules)
            yield rules.finding(
                node, Verdict.FALSE if first else Verdict.CONDITIONAL, written,
                "batch_first keeps False, so the axes are (length, batch, width); "
                + (first or "right only if the data puts the length first, while a DataLoader "
                            "stacks the batch first: then attention runs across the batch."),
                detail="batch_first = False",
                repair="batch_first=True",
            )  # fmt: skip


def _unshifted(rules: _Rules) -> str:
    """Say that the decoder's input is also its label, where it is."""
    models = {
        _dotted(t)
        for n in ast.walk(rules.module.tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
        and isinstance(n.value.func, ast.Name) and n.value.func.id in rules.module.classes
        for t in n.targets
    }  # fmt: skip
    fed: set[str] = set()
    labels: set[str] = set()
    losses = _attributes(rules, frozenset(["CrossEntropyLoss"]))
    for node in ast.walk(rules.module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = _dotted(node.func)
        if name in models and len(node.args) > 1:
            fed |= {a.id for a in node.args[1:2] if isinstance(a, ast.Name)}
        if (name in losses or name.endswith("cross_entropy")) and len(node.args) > 1:
            label = node.args[1]
            while isinstance(label, ast.Call) and isinstance(label.func, ast.Attribute):
                label = label.func.value
            labels |= {label.id} if isinstance(label, ast.Name) else set()
    both = fed & labels
    if not both:
        return ""
    word = sorted(both)[0]
    return f" {word} is the decoder's input and its label, not shifted by one: it can copy it."


def _batch_first_data(rules: _Rules) -> str:
    """Say that the code itself puts the batch first, where it does."""
    found = re.search(
        r"(?:torch\.)?(?:randint|randn|rand|zeros|ones)\(\s*(?:\d+\s*,\s*){0,2}\(?\s*"
        r"(batch_size|batch|bs|B)\s*,", rules.code.text,
    )  # fmt: skip
    return f"the code makes tensors whose first axis is {found.group(1)}." if found else ""


def _evaluation(rules: _Rules) -> Iterator[Finding]:
    """An argmax over axis 1 of (length, batch, vocabulary) is over the batch."""
    sequence = frozenset(
        ["Transformer", "TransformerEncoder", "TransformerDecoder", "TransformerEncoderLayer"]
    )
    used = [c for c in rules.module.calls if c.name in sequence]
    if not used:
        return
    pooled = re.search(r"\.mean\(|\[:,\s*0\]|\[:,\s*-1\]|\[0\]|\[-1\]|pool|cls", rules.code.text)
    if pooled:
        return
    models = {
        n.targets[0].id
        for n in ast.walk(rules.module.tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
        and isinstance(n.targets[0], ast.Name) and isinstance(n.value.func, ast.Name)
        and n.value.func.id in rules.module.classes
    } | {"model"}  # fmt: skip
    outputs = {
        n.targets[0].id
        for n in ast.walk(rules.module.tree)
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
        and isinstance(n.value, ast.Call) and _dotted(n.value.func) in models
    }  # fmt: skip
    compared = [n for n in ast.walk(rules.module.tree) if isinstance(n, ast.Compare)]
    for node in ast.walk(rules.module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = _dotted(node.func)
        short = name.rpartition(".")[2]
        if short not in ("max", "argmax"):
            continue
        if name.startswith("torch."):
            operands, rest = node.args[:1], node.args[1:]
        elif isinstance(node.func, ast.Attribute):
            operands, rest = [node.func.value], node.args
        else:
            continue
        axis = rest[0] if rest else next((k.value for k in node.keywords if k.arg == "dim"), None)
        operand = operands[0] if operands else None
        while isinstance(operand, ast.Attribute) and operand.attr == "data":
            operand = operand.value
        if not (isinstance(operand, ast.Name) and operand.id in outputs):
            continue
        if axis is None or constant(axis, {}) != 1:
            continue
        against = next(
            (ast.unparse(c) for c in compared if c.lineno > node.lineno
             and isinstance(c.ops[0], ast.Eq)), "")  # fmt: skip
        batch_first = any(rules.value(c, "batch_first") is True for c in used
                          if "batch_first" in SIGNATURES[c.name])  # fmt: skip
        axes = "(batch, length, vocabulary)" if batch_first else "(length, batch, vocabulary)"
        second = "length" if batch_first else "batch"
        tail = f"; then {against} compares shapes that do not match" if against else ""
        yield rules.finding(
            node, Verdict.FALSE, ast.unparse(node),
            f"For outputs {axes} axis 1 is the {second}, not the vocabulary{tail}. It is the "
            "vocabulary only for one unbatched sequence.",
            detail=f"axis 1 is the {second}",
            repair=ast.unparse(node).replace(", 1)", ", -1)").replace("dim=1", "dim=-1"),
        )  # fmt: skip


def _double_softmax(rules: _Rules) -> Iterator[Finding]:
    """Cross-entropy takes logits; a softmax before it is applied twice."""
    if not any(c.name == "CrossEntropyLoss" for c in rules.module.calls) and (
        "cross_entropy(" not in rules.code.text
    ):
        return
    held = _attributes(rules, frozenset(["Softmax"]))
    for made in rules.module.classes.values():
        for method in made.body:
            if not (isinstance(method, ast.FunctionDef) and method.name == "forward"):
                continue
            last: dict[str, ast.expr] = {}
            for statement in method.body:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    last[statement.targets[0].id] = statement.value
                if not isinstance(statement, ast.Return) or statement.value is None:
                    continue
                value: ast.expr | None = statement.value
                if isinstance(value, ast.Name):
                    value = last.get(value.id)
                if not isinstance(value, ast.Call):
                    continue
                name = _dotted(value.func)
                if name.rpartition(".")[2] == "softmax" or name in held:
                    yield rules.finding(
                        value, Verdict.FALSE, ast.unparse(value),
                        "The model returns probabilities, and cross-entropy applies a log-softmax "
                        "to them once more; it takes logits.",
                        detail="softmax twice", repair="return the logits",
                    )  # fmt: skip
