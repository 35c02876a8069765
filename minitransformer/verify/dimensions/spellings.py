"""The functions that formulas call, and the ways to spell them."""

from __future__ import annotations

# Functions that act on every element alone.
ELEMENTWISE = frozenset(
    """exp log log2 log10 sin cos tan tanh sinh cosh sigmoid erf relu gelu silu Phi softplus sign
    logsigmoid floor ceil abs sqrt heaviside""".split()  # noqa: SIM905
)
# Spellings of the functions known here, all lower case.
FUNCTION_ALIASES = {
    "ln": "log",
    "σ": "sigmoid",
    "logistic": "sigmoid",
    "sigm": "sigmoid",
    "swish": "silu",
    "sgn": "sign",
    "lg": "log10",
    "log_2": "log2",
    "log_{10}": "log10",
    "log_10": "log10",
    "logsoftmax": "log_softmax",
    "log-softmax": "log_softmax",
    "log_softmax": "log_softmax",
    "softmax": "softmax",
    "smax": "softmax",
    "softmaxrow": "softmax",
    "concat": "concat",
    "concatenate": "concat",
    "cat": "concat",
    "average": "mean",
    "avg": "mean",
    "trace": "tr",
    "clamp": "clip",
    "amax": "max",
    "amin": "min",
    "maximum": "max",
    "minimum": "min",
    "std": "std",
    "power": "pow",
    "log_sigmoid": "logsigmoid",
    "logσ": "logsigmoid",
    "softmax_row": "softmax",
    "softmax_rows": "softmax",
    "softmax_col": "softmax_column",
    "softmax_column": "softmax_column",
    "softmax_columns": "softmax_column",
}
REDUCTIONS = frozenset(["sum", "mean", "max", "min", "var", "std", "prod", "logsumexp", "rms"])


def canonical_function(name: str) -> tuple[str, str]:
    """Return a function's canonical name and its subscript (``softmax_j`` → ``j``)."""
    if name == "Φ":
        return "Phi", ""  # the lower-case φ is by convention the density, not Φ
    low = name if name in ELEMENTWISE else name.lower()
    if low in FUNCTION_ALIASES:
        return FUNCTION_ALIASES[low], ""
    base, _, subscript = low.partition("_")
    base = FUNCTION_ALIASES.get(base, base)
    if subscript and base == "log":
        return base, subscript
    return low, ""
