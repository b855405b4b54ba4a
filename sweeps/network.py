"""Network: the sizes that describe one, checked against each other; each said in one way only."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PositiveInt, model_validator

from sweeps import family as families
from sweeps import layers as layering
from sweeps.expressions import quotient
from sweeps.family import Family
from sweeps.schema import Description

Setting = bool | int | float | str | None
Count = Annotated[int, Field(ge=0)]


class Model(Description):
    """Sizes of one Mixture-of-Experts network; `settings` are further keys of its config.json.

    `dense_layers` counts leading layers without experts, or lists the layers that have none;
    `mixers` names how each layer mixes tokens, in families whose layers differ in that (the
    family's own pattern if left out). `family_digest` is filled in by a sweep: it names what a
    user's own family file changes.
    """

    family: str
    layers: PositiveInt
    hidden: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    experts: PositiveInt
    top_k: PositiveInt
    expert_hidden: PositiveInt
    vocabulary: PositiveInt
    positions: PositiveInt = 2048
    tied: bool = False
    dense_layers: Count | tuple[Count, ...] = 0
    dense_hidden: Count = 0
    mixers: tuple[str, ...] = ()
    settings: dict[str, Setting] = Field(default_factory=dict)
    family_digest: str = ""

    @model_validator(mode="before")
    @classmethod
    def _one_description(cls, data: Any) -> Any:
        """What can be said in two ways is said in one, so that one network has one hash."""
        if not isinstance(data, Mapping):
            return data
        family, dense = families.find(str(data.get("family"))), data.get("dense_layers")
        changed = {**data}
        if isinstance(dense, list | tuple) and sorted(set(dense)) == [*range(len(set(dense)))]:
            changed["dense_layers"] = len(set(dense))
        if family and isinstance(data.get("settings"), Mapping):
            # Settings at the family's default are left out.
            changed["settings"] = stated(family, _not_derived(family, data))
        if family and family.mixers and not data.get("mixers"):
            changed["mixers"] = layering.pattern(family, int(data.get("layers") or 0))
        return changed

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Model":
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is more than the {self.experts} experts")
        if len(self.dense) > self.layers or max(self.dense, default=0) >= self.layers:
            raise ValueError(
                f"dense layers {self.dense_layers} are not within {self.layers} layers"
            )
        if self.mixers and len(self.mixers) != self.layers:
            raise ValueError(
                f"{len(self.mixers)} mixers are not one for each of {self.layers} layers"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} kv_heads evenly")
        return self

    @property
    def dense(self) -> frozenset[int]:
        """Indices of the layers without experts."""
        found = self.dense_layers
        return frozenset(range(found) if isinstance(found, int) else found)

    def is_dense(self, layer: int) -> bool:
        """Whether this layer has no experts."""
        found = self.dense_layers
        return layer < found if isinstance(found, int) else layer in found


def stated(family: Family, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that differ from their family's."""
    known = family.settings
    return {
        key: value for key, value in settings.items() if key not in known or value != known[key]
    }


def _not_derived(family: Family, data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that follow from the sizes anyway."""
    numbers = {key: value for key, value in data.items() if isinstance(value, int)}
    follow = {key: quotient(text, numbers) for key, text in family.derived.items()}
    return {key: value for key, value in data["settings"].items() if value != follow.get(key, ())}
