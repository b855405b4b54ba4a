"""`growpoint series`: the checkpoints that a series has, and how much is sunk into each."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator import text
from sweeps import adoption, hub, search
from sweeps.errors import GrowpointError, nearest
from sweeps.model import Model
from sweeps.overrides import values
from sweeps.places import Snapshot
from sweeps.series import Series, Source, chinchilla_flops


def show(arguments: Namespace) -> int:
    """growpoint series."""
    if arguments.config_dir:
        search.use_folder(Path(arguments.config_dir))
    if not (arguments.series or arguments.overrides):
        return _show_known(arguments.json)
    series = asked(arguments.series, arguments.overrides)
    found = adoption.listed(series)
    for name in arguments.fetch or ():
        _fetch(_named(found, name))
    model = _model(found)
    if arguments.json:
        print(json.dumps(to_json(series, found, model), indent=1))
    else:
        _print(series, found, model)
    return 0


def asked(name: str | None, overrides: Sequence[str]) -> Series:
    """The series of a name or file, with the keys of a command line set on it."""
    words = [*([name] if name and "=" in name else []), *overrides]
    keys: dict[str, Any] = adoption.named(name) if name and "=" not in name else {}
    for key, value in values(words):
        keys[key.removeprefix("series.")] = value
    return adoption.described(keys)


def _show_known(as_json: bool) -> int:
    names = search.known("series")
    if as_json:
        print(json.dumps(names))
        return 0
    rows = [[name, _summary(adoption.described(name))] for name in names]
    text.out.print(text.table(["series", "checkpoints of"], rows))
    text.out.print("\nnext: growpoint series NAME, or: growpoint series 'folder=\"FOLDER/{step}\"'")
    return 0


def _summary(series: Series) -> str:
    return f"{series.where}   {series.title}".rstrip()


def _named(found: Sequence[Source], name: str) -> Source:
    names = [source.name for source in found]
    if name not in names:
        raise GrowpointError(
            f"the series has no checkpoint `{name}`",
            [("checkpoints", len(names)), ("first", names[0]), ("last", names[-1])],
            f"--fetch {nearest(name, names)}",
        )
    return found[names.index(name)]


def _fetch(source: Source) -> None:
    if isinstance(source.place, Snapshot):
        text.talk.print(f"fetching {source.place}")
        hub.fetch(source.place)


def _model(found: Sequence[Source]) -> Model | None:
    """Sizes by the first configuration that can be had: those at hand first; None without any."""
    here = [source for source in found if adoption.is_here(source)]
    try:
        return adoption.model_of((here or list(found))[0])
    except GrowpointError as error:
        text.talk.print(f"no FLOPs: {error.problem}")
        return None


def to_json(series: Series, found: Sequence[Source], model: Model | None) -> dict[str, Any]:
    """The listing as data: FLOPs and multiples are null where no configuration can be had."""
    return {
        "series": series.name or series.where,
        "where": series.where,
        "model": model.model_dump(mode="json") if model else None,
        "chinchilla_flops": chinchilla_flops(model) if model else None,
        "checkpoints": [_row(source, model) for source in found],
    }


def _row(source: Source, model: Model | None) -> dict[str, Any]:
    flops = source.sunk_flops(model) if model else source.stated_flops
    return {
        "checkpoint": source.name,
        "step": source.step,
        "tokens": source.tokens,
        "sunk_flops": flops,
        "chinchilla": flops / chinchilla_flops(model) if model and flops is not None else None,
        "phase": source.phase,
        "loss": source.loss,
        "here": adoption.is_here(source),
        "place": source.place.model_dump(mode="json"),
    }


def _print(series: Series, found: Sequence[Source], model: Model | None) -> None:
    text.out.print(f"{series.name or 'series'}   {_summary(series)}\n")
    rows = [_cells(_row(source, model)) for source in found]
    columns = ["checkpoint", "step", "tokens", "sunk FLOPs", "x Chinchilla", "phase", "loss", ""]
    text.out.print(text.table(columns, rows, right=range(1, 5)))
    if model:
        optimum = text.flops(chinchilla_flops(model))
        text.out.print(f"\n  x Chinchilla: multiples of 6 N x 20 N = {optimum} FLOPs, N active.")


def _cells(row: dict[str, Any]) -> list[str]:
    here = "here" if row["here"] else "to fetch" if row["place"]["kind"] == "hub" else "missing"
    flops, multiple, loss = row["sunk_flops"], row["chinchilla"], row["loss"]
    return [
        row["checkpoint"],
        "-" if row["step"] is None else str(row["step"]),
        str(row["tokens"]),
        # As many digits as points.at needs to name it.
        "-" if flops is None else f"{flops:.4g}",
        "-" if multiple is None else f"{multiple:.3g}",
        row["phase"] or "-",
        "-" if loss is None else f"{loss:g}",
        here,
    ]
