"""From `series: NAME` in a sweep to its sources: listed, chosen by its points, known by content."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from sweeps import family as families
from sweeps import hub, places
from sweeps.amounts import Points, PointUnit
from sweeps.errors import GrowpointError, nearest
from sweeps.model import Model, from_config
from sweeps.places import Snapshot
from sweeps.search import known, search_path
from sweeps.series import Series, Source, sources
from sweeps.validation import validated

# A point means a checkpoint if both are the same number to so many digits, or to more if it is
# written with more: sunk FLOPs are products that nobody writes out.
LEAST_DIGITS = 4
TOKENIZER = "tokenizer.json"


def named(name: str) -> dict[str, Any]:
    """The keys of a series: a name in conf/series, or a .yaml file. Raises GrowpointError."""
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        there = [folder / "series" / f"{name}.yaml" for folder in search_path(None)]
        found = next((file for file in there if file.is_file()), None)
        if found is None:
            names = known("series")
            raise GrowpointError(
                f"there is no series `{name}`",
                [("known", ", ".join(names))],
                f"growpoint series {nearest(name, names)}",
            )
        path = found
    try:
        keys = yaml.safe_load(path.read_text())
        if not isinstance(keys, dict):
            raise yaml.YAMLError("it holds no keys")
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise GrowpointError(
            f"the series in {path} cannot be read",
            [("says", line) for line in str(error).splitlines()[:4]],
            "compare it with a file of conf/series",
        ) from error
    return {"name": path.stem, **keys}


def described(keys: object) -> Series:
    """The series that a configuration's `series` says. Raises GrowpointError for unknown keys."""
    data = named(keys) if isinstance(keys, str) else keys
    if isinstance(data, Mapping) and "name" in data and data["name"] is None:
        data = {key: value for key, value in data.items() if key != "name"}
    return validated(TypeAdapter(Series), data, "series")


def listed(series: Series) -> list[Source]:
    """All checkpoints of a series, by tokens. Raises GrowpointError if there are none."""
    if series.repo:
        return sources(series, dict(hub.snapshots(series)))
    entries = tuple(entry.name for entry in series.checkpoints)
    return sources(series, dict(places.folders(str(series.folder), entries)))


def model_of(source: Source) -> Model:
    """Sizes of a checkpoint, by its config.json. Raises GrowpointError if its family is unknown."""
    place = source.place
    config = (
        hub.config_of(place) if isinstance(place, Snapshot) else places.config_in(Path(place.path))
    )
    model = from_config(config)
    return model.model_copy(update={"family_digest": families.own_digest(model.family)})


def is_here(source: Source) -> bool:
    """Whether the checkpoint is on this machine, whole."""
    place = source.place
    return (
        hub.is_cached(place) if isinstance(place, Snapshot) else places.is_whole(Path(place.path))
    )


def content(source: Source) -> str:
    """What names the checkpoint wherever it lies: a commit of the hub, or a hash of its files."""
    place = source.place
    if isinstance(place, Snapshot):
        return f"hub:{place.repo}@{place.commit}"
    return places.content(Path(place.path), place)


def common_model(chosen: Sequence[Source]) -> Model:
    """The one model of all chosen checkpoints. Raises GrowpointError if they differ in a size."""
    models = {source.name: model_of(source) for source in chosen}
    first, model = next(iter(models.items()))
    for name, other in models.items():
        if other != model:
            differs = [key for key, value in model if getattr(other, key) != value]
            raise GrowpointError(
                "the checkpoints of the series are not of one architecture",
                [(first, _sizes(model, differs)), (name, _sizes(other, differs))],
                "narrow the pattern, or leave one of the two out of points.at",
            )
    return model


