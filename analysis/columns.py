"""The schema of tables made elsewhere, and how their columns are found and turned into values."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from analysis.tablefile import TableFile
from sweeps.errors import GrowpointError, nearest

_NOTHING = {"", "-", "na", "n/a", "nan", "null", "none", "<na>"}
_YES, _NO = {"true", "yes", "y", "1", "1.0"}, {"false", "no", "n", "0", "0.0"}
Kind = Literal["number", "whole", "flag", "text"]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Field:
    """One column of the schema. Records have the same columns, some by another name."""

    name: str
    kind: Kind
    says: str
    column: str = ""  # of the records, where it is another

    @property
    def known_as(self) -> tuple[str, ...]:
        """Headers that need no mapping, spelling of case and spaces aside."""
        return (self.name, self.column) if self.column else (self.name,)


FIELDS = {
    field.name: field
    for field in (
        Field("sunk_flops", "number", "FLOPs spent on the source checkpoint before growing"),
        Field("sunk_tokens", "number", "tokens it was trained on; in place of FLOPs, with sizes"),
        Field("extra_flops", "number", "FLOPs spent after it"),
        Field("extra_tokens", "number", "tokens after it; in place of FLOPs, with sizes"),
        Field("total_flops", "number", "both together; in place of extra_flops"),
        Field("accuracy", "number", "final accuracy, in percent or as a fraction"),
        Field("accuracy_se", "number", "its standard error, in the same unit"),
        Field("loss", "number", "final validation loss, nats per token", "val_loss"),
        Field("loss_se", "number", "its standard error", "val_loss_se"),
        Field("choice_accuracy", "number", "accuracy on choice items"),
        Field("choice_accuracy_se", "number", "its standard error"),
        Field("source_active", "number", "active parameters before growth", "source_active_params"),
        Field("active", "number", "active parameters after it", "active_params"),
        Field("total_params", "number", "all parameters after it"),
        Field("arm", "text", "grow, continue or scratch"),
        Field("growth", "text", "how it was grown, such as depth x2"),
        Field("variant", "text", "whatever else varies: each variant is fitted alone"),
        Field("source", "text", "name of the source checkpoint"),
        Field("lineage", "text", "rows that share their luck: the clusters of the bootstrap"),
        Field("series", "text", "the checkpoint series that the source belongs to"),
        Field("checkpoint", "text", "the source's name in its series"),
        Field("seed", "whole", "seed of the run"),
        Field("annealed", "flag", "whether the source's learning rate had been cooled down"),
        Field("budget", "text", "extra or total: which of the two was held fixed"),
        Field("family", "text", "architecture"),
        Field("cell", "text", "a label of the row"),
        Field("stage", "text", "an identity of the run"),
        Field("commit", "text", "of the code that made it"),
    )
}


@dataclass(frozen=True)
class _Origin:
    """Where a field's values come from: a column, times a factor, or one number for all rows."""

    header: str | None
    factor: float = 1.0


@dataclass(frozen=True)
class Words:
    """A table's columns under the names of the schema, still as words."""

    table: TableFile
    origins: Mapping[str, _Origin]

    @property
    def unused(self) -> tuple[str, ...]:
        """Headers that no field was read from."""
        used = {origin.header for origin in self.origins.values()}
        return tuple(name for name in self.table.header if name not in used)

    def __contains__(self, name: str) -> bool:
        return name in self.origins

    def texts(self, name: str) -> list[str]:
        """The words of a text field; "" everywhere without the column."""
        origin = self.origins.get(name)
        return (
            self.table.column(origin.header)
            if origin and origin.header
            else [""] * len(self.table.rows)
        )

    def numbers(self, name: str) -> list[float]:
        """The values of a number field; NaN for what is missing. Raises for what is no number."""
        origin = self.origins.get(name)
        if origin is None:
            return [math.nan] * len(self.table.rows)
        if origin.header is None:
            return [origin.factor] * len(self.table.rows)
        values = self._each(name, _whole if FIELDS[name].kind == "whole" else _number)
        return [value * origin.factor for value in values]

    def flags(self, name: str) -> list[bool]:
        """The values of a flag; missing is no."""
        return self._each(name, _flag) if name in self.origins else [False] * len(self.table.rows)

    def _each(self, name: str, read: Callable[[str], _Value]) -> list[_Value]:
        found: list[_Value] = []
        bad: list[tuple[int, object]] = []
        for line, word in zip(self.table.lines, self.texts(name), strict=True):
            try:
                found.append(read(word))
            except ValueError as error:
                bad.append((line, f"{word!r} is {error}"))
        if bad:
            header = self.origins[name].header
            raise GrowpointError(
                f"`{header}` holds something else than {_WANTED[FIELDS[name].kind]}",
                [("file", self.table.path), *listed(self.table, bad)],
                "correct the file, or leave the field empty where the value is not known",
            )
        return found


