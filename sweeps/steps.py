"""Batches that change inside a phase: how many sequences, and how long, from position to position.

A step is described *until* so many tokens; after the last one the recipe's own sizes hold. A batch
takes whole sequences of the corpus, each as long as the recipe's longest, and may cut them into
shorter rows: so the order of the data does not depend on any step.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, NamedTuple

from pydantic import Field, PositiveInt

from sweeps.errors import GrowpointError
from sweeps.schema import Description


class BatchStep(Description):
    """Until so many tokens of the phase are behind it, batches of so many sequences."""

    until_tokens: PositiveInt
    sequences: PositiveInt


class SequenceStep(Description):
    """Until so many tokens of the phase are behind it, sequences cut into rows of so many."""

    until_tokens: PositiveInt
    sequence_tokens: Annotated[int, Field(ge=2)]


BatchSteps = tuple[BatchStep, ...]
SequenceSteps = tuple[SequenceStep, ...]


class Stretch(NamedTuple):
    """Part of a phase with batches of one size: where it begins, in tokens and in updates.

    A batch is `sequences` of the corpus, cut into rows of `row_tokens`, `tokens` together.
    """

    first_token: int
    first_update: int
    sequences: int
    row_tokens: int
    tokens: int


@dataclass(frozen=True)
class Batches:
    """All batches of a phase, whatever its length: the sizes at any position, without a loop.

    A batch has the size that holds where it begins, so the last one of a stretch may reach beyond
    the tokens that its step names, and every stretch is a whole number of batches.
    """

    stretches: tuple[Stretch, ...]

    def at(self, tokens: float) -> Stretch:
        """The stretch in which `tokens` lie; at a boundary, the one that begins there."""
        return self.stretches[bisect_right(self.stretches, tokens, key=_first) - 1]

    def updates(self, tokens: int) -> int:
        """Batches that are complete after `tokens`."""
        now = self.at(tokens)
        return now.first_update + (tokens - now.first_token) // now.tokens

    def below(self, tokens: int) -> int:
        """The last boundary between batches up to `tokens`."""
        now = self.at(tokens)
        return now.first_token + (tokens - now.first_token) // now.tokens * now.tokens

    def nearest(self, tokens: float) -> int:
        """The boundary between batches that is nearest to `tokens`."""
        now = self.at(tokens)
        return now.first_token + round((tokens - now.first_token) / now.tokens) * now.tokens

    def largest(self, tokens: int) -> int:
        """Sequences of the largest batch of a phase of `tokens`."""
        return max(now.sequences for now, _ in self._until(tokens))

    def price(self, tokens: int, each: Callable[[Stretch], float]) -> float:
        """What `tokens` from the phase's beginning cost, if one of a stretch costs `each`."""
        return sum((end - now.first_token) * each(now) for now, end in self._until(tokens))

    def affordable(self, amount: float, each: Callable[[Stretch], float]) -> float:
        """How many tokens from the phase's beginning `amount` pays for: the inverse of `price`."""
        for now, after in pairwise(self.stretches):
            whole = (after.first_token - now.first_token) * each(now)
            if amount <= whole:
                return now.first_token + amount / each(now)
            amount -= whole
        last = self.stretches[-1]
        return last.first_token + amount / each(last)

    def _until(self, tokens: int) -> list[tuple[Stretch, int]]:
        """The stretches before `tokens`, each with where it ends."""
        begun = [now for now in self.stretches if now.first_token < tokens]
        return list(zip(begun, [*(now.first_token for now in begun[1:]), tokens], strict=False))


def _first(stretch: Stretch) -> int:
    return stretch.first_token


@lru_cache(maxsize=1024)
def batches(
    sequences: int, sequence_tokens: int, batch_steps: BatchSteps, sequence_steps: SequenceSteps
) -> Batches:
    """The batches of a recipe with these sizes and steps."""
    until = [s.until_tokens for s in batch_steps] + [s.until_tokens for s in sequence_steps]
    found: list[Stretch] = []
    first_token = first_update = 0
    for bound in (*sorted(set(until)), None):
        if bound is not None and bound <= first_token:
            # A batch that began before reaches beyond it.
            continue
        size = _held([(s.until_tokens, s.sequences) for s in batch_steps], first_token, sequences)
        rows = [(s.until_tokens, s.sequence_tokens) for s in sequence_steps]
        row_tokens = _held(rows, first_token, sequence_tokens)
        tokens = size * sequence_tokens
        found.append(Stretch(first_token, first_update, size, row_tokens, tokens))
        if bound is not None:
            count = -((first_token - bound) // tokens)
            first_token, first_update = first_token + count * tokens, first_update + count
    return Batches(tuple(found))


def _held(steps: Sequence[tuple[int, int]], tokens: int, after: int) -> int:
    """The value of the first of (until, value) that still holds at `tokens`."""
    return next((value for until, value in steps if tokens < until), after)


def require_steps(
    sequence_tokens: int, batch_steps: BatchSteps, sequence_steps: SequenceSteps
) -> None:
    """Refuse steps that are out of order, and rows that do not divide a sequence."""
    for key, steps in (("batch_steps", batch_steps), ("sequence_steps", sequence_steps)):
        until = [step.until_tokens for step in steps]
        if any(one >= other for one, other in pairwise(until)):
            raise GrowpointError(
                f"the steps of {key} are not in order",
                [("until_tokens", ", ".join(map(str, until)))],
                "name each `until_tokens` once, the smallest first",
            )
    for index, step in enumerate(sequence_steps):
        if sequence_tokens % step.sequence_tokens:
            below = range(min(step.sequence_tokens, sequence_tokens), 1, -1)
            fits = next((n for n in below if sequence_tokens % n == 0), sequence_tokens)
            raise GrowpointError(
                "sequences cannot be cut into equal rows of this length",
                [("sequence_tokens", sequence_tokens), ("rows", step.sequence_tokens)],
                f"sequence_steps.{index}.sequence_tokens={fits}",
            )
