"""Data: where text comes from (not hashed) and the Corpus that it makes (hashed)."""

import glob
import hashlib
import itertools
import json
import os
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from sweeps.errors import GrowpointError
from sweeps.filehash import sha256
from sweeps.schema import Description, Seed, asked, canonical, digest

Heldout = Annotated[float, Field(gt=0, lt=1)]
SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".parquet")


class Bpe(Description):
    """A byte-level BPE tokenizer trained on the training half of the corpus itself."""

    kind: Literal["bpe"] = "bpe"
    vocabulary: Annotated[int, Field(ge=257, le=1_000_000)] = 512


class Pretrained(Description):
    """An existing tokenizer: a folder or a tokenizer.json, or a hub name with its revision."""

    kind: Literal["pretrained"] = "pretrained"
    name: str
    revision: str = "main"
    vocabulary: PositiveInt


Tokenizer = Annotated[Bpe | Pretrained, Field(discriminator="kind")]


class Stdlib(Description):
    """The Python standard library's own sources, as found beside the running interpreter."""

    kind: Literal["stdlib"] = "stdlib"
    tokenizer: Tokenizer = Bpe()
    heldout_share: Heldout = 0.05
    seed: Seed = 0


class Text(Description):
    """Files, folders or globs of .txt, .md, .py, .jsonl or .parquet with a text column."""

    kind: Literal["text"] = "text"
    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    column: str = "text"
    tokenizer: Tokenizer = Bpe()
    heldout_share: Heldout = 0.05
    seed: Seed = 0


class Hub(Description):
    """A dataset of the Hugging Face hub, or a dataset folder, read by streaming."""

    kind: Literal["hub"] = "hub"
    dataset: str
    name: str | None = None
    split: str = "train"
    revision: str = "main"
    column: str = "text"
    documents: PositiveInt | None = None
    tokenizer: Tokenizer = Bpe()
    heldout_share: Heldout = 0.05
    seed: Seed = 0


class Tokens(Description):
    """Existing token files: .npy, or raw little-endian .bin of `dtype`.

    `end_of_document` is the token that ends a document, for recipes that ask for document masks.
    """

    kind: Literal["tokens"] = "tokens"
    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    dtype: Literal["uint16", "uint32"] = "uint16"
    vocabulary: PositiveInt
    end_of_document: Annotated[int, Field(ge=0)] | None = None
    heldout_share: Heldout = 0.05
    seed: Seed = 0

    @model_validator(mode="after")
    def _ends_within(self) -> "Tokens":
        if self.end_of_document is not None and self.end_of_document >= self.vocabulary:
            raise ValueError(
                f"end_of_document {self.end_of_document} is beyond the vocabulary of"
                f" {self.vocabulary} tokens"
            )
        return self


Data = Annotated[Stdlib | Text | Hub | Tokens, Field(discriminator="kind")]


class Corpus(Description):
    """What a run learns from, by content: the fingerprint, never the place."""

    kind: str
    fingerprint: str
    tokenizer: Tokenizer | None = None
    column: str = "text"
    heldout_share: float
    seed: int
    vocabulary: int
    end_of_document: int | None = None

    @property
    def id(self) -> str:
        """Name of the folder of its tokens in the store."""
        return f"corpus-{digest(canonical(asked(self)))}"


def corpus(data: Stdlib | Text | Hub | Tokens) -> Corpus:
    """The corpus that `data` makes now, from its files. Raises GrowpointError if there are none."""
    vocabulary = data.vocabulary if isinstance(data, Tokens) else data.tokenizer.vocabulary
    return Corpus(
        kind=data.kind,
        fingerprint=fingerprint(data),
        tokenizer=None if isinstance(data, Tokens) else _by_content(data.tokenizer),
        column=data.column if isinstance(data, Text | Hub) else "text",
        heldout_share=data.heldout_share,
        seed=data.seed,
        vocabulary=vocabulary,
        end_of_document=data.end_of_document if isinstance(data, Tokens) else None,
    )


def _by_content(tokenizer: Bpe | Pretrained) -> Bpe | Pretrained:
    """A local tokenizer under the name of its content, wherever it lies."""
    if not isinstance(tokenizer, Pretrained):
        return tokenizer
    path = Path(tokenizer.name).expanduser()
    names = ("tokenizer.json", "tokenizer_config.json")
    found = [path / name for name in names] if path.is_dir() else [path]
    hashes = [sha256(file) for file in found if file.is_file()]
    if not hashes:
        return tokenizer
    name = f"sha256:{hashlib.sha256(''.join(hashes).encode()).hexdigest()[:16]}"
    return tokenizer.model_copy(update={"name": name, "revision": "main"})


