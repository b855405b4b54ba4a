"""The names people have for source checkpoints."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from orchestrator import text
from sweeps.errors import GrowpointError

_SAME = 1e-3  # relative; the same checkpoint's FLOPs, counted twice, differ by rounding alone


@dataclass(frozen=True)
class Checkpoint:
    """A source that could be grown: its name, FLOPs in it, and tokens (NaN where unknown)."""

    name: str
    sunk_flops: float
    tokens: float = math.nan
    annealed: bool = False

    def words(self) -> str:
        """`step_20000 (84B tokens)`."""
        seen = self.tokens > 0
        return f"{self.name} ({text.tokens(self.tokens)} tokens)" if seen else self.name


def named(frame: pd.DataFrame) -> tuple[Checkpoint, ...]:
    """The grown sources of a frame of records that have a name of their own, by their compute.

    That is their name in a series, or in a table made elsewhere; the ids of stages are none.
    """
    grown = frame[frame["arm"] == "grow"]
    names = grown["checkpoint"].mask(grown["checkpoint"] == "", _from_table(grown))
    found = {
        name: Checkpoint(
            str(name),
            float(rows["sunk_flops"].median()),
            float(rows["sunk_tokens"].median()),
            bool(rows["annealed"].any()),
        )
        for name, rows in grown.groupby(names)
        if name
    }
    return tuple(sorted(found.values(), key=lambda each: (each.sunk_flops, each.name)))


def _from_table(rows: pd.DataFrame) -> pd.Series:
    """Sources of rows without stages: as a table calls them, unless that is their compute only."""
    known = (rows["stage"] == "") & ~rows["source"].str.contains(r"(?:^|, )sunk [\d.]+e?[+\d]*$")
    return rows["source"].where(known, "")


def at(checkpoints: Sequence[Checkpoint], sunk_flops: float) -> Checkpoint | None:
    """The checkpoint with so much compute in it; None if there is none."""
    near = [each for each in checkpoints if abs(each.sunk_flops - sunk_flops) <= _SAME * sunk_flops]
    return min(near, key=lambda each: abs(each.sunk_flops - sunk_flops)) if near else None


def of_series(frame: pd.DataFrame, name: str, words: str) -> pd.DataFrame:
    """The rows of one series, and those from scratch; `words` lead a command to all of them.

    Raises GrowpointError if nothing was grown from it.
    """
    kept = frame[(frame["series"] == name) | (frame["arm"] == "scratch")]
    if not (kept["arm"] == "grow").any():
        known = sorted(set(frame["series"]) - {""})
        raise GrowpointError(
            f"nothing here was grown from the series `{name}`",
            [("series", ", ".join(known) or "none")],
            f"growpoint recommend {words}" + (f" --series {known[0]}" if known else ""),
        )
    return kept.reset_index(drop=True)
