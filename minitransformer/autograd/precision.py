"""In which type a kernel computes: autocast, and bfloat16 where a kernel does not store it.

`record` hands every call to `dispatch` while an `autocast` block is open, or once a program has
used bfloat16. What changes type does so by a recorded cast, so that each gradient arrives in the
type of its own tensor: float32 parameters under autocast are the master weights of
mixed-precision training.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..backend import is_bfloat16, is_cuda, is_floating, resolve_dtype
from ..kernels.elementwise import cast_backward, cast_forward
from .tape import Tracked, is_grad_enabled, record, state

Function = TypeVar("Function", bound=Callable[..., Any])
Test = Callable[[Any], bool]

_PRODUCTS = {
    "addmm", "attention", "baddbmm", "einsum", "feed_forward", "gated_feed_forward", "linear",
    "matmul",
}  # fmt: skip
# By device: kernels and functions that compute in the lower type.
LOWER = {"cpu": _PRODUCTS, "cuda": _PRODUCTS | {"mv"}}
_LOSSES = {"binary_cross_entropy_with_logits", "cross_entropy", "kl_div", "mse_loss", "nll_loss"}
# By device: kernels and functions that compute in float32 whatever comes in. PyTorch has a long
# list for GPUs; on the CPU, losses and products of elements alone.
SINGLE = {
    "cpu": _LOSSES | {"prod"},
    "cuda": _LOSSES | {
        "cosine_similarity", "cumsum", "exp", "layer_norm", "log", "log1p", "log_softmax",
        "logsumexp", "norm", "power", "prod", "reciprocal", "rms_norm", "rsqrt", "softmax", "sum",
    },
}  # fmt: skip
# Those that read half precision, compute in float32 and are told so: a language model's logits
# are its largest array, and need no float32 copy for their loss.
WIDE_RESULT = {"cross_entropy": {"loss_dtype": np.dtype(np.float32)}}
# Kernels that want one type: the widest of what comes in.
WIDEST = {"residual_dropout"}

# Kernels that take bfloat16 as it is: they move elements, round once, or have a CUDA kernel or
# a library call with float32 sums. The others run in float32 between two casts, as PyTorch's do
# inside: CuPy's formulas would round at every step, and some of its functions lack the type.
STORES_BFLOAT16 = {
    "assign", "attention", "cast", "concat", "copy", "cross_entropy", "dropout", "embedding",
    "expand", "feed_forward", "flip", "gated_feed_forward", "gelu", "index", "layer_norm", "linear",
    "matmul", "move", "negative", "reshape", "residual_dropout", "roll", "softmax", "split",
    "stack", "transpose",
}  # fmt: skip
# These round once as well, but CuPy gives float32 where one operand is a Python number.
_ONE_ROUNDING = {"add", "multiply", "subtract"}


class _Casts(threading.local):
    """The casts of float32 parameters that the open blocks share."""

    def __init__(self) -> None:
        self.blocks = 0
        self.wanted = True
        self.made: dict[int, _Cast] = {}


class _Cast(NamedTuple):
    parameter: Any
    version: int
    lower: Any

    def serves(self, parameter: Any, dtype: Any) -> bool:
        """Return whether the cast is what `parameter` needs now."""
        return (
            self.parameter is parameter
            and self.version == parameter.version[0]
            and self.lower.dtype == dtype
            # made without gradients, it is of no use where they are wanted
            and (self.lower.requires_grad or not is_grad_enabled())
        )


_casts = _Casts()


def dispatch(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Record a kernel with its inputs, and perhaps its outputs, in the right types."""
    name = forward.__name__.removesuffix("_forward")
    state.inside = True  # what is recorded from here on is left alone
    try:
        device, lower = _open_block(inputs)
        if lower is not None and name in WIDE_RESULT and _is_half(inputs[0].dtype):
            options = {**options, **WIDE_RESULT[name]}
        elif lower is not None:
            inputs = _autocasted(name, device, lower, inputs)
        if not _through_float32(name, inputs):
            return record(forward, backward, *inputs, **options)
        wide = [_to(np.dtype(np.float32), x, is_bfloat16) for x in inputs]
        out = record(forward, backward, *wide, **options)
        narrow = functools.partial(_to, resolve_dtype("bfloat16"), where=_is_single)
        return tuple(map(narrow, out)) if isinstance(out, tuple) else narrow(out)
    finally:
        state.inside = False


