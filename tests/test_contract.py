"""What every kernel promises, held against every `*_forward` there is.

That types, inputs and randomness behave is run on drawn inputs in `tests/kernels`; here it is
checked that no kernel can be added without its counterpart, its case, its name and its source.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import minitransformer
import minitransformer.kernels
import minitransformer.nn.functional
from minitransformer import Tensor
from tests.kernels.cases import CASES

PACKAGE = Path(minitransformer.kernels.__file__).parent
MODULES = sorted(m.name for m in pkgutil.iter_modules([str(PACKAGE)]) if not m.ispkg)

# Kernels that `tests/kernels/test_kernels.py` cannot run on both dtypes and all layouts, and
# where they are tested instead.
ELSEWHERE = {
    "dropout": "test_regimes.py: draws random numbers, so no reference gives its values",
    "residual_dropout": "test_regimes.py: likewise",
    "cast": "test_regimes.py: its output has another dtype by design",
}

# Kernels of ours in F for which PyTorch has no function.
OURS_ALONE = {"feed_forward", "gated_feed_forward", "rotary"}

# Formulas of papers; everything else is a definition from school.
PUBLISHED = {name for name, case in CASES.items() if case.published} | {
    "dropout",
    "residual_dropout",
}


def forwards() -> dict[str, Callable[..., object]]:
    """Every forward function, by kernel name."""
    found: dict[str, Callable[..., object]] = {}
    for name in MODULES:
        module = importlib.import_module(f"minitransformer.kernels.{name}")
        for attribute, value in vars(module).items():
            if (
                attribute.endswith("_forward")
                and not attribute.startswith("_")
                and value.__module__ == module.__name__
            ):
                found[attribute.removesuffix("_forward")] = value
    return found


FORWARDS = forwards()
every_kernel = pytest.mark.parametrize("name", sorted(FORWARDS))


def test_there_are_kernels() -> None:
    assert {"attention", "layer_norm", "softmax", "matmul", "add", "cross_entropy"} <= set(FORWARDS)


@every_kernel
def test_it_has_a_backward_beside_it(name: str) -> None:
    module = inspect.getmodule(FORWARDS[name])
    backward = getattr(module, f"{name}_backward", None)
    assert callable(backward)
    parameters = list(inspect.signature(backward).parameters.values())
    assert len(parameters) == 2, f"{name}_backward takes (dout, saved)"
    assert parameters[0].name.startswith("d") and parameters[1].name == "saved"


def test_no_backward_stands_alone() -> None:
    for name in MODULES:
        module = importlib.import_module(f"minitransformer.kernels.{name}")
        alone = {
            attribute
            for attribute in vars(module)
            if attribute.endswith("_backward")
            and not attribute.startswith("_")
            and not hasattr(module, attribute.replace("_backward", "_forward"))
        }
        assert not alone


@every_kernel
def test_arrays_are_positional_and_options_are_keywords(name: str) -> None:
    parameters = inspect.signature(FORWARDS[name]).parameters.values()
    kinds = [p.kind for p in parameters]
    assert kinds, f"{name}_forward takes no array"
    arrays = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert arrays
    # An array may be left out, an option never looks like an array.
    assert all(p.default in (inspect.Parameter.empty, None) for p in arrays)
    assert inspect.Parameter.VAR_KEYWORD not in kinds


@every_kernel
def test_it_has_a_case(name: str) -> None:
    assert name in CASES or name in ELSEWHERE
    if name in CASES:
        assert FORWARDS[name].__module__ == f"minitransformer.kernels.{CASES[name].module}"


def test_no_case_is_without_a_kernel() -> None:
    assert set(CASES) <= set(FORWARDS)
    assert set(ELSEWHERE) <= set(FORWARDS)


@pytest.mark.parametrize("name", sorted(n for n, case in CASES.items() if case.public))
def test_it_has_pytorchs_name(name: str) -> None:
    """Where PyTorch users look for an operation, there it is."""
    place, _, attribute = CASES[name].public.rpartition(".")
    ours, theirs = {
        "F": (minitransformer.nn.functional, torch.nn.functional),
        "Tensor": (Tensor, torch.Tensor),
        "": (minitransformer, torch),
    }[place]
    assert hasattr(theirs, attribute)
    assert callable(getattr(ours, attribute))


def test_every_functional_of_ours_is_pytorchs() -> None:
    """A public name in F is PyTorch's, with PyTorch's arguments in PyTorch's order."""
    ours = minitransformer.nn.functional
    assert {n for n in ours.__all__ if not hasattr(torch.nn.functional, n)} == OURS_ALONE
    for name in set(ours.__all__) - OURS_ALONE:
        theirs = getattr(torch.nn.functional, name)
        try:
            expected = list(inspect.signature(theirs).parameters)
        except ValueError:  # written in C
            continue
        found = list(inspect.signature(getattr(ours, name)).parameters)
        for ours_name, theirs_name in zip(found, expected):
            if theirs_name.startswith("_") or ours_name in ("args", "kwargs"):
                break
            if theirs_name in ("args", "kwargs"):
                break
            assert ours_name == theirs_name, f"F.{name}: {found} against {expected}"


@pytest.mark.parametrize("name", sorted(PUBLISHED & set(FORWARDS)))
def test_a_published_formula_names_its_source(name: str) -> None:
    text = inspect.getdoc(FORWARDS[name]) or ""
    assert "References\n----------" in text
    source = text.split("References\n----------")[1]
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|\b(19|20)\d\d\b", source), "a year or a number"
    assert re.search(r"equation|section|algorithm|pp?\.", source), "and the place in it"


@every_kernel
def test_it_is_documented_and_shown(name: str) -> None:
    text = inspect.getdoc(FORWARDS[name]) or ""
    assert ">>>" in text, f"{name}_forward has no doctest"
    backward = getattr(inspect.getmodule(FORWARDS[name]), f"{name}_backward")
    assert inspect.getdoc(backward)


@pytest.mark.parametrize("name", MODULES)
def test_kernels_stand_on_the_backend_alone(name: str) -> None:
    """No tensor, no tape, no other package than NumPy; constants come from `math`."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots = {(node.module or "").partition(".")[0]}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1 or node.module in ("backend", None), ast.unparse(node)
            continue
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in ("np", "xp")
            and node.func.attr in ("sqrt", "exp", "log")
        ):
            # `np.sqrt(64)` is a float64 scalar that would widen float32 arrays.
            assert not (node.args and isinstance(node.args[0], ast.Constant)), ast.unparse(node)
            continue
        else:
            continue
        assert roots <= {"numpy"} | sys.stdlib_module_names, f"{name}: {roots}"


@pytest.mark.parametrize("name", MODULES)
def test_kernels_keep_no_state(name: str) -> None:
    """No `global`, no generator of NumPy's: what is drawn comes from a `key`."""
    source = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Global | ast.Nonlocal)]
    assert not re.search(r"np\.random|default_rng|RandomState", source)


def test_drawing_kernels_take_a_key() -> None:
    for name in ("dropout", "attention", "feed_forward"):
        parameters = inspect.signature(FORWARDS[name]).parameters
        assert parameters["key"].kind is inspect.Parameter.KEYWORD_ONLY
