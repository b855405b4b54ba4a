"""A job's attempts: stopped and restarted jobs go on, until they come no further."""

from pathlib import Path
from typing import get_args

import pytest

from orchestrator import claim, frozen, job, ranks, verbs
from orchestrator.progress import snapshot
from orchestrator.store import Store, write_json
from orchestrator.work import Circumstance
from sweeps.errors import GrowpointError
from sweeps.plan import VERSION, to_json
from sweeps.stages import Grow, Stage, Train
from tests.unit.sweeps.conftest import plan_of

PLAN = plan_of(points={"at": [0, 20480]}, growth=[{"kind": "depth"}])
TRAIN = next(s for s in PLAN.stages if isinstance(s.do, Train) and s.after and not s.after.after)
GROW = next(s for s in PLAN.stages if isinstance(s.do, Grow))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in which everything before the two stages is done, and work is always stopped."""
    monkeypatch.setattr(verbs, "run", lambda work, stage: None)
    store = Store(tmp_path).open()
    for stage in PLAN.stages:
        store.ask(stage)
    for stage in (TRAIN, GROW):
        for before in list(stage.lineage)[:-1]:
            store.finish(before.id, {})
    return store


def attempt(store: Store, stage: Stage, allocation: str) -> job.Outcome:
    return job.run_stage(store, stage.id, {}, Circumstance(allocation=allocation))


def save(store: Store, stage: Stage, tokens: int) -> None:
    (store.run(stage.id) / "partial" / f"at-{tokens}").mkdir(parents=True)


def test_a_job_that_comes_no_further_fails(store: Store) -> None:
    endings = [attempt(store, TRAIN, "7_0").ending for _ in range(job.TRAIN_STALLS + 1)]
    assert endings == ["stopped"] * len(endings)
    last = attempt(store, TRAIN, "7_0")
    assert last.ending == "failed"
    assert "came no further" in last.error


def test_a_job_that_saves_something_new_may_be_restarted_without_end(store: Store) -> None:
    for number in range(1, 4 * job.TRAIN_STALLS):
        assert attempt(store, TRAIN, "7_0").ending == "stopped"
        save(store, TRAIN, number)


def test_a_new_submission_starts_counting_anew(store: Store) -> None:
    for _ in range(job.TRAIN_STALLS + 1):
        attempt(store, TRAIN, "7_0")
    assert attempt(store, TRAIN, "8").ending == "stopped"


def test_launches_on_this_machine_are_not_counted(store: Store) -> None:
    for _ in range(2 * job.TRAIN_STALLS):
        assert attempt(store, TRAIN, "local").ending == "stopped"


def test_what_cannot_save_is_given_more_chances(store: Store) -> None:
    for _ in range(job.TRAIN_STALLS + 3):
        assert attempt(store, GROW, "7_0").ending == "stopped"


def test_a_job_that_runs_other_code_than_it_was_submitted_with_says_so_itself(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own name, so that neither SLURM's word nor the node is blamed for it."""
    monkeypatch.setenv(frozen.CODE_VARIABLE, str(tmp_path / "removed"))
    assert attempt(store, TRAIN, "7_0").ending == "failed"
    state = store.state(TRAIN.id)
    assert "does not run the code" in state["error"]
    assert state["allocation"] == "7_0"
    # A launch on this machine was submitted with nothing.
    assert attempt(store, TRAIN, "local").ending == "stopped"


def test_a_plan_that_newer_code_has_laid_out_is_refused(store: Store) -> None:
    path = store.plan_folder("small") / "plan.json"
    plan = to_json(PLAN)
    write_json(path, plan)
    assert job.run_job(store, "small", plan["jobs"][0]["id"], Circumstance()).ending == "done"
    write_json(path, {"version": VERSION + 1})
    with pytest.raises(GrowpointError, match="newer growpoint"):
        job.run_job(store, "small", plan["jobs"][0]["id"], Circumstance())


def test_a_job_whose_start_is_undone_leaves_it_to_be_put_right(store: Store) -> None:
    """An array that waits for another whole one may start where a single task of that failed."""
    plan = to_json(PLAN)
    write_json(store.plan_folder("small") / "plan.json", plan)
    grown = next(one for one in plan["jobs"] if GROW.id in one["stages"])
    source = plan["stages"][GROW.id]["after"]
    (store.run(source) / "record.json").unlink()
    outcome = job.run_job(store, "small", grown["id"], Circumstance(allocation="7_0"))
    assert (outcome.ending, outcome.stage) == ("blocked", GROW.id)
    store.set_state(source, "failed")
    assert snapshot(store, plan).stages[GROW.id].state == "blocked"
    # Whatever this job was once part of, it is blocked; the plan may be another by now.
    write_json(store.plan_folder("small") / "plan.json", {**plan, "stages": {}})
    outcome = job.run_job(store, "small", grown["id"], Circumstance(allocation="7_0"))
    assert outcome.ending == "blocked"
    write_json(store.plan_folder("small") / "plan.json", plan)
    store.finish(source, {})
    outcome = job.run_job(store, "small", grown["id"], Circumstance(allocation="7_0"))
    assert outcome.ending == "stopped"


def test_ranks_leave_after_every_ending() -> None:
    assert set(ranks.LEAVE_SECONDS) == set(get_args(job.Ending))


def test_a_failure_after_somebody_took_over_is_not_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_over(*_: object) -> None:
        path = store.run(TRAIN.id) / "claim"
        claim.let_go(path, "7_0")
        assert claim.take(path, "8_0") is not None
        store.set_state(TRAIN.id, "running", allocation="8_0")
        raise OSError("its folder is gone")

    monkeypatch.setattr(verbs, "run", taken_over)
    assert attempt(store, TRAIN, "7_0").ending == "stopped"
    assert store.state(TRAIN.id)["allocation"] == "8_0"
