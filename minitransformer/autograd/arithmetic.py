"""Arithmetic, comparison and logic, element by element: functions and methods of `Tensor`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import array_module, default_dtype, is_floating, limits
from ..kernels import activation, elementwise
from ..kernels import softmax as softmax_kernels
from .operands import Other, apply, cast, compare, is_scalar, matched, numpy_names, raw, run, wrap
from .precision import as_one_operation
from .tape import Tracked

if TYPE_CHECKING:
    from .tensor import Tensor

# -- two operands --------------------------------------------------------------


def add(input: Other, other: Other, *, alpha: float = 1) -> Tensor:
    """Return ``input + alpha * other``."""
    if alpha != 1:
        other = mul(other, alpha)
    return apply(
        "add", elementwise.add_forward, elementwise.add_backward, *matched("add", input, other)
    )


def sub(input: Other, other: Other, *, alpha: float = 1) -> Tensor:
    """Return ``input - alpha * other``."""
    if alpha != 1:
        other = mul(other, alpha)
    forward, backward = elementwise.subtract_forward, elementwise.subtract_backward
    return apply("sub", forward, backward, *matched("sub", input, other))


def rsub(input: Other, other: Other) -> Tensor:
    """Return ``other - input``."""
    return sub(other, input)


def mul(input: Other, other: Other) -> Tensor:
    """Return ``input * other``."""
    forward, backward = elementwise.multiply_forward, elementwise.multiply_backward
    return apply("mul", forward, backward, *matched("mul", input, other))


def div(input: Other, other: Other, *, rounding_mode: str | None = None) -> Tensor:
    """Return ``input / other`` in floating point, or rounded to ``"floor"`` or ``"trunc"``."""
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode not in (None, "trunc"):
        raise RuntimeError(
            f"div: rounding_mode must be None, 'trunc' or 'floor', found {rounding_mode!r}"
        )
    operands = matched("div", input, other, floating=rounding_mode is None)
    if rounding_mode is None:
        return apply("div", elementwise.divide_forward, elementwise.divide_backward, *operands)
    quotient = compare("true_divide", input, other)
    kind = next(x.array.dtype for x in operands if isinstance(x, Tracked))
    return wrap(array_module(quotient.array).trunc(quotient.array).astype(kind))


def pow(input: Other, exponent: Other) -> Tensor:
    """Return ``input ** exponent``."""
    forward, backward = elementwise.power_forward, elementwise.power_backward
    return apply("pow", forward, backward, *matched("pow", input, exponent))


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """Return the larger element of the two."""
    forward, backward = elementwise.maximum_forward, elementwise.maximum_backward
    return apply("maximum", forward, backward, *matched("maximum", input, other))


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """Return the smaller element of the two."""
    forward, backward = elementwise.minimum_forward, elementwise.minimum_backward
    return apply("minimum", forward, backward, *matched("minimum", input, other))


def floor_divide(input: Other, other: Other) -> Tensor:
    """Return ``input / other`` rounded down; it has no gradient."""
    return compare("floor_divide", input, other)


def remainder(input: Other, other: Other) -> Tensor:
    """Return what `floor_divide` leaves over: it has the sign of `other`, and no gradient."""
    if any(isinstance(x, Tracked) and x.requires_grad for x in (input, other)):
        raise NotImplementedError("remainder has no gradient here; use detach() first")
    return compare("remainder", input, other)


def reversed_arguments(function: Callable[..., Tensor]) -> Callable[[Any, Any], Any]:
    """Return `function` with its two arguments exchanged, for ``1 / x`` and the like."""

    def exchanged(input: Any, other: Any) -> Any:
        return function(other, input)

    return exchanged


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """Return ``input + value * tensor1 * tensor2``."""
    return add(input, mul(tensor1, tensor2), alpha=value)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """Return ``input + value * tensor1 / tensor2``."""
    return add(input, div(tensor1, tensor2), alpha=value)


def lerp(input: Tensor, end: Tensor, weight: Other) -> Tensor:
    """Return ``input + weight * (end - input)``."""
    return add(input, mul(sub(end, input), weight))


# -- one operand -----------------------------------------------------------------


def _unary(
    name: str, forward: Callable[..., Any], backward: Callable[..., Any], doc: str
) -> Callable[[Tensor], Tensor]:
    def function(input: Tensor) -> Tensor:
        if not isinstance(input, Tracked):
            raise TypeError(f"{name}: argument 'input' must be Tensor, found {_kind(input)}")
        if not is_floating(input.array.dtype):
            input = cast(input, default_dtype())
        return run(forward, backward, input)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _kind(x: object) -> str:
    return type(x).__name__


exp = _unary("exp", elementwise.exp_forward, elementwise.exp_backward, "Return ``e ** input``.")
log = _unary(
    "log", elementwise.log_forward, elementwise.log_backward, "Return the natural logarithm."
)
log1p = _unary(
    "log1p", elementwise.log1p_forward, elementwise.log1p_backward, "Return ``log(1 + input)``."
)
sqrt = _unary(
    "sqrt", elementwise.sqrt_forward, elementwise.sqrt_backward, "Return the square root."
)
rsqrt = _unary(
    "rsqrt", elementwise.rsqrt_forward, elementwise.rsqrt_backward, "Return ``1 / sqrt(input)``."
)
tanh = _unary(
    "tanh", elementwise.tanh_forward, elementwise.tanh_backward, "Return the hyperbolic tangent."
)
sigmoid = _unary(
    "sigmoid",
    elementwise.sigmoid_forward,
    elementwise.sigmoid_backward,
    "Return ``1 / (1 + exp(-input))``.",
)
erf = _unary("erf", elementwise.erf_forward, elementwise.erf_backward, "Return the error function.")
sin = _unary("sin", elementwise.sin_forward, elementwise.sin_backward, "Return the sine.")
cos = _unary("cos", elementwise.cos_forward, elementwise.cos_backward, "Return the cosine.")


def neg(input: Tensor) -> Tensor:
    """Return ``-input``."""
    if input.array.dtype.kind == "b":
        raise RuntimeError("negation of a bool tensor: use ~ or logical_not()")
    return run(elementwise.negative_forward, elementwise.negative_backward, input)


def abs(input: Tensor) -> Tensor:
    """Return the absolute value."""
    return run(elementwise.abs_forward, elementwise.abs_backward, input)


def square(input: Tensor) -> Tensor:
    """Return ``input * input``."""
    return mul(input, input)


@as_one_operation
def reciprocal(input: Tensor) -> Tensor:
    """Return ``1 / input``."""
    return div(1, input)


def relu(input: Tensor) -> Tensor:
    """Return ``max(input, 0)``."""
    return run(activation.relu_forward, activation.relu_backward, input)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Return `input` held between `min` and `max`, numbers or tensors."""
    if min is None and max is None:
        raise RuntimeError("clamp: at least one of 'min' and 'max' must be given")
    if isinstance(min, Tracked) or isinstance(max, Tracked):
        input = input if min is None else maximum(input, min)
        return input if max is None else minimum(input, max)
    numbers = [x for x in (min, max) if x is not None]
    input = matched("clamp", input, *numbers)[0]
    return run(elementwise.clamp_forward, elementwise.clamp_backward, input, min=min, max=max)


