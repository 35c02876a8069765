"""How a tensor prints: as PyTorch does, so that a listing's output can be compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, default_dtype, is_bfloat16, to_numpy

if TYPE_CHECKING:
    from .tensor import Tensor

# Kernels that have longer names than PyTorch's operations.
_PYTORCH = {
    "concat": "cat",
    "divide": "div",
    "linear": "addmm",
    "multiply": "mul",
    "negative": "neg",
    "power": "pow",
    "reshape": "view",
    "subtract": "sub",
}
_DEFAULTS = {
    "precision": 4,  # digits after the point
    "threshold": 1000,  # elements above which a tensor is summarised
    "edgeitems": 3,  # elements that a summary shows at each end of a dimension
    "linewidth": 80,
}
_options: dict[str, Any] = {**_DEFAULTS, "sci_mode": None}


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors print; ``profile="default"`` restores everything first."""
    if profile is not None:
        if profile != "default":
            raise ValueError(f"set_printoptions: profile must be 'default', found {profile!r}")
        _options.update(_DEFAULTS)
    given = dict(zip(_DEFAULTS, (precision, threshold, edgeitems, linewidth)))
    _options.update({name: value for name, value in given.items() if value is not None})
    _options["sci_mode"] = sci_mode


class _Numbers:
    """One format for all elements: integers, fixed point or scientific."""

    def __init__(self, values: Array) -> None:
        self.floating = values.dtype.kind == "f"
        self.scientific = False
        self.whole = True
        self.width = 1
        if not self.floating:
            self.width = max((len(str(v)) for v in values.reshape(-1).tolist()), default=1)
            return
        size = abs(values.astype(np.float64))
        size = size[np.isfinite(size) & (size != 0)]
        if size.size == 0:
            return
        low, high = float(size.min()), float(size.max())
        self.whole = bool((size == np.ceil(size)).all())
        self.scientific = high / low > 1000 or high > 1e8 or (not self.whole and low < 1e-4)
        if _options["sci_mode"] is not None:
            self.scientific = _options["sci_mode"]
        shown = values.reshape(-1).tolist()
        self.width = max(len(self._text(v)) for v in shown if math.isfinite(v) and v != 0)

    def _text(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{_options['precision']}e}"
        if not self.whole:
            return f"{value:.{_options['precision']}f}"
        return f"{value:.0f}" + ("." if math.isfinite(value) else "")

    def __call__(self, value: Any) -> str:
        return self._text(value).rjust(self.width)


def _rows(values: Array, numbers: _Numbers, indent: int, summarise: bool) -> str:
    if values.ndim == 0:
        return numbers(values.item())
    n, edge = values.shape[0], _options["edgeitems"]
    cut = summarise and n > 2 * edge
    head, tail = (values[:edge], values[n - edge :]) if cut else (values, values[:0])
    if values.ndim == 1:
        words = [numbers(v) for v in head.tolist()]
        if cut:
            words += [" ..."] + [numbers(v) for v in tail.tolist()]
        step = max(1, (_options["linewidth"] - indent) // (numbers.width + 2))
        lines = [", ".join(words[i : i + step]) for i in range(0, len(words), step)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    parts = [_rows(v, numbers, indent + 1, summarise) for v in head]
    if cut:
        parts += ["..."] + [_rows(v, numbers, indent + 1, summarise) for v in tail]
    between = "," + "\n" * (values.ndim - 1) + " " * (indent + 1)
    return "[" + between.join(parts) + "]"


def _corners(values: Array) -> Array:
    """Return the elements that a summary shows: they alone choose the format."""
    edge = _options["edgeitems"]
    for axis, n in enumerate(values.shape):
        if n > 2 * edge:
            shown = list(range(edge)) + list(range(n - edge, n))
            values = values.take(shown, axis=axis)
    return values


def tensor_repr(x: Tensor) -> str:
    """Return the text that ``repr(x)`` gives.

    Examples
    --------
    >>> import minitransformer as mt
    >>> mt.tensor([[1.0, 2.0], [3.0, 4.5]], requires_grad=True)
    tensor([[1.0000, 2.0000],
            [3.0000, 4.5000]], requires_grad=True)
    """
    values, dtype = to_numpy(x.array), x.array.dtype
    if is_bfloat16(dtype):
        values = values.astype(np.float32)
    prefix = "tensor("
    notes: list[str] = []
    if str(x.device) != "cpu":
        notes.append(f"device='{x.device}'")
    usual = dtype in (default_dtype(), np.dtype(np.int64), np.dtype(np.bool_))
    if values.size == 0:
        if values.ndim != 1:
            notes.append(f"size={values.shape}")
        usual = dtype == default_dtype()
        text = "[]"
    else:
        summarise = values.size > _options["threshold"]
        numbers = _Numbers(_corners(values) if summarise else values)
        text = _rows(values, numbers, len(prefix), summarise)
    if not usual:
        notes.append(f"dtype=torch.{dtype}")
    if x.node is not None:
        notes.append(f"grad_fn=<{grad_fn_name(x.node.name)}>")
    elif x.requires_grad:
        notes.append("requires_grad=True")
    line = prefix + text
    length = len(line) - line.rfind("\n") - 1
    for note in notes:
        if length + len(note) + 3 > _options["linewidth"]:
            line += ",\n" + " " * len(prefix) + note
            length = len(prefix) + len(note)
        else:
            line += ", " + note
            length += len(note) + 2
    return line + ")"


def grad_fn_name(kernel: str) -> str:
    """Return the name that PyTorch's users look for.

    >>> grad_fn_name("layer_norm"), grad_fn_name("multiply")
    ('LayerNormBackward0', 'MulBackward0')
    """
    kernel = _PYTORCH.get(kernel, kernel)
    return "".join(part.capitalize() for part in kernel.split("_")) + "Backward0"
