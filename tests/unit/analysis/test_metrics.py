"""Metrics that a suite measures beside loss and accuracy: named, read, fitted and shown."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis import commands, metrics, records
from analysis.metrics import METRICS
from analysis.outcomes import of_sweep
from orchestrator.store import Store
from sweeps.errors import GrowpointError

NAMES = [
    *METRICS, "choice_accuracy", "loss@1024", "accuracy@noise0.1", "accuracy:mean",
    "loss:wikitext", "accuracy:my_task@1:x",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_which_way_is_better(name: str) -> None:
    found = metrics.named(name)
    assert found is not None
    assert found.name == name
    assert (found.top is None) == name.startswith("loss") == (found.kind == "loss")
    frame = pd.DataFrame({found.column: [0.5], f"{found.column}_se": [0.1]})
    assert metrics.measured(frame) == (found,)


@pytest.mark.parametrize("name", ["", "f1", "loss@", "lossy", "accuracy mean", "choice_accuracy@8"])
def test_other_names_are_no_metrics(name: str) -> None:
    assert metrics.named(name) is None


def more(store: Store) -> None:
    """A task and a length for every evaluation."""
    for path in store.root.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        if "next_token_accuracy" not in record.get("metrics", {}):
            continue
        found = record["metrics"]
        found["accuracy:colours"] = {**found["next_token_accuracy"], "metric": "acc,none"}
        found["loss@1024"] = {"value": found["loss"]["value"] - 0.1, "se": 0.01}
        found["loss:words"] = {"value": found["loss"]["value"], "se": None}
        found["novel"] = {"value": 3, "se": 0}
        path.write_text(json.dumps(record))


def test_records_have_a_column_for_each(small: Store) -> None:
    more(small)
    frame = records.load(small, "invented")
    assert list(frame.columns[: len(records.COLUMNS)]) == list(records.COLUMNS)
    assert (frame["accuracy:colours"] == frame["accuracy"]).all()
    assert frame["val_loss@1024"].to_numpy() == pytest.approx(frame["val_loss"].to_numpy() - 0.1)
    assert frame["val_loss:words_se"].isna().all()
    assert "novel" not in frame
    names = [each.name for each in metrics.measured(frame)]
    assert names[:2] == list(METRICS)
    assert set(names[2:]) == {"choice_accuracy", "accuracy:colours", "loss@1024", "loss:words"}


def test_an_error_is_missing_from_tasks_alone(small: Store) -> None:
    more(small)
    path = next(
        path for path in small.root.glob("runs/*/record.json") if "@1024" in path.read_text()
    )
    path.write_text(path.read_text().replace('"se": 0.01', '"se": null'))
    with pytest.raises(GrowpointError, match="a record cannot be read"):
        records.load(small, "invented")


def test_a_length_is_decided_by_as_loss_is(
    small: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tenth of a nat off every loss changes no comparison of runs."""
    more(small)
    made = of_sweep(small, "invented")
    said = []
    for name in ("loss", "loss@1024"):
        assert commands.recommend(made, as_json=True, metric=name) == 0
        said.append(json.loads(capsys.readouterr().out))
    plain, other = said
    assert other["metric"] == "loss@1024"
    assert other["answer"] == plain["answer"]
    for left, right in zip(plain["options"], other["options"], strict=True):
        assert right["expected"] == pytest.approx(left["expected"] - 0.1, abs=0.02)


def test_a_task_is_fitted_when_it_is_asked_for(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(store.root, tmp_path / "store")
    copied = Store(tmp_path / "store")
    more(copied)
    made = of_sweep(copied, "invented")
    assert commands.results(made) == 0
    assert "--metric: accuracy:colours, loss@1024, loss:words" in capsys.readouterr().out
    law = ("sunk_loglinear",)
    assert commands.fit(made, laws=law, metric="accuracy:colours") == 0
    said = capsys.readouterr().out
    assert "accuracy:colours" in said
    assert "points" in said
    assert commands.fit(made, as_json=True, laws=law) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["metric"] for each in found["fits"]} == {"accuracy", "loss"}
    assert not (made.folder / "fits.json").exists()
    assert commands.plot(made, which=["sunk_vs_accuracy"], metric="accuracy:colours") == 0
    assert "sunk_vs_accuracy_accuracy_colours" in capsys.readouterr().out


def test_what_was_not_measured_is_said(small: Store) -> None:
    more(small)
    made = of_sweep(small, "invented")
    with pytest.raises(GrowpointError, match="has no loss@2048") as caught:
        made.metric("loss@2048")
    assert "--metric loss@1024" in caught.value.text()
    with pytest.raises(GrowpointError, match="there is no metric 'bleu'"):
        made.metric("bleu")
