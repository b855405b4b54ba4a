"""The state of a phase of training in memory, moved forward step by step."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from orchestrator import computing, models, packing, sharding
from orchestrator.computing import PLAIN, Computing
from orchestrator.head_loss import HeadLoss, Losses
from orchestrator.loads import Loads, balance
from orchestrator.memory import holding_the_state
from orchestrator.moments import Carried
from orchestrator.optimizer import Optimizer
from orchestrator.phase import Interval, Position
from orchestrator.ranks import ALONE, Ranks
from orchestrator.shares import Share, require_rows, share
from orchestrator.tokens import Stream, cut
from sweeps.errors import GrowpointError
from sweeps.recipe import Recipe
from sweeps.stages import Train

Log = Callable[[dict[str, Any]], None]


class Diverged(GrowpointError):  # noqa: N818 - it says what happened
    """The loss or the gradient of the batch after so many `tokens` is not a number."""

    tokens = 0


class Loop:
    """One phase: weights, optimizer, position. `says` are told what `say` reports.

    Several ranks go through it together; each takes its share of every batch.
    """

    @holding_the_state()
    def __init__(
        self,
        do: Train,
        folder: Path,
        start: Position,
        stream: Stream,
        carried: Carried | None = None,
        how: Computing = PLAIN,
        ranks: Ranks = ALONE,
    ) -> None:
        assert isinstance(do.recipe, Recipe)
        self.recipe = do.recipe
        self._how = how
        self.position = start
        self.says: list[Log] = []
        self._all = do.tokens
        self._end = do.tokens if do.ends else math.inf
        self._stream, self._first = stream, start
        self._ranks = ranks
        for batch in self.recipe.batches.stretches:
            require_rows(batch.sequences, ranks.world)
        model = (
            models.load(folder, how.device)
            if ranks.world == 1
            else sharding.load(folder, how.device, self.recipe.precision, ranks)
        )
        self._document_end = stream.end_of_document if do.recipe.document_masks else None
        if self._document_end is not None:
            packing.require_apart(model)
        model.train()
        self.optimizer = Optimizer(model, self.recipe, ranks)
        if start.folder:
            before = carried.updates if carried else 0
            self.optimizer.load(start.folder, before + self.steps)
        elif carried:
            self.optimizer.carry(carried)
        self._head_loss = HeadLoss(self.optimizer.compute, liger=how.liger)
        # Before layers are compiled, and apart from what the router's choices are counted in.
        most = max(self._share(batch.sequences).size for batch in self.recipe.batches.stretches)
        self._head_loss.prepare(most * self.recipe.sequence_tokens)
        self._loads = Loads(self.optimizer.compute)
        computing.prepare(self.optimizer.compute, how)
        self._waiting: list[_Seen] = []
        # On a GPU the numbers of several steps are fetched at once, before anything is said or
        # saved: each fetch waits for the GPU to finish.
        self._is_late = torch.device(how.device).type != "cpu"
        # Of the step before, unless its batch was skipped.
        self._last: tuple[_Seen, _Numbers] | None = None
        self._began = self._said = (time.perf_counter(), start.tokens)

    @property
    def steps(self) -> int:
        """Updates so far."""
        return self.recipe.batches.updates(self.position.tokens)

    @property
    def ended(self) -> bool:
        """Whether the phase is at its end."""
        return self.position.tokens >= self._all

    @property
    def device(self) -> str:
        """Where it computes."""
        return self._how.device

    @property
    def experts(self) -> str:
        """What computes the experts."""
        return models.experts_kernel(self.optimizer.compute)

    @property
    def head_loss(self) -> str:
        """What makes the losses of the head: `whole`, `pieces`, `liger`."""
        return self._head_loss.kernel

    @property
    def speed(self) -> float | None:
        """Tokens per second since the loop began."""
        return _per_second(self._began, self.position.tokens)

    def step(self) -> None:
        """One batch: forward, backward, clip, update."""
        tokens = self.position.tokens
        batch, length = self.recipe.batches.at(tokens), self.recipe.sequence_tokens
        if tokens in self.position.skipped:
            return self._skip(batch.tokens)
        mine = self._share(batch.sequences)
        whole = self._stream.batch(tokens + mine.first * length, mine.count)
        rows = torch.from_numpy(cut(whole, batch.row_tokens))
        if self._how.device.startswith("cuda"):
            # From other memory the copy would wait until the GPU has done all that is queued.
            rows = rows.pin_memory()
        self._loads.clear()
        loss, router = self._backward(mine, rows.to(self._how.device, non_blocking=True))
        norm = self.optimizer.clip()
        lr = self.recipe.lr_at(tokens, self._end)
        self._waiting.append(_Seen(self.steps + 1, tokens, lr, loss, router, norm))
        if not self._is_late:
            self.settle()
        self.optimizer.step(lr)
        self.position = replace(self.position, tokens=tokens + batch.tokens)
        return None

    def _share(self, sequences: int) -> Share:
        """What this rank takes of so many sequences."""
        most = self._how.micro_batch_tokens // self.recipe.sequence_tokens
        return share(sequences, most, self._ranks.rank, self._ranks.world)

    def _skip(self, tokens: int) -> None:
        """Read over a batch of so many tokens."""
        self.settle()
        self._last = None
        self.optimizer.skip()
        self.position = replace(self.position, tokens=self.position.tokens + tokens)

    def _backward(self, mine: Share, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gradients of one batch, of which this rank has [B, T + 1] tokens; the mean losses.

        The means over ranks are those over the whole batch: of the token loss, and the router's.
        """
        losses, routers = [], []
        for part, weight in mine.weighted(rows):
            # What is repeated for company counts for nothing, and so do its choices.
            with self._loads.counted() if weight else nullcontext():
                loss, router = self._losses(part)
            whole = loss if router is None else loss + self.recipe.router_loss * router
            (whole * weight).backward()
            self.optimizer.collect()
            losses.append(loss.detach() * weight)
            if router is not None:
                routers.append(router.detach().float() * weight)
        return torch.stack(losses).sum(), torch.stack(routers).sum() if routers else None

    def _losses(self, rows: Tensor) -> Losses:
        if self._document_end is None:
            return self._head_loss(rows)
        apart = packing.positions(rows[:, :-1], self._document_end)
        return self._head_loss(rows, position_ids=apart)

    def settle(self) -> None:
        """Check all steps so far, and bring the position's seconds and losses up to date.

        Raises Diverged for a step whose loss or gradient is no number.
        """
        fetched = _numbers(self._waiting, self._ranks)
        for seen, numbers in zip(self._waiting, fetched, strict=True):
            if not all(map(math.isfinite, numbers)):
                raise _diverged(seen, numbers, self.position.skipped)
            loss, router = numbers.loss, None if seen.router is None else numbers.router
            unsaid = self.position.unsaid.plus(loss, router)
            self.position = replace(self.position, loss=loss, unsaid=unsaid)
            self._last = (seen, numbers)
        self._waiting.clear()
        seconds = self._first.seconds + time.perf_counter() - self._began[0]
        self.position = replace(self.position, seconds=seconds)

    def say(self) -> None:
        """Log the steps since the last line: their mean losses, the last one's rate and norm.

        After a batch that was skipped nothing is said; the next line has its steps as well.
        """
        self.settle()
        if self._last is None:
            return
        (seen, numbers), unsaid = self._last, self.position.unsaid
        router = unsaid.router_loss
        line = {
            "step": seen.step,
            "tokens": self.position.tokens,
            "loss": unsaid.loss / unsaid.steps,
            "router_loss": None if router is None else router / unsaid.steps,
            "lr": seen.lr,
            "grad_norm": numbers.norm,
            **balance(self._counts()),
            "seconds": round(self.position.seconds, 3),
            "tokens_per_second": _per_second(self._said, self.position.tokens),
        }
        self._said = (time.perf_counter(), self.position.tokens)
        self.position = replace(self.position, unsaid=Interval())
        for say in self.says:
            say(line)

    def _counts(self) -> Tensor | None:
        """[layers, experts] tokens of the last step, means over ranks: each counts its rows."""
        counts = self._loads.counts()
        return None if counts is None else self._ranks.mean(counts.double())


