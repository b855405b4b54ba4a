"""What SLURM says of jobs, from rows as sacct and squeue print them."""

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator import claim, ledger, slurm_ends, slurm_states
from orchestrator.progress import snapshot
from orchestrator.slurm_states import Said
from orchestrator.store import Store, write_json
from sweeps.plan import to_json
from tests.unit.sweeps.conftest import plan_of

PLAN = to_json(plan_of(points={"at": [0, 20480]}, growth=[{"kind": "depth"}]))
JOB = PLAN["jobs"][0]
OTHER = PLAN["jobs"][1]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store").open()
    write_json(store.plan_folder("small") / "plan.json", PLAN)
    return store


@pytest.fixture
def book(store: Store) -> ledger.Ledger:
    """A ledger with one array of two jobs, #7_0 and #7_1."""
    made = ledger.read(store, "small")
    batch = made.intend("small", [JOB["id"], OTHER["id"]])
    made.acknowledge(batch.name, ["7_0", "7_1"])
    return made


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand-ins for sacct and squeue; call with what they shall print, None to fail."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(sacct: str | None, squeue: str | None = None) -> Path:
        for name, text in (("sacct", sacct), ("squeue", squeue)):
            script = f"#!/bin/sh\necho {name} >> {folder}/calls\n"
            script += f'echo "$SLURM_BITSTR_LEN $*" >> {folder}/words\n'
            script += "exit 1\n" if text is None else f"cat <<'END'\n{text}\nEND\n"
            (folder / name).write_text(script)
            (folder / name).chmod(stat.S_IRWXU)
        return folder / "calls"

    return put


WORDS = {
    "PENDING": "queued",
    "REQUEUED": "queued",
    "RUNNING": "running",
    "SUSPENDED": "running",
    "COMPLETING": "running",
    "NODE_FAIL": "stopped",
    "PREEMPTED": "stopped",
    "TIMEOUT": "stopped",
    "CANCELLED by 0": "stopped",
    "COMPLETED": "stopped",
    "OUT_OF_MEMORY": "failed",
    "FAILED": "failed",
}


@pytest.mark.parametrize("state", WORDS)
def test_each_state_has_a_word(state: str, says: Any, book: ledger.Ledger) -> None:
    says(f"7_0|{state}|1:0|n1|00:00:05|None\n7_1|RUNNING|0:0|n1|00:00:05|None")
    assert slurm_states.said(book)[JOB["id"]].word == WORDS[state]


def test_all_is_asked_at_once(says: Any, book: ledger.Ledger) -> None:
    calls = says("7_[0-1%2]|PENDING|0:0||00:00:00|Resources")
    assert {said.word for said in slurm_states.said(book).values()} == {"queued"}
    assert calls.read_text().split() == ["sacct"]


def test_lists_are_asked_for_whole_and_in_few_words(
    says: Any, book: ledger.Ledger, tmp_path: Path
) -> None:
    """Not by id: 10,000 of them are 120 kB."""
    says("7_[0-1%2]|PENDING|0:0||00:00:00|Resources")
    slurm_states.said(book)
    length, *words = (tmp_path / "bin/words").read_text().split()
    assert length == "0"
    assert [w for w in words if w.startswith("--name")] == [f"--name={','.join(book.batches)}"]


def test_more_names_than_a_command_may_have_are_not_given(
    says: Any, book: ledger.Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_states, "LONGEST_WORD", 3)
    says("7_[0-1%2]|PENDING|0:0||00:00:00|Resources")
    assert {said.word for said in slurm_states.said(book).values()} == {"queued"}
    assert "--name" not in (tmp_path / "bin/words").read_text()


def test_only_the_newest_submissions_are_asked_for(
    says: Any, book: ledger.Ledger, tmp_path: Path
) -> None:
    """A sweep that is followed for days has thousands."""
    (old,) = book.batches
    batch = book.intend("small", [JOB["id"], OTHER["id"]])
    book.acknowledge(batch.name, ["9_0", "9_1"])
    says("9_[0-1%2]|PENDING|0:0||00:00:00|Resources")
    slurm_states.said(book)
    assert batch.name in (tmp_path / "bin/words").read_text()
    assert old not in (tmp_path / "bin/words").read_text()


