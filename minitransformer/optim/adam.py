"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..backend import array_module
from .optimizer import Optimizer
from .update import adam_update

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    r"""Adam: steps scaled by running averages of the gradient and of its square.

    Parameters
    ----------
    params : iterable of Tensor or of dict
    lr : float
        Learning rate.
    betas : (float, float)
        Decay of the two averages.
    eps : float
        Added to the root of the second average.
    weight_decay : float
        Added to the gradient times the parameter.
    amsgrad : bool
        Use the largest second average so far.
    foreach, fused : bool, optional
        Accepted and without effect: there is one implementation.
    maximize : bool
        Go up the gradient.
    capturable, differentiable : bool
        Only False is supported.
    decoupled_weight_decay : bool
        Shrink the parameters directly, as `AdamW` does.

    Raises
    ------
    ValueError
        If an option is out of range.

    References
    ----------
    .. [1] Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.

    Examples
    --------
    >>> import minitransformer as mt
    >>> p = mt.nn.Parameter(mt.ones(1))
    >>> optimizer = mt.optim.Adam([p], lr=0.5)
    >>> (3 * p).sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 4)
    0.5
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        # Written so that NaN fails too.
        if not float(lr) >= 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not eps >= 0.0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        for i, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
        if not weight_decay >= 0.0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        for name, asked in (("capturable", capturable), ("differentiable", differentiable)):
            if asked:
                raise NotImplementedError(f"{type(self).__name__}: {name}=True is not supported")
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": tuple(betas),
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
                "fused": fused,
                "decoupled_weight_decay": decoupled_weight_decay,
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
            beta1, beta2 = group["betas"]
            for step, rows in self._rows_by_step(group).items():
                adam_update(
                    rows,
                    lr=float(group["lr"]),
                    beta1=beta1,
                    beta2=beta2,
                    eps=group["eps"],
                    weight_decay=float(group["weight_decay"]),
                    step=step,
                    decoupled=group["decoupled_weight_decay"],
                    maximize=group["maximize"],
                )
        return loss

    def _rows_by_step(self, group: dict[str, Any]) -> dict[int, list[Any]]:
        """Count a step for each parameter with a gradient; gather their arrays by step number.

        A parameter that joined later, or missed gradients, is at another step than the rest.
        """
        rows: dict[int, list[Any]] = defaultdict(list)
        for param in group["params"]:
            if param.grad is None:
                continue
            state = self.state[param]
            if not state:
                zeros = array_module(param.array).zeros
                shape, dtype = param.array.shape, param.array.dtype
                # A tensor on the host, as in PyTorch's state: reading it never waits for a GPU.
                state["step"] = Tensor(np.zeros((), np.float32))
                state["exp_avg"] = Tensor(zeros(shape, dtype))
                state["exp_avg_sq"] = Tensor(zeros(shape, dtype))
                if group["amsgrad"]:
                    state["max_exp_avg_sq"] = Tensor(zeros(shape, dtype))
            state["step"].array += 1
            param.version[0] += 1
            rows[int(state["step"].array)].append(
                (
                    param.array,
                    param.grad.array,
                    state["exp_avg"].array,
                    state["exp_avg_sq"].array,
                    state["max_exp_avg_sq"].array if group["amsgrad"] else None,
                )
            )
        return rows


class AdamW(Adam):
    r"""Adam with decoupled weight decay: parameters shrink by ``lr * weight_decay`` directly.

    Parameters
    ----------
    params : iterable of Tensor or of dict
    lr, betas, eps, weight_decay, amsgrad
        As for `Adam`, with another default of `weight_decay`.
    maximize, foreach, capturable, differentiable, fused
        As for `Adam`.

    References
    ----------
    .. [1] Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.

    Examples
    --------
    >>> import minitransformer as mt
    >>> p = mt.nn.Parameter(mt.ones(1))
    >>> optimizer = mt.optim.AdamW([p], lr=0.5, weight_decay=0.0)
    >>> (3 * p).sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 4)
    0.5
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, here or in PyTorch; the decay stays decoupled."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
