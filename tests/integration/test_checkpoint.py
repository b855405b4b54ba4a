"""Checkpoint folders: every damage is found and named, and nothing appears before it is whole."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from orchestrator import checkpoint
from orchestrator.checkpoint import INDEX, entries, publish, read_config, seal, verify
from sweeps.errors import GrowpointError

TENSORS = {
    "model.b": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "model.a": torch.arange(5, dtype=torch.bfloat16),
    "model.empty": torch.zeros(0, 3),
    "model.scalar": torch.tensor(2.5, dtype=torch.float16),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "checkpoint"
    made.mkdir()
    save_file(TENSORS, made / "model.safetensors")
    (made / "config.json").write_text('{"model_type": "olmoe"}')
    return made


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    made = tmp_path / "sharded"
    made.mkdir()
    names = {name: f"model-{number:05d}.safetensors" for number, name in enumerate(TENSORS)}
    for name, file in names.items():
        save_file({name: TENSORS[name]}, made / file)
    (made / INDEX).write_text(json.dumps({"weight_map": names}))
    (made / "config.json").write_text('{"model_type": "olmoe"}')
    return made


def test_entries_are_the_bytes_of_the_tensors(folder: Path, sharded: Path) -> None:
    for found in (entries(folder), entries(sharded)):
        assert found.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            entry = found[name]
            data = entry.file.read_bytes()[entry.start : entry.end]
            assert data == tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            assert entry.shape == tuple(tensor.shape)
    assert entries(folder)["model.a"].dtype == "BF16"


def test_a_manifest_is_what_sha256sum_says(folder: Path) -> None:
    seal(folder)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert list(files) == ["config.json", "model.safetensors"]
    for name, said in files.items():
        data = (folder / name).read_bytes()
        assert said == {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    verify(folder)


def test_a_folder_of_others_passes_on_its_headers(folder: Path, sharded: Path) -> None:
    verify(folder)
    verify(sharded)


def test_a_flipped_byte_is_found_by_its_hash(folder: Path) -> None:
    seal(folder)
    path = folder / "model.safetensors"
    before, data = sha256(path.read_bytes()).hexdigest(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    verify(folder, quick=True)
    with pytest.raises(GrowpointError, match="not what was sealed") as caught:
        verify(folder)
    text = caught.value.text()
    assert str(path) in text
    assert before in text
    assert sha256(data).hexdigest() in text


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def truncate_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def append(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"more")


def remove(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def not_a_safetensors_file(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10" + b"\0" * 7 + b"this is not JSON" * 2)


def a_list_for_a_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"[]")


DAMAGES = [
    truncate,
    truncate_header,
    empty,
    append,
    remove,
    not_a_safetensors_file,
    a_list_for_a_header,
]


@pytest.mark.parametrize("sealed", [False, True], ids=["foreign", "sealed"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damages_are_named_even_in_a_quick_look(
    damage: Callable[[Path], None], sealed: bool, folder: Path
) -> None:
    if sealed:
        seal(folder)
    damage(folder)
    with pytest.raises(GrowpointError) as caught:
        verify(folder, quick=True)
    assert "model.safetensors" in caught.value.text()
    assert caught.value.help


def header(**tensors: tuple[str, list[int], list[int]]) -> bytes:
    said = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        for name, (dtype, shape, offsets) in tensors.items()
    }
    text = json.dumps(said).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        header(a=("F32", [2], [0, 4])) + bytes(4),
        header(a=("F32", [1], [4, 8])) + bytes(8),
        header(a=("F32", [1], [0, 4]), b=("F32", [1], [2, 6])) + bytes(6),
        header(a=("novel", [1], [0, 4])) + bytes(4),
    ],
    ids=["wrong length", "gap", "overlap", "unknown dtype"],
)
def test_headers_that_contradict_themselves_are_refused(data: bytes, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(GrowpointError, match="damaged"):
        entries(folder)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model-00002.safetensors").unlink()
    with pytest.raises(GrowpointError, match="missing") as caught:
        verify(sharded)
    assert "model-00002.safetensors" in caught.value.text()


def test_an_index_may_not_promise_more_than_there_is(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["model.absent"] = "model-00000.safetensors"
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(GrowpointError, match="damaged") as caught:
        entries(sharded)
    assert "model.absent" in caught.value.text()


def test_an_index_may_not_point_out_of_its_folder(sharded: Path) -> None:
    (sharded / INDEX).write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(GrowpointError, match="damaged"):
        entries(sharded)


def test_pickles_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(GrowpointError, match="has no checkpoint") as caught:
        entries(folder)
    assert "safetensors" in caught.value.help


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_config_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(GrowpointError, match="damaged"):
        read_config(folder)


def test_a_damaged_manifest_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"files": {"config.json": 3}}')
    with pytest.raises(GrowpointError, match="damaged"):
        verify(folder)


def test_fingerprints_follow_the_content(folder: Path) -> None:
    foreign = checkpoint.fingerprint(folder)
    (folder / "notes.txt").write_text("not part of it")
    assert checkpoint.fingerprint(folder) == foreign
    (folder / "config.json").write_text('{"model_type": "mixtral"}')
    changed = checkpoint.fingerprint(folder)
    seal(folder)
    assert len({foreign, changed, checkpoint.fingerprint(folder)}) == 3


def test_publishing_is_all_or_nothing(folder: Path, tmp_path: Path) -> None:
    publish(folder, tmp_path / "final")
    assert not folder.exists()
    verify(tmp_path / "final")
    folder.mkdir()
    with pytest.raises(GrowpointError, match="exists already"):
        publish(folder, tmp_path / "final")
    assert folder.is_dir()
    verify(tmp_path / "final")
