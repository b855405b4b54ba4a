"""AdamW's moments carried from one phase into the next, grown by the maps that grew the weights."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from orchestrator import checkpoint, sharding
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Family, Place
from sweeps.growth import Depth, Width, first_occurrences
from sweeps.model import Model

FILE = "optimizer.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


class Copy(NamedTuple):
    """What a grown layer, expert or router row comes from; replaced weights have no past."""

    source: int
    has_past: bool = True


class Origin(NamedTuple):
    """Whose moments a weight begins with: those of the weight `name`, by `rows` along `axis`.

    Without `rows` they are taken as they are. A weight without a past begins with zeros.
    """

    name: str
    axis: int = 0
    rows: tuple[Copy, ...] = ()
    has_past: bool = True


@dataclass(frozen=True)
class Growth:
    """The maps of a chain of growths: grown layers, experts and router rows, each with its past.

    A copy brings its source's moments, with or without noise on the weights; a weight that growth
    has replaced has none: random experts and rows, partly redrawn experts, zeroed projections.
    """

    model: Model
    operators: tuple[Depth | Width, ...] = ()

    @cached_property
    def family(self) -> Family:
        """How the weights are named."""
        return families.load(self.model.family)

    @cached_property
    def layers(self) -> tuple[Copy, ...]:
        """Of each grown layer; what has no past are the projections that growth zeroed."""
        found = _originals(self.model.layers)
        for operator in self.operators:
            if isinstance(operator, Depth):
                source = operator.source_of(len(found))
                found = _copied(found, source, is_replaced=operator.copies == "zeroed")
        return found

    @cached_property
    def experts(self) -> tuple[Copy, ...]:
        """Of each grown expert's weights; a partly redrawn one counts as replaced."""
        return self._widened(lambda width: width.experts == "random" or width.redrawn > 0)

    @cached_property
    def rows(self) -> tuple[Copy, ...]:
        """Of each row of the grown routers."""
        return self._widened(lambda width: width.router == "random")

    def _widened(self, replaces: Callable[[Width], bool]) -> tuple[Copy, ...]:
        found = _originals(self.model.experts)
        for operator in self.operators:
            if isinstance(operator, Width):
                found = _copied(found, operator.source_of(len(found)), replaces(operator))
        return found

    def origin(self, name: str) -> Origin:
        """Where the grown module's weight `name` has its moments from.

        Modules are named as the family's stacked layout is; a family that can be trained but does
        not know a name raises GrowpointError.
        """
        place = families.place(self.family, name)
        if place is None:
            raise GrowpointError(
                f"{self.family.name} does not know a weight whose optimizer state is carried",
                [("weight", name)],
                f"add it to conf/family/{self.family.name}.yaml, or branch.optimizer_state=fresh",
            )
        if place.layer is None:
            return Origin(name)
        layer = self.layers[place.layer]
        zeroed = not layer.has_past and place.template in self.family.zeroed_by_depth
        return self._in_layer(place, layer.source, has_past=not zeroed)

    def _in_layer(self, place: Place, layer: int, has_past: bool) -> Origin:
        copies = self.experts if place.section == "expert" else self.rows
        name = self.family.prefix + place.template
        if place.expert is not None:
            copy = copies[place.expert]
            name = name.format(layer=layer, expert=copy.source)
            return Origin(name, has_past=has_past and copy.has_past)
        name = name.format(layer=layer)
        if "experts" not in place.shape or copies == _originals(self.model.experts):
            return Origin(name, has_past=has_past)
        return Origin(name, place.shape.index("experts"), copies, has_past)


def _originals(count: int) -> tuple[Copy, ...]:
    return tuple(Copy(index) for index in range(count))


def _copied(found: Sequence[Copy], source: Sequence[int], is_replaced: bool) -> tuple[Copy, ...]:
    """`found`, reshaped by a source map; copies lose their past if growth replaces them."""
    originals = first_occurrences(source)
    return tuple(
        found[index] if original or not is_replaced else found[index]._replace(has_past=False)
        for index, original in zip(source, originals, strict=True)
    )


@dataclass(frozen=True)
class Carried:
    """The optimizer state that a phase begins with: whose, how it is grown, how old it is.

    `updates` counts the steps behind it, which AdamW's correction for young moments depends on.
    `again` is what to do if it cannot be read.
    """

    folder: Path
    growth: Growth
    updates: int
    again: str = "make the checkpoint again"

    def fill(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy the grown moments into `state`, zeros by weight and moment, one weight at a time.

        Raises GrowpointError for a file that is missing, damaged, or of other weights.
        """
        origins = {name: self.growth.origin(name) for name in state}
        path = self.folder / FILE
        _require_sealed(path, self.again)
        try:
            with safe_open(path, framework="pt") as file:
                _require_same(path, {origin.name for origin in origins.values()}, file.keys())
                for name, origin in origins.items():
                    if origin.has_past:
                        for moment, target in state[name].items():
                            found = _grown(file.get_tensor(f"{moment}.{origin.name}"), origin)
                            _copy(found, target, path, f"{moment}.{name}")
        except (SafetensorError, OSError) as error:
            raise _unusable(path, str(error), self.again) from error


def _grown(found: Tensor, origin: Origin) -> Tensor:
    """A source weight's moments in the shape of the grown one."""
    if not origin.rows:
        return found
    sources = torch.tensor([copy.source for copy in origin.rows])
    made = found.index_select(origin.axis, sources)
    for row, copy in enumerate(origin.rows):
        if not copy.has_past:
            made.select(origin.axis, row).zero_()
    return made


def _copy(found: Tensor, target: Tensor, path: Path, name: str) -> None:
    if found.shape != target.shape:
        raise unlike(path, name)
    sharding.copy_into(target, found)


def _require_same(path: Path, weights: Iterable[str], there: Iterable[str]) -> None:
    wanted = {f"{moment}.{name}" for name in weights for moment in MOMENTS}
    if wanted != set(there):
        raise unlike(path, min(wanted ^ set(there)))


def _require_sealed(path: Path, again: str) -> None:
    """Refuse a file that is not what was sealed beside its checkpoint."""
    if not path.is_file():
        raise _unusable(path, "there is no such file", again)
    sealed = checkpoint.read_manifest(path.parent).get(FILE)
    if sealed and checkpoint.file_hash(path) != sealed["sha256"]:
        raise _unusable(path, "it is not what was sealed", again)


def _unusable(path: Path, says: str, again: str) -> GrowpointError:
    return GrowpointError(
        "the optimizer state that this phase begins with cannot be read",
        [("file", path), ("says", says)],
        again,
    )


def unlike(path: Path, name: str) -> GrowpointError:
    """The user's error for the optimizer state of another network."""
    return GrowpointError(
        "an optimizer state belongs to other weights",
        [("file", path), ("differs in", name)],
        f"rm -r {path.parent}, and launch again",
    )
