"""Model: the sizes of one network, and what follows from them by its family."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from math import prod
from typing import Annotated, Any, NamedTuple

from pydantic import Field, PositiveInt, model_validator

from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Family
from sweeps.schema import Description, asked, canonical

Setting = bool | int | float | str | None


class Model(Description):
    """Sizes of one Mixture-of-Experts network; `settings` are further keys of its config.json.

    `family_digest` is filled in by a sweep: it names what a user's own family file changes.
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
    dense_layers: Annotated[int, Field(ge=0)] = 0
    dense_hidden: Annotated[int, Field(ge=0)] = 0
    settings: dict[str, Setting] = Field(default_factory=dict)
    family_digest: str = ""

    @model_validator(mode="before")
    @classmethod
    def _one_description(cls, data: Any) -> Any:
        """Settings at the family's default are left out, so that one network has one hash."""
        settings = data.get("settings") if isinstance(data, Mapping) else None
        family = families.find(str(data.get("family"))) if settings else None
        if not family or not isinstance(settings, Mapping):
            return data
        return {**data, "settings": stated(family, settings)}

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Model":
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is more than the {self.experts} experts")
        if self.dense_layers > self.layers:
            raise ValueError(f"{self.dense_layers} dense layers are more than {self.layers} layers")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} kv_heads evenly")
        return self


class Tensor(NamedTuple):
    """One tensor of the on-disk layout."""

    name: str
    shape: tuple[int, ...]
    section: str
    layer: int | None = None
    expert: int | None = None
    buffer: bool = False


def all_settings(model: Model) -> dict[str, Setting]:
    """The model's settings over its family's defaults."""
    return {**families.load(model.family).settings, **model.settings}


def sizes(model: Model, family: Family) -> dict[str, int]:
    """Every number a family's shapes may name: sizes, and whole-numbered settings."""
    settings = {**family.settings, **model.settings}
    numbers = {key: value for key, value in settings.items() if isinstance(value, int)}
    fields = {key: value for key, value in model if isinstance(value, int)}
    return {**numbers, **fields}


def tensors(model: Model, stacked: bool = False) -> Iterator[Tensor]:
    """All tensors of the checkpoint, by the family's names. Tied models have no head.

    `stacked` gives the layout that keeps all experts of a layer in one tensor. Raises
    GrowpointError for sizes that the family's config.json cannot say.
    """
    family = families.load(model.family)
    check(model, family)
    known, settings = sizes(model, family), {**family.settings, **model.settings}
    for section in ("embedding", "outside") if model.tied else ("embedding", "head", "outside"):
        for name, expressions in getattr(family, section).items():
            if families.holds(family.given.get(name, ""), settings):
                yield Tensor(name, families.shape(expressions, known), section)
    for layer in range(model.layers):
        dense = layer < model.dense_layers
        inner = families.sections(family, dense, settings, stacked)
        yield from _layer(model, family, layer, known, inner)


def _layer(
    model: Model,
    family: Family,
    layer: int,
    known: Mapping[str, int],
    inner: Iterable[tuple[str, str, families.Shape]],
) -> Iterator[Tensor]:
    for section, name, expressions in inner:
        size, buffer = families.shape(expressions, known), name in family.buffers
        for expert in range(model.experts) if "{expert}" in name else (None,):
            full = (family.prefix + name).format(layer=layer, expert=expert)
            yield Tensor(full, size, section, layer, expert, buffer)


def check(model: Model, family: Family) -> None:
    """Raise GrowpointError for sizes that a config.json of this family has no key for.

    Also for a family that is no longer the user's own one that the model was planned with.
    """
    if model.family_digest and model.family_digest != families.own_digest(model.family):
        raise GrowpointError(
            f"family `{model.family}` is not the one that this model was planned with",
            [("planned", model.family_digest), ("found", families.own_digest(model.family) or "-")],
            "--config-dir FOLDER with the family file of then, or plan and launch again",
        )
    can_be_dense = "dense_layers" in family.config or family.dense_list
    if model.dense_layers and not can_be_dense:
        raise GrowpointError(
            f"{family.name} has no dense layers",
            [("asked", f"{model.dense_layers} dense layers")],
            "model.dense_layers=0",
        )
    if "head_dim" not in family.config and model.heads * model.head_dim != model.hidden:
        raise GrowpointError(
            f"{family.name} has heads of hidden / heads dimensions only",
            [("hidden", model.hidden), ("heads", model.heads), ("head_dim", model.head_dim)],
            f"model.head_dim={model.hidden // model.heads}",
        )


