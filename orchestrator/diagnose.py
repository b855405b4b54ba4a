"""growpoint inspect: what a checkpoint is, its norms by layer, and what two lineages learnt."""

import csv
import json
import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from orchestrator import lineage, opened, text, updates
from orchestrator.norms import SHOWN, Profile, profile
from orchestrator.opened import Opened
from orchestrator.slices import GROUPS
from orchestrator.store import Store, write_atomic
from orchestrator.updates import Compared, Trained
from sweeps.errors import GrowpointError
from sweeps.growth import first_occurrences

FOLDER = "inspect"
COLUMNS = {"all": "update", "original": "originals", "copy": "copies"}
# Draws one row for each layer into a folder, and returns the files it wrote.
Draw = Callable[[Sequence[dict[str, Any]], Path, str], list[Path]]


def inspect(arguments: Namespace, draw: Draw) -> int:
    """growpoint inspect: facts, norms by layer, cosines of updates; files go to `--to`."""
    words, store = _words(arguments)
    target = Path(arguments.to).expanduser()
    pairs = arguments.updates or []
    _check_asked(words, pairs)
    checkpoints = opened.opened(words, store)
    lineages = [Trained(*opened.opened(pair, store)) for pair in pairs]
    _refuse_inside(target, [*checkpoints, *(end for pair in lineages for end in pair)])
    told: dict[str, Any] = {"checkpoints": [opened.facts(each) for each in checkpoints]}
    files: list[Path] = []
    if checkpoints:
        files += _norms(checkpoints, target, draw, told, arguments.json)
    if lineages:
        files += _updates(lineages, target, told, arguments.json)
    told["files"] = [str(path) for path in files]
    if arguments.json:
        print(json.dumps(_plain(told), indent=1, allow_nan=False))
    else:
        text.out.print("\n" + "\n".join(f"wrote {path}" for path in files))
    return 0


def _words(arguments: Namespace) -> tuple[list[str], Store]:
    """Checkpoints, and the store that ids are looked up in; store=FOLDER may stand among them."""
    words, store = [], Path()
    for word in arguments.overrides:
        key, equals, value = word.partition("=")
        if equals and key == "store":
            store = Path(value).expanduser()
        else:
            words.append(word)
    return words, Store(store).check()


def _check_asked(words: Sequence[str], pairs: Sequence[Sequence[str]]) -> None:
    if not words and not pairs:
        raise GrowpointError(
            "no checkpoint is named",
            [("given", "nothing")],
            "growpoint inspect CHECKPOINT [CHECKPOINT ...]",
        )
    if len(pairs) not in (0, 2):
        raise GrowpointError(
            "updates are compared between two lineages",
            [("given", f"{len(pairs)} times --updates")],
            "growpoint inspect --updates BEFORE AFTER --updates OTHER_BEFORE OTHER_AFTER",
        )


def _refuse_inside(target: Path, checkpoints: Sequence[Opened]) -> None:
    """A file more in a checkpoint's folder would make it another checkpoint."""
    there = target.resolve()
    for each in checkpoints:
        folder = each.folder.resolve()
        if there == folder or folder in there.parents:
            raise GrowpointError(
                "nothing is written into a checkpoint",
                [("checkpoint", each.folder), ("target", target)],
                f"--to {folder.parent / FOLDER}",
            )


def _norms(
    checkpoints: Sequence[Opened], target: Path, draw: Draw, told: dict[str, Any], quiet: bool
) -> list[Path]:
    rows: list[dict[str, Any]] = []
    for each, facts in zip(checkpoints, told["checkpoints"], strict=True):
        found = profile(each.found, each.family, each.block)
        facts |= {"outside": found.outside, "not_finite": found.not_finite}
        facts["unknown_tensors"] = found.unknown
        mine = _rows(each, found)
        facts["norms"] = [{k: v for k, v in row.items() if k != "checkpoint"} for row in mine]
        rows += mine
        _warn(each, found)
        if not quiet:
            _show(facts, mine)
    return draw(rows, target, _drawn(rows))


