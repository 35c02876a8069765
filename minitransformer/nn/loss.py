"""Losses as modules; each holds the options of one function."""

from __future__ import annotations

from ..autograd import Tensor
from . import functional as F
from .functional.checks import check_reduction
from .module import Module

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "KLDivLoss", "MSELoss", "NLLLoss"]


class _Loss(Module):
    """The option that all losses share."""

    def __init__(self, size_average: None, reduce: None, reduction: str) -> None:
        super().__init__()
        known = "sum" if reduction == "batchmean" and isinstance(self, KLDivLoss) else reduction
        check_reduction(type(self).__name__, known, size_average, reduce)
        self.reduction = reduction


class MSELoss(_Loss):
    """Mean squared difference.

    Parameters
    ----------
    size_average, reduce : None
        Replaced by `reduction`.
    reduction : {"mean", "sum", "none"}

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.MSELoss()(mt.ones(2), mt.zeros(2)).item()
    1.0
    """

    def __init__(
        self, size_average: None = None, reduce: None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return F.mse_loss(input, target, reduction=self.reduction)


class NLLLoss(_Loss):
    """Minus the log-probability of the target class.

    Parameters
    ----------
    weight : (C,) Tensor, optional
        Per class.
    size_average, reduce : None
        Replaced by `reduction`.
    ignore_index : int
        A target that does not count.
    reduction : {"mean", "sum", "none"}

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.NLLLoss()(mt.tensor([[-2.0, -1.0]]), mt.tensor([0])).item()
    2.0
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare log-probabilities (N, C, ...) with class numbers (N, ...)."""
        return F.nll_loss(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class CrossEntropyLoss(_Loss):
    """Cross-entropy of logits with class numbers or class probabilities.

    Parameters
    ----------
    weight : (C,) Tensor, optional
        Per class.
    size_average, reduce : None
        Replaced by `reduction`.
    ignore_index : int
        A target that does not count.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        How much of the target is spread evenly over the classes.

    Examples
    --------
    >>> import minitransformer as mt
    >>> loss = mt.nn.CrossEntropyLoss(ignore_index=0)
    >>> round(loss(mt.zeros(2, 4), mt.tensor([0, 3])).item(), 4)
    1.3863
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare logits (N, C, ...) with class numbers (N, ...) or probabilities."""
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class KLDivLoss(_Loss):
    """Kullback-Leibler divergence of log-probabilities from target probabilities.

    Parameters
    ----------
    size_average, reduce : None
        Replaced by `reduction`.
    reduction : {"mean", "batchmean", "sum", "none"}
        "batchmean" is the divergence itself.
    log_target : bool
        Targets are logarithms too.

    Examples
    --------
    >>> import minitransformer as mt
    >>> q = mt.tensor([[0.5, 0.5]])
    >>> mt.nn.KLDivLoss(reduction="batchmean")(q.log(), q).item()
    0.0
    """

    def __init__(
        self,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare log-probabilities with probabilities of the same shape."""
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of logits.

    Parameters
    ----------
    weight : Tensor, optional
        Per element, broadcastable.
    size_average, reduce : None
        Replaced by `reduction`.
    reduction : {"mean", "sum", "none"}
    pos_weight : Tensor, optional
        Weight of the positive class, broadcastable.

    Examples
    --------
    >>> import minitransformer as mt
    >>> round(mt.nn.BCEWithLogitsLoss()(mt.zeros(2), mt.ones(2)).item(), 4)
    0.6931
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare logits with targets of the same shape."""
        return F.binary_cross_entropy_with_logits(
            input,
            target,
            weight=self.weight,
            reduction=self.reduction,
            pos_weight=self.pos_weight,
        )
