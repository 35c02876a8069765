"""Modules: named parameters, buffers and submodules around one `forward` method.

A module holds state and calls kernels; it contains no arithmetic.  Names, keys,
hooks and error cases are PyTorch's, so a `state_dict` moves between the two.
"""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from ..autograd import Tensor, no_grad, record
from ..backend import device_of, is_floating, to_device

__all__ = ["Module", "Parameter", "RemovableHandle"]

M = TypeVar("M", bound="Module")
Hook = Callable[..., Any]


class Parameter(Tensor):
    """A tensor that a module registers when it is assigned as an attribute.

    Parameters
    ----------
    data : Tensor
        The initial value; its array is shared, not copied.
    requires_grad : bool
        Whether `backward` fills `grad`.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.Parameter(mt.zeros(2)).requires_grad
    True
    """

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        if data is None:
            import numpy as np

            data = np.zeros(0, dtype=np.float32)
        super().__init__(data.array if isinstance(data, Tensor) else data)
        self.requires_grad = requires_grad

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        return type(self)(self.array.copy(), self.requires_grad)


class RemovableHandle:
    """Take back a registered hook; also a context manager that does so on exit.

    Parameters
    ----------
    hooks : dict
        The table that the hook was put into.
    """

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, Any]) -> None:
        self.hooks = hooks
        self.id = next(RemovableHandle._ids)

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        self.hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def _add_hook(hooks: OrderedDict[int, Any], hook: Any, prepend: bool) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


