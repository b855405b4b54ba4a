"""Growth is all or nothing, and says what is wrong."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.grow import by_hand, grow
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width
from tests.integration.tiny_families import (
    edit,
    quantised,
    same,
    saved,
    tiny,
    weights,
)

EXACT = Width(noise=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny("olmoe"), tmp_path_factory.mktemp("olmoe") / "source")


def test_noise_on_quantised_experts_is_refused(tmp_path: Path) -> None:
    source = quantised(saved(tiny("deepseek_v3"), tmp_path / "source"))
    with pytest.raises(GrowpointError, match="quantised") as caught:
        grow(source, tmp_path / "grown", [Width()], seed=0)
    assert "noise: 0" in caught.value.help
    assert list(tmp_path.iterdir()) == [source]


def test_unknown_tensors_are_named_not_copied(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    path = source / "model.safetensors"
    save_file({**load_file(path), "model.layers.0.mlp.novelty.weight": torch.ones(8)}, path)
    with pytest.raises(GrowpointError, match="olmoe does not know 1 ") as caught:
        grow(source, tmp_path / "wide", [Width()], seed=0)
    assert "model.layers.0.mlp.novelty.weight" in caught.value.text()


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    path = source / "model.safetensors"
    found = load_file(path)
    del found["model.layers.1.mlp.experts.3.up_proj.weight"]
    save_file(found, path)
    with pytest.raises(GrowpointError, match="lacks 1 tensors") as caught:
        grow(source, tmp_path / "wide", [Width()], seed=0)
    assert "model.layers.1.mlp.experts.3.up_proj.weight" in caught.value.text()


def test_a_config_that_is_not_the_weights_is_refused(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    edit(source, hidden_size=64)
    with pytest.raises(GrowpointError, match="does not fit its config"):
        grow(source, tmp_path / "wide", [Width()], seed=0)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    path = source / "model.safetensors"
    found = load_file(path)
    found["model.layers.1.mlp.gate.weight"][0, 0] = float("nan")
    save_file(found, path)
    with pytest.raises(GrowpointError, match="not finite"):
        grow(source, tmp_path / "wide", [Width()], seed=0)
    assert list(tmp_path.iterdir()) == [source]


def test_an_existing_target_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(GrowpointError, match="exists already"):
        grow(source, tmp_path / "there", [Depth()], seed=0)
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("fails", ["write", "posix_fallocate", "fsync"])
def test_a_full_disk_leaves_nothing(
    fails: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    original = getattr(os, fails)

    def full(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(GrowpointError, match="disk is full"):
        grow(source, tmp_path / "wide", [Width()], seed=0, shard_bytes=50_000)
    assert calls > 2
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def interrupt(done: int, _: int) -> None:
        if done > 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(source, tmp_path / "wide", [Width()], seed=0, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_growth_has_no_target_and_is_cleared_by_the_next(
    source: Path, tmp_path: Path
) -> None:
    child = os.fork()
    if child == 0:
        try:
            target = tmp_path / "wide"
            grow(source, target, [Width()], 0, on_progress=lambda *_: os.kill(os.getpid(), 9))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == 9
    assert not (tmp_path / "wide").exists()
    assert len(list(tmp_path.iterdir())) == 1
    grow(source, tmp_path / "wide", [Width()], seed=0)
    assert list(tmp_path.iterdir()) == [tmp_path / "wide"]


def test_by_hand_takes_a_checkpoint_or_a_stage(source: Path, tmp_path: Path) -> None:
    stage = tmp_path / "runs/train-0123456789"
    stage.mkdir(parents=True)
    (stage / "stage.json").write_text("{}")
    with pytest.raises(GrowpointError, match="has no checkpoint"):
        by_hand(str(stage), str(tmp_path / "out"), [Depth()])
    (stage / "checkpoint").symlink_to(source)
    reports = [
        by_hand(str(stage), str(tmp_path / "from_stage"), [Depth()]),
        by_hand(str(source), str(tmp_path / "from_folder"), [Depth()]),
    ]
    assert [report.layers for report in reports] == [(0, 0, 1, 1, 2, 2)] * 2
    assert same(weights(tmp_path / "from_stage"), weights(tmp_path / "from_folder"))
    assert "3 -> 6" in reports[0].text()
    assert json.loads(json.dumps(reports[0].to_dict()))["layers"] == [0, 0, 1, 1, 2, 2]


def test_by_hand_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(GrowpointError, match="has no checkpoint"):
        by_hand(str(tmp_path / "nowhere"), str(tmp_path / "out"), [Depth()])
    (tmp_path / "config.json").write_text('{"model_type": "novel"}')
    with pytest.raises(GrowpointError, match="no family describes"):
        by_hand(str(tmp_path), str(tmp_path / "out"), [Depth()])
    with pytest.raises(GrowpointError, match="no growth"):
        by_hand(str(tmp_path), str(tmp_path / "out"), [])
