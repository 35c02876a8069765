"""What a GPU did during a call, kernel by kernel.

PyTorch's profiler reads CUPTI, which records the kernels of the whole process: CuPy's as well
as PyTorch's own. So both sides are looked at with one pair of eyes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

# The first pattern that a kernel's name contains says what it is for.
GROUPS = {
    "attention": r"attention|flash|fmha",
    "products": r"gemm|gemv|cutlass|xmma|nvjet|cublas|splitk",
    "layer norm": r"layer_?norm",
    "cross-entropy": r"cross_entropy|nll_loss|softmax",
    "GELU": r"gelu",
    "optimizer": r"adam|multi_tensor",
    "embedding": r"embedding|scatter_sum|index_?select|take|indexing_backward",
    "memory": r"^mem(cpy|set)|copy",
}
REST = "elementwise and the rest"
WAITS = re.compile(r"^cu(da)?(Stream|Device|Event|Ctx)Synchronize")
TO_HOST = re.compile(r"^Memcpy DtoH")


def profile(call: Callable[[], Any], torch: Any) -> dict[str, Any]:
    """Return what the GPU did during one call; see `summarize`.

    ``waits`` counts those of the call alone, not those of the recording.
    """
    activities = torch.profiler.ProfilerActivity
    kinds = [activities.CUDA] if torch.cuda.is_available() else [activities.CPU]

    def recorded(what: Callable[[], Any]) -> dict[str, Any]:
        with torch.profiler.profile(activities=kinds) as profiler:
            what()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        return summarize(profiler.key_averages())

    silence, found = recorded(lambda: None), recorded(call)
    return found | {"waits": found["waits"] - silence["waits"]}


def summarize(events: Iterable[Any]) -> dict[str, Any]:
    """Sort a profiler's averages into groups of kernels.

    Parameters
    ----------
    events : iterable
        With ``key``, ``count``, ``device_type`` and ``self_device_time_total`` in microseconds.

    Returns
    -------
    dict
        ``seconds`` of all kernels and ``launches`` of them; ``groups`` of name to seconds, the
        longest first; ``slowest``, the twelve kernels that took longest; ``to host``, how many
        copies went there, and ``waits``, how often the host stopped for the device.
    """
    groups: dict[str, float] = {}
    kernels, to_host, waits = [], 0, 0
    for event in events:
        if event.device_type.name == "CPU":
            waits += event.count if WAITS.match(event.key) else 0
            continue
        to_host += event.count if TO_HOST.match(event.key) else 0
        seconds = event.self_device_time_total * 1e-6
        kernels.append({"name": event.key[:120], "count": event.count, "seconds": seconds})
        group = group_of(event.key)
        groups[group] = groups.get(group, 0.0) + seconds
    kernels.sort(key=lambda k: -k["seconds"])
    return {
        "seconds": sum(groups.values()),
        "launches": sum(k["count"] for k in kernels),
        "groups": dict(sorted(groups.items(), key=lambda item: -item[1])),
        "slowest": kernels[:12],
        "to host": to_host,
        "waits": waits,
    }


def group_of(kernel: str) -> str:
    """Return what a kernel is for, by its name.

    Examples
    --------
    >>> group_of("void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64_8x5_tn_align1>")
    'products'
    >>> group_of("cupy_multiply__float32_float32_float32")
    'elementwise and the rest'
    """
    for group, pattern in GROUPS.items():
        if re.search(pattern, kernel, re.IGNORECASE):
            return group
    return REST


def bound(found: dict[str, Any], seconds: float) -> str:
    """Return what bounds a program that takes `seconds`, of which its kernels take some.

    Examples
    --------
    >>> bound({"seconds": 0.2, "groups": {"products": 0.2}}, 1.0)
    'launch'
    >>> bound({"seconds": 0.9, "groups": {"products": 0.6, "GELU": 0.3}}, 1.0)
    'compute'
    """
    if found["seconds"] < 0.7 * seconds:
        return "launch"
    products = found["groups"].get("products", 0.0) + found["groups"].get("attention", 0.0)
    return "compute" if products >= 0.5 * found["seconds"] else "bandwidth"
