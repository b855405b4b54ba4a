"""Multiple choice from held-out text: which of several continuations is the true one?"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.tokens import Ids, Permutation, keyed, load, opened
from sweeps.errors import GrowpointError
from sweeps.suite import Choices

# Draws of a distractor before the held-out text is called too repetitive.
DRAWS = 100


class Item(NamedTuple):
    """[options, context + continuation] tokens, which option is true, and its document."""

    rows: Ids
    answer: int
    document: int


@dataclass(frozen=True)
class _Slots:
    """Windows of held-out text, none across documents: `starts` and `documents` are [S]."""

    text: NDArray[np.integer]
    starts: Ids
    documents: Ids


def items(choices: Choices, folder: Path) -> list[Item]:
    """The items of a suite, the same for every checkpoint.

    Context and true continuation stand in one document; distractors are continuations cut from
    other documents, never equal to the truth or each other. Raises GrowpointError if the held-out
    text holds too few.
    """
    slots = _slots(choices, folder)
    found, documents = len(slots.starts), len(set(slots.documents.tolist()))
    if found < choices.items or documents < 2:
        raise GrowpointError(
            "the held-out text is too short for its multiple-choice items",
            [("asked", choices.items), ("found", found), ("documents", documents)],
            f"suite.choices.items={found}, or raise data.heldout_share",
        )
    places = np.arange(choices.items, dtype=np.int64)
    chosen = Permutation(found, choices.seed).at(places, np.zeros_like(places))
    return [_item(choices, slots, number, int(slot)) for number, slot in enumerate(chosen)]


def _slots(choices: Choices, folder: Path) -> _Slots:
    size = choices.context_tokens + choices.continuation_tokens
    text = np.concatenate(opened(folder, "heldout"))
    ends = document_ends(folder)
    if ends is None:
        # Nothing is known of documents: every window counts as one.
        starts = np.arange(0, len(text) - size + 1, size, dtype=np.int64)
        return _Slots(text, starts, np.arange(len(starts)))
    begins = np.concatenate([[0], ends[:-1]])
    windows = [np.arange(a, b - size + 1, size) for a, b in zip(begins, ends, strict=True)]
    owners = [np.full(len(window), number) for number, window in enumerate(windows)]
    return _Slots(text, np.concatenate(windows), np.concatenate(owners))


def document_ends(folder: Path) -> Ids | None:
    """Where the held-out documents end, in tokens; None for token files, which do not say."""
    name = load(folder)["heldout"]["ends"]
    return None if name is None else np.load(folder / name)


def _item(choices: Choices, slots: _Slots, number: int, slot: int) -> Item:
    start, cut = int(slots.starts[slot]), choices.context_tokens
    context = slots.text[start : start + cut]
    options = [_continuation(choices, slots, slot)]
    for draw in _drawn(choices, slots, number):
        if len(options) == choices.options:
            break
        other = _continuation(choices, slots, draw)
        foreign = slots.documents[draw] != slots.documents[slot]
        if foreign and not any(np.array_equal(other, option) for option in options):
            options.append(other)
    if len(options) < choices.options:
        raise GrowpointError(
            "the held-out documents repeat each other too much for multiple choice",
            [("options", choices.options), ("distinct", len(options))],
            "lower suite.choices.options, or raise data.heldout_share",
        )
    answer = int(keyed(choices.seed + 2, np.array([number]))[0] % np.uint64(choices.options))
    options.insert(answer, options.pop(0))
    rows = np.stack([np.concatenate([context, option]) for option in options]).astype(np.int64)
    return Item(rows, answer, int(slots.documents[slot]))


def _continuation(choices: Choices, slots: _Slots, slot: int) -> NDArray[np.integer]:
    start = int(slots.starts[slot]) + choices.context_tokens
    return slots.text[start : start + choices.continuation_tokens]


def _drawn(choices: Choices, slots: _Slots, number: int) -> list[int]:
    """Slots in the order in which an item tries them as distractors."""
    draws = DRAWS * choices.options
    words = keyed(choices.seed + 1, np.arange(number * draws, (number + 1) * draws))
    return (words % np.uint64(len(slots.starts))).astype(np.int64).tolist()