class _Seen(NamedTuple):
    """What one step showed."""

    step: int
    tokens: int
    lr: float
    loss: Tensor
    router: Tensor | None
    norm: Tensor


class _Numbers(NamedTuple):
    """The same, fetched; a network without a router loss has 0."""

    loss: float
    router: float
    norm: float


def _numbers(waiting: Sequence[_Seen], ranks: Ranks) -> list[_Numbers]:
    if not waiting:
        return []
    nothing = torch.zeros_like(waiting[0].loss)
    rows = [
        torch.stack((seen.loss, nothing if seen.router is None else seen.router, seen.norm))
        for seen in waiting
    ]
    # The norm is that of the whole gradient on every rank, and so their mean.
    return [_Numbers(*row) for row in ranks.mean(torch.stack(rows)).tolist()]


def _per_second(since: tuple[float, int], tokens: int) -> float | None:
    seconds, before = time.perf_counter() - since[0], since[1]
    return round((tokens - before) / seconds, 1) if tokens > before and seconds > 0 else None


def _diverged(seen: _Seen, numbers: _Numbers, skipped: Sequence[int]) -> Diverged:
    before = [("skipped before", f"the batch at {tokens} tokens") for tokens in skipped]
    error = Diverged(
        f"training diverged at step {seen.step}",
        [
            ("tokens", seen.tokens),
            ("lr", f"{seen.lr:.3g}"),
            ("loss", f"{numbers.loss:.4g}"),
            ("gradient", f"{numbers.norm:.4g}"),
            *before,
        ],
        "lower recipe.lr, or lengthen recipe.warmup_tokens",
    )
    error.tokens = seen.tokens
    return error
