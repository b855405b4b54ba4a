"""Trackers draw what metrics.jsonl says, and never stand in the way of training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator import extras, trackers
from sweeps.errors import GrowpointError
from sweeps.tracker import Nowhere, TensorBoard, Wandb

LINE = {"step": 10, "tokens": 640, "loss": 2.5, "router_loss": None, "seconds": 0.5}


class Drawn:
    """A curve in memory; `fails` is the call that raises."""

    def __init__(self, fails: int = 0) -> None:
        self.lines: list[tuple[int, Mapping[str, float]]] = []
        self.closed, self.calls, self.fails = 0, 0, fails

    def add(self, tokens: int, numbers: Mapping[str, float]) -> None:
        self.calls += 1
        if self.calls == self.fails:
            raise ConnectionError("the server went away")
        self.lines.append((tokens, numbers))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def curve(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    made = Drawn()
    monkeypatch.setattr(trackers, "_opened", lambda *_: made)
    return made


def draw(folder: Path, *lines: dict[str, Any]) -> None:
    stage: Any = None
    with trackers.drawn(folder, {}, stage) as to:
        for line in lines:
            to(line)


def test_numbers_are_drawn_over_tokens(tmp_path: Path, curve: Drawn) -> None:
    trackers.remember(tmp_path, TensorBoard())
    draw(tmp_path, LINE, {**LINE, "tokens": 1280})
    shown = {"step": 10.0, "loss": 2.5, "seconds": 0.5}
    assert curve.lines == [(640, shown), (1280, shown)]
    assert curve.closed == 1


def test_lines_that_are_said_again_are_drawn_once(tmp_path: Path, curve: Drawn) -> None:
    lines = [{"tokens": tokens, "loss": 1.0} for tokens in (64, 128, 64, 128, 192)]
    trackers.remember(tmp_path, TensorBoard())
    draw(tmp_path, *lines)
    assert [tokens for tokens, _ in curve.lines] == [64, 128, 192]


def test_without_a_tracker_nothing_is_opened(tmp_path: Path, curve: Drawn) -> None:
    draw(tmp_path, LINE)
    trackers.remember(tmp_path, Nowhere())
    draw(tmp_path, LINE)
    assert (curve.calls, curve.closed) == (0, 0)


def test_a_stage_that_says_nothing_opens_nothing(tmp_path: Path, curve: Drawn) -> None:
    trackers.remember(tmp_path, TensorBoard())
    draw(tmp_path)
    assert curve.closed == 0


def test_a_failure_is_said_once_and_left_alone(
    tmp_path: Path, curve: Drawn, caplog: pytest.LogCaptureFixture
) -> None:
    trackers.remember(tmp_path, Wandb(mode="offline"))
    curve.fails = 2
    draw(tmp_path, *({**LINE, "tokens": 64 * number} for number in range(1, 6)))
    assert len(curve.lines) == 1
    assert curve.calls == 2
    assert [record.message for record in caplog.records] == [
        "the tracker failed and is left alone: ConnectionError: the server went away"
    ]


@pytest.mark.parametrize("tracker", [TensorBoard(folder="x"), Wandb(tags=("a",)), Nowhere()])
def test_what_is_remembered_is_what_was_asked(
    tmp_path: Path, tracker: Nowhere | TensorBoard | Wandb
) -> None:
    trackers.remember(tmp_path, tracker)
    said = json.loads((tmp_path / trackers.FILE).read_text())
    assert trackers.TRACKER.validate_python(said) == tracker


def test_a_missing_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(GrowpointError, match="not installed") as said:
        trackers.require(Wandb())
    assert said.value.help == "pip install 'growpoint[wandb]'"
    trackers.require(Nowhere())
