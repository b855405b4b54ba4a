"""Optimizer states that a branch goes on with: whose they are, and when there is none."""

from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width
from sweeps.recipe import OptimizerState
from sweeps.stages import Grow, Init, Stage, Train


def state_after(asked: OptimizerState, start: Stage) -> OptimizerState:
    """What a phase after `start` begins with, if `asked` is what its branch asks for.

    After a network that nobody has trained, both are one: AdamW's moments are zero before its first
    update. Raises GrowpointError if `carried` is asked for and there is no state to carry.
    """
    if asked == "fresh":
        return asked
    before = ungrown(start)
    if isinstance(before.do, Init):
        return _untrained(before.do)
    if isinstance(before.do, Train) and before.do.ends:
        raise GrowpointError(
            "there is no optimizer state to carry: the source's schedule has ended",
            [
                ("source", f"{before.do.tokens} tokens"),
                ("schedule", before.do.recipe.schedule.kind),
            ],
            "branch.optimizer_state=fresh, or a trunk that stays open: recipe=constant",
        )
    return asked


def _untrained(do: Init) -> OptimizerState:
    if do.adopted is not None:
        raise GrowpointError(
            "there is no optimizer state to carry: the source is an adopted checkpoint",
            [("source", do.adopted.content), ("holds", "weights, without AdamW's moments")],
            "branch.optimizer_state=fresh",
        )
    return "fresh"


def source(stage: Stage) -> Stage | None:
    """The phase whose optimizer state this one begins with; None if it begins with a fresh one."""
    if not isinstance(stage.do, Train) or stage.do.optimizer_state == "fresh":
        return None
    if stage.after is None:
        raise ValueError(f"a lineage cannot begin with {stage.do.kind}")
    before = ungrown(stage.after)
    if not isinstance(before.do, Train) or before.do.ends:
        raise ValueError(f"{before.id} leaves no optimizer state")
    return before


def growths(stage: Stage) -> tuple[Depth | Width, ...]:
    """The operators between a phase and the one before it, in order."""
    found: tuple[Depth | Width, ...] = ()
    before = stage.after
    while before and isinstance(before.do, Grow):
        found, before = (*before.do.operators, *found), before.after
    return found


def updates_before(stage: Stage) -> int:
    """How many updates the optimizer state that a phase begins with has seen."""
    before = source(stage)
    if before is None:
        return 0
    assert isinstance(before.do, Train)
    return updates_before(before) + before.do.recipe.batches.updates(before.do.tokens)


def ungrown(stage: Stage) -> Stage:
    """The last stage that is not a growth."""
    while isinstance(stage.do, Grow) and stage.after:
        stage = stage.after
    return stage
