"""Runs of Latin letters: which of them are words, and where a run falls apart into symbols."""

from __future__ import annotations

import re

from minitransformer.verify.tokenizer.symbols import COMMAND_FUNCTIONS, listed
from minitransformer.verify.tokenizer.tokens import Choices

# Words that people type without \mathrm; a run of letters equal to one of these is one symbol.
FUNCTIONS = {
    name: name
    for name in listed("""
    softmax sigmoid relu gelu silu swish tanh exp log sqrt sin cos tan erf max min argmax argmin
    mean sum std softplus concat diag rowsum trace sign abs norm transpose rank det logsumexp clip
    floor ceil sinh cosh inv tril triu
""")
} | {
    "logsoftmax": "log_softmax", "ln": "log", "var": "Var", "cov": "Cov", "cat": "concat",
    "concatenate": "concat", "tr": "trace",
}  # fmt: skip
# Names that differ from a function by their capitals: layer normalisation is no logarithm.
_NOT_FUNCTIONS = frozenset(["LN", "Norm", "Ln"])
_WORDS = frozenset(
    listed("""
    Attention attention attn Attn MultiHead MultiHeadAttention SelfAttention FFN MLP MHA MHSA MSA
    SDPA LayerNorm layernorm RMSNorm BatchNorm Norm Sublayer sublayer Softmax SoftMax ReLU GELU
    GeLU SiLU SwiGLU GLU GEGLU Concat scale mask Mask pos head heads model loss Loss Dropout
    dropout Linear Embedding output input hidden query key value score scores weights lrate step
    warmup MSE KL RMS batch seq dim PE LN TP TN FP FN BP GeGLU RoPE BERT CE BLEU PPL axis std eps
    True False None otherwise if
""")
)
_SUBSCRIPT_WORDS = frozenset(
    listed("""
    model head heads ff ffn max min in out hidden embed emb vocab seq key query value batch input
    output total train test ref step steps warmup num inner true pred layer layers
""")
)
SIZES_RUN_TOGETHER = frozenset(["dk", "dv", "dq", "dmodel", "dff"])
_INDEX_LETTERS = frozenset("ijklmnpqrstuvwxyzabcdh")
_CONNECTORS = frozenset([
    "where", "with", "if", "for", "and", "when", "otherwise", "else", "or", "so", "then", "as",
    "such that", "s.t.", "subject to", "for all", "for each", "hence", "therefore", "thus",
    "其中", "当", "否则", "且", "如果", "对于", "和", "即", "若",
])  # fmt: skip


def is_connector(text: str) -> bool:
    """Whether an upright text joins two statements (``where``, ``if``, ...)."""
    return text.strip(" ,.:;，。").lower() in _CONNECTORS


def canonical_function(name: str) -> str:
    """Return the one spelling of a function's name.

    Examples
    --------
    >>> canonical_function("SoftMax"), canonical_function("LayerNorm")
    ('softmax', 'LayerNorm')
    """
    if name in _NOT_FUNCTIONS:
        return name
    return FUNCTIONS.get(name.lower(), COMMAND_FUNCTIONS.get(name, name))


class Splitter:
    """Splits runs of letters; where two ways are usual, the choices say which to go."""

    def __init__(self, choices: Choices, latex: bool) -> None:
        self.choices = choices
        self.latex = latex

    def __call__(self, run: str, paren: bool = False) -> list[str]:
        """Split a run on the line; `paren` says that a parenthesis follows."""
        if len(run) <= 1:
            return list(run)
        if run in _WORDS or (run.lower() in FUNCTIONS and (paren or len(run) > 2)):
            return [run]
        if is_connector(run):
            return [run]
        if paren:
            for size in range(len(run) - 1, 1, -1):
                tail = run[-size:]
                if tail in _WORDS or (tail in FUNCTIONS and size > 2):
                    return [*self(run[:-size]), tail]
        if len(run) == 2 or (run.isupper() and len(run) == 3 and not paren):
            return list(run)
        if not re.fullmatch(r"[A-Z]?[a-z]+|[A-Z]{4,}", run) and len(run) < 5 and not paren:
            return list(run)  # BAx
        product, one = f"{run} is a product of letters", f"{run} is one symbol"
        if len(run) > 3 or paren:
            return list(run) if self.choices.pick(f"word:{run}", one, product) else [run]
        return [run] if self.choices.pick(f"word:{run}", product, one) else list(run)

    def raised(self, run: str, paren: bool, in_subscript: bool) -> list[str]:
        """Split the letters right after ``^``: TeX raises one, and plain text in ^T and ^n."""
        if run.lower() in FUNCTIONS or run in _WORDS:
            return [run]
        rest = run[1:]
        return [run[0], *(self.inside_subscript(rest) if in_subscript else self(rest, paren))]

    def lowered(self, run: str) -> list[str]:
        """Split the letters right after ``_``: the first piece is the subscript."""
        first = run[0]
        if not self.latex:
            prefix = re.match(r"[a-z]+|[A-Z]", run)
            assert prefix is not None
            first = prefix.group()
        else:
            word = next((w for w in sorted(_SUBSCRIPT_WORDS, key=len)[::-1]
                         if len(w) > 2 and run.startswith(w)), None)  # fmt: skip
            one, typeset = (
                f"_{word} is one subscript",
                f"as TeX typesets it, only {first} is lowered",
            )
            if word and self.choices.pick(f"sub:{word}", one, typeset) == 0:
                first = word
        return [first, *self.inside_subscript(run[len(first) :])]

    def inside_subscript(self, run: str) -> list[str]:
        """Split a run inside ``_{...}``: a few index letters, or one label."""
        label = run in _SUBSCRIPT_WORDS and len(run) > 2
        short = len(run) <= 3 and set(run) <= _INDEX_LETTERS and not label
        return list(run) if short or len(run) <= 2 else [run]
