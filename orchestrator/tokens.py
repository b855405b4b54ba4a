"""Token files, and the stream that says which token stands at position p."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sweeps.data import Corpus
from sweeps.errors import GrowpointError
from sweeps.schema import asked

FORMAT = 1
ROUNDS = 6
# So many places of the order are computed at once: one at a time, NumPy costs a millisecond a step.
BLOCK = 1024
GOLDEN = 0x9E3779B97F4A7C15

Words = NDArray[np.uint64]
Ids = NDArray[np.int64]


def mixed(words: Words) -> Words:
    """Each word scrambled (the finaliser of SplitMix64, Steele et al. 2014).

    Own integer arithmetic, because NumPy may change what its generators draw between releases
    (NEP 19), and the order of the data belongs to a stage's identity.
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def keyed(seed: int, numbers: NDArray[Any]) -> Words:
    """A pseudo-random word for each of `numbers`, by `seed`."""
    start = mixed(np.array([seed], dtype=np.uint64) + np.uint64(GOLDEN))
    return mixed(start + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN))


@dataclass(frozen=True)
class Permutation:
    """A seeded shuffle of 0..size-1 for every epoch, in O(1) memory.

    A balanced Feistel network over the next even number of bits; values that fall outside are
    sent through again (cycle walking, Black and Rogaway 2002), fewer than four times on average.
    """

    size: int
    seed: int

    def at(self, places: Ids, epochs: Ids) -> Ids:
        """What stands at `places` of the shuffles of `epochs`; all arrays have one shape."""
        keys = keyed(self.seed, epochs)
        values = self._rounds(places.astype(np.uint64), keys)
        while (outside := values >= np.uint64(self.size)).any():
            values[outside] = self._rounds(values[outside], keys[outside])
        return values.astype(np.int64)

    def _rounds(self, values: Words, keys: Words) -> Words:
        bits = max(1, ((self.size - 1).bit_length() + 1) // 2)
        half, mask = np.uint64(bits), np.uint64((1 << bits) - 1)
        left, right = values >> half, values & mask
        for number in range(ROUNDS):
            step = np.uint64(number * GOLDEN % 2**64)
            left, right = right, left ^ (mixed(keys + step + right) & mask)
        return (left << half) | right


@dataclass(frozen=True)
class Tape:
    """Token files one after the other, cut into sequences that never cross from file to file.

    A file of n tokens holds (n - 1) // length sequences; each has one token more than `length`,
    the first of the next, so that every token but a file's first is a label exactly once.
    """

    parts: tuple[NDArray[Any], ...]
    length: int

    @cached_property
    def _ends(self) -> Ids:
        counts = [max(0, len(part) - 1) // self.length for part in self.parts]
        return np.cumsum(np.array(counts, dtype=np.int64))

    @property
    def sequences(self) -> int:
        """How many there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def places(self, sequences: Ids) -> tuple[Ids, Ids]:
        """(part, first token in it) of each sequence."""
        parts = np.searchsorted(self._ends, sequences, side="right")
        before = np.concatenate([[0], self._ends])[parts]
        return parts, (sequences - before) * self.length

    def read(self, sequences: Ids) -> Ids:
        """[S, length + 1] tokens: columns 0..length-1 are inputs, columns 1..length labels."""
        rows = np.empty((len(sequences), self.length + 1), dtype=np.int64)
        parts, starts = self.places(sequences)
        for row, part, start in zip(rows, parts.tolist(), starts.tolist(), strict=True):
            row[:] = self.parts[part][start : start + self.length + 1]
        return rows


def cut(rows: Ids, length: int) -> Ids:
    """[S, T + 1] tokens as [S·T/length, length + 1]: the same labels, in more and shorter rows.

    T must be a multiple of `length`. A row begins with the last label of the one before it.
    """
    if length == rows.shape[1] - 1:
        return rows
    inputs = rows[:, :-1].reshape(-1, length)
    last = rows[:, length::length].reshape(-1, 1)
    return np.concatenate([inputs, last], axis=1)


def load(folder: Path) -> dict[str, Any]:
    """corpus.json of a prepared corpus. Raises GrowpointError if it is missing or newer."""
    try:
        info: dict[str, Any] = json.loads((folder / "corpus.json").read_text())
    except (OSError, ValueError) as error:
        raise GrowpointError(
            "a prepared corpus cannot be read",
            [("folder", folder), ("says", error)],
            f"rm -r {folder}, and launch again to prepare it anew",
        ) from error
    if info.get("format") != FORMAT:
        raise GrowpointError(
            "a prepared corpus has a format that this version does not know",
            [("folder", folder), ("format", info.get("format")), ("known", FORMAT)],
            "update growpoint, or use another store",
        )
    return info


def require(folder: Path, corpus: Corpus) -> None:
    """Raise GrowpointError unless the prepared corpus in `folder` is `corpus`."""
    if load(folder)["corpus"] != asked(corpus):
        raise GrowpointError(
            "a prepared corpus is another than the stage asks for",
            [("folder", folder), ("asked", corpus.id)],
            f"rm -r {folder}, and launch again to prepare it anew",
        )


def opened(folder: Path, half: Literal["train", "heldout"]) -> tuple[NDArray[Any], ...]:
    """The memory-mapped token files of one half of a prepared corpus."""
    return tuple(_mapped(folder, part) for part in load(folder)[half]["parts"])


def _mapped(folder: Path, part: Mapping[str, Any]) -> NDArray[Any]:
    path = folder / part["path"]
    if not path.is_file() or path.stat().st_size != part["bytes"]:
        raise _changed(folder, path, "its size differs")
    # Files that lie elsewhere may be edited in place; ours never are once they have their name.
    if part.get("modified_ns") not in (None, path.stat().st_mtime_ns):
        raise _changed(folder, path, "it was written to")
    if not part["tokens"]:
        return np.empty(0, dtype=part["dtype"])
    shape = (part["tokens"],)
    mapped = np.memmap(path, dtype=part["dtype"], mode="r", offset=part["offset"], shape=shape)
    # A plain view of the same pages: slices of np.memmap itself cost ten times as much.
    return mapped.view(np.ndarray)


def _changed(folder: Path, path: Path, why: str) -> GrowpointError:
    return GrowpointError(
        "a token file is not what it was when the corpus was prepared",
        [("file", path), ("because", why)],
        f"rm -r {folder}, and launch again to check the corpus anew",
    )


class Stream:
    """The training half in a seeded order: the token at position p, found in O(1).

    Positions count tokens from the beginning of a phase. `backward` reads every epoch's shuffle
    from its far end, so that a trunk (forward) and its branches (backward) share no sequence until
    together they exceed the corpus; `overlap` says how much they share beyond that.
    """

    def __init__(
        self,
        folder: Path,
        sequence_tokens: int,
        seed: int,
        direction: Literal["forward", "backward"] = "forward",
    ) -> None:
        self._tape = Tape(opened(folder, "train"), sequence_tokens)
        self._backward = direction == "backward"
        self.sequence_tokens = sequence_tokens
        self.sequences = self._tape.sequences
        self._order = Permutation(max(1, self.sequences), seed)
        self._folder = folder
        self._known = -1, np.empty(0, dtype=np.int64)
        self.require_batch(1)

    @property
    def tokens(self) -> int:
        """Tokens of one epoch."""
        return self.sequences * self.sequence_tokens

    @property
    def end_of_document(self) -> int:
        """The token that ends a document. Raises GrowpointError if the corpus has none."""
        end = load(self._folder)["end_of_document"]
        if end is None:
            raise GrowpointError(
                "the corpus does not say which token ends a document",
                [("folder", self._folder)],
                "data.end_of_document=ID, or recipe.document_masks=false",
            )
        return int(end)

    def batch(self, position_tokens: int, sequences: int) -> Ids:
        """[sequences, sequence_tokens + 1] tokens from `position_tokens`, whole sequences on."""
        if position_tokens % self.sequence_tokens:
            raise ValueError(f"position {position_tokens} is inside a sequence")
        first = position_tokens // self.sequence_tokens
        return self._tape.read(self.order(first, sequences))

    def order(self, first: int, sequences: int) -> Ids:
        """Which sequences of the corpus are the `first`-th and so on of the stream."""
        blocks = range(first // BLOCK, (first + sequences - 1) // BLOCK + 1)
        start = first - blocks.start * BLOCK
        return np.concatenate([self._block(block) for block in blocks])[start : start + sequences]

    def _block(self, block: int) -> Ids:
        if self._known[0] != block:
            places = np.arange(block * BLOCK, (block + 1) * BLOCK, dtype=np.int64)
            epochs, places = np.divmod(places, self.sequences)
            if self._backward:
                places = self.sequences - 1 - places
            self._known = block, self._order.at(places, epochs)
        return self._known[1]

    def overlap(self, trunk_tokens: int, branch_tokens: int) -> float:
        """Share of a backward branch's tokens that its trunk or the branch itself read before."""
        if branch_tokens <= 0:
            return 0.0
        fresh = min(branch_tokens, max(0, self.tokens - trunk_tokens))
        return 1.0 - fresh / branch_tokens

    def require_batch(self, sequences: int) -> None:
        """Raise GrowpointError if the corpus is shorter than one batch of so many sequences."""
        if self.sequences >= sequences:
            return
        have = sum(len(part) for part in self._tape.parts)
        need = sequences * self.sequence_tokens + 1
        raise GrowpointError(
            "the corpus is shorter than one batch",
            [("corpus", f"{have} training tokens"), ("batch", f"{need} tokens")],
            "add text to data.paths, or lower recipe.batch_sequences or recipe.sequence_tokens",
        )
