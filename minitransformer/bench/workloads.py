"""The kernels to time: inputs, our call, PyTorch's call, and what the work costs at least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Key
from ..kernels.activation import gelu_backward, gelu_forward
from ..kernels.attention import attention_backward, attention_forward
from ..kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from ..kernels.dropout import dropout_backward, dropout_forward
from ..kernels.embedding import embedding_backward, embedding_forward
from ..kernels.feed_forward import feed_forward_backward, feed_forward_forward
from ..kernels.layer_norm import layer_norm_backward, layer_norm_forward
from ..kernels.linear import linear_backward, linear_forward
from ..kernels.rms_norm import rms_norm_backward, rms_norm_forward
from ..kernels.softmax import softmax_backward, softmax_forward
from .models import Model


class Workload(NamedTuple):
    """One kernel at one size.

    Parameters
    ----------
    kernel : str
        Name of the kernel.
    size : str
        The size, in the letters of the shape legend.
    forward, backward : callable
        The pair.
    inputs : tuple of array
        Positional arguments.
    options : dict
        Keyword arguments.
    reference : callable
        ``reference(torch, *tensors)``: the same in PyTorch.
    flops : float
        Floating-point operations of the forward pass that no method can avoid.
    backward_flops : float
        The same of the backward pass.
    """

    kernel: str
    size: str
    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., tuple[Any, ...]]
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    reference: Callable[..., Any]
    flops: float
    backward_flops: float

    def to(self, convert: Callable[[Any], Any]) -> Workload:
        """Return the workload with every input array converted, as to a device."""
        moved = tuple(convert(x) if isinstance(x, np.ndarray) else x for x in self.inputs)
        return self._replace(inputs=moved)

    def torch_calls(
        self, torch: Any, tensors: Sequence[Any], dout: Any
    ) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Return PyTorch's forward call, and its backward call from the gradient `dout`."""
        leaves = [t.requires_grad_() for t in tensors if t is not None and t.is_floating_point()]
        out = self.reference(torch, *tensors)
        return (
            lambda: self.reference(torch, *tensors),
            lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True),
        )

    def bytes(self, out: Any, *, backward: bool) -> int:
        """Return the bytes that must move: every array read once, every result written once."""
        arrays = [x for x in self.inputs if hasattr(x, "nbytes")]
        floats = sum(x.nbytes for x in arrays if x.dtype.kind not in "biu")
        read = sum(x.nbytes for x in arrays)
        if self.kernel == "embedding" and not backward:  # only the rows that are looked up
            return int(read - floats + 2 * out.nbytes)
        if not backward:
            return int(read + out.nbytes)
        if self.kernel in ("embedding", "dropout"):  # their gradients do not need the input
            read -= floats
        return int(read + out.nbytes + floats)


DRAWN = 1 << 22  # numbers drawn for one array; a longer one repeats them


def workloads(kernels: list[str] | None, models: Iterable[Model]) -> Iterator[Workload]:
    """Yield the workloads of the named kernels at the sizes of models, in float32.

    Parameters
    ----------
    kernels : list of str or None
        Of `KERNELS`; all if not given.
    models : iterable of Model
        Whose batch, length, width, heads and vocabulary to take.

    Raises
    ------
    ValueError
        If a name is unknown; the message lists those there are.
    """
    for name in kernels or ():
        if name not in KERNELS:
            raise ValueError(f"unknown kernel {name!r}; known: {', '.join(KERNELS)}")
    sizes = [(m.batch, m.length, m.width, m.heads, m.vocabulary) for m in models]
    made = set()
    for kernel in kernels or KERNELS:
        for size in sizes:
            for w in KERNELS[kernel](*size):
                if (w.kernel, w.size) not in made:
                    made.add((w.kernel, w.size))
                    yield w


def _normal(shape: tuple[int, ...], scale: float = 1.0, seed: int = 0) -> Array:
    n = math.prod(shape)
    drawn = np.random.default_rng((n, seed)).standard_normal(min(n, DRAWN), np.float32) * scale
    return np.resize(drawn.astype(np.float32, copy=False), shape)


def attention_workload(B: int, H: int, T: int, E: int) -> Workload:
    """Return causal attention over `T` positions."""
    products = 2.0 * B * H * T * T * E / 2  # one product of the lower triangle
    return Workload(
        "attention", f"B{B} H{H} T{T} E{E} causal",
        attention_forward, attention_backward,
        (*(_normal((B, H, T, E), seed=i) for i in range(3)), None), {"is_causal": True},
        lambda torch, Q, K, V, mask: torch.nn.functional.scaled_dot_product_attention(
            Q, K, V, is_causal=True
        ),
        2 * products, 5 * products,
    )  # fmt: skip