_WANTED = {"number": "numbers", "whole": "whole numbers", "flag": "yes and no"}


def listed(table: TableFile, lines: Sequence[tuple[int, object]]) -> list[tuple[str, object]]:
    """Evidence for lines of a table; the first five of many."""
    rows: list[tuple[str, object]] = [
        (f"{table.place} {at}", str(said).replace("e+", "e")) for at, said in lines[:5]
    ]
    return rows + ([("and", f"{len(lines) - 5} more")] if len(lines) > 5 else [])


def _number(word: str) -> float:
    if word.lower() in _NOTHING:
        return math.nan
    try:
        value = float(word)
    except ValueError:
        raise ValueError("no number") from None
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _whole(word: str) -> float:
    value = _number(word)
    if math.isnan(value) or (value.is_integer() and abs(value) <= 2**53):
        return value
    raise ValueError("no whole number")


def _flag(word: str) -> bool:
    if word.lower() in _YES:
        return True
    if word.lower() in _NO | _NOTHING:
        return False
    raise ValueError("neither yes nor no")


def mapped(table: TableFile, columns: Mapping[str, str]) -> Words:
    """Find every field of the schema in a table.

    `columns` says where a field is if not under its own name: `COLUMN`, `COLUMN*FACTOR` or, for a
    number that all rows share, `NUMBER`. Raises GrowpointError for an unknown field or column.
    """
    origins = {name: _asked(table, name, words) for name, words in columns.items()}
    folded = {_folded(header): header for header in reversed(table.header)}
    taken = {origin.header for origin in origins.values()}
    for field in FIELDS.values():
        for name in field.known_as:
            header = folded.get(_folded(name))
            if header is not None and header not in taken:
                origins.setdefault(field.name, _Origin(header))
    return Words(table, origins)


def _folded(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _asked(table: TableFile, name: str, words: str) -> _Origin:
    if name not in FIELDS:
        raise GrowpointError(
            f"results have no field `{name}`",
            [("known", ", ".join(FIELDS))],
            f"--column {nearest(name, list(FIELDS))}={words}",
        )
    found = next(_origins(table, words, FIELDS[name].kind in ("number", "whole")), None)
    if found is None:
        close = nearest(words.partition("*")[0], table.header)
        raise GrowpointError(
            f"the table has no column `{words}`",
            [("file", table.path), ("columns", ", ".join(table.header))],
            f"--column {name}={_quoted(close)}",
        )
    return found


def _origins(table: TableFile, words: str, is_number: bool) -> Iterator[_Origin]:
    """Every reading of COLUMN, COLUMN*FACTOR and NUMBER that the table allows, best first."""
    if words in table.header:
        yield _Origin(words)
    if not is_number:
        return
    header, _, factor = words.rpartition("*")
    for text, name in ((factor, header), (words, "")):
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value) and (not name or name in table.header):
            yield _Origin(name or None, value)


def _quoted(name: str) -> str:
    return name if name.replace("_", "").isalnum() else f"'{name}'"


def missing(words: Words, wanted: Sequence[str], says: str) -> GrowpointError:
    """The error of a table that lacks a column: what it has, and how to map one."""
    table = words.table
    close = nearest(wanted[0], words.unused) or "COLUMN"
    return GrowpointError(
        f"the table does not say {says}",
        [
            ("file", table.path),
            ("needs", " or ".join(wanted)),
            ("columns", ", ".join(table.header)),
        ],
        f"name the column that holds it: --column {wanted[0]}={_quoted(close)}",
    )
