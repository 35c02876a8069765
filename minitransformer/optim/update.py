"""The arithmetic of the optimisers: formulas on arrays, in place, over blocks.

Nothing here knows of parameters, groups or state; `optimizer.py` does.  A block is
small enough to stay in cache through all the passes of its formula, and the blocks
of all parameters of a group are shared out to the threads at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..backend import Array, array_module, blocks, is_cuda, run_blocks
from ..kernels import cuda

__all__ = ["adam_update", "sgd_update"]

BLOCK = 1 << 17  # elements: few enough to stay in cache, many enough to amortise a NumPy call


def _over_blocks(formula: Callable[..., None], rows: Sequence[tuple[Array | None, ...]]) -> None:
    """Call ``formula(*pieces)`` on matching flat pieces of each row of equally shaped arrays."""
    items: list[tuple[Array | None, ...]] = []
    for arrays in rows:
        first = arrays[0]
        assert first is not None
        if not first.size:
            continue
        # A view that cannot be flattened without a copy is one block of its own shape.
        flat = all(a is None or a.flags.c_contiguous for a in arrays)
        if is_cuda(first) or not flat:
            items.append(arrays)
            continue
        vectors = [None if a is None else a.reshape(-1) for a in arrays]
        items.extend(
            tuple(None if v is None else v[part] for v in vectors)
            for part in blocks(first.size, BLOCK)
        )
    if items and is_cuda(items[0][0]):
        for item in items:
            formula(*item)
    else:
        run_blocks(lambda item: formula(*item), items)


def adam_update(
    rows: Sequence[tuple[Array, Array, Array, Array, Array | None]],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    decoupled: bool,
    maximize: bool = False,
) -> None:
    r"""Advance parameters and moments by one step of Adam, in place.

    Parameters
    ----------
    rows : sequence of tuples of equally shaped float arrays
        (parameter, gradient, first moment, second moment, largest second moment or None).
        Gradients are only read.
    lr, beta1, beta2, eps, weight_decay : float
    step : int
        Number of this step, from 1.
    decoupled : bool
        Shrink the parameters directly (AdamW) instead of adding the decay to the gradient.
    maximize : bool
        Go up the gradient.

    Notes
    -----
    With gradient g and decay λ:

    .. math:: m = \beta_1 m + (1-\beta_1) g, \quad v = \beta_2 v + (1-\beta_2) g^2

    .. math:: \theta = (1 - \eta\lambda)\,\theta
        - \frac{\eta}{1-\beta_1^t} \frac{m}{\sqrt{v}/\sqrt{1-\beta_2^t} + \epsilon}

    References
    ----------
    .. [1] Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.
    .. [2] Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.
    .. [3] Reddi et al., "On the convergence of Adam and beyond", 2018, algorithm 2 (AMSGrad).

    Examples
    --------
    >>> import numpy as np
    >>> p, g, m, v = np.ones(1), np.ones(1), np.zeros(1), np.zeros(1)
    >>> adam_update([(p, g, m, v, None)], lr=0.5, beta1=0.9, beta2=0.999, eps=0.0,
    ...             weight_decay=0.0, step=1, decoupled=True)
    >>> round(float(p[0]), 6)
    0.5
    """
    # The corrections of both moments are numbers of this step: they go into two constants.
    root_correction = math.sqrt(1.0 - beta2**step)
    step_size = lr * root_correction / (1.0 - beta1**step)
    corrected_eps = eps * root_correction

    def formula(p: Array, g: Array, m: Array, v: Array, v_max: Array | None) -> None:
        xp = array_module(p)
        if maximize:
            g = -g
        if weight_decay != 0.0:
            if decoupled:
                p *= 1.0 - lr * weight_decay
            else:
                g = g + weight_decay * p
        work = g - m
        work *= 1.0 - beta1
        m += work
        xp.multiply(g, g, out=work)
        work *= 1.0 - beta2
        v *= beta2
        v += work
        if v_max is not None:
            xp.maximum(v_max, v, out=v_max)
        xp.sqrt(v if v_max is None else v_max, out=work)
        work += corrected_eps
        xp.divide(m, work, out=work)
        work *= step_size
        p -= work

    fused = [arrays[:4] for arrays in rows if arrays[4] is None and cuda.listed(*arrays[:4])]
    if len({id(p) for p, *_ in fused}) < len(rows):  # amsgrad, other types, a parameter named twice
        _over_blocks(formula, rows)
    else:
        cuda.adam(
            fused, step_size=lr / (1.0 - beta1**step), root=root_correction, betas=(beta1, beta2),
            eps=eps, decay=1.0 - lr * weight_decay if decoupled else 1.0,
            l2=0.0 if decoupled else weight_decay, sign=-1.0 if maximize else 1.0,
        )  # fmt: skip


def sgd_update(
    rows: Sequence[tuple[Array, Array, Array | None]],
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    r"""Advance parameters and momentum by one step of stochastic gradient descent, in place.

    Parameters
    ----------
    rows : sequence of tuples of equally shaped float arrays
        (parameter, gradient, momentum or None).  Gradients are only read.
    lr, momentum, dampening, weight_decay : float
    nesterov, maximize : bool

    Notes
    -----
    With g the gradient plus ``weight_decay`` times the parameter, the momentum becomes
    ``b = momentum * b + (1 - dampening) * g`` and the parameter falls by ``lr`` times
    ``b``, with Nesterov by ``lr`` times ``g + momentum * b``.

    References
    ----------
    .. [1] Sutskever et al., "On the importance of initialization and momentum in deep
       learning", 2013, equations 1 and 2; the learning rate enters as in PyTorch.

    Examples
    --------
    >>> import numpy as np
    >>> p, g = np.ones(1), np.ones(1)
    >>> sgd_update([(p, g, None)], lr=0.25, momentum=0.0, dampening=0.0, weight_decay=0.0,
    ...            nesterov=False, maximize=False)
    >>> float(p[0])
    0.75
    """

    def formula(p: Array, g: Array, b: Array | None) -> None:
        if maximize:
            g = -g
        if weight_decay != 0.0:
            g = g + weight_decay * p
        if b is not None:
            b *= momentum
            b += g if dampening == 0.0 else (1.0 - dampening) * g
            g = g + momentum * b if nesterov else b
        p -= lr * g

    distinct = len({id(p) for p, _, _ in rows}) == len(rows)
    if distinct and all(cuda.listed(*arrays) for arrays in rows):
        cuda.sgd(
            rows, lr=lr, momentum=momentum, fresh=1.0 - dampening, l2=weight_decay,
            sign=-1.0 if maximize else 1.0, nesterov=nesterov,
        )  # fmt: skip
    else:
        _over_blocks(formula, rows)
