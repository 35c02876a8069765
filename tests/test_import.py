"""`import minitransformer` needs NumPy alone and loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import minitransformer

PACKAGE = Path(minitransformer.__file__).parent

# Standard-library packages that a light import has no use for.
HEAVY = {"asyncio", "multiprocessing", "unittest", "http", "urllib.request", "sqlite3", "xml"}


def loaded_by(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after `statement`."""
    program = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(run.stdout.split())


def test_import_loads_numpy_and_the_standard_library_alone():
    added = loaded_by("import minitransformer") - loaded_by("import numpy")
    foreign = {
        name.partition(".")[0]
        for name in added
        if name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert foreign <= {"minitransformer", "numpy"}


def test_import_is_light():
    added = loaded_by("import minitransformer") - loaded_by("import numpy")
    assert not added & HEAVY
    own = {name for name in added if name.startswith("minitransformer")}
    above = {"verify", "bench", "cli", "models", "training", "explain", "data"}
    assert not {name for name in own if len(name.split(".")) > 1 and name.split(".")[1] in above}
    assert not {name for name in added if name.startswith("numpy.") and "testing" in name}


def test_import_works_where_only_numpy_can_be_found():
    """The other packages are not merely unused: the import works without them."""
    hide = (
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        root = name.partition('.')[0]\n"
        "        allowed = {'minitransformer', 'numpy'} | sys.stdlib_module_names\n"
        "        if root not in allowed:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import minitransformer as mt\n"
        "x = mt.tensor([[1.0, 2.0]], requires_grad=True)\n"
        "y = mt.nn.Linear(2, 3)(x)\n"
        "y.sum().backward()\n"
        "print(tuple(x.grad.shape))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", hide],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(1, 2)"


def test_no_module_imports_another_framework_when_it_is_loaded():
    """Torch, SciPy and the rest appear inside functions of the oracle and the bench alone."""
    frameworks = {"torch", "jax", "tensorflow", "scipy", "transformers", "cupy"}
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            found += [
                f"{path.relative_to(PACKAGE)}: {name}"
                for name in names
                if name.partition(".")[0] in frameworks
            ]
    assert not found
