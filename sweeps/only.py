"""Only: the exclusions that leave a sweep with just the cells that are wanted."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, NamedTuple

from sweeps.exclude import Arm, Exclude


class Coordinates(NamedTuple):
    """Which cell of a sweep: point and budget count its axes' entries; -1 is no growth point."""

    arm: Arm
    growth: str
    point: int
    budget: int
    seed: int


_Cells = Sequence[tuple[Mapping[str, Any], bool]]


def only(wanted: Mapping[Coordinates, bool]) -> tuple[Exclude, ...]:
    """As few exclusions as found that match every unwanted cell, and no wanted one.

    `wanted` says of every cell of the sweep, exclusions aside, whether it stays. Cells are split
    by one field after the other; every order of the fields is tried.
    """
    cells = [(cell._asdict(), kept) for cell, kept in wanted.items()]
    every = (_split(cells, order, {}) for order in permutations(Coordinates._fields))
    return min(every, key=len)


def _split(cells: _Cells, fields: Sequence[str], matched: Mapping[str, Any]) -> tuple[Exclude, ...]:
    """Exclusions of the cells that `matched` matches."""
    if all(kept for _, kept in cells):
        return ()
    if not any(kept for _, kept in cells):
        return (Exclude(**matched),)
    field, rest = fields[0], fields[1:]
    found: tuple[Exclude, ...] = ()
    values = list(dict.fromkeys(cell[field] for cell, _ in cells))
    for alike in _alike(cells, field, values):
        part = [(cell, kept) for cell, kept in cells if cell[field] == alike[0]]
        # A field in which all values are alike needs no naming.
        named = {} if len(alike) == len(values) else {field: tuple(alike)}
        found += _split(part, rest, {**matched, **named})
    return found


def _alike(cells: _Cells, field: str, values: Sequence[Any]) -> list[list[Any]]:
    """Values under which the same cells stay; those under which none does are alike too."""
    groups: dict[object, list[Any]] = {}
    for value in values:
        part = [(cell, kept) for cell, kept in cells if cell[field] == value]
        key: object = None
        if any(kept for _, kept in part):
            key = frozenset(
                (*(v for k, v in cell.items() if k != field), kept) for cell, kept in part
            )
        groups.setdefault(key, []).append(value)
    return list(groups.values())
