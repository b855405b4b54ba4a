"""Corpora are cut by document, tokenized the same everywhere, and read in an order of positions."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tokenizers import Tokenizer

from orchestrator import corpora
from orchestrator.corpora import prepare
from orchestrator.documents import documents, rank
from orchestrator.tokens import Permutation, Stream, Tape, load, opened
from sweeps.data import Bpe, Data, Hub, Pretrained, Stdlib, Tokens, corpus
from sweeps.errors import GrowpointError
from tests.integration.tiny_corpus import prepared, prose, text, written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("corpus"))[1]


def made(data: Data, folder: Path) -> Path:
    described = corpus(data)
    prepare(data, described, folder / described.id)
    return folder / described.id


def refused(data: Data, folder: Path) -> GrowpointError:
    with pytest.raises(GrowpointError) as error:
        made(data, folder)
    assert not list(folder.glob("*corpus-*")), "something was left behind"
    return error.value


def tokens_of(folder: Path, half: Any) -> list[int]:
    return [int(token) for part in opened(folder, half) for token in part]


# --- the order of the stream ---------------------------------------------------------------------

SIZES = st.integers(1, 3000)
SEEDS = st.integers(0, 2**63)


@given(SIZES, SEEDS, st.integers(0, 50))
def test_every_epoch_is_a_shuffle(size: int, seed: int, epoch: int) -> None:
    places = np.arange(size)
    order = Permutation(size, seed).at(places, np.full(size, epoch))
    assert sorted(order.tolist()) == places.tolist()


def test_epochs_and_seeds_shuffle_differently() -> None:
    places, zeros = np.arange(1000), np.zeros(1000, dtype=np.int64)
    first = Permutation(1000, 0).at(places, zeros)
    others = [Permutation(1000, 1).at(places, zeros), Permutation(1000, 0).at(places, zeros + 1)]
    for other in [places, *others]:
        assert np.mean(first == other) < 0.02


def test_a_shuffle_leaves_no_pattern() -> None:
    # Were neighbours kept together, or order half kept, these correlations would be far from 0.
    order = Permutation(4099, 7).at(np.arange(4099), np.zeros(4099, dtype=np.int64))
    assert abs(np.corrcoef(order, np.arange(4099))[0, 1]) < 0.05
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05


def test_the_order_is_pinned() -> None:
    # It belongs to the identity of every finished stage: this list may never change.
    order = Permutation(10, 3).at(np.arange(10), np.zeros(10, dtype=np.int64))
    assert order.tolist() == [0, 1, 6, 7, 8, 4, 3, 2, 9, 5]


@settings(max_examples=20)
@given(st.integers(2, 64), SEEDS, st.sampled_from(["forward", "backward"]))
def test_an_epoch_visits_each_sequence_once(
    folder: Path, length: int, seed: int, direction: Any
) -> None:
    stream = Stream(folder, length, seed, direction)
    for epoch in range(2):
        order = stream.order(epoch * stream.sequences, stream.sequences)
        assert sorted(order.tolist()) == list(range(stream.sequences))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), SEEDS)
def test_batches_of_any_size_read_the_same(folder: Path, sizes: list[int], seed: int) -> None:
    stream = Stream(folder, 16, seed)
    whole = stream.batch(0, sum(sizes))
    position, parts = 0, []
    for size in sizes:
        parts.append(stream.batch(position, size))
        position += size * 16
    assert np.array_equal(whole, np.concatenate(parts))


@settings(max_examples=30)
@given(st.integers(1, 400), st.integers(1, 400), SEEDS)
def test_trunk_and_branch_share_what_overlap_says(
    folder: Path, trunk: int, branch: int, seed: int
) -> None:
    forward, backward = Stream(folder, 64, seed), Stream(folder, 64, seed, "backward")
    seen = set(forward.order(0, trunk).tolist())
    fresh = 0
    for sequence in backward.order(0, branch).tolist():
        fresh += sequence not in seen
        seen.add(sequence)
    assert backward.overlap(trunk * 64, branch * 64) == pytest.approx(1 - fresh / branch)


def test_streams_do_not_meet_within_the_corpus(folder: Path) -> None:
    forward, backward = Stream(folder, 32, 5), Stream(folder, 32, 5, "backward")
    half = forward.sequences // 2
    assert forward.sequences > 100
    assert not set(forward.order(0, half)) & set(backward.order(0, forward.sequences - half))


def test_labels_follow_inputs(folder: Path) -> None:
    stream, text_tokens = Stream(folder, 32, 0), tokens_of(folder, "train")
    rows, order = stream.batch(0, 5), stream.order(0, 5)
    for row, sequence in zip(rows.tolist(), order.tolist(), strict=True):
        assert row == text_tokens[sequence * 32 : sequence * 32 + 33]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 9))
def test_sequences_never_cross_files(sizes: list[int], length: int) -> None:
    ends = np.cumsum(sizes)
    parts = tuple(
        np.arange(end - size, end, dtype=np.uint16) for size, end in zip(sizes, ends, strict=True)
    )
    tape = Tape(parts, length)
    rows = tape.read(np.arange(tape.sequences))
    assert tape.sequences == sum(max(0, size - 1) // length for size in sizes)
    labels = rows[:, 1:].ravel().tolist()
    assert len(set(labels)) == len(labels)
    for row in rows.tolist():
        assert row == list(range(row[0], row[0] + length + 1))
        assert np.searchsorted(ends, row[0], "right") == np.searchsorted(ends, row[-1], "right")


def test_a_position_inside_a_sequence_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="inside a sequence"):
        Stream(folder, 32, 0).batch(33, 1)


# --- what is written -----------------------------------------------------------------------------


def test_text_comes_back(tmp_path: Path) -> None:
    where = written(tmp_path / "text", 12)
    folder = made(text(where), tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for half, is_heldout in (("train", False), ("heldout", True)):
        expected = [d.text for d in documents(text(where)) if (rank(0, d.text) < 0.2) is is_heldout]
        pieces = tokenizer.decode(tokens_of(folder, half), skip_special_tokens=False)
        assert expected
        assert pieces == "".join(part + "<|endoftext|>" for part in expected)


def test_other_tools_can_load_the_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id == 0
    assert tokenizer.decode(tokenizer("the sea or the sun")["input_ids"]) == "the sea or the sun"


def test_ends_of_documents(folder: Path) -> None:
    heldout, info = tokens_of(folder, "heldout"), load(folder)
    ends = np.load(folder / "heldout_ends.npy").tolist()
    assert [place + 1 for place, token in enumerate(heldout) if token == 0] == ends
    assert len(ends) == info["heldout"]["documents"] >= 2
    assert info["train"]["tokens"] == len(tokens_of(folder, "train"))


def test_long_documents_are_cut_only_for_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = written(tmp_path / "text", 12)
    whole = made(text(where), tmp_path / "whole")
    monkeypatch.setattr(corpora, "CHUNK_CHARACTERS", 100)
    pieces = made(text(where), tmp_path / "pieces")
    for name in ("train.bin", "heldout_ends.npy"):
        assert (whole / name).read_bytes() == (pieces / name).read_bytes()


def test_every_process_learns_the_same_tokens(tmp_path: Path) -> None:
    where, files = written(tmp_path / "text"), ("train.bin", "heldout.bin", "tokenizer.json")
    code = (
        "import sys; from pathlib import Path; from sweeps.data import *;"
        "from tests.integration.tiny_corpus import text; from orchestrator.corpora import prepare;"
        "d = text(Path(sys.argv[1])); prepare(d, corpus(d), Path(sys.argv[2]))"
    )
    first = made(text(where), tmp_path)
    for seed in ("1", "2"):
        target = tmp_path / f"again{seed}"
        subprocess.run(
            [sys.executable, "-c", code, str(where), str(target)],
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert [(target / f).read_bytes() for f in files] == [
            (first / f).read_bytes() for f in files
        ]


@settings(max_examples=25)
@given(
    st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=30, unique=True),
    st.text(min_size=1),
    st.integers(0, 2**32),
)
def test_a_further_document_moves_no_other(texts: list[str], more: str, seed: int) -> None:
    before = [rank(seed, each) < 0.3 for each in texts]
    after = {each: rank(seed, each) < 0.3 for each in [*texts, more]}
    assert before == [after[each] for each in texts]


def test_a_further_file_moves_no_other(tmp_path: Path) -> None:
    where = written(tmp_path / "text", 20)
    before = {d.text for d in documents(text(where)) if rank(0, d.text) < 0.2}
    (where / "000.txt").write_text(prose(1000))
    after = {d.text for d in documents(text(where)) if rank(0, d.text) < 0.2}
    assert after - {prose(1000)} == before


def test_the_heldout_share_is_kept_on_average() -> None:
    held = sum(rank(0, prose(number, 16)) < 0.2 for number in range(3000))
    assert abs(held / 3000 - 0.2) < 0.03


def test_copies_stand_on_one_side(tmp_path: Path) -> None:
    where = written(tmp_path / "text", 20)
    for path in list(where.iterdir()):
        (where / f"copy_{path.name}").write_text(path.read_text())
    found = list(documents(text(where)))
    held = {d.text for d in found if rank(0, d.text) < 0.2}
    assert not held & {d.text for d in found if rank(0, d.text) >= 0.2}
    assert len(found) == 40


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    where = written(tmp_path / "text", 12)
    folder = made(text(where), tmp_path)
    known = (folder / "corpus.json").stat().st_mtime_ns
    made(text(where), tmp_path)
    assert (folder / "corpus.json").stat().st_mtime_ns == known


def test_files_that_changed_since_planning_are_refused(tmp_path: Path) -> None:
    where = written(tmp_path / "text", 12)
    planned = corpus(text(where))
    (where / "00.txt").write_text("other")
    with pytest.raises(GrowpointError, match="not the one that was planned") as error:
        prepare(text(where), planned, tmp_path / planned.id)
    found = dict(error.value.evidence)
    assert found["planned"] == planned.fingerprint
    assert found["found"] == corpus(text(where)).fingerprint
    assert not (tmp_path / planned.id).exists()


def test_progress_is_told(tmp_path: Path) -> None:
    data, told = text(written(tmp_path / "text", 12)), []
    prepare(
        data,
        corpus(data),
        tmp_path / "made",
        on_progress=lambda step, characters: told.append((step, characters)),
    )
    assert {step for step, _ in told} == {"tokenizer", "tokens"}
    assert told[-1] == ("tokens", sum(len(d.text) for d in documents(data)))


# --- kinds of sources ----------------------------------------------------------------------------

ROWS = [{"text": prose(number, 40), "id": number} for number in range(30)]


def jsonl(folder: Path) -> Path:
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "rows.jsonl").write_text(lines + "\n")
    return folder


def parquets(folder: Path) -> Path:
    folder.mkdir()
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet", row_group_size=7)
    return folder


@pytest.mark.parametrize("write", [jsonl, parquets])
def test_rows_are_documents(write: Callable[[Path], Path], tmp_path: Path) -> None:
    where = write(tmp_path / "rows")
    assert [d.text for d in documents(text(where))] == [row["text"] for row in ROWS]
    info = load(made(text(where), tmp_path))
    assert info["train"]["documents"] + info["heldout"]["documents"] == len(ROWS)


@pytest.mark.parametrize("write", [jsonl, parquets])
def test_a_dataset_folder_is_streamed(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    where = write(tmp_path / "rows")
    data = Hub(dataset=str(where), tokenizer=Bpe(vocabulary=300), heldout_share=0.2)
    assert [d.text for d in documents(data)] == [row["text"] for row in ROWS]
    assert load(made(data, tmp_path))["train"]["documents"] > 10
    few = data.model_copy(update={"documents": 7})
    assert len(list(documents(few))) == 7
    assert corpus(few).id != corpus(data).id


def test_the_standard_library_is_there() -> None:
    found = {document.name: document.text for document in documents(Stdlib())}
    assert "def dumps(" in found["json/__init__.py"]
    assert not any(name.startswith("test/") for name in found)


def test_coding_cookies_are_honoured(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"# coding: latin-1\nname = '\xe9t\xe9'\n")
    assert "été" in next(documents(text(tmp_path))).text


def test_an_existing_tokenizer_is_used(tmp_path: Path) -> None:
    first = made(text(written(tmp_path / "text")), tmp_path / "first")
    known = Pretrained(name=str(first), vocabulary=300)
    again = made(text(tmp_path / "text", tokenizer=known), tmp_path / "again")
    assert tokens_of(again, "train") == tokens_of(first, "train")
    assert load(again)["end_of_document"] == 0


def test_a_tokenizer_larger_than_said_is_refused(tmp_path: Path) -> None:
    first = made(text(written(tmp_path / "text")), tmp_path / "first")
    known = Pretrained(name=str(first / "tokenizer.json"), vocabulary=260)
    error = refused(text(tmp_path / "text", tokenizer=known), tmp_path / "again")
    assert error.problem == "a tokenizer has more tokens than the data says"
    assert error.help == "data.tokenizer.vocabulary=300"


# --- existing token files ------------------------------------------------------------------------


def token_files(folder: Path) -> tuple[Path, Path, np.ndarray[Any, Any]]:
    numbers = np.random.default_rng(0).integers(0, 900, 5000).astype("<u2")
    np.save(folder / "a.npy", numbers[:2000])
    numbers[2000:].tofile(folder / "b.bin")
    return folder / "a.npy", folder / "b.bin", numbers


def test_token_files_are_read_where_they_lie(tmp_path: Path) -> None:
    first, second, numbers = token_files(tmp_path)
    data = Tokens(paths=(str(first), str(second)), vocabulary=900, heldout_share=0.1)
    folder = made(data, tmp_path)
    assert {path.name for path in folder.iterdir()} == {"corpus.json"}
    assert tokens_of(folder, "train") == [*numbers[:1800], *numbers[2000:4700]]
    assert tokens_of(folder, "heldout") == [*numbers[1800:2000], *numbers[4700:]]
    assert Stream(folder, 10, 0).sequences == 179 + 269


def test_a_token_beyond_the_vocabulary_is_named(tmp_path: Path) -> None:
    _, second, numbers = token_files(tmp_path)
    numbers[2000 + 1234] = 900
    numbers[2000:].tofile(second)
    error = refused(Tokens(paths=(str(tmp_path),), vocabulary=900), tmp_path)
    found = dict(error.evidence)
    assert found["file"] == str(second)
    assert found["position"] == "1234"
    assert found["token"] == "900"


def test_a_token_file_written_to_later_is_refused(tmp_path: Path) -> None:
    _, second, numbers = token_files(tmp_path)
    folder = made(Tokens(paths=(str(second),), vocabulary=900), tmp_path)
    with second.open("ab") as file:
        file.write(numbers[:4].tobytes())
    with pytest.raises(GrowpointError, match="not what it was"):
        Stream(folder, 10, 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("odd.bin", b"abc"),
        ("empty.bin", b""),
        ("broken.npy", b"\x93NUMPY nonsense"),
    ],
)
def test_unusable_token_files(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    error = refused(Tokens(paths=(str(tmp_path / name),), vocabulary=900), tmp_path)
    assert error.problem == "a token file cannot be used"
    assert dict(error.evidence)["file"].endswith(name)


def test_floats_are_not_tokens(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(100, dtype=np.float32))
    error = refused(Tokens(paths=(str(tmp_path),), vocabulary=900), tmp_path)
    assert error.problem == "a token file cannot be used"


# --- mistakes ------------------------------------------------------------------------------------


def test_undecodable_text_is_named(tmp_path: Path) -> None:
    where = written(tmp_path / "text", 12)
    (where / "bad.txt").write_bytes(b"fine \xff\xfe not")
    error = refused(text(where), tmp_path)
    assert dict(error.evidence)["file"].endswith("bad.txt")
    assert "byte 5" in dict(error.evidence)["says"]


def test_broken_rows_are_named(tmp_path: Path) -> None:
    where = jsonl(tmp_path / "rows")
    with (where / "rows.jsonl").open("a") as file:
        file.write('{"text": \n')
    assert "line 32" in dict(refused(text(where), tmp_path).evidence)["says"]


@pytest.mark.parametrize("write", [jsonl, parquets])
def test_an_unknown_column_gets_the_nearest(write: Callable[[Path], Path], tmp_path: Path) -> None:
    where = write(tmp_path / "rows")
    hub = Hub(dataset=str(where), column="texts", tokenizer=Bpe(vocabulary=300))
    for data in (text(where, column="texts"), hub):
        error = refused(data, tmp_path)
        assert error.problem == "the corpus has no column `texts`"
        assert error.help == "data.column=text"


def test_a_column_of_numbers_is_refused(tmp_path: Path) -> None:
    error = refused(text(jsonl(tmp_path / "rows"), column="id"), tmp_path)
    assert error.problem == "the column `id` holds int instead of text"


def test_one_document_cannot_be_split(tmp_path: Path) -> None:
    error = refused(text(written(tmp_path / "text", 1)), tmp_path)
    assert "one alone cannot be split" in error.help


def test_no_heldout_document(tmp_path: Path) -> None:
    where = written(tmp_path / "text", 6)
    error = refused(text(where, heldout_share=0.001), tmp_path)
    assert error.problem == "the corpus has no held-out document"
    share = float(error.help.removeprefix("data.heldout_share="))
    assert load(made(text(where, heldout_share=share), tmp_path))["heldout"]["documents"] == 1


def test_files_without_text(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").touch()
    error = refused(text(tmp_path / "text"), tmp_path)
    assert error.problem == "the corpus is empty: its files hold no text"


def test_a_corpus_shorter_than_a_batch(folder: Path) -> None:
    with pytest.raises(GrowpointError, match="shorter than one batch"):
        Stream(folder, 10**6, 0)
    stream = Stream(folder, 64, 0)
    stream.require_batch(stream.sequences)
    with pytest.raises(GrowpointError, match="shorter than one batch"):
        stream.require_batch(stream.sequences + 1)


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.weird").write_text("x")
    error = refused(Hub(dataset=str(tmp_path / "data")), tmp_path)
    assert error.problem == "a dataset cannot be read"


def test_a_damaged_corpus_is_named(tmp_path: Path) -> None:
    folder = made(text(written(tmp_path / "text", 12)), tmp_path)
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-2])
    with pytest.raises(GrowpointError, match="not what it was"):
        Stream(folder, 10, 0)
    (folder / "corpus.json").write_text("{")
    with pytest.raises(GrowpointError, match="cannot be read"):
        Stream(folder, 10, 0)
