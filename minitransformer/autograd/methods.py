"""The operators and methods of `Tensor` that are functions of the modules here.

A function becomes a method by being bound under its name: ``x.add(y)`` and
``add(x, y)`` are one and the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import arithmetic, creation, inplace, products, reductions, shapes
from .inplace import in_place
from .tape import Tracked

if TYPE_CHECKING:
    from .tensor import Tensor


class Methods(Tracked):
    """What `Tensor` can do, by name; `Tensor` adds what it is."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        return arithmetic.eq(self, other) if _is_operand(other) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return arithmetic.ne(self, other) if _is_operand(other) else NotImplemented

    def __rmatmul__(self: Any, other: Any) -> Tensor:
        return products.matmul(creation.as_tensor(other), self)

    __lt__, __le__ = arithmetic.lt, arithmetic.le
    __gt__, __ge__ = arithmetic.gt, arithmetic.ge
    __getitem__ = shapes.getitem
    __setitem__ = inplace.setitem
    __add__ = __radd__ = arithmetic.add
    __sub__, __rsub__ = arithmetic.sub, arithmetic.rsub
    __mul__ = __rmul__ = arithmetic.mul
    __truediv__, __rtruediv__ = arithmetic.div, arithmetic.reversed_arguments(arithmetic.div)
    __floordiv__ = arithmetic.floor_divide
    __rfloordiv__ = arithmetic.reversed_arguments(arithmetic.floor_divide)
    __mod__, __rmod__ = arithmetic.remainder, arithmetic.reversed_arguments(arithmetic.remainder)
    __pow__, __rpow__ = arithmetic.pow, arithmetic.reversed_arguments(arithmetic.pow)
    __matmul__ = products.matmul
    __and__ = __rand__ = arithmetic.bitwise_and
    __or__ = __ror__ = arithmetic.bitwise_or
    __xor__ = __rxor__ = arithmetic.bitwise_xor
    __neg__, __invert__, __abs__ = arithmetic.neg, arithmetic.bitwise_not, arithmetic.abs

    # -- arithmetic --------------------------------------------------------------------

    add, sub, mul, div, pow = (
        arithmetic.add,
        arithmetic.sub,
        arithmetic.mul,
        arithmetic.div,
        arithmetic.pow,
    )
    subtract, multiply, divide, true_divide = sub, mul, div, div
    maximum, minimum = arithmetic.maximum, arithmetic.minimum
    floor_divide, remainder = arithmetic.floor_divide, arithmetic.remainder
    addcmul, addcdiv, lerp = arithmetic.addcmul, arithmetic.addcdiv, arithmetic.lerp
    exp, log, log1p = arithmetic.exp, arithmetic.log, arithmetic.log1p
    sqrt, rsqrt, square = arithmetic.sqrt, arithmetic.rsqrt, arithmetic.square
    tanh, sigmoid, erf = arithmetic.tanh, arithmetic.sigmoid, arithmetic.erf
    sin, cos, abs, neg = arithmetic.sin, arithmetic.cos, arithmetic.abs, arithmetic.neg
    reciprocal, relu, clamp, clip = (
        arithmetic.reciprocal,
        arithmetic.relu,
        arithmetic.clamp,
        arithmetic.clamp,
    )
    softmax, log_softmax = arithmetic.softmax, arithmetic.log_softmax
    floor, ceil, round, trunc, sign = (
        arithmetic.floor,
        arithmetic.ceil,
        arithmetic.round,
        arithmetic.trunc,
        arithmetic.sign,
    )
    masked_fill, nan_to_num = arithmetic.masked_fill, arithmetic.nan_to_num

    def where(self: Any, condition: Tensor, other: Any) -> Any:
        """Return this tensor where `condition` holds, and `other` elsewhere."""
        return arithmetic.where(condition, self, other)

    # -- comparison and logic ------------------------------------------------------------

    eq, ne, lt, le, gt, ge = (
        arithmetic.eq,
        arithmetic.ne,
        arithmetic.lt,
        arithmetic.le,
        arithmetic.gt,
        arithmetic.ge,
    )
    logical_and, logical_or = arithmetic.logical_and, arithmetic.logical_or
    logical_xor, logical_not = arithmetic.logical_xor, arithmetic.logical_not
    isnan, isinf, isfinite = arithmetic.isnan, arithmetic.isinf, arithmetic.isfinite
    equal, isclose, allclose = arithmetic.equal, arithmetic.isclose, arithmetic.allclose

    # -- reductions ------------------------------------------------------------------------

    sum, mean, var, std, norm = (
        reductions.sum,
        reductions.mean,
        reductions.var,
        reductions.std,
        reductions.norm,
    )
    prod, cumsum, logsumexp = reductions.prod, reductions.cumsum, reductions.logsumexp
    max, min, amax, amin = reductions.max, reductions.min, reductions.amax, reductions.amin
    argmax, argmin, argsort = reductions.argmax, reductions.argmin, reductions.argsort
    sort, topk, median = reductions.sort, reductions.topk, reductions.median
    unique, bincount = reductions.unique, reductions.bincount
    any, all, count_nonzero = reductions.any, reductions.all, reductions.count_nonzero

    # -- shapes ------------------------------------------------------------------------------

    view, reshape, flatten, unflatten = (
        shapes.view,
        shapes.reshape,
        shapes.flatten,
        shapes.unflatten,
    )
    view_as, reshape_as, ravel = shapes.view_as, shapes.reshape_as, shapes.ravel
    permute, transpose, swapaxes, t = (
        shapes.permute,
        shapes.transpose,
        shapes.transpose,
        shapes.t,
    )
    swapdims, movedim = shapes.transpose, shapes.movedim
    squeeze, unsqueeze = shapes.squeeze, shapes.unsqueeze
    expand, expand_as, broadcast_to = shapes.expand, shapes.expand_as, shapes.broadcast_to
    repeat, tile, repeat_interleave = shapes.repeat, shapes.tile, shapes.repeat_interleave
    flip, roll, tril, triu = shapes.flip, shapes.roll, shapes.tril, shapes.triu
    diagonal, diag = shapes.diagonal, shapes.diag
    split, chunk, unbind = shapes.split, shapes.chunk, shapes.unbind
    narrow, select, unfold = shapes.narrow, shapes.select, shapes.unfold
    index_select, gather, take_along_dim = (
        shapes.index_select,
        shapes.gather,
        shapes.take_along_dim,
    )
    masked_select, nonzero = shapes.masked_select, shapes.nonzero
    contiguous, clone = shapes.contiguous, shapes.clone
    scatter, scatter_add = inplace.scatter, inplace.scatter_add
    index_fill, index_add = inplace.index_fill, inplace.index_add

    # -- products ----------------------------------------------------------------------------

    matmul, mm, bmm, mv, dot, outer = (
        products.matmul,
        products.mm,
        products.bmm,
        products.mv,
        products.dot,
        products.outer,
    )
    addmm, baddbmm = products.addmm, products.baddbmm

    # -- random ------------------------------------------------------------------------------

    multinomial, bernoulli = creation.multinomial, creation.bernoulli

    # -- in place ----------------------------------------------------------------------------

    add_ = in_place("add_", arithmetic.add)
    sub_ = in_place("sub_", arithmetic.sub)
    mul_ = in_place("mul_", arithmetic.mul)
    div_ = in_place("div_", arithmetic.div)
    pow_ = in_place("pow_", arithmetic.pow)
    addcmul_ = in_place("addcmul_", arithmetic.addcmul)
    addcdiv_ = in_place("addcdiv_", arithmetic.addcdiv)
    lerp_ = in_place("lerp_", arithmetic.lerp)
    clamp_ = clip_ = in_place("clamp_", arithmetic.clamp)
    exp_ = in_place("exp_", arithmetic.exp)
    log_ = in_place("log_", arithmetic.log)
    sqrt_ = in_place("sqrt_", arithmetic.sqrt)
    rsqrt_ = in_place("rsqrt_", arithmetic.rsqrt)
    tanh_ = in_place("tanh_", arithmetic.tanh)
    sigmoid_ = in_place("sigmoid_", arithmetic.sigmoid)
    relu_ = in_place("relu_", arithmetic.relu)
    neg_ = in_place("neg_", arithmetic.neg)
    abs_ = in_place("abs_", arithmetic.abs)
    masked_fill_ = in_place("masked_fill_", arithmetic.masked_fill)
    tril_ = in_place("tril_", shapes.tril)
    triu_ = in_place("triu_", shapes.triu)
    floor_divide_ = in_place("floor_divide_", arithmetic.floor_divide)
    logical_and_ = in_place("logical_and_", arithmetic.logical_and)
    logical_or_ = in_place("logical_or_", arithmetic.logical_or)
    __iadd__, __isub__, __imul__, __itruediv__ = add_, sub_, mul_, div_
    __ipow__, __ifloordiv__ = pow_, floor_divide_
    __iand__ = in_place("&=", arithmetic.bitwise_and)
    __ior__ = in_place("|=", arithmetic.bitwise_or)
    copy_, fill_, zero_ = inplace.copy_, inplace.fill_, inplace.zero_
    uniform_, normal_, exponential_ = inplace.uniform_, inplace.normal_, inplace.exponential_
    bernoulli_, random_ = inplace.bernoulli_, inplace.random_
    fill_diagonal_ = inplace.fill_diagonal_
    scatter_, scatter_add_ = inplace.scatter_, inplace.scatter_add_
    index_fill_, index_copy_ = inplace.index_fill_, inplace.index_copy_
    index_add_ = inplace.index_add_


def _is_operand(x: object) -> bool:
    return isinstance(x, (Tracked, np.ndarray, np.generic, bool, int, float))
