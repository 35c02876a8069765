"""`Tensor`: an array with PyTorch's methods and a place on the tape.

The class holds what needs the tensor itself: attributes, gradients, conversions and
Python's protocols. Operators and all other methods come from `Methods`.
"""

from __future__ import annotations

import builtins
import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..backend import (
    Array,
    Device,
    array_module,
    bfloat16,
    default_dtype,
    device_of,
    is_bfloat16,
    is_cuda,
    is_floating,
    parse_device,
    resolve_dtype,
    to_device,
)
from ..kernels import elementwise
from . import creation, printing, shapes
from .methods import Methods
from .operands import DType, cast, wrap
from .tape import Hook, Node, Tracked, grad_root, record, run_backward


class Size(tuple[int, ...]):
    """The shape of a tensor: a tuple of lengths.

    Examples
    --------
    >>> Size((2, 3)), Size((2, 3)).numel()
    (torch.Size([2, 3]), 6)
    """

    __slots__ = ()

    def numel(self) -> int:
        """Return how many elements a tensor of this shape has."""
        product = 1
        for n in self:
            product *= n
        return product

    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        return Size(found) if isinstance(index, slice) else found

    def __repr__(self) -> str:
        return f"torch.Size({list(self)})"


class HookHandle:
    """What `register_hook` returns: `remove` takes the hook away.

    Parameters
    ----------
    hooks : list
        Where the hook was put.
    hook : callable
    """

    def __init__(self, hooks: list[Hook], hook: Hook) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)


