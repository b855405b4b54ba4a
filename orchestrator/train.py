"""Train a checkpoint for one phase: AdamW, a schedule, so many tokens by position."""

import contextlib
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from orchestrator import phase
from orchestrator.loop import Log, Loop
from orchestrator.memory import MICRO_BATCH_TOKENS, holding_a_pass
from orchestrator.moments import Carried
from orchestrator.phase import Metrics, Position
from orchestrator.ranks import ALONE, Ranks
from orchestrator.tokens import Stream, require
from sweeps.errors import GrowpointError
from sweeps.stages import Train


@dataclass(frozen=True)
class Outcome:
    """What came of a phase; `finished` is False if it was stopped and saved before its end.

    `repeated_share` is the share of the phase's tokens that its lineage had read before; `ranks`
    are the processes that trained at last, and `memory_bytes` the most that the first one held.
    """

    finished: bool
    tokens: int
    loss: float | None
    train_seconds: float
    tokens_per_second: float | None
    resumed_tokens: int
    resumed_from: str | None
    repeated_share: float
    memory_bytes: int
    ranks: int
    ranks_per_node: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data, for the record."""
        return asdict(self)


def device() -> str:
    """Where this process trains: its GPU if it has one.

    Raises GrowpointError if it was given one that PyTorch cannot use: on a CPU, work that was
    priced for a GPU would run for days before anybody noticed.
    """
    if torch.cuda.is_available():
        return "cuda"
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if given.strip() not in {"", "-1", "NoDevFiles"}:
        raise GrowpointError(
            "this process was given a GPU, and PyTorch cannot use it",
            [
                ("CUDA_VISIBLE_DEVICES", given),
                ("torch", f"{torch.__version__}, built for CUDA {torch.version.cuda or '-'}"),
            ],
            "install a PyTorch that fits the driver that nvidia-smi names, or cluster.gpus=0",
        )
    return "cpu"


def train(
    do: Train,
    *,
    source: Path,
    target: Path,
    partial: Path,
    stream_folder: Path,
    carried: Carried | None = None,
    resume: Iterable[Path] = (),
    metrics: Path | None = None,
    log: Log | None = None,
    trunk_tokens: int = 0,
    stop: Callable[[], bool] = lambda: False,
    save_seconds: float = 60.0,
    log_every_steps: int = 10,
    threads: int = 1,
    device: str = "cpu",
    micro_batch_tokens: int | None = None,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train `source` by the phase `do` and publish the result as `target`.

    Continues from the furthest whole checkpoint among `resume` and `partial`: everything in a
    phase is a function of its position in tokens, so on a CPU in fp32 any way of cutting it gives
    the same bits. Saves to `partial` every `save_seconds` and when `stop()` says so. Raises
    Diverged for a loss that is not finite (the last partial checkpoint stays), and GrowpointError
    for a budget of broken batches or a corpus shorter than one. `trunk_tokens` is what the lineage
    read before this phase, and enters `repeated_share` of the outcome alone. A phase whose
    `optimizer_state` is carried begins with `carried`, unless it is resumed. Longer batches than
    `micro_batch_tokens` pass in parts; what does not fit into memory says what to lower.

    Several `ranks` call this with the same phase and folders. The first one finds where to begin
    and writes; a stop that any of them asks for ends the work of all at the same step.
    """
    if (do.optimizer_state == "carried") != (carried is not None):
        raise ValueError(f"a {do.optimizer_state} optimizer state and {carried} do not agree")
    _require_whole_batches(do)
    torch.set_num_threads(threads)
    stream = _stream(do, stream_folder)
    repeated = stream.overlap(trunk_tokens, do.tokens)
    is_done, start = ranks.first(lambda: _begin(do, partial, target, resume), tuple[bool, Position])
    if is_done:
        return _outcome(True, start, start, None, repeated, ranks)
    is_first, at_once = ranks.is_first, micro_batch_tokens or MICRO_BATCH_TOKENS
    with contextlib.closing(Metrics(metrics if is_first else None, start.tokens)) as lines:
        loop = Loop(do, start.folder or source, start, stream, device, carried, at_once, ranks)
        loop.says = [lines, log] if log and is_first else [lines]

        def save() -> None:
            loop.settle()
            lines.sync()
            phase.write_partial(do, loop.optimizer, loop.position, partial, stream_folder)
            ranks.first(lambda: None)

        if ended := _run(loop, stop, save, save_seconds, log_every_steps, ranks):
            lines.sync()
            phase.write(do, loop.optimizer, loop.position, target, stream_folder)
            if is_first:
                shutil.rmtree(partial, ignore_errors=True)
    return _outcome(ended, loop.position, start, loop.speed, repeated, ranks)


def _stream(do: Train, folder: Path) -> Stream:
    require(folder, do.corpus)
    stream = Stream(folder, do.recipe.sequence_tokens, do.seed, do.stream)
    stream.require_batch(do.recipe.batches.largest(do.tokens))
    return stream


def _begin(do: Train, partial: Path, target: Path, resume: Iterable[Path]) -> tuple[bool, Position]:
    """Whether the phase is done, and the position that it is at."""
    phase.tidy(partial, target)
    done = phase.finished(do, target)
    return done is not None, done or phase.furthest(do, (*resume, partial))


def _require_whole_batches(do: Train) -> None:
    batches = do.recipe.batches
    whole = batches.nearest(do.tokens)
    if do.tokens != whole:
        raise GrowpointError(
            "a phase of training is not a whole number of batches",
            [("tokens", do.tokens), ("batch", f"{batches.at(do.tokens).tokens} tokens")],
            f"ask for {whole or batches.at(0).tokens} tokens",
        )


def _run(
    loop: Loop,
    stop: Callable[[], bool],
    save: Callable[[], None],
    save_seconds: float,
    log_every_steps: int,
    ranks: Ranks,
) -> bool:
    """Step until the phase ends, or `stop` says so on any rank; whether it ended."""
    saved = time.monotonic()
    while not loop.ended:
        is_stopped, is_due = ranks.any(stop(), time.monotonic() - saved >= save_seconds)
        if is_stopped:
            save()
            return False
        if is_due:
            save()
            saved = time.monotonic()
        with holding_a_pass(loop.recipe, loop.at_once):
            loop.step()
        if loop.steps % log_every_steps == 0 or loop.ended:
            loop.say()
    return True


def _outcome(
    ended: bool,
    position: Position,
    start: Position,
    speed: float | None,
    repeated: float,
    ranks: Ranks,
) -> Outcome:
    return Outcome(
        finished=ended,
        tokens=position.tokens,
        loss=position.loss,
        train_seconds=position.seconds,
        tokens_per_second=speed,
        resumed_tokens=start.tokens,
        resumed_from=str(start.folder) if start.folder else None,
        repeated_share=repeated,
        memory_bytes=_memory_bytes(),
        ranks=ranks.world,
        ranks_per_node=ranks.in_node,
    )


def _memory_bytes() -> int:
    """The most memory this process has held: on its GPU if it has one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
