"""Tables made elsewhere, read as words: no cell is guessed at before somebody asks for it."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sweeps.errors import GrowpointError, nearest

BUNDLED = Path(__file__).parent / "results"
_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")


@dataclass(frozen=True)
class TableFile:
    """A file of results: a header, rows of words, and where each row stands."""

    name: str
    path: Path
    title: str  # the first line that begins with #, if one does
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]  # of a text file; counted from 1 in parquet

    @property
    def place(self) -> str:
        """What a number in `lines` counts."""
        return "row" if self.path.suffix == ".parquet" else "line"

    def column(self, name: str) -> list[str]:
        """The words below a header."""
        at = self.header.index(name)
        return [row[at] for row in self.rows]


def bundled() -> dict[str, Path]:
    """The tables that come with growpoint, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.csv"))}


def find(table: str | Path) -> Path:
    """The file of a table that is given as a path or by the name of a bundled one.

    Raises GrowpointError if there is neither.
    """
    path, known = Path(table), bundled()
    if path.is_file():
        return path
    if str(table) in known:
        return known[str(table)]
    problem = f"there is no table `{table}`"
    if path.is_dir():
        problem = f"{path} is a folder, not a table"
    raise GrowpointError(
        problem,
        [("looked in", Path.cwd()), ("bundled", ", ".join(known))],
        f"--results {nearest(str(table), list(known))}, or the path of a .csv or .parquet file",
    )


def read(table: str | Path) -> TableFile:
    """Read a CSV (comma, semicolon or tab; UTF-8) or parquet file, or a bundled table by name.

    Raises GrowpointError, naming file and line, for what cannot be read, has no rows or two
    columns of one name.
    """
    path = find(table)
    found = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    twice = sorted({name for name in found.header if found.header.count(name) > 1})
    if twice:
        raise GrowpointError(
            f"two columns are called `{twice[0]}`",
            [("file", path), ("header", ", ".join(found.header))],
            "rename one of them",
        )
    if not found.rows:
        raise GrowpointError(
            "the table has no rows",
            [("file", path), ("header", ", ".join(found.header) or "none")],
            "give a file with one row for each run below its header",
        )
    return found


def _unreadable(path: Path, reason: object) -> GrowpointError:
    return GrowpointError(
        "the table cannot be read",
        [("file", path), ("reason", reason), ("reads", ", ".join(_SUFFIXES))],
        "save it as CSV with one header line, in UTF-8",
    )


def _csv(path: Path) -> TableFile:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    said = 0
    while said < len(lines) and (lines[said].startswith("#") or not lines[said].strip()):
        said += 1
    title = next((line.lstrip("# ") for line in lines[:said] if line.strip("# ")), "")
    if said == len(lines):
        raise _unreadable(path, "it has no header")
    delimiter = max(",;\t", key=lines[said].count)
    reader = csv.reader(lines[said:], delimiter=delimiter, strict=True)
    try:
        numbered = [(said + reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise _unreadable(path, f"line {said + reader.line_num}: {error}") from error
    (_, header), *rows = numbered
    for line, row in rows:
        if len(row) != len(header):
            raise _unreadable(
                path, f"line {line} has {len(row)} fields, the header has {len(header)}"
            )
    return TableFile(
        path.stem,
        path,
        title,
        tuple(name.strip() for name in header),
        tuple(tuple(word.strip() for word in row) for _, row in rows),
        tuple(line for line, _ in rows),
    )


def _parquet(path: Path) -> TableFile:
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many kinds, some of them its own
        raise _unreadable(path, error) from error
    return TableFile(
        path.stem,
        path,
        "",
        tuple(str(name).strip() for name in frame.columns),
        tuple(tuple(_words(row)) for row in frame.itertuples(index=False, name=None)),
        tuple(range(1, len(frame) + 1)),
    )


def _words(row: tuple[object, ...]) -> Iterator[str]:
    for value in row:
        missing = (
            value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
        )
        yield "" if missing else str(value).strip()
