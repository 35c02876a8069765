"""Module: registration, walking, modes, hooks, copies, text."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

import minitransformer as mt
from minitransformer import nn


class Tied(nn.Module):
    """An embedding whose table is also the output layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 5, bias=False)
        self.out.weight = self.embedding.weight
        self.register_buffer("mask", mt.ones(2, 2).tril())
        self.register_buffer("cache", mt.zeros(3), persistent=False)

    def forward(self, ids: mt.Tensor) -> mt.Tensor:
        return self.out(self.embedding(ids))


class TorchTied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 4)
        self.out = torch.nn.Linear(4, 5, bias=False)
        self.out.weight = self.embedding.weight
        self.register_buffer("mask", torch.ones(2, 2).tril())
        self.register_buffer("cache", torch.zeros(3), persistent=False)


def test_walks_yield_pytorchs_names() -> None:
    ours, theirs = Tied(), TorchTied()
    for walk in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [n for n, _ in getattr(ours, walk)()] == [n for n, _ in getattr(theirs, walk)()]
    assert [n for n, _ in ours.named_parameters(remove_duplicate=False)] == [
        n for n, _ in theirs.named_parameters(remove_duplicate=False)
    ]
    assert [n for n, _ in ours.named_parameters(prefix="m")] == ["m.embedding.weight"]
    assert list(ours.parameters(recurse=False)) == []
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert list(ours.state_dict(prefix="m.")) == list(theirs.state_dict(prefix="m."))


def test_tied_parameters_add_their_gradients_and_stay_tied_in_a_copy() -> None:
    model = copy.deepcopy(Tied())
    assert model.out.weight is model.embedding.weight
    model(mt.tensor([0, 1])).sum().backward()
    theirs = TorchTied()
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in model.state_dict().items()})
    theirs.out(theirs.embedding(torch.tensor([0, 1]))).sum().backward()
    np.testing.assert_allclose(
        model.out.weight.grad.numpy(), theirs.out.weight.grad.numpy(), rtol=0, atol=1e-5
    )


def test_a_copy_shares_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    other = copy.deepcopy(model)
    with mt.no_grad():
        other[0].weight.fill_(7.0)
    assert not (model[0].weight == 7.0).any()
    assert type(other[0].weight) is nn.Parameter
    assert other[0].weight.requires_grad


def test_modules_pickle() -> None:
    model = Tied()
    again = pickle.loads(pickle.dumps(model))
    assert again.out.weight is again.embedding.weight
    assert (again.out.weight == model.out.weight).all()


def test_missing_attribute_is_named() -> None:
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'wieght'"):
        _ = nn.Linear(1, 1).wieght


def test_forward_is_required() -> None:
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty"):
        Empty()(1)


def test_registration_needs_init() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter(mt.ones(1))

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\)"):
        Late()


def test_reassignment_follows_pytorch() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="as parameter 'weight'"):
        layer.weight = mt.ones(2, 2)
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"]
    model = nn.Sequential(layer)
    with pytest.raises(TypeError, match="as child module '0'"):
        setattr(model, "0", 3)
    tied = Tied()
    with pytest.raises(TypeError, match="as buffer 'mask'"):
        tied.mask = 3
    tied.mask = mt.zeros(1)
    assert "mask" in dict(tied.named_buffers())
    tied.out = nn.Identity()
    assert "out.weight" not in tied.state_dict()
    del tied.mask
    assert not hasattr(tied, "mask")


@pytest.mark.parametrize("name", ["", "a.b"])
def test_names_are_checked(name: str) -> None:
    module = nn.Identity()
    for register, value in (
        (module.register_buffer, mt.ones(1)),
        (module.register_parameter, nn.Parameter(mt.ones(1))),
        (module.add_module, nn.Identity()),
    ):
        with pytest.raises(KeyError):
            register(name, value)


def test_registration_is_checked() -> None:
    module = nn.Linear(1, 1)
    with pytest.raises(KeyError, match="attribute 'forward' already exists"):
        module.register_buffer("forward", mt.ones(1))
    with pytest.raises(TypeError, match="buffer 'b'"):
        module.register_buffer("b", np.ones(1))
    with pytest.raises(TypeError, match="parameter 'p'"):
        module.register_parameter("p", mt.ones(1))
    with pytest.raises(TypeError, match="not a Module"):
        module.add_module("m", 3)
    result = nn.Parameter(mt.ones(1)) * 2
    with pytest.raises(TypeError, match="parameter 'p'"):
        module.register_parameter("p", result)


def test_modes_and_gradients() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout()))
    assert not model.eval()[1][0].training
    assert model.train()[1][0].training
    with pytest.raises(ValueError, match="boolean"):
        model.train("yes")
    model(mt.ones(1, 2)).sum().backward()
    model.zero_grad(set_to_none=False)
    assert (model[0].weight.grad == 0).all()
    model.zero_grad()
    assert model[0].weight.grad is None
    assert not any(p.requires_grad for p in model.requires_grad_(False).parameters())


