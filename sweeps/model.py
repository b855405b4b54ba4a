"""What follows from the sizes of a network by its family: tensors, counts, config.json."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

from pydantic import ValidationError

from sweeps import family as families
from sweeps import layers as layering
from sweeps.errors import GrowpointError
from sweeps.expressions import quotient
from sweeps.family import Family
from sweeps.network import Model, Setting, stated

__all__ = [
    "Model",
    "Parameters",
    "Setting",
    "Tensor",
    "all_settings",
    "check",
    "deepened",
    "from_config",
    "is_matrix",
    "parameters",
    "resized",
    "sizes",
    "stated",
    "tensors",
    "to_config",
]


class Tensor(NamedTuple):
    """One tensor of the on-disk layout."""

    name: str
    shape: tuple[int, ...]
    section: str
    layer: int | None = None
    expert: int | None = None
    buffer: bool = False
    elementwise: bool = False


def all_settings(model: Model) -> dict[str, Setting]:
    """The model's settings over its family's defaults."""
    return {**families.load(model.family).settings, **model.settings}


def sizes(model: Model, family: Family) -> dict[str, int]:
    """Every number a family's shapes may name: sizes, and whole-numbered settings."""
    settings = {**family.settings, **model.settings}
    numbers = {key: value for key, value in settings.items() if isinstance(value, int)}
    fields = {key: value for key, value in model if isinstance(value, int)}
    derived = {key: quotient(text, fields) for key, text in family.derived.items()}
    return {**derived, **numbers, **fields}


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
        mixer = model.mixers[layer] if model.mixers else ""
        inner = families.sections(family, model.is_dense(layer), settings, stacked, mixer)
        yield from _layer(model, family, layer, known, inner)


def _layer(
    model: Model,
    family: Family,
    layer: int,
    known: Mapping[str, int],
    inner: Iterable[tuple[str, str, families.Shape]],
) -> Iterator[Tensor]:
    for section, name, expressions in inner:
        size = families.shape(expressions, known)
        kinds = name in family.buffers, name in family.elementwise
        for expert in range(model.experts) if "{expert}" in name else (None,):
            full = (family.prefix + name).format(layer=layer, expert=expert)
            yield Tensor(full, size, section, layer, expert, *kinds)


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
    layering.check(model.dense, model.layers, model.mixers, family)
    owned = layering.structural_keys(family) & model.settings.keys()
    if owned:
        raise GrowpointError(
            "settings cannot say which layers have experts or how they mix tokens",
            [("settings", ", ".join(sorted(owned)))],
            "model.dense_layers=[0,2,4] and model.mixers=[WORD,WORD,...], one for each layer",
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
    """Counts of `model`, from its tensors' shapes; cached by its text."""
    return _parameters(model.model_dump_json())


@cache
def _parameters(text: str) -> Parameters:
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
    """Whether the tensor enters a matrix product: norms and biases do not; convolutions do."""
    if tensor.buffer or tensor.elementwise:
        return False
    stacked = tensor.section == "expert" and tensor.expert is None
    return len(tensor.shape) >= (3 if stacked else 2)


def from_config(config: Mapping[str, Any]) -> Model:
    """The Model that a Hugging Face config.json describes, by the family of its model_type."""
    if isinstance(config.get("text_config"), Mapping):
        raise GrowpointError(
            "a multimodal checkpoint holds more than its language model",
            [("model_type", config.get("model_type")), ("found", "text_config")],
            "save it alone: python -c 'from transformers import AutoModelForCausalLM as M; "
            'M.from_pretrained("FOLDER", dtype="auto").save_pretrained("TEXT")\'',
        )
    family = families.of_model_type(str(config.get("model_type")))
    given = {key: config[key] for key in family.settings if key in config}
    try:
        return Model(family=family.name, settings=given, **_sizes(config, family))
    except (ValueError, TypeError) as error:
        raise GrowpointError(
            "a checkpoint's config.json lacks sizes that its family needs",
            [("family", family.name), ("says", _first_mistake(error, family))],
            f"compare its keys with those named in conf/family/{family.name}.yaml",
        ) from error


def _sizes(config: Mapping[str, Any], family: Family) -> dict[str, Any]:
    both = {
        size: (_value(config, keys), _value(family.defaults, keys))
        for size, keys in family.config.items()
    }
    found = {
        size: default if value is None else value
        for size, (value, default) in both.items()
        if value is not None or default is not None
    }
    found.setdefault("kv_heads", found.get("heads"))
    found.setdefault("head_dim", found.get("hidden", 0) // max(1, found.get("heads", 1)))
    layers = int(found.get("layers", 0))
    if layering.can_be_dense(family):
        found["dense_layers"] = tuple(layering.dense_indices(config, family, layers))
    if mixers := layering.mixers(config, family, layers):
        found["mixers"] = mixers
    return found


def _first_mistake(error: Exception, family: Family) -> str:
    if isinstance(error, ValidationError) and error.errors()[0]["loc"]:
        first = error.errors()[0]
        size = str(first["loc"][0])
        return f"{' or '.join(family.config.get(size, (size,)))}: {first['msg'].lower()}"
    lines = [line.strip() for line in str(error).splitlines()]
    return ": ".join(lines[1:3]) or lines[0]


def _value(config: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    key = next((key for key in keys if config.get(key) is not None), "")
    value = config.get(key)
    if not isinstance(value, list):
        return value
    if len(set(map(str, value))) != 1:
        raise GrowpointError(
            "layers whose sizes differ cannot be described",
            [(key, ", ".join(map(str, value)))],
            "choose a checkpoint whose layers have one size",
        )
    return value[0]


def to_config(model: Model) -> dict[str, Any]:
    """Keys of config.json that this model sets; the model class has defaults for the rest."""
    family = families.load(model.family)
    check(model, family)
    values: dict[str, Any] = {**family.fixed, **family.settings, **model.settings}
    for size, keys in family.config.items():
        values[keys[0]] = getattr(model, size)
    values |= layering.statement(model.dense, model.layers, model.mixers, family)
    return {"model_type": family.model_type, **values}


def resized(model: Model, **sizes: object) -> Model:
    """`model` with other sizes, checked anew."""
    return Model.model_validate({**model.model_dump(), **sizes})


def deepened(model: Model, source: Sequence[int], listed: bool = False) -> Model:
    """Sizes after growth in which layer i is a copy of layer `source[i]`.

    `listed`: the user wrote `source` down, so the way out is another list.
    Raises GrowpointError if the family's config.json cannot say which layer is of which kind.
    """
    family = families.load(model.family)
    dense, mixers = layering.mapped(model.dense, model.mixers, source)
    if layering.can_hold(dense, len(source), mixers, family):
        return resized(model, layers=len(source), dense_layers=sorted(dense), mixers=mixers)
    raise GrowpointError(
        f"{model.family} cannot hold the layers that this growth makes",
        [("needs", layering.needs(family)), ("makes", layering.runs(dense, mixers, len(source)))],
        layering.way_out(model.dense, model.layers, model.mixers, family, source if listed else ()),
    )