class _IncompatibleKeys(NamedTuple):
    """What `load_state_dict` found: keys it lacked and keys it did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )


def _type_name(value: object) -> str:
    return type(value).__qualname__


def _indent(text: str, spaces: int) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * spaces + line for line in rest)])


def raw_array(value: Any) -> Any:
    """Array behind a Tensor, a NumPy or CuPy array, or a PyTorch tensor (never imported).

    Examples
    --------
    >>> import numpy as np
    >>> raw_array(np.ones(2))
    array([1., 1.])
    """
    if isinstance(value, Tensor):
        return value.array
    if type(value).__module__.partition(".")[0] == "torch":
        value = value.detach().cpu()
        # NumPy has no bfloat16; widening to float32 loses nothing.
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if hasattr(value, "__array_interface__") or hasattr(value, "__cuda_array_interface__"):
        return value
    raise TypeError(
        f"expected a Tensor, a NumPy array or a PyTorch tensor, got {_type_name(value)}"
    )


class Module:
    """Base of every layer and model.

    Assigning a `Parameter`, a `Module` or (through `register_buffer`) a tensor as an
    attribute registers it under that name; `state_dict`, `parameters`, `to` and the
    rest walk those names.  Subclasses define `forward`.

    Examples
    --------
    >>> import minitransformer as mt
    >>> class Twice(mt.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = mt.nn.Linear(2, 2)
    ...     def forward(self, x):
    ...         return self.linear(self.linear(x))
    >>> list(Twice().state_dict())
    ['linear.weight', 'linear.bias']
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            unexpected = [*map(repr, args), *kwargs]
            raise TypeError(
                f"{type(self).__name__}.__init__() passed {', '.join(unexpected)} on to "
                "Module.__init__(), which takes no arguments"
            )
        # Straight into __dict__: __setattr__ needs these tables to exist.
        self.__dict__.update(
            training=True,
            _parameters={},
            _buffers={},
            _modules={},
            _non_persistent_buffers_set=set(),
            _forward_hooks=OrderedDict(),
            _forward_pre_hooks=OrderedDict(),
            _backward_hooks=OrderedDict(),
        )

    def forward(self, *input: Any, **options: Any) -> Any:
        """Compute the module's output; every subclass defines its own.

        Raises
        ------
        NotImplementedError
            If the subclass did not.
        """
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._forward_pre_hooks or self._forward_hooks or self._backward_hooks:
            return self._call_with_hooks(args, kwargs)
        return self.forward(*args, **kwargs)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook, with_kwargs in list(self._forward_pre_hooks.values()):
            if with_kwargs:
                changed = hook(self, args, kwargs)
                if changed is not None:
                    if not (isinstance(changed, tuple) and len(changed) == 2):
                        raise RuntimeError(
                            "a forward pre-hook with kwargs must return None or "
                            f"(args, kwargs), got {changed!r}"
                        )
                    args, kwargs = changed
            else:
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        backward = _BackwardHooks(self) if self._backward_hooks else None
        if backward is not None:
            args = backward.watch_inputs(args)
        result = self.forward(*args, **kwargs)
        for hook, with_kwargs in list(self._forward_hooks.values()):
            changed = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
            if changed is not None:
                result = changed
        return result if backward is None else backward.watch_outputs(result)

    # -- attributes ---------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        tables = self.__dict__
        for table in ("_parameters", "_buffers", "_modules"):
            if table in tables and name in tables[table]:
                return tables[table][name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if isinstance(value, Parameter):
            self._need_init("parameters")
            self._forget(name, but="_parameters")
            self.register_parameter(name, value)
        elif name in tables.get("_parameters", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_type_name(value)}' as parameter '{name}' "
                    "(minitransformer.nn.Parameter or None expected)"
                )
            tables["_parameters"][name] = None
        elif isinstance(value, Module):
            self._need_init("module")
            self._forget(name, but="_modules")
            tables["_modules"][name] = value
        elif name in tables.get("_modules", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_type_name(value)}' as child module '{name}' "
                    "(minitransformer.nn.Module or None expected)"
                )
            tables["_modules"][name] = None
        elif name in tables.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign '{_type_name(value)}' as buffer '{name}' "
                    "(minitransformer.Tensor or None expected)"
                )
            tables["_buffers"][name] = value
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._non_persistent_buffers_set.discard(name)
                return
        super().__delattr__(name)

    def __dir__(self) -> list[str]:
        names = [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]
        return sorted(name for name in set(names) if not name[:1].isdigit())

    def _need_init(self, what: str) -> None:
        if "_modules" not in self.__dict__:
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")

    def _forget(self, name: str, but: str) -> None:
        """Drop `name` from every table except the one it is about to enter."""
        self.__dict__.pop(name, None)
        for table in {"_parameters", "_buffers", "_modules"} - {but}:
            self.__dict__[table].pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def _check_name(self, kind: str, name: str, table: dict[str, Any]) -> None:
        self._need_init(kind)
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {_type_name(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and name not in table:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under `name`; None reserves the name.

        Raises
        ------
        KeyError
            If the name is empty, dotted or taken.
        TypeError
            If `param` is not a Parameter.
        ValueError
            If `param` is the result of a computation.
        """
        self._check_name("parameter", name, self.__dict__.get("_parameters", {}))
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{_type_name(param)}' object to parameter '{name}' "
                "(minitransformer.nn.Parameter or None required)"
            )
        if param is not None and param.grad_fn is not None:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}': compute a value that "
                "depends on other tensors in forward() instead"
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the state but is not trained.

        Parameters
        ----------
        name : str
            Attribute name.
        tensor : Tensor or None
            The value; None reserves the name.
        persistent : bool
            Whether `state_dict` contains it.

        Raises
        ------
        KeyError
            If the name is empty, dotted or taken.
        TypeError
            If `tensor` is not a Tensor.
        """
        self._check_name("buffer", name, self.__dict__.get("_buffers", {}))
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{_type_name(tensor)}' object to buffer '{name}' "
                "(minitransformer.Tensor or None required)"
            )
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under `name`; None reserves the name.

        Raises
        ------
        KeyError
            If the name is empty, dotted or taken.
        TypeError
            If `module` is not a Module.
        """
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_type_name(module)} is not a Module subclass")
        self._check_name("module", name, self.__dict__.get("_modules", {}))
        self._modules[name] = module

    def register_module(self, name: str, module: Module | None) -> None:
        """Alias of `add_module`."""
        self.add_module(name, module)

    # -- walking ------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct submodules with their names, each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """Direct submodules, each once."""
        for _, module in self.named_children():
            yield module

    def named_modules(
        self,
        memo: set[Module] | None = None,
        prefix: str = "",
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Module]]:
        """This module and every module below it, with dotted names, parents first."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                below = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, below, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and every module below it, parents first."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def _named_members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        for path, module in modules:
            for name, member in module.__dict__[table].items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names; a tied parameter appears once."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters; a tied parameter appears once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Buffers with dotted names, persistent or not."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers, persistent or not."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """Return the submodule at a dotted path.

        Raises
        ------
        AttributeError
            If the path leads nowhere or to something else.
        """
        module: Any = self
        for name in target.split(".") if target else []:
            if not hasattr(module, name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` of `{target}` is not an nn.Module")
        return module

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter at a dotted path.

        Raises
        ------
        AttributeError
            If there is none.
        """
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        parameter = module._parameters.get(name)
        if parameter is None:
            raise AttributeError(f"{type(module).__name__} has no parameter `{name}`")
        return parameter

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer at a dotted path.

        Raises
        ------
        AttributeError
            If there is none.
        """
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        buffer = module._buffers.get(name)
        if buffer is None:
            raise AttributeError(f"{type(module).__name__} has no buffer `{name}`")
        return buffer

    def apply(self: M, fn: Callable[[Module], None]) -> M:
        """Call `fn` on every submodule, children first, then on this module."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # -- modes, gradients, places ---------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Set training mode here and below (dropout acts only in training).

        Raises
        ------
        ValueError
            If `mode` is not a bool.
        """
        if not isinstance(mode, bool):
            raise ValueError(f"training mode is expected to be boolean, got {mode!r}")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: M) -> M:
        """Set evaluation mode here and below."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Freeze (False) or unfreeze every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every gradient, or fill it with zeros when `set_to_none` is False."""
        for parameter in self.parameters():
            if parameter.grad is None:
                continue
            if set_to_none:
                parameter.grad = None
            else:
                parameter.grad.array[...] = 0

    def _map_tensors(self: M, fn: Callable[[Tensor], Tensor]) -> M:
        """Replace the array of every parameter, gradient and buffer, keeping the objects.

        The objects stay so that optimisers and tied parameters keep pointing at them.
        """
        seen: set[int] = set()
        with no_grad():
            for module in self.modules():
                for tensor in [*module._parameters.values(), *module._buffers.values()]:
                    if tensor is None or id(tensor) in seen:
                        continue
                    seen.add(id(tensor))
                    changed = fn(tensor.detach())
                    if changed.array is not tensor.array:
                        tensor.data = changed
                    if tensor.grad is not None:
                        tensor.grad = fn(tensor.grad)
        return self

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Move to a device and cast floating-point parameters and buffers to a dtype.

        Accepts `to(device)`, `to(dtype)`, `to(device, dtype)` and `to(other_tensor)`.
        Integer and boolean buffers keep their dtype.

        Raises
        ------
        TypeError
            If the dtype is not a floating-point one.
        """
        device, dtype = _parse_to(args, kwargs)

        def convert(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)

        return self._map_tensors(convert)

    def cpu(self: M) -> M:
        """Move every parameter and buffer to host memory."""
        return self._map_tensors(lambda tensor: tensor.cpu())

    def cuda(self: M, device: Any = None) -> M:
        """Move every parameter and buffer to the GPU."""
        return self.to("cuda" if device is None else device)

    def float(self: M) -> M:
        """Cast floating-point parameters and buffers to float32."""
        return self._map_tensors(lambda t: t.float() if t.is_floating_point() else t)

    def double(self: M) -> M:
        """Cast floating-point parameters and buffers to float64."""
        return self._map_tensors(lambda t: t.double() if t.is_floating_point() else t)

    def half(self: M) -> M:
        """Cast floating-point parameters and buffers to float16."""
        return self._map_tensors(lambda t: t.half() if t.is_floating_point() else t)

    def bfloat16(self: M) -> M:
        """Cast floating-point parameters and buffers to bfloat16, which exists on GPUs alone."""
        return self._map_tensors(lambda t: t.bfloat16() if t.is_floating_point() else t)

    # -- state ----------------------------------------------------------------------

    def _state_tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and persistent buffers under every name they have."""
        for path, module in self.named_modules(remove_duplicate=False):
            start = f"{prefix}{path}." if path else prefix
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield start + name, parameter
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._non_persistent_buffers_set:
                    yield start + name, buffer

    def state_dict(
        self,
        *args: Any,
        destination: dict[str, Any] | None = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> dict[str, Any]:
        """Return parameters and persistent buffers by dotted name.

        Parameters
        ----------
        destination : dict, optional
            Filled and returned instead of a new dictionary.
        prefix : str
            Put before every key.
        keep_vars : bool
            Keep the Parameter objects instead of detached tensors.  Either way the
            arrays are shared with the module: copy before training on.

        Returns
        -------
        dict of str to Tensor

        Raises
        ------
        TypeError
            If positional arguments are given.
        """
        if args:
            raise TypeError("state_dict takes destination, prefix and keep_vars by name only")
        state: dict[str, Any] = OrderedDict() if destination is None else destination
        for key, tensor in self._state_tensors(prefix):
            state[key] = tensor if keep_vars else tensor.detach()
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Copy values into the parameters and buffers; nothing changes if anything is wrong.

        Parameters
        ----------
        state_dict : mapping of str to Tensor, ndarray or torch.Tensor
            As `state_dict` returns it; values are cast to each parameter's dtype.
        strict : bool
            Whether missing and unexpected keys are errors; wrong shapes always are.
        assign : bool
            Take over the given arrays (and their dtype) instead of copying.

        Returns
        -------
        named tuple (missing_keys, unexpected_keys)

        Raises
        ------
        TypeError
            If `state_dict` is not a mapping.
        RuntimeError
            Naming every missing, unexpected and misshapen key.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        expected = dict(self._state_tensors())
        missing = [key for key in expected if key not in state_dict]
        unexpected = [key for key in state_dict if key not in expected]
        problems = []
        if strict and unexpected:
            problems.append(f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
        if strict and missing:
            problems.append(f"Missing key(s) in state_dict: {_quoted(missing)}. ")
        arrays = {}
        for key, tensor in expected.items():
            if key not in state_dict:
                continue
            try:
                array = raw_array(state_dict[key])
            except TypeError as error:
                problems.append(f"wrong type for {key}: {error}.")
                continue
            if tuple(array.shape) != tuple(tensor.shape):
                problems.append(
                    f"size mismatch for {key}: copying a param with shape {tuple(array.shape)} "
                    f"from checkpoint, the shape in current model is {tuple(tensor.shape)}."
                )
            elif not (array.dtype.kind in "biu" or is_floating(array.dtype)) or (
                is_floating(array.dtype) and not tensor.is_floating_point()
            ):
                problems.append(
                    f"dtype mismatch for {key}: a param of dtype {array.dtype} from checkpoint "
                    f"cannot be copied to {tensor.array.dtype} in the current model."
                )
            else:
                arrays[key] = array
        if problems:
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                + "\n\t".join(problems)
            )
        for key, array in arrays.items():
            _fill(expected[key], array, assign)
        return _IncompatibleKeys(missing, unexpected)

    # -- hooks ----------------------------------------------------------------------

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before `forward`; what it returns replaces the arguments."""
        return _add_hook(self._forward_pre_hooks, (hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Hook,
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after `forward`; what it returns replaces the output.

        Raises
        ------
        NotImplementedError
            For `always_call=True` (calling hooks after a failed forward).
        """
        if always_call:
            raise NotImplementedError("register_forward_hook: always_call=True is not supported")
        return _add_hook(self._forward_hooks, (hook, with_kwargs), prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when the gradients of the inputs are known.

        What the hook returns, if not None, replaces `grad_input`.  Only positional
        tensor arguments and an output that is a tensor or a tuple are watched.
        """
        return _add_hook(self._backward_hooks, hook, prepend)

    # -- text -----------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Settings shown between the parentheses of `repr`."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        children = [
            f"({name}): {_indent(repr(module), 2)}" for name, module in self._modules.items()
        ]
        lines = extra_lines + children
        if not lines:
            return f"{self._get_name()}()"
        if len(extra_lines) == 1 and not children:
            return f"{self._get_name()}({extra})"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"

    def __deepcopy__(self: M, memo: dict[int, Any]) -> M:
        # By way of __dict__, so that shared modules and tied parameters stay shared.
        result = type(self).__new__(type(self))
        memo[id(self)] = result
        for name, value in self.__dict__.items():
            result.__dict__[name] = copy.deepcopy(value, memo)
        return result


class _BackwardHooks:
    """One call of a module whose inputs and outputs are watched on the way back.

    Two identity operations on the tape enclose the module: the one after it sees the
    gradients of the outputs first, the one before it those of the inputs last.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.grad_output: tuple[Any, ...] = ()

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        places = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
        if not places:
            return args

        def backward(dout: Any, saved: Any) -> tuple[Any, ...]:
            gradients = dout if isinstance(dout, tuple) else (dout,)
            grad_input: list[Tensor | None] = [None] * len(args)
            for place, gradient in zip(places, gradients):
                grad_input[place] = None if gradient is None else Tensor(gradient)
            for hook in list(self.module._backward_hooks.values()):
                changed = hook(self.module, tuple(grad_input), self.grad_output)
                if changed is not None:
                    grad_input = list(changed if isinstance(changed, tuple) else (changed,))
            watched = [grad_input[place] for place in places]
            return tuple(None if g is None else g.array for g in watched)

        outputs = record(_identity_forward, backward, *(args[place] for place in places))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        watched = list(args)
        for place, output in zip(places, outputs):
            watched[place] = output
        return tuple(watched)

    def watch_outputs(self, result: Any) -> Any:
        outputs = result if isinstance(result, tuple) else (result,)
        places = [i for i, a in enumerate(outputs) if isinstance(a, Tensor) and a.requires_grad]
        if not places:
            return result

        def backward(dout: Any, saved: Any) -> tuple[Any, ...]:
            gradients = dout if isinstance(dout, tuple) else (dout,)
            grad_output: list[Tensor | None] = [None] * len(outputs)
            for place, gradient in zip(places, gradients):
                grad_output[place] = None if gradient is None else Tensor(gradient)
            self.grad_output = tuple(grad_output)
            return gradients

        tapped = record(_identity_forward, backward, *(outputs[place] for place in places))
        tapped = tapped if isinstance(tapped, tuple) else (tapped,)
        watched = list(outputs)
        for place, output in zip(places, tapped):
            watched[place] = output
        return tuple(watched) if isinstance(result, tuple) else watched[0]


def _identity_forward(*arrays: Any) -> tuple[Any, tuple[Any, ...]]:
    return (arrays if len(arrays) > 1 else arrays[0]), ()


def _quoted(keys: Iterable[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)


def _fill(tensor: Tensor, array: Any, assign: bool) -> None:
    """Write an array into a tensor on the tensor's own device."""
    if assign:
        tensor.data = Tensor(array)
    else:
        tensor.array[...] = to_device(array, device_of(tensor.array))
        tensor.version[0] += 1


def _parse_to(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Sort the arguments of `Module.to` into (device, dtype)."""
    device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
    kwargs.pop("non_blocking", None)
    if kwargs:
        raise TypeError(f"Module.to() got unexpected arguments {sorted(kwargs)}")
    for value in args:
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, str) and value == "bfloat16":  # its name, without ml_dtypes
            dtype = value
        elif isinstance(value, (str, int)) or type(value).__name__ == "device":
            device = value
        elif value is not None and not isinstance(value, bool):
            dtype = value
    return device, dtype
