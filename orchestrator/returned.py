"""What a command leaves behind, held against what it was asked for."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator import checkpoint, growth_check, model_class
from orchestrator.store import write_atomic
from sweeps.errors import GrowpointError
from sweeps.model import Model, all_settings, from_config
from sweeps.stages import Train

# Endings under which frameworks write pickles, and how a pickle, alone or in a zip, begins.
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".distcp", ".joblib"}
MAGIC = (b"PK\x03\x04", *(bytes([0x80, version]) for version in range(2, 6)))
SHOWN = 8


def require(folder: Path, source: Path, stop: Callable[[], bool] = lambda: False) -> None:
    """Raise GrowpointError unless `folder` holds the network of `source`, trained on.

    Plain files alone, no pickle among them; whole safetensors in Hugging Face layout; the sizes and
    settings of the source's config.json; the tensors of its model class; finite numbers.
    """
    _require_plain(folder)
    try:
        found = checkpoint.entries(folder)
        config = checkpoint.read_config(folder)
    except GrowpointError as error:
        raise _refused("the command left no whole checkpoint", error) from error
    _require_same(from_config(config), from_config(checkpoint.read_config(source)))
    shapes = {name: entry.shape for name, entry in found.items()}
    try:
        misfits = model_class.mismatches(shapes, config)
    except GrowpointError as error:
        raise _refused("the command left a checkpoint that cannot be loaded", error) from error
    if misfits:
        raise GrowpointError(
            "the command left a checkpoint that does not fit its model class",
            [
                *(("tensor", line) for line in misfits[:SHOWN]),
                ("in all", f"{len(misfits)} tensors"),
            ],
            "write all weights, under the names that save_pretrained gives them",
        )
    broken = growth_check.not_finite(folder, stop)
    if broken:
        raise GrowpointError(
            "the command left weights that are not finite",
            [("tensors", ", ".join(broken[:4])), ("in all", f"{len(broken)} tensors")],
            "lower recipe.lr, or lengthen recipe.warmup_tokens",
        )


def _refused(problem: str, error: GrowpointError) -> GrowpointError:
    help = "write it with save_pretrained into the folder of GROWPOINT_TARGET"
    return GrowpointError(f"{problem}: {error.problem}", error.evidence, help)


def _require_plain(folder: Path) -> None:
    """Raise GrowpointError for links, which lose what they lead to, and for pickles, which run."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise GrowpointError(
                "the command left something else than plain files",
                [("found", path.relative_to(folder))],
                "copy the file into the folder of GROWPOINT_TARGET",
            )
        if path.is_file() and _is_pickle(path):
            raise GrowpointError(
                "the command left a file that may be a pickle, and a pickle can run any code",
                [("found", path.relative_to(folder))],
                "write weights as safetensors, and state of its own into GROWPOINT_WORK",
            )


def _is_pickle(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return False
    with path.open("rb") as file:
        return path.suffix in PICKLES or file.read(4).startswith(MAGIC)


def _require_same(found: Model, wanted: Model) -> None:
    pairs = [(key, getattr(found, key), getattr(wanted, key)) for key in Model.model_fields]
    pairs = [pair for pair in pairs if pair[0] not in ("settings", "family_digest")]
    mine, theirs = all_settings(found), all_settings(wanted)
    pairs += [(key, mine.get(key), theirs.get(key)) for key in sorted({*mine, *theirs})]
    differ = [(key, f"{now}, not {was}") for key, now, was in pairs if now != was]
    if differ:
        raise GrowpointError(
            "the command left another network than it was given",
            differ[:SHOWN],
            "start from GROWPOINT_SOURCE, and keep its config.json",
        )


def metrics(path: Path, do: Train, said: Sequence[tuple[str, object]]) -> dict[str, Any]:
    """The last line of metrics.jsonl, which is put in order: of repeated tokens the last count.

    Raises GrowpointError if there is none, or if it is not at the phase's end; `said` is what the
    command itself has said last.
    """
    last = in_order(path)
    if last is None:
        raise GrowpointError(
            "the command has written no metrics",
            [("file", path), ("needs", '{"tokens": TOKENS, "loss": LOSS} on lines of their own')],
            "write them to the file of GROWPOINT_METRICS: docs/trainers.md",
        )
    batch = do.recipe.batch_tokens
    if not do.tokens <= last["tokens"] < do.tokens + batch:
        raise GrowpointError(
            "the command has not trained for as many tokens as it was asked to",
            [("asked", do.tokens), ("metrics say", last["tokens"]), *said],
            "train for GROWPOINT_TOKENS from the phase's beginning, and log the last step",
        )
    if not math.isfinite(last["loss"]):
        raise GrowpointError(
            "training diverged: the last loss is not finite",
            [("tokens", last["tokens"]), ("loss", last["loss"])],
            "lower recipe.lr, or lengthen recipe.warmup_tokens",
        )
    return last


def in_order(path: Path) -> dict[str, Any] | None:
    """The last line with tokens and loss, after repeated and torn lines are removed.

    An attempt that was killed may have told of steps that the next one took again. Lines that say
    something else stay where they are.
    """
    kept: list[bytes] = []
    last, lowest = None, math.inf
    for line, value in reversed(list(_lines(path))):
        if value is not None and value["tokens"] >= lowest:
            continue
        if value is not None:
            last, lowest = last or value, value["tokens"]
        kept.insert(0, line)
    if path.is_file() and b"".join(kept) != path.read_bytes():
        write_atomic(path, b"".join(kept))
    return last


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if not line.endswith(b"\n"):
            line += b"\n"
        usable = isinstance(value, dict) and all(
            isinstance(value.get(key), int | float) for key in ("tokens", "loss")
        )
        yield line, value if usable else None