clip = clamp


@numpy_names
def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """Return ``exp(input)`` divided by its sum along `dim`."""
    x = input if dtype is None else input.to(dtype)
    return run(softmax_kernels.softmax_forward, softmax_kernels.softmax_backward, x, axis=dim)


@numpy_names
def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """Return the logarithm of `softmax`."""
    x = input if dtype is None else input.to(dtype)
    return run(
        softmax_kernels.log_softmax_forward, softmax_kernels.log_softmax_backward, x, axis=dim
    )


def _rounding(name: str, doc: str) -> Callable[[Tensor], Tensor]:
    def function(input: Tensor) -> Tensor:
        x = input.array
        if not is_floating(x.dtype) and name != "sign":
            return wrap(x.copy())
        # Piecewise constant: the gradient is zero where there is one.
        return run(_constant_forward, _constant_backward, input, name=name)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _constant_forward(x: Any, *, name: str) -> tuple[Any, tuple[Any, ...]]:
    return getattr(array_module(x), name)(x), ()


def _constant_backward(dout: Any, saved: tuple[Any, ...]) -> tuple[Any, ...]:
    return (array_module(dout).zeros_like(dout),)


floor = _rounding("floor", "Return the elements rounded down; the gradient is zero.")
ceil = _rounding("ceil", "Return the elements rounded up; the gradient is zero.")
round = _rounding("round", "Return the nearest integers, halves to even; the gradient is zero.")
trunc = _rounding("trunc", "Return the elements rounded towards zero; the gradient is zero.")
sign = _rounding("sign", "Return -1, 0 or 1; the gradient is zero.")


# -- selection -------------------------------------------------------------------


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """Return `input` where `condition` holds, and `other` elsewhere.

    With the condition alone, return the tuple of index tensors of its true elements.
    """
    if input is None and other is None:
        return tuple(wrap(i) for i in array_module(condition.array).nonzero(condition.array))
    if condition.array.dtype.kind != "b":
        raise RuntimeError(f"where: condition must be a bool tensor, found {condition.dtype}")
    if is_scalar(input) and is_scalar(other):
        xp = array_module(condition.array)
        input = wrap(xp.asarray(input, dtype=result_dtype(input, other)))
    a, b = matched("where", input, other)
    return apply("where", elementwise.where_forward, elementwise.where_backward, condition, a, b)


