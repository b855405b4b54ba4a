"""Train a checkpoint for one phase: AdamW, a schedule, so many tokens by position."""

import contextlib
import gc
import logging
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
from orchestrator.computing import PLAIN, Computing, compiling
from orchestrator.loop import Diverged, Log, Loop
from orchestrator.memory import holding_a_pass
from orchestrator.moments import Carried
from orchestrator.phase import Metrics, Position
from orchestrator.ranks import ALONE, Ranks
from orchestrator.tokens import Stream, require
from sweeps.errors import GrowpointError
from sweeps.stages import Train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of a phase; `finished` is False if it was stopped and saved before its end.

    `repeated_share` is the share of the phase's tokens that its lineage had read before; `ranks`
    are the processes that trained at last, and `memory_bytes` the most that the first one held.
    `experts` and `head_loss` are the kernels that computed them, on `device` in `precision`; None
    where nothing had to be trained. `skipped_tokens_at`: after how many tokens a batch was no
    number, and skipped.
    """

    finished: bool
    tokens: int
    loss: float | None
    train_seconds: float
    tokens_per_second: float | None
    resumed_tokens: int
    resumed_from: str | None
    repeated_share: float
    skipped_tokens_at: tuple[int, ...]
    memory_bytes: int
    ranks: int
    ranks_per_node: int
    device: str | None
    precision: str | None
    experts: str | None
    head_loss: str | None

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
    how: Computing = PLAIN,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train `source` by the phase `do` and publish the result as `target`.

    Continues from the furthest whole checkpoint among `resume` and `partial`: everything in a
    phase is a function of its position in tokens, so on a CPU in fp32 any way of cutting it gives
    the same bits. Saves to `partial` every `save_seconds` and when `stop()` says so. A step whose
    loss or gradient is not finite is rewound to the last partial checkpoint and its batch skipped;
    a second one raises Diverged (that checkpoint stays). Raises GrowpointError for a budget of
    broken batches or a corpus shorter than one. `trunk_tokens` is what the lineage read before
    this phase, and enters `repeated_share` of the outcome alone. A phase whose `optimizer_state`
    is carried begins with `carried`, unless it is resumed. `how` it is computed is circumstance;
    what does not fit into memory says what to lower.

    Several `ranks` call this with the same phase and folders. The first one finds where to begin
    and writes; a stop that any of them asks for ends the work of all at the same step.
    """
    if (do.optimizer_state == "carried") != (carried is not None):
        raise ValueError(f"a {do.optimizer_state} optimizer state and {carried} do not agree")
    torch.set_num_threads(how.threads)
    stream = _stream(do, stream_folder)
    repeated = stream.overlap(trunk_tokens, do.tokens)
    this = _Phase(
        do=do,
        source=source,
        target=target,
        partial=partial,
        stream_folder=stream_folder,
        stream=stream,
        carried=carried,
        resume=tuple(resume),
        metrics=metrics if ranks.is_first else None,
        log=log if ranks.is_first else None,
        stop=stop,
        save_seconds=save_seconds,
        log_every_steps=log_every_steps,
        how=how,
        ranks=ranks,
    )
    is_done, start = ranks.first(this.begin, tuple[bool, Position])
    if is_done:
        return _outcome(True, start, start, repeated, ranks)
    ended, loop = _skipping_once(this, start)
    return _outcome(ended, loop.position, start, repeated, ranks, loop)


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """What `train` was asked for, which may take two attempts."""

    do: Train
    source: Path
    target: Path
    partial: Path
    stream_folder: Path
    stream: Stream
    carried: Carried | None
    resume: tuple[Path, ...]
    metrics: Path | None
    log: Log | None
    stop: Callable[[], bool]
    save_seconds: float
    log_every_steps: int
    how: Computing
    ranks: Ranks

    def begin(self) -> tuple[bool, Position]:
        """Whether the phase is done, and the position that it is at."""
        phase.tidy(self.partial, self.target)
        done = phase.finished(self.do, self.target)
        return done is not None, done or phase.beginning(self.do, self.partial, self.resume)

    def rewind(self, tokens: int) -> Position:
        """Where to go on without the batch after so many tokens."""
        phase.skip(self.partial, tokens)
        return phase.beginning(self.do, self.partial, self.resume)

    def attempt(self, start: Position) -> tuple[bool, Loop]:
        """Train from `start`: whether the phase ended, and what it came to."""
        with contextlib.closing(Metrics(self.metrics, start.tokens)) as lines:
            loop = self._loop(start)
            loop.says = [lines, self.log] if self.log else [lines]

            def save() -> None:
                loop.settle()
                lines.sync()
                at, state = loop.position, loop.optimizer
                phase.write_partial(self.do, state, at, self.partial, self.stream_folder)
                self.ranks.first(lambda: None)

            if ended := self._run(loop, save):
                lines.sync()
                at, state = loop.position, loop.optimizer
                phase.write(self.do, state, at, self.target, self.stream_folder)
                if self.ranks.is_first:
                    shutil.rmtree(self.partial, ignore_errors=True)
            return ended, loop

    def _loop(self, start: Position) -> Loop:
        return Loop(
            self.do,
            start.folder or self.source,
            start,
            self.stream,
            self.carried,
            self.how,
            self.ranks,
        )

    def _run(self, loop: Loop, save: Callable[[], None]) -> bool:
        """Step until the phase ends, or `stop` says so on any rank; whether it ended."""
        saved = time.monotonic()
        while not loop.ended:
            is_due = time.monotonic() - saved >= self.save_seconds
            is_stopped, is_due = self.ranks.any(self.stop(), is_due)
            if is_stopped:
                save()
                return False
            if is_due:
                save()
                saved = time.monotonic()
            with compiling(self.how), holding_a_pass(loop.recipe, self.how):
                loop.step()
            if loop.steps % self.log_every_steps == 0 or loop.ended:
                loop.say()
        return True


