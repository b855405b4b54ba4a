"""Families: how an architecture names and shapes its tensors, read from conf/family/*.yaml."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, field_validator

import conf
from sweeps.errors import GrowpointError, nearest
from sweeps.expressions import Shape, Shapes, evaluate, holds, shape
from sweeps.parts import Attention, Mixer, Periodic, Stacked
from sweeps.schema import Description, asked, canonical, digest

__all__ = [
    "CONFIG_FOLDER_VARIABLE",
    "Attention",
    "Family",
    "Mixer",
    "Periodic",
    "Place",
    "Shape",
    "Shapes",
    "Stacked",
    "evaluate",
    "find",
    "folders",
    "holds",
    "known",
    "load",
    "of_model_type",
    "own_digest",
    "place",
    "section_shapes",
    "sections",
    "shape",
]

# What growth or a recipe may ask of an architecture that this one cannot hold.
Refused = Literal["depth", "width", "zeroed", "interleaved", "documents"]

# libyaml's reader takes a tenth of the time, where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CONFIG_FOLDER_VARIABLE = "GROWPOINT_CONFIG"


class Family(Description):
    """Names of one architecture. Not hashed: a typo put right here must not rename runs.

    What a user's own file says of the network itself is: see `own_digest`.
    docs/families.md explains every key. Tensor names under `layer`, `dense`, `sparse`, `router`,
    `expert` and `stacked` follow `prefix`; conditions name a setting, or say `not SETTING`.
    """

    name: str
    model_type: str
    config: dict[str, tuple[str, ...]]
    settings: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    fixed: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    derived: dict[str, str] = Field(default_factory=dict)
    defaults: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    dense_list: str | None = None
    sparse_list: str | None = None
    sparse_period: Annotated[tuple[str, ...], Field(max_length=2)] = ()
    per_layer: tuple[str, ...] = ()
    implied: dict[str, Periodic] = Field(default_factory=dict)
    mixers: dict[str, Mixer] = Field(default_factory=dict)
    mixer_list: str | None = None
    mixer_period: Periodic | None = None
    mixer_pattern: tuple[str, ...] = ()
    leading: tuple[str, ...] = ()
    last_layer: str | None = None
    predicts: str | None = None
    ahead: tuple[str, ...] = ()
    scaled_by_width: dict[str, str] = Field(default_factory=dict)
    divided_by_width: dict[str, str] = Field(default_factory=dict)
    tensors_divided_by_width: tuple[str, ...] = ()
    zeroed_by_depth: tuple[str, ...] = ()
    refuses: dict[Refused, str] = Field(default_factory=dict)
    alternating: tuple[str, ...] = ()
    prefix: str = "model.layers.{layer}."
    embedding: Shapes
    head: Shapes
    outside: Shapes
    layer: Shapes
    dense: Shapes = Field(default_factory=dict)
    sparse: Shapes = Field(default_factory=dict)
    router: Shapes
    expert: Shapes
    stacked: Stacked = Stacked()
    given: dict[str, str] = Field(default_factory=dict)
    buffers: tuple[str, ...] = ()
    elementwise: tuple[str, ...] = ()
    quantised: tuple[str, ...] = ("_scale_inv", "_scale", "_blocks", "_scales")
    attention: Attention = Attention()
    source: str = ""

    @cached_property
    def templates(self) -> dict[str, tuple[str, Shape]]:
        """(section, shape) by name after the prefix, of both layouts on disk."""
        mixing = {
            name: ("layer", expressions)
            for mixer in self.mixers.values()
            for name, expressions in mixer.tensors.items()
        }
        return mixing | {
            name: (section, expressions)
            for stacked in (True, False)
            for section in ("layer", "dense", "sparse", "router", "expert")
            for name, expressions in section_shapes(self, section, stacked).items()
        }

    @field_validator("config", mode="before")
    @classmethod
    def _one_key_or_several(cls, value: Mapping[str, object]) -> dict[str, object]:
        return {size: (key,) if isinstance(key, str) else key for size, key in value.items()}

    @field_validator("scaled_by_width", "divided_by_width", mode="before")
    @classmethod
    def _always_or_when(cls, value: object) -> object:
        return dict.fromkeys(value, "") if isinstance(value, list | tuple) else value


def folders() -> tuple[Path, ...]:
    """Where families are looked for: the user's own configuration folder first."""
    own = os.environ.get(CONFIG_FOLDER_VARIABLE)
    return ((Path(own) / "family",) if own else ()) + (conf.FOLDER / "family",)