def _attention(B: int, T: int, D: int, H: int, V: int) -> list[Workload]:
    lengths = [T] if T != 256 else [T, 1024]
    return [attention_workload(B if t == T else 1, H, t, D // H) for t in lengths]


def _layer_norm(B: int, T: int, D: int, H: int, V: int) -> list[Workload]:
    N = B * T
    return [Workload(
        "layer_norm", f"N{N} D{D}", layer_norm_forward, layer_norm_backward,
        (_normal((N, D)), _normal((D,)), _normal((D,))), {},
        lambda torch, x, w, b: torch.nn.functional.layer_norm(x, w.shape, w, b),
        7.0 * N * D, 14.0 * N * D,
    )]  # fmt: skip


def _rms_norm(B: int, T: int, D: int, H: int, V: int) -> list[Workload]:
    N = B * T
    return [Workload(
        "rms_norm", f"N{N} D{D}", rms_norm_forward, rms_norm_backward,
        (_normal((N, D)), _normal((D,))), {},
        lambda torch, x, w: torch.nn.functional.rms_norm(x, w.shape, w),
        4.0 * N * D, 10.0 * N * D,
    )]  # fmt: skip


def _softmax(B: int, T: int, D: int, H: int, V: int) -> list[Workload]:
    N = B * H * T
    return [Workload(
        "softmax", f"N{N} S{T}", softmax_forward, softmax_backward,
        (_normal((N, T)),), {},
        lambda torch, x: torch.nn.functional.softmax(x, -1),
        5.0 * N * T, 4.0 * N * T,
    )]  # fmt: skip


def _feed_forward(B: int, T: int, D: int, H: int, V: int) -> list[Workload]:
    N, F = B * T, 4 * D

    def reference(torch: Any, x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        f = torch.nn.functional
        return f.linear(f.gelu(f.linear(x, w1, b1), approximate="tanh"), w2, b2)

    scale = D**-0.5
    return [Workload(
        "feed_forward", f"N{N} D{D} F{F} gelu_tanh", feed_forward_forward, feed_forward_backward,
        (_normal((N, D)), _normal((F, D), scale), _normal((F,)),
         _normal((D, F), scale), _normal((D,))), {"activation": "gelu_tanh"},
        reference, 4.0 * N * D * F, 8.0 * N * D * F,
    )]  # fmt: skip


def _cross_entropy(B: int, T: int, D: int, H: int, V: int) -> list[Workload]:
    N = B * T
    target = np.random.default_rng(0).integers(0, V, N)
    return [Workload(
        "cross_entropy", f"N{N} V{V}", cross_entropy_forward, cross_entropy_backward,
        (_normal((N, V)), target, None), {},
        lambda torch, x, y, weight: torch.nn.functional.cross_entropy(x, y),
        4.0 * N * V, 4.0 * N * V,
    )]  # fmt: skip


def _linear(B: int, T: int, D: int, H: int, V: int) -> list[Workload]:
    N = B * T
    sizes = [(D, 3 * D), (D, V)] if V > D else [(D, 3 * D)]
    return [
        Workload(
            "linear", f"N{N} in{i} out{o}", linear_forward, linear_backward,
            (_normal((N, i)), _normal((o, i), i**-0.5), _normal((o,))), {},
            lambda torch, x, w, b: torch.nn.functional.linear(x, w, b),
            2.0 * N * i * o, 4.0 * N * i * o,
        )
        for i, o in sizes
    ]  # fmt: skip


def _embedding(B: int, T: int, D: int, H: int, V: int) -> list[Workload]:
    ids = np.random.default_rng(0).integers(0, V, (B, T))
    return [Workload(
        "embedding", f"N{B * T} V{V} D{D}", embedding_forward, embedding_backward,
        (ids, _normal((V, D))), {},
        lambda torch, ids, weight: torch.nn.functional.embedding(ids, weight),
        0.0, 1.0 * B * T * D,
    )]  # fmt: skip


def _gelu(B: int, T: int, D: int, H: int, V: int) -> list[Workload]:
    n = 4 * B * T * D
    x = _normal((B * T, 4 * D))
    return [
        Workload(
            kernel, f"N{B * T} F{4 * D}", gelu_forward, gelu_backward, (x,),
            {"approximate": form},
            lambda torch, x, form=form: torch.nn.functional.gelu(x, approximate=form),
            10.0 * n, 20.0 * n,
        )
        for kernel, form in (("gelu", "none"), ("gelu_tanh", "tanh"))
    ]  # fmt: skip


def _dropout(B: int, T: int, D: int, H: int, V: int) -> list[Workload]:
    return [Workload(
        "dropout", f"N{B * T} D{D} p0.1", dropout_forward, dropout_backward,
        (_normal((B * T, D)),), {"p": 0.1, "key": Key(0)},
        lambda torch, x: torch.nn.functional.dropout(x, 0.1),
        1.0 * B * T * D, 1.0 * B * T * D,
    )]  # fmt: skip


KERNELS: dict[str, Callable[..., list[Workload]]] = {
    "attention": _attention,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "softmax": _softmax,
    "feed_forward": _feed_forward,
    "cross_entropy": _cross_entropy,
    "linear": _linear,
    "embedding": _embedding,
    "gelu": _gelu,
    "dropout": _dropout,
}
