"""The measurements behind ``minitransformer bench``: each returns rows for the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..backend import is_cuda_available, single_threaded_blas, to_numpy
from .devices import Cuda, Device, Host, difference, product_precision
from .limits import Limits
from .models import (
    Model,
    our_model,
    our_optimizer,
    our_step,
    torch_optimizer,
    torch_step,
    torch_twin,
)
from .profile import profile
from .report import row
from .timing import Sample, interleave
from .workloads import KERNELS, Workload

Row = dict[str, Any]
# How far apart two libraries may be, ‖ours - theirs‖ / ‖theirs‖: some roundings of the products
AGREE = {"float64": 1e-6, "float32": 1e-4, "tf32": 4e-3, "float16": 1e-2, "bfloat16": 3e-2}


def time_kernel(
    workload: Workload, limits: Limits, torch: Any, seconds: float, *,
    device: Device | None = None, dtype: str = "float32",
) -> Iterator[Row]:  # fmt: skip
    """Time one kernel forward and backward, against PyTorch if it is given.

    Raises
    ------
    ValueError
        If the two disagree: a wrong result is not timed.
    """
    device = device or Host()
    ours = workload.to(lambda x: device.place(x, dtype))
    out, saved = ours.forward(*ours.inputs, **ours.options)
    gradient = np.resize(np.random.default_rng(0).standard_normal(997, np.float32), out.shape)
    dout = device.place(gradient, dtype)
    calls: dict[str, dict[str, Callable[[], Any]]] = {
        "forward": {"ours": lambda: ours.forward(*ours.inputs, **ours.options)},
        "backward": {"ours": lambda: ours.backward(dout, saved)},
    }
    with product_precision(dtype, torch), single_threaded_blas():
        if torch is not None:
            tensors = [
                device.tensor(torch, x, dtype) if isinstance(x, np.ndarray) else x
                for x in workload.inputs
            ]
            pair = workload.torch_calls(torch, tensors, device.tensor(torch, gradient, dtype))
            calls["forward"]["theirs"], calls["backward"]["theirs"] = pair
            if workload.kernel != "dropout":  # where each side draws a mask of its own
                _check_agreement(workload, calls, dtype, torch)
        for direction, both in calls.items():
            samples = interleave(both, seconds=seconds, clock=device.clock)
            back = direction == "backward"
            yield row(
                f"{workload.kernel} {direction}", workload.size, samples["ours"],
                flops=workload.backward_flops if back else workload.flops,
                moved=ours.bytes(out, backward=back), limits=limits,
                against=samples.get("theirs"), launching=device.launching(both["ours"]),
                device=device.name, dtype=dtype,
            )  # fmt: skip


def _check_agreement(
    workload: Workload, calls: dict[str, dict[str, Callable[[], Any]]], dtype: str, torch: Any
) -> None:
    for direction, both in calls.items():
        ours, theirs = both["ours"](), both["theirs"]()
        if direction == "forward":
            pairs = [(ours[0], theirs)]
        else:
            pairs = list(zip([g for g in ours if g is not None], theirs, strict=True))
        for found, expected in pairs:
            error = difference(found, expected, torch)
            if not error <= AGREE[dtype]:  # NaN is none
                raise ValueError(
                    f"{workload.kernel} {direction}, {workload.size}, {dtype}: "
                    f"{error:.2g} away from PyTorch; not timed"
                )


def time_training(
    model: Model, limits: Limits, torch: Any, seconds: float, *, compiled: bool = False,
    device: Device | None = None, dtype: str = "float32", checked: int = 1,
    profiled: bool = False,
) -> Row:  # fmt: skip
    """Time a training step: forward, backward and AdamW on a batch of random tokens.

    The losses of the first `checked` steps are held against PyTorch's. If `profiled`, PyTorch's
    profiler says which kernels a GPU's time goes to.

    Raises
    ------
    ValueError
        If they differ.
    """
    device = device or Host()
    network = our_model(model).to(device.name)
    steps: dict[str, Callable[[], Any]] = {"ours": our_step(model, network, dtype)}
    if torch is not None:
        twin = torch_twin(model, network, torch, device)
        steps["theirs"] = torch_step(model, torch.compile(twin) if compiled else twin, torch, dtype)
    more: dict[str, Any] = {}
    with product_precision(dtype, torch):
        losses = {side: [float(step()) for _ in range(checked)] for side, step in steps.items()}
        if torch is not None:
            _check_losses(losses["ours"], losses["theirs"], dtype)
        if isinstance(device, Cuda):  # one after the other: neither's memory narrows the other's
            samples: dict[str, Sample] = {}
            for side, step in steps.items():
                device.release(torch)
                more[f"{side} peak"] = (
                    device.peak(step) if side == "ours" else device.torch_peak(step, torch)
                )
                samples |= interleave(
                    {side: step}, seconds=seconds / len(steps), rounds=(6, 50),
                    clock=device.clock_steps,
                )  # fmt: skip
            more["launching"] = device.launching(steps["ours"])
            if profiled and torch is not None:
                more["profiles"] = {side: profile(step, torch) for side, step in steps.items()}
        else:
            samples = interleave(steps, seconds=seconds, rounds=(5, 100))
    tokens = model.batch * model.length
    if torch is not None:
        more["their_tokens_per_second"] = tokens / samples["theirs"].median
    return row(
        "training step", model.name, samples["ours"], flops=model.step_flops(), limits=limits,
        against=samples.get("theirs"), parameters=model.parameters(), compiled=compiled,
        tokens_per_second=tokens / samples["ours"].median, losses=losses, device=device.name,
        dtype=dtype, **more,
    )  # fmt: skip


def _check_losses(ours: list[float], theirs: list[float], dtype: str) -> None:
    for step, (found, expected) in enumerate(zip(ours, theirs)):
        if not abs(found - expected) <= 10 * AGREE[dtype] * abs(expected):
            raise ValueError(
                f"the losses of step {step + 1} in {dtype} differ: {found} here, "
                f"{expected} in PyTorch; not timed"
            )


def time_optimizer(
    model: Model, limits: Limits, torch: Any, seconds: float, *, device: Device | None = None
) -> Iterator[Row]:
    """Time AdamW, and the clipping of the gradient's norm, over the weights of a model."""
    from ..nn.utils import clip_grad_norm_

    device = device or Host()
    one = model._replace(batch=1)
    network = our_model(model).to(device.name)
    ours = our_optimizer(network)
    our_step(one, network, optimizer=ours)()
    weights = list(network.parameters())
    updates: dict[str, Callable[[], Any]] = {"ours": ours.step}
    clips: dict[str, Callable[[], Any]] = {"ours": lambda: clip_grad_norm_(weights, 1e9)}
    if torch is not None:
        twin = torch_twin(model, network, torch, device)
        theirs = torch_optimizer(twin, torch)
        torch_step(one, twin, torch, optimizer=theirs)()
        updates["theirs"] = theirs.step
        clips["theirs"] = lambda: torch.nn.utils.clip_grad_norm_(twin.parameters(), 1e9)
    for name, calls, passes in (("AdamW", updates, 7), ("clip_grad_norm_", clips, 3)):
        samples = interleave(calls, seconds=seconds, clock=device.clock)
        yield row(
            name, model.name, samples["ours"], moved=passes * 4.0 * model.parameters(),
            limits=limits, against=samples.get("theirs"), device=device.name, dtype="float32",
            launching=device.launching(calls["ours"]),
        )  # fmt: skip


