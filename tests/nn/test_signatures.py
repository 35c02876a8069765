"""Every function and class takes PyTorch's arguments: same names, order and defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.utils.data

import minitransformer as mt
from minitransformer.nn import functional as F
from minitransformer.optim import lr_scheduler

# Ours alone, or deliberately different, with the reason.
ADDED = {
    "F.feed_forward": "our fused kernel",
    "F.gated_feed_forward": "our fused kernel",
    "F.rotary": "our kernel",
    "init.skip_random": "loading a checkpoint needs no random start",
}
EXTRA_ARGUMENTS = {
    "F.multi_head_attention_forward": {"batch_first"},  # keyword-only; spares transpositions
    "nn.Module.forward": {"options"},  # a missing forward is named however it is called
}


def places() -> list[tuple[str, Any, Any]]:
    """(name, ours, PyTorch's) for everything public."""
    found = []
    for prefix, ours, theirs, names in (
        ("nn", mt.nn, torch.nn, mt.nn.__all__),
        ("F", F, torch.nn.functional, F.__all__),
        ("init", mt.nn.init, torch.nn.init, mt.nn.init.__all__),
        ("utils", mt.nn.utils, torch.nn.utils, mt.nn.utils.__all__),
        ("optim", mt.optim, torch.optim, mt.optim.__all__),
        ("lr_scheduler", lr_scheduler, torch.optim.lr_scheduler, lr_scheduler.__all__),
        ("data", mt.utils.data, torch.utils.data, mt.utils.data.__all__),
    ):
        for name in names:
            path = f"{prefix}.{name}"
            if inspect.ismodule(getattr(ours, name)) or path in ADDED:
                continue
            found.append((path, getattr(ours, name), getattr(theirs, name)))
    return found


def methods() -> list[tuple[str, Any, Any]]:
    """(name, ours, PyTorch's) for every public method that both have."""
    found = []
    for path, ours, theirs in places():
        if not inspect.isclass(ours) or path == "nn.Parameter":
            continue
        for name, method in inspect.getmembers(ours, inspect.isfunction):
            inherited = method is getattr(mt.nn.Module, name, None) and path != "nn.Module"
            if not name.startswith("_") and hasattr(theirs, name) and not inherited:
                found.append((f"{path}.{name}", method, getattr(theirs, name)))
    return found


def signature(function: Any) -> inspect.Signature:
    """Signature, from the first line of the page where PyTorch's is compiled."""
    try:
        return inspect.signature(function)
    except ValueError:
        head = function.__doc__.split("->")[0].strip().rstrip(":")
        space: dict[str, Any] = {}
        exec(f"def f{head[head.index('(') :]}: ...", space)
        return inspect.signature(space["f"])


def described(default: Any) -> Any:
    """A default in a form that is equal for both packages."""
    if callable(default):
        return default.__name__
    return default if isinstance(default, (int, float, str, bool, tuple, type(None))) else None


def arguments(function: Any) -> list[tuple[str, Any]]:
    return [
        (name, "required" if p.default is p.empty else described(p.default))
        for name, p in signature(function).parameters.items()
        if name != "self"
    ]


def without_extra(path: str, found: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(name, default) for name, default in found if name not in EXTRA_ARGUMENTS.get(path, ())]


@pytest.mark.parametrize(
    ("path", "ours", "theirs"), places(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_arguments_are_pytorchs(path: str, ours: Any, theirs: Any) -> None:
    assert without_extra(path, arguments(ours)) == arguments(theirs)


@pytest.mark.parametrize(
    ("path", "ours", "theirs"), methods(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_method_arguments_are_pytorchs(path: str, ours: Any, theirs: Any) -> None:
    assert without_extra(path, arguments(ours)) == arguments(theirs)


def test_keyword_only_arguments_are_keyword_only() -> None:
    kinds = {
        name: p.kind
        for name, p in inspect.signature(F.scaled_dot_product_attention).parameters.items()
    }
    assert kinds["scale"] is kinds["enable_gqa"] is inspect.Parameter.KEYWORD_ONLY
    with pytest.raises(TypeError):
        torch.nn.functional.scaled_dot_product_attention(
            *[torch.ones(1, 1)] * 3, None, 0.0, False, 1.0
        )


def test_additions_are_not_pytorchs() -> None:
    for path in ADDED:
        place, name = path.split(".")
        assert not hasattr({"F": torch.nn.functional, "init": torch.nn.init}[place], name)