def _skipping_once(this: _Phase, start: Position) -> tuple[bool, Loop]:
    """Attempt a phase, and once more without the first batch that is no number."""
    try:
        return this.attempt(start)
    except Diverged as error:
        if start.skipped:
            raise
        logger.warning("rewinding, to go on without this batch: %s", error.text())
        tokens = error.tokens
    # Only now, as the error held on to the network; hooks do as well, in circles.
    gc.collect()
    return this.attempt(this.ranks.first(lambda: this.rewind(tokens), Position))


def _stream(do: Train, folder: Path) -> Stream:
    _require_whole_batches(do)
    require(folder, do.corpus)
    stream = Stream(folder, do.recipe.sequence_tokens, do.seed, do.stream)
    stream.require_batch(do.recipe.batches.largest(do.tokens))
    return stream


def _require_whole_batches(do: Train) -> None:
    batches = do.recipe.batches
    whole = batches.nearest(do.tokens)
    if do.tokens != whole:
        raise GrowpointError(
            "a phase of training is not a whole number of batches",
            [("tokens", do.tokens), ("batch", f"{batches.at(do.tokens).tokens} tokens")],
            f"ask for {whole or batches.at(0).tokens} tokens",
        )


def _outcome(
    ended: bool,
    position: Position,
    start: Position,
    repeated: float,
    ranks: Ranks,
    loop: Loop | None = None,
) -> Outcome:
    return Outcome(
        finished=ended,
        tokens=position.tokens,
        loss=position.loss,
        train_seconds=position.seconds,
        tokens_per_second=loop.speed if loop else None,
        resumed_tokens=start.tokens,
        resumed_from=str(start.folder) if start.folder else None,
        repeated_share=repeated,
        skipped_tokens_at=position.skipped,
        memory_bytes=_memory_bytes(),
        ranks=ranks.world,
        ranks_per_node=ranks.in_node,
        device=_device_name(loop.device) if loop else None,
        precision=loop.recipe.precision if loop else None,
        experts=loop.experts if loop else None,
        head_loss=loop.head_loss if loop else None,
    )


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _memory_bytes() -> int:
    """The most memory this process has held: on its GPU if it has one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