def time_decoding(
    model: Model, batch: int, past: int, limits: Limits, torch: Any, seconds: float, *,
    device: Device | None = None,
) -> Row:  # fmt: skip
    """Time one decoding step: a token per sequence, after `past` cached ones.

    Raises
    ------
    ValueError
        If the logits differ from PyTorch's.
    """
    import minitransformer as mt

    from ..models.layers import KeyValueCache

    device = device or Host()
    past = min(past, model.length - 1)
    network = our_model(model).to(device.name)
    network.eval()
    ids = np.random.default_rng(0).integers(0, model.vocabulary, (batch, past + 1))
    cache = KeyValueCache(model.length)
    with mt.no_grad():
        network(ids[:, :past], cache=cache)
    token = mt.as_tensor(ids[:, past:]).to(device.name)

    def ours() -> Any:
        cache.length = past  # the same position again and again: no call is longer than another
        with mt.no_grad(), single_threaded_blas():  # as generation does
            return network(token, cache=cache, logits_to_keep=1).logits

    calls: dict[str, Callable[[], Any]] = {"ours": ours}
    with product_precision("float32", torch):
        if torch is not None:
            calls["theirs"] = _torch_decoding(model, network, ids, past, torch, device)
            error = difference(ours().array[:, -1], calls["theirs"]()[:, -1], torch)
            if not error <= AGREE["float32"]:
                raise ValueError(f"the logits are {error:.2g} away from PyTorch's; not timed")
        samples = interleave(calls, seconds=seconds, clock=device.clock_steps)
    weights = 4.0 * model.parameters()  # every weight is read once a step
    return row(
        "decoding step", f"{model.name} B{batch} past {past}", samples["ours"],
        flops=2.0 * batch * model.parameters(), moved=weights, limits=limits,
        against=samples.get("theirs"), tokens_per_second=batch / samples["ours"].median,
        launching=device.launching(ours), device=device.name,
    )  # fmt: skip


