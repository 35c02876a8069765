"""Modules that hold other modules."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import chain, groupby
from typing import Any

from .module import Module, Parameter, _indent

__all__ = ["ModuleDict", "ModuleList", "ParameterList", "Sequential"]


class _Numbered(Module):
    """Submodules named "0", "1", ...; indices, slices and negative numbers work."""

    def _key(self, index: int) -> str:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} modules")
        return list(self._modules)[index]

    def _children(self) -> list[Any]:
        return list(self._modules.values())

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, slice):
            return self._of(list(self._modules.items())[idx])
        return self._modules[self._key(idx)]

    def _of(self, items: list[tuple[str, Any]]) -> Any:
        raise NotImplementedError

    def __setitem__(self, idx: int, module: Module) -> None:
        setattr(self, self._key(idx), module)

    def __delitem__(self, idx: int | slice) -> None:
        keys = list(self._modules)
        for key in keys[idx] if isinstance(idx, slice) else [self._key(idx)]:
            del self._modules[key]
        self._renumber(self._children())

    def _renumber(self, modules: list[Any]) -> None:
        self._modules.clear()
        self._modules.update((str(i), module) for i, module in enumerate(modules))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._children())

    def append(self, module: Module) -> Any:
        """Add a module at the end and return the container."""
        self.add_module(str(len(self)), module)
        return self

    def _append_all(self, modules: Iterable[Module]) -> Any:
        if not isinstance(modules, Iterable):
            raise TypeError(
                f"{self._get_name()}.extend should be called with an iterable, but got "
                f"{type(modules).__name__}"
            )
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Put a module before the one numbered `index`."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        if not -len(self) <= index <= len(self):
            raise IndexError(f"Index out of range: {index} for {len(self)} modules")
        modules = self._children()
        modules.insert(index, module)
        self._renumber(modules)
        return self

    def pop(self, key: int | slice) -> Any:
        """Remove and return a module, or a slice of them."""
        module = self[key]
        del self[key]
        return module


class Sequential(_Numbered):
    """Feed each module's output to the next.

    Parameters
    ----------
    *args : Module, or one OrderedDict of them
        In order; a dictionary gives them names.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.nn.Sequential(mt.nn.Linear(2, 3), mt.nn.ReLU())
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        named = args[0].items() if len(args) == 1 and isinstance(args[0], OrderedDict) else None
        for key, module in named or ((str(i), module) for i, module in enumerate(args)):
            self.add_module(key, module)

    def _of(self, items: list[tuple[str, Any]]) -> Sequential:
        return type(self)(OrderedDict(items))

    def extend(self, sequential: Iterable[Module]) -> Any:
        """Add several modules at the end and return the container."""
        return self._append_all(sequential)

    def forward(self, input: Any) -> Any:
        """Apply the modules in order."""
        for module in self._modules.values():
            input = module(input)  # type: ignore[misc]
        return input

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            raise ValueError(f"only a Sequential can be added to one, found {type(other)}")
        return Sequential(*self, *other)

    def __iadd__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            raise ValueError(f"only a Sequential can be added to one, found {type(other)}")
        return self.extend(other)


class ModuleList(_Numbered):
    """A list of modules whose parameters count.

    Parameters
    ----------
    modules : iterable of Module, optional

    Examples
    --------
    >>> import minitransformer as mt
    >>> len(mt.nn.ModuleList(mt.nn.Linear(2, 2) for _ in range(3)))
    3
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add several modules at the end and return the list."""
        return self._append_all(modules)

    def _of(self, items: list[tuple[str, Any]]) -> ModuleList:
        return type(self)(module for _, module in items)

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        return self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList(chain(self, other))

    def __repr__(self) -> str:
        if not len(self):
            return f"{self._get_name()}()"
        lines, start = [], 0
        for text, group in groupby(map(repr, self)):
            count = len(list(group))
            line = (
                f"({start}): {text}"
                if count == 1
                else f"({start}-{start + count - 1}): {count} x {text}"
            )
            lines.append(_indent(line, 2))
            start += count
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


class ModuleDict(Module):
    """A dictionary of modules whose parameters count.

    Parameters
    ----------
    modules : mapping or iterable of (name, Module), optional

    Examples
    --------
    >>> import minitransformer as mt
    >>> list(mt.nn.ModuleDict({"relu": mt.nn.ReLU()}).keys())
    ['relu']
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Remove every module."""
        self._modules.clear()

    def pop(self, key: str) -> Any:
        """Remove and return a module."""
        return self._modules.pop(key)

    def keys(self) -> KeysView[str]:
        """Names."""
        return self._modules.keys()

    def items(self) -> ItemsView[str, Any]:
        """Names with modules."""
        return self._modules.items()

    def values(self) -> ValuesView[Any]:
        """Modules."""
        return self._modules.values()

    def update(self, modules: Any) -> None:
        """Add or replace modules from a mapping or an iterable of pairs.

        Raises
        ------
        TypeError
            If `modules` is neither.
        """
        if not isinstance(modules, Iterable):
            raise TypeError(
                "ModuleDict.update should be called with an iterable of key/value pairs, but got "
                f"{type(modules).__name__}"
            )
        pairs = modules.items() if isinstance(modules, (Mapping, ModuleDict)) else modules
        for key, module in dict(pairs).items():
            self[key] = module


class ParameterList(Module):
    """A list of parameters that count.

    Parameters
    ----------
    values : iterable of Parameter or Tensor, optional
        Tensors become parameters.

    Examples
    --------
    >>> import minitransformer as mt
    >>> list(mt.nn.ParameterList([mt.ones(2), mt.ones(3)]).state_dict())
    ['0', '1']
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self.extend(() if values is None else values)

    def _key(self, index: int) -> str:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} parameters")
        return str(index % len(self))

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, slice):
            return type(self)(list(self)[idx])
        return self._parameters[self._key(idx)]

    def __setitem__(self, idx: int, param: Any) -> None:
        setattr(self, self._key(idx), _as_parameter(param))

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._parameters.values()))

    def __iadd__(self, parameters: Iterable[Any]) -> ParameterList:
        return self.extend(parameters)

    def append(self, value: Any) -> ParameterList:
        """Add a parameter at the end and return the list."""
        self.register_parameter(str(len(self)), _as_parameter(value))
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Add several parameters at the end and return the list."""
        for value in values:
            self.append(value)
        return self

    def extra_repr(self) -> str:
        """Sizes."""
        return "\n".join(
            f"({i}): Parameter of size {tuple(p.shape)}, {p.dtype}" for i, p in enumerate(self)
        )


def _as_parameter(value: Any) -> Parameter:
    return value if isinstance(value, Parameter) else Parameter(value)