class Tensor(Methods):
    """An array with a gradient.

    Parameters
    ----------
    *data
        An array, whose memory is shared; or nested lists, taken in the default dtype; or
        the lengths of a tensor of zeros. `minitransformer.tensor` copies and chooses the
        dtype from the data, and is what programs should use.
    requires_grad : bool
        Whether `backward` brings a gradient to it.
    node, output
        Its place on the tape, given by `record`.

    Attributes
    ----------
    array : array
        The numbers, a NumPy or CuPy array.
    grad : Tensor or None
        The gradient that `backward` has summed up.

    Raises
    ------
    RuntimeError
        If an integer or bool tensor is to require a gradient.

    Examples
    --------
    >>> import minitransformer as mt
    >>> x = mt.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4., 6.])
    """

    __slots__ = ()
    __array_priority__ = 1000  # NumPy arrays on the left leave operators to us

    def __init__(
        self,
        *data: Any,
        requires_grad: builtins.bool = False,
        node: Node | None = None,
        output: builtins.int = 0,
        device: Any = None,
    ) -> None:
        array = data[0] if len(data) == 1 else data
        if type(array) is not np.ndarray:
            array = _array_from(array)
        if device is not None:
            array = to_device(array, device)
        if requires_grad and not is_floating(array.dtype):
            raise RuntimeError(f"only floating-point tensors require gradients, not {array.dtype}")
        super().__init__(array, requires_grad, node, output)

    def __getattr__(self, name: str) -> Any:
        # Reached only where there is no such attribute.
        import difflib

        near = difflib.get_close_matches(name, dir(type(self)), n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise AttributeError(f"minitransformer's Tensor has no attribute {name!r}{hint}")

    # -- what it is ------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """The lengths of the dimensions."""
        return Size(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements."""
        return self.array.dtype

    @property
    def device(self) -> Device:
        """Where the elements are."""
        return device_of(self.array)

    @property
    def ndim(self) -> builtins.int:
        """How many dimensions there are."""
        return self.array.ndim

    @property
    def is_cuda(self) -> builtins.bool:
        """Whether the elements are on a GPU."""
        return is_cuda(self.array)

    @property
    def is_leaf(self) -> builtins.bool:
        """Whether no recorded operation made the tensor."""
        return self.node is None

    @property
    def grad_fn(self) -> Node | None:
        """The recorded operation that made the tensor."""
        return self.node

    @property
    def nbytes(self) -> builtins.int:
        """The size of the elements in bytes."""
        return self.array.nbytes

    @property
    def itemsize(self) -> builtins.int:
        """The size of one element in bytes."""
        return self.array.itemsize

    @property
    def data(self) -> Tensor:
        """The same memory, off the tape; assignment replaces the array and keeps the rest."""
        return wrap(self.array)

    @data.setter
    def data(self, value: Tensor) -> None:
        self.array = value.array
        self.version[0] += 1

    @property
    def T(self) -> Tensor:
        """The view with all dimensions reversed."""
        return shapes.permute(self, tuple(reversed(range(self.array.ndim))))

    @property
    def mT(self) -> Tensor:
        """The view with the last two dimensions exchanged."""
        return shapes.transpose(self, -2, -1)

    def size(self, dim: builtins.int | None = None) -> Any:
        """Return the shape, or the length of one dimension."""
        if dim is None:
            return self.shape
        return self.array.shape[shapes.axis_of("size", dim, self.array.ndim)]

    def numel(self) -> builtins.int:
        """Return how many elements there are."""
        return builtins.int(self.array.size)

    nelement = numel

    def dim(self) -> builtins.int:
        """Return how many dimensions there are."""
        return self.array.ndim

    ndimension = dim

    def stride(self, dim: builtins.int | None = None) -> Any:
        """Return how many elements lie between neighbours along each dimension."""
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        return strides if dim is None else strides[dim]

    def element_size(self) -> builtins.int:
        """Return the size of one element in bytes."""
        return self.array.itemsize

    def data_ptr(self) -> builtins.int:
        """Return the address of the first element."""
        data = self.array.data
        return builtins.int(data.ptr if hasattr(data, "ptr") else self.array.ctypes.data)

    def is_contiguous(self) -> builtins.bool:
        """Return whether the memory is in the order of the dimensions."""
        return builtins.bool(self.array.flags.c_contiguous)

    def is_floating_point(self) -> builtins.bool:
        """Return whether the elements are floating-point numbers."""
        return is_floating(self.array.dtype)

    def get_device(self) -> builtins.int:
        """Return the number of the GPU, or -1."""
        index = self.device.index
        return -1 if index is None else index

    # -- gradients -------------------------------------------------------------------

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: builtins.bool | None = None,
        create_graph: builtins.bool = False,
        inputs: Sequence[Tensor] | Tensor | None = None,
    ) -> None:
        """Bring the gradient of this tensor to the leaves it was computed from.

        Parameters
        ----------
        gradient : Tensor, optional
            The gradient to start from; 1 for a tensor of one element.
        retain_graph : bool, optional
            Keep what was saved, so that `backward` can run again.
        create_graph : bool, optional
            Not supported: there are no second derivatives here.
        inputs : Tensor or sequence of Tensor, optional
            Add gradients to these leaves only.

        Raises
        ------
        RuntimeError
            If nothing requires a gradient, the tensor is no scalar and no gradient is
            given, the graph was used before, or a saved tensor was changed in place.
        NotImplementedError
            If `create_graph` is asked for.
        """
        if create_graph:
            raise NotImplementedError(
                "create_graph=True: minitransformer has no second derivatives"
            )
        root = grad_root(self, None if gradient is None else gradient.array)
        if inputs is None:
            run_backward([self], [root], retain_graph=builtins.bool(retain_graph))
            return
        wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        found = run_backward(
            [self], [root], retain_graph=builtins.bool(retain_graph), capture=wanted
        )
        for leaf, gradient_array in zip(wanted, found):
            if gradient_array is not None:
                before = leaf.grad
                total = gradient_array.copy() if before is None else before.array + gradient_array
                leaf.grad = wrap(total)

    def requires_grad_(self, requires_grad: builtins.bool = True) -> Tensor:
        """Set whether a gradient is wanted, and return the tensor."""
        if requires_grad and not is_floating(self.array.dtype):
            raise RuntimeError(f"only floating-point tensors require gradients, not {self.dtype}")
        if not requires_grad and self.node is not None:
            raise RuntimeError(
                "requires_grad_(False) on the result of a recorded operation; use detach()"
            )
        self.requires_grad = requires_grad
        return self

    def detach(self) -> Tensor:
        """Return the same memory, off the tape."""
        result = wrap(self.array)
        result.version = self.version
        return result

    def detach_(self) -> Tensor:
        """Take this tensor off the tape."""
        self.node, self.output, self.requires_grad = None, 0, False
        return self

    def register_hook(self, hook: Hook) -> HookHandle:
        """Call ``hook(gradient)`` when the gradient arrives; what it returns replaces it.

        Raises
        ------
        RuntimeError
            If the tensor does not require a gradient.
        """
        if not self.requires_grad:
            raise RuntimeError("register_hook on a tensor that does not require a gradient")
        hooks = self.hooks if self.node is None else self.node.hooks.setdefault(self.output, [])
        hooks.append(hook)
        return HookHandle(hooks, hook)

    def retain_grad(self) -> None:
        """Keep the gradient in `grad` also where the tensor is no leaf."""
        if self.node is None:
            return
        this = weakref.ref(self)  # the node must not keep its own output alive

        def keep(gradient: Tensor) -> None:
            target = this()
            if target is not None:
                kept = target.grad
                target.grad = gradient.clone() if kept is None else kept + gradient

        self.register_hook(keep)

    # -- conversion ------------------------------------------------------------------

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the tensor in another dtype or on another device.

        Accepts PyTorch's forms: ``to(dtype)``, ``to(device)``, ``to(device, dtype)``,
        ``to(other)``, and ``dtype=``, ``device=``, ``copy=``, ``non_blocking=``.

        Raises
        ------
        RuntimeError
            If the device does not exist.
        TypeError
            If an argument is neither a dtype, a device nor a tensor.
        """
        dtype, device = kwargs.pop("dtype", None), kwargs.pop("device", None)
        force = kwargs.pop("copy", False)
        kwargs.pop("non_blocking", None)
        if kwargs:
            raise TypeError(f"to() has no argument {', '.join(kwargs)}")
        for arg in args:
            if isinstance(arg, Tensor):
                dtype, device = arg.dtype, arg.device
            elif isinstance(arg, str) and arg == "bfloat16":
                dtype = arg
            elif isinstance(arg, (str, builtins.int, Device)) and not isinstance(
                arg, builtins.bool
            ):
                device = arg
            elif arg is not None and not isinstance(arg, builtins.bool):
                dtype = arg
        target = None if device is None else parse_device(device)
        wanted = None if dtype is None else resolve_dtype(dtype)
        result = self
        if wanted is not None and not is_bfloat16(wanted):
            result = cast(result, wanted)
        here = result.device
        if target is not None and (
            target.type != here.type or target.index not in (None, here.index)
        ):
            kernels = (elementwise.move_forward, elementwise.move_backward)
            result = record(*kernels, result, device=target)
        if wanted is not None:  # bfloat16 exists on GPUs alone: it comes after the journey
            result = cast(result, wanted)
        return result.clone() if force and result is self else result

    def cpu(self) -> Tensor:
        """Return the tensor on the host."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Tensor:
        """Return the tensor on a GPU."""
        return self.to("cuda" if device is None else device)

    def float(self) -> Tensor:
        """Return the tensor in float32."""
        return cast(self, np.dtype(np.float32))

    def double(self) -> Tensor:
        """Return the tensor in float64."""
        return cast(self, np.dtype(np.float64))

    def half(self) -> Tensor:
        """Return the tensor in float16."""
        return cast(self, np.dtype(np.float16))

    def bfloat16(self) -> Tensor:
        """Return the tensor in bfloat16, which exists on GPUs alone."""
        return cast(self, bfloat16())

    def long(self) -> Tensor:
        """Return the tensor in int64."""
        return cast(self, np.dtype(np.int64))

    def int(self) -> Tensor:
        """Return the tensor in int32."""
        return cast(self, np.dtype(np.int32))

    def bool(self) -> Tensor:
        """Return which elements are not zero."""
        return cast(self, np.dtype(np.bool_))

    def type(self, dtype: DType = None) -> Any:
        """Return the tensor in `dtype`, or PyTorch's name of its type."""
        if dtype is not None:
            return self.to(dtype=_TYPE_NAMES.get(dtype, dtype) if isinstance(dtype, str) else dtype)
        unnamed = "torch.BFloat16Tensor" if is_bfloat16(self.dtype) else str(self.dtype)
        name = next((k for k, v in _TYPE_NAMES.items() if v == self.dtype), unnamed)
        return name.replace("torch.", "torch.cuda.") if self.is_cuda else name

    def type_as(self, other: Tensor) -> Tensor:
        """Return the tensor in the dtype of `other`."""
        return self.to(other.dtype)

    def pin_memory(self) -> Tensor:
        """Return the tensor itself: transfers here need no pinned memory."""
        return self

    def item(self) -> Any:
        """Return the one element as a Python number."""
        if self.array.size != 1:
            raise RuntimeError(
                f"a tensor of {self.array.size} elements, shape {tuple(self.array.shape)}, cannot "
                "be made one number; use tolist()"
            )
        return self.array.item()

    def tolist(self) -> Any:
        """Return the elements as nested lists of Python numbers."""
        return self.array.tolist()

    def numpy(self, *, force: builtins.bool = False) -> Array:
        """Return the NumPy array that the tensor holds; no copy is made.

        Raises
        ------
        RuntimeError
            If the tensor requires a gradient and `force` is not set.
        TypeError
            If it is on a GPU and `force` is not set.
        """
        if force:
            return to_device(self.array, "cpu")
        if self.requires_grad:
            raise RuntimeError(
                "numpy() on a tensor that requires a gradient; use tensor.detach().numpy()"
            )
        if self.is_cuda:
            raise TypeError("numpy() on a tensor on the GPU; use tensor.cpu().numpy()")
        return self.array

    # -- new tensors like this one ---------------------------------------------------

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        """Return a tensor with a copy of `data`, in this tensor's dtype and place."""
        return creation.tensor(data, **{"dtype": self.dtype, "device": self.device, **options})

    def new_zeros(self, *size: Any, **options: Any) -> Tensor:
        """Return zeros in this tensor's dtype and place."""
        return creation.zeros(*size, **{"dtype": self.dtype, "device": self.device, **options})

    new_empty = new_zeros

    def new_ones(self, *size: Any, **options: Any) -> Tensor:
        """Return ones in this tensor's dtype and place."""
        return creation.ones(*size, **{"dtype": self.dtype, "device": self.device, **options})

    def new_full(self, size: Sequence[builtins.int], fill_value: Any, **options: Any) -> Tensor:
        """Return one number in this tensor's dtype and place."""
        like = {"dtype": self.dtype, "device": self.device, **options}
        return creation.full(size, fill_value, **like)

    # -- Python's protocols ----------------------------------------------------------

    def __repr__(self) -> str:
        return printing.tensor_repr(self)

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.array.ndim == 0 else repr(self), spec)

    def __len__(self) -> builtins.int:
        if self.array.ndim == 0:
            raise TypeError("len() of a tensor without dimensions")
        return builtins.int(self.array.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        if self.array.ndim == 0:
            raise TypeError("iteration over a tensor without dimensions")
        return iter(shapes.unbind(self, 0))

    def __contains__(self, value: Any) -> builtins.bool:
        return builtins.bool((self == value).array.any())

    def __bool__(self) -> builtins.bool:
        if self.array.size != 1:
            raise RuntimeError(
                f"the truth of a tensor of {self.array.size} elements is ambiguous; use any() "
                "or all()"
            )
        return builtins.bool(self.array.item())

    def __float__(self) -> builtins.float:
        return builtins.float(self.item())

    def __int__(self) -> builtins.int:
        return builtins.int(self.item())

    def __index__(self) -> builtins.int:
        if self.array.dtype.kind not in "iub" or self.array.size != 1:
            raise TypeError(
                f"only an integer tensor of one element can be an index, found {self.dtype} of "
                f"shape {tuple(self.array.shape)}"
            )
        return builtins.int(self.array.item())

    def __array__(self, dtype: Any = None, copy: builtins.bool | None = None) -> Array:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __deepcopy__(self, memo: dict[builtins.int, Any]) -> Tensor:
        if id(self) not in memo:
            if self.node is not None:
                raise RuntimeError(
                    "deepcopy of the result of a recorded operation; use detach().clone()"
                )
            result = type(self)(self.array.copy())
            result.requires_grad = self.requires_grad
            result.grad = copy.deepcopy(self.grad, memo)
            memo[id(self)] = result
        return memo[id(self)]

    def __reduce__(self) -> Any:
        return (_rebuild, (type(self), to_device(self.array, "cpu"), self.requires_grad))


Tracked.result_class = Tensor

_TYPE_NAMES = {
    "torch.FloatTensor": np.dtype(np.float32),
    "torch.DoubleTensor": np.dtype(np.float64),
    "torch.HalfTensor": np.dtype(np.float16),
    "torch.LongTensor": np.dtype(np.int64),
    "torch.IntTensor": np.dtype(np.int32),
    "torch.ShortTensor": np.dtype(np.int16),
    "torch.CharTensor": np.dtype(np.int8),
    "torch.ByteTensor": np.dtype(np.uint8),
    "torch.BoolTensor": np.dtype(np.bool_),
}


def _array_from(data: Any) -> Any:
    """Return what `Tensor(...)` was given as an array."""
    if isinstance(data, np.generic):
        return np.asarray(data)
    if isinstance(data, Tracked):
        return data.array
    if isinstance(data, int):
        return np.zeros(data, dtype=default_dtype())
    if isinstance(data, (list, float)):
        return creation.tensor(data, dtype=default_dtype()).array
    if isinstance(data, tuple):
        if all(isinstance(n, int) for n in data):
            return np.zeros(data, dtype=default_dtype())
        return creation.tensor(list(data), dtype=default_dtype()).array
    if hasattr(data, "dtype") and hasattr(array_module(data), "ndarray"):
        if data.dtype.name == "bfloat16":
            bfloat16()  # from now on kernels look out for it
        return data  # a device library's array
    raise TypeError(
        f"Tensor: data must be an array or lists of numbers, found {type(data).__name__}"
    )


def _rebuild(kind: Callable[..., Tensor], array: Array, requires_grad: bool) -> Tensor:
    result = kind(array)
    result.requires_grad = requires_grad
    return result
