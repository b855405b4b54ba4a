"""Preparing a corpus that was ended goes on from what it had noted, to the same bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from orchestrator import corpora, unfinished
from orchestrator.corpora import prepare
from orchestrator.documents import Document, rows
from sweeps.data import Bpe, Hub, Text, corpus
from sweeps.errors import GrowpointError
from tests.integration.tiny_corpus import prose, text, written

FILES = 30


@pytest.fixture(params=["files", "dataset"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Text | Hub:
    """The same texts, as files and as the rows of a dataset, of which some are empty."""
    if request.param == "files":
        where = written(tmp_path / "text", FILES)
        (where / "03.txt").write_text("")
        return text(where)
    where = tmp_path / "dataset"
    where.mkdir()
    found = ["" if number == 3 else prose(number) for number in range(FILES)]
    parquet.write_table(pa.table({"text": found}), where / "train.parquet")
    return Hub(dataset=str(where), tokenizer=Bpe(vocabulary=300), heldout_share=0.2)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "CHUNK_CHARACTERS", 2000)
    monkeypatch.setattr(unfinished, "NOTE_SECONDS", 0.0)


class Reading:
    """Reads documents up to one at which it ends as told; counts what was read."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.last, self.error, self.numbers = FILES + 1, BaseException(), list[int]()
        patched.setattr(corpora, "rows", self)

    def __call__(self, data: Any, behind: int = 0) -> Iterator[Document]:
        for number, document in enumerate(rows(data, behind), behind + 1):
            if number == self.last:
                raise self.error
            self.numbers.append(number)
            yield document


def ended(data: Text | Hub, reading: Reading, place: Path) -> Path:
    """Where a preparation was ended at its 20th document; from now on all are read."""
    made = corpus(data)
    folder = place / "cut" / made.id
    reading.last, reading.error = 20, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        prepare(data, made, folder)
    reading.last = FILES + 1
    reading.numbers.clear()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), GrowpointError("a dataset cannot be read", [], "again")]
)
def test_it_goes_on_to_the_same_bytes(
    error: BaseException, data: Text | Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = corpus(data)
    prepare(data, made, tmp_path / "whole" / made.id)
    reading, folder = Reading(monkeypatch), tmp_path / "cut" / made.id
    for reading.last in (12, 22, FILES + 1):
        reading.error = error
        if reading.last <= FILES:
            with pytest.raises(type(error)):
                prepare(data, made, folder)
            assert not folder.exists()
        else:
            reading.numbers.clear()
            prepare(data, made, folder)
    # A note is at most one chunk, of a few documents, behind.
    assert reading.numbers[0] > 22 - 6
    assert contents(folder) == contents(tmp_path / "whole" / made.id)
    assert not unfinished.leftovers(folder)


def test_what_is_noted_must_be_there(
    data: Text | Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, reading = corpus(data), Reading(monkeypatch)
    folder = ended(data, reading, tmp_path)
    (left,) = unfinished.leftovers(folder)
    (left / "train.bin").write_bytes(b"")
    prepare(data, made, folder)
    assert reading.numbers[0] == 1
    prepare(data, made, tmp_path / "whole" / made.id)
    assert contents(folder) == contents(tmp_path / "whole" / made.id)


def test_notes_of_other_versions_are_left_alone(
    data: Text | Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, reading = corpus(data), Reading(monkeypatch)
    folder = ended(data, reading, tmp_path)
    monkeypatch.setattr(corpora, "version", lambda package: "another")
    prepare(data, made, folder)
    assert reading.numbers[0] == 1
