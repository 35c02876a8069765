"""Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

from collections import OrderedDict

import pytest

import minitransformer as mt
from minitransformer import nn


def names(modules) -> list[str]:
    return [type(module).__name__ for module in modules]


def test_sequential_applies_in_order() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    x = mt.ones(4, 2)
    assert (model(x) == model[2](model[1](model[0](x)))).all()
    assert len(model) == 3
    assert names(model[1:]) == ["ReLU", "Linear"]
    assert model[-1] is model[2]
    model[1] = nn.Tanh()
    assert names(model) == ["Linear", "Tanh", "Linear"]
    del model[0]
    assert list(model.state_dict()) == ["1.weight", "1.bias"]
    with pytest.raises(IndexError):
        _ = model[5]


def test_sequential_takes_names() -> None:
    model = nn.Sequential(OrderedDict(first=nn.Linear(2, 2), second=nn.ReLU()))
    assert list(model.state_dict()) == ["first.weight", "first.bias"]
    assert list((model + nn.Sequential(nn.Tanh())).named_children())[-1][0] == "2"
    model += nn.Sequential(nn.Tanh())
    assert names(model) == ["Linear", "ReLU", "Tanh"]
    with pytest.raises(ValueError, match="Sequential"):
        _ = model + [nn.Tanh()]


def test_module_list_edits() -> None:
    modules = nn.ModuleList([nn.ReLU()])
    modules.append(nn.Tanh()).extend([nn.GELU()])
    modules.insert(1, nn.Linear(1, 1))
    assert names(modules) == ["ReLU", "Linear", "Tanh", "GELU"]
    assert list(modules.state_dict()) == ["1.weight", "1.bias"]
    assert type(modules.pop(1)) is nn.Linear
    assert names(modules + [nn.SiLU()]) == ["ReLU", "Tanh", "GELU", "SiLU"]
    modules += [nn.SiLU()]
    assert names(modules[::2]) == ["ReLU", "GELU"]
    with pytest.raises(TypeError, match="iterable"):
        modules.extend(3)
    with pytest.raises(TypeError, match="Module"):
        modules.append("relu")
    with pytest.raises(NotImplementedError):
        modules(mt.ones(1))


def test_parameter_list() -> None:
    values = nn.ParameterList([mt.ones(2), nn.Parameter(mt.ones(3), requires_grad=False)])
    values.append(mt.zeros(1))
    values += [mt.zeros(4)]
    assert [tuple(p.shape) for p in values] == [(2,), (3,), (1,), (4,)]
    assert [p.requires_grad for p in values.parameters()] == [True, False, True, True]
    values[-1] = mt.ones(5)
    assert tuple(values[3].shape) == (5,) and type(values[3]) is nn.Parameter
    assert len(values[1:]) == 3
    with pytest.raises(IndexError, match="out of range"):
        _ = values[4]


def test_module_dict_edits() -> None:
    modules = nn.ModuleDict([("a", nn.ReLU())])
    modules["b"] = nn.Linear(1, 1)
    modules.update({"a": nn.Tanh()})
    assert list(modules.keys()) == ["a", "b"]
    assert names(modules.values()) == ["Tanh", "Linear"]
    assert "b" in modules and len(modules) == 2
    assert list(modules.state_dict()) == ["b.weight", "b.bias"]
    assert type(modules.pop("b")) is nn.Linear
    modules.clear()
    assert list(modules) == []
    with pytest.raises(TypeError, match="iterable"):
        modules.update(3)
