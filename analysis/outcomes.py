"""What came out, of a sweep or of a table made elsewhere: what the commands that learn work on."""

import errno
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import metrics, records
from analysis.imported import Imported, read
from analysis.metrics import METRICS, Metric
from orchestrator.store import Store, read_json, write_json
from sweeps.errors import GrowpointError, nearest

FOLDER = "growpoint-results"
_MARK = "table.json"


@dataclass(frozen=True)
class Outcomes:
    """Records, what they are called, and where what is learned from them goes."""

    name: str
    title: str
    frame: pd.DataFrame
    planned: int
    folder: Path  # of fits.json, figures/ and reports
    words: str  # what leads a command to them: a sweep's name, or --results and a table
    store: Store | None = None  # with the runs themselves; a table has none
    table: Imported | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that were measured, of those that laws are fitted to unasked."""
        return tuple(
            metric for metric in METRICS.values() if self.frame[metric.column].notna().any()
        )

    def metric(self, name: str | None) -> Metric:
        """The metric called `name`, or the first that was measured.

        Raises GrowpointError if there is no such metric, or none of it here.
        """
        chosen = self.metrics[0] if name is None else records.metric(name)
        every = metrics.measured(self.frame)
        if chosen not in every:
            raise GrowpointError(
                f"{self.name} has no {chosen.name}",
                [("measured", ", ".join(metric.name for metric in every))],
                f"--metric {nearest(chosen.name, [metric.name for metric in every])}",
            )
        return chosen

    def curves(self) -> pd.DataFrame:
        """Training curves, as `records.curves` has them; raises GrowpointError for a table."""
        if self.store is None:
            raise GrowpointError(
                "a table of results has no training curves",
                [("table", self.name)],
                "draw the figures of its runs: --figure sunk_vs_accuracy",
            )
        return records.curves(self.store, self.name, self.frame)

    def caveats(self) -> tuple[str, ...]:
        """What a reader must know of results that growpoint has not made."""
        if self.table is None:
            return ()
        left = len(self.table.dropped)
        rows = f", {left} of {len(self.table.table.rows)} rows left out" if left else ""
        counted = [note for note in self.table.notes if "FLOPs are" in note]
        return (f"made elsewhere{rows}: compute as the table counts it", *counted)

    def more(self) -> str:
        """What to do if there are too few results."""
        return f"growpoint status {self.name}" if self.store else f"growpoint results {self.words}"

    def writable(self) -> Path:
        """The folder, made for writing.

        Raises GrowpointError if it cannot be, or holds what was learned from another table.
        """
        if self.table is None:
            return self.folder
        mine = {"table": str(self.table.table.path.resolve())}
        found = read_json(self.folder / _MARK)
        if found not in (None, mine):
            raise GrowpointError(
                f"{self.folder} holds what was learned from another table",
                [("there", found.get("table") if found else ""), ("given", mine["table"])],
                f"--to {shlex.quote(f'{self.folder}-2')}",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise GrowpointError(
                "the folder for what is learned cannot be written",
                [("folder", self.folder), ("says", error.strerror or error)],
                "--to FOLDER that you may write to",
            ) from error
        if found is None:
            write_json(self.folder / _MARK, mine)
        return self.folder


def of_sweep(store: Store, name: str) -> Outcomes:
    """The finished cells of a sweep; raises GrowpointError as `records.load` does."""
    frame, plan = records.load(store, name), store.plan(name)
    return Outcomes(
        name=name,
        title=str(plan.get("title", "")),
        frame=frame,
        planned=len(plan["cells"]),
        folder=store.plan_folder(name),
        words=name,
        store=store,
    )


def of_table(
    path: str | Path, columns: Mapping[str, str] | None = None, to: Path | None = None
) -> Outcomes:
    """A table made elsewhere; raises GrowpointError as `imported.read_results` does.

    Nothing is written before a command asks for `writable`: to `to`, or to a folder of the
    table's name in growpoint-results/, never beside the table.
    """
    found = read(path, columns or {})
    asked = [f"{name}={where}" for name, where in (columns or {}).items()]
    words = ["--results", str(path), *(word for each in asked for word in ("--column", each))]
    return Outcomes(
        name=found.table.name,
        title=found.table.title,
        frame=found.frame,
        planned=len(found.frame),
        folder=to or Path(FOLDER) / found.table.name,
        words=shlex.join(words),
        table=found,
    )
