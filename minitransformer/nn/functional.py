"""Functions on tensors: each checks its arguments and puts one kernel on the tape.

Names, argument order, defaults and mask senses are PyTorch's; `feed_forward`,
`gated_feed_forward` and `rotary` are additions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor, record
from ..autograd.inplace import in_place
from ..autograd.precision import as_one_operation, is_autocast_enabled
from ..autograd.products import cosine_similarity
from ..backend import array_module, device_of, is_floating, limits, next_key
from ..kernels import activation as _activation
from ..kernels import attention as _attention
from ..kernels import cross_entropy as _cross_entropy
from ..kernels import dropout as _dropout
from ..kernels import embedding as _embedding
from ..kernels import feed_forward as _feed_forward
from ..kernels import layer_norm as _layer_norm
from ..kernels import linear as _linear
from ..kernels import positional as _positional
from ..kernels import rms_norm as _rms_norm
from ..kernels import shape as _shape
from ..kernels import softmax as _softmax

__all__ = [
    "binary_cross_entropy_with_logits",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "embedding",
    "feed_forward",
    "gated_feed_forward",
    "gelu",
    "kl_div",
    "layer_norm",
    "linear",
    "log_softmax",
    "logsigmoid",
    "mse_loss",
    "multi_head_attention_forward",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "relu",
    "rms_norm",
    "rotary",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "tanh",
]


# -- checks -----------------------------------------------------------------------


def _check_tensors(name: str, **tensors: Any) -> None:
    """Require Tensors (or None) on one device."""
    first = None
    for argument, value in tensors.items():
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: argument '{argument}' must be a Tensor, not {type(value).__name__}; "
                "wrap it with minitransformer.tensor(...)"
            )
        if first is None:
            first, home = argument, value
        elif type(value.array) is not type(home.array):
            raise RuntimeError(
                f"{name}: expected all tensors to be on the same device, but '{first}' is on "
                f"{device_of(home.array)} and '{argument}' on {device_of(value.array)}; "
                "move one with .to(device)"
            )


def _check_same_dtype(name: str, **tensors: Tensor | None) -> None:
    """Require one floating-point dtype, as PyTorch's products do."""
    found = {k: v.array.dtype for k, v in tensors.items() if v is not None}
    dtypes = set(found.values())
    if len(dtypes) > 1 and not is_autocast_enabled():
        listed = ", ".join(f"{argument} is {dtype}" for argument, dtype in found.items())
        raise RuntimeError(f"{name}: expected one dtype, but {listed}; cast with .to(dtype)")
    if integers := [str(dtype) for dtype in dtypes if not is_floating(dtype)]:
        raise RuntimeError(
            f"{name}: needs floating-point tensors, found {integers[0]}; use .float()"
        )


def _check_integers(name: str, argument: str, value: Tensor) -> None:
    if value.array.dtype.kind not in "iu":
        raise RuntimeError(
            f"{name}: '{argument}' must hold integers (Long or Int), found {value.array.dtype}; "
            "convert it with .long()"
        )


