"""Lineages: the growths behind a checkpoint, and the maps that say what comes from where."""

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.store import read_json
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Operator, Width, expert_map, layer_map

FILE = "growth.json"
_OPERATORS: TypeAdapter[tuple[Depth | Width, ...]] = TypeAdapter(tuple[Operator, ...])


@dataclass(frozen=True)
class Step:
    """One growth: of which checkpoint, by which operators, with which seed."""

    operators: tuple[Depth | Width, ...]
    seed: int
    source: str = ""
    source_sha256: str = ""

    @property
    def what(self) -> tuple[object, ...]:
        """What two lineages that passed through this growth agree in, however each recorded it."""
        return self.operators, self.seed


def read(folder: Path) -> list[dict[str, Any]]:
    """The growths in a checkpoint's growth.json, oldest first; none if it was never grown."""
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        value = json.loads(path.read_text())
    except ValueError:
        return []
    return value if isinstance(value, list) else []


def step(item: Mapping[str, Any], where: Path | None = None) -> Step:
    """One entry of growth.json. Raises GrowpointError for one that says no growth."""
    try:
        return Step(
            _OPERATORS.validate_python(item["operators"]),
            int(item["seed"]),
            str(item["source"]),
            str(item["source_sha256"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        says = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        raise GrowpointError(
            "a growth in a checkpoint's lineage cannot be read",
            [("file", where or FILE), ("says", says)],
            "take the growth.json that the checkpoint was grown with, or remove it",
        ) from error


def steps(folder: Path) -> tuple[Step, ...]:
    """All growths behind a checkpoint, oldest first.

    Training leaves no growth.json, so for a stage in a store the stages before it are asked.
    Raises GrowpointError for a growth.json that cannot be read.
    """
    if (folder / FILE).is_file():
        return tuple(step(item, folder / FILE) for item in read(folder))
    return tuple(_asked(folder.parent)) if folder.name == "checkpoint" else ()


def _asked(run: Path) -> Iterator[Step]:
    stage = read_json(run / "stage.json") or {}
    before, do = stage.get("after"), stage.get("do")
    if isinstance(before, str):
        inner = run.with_name(before)
        yield from steps(inner / "checkpoint") if inner != run else ()
    if isinstance(do, dict) and do.get("kind") == "grow":
        yield step({"source": str(before), "source_sha256": "", "seed": 0, **do}, run)


@dataclass(frozen=True)
class Maps:
    """The source layer of each layer and the source expert of each expert."""

    layers: tuple[int, ...]
    experts: tuple[int, ...]


def maps(grown: Sequence[Step], layers: int, experts: int) -> Maps:
    """The maps of a chain of growths that ended with so many layers and experts.

    Raises GrowpointError if no source can have become that by these growths.
    """
    operators = [operator for item in grown for operator in item.operators]
    found = [
        _inverted(layer_map, operators, layers, "layers"),
        _inverted(expert_map, operators, experts, "experts"),
    ]
    return Maps(*found)


Mapper = Callable[[int, Sequence[Depth | Width]], tuple[int, ...]]


def _inverted(
    mapped: Mapper, operators: Sequence[Depth | Width], count: int, word: str
) -> tuple[int, ...]:
    # Grown sizes rise with the source's, so at most one source fits.
    for before in range(1, count + 1):
        try:
            source = mapped(before, operators)
        except GrowpointError:
            continue
        if len(source) == count:
            return source
    raise GrowpointError(
        f"a checkpoint's {word} do not come from the growths in its lineage",
        [(word, count), ("growths", " + ".join(operator.label for operator in operators))],
        "take the growth.json that the checkpoint was grown with, or remove it",
    )


def is_copied(source: Sequence[int]) -> bool:
    """Whether a map is more than each index onto itself."""
    return list(source) != list(range(len(source)))


def drawn(source: Sequence[int], width: int = 76) -> list[str]:
    """A source map as it is read: `0 0 1 1 2 2 3 3`, in lines of at most `width` characters."""
    return textwrap.wrap(" ".join(map(str, source)), width)
