"""Checkpoints opened for a look: found by folder or stage, read from headers alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import checkpoint, lineage, text
from orchestrator.headers import Entry
from orchestrator.lineage import Step
from orchestrator.store import Store
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Family
from sweeps.model import Model, from_config, parameters


@dataclass(frozen=True)
class Opened:
    """A checkpoint, by what its headers and its lineage say; no weight has been read."""

    name: str
    folder: Path
    config: dict[str, Any]
    model: Model
    found: dict[str, Entry]
    steps: tuple[Step, ...]

    @property
    def family(self) -> Family:
        """How its tensors are named."""
        return families.load(self.model.family)

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns that share a scale, in quantised checkpoints."""
        said = self.config.get("quantization_config")
        size = said.get("weight_block_size") if isinstance(said, dict) else None
        return (int(size[0]), int(size[1])) if isinstance(size, list) and size[1:] else (128, 128)


def locate(word: str, store: Store) -> Path:
    """The checkpoint folder that a word names: a folder, a stage's folder, or a stage's id.

    Raises GrowpointError if it names none.
    """
    folder = Path(word).expanduser()
    if not folder.is_dir() and len(folder.parts) == 1:
        folder = store.run(store.find(word))
    inner = folder / "checkpoint"
    if inner.is_dir() and not (folder / checkpoint.CONFIG).is_file():
        return inner
    if (folder / "stage.json").is_file() and not (folder / checkpoint.CONFIG).is_file():
        raise GrowpointError(
            f"{word} has no checkpoint",
            [("stage", folder.name), ("found", "no folder `checkpoint`")],
            "wait until the stage is done, or name the stage before it",
        )
    return folder


def opened(words: Sequence[str], store: Store) -> list[Opened]:
    """Checkpoints by their words, each under a name of its own.

    Raises GrowpointError for one that is missing, not whole, or of no known family.
    """
    folders = [locate(word, store) for word in words]
    made = []
    for folder, name in zip(folders, _names(folders), strict=True):
        config = checkpoint.read_config(folder)
        model, found = from_config(config), checkpoint.entries(folder)
        made.append(Opened(name, folder, config, model, found, lineage.steps(folder)))
    return made


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell all of them apart; a stage goes by its id."""
    parts = [folder.resolve().parts for folder in folders]
    parts = [each[:-1] if each[-1:] == ("checkpoint",) else each for each in parts]
    for length in range(1, max(map(len, parts), default=1)):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names if parts else []


def facts(each: Opened) -> dict[str, Any]:
    """What a checkpoint is, as plain JSON data."""
    model, counts = each.model, parameters(each.model)
    dtypes = Counter[str]()
    for entry in each.found.values():
        dtypes[entry.dtype] += entry.end - entry.start
    return {
        "name": each.name,
        "folder": str(each.folder),
        "family": model.family,
        "layers": model.layers,
        "hidden": model.hidden,
        "experts": model.experts,
        "top_k": model.top_k,
        "parameters": counts.total,
        "active_parameters": counts.active,
        "bytes_by_dtype": dict(dtypes.most_common()),
        "lineage": [_told(step) for step in each.steps],
        **_maps(each),
    }


def _told(step: Step) -> dict[str, Any]:
    return {
        "source": step.source,
        "source_sha256": step.source_sha256,
        "growth": [operator.label for operator in step.operators],
        "seed": step.seed,
    }


def _maps(each: Opened) -> dict[str, Any]:
    if not each.steps:
        return {}
    found = lineage.maps(each.steps, each.model.layers, each.model.experts)
    return {"layer_map": list(found.layers), "expert_map": list(found.experts)}


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Facts as they are printed."""
    counts = f"{text.params(told['parameters'])} parameters"
    active = f"{text.params(told['active_parameters'])} active"
    sizes = f"{told['layers']} layers, {told['experts']} experts, top-{told['top_k']}"
    yield f"{told['name']}   {told['family']}, {sizes}, {counts}, {active}"
    stored = ", ".join(f"{_bytes(size)} {name}" for name, size in told["bytes_by_dtype"].items())
    yield f"  stored    {stored}"
    for step in told["lineage"]:
        sha256 = f" (sha256 {step['source_sha256'][:16]})" if step["source_sha256"] else ""
        growth = f"{' + '.join(step['growth'])}, seed {step['seed']}"
        yield f"  grown     {growth}, from {step['source']}{sha256}"
    for word in ("layer", "expert"):
        source = told.get(f"{word}_map", ())
        if lineage.is_copied(source):
            first, *more = lineage.drawn(source)
            yield f"  {word + 's':<9} {first}"
            yield from (f"  {'':<9} {line}" for line in more)


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"