def result_dtype(*operands: Any) -> np.dtype[Any]:
    """Return the dtype of an operation on `operands`."""
    from .operands import result_type

    return result_type(*operands)


def masked_fill(input: Tensor, mask: Tensor, value: Other) -> Tensor:
    """Return `input` with `value` where `mask` is true."""
    mask_array = raw(mask)
    if mask_array.dtype.kind != "b":
        raise RuntimeError(
            f"masked_fill: mask must be a bool tensor, found {mask_array.dtype}; compare, "
            "as in mask == 0, or use mask.bool()"
        )
    if isinstance(value, Tracked):
        if value.array.ndim:
            raise RuntimeError(
                f"masked_fill: value must be a number or have no dimensions, found shape "
                f"{value.array.shape}"
            )
        if value.requires_grad:
            filled: Tensor = where(mask, cast(value, input.dtype), input)
            return filled
        value = value.item()
    check_fits("masked_fill", value, input.dtype)
    kernels = (elementwise.masked_fill_forward, elementwise.masked_fill_backward)
    try:
        return run(*kernels, input, mask, value=input.dtype.type(value).item())
    except ValueError:
        raise RuntimeError(
            f"masked_fill: mask of shape {mask_array.shape} does not broadcast to the tensor's "
            f"shape {input.array.shape}"
        ) from None


def check_fits(name: str, value: Any, dtype: np.dtype[Any]) -> None:
    """Raise RuntimeError if a finite number overflows `dtype`."""
    if is_floating(dtype) and math.isfinite(value) and np.abs(value) > float(limits(dtype).max):
        raise RuntimeError(
            f"{name}: value {value} cannot be converted to {dtype} without overflow; "
            f"its range ends at {limits(dtype).max}"
        )


def nan_to_num(
    input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Return `input` with numbers for NaN and the infinities: 0 and the dtype's limits."""
    ends = limits(input.dtype)
    high = float(ends.max) if posinf is None else posinf
    low = float(ends.min) if neginf is None else neginf
    x = masked_fill(input, isnan(input), nan)
    return masked_fill(masked_fill(x, eq(x, math.inf), high), eq(x, -math.inf), low)


# -- comparison and logic --------------------------------------------------------------


def _comparison(name: str, ufunc: str, doc: str) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        return compare(ufunc, input, other)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


eq = _comparison("eq", "equal", "Return whether the elements are equal.")
ne = _comparison("ne", "not_equal", "Return whether the elements differ.")
lt = _comparison("lt", "less", "Return ``input < other``.")
le = _comparison("le", "less_equal", "Return ``input <= other``.")
gt = _comparison("gt", "greater", "Return ``input > other``.")
ge = _comparison("ge", "greater_equal", "Return ``input >= other``.")
logical_and = _comparison("logical_and", "logical_and", "Return whether both are true.")
logical_or = _comparison("logical_or", "logical_or", "Return whether one is true.")
logical_xor = _comparison("logical_xor", "logical_xor", "Return whether just one is true.")
bitwise_and = _comparison("bitwise_and", "bitwise_and", "Return ``input & other``.")
bitwise_or = _comparison("bitwise_or", "bitwise_or", "Return ``input | other``.")
bitwise_xor = _comparison("bitwise_xor", "bitwise_xor", "Return ``input ^ other``.")


def _test(name: str, ufunc: str, doc: str) -> Callable[[Tensor], Tensor]:
    def function(input: Tensor) -> Tensor:
        return wrap(getattr(array_module(input.array), ufunc)(input.array))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


isnan = _test("isnan", "isnan", "Return whether each element is NaN.")
isinf = _test("isinf", "isinf", "Return whether each element is infinite.")
isfinite = _test("isfinite", "isfinite", "Return whether each element is finite.")
logical_not = _test("logical_not", "logical_not", "Return whether each element is zero or false.")
bitwise_not = _test("bitwise_not", "invert", "Return ``~input``.")


def equal(input: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have one shape and equal elements."""
    a, b = raw(input), raw(other)
    return a.shape == b.shape and bool((a == b).all())


def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Return whether ``|input - other| <= atol + rtol * |other|``."""
    a, b = raw(input), raw(other)
    if a.dtype != b.dtype:
        raise RuntimeError(f"isclose: dtypes differ, {a.dtype} and {b.dtype}; convert with .to()")
    return wrap(array_module(a).isclose(a, b, rtol, atol, equal_nan=equal_nan))


def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Return whether `isclose` holds everywhere."""
    return bool(isclose(input, other, rtol, atol, equal_nan).array.all())
