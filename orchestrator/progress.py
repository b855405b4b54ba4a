"""How far a launched sweep is, from files alone."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import claim
from orchestrator.store import Store

# The folder of a stage in which a command that trains keeps its own state.
WORK = "work"

# A stage's word, worst first, when a cell needs several.
STATES = ("failed", "blocked", "running", "stopped", "queued", "waiting", "done")


@dataclass(frozen=True)
class StageState:
    """One stage: its state, the share that is done, and what the job said last."""

    id: str
    state: str
    share: float
    flops: float
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """All stages of a plan at one moment; `preparing` while a corpus is being tokenized."""

    stages: Mapping[str, StageState]
    preparing: bool = False

    @property
    def flops_done(self) -> float:
        """FLOPs of the plan that are spent and not lost."""
        return sum(stage.flops * stage.share for stage in self.stages.values())

    @property
    def flops(self) -> float:
        """FLOPs of the whole plan."""
        return sum(stage.flops for stage in self.stages.values())

    @property
    def flops_ahead(self) -> float:
        """FLOPs of the plan without those of stages that failed or wait for one that did."""
        lost = {"failed", "blocked"}
        return sum(
            stage.flops * (stage.share if stage.state in lost else 1.0)
            for stage in self.stages.values()
        )

    def count(self, state: str) -> int:
        """Number of stages in a state."""
        return sum(stage.state == state for stage in self.stages.values())

    @property
    def complete(self) -> bool:
        """Whether every stage is done."""
        return self.count("done") == len(self.stages)


def snapshot(store: Store, plan: Mapping[str, Any], queued: Iterable[str] = ()) -> Snapshot:
    """States of all stages of plan.json; `queued` names stages that a scheduler holds."""
    waiting = frozenset(queued)
    stages: dict[str, StageState] = {}
    # plan.json lists stages in an order in which they can run.
    for stage_id, entry in plan["stages"].items():
        before = stages.get(entry["starts_from"] or "")
        stages[stage_id] = _state(store, stage_id, entry, before, plan, stage_id in waiting)
    return Snapshot(stages, preparing=any(_preparing(store, corpus) for corpus in plan["data"]))


def failed(store: Store, stages: Iterable[str]) -> list[str]:
    """Those of the stages whose last attempt failed."""
    missing = (stage for stage in stages if not store.done(stage))
    return [stage for stage in missing if store.state(stage)["state"] == "failed"]


def _preparing(store: Store, corpus: str) -> bool:
    folder = store.corpus(corpus)
    begun = folder.parent.exists() and not (folder / "corpus.json").exists()
    return begun and claim.holder(folder.with_name(f"{corpus}.claim")) is not None


def _state(
    store: Store,
    stage_id: str,
    entry: Mapping[str, Any],
    before: StageState | None,
    plan: Mapping[str, Any],
    queued: bool,
) -> StageState:
    if store.done(stage_id):
        return StageState(stage_id, "done", 1.0, entry["flops"], {})
    said = store.state(stage_id)
    state = said["state"]
    if state == "running" and claim.holder(store.run(stage_id) / "claim") is None:
        # The job died without a word; what it saved is there.
        state = "stopped"
    if state == "done":
        state = "stopped"
    if queued and state != "running":
        state = "queued"
    elif state in {"waiting", "stopped"} and before and before.state in {"failed", "blocked"}:
        said = {**said, "cause": before.details.get("cause", before.id)}
        state = "blocked"
    return StageState(stage_id, state, _share(store, stage_id, entry, plan), entry["flops"], said)


def _share(store: Store, stage_id: str, entry: Mapping[str, Any], plan: Mapping[str, Any]) -> float:
    """Share of the tokens that this stage adds to the one it starts from."""
    if entry["kind"] != "train":
        return 0.0
    last = last_metric(store.run(stage_id) / "metrics.jsonl")
    start = plan["stages"].get(entry["starts_from"], {})
    begun = start.get("tokens", 0) if entry["starts_from"] != entry["after"] else 0
    gone = float(last.get("tokens", begun)) - begun
    return min(1.0, max(0.0, gone / max(1, entry["tokens"] - begun)))


def last_metric(path: Path) -> dict[str, Any]:
    """The last whole line of a metrics.jsonl; {} if there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 4096))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return {}
    # The part after the last newline is empty, or a line that is being written.
    for line in reversed(lines[:-1]):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        return value if isinstance(value, dict) else {}
    return {}


def reached(run: Path) -> int:
    """Tokens that the command of an unfinished phase says it has come to; 0 where none has run."""
    tokens = last_metric(run / "metrics.jsonl").get("tokens") if (run / WORK).is_dir() else None
    return int(tokens) if isinstance(tokens, int | float) else 0


@dataclass
class Pace:
    """FLOP/s since this launch began, for the time that is left."""

    begun: float
    done_at_start: float

    @classmethod
    def start(cls, shot: Snapshot) -> "Pace":
        """The pace of a launch that begins now."""
        return cls(time.monotonic(), shot.flops_done)

    def left_seconds(self, shot: Snapshot) -> float | None:
        """Seconds to go; None before anything was measured."""
        gone = shot.flops_done - self.done_at_start
        elapsed = time.monotonic() - self.begun
        return elapsed * (shot.flops_ahead - shot.flops_done) / gone if gone > 0 else None
