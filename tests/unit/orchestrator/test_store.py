"""The store: atomic, honest about damage, and readable without our code."""

import hashlib
import os
from pathlib import Path

import pytest

from orchestrator import store as stores
from orchestrator.store import Store, read_json, write_atomic, write_json
from sweeps.errors import GrowpointError
from tests.unit.sweeps.conftest import plan_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path).open()


def test_the_id_is_the_hash_of_the_file(store: Store) -> None:
    for stage in plan_of().stages:
        text = (store.ask(stage) / "stage.json").read_bytes()
        assert stage.id.endswith(hashlib.sha256(text).hexdigest()[:10])
        assert store.stage(stage.id) == stage


def test_a_stage_file_that_was_edited_is_refused(store: Store) -> None:
    stage = plan_of().stages[-1]
    path = store.ask(stage) / "stage.json"
    path.write_text(path.read_text().replace("stdlib", "stdlob"))
    with pytest.raises(GrowpointError, match="not what its folder's name says"):
        store.stage(stage.id)


def test_prefixes_find_one_stage(store: Store) -> None:
    stages = plan_of().stages
    for stage in stages:
        store.ask(stage)
    assert store.find(stages[0].id) == stages[0].id
    assert store.find(stages[0].id.partition("-")[2]) == stages[0].id
    with pytest.raises(GrowpointError, match="is short for") as caught:
        store.find("train-")
    assert caught.value.help == "give one more digit"
    with pytest.raises(GrowpointError, match="no stage begins with"):
        store.find("train-zz")


def test_a_newer_store_is_left_alone(store: Store) -> None:
    write_json(store.root / "runs" / stores.MARK, {"version": stores.VERSION + 1})
    with pytest.raises(GrowpointError, match="newer growpoint"):
        Store(store.root).open()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GrowpointError, match="the store is full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_under_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GrowpointError, match="cannot be written"):
        Store(tmp_path / "file").open()


def test_damaged_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"half":')
    with pytest.raises(GrowpointError) as caught:
        read_json(tmp_path / "record.json")
    assert str(tmp_path / "record.json") in caught.value.help


def test_only_the_record_makes_a_stage_done(store: Store) -> None:
    stage = plan_of().stages[0]
    store.ask(stage)
    store.set_state(stage.id, "done")
    assert not store.done(stage.id)
    store.finish(stage.id, {"metrics": {}})
    assert store.done(stage.id)
    assert store.record(stage.id) == {"metrics": {}}


def test_a_torn_metrics_line_is_left_out(store: Store) -> None:
    run = store.run("train-1")
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"tokens": 1}\n{"tokens": 2}\n{"tok')
    assert [line["tokens"] for line in store.metrics("train-1")] == [1, 2]


def test_an_unknown_sweep_names_those_launched(store: Store) -> None:
    write_json(store.plan_folder("demo") / "plan.json", {"version": 1})
    with pytest.raises(GrowpointError) as caught:
        store.plan("dmo")
    assert dict(caught.value.evidence)["launched"] == "demo"
