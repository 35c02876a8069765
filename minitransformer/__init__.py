"""A transformer library on NumPy or CuPy with PyTorch's names.

A published PyTorch listing runs with its import lines changed::

    import minitransformer as torch
    from minitransformer import nn
    import minitransformer.nn.functional as F

What does not exist here raises an error that names it.
"""

from __future__ import annotations

import importlib
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import autograd, cuda
from ._version import __version__
from .autograd import (
    Size,
    Tensor,
    autocast,
    clear_autocast_cache,
    enable_grad,
    get_autocast_dtype,
    is_autocast_enabled,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from .autograd.arithmetic import (
    abs,
    add,
    addcdiv,
    addcmul,
    allclose,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    ceil,
    clamp,
    clip,
    cos,
    div,
    eq,
    equal,
    erf,
    exp,
    floor,
    floor_divide,
    ge,
    gt,
    isclose,
    isfinite,
    isinf,
    isnan,
    le,
    lerp,
    log,
    log1p,
    log_softmax,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    masked_fill,
    maximum,
    minimum,
    mul,
    nan_to_num,
    ne,
    neg,
    pow,
    reciprocal,
    relu,
    remainder,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    softmax,
    sqrt,
    square,
    sub,
    tanh,
    trunc,
    where,
)
from .autograd.creation import (
    Generator,
    arange,
    as_tensor,
    bernoulli,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    logspace,
    multinomial,
    normal,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    tensor,
    tril_indices,
    triu_indices,
    zeros,
    zeros_like,
)
from .autograd.inplace import index_add, index_fill, scatter, scatter_add
from .autograd.operands import result_type
from .autograd.printing import set_printoptions
from .autograd.products import (
    addmm,
    baddbmm,
    bmm,
    cosine_similarity,
    dot,
    einsum,
    matmul,
    mm,
    mv,
    outer,
)
from .autograd.reductions import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    argsort,
    bincount,
    count_nonzero,
    cumsum,
    logsumexp,
    max,
    mean,
    median,
    min,
    norm,
    prod,
    sort,
    std,
    sum,
    topk,
    unique,
    var,
)
from .autograd.shapes import (
    broadcast_to,
    cat,
    chunk,
    clone,
    concat,
    concatenate,
    diag,
    diagonal,
    flatten,
    flip,
    gather,
    hstack,
    index_select,
    masked_select,
    meshgrid,
    movedim,
    narrow,
    nonzero,
    permute,
    ravel,
    repeat_interleave,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    swapaxes,
    t,
    take_along_dim,
    tile,
    transpose,
    tril,
    triu,
    unbind,
    unflatten,
    unsqueeze,
    vstack,
)
from .backend import (
    MatmulSwitch,
    get_float32_matmul_precision,
    get_num_threads,
    initial_seed,
    manual_seed,
    set_default_dtype,
    set_float32_matmul_precision,
    set_num_threads,
)
from .backend import default_dtype as get_default_dtype
from .backend import get_random_state as get_rng_state
from .backend import limits as _limits
from .backend import parse_device as device
from .backend import resolve_dtype as _resolve_dtype
from .backend import set_random_state as set_rng_state

if TYPE_CHECKING:
    from . import amp, nn, optim, utils

    bfloat16: Any

inference_mode = no_grad
multiply, subtract, divide, true_divide = mul, sub, div, div
swapdims = swapaxes

dtype = np.dtype
float16 = half = np.dtype(np.float16)
float32 = float = np.dtype(np.float32)
float64 = double = np.dtype(np.float64)
uint8 = np.dtype(np.uint8)
int8 = np.dtype(np.int8)
int16 = short = np.dtype(np.int16)
int32 = int = np.dtype(np.int32)
int64 = long = np.dtype(np.int64)
bool = np.dtype(np.bool_)

inf, nan, pi, e = math.inf, math.nan, math.pi, math.e

# Switches that programs set before they start. There is no cuDNN here for the second to switch.
backends = SimpleNamespace(
    cuda=SimpleNamespace(matmul=MatmulSwitch()),
    cudnn=SimpleNamespace(allow_tf32=False, benchmark=False, deterministic=True),
    mps=SimpleNamespace(is_available=lambda: False),
)


class finfo:
    """The limits of a floating-point type, as Python numbers.

    Parameters
    ----------
    type : dtype, optional
        The default dtype unless given.

    Examples
    --------
    >>> finfo(float32).eps
    1.1920928955078125e-07
    """

    def __init__(self, type: Any = None) -> None:
        limits = _limits(get_default_dtype() if type is None else _resolve_dtype(type))
        self.bits = limits.bits
        for name in ("min", "max", "eps", "tiny", "smallest_normal", "resolution"):
            setattr(self, name, getattr(limits, name).item())

    def __getattr__(self, name: str) -> Any:  # the limits, for type checkers
        raise AttributeError(f"finfo has no attribute {name!r}")


iinfo = np.iinfo


