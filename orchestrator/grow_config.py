"""config.json after growth: edited in place, so that every key the source has stays as it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Family
from sweeps.growth import Depth, Width, grown, layer_map
from sweeps.model import Model, all_settings, dense_indices, from_config


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
        **_per_layer(config, family, layers),
        **_counts(config, family, layers, source.layers),
    }
    return {**config, **changed}


def _sizes(
    config: Mapping[str, Any], family: Family, source: Model, target: Model
) -> dict[str, Any]:
    """Changed sizes, under whichever of their keys the source uses."""
    return {
        key: getattr(target, size)
        for size, keys in family.config.items()
        if getattr(target, size) != getattr(source, size)
        for key in ([key for key in keys if key in config] or keys[:1])
    }


def _settings(config: Mapping[str, Any], source: Model, target: Model) -> dict[str, Any]:
    before, after = all_settings(source), all_settings(target)
    return {key: value for key, value in after.items() if value != before.get(key)}


def _per_layer(
    config: Mapping[str, Any], family: Family, layers: Sequence[int]
) -> dict[str, list[Any]]:
    lists = {key: config[key] for key in family.per_layer if config.get(key) is not None}
    changed = {key: [values[layer] for layer in layers] for key, values in lists.items()}
    if family.dense_list:
        # Listed in full: a period of sparse layers need not survive growth.
        dense = set(dense_indices(config, family, max(layers) + 1))
        changed[family.dense_list] = [at for at, layer in enumerate(layers) if layer in dense]
    return changed


def _counts(
    config: Mapping[str, Any], family: Family, layers: Sequence[int], before: int
) -> dict[str, int]:
    changed = {}
    if family.sparse_step and family.sparse_step in config:
        changed[family.sparse_step] = 1
    if family.predicts and config.get(family.predicts):
        changed[family.predicts] = 0
    for key in family.leading:
        if config.get(key) is not None:
            changed[key] = _leading(key, int(config[key]), layers, before)
    if family.last_layer and config.get(family.last_layer, -1) != -1:
        if config[family.last_layer] != before - 1:
            raise GrowpointError(
                "layers without experts after those with experts cannot be described",
                [(family.last_layer, config[family.last_layer]), ("layers", before)],
                "choose a checkpoint whose layers without experts come first",
            )
        changed[family.last_layer] = len(layers) - 1
    return changed


def _leading(key: str, count: int, layers: Sequence[int], before: int) -> int:
    """How many leading layers of the result come from the leading `count` of the source."""
    if count >= before:
        return max(count, len(layers))
    return sum(layer < count for layer in layers)
