"""The measurements behind ``minitransformer bench``: each returns rows for the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import is_cuda_available, single_threaded_blas, to_device, to_numpy
from .limits import Limits
from .models import Model, copy_weights, our_model, our_step, torch_model, torch_step
from .report import row
from .timing import Sample, interleave
from .workloads import (
    Workload,
    attention_workload,
    feed_forward_workload,
    layer_norm_workload,
)

Row = dict[str, Any]


def time_kernel(
    workload: Workload, limits: Limits, torch: Any, seconds: float, backend: str = "numpy"
) -> list[Row]:
    """Time one kernel forward and backward, against PyTorch if it is given."""
    wait = None
    if backend == "cupy":
        import cupy

        workload = workload.to(lambda x: to_device(x, "cuda"))
        wait = cupy.cuda.Device().synchronize
    out, saved = workload.forward(*workload.inputs, **workload.options)
    rng = np.random.default_rng(0)
    dout = rng.standard_normal(out.shape).astype(out.dtype)
    calls: dict[str, dict[str, Callable[[], Any]]] = {
        "forward": {"ours": lambda: workload.forward(*workload.inputs, **workload.options)},
        "backward": {},
    }
    device_dout = to_device(dout, "cuda") if backend == "cupy" else dout
    calls["backward"]["ours"] = lambda: workload.backward(device_dout, saved)
    if torch is not None:
        forward, backward = _torch_calls(workload, dout, torch)
        calls["forward"]["theirs"], calls["backward"]["theirs"] = forward, backward
    rows = []
    for direction, pair in calls.items():
        with single_threaded_blas():
            samples = interleave(pair, seconds=seconds, synchronize=wait)
        back = direction == "backward"
        rows.append(
            row(
                f"{workload.kernel} {direction}", workload.size, samples["ours"],
                flops=workload.backward_flops if back else workload.flops,
                moved=workload.bytes(out, backward=back), limits=limits,
                against=samples.get("theirs"), backend=backend, dtype=str(out.dtype),
            )
        )  # fmt: skip
    return rows


def _torch_calls(
    workload: Workload, dout: Any, torch: Any
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    tensors = [
        torch.from_numpy(to_numpy(x).copy()) if hasattr(x, "nbytes") else x for x in workload.inputs
    ]
    leaves = [t.requires_grad_() for t in tensors if t is not None and t.is_floating_point()]
    out = workload.reference(torch, *tensors)
    gradient = torch.from_numpy(np.asarray(dout))
    return (
        lambda: workload.reference(torch, *tensors),
        lambda: torch.autograd.grad(out, leaves, gradient, retain_graph=True),
    )


def time_training(
    model: Model, limits: Limits, torch: Any, seconds: float, compiled: bool = False
) -> Row:
    """Time a training step: forward, backward and AdamW on a batch of random tokens."""
    network = our_model(model)
    calls: dict[str, Callable[[], Any]] = {"ours": our_step(model, network)}
    if torch is not None:
        other = torch_model(model, torch)
        copy_weights(network, other, torch)
        step = torch_step(model, torch.compile(other) if compiled else other, torch)
        calls["theirs"] = step
        ours, theirs = calls["ours"](), step()
        if abs(ours - theirs) > 1e-3 * abs(theirs):
            raise ValueError(f"the losses differ: {ours} here, {theirs} in PyTorch")
    samples = interleave(calls, seconds=seconds, rounds=(5, 100))
    return row(
        "training step", model.name, samples["ours"], flops=model.step_flops(), limits=limits,
        against=samples.get("theirs"), parameters=model.parameters(), compiled=compiled,
        tokens_per_second=model.batch * model.length / samples["ours"].median,
    )  # fmt: skip


def time_decoding(
    model: Model, batch: int, past: int, limits: Limits, torch: Any, seconds: float
) -> Row:
    """Time one decoding step: a token per sequence, after `past` cached ones."""
    from ..autograd import no_grad
    from ..models.layers import KeyValueCache

    past = min(past, model.length - 1)
    network = our_model(model)
    network.eval()
    ids = np.random.default_rng(0).integers(0, model.vocabulary, (batch, past + 1))
    cache = KeyValueCache(model.length)
    with no_grad():
        network(ids[:, :past], cache=cache)

    def ours() -> Any:
        cache.length = past  # the same position again and again: no call is longer than another
        with no_grad():
            return network(ids[:, past:], cache=cache, logits_to_keep=1).logits

    calls: dict[str, Callable[[], Any]] = {"ours": ours}
    if torch is not None:
        calls["theirs"] = _torch_decoding(model, network, ids, past, torch)
        difference = np.abs(to_numpy(ours().array)[:, -1] - calls["theirs"]()[:, -1].numpy()).max()
        if difference > 1e-2:
            raise ValueError(f"the logits differ by {difference} from PyTorch's")
    samples = interleave(calls, seconds=seconds)
    weights = 4.0 * model.parameters()  # every weight is read once a step
    return row(
        "decoding step", f"{model.name} B{batch} past {past}", samples["ours"],
        flops=2.0 * batch * model.parameters(), moved=weights, limits=limits,
        against=samples.get("theirs"), tokens_per_second=batch / samples["ours"].median,
    )  # fmt: skip


def _torch_decoding(
    model: Model, network: Any, ids: Any, past: int, torch: Any
) -> Callable[[], Any]:
    other = torch_model(model, torch)
    copy_weights(network, other, torch)
    other.eval()
    shape = (len(ids), model.heads, model.length, model.width // model.heads)
    caches = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(model.layers)]
    prompt, token = torch.from_numpy(ids[:, :past].copy()), torch.from_numpy(ids[:, past:].copy())
    with torch.inference_mode():
        other(prompt, caches, 0)

    def step() -> Any:
        with torch.inference_mode():
            return other(token, caches, past)

    return step


def time_crossover(largest: int, seconds: float) -> tuple[list[Row], dict[str, str | None]]:
    """Time kernels over a range of sizes on both backends; transfers are rows of their own."""
    sizes = [n for n in (16, 64, 256, 1024, 2048, 4096) if n <= largest]
    makers: dict[str, Callable[[int], Workload]] = {
        "layer_norm": lambda n: layer_norm_workload(n, 768, np.float32),
        "feed_forward": lambda n: feed_forward_workload(n, 768, 3072, np.float32),
        "attention": lambda n: attention_workload(1, 12, n, 64, np.float32),
    }
    rows: list[Row] = []
    first: dict[str, str | None] = {}
    for name, make in makers.items():
        for n in sizes:
            workload = make(n)
            call = _forward_and_backward(workload)
            samples: dict[str, Sample] = interleave({"cpu": call}, seconds=seconds)
            rows.append(row(f"{name} cpu", workload.size, samples["cpu"]))
            if is_cuda_available():
                gpu, transfer = _on_gpu(workload, seconds)
                rows.append(row(f"{name} gpu", workload.size, gpu, against=samples["cpu"]))
                rows.append(row(f"{name} transfer", workload.size, transfer))
                if gpu.high < samples["cpu"].low:
                    first.setdefault(name, workload.size)
        if is_cuda_available():
            first.setdefault(name, None)
    return rows, first


def _forward_and_backward(workload: Workload) -> Callable[[], Any]:
    def call() -> Any:
        out, saved = workload.forward(*workload.inputs, **workload.options)
        return workload.backward(out, saved)

    return call


def _on_gpu(workload: Workload, seconds: float) -> tuple[Sample, Sample]:
    import cupy

    wait = cupy.cuda.Device().synchronize
    device = workload.to(lambda x: to_device(x, "cuda"))

    def transfer() -> None:
        there = [to_device(x, "cuda") for x in workload.inputs if isinstance(x, np.ndarray)]
        to_numpy(there[0])

    calls = {"kernel": _forward_and_backward(device), "transfer": transfer}
    samples = interleave(calls, seconds=seconds, warmup=3, synchronize=wait)
    return samples["kernel"], samples["transfer"]
