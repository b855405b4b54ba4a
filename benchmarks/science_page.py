"""Tables of `benchmarks/science.py` as Markdown, and where they stand on a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.store import write_atomic

KEYS = ("finding", "sunk / 6N·20N", "extra FLOPs", "seeds", "cells")
BEGIN, END = "<!-- numbers: benchmarks/science.py -->", "<!-- end of numbers -->"


def markdown(table: pd.DataFrame) -> list[str]:
    """Lines of a table, what both metrics say beside each other."""
    if "metric" in table:
        table = beside(table)
    rows = [list(map(str, table.columns)), ["---"] * table.shape[1], *table.astype(str).to_numpy()]
    return [f"| {' | '.join(row)} |" for row in rows]


def beside(table: pd.DataFrame) -> pd.DataFrame:
    """One row for all metrics; a metric that a row does not have is `-`."""
    keys = [each for each in table if each in KEYS]
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in table.to_dict("records"):
        own = {key: row.pop(key) for key in keys}
        metric = row.pop("metric")
        mine = rows.setdefault(tuple(map(str, own.values())), own)
        mine |= {f"{metric}: {column}": value for column, value in row.items()}
    return pd.DataFrame(list(rows.values())).fillna("-")


def insert(path: Path, lines: Sequence[str]) -> None:
    """Put `lines` between the marks of a page. Raises SystemExit for a page without them."""
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{path} needs one line `{BEGIN}` and one `{END}` after it")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    write_atomic(path, "\n".join([before + BEGIN, "", *lines, "", END + after]).encode())
