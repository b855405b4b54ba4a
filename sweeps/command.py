"""A recipe that a command of the user's own carries out: what names it, and how it is started."""

import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from sweeps.errors import GrowpointError, nearest
from sweeps.filehash import sha256
from sweeps.recipe import HIGHEST_LR, Branch, Constant, Cosine, Recipe, Wsd
from sweeps.schema import Description, asked, canonical, digest
from sweeps.steps import Batches, batches

# What a command is told, by placeholders in its words and as environment variables GROWPOINT_*.
VALUES = (
    "stage",
    "source",
    "target",
    "work",
    "resume",
    "start_tokens",
    "tokens",
    "ends",
    "seed",
    "corpus",
    "stream",
    "sequence_tokens",
    "batch_sequences",
    "lr",
    "warmup_tokens",
    "schedule",
    "metrics",
    "settings",
    "save_seconds",
)
# The interpreter that runs growpoint: a word, and no variable.
PYTHON = "python"


def _word(value: object) -> object:
    """YAML reads `8` as a number; on a command line it is a word."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


Word = Annotated[str, BeforeValidator(_word)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Own(Description):
    """The command's own schedule: its end may shape all of it, so nothing is shared."""

    kind: Literal["own"] = "own"

    def free_until(self, end_tokens: int) -> int:
        """Tokens of a phase during which its end does not matter yet."""
        return 0


class File(Description):
    """A file that a command runs, by its content; where it lies is no part of it."""

    content: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    path: str = ""


class Start(Description):
    """How a command is started and stopped here: circumstance, never in a stage's text."""

    launcher: tuple[Word, ...] = ()
    environment: dict[Name, Word] = Field(default_factory=dict)
    grace_seconds: PositiveFloat = 60.0
    signal: Literal["TERM", "INT", "USR1", "USR2"] = "TERM"

    @model_validator(mode="after")
    def _no_variable_of_ours(self) -> "Start":
        ours = [name for name in self.environment if name.startswith("GROWPOINT_")]
        if ours:
            raise ValueError(f"{ours[0]} is given to every command by growpoint itself")
        return self


class CommandRecipe(Description):
    """How a phase of training moves the weights: as a command does, told these values.

    What growpoint cannot see, `version` stands for: raise it when the command comes to mean
    something else. `files` are named in `run` by `{name}`, and known by their content.
    """

    kind: Literal["command"] = "command"
    run: Annotated[tuple[Word, ...], Field(min_length=1)]
    version: PositiveInt = 1
    files: dict[Name, File] = Field(default_factory=dict)
    settings: dict[Name, bool | int | float | str | None] = Field(default_factory=dict)
    lr: Annotated[float, Field(gt=0, le=HIGHEST_LR)] | None = None
    schedule: Annotated[Own | Constant | Wsd | Cosine, Field(discriminator="kind")] = Own()
    warmup_tokens: Annotated[int, Field(ge=0)] = 0
    batch_sequences: PositiveInt = 16
    sequence_tokens: Annotated[int, Field(ge=2)] = 128
    start: Start = Start()

    @field_validator("files", mode="before")
    @classmethod
    def _by_content(cls, given: Any) -> Any:
        """Paths become what lies there now; what comes from a stage.json is content already."""
        if not isinstance(given, Mapping):
            return given
        return {
            name: _found(str(name), path) if isinstance(path, str) else path
            for name, path in given.items()
        }

    @model_validator(mode="after")
    def _words_are_known(self) -> "CommandRecipe":
        own = [*self.files, *self.settings]
        twice = [name for name in own if name in (*VALUES, PYTHON) or own.count(name) > 1]
        if twice:
            raise GrowpointError(
                f"the recipe's command cannot tell two values named `{twice[0]}` apart",
                [("given by growpoint", ", ".join((*VALUES, PYTHON)))],
                "give the entry of recipe.files or recipe.settings another name",
            )
        absent = ["lr"] if self.lr is None else []
        known = [name for name in (*VALUES, PYTHON, *own) if name not in absent]
        for word in (*self.start.launcher, *self.run):
            _require_known(word, known)
        return self

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch_sequences * self.sequence_tokens

    @property
    def batches(self) -> Batches:
        """The batches of a phase, from its beginning."""
        return batches(self.batch_sequences, self.sequence_tokens, (), ())

    @property
    def identity(self) -> "CommandRecipe":
        """The same without circumstance: what enters a stage."""
        files = {name: File(content=file.content) for name, file in self.files.items()}
        return self.model_copy(update={"files": files, "start": Start()})

    @property
    def program(self) -> str:
        """Names what is run, whatever values it is told: finds its circumstance in a plan."""
        known = self.identity
        parts = {"run": known.run, "version": known.version, "files": known.files}
        return digest(canonical(asked(parts)))

    @property
    def circumstance(self) -> dict[str, Any]:
        """What a job needs besides the stage, as plain JSON data."""
        paths = {name: file.path for name, file in self.files.items()}
        return {"start": self.start.model_dump(mode="json"), "files": paths}


