"""A phase of training on disk: where it stands, what it can resume from, its metrics."""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from orchestrator import checkpoint, models, moments
from orchestrator.optimizer import Optimizer
from orchestrator.store import read_json, unwritable, write_atomic, write_json
from sweeps.errors import GrowpointError
from sweeps.schema import asked
from sweeps.stages import Train

logger = logging.getLogger(__name__)
FILE = "training.json"
# In `partial`, from the rewinding until a checkpoint knows of it.
SKIPPED = "skipped.json"
FORMAT = 1


@dataclass(frozen=True)
class Interval:
    """Steps since the last line of metrics.jsonl: how many, and the sums of their losses."""

    steps: int = 0
    loss: float = 0.0
    router_loss: float | None = None

    def plus(self, loss: float, router_loss: float | None) -> "Interval":
        """One step more."""
        router = None if router_loss is None else (self.router_loss or 0.0) + router_loss
        return Interval(self.steps + 1, self.loss + loss, router)


@dataclass(frozen=True)
class Position:
    """How far a phase is: trained tokens, seconds they took, loss of the last step.

    `unsaid` is what the next line of metrics.jsonl has to cover besides the steps to come;
    `skipped` says after how many tokens a batch was, or is to be, read over without an update.
    """

    tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None
    folder: Path | None = None
    unsaid: Interval = Interval()
    skipped: tuple[int, ...] = ()


def beginning(do: Train, partial: Path, resume: Iterable[Path] = ()) -> Position:
    """Where a phase goes on: the furthest whole checkpoint, and what is to be skipped after it."""
    at = furthest(do, (*resume, partial))
    noted = _noted(partial)
    # What lies behind a checkpoint it knows best: another sweep may have been spared the skip.
    if at.skipped or noted is None or noted < at.tokens:
        return at
    return replace(at, skipped=(noted,))


def skip(partial: Path, tokens: int) -> None:
    """Note that the batch after so many tokens is to be read over, whatever ends this process."""
    write_json(partial / SKIPPED, {"tokens": tokens})


def _noted(partial: Path) -> int | None:
    try:
        return int((read_json(partial / SKIPPED) or {})["tokens"])
    except (KeyError, TypeError, ValueError, GrowpointError):
        return None


def furthest(do: Train, candidates: Iterable[Path]) -> Position:
    """The furthest whole checkpoint of this very phase; position 0 if there is none.

    A candidate is a checkpoint, or a folder of them such as `partial`. Damaged ones are passed
    over with a warning: the phase then repeats more of its work, and comes to the same end.
    """
    found = [_position(do, folder) for candidate in candidates for folder in _inside(candidate)]
    for position in sorted(found, key=lambda position: position.tokens, reverse=True):
        if position.folder is None:
            continue
        try:
            checkpoint.verify(position.folder)
        except GrowpointError as error:
            logger.warning("cannot resume from %s: %s", position.folder, error)
        else:
            return position
    return Position()


def _inside(folder: Path) -> list[Path]:
    if (folder / FILE).is_file():
        return [folder]
    return sorted(folder.glob("at-*")) if folder.is_dir() else []


def _position(do: Train, folder: Path) -> Position:
    try:
        said = json.loads((folder / FILE).read_text())
        whole = bool(checkpoint.read_manifest(folder)) and (folder / moments.FILE).is_file()
        fits = said["format"] == FORMAT and _passes(do, said["do"], said["tokens"])
        return _of(said, folder) if whole and fits else Position()
    except (OSError, ValueError, KeyError, TypeError, GrowpointError) as error:
        logger.warning("cannot resume from %s: %s", folder, error)
        return Position()


def _of(said: dict[str, Any], folder: Path) -> Position:
    unsaid = Interval(**said.get("unsaid", {}))
    skipped = tuple(map(int, said.get("skipped_tokens_at", ())))
    clock = float(said["seconds"])
    return Position(int(said["tokens"]), clock, said["loss"], folder, unsaid, skipped)


