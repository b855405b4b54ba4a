"""What `plan` prints of axes beyond growth, points, budgets and seeds."""

from pathlib import Path

import pytest

from orchestrator import show_plan
from orchestrator.store import Store
from sweeps.cluster import Local
from sweeps.plan import Plan, plan
from sweeps.schema import asked, canonical
from tests.unit.sweeps.conftest import CORPUS, plan_of, sweep_of

STATES = ("fresh", "carried")


def of_both_states() -> Plan:
    key = "branch.optimizer_state"
    sweeps = [(sweep_of(branch={"optimizer_state": state}), ((key, state),)) for state in STATES]
    return plan("small", sweeps, {canonical(asked(sweeps[0][0].data)): CORPUS})


def test_further_axes_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_plan.show(Store(tmp_path), of_both_states(), Local())
    assert "  axis branch.optimizer_state: fresh, carried\n" in capsys.readouterr().out
    show_plan.show(Store(tmp_path), plan_of(), Local())
    assert "axis" not in capsys.readouterr().out


def test_both_states_share_all_but_the_branches_of_trained_sources() -> None:
    both, one = of_both_states(), plan_of()
    assert len(both.cells) == 2 * len(one.cells)
    trained = {cell.stage.id for cell in one.cells if cell.sunk_tokens}
    more = {stage.id for stage in both.stages} - {stage.id for stage in one.stages}
    # of each, the branch and its score
    assert len(more) == 2 * len(trained)
