"""What all optimisers share: parameter groups, state, and both as a dictionary."""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import Any

from ..autograd import Tensor, enable_grad, no_grad
from ..backend import array_module, device_of, to_device

__all__ = ["Optimizer"]


class Optimizer:
    """Base of the optimisers: groups of parameters with options, and per-parameter state.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        Each dictionary is a group: its "params" and the options it overrides.
    defaults : dict
        Options of groups that do not give their own.

    Attributes
    ----------
    param_groups : list of dict
    state : dict of Tensor to dict

    Raises
    ------
    TypeError
        If `params` is a Tensor, or holds something else than tensors.
    ValueError
        If there are no parameters, one is in two groups, or one is not a leaf.
    """

    param_groups: list[dict[str, Any]]
    state: defaultdict[Any, dict[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _noted(cls.__dict__["step"])  # type: ignore[method-assign]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                "but got a Tensor; pass [tensor]"
            )
        self.defaults = defaults
        self.state = defaultdict(dict)
        self.param_groups = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, such as layers unfrozen during training.

        Parameters
        ----------
        param_group : dict
            "params" and the options that differ from the defaults.

        Raises
        ------
        TypeError
            If it is no dictionary, its parameters are a set, or one is no Tensor.
        ValueError
            If a parameter is already in a group or is not a leaf.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the "
                "ordering of tensors in sets will change between runs. Please use a list instead."
            )
        params = [params] if isinstance(params, Tensor) else list(params)
        names = [param[0] for param in params if isinstance(param, tuple)]
        params = [param[1] if isinstance(param, tuple) else param for param in params]
        if names and len(names) != len(params):
            raise ValueError("all optimizer params should be with/without names")
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {type(param)}"
                )
            if not param.is_leaf:
                raise ValueError(
                    "can't optimize a non-leaf Tensor: this one is the result of a computation"
                )
        ids = {id(param) for param in params}
        if len(ids) != len(params):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; each is updated "
                "as often as it appears",
                stacklevel=3,
            )
        for group in self.param_groups:
            if not ids.isdisjoint(id(param) for param in group["params"]):
                raise ValueError("some parameters appear in more than one parameter group")
            if bool(names) != ("param_names" in group):
                raise ValueError("all optimizer param groups should be with/without names")
        param_group["params"] = params
        if names:
            param_group["param_names"] = names
        for name, default in self.defaults.items():
            param_group.setdefault(name, default)
        self.param_groups.append(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every gradient, or fill it with zeros when `set_to_none` is False."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                if set_to_none:
                    param.grad = None
                else:
                    param.grad.array[...] = 0

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters; every optimiser defines its own.

        Parameters
        ----------
        closure : callable, optional
            Computes the gradients anew and returns the loss.

        Raises
        ------
        NotImplementedError
            If the subclass did not.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define step()")

    def state_dict(self) -> dict[str, Any]:
        """Return state and options, parameters replaced by numbers in order.

        Returns
        -------
        dict
            "state": number to tensors (shared, not copied); "param_groups": options.
        """
        numbers: dict[int, int] = {}
        for param in chain.from_iterable(group["params"] for group in self.param_groups):
            numbers.setdefault(id(param), len(numbers))
        groups = [
            {
                **{key: value for key, value in group.items() if key != "params"},
                "params": [numbers[id(param)] for param in group["params"]],
            }
            for group in self.param_groups
        ]
        state = {
            numbers[id(key)] if isinstance(key, Tensor) else key: value
            for key, value in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, here or in PyTorch; nothing changes if it fails.

        Parameters
        ----------
        state_dict : dict
            Values may be Tensors, NumPy arrays or PyTorch tensors; they are copied, cast
            to each parameter's dtype and moved to its device.

        Raises
        ------
        ValueError
            If the groups or the shapes do not fit these parameters.
        """
        saved_groups = state_dict["param_groups"]
        if len(saved_groups) != len(self.param_groups):
            raise ValueError(
                "loaded state dict has a different number of parameter groups: "
                f"{len(saved_groups)}, the optimizer has {len(self.param_groups)}"
            )
        by_number: dict[Any, Tensor] = {}
        for i, (group, saved) in enumerate(zip(self.param_groups, saved_groups)):
            if len(group["params"]) != len(saved["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    f"optimizer's group: group {i} has {len(saved['params'])} parameters, the "
                    f"optimizer's {len(group['params'])}"
                )
            by_number.update(zip(saved["params"], group["params"]))
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for number, values in state_dict["state"].items():
            param = by_number.get(number)
            if param is None:
                state[number] = deepcopy(values)
                continue
            state[param] = {
                name: _adopted(value, name, number, param) for name, value in values.items()
            }
        groups = []
        for group, saved in zip(self.param_groups, saved_groups):
            options = {key: deepcopy(value) for key, value in saved.items() if key != "params"}
            groups.append({**self.defaults, **options, "params": group["params"]})
            if "param_names" in group:
                groups[-1].setdefault("param_names", group["param_names"])
        self.state = state
        self.param_groups = groups

    def _closure_loss(self, closure: Callable[[], Any] | None) -> Any:
        if closure is None:
            return None
        with enable_grad():
            return closure()

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _noted(step: Callable[..., Any]) -> Callable[..., Any]:
    """Run a `step` off the tape and note that it ran, which the schedulers ask for."""

    @functools.wraps(step)
    def noted_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._opt_called = True
        with no_grad():
            return step(self, *args, **kwargs)

    return noted_step


def _adopted(value: Any, name: str, number: Any, param: Tensor) -> Any:
    """A saved value as this optimiser holds it: arrays become Tensors beside the parameter."""
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "numpy"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if isinstance(value, Tensor):
        value = value.array
    if not hasattr(value, "dtype"):
        return deepcopy(value)
    if name == "step":
        return Tensor(value.copy())
    if tuple(value.shape) != tuple(param.shape):
        raise ValueError(
            f"loaded state dict holds {name!r} of shape {tuple(value.shape)} for parameter "
            f"{number}, which has shape {tuple(param.shape)}"
        )
    moved = to_device(value, device_of(param.array))
    return Tensor(array_module(moved).array(moved, dtype=param.array.dtype, order="C"))
