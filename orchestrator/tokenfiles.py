"""Existing token files: checked and described where they lie, never copied."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.data import Tokens, files
from sweeps.errors import GrowpointError

# So many tokens are checked at once.
CHUNK_TOKENS = 1 << 24


def described(data: Tokens) -> dict[str, Any]:
    """What corpus.json says of token files; the last `heldout_share` of each is held out.

    Raises GrowpointError for files that hold no tokens, or tokens beyond the vocabulary.
    """
    found = [_file(path.resolve(), data) for _, path in files(data)]
    train, heldout = [cut[0] for cut in found], [cut[1] for cut in found]
    if not any(part["tokens"] for part in heldout):
        raise GrowpointError(
            "the corpus has no held-out token",
            [("files", len(found)), ("heldout_share", data.heldout_share)],
            "raise data.heldout_share",
        )
    return {
        "vocabulary": data.vocabulary,
        "end_of_document": data.end_of_document,
        "train": {"tokens": sum(part["tokens"] for part in train), "parts": train},
        "heldout": {
            "tokens": sum(part["tokens"] for part in heldout),
            "parts": heldout,
            "ends": None,
        },
        "made_by": {"numpy": np.__version__},
    }


def _file(path: Path, data: Tokens) -> tuple[dict[str, Any], dict[str, Any]]:
    tokens, offset = _opened(path, data)
    _check_vocabulary(tokens, path, data)
    cut = len(tokens) - int(len(tokens) * data.heldout_share)
    known = path.stat()
    both = {
        "path": str(path),
        "dtype": tokens.dtype.str,
        "bytes": known.st_size,
        "modified_ns": known.st_mtime_ns,
    }
    train = {**both, "offset": offset, "tokens": cut}
    start = offset + cut * tokens.dtype.itemsize
    return train, {**both, "offset": start, "tokens": len(tokens) - cut}


def _opened(path: Path, data: Tokens) -> tuple[NDArray[Any], int]:
    """(tokens, offset in bytes at which they begin)."""
    try:
        tokens = np.load(path, mmap_mode="r") if path.suffix == ".npy" else _raw(path, data)
    except (OSError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    if not isinstance(tokens, np.memmap) or tokens.dtype.kind not in "ui" or not tokens.size:
        raise _unusable(path, f"it holds {tokens.dtype} {list(tokens.shape)} instead of tokens")
    if not tokens.flags.c_contiguous:
        raise _unusable(path, "it is in Fortran order")
    # Rows of sequences, as some tools write them, are read one after the other.
    return tokens.reshape(-1), int(tokens.offset)


def _raw(path: Path, data: Tokens) -> NDArray[Any]:
    dtype = np.dtype(data.dtype).newbyteorder("<")
    if path.stat().st_size % dtype.itemsize:
        raise ValueError(f"its {path.stat().st_size} bytes are not whole {data.dtype} numbers")
    return np.memmap(path, dtype=dtype, mode="r")


def _unusable(path: Path, says: str) -> GrowpointError:
    return GrowpointError(
        "a token file cannot be used",
        [("file", path), ("says", says)],
        "data.paths=[FILES], one-dimensional .npy of whole numbers or raw .bin of data.dtype",
    )


def _check_vocabulary(tokens: NDArray[Any], path: Path, data: Tokens) -> None:
    for start in range(0, len(tokens), CHUNK_TOKENS):
        chunk = tokens[start : start + CHUNK_TOKENS]
        if int(chunk.min()) >= 0 and int(chunk.max()) < data.vocabulary:
            continue
        place = int(np.argmax((chunk < 0) | (chunk >= data.vocabulary)))
        raise GrowpointError(
            "a token is beyond the vocabulary",
            [
                ("file", path),
                ("position", start + place),
                ("token", int(chunk[place])),
                ("vocabulary", data.vocabulary),
            ],
            "data.vocabulary=SIZE_OF_THE_TOKENIZER, or data.dtype of the other width",
        )
