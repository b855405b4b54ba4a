"""A user's own folder of lm-evaluation-harness tasks: what it defines, and a name for its content.

The harness itself is not needed to read it: its YAML is, with functions left as words.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sweeps.errors import GrowpointError
from sweeps.filehash import sha256
from sweeps.suite import Suite

LEFT_OUT = {"__pycache__", ".ipynb_checkpoints"}


class Definition(NamedTuple):
    """A task or group of a folder, its file, and the data that it reads, from absolute paths.

    `data` are the keys `dataset_path` and `dataset_kwargs` as far as they name local files.
    """

    name: str
    path: Path
    data: dict[str, Any]


class _Reader(yaml.SafeLoader):
    """Reads tasks without importing what they call."""


_Reader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix} {node.value}")


def known(suite: Suite) -> Suite:
    """The suite with the content of its tasks' folder. Raises GrowpointError if that is unsound."""
    content = content_of(Path(suite.include_path)) if suite.include_path else None
    place = suite.include_path and str(Path(suite.include_path).expanduser().resolve())
    return suite.model_copy(update={"include_path": place, "include_content": content})


def content_of(folder: Path) -> str:
    """SHA-256 over all files of a folder of tasks, and over data outside of it that tasks name.

    Raises GrowpointError if a task names a file that is not there.
    """
    folder = folder.expanduser().resolve()
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    for definition in definitions(folder):
        outside = [path for path in _named(definition) if not path.is_relative_to(folder)]
        found |= {f"{definition.name}: {path.name}": path for path in outside}
    lines = "".join(f"{sha256(path)}  {name}\n" for name, path in sorted(found.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise GrowpointError(
            "the folder of the suite's tasks is not there",
            [("looked at", folder)],
            "suite.include_path=FOLDER, with a .yaml file for each task",
        )
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        hidden = any(part in LEFT_OUT or part.startswith(".") for part in inner)
        if path.is_file() and not hidden:
            yield path


def definitions(folder: Path) -> list[Definition]:
    """The tasks and groups of a folder, whose YAML may include other files.

    Raises GrowpointError for a file that cannot be read.
    """
    folder, found = folder.expanduser().resolve(), []
    for path in _files(folder):
        keys = _keys(path) if path.suffix == ".yaml" else {}
        name = keys.get("group", keys.get("task"))
        if isinstance(name, str):
            found.append(Definition(name, path, _data(path, keys)))
    return found


def _keys(path: Path) -> dict[str, Any]:
    try:
        keys = yaml.load(path.read_text(encoding="utf-8"), Loader=_Reader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GrowpointError(
            "a file of the suite's tasks cannot be read",
            [("file", path), *(("says", line) for line in str(error).splitlines()[:4])],
            "correct it, or take it out of the folder",
        ) from error
    return keys if isinstance(keys, dict) else {}


def _data(path: Path, keys: Mapping[str, Any], seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Local data of a task: its own keys, or else those of the files that it includes."""
    found: dict[str, Any] = {}
    included = keys.get("include", [])
    for name in included if isinstance(included, list) else [included]:
        other = (path.parent / str(name)).resolve()
        if other.is_file() and other not in (path, *seen):
            found |= _data(other, _keys(other), (*seen, path))
    if isinstance(keys.get("dataset_kwargs"), dict):
        given = keys["dataset_kwargs"]
        local = (
            {"data_files": _absolute(given["data_files"], path)} if given.get("data_files") else {}
        )
        found["dataset_kwargs"] = {**given, **local}
    place = keys.get("dataset_path")
    if isinstance(place, str):
        found.pop("dataset_path", None)
        if "/" in place and (path.parent / place).is_dir():
            found["dataset_path"] = str((path.parent / place).resolve())
    return found


def _absolute(value: Any, path: Path) -> Any:
    """File names as they are from everywhere: those in a task's YAML are relative to it."""
    if isinstance(value, Mapping):
        return {key: _absolute(each, path) for key, each in value.items()}
    if isinstance(value, list):
        return [_absolute(each, path) for each in value]
    # What has a scheme is the hub's or the web's.
    return value if "://" in str(value) else str(path.parent / str(value))


def _named(definition: Definition) -> Iterator[Path]:
    """Files of a task's data. Raises GrowpointError if one is missing."""
    pending = [definition.data.get("dataset_kwargs", {}).get("data_files", [])]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping | list):
            pending += value.values() if isinstance(value, Mapping) else value
        elif "://" not in value:
            files = _matching(Path(value))
            if not files:
                raise GrowpointError(
                    f"a data file of the task `{definition.name}` is not there",
                    [("task", definition.path), ("looked at", value)],
                    "put it there, or correct data_files: names are relative to the task's file",
                )
            yield from files


def _matching(path: Path) -> list[Path]:
    if path.is_file():
        return [path.resolve()]
    found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return sorted(each.resolve() for each in found if each.is_file())
