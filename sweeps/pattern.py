"""Names of checkpoints: `step{step}-tokens{tokens}B` as a pattern, and the numbers in a name."""

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from sweeps.errors import GrowpointError

UNITS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
KNOWN = ("step", "tokens")
_HOLE = re.compile(r"\{(.*?)\}")


class Number(NamedTuple):
    """A number in a name: its value, and what one unit of its last digit's unit is worth."""

    value: float
    unit: float


def has_holes(pattern: str) -> bool:
    """Whether names vary: `{step}`, `{tokens}` or `*`."""
    return bool(_HOLE.search(pattern)) or "*" in pattern


def read(pattern: str, name: str) -> Mapping[str, Number]:
    """The numbers that the end of `pattern` finds in `name`; {} if it does not match.

    `name` may lack folders that the pattern begins with. Raises GrowpointError for a hole that is
    not known.
    """
    parts = pattern.split("/")
    for first in range(len(parts)):
        found = match("/".join(parts[first:]), name)
        if found is not None:
            return found
    return {}


def match(pattern: str, name: str) -> Mapping[str, Number] | None:
    """The numbers of `name`, which must be the whole pattern; None if it is not."""
    found = _compiled(pattern).fullmatch(name)
    if not found:
        return None
    units = _units_after(pattern)
    numbers: dict[str, Number] = {}
    for hole in {hole for hole in KNOWN if f"{{{hole}}}" in pattern}:
        suffix = units[hole] or found[f"{hole}_unit"] or ""
        unit = UNITS[suffix]
        numbers[hole] = Number(round(float(found[hole]) * unit), unit)
    return numbers


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    units, seen, text, at = _units_after(pattern), set[str](), "", 0
    for hole in _HOLE.finditer(pattern):
        text += _literal(pattern[at : hole.start()])
        at, name = hole.end(), hole[1]
        if name not in KNOWN:
            raise GrowpointError(
                f"a pattern of checkpoints cannot have {hole[0]}",
                [("pattern", pattern), ("known", ", ".join(f"{{{each}}}" for each in KNOWN))],
                pattern.replace(hole[0], "*"),
            )
        suffix = "" if units[name] else "[kKMBT]?"
        again = rf"(?P={name})(?P={name}_unit)"
        once = rf"(?P<{name}>[0-9]+(?:\.[0-9]+)?)(?P<{name}_unit>{suffix})"
        text += again if name in seen else once
        seen.add(name)
    return re.compile(text + _literal(pattern[at:]))


def _literal(text: str) -> str:
    return re.escape(text).replace(r"\*", "[^/]*")


def _units_after(pattern: str) -> dict[str, str]:
    """The unit that stands behind each hole in the pattern itself, as B in `{tokens}B`."""
    found = {}
    for hole in KNOWN:
        after = re.search(rf"\{{{hole}\}}([kKMBT])(?![A-Za-z])", pattern)
        found[hole] = after[1] if after else ""
    return found
