"""Whose functions a text calls: the marks of Python, of NumPy and of PyTorch."""

from __future__ import annotations

import re

from minitransformer.verify.tokenizer import MAX_LENGTH

_MARKS = re.compile(
    r"@|\*\*|\.m?T\b|\b(?:np|numpy|torch|F|math|jnp|nn|tf)\.\w|"
    r"\.(?:transpose|softmax|sum|mean|exp|sqrt|swapaxes|matmul|mm|bmm|pow)\(|"
    r"\b(?:dim|axis|keepdims?|unbiased|correction|ddof)\s*=|\bif\b.+\belse\b|"
    r"\b(?:[A-Za-z]\w*_(?:hat|bar|tilde)|lr|learning_rate)\b|"
    r"\.(?:var|std|max|min|amax|amin|relu|sigmoid|tanh|clamp|clip|square|rsqrt|log|abs|size)\(|"
    r"\.shape\["
)
_TORCH = re.compile(
    r"\b(?:torch|F|nn)\.\w|\b(?:dim|keepdim|unbiased)\s*=|\.(?:mT\b|bmm\(|size\(|masked_fill\()"
)
_NUMPY = re.compile(r"\b(?:np|numpy|jnp|tf)\.\w|\b(?:axis|keepdims|ddof)\s*=")


def looks_like_python(text: str) -> bool:
    """Whether a formula carries marks that only Python has (``@``, ``.T``, ``np.``)."""
    return (
        len(text) <= MAX_LENGTH
        and "\\" not in text
        and not re.search(r"[√·×⊙ᵀ∑Σ∏^{]", text)
        and _MARKS.search(text) is not None
    )


def library_of(text: str) -> str:
    """Return whose functions a text calls: ``torch``, ``numpy`` or ``""`` where nothing tells.

    Examples
    --------
    >>> library_of("x.var(dim=-1)"), library_of("np.var(x)"), library_of("x.var(-1)")
    ('torch', 'numpy', '')
    """
    torch, numpy = _TORCH.search(text), _NUMPY.search(text)
    if bool(torch) == bool(numpy):
        return ""
    return "torch" if torch else "numpy"


def rank_of(source: str) -> int:
    """Return the rank that a batched product or a transpose of later axes implies."""
    pair = r"\.?(?:transpose|swapaxes)\([^()]*?\b"
    if re.search(pair + r"(?:2\s*,\s*3|3\s*,\s*2)\s*\)", source) or re.search(
        r"permute\([^()]*0\s*,\s*1\s*,\s*3\s*,\s*2\s*\)", source
    ):
        return 4
    if "bmm" in source or re.search(pair + r"(?:1\s*,\s*2|2\s*,\s*1)\s*\)", source):
        return 3
    if re.search(r"(?:permute|transpose)\([^()]*0\s*,\s*2\s*,\s*1\s*\)", source):
        return 3
    spec = re.search(r"einsum\(\s*['\"]\s*([a-zA-Z]+)\s*,", source)
    return len(spec[1]) if spec and len(spec[1]) > 2 else 0
