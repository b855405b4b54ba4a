"""config.json after growth: edited in place, so that every key the source has stays as it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps import family as families
from sweeps import layers as layering
from sweeps.family import Family
from sweeps.growth import Depth, Width, grown, layer_map
from sweeps.model import Model, all_settings, from_config


def grown_config(config: Mapping[str, Any], operators: Sequence[Depth | Width]) -> dict[str, Any]:
    """The source's config.json with what the operators change.

    Raises GrowpointError if the family cannot hold the result.
    """
    source = from_config(config)
    target, family = grown(source, operators), families.load(source.family)
    layers = layer_map(source.layers, operators)
    changed = {
        **_sizes(config, family, source, target),
        **_settings(config, source, target),
        **_per_layer(config, family, layers, source.layers),
        **_counts(config, family, layers, source.layers),
    }
    return {**config, **changed, **_kinds({**config, **changed}, family, target)}


def _sizes(
    config: Mapping[str, Any], family: Family, source: Model, target: Model
) -> dict[str, Any]:
    """Changed sizes, under whichever of their keys the source uses, and as it writes them."""
    changed = {}
    for size, keys in family.config.items():
        if size == "dense_layers":
            continue
        value, here = getattr(target, size), [key for key in keys if key in config]
        is_changed = value != getattr(source, size)
        for key in here or (keys[:1] if is_changed else ()):
            if isinstance(config.get(key), list):
                changed[key] = [value] * target.layers
            elif is_changed:
                changed[key] = value
    return changed


def _settings(config: Mapping[str, Any], source: Model, target: Model) -> dict[str, Any]:
    before, after = all_settings(source), all_settings(target)
    return {key: value for key, value in after.items() if value != before.get(key)}


def _per_layer(
    config: Mapping[str, Any], family: Family, layers: Sequence[int], before: int
) -> dict[str, list[Any]]:
    """Lists with one entry for each layer, also those that the class would have filled in."""
    if list(layers) == list(range(before)):
        return {}
    # A list that was left out is periodic; the layer map need not keep that period.
    found = {key: layering.listed(config, family, key, before) for key in family.per_layer}
    return {
        key: [values[layer] for layer in layers]
        for key, values in found.items()
        if isinstance(values, list)
    }


def _kinds(config: Mapping[str, Any], family: Family, target: Model) -> dict[str, Any]:
    """Which layers have no experts, and which mixer each has, in the family's own words."""
    dense = layering.stated_dense(config, family, target.dense, target.layers)
    return {**(dense or {}), **(layering.stated_mixers(config, family, target.mixers) or {})}


def _counts(
    config: Mapping[str, Any], family: Family, layers: Sequence[int], before: int
) -> dict[str, int]:
    changed = {}
    if family.predicts and config.get(family.predicts):
        changed[family.predicts] = 0
    for key in family.leading:
        if config.get(key) is not None:
            changed[key] = _leading(key, int(config[key]), layers, before)
    return changed


def _leading(key: str, count: int, layers: Sequence[int], before: int) -> int:
    """How many leading layers of the result come from the leading `count` of the source."""
    if count >= before:
        return max(count, len(layers))
    return sum(layer < count for layer in layers)