def _found(name: str, asked_path: str) -> File | str:
    # A value that the user has yet to give is reported as such elsewhere.
    if asked_path == "???":
        return asked_path
    path = Path(asked_path).expanduser().absolute()
    if not path.is_file():
        raise GrowpointError(
            "a file of the recipe's command is not there",
            [("file", path), ("found", "a folder" if path.is_dir() else "nothing")],
            f"recipe.files.{name}=FILE",
        )
    return File(content=f"sha256:{sha256(path)}", path=str(path))


def _require_known(word: str, known: Iterable[str]) -> None:
    names = list(known)
    for name in placeholders(word):
        if name not in names:
            close = nearest(name, names)
            raise GrowpointError(
                f"the recipe's command has a placeholder that is not known: {{{name}}}",
                [("word", word), ("known", ", ".join(names))],
                f"{{{close}}}; for braces that are meant as such: {{{{{name}}}}}",
            )


def placeholders(word: str) -> list[str]:
    """Names in braces in a word. Raises GrowpointError for braces that do not match."""
    try:
        parsed = list(string.Formatter().parse(word))
    except ValueError as error:
        raise _braces(word, str(error)) from error
    if any(spec or conversion for _, _, spec, conversion in parsed):
        raise _braces(word, "a placeholder is a name alone")
    return [name for _, name, _, _ in parsed if name is not None]


def _braces(word: str, says: str) -> GrowpointError:
    return GrowpointError(
        "a word of the recipe's command has braces that cannot be read",
        [("word", word), ("says", says)],
        "double braces that are meant as such: {{ and }}",
    )


def filled(word: str, values: Mapping[str, object]) -> str:
    """A word with its placeholders replaced."""
    parsed = string.Formatter().parse(word)
    return "".join(
        text + ("" if name is None else str(values[name])) for text, name, _, _ in parsed
    )


def _kind(value: Any) -> str:
    """A recipe without a kind is growpoint's own: it had none before there were commands."""
    kind = value.get("kind", "adamw") if isinstance(value, Mapping) else getattr(value, "kind", "")
    return str(kind)


AnyRecipe = Annotated[
    Annotated[Recipe, Tag("adamw")] | Annotated[CommandRecipe, Tag("command")],
    Discriminator(_kind),
]


def named(recipe: Recipe | CommandRecipe) -> Recipe | CommandRecipe:
    """A recipe as it enters a stage: without circumstance."""
    return recipe.identity if isinstance(recipe, CommandRecipe) else recipe


def branched(branch: Branch, trunk: Recipe | CommandRecipe) -> Recipe | CommandRecipe:
    """The recipe of a branch. Raises GrowpointError for what a command cannot be asked for."""
    if isinstance(trunk, Recipe):
        return branch.recipe(trunk)
    if branch.optimizer_state == "carried":
        raise GrowpointError(
            "the optimizer state of a command cannot be carried over",
            [
                ("recipe", trunk.run[0]),
                ("because", "its state is unknown, and cannot be grown"),
            ],
            "branch.optimizer_state=fresh",
        )
    if trunk.lr is None and branch.lr_ratio != 1:
        raise GrowpointError(
            "branch.lr_ratio has nothing to multiply: the recipe's command is given no rate",
            [("branch.lr_ratio", f"{branch.lr_ratio:g}")],
            "recipe.lr=PEAK, which the command then has to follow",
        )
    warmup = trunk.warmup_tokens if branch.warmup_tokens is None else branch.warmup_tokens
    changed = {"warmup_tokens": warmup, "schedule": branch.schedule or trunk.schedule}
    peak = None if trunk.lr is None else trunk.lr * branch.lr_ratio
    return trunk.model_copy(update={**changed, "lr": peak})
