"""Prepare a corpus: split by document, tokenize, and write files that training maps into memory."""

import json
import math
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from tokenizers import Tokenizer

from orchestrator import tokenfiles, unfinished
from orchestrator import tokenizer as tokenizers
from orchestrator.documents import Document, documents, rank, rows
from orchestrator.store import sync, unwritable
from orchestrator.tokens import FORMAT
from sweeps.data import Bpe, Corpus, Hub, Pretrained, Stdlib, Text, Tokens
from sweeps.data import corpus as found
from sweeps.errors import GrowpointError
from sweeps.schema import asked

# So much text is encoded at once: enough to keep every core busy, little enough to stay small
# (an encoding takes some hundred bytes of memory a token).
CHUNK_CHARACTERS = 1_000_000


class Progress(Protocol):
    """Told what is being done (`tokenizer` or `tokens`) and how many characters are behind."""

    def __call__(self, step: str, characters: int) -> None: ...


def prepare(
    data: Stdlib | Text | Hub | Tokens,
    corpus: Corpus,
    folder: Path,
    *,
    on_progress: Progress | None = None,
) -> None:
    """Write the tokens of `corpus` into `folder`, whole or not at all; nothing if it is there.

    train.bin and heldout.bin (little-endian uint16, uint32 above 65536 tokens), heldout_ends.npy
    (where its documents end), tokenizer.json, corpus.json. Existing token files stay where they
    are. Goes on from an earlier preparation that was killed, or whose dataset could no longer be
    read. Raises GrowpointError if the sources changed since planning, or make no corpus.
    """
    if (folder / "corpus.json").exists():
        return
    _unchanged(data, corpus)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        aside.mkdir(parents=True)
        if isinstance(data, Tokens):
            info = tokenfiles.described(data)
        else:
            info = _written(data, folder, aside, on_progress or _silent)
        _publish({"format": FORMAT, "corpus": asked(corpus), **info}, aside, folder)
        for old in unfinished.leftovers(folder):
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        # Unless somebody else has finished it meanwhile, and cleared this one's files away.
        if not (folder / "corpus.json").exists():
            raise unwritable(folder, error) from error
    finally:
        if not (aside / unfinished.JOURNAL).exists():
            shutil.rmtree(aside, ignore_errors=True)


def _silent(step: str, characters: int) -> None:
    """Nobody listens."""


def _unchanged(data: Stdlib | Text | Hub | Tokens, corpus: Corpus) -> None:
    now = found(data)
    if now == corpus:
        return
    files = now.fingerprint != corpus.fingerprint
    pair = (corpus.fingerprint, now.fingerprint) if files else (_rest(corpus), _rest(now))
    what = "its files have changed" if files else "its tokenizer or settings have changed"
    raise GrowpointError(
        f"the corpus is not the one that was planned: {what}",
        [("planned", pair[0]), ("found", pair[1])],
        "put the files back, or plan and launch again with the new ones",
    )


def _rest(corpus: Corpus) -> str:
    """A corpus but for its text: tokenizers go by the name of their content."""
    tokenizer = corpus.tokenizer
    name = tokenizer.name if isinstance(tokenizer, Pretrained) else "-"
    return f"{corpus.id}, tokenizer {name}"


def _publish(info: dict[str, Any], aside: Path, folder: Path) -> None:
    (aside / "corpus.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n")
    for path in aside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync(aside)
    try:
        aside.rename(folder)
    except OSError:
        # Somebody else finished the very same corpus first.
        if not (folder / "corpus.json").exists():
            raise
    sync(folder.parent)


def _written(
    data: Stdlib | Text | Hub, folder: Path, aside: Path, progress: Progress
) -> dict[str, Any]:
    made_by = {"python": platform.python_version(), "tokenizers": version("tokenizers")}
    before = unfinished.taken_over(folder, aside, {"format": FORMAT, "made_by": made_by}) or {}
    if before:
        tokenizer, end = Tokenizer.from_file(str(aside / "tokenizer.json")), before["end"]
    else:
        tokenizer, end = _tokenizer(data, progress)
        tokenizers.save(tokenizer, end, aside)
    dtype = "<u2" if data.tokenizer.vocabulary <= 65536 else "<u4"
    with (aside / "train.bin").open("ab") as first, (aside / "heldout.bin").open("ab") as second:
        train = _Half(first, "train.bin", dtype, **before.get("train", {}))
        heldout = _Half(second, "heldout.bin", dtype, **before.get("heldout", {}))
        said = {"format": FORMAT, "made_by": made_by, "end": end}
        _tokenized(data, tokenizer, said, before.get("documents", 0), (train, heldout), progress)
    _require_both(data, train, heldout)
    np.save(aside / "heldout_ends.npy", np.array(heldout.ends, dtype=np.int64))
    (aside / unfinished.JOURNAL).unlink(missing_ok=True)
    return {
        "vocabulary": data.tokenizer.vocabulary,
        "end_of_document": end,
        "train": train.described(),
        "heldout": {**heldout.described(), "ends": "heldout_ends.npy"},
        "made_by": made_by,
    }


