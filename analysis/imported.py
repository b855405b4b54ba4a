"""Results made elsewhere, as records: every command that learns from a sweep works on them."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import columns as schema
from analysis import tablefile, units
from analysis.columns import FIELDS, Words, listed, missing
from analysis.evidence import levels
from analysis.records import COLUMNS, ORDER
from analysis.tablefile import TableFile
from sweeps.errors import GrowpointError

ARMS = ("grow", "continue", "scratch")
# What makes a run the run it is; its results are everything else.
_IDENTITY = ["variant", "arm", "growth", "source", "seed", "sunk_flops", "extra_flops"]


@dataclass(frozen=True)
class Imported:
    """A table as records, and what a reader of the results has to know about it."""

    table: TableFile
    frame: pd.DataFrame  # the columns of `records.COLUMNS`, NaN where nothing is known
    dropped: tuple[tuple[int, str], ...]  # line and reason
    notes: tuple[str, ...]

    def warnings(self) -> list[str]:
        """What was done to the table, a line for each thing."""
        found = [f"{self.table.name}: {'; '.join(self.notes)}"] if self.notes else []
        if self.dropped:
            rows = len(self.table.rows)
            found.append(f"{self.table.name}: {len(self.dropped)} of {rows} rows are left out")
            found += [f"  {self.table.place} {line}: {reason}" for line, reason in self.dropped]
        return found


def read_results(path: str | Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read results made elsewhere: a CSV or parquet file, or a bundled table by its name.

    One row for each run, with the columns of records: FLOPs, accuracies as fractions, losses in
    nats per token, NaN for what the table does not say. `columns` maps fields of the schema to
    columns of the file, such as {"accuracy": "avg_acc", "sunk_flops": "step*1.67e16"}. Warns
    about rows that are left out; raises GrowpointError for a table that makes no sense.
    """
    found = read(path, columns or {})
    if said := found.warnings():
        warnings.warn("\n".join(said), stacklevel=2)
    return found.frame


def read(path: str | Path, columns: Mapping[str, str]) -> Imported:
    """As `read_results`, with what was left out and why."""
    table = tablefile.read(path)
    words = schema.mapped(table, columns)
    _present(words)
    made = _Rows(words, _values(words))
    made.drop_unknown()
    made.arms()
    units.sizes(table, made.rows)
    made.notes += units.flops(table, made.rows)
    made.notes += units.metrics(table, made.rows)
    _possible(table, made.rows)
    made.names()
    made.drop_repeated()
    return Imported(table, _frame(made.rows, table.name), tuple(sorted(made.dropped)), made.said())


def _present(words: Words) -> None:
    if "sunk_flops" not in words and "sunk_tokens" not in words:
        raise missing(words, ("sunk_flops", "sunk_tokens"), "what was spent before growing")
    if not any(name in words for name in ("extra_flops", "extra_tokens", "total_flops")):
        wanted = ("extra_flops", "extra_tokens", "total_flops")
        raise missing(words, wanted, "what was spent after growing")
    if "accuracy" not in words and "loss" not in words:
        raise missing(words, ("accuracy", "loss"), "what came out")


def _values(words: Words) -> pd.DataFrame:
    """Every field of the schema as a column, indexed by the line of the file."""
    read: dict[str, Callable[[str], object]] = {
        "number": words.numbers,
        "whole": words.numbers,
        "flag": words.flags,
        "text": words.texts,
    }
    values = {name: read[each.kind](name) for name, each in FIELDS.items()}
    return pd.DataFrame(values, index=pd.Index(words.table.lines))


