"""Progress is read from files, and survives whatever a job left behind."""

import json
from pathlib import Path

import pytest

from orchestrator import claim, gpus, local, status
from orchestrator.progress import last_metric, reached, snapshot
from orchestrator.store import Store
from sweeps.cluster import Local
from sweeps.errors import GrowpointError
from sweeps.plan import to_json
from sweeps.stages import Train
from tests.unit.sweeps.conftest import plan_of

PLAN = plan_of()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path).open()
    for stage in PLAN.stages:
        store.ask(stage)
    return store


def trained() -> str:
    return next(stage.id for stage in PLAN.stages if isinstance(stage.do, Train))


def test_nothing_done_is_nothing_spent(store: Store) -> None:
    shot = snapshot(store, to_json(PLAN))
    assert shot.flops_done == 0
    assert shot.count("waiting") == len(PLAN.stages)
    assert shot.flops == pytest.approx(PLAN.planned_flops)


def test_everything_done_is_complete(store: Store) -> None:
    for stage in PLAN.stages:
        store.finish(stage.id, {})
    shot = snapshot(store, to_json(PLAN))
    assert shot.complete
    assert shot.flops_done == pytest.approx(shot.flops)


def test_a_job_that_died_is_stopped_not_running(store: Store) -> None:
    store.set_state(trained(), "running", attempts=1)
    assert snapshot(store, to_json(PLAN)).stages[trained()].state == "stopped"
    with claim.take(store.run(trained()) / "claim"):  # type: ignore[union-attr]
        assert snapshot(store, to_json(PLAN)).stages[trained()].state == "running"


def test_children_of_a_failure_are_blocked_by_it(store: Store) -> None:
    init = PLAN.stages[0].id
    store.set_state(init, "failed", error="broken", at=0.0)
    data = to_json(PLAN)
    shot = snapshot(store, data)
    for stage in PLAN.stages[1:]:
        lineage = {before.id for before in stage.lineage}
        assert (shot.stages[stage.id].state == "blocked") == (init in lineage)
        if init in lineage:
            assert shot.stages[stage.id].details["cause"] == init
    assert "blocked" in {cell["state"] for cell in status.to_json(data, shot)["cells"]}


def test_the_share_counts_from_where_the_phase_goes_on(store: Store) -> None:
    long = next(stage for stage in PLAN.stages if stage.id in PLAN.resumes)
    short = PLAN.resumes[long.id]
    assert isinstance(long.do, Train)
    assert isinstance(short.do, Train)
    middle = (long.do.tokens + short.do.tokens) // 2
    (store.run(long.id) / "metrics.jsonl").write_text(json.dumps({"tokens": middle}) + "\n")
    assert snapshot(store, to_json(PLAN)).stages[long.id].share == pytest.approx(0.5)


def test_the_last_whole_line_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_metric(path) == {}
    path.write_text("".join(json.dumps({"tokens": i}) + "\n" for i in range(5000)) + '{"tok')
    assert last_metric(path) == {"tokens": 4999}


def test_the_most_urgent_job_comes_first(store: Store) -> None:
    data = to_json(PLAN)
    queue = local._queue(store, data)
    order = []
    while (job := queue.next()) is not None:
        assert all(queue.ended.get(before) == "done" for before in queue.jobs[job]["after"])
        order.append(job)
        queue.ended[job] = "done"
    assert len(order) == len(data["jobs"])
    assert queue.over
    trunk = max(data["jobs"], key=lambda job: sum(job["id"] in j["after"] for j in data["jobs"]))
    assert order.index(trunk["id"]) < 3


def test_a_failed_job_holds_back_only_its_children(store: Store) -> None:
    queue = local._queue(store, to_json(PLAN))
    first = queue.next()
    assert first is not None
    queue.ended[first] = "failed"
    while (job := queue.next()) is not None:
        assert first not in queue.jobs[job]["after"]
        queue.ended[job] = "done"
    assert queue.over


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert gpus.slots(Local()) == ["3", "5"]
    assert gpus.slots(Local(workers=4)) == ["3", "5", "3", "5"]
    assert gpus.slots(Local(gpus=1)) == ["3"]
    assert gpus.slots(Local(gpus=0, workers=3)) == [None, None, None]
    with pytest.raises(GrowpointError, match="fewer GPUs than are asked for") as error:
        gpus.slots(Local(gpus=3))
    assert error.value.help == "cluster.gpus=2"


def test_a_corpus_in_the_making_is_said_so(store: Store) -> None:
    corpus = next(iter(to_json(PLAN)["data"]))
    assert not snapshot(store, to_json(PLAN)).preparing
    with claim.take(store.corpus(corpus).with_name(f"{corpus}.claim")):  # type: ignore[union-attr]
        assert snapshot(store, to_json(PLAN)).preparing
        store.corpus(corpus).mkdir()
        (store.corpus(corpus) / "corpus.json").write_text("{}")
        assert not snapshot(store, to_json(PLAN)).preparing


def test_how_far_a_command_says_it_has_come(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"tokens": 64, "loss": 1}\n{"tokens": 1')
    # Metrics of growpoint's own training run ahead of what it has saved.
    assert reached(tmp_path) == 0
    (tmp_path / "work").mkdir()
    assert reached(tmp_path) == 64