def _tokenized(
    data: Stdlib | Text | Hub,
    tokenizer: Tokenizer,
    said: dict[str, Any],
    behind: int,
    halves: "tuple[_Half, _Half]",
    progress: Progress,
) -> None:
    """Tokenize all documents after so many; notes from time to time how far it came."""
    train, heldout = halves
    aside, noted = Path(train.file.name).parent, time.monotonic()
    for chunk in _chunks(_pieces(data, train, heldout, behind)):
        _encode(chunk, tokenizer, said["end"])
        progress("tokens", train.characters + heldout.characters)
        last = chunk[-1]
        if last.last and time.monotonic() - noted >= unfinished.NOTE_SECONDS:
            counts = {
                "train": train.counts(),
                "heldout": {**heldout.counts(), "ends": heldout.ends},
            }
            files = {half.name: half.file for half in halves}
            unfinished.note(aside, files, {**said, "documents": last.number, **counts})
            noted = time.monotonic()


def _tokenizer(data: Stdlib | Text | Hub, progress: Progress) -> tuple[Tokenizer, int]:
    if not isinstance(data.tokenizer, Bpe):
        return tokenizers.existing(data.tokenizer)
    learnt = (document.text for document in documents(data) if not _is_heldout(data, document))
    return tokenizers.trained(data.tokenizer, _counted(learnt, "tokenizer", progress)), 0


def _is_heldout(data: Stdlib | Text | Hub, document: Document) -> bool:
    return rank(data.seed, document.text) < data.heldout_share


def _counted(texts: Iterable[str], step: str, progress: Progress) -> Iterator[str]:
    behind = 0
    for text in texts:
        yield text
        behind += len(text)
        progress(step, behind)


@dataclass
class _Half:
    """One of the two token files while it is written."""

    file: BinaryIO
    name: str
    dtype: str
    tokens: int = 0
    characters: int = 0
    documents: int = 0
    ends: list[int] = field(default_factory=list)  # of the held-out half

    def add(self, ids: list[int]) -> None:
        self.file.write(np.array(ids, dtype=self.dtype).tobytes())
        self.tokens += len(ids)

    def counts(self) -> dict[str, int]:
        return {
            "tokens": self.tokens,
            "characters": self.characters,
            "documents": self.documents,
        }

    def described(self) -> dict[str, Any]:
        size = self.tokens * np.dtype(self.dtype).itemsize
        place = {"path": self.name, "dtype": self.dtype, "offset": 0}
        return {
            **self.counts(),
            "parts": [{**place, "tokens": self.tokens, "bytes": size}],
        }


class _Piece(NamedTuple):
    """A document, or part of a long one."""

    half: _Half
    text: str
    last: bool
    number: int  # of its document, counted from 1


def _pieces(
    data: Stdlib | Text | Hub, train: _Half, heldout: _Half, behind: int
) -> Iterator[_Piece]:
    for number, document in enumerate(rows(data, behind), behind + 1):
        half = heldout if _is_heldout(data, document) else train
        start, text = 0, document.text
        while start < len(text):
            end = _cut(text, start)
            yield _Piece(half, text[start:end], end == len(text), number)
            start = end


def _cut(text: str, start: int) -> int:
    """Where a piece that begins at `start` ends: after a line, where no merge reaches across."""
    end = start + CHUNK_CHARACTERS
    if end >= len(text):
        return len(text)
    return text.rfind("\n", start, end) + 1 or end


def _chunks(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    chunk: list[_Piece] = []
    for piece in pieces:
        chunk.append(piece)
        if sum(len(piece.text) for piece in chunk) >= CHUNK_CHARACTERS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _encode(chunk: Sequence[_Piece], tokenizer: Tokenizer, end: int) -> None:
    texts = [piece.text for piece in chunk]
    for piece, encoding in zip(
        chunk, tokenizer.encode_batch_fast(texts, add_special_tokens=False), strict=True
    ):
        piece.half.characters += len(piece.text)
        piece.half.add([*encoding.ids, end] if piece.last else encoding.ids)
        if piece.last:
            piece.half.documents += 1
            if piece.half.name == "heldout.bin":
                piece.half.ends.append(piece.half.tokens)


def _require_both(data: Stdlib | Text | Hub, train: _Half, heldout: _Half) -> None:
    if train.documents and heldout.documents:
        return
    ranks = sorted({rank(data.seed, document.text) for document in documents(data)})
    if not ranks:
        raise GrowpointError(
            "the corpus is empty: its files hold no text",
            [("kind", data.kind)],
            "data.paths=[FOLDER]",
        )
    missing = "training" if heldout.documents else "held-out"
    # Just above the lowest rank, one document is held out, and the rest stays for training.
    share = (math.floor(ranks[0] * 1000) + 1) / 1000
    alone = len(ranks) == 1 or share >= 1
    raise GrowpointError(
        f"the corpus has no {missing} document",
        [("documents", len(ranks)), ("heldout_share", data.heldout_share)],
        "add documents: one alone cannot be split" if alone else f"data.heldout_share={share:g}",
    )