def fingerprint(data: Stdlib | Text | Hub | Tokens) -> str:
    """Sixteen hex digits of the content: names and hashes of files, or a commit of the hub."""
    if isinstance(data, Hub) and not Path(data.dataset).is_dir():
        asks = [data.dataset, data.name, data.split, _commit(data), data.documents]
        return hashlib.sha256(json.dumps(asks).encode()).hexdigest()[:16]
    whole = hashlib.sha256()
    if isinstance(data, Hub):
        whole.update(json.dumps([data.name, data.split, data.documents]).encode())
    if isinstance(data, Tokens):
        whole.update(data.dtype.encode())
    for name, path in files(data):
        whole.update(f"{name}\0{sha256(path)}\n".encode())
    return whole.hexdigest()[:16]


def _commit(data: Hub) -> str:
    """The commit that a dataset's revision stands for now: a branch moves, a commit does not."""
    if re.fullmatch(r"[0-9a-f]{40}", data.revision):
        return data.revision
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(data.dataset, revision=data.revision).sha
    # Wrong names, closed repositories and an absent network raise a dozen unrelated classes.
    except Exception as error:
        says = next(iter(str(error).splitlines()), type(error).__name__)
        raise GrowpointError(
            "the hub does not say which commit a dataset's revision is",
            [("dataset", data.dataset), ("revision", data.revision), ("says", says)],
            "data.revision=COMMIT_OF_40_HEX_DIGITS, or data.dataset=LOCAL_FOLDER",
        ) from error
    return str(found)


def files(data: Stdlib | Text | Hub | Tokens) -> list[tuple[str, Path]]:
    """(name that enters the fingerprint, path) of all files, each once, sorted by name.

    Names are relative to what was asked for, so that a corpus may be moved. Raises GrowpointError
    if there are no files, or none for one of several paths.
    """
    if isinstance(data, Stdlib):
        return sorted(_stdlib())
    if isinstance(data, Hub):
        root = Path(data.dataset)
        found = [(p.relative_to(root).as_posix(), p) for p in root.rglob("*") if p.is_file()]
    else:
        suffixes = (".bin", ".npy") if isinstance(data, Tokens) else SUFFIXES
        found = [pair for name in data.paths for pair in _expand(name, suffixes)]
    if not found:
        raise _no_file(_place(data), "data=stdlib")
    # A file that was asked for twice keeps its longest name.
    found.sort(key=lambda pair: len(pair[0]))
    return _sorted({path.resolve(): (name, path) for name, path in found})


def _sorted(found: Mapping[Path, tuple[str, Path]]) -> list[tuple[str, Path]]:
    """By name; files that share one by their content, never by where they lie."""
    shared = Counter(name for name, _ in found.values())
    return sorted(
        found.values(), key=lambda pair: (pair[0], sha256(pair[1]) if shared[pair[0]] > 1 else "")
    )


def _no_file(place: str, help: str) -> GrowpointError:
    return GrowpointError("the corpus is empty: no file was found", [("looked at", place)], help)


def _place(data: Stdlib | Text | Hub | Tokens) -> str:
    return data.dataset if isinstance(data, Hub) else sysconfig.get_paths()["stdlib"]


# Tests and bundled programs: distributions ship them or leave them out at will.
NOT_STDLIB = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "ensurepip"}


def _stdlib() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for folder, inner, names in os.walk(root):
        inner[:] = [n for n in inner if n not in NOT_STDLIB and not n.startswith(("config-", "_"))]
        for name in names:
            # _sysconfigdata_* and __phello__ hold paths and platforms of one build.
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                path = Path(folder, name)
                yield path.relative_to(root).as_posix(), path


def _expand(asked: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    path = Path(asked).expanduser()
    if path.is_dir():
        root, found = path, [p for p in path.rglob("*") if p.suffix in suffixes]
    elif path.is_file():
        root, found = path.parent, [path]
    else:
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        found = sorted(root.glob(path.relative_to(root).as_posix())) if path != root else []
    named = [(file.relative_to(root).as_posix(), file) for file in found if file.is_file()]
    if not named:
        raise _no_file(asked, f"data.paths=[FOLDER_OR_GLOB], of {', '.join(suffixes)} files")
    yield from named
