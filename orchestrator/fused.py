"""Liger's fused kernel for the loss of the head, where it is asked for: growpoint[liger]."""

import os
from typing import TYPE_CHECKING

from orchestrator import extras
from sweeps.cluster import Cluster, Local
from sweeps.errors import GrowpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGE = "liger_kernel"


def require_installed(cluster: Cluster) -> None:
    """Raise GrowpointError if a cluster asks for a kernel that its jobs would not find.

    Jobs with a Python of their own know best.
    """
    if cluster.liger and (isinstance(cluster, Local) or cluster.python is None):
        _require_package()


def require(device: str) -> None:
    """Raise GrowpointError unless the kernel runs on `device`.

    On a CPU that is under Triton's interpreter alone, for tests: it takes minutes for seconds.
    """
    _require_package()
    if not device.startswith("cuda") and os.environ.get("TRITON_INTERPRET") != "1":
        raise GrowpointError(
            "Liger's kernels run on a GPU alone", [("device", device)], "cluster.liger=false"
        )


def _require_package() -> None:
    extras.require("liger", PACKAGE, "cluster.liger=true")


def mean_loss(head: "nn.Linear", states: "Tensor", labels: "Tensor") -> "Tensor":
    """Mean cross-entropy of [N, H] states and [N] labels, whose gradient is made on the way.

    Some thousands of tokens at a time; the head's gradient is summed up in fp32.
    """
    import torch
    from liger_kernel.transformers import functional

    made: Tensor = functional.liger_fused_linear_cross_entropy(
        states, head.weight, labels, bias=head.bias, accum_dtype=torch.float32
    )
    return made
