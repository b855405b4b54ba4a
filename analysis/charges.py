"""What cells would cost beside what a store has already: what a launch would really run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.store import Store, beginnings, phases
from sweeps import cost, plan
from sweeps.cell import Cell
from sweeps.plan import Plan
from sweeps.stages import Stage, Train


@dataclass(frozen=True)
class Charges:
    """A store's finished stages, read once."""

    store: Store
    done: frozenset[str]
    lengths: Mapping[str, list[int]]  # of finished open phases, by key

    @classmethod
    def of(cls, store: Store) -> "Charges":
        """Finished stages cost nothing, nor does what a longer phase goes on from."""
        found = (path.parent.name for path in store.root.glob("runs/*/record.json"))
        return cls(store, frozenset(found), phases(store))

    def finished(self, cell: Cell) -> bool:
        """Whether a cell has been scored."""
        return cell.stage.id in self.done

    def flops(self, cells: Sequence[Cell]) -> float:
        """FLOPs to run these cells together, what they share counted once."""
        made = plan.of_cells("", "", cells)
        return sum(self._flops(made, stage) for stage in self.new(made.stages))

    def new(self, stages: Iterable[Stage]) -> list[Stage]:
        """Those that are not finished."""
        return [stage for stage in stages if stage.id not in self.done]

    def _flops(self, made: Plan, stage: Stage) -> float:
        full = made.flops(stage)
        if not isinstance(stage.do, Train):
            return full
        longest = next(beginnings(self.store, stage, self.lengths), None)
        return min(full, cost.flops(stage) - cost.flops(longest)) if longest else full
