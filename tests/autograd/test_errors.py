"""Bad input gets one error that names what was asked, what was found and what to do."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minitransformer as mt

CASES = {
    "shapes do not broadcast": (
        lambda: mt.ones(2, 3) + mt.ones(4),
        RuntimeError,
        r"add: shapes \(2, 3\) and \(4,\)",
    ),
    "comparison": (lambda: mt.ones(3) < mt.ones(2), RuntimeError, r"\(3,\) and \(2,\)"),
    "not a tensor": (lambda: mt.ones(3) + "a", TypeError, "argument 2 must be a Tensor.*str"),
    "function of a list": (lambda: mt.exp([1.0]), TypeError, "'input' must be Tensor, found list"),
    "matmul shapes": (
        lambda: mt.ones(2, 3) @ mt.ones(2, 3),
        RuntimeError,
        r"matmul: shapes \(2, 3\)",
    ),
    "matmul dtypes": (
        lambda: mt.ones(2, 2) @ mt.ones(2, 2, dtype=mt.float64),
        RuntimeError,
        "float32 and float64",
    ),
    "matmul scalar": (lambda: mt.ones(2) @ mt.tensor(1.0), RuntimeError, "at least 1 dimension"),
    "bmm dimensions": (lambda: mt.bmm(mt.ones(2, 2), mt.ones(2, 2)), RuntimeError, "bmm: expected"),
    "view size": (lambda: mt.ones(2, 3).view(4), RuntimeError, r"view: shape \(4,\).*6 elements"),
    "view of a transpose": (lambda: mt.ones(2, 3).t().view(6), RuntimeError, "reshape"),
    "reshape": (lambda: mt.ones(6).reshape(4, -1), RuntimeError, r"reshape: shape \(4, -1\)"),
    "two unknown lengths": (lambda: mt.ones(6).reshape(-1, -1), RuntimeError, "reshape"),
    "expand": (lambda: mt.ones(2, 3).expand(4, 3), RuntimeError, r"expand: shape \(2, 3\)"),
    "permute": (
        lambda: mt.ones(2, 3).permute(0, 0),
        RuntimeError,
        "name each of 2 dimensions once",
    ),
    "dim out of range": (lambda: mt.ones(2, 3).sum(2), IndexError, "dim 2 is out of range"),
    "dim of size": (lambda: mt.ones(2).size(1), IndexError, "size: dim 1"),
    "dim twice": (lambda: mt.ones(2, 3).sum((0, -2)), ValueError, "twice"),
    "cat shapes": (lambda: mt.cat([mt.ones(2, 3), mt.ones(2, 4)]), RuntimeError, "except in dim 0"),
    "cat nothing": (lambda: mt.cat([]), RuntimeError, "at least one tensor"),
    "cat a tensor": (
        lambda: mt.cat(mt.ones(2)),
        TypeError,
        "list or tuple of tensors, found Tensor",
    ),
    "stack": (lambda: mt.stack([mt.ones(2), mt.ones(3)]), RuntimeError, "must be equal"),
    "split": (lambda: mt.ones(5).split([2, 2]), RuntimeError, r"add up to the length of dim 0, 5"),
    "mask dtype": (
        lambda: mt.ones(2).masked_fill(mt.ones(2), 0),
        RuntimeError,
        "mask must be a bool tensor, found float32; compare",
    ),
    "mask shape": (
        lambda: mt.ones(2, 3).masked_fill(mt.ones(2).bool(), 0),
        RuntimeError,
        r"mask of shape \(2,\)",
    ),
    "masked fill overflow": (
        lambda: mt.ones(2).half().masked_fill(mt.ones(2).bool(), -1e9),
        RuntimeError,
        "cannot be converted to float16 without overflow",
    ),
    "index out of range": (lambda: mt.ones(2)[mt.tensor([0, 5])], IndexError, "5"),
    "index dtype": (lambda: mt.ones(2)[mt.ones(2)], IndexError, "integer or bool, found float32"),
    "too many indices": (lambda: mt.ones(2)[0, 0], IndexError, r"too many indices: 2.*\(2,\)"),
    "negative step": (lambda: mt.ones(2)[::-1], ValueError, "flip"),
    "gather range": (
        lambda: mt.ones(2, 3).gather(1, mt.tensor([[3]])),
        IndexError,
        "gather along dim 1: index 3 is out of range for 3",
    ),
    "gather negative": (lambda: mt.ones(3).gather(0, mt.tensor([-1])), IndexError, "index -1"),
    "gather dimensions": (
        lambda: mt.ones(2, 3).gather(1, mt.tensor([0])),
        RuntimeError,
        r"shape \(1,\) does not fit",
    ),
    "gather dtype": (lambda: mt.ones(2).gather(0, mt.ones(1)), RuntimeError, "integer"),
    "unfold": (lambda: mt.ones(3).unfold(0, 4, 1), RuntimeError, "windows of 4"),
    "topk": (lambda: mt.ones(3).topk(4), RuntimeError, "k = 4"),
    "max of nothing": (lambda: mt.ones(0).max(), IndexError, "no elements"),
    "argmax of nothing": (lambda: mt.ones(0).argmax(), IndexError, "no elements"),
    "mean of integers": (lambda: mt.arange(3).mean(), RuntimeError, "found int64; use .float"),
    "item": (lambda: mt.ones(2).item(), RuntimeError, "2 elements"),
    "truth": (lambda: bool(mt.ones(2)), RuntimeError, "ambiguous"),
    "len": (lambda: len(mt.tensor(1.0)), TypeError, "without dimensions"),
    "iteration": (lambda: list(mt.tensor(1.0)), TypeError, "without dimensions"),
    "float as index": (lambda: [1, 2][mt.tensor(1.0)], TypeError, "found float32"),
    "ragged data": (lambda: mt.tensor([[1, 2], [3]]), ValueError, "different lengths"),
    "text data": (lambda: mt.tensor(["a"]), TypeError, "data must be numbers"),
    "unknown dtype": (lambda: mt.zeros(2, dtype="complex65"), TypeError, "unknown dtype"),
    "unknown device": (lambda: mt.zeros(2, device="tpu"), ValueError, "'tpu'"),
    "arange": (lambda: mt.arange(3, 0), RuntimeError, "from 3 to 0"),
    "negative length": (lambda: mt.zeros(-1), RuntimeError, "negative"),
    "where condition": (
        lambda: mt.where(mt.ones(2), mt.ones(2), mt.zeros(2)),
        RuntimeError,
        "condition must be a bool",
    ),
    "clamp": (lambda: mt.ones(2).clamp(), RuntimeError, "at least one"),
    "minus a mask": (lambda: -mt.ones(2).bool(), RuntimeError, "~"),
    "negative power of integers": (lambda: mt.arange(1, 3) ** -1, RuntimeError, "pow"),
    "to": (lambda: mt.ones(2).to(memory="x"), TypeError, "memory"),
    "remainder": (
        lambda: mt.ones(2, requires_grad=True) % 2,
        NotImplementedError,
        "remainder has no gradient",
    ),
    "scatter_add": (
        lambda: mt.ones(2, requires_grad=True).scatter_add(0, mt.tensor([0]), mt.ones(1)),
        NotImplementedError,
        "no gradient here",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_thing(name):
    call, error, message = CASES[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.skipif(mt.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize(
    "call", [lambda: mt.zeros(2).to("cuda"), lambda: mt.zeros(2, device="cuda")]
)
def test_a_missing_gpu_is_named(call):
    with pytest.raises(RuntimeError, match=r"'cuda'.*(CuPy|GPU)"):
        call()


def test_a_missing_name_is_named_with_its_neighbours():
    with pytest.raises(AttributeError, match=r"no `torch.soft_max`; nearest: .*softmax"):
        mt.soft_max  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'unsqeeze'; nearest: .*unsqueeze"):
        mt.ones(2).unsqeeze(0)
    for name in ("save", "load"):
        with pytest.raises(AttributeError, match=f"torch.{name}.*safetensors"):
            getattr(mt, name)
    with pytest.raises(AttributeError, match=r"torch.autograd.Function.*record"):
        mt.autograd.Function  # noqa: B018
    assert not hasattr(mt, "fft")
    assert not hasattr(mt.ones(2), "no_such_method")


def test_every_exported_name_exists():
    missing = [name for name in mt.__all__ if not hasattr(mt, name)]
    assert not missing


def test_copies_are_apart():
    x = mt.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert twin.requires_grad and twin.tolist() == [1.0, 2.0]
        twin.data.zero_()
        assert x.tolist() == [1.0, 2.0]
    assert copy.deepcopy(x).grad.tolist() == [2.0, 4.0]
    with pytest.raises(RuntimeError, match="detach"):
        copy.deepcopy(x * 2)


def test_numpy_on_either_side():
    x, a = mt.ones(2), np.full(2, 3.0, dtype=np.float32)
    for out in (x + a, a + x, a * x, x - a, a @ x.reshape(2, 1)):
        assert isinstance(out, mt.Tensor)
    assert (a - x).tolist() == [2.0, 2.0]
    assert (np.float32(2) * x).tolist() == [2.0, 2.0]
    assert (np.float64(2) * x).dtype == mt.float32
    assert np.asarray(x).tolist() == [1.0, 1.0]


def test_pythons_protocols():
    x = mt.tensor([[1, 2], [3, 4]])
    assert len(x) == 2 and [row.tolist() for row in x] == [[1, 2], [3, 4]]
    assert 3 in x and 7 not in x
    assert range(5)[x[0, 1]] == 2 and int(x[1, 1]) == 4 and float(x[0, 0]) == 1.0
    assert (x == None).__class__ is bool  # noqa: E711
    assert len({x, x, mt.clone(x)}) == 2
    assert x.numel() == x.nelement() == 4 and x.dim() == x.ndim == 2
    assert x.stride() == (2, 1) and x.t().stride() == (1, 2) and not x.t().is_contiguous()
    assert x.element_size() == x.itemsize == 8 and x.nbytes == 32
    assert x.type() == "torch.LongTensor" and x.float().type() == "torch.FloatTensor"
    assert x.device == mt.device("cpu") and x.get_device() == -1 and not x.is_cuda
    assert x.data_ptr() == x.view(-1).data_ptr() != x.clone().data_ptr()
    assert mt.is_tensor(x) and mt.numel(x) == 4 and not mt.is_floating_point(x)
    assert mt.finfo(mt.float16).max == 65504.0 and mt.iinfo(mt.int8).max == 127
