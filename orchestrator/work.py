"""What every verb is done with: the store, the plan, and the circumstances of a job."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.ranks import ALONE, Ranks
from orchestrator.store import Store
from sweeps.cluster import Cluster

MICRO_BATCH_VARIABLE = "GROWPOINT_MICRO_BATCH_TOKENS"
CHECKPOINTING_VARIABLE = "GROWPOINT_ACTIVATION_CHECKPOINTING"
COMPILE_VARIABLE = "GROWPOINT_COMPILE"
LIGER_VARIABLE = "GROWPOINT_LIGER"
VARIABLES = frozenset(
    {MICRO_BATCH_VARIABLE, CHECKPOINTING_VARIABLE, COMPILE_VARIABLE, LIGER_VARIABLE}
)


def exported(cluster: Cluster) -> dict[str, str]:
    """What whoever trains is told of how to compute, as variables of its environment."""
    said = {
        MICRO_BATCH_VARIABLE: cluster.micro_batch_tokens,
        CHECKPOINTING_VARIABLE: cluster.activation_checkpointing,
        COMPILE_VARIABLE: cluster.compile,
        LIGER_VARIABLE: cluster.liger,
    }
    return {name: str(int(value)) for name, value in said.items() if value}


def _micro_batch_tokens() -> int | None:
    """What whoever launched this process asks for; None: as many as the trainer likes."""
    said = os.environ.get(MICRO_BATCH_VARIABLE)
    return int(said) if said else None


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


@dataclass(frozen=True, kw_only=True)
class Circumstance:
    """What does not change the result: how often to save, on what, with whom, when to stop."""

    save_seconds: float = 60.0
    threads: int = 1
    stop: Callable[[], bool] = lambda: False
    allocation: str = ""
    micro_batch_tokens: int | None = field(default_factory=_micro_batch_tokens)
    activation_checkpointing: bool = field(default_factory=lambda: _is_set(CHECKPOINTING_VARIABLE))
    compile: bool = field(default_factory=lambda: _is_set(COMPILE_VARIABLE))
    liger: bool = field(default_factory=lambda: _is_set(LIGER_VARIABLE))
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Work:
    """What every verb needs: the store, the sweep's plan, the circumstance, and when to stop."""

    store: Store
    plan: Mapping[str, Any]
    circumstance: Circumstance
    stop: Callable[[], bool]

    @property
    def plan_folder(self) -> Path:
        """Folder of the sweep's plan."""
        return self.store.plan_folder(str(self.plan["sweep"]))