def _passes(do: Train, other: dict[str, Any], tokens: int) -> bool:
    """Whether the phase `do` passes through what the phase `other` was after `tokens`."""
    if other == asked(do):
        return tokens <= do.tokens
    same = {**other, "tokens": do.tokens} == asked(do.model_copy(update={"ends": False}))
    free = do.recipe.schedule.free_until(do.tokens) if do.ends else do.tokens
    return same and tokens <= free


def finished(do: Train, target: Path) -> Position | None:
    """What a whole checkpoint at `target` says, if there is one; a damaged one is moved aside."""
    if not target.exists():
        return None
    try:
        checkpoint.verify(target)
        return _of(json.loads((target / FILE).read_text()), target)
    except (OSError, ValueError, KeyError, GrowpointError) as error:
        logger.warning("%s is repeated: %s", target, error)
        target.rename(target.with_name(f"{target.name}.damaged.{time.time_ns()}"))
        return None


def write(do: Train, state: Optimizer, position: Position, folder: Path, tokenizer: Path) -> None:
    """Publish a checkpoint that the phase can be resumed from.

    One whose schedule has ended cannot be, and so holds no optimizer state: two thirds of its size.
    All ranks meet here, and the first one writes.
    """
    said = {
        "tokens": position.tokens,
        "seconds": position.seconds,
        "loss": position.loss,
        "unsaid": asdict(position.unsaid),
        "skipped_tokens_at": position.skipped,
    }
    has_moments = not (do.ends and position.tokens == do.tokens)
    if not state.ranks.is_first:
        state.weights()
        if has_moments:
            state.ranks.first(lambda: None)
            state.save(None)
        return
    with models.published(folder) as aside:
        models.save(state.model, aside, state.weights())
        models.copy_tokenizer(tokenizer, aside)
        if has_moments:
            # The others wait at the store, which may take long; in a collective they would give up.
            state.ranks.first(lambda: None)
            state.save(aside)
        text = json.dumps({"format": FORMAT, "do": asked(do), **said}, indent=1)
        (aside / FILE).write_text(text + "\n")


def write_partial(
    do: Train, state: Optimizer, position: Position, partial: Path, tokenizer: Path
) -> None:
    """Save into `partial`/at-TOKENS; older ones go once the new one stands."""
    folder = partial / f"at-{position.tokens}"
    if folder == position.folder:
        return
    if state.ranks.is_first and folder.exists():
        shutil.rmtree(folder)
    write(do, state, position, folder, tokenizer)
    for other in partial.glob("at-*") if state.ranks.is_first else ():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def tidy(partial: Path, target: Path) -> None:
    """Remove what a kill left half-written. Whoever calls this holds the stage's claim."""
    for left in (*partial.glob(".at-*"), *target.parent.glob(f".{target.name}.*")):
        shutil.rmtree(left, ignore_errors=True)


def cut(metrics: Path, tokens: int) -> None:
    """Drop the lines of metrics.jsonl beyond `tokens`, and a last one that a kill cut short."""
    if not metrics.is_file():
        return
    lines = metrics.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _within(line, tokens)]
    if kept != lines:
        write_atomic(metrics, b"".join(kept))


def _within(line: bytes, tokens: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["tokens"] <= tokens
    except (ValueError, KeyError, TypeError):
        return False


class Metrics:
    """metrics.jsonl, one line a logged step; with no path, nothing is written."""

    def __init__(self, path: Path | None, tokens: int) -> None:
        self._path = path
        self._file: TextIO | None = None
        if path:
            cut(path, tokens)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a")

    def __call__(self, line: dict[str, Any]) -> None:
        """Append a line; readers see whole lines only. Raises GrowpointError on a full disk."""
        if self._file and self._path:
            try:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
            except OSError as error:
                raise unwritable(self._path, error) from error

    def sync(self) -> None:
        """Make all lines last: before a checkpoint is published that comes after them."""
        if self._file:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more lines."""
        if self._file:
            self._file.close()
