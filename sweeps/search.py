"""Where the files of a configuration are found: conf/, a folder of the user's own, a sweep file."""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

import conf
from sweeps.errors import GrowpointError, nearest
from sweeps.family import CONFIG_FOLDER_VARIABLE

# Groups whose choice is a mapping under the group's own key.
WHOLE = ("model", "recipe", "data", "suite", "cluster")

# Where a sweep's file lies among the sweeps while it is read.
FILE = "file"


def use_folder(folder: Path) -> None:
    """Look into a conf/ tree of the user's own first. Raises GrowpointError if it is not there."""
    if not folder.is_dir():
        raise GrowpointError(
            f"there is no configuration folder {folder}",
            [("looked at", folder.resolve())],
            "--config-dir FOLDER, with a folder sweep/, model/ or family/ in it",
        )
    os.environ[CONFIG_FOLDER_VARIABLE] = str(folder.resolve())


def search_path(extra: Path | None) -> list[Path]:
    own = os.environ.get(CONFIG_FOLDER_VARIABLE)
    return [path for path in (extra, Path(own) if own else None, conf.FOLDER) if path]


def known(group: str, search: Sequence[Path] | None = None) -> list[str]:
    """Names of the choices of a config group, such as all sweeps."""
    folders = search_path(None) if search is None else search
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def locate(sweep: str, scratch: Path) -> tuple[str, list[Path]]:
    """The sweep's name within the search path, and that path; a file is found wherever it lies."""
    path = Path(sweep)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            shipped = path.stem in known("sweep")
            shown = f"growpoint plan {path.stem}" if shipped else "ls *.yaml"
            raise GrowpointError(f"there is no sweep file {sweep}", [], shown)
        # In a folder of its own: Hydra would rather take a shipped sweep of the same name.
        (scratch / "sweep" / FILE).mkdir(parents=True)
        (scratch / "sweep" / FILE / f"{path.stem}.yaml").write_text(_sweep_file(path))
        return f"{FILE}/{path.stem}", search_path(scratch)
    search = search_path(None)
    names = known("sweep", search)
    if sweep not in names:
        raise GrowpointError(
            f"there is no sweep `{sweep}`",
            [("known", ", ".join(names))],
            f"growpoint plan {nearest(sweep, names)}",
        )
    return sweep, search


def _sweep_file(path: Path) -> str:
    """Text of a sweep's file, read as a configuration of its own wherever it lies.

    One that says everything, such as a recorded config.yaml, is not mixed with the defaults:
    keys of another kind of data or cluster would linger. Raises GrowpointError if it is no YAML.
    """
    try:
        text = path.read_text()
        said = yaml.safe_load(text) or {}
        if not isinstance(said, dict):
            raise yaml.YAMLError("it holds no keys")
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise unreadable(str(path), error) from error
    lines = [] if "@package" in text else ["# @package _global_"]
    if "defaults" not in said and said.keys() >= {*WHOLE, "growth", "axes"}:
        groups = [group for group in (*WHOLE, "tracker", "growth") if group in said]
        lines += ["defaults:", *(f"  - override /{group}: null" for group in groups)]
    return "\n".join([*lines, text])


def unreadable(name: str, error: Exception) -> GrowpointError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return GrowpointError(
        f"the configuration in {name} cannot be read",
        [("says", line) for line in lines[:4]],
        "compare it with a file of conf/sweep, such as conf/sweep/demo.yaml",
    )


def known_choice(group: str, choice: str, search: Sequence[Path]) -> str:
    names = known(group, search)
    if choice not in names:
        raise GrowpointError(
            f"there is no {group} `{choice}`",
            [("known", ", ".join(names))],
            f"{group}={nearest(choice, names)}",
        )
    return choice
