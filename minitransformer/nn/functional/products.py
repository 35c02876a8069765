"""Affine maps and the feed-forward networks made of them."""

from __future__ import annotations

from ...autograd import Tensor, is_grad_enabled, record
from ...backend import next_key
from ...kernels import feed_forward as _feed_forward
from ...kernels import linear as _linear
from .checks import check_probability, check_same_dtype, check_tensors


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
    check_tensors("linear", input=input, weight=weight, bias=bias)
    check_same_dtype("linear", input=input, weight=weight, bias=bias)
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
    check_tensors("feed_forward", **tensors)
    check_same_dtype("feed_forward", **tensors)
    check_probability("feed_forward", dropout_p)
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
        needs_grad=is_grad_enabled(),
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
    check_tensors("gated_feed_forward", **tensors)
    check_same_dtype("gated_feed_forward", **tensors)
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
        needs_grad=is_grad_enabled(),
    )
