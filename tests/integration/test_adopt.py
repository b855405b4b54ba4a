"""Adopting real tiny checkpoints: nothing is copied or written there, and every change is seen."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import adopt, checkpoint, grow, models
from orchestrator.store import Store
from orchestrator.verbs import run
from orchestrator.work import Circumstance, Work
from sweeps import adoption, hub
from sweeps.errors import GrowpointError
from sweeps.growth import Depth
from sweeps.places import Folder, Snapshot, content
from sweeps.series import Series, Source, adopted
from sweeps.stages import Adopted, Stage
from tests.integration import tiny_series

STEPS = (1, 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of somebody else: step_1 and step_2."""
    root = tmp_path_factory.mktemp("run1")
    texts = tmp_path_factory.mktemp("texts")
    (texts / "a.txt").write_text("the cat sat on the mat. " * 200)
    tiny_series.make(root, texts, STEPS)
    return root


@pytest.fixture
def run1(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may spoil."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(trained, tmp_path / "run1"))


def source_of(run1: Path, step: int = 1) -> Source:
    """A checkpoint of the series, chosen as a sweep chooses it."""
    series = Series(folder=f"{run1}/step_{{step}}", tokens_per_step=256)
    found = next(source for source in adoption.listed(series) if source.step == step)
    return found.model_copy(update={"content": adoption.content(found)})


def said_of(source: Source) -> dict[str, Any]:
    return source.model_dump(mode="json", exclude={"content"})


def adopting(source: Source, target: Path) -> Adopted:
    """Adopt a source directly."""
    known = Adopted(content=source.content)
    adopt.adopt(known, said_of(source), target)
    return known


@contextmanager
def unwritable(root: Path) -> Iterator[None]:
    """A read-only tree; what is in it must be the same afterwards, by name, bytes and times."""
    paths = [root, *root.rglob("*")]
    before = _state(root)
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
        assert _state(root) == before
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


def _state(root: Path) -> dict[str, tuple[int, int, int]]:
    found = {path: path.stat() for path in sorted(root.rglob("*"))}
    return {str(path): (s.st_size, s.st_mtime_ns, s.st_nlink) for path, s in found.items()}


def test_an_adopted_checkpoint_is_the_source_and_takes_no_room(run1: Path, tmp_path: Path) -> None:
    target = tmp_path / "store" / "checkpoint"
    with unwritable(run1):
        adopting(source_of(run1), target)
    checkpoint.verify(target)
    weights = target / checkpoint.SINGLE
    assert weights.is_symlink() or weights.stat().st_ino != _weights(run1).stat().st_ino
    assert weights.read_bytes() == _weights(run1).read_bytes()
    assert {"tokenizer.json", "config.json", "manifest.json"} <= names(target)
    one, other = models.load(target), models.load(run1 / "step_1")
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_only_what_is_ours_is_synced(
    run1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(adopt, "sync", lambda path: synced.append(path.resolve()))
    adopting(source_of(run1), tmp_path / "adopted")
    assert {"config.json", "manifest.json"} <= {path.name for path in synced}
    assert not [path for path in synced if path.is_relative_to(run1)]


def _weights(run1: Path) -> Path:
    return run1 / "step_1" / checkpoint.SINGLE


def test_it_grows_like_its_source(run1: Path, tmp_path: Path) -> None:
    adopting(source_of(run1), tmp_path / "adopted")
    grown = [tmp_path / "grown" / name for name in ("adopted", "source")]
    for source, target in zip((tmp_path / "adopted", run1 / "step_1"), grown, strict=True):
        grow.grow(source, target, [Depth()], 0)
    first, second = (checkpoint.entries(folder) for folder in grown)
    assert first.keys() == second.keys()
    for name in first:
        a, b = first[name], second[name]
        assert a.file.read_bytes()[a.start : a.end] == b.file.read_bytes()[b.start : b.end]


def test_a_source_that_changed_since_the_plan_is_refused(run1: Path, tmp_path: Path) -> None:
    source = source_of(run1)
    shutil.copy(run1 / "step_2" / checkpoint.SINGLE, _weights(run1))
    with pytest.raises(GrowpointError, match="has changed since the sweep was planned") as error:
        adopting(source, tmp_path / "store" / "checkpoint")
    assert dict(error.value.evidence)["planned"] == source.content
    assert not list((tmp_path / "store").iterdir())


def test_a_source_that_changes_afterwards_is_seen_where_it_is_read(
    run1: Path, tmp_path: Path
) -> None:
    target = tmp_path / "adopted"
    adopting(source_of(run1), target)
    # In place, as a training run that writes over its own checkpoint does.
    with _weights(run1).open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\1\2\3\4")
    if (target / checkpoint.SINGLE).is_symlink():
        with pytest.raises(GrowpointError, match="not what was sealed"):
            checkpoint.verify(target)
    else:
        checkpoint.verify(target)


def test_a_source_that_vanished_is_refused_and_its_links_are_seen(
    run1: Path, tmp_path: Path
) -> None:
    source = source_of(run1)
    adopting(source, tmp_path / "adopted")
    run1.rename(tmp_path / "moved")
    if (tmp_path / "adopted" / checkpoint.SINGLE).is_symlink():
        with pytest.raises(GrowpointError, match="is missing"):
            checkpoint.verify(tmp_path / "adopted")
    with pytest.raises(GrowpointError, match="not where it was planned"):
        adopting(source, tmp_path / "again")


def test_pickles_and_missing_shards_are_refused(run1: Path, tmp_path: Path) -> None:
    source = source_of(run1)
    _weights(run1).rename(run1 / "step_1" / "pytorch_model.bin")
    with pytest.raises(GrowpointError, match="pickled"):
        adopting(source, tmp_path / "adopted")
    (run1 / "step_1" / "pytorch_model.bin").unlink()
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (run1 / "step_1" / checkpoint.INDEX).write_text(json.dumps(index))
    with pytest.raises(GrowpointError, match="is missing"):
        adopting(source, tmp_path / "adopted")


def test_code_and_training_state_do_not_come_along(run1: Path, tmp_path: Path) -> None:
    for name in ("modeling_mine.py", "training.json", "optimizer.json"):
        (run1 / "step_1" / name).write_text("{}")
    adopting(source_of(run1), tmp_path / "adopted")
    assert not {"modeling_mine.py", "training.json", "optimizer.json"} & names(tmp_path / "adopted")


def working(tmp_path: Path, stage: Stage, sources: Mapping[str, Any]) -> Work:
    """What a job has when it begins: a store, and the plan's word on where sources lie."""
    store = Store(tmp_path / "store").open()
    store.ask(stage)
    return Work(store, {"sweep": "s", "sources": sources}, Circumstance(), lambda: False)


def test_a_stage_adopts_once_and_repairs_what_was_damaged(run1: Path, tmp_path: Path) -> None:
    source = source_of(run1)
    stage = adopted(source, adoption.model_of(source))
    work = working(tmp_path, stage, {stage.id: said_of(source)})
    # As a job has it, which knows the stage by its file alone.
    asked = work.store.stage(stage.id)
    came = run(work, asked)
    assert came is not None
    assert came["adopted"]["name"] == "step_1"
    folder = work.store.checkpoint(stage.id)
    before = (folder / "manifest.json").stat().st_ino
    run(work, asked)
    assert (folder / "manifest.json").stat().st_ino == before
    (folder / "config.json").write_text("{}")
    run(work, asked)
    checkpoint.verify(folder)


def test_a_plan_that_does_not_know_the_place_says_so(run1: Path, tmp_path: Path) -> None:
    source = source_of(run1)
    stage = adopted(source, adoption.model_of(source))
    with pytest.raises(GrowpointError, match="does not say where") as error:
        run(working(tmp_path, stage, {}), stage)
    assert error.value.help == "growpoint launch s"


def test_a_damaged_cache_of_the_hub_is_seen(
    run1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Snapshot(repo="me/run", revision="step1", commit="a" * 40)
    folder = tmp_path / "hub" / "models--me--run"
    snapshot = folder / "snapshots" / place.commit
    (folder / "blobs").mkdir(parents=True)
    shutil.copytree(run1 / "step_1", snapshot)
    blob = folder / "blobs" / checkpoint.file_hash(snapshot / checkpoint.SINGLE)
    (snapshot / checkpoint.SINGLE).rename(blob)
    (snapshot / checkpoint.SINGLE).symlink_to(blob)
    monkeypatch.setattr(hub, "_cache", lambda: tmp_path / "hub")
    source = Source(series="s", name="step1", place=place, tokens=1)
    source = source.model_copy(update={"content": adoption.content(source)})
    assert source.content == f"hub:me/run@{place.commit}"
    adopting(source, tmp_path / "adopted")
    checkpoint.verify(tmp_path / "adopted")
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(bytes(data))
    with pytest.raises(GrowpointError, match="not what the hub has"):
        adopting(source, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_content_is_that_of_weights_and_config_alone(run1: Path) -> None:
    folder = run1 / "step_1"
    before = content(folder, Folder(path=str(folder)))
    (folder / "tokenizer.json").write_text("{}")
    checkpoint.seal(folder)
    assert content(folder, Folder(path=str(folder))) == before
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"olmoe"', '"mixtral"'))
    assert content(folder, Folder(path=str(folder))) != before