def known() -> list[str]:
    """Names of all families that can be loaded."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.yaml")})


def find(name: str) -> Family | None:
    """The family called `name`, if there is one. Raises GrowpointError if its file is wrong."""
    paths = (folder / f"{name}.yaml" for folder in folders())
    return next((_parse(path) for path in paths if path.is_file()), None)


def load(name: str) -> Family:
    """The family called `name`. Raises GrowpointError if there is none or its file is wrong."""
    found = find(name)
    if found:
        return found
    names = known()
    raise GrowpointError(
        f"there is no family `{name}`",
        [("known", ", ".join(names))],
        f"model.family={nearest(name, names)}",
    )


def own_digest(name: str) -> str:
    """Digest of what a user's own family file says of the network; "" if it is as shipped.

    The class, its settings and the settings that width scales change what a model computes;
    names of tensors do not.
    """
    found, shipped = find(name), conf.FOLDER / "family" / f"{name}.yaml"
    if found is None:
        return ""
    mine = _network(found)
    return "" if shipped.is_file() and _network(_parse(shipped)) == mine else digest(mine)


def _network(family: Family) -> str:
    keys = ("model_type", "settings", "fixed", "scaled_by_width", "divided_by_width")
    return canonical(asked({key: getattr(family, key) for key in keys}))


@lru_cache
def _parse(path: Path) -> Family:
    try:
        return Family.model_validate(yaml.load(path.read_text(), _LOADER))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        first = str(error).splitlines()
        raise GrowpointError(
            "a family file cannot be read",
            [("file", path), ("says", " ".join(first[1:3]).strip() or first[0])],
            "compare it with conf/family/olmoe.yaml",
        ) from error


def of_model_type(model_type: str) -> Family:
    """The family that describes Hugging Face checkpoints of this `model_type`."""
    names = known()
    # The file of the same name first: a mistake in another file must not stand in the way.
    for family in map(load, sorted(names, key=lambda name: name != model_type)):
        if family.model_type == model_type:
            return family
    reason = _refused().get(model_type)
    if reason:
        raise GrowpointError(
            f"checkpoints of model_type `{model_type}` cannot be grown",
            [("because", reason)],
            f"choose a checkpoint of another family: {', '.join(names)}",
        )
    raise GrowpointError(
        f"no family describes checkpoints of model_type `{model_type}`",
        [("known", ", ".join(names))],
        "describe it in a file conf/family/NAME.yaml, like conf/family/olmoe.yaml",
    )


@cache
def _refused() -> dict[str, str]:
    """Why an architecture is no family at all, by its model_type."""
    found: dict[str, str] = yaml.load((conf.FOLDER / "refused.yaml").read_text(), _LOADER)
    return found


def sections(
    family: Family,
    dense: bool,
    settings: Mapping[str, object],
    stacked: bool = False,
    mixer: str = "",
) -> Iterator[tuple[str, str, Shape]]:
    """(section, name after the prefix, shape) of all tensors of one dense or sparse layer."""
    names = ("layer", "dense") if dense else ("layer", "sparse", "router", "expert")
    parts = [(section, section_shapes(family, section, stacked)) for section in names]
    mixing = family.mixers[mixer].tensors if mixer else {}
    for section, shapes in (("layer", mixing), *parts):
        for name, expressions in shapes.items():
            if holds(family.given.get(name, ""), settings):
                yield section, name, expressions


def section_shapes(family: Family, section: str, stacked: bool) -> Shapes:
    """Shapes of a section; what the stacked layout does not rename stays as it is."""
    separate: Shapes = getattr(family, section)
    other: Shapes = getattr(family.stacked, section, {}) if stacked else {}
    return other or separate


class Place(NamedTuple):
    """Where a tensor belongs: `template` is its name in the family's file."""

    section: str
    template: str
    shape: Shape
    layer: int | None = None
    expert: int | None = None


def place(family: Family, name: str) -> Place | None:
    """The place of a tensor by its name on disk, in either layout; None if the family has none."""
    for section in ("embedding", "head", "outside"):
        shapes: Shapes = getattr(family, section)
        if name in shapes:
            return Place(section, name, shapes[name])
    before, after = family.prefix.split("{layer}")
    found = re.match(rf"^{re.escape(before)}(\d+){re.escape(after)}(.+)$", name)
    if not found:
        return None
    layer, rest = int(found[1]), found[2]
    if rest in family.templates:
        return Place(family.templates[rest][0], rest, family.templates[rest][1], layer)
    number = re.search(r"(?<=\.)\d+(?=\.)", rest)
    template = rest[: number.start()] + "{expert}" + rest[number.end() :] if number else rest
    if not number or template not in family.templates:
        return None
    section, expressions = family.templates[template]
    return Place(section, template, expressions, layer, int(number[0]))