def test_a_list_that_was_cut_short_stands_for_the_rest(says: Any, book: ledger.Ledger) -> None:
    says("7_[0,...%2]|PENDING|0:0||00:00:00|Resources\n7_0|RUNNING|0:0|n1|00:00:01|None")
    found = slurm_states.said(book)
    assert (found[JOB["id"]].word, found[OTHER["id"]].word) == ("running", "queued")


def test_accounting_forgets_tasks_that_were_cancelled_before_they_ran(
    says: Any, store: Store, book: ledger.Ledger
) -> None:
    says("7_1|RUNNING|0:0|n1|00:00:05|None")
    book.cancel(["7_0"])
    found = slurm_states.said(ledger.read(store, "small"))
    assert found[JOB["id"]].word == "stopped"
    # It never ran, so there is nothing to tell of its stages.
    assert slurm_ends.record(store, PLAN, book, found) == []
    assert snapshot(store, PLAN).stages[JOB["stages"][0]].state == "waiting"


def test_without_accounting_the_queue_answers(says: Any, book: ledger.Ledger) -> None:
    (name,) = book.batches
    # An id that SLURM has given again, to somebody else, says nothing of ours.
    says(None, f"7_0|RUNNING|None|{name}\n7_1|RUNNING|None|somebody-elses")
    found = slurm_states.said(book)
    assert (found[JOB["id"]].word, found[OTHER["id"]].word) == ("running", "lost")


def test_accounting_may_be_late(says: Any, book: ledger.Ledger) -> None:
    says("7_0|RUNNING|0:0|n1|00:00:05|None")
    assert slurm_states.said(book)[OTHER["id"]].word == "queued"


def test_the_step_knows_what_the_job_died_of(says: Any, book: ledger.Ledger) -> None:
    rows = ["7_0|FAILED|1:0|n1|00:00:05|None", "7_0.batch|FAILED|1:0|n1|00:00:05|"]
    says("\n".join([*rows, "7_0.0|OUT_OF_MEMORY|0:125|n1|00:00:05|"]))
    assert "ran out of memory" in slurm_states.said(book)[JOB["id"]].reason
    says("\n".join([*rows, "7_0.0|FAILED|1:0|n1|00:00:05|"]))
    assert "exit code 1" in slurm_states.said(book)[JOB["id"]].reason


def test_a_requeued_job_is_what_it_is_now(says: Any, book: ledger.Ledger) -> None:
    rows = ["7_0|PREEMPTED|0:0|n1|00:01:00|None", "7_0|RUNNING|0:0|n2|00:00:10|None"]
    for order in (rows, rows[::-1]):
        says("\n".join(order))
        assert slurm_states.said(book)[JOB["id"]].word == "running"


@pytest.mark.parametrize(
    ("listed", "ids"),
    [
        ("7", ["7"]),
        ("7_3", ["7_3"]),
        ("7_[3]", ["7_3"]),
        ("7_[0-2,5%4]", ["7_0", "7_1", "7_2", "7_5"]),
        ("7_[0-6:3]", ["7_0", "7_3", "7_6"]),
        ("7_[0,2,14...]", ["7_[...]", "7_0", "7_2"]),
        ("7_[0-2,...%4]", ["7_[...]", "7_0", "7_1", "7_2"]),
    ],
)
def test_array_lists_are_read_as_slurm_writes_them(listed: str, ids: list[str]) -> None:
    assert list(slurm_states.expanded(listed)) == ids


def dead(word: Any = "failed", node: str = "n1", slurm_id: str = "7_0") -> Said:
    return Said(slurm_id, word, "ran out of memory", node, "00:00:05")


