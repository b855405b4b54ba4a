"""From conf/ and the command line to validated descriptions: composed by Hydra."""

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter

import conf
from sweeps import adoption
from sweeps.cluster import Cluster, Local, Slurm
from sweeps.errors import GrowpointError, nearest
from sweeps.exclude import in_use, require_known
from sweeps.growth import Depth, GrowthChoice, Width, one_of_an_axis, operators_of
from sweeps.notify import Notify
from sweeps.overrides import parse, sort
from sweeps.search import locate, search_path, unreadable, use_folder
from sweeps.sweep import Sweep
from sweeps.tracker import Tracker
from sweeps.validation import Axis, Settings, validated

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """What a command line asks for: a sweep for each combination of axes, and where it runs."""

    name: str
    sweeps: tuple[tuple[Sweep, Labels], ...]
    cluster: Local | Slurm
    store: Path
    config: Mapping[str, Any]
    tracker: Tracker
    notify: Notify


def load(sweep: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> Request:
    """Compose conf/, apply the overrides, and build the descriptions, strictly.

    Raises GrowpointError for unknown keys and values, before anything is written.
    """
    if config_dir:
        use_folder(config_dir)
    parsed = parse(overrides)
    with tempfile.TemporaryDirectory(prefix="growpoint-") as scratch:
        name, search = locate(sweep, Path(scratch))
        choices, values, axes = sort(parsed, search)
        combined = [_compose(name, picked, search, values) for picked in choices]
    request = _request(Path(name).name, list(zip(combined, choices, strict=True)), axes)
    require_known([made for made, _ in request.sweeps], _judged(parsed))
    return request


def _judged(parsed: Sequence[Override]) -> list[str]:
    """Fields of `exclude` whose names must be in the sweep.

    Where the command line cuts an axis of a file and leaves its exclusions, they may be idle.
    """
    said = {override.get_key_element().split(".")[0] for override in parsed}
    axes = {"growth": "growth", "point": "points", "budget": "budgets", "seed": "seeds"}
    return [field for field, key in axes.items() if "exclude" in said or key not in said]


def growth(overrides: Sequence[str]) -> tuple[Depth | Width, ...]:
    """Growth operators alone, from `growth=NAME`, `growth=[...]` and `growth.0.KEY=VALUE`."""
    parsed = parse(overrides or ["growth=depth"])
    for override in parsed:
        if override.get_key_element().split(".")[0] != "growth":
            raise GrowpointError(
                f"`{override.input_line}` says nothing about growth",
                [("known", "growth")],
                "growth=depth",
            )
    search = search_path(None)
    choices, values, axes = sort(parsed, search)
    if axes or len(choices) > 1:
        raise GrowpointError("a checkpoint is grown in one way at a time", [], "growth=depth")
    data = _compose(None, choices[0], search, values)
    entries = validated(TypeAdapter(tuple[GrowthChoice, ...]), data["growth"], "growth")
    if len(entries) > 1 and "growth" in choices[0]:
        raise one_of_an_axis(choices[0]["growth"], entries)
    return tuple(operator for entry in entries for operator in operators_of(entry))


def _request(
    name: str, combined: list[tuple[dict[str, Any], dict[str, str]]], axes: list[Axis]
) -> Request:
    sweeps: list[tuple[Sweep, Labels]] = []
    varied = _varied([choice for _, choice in combined])
    memory: adoption.Memory = {}
    for data, choice in combined:
        own = {key: data.pop(key) for key in ("store", "axes", "notify")}
        settings = validated(TypeAdapter(Settings), own)
        cluster, tracker = data.pop("cluster"), data.pop("tracker", {"kind": "none"})
        data["name"] = data["name"] or name
        labels = tuple((key, choice[key]) for key in varied)
        for changed, more in _variants(data, [*settings.axes, *axes]):
            sweeps.append((_sweep(changed, axes, memory), labels + more))
    place: Local | Slurm = validated(TypeAdapter(Cluster), cluster, "cluster")
    recorded = [_group_axis(key, combined) for key in varied] + [*settings.axes, *axes]
    config = {
        **adoption.recorded(combined[0][0]),
        "cluster": cluster,
        "tracker": tracker,
        "store": settings.store,
        "axes": [axis.model_dump(mode="json", exclude_defaults=True) for axis in recorded],
    }
    # Names that an override has made idle would be refused when the record is read as a file.
    if not any(str(key).startswith("exclude") for axis in recorded for key, _ in axis.steps()[0]):
        used = in_use([made for made, _ in sweeps])
        config["exclude"] = [entry.model_dump(mode="json", exclude_defaults=True) for entry in used]
    drawn: Tracker = validated(TypeAdapter(Tracker), tracker, "tracker")
    return Request(
        sweeps[0][0].name,
        tuple(sweeps),
        place,
        _store(settings.store),
        config,
        drawn,
        settings.notify,
    )


def _store(asked: str) -> Path:
    # Shells leave the tilde of `store=~/runs` as it is.
    return Path(asked).expanduser() if asked.split("/")[0] == "~" else Path(asked)


def _sweep(data: dict[str, Any], axes: Sequence[Axis], memory: adoption.Memory) -> Sweep:
    if data["series"]:
        adoption.require_no_model(data["model"], _default_model())
        data = adoption.adopted(data, memory)
    else:
        data = {key: value for key, value in data.items() if key != "series"}
    try:
        return validated(TypeAdapter(Sweep), data)
    except GrowpointError as error:
        # `seeds=0,1` makes an axis of a key that takes a list, which is what was meant.
        for axis in axes:
            if error.help.startswith(f"{axis.key}=[") and not isinstance(axis.values[0], list):
                meant = f"{axis.key}=[{','.join(map(str, axis.values))}]"
                raise GrowpointError(error.problem, error.evidence, meant) from error
        raise


@cache
def _default_model() -> Any:
    return _compose(None, {}, search_path(None), [])["model"]


def _group_axis(key: str, combined: Sequence[tuple[dict[str, Any], dict[str, str]]]) -> Axis:
    """A varied config group as the values that its choices stand for."""
    values: dict[str, Any] = {}
    for data, choice in combined:
        values.setdefault(choice[key], data[key])
    return Axis(key=key, values=tuple(values.values()), names=tuple(values))


def _compose(
    sweep: str | None,
    choices: Mapping[str, str],
    search: Sequence[Path],
    values: Sequence[tuple[str, Any]],
) -> dict[str, Any]:
    extra = [f"file://{path.resolve()}" for path in search if path != conf.FOLDER]
    words = [
        *([f"+sweep={sweep}"] if sweep else []),
        *(f"{group}={choice}" for group, choice in choices.items()),
    ]
    try:
        with initialize_config_dir(str(conf.FOLDER.resolve()), version_base=None):
            config = compose("config", [f"hydra.searchpath=[{','.join(extra)}]", *words])
        OmegaConf.set_struct(config, False)
        for key, value in values:
            _set(config, key, value)
        data = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise GrowpointError(
            f"the configuration of sweep `{sweep}` cannot be composed",
            [("says", line) for line in lines[:4]],
            f"growpoint plan {sweep} --config",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise unreadable(f"sweep `{sweep}`, or in a file that it names", error) from error
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}


def _set(config: DictConfig, key: str, value: Any) -> None:
    """Set a dotted key; numbers index lists, which must be long enough."""
    parts = key.split(".")
    if parts[0] == "series" and len(parts) > 1 and isinstance(config.get("series"), str):
        config["series"] = adoption.named(config["series"])
    if parts[0] not in config:
        names = sorted(map(str, config))
        close = ".".join([nearest(parts[0], names), *parts[1:]])
        raise GrowpointError(
            f"the configuration has no key `{parts[0]}`",
            [("known", ", ".join(names))],
            f"{close}={value}",
        )
    for index in range(1, len(parts)):
        head, part = ".".join(parts[:index]), parts[index]
        node = OmegaConf.select(config, head)
        if OmegaConf.is_list(node) and not (part.isdigit() and int(part) < len(node)):
            raise GrowpointError(
                f"`{head}` has no entry {part}",
                [("entries", f"{len(node)}, counted from 0")],
                f"{'.'.join([head, '0', *parts[index + 1 :]])}={value}",
            )
    OmegaConf.update(config, key, value, merge=False, force_add=True)


def _varied(choices: Sequence[Mapping[str, str]]) -> list[str]:
    keys = choices[0] if choices else {}
    return [key for key in keys if len({choice[key] for choice in choices}) > 1]


def _variants(
    data: dict[str, Any], axes: Sequence[Axis]
) -> Iterator[tuple[dict[str, Any], Labels]]:
    """One configuration for each combination of the axes' values; keys of one axis are zipped."""
    if not axes:
        yield data, ()
        return
    named = (zip(axis.steps(), axis.labels(), strict=True) for axis in axes)
    for combination in itertools.product(*named):
        config = OmegaConf.create(data)
        labels: list[tuple[str, str]] = []
        for step, called in combination:
            labels += called
            for key, value in step:
                _set(config, key, value)
        changed = OmegaConf.to_container(config)
        assert isinstance(changed, dict)
        yield {str(key): value for key, value in changed.items()}, tuple(labels)
