"""What a corpus is called follows from its content and never from where it lies."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps import filehash
from sweeps.data import Bpe, Hub, Pretrained, Stdlib, Text, Tokens, corpus, files, fingerprint
from sweeps.errors import GrowpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "texts"
    (made / "inner").mkdir(parents=True)
    for name in ("b.txt", "a.md", "inner/c.txt", "inner/d.jsonl", "skipped.png"):
        (made / name).write_text(f"text of {name}\n")
    return made


def text(*paths: Path | str, **changes: Any) -> Text:
    return Text(paths=tuple(map(str, paths)), **changes)


def names(*paths: Path | str) -> list[str]:
    return [name for name, _ in files(text(*paths))]


def test_folders_files_and_globs(folder: Path) -> None:
    assert names(folder) == ["a.md", "b.txt", "inner/c.txt", "inner/d.jsonl"]
    assert names(folder / "b.txt") == ["b.txt"]
    assert names(folder / "*.txt") == ["b.txt"]
    assert names(folder / "**" / "*.txt") == ["b.txt", "inner/c.txt"]
    assert names(folder / "skipped.png") == ["skipped.png"], "what is named is read, whatever it is"


def test_no_file_counts_twice(folder: Path) -> None:
    several = [folder / "inner", folder, folder / "*.txt", folder / "b.txt"]
    assert names(*several) == names(*reversed(several)) == names(folder)


def test_a_corpus_may_be_moved(folder: Path, tmp_path: Path) -> None:
    before = corpus(text(folder))
    shutil.move(folder, tmp_path / "elsewhere")
    assert corpus(text(tmp_path / "elsewhere")) == before


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_equal_names_are_ordered_by_content(order: tuple[str, str], tmp_path: Path) -> None:
    for place, content in zip(order, ("first", "second"), strict=True):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text(content)
    data = text(tmp_path / "one", tmp_path / "two")
    assert [path.read_text() for _, path in files(data)] == ["second", "first"]
    assert fingerprint(data) == "9e64c583f21ab79f"


def test_every_byte_and_name_counts(folder: Path) -> None:
    seen = {fingerprint(text(folder))}
    (folder / "b.txt").write_text("text of b.txt")
    seen.add(fingerprint(text(folder)))
    (folder / "b.txt").rename(folder / "e.txt")
    seen.add(fingerprint(text(folder)))
    (folder / "more.txt").touch()
    seen.add(fingerprint(text(folder)))
    assert len(seen) == 4


def test_choices_enter_the_corpus_and_places_do_not(folder: Path) -> None:
    data = text(folder)
    variants: list[dict[str, Any]] = [
        {"seed": 1},
        {"heldout_share": 0.1},
        {"tokenizer": Bpe(vocabulary=300)},
        {"column": "x"},
    ]
    ids = {corpus(data).id, *(corpus(text(folder, **variant)).id for variant in variants)}
    assert len(ids) == 5
    assert str(folder) not in corpus(data).model_dump_json()


def test_a_local_tokenizer_is_known_by_its_content(folder: Path, tmp_path: Path) -> None:
    ids = set()
    for place, content in (("one", "{}"), ("two", "{}"), ("three", "{ }")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "tokenizer.json").write_text(content)
        known = Pretrained(name=str(tmp_path / place), vocabulary=300)
        ids.add(corpus(text(folder, tokenizer=known)).id)
    assert len(ids) == 2


def test_a_path_without_files_is_named(folder: Path) -> None:
    for missing in ("nowhere", "*.csv", "inner/none.txt"):
        with pytest.raises(GrowpointError, match="no file was found") as error:
            files(text(folder, folder / missing))
        assert dict(error.value.evidence)["looked at"] == str(folder / missing)


def test_token_files(tmp_path: Path) -> None:
    for name in ("a.bin", "b.npy", "c.txt"):
        (tmp_path / name).write_bytes(b"\1\0")
    data = Tokens(paths=(str(tmp_path),), vocabulary=10)
    assert [name for name, _ in files(data)] == ["a.bin", "b.npy"]
    wide = data.model_copy(update={"dtype": "uint32"})
    assert fingerprint(wide) != fingerprint(data)
    assert corpus(data).vocabulary == 10


def test_a_dataset_folder_is_known_by_its_content(folder: Path) -> None:
    data = Hub(dataset=str(folder))
    assert len(files(data)) == 5
    parts: list[dict[str, Any]] = [{"split": "test"}, {"documents": 3}, {"name": "en"}]
    others = [fingerprint(data.model_copy(update=part)) for part in parts]
    assert len({fingerprint(data), *others}) == 4


def test_a_pinned_dataset_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pinned = Hub(dataset="somebody/something", revision="0" * 40)
    assert fingerprint(pinned) == fingerprint(pinned)
    assert fingerprint(pinned) != fingerprint(pinned.model_copy(update={"revision": "1" * 40}))


def test_a_branch_of_the_hub_must_be_resolved() -> None:
    # In a process of its own: the library reads the switch when it is imported.
    code = (
        "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n"
        "from sweeps.data import Hub, fingerprint\n"
        "from sweeps.errors import GrowpointError\n"
        "try: fingerprint(Hub(dataset='somebody/something'))\n"
        "except GrowpointError as error: print(error.text())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the hub does not say which commit" in run.stdout
    assert "data.revision=COMMIT" in run.stdout


def test_the_standard_library_leaves_tests_out() -> None:
    found = [name for name, _ in files(Stdlib())]
    assert "json/decoder.py" in found
    assert not [name for name in found if name.split("/")[0] in ("test", "site-packages")]
    assert len(found) > 300


def test_large_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(filehash, "REMEMBERED_BYTES", 10)
    large, reads, read = tmp_path / "large.bin", [], filehash._read

    def counted(path: Path) -> str:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(filehash, "_read", counted)
    large.write_bytes(b"x" * 100)
    first = filehash.sha256(large)
    assert filehash.sha256(large) == first
    assert len(reads) == 1
    large.write_bytes(b"y" * 100)
    assert filehash.sha256(large) != first
    assert len(reads) == 2


def test_without_a_cache_files_are_simply_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    whole = filehash.sha256(tmp_path / "file")
    monkeypatch.setattr(filehash, "REMEMBERED_BYTES", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert filehash.sha256(tmp_path / "file") == whole


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(GrowpointError, match="cannot be read") as error:
        filehash.sha256(tmp_path / "gone")
    assert dict(error.value.evidence)["file"] == str(tmp_path / "gone")