def test_apply_visits_children_first() -> None:
    seen: list[str] = []
    nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh())).apply(
        lambda m: seen.append(type(m).__name__)
    )
    assert seen == ["ReLU", "Tanh", "Sequential", "Sequential"]


def test_dtype_moves_keep_objects_and_integers() -> None:
    model = Tied()
    model.register_buffer("count", mt.tensor(3))
    weight = model.embedding.weight
    optimizer = mt.optim.SGD(model.parameters(), lr=1.0)
    assert model.double() is model
    assert model.embedding.weight is weight is model.out.weight
    assert weight.dtype == mt.float64 and model.mask.dtype == mt.float64
    assert model.count.dtype == mt.int64
    model.to(mt.float32)
    assert weight.dtype == mt.float32
    out = model(mt.tensor([1])).sum()
    assert model.to("cpu").float() is model
    out.backward()  # a move to where everything is already changes nothing
    model.zero_grad()
    model(mt.tensor([1])).sum().backward()
    before = weight.detach().clone()
    optimizer.step()
    assert (weight != before).any()


def test_hooks_can_watch_and_replace() -> None:
    layer = nn.Linear(2, 2)
    seen = []
    with layer.register_forward_pre_hook(lambda m, args: (args[0] * 0,)):
        handle = layer.register_forward_hook(lambda m, args, out: seen.append((args, out)))
        out = layer(mt.ones(1, 2))
        assert (out == layer.bias).all()
    handle.remove()
    assert seen[0][1] is out
    assert (seen[0][0][0] == 0).all()
    layer(mt.ones(1, 2))
    assert len(seen) == 1
    with layer.register_forward_hook(lambda m, args, kwargs, out: out * 0, with_kwargs=True):
        assert (layer(input=mt.ones(1, 2)) == 0).all()
    order: list[int] = []
    layer.register_forward_hook(lambda *a: order.append(1))
    layer.register_forward_hook(lambda *a: order.append(0), prepend=True)
    layer(mt.ones(1, 2))
    assert order == [0, 1]


def test_full_backward_hook_sees_pytorchs_gradients() -> None:
    ours, theirs = nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ours.load_state_dict(theirs.state_dict())
    seen: dict[str, list[np.ndarray]] = {"ours": [], "theirs": []}

    def hook(which: str):
        def see(module, grad_input, grad_output):
            seen[which] += [grad_input[0].detach().numpy(), grad_output[0].detach().numpy()]

        return see

    ours.register_full_backward_hook(hook("ours"))
    theirs.register_full_backward_hook(hook("theirs"))
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for module, x in (
        (ours, mt.tensor(values, requires_grad=True)),
        (theirs, torch.tensor(values, requires_grad=True)),
    ):
        (module(x) ** 2).sum().backward()
    assert len(seen["ours"]) == len(seen["theirs"]) == 2
    for a, b in zip(seen["ours"], seen["theirs"]):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_full_backward_hook_can_replace_the_gradient() -> None:
    layer = nn.Linear(2, 2)
    layer.register_full_backward_hook(lambda m, gi, go: (gi[0] * 0,))
    x = mt.ones(1, 2, requires_grad=True)
    layer(x).sum().backward()
    assert (x.grad == 0).all()
    assert (layer.bias.grad == 1).all()


def test_repr_is_pytorchs() -> None:
    def build(nn):
        return nn.Sequential(
            OrderedDict(
                embedding=nn.Embedding(4, 2, padding_idx=-1),
                drop=nn.Dropout(0.1),
                stack=nn.ModuleList([nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2), nn.GELU()]),
                table=nn.ModuleDict({"norm": nn.LayerNorm(2), "rms": nn.RMSNorm((2, 2))}),
                empty=nn.ModuleList(),
                soft=nn.Softmax(dim=-1),
            )
        )

    assert repr(build(nn)) == repr(build(torch.nn))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_repr_of_a_transformer_is_pytorchs() -> None:
    def text(nn) -> str:
        model = nn.Transformer(8, 2, 2, 2, 16, batch_first=True)
        # PyTorch's output projection is a subclass with a name of its own.
        return repr(model).replace("NonDynamicallyQuantizableLinear", "Linear")

    assert text(nn) == text(torch.nn)


def test_dotted_lookup() -> None:
    model = Tied()
    assert model.get_submodule("out") is model.out
    assert model.get_submodule("") is model
    assert model.get_parameter("out.weight") is model.out.weight
    assert model.get_buffer("mask") is model.mask
    for lookup, name in (
        (model.get_submodule, "nothing"),
        (model.get_parameter, "out.bias"),
        (model.get_buffer, "out.weight"),
    ):
        with pytest.raises(AttributeError):
            lookup(name)


def test_super_init_takes_no_arguments() -> None:
    class Passing(nn.Module):
        def __init__(self) -> None:
            super().__init__(3, size=4)

    with pytest.raises(TypeError, match="3, size"):
        Passing()