def _sizes(model: Model, keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {getattr(model, key)}" for key in keys)


def choose(points: Points, all_of: Sequence[Source]) -> list[Source]:
    """The checkpoints that `points` name, in its order.

    Raises GrowpointError for a point that no checkpoint, or more than one, is at.
    """
    amounts = amounts_of(points.unit, all_of)
    return [_at(at, index, points.unit, amounts, all_of) for index, at in enumerate(points.at)]


def amounts_of(unit: PointUnit, all_of: Sequence[Source]) -> list[float | None]:
    """Steps, tokens or sunk FLOPs of each checkpoint; None for unknown steps."""
    if unit == "steps":
        return [source.step for source in all_of]
    if unit == "tokens":
        return [float(source.tokens) for source in all_of]
    # One configuration for all: a series is of one model, and the chosen ones are checked for it.
    model = model_of(all_of[0])
    return [source.sunk_flops(model) for source in all_of]


def _at(
    asked: float,
    index: int,
    unit: PointUnit,
    amounts: Sequence[float | None],
    all_of: Sequence[Source],
) -> Source:
    pairs = [(amount, s) for amount, s in zip(amounts, all_of, strict=True) if amount is not None]
    exact = [source for amount, source in pairs if amount == asked]
    found = exact or [s for amount, s in pairs if unit != "steps" and same(asked, amount)]
    if len(found) == 1:
        return found[0]
    raise GrowpointError(
        f"{'several checkpoints of the series are' if found else 'no checkpoint of the series is'}"
        f" at points.at.{index}",
        [
            ("asked", f"{asked:.12g} {unit}"),
            ("there", f"{_shown([amount for amount, _ in pairs], unit)} {unit}"),
        ],
        f"points.at=[{_plain(pairs[0][0], unit)}], or points.at=all" if pairs else "points.at=all",
    )


def _shown(amounts: Sequence[float], unit: PointUnit) -> str:
    shown = [_plain(amount, unit) for amount in amounts]
    if len(shown) <= 12:
        return ", ".join(shown) or "none with"
    return ", ".join([*shown[:6], "...", *shown[-3:]]) + f" ({len(shown)} in all)"


def _plain(amount: float, unit: PointUnit) -> str:
    return f"{amount:.4g}" if unit == "flops" else f"{amount:.0f}"


def same(asked: float, amount: float) -> bool:
    """Whether a checkpoint's amount is what was asked for, to the digits that were written."""
    digits = max(LEAST_DIGITS, len(f"{asked:.12e}".split("e")[0].rstrip("0").replace(".", "")))
    return f"{asked:.{digits - 1}e}" == f"{amount:.{digits - 1}e}"


Memory = dict[str, tuple[Points, tuple[Source, ...], Model]]


def require_no_model(given: object, default: object) -> None:
    """Refuse a model beside a series: its checkpoints have one; a default does not count."""
    if given is not None and given != default:
        raise GrowpointError(
            "a sweep over a series has the model of its checkpoints",
            [("given", "model"), ("known by", "config.json of each checkpoint")],
            "leave out `model`, or series=null to train a trunk",
        )


def recorded(data: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as it is kept: with the keys of its series, and without an unused model."""
    if not data.get("series"):
        return dict(data)
    series = described(data["series"]).model_dump(mode="json", exclude_defaults=True)
    return {**data, "series": series, "model": None}


def adopted(data: Mapping[str, Any], memory: Memory) -> dict[str, Any]:
    """A sweep's configuration with its `series` looked up: its sources, their model, its points.

    `memory` keeps what was looked up for other variants of the sweep. A tokenizer of kind `source`
    becomes that of the checkpoints. Raises GrowpointError.
    """
    key = json.dumps([data["series"], data["points"]], sort_keys=True, default=str)
    if key not in memory:
        memory[key] = _looked_up(data["series"], data["points"])
    points, chosen, model = memory[key]
    changed = {**data, "points": points, "series": chosen, "model": model}
    corpus = data.get("data")
    asked = corpus.get("tokenizer") if isinstance(corpus, Mapping) else None
    # Keys of a default tokenizer of another kind may linger beside it.
    if isinstance(corpus, Mapping) and isinstance(asked, Mapping) and asked.get("kind") == "source":
        changed["data"] = {**corpus, "tokenizer": tokenizer(chosen[0], model)}
    return changed


def _looked_up(keys: object, points: Any) -> tuple[Points, tuple[Source, ...], Model]:
    series = described(keys)
    all_of = listed(series)
    said = validated(TypeAdapter(Points), _every(points, all_of), "points")
    chosen = choose(said, all_of)
    model = common_model(chosen)
    known_by = [source.model_copy(update={"content": content(source)}) for source in chosen]
    _require_distinct_contents(known_by)
    return said, tuple(known_by), model


def _every(points: Any, all_of: Sequence[Source]) -> Any:
    """`points` with the numbers that `at: all` stands for."""
    if not isinstance(points, Mapping) or points.get("at") != "all":
        return points
    unit = validated(TypeAdapter(PointUnit), points.get("unit", "tokens"), "points.unit")
    amounts = amounts_of(unit, all_of)
    unknown = [s.name for s, amount in zip(all_of, amounts, strict=True) if amount is None]
    if unknown:
        raise GrowpointError(
            "a checkpoint of the series has no step to be named by",
            [("checkpoint", unknown[0])],
            "points={unit: tokens, at: all}",
        )
    return {"unit": unit, "at": amounts}


def _require_distinct_contents(chosen: Sequence[Source]) -> None:
    first: dict[str, Source] = {}
    for source in chosen:
        twin = first.setdefault(source.content, source)
        if twin is not source:
            raise GrowpointError(
                "two checkpoints of the series are the same, byte for byte",
                [("found", f"{twin.name}, {source.name}")],
                "leave one of them out of points.at, or name the folders of the run itself",
            )


def tokenizer(source: Source, model: Model) -> dict[str, Any]:
    """The tokenizer that a checkpoint brings along, as a corpus asks for it."""
    place = source.place
    if isinstance(place, Snapshot):
        at = {"name": place.repo, "revision": place.commit}
    else:
        at = {"name": place.path}
        if not (Path(place.path) / TOKENIZER).is_file():
            raise GrowpointError(
                "the checkpoints of the series bring no tokenizer",
                [("checkpoint", place), ("lacks", TOKENIZER)],
                "data.tokenizer={kind: pretrained, name: FOLDER, vocabulary: "
                f"{model.vocabulary}}}, or data=tokens",
            )
    return {"kind": "pretrained", "vocabulary": model.vocabulary, **at}
