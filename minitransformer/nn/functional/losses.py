"""Losses, with the reductions they share."""

from __future__ import annotations

import math
import warnings

from ...autograd import Tensor, record
from ...autograd.precision import as_one_operation
from ...backend import array_module, is_floating
from ...kernels import cross_entropy as _cross_entropy
from .activations import log_sigmoids
from .checks import check_integers, check_reduction, check_same_dtype, check_tensors, reduced


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
        check_integers(name, "target", target)


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
    check_tensors("cross_entropy", input=input, target=target, weight=weight)
    check_same_dtype("cross_entropy", input=input, weight=weight)
    check_reduction("cross_entropy", reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(
            f"cross_entropy: label_smoothing must be between 0.0 and 1.0, got {label_smoothing}"
        )
    rows, flat_target, probabilities = _classes_last("cross_entropy", input, target)
    _check_classes("cross_entropy", rows.shape[1], flat_target, weight)
    if probabilities:
        check_same_dtype("cross_entropy", input=input, target=target)
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
    check_tensors("nll_loss", input=input, target=target, weight=weight)
    check_same_dtype("nll_loss", input=input, weight=weight)
    check_reduction("nll_loss", reduction, size_average, reduce)
    check_integers("nll_loss", "target", target)
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
    check_tensors("mse_loss", input=input, target=target, weight=weight)
    check_reduction("mse_loss", reduction, size_average, reduce)
    _check_pair("mse_loss", input, target)
    difference = input - target
    squares = difference * difference
    if weight is None:
        return reduced(squares, reduction)
    if tuple(weight.shape) != tuple(input.shape):
        raise ValueError(
            f"mse_loss: weight {tuple(weight.shape)} must have the shape of input "
            f"{tuple(input.shape)}"
        )
    weighted = squares * weight
    return weighted.sum() / weight.sum() if reduction == "mean" else reduced(weighted, reduction)


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
    check_tensors(name, input=input, target=target, weight=weight, pos_weight=pos_weight)
    check_reduction(name, reduction, size_average, reduce)
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(
            f"{name}: target size ({tuple(target.shape)}) must be the same as input size "
            f"({tuple(input.shape)})"
        )
    positive, negative = log_sigmoids(input)
    positive = positive * target if pos_weight is None else positive * target * pos_weight
    losses = -(positive + (1 - target) * negative)
    return reduced(losses if weight is None else losses * weight, reduction)


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
    check_tensors("kl_div", input=input, target=target)
    check_reduction(
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
    return reduced(losses, reduction)
