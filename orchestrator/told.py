"""What the command of a recipe is told: its words and its environment, checked before it starts."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import command
from sweeps.command import CommandRecipe, Start
from sweeps.errors import GrowpointError
from sweeps.filehash import sha256
from sweeps.schema import asked
from sweeps.stages import Train

PREFIX = "GROWPOINT_"
# Those that a command is not given must not reach it from a command around growpoint either.
_VARIABLES = frozenset(PREFIX + name.upper() for name in command.VALUES)


@dataclass(frozen=True)
class Told:
    """A command line with its environment, and how it is stopped."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    start: Start


def told(
    do: Train, said: Mapping[str, Any], places: Mapping[str, object], save_seconds: float
) -> Told:
    """What to run for the phase `do`; `said` is the plan's circumstance of its recipe.

    `places` are stage, source, target, work, resume, start_tokens, corpus and metrics. Raises
    GrowpointError for files that have changed since planning, and for a program that is not there.
    """
    recipe = do.recipe
    assert isinstance(recipe, CommandRecipe)
    start = Start.model_validate(said["start"])
    _require_planned(recipe, said["files"])
    values = {**places, **_values(do, recipe), "save_seconds": f"{save_seconds:g}"}
    own = {**said["files"], **recipe.settings, command.PYTHON: sys.executable}
    words = [command.filled(w, {**values, **own}) for w in (*start.launcher, *recipe.run)]
    variables = {PREFIX + name.upper(): str(value) for name, value in values.items()}
    outer = {key: value for key, value in os.environ.items() if key not in _VARIABLES}
    environment = {**outer, **start.environment, **variables}
    require_program(words[0], environment.get("PATH", os.defpath))
    return Told(tuple(words), environment, start)


def _values(do: Train, recipe: CommandRecipe) -> dict[str, object]:
    """What of the stage a command is told; a rate that is not given stays away."""
    values: dict[str, object] = {
        "tokens": do.tokens,
        "ends": int(do.ends),
        "seed": do.seed,
        "stream": do.stream,
        "sequence_tokens": recipe.sequence_tokens,
        "batch_sequences": recipe.batch_sequences,
        "warmup_tokens": recipe.warmup_tokens,
        "schedule": json.dumps(recipe.schedule.model_dump(mode="json")),
        "settings": json.dumps(asked(recipe.settings)),
    }
    return values if recipe.lr is None else {**values, "lr": repr(recipe.lr)}


def _require_planned(recipe: CommandRecipe, paths: Mapping[str, str]) -> None:
    for name, file in recipe.files.items():
        path = Path(paths[name])
        found = f"sha256:{sha256(path)}" if path.is_file() else "nothing"
        if found != file.content:
            raise GrowpointError(
                "a file of the recipe's command has changed since the sweep was planned",
                [("file", path), ("planned", file.content), ("found", found)],
                "put the planned file back, or plan and launch again: what it trains is new",
            )


def require_program(word: str, path: str) -> None:
    """Raise GrowpointError unless a program is found on `path`, or where its full name says."""
    if os.sep in word and not Path(word).is_absolute():
        raise GrowpointError(
            "the program of the recipe's command is named relative to a folder",
            [("program", word), ("starts in", "a folder of its own for each stage")],
            f"recipe.files.program={word} 'recipe.run=[\"{{program}}\",...]'",
        )
    if shutil.which(word, path=path) is None:
        is_file = os.sep in word and Path(word).is_file()
        raise GrowpointError(
            "the program of the recipe's command is not there",
            [("program", word), ("found", "a file that may not be run" if is_file else "nothing")],
            f"chmod +x {word}" if is_file else "recipe.run=[PROGRAM,...] by its full path",
        )


def missing(recipes: Iterable[object]) -> GrowpointError | None:
    """What is wrong with the programs that commands begin with, as far as this machine can tell."""
    for recipe in recipes:
        if not isinstance(recipe, CommandRecipe):
            continue
        paths = {name: file.path for name, file in recipe.files.items()}
        own = {**paths, **recipe.settings, command.PYTHON: sys.executable}
        first = (*recipe.start.launcher, *recipe.run)[0]
        # One that is named by a value of the stage is looked for when the stage runs.
        if not own.keys() >= set(command.placeholders(first)):
            continue
        places = {**os.environ, **recipe.start.environment}.get("PATH", os.defpath)
        try:
            require_program(command.filled(first, own), places)
        except GrowpointError as error:
            return error
    return None