def _drawn(rows: Sequence[dict[str, Any]]) -> str:
    """The group whose norms are drawn: experts, or what stands in their place."""
    return next((group for group in SHOWN if any(group in row for row in rows)), SHOWN[0])


def _rows(each: Opened, found: Profile) -> list[dict[str, Any]]:
    """One row for each layer, with the layer of the first source that it comes from."""
    steps, model = each.steps, each.model
    source = lineage.maps(steps, model.layers, model.experts).layers
    copies = [not original for original in first_occurrences(source)]
    return [
        {
            "checkpoint": each.name,
            "layer": layer,
            "source_layer": source[layer],
            "copy": copies[layer],
            **{group: norms[group] for group in SHOWN if group in norms},
        }
        for layer, norms in found.layers.items()
    ]


def _warn(each: Opened, found: Profile) -> None:
    for names, words in (
        (found.not_finite, "tensors have values that are not finite"),
        (found.unknown, "tensors are not known to the family"),
    ):
        if names:
            some = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            text.talk.print(f"warning: {len(names)} of {each.name}'s {words}: {some}")


def _show(facts: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    text.out.print("\n".join(opened.lines(facts)))
    groups = [group for group in SHOWN if any(group in row for row in rows)]
    is_grown = any(row["copy"] for row in rows)
    header = ["layer", *(["from"] if is_grown else []), *groups]
    body = [
        [
            str(row["layer"]),
            *([str(row["source_layer"])] if is_grown else []),
            *(_number(row.get(group)) for group in groups),
        ]
        for row in rows
    ]
    text.out.print(text.table(header, body, right=range(len(header))))
    outside = "   ".join(
        f"{group} {_number(facts['outside'][group])}"
        for group in GROUPS
        if group in facts["outside"]
    )
    text.out.print(f"  outside of layers   {outside}\n")


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-" if value is None else "nan"
    return f"{value:.4g}"


def _updates(
    pairs: Sequence[Trained], target: Path, told: dict[str, Any], quiet: bool
) -> list[Path]:
    first, second = pairs
    found = updates.compare(first, second)
    pooled, moments = updates.pooled(found.updates), updates.pooled(found.moments)
    told["updates"] = [
        {
            "group": group,
            "of": kind,
            "numbers": sums.numbers,
            "update_cosine": sums.cosine,
            "first_moment_cosine": moments[group, kind].cosine
            if (group, kind) in moments
            else math.nan,
        }
        for (group, kind), sums in pooled.items()
    ]
    told["without_first_moments"] = list(found.without_moments)
    if not quiet:
        _show_updates(pairs, found, told["updates"])
    path = target / "updates.csv"
    write_atomic(path, _csv(updates.rows(found)).encode())
    return [path]


def _show_updates(
    pairs: Sequence[Trained], found: Compared, rows: Sequence[dict[str, Any]]
) -> None:
    text.out.print("cosine of what two lineages learnt")
    for number, pair in enumerate(pairs, 1):
        text.out.print(f"  {number}   {pair.before.name} -> {pair.after.name}")
    has_copies = any(row["of"] == "copy" for row in rows)
    kinds = ("all", "original", "copy") if has_copies else ("all",)
    by_key = {(row["group"], row["of"]): row for row in rows}
    header = ["group", "numbers", *(COLUMNS[k] for k in kinds)]
    header += [] if found.without_moments else ["first moment"]
    body = []
    for group in dict.fromkeys(row["group"] for row in rows):
        whole = by_key[group, "all"]
        cosines = [
            by_key[group, k]["update_cosine"] if (group, k) in by_key else None for k in kinds
        ]
        if not found.without_moments:
            cosines.append(whole["first_moment_cosine"])
        body.append([group, text.params(whole["numbers"]), *map(_cosine, cosines)])
    text.out.print(text.table(header, body, right=range(1, len(header))))
    if found.without_moments:
        text.out.print(f"  no optimizer state in {', '.join(found.without_moments)}")


def _cosine(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:+.4f}"


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    file = StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.8g}" if isinstance(v, float) else v for k, v in row.items()})
    return file.getvalue()


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: null for what is no number."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
