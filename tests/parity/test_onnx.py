"""ONNX's own node tests, run on our functions.

The `onnx` package generates, for every operator, inputs and the outputs that its reference gives.
What our functions cover must agree; what they do not is listed at the end of the run with the
reason. (The "expanded" twins of some cases hold the same numbers and are left out.)
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import minitransformer as mt
import minitransformer.nn.functional as F

Array = np.ndarray


class NotOurs(Exception):
    """A case asks for something that our functions, like PyTorch's, do not offer."""


# Adapters: an ONNX node in terms of our functions ------------------------------------------


def tensors(*arrays: Array | None) -> list[Any]:
    return [None if a is None else mt.from_numpy(np.ascontiguousarray(a)) for a in arrays]


def look_where(inputs: dict[str, Array], options: dict[str, Any], shape: Any) -> Array:
    """Where the attention of an ONNX node may look, as a boolean mask of 4 axes."""
    B, _, L, S = shape
    look = np.ones((1, 1, L, S), bool)
    past = inputs["past_key"].shape[2] if "past_key" in inputs else 0
    offset = np.full((B, 1, 1, 1), past)
    if "nonpad_kv_seqlen" in inputs:
        filled = inputs["nonpad_kv_seqlen"].reshape(B, 1, 1, 1)
        look = look & (np.arange(S) < filled)
        offset = filled - L
    ahead = np.arange(S) - (np.arange(L)[:, None] + offset)  # how far a key lies in the future
    if options.get("is_causal"):
        look = look & (ahead <= 0)
    if options.get("left_window_size", -1) >= 0:
        look = look & (-ahead <= options["left_window_size"])
    if options.get("right_window_size", -1) >= 0:
        look = look & (ahead <= options["right_window_size"])
    return look


