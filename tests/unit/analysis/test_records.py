"""Records: what is read, and that nothing bad is lost on the way."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from analysis import records
from orchestrator.store import Store
from sweeps.errors import GrowpointError
from tests.unit.analysis import invented


def test_one_row_for_each_finished_cell_in_documented_columns(
    store: Store, frame: pd.DataFrame
) -> None:
    assert list(frame.columns) == list(records.COLUMNS)
    assert len(frame) == records.planned(store, "invented") == 68
    assert (frame["total_flops"] == frame["sunk_flops"] + frame["extra_flops"]).all()
    assert (frame.loc[frame["arm"] == "scratch", "sunk_flops"] == 0).all()
    assert (frame.loc[frame["arm"] == "continue", "growth"] == "-").all()


def test_unfinished_cells_are_left_out_and_counted(small: Store) -> None:
    before = records.load(small, "invented")
    (small.run(before["stage"].iloc[3]) / "record.json").unlink()
    after = records.load(small, "invented")
    assert set(before["stage"]) - set(after["stage"]) == {before["stage"].iloc[3]}
    assert records.planned(small, "invented") == len(after) + 1


def test_no_finished_cell_is_an_error(small: Store) -> None:
    for stage in records.load(small, "invented")["stage"]:
        (small.run(stage) / "record.json").unlink()
    with pytest.raises(GrowpointError, match="no cell of invented is finished"):
        records.load(small, "invented")


@pytest.mark.parametrize(
    "bad",
    [
        {"metrics": {"loss": {"value": math.nan, "se": 0.1}}},
        {"metrics": {"loss": {"value": 2.0, "se": -0.1}}},
        {"metrics": {"loss": {"value": "2.0", "se": 0.1}}},
        {"metrics": {"loss": {"value": 2.0, "se": 0.1}}},
        {"metrics": {}},
        {},
    ],
)
def test_a_malformed_record_is_an_error_that_names_its_file(
    small: Store, bad: dict[str, object]
) -> None:
    stage = records.load(small, "invented")["stage"].iloc[0]
    (small.run(stage) / "record.json").write_text(json.dumps(bad))
    with pytest.raises(GrowpointError, match="a record cannot be read") as caught:
        records.load(small, "invented")
    assert f"runs/{stage}/record.json" in caught.value.text()


def test_an_accuracy_in_percent_is_refused(small: Store) -> None:
    stage = records.load(small, "invented")["stage"].iloc[0]
    path = small.run(stage) / "record.json"
    record = json.loads(path.read_text())
    record["metrics"]["next_token_accuracy"]["value"] = 55.0
    path.write_text(json.dumps(record))
    with pytest.raises(GrowpointError) as caught:
        records.load(small, "invented")
    assert "no fraction" in caught.value.text()


def test_choice_accuracy_may_be_absent(small: Store) -> None:
    stage = records.load(small, "invented")["stage"].iloc[0]
    path = small.run(stage) / "record.json"
    record = json.loads(path.read_text())
    del record["metrics"]["choice_accuracy"]
    path.write_text(json.dumps(record))
    row = records.load(small, "invented").set_index("stage").loc[stage]
    assert math.isnan(row["choice_accuracy"])
    assert not math.isnan(row["accuracy"])


def test_curves_count_compute_along_the_lineage(store: Store, frame: pd.DataFrame) -> None:
    curves = records.curves(store, "invented", frame)
    deep = curves[(curves["growth"] == "depth x2") & (curves["part"] == "branch")]
    for sunk in map(float, deep["sunk_flops"].unique()):
        branch = deep[deep["sunk_flops"] == sunk]
        assert branch["total_flops"].min() > sunk
        assert branch["total_flops"].max() == pytest.approx(sunk + 8e12, rel=1e-3)
    trunk = curves[(curves["growth"] == "depth x2") & (curves["part"] == "trunk")]
    assert trunk["total_flops"].is_monotonic_increasing
    assert trunk["total_flops"].max() == pytest.approx(3.2e13, rel=1e-3)


def test_a_branch_that_starts_from_a_shared_phase_is_not_counted_twice(tmp_path: Path) -> None:
    """A phase may start from an earlier point of itself; its tokens are those since `after`."""
    stages = {
        "init-1": {"kind": "init", "after": None, "tokens": 0, "flops": 0.0},
        "train-0": {"kind": "train", "after": "init-1", "tokens": 40, "flops": 80.0},
        "grow-1": {"kind": "grow", "after": "train-0", "tokens": 0, "flops": 0.0},
        "train-1": {"kind": "train", "after": "grow-1", "tokens": 100, "flops": 1000.0},
        "train-2": {
            "kind": "train",
            "after": "grow-1",
            "starts_from": "train-1",
            "tokens": 300,
            "flops": 2000.0,
        },
        "evaluate-1": {"kind": "evaluate", "after": "train-2", "tokens": 0, "flops": 0.0},
    }
    (tmp_path / "plans" / "s").mkdir(parents=True)
    (tmp_path / "plans" / "s" / "plan.json").write_text(json.dumps({"cells": [], "stages": stages}))
    phases = (("train-0", (20, 40)), ("train-1", (50, 100)), ("train-2", (200, 300)))
    for stage, seen in phases:
        lines = [json.dumps({"tokens": tokens, "loss": 2.0}) + "\n" for tokens in seen]
        (tmp_path / "runs" / stage).mkdir(parents=True)
        (tmp_path / "runs" / stage / "metrics.jsonl").write_text("".join(lines))
    row = {"arm": "grow", "variant": "", "growth": "depth x2", "seed": 0, "stage": "evaluate-1"}
    frame = pd.DataFrame([row | {"sunk_flops": 80.0, "extra_flops": 3000.0}])
    curves = records.curves(Store(tmp_path), "s", frame)
    assert curves[curves["part"] == "branch"]["total_flops"].tolist() == [580, 1080, 2080, 3080]
    assert curves[curves["part"] == "trunk"]["total_flops"].tolist() == [40, 80]


def test_the_invented_sweep_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        invented.write(tmp_path / name, invented.Layout(seeds=(0,), extra=(4e12,)))
    left, right = (records.load(Store(tmp_path / name), "invented") for name in ("a", "b"))
    pd.testing.assert_frame_equal(left, right)
