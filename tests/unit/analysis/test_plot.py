"""The command that draws: every figure there is something for, and the reason for the others."""

import json
from pathlib import Path

import pytest

from analysis import commands, figures
from analysis.outcomes import of_sweep, of_table
from orchestrator.store import Store
from sweeps.errors import GrowpointError
from tests.unit.analysis import invented


def test_all_figures_of_a_sweep_are_written_and_a_rerun_changes_no_byte(
    small: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for _ in range(2):
        assert commands.plot(of_sweep(small, "invented"), as_json=True, metric="loss") == 0
        drawn = json.loads(capsys.readouterr().out)["figures"]
        paths = [Path(path) for each in drawn.values() for path in each]
        made.append({path.name: path.read_bytes() for path in paths})
        for path in paths:
            path.unlink()
    assert tuple(drawn) == figures.NAMES
    assert made[0] == made[1]
    assert len(made[0]) == 4 * len(figures.NAMES)
    assert {"decision_map_loss.pdf", "loss_curves.svg"} <= set(made[0])


def test_what_cannot_be_drawn_is_said_and_is_an_error_if_it_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = invented.Layout(
        sunk=(0, 2e12), depth_at=(0, 1), width_at=(), continue_at=(1,), seeds=(0,)
    )
    invented.write(tmp_path, layout)
    sweep = of_sweep(Store(tmp_path), "invented")
    assert commands.plot(sweep, as_json=True) == 0
    out, talk = capsys.readouterr()
    assert set(json.loads(out)["figures"]) == {
        "sunk_vs_accuracy",
        "accuracy_vs_extra",
        "loss_curves",
    }
    assert "decision_map is not drawn: 2 growth points, 3 are needed" in talk
    assert "residuals is not drawn: no law" in talk
    with pytest.raises(GrowpointError, match="fixed_total cannot be drawn") as caught:
        commands.plot(sweep, which=["fixed_total"])
    assert "2 growth points" in caught.value.text()


def test_a_table_of_one_extra_budget_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = of_table("paper-3b6b", to=tmp_path / "paper")
    assert commands.plot(table, as_json=True) == 0
    out, talk = capsys.readouterr()
    drawn = json.loads(out)["figures"]
    assert set(drawn) == {"sunk_vs_accuracy", "compare_laws", "residuals"}
    for name in ("decision_map", "fixed_total", "accuracy_vs_extra"):
        assert f"{name} is not drawn: one extra budget" in talk
    assert "grey: scratch" in (tmp_path / "paper/figures/sunk_vs_accuracy.svg").read_text()