class Parameters(NamedTuple):
    """Parameter counts: all, those used for one token, and those that are matrix products."""

    total: int
    active: int
    multiplied: int


def parameters(model: Model) -> Parameters:
    """Counts of `model`, from its tensors' shapes; cached by its canonical text."""
    return _parameters(canonical(asked(model)), model.family)


@cache
def _parameters(text: str, family: str) -> Parameters:
    model = Model.model_validate_json(text)
    total, active, multiplied = 0, 0.0, 0.0
    for tensor in tensors(model):
        # A buffer is stored, but no gradient trains it.
        numel = 0 if tensor.buffer else prod(tensor.shape)
        # Stacked experts (all in one tensor) and single ones alike are used by top_k of experts.
        used = numel * model.top_k / model.experts if tensor.section == "expert" else numel
        total += numel
        active += used
        if tensor.section != "embedding" and is_matrix(tensor):
            multiplied += used
    if model.tied:
        multiplied += model.vocabulary * model.hidden
    return Parameters(total, round(active), round(multiplied))


def is_matrix(tensor: Tensor) -> bool:
    """Whether the tensor enters a matrix product: norms and biases do not."""
    stacked = tensor.section == "expert" and tensor.expert is None
    return not tensor.buffer and len(tensor.shape) == (3 if stacked else 2)


def from_config(config: Mapping[str, Any]) -> Model:
    """The Model that a Hugging Face config.json describes, by the family of its model_type."""
    family = families.of_model_type(str(config.get("model_type")))
    found = {size: _value(config, keys) for size, keys in family.config.items()}
    found = {size: value for size, value in found.items() if value is not None}
    found.setdefault("kv_heads", found.get("heads"))
    found.setdefault("head_dim", found.get("hidden", 0) // max(1, found.get("heads", 1)))
    if family.dense_list:
        found["dense_layers"] = _dense_prefix(config, family, found.get("layers", 0))
    given = {key: config[key] for key in family.settings if key in config}
    try:
        return Model(family=family.name, settings=given, **found)
    except ValueError as error:
        raise GrowpointError(
            "a checkpoint's config.json lacks sizes that its family needs",
            [("family", family.name), ("says", _first_mistake(error))],
            f"compare its keys with those named in conf/family/{family.name}.yaml",
        ) from error


def _first_mistake(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return ": ".join(lines[1:3]) or lines[0]


def _value(config: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((config[key] for key in keys if config.get(key) is not None), None)


def _dense_prefix(config: Mapping[str, Any], family: Family, layers: int) -> int:
    dense = dense_indices(config, family, layers)
    if dense != list(range(len(dense))):
        raise GrowpointError(
            "dense layers among expert layers cannot be described, only dense layers before them",
            [("family", family.name), ("dense", ", ".join(map(str, dense)))],
            "choose a checkpoint whose dense layers come first",
        )
    return len(dense)


def dense_indices(config: Mapping[str, Any], family: Family, layers: int) -> list[int]:
    """Layers without experts, by the keys of config.json that list them or give their period."""
    listed = config.get(family.dense_list or "") or ()
    step = int(config.get(family.sparse_step or "") or 1)
    return [layer for layer in range(layers) if layer in listed or (layer + 1) % step]


def stated(family: Family, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that differ from their family's."""
    known = family.settings
    return {
        key: value for key, value in settings.items() if key not in known or value != known[key]
    }


def to_config(model: Model) -> dict[str, Any]:
    """Keys of config.json that this model sets; the model class has defaults for the rest."""
    family = families.load(model.family)
    check(model, family)
    values: dict[str, Any] = {**family.fixed, **family.settings, **model.settings}
    for size, keys in family.config.items():
        values[keys[0]] = getattr(model, size)
    if family.dense_list:
        values[family.dense_list] = list(range(model.dense_layers))
    return {"model_type": family.model_type, **values}