def test_a_job_that_died_without_a_word_gets_one(store: Store, book: ledger.Ledger) -> None:
    stage = JOB["stages"][0]
    store.set_state(stage, "running", allocation="7_0", attempts=1)
    assert slurm_ends.record(store, PLAN, book, {JOB["id"]: dead()}) == [stage]
    known = snapshot(store, PLAN).stages[stage]
    assert known.state == "failed"
    assert "#7_0 ran out of memory" in known.details["error"]
    assert known.details["log"].endswith("7_0_0_log.err")
    assert slurm_ends.record(store, PLAN, book, {JOB["id"]: dead()}) == []


def test_a_job_that_said_why_it_failed_keeps_its_word(store: Store, book: ledger.Ledger) -> None:
    stage = JOB["stages"][0]
    store.set_state(stage, "failed", allocation="7_0", error="loss is not finite")
    assert slurm_ends.record(store, PLAN, book, {JOB["id"]: dead()}) == []
    assert store.state(stage)["error"] == "loss is not finite"


def test_somebody_else_at_work_is_not_disturbed(store: Store, book: ledger.Ledger) -> None:
    stage = JOB["stages"][0]
    store.set_state(stage, "running", allocation="local")
    held = claim.take(store.run(stage) / "claim", "local")
    assert held is not None
    with held:
        assert slurm_ends.record(store, PLAN, book, {JOB["id"]: dead()}) == []
    # A claim of the very job that SLURM says is gone is only its heartbeat's echo.
    ours = claim.take(store.run(stage) / "claim", "7_0")
    assert ours is not None
    with ours:
        back = Said("7_0", "stopped", slurm_states.STOPPED["NODE_FAIL"], "n1")
        slurm_ends.record(store, PLAN, book, {JOB["id"]: back})
        # SLURM may have started it again by now, under the same id.
        assert claim.take(store.run(stage) / "claim", "8_0") is None
        store.set_state(stage, "running", allocation="7_0")
        assert slurm_ends.record(store, PLAN, book, {JOB["id"]: dead()}) == [stage]
        # Whoever is next need not wait until the heartbeat has been silent for long enough.
        assert ours.lost
        assert claim.take(store.run(stage) / "claim", "8_0") is not None


def test_the_first_unfinished_stage_of_the_chain_is_told(store: Store, book: ledger.Ledger) -> None:
    long = next(job for job in PLAN["jobs"] if len(job["stages"]) > 1)
    store.finish(long["stages"][0], {})
    assert slurm_ends.record(store, PLAN, book, {long["id"]: dead()}) == [long["stages"][1]]


def test_a_node_where_different_jobs_die_at_once_is_left_out(
    store: Store, book: ledger.Ledger
) -> None:
    slurm_ends.record(store, PLAN, book, {JOB["id"]: dead()})
    assert slurm_ends.bad_nodes(store, "small") == []
    slurm_ends.record(store, PLAN, book, {JOB["id"]: dead(slurm_id="8")})
    assert slurm_ends.bad_nodes(store, "small") == []
    late = Said("7_1", "failed", "ended with exit code 1", "n1", "01:00:00")
    slurm_ends.record(store, PLAN, book, {OTHER["id"]: late})
    assert slurm_ends.bad_nodes(store, "small") == []
    slurm_ends.record(store, PLAN, book, {OTHER["id"]: dead(slurm_id="9")})
    assert slurm_ends.bad_nodes(store, "small") == ["n1"]


def test_an_old_ledger_is_read(store: Store) -> None:
    path = store.plan_folder("small") / "ledger.jsonl"
    entries: list[dict[str, Any]] = [
        {"intent": "gp-small-1", "jobs": [JOB["id"]]},
        {"acknowledged": "gp-small-1", "slurm_ids": ["5"]},
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    book = ledger.read(store, "small")
    assert book.latest == {JOB["id"]: "5"}
    batch = book.batch_of("5")
    assert batch is not None
    assert batch.at < time.time()
