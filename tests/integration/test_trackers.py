"""TensorBoard and Weights & Biases themselves: their files hold what was drawn."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator import trackers
from sweeps.stages import Init, Stage
from sweeps.tracker import TensorBoard, Wandb
from tests.integration.tiny_families import tiny

STAGE = Stage(Init(model=tiny("olmoe")))
PLAN: dict[str, Any] = {"sweep": "demo", "cells": [], "stages": {}}


def draw(folder: Path, *places: tuple[int, float], afterwards: bool = False) -> None:
    with trackers.drawn(folder, PLAN, STAGE, afterwards=afterwards) as to:
        for tokens, loss in places:
            to({"tokens": tokens, "heldout_loss" if afterwards else "loss": loss})


def test_tensorboard_shows_each_token_once_after_a_kill(tmp_path: Path) -> None:
    """What a killed attempt has drawn beyond its checkpoint is drawn again, not twice."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trackers.remember(tmp_path, TensorBoard())
    draw(tmp_path, (100, 3.0), (200, 2.5), (300, 9.0))
    draw(tmp_path, (200, 2.5), (300, 2.0))
    draw(tmp_path, (300, 2.25), afterwards=True)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard" / STAGE.id)).Reload()
    shown = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in ("loss",)}
    assert shown["loss"] == [(100, 3.0), (200, 2.5), (300, 2.0)]
    assert [(one.step, one.value) for one in events.Scalars("heldout_loss")] == [(300, 2.25)]


def test_weights_and_biases_offline_keeps_a_run_of_the_stage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    trackers.remember(tmp_path, Wandb(mode="offline", tags=("tiny",)))
    draw(tmp_path, (100, 3.0), (200, 2.5))
    assert not caplog.records
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert [run.name.partition("-init-")[2] for run in runs] == [STAGE.id.removeprefix("init-")]
    written = (runs[0] / f"run-{STAGE.id}.wandb").read_bytes()
    assert b"loss" in written
    assert STAGE.id.encode() in written
