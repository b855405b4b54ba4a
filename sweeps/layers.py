"""What each layer is: which have no experts, which mixer each has, as a config.json says it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sweeps.errors import GrowpointError
from sweeps.family import Family, Periodic


def dense_indices(config: Mapping[str, Any], family: Family, layers: int) -> list[int]:
    """Layers without experts, by the keys of config.json that count, list or space them."""
    listed = config.get(family.sparse_list or "")
    if listed is not None:
        return [layer for layer in range(layers) if layer not in listed]
    values = {**family.defaults, **config}
    return [layer for layer in range(layers) if not _is_sparse(values, family, layer)]


def _is_sparse(values: Mapping[str, Any], family: Family, layer: int) -> bool:
    first = next((values[key] for key in count_keys(family) if values.get(key) is not None), 0)
    last = values.get(family.last_layer or "", -1)
    period, offset = _period(values, family.sparse_period)
    return (
        layer >= int(first)
        and (last in (None, -1) or layer <= int(last))
        and layer % period == offset
        and layer not in (values.get(family.dense_list or "") or ())
    )


def _period(values: Mapping[str, Any], keys: Sequence[str]) -> tuple[int, int]:
    """(period, offset); the last of each period where there is no key for the offset."""
    if not keys:
        return 1, 0
    found = [int(key) if key.isdigit() else int(values.get(key) or 0) for key in keys]
    period = max(1, found[0])
    return period, found[1] if len(found) > 1 else period - 1


def count_keys(family: Family) -> tuple[str, ...]:
    """Keys that count leading layers without experts."""
    return family.config.get("dense_layers", ())


def can_be_dense(family: Family) -> bool:
    """Whether config.json has a word for layers without experts."""
    keys = (family.dense_list, family.sparse_list, family.sparse_period)
    return any(keys) or bool(count_keys(family))


def stated_dense(
    config: Mapping[str, Any] | None, family: Family, dense: Collection[int], layers: int
) -> dict[str, Any] | None:
    """What to set in `config` so that exactly these layers have no experts; None if nothing does.

    Nothing is set if the keys that are there say it already. Without `config` all is set.
    """
    wanted = sorted(dense)
    for keys in _dense_statements(family, wanted, layers, bool(config)):
        if dense_indices({**(config or {}), **keys}, family, layers) == wanted:
            return keys
    return None


def _dense_statements(
    family: Family, dense: Sequence[int], layers: int, may_stay: bool
) -> Iterator[dict[str, Any]]:
    if may_stay:
        yield {}
    sparse = [layer for layer in range(layers) if layer not in set(dense)]
    if family.sparse_list:
        yield {family.sparse_list: sparse}
        return
    first, last = (sparse[0], sparse[-1]) if sparse else (layers, -1)
    counted = dict.fromkeys(count_keys(family)[:1], first)
    if family.dense_list:
        # Listed in full: a period of sparse layers need not survive growth.
        yield {family.dense_list: list(dense), **_spaced(family, 1, 0)}
        return
    for end in {family.last_layer: (-1, last)}.get(family.last_layer or "", (-1,)):
        ends = {family.last_layer: end} if family.last_layer else {}
        yield {**counted, **ends}
        for period, offset in _periods(family.sparse_period, layers):
            yield {**counted, **ends, **_spaced(family, period, offset)}


def _spaced(family: Family, period: int, offset: int) -> dict[str, int]:
    return dict(zip(family.sparse_period, (period, offset), strict=False))


def _periods(keys: Sequence[str], layers: int) -> Iterator[tuple[int, int]]:
    """Every period and offset that tells `layers` layers apart."""
    for period in range(1, layers + 2) if keys else ():
        offsets = range(period) if len(keys) > 1 else (period - 1,)
        yield from ((period, offset) for offset in offsets)


def listed(config: Mapping[str, Any], family: Family, key: str, layers: int) -> list[Any] | None:
    """The per-layer list of config.json under `key`, or the one that the class puts there."""
    if config.get(key) is not None:
        return config[key] if isinstance(config[key], list) else None
    implied = family.implied.get(key)
    return _spread(implied, {**family.defaults, **config}, layers) if implied else None


def _spread(periodic: Periodic, values: Mapping[str, Any], layers: int) -> list[Any]:
    period, offset = _period(values, periodic.keys)
    return [
        periodic.at if layer % period == offset else periodic.otherwise for layer in range(layers)
    ]


def mixers(config: Mapping[str, Any], family: Family, layers: int) -> tuple[str, ...]:
    """The mixer of each layer; () for families that have one only.

    Raises GrowpointError if config.json names none, or another than the family has.
    """
    if not family.mixers:
        return ()
    if family.mixer_period:
        return tuple(_spread(family.mixer_period, {**family.defaults, **config}, layers))
    found = tuple(
        map(str, (listed(config, family, family.mixer_list or "", layers) or ())[:layers])
    )
    if len(found) < layers or not set(found) <= family.mixers.keys():
        raise GrowpointError(
            "config.json does not say how each layer mixes tokens",
            [
                (family.mixer_list or "mixers", ", ".join(found) or "none"),
                ("known", ", ".join(family.mixers)),
            ],
            f"compare it with conf/family/{family.name}.yaml",
        )
    return found


def stated_mixers(
    config: Mapping[str, Any] | None, family: Family, wanted: Sequence[str]
) -> dict[str, Any] | None:
    """What to set in `config` so that the layers have these mixers; None if nothing does."""
    for keys in _mixer_statements(family, wanted, bool(config)):
        if mixers({**(config or {}), **keys}, family, len(wanted)) == tuple(wanted):
            return keys
    return None


def _mixer_statements(
    family: Family, wanted: Sequence[str], may_stay: bool
) -> Iterator[dict[str, Any]]:
    if may_stay or not family.mixers:
        yield {}
    if family.mixer_list:
        yield {family.mixer_list: list(wanted)}
    if family.mixer_period:
        keys = family.mixer_period.keys
        for found in _periods(keys, len(wanted)):
            yield dict(zip(keys, found, strict=False))


def pattern(family: Family, layers: int) -> tuple[str, ...]:
    """The mixers of a new network that names none."""
    words = family.mixer_pattern or tuple(family.mixers)[:1]
    return tuple(words[layer % len(words)] for layer in range(layers)) if words else ()


def structural_keys(family: Family) -> set[str]:
    """Keys of config.json that say what each layer is."""
    single = (family.dense_list, family.sparse_list, family.last_layer, family.mixer_list)
    periods = (*family.sparse_period, *(family.mixer_period.keys if family.mixer_period else ()))
    return {key for key in (*single, *periods, *count_keys(family)) if key}


def can_hold(dense: Collection[int], layers: int, mixing: Sequence[str], family: Family) -> bool:
    """Whether some config.json of the family describes such layers."""
    return (
        stated_dense(None, family, dense, layers) is not None
        and stated_mixers(None, family, mixing) is not None
    )


def statement(
    dense: Collection[int], layers: int, mixing: Sequence[str], family: Family
) -> dict[str, Any]:
    """Keys of a new config.json that say what each layer is."""
    return {
        **(stated_dense(None, family, dense, layers) or {}),
        **(stated_mixers(None, family, mixing) or {}),
    }


def check(dense: Collection[int], layers: int, mixing: Sequence[str], family: Family) -> None:
    """Raise GrowpointError for layers that no config.json of the family describes."""
    if dense and not can_be_dense(family):
        raise GrowpointError(
            f"{family.name} has no dense layers",
            [("asked", f"{len(dense)} dense layers")],
            "model.dense_layers=0",
        )
    unknown = set(mixing) - family.mixers.keys()
    if unknown:
        raise GrowpointError(
            f"{family.name} has no layers of this kind",
            [("asked", ", ".join(sorted(unknown))), ("known", ", ".join(family.mixers) or "none")],
            "model.mixers=[]",
        )
    if not can_hold(dense, layers, mixing, family):
        raise GrowpointError(
            f"no config.json of {family.name} can describe these layers",
            [("needs", needs(family)), ("asked", runs(dense, mixing, layers))],
            "model.dense_layers=0 model.mixers=[]",
        )


def mapped(
    dense: Collection[int], mixing: Sequence[str], source: Sequence[int]
) -> tuple[list[int], tuple[str, ...]]:
    """(layers without experts, mixers) where layer i is a copy of layer `source[i]`."""
    copied = tuple(mixing[layer] for layer in source) if mixing else ()
    return [at for at, layer in enumerate(source) if layer in dense], copied


def needs(family: Family) -> str:
    """What a config.json of the family can say."""
    spaced = len(family.sparse_period) > 1 or family.mixer_period
    if spaced or (family.sparse_period and not family.dense_list):
        return "kinds of layers that follow each other at one period"
    return "dense layers first"


def runs(dense: Collection[int], mixing: Sequence[str], layers: int) -> str:
    """`3 dense, 24 expert, 3 dense, 24 expert layers`."""
    kinds = ["dense" if layer in dense else "expert" for layer in range(layers)]
    if mixing:
        kinds = [f"{mixer} {kind}" for mixer, kind in zip(mixing, kinds, strict=True)]
    found = [f"{len(list(run))} {kind}" for kind, run in groupby(kinds)]
    return ", ".join(found[:8]) + (", ..." if len(found) > 8 else "") + " layers"


def way_out(dense: Collection[int], layers: int, mixing: Sequence[str], family: Family) -> str:
    """A depth growth that config.json can describe, to paste."""
    first = next((layer for layer in range(layers) if layer not in dense), 0)
    repeated = [layer for layer in range(first, layers) for _ in range(2)]
    ways = {
        f"growth.0.keep_first={first}, which repeats the expert layers only": [
            *range(first),
            *repeated,
        ],
        "growth.0.order=stack, which keeps the period": [*range(layers), *range(layers)],
    }
    for way, source in ways.items():
        after, words = mapped(dense, mixing, source)
        if first == 0 and "keep_first" in way:
            continue
        if can_hold(after, len(source), words, family):
            return way
    return "growth=width"