def _open_block(inputs: tuple[Any, ...]) -> tuple[str, Any]:
    """Return where the inputs are, and the lower type of the block open for that, if one is."""
    device = "cuda" if any(_on_gpu(x) for x in inputs) else "cpu"
    return device, None if state.casts is None else state.casts.get(device)


def _autocasted(name: str, device: str, lower: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the inputs of the kernel, or function, `name` as the open block wants them."""
    if name in LOWER[device]:
        lower = resolve_dtype(lower)
        return tuple(_lowered(lower, x) for x in inputs)
    if name in SINGLE[device] or (name in WIDEST and len({x.dtype for x in inputs}) > 1):
        return tuple(_to(np.dtype(np.float32), x, _is_half) for x in inputs)
    return inputs


def _on_gpu(x: Any) -> bool:
    array = x.array if isinstance(x, Tracked) else x
    return hasattr(array, "dtype") and is_cuda(array)


def _through_float32(name: str, inputs: tuple[Any, ...]) -> bool:
    """Return whether bfloat16 is the only floating type of the inputs, and the kernel lacks it."""
    if name in STORES_BFLOAT16:
        return False
    types = [x.dtype for x in inputs if hasattr(x, "dtype") and is_floating(x.dtype)]
    if not types or not all(map(is_bfloat16, types)):
        return False
    return name not in _ONE_ROUNDING or len(types) < len(inputs)


def _is_half(dtype: Any) -> bool:
    return bool(dtype.itemsize == 2 and is_floating(dtype))


def _is_single(dtype: Any) -> bool:
    return bool(dtype == np.float32)


def _is_castable(dtype: Any) -> bool:
    # float64 is left alone: whoever uses it wants its digits
    return bool(is_floating(dtype) and dtype != np.float64)


def _to(dtype: Any, x: Any, where: Test) -> Any:
    """Return `x` cast to `dtype` if ``where`` holds for its type, itself otherwise."""
    if not hasattr(x, "dtype") or x.dtype == dtype or not where(x.dtype):
        return x
    if isinstance(x, Tracked):
        return record(cast_forward, cast_backward, x, dtype=dtype)
    return x.astype(dtype)


def _lowered(dtype: Any, x: Any) -> Any:
    """Return `x` in the lower type; a float32 parameter is cast once for the open blocks."""
    parameter = isinstance(x, Tracked) and x.requires_grad and x.node is None
    if not (parameter and _casts.wanted and x.dtype == np.float32):
        return _to(dtype, x, _is_castable)
    held = _casts.made.get(id(x))
    if held is None or not held.serves(x, dtype):
        lower = _to(dtype, x, _is_castable)
        if lower.node is not None:
            lower.node.shared = True
        held = _casts.made[id(x)] = _Cast(x, x.version[0], lower)
    return held.lower


class autocast(contextlib.ContextDecorator):
    """Compute products in a 16-bit type, and what needs range or digits in float32.

    Parameters
    ----------
    device_type : {"cuda", "cpu"}
        Tensors elsewhere are left alone.
    dtype : dtype, optional
        float16 or bfloat16; float16 on a GPU unless given. The CPU has float16 alone.
    enabled : bool
        False switches autocast off for the extent, also inside another block.
    cache_enabled : bool, optional
        Whether each float32 parameter is cast once for the outermost block; True unless given.

    Raises
    ------
    RuntimeError
        If there is no such device, or no autocast to this type on it.

    Notes
    -----
    ``linear``, ``matmul``, ``einsum``, attention and the feed-forward kernels compute in the
    lower type. ``softmax``, norms, losses, ``exp``, ``log``, ``pow`` and sums compute in
    float32 on a GPU, losses and ``prod`` on the CPU. All others take the types that come, the
    widest where they differ. These are PyTorch's lists. Parameters stay float32, and so do
    their gradients.

    References
    ----------
    .. [1] Micikevicius et al., "Mixed precision training", arXiv:1710.03740, section 3.1
       (float32 master weights) and section 3.3 (products summed in float32).

    Examples
    --------
    >>> import minitransformer as mt
    >>> x, w = mt.ones(1, 2), mt.ones(3, 2, requires_grad=True)
    >>> with mt.autocast("cpu", dtype=mt.float16):
    ...     y = mt.nn.functional.linear(x, w)
    >>> y.sum().backward()
    >>> y.dtype, w.grad.dtype
    (dtype('float16'), dtype('float32'))
    """

    def __init__(
        self,
        device_type: str,
        dtype: Any = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        if not isinstance(device_type, str):
            raise ValueError(
                f"autocast: device_type must be text, 'cuda' or 'cpu', found {device_type!r}"
            )
        if device_type not in SINGLE:
            raise RuntimeError(f"autocast: device_type is 'cuda' or 'cpu', not {device_type!r}")
        self.device = device_type
        self.fast_dtype = dtype if dtype is not None else get_autocast_dtype(device_type)
        name = str(self.fast_dtype).removeprefix("torch.")
        if enabled and device_type == "cpu" and name == "bfloat16":
            raise RuntimeError(
                "autocast: bfloat16 exists on GPUs only; on the CPU compute in float32 "
                "(enabled=False) or pass dtype=float16"
            )
        if enabled and name not in ("bfloat16", "float16", "half", "float32"):
            raise RuntimeError(f"autocast: dtype must be float16 or bfloat16, found {name}")
        self._enabled = enabled and name != "float32"  # which is what there is without
        self._cache_enabled = cache_enabled
        self._before: list[tuple[dict[str, Any] | None, bool]] = []

    def _recreate_cm(self) -> autocast:
        # a decorated function may call itself: each call needs a stack of its own
        block = copy.copy(self)
        block._before = []
        return block

    def __enter__(self) -> autocast:
        self._before.append((state.casts, _casts.wanted))
        casts = {k: v for k, v in (state.casts or {}).items() if k != self.device}
        if self._enabled:
            casts[self.device] = self.fast_dtype
        state.casts = casts or None
        _casts.blocks += 1
        if self._cache_enabled is not None:
            _casts.wanted = self._cache_enabled
        return self

    def __exit__(self, *error: object) -> None:
        state.casts, _casts.wanted = self._before.pop()
        _casts.blocks -= 1
        if _casts.blocks == 0:
            clear_autocast_cache()


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Return whether an `autocast` block is open, for one kind of device or for any."""
    return state.casts is not None and (device_type is None or device_type in state.casts)


def get_autocast_dtype(device_type: str) -> Any:
    """Return what products compute in on this kind of device inside `autocast`."""
    usual = {"cuda": np.dtype(np.float16), "cpu": "bfloat16"}
    return (state.casts or usual).get(device_type, usual.get(device_type))


def clear_autocast_cache() -> None:
    """Forget the casts of parameters that the open blocks have made."""
    _casts.made.clear()


def as_one_operation(function: Function) -> Function:
    """Let `autocast` see a function of several kernels as one, by the function's name."""

    @functools.wraps(function)
    def whole(*args: Any, **kwargs: Any) -> Any:
        if state.casts is None:
            return function(*args, **kwargs)
        values = (*args, *kwargs.values())
        device, lower = _open_block(values)
        if lower is not None:
            values = _autocasted(function.__name__, device, lower, values)
        before, state.casts = state.casts, None
        try:
            return function(*values[: len(args)], **dict(zip(kwargs, values[len(args) :])))
        finally:
            state.casts = before

    return whole  # type: ignore[return-value]