def _check_probability(name: str, p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{name}: dropout probability has to be between 0 and 1, but got {p}")


def _check_reduction(name: str, reduction: str, size_average: Any, reduce: Any) -> None:
    if size_average is not None or reduce is not None:
        raise TypeError(f"{name}: size_average and reduce were replaced by reduction=...")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction: none, mean or sum")


def _reduced(values: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


# -- products and lookups -----------------------------------------------------------


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Apply :math:`y = x W^\top + b` to the last dimension.

    Parameters
    ----------
    input : (..., in_features) float Tensor
    weight : (out_features, in_features) or (in_features,) float Tensor
    bias : (out_features,) float Tensor, optional

    Returns
    -------
    (..., out_features) Tensor

    Raises
    ------
    RuntimeError
        If shapes, dtypes or devices do not fit.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.linear(mt.ones(2, 3), mt.ones(4, 3)).shape
    torch.Size([2, 4])
    """
    _check_tensors("linear", input=input, weight=weight, bias=bias)
    _check_same_dtype("linear", input=input, weight=weight, bias=bias)
    if weight.ndim == 1:
        product = (input * weight).sum(-1)
        return product if bias is None else product + bias
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise RuntimeError(
            f"linear: mat1 and mat2 shapes cannot be multiplied: input is {tuple(input.shape)}, "
            f"weight (out_features, in_features) is {tuple(weight.shape)}; the last dimension of "
            "input must equal in_features"
        )
    if bias is not None and tuple(bias.shape) not in ((weight.shape[0],), (1,), ()):
        raise RuntimeError(
            f"linear: bias has shape {tuple(bias.shape)}, expected ({weight.shape[0]},)"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        bias = bias.expand(weight.shape[0])
    return record(_linear.linear_forward, _linear.linear_backward, input, weight, bias)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Look up rows of a table.

    Parameters
    ----------
    input : (...) integer Tensor
        Row numbers.
    weight : (V, D) float Tensor
        The table.
    padding_idx : int, optional
        A row that receives no gradient; may be negative.
    max_norm, norm_type, scale_grad_by_freq, sparse
        Only their defaults are supported.

    Returns
    -------
    (..., D) Tensor

    Raises
    ------
    IndexError
        If an id is negative or not below V.
    RuntimeError
        If `input` does not hold integers or `weight` is not a matrix.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.embedding(mt.tensor([[0, 2]]), mt.ones(3, 4)).shape
    torch.Size([1, 2, 4])
    """
    _check_tensors("embedding", input=input, weight=weight)
    for option, used in (
        ("max_norm", max_norm is not None),
        ("scale_grad_by_freq", scale_grad_by_freq),
        ("sparse", sparse),
    ):
        if used:
            raise NotImplementedError(f"embedding: {option} is not supported")
    _check_integers("embedding", "input", input)
    if weight.ndim != 2:
        raise RuntimeError(f"'weight' must be 2-D, found shape {tuple(weight.shape)}")
    rows = weight.shape[0]
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise ValueError(
            f"embedding: padding_idx {padding_idx} must be within the {rows} embeddings"
        )
    return record(
        _embedding.embedding_forward,
        _embedding.embedding_backward_sparse,
        input,
        weight,
        padding_idx=padding_idx,
    )


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Return 0/1 rows with the one at each class.

    Parameters
    ----------
    tensor : (...) integer Tensor
        Class numbers.
    num_classes : int
        Length of the rows; -1 takes the largest class plus one.

    Returns
    -------
    (..., num_classes) int64 Tensor

    Raises
    ------
    RuntimeError
        If a class is negative or not below `num_classes`.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.one_hot(mt.tensor([1, 0])).tolist()
    [[0, 1], [1, 0]]
    """
    _check_tensors("one_hot", tensor=tensor)
    _check_integers("one_hot", "tensor", tensor)
    ids = tensor.array
    if ids.size == 0 and num_classes <= 0:
        raise RuntimeError("one_hot: cannot infer the number of classes from an empty tensor")
    low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, -1)
    if low < 0:
        raise RuntimeError(f"one_hot: class values must be non-negative, found {low}")
    if num_classes != -1 and high >= num_classes:
        raise RuntimeError(
            f"one_hot: class values must be smaller than num_classes={num_classes}, found {high}"
        )
    xp = array_module(ids)
    columns = xp.arange(high + 1 if num_classes == -1 else num_classes)
    return Tensor((ids[..., None] == columns).astype("int64"))


# -- normalisation --------------------------------------------------------------------


def _check_normalized(
    name: str, input: Tensor, normalized_shape: Sequence[int], **affine: Tensor | None
) -> int:
    """Require the trailing shape and equally shaped parameters; return its length."""
    shape = tuple(normalized_shape)
    n = len(shape)
    if n == 0 or tuple(input.shape[-n:]) != shape:
        raise RuntimeError(
            f"{name}: given normalized_shape={list(shape)}, expected input with shape "
            f"[*, {', '.join(map(str, shape))}], but got input of size {list(input.shape)}"
        )
    for argument, value in affine.items():
        if value is not None and tuple(value.shape) != shape:
            raise RuntimeError(
                f"{name}: expected {argument} of shape {list(shape)} like normalized_shape, "
                f"found {list(value.shape)}"
            )
    return n


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    r"""Normalise the trailing dimensions to mean 0 and variance 1, then scale and shift.

    Parameters
    ----------
    input : (..., *normalized_shape) float Tensor
    normalized_shape : sequence of int
        The trailing shape over which mean and variance are taken.
    weight, bias : normalized_shape float Tensor, optional
    eps : float
        Added to the (biased) variance under the root.

    Returns
    -------
    Tensor of input's shape

    Raises
    ------
    RuntimeError
        If shapes, dtypes or devices do not fit.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.layer_norm(mt.tensor([[1.0, 3.0]]), [2], eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    _check_tensors("layer_norm", input=input, weight=weight, bias=bias)
    _check_same_dtype("layer_norm", input=input, weight=weight, bias=bias)
    n = _check_normalized("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    return record(
        _layer_norm.layer_norm_forward,
        _layer_norm.layer_norm_backward,
        input,
        weight,
        bias,
        normalized_ndim=n,
        eps=eps,
    )


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    r"""Divide the trailing dimensions by their root mean square, then scale.

    Parameters
    ----------
    input : (..., *normalized_shape) float Tensor
    normalized_shape : sequence of int
    weight : normalized_shape float Tensor, optional
    eps : float, optional
        Added to the mean square; None means the machine epsilon of the dtype.

    Returns
    -------
    Tensor of input's shape

    Raises
    ------
    RuntimeError
        If shapes, dtypes or devices do not fit.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.rms_norm(mt.tensor([[3.0, 3.0]]), [2], eps=0.0).tolist()
    [[1.0, 1.0]]
    """
    _check_tensors("rms_norm", input=input, weight=weight)
    _check_same_dtype("rms_norm", input=input, weight=weight)
    n = _check_normalized("rms_norm", input, normalized_shape, weight=weight)
    return record(
        _rms_norm.rms_norm_forward,
        _rms_norm.rms_norm_backward,
        input,
        weight,
        normalized_ndim=n,
        eps=eps,
    )


def normalize(
    input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    r"""Divide by :math:`\max(\lVert x\rVert_p, \epsilon)` along one dimension.

    Parameters
    ----------
    input : float Tensor
    p : float
        Exponent of the norm; ``inf`` for the largest absolute value.
    dim : int
    eps : float
        Lower bound of the divisor.
    out : None
        Not supported.

    Returns
    -------
    Tensor of input's shape

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.normalize(mt.tensor([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    if out is not None:
        raise NotImplementedError("normalize: out= is not supported")
    _check_tensors("normalize", input=input)
    if math.isinf(p):
        return input / input.abs().amax(dim, keepdim=True).clamp(min=eps)
    powers = input * input if p == 2 else input.abs() ** p
    # Clamped before the root, whose slope at zero is infinite; never below what the dtype holds.
    least = max(eps**p, float(limits(input.array.dtype).tiny))
    total = powers.sum(dim, keepdim=True).clamp(min=least)
    return input / (total.sqrt() if p == 2 else total ** (1.0 / p))


# -- activations ----------------------------------------------------------------------


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return the positive part, max(x, 0)."""
    _check_tensors("relu", input=input)
    if inplace:
        return in_place("relu_", relu)(input)
    return record(_activation.relu_forward, _activation.relu_backward, input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    r"""Return :math:`x\,\Phi(x)` with the normal distribution function, or its tanh form.

    Parameters
    ----------
    input : float Tensor
    approximate : {"none", "tanh"}

    Returns
    -------
    Tensor of input's shape

    Raises
    ------
    RuntimeError
        For another `approximate`.
    """
    _check_tensors("gelu", input=input)
    if approximate not in ("none", "tanh"):
        raise RuntimeError(
            f"gelu: approximate argument must be either none or tanh, got {approximate!r}"
        )
    return record(
        _activation.gelu_forward, _activation.gelu_backward, input, approximate=approximate
    )


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return x times its logistic sigmoid."""
    _check_tensors("silu", input=input)
    if inplace:
        return in_place("silu_", silu)(input)
    return record(_activation.silu_forward, _activation.silu_backward, input)


def sigmoid(input: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x))."""
    _check_tensors("sigmoid", input=input)
    return input.sigmoid()


def tanh(input: Tensor) -> Tensor:
    """Return the hyperbolic tangent."""
    _check_tensors("tanh", input=input)
    return input.tanh()


@as_one_operation
def logsigmoid(input: Tensor) -> Tensor:
    """Return log(1 / (1 + exp(-x))) without overflow: the log-softmax of x beside 0."""
    _check_tensors("logsigmoid", input=input)
    return _log_sigmoids(input)[0]


def _log_sigmoids(x: Tensor) -> tuple[Tensor, ...]:
    """Return log sigma(x) and log sigma(-x): the log-softmax of the pair (x, 0)."""
    zero = Tensor(array_module(x.array).zeros_like(x.array))
    pair = record(_shape.stack_forward, _shape.stack_backward, x, zero, axis=-1)
    return log_softmax(pair, dim=-1).unbind(-1)


def _softmax_dim(name: str, input: Tensor, dim: int | None, stacklevel: int) -> int:
    if dim is None:
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. "
            "Change the call to include dim=X as an argument.",
            stacklevel=stacklevel + 1,
        )
        return 0 if input.ndim in (0, 1, 3) else 1
    if not -max(input.ndim, 1) <= dim < max(input.ndim, 1):
        raise IndexError(
            f"{name}: dimension out of range (expected to be in range of "
            f"[{-max(input.ndim, 1)}, {max(input.ndim, 1) - 1}], but got {dim})"
        )
    return dim


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """Return exp(x) scaled to sum to one along `dim`.

    Parameters
    ----------
    input : float Tensor
    dim : int
    dtype : dtype, optional
        Cast to this first.

    Returns
    -------
    Tensor of input's shape

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.softmax(mt.tensor([0.0, 0.0]), dim=0).tolist()
    [0.5, 0.5]
    """
    _check_tensors("softmax", input=input)
    axis = _softmax_dim("softmax", input, dim, _stacklevel)
    input = input if dtype is None else input.to(dtype)
    _check_same_dtype("softmax", input=input)
    return record(_softmax.softmax_forward, _softmax.softmax_backward, input, axis=axis)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """Return the logarithm of `softmax`, computed without forming it."""
    _check_tensors("log_softmax", input=input)
    axis = _softmax_dim("log_softmax", input, dim, _stacklevel)
    input = input if dtype is None else input.to(dtype)
    _check_same_dtype("log_softmax", input=input)
    return record(_softmax.log_softmax_forward, _softmax.log_softmax_backward, input, axis=axis)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Set each number to zero with probability `p` and divide the others by 1 - p.

    Parameters
    ----------
    input : float Tensor
    p : float
    training : bool
        False returns `input` itself.
    inplace : bool
        Put the result in the place of `input`.

    Returns
    -------
    Tensor of input's shape

    Raises
    ------
    ValueError
        If `p` is not a probability.
    """
    _check_tensors("dropout", input=input)
    _check_probability("dropout", p)
    if not training or p == 0.0:
        return input
    if inplace:
        return in_place("dropout_", dropout)(input, p)
    return record(_dropout.dropout_forward, _dropout.dropout_backward, input, p=p, key=next_key())


# -- feed-forward and positions ---------------------------------------------------------


def feed_forward(
    input: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    activation: str = "relu",
    dropout_p: float = 0.0,
) -> Tensor:
    r"""Apply :math:`\mathrm{dropout}(\phi(x W_1^\top + b_1)) W_2^\top + b_2` as one kernel.

    Parameters
    ----------
    input : (..., D) float Tensor
    weight1 : (F, D) float Tensor
    bias1 : (F,) float Tensor or None
    weight2 : (D', F) float Tensor
    bias2 : (D',) float Tensor or None
    activation : {"relu", "gelu", "gelu_tanh", "silu"}
    dropout_p : float
        Always applied if positive: pass 0 in evaluation.

    Returns
    -------
    (..., D') Tensor

    Raises
    ------
    RuntimeError
        If shapes, dtypes or devices do not fit.
    ValueError
        If the activation is unknown or `dropout_p` no probability.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", 2017, equation 2.

    Examples
    --------
    >>> import minitransformer as mt
    >>> F = mt.nn.functional
    >>> F.feed_forward(mt.ones(1, 2), mt.ones(3, 2), None, mt.ones(2, 3), None).tolist()
    [[6.0, 6.0]]
    """
    tensors = {
        "input": input,
        "weight1": weight1,
        "bias1": bias1,
        "weight2": weight2,
        "bias2": bias2,
    }
    _check_tensors("feed_forward", **tensors)
    _check_same_dtype("feed_forward", **tensors)
    _check_probability("feed_forward", dropout_p)
    if activation not in ("relu", "gelu", "gelu_tanh", "silu"):
        raise ValueError(
            f"feed_forward: activation must be relu, gelu, gelu_tanh or silu, got {activation!r}"
        )
    if (
        weight1.ndim != 2
        or weight2.ndim != 2
        or input.shape[-1:] != weight1.shape[1:]
        or weight2.shape[1] != weight1.shape[0]
    ):
        raise RuntimeError(
            f"feed_forward: input {tuple(input.shape)}, weight1 (F, D) {tuple(weight1.shape)} and "
            f"weight2 (D', F) {tuple(weight2.shape)} do not fit together"
        )
    for argument, bias, weight in (("bias1", bias1, weight1), ("bias2", bias2, weight2)):
        if bias is not None and tuple(bias.shape) != (weight.shape[0],):
            raise RuntimeError(
                f"feed_forward: {argument} has shape {tuple(bias.shape)}, "
                f"expected ({weight.shape[0]},)"
            )
    return record(
        _feed_forward.feed_forward_forward,
        _feed_forward.feed_forward_backward,
        input,
        weight1,
        bias1,
        weight2,
        bias2,
        activation=activation,
        dropout_p=dropout_p,
        key=next_key() if dropout_p > 0.0 else None,
    )


def gated_feed_forward(
    input: Tensor,
    weight_gate: Tensor,
    weight_up: Tensor,
    weight_down: Tensor,
    activation: str = "silu",
) -> Tensor:
    r"""Apply :math:`(\phi(x W_g^\top) \odot x W_u^\top) W_d^\top` as one kernel.

    Parameters
    ----------
    input : (..., D) float Tensor
    weight_gate, weight_up : (F, D) float Tensor
    weight_down : (D', F) float Tensor
    activation : {"silu", "gelu", "gelu_tanh", "relu"}

    Returns
    -------
    (..., D') Tensor

    Raises
    ------
    RuntimeError
        If shapes, dtypes or devices do not fit.
    ValueError
        If the activation is unknown.

    References
    ----------
    .. [1] Shazeer, "GLU variants improve transformer", 2020, equation 6.
    """
    tensors = {
        "input": input,
        "weight_gate": weight_gate,
        "weight_up": weight_up,
        "weight_down": weight_down,
    }
    _check_tensors("gated_feed_forward", **tensors)
    _check_same_dtype("gated_feed_forward", **tensors)
    if activation not in ("relu", "gelu", "gelu_tanh", "silu"):
        raise ValueError(
            "gated_feed_forward: activation must be relu, gelu, gelu_tanh or silu, "
            f"got {activation!r}"
        )
    if (
        weight_gate.ndim != 2
        or weight_down.ndim != 2
        or weight_gate.shape != weight_up.shape
        or input.shape[-1:] != weight_gate.shape[1:]
        or weight_down.shape[1] != weight_gate.shape[0]
    ):
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise RuntimeError(f"gated_feed_forward: {shapes} do not fit together")
    return record(
        _feed_forward.gated_feed_forward_forward,
        _feed_forward.gated_feed_forward_backward,
        input,
        weight_gate,
        weight_up,
        weight_down,
        activation=activation,
    )


def rotary(input: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Rotate pairs of features by position-dependent angles.

    Parameters
    ----------
    input : (..., L, E) float Tensor
        Queries or keys; E is even.
    cos, sin : float Tensor
        Of the angles, broadcastable to (..., L, E // 2).
    interleaved : bool
        Pair features (2i, 2i + 1) instead of (i, i + E / 2).

    Returns
    -------
    Tensor of input's shape

    References
    ----------
    .. [1] Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021,
       equation 34.
    """
    _check_tensors("rotary", input=input, cos=cos, sin=sin)
    return record(
        _positional.rotary_forward,
        _positional.rotary_backward,
        input,
        cos,
        sin,
        interleaved=interleaved,
    )


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Add (or, if negative, cut) entries at the ends of the last dimensions.

    Parameters
    ----------
    input : Tensor
    pad : sequence of int
        Pairs (before, after), the last dimension first.
    mode : {"constant"}
    value : float, optional
        What is added; 0 if not given.

    Returns
    -------
    Tensor

    Raises
    ------
    RuntimeError
        If `pad` has odd length or more pairs than there are dimensions.
    NotImplementedError
        For another mode.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.pad(mt.tensor([1, 2]), (1, -1)).tolist()
    [0, 1]
    """
    _check_tensors("pad", input=input)
    if mode != "constant":
        raise NotImplementedError(f"pad: mode {mode!r} is not supported, only 'constant'")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise RuntimeError(
            f"pad: needs (before, after) pairs for at most {input.ndim} dimensions, got {list(pad)}"
        )
    pairs = [(0, 0)] * (input.ndim - len(pad) // 2)
    pairs += [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    for size, (before, after) in zip(input.shape, pairs):
        if size + before + after < 0:
            raise RuntimeError(
                f"pad: {list(pad)} cuts more than the input of shape {tuple(input.shape)} has"
            )
    if any(width < 0 for pair in pairs for width in pair):
        input = input[
            tuple(
                slice(max(-before, 0), size - max(-after, 0))
                for size, (before, after) in zip(input.shape, pairs)
            )
        ]
    widths = tuple((max(before, 0), max(after, 0)) for before, after in pairs)
    return record(
        _shape.pad_forward,
        _shape.pad_backward,
        input,
        widths=widths,
        value=0 if value is None else value,
    )


# -- losses ---------------------------------------------------------------------------


def _classes_last(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Bring (C), (N, C) or (N, C, d1, ...) scores to (rows, C) and the target along.

    The third value says whether the target holds probabilities.
    """
    if input.ndim == 0:
        raise RuntimeError(f"{name}: input needs a class dimension, found a scalar")
    axis = 0 if input.ndim == 1 else 1
    rows_shape = tuple(input.shape[:axis]) + tuple(input.shape[axis + 1 :])
    probabilities = is_floating(target.array.dtype)
    expected = tuple(input.shape) if probabilities else rows_shape
    if tuple(target.shape) != expected:
        raise ValueError(
            f"{name}: input {tuple(input.shape)} has its classes in dimension {axis}, so target "
            f"must have shape {expected}, found {tuple(target.shape)}"
        )
    if input.ndim > 2:
        order = [0, *range(2, input.ndim), 1]
        input = input.permute(*order)
        target = target.permute(*order) if probabilities else target
    classes = input.shape[-1]
    rows = input.reshape(math.prod(rows_shape), classes)
    return rows, target.reshape(rows.shape if probabilities else (rows.shape[0],)), probabilities


def _check_classes(name: str, classes: int, target: Tensor, weight: Tensor | None) -> None:
    if weight is not None and tuple(weight.shape) != (classes,):
        raise RuntimeError(
            f"{name}: weight tensor should be defined either for all {classes} classes or no "
            f"classes but got weight tensor of shape {tuple(weight.shape)}"
        )
    if not is_floating(target.array.dtype):
        _check_integers(name, "target", target)


def _check_targets(name: str, classes: int, target: Tensor, ignore_index: int) -> None:
    if target.is_cuda:  # looking at the classes would stop the queue
        return
    ids = target.array
    wrong = ((ids < 0) | (ids >= classes)) & (ids != ignore_index)
    if wrong.any():
        raise IndexError(
            f"{name}: target {int(ids[wrong][0])} is out of bounds: with {classes} classes targets "
            f"must lie in [0, {classes - 1}] or equal ignore_index={ignore_index}"
        )


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Return :math:`-\sum_c q_c \log \mathrm{softmax}(x)_c`, averaged over the targets.

    Parameters
    ----------
    input : (C,), (N, C) or (N, C, d1, ...) float Tensor
        Logits.
    target : (), (N,) or (N, d1, ...) integer Tensor, or float Tensor of input's shape
        Class numbers, or class probabilities.
    weight : (C,) float Tensor, optional
        Per class.
    size_average, reduce : None
        Replaced by `reduction`.
    ignore_index : int
        A class number that contributes neither loss nor gradient.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the summed weights of the targets that count.
    label_smoothing : float
        How much of the target is spread evenly over the classes.

    Returns
    -------
    Tensor
        A scalar, or with "none" the shape of the class-number target.

    Raises
    ------
    IndexError
        If a class number is out of range.
    ValueError
        If the target's shape does not fit, or an option has a wrong value.

    Examples
    --------
    >>> import minitransformer as mt
    >>> round(mt.nn.functional.cross_entropy(mt.zeros(1, 4), mt.tensor([2])).item(), 4)
    1.3863
    """
    _check_tensors("cross_entropy", input=input, target=target, weight=weight)
    _check_same_dtype("cross_entropy", input=input, weight=weight)
    _check_reduction("cross_entropy", reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(
            f"cross_entropy: label_smoothing must be between 0.0 and 1.0, got {label_smoothing}"
        )
    rows, flat_target, probabilities = _classes_last("cross_entropy", input, target)
    _check_classes("cross_entropy", rows.shape[1], flat_target, weight)
    if probabilities:
        _check_same_dtype("cross_entropy", input=input, target=target)
    loss = record(
        _cross_entropy.cross_entropy_forward,
        _cross_entropy.cross_entropy_backward,
        rows,
        flat_target,
        weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )
    if reduction == "none":
        shape = tuple(input.shape)
        return loss.reshape(shape[:1] + shape[2:] if len(shape) > 1 else ())
    return loss


@as_one_operation
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return minus the log-probability of each target class, averaged.

    Parameters
    ----------
    input : (C,), (N, C) or (N, C, d1, ...) float Tensor
        Log-probabilities.
    target : (), (N,) or (N, d1, ...) integer Tensor
    weight : (C,) float Tensor, optional
    size_average, reduce : None
        Replaced by `reduction`.
    ignore_index : int
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    Tensor

    Raises
    ------
    IndexError
        If a class number is out of range.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.nll_loss(mt.tensor([[-2.0, -1.0]]), mt.tensor([0])).item()
    2.0
    """
    _check_tensors("nll_loss", input=input, target=target, weight=weight)
    _check_same_dtype("nll_loss", input=input, weight=weight)
    _check_reduction("nll_loss", reduction, size_average, reduce)
    _check_integers("nll_loss", "target", target)
    rows, flat_target, _ = _classes_last("nll_loss", input, target)
    _check_classes("nll_loss", rows.shape[1], flat_target, weight)
    _check_targets("nll_loss", rows.shape[1], flat_target, ignore_index)
    ids = flat_target.array
    xp = array_module(ids)
    counted = ids != ignore_index
    classes = xp.where(counted, ids, 0)
    picked = rows.gather(1, Tensor(classes[:, None])).squeeze(1)
    weights = xp.ones_like(picked.array) if weight is None else weight.array[classes]
    weights = Tensor(xp.where(counted, weights, xp.zeros_like(weights)))
    # Selected, not multiplied: an ignored row may hold -inf.
    losses = -(picked.masked_fill(Tensor(~counted), 0.0) * weights)
    if reduction == "none":
        return losses.reshape(tuple(target.shape))
    return losses.sum() / weights.sum() if reduction == "mean" else losses.sum()


def _check_pair(name: str, input: Tensor, target: Tensor) -> None:
    if tuple(input.shape) != tuple(target.shape):
        warnings.warn(
            f"{name}: target of size {tuple(target.shape)} differs from input of size "
            f"{tuple(input.shape)}; broadcasting them is rarely what is meant",
            stacklevel=3,
        )


@as_one_operation
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Return the squared difference, averaged.

    Parameters
    ----------
    input, target : float Tensor
    size_average, reduce : None
        Replaced by `reduction`.
    reduction : {"mean", "sum", "none"}
    weight : float Tensor, optional
        Per element; "mean" then divides by its sum.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.functional.mse_loss(mt.tensor([1.0, 3.0]), mt.zeros(2)).item()
    5.0
    """
    _check_tensors("mse_loss", input=input, target=target, weight=weight)
    _check_reduction("mse_loss", reduction, size_average, reduce)
    _check_pair("mse_loss", input, target)
    difference = input - target
    squares = difference * difference
    if weight is None:
        return _reduced(squares, reduction)
    if tuple(weight.shape) != tuple(input.shape):
        raise ValueError(
            f"mse_loss: weight {tuple(weight.shape)} must have the shape of input "
            f"{tuple(input.shape)}"
        )
    weighted = squares * weight
    return weighted.sum() / weight.sum() if reduction == "mean" else _reduced(weighted, reduction)


@as_one_operation
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    r"""Return :math:`-w\,[p\,y\log\sigma(x) + (1-y)\log(1-\sigma(x))]`, averaged.

    Parameters
    ----------
    input : float Tensor
        Logits.
    target : float Tensor of input's shape
        Between 0 and 1.
    weight : float Tensor, optional
        Broadcastable to input.
    size_average, reduce : None
        Replaced by `reduction`.
    reduction : {"mean", "sum", "none"}
    pos_weight : float Tensor, optional
        Weight of the positive class, broadcastable to input.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import minitransformer as mt
    >>> F = mt.nn.functional
    >>> round(F.binary_cross_entropy_with_logits(mt.zeros(2), mt.ones(2)).item(), 4)
    0.6931
    """
    name = "binary_cross_entropy_with_logits"
    _check_tensors(name, input=input, target=target, weight=weight, pos_weight=pos_weight)
    _check_reduction(name, reduction, size_average, reduce)
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(
            f"{name}: target size ({tuple(target.shape)}) must be the same as input size "
            f"({tuple(input.shape)})"
        )
    positive, negative = _log_sigmoids(input)
    positive = positive * target if pos_weight is None else positive * target * pos_weight
    losses = -(positive + (1 - target) * negative)
    return _reduced(losses if weight is None else losses * weight, reduction)


@as_one_operation
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    r"""Return the pointwise divergence :math:`q\,(\log q - x)` of log-probabilities x from q.

    Parameters
    ----------
    input : float Tensor
        Log-probabilities.
    target : float Tensor
        Probabilities, or their logarithms with `log_target`.
    size_average, reduce : None
        Replaced by `reduction`.
    reduction : {"batchmean", "mean", "sum", "none"}
        "batchmean" divides by the first dimension: the divergence itself. "mean" divides by
        the number of elements, as PyTorch does with a warning.
    log_target : bool

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import minitransformer as mt
    >>> q = mt.tensor([[0.5, 0.5]])
    >>> mt.nn.functional.kl_div(q.log(), q, reduction="batchmean").item()
    0.0
    """
    _check_tensors("kl_div", input=input, target=target)
    _check_reduction(
        "kl_div", "sum" if reduction == "batchmean" else reduction, size_average, reduce
    )
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size; "
            "'batchmean' divides only by the batch size, and aligns with the KL math definition",
            stacklevel=2,
        )
    if log_target:
        losses = target.exp() * (target - input)
    else:
        # The limit of q log q at q = 0 is 0; a logarithm of 1 in its place has no gradient there.
        xp = array_module(target.array)
        zero = Tensor(xp.asarray(target.array == 0))
        losses = target * target.masked_fill(zero, 1.0).log() - target * input
    if reduction == "batchmean":
        return losses.sum() / (input.shape[0] if input.ndim else 1)
    return _reduced(losses, reduction)


# -- attention --------------------------------------------------------------------------


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    r"""Return :math:`\mathrm{softmax}(s\,Q K^\top + M)\,V` without forming the L by S matrix.

    Parameters
    ----------
    query : (..., H, L, E) float Tensor
    key : (..., G, S, E) float Tensor
    value : (..., G, S, Ev) float Tensor
    attn_mask : Tensor broadcastable to (..., H, L, S), optional
        Boolean: True where a query MAY attend (the opposite of `nn.MultiheadAttention`).
        Float: added to the scores.
    dropout_p : float
        Always applied if positive: pass 0 in evaluation.
    is_causal : bool
        Let query i attend to keys 0..i only; excludes `attn_mask`.
    scale : float, optional
        Factor of the scores, by default 1 / sqrt(E).
    enable_gqa : bool
        Allow H to be a multiple of G, each key head serving H / G query heads in a row.

    Returns
    -------
    (..., H, L, Ev) Tensor
        Rows that may attend to nothing are zero.

    Raises
    ------
    RuntimeError
        If shapes, dtypes, devices or masks do not fit.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", 2017, equation 1.
    .. [2] Dao et al., "FlashAttention", 2022, algorithm 1.

    Examples
    --------
    >>> import minitransformer as mt
    >>> q = mt.ones(1, 2, 3, 4)
    >>> mt.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).shape
    torch.Size([1, 2, 3, 4])
    """
    name = "scaled_dot_product_attention"
    _check_tensors(name, query=query, key=key, value=value, attn_mask=attn_mask)
    _check_same_dtype(name, query=query, key=key, value=value)
    _check_probability(name, dropout_p)
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            f"{name}: query, key and value need at least the dimensions (length, features), found "
            f"{query.ndim}, {key.ndim} and {value.ndim}"
        )
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise RuntimeError(
            f"{name}: query {tuple(query.shape)} and key {tuple(key.shape)} must agree in the last "
            f"dimension, key and value {tuple(value.shape)} in the one before it"
        )
    query, key, value, dims = _broadcast_heads(name, query, key, value, enable_gqa)
    if attn_mask is not None:
        if is_causal:
            raise RuntimeError(
                f"{name}: explicit attn_mask should not be set when is_causal=True; "
                "merge the causal mask into attn_mask"
            )
        full = (*query.shape[:-1], key.shape[-2])
        attn_mask = _check_attention_mask(name, attn_mask, full, query)
    out = record(
        _attention.attention_forward,
        _attention.attention_backward,
        query,
        key,
        value,
        attn_mask,
        is_causal=is_causal,
        scale=scale,
        dropout_p=dropout_p,
        key=next_key() if dropout_p > 0.0 else None,
        mask_gradient=attn_mask is not None and attn_mask.requires_grad,
    )
    return out.squeeze(0) if dims == 2 else out


def _broadcast_heads(
    name: str, query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Give the three equal leading dimensions, heads apart where they are grouped."""
    dims = max(query.ndim, key.ndim, value.ndim)
    if dims == 2:
        return query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0), dims
    if query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        return query, key, value, dims
    if enable_gqa:
        H, G = query.shape[-3], key.shape[-3]
        if value.shape[-3] != G or G == 0 or H % G:
            raise RuntimeError(
                f"{name}: with enable_gqa the query's {H} heads must be a multiple of the {G} "
                f"heads of key, which value ({value.shape[-3]}) shares"
            )
        trailing = -3
    else:
        trailing = -2
    try:
        lead = _broadcast_shapes(*(tuple(t.shape[:trailing]) for t in (query, key, value)))
    except ValueError:
        hint = "" if enable_gqa else "; for grouped heads pass enable_gqa=True"
        raise RuntimeError(
            f"{name}: query {tuple(query.shape)}, key {tuple(key.shape)} and value "
            f"{tuple(value.shape)} do not broadcast in their leading dimensions{hint}"
        ) from None
    query, key, value = (
        t if tuple(t.shape[:trailing]) == lead else t.expand(*lead, *t.shape[trailing:])
        for t in (query, key, value)
    )
    return query, key, value, dims


def _broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    import numpy as np

    return np.broadcast_shapes(*shapes)


def _refuse_inverted_causal(name: str, argument: str, mask: Tensor, may_attend: bool) -> None:
    """Refuse a causal mask whose true entries mean the opposite of what is expected here.

    Read the wrong way round it would let each position see the future alone. Numbers 0 and 1
    are refused in either pattern: added to the scores they would hide nothing.
    """
    array = mask.array
    *lead, L, S = array.shape
    if mask.is_cuda or L != S or L < 2 or math.prod(lead) != 1:
        return
    square = array.reshape(L, S)
    corners = (float(square[0, 0]), float(square[0, -1]))
    boolean = array.dtype.kind == "b"
    suspects = (
        (((0.0, 1.0) if may_attend else (1.0, 0.0)),) if boolean else ((1.0, 0.0), (0.0, 1.0))
    )
    if corners not in suspects:
        return
    past = array_module(square).tri(L, dtype=bool)
    if not (square == (past if corners[0] else ~past)).all():
        return
    sense = "may" if may_attend else "may NOT"
    if boolean:
        raise RuntimeError(
            f"{name}: {argument} is a causal mask of the opposite sense: here True means {sense} "
            f"attend; pass ~{argument}"
        )
    raise RuntimeError(
        f"{name}: {argument} is a causal mask of the numbers 0 and 1, which would be added to the "
        f"scores; pass it as bool, True where a query {sense} attend"
    )


def _check_attention_mask(name: str, mask: Tensor, full: tuple[int, ...], query: Tensor) -> Tensor:
    kind = mask.array.dtype.kind
    if kind not in "bfV" or mask.array.dtype.itemsize > max(query.array.dtype.itemsize, 4):
        raise RuntimeError(
            f"{name}: expected attn_mask dtype to be bool or float or to match query dtype, but "
            f"got attn_mask.dtype: {mask.array.dtype} and query.dtype: {query.array.dtype}"
        )
    shape = tuple(mask.shape)
    fits = len(shape) <= len(full) and all(
        m in (1, n) for m, n in zip(reversed(shape), reversed(full))
    )
    if not fits:
        raise RuntimeError(
            f"{name}: attn_mask of shape {shape} does not broadcast to the scores' shape {full} "
            "(..., query length, key length)"
        )
    _refuse_inverted_causal(name, "attn_mask", mask, may_attend=True)
    return mask.to(query.dtype) if kind != "b" and mask.dtype != query.dtype else mask


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""Project, attend in several heads, and project back.

    Parameters
    ----------
    query : (L, B, D) or (L, D) float Tensor
        With `batch_first` (B, L, D); the same holds for key and value.
    key : (S, B, Dk) or (S, Dk) float Tensor
    value : (S, B, Dv) or (S, Dv) float Tensor
    embed_dim_to_check : int
        D.
    num_heads : int
        H, a divisor of D.
    in_proj_weight : (3 D, D) float Tensor or None
        The three projections stacked: query, key, value.
    in_proj_bias : (3 D,) float Tensor or None
    bias_k, bias_v : (1, 1, D) float Tensor or None
        One learned key and value put after the others.
    add_zero_attn : bool
        Put a zero key and value after the others.
    dropout_p : float
        Dropout of the attention weights, in training only.
    out_proj_weight : (D, D) float Tensor
    out_proj_bias : (D,) float Tensor or None
    training : bool
    key_padding_mask : (B, S) or (S,) Tensor, optional
        Boolean: True where a key must NOT be attended to. Float: added to the scores.
    need_weights : bool
        Also return the attention weights; the fused kernel is used only without them.
    attn_mask : (L, S) or (B H, L, S) Tensor, optional
        Boolean: True where a query may NOT attend. Float: added to the scores.
    use_separate_proj_weight : bool
        Use the next three arguments instead of `in_proj_weight`.
    q_proj_weight : (D, D) float Tensor, optional
    k_proj_weight : (D, Dk) float Tensor, optional
    v_proj_weight : (D, Dv) float Tensor, optional
    static_k, static_v : None
        Not supported.
    average_attn_weights : bool
        Return weights averaged over the heads.
    is_causal : bool
        A promise that `attn_mask` is the causal mask, which then need not be read.
    batch_first : bool
        An addition to PyTorch's arguments that spares two transpositions.

    Returns
    -------
    output : Tensor of query's shape
    weights : (B, L, S) or, per head, (B, H, L, S) Tensor; None without `need_weights`
        Without the batch dimension for unbatched inputs.

    Raises
    ------
    RuntimeError
        If shapes, dtypes, devices or masks do not fit.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", 2017, section 3.2.2.
    """
    name = "multi_head_attention"
    if static_k is not None or static_v is not None:
        raise NotImplementedError(f"{name}: static_k and static_v are not supported")
    _check_tensors(
        name,
        query=query,
        key=key,
        value=value,
        in_proj_weight=in_proj_weight,
        key_padding_mask=key_padding_mask,
        attn_mask=attn_mask,
    )
    batched = query.ndim == 3
    if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
        raise RuntimeError(
            f"{name}: query, key and value must all be 3-D (batched) or all 2-D (unbatched), "
            f"found {query.ndim}-D, {key.ndim}-D and {value.ndim}-D"
        )
    same_qk, same_kv = key is query, value is key
    if not batched:
        batch_axis = 0 if batch_first else 1
        query = query.unsqueeze(batch_axis)
        key = query if same_qk else key.unsqueeze(batch_axis)
        value = key if same_kv else value.unsqueeze(batch_axis)
        if key_padding_mask is not None and key_padding_mask.ndim == 1:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    L, B, S = _check_heads_shapes(
        name, query, key, value, embed_dim_to_check, num_heads, batch_first
    )
    allowed = _Masks(name, B, num_heads, L, S, query)
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module "
            "method `generate_square_subsequent_mask` to create this mask."
        )
    allowed.check("attn_mask", attn_mask, ((L, S), (B * num_heads, L, S)))
    allowed.check("key_padding_mask", key_padding_mask, ((B, S),))
    if attn_mask is not None:
        _refuse_inverted_causal(name, "attn_mask", attn_mask, may_attend=False)

    D = embed_dim_to_check
    H, E = num_heads, D // num_heads
    if use_separate_proj_weight:
        q, k, v = _separate_projections(
            name, query, key, value, (q_proj_weight, k_proj_weight, v_proj_weight), in_proj_bias
        )
    else:
        if in_proj_weight is None:
            raise RuntimeError(
                f"{name}: in_proj_weight is None, but use_separate_proj_weight False"
            )
        if key.shape != value.shape:
            raise RuntimeError(
                f"{name}: key shape {tuple(key.shape)} does not match value shape "
                f"{tuple(value.shape)}"
            )
        q, k, v = _packed_projections(query, key, value, in_proj_weight, in_proj_bias)

    extra = 0
    if (bias_k is None) != (bias_v is None):
        raise RuntimeError(f"{name}: bias_k and bias_v must be given together")
    sequence = 1 if batch_first else 0
    one = (B, 1, D) if batch_first else (1, B, D)
    if bias_k is not None and bias_v is not None:
        k = _append(k, bias_k.expand(*one), sequence)
        v = _append(v, bias_v.expand(*one), sequence)
        extra += 1
    if add_zero_attn:
        zeros = Tensor(array_module(k.array).zeros(one, dtype=k.array.dtype))
        k, v = _append(k, zeros, sequence), _append(v, zeros, sequence)
        extra += 1

    # (B, L, D) or (L, B, D) to (B, H, L, E): views, nothing is copied.
    order = (0, 2, 1, 3) if batch_first else (1, 2, 0, 3)
    q, k, v = (t.reshape(t.shape[0], t.shape[1], H, E).permute(*order) for t in (q, k, v))
    dropout_p = dropout_p if training else 0.0
    weights = None
    if need_weights:
        bias = allowed.additive(attn_mask, key_padding_mask, extra)
        out, weights = _attention_with_weights(q, k, v, bias, key_padding_mask, extra, dropout_p)
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        # The promise covers the keys that were given, not those put after them.
        causal = is_causal and not extra
        mask = allowed.merged(None if causal else attn_mask, key_padding_mask, extra)
        out = record(
            _attention.attention_forward,
            _attention.attention_backward,
            q,
            k,
            v,
            mask,
            is_causal=causal,
            dropout_p=dropout_p,
            key=next_key() if dropout_p > 0.0 else None,
            mask_gradient=mask is not None and mask.requires_grad,
        )
    back = (0, 2, 1, 3) if batch_first else (2, 0, 1, 3)
    out = out.permute(*back).reshape(*query.shape[:2], D)
    out = linear(out, out_proj_weight, out_proj_bias)
    if not batched:
        out = out.squeeze(0 if batch_first else 1)
        weights = None if weights is None else weights.squeeze(0)
    return out, weights


def _check_heads_shapes(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_heads: int,
    batch_first: bool,
) -> tuple[int, int, int]:
    """Return L, B, S once the three inputs fit together."""
    if query.shape[-1] != embed_dim:
        raise RuntimeError(
            f"{name}: was expecting embedding dimension of {embed_dim}, but got "
            f"{query.shape[-1]} in query of shape {tuple(query.shape)}"
        )
    if embed_dim % num_heads:
        raise RuntimeError(f"{name}: embed_dim {embed_dim} not divisible by num_heads {num_heads}")
    sequence, batch = (1, 0) if batch_first else (0, 1)
    layout = "(batch, length, features)" if batch_first else "(length, batch, features)"
    if key.shape[:2] != value.shape[:2] or key.shape[batch] != query.shape[batch]:
        raise RuntimeError(
            f"{name}: query {tuple(query.shape)}, key {tuple(key.shape)} and value "
            f"{tuple(value.shape)}, read as {layout} because batch_first={batch_first}, must agree "
            "in the batch, key and value also in the length"
        )
    return query.shape[sequence], query.shape[batch], key.shape[sequence]


def _packed_projections(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Project with the stacked weight, in as few products as the inputs allow."""
    D = query.shape[-1]
    if query is key and key is value:
        q, k, v = linear(query, weight, bias).split(D, -1)
        return q, k, v
    if key is value:
        w_q, w_kv = weight.split([D, 2 * D])
        b_q, b_kv = (None, None) if bias is None else bias.split([D, 2 * D])
        k, v = linear(key, w_kv, b_kv).split(D, -1)
        return linear(query, w_q, b_q), k, v
    weights = weight.split(D)
    biases = (None, None, None) if bias is None else bias.split(D)
    q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases))
    return q, k, v


def _separate_projections(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: tuple[Tensor | None, Tensor | None, Tensor | None],
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    biases = (None, None, None) if bias is None else bias.split(query.shape[-1])
    projected = []
    for which, x, w, b in zip("qkv", (query, key, value), weights, biases):
        if w is None:
            raise RuntimeError(
                f"{name}: use_separate_proj_weight is True but {which}_proj_weight is None"
            )
        projected.append(linear(x, w, b))
    return projected[0], projected[1], projected[2]


def _append(x: Tensor, row: Tensor, axis: int) -> Tensor:
    return record(_shape.concat_forward, _shape.concat_backward, x, row, axis=axis)


class _Masks:
    """The two masks of multi-head attention, checked and merged.

    Given: True (or -inf) where attention is forbidden.  Kernel: True where it is allowed.
    """

    def __init__(self, name: str, B: int, H: int, L: int, S: int, query: Tensor) -> None:
        self.name, self.B, self.H, self.L, self.S = name, B, H, L, S
        self.query = query

    def check(
        self, argument: str, mask: Tensor | None, shapes: tuple[tuple[int, ...], ...]
    ) -> None:
        if mask is None:
            return
        if mask.array.dtype.kind not in "bfV":
            raise RuntimeError(
                f"{self.name}: only bool and floating types of {argument} are supported, found "
                f"{mask.array.dtype}; for a 0/1 mask where 1 may be attended to pass (mask == 0)"
            )
        if tuple(mask.shape) not in shapes:
            expected = " or ".join(map(str, shapes))
            raise RuntimeError(
                f"{self.name}: the shape of {argument} is {tuple(mask.shape)}, but should be "
                f"{expected}"
            )

    def _to_scores(self, mask: Tensor | None, extra: int, padding: bool) -> Tensor | None:
        """Shape a given mask to broadcast against (B, H, L, S + extra)."""
        if mask is None:
            return None
        if extra:
            mask = pad(mask, (0, extra))
        S = self.S + extra
        if padding:
            return mask.reshape(self.B, 1, 1, S)
        return mask.reshape(self.B, self.H, self.L, S) if mask.ndim == 3 else mask

    def merged(self, attn: Tensor | None, padding: Tensor | None, extra: int) -> Tensor | None:
        """Return the kernel's mask: boolean where both are, else additive."""
        masks = [self._to_scores(attn, extra, False), self._to_scores(padding, extra, True)]
        given = [mask for mask in masks if mask is not None]
        if not given:
            return None
        if all(mask.array.dtype.kind == "b" for mask in given):
            forbidden = given[0].array
            for mask in given[1:]:
                forbidden = forbidden | mask.array
            return Tensor(~forbidden)
        return self.additive(attn, padding, extra)

    def additive(self, attn: Tensor | None, padding: Tensor | None, extra: int) -> Tensor | None:
        """Return the sum of both masks as numbers to add to the scores."""
        total: Tensor | None = None
        for mask in (self._to_scores(attn, extra, False), self._to_scores(padding, extra, True)):
            if mask is None:
                continue
            if mask.array.dtype.kind == "b":
                xp, dtype = array_module(mask.array), self.query.array.dtype
                mask = Tensor(xp.where(mask.array, dtype.type(-math.inf), dtype.type(0)))
            elif mask.dtype != self.query.dtype:
                mask = mask.to(self.query.dtype)
            total = mask if total is None else total + mask
        return total


def _attention_with_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_padding_mask: Tensor | None,
    extra: int,
    dropout_p: float,
) -> tuple[Tensor, Tensor]:
    """Attention that forms the (B, H, L, S) weights because they are asked for."""
    if key_padding_mask is not None and key_padding_mask.array.dtype.kind == "b":
        # Whatever padding holds, NaN included, must not reach the products.
        padded = pad(key_padding_mask, (0, extra)) if extra else key_padding_mask
        hidden = padded.reshape(padded.shape[0], 1, padded.shape[1], 1)
        k, v = k.masked_fill(hidden, 0.0), v.masked_fill(hidden, 0.0)
    scores = (q * (1.0 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
    dead = None
    if bias is not None:
        xp = array_module(bias.array)
        dead = xp.isneginf(bias.array).all(axis=-1, keepdims=True)
        if dead.any():
            # A row of -inf would make the softmax NaN, its gradient too: neutralise, zero after.
            bias = bias.masked_fill(Tensor(dead), 0.0)
        else:
            dead = None
        scores = scores + bias
    weights = softmax(scores, dim=-1)
    if dead is not None:
        weights = weights.masked_fill(Tensor(dead), 0.0)
    weights = dropout(weights, dropout_p)
    return weights @ v, weights