def is_tensor(obj: object) -> Any:
    """Return whether `obj` is a `Tensor`."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> Any:
    """Return whether the elements of `input` are floating-point numbers."""
    return input.is_floating_point()


def numel(input: Tensor) -> Any:
    """Return how many elements `input` has."""
    return input.numel()


def FloatTensor(*data: Any) -> Tensor:
    """Return a float32 tensor with this data, or of these lengths."""
    return Tensor(*data).float()


def LongTensor(*data: Any) -> Tensor:
    """Return an int64 tensor with this data, or of these lengths."""
    if len(data) == 1 and isinstance(data[0], (list, np.ndarray)):
        return tensor(data[0], dtype=int64)
    return Tensor(*data).long()


_SUBMODULES = ("amp", "bench", "data", "models", "nn", "optim", "utils", "verify")
_REFUSED = {
    "save": "pickles can run code when they are read; save model.state_dict() as safetensors",
    "load": "pickles can run code when they are read; load safetensors files",
    "compile": "nothing here is compiled; leave the line out",
}


def _bfloat16() -> Any:
    """Return the dtype, or its name alone where `ml_dtypes` is missing.

    Programs write it into their tables of dtypes on every machine, so only its use is refused.
    """
    try:
        return _resolve_dtype("bfloat16")
    except TypeError:
        return "bfloat16"


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name == "bfloat16":
        return _bfloat16()
    if name in _REFUSED:
        raise AttributeError(f"minitransformer has no `torch.{name}`: {_REFUSED[name]}")
    import difflib

    near = difflib.get_close_matches(name, globals(), n=3)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise AttributeError(f"minitransformer has no `torch.{name}`{hint}")


__all__ = [
    "FloatTensor",
    "Generator",
    "LongTensor",
    "Size",
    "Tensor",
    "__version__",
    "abs",
    "add",
    "addcdiv",
    "addcmul",
    "addmm",
    "all",
    "allclose",
    "amax",
    "amin",
    "amp",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "as_tensor",
    "autocast",
    "autograd",
    "backends",
    "baddbmm",
    "bernoulli",
    "bfloat16",
    "bincount",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "bmm",
    "bool",
    "broadcast_to",
    "cat",
    "ceil",
    "chunk",
    "clamp",
    "clear_autocast_cache",
    "clip",
    "clone",
    "concat",
    "concatenate",
    "cos",
    "cosine_similarity",
    "count_nonzero",
    "cuda",
    "cumsum",
    "device",
    "diag",
    "diagonal",
    "div",
    "divide",
    "dot",
    "double",
    "dtype",
    "e",
    "einsum",
    "empty",
    "empty_like",
    "enable_grad",
    "eq",
    "equal",
    "erf",
    "exp",
    "eye",
    "finfo",
    "flatten",
    "flip",
    "float",
    "float16",
    "float32",
    "float64",
    "floor",
    "floor_divide",
    "from_numpy",
    "full",
    "full_like",
    "gather",
    "ge",
    "get_autocast_dtype",
    "get_default_dtype",
    "get_float32_matmul_precision",
    "get_num_threads",
    "get_rng_state",
    "gt",
    "half",
    "hstack",
    "iinfo",
    "index_add",
    "index_fill",
    "index_select",
    "inf",
    "inference_mode",
    "initial_seed",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_autocast_enabled",
    "is_floating_point",
    "is_grad_enabled",
    "is_tensor",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "lerp",
    "linspace",
    "log",
    "log1p",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logspace",
    "logsumexp",
    "long",
    "lt",
    "manual_seed",
    "masked_fill",
    "masked_select",
    "matmul",
    "max",
    "maximum",
    "mean",
    "median",
    "meshgrid",
    "min",
    "minimum",
    "mm",
    "movedim",
    "mul",
    "multinomial",
    "multiply",
    "mv",
    "nan",
    "nan_to_num",
    "narrow",
    "ne",
    "neg",
    "nn",
    "no_grad",
    "nonzero",
    "norm",
    "normal",
    "numel",
    "ones",
    "ones_like",
    "optim",
    "outer",
    "permute",
    "pi",
    "pow",
    "prod",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "ravel",
    "reciprocal",
    "relu",
    "remainder",
    "repeat_interleave",
    "reshape",
    "result_type",
    "roll",
    "round",
    "rsqrt",
    "scatter",
    "scatter_add",
    "set_default_dtype",
    "set_float32_matmul_precision",
    "set_grad_enabled",
    "set_num_threads",
    "set_printoptions",
    "set_rng_state",
    "short",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sub",
    "subtract",
    "sum",
    "swapaxes",
    "swapdims",
    "t",
    "take_along_dim",
    "tanh",
    "tensor",
    "tile",
    "topk",
    "transpose",
    "tril",
    "tril_indices",
    "triu",
    "triu_indices",
    "true_divide",
    "trunc",
    "uint8",
    "unbind",
    "unflatten",
    "unique",
    "unsqueeze",
    "utils",
    "var",
    "vstack",
    "where",
    "zeros",
    "zeros_like",
]
