"""GPUs of this machine, and how workers share them."""

import os
from pathlib import Path

from sweeps.cluster import Local
from sweeps.errors import GrowpointError


def slots(cluster: Local) -> list[str | None]:
    """One entry for each worker: the GPU it may see, or None without GPUs.

    Raises GrowpointError if there are fewer than the cluster asks for.
    """
    visible = visible_gpus()
    if len(visible) < (cluster.gpus or 0):
        raise GrowpointError(
            "this machine has fewer GPUs than are asked for",
            [("cluster.gpus", cluster.gpus), ("visible", ", ".join(visible) or "none")],
            f"cluster.gpus={len(visible)}",
        )
    gpus = visible if cluster.gpus is None else visible[: cluster.gpus]
    count = cluster.workers or len(gpus) or max(1, len(os.sched_getaffinity(0)) // cluster.threads)
    return [gpus[index % len(gpus)] if gpus else None for index in range(count)]


def visible_gpus() -> list[str]:
    """GPUs that this process may use, without importing torch."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [gpu for gpu in allowed.split(",") if gpu.strip() not in {"", "-1", "NoDevFiles"}]
    return [str(index) for index, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