def _torch_decoding(
    model: Model, network: Any, ids: Any, past: int, torch: Any, device: Device
) -> Callable[[], Any]:
    twin = torch_twin(model, network, torch, device)
    twin.eval()
    shape = (len(ids), model.heads, model.length, model.width // model.heads)
    places = device.tensor(torch, ids)
    caches = [
        (torch.zeros(shape, device=places.device), torch.zeros(shape, device=places.device))
        for _ in range(model.layers)
    ]
    token = places[:, past:].contiguous()
    with torch.inference_mode():
        twin(places[:, :past], caches, 0)

    def step() -> Any:
        with torch.inference_mode():
            return twin(token, caches, past)

    return step


def time_crossover(
    largest: int,
    seconds: float,
    gpu: Device | None = None,
    names: Sequence[str] = tuple(KERNELS),
) -> Iterator[tuple[str, int, list[Row]]]:
    """Time kernels over a range of sizes on both devices; transfers are rows of their own.

    Yields
    ------
    kernel : str
    n : int
        The size.
    rows : list of dict
        Of the CPU, the GPU and the transfers in and out, as far as there are any.
    """
    if gpu is None and is_cuda_available():
        gpu = Cuda()
    for name in names:
        for n in (1, 4, 16, 64, 256, 1024, 2048, 4096):
            if n > largest:
                break
            workload = KERNELS[name](1, n, 768, 12, 8192)[0]
            call = _forward_and_backward(workload)
            cpu = interleave({"cpu": call}, seconds=seconds, rounds=(3, 50))["cpu"]
            rows = [row(f"{name} cpu", workload.size, cpu, n=n)]
            if gpu is not None:
                there, transfer = _on_gpu(workload, seconds, gpu)
                rows.append(row(f"{name} gpu", workload.size, there, against=cpu, n=n))
                rows.append(row(f"{name} transfer", workload.size, transfer, n=n))
            yield name, n, rows


def wins(found: list[tuple[str, int, list[Row]]]) -> dict[str, dict[str, int | None]]:
    """Return per kernel the size from which on a GPU wins, without and with the transfers.

    It wins at a size if the whole interval of its time lies below the CPU's.
    """
    first: dict[str, dict[str, int | None]] = {}
    for name, n, rows in found:
        if len(rows) < 3:
            continue
        cpu, gpu, transfer = rows
        entry = first.setdefault(name, {"kernel": None, "with transfers": None})
        for kind, high in (
            ("kernel", gpu["high"]),
            ("with transfers", gpu["high"] + transfer["high"]),
        ):
            if high >= cpu["low"]:
                entry[kind] = None
            elif entry[kind] is None:
                entry[kind] = n
    return first


def _forward_and_backward(workload: Workload) -> Callable[[], Any]:
    def call() -> Any:
        out, saved = workload.forward(*workload.inputs, **workload.options)
        return workload.backward(out, saved)

    return call


def _on_gpu(workload: Workload, seconds: float, gpu: Device) -> tuple[Sample, Sample]:
    arrays = [x for x in workload.inputs if isinstance(x, np.ndarray)]

    def transfer() -> None:
        there = [gpu.place(x) for x in arrays]
        to_numpy(there[0])

    # as a program calls it: the launches count, the caches are as they are
    calls = {"kernel": _forward_and_backward(workload.to(gpu.place)), "transfer": transfer}
    samples = interleave(calls, seconds=seconds, warmup=3, clock=gpu.clock_steps)
    return samples["kernel"], samples["transfer"]