@dataclass
class _Rows:
    """A table on its way to records."""

    words: Words
    rows: pd.DataFrame
    dropped: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def table(self) -> TableFile:
        return self.words.table

    def _drop(self, lines: pd.Series, reason: str) -> None:
        self.dropped += [(int(line), reason) for line in lines.index[lines]]
        self.rows = self.rows[~lines].copy()
        if self.rows.empty:
            raise GrowpointError(
                "no row of the table can be used",
                [("file", self.table.path), *listed(self.table, sorted(self.dropped))],
                "growpoint needs sunk and extra compute and an accuracy or a loss in each row",
            )

    def drop_unknown(self) -> None:
        """Leave out rows that lack a number which every row needs."""
        scratch = self.rows["arm"].str.lower() == "scratch"
        for name in ("sunk_flops", "sunk_tokens"):
            if name in self.words:
                self.rows.loc[scratch & self.rows[name].isna(), name] = 0.0
        extra = ("extra_flops", "extra_tokens", "total_flops")
        needs = {
            "sunk compute": ("sunk_flops", "sunk_tokens"),
            "extra compute": extra,
            "accuracy and no loss" if "loss" in self.words else "accuracy": ("accuracy", "loss"),
        }
        if "accuracy" not in self.words:
            needs["loss"] = needs.pop("accuracy and no loss")
        for says, names in needs.items():
            self._drop(self.rows[list(names)].isna().all(axis=1), f"no {says}")
        if "seed" in self.words:
            self._drop(self.rows["seed"].isna(), "no seed")

    def arms(self) -> None:
        """Arms and growths as records write them."""
        arm = self.rows["arm"].str.lower().replace("", "grow")
        bad = ~arm.isin(ARMS)
        if bad.any():
            lines = [(int(at), self.rows.loc[at, "arm"]) for at in arm.index[bad]]
            raise GrowpointError(
                "a row has an arm that growpoint does not know",
                [("file", self.table.path), *listed(self.table, lines)],
                f"write {', '.join(ARMS[:2])} or {ARMS[2]}; without the column all rows are grow",
            )
        kept = (arm == "continue") & ~self.rows["growth"].isin(["", "-"])
        if kept.any():
            lines = [(int(at), self.rows.loc[at, "growth"]) for at in arm.index[kept]]
            raise GrowpointError(
                "a row of arm `continue` says that it was grown",
                [("file", self.table.path), *listed(self.table, lines)],
                "leave the field growth empty there, or call the arm grow",
            )
        growth = self.rows["growth"].replace({"": "grown", "-": "grown"})
        self.rows["arm"], self.rows["growth"] = arm, growth.mask(arm == "continue", "-")

    def names(self) -> None:
        """Seeds, sources and lineages where the table has none.

        A source checkpoint is known by the compute in it: rows that grew from one share its luck,
        so it is the default cluster of the bootstrap.
        """
        rows = self.rows
        rows["seed"] = rows["seed"].fillna(0).astype("int64")
        sunk = "sunk " + rows["sunk_flops"].map("{:.6g}".format)
        sunk = sunk.mask(rows["arm"] == "scratch", "scratch " + rows["growth"])
        sunk = sunk.mask(rows["lineage"] != "", rows["lineage"] + ", " + sunk)
        rows["source"] = rows["source"].mask(rows["source"] == "", sunk)
        own = rows["source"] + "/" + rows["seed"].astype(str)
        rows["lineage"] = rows["lineage"].mask(rows["lineage"] == "", own)
        line = [f"{self.table.place} {at}" for at in rows.index]
        rows["cell"] = rows["cell"].mask(rows["cell"] == "", pd.Series(line, rows.index))

    def drop_repeated(self) -> None:
        """Leave out rows said twice; one run with two results is an error."""
        first = self.rows.drop_duplicates(_IDENTITY)
        again = self.rows.drop(index=first.index)
        seen = first.assign(line=first.index).set_index(_IDENTITY)
        results = ["accuracy", "loss"]
        same: dict[int, int] = {}
        for line, row in zip(again.index, again.to_dict("records"), strict=True):
            before = seen.loc[tuple(row[name] for name in _IDENTITY)]
            if not all(_equal(before[name], row[name]) for name in results):
                raise self._contradiction(int(before["line"]), int(line))
            same[int(line)] = int(before["line"])
        for line, before in same.items():
            self.dropped.append((line, f"repeats {self.table.place} {before}"))
        self.rows = first.copy()

    def _contradiction(self, *lines: int) -> GrowpointError:
        results = self.rows.loc[list(lines), ["accuracy", "loss"]]
        shown = [
            (at, ", ".join(f"{name} {value:g}" for name, value in row.dropna().items()))
            for at, (_, row) in zip(lines, results.iterrows(), strict=True)
        ]
        return GrowpointError(
            "two rows are the same run with different results",
            [("file", self.table.path), *listed(self.table, shown)],
            "tell them apart by a column seed (or source, growth, variant), or keep one of them",
        )

    def said(self) -> tuple[str, ...]:
        """Notes for people."""
        # What a sweep's own export has beside the schema follows from the rest.
        unused = [name for name in self.words.unused if name != "sweep"]
        said = [f"columns that are not used: {', '.join(unused)}"] if unused else []
        return (*self.notes, *said)


def _equal(left: object, right: object) -> bool:
    return left == right or (left != left and right != right)


def _possible(table: TableFile, rows: pd.DataFrame) -> None:
    """Refuse budgets that no run can have had."""
    wrong = {
        "a budget is negative": (rows["sunk_flops"] < 0) | (rows["extra_flops"] < 0),
        "a run has neither sunk nor extra compute": rows["sunk_flops"] + rows["extra_flops"] == 0,
        "a run from scratch has sunk compute": (rows["arm"] == "scratch")
        & (rows["sunk_flops"] > 0),
    }
    for problem, lines in wrong.items():
        if lines.any():
            shown = [
                (int(at), f"sunk {row.sunk_flops:g}, extra {row.extra_flops:g} FLOPs")
                for at, row in zip(rows.index[lines], rows[lines].itertuples(), strict=True)
            ]
            raise GrowpointError(
                problem,
                [("file", table.path), *listed(table, shown)],
                "correct these rows, or take them out",
            )


def _frame(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows as records: the same columns, types and order."""
    named = rows.rename(columns={each.name: each.column for each in FIELDS.values() if each.column})
    budget = named["budget"].where(named["budget"].isin(["extra", "total"]), _fixed(named))
    total = named["sunk_flops"] + named["extra_flops"]
    made = named.assign(sweep=name, total_flops=total, budget=budget)[list(COLUMNS)]
    # What is not known has no place in an integer: such a column is one of floats.
    known = {
        column: kind if kind != "int64" or made[column].notna().all() else "float64"
        for column, kind in COLUMNS.items()
    }
    return made.astype(known).sort_values(ORDER, kind="stable", ignore_index=True)


def _fixed(rows: pd.DataFrame) -> str:
    """Which budget has the fewer levels: the one that was held fixed."""
    grown = rows[rows["arm"] == "grow"]
    if grown.empty:
        return "extra"
    total = grown["sunk_flops"] + grown["extra_flops"]
    counts = [len(np.unique(levels(each))) for each in (grown["extra_flops"], total)]
    return "extra" if counts[0] <= counts[1] else "total"
