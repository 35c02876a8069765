"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..autograd import Tensor
from ..backend import array_module
from .optimizer import Optimizer
from .update import sgd_update

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    Parameters
    ----------
    params : iterable of Tensor or of dict
    lr : float
        Learning rate.
    momentum : float
    dampening : float
        Of the momentum.
    weight_decay : float
        Added to the gradient times the parameter.
    nesterov : bool
    maximize : bool
        Go up the gradient.
    foreach, fused : bool, optional
        Accepted and without effect: there is one implementation.
    differentiable : bool
        Only False is supported.

    Raises
    ------
    ValueError
        If an option is out of range.

    Examples
    --------
    >>> import minitransformer as mt
    >>> p = mt.nn.Parameter(mt.ones(1))
    >>> optimizer = mt.optim.SGD([p], lr=0.25)
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p.item()
    0.5
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        for name, value in (
            ("learning rate", lr),
            ("momentum value", momentum),
            ("weight_decay value", weight_decay),
        ):
            if float(value) < 0.0:
                raise ValueError(f"Invalid {name}: {value}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        if differentiable:
            raise NotImplementedError("SGD: differentiable=True is not supported")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
                "foreach": foreach,
                "differentiable": differentiable,
                "fused": fused,
            },
        )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the gradients anew and returns the loss.

        Returns
        -------
        The closure's loss, if there is one.
        """
        loss = self._closure_loss(closure)
        for group in self.param_groups:
            # Fresh momentum is the gradient itself, whatever the dampening.
            fresh, rows = [], []
            for param in group["params"]:
                if param.grad is None:
                    continue
                p, g = param.array, param.grad.array
                param.version[0] += 1
                if group["momentum"] == 0:
                    rows.append((p, g, None))
                elif (momentum := self.state[param].get("momentum_buffer")) is None:
                    b = array_module(p).zeros(p.shape, p.dtype)
                    self.state[param]["momentum_buffer"] = Tensor(b)
                    fresh.append((p, g, b))
                else:
                    rows.append((p, g, momentum.array))
            for part, dampening in ((fresh, 0.0), (rows, group["dampening"])):
                sgd_update(
                    part,
                    lr=float(group["lr"]),
                    momentum=group["momentum"],
                    dampening=dampening,
                    weight_decay=float(group["weight_decay"]),
                    nesterov=group["nesterov"],
                    maximize=group["maximize"],
                )
        return loss
