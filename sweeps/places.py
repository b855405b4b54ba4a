"""Where existing checkpoints lie: folders, and revisions on the hub; nothing is written there."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sweeps.errors import GrowpointError
from sweeps.filehash import sha256
from sweeps.pattern import has_holes, match
from sweeps.schema import Description

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


# It becomes a part of paths in the hub's cache: nothing but digits may pass for one.
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Folder(Description):
    """A checkpoint folder in Hugging Face layout."""

    kind: Literal["folder"] = "folder"
    path: str

    def __str__(self) -> str:
        return self.path


class Snapshot(Description):
    """A revision of a hub repository, by the commit that it was when it was planned."""

    kind: Literal["hub"] = "hub"
    repo: str
    revision: str
    commit: Commit

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"


Place = Annotated[Folder | Snapshot, Field(discriminator="kind")]


def folders(pattern: str, named: tuple[str, ...] = ()) -> dict[str, Folder]:
    """Checkpoint folders that match `pattern`, and those `named` beside them, by name.

    Names are relative to the part of the pattern that does not vary. Raises GrowpointError if that
    part is missing, or nothing matches: saying what is there.
    """
    root, rest = _split(pattern)
    if not root.is_dir():
        raise GrowpointError(
            "the folder of the series is not there",
            [("folder", root), ("nearest", _nearest_folder(root))],
            "series.folder=FOLDER that exists",
        )
    found = {
        path.relative_to(root).as_posix(): path
        for path in (_matching(root, rest) if rest else ([] if named else [root]))
        if (path / CONFIG).is_file()
    }
    found |= {name: root / name for name in named}
    if not found:
        raise _no_match(pattern, root)
    return {name: Folder(path=str(path.resolve())) for name, path in sorted(found.items())}


def _split(pattern: str) -> tuple[Path, list[str]]:
    """The part of a pattern that does not vary, and the parts after it."""
    parts = Path(pattern).expanduser().parts
    fixed = next((i for i, part in enumerate(parts) if has_holes(part)), len(parts))
    return Path(*parts[:fixed]), list(parts[fixed:])


def _nearest_folder(path: Path) -> Path:
    return next((parent for parent in path.resolve().parents if parent.is_dir()), Path("/"))


def _matching(root: Path, rest: list[str]) -> Iterator[Path]:
    """Folders below `root` whose whole relative path matches; only fitting ones are entered."""

    def walk(folder: Path, depth: int) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            done = "/".join(rest[: depth + 1])
            if not path.is_dir() or match(done, path.relative_to(root).as_posix()) is None:
                continue
            if depth + 1 == len(rest):
                yield path
            else:
                yield from walk(path, depth + 1)

    yield from walk(root, 0)


def _no_match(pattern: str, root: Path) -> GrowpointError:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    there = ", ".join(names[:8]) + (f", ... ({len(names)})" if len(names) > 8 else "")
    return GrowpointError(
        "no checkpoint matches the pattern of the series",
        [
            ("pattern", pattern),
            ("needs", f"folders with a {CONFIG}"),
            ("there", there or "nothing"),
        ],
        f"series.folder='\"{root}/NAME_{{step}}\"'",
    )


def config_in(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder. Raises GrowpointError if there is none to be read."""
    try:
        value = json.loads((folder / CONFIG).read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        raise GrowpointError(
            "a checkpoint of the series cannot be read",
            [("file", folder / CONFIG), ("says", getattr(error, "strerror", None) or error)],
            "name checkpoints in Hugging Face layout: config.json beside *.safetensors",
        ) from error
    return value


def weight_names(folder: Path) -> list[str]:
    """Names of the safetensors files of a checkpoint, whether or not they are all there.

    Raises GrowpointError for an index that is damaged or leads out of the folder.
    """
    if not (folder / INDEX).is_file():
        return [SINGLE]
    try:
        names = {
            str(name) for name in json.loads((folder / INDEX).read_bytes())["weight_map"].values()
        }
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("its weight_map is empty or points out of the folder")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise GrowpointError(
            "a file of the checkpoint is damaged",
            [("file", folder / INDEX), ("says", error)],
            "fetch or make the checkpoint again",
        ) from error
    return sorted(names)


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a configuration and all weight files that it names."""
    names = [CONFIG, *weight_names(folder)] if folder.is_dir() else [CONFIG]
    return all((folder / name).is_file() for name in names)


def require_whole(folder: Path, place: object) -> None:
    """Raise GrowpointError for a checkpoint without all its safetensors: pickles are never read."""
    lacks = [name for name in weight_names(folder) if not (folder / name).is_file()]
    if not lacks:
        return
    pickled = sorted(path.name for path in folder.glob("*.bin") if path.name.startswith("pytorch"))
    if pickled:
        load = f"AutoModelForCausalLM.from_pretrained('{folder}', dtype='auto')"
        raise GrowpointError(
            "the weights of a checkpoint are pickled, and only safetensors are read",
            [("checkpoint", place), ("found", ", ".join(pickled[:4]))],
            'python -c "from transformers import AutoModelForCausalLM; '
            f"{load}.save_pretrained('{folder}-safetensors')\"",
        )
    raise GrowpointError(
        "a file of a checkpoint of the series is missing",
        [("checkpoint", place), ("lacks", ", ".join(lacks[:4]))],
        "fetch or make the checkpoint again",
    )


def content(folder: Path, place: object) -> str:
    """What names a folder's checkpoint wherever it lies: SHA-256 over its weights and config.

    Large files that have not changed since are not read again. Raises GrowpointError for a
    checkpoint that is not whole.
    """
    require_whole(folder, place)
    names = [CONFIG, *weight_names(folder)]
    return content_of({name: sha256(folder / name) for name in names})


def content_of(hashes: Mapping[str, str]) -> str:
    """The same from the SHA-256 of config.json and of each weight file, by name."""
    lines = "".join(f"{found}  {name}\n" for name, found in sorted(hashes.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
