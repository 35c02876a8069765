"""Mixed precision: `autocast`, and `GradScaler` for gradients that float16 cannot hold."""

from __future__ import annotations

import enum
import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from .autograd import Tensor, autocast, get_autocast_dtype, is_autocast_enabled, no_grad
from .backend import array_module, is_cuda_available

__all__ = ["GradScaler", "autocast", "get_autocast_dtype", "is_autocast_enabled"]


class _Stage(enum.Enum):
    READY = 0  # nothing was done with the gradients yet
    UNSCALED = 1
    STEPPED = 2


class GradScaler:
    """Scale a loss so that float16 gradients neither vanish nor overflow, and find the scale.

    The scale grows by `growth_factor` after `growth_interval` steps without an infinity or NaN
    among the gradients; a step with one is skipped, and the scale falls by `backoff_factor`.

    Parameters
    ----------
    device : {"cuda", "cpu"}
        For "cuda" on a machine without a GPU the scaler warns and disables itself.
    init_scale, growth_factor, backoff_factor : float
    growth_interval : int
    enabled : bool
        False makes every method do nothing, and `step` only that of the optimiser.

    Raises
    ------
    AssertionError
        If the growth factor is not above 1, or the backoff factor not below.

    References
    ----------
    .. [1] Micikevicius et al., "Mixed precision training", arXiv:1710.03740, section 3.2 (loss
       scaling, and skipping the steps that overflow).

    Examples
    --------
    >>> import minitransformer as mt
    >>> w = mt.ones(1, requires_grad=True)
    >>> optimizer = mt.optim.SGD([w], lr=0.5)
    >>> scaler = GradScaler("cpu", init_scale=8.0)
    >>> scaler.scale((2 * w).sum()).backward()
    >>> w.grad.item()
    16.0
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> w.grad.item(), w.item()
    (2.0, 0.0)
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if enabled and device == "cuda" and not is_cuda_available():
            warnings.warn(
                "GradScaler is enabled, but there is no GPU: disabling it; on the CPU use "
                "GradScaler('cpu')",
                stacklevel=2,
            )
            enabled = False
        if enabled and growth_factor <= 1.0:
            raise AssertionError(f"the growth factor must be above 1.0, found {growth_factor}")
        if enabled and backoff_factor >= 1.0:
            raise AssertionError(f"the backoff factor must be below 1.0, found {backoff_factor}")
        self._enabled = enabled
        self._scale = float(np.float32(init_scale))
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval, self._growth_tracker = growth_interval, 0
        self._scaled = False
        self._stages: dict[int, _Stage] = {}
        self._overflow: dict[int, dict[str, Any]] = {}  # by optimiser and device, where it is

    def scale(self, outputs: Any) -> Any:
        """Return a tensor, or every tensor of an iterable, times the scale.

        Raises
        ------
        ValueError
            If something else is among them.
        """
        if not self._enabled:
            return outputs
        self._scaled = True
        if isinstance(outputs, Tensor):
            # a tensor without dimensions: the product has the type of the loss
            factor = array_module(outputs.array).asarray(self._scale, dtype=np.float32)
            return outputs * Tensor(factor)
        if isinstance(outputs, Iterable):
            scaled = map(self.scale, outputs)
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled
        raise ValueError(
            "scale: outputs must be a Tensor or an iterable of Tensors, found "
            f"{type(outputs).__name__}"
        )

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients by the scale, for whoever clips or looks at them before `step`.

        Raises
        ------
        RuntimeError
            If it was done already since the last `update`, or after `step`.
        ValueError
            If a gradient is float16: then the parameters are, and the scale cannot help.
        """
        if not self._enabled:
            return
        self._check_scaled("unscale_")
        stage = self._stages.get(id(optimizer), _Stage.READY)
        if stage is _Stage.UNSCALED:
            raise RuntimeError(
                "unscale_() has already been called on this optimizer since the last update()."
            )
        if stage is _Stage.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        inverse = float(np.float32(1.0 / self._scale))
        overflow: dict[str, Any] = {}
        with no_grad():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is None:
                        continue
                    gradient = parameter.grad.array
                    if gradient.dtype == np.float16:
                        raise ValueError("Attempting to unscale FP16 gradients.")
                    here = str(parameter.device)
                    bad = ~array_module(gradient).isfinite(gradient).all()
                    overflow[here] = overflow[here] | bad if here in overflow else bad
                    gradient *= inverse
        self._overflow[id(optimizer)] = overflow
        self._stages[id(optimizer)] = _Stage.UNSCALED

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Unscale, if that was not done, and take the optimiser's step if all is finite.

        Returns
        -------
        object
            What the optimiser's `step` returns; ``None`` where it was skipped.

        Raises
        ------
        RuntimeError
            If it is called twice between updates, or with a closure.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._check_scaled("step")
        stage = self._stages.get(id(optimizer), _Stage.READY)
        if stage is _Stage.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if stage is _Stage.READY:
            self.unscale_(optimizer)
        if not self._overflow[id(optimizer)]:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        self._stages[id(optimizer)] = _Stage.STEPPED
        return None if self._overflowed(id(optimizer)) else optimizer.step(*args, **kwargs)

    def _overflowed(self, optimizer: int) -> bool:
        """Return whether a gradient was not finite: the one place where the host waits."""
        self._overflow[optimizer] = {k: bool(bad) for k, bad in self._overflow[optimizer].items()}
        return any(self._overflow[optimizer].values())

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Choose the scale of the next iteration, or set it.

        Parameters
        ----------
        new_scale : float or Tensor of one element, optional

        Raises
        ------
        AssertionError
            If no gradient was looked at since the last update.
        """
        if not self._enabled:
            return
        self._check_scaled("update")
        if new_scale is not None:
            self._scale = float(np.float32(new_scale))
        else:
            if not any(self._overflow.values()):
                raise AssertionError("No inf checks were recorded prior to update.")
            if any(map(self._overflowed, self._overflow)):
                self._scale = float(np.float32(self._scale * self._backoff_factor))
                self._growth_tracker = 0
            else:
                self._growth_tracker += 1
            if self._growth_tracker == self._growth_interval:
                grown = float(np.float32(min(self._scale * self._growth_factor, math.inf)))
                self._scale = grown if math.isfinite(grown) else self._scale
                self._growth_tracker = 0
        self._stages.clear()
        self._overflow.clear()

    def _check_scaled(self, name: str) -> None:
        if not self._scaled:
            raise AssertionError(
                f"Attempted {name} but _scale is None.  This may indicate your script did not use "
                "scaler.scale(loss or outputs) earlier in the iteration."
            )

    def get_scale(self) -> float:
        """Return the scale, 1 if disabled."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """Return what the scale grows by."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set what the scale grows by."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """Return what the scale falls by."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set what the scale falls by."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """Return after how many good steps the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set after how many good steps the scale grows."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Return whether the scaler scales."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and its rules by PyTorch's keys; nothing if disabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises
        ------
        RuntimeError
            If it is empty, as from a disabled scaler.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled "
                "instance of GradScaler."
            )
        self._scale = float(state_dict["scale"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = int(state_dict["_growth_tracker"])