def attention(inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    if options.get("softcap"):
        raise NotOurs("softcap: PyTorch's attention has none")
    if inputs["Q"].dtype == np.float16 and options.get("softmax_precision"):
        raise NotOurs("softmax_precision: PyTorch's attention has none")
    arrays = [inputs["Q"], inputs["K"], inputs["V"]]
    three_axes = arrays[0].ndim == 3
    q, k, v = tensors(*arrays)
    if three_axes:
        numbers = (options["q_num_heads"], options["kv_num_heads"], options["kv_num_heads"])
        q, k, v = (
            x.view(x.size(0), x.size(1), n, -1).transpose(1, 2) for x, n in zip((q, k, v), numbers)
        )
    if "past_key" in inputs:
        past_k, past_v = tensors(inputs["past_key"], inputs["past_value"])
        k, v = mt.cat([past_k, k], dim=2), mt.cat([past_v, v], dim=2)
    shape = (q.size(0), q.size(1), q.size(2), k.size(2))
    given = inputs.get("attn_mask")
    if given is not None and given.shape[-1] < shape[-1]:  # keys beyond the mask are hidden
        widths = [(0, 0)] * (given.ndim - 1) + [(0, shape[-1] - given.shape[-1])]
        hidden = False if given.dtype == bool else -np.inf
        given = np.pad(given, widths, constant_values=hidden)
    look = look_where(inputs, options, shape)
    plain = {"nonpad_kv_seqlen", "past_key"} & set(inputs) or options.get("left_window_size")
    is_causal = bool(options.get("is_causal")) and not plain and given is None
    if given is None:
        mask = None if is_causal or look.all() else look
    elif given.dtype == bool:
        mask = given & look
    else:
        mask = np.where(look, given, -np.inf).astype(given.dtype)
    settings = {"scale": options.get("scale"), "enable_gqa": True, "is_causal": is_causal}
    (attn_mask,) = tensors(mask)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask, **settings)
    if three_axes:
        y = y.transpose(1, 2).flatten(2)
    found = {"Y": y, "present_key": k, "present_value": v}
    mode = options.get("qk_matmul_output_mode", 0)
    if mode == 3:  # the weights are what attention makes of the identity
        identity = mt.eye(shape[-1], dtype=v.dtype).expand(*k.shape[:-1], shape[-1])
        weights = F.scaled_dot_product_attention(q, k, identity, attn_mask, **settings)
        found["qk_matmul_output"] = weights
    else:
        scale = options.get("scale", 1 / math.sqrt(q.size(-1)))
        repeated = k.repeat_interleave(q.size(1) // k.size(1), dim=1)
        scores = q @ repeated.transpose(-1, -2) * scale
        if mode == 2:
            bias = np.where(look, 0 if given is None else given, -np.inf).astype(arrays[0].dtype)
            scores = scores + mt.from_numpy(bias)
        found["qk_matmul_output"] = scores
    return found


def layer_norm(inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    x, scale, bias = tensors(inputs["X"], inputs["W"], inputs.get("B"))
    axis = options.get("axis", -1) % x.dim()
    eps = options.get("epsilon", 1e-5)
    axes = tuple(range(axis, x.dim()))
    mean = x.mean(axes, keepdim=True)
    variance = x.var(axes, correction=0, keepdim=True)
    return {
        "Y": F.layer_norm(x, x.shape[axis:], scale, bias, eps),
        "Mean": mean,
        "InvStdDev": (variance + eps).rsqrt(),
    }


def rms_norm(inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    x, scale = tensors(inputs["X"], inputs["W"])
    axis = options.get("axis", -1) % x.dim()
    return {"Y": F.rms_norm(x, x.shape[axis:], scale, options.get("epsilon", 1e-5))}


def softmax(inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    return {"y": F.softmax(*tensors(inputs["x"]), dim=options.get("axis", -1))}


def log_softmax(inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    return {"y": F.log_softmax(*tensors(inputs["x"]), dim=options.get("axis", -1))}


def gelu(inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    approximate = options.get("approximate", b"none").decode()
    return {"y": F.gelu(*tensors(inputs["x"]), approximate=approximate)}


def swish(inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    (x,) = tensors(inputs["x"])
    alpha = options.get("alpha", 1.0)
    return {"y": F.silu(x) if alpha == 1.0 else F.silu(x * alpha) / alpha}


def rotary(inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    x, cos, sin = inputs["input"], inputs["cos_cache"], inputs["sin_cache"]
    three_axes = x.ndim == 3
    if "position_ids" in inputs:
        cos, sin = cos[inputs["position_ids"]], sin[inputs["position_ids"]]
    (t,) = tensors(x)
    if three_axes:
        t = t.view(x.shape[0], x.shape[1], options["num_heads"], -1).transpose(1, 2)
    # One angle per position, for every head alike.
    c, s = tensors(cos[:, None], sin[:, None])
    out = F.rotary(t, c, s, interleaved=bool(options.get("interleaved", 0)))
    return {"output": out.transpose(1, 2).flatten(2) if three_axes else out}


def cross_entropy(inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    x, target, weight = tensors(inputs["x"], inputs["y"].astype(np.int64), inputs.get("w"))
    settings = {
        "ignore_index": options.get("ignore_index", -100),
        "reduction": options.get("reduction", b"mean").decode(),
    }
    return {
        "z": F.cross_entropy(x, target, weight, **settings),
        "log_prob": F.log_softmax(x, dim=1),
    }


def nll(inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    given, target, weight = tensors(
        inputs["input"], inputs["target"].astype(np.int64), inputs.get("weight")
    )
    settings = {
        "ignore_index": options.get("ignore_index", -100),
        "reduction": options.get("reduction", b"mean").decode(),
    }
    return {"loss": F.nll_loss(given, target, weight, **settings)}


ADAPTERS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "Attention": ("attention", attention),
    "LayerNormalization": ("layernormalization", layer_norm),
    "RMSNormalization": ("rmsnormalization", rms_norm),
    "Softmax": ("softmax", softmax),
    "LogSoftmax": ("logsoftmax", log_softmax),
    "Gelu": ("gelu", gelu),
    "Swish": ("swish", swish),
    "RotaryEmbedding": ("rotaryembedding", rotary),
    "SoftmaxCrossEntropyLoss": ("softmax_cross_entropy_loss", cross_entropy),
    "NegativeLogLikelihoodLoss": ("negativeloglikelihoodloss", nll),
}


# Cases -------------------------------------------------------------------------------------


def node_cases() -> list[Any]:
    """The cases of the operators above; only their modules are imported, the rest takes long."""
    state = np.random.get_state()  # noqa: NPY002 - the modules seed the global generator
    node = importlib.import_module("onnx.backend.test.case.node")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module, _ in ADAPTERS.values():
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
    np.random.set_state(state)  # noqa: NPY002
    return [
        case
        for case in node._NodeTestCases
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in ADAPTERS
    ]


CASES = {case.name: case for case in node_cases()}


def as_array(value: Any) -> Array:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def run(case: Any) -> None:
    """Hold every output of a node against the one that ONNX gives."""
    (node,) = case.model.graph.node
    ((given, expected),) = case.data_sets
    arrays = [as_array(a) for a in given]
    names = [name for name in node.input if name]
    inputs = dict(zip(names, arrays))
    if any(a.dtype.name == "bfloat16" for a in arrays):
        raise NotOurs("bfloat16: NumPy has no such type")
    options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    found = ADAPTERS[node.op_type][1](inputs, options)
    outputs = [name for name in node.output if name]
    assert len(outputs) == len(expected)
    for name, value in zip(outputs, expected):
        ours, theirs = found[name].numpy(), as_array(value)
        assert ours.dtype == theirs.dtype, f"{name}: {ours.dtype}, ONNX {theirs.dtype}"
        assert ours.shape == theirs.shape, f"{name}: {ours.shape}, ONNX {theirs.shape}"
        # ONNX states the tolerance with each case; its own values are float32.
        atol = max(case.atol, float(np.finfo(ours.dtype).eps) if ours.dtype.kind == "f" else 0)
        np.testing.assert_allclose(ours, theirs, rtol=case.rtol, atol=atol, err_msg=name)


def test_there_are_cases() -> None:
    found = Counter(case.model.graph.node[0].op_type for case in CASES.values())
    assert set(found) == set(ADAPTERS)
    assert found["Attention"] >= 80 and sum(found.values()) >= 200


@pytest.mark.parametrize("name", CASES)
def test_node(name: str, count: Counter, listing: dict[str, list[str]]) -> None:
    operator = CASES[name].model.graph.node[0].op_type
    try:
        run(CASES[name])
    except NotOurs as reason:
        title = "ONNX node cases that our functions do not cover"
        listing.setdefault(title, []).append(f"{name}: {reason}")
        return
    count[f"ONNX node cases, {operator}"] += 1
