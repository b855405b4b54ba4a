"""Documents of a corpus, one after the other, from files or a dataset; memory stays near one."""

import hashlib
import json
import tokenize
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sweeps.data import Hub, Stdlib, Text, files
from sweeps.errors import GrowpointError, nearest


class Document(NamedTuple):
    """A text and where it is from."""

    name: str
    text: str


def documents(data: Stdlib | Text | Hub) -> Iterator[Document]:
    """All documents that hold any text, in a fixed order.

    Plain files are one document each; .jsonl and .parquet files one for each row. Raises
    GrowpointError for what cannot be read, naming file and place.
    """
    return (document for document in rows(data) if document.text)


def rows(data: Stdlib | Text | Hub, behind: int = 0) -> Iterator[Document]:
    """All documents, also those without text, from the one after `behind` on."""
    if isinstance(data, Hub):
        return _dataset(data, behind)
    return islice(_files(data), behind, None)


def rank(seed: int, text: str) -> float:
    """Where in [0, 1) a document falls; those below the held-out share are held out.

    By content alone: neither adding nor renaming a file moves another one, and copies of one text
    never stand on both sides.
    """
    key = seed.to_bytes(8, "little")
    hashed = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=key)
    return int.from_bytes(hashed.digest(), "big") / 2**64


def _files(data: Stdlib | Text) -> Iterator[Document]:
    column = data.column if isinstance(data, Text) else ""
    for name, path in files(data):
        try:
            yield from _READERS.get(path.suffix, _plain)(name, path, column)
        except UnicodeDecodeError as error:
            says = f"byte {error.start} is not {error.encoding}: {error.reason}"
            raise _unreadable(path, says) from error
        except (OSError, SyntaxError, ValueError) as error:
            raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, says: str) -> GrowpointError:
    return GrowpointError(
        "a file of the corpus cannot be read as text",
        [("file", path), ("says", says)],
        f"iconv -f latin1 -t utf-8 -o FIXED {path}, or leave it out of data.paths",
    )


def _plain(name: str, path: Path, column: str) -> Iterator[Document]:
    with path.open(encoding="utf-8") as file:
        yield Document(name, file.read())


def _python(name: str, path: Path, column: str) -> Iterator[Document]:
    # Honours coding cookies, as the interpreter does.
    with tokenize.open(path) as file:
        yield Document(name, file.read())


def _jsonl(name: str, path: Path, column: str) -> Iterator[Document]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                row = _object(line, number)
                yield Document(f"{name}:{number}", _text(row, column, path, number))


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number}: {type(row).__name__} instead of an object")
    return row


def _parquet(name: str, path: Path, column: str) -> Iterator[Document]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        columns = file.schema_arrow.names
        if column not in columns:
            raise _no_column(column, columns, path)
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=[column]):
            for row in batch.to_pylist():
                number += 1
                yield Document(f"{name}:{number}", _text(row, column, path, number))


_READERS: dict[str, Callable[[str, Path, str], Iterator[Document]]] = {
    ".py": _python,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def _text(row: dict[str, Any], column: str, place: object, number: int) -> str:
    if column not in row:
        raise _no_column(column, list(row), place)
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise GrowpointError(
            f"the column `{column}` holds {type(value).__name__} instead of text",
            [("where", place), ("row", number)],
            "data.column=NAME_OF_THE_TEXT_COLUMN",
        )
    return value


def _no_column(column: str, columns: list[str], place: object) -> GrowpointError:
    return GrowpointError(
        f"the corpus has no column `{column}`",
        [("where", place), ("columns", ", ".join(columns))],
        f"data.column={nearest(column, columns)}",
    )


def _dataset(data: Hub, behind: int) -> Iterator[Document]:
    left = None if data.documents is None else max(0, data.documents - behind)
    for number, row in enumerate(islice(_rows(data, behind), left), behind + 1):
        yield Document(f"row {number}", _text(row, data.column, data.dataset, number))


def _rows(data: Hub, behind: int) -> Iterator[dict[str, Any]]:
    local = Path(data.dataset).is_dir()
    try:
        from datasets import load_dataset

        found = load_dataset(
            data.dataset,
            data.name,
            split=data.split,
            revision=None if local else data.revision,
            streaming=True,
        )
        yield from found.skip(behind) if behind else found
    # The library raises whatever its readers, the hub and the network raise.
    except Exception as error:
        if isinstance(error, GrowpointError):
            raise
        raise GrowpointError(
            "a dataset cannot be read",
            [("dataset", data.dataset), ("split", data.split), ("says", _first_line(error))],
            "check data.dataset, data.name, data.split and data.revision, or use data=text",
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
