"""What a measurement ran on: without it a time means nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from typing import Any

import numpy as np

from ..backend import get_num_threads, is_cuda_available


def record(torch: Any = None) -> dict[str, Any]:
    """Return the machine, the libraries and their settings.

    Parameters
    ----------
    torch : module, optional
        PyTorch, if it takes part.

    Returns
    -------
    dict
        Plain values, for JSON.

    Examples
    --------
    >>> record()["threads"] >= 1
    True
    """
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": _blas(),
        "threads": get_num_threads(),
        "load before": _load(),
        "gpu": _gpu(),
    }
    if torch is not None:
        found["torch"] = torch.__version__
        found["torch threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["torch cuda"] = torch.version.cuda
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NVIDIA_TF32_OVERRIDE"):
        if name in os.environ:
            found[name] = os.environ[name]
    return found


def _cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _blas() -> str:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown: threadpoolctl is not installed"
    return "; ".join(
        f"{lib['internal_api']} {lib['version']} ({lib.get('architecture', '?')})"
        for lib in threadpool_info()
        if lib["user_api"] == "blas"
    )


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _gpu() -> dict[str, Any] | None:
    """Return the GPU's name and driver, or None where there is none that CuPy can use."""
    if not is_cuda_available():
        return None
    import cupy

    from ..backend import cublas

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    found = {
        "name": properties["name"].decode(),
        "capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "memory": properties["totalGlobalMem"],
        "L2": properties["l2CacheSize"],
        "cupy": cupy.__version__,
        "cuda": runtime.runtimeGetVersion(),
        "cuda of the driver": runtime.driverGetVersion(),
        "products": cublas.route(),
    }
    asked = ("driver_version", "clocks.sm", "clocks.mem", "temperature.gpu", "power.limit")
    query = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        line = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        found |= zip(asked, line.splitlines()[runtime.getDevice()].split(", "))
    return found


def summary(environment: dict[str, Any]) -> str:
    """Return the record in one line, for above a table."""
    parts = [
        environment["cpu"],
        f"{environment['threads']} threads of {environment['cores']} cores",
        f"NumPy {environment['numpy']}",
        environment["blas"],
    ]
    if "torch" in environment:
        parts.append(f"PyTorch {environment['torch']}")
    if environment["gpu"]:
        parts.append(environment["gpu"].get("name", "GPU"))
    return " · ".join(str(p) for p in parts if p) + ("" if sys.flags.optimize == 0 else " · -O")
