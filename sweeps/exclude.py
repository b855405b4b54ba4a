"""Exclude: which cells of a sweep are left out, by names that must be there."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from sweeps.errors import GrowpointError, nearest
from sweeps.schema import Description

if TYPE_CHECKING:
    from sweeps.sweep import Sweep

Arm = Literal["grow", "continue", "scratch"]
# Cells without a growth, and those without a growth point.
NO_GROWTH, NO_POINT = "-", -1


class Exclude(Description):
    """Cells that are left out: those that match every field given here."""

    arm: tuple[Arm, ...] = ()
    growth: tuple[str, ...] = ()
    point: tuple[int, ...] = ()
    budget: tuple[int, ...] = ()
    seed: tuple[int, ...] = ()

    def matches(self, **cell: object) -> bool:
        """Whether a cell with these values is left out."""
        asked = {name: values for name, values in self if values}
        return bool(asked) and all(cell.get(name) in values for name, values in asked.items())


def require_known(sweeps: Sequence["Sweep"], fields: Iterable[str]) -> None:
    """Refuse names in `exclude` that no variant of a sweep has: a typo would run all cells.

    `fields` are those of Exclude that are looked at. Raises GrowpointError naming the known ones.
    """
    known = _known(sweeps)
    entries = {(index, entry) for sweep in sweeps for index, entry in enumerate(sweep.exclude)}
    for index, entry in sorted(entries, key=lambda pair: pair[0]):
        for field in fields:
            for value in getattr(entry, field):
                if value not in known[field]:
                    raise _unknown(f"exclude.{index}.{field}", value, known[field])


def in_use(sweeps: Sequence["Sweep"]) -> list[Exclude]:
    """The exclusions of a sweep without those names that match nothing in any variant."""
    known, kept = _known(sweeps), []
    for entry in sweeps[0].exclude:
        left = {
            field: tuple(value for value in getattr(entry, field) if value in names)
            for field, names in known.items()
        }
        # A field that had names and has none left makes its entry match nothing at all.
        if all(bool(left[field]) == bool(getattr(entry, field)) for field in known):
            kept.append(entry.model_copy(update=left))
    return kept


def _known(sweeps: Sequence["Sweep"]) -> dict[str, list[object]]:
    """Every name that an entry's fields may hold, over all variants."""
    return {
        "growth": [*dict.fromkeys(name for sweep in sweeps for name in sweep.growths), NO_GROWTH],
        "point": [*range(max(len(sweep.points.at) for sweep in sweeps)), NO_POINT],
        "budget": [*range(max(len(sweep.budgets.at) for sweep in sweeps))],
        "seed": [*dict.fromkeys(seed for sweep in sweeps for seed in sweep.seeds)],
    }


def _unknown(key: str, value: object, known: Sequence[object]) -> GrowpointError:
    names = [str(name) for name in known]
    return GrowpointError(
        f"{key} names {value!r}, which the sweep does not have",
        [("known", ", ".join(names))],
        f"{key}=['{nearest(value, names)}']"
        if isinstance(value, str)
        else f"{key}=[{nearest(str(value), names)}]",
    )
