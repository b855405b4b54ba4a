"""Tables that a page can sort: what a cell shows, and the number it stands for."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.tables import Table

# What the tables print where there is nothing: it sorts to the end either way round.
MISSING = frozenset({"", "-", "unknown"})
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)([kMBT])?(?![\w.])")
_SIZES = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Shown:
    """One cell."""

    text: str
    number: float | None = None
    link: str = ""

    @property
    def key(self) -> str:
        """What a column of numbers is sorted by; "" for what is missing."""
        return "" if self.number is None or math.isnan(self.number) else repr(self.number)


@dataclass(frozen=True)
class Grid:
    """A table; a column is of numbers if all that is in it begins with one."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Shown, ...], ...]

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns sort as numbers."""
        columns = zip(*self.rows, strict=True) if self.rows else ([] for _ in self.header)
        return tuple(_all_numbers(column) for column in columns)


def _all_numbers(column: Sequence[Shown]) -> bool:
    known = [cell for cell in column if cell.text not in MISSING]
    return bool(known) and all(cell.number is not None for cell in known)


def number(text: str) -> float | None:
    """The number that a printed cell begins with: `2.41 ± 0.01`, `46.7M`, `30-52 %`."""
    found = _NUMBER.match(text)
    return float(found[1]) * _SIZES[found[2] or ""] if found else None


def grid(
    caption: str, table: Table, exact: Mapping[int, Sequence[float]] | None = None
) -> Grid:
    """A table as printed; `exact` has the values of columns whose text is rounded.

    The first column is a name, whatever it looks like.
    """
    header, rows = table
    shown = []
    for at, row in enumerate(rows):
        values = {column: float(each[at]) for column, each in (exact or {}).items()}
        shown.append(
            tuple(
                Shown(text, values.get(column, number(text) if column else None))
                for column, text in enumerate(row)
            )
        )
    return Grid(caption, tuple(header), tuple(shown))


def without_empty(found: Grid) -> Grid:
    """The same without columns in which nothing is known."""
    known = [
        any(row[at].text not in MISSING or row[at].key for row in found.rows)
        for at in range(len(found.header))
    ]

    def kept(row: Sequence[Shown]) -> tuple[Shown, ...]:
        return tuple(cell for cell, keep in zip(row, known, strict=True) if keep)

    header = tuple(name for name, keep in zip(found.header, known, strict=True) if keep)
    return Grid(found.caption, header, tuple(kept(row) for row in found.rows))
