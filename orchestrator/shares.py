"""Which rows of a batch a rank takes, and in how many passes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.errors import GrowpointError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Share:
    """`count` rows from `first` on, in parts of `size`; all ranks make the same number of passes.

    A rank with fewer parts than others makes its last one again, with weight 0.
    """

    first: int
    count: int
    size: int
    passes: int
    sequences: int
    world: int

    def weighted(self, rows: "Tensor") -> Iterator[tuple["Tensor", float]]:
        """The parts of this rank's rows, and what each weighs in the mean over ranks.

        `rows` are its sequences, each cut into equally many.
        """
        cuts = len(rows) // self.count
        parts = rows.split(self.size * cuts)
        for part in parts:
            yield part, self.world * len(part) / (self.sequences * cuts)
        # All ranks put the layers together equally often.
        for _ in range(self.passes - len(parts)):
            yield parts[-1], 0.0


def share(sequences: int, most: int, rank: int = 0, world: int = 1) -> Share:
    """What `rank` takes of a batch, in parts of at most `most` rows.

    A batch is cut into the same parts whatever the number of ranks, as long as there is one for
    each rank; else into smaller ones. Raises GrowpointError for more ranks than rows.
    """
    require_rows(sequences, world)
    size = max(1, min(most, sequences // world))
    parts = -(-sequences // size)
    first, last = rank * parts // world * size, (rank + 1) * parts // world * size
    count = min(last, sequences) - first
    return Share(first, count, size, -(-parts // world), sequences, world)


def require_rows(sequences: int, world: int) -> None:
    """Raise GrowpointError if a batch has fewer sequences than a job has ranks."""
    if sequences < world:
        raise GrowpointError(
            "a batch has fewer sequences than the job has ranks",
            [("sequences", sequences), ("ranks", f"{world}, as cluster.nodes times cluster.tasks")],
            "lower cluster.nodes or cluster.tasks, or raise recipe.batch_sequences",
        )
