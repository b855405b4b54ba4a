"""What SLURM is asked, by a stand-in for its commands; test_slurm_launch.py uses the real one."""

import json
import os
import re
import stat
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import submitit

from orchestrator import (
    ledger,
    slurm,
    slurm_arrays,
    slurm_batch,
    slurm_check,
    slurm_partitions,
    slurm_states,
)
from orchestrator.store import Store, write_json
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError
from sweeps.plan import to_json
from tests.conftest import Golden
from tests.slurm.matrix import tell
from tests.unit.sweeps.conftest import plan_of

PLAN = to_json(plan_of(points={"at": [0, 20480]}, growth=[{"kind": "depth"}]))
# A queue of files: a job is a line `id|state|reason|name`, as squeue prints it.
SBATCH = """#!/bin/sh
here=$(dirname "$0")
if [ -e "$here/refuse" ]; then cat "$here/refuse" >&2; exit 1; fi
if [ -e "$here/flaky" ]; then
  mv "$here/flaky" "$here/was-flaky"; cat "$here/was-flaky" >&2
  grep -q taken "$here/was-flaky" || { rm "$here/was-flaky"; exit 1; }
fi
number=$((1000 + $(ls "$here/scripts" | wc -l)))
cp "$1" "$here/scripts/$number.sh"
name=$(sed -n 's/.*--job-name=//p' "$1")
last=$(sed -n 's/.*--array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
if [ -z "$last" ]; then ids=$number; else ids=$(seq -f "${number}_%g" 0 "$last"); fi
for id in $ids; do echo "$id|PENDING|None|$name" >> "$here/queue"; done
if [ -e "$here/was-flaky" ]; then mv "$here/was-flaky" "$here/over"; exit 1; fi
echo "Submitted batch job $number"
"""
SCONTROL = """#!/bin/sh
cat "$(dirname "$0")/config"
"""
# Accounting is off: test_slurm_states.py has it on.
SACCT = """#!/bin/sh
echo "Slurm accounting storage is disabled" >&2
exit 1
"""
SACCTMGR = """#!/bin/sh
cat "$(dirname "$0")/accounts-$3"
"""
SQUEUE = """#!/bin/sh
echo call >> "$(dirname "$0")/squeue-calls"
cat "$(dirname "$0")/queue"
"""
SCANCEL = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/cancelled"
"""
SINFO = """#!/bin/sh
echo "cpu|up|infinite|(null)"
echo "gpu|up|1-00:00:00|gpu:h200:4"
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins on PATH, and of what they were told."""
    folder = tmp_path / "bin"
    (folder / "scripts").mkdir(parents=True)
    (folder / "queue").touch()
    # submitit waits between submissions, for the sake of real controllers.
    monkeypatch.setattr(submitit.SlurmExecutor, "_throttle", lambda self: None)
    (folder / "config").write_text("MaxArraySize            = 1001\nMaxJobCount = 10000\n")
    (folder / "accounts-assoc").touch()
    (folder / "accounts-qos").touch()
    shims = {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL, "sinfo": SINFO, "srun": SINFO}
    shims |= {"scontrol": SCONTROL, "sacctmgr": SACCTMGR, "sacct": SACCT}
    for name, text in shims.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store").open()
    write_json(store.plan_folder("small") / "plan.json", PLAN)
    return store


def cluster(**more: Any) -> Slurm:
    return Slurm(partition="gpu", **more)


def scripts(commands: Path) -> list[str]:
    return [path.read_text() for path in sorted((commands / "scripts").iterdir())]


def submitted_jobs(store: Store) -> Counter[str]:
    book = ledger.read(store, "small")
    return Counter(job for batch in book.batches.values() if batch.slurm_ids for job in batch.jobs)


def cancelled(commands: Path) -> list[str]:
    """SLURM's ids of the jobs that were cancelled: alone, by a list, or with their whole array."""
    told = commands / "cancelled"
    words = told.read_text().split() if told.exists() else []
    queued = [line.partition("|")[0] for line in (commands / "queue").read_text().splitlines()]
    given = {one for word in words for one in slurm_states.expanded(word)}
    return [one for one in queued if one in given or one.partition("_")[0] in given]


def test_every_job_is_submitted_once(commands: Path, store: Store) -> None:
    done = slurm.submit(store, "small", cluster())
    assert done.jobs == len(PLAN["jobs"])
    assert submitted_jobs(store) == Counter(job["id"] for job in PLAN["jobs"])


def test_submitting_again_submits_nothing(commands: Path, store: Store) -> None:
    slurm.submit(store, "small", cluster())
    before = scripts(commands)
    assert slurm.submit(store, "small", cluster()).jobs == 0
    assert scripts(commands) == before


def test_jobs_wait_for_the_job_before_them_alone(commands: Path, store: Store) -> None:
    slurm.submit(store, "small", cluster())
    book = ledger.read(store, "small")
    name_of = {job: batch.name for batch in book.batches.values() for job in batch.jobs}
    script_of = {re.search("--job-name=(.*)", text)[1]: text for text in scripts(commands)}  # type: ignore[index]
    for job in PLAN["jobs"]:
        waits = re.search("--dependency=afterok:(.*)", script_of[name_of[job["id"]]])
        expected = [book.latest[before] for before in job["after"]]
        assert (waits[1].split(":") if waits else []) == expected


def test_what_is_done_is_neither_submitted_nor_waited_for(commands: Path, store: Store) -> None:
    first = PLAN["jobs"][0]
    for stage in first["stages"]:
        store.finish(stage, {})
    slurm.submit(store, "small", cluster())
    assert first["id"] not in submitted_jobs(store)
    assert submitted_jobs(store).total() == len(PLAN["jobs"]) - 1


def test_a_job_that_left_the_queue_undone_is_submitted_again(commands: Path, store: Store) -> None:
    slurm.submit(store, "small", cluster())
    last = PLAN["jobs"][-1]["id"]
    assert not any(last in job["after"] for job in PLAN["jobs"])
    gone = ledger.read(store, "small").latest[last]
    queue = commands / "queue"
    lines = [line for line in queue.read_text().splitlines() if line.partition("|")[0] != gone]
    queue.write_text("\n".join(lines) + "\n")
    assert slurm.submit(store, "small", cluster()).jobs == 1
    assert [job for job, count in submitted_jobs(store).items() if count == 2] == [last]
    assert ledger.read(store, "small").latest[last] != gone


def test_children_of_a_dead_parent_are_cancelled_and_submitted_anew(
    commands: Path, store: Store
) -> None:
    slurm.submit(store, "small", cluster())
    queue = commands / "queue"
    lines = queue.read_text().splitlines()
    stuck = lines[-1].replace("|None|", f"|{slurm.NEVER}|")
    queue.write_text("\n".join([*lines[:-1], stuck]) + "\n")
    assert slurm.submit(store, "small", cluster()).jobs == 1
    assert cancelled(commands) == [stuck.partition("|")[0]]


def test_an_intent_without_answer_is_cancelled_by_name_and_submitted_anew(
    commands: Path, store: Store
) -> None:
    """Killed after sbatch took the jobs and before the ledger said so."""
    slurm.submit(store, "small", cluster())
    path = ledger.read(store, "small").path
    lines = path.read_text().splitlines(keepends=True)
    assert "acknowledged" in lines[-1]
    path.write_text("".join(lines[:-1]) + '{"acknowl')
    lost = json.loads(lines[-1])
    jobs = ledger.read(store, "small").batches[lost["acknowledged"]].jobs
    assert slurm.submit(store, "small", cluster()).jobs == len(jobs)
    assert sorted(cancelled(commands)) == sorted(lost["slurm_ids"])
    book = ledger.read(store, "small")
    assert book.batches[lost["acknowledged"]].lost
    assert all(book.latest[job] not in lost["slurm_ids"] for job in jobs)


def test_children_of_a_job_that_left_are_submitted_with_it(commands: Path, store: Store) -> None:
    """SLURM says DependencyNeverSatisfied only later, or never; the ledger knows at once."""
    slurm.submit(store, "small", cluster())
    first = next(job for job in PLAN["jobs"] if not job["after"])
    gone = ledger.read(store, "small").latest[first["id"]]
    queue = commands / "queue"
    lines = [line for line in queue.read_text().splitlines() if line.partition("|")[0] != gone]
    queue.write_text("\n".join(lines) + "\n")
    below = {first["id"]}
    for job in PLAN["jobs"]:
        if below.intersection(job["after"]):
            below.add(job["id"])
    assert slurm.submit(store, "small", cluster()).jobs == len(below)
    assert len(cancelled(commands)) == len(below) - 1
    assert not set(cancelled(commands)) & set(ledger.read(store, "small").latest.values())


def test_a_plan_cut_anew_waits_for_the_jobs_of_the_old_cut(commands: Path, store: Store) -> None:
    slurm.submit(store, "small", cluster())
    old = PLAN["jobs"][-1]
    new = {**old, "id": "job-0123456789"}
    jobs = [*PLAN["jobs"][:-1], new]
    extended = {**PLAN, "jobs": jobs, "earlier_jobs": [old]}
    write_json(store.plan_folder("small") / "plan.json", extended)
    assert slurm.submit(store, "small", cluster()).jobs == 1
    waits = re.search("--dependency=afterok:(.*)", scripts(commands)[-1])
    assert waits is not None
    assert ledger.read(store, "small").latest[old["id"]] in waits[1].split(":")
    assert set(PLAN["stages"]) == slurm.queued_stages(store, "small")


def test_jobs_of_an_old_cut_that_can_never_start_hold_nothing_up(
    commands: Path, store: Store
) -> None:
    slurm.submit(store, "small", cluster())
    parent = next(job for job in PLAN["jobs"] if not job["after"])
    child = next(job for job in PLAN["jobs"] if parent["id"] in job["after"])
    jobs = [job for job in PLAN["jobs"] if job["id"] not in (parent["id"], child["id"])]
    again = [
        {**job, "id": f"{job['id']}-2", "after": [f"{one}-2" for one in job["after"]]}
        for job in (parent, child)
    ]
    extended = {**PLAN, "jobs": [*again, *jobs], "earlier_jobs": [parent, child]}
    write_json(store.plan_folder("small") / "plan.json", extended)
    latest, queue = ledger.read(store, "small").latest, commands / "queue"
    gone = latest[parent["id"]]
    lines = [one for one in queue.read_text().splitlines() if one.partition("|")[0] != gone]
    queue.write_text("\n".join(lines) + "\n")
    slurm.submit(store, "small", cluster())
    assert latest[child["id"]] in cancelled(commands)
    waits = [re.search("--dependency=afterok:(.*)", script) for script in scripts(commands)]
    anew = ledger.read(store, "small").latest
    assert {job["id"] for job in again} <= set(anew)
    new = [one[1].split(":") for one in waits[len(lines) :] if one]
    assert not any(latest[child["id"]] in one for one in new)


def test_failed_jobs_that_wait_for_the_queue_are_still_to_be_run_again(
    commands: Path, store: Store
) -> None:
    stage = PLAN["jobs"][-1]["stages"][-1]
    store.set_state(stage, "failed", attempts=2)
    assert slurm.submit(store, "small", cluster(max_queued=1), again=True).jobs == 1
    assert store.state(stage) == {"state": "stopped", "attempts": 2}
    assert slurm.submit(store, "small", cluster(), again=False).jobs == len(PLAN["jobs"]) - 1


def test_ids_that_a_controller_gives_again_are_somebody_elses(commands: Path, store: Store) -> None:
    """A controller that was killed forgets its last jobs, and counts on from before them."""
    slurm.submit(store, "small", cluster())
    queue = commands / "queue"
    queue.write_text(queue.read_text().replace("|gp-small-", "|gp-other-"))
    assert slurm.cancel(store, "small") == 0
    assert slurm.submit(store, "small", cluster()).jobs == len(PLAN["jobs"])
    assert not (commands / "cancelled").exists()


def test_an_intent_that_slurm_never_saw_is_submitted_anew(commands: Path, store: Store) -> None:
    ledger.read(store, "small").intend("small", [PLAN["jobs"][0]["id"]])
    assert slurm.submit(store, "small", cluster()).jobs == len(PLAN["jobs"])
    assert not ledger.read(store, "small").unanswered


def test_a_refusal_says_why_and_is_tried_again(commands: Path, store: Store) -> None:
    (commands / "refuse").write_text("sbatch: error: Invalid feature specification\n")
    with pytest.raises(GrowpointError, match="sbatch did not take a job") as caught:
        slurm.submit(store, "small", cluster())
    assert any("Invalid feature" in value for _, value in caught.value.evidence)
    (commands / "refuse").unlink()
    assert slurm.submit(store, "small", cluster()).jobs == len(PLAN["jobs"])


def test_a_queue_that_takes_no_more_is_not_an_error(commands: Path, store: Store) -> None:
    (commands / "refuse").write_text("sbatch: error: AssocMaxSubmitJobLimit\n")
    done = slurm.submit(store, "small", cluster())
    assert (done.jobs, done.waiting) == (0, len(PLAN["jobs"]))
    (commands / "refuse").unlink()
    assert slurm.submit(store, "small", cluster()).jobs == len(PLAN["jobs"])


@pytest.mark.parametrize("fate", ["taken", "lost"])
def test_a_controller_that_is_away_is_asked_again(
    fate: str, commands: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it may have taken is looked up by name first, so that no job is there twice."""
    monkeypatch.setattr(slurm_batch, "WAIT_SECONDS", (0.0,))
    (commands / "flaky").write_text(f"sbatch: error: Socket timed out on send/recv ({fate})\n")
    assert slurm.submit(store, "small", cluster()).jobs == len(PLAN["jobs"])
    queued = {line.partition("|")[0] for line in (commands / "queue").read_text().splitlines()}
    gone = set(cancelled(commands))
    assert bool(gone) == (fate == "taken")
    assert queued - gone == set(ledger.read(store, "small").latest.values())
    assert submitted_jobs(store) == Counter(job["id"] for job in PLAN["jobs"])


def array_sizes(commands: Path) -> list[int]:
    found = [re.search("--array=0-([0-9]+)%", text) for text in scripts(commands)]
    return [int(one[1]) + 1 if one else 1 for one in found]


def test_arrays_are_as_long_as_the_cluster_allows(commands: Path, store: Store) -> None:
    (commands / "config").write_text("MaxArraySize = 3\n")
    slurm.submit(store, "small", cluster())
    assert max(array_sizes(commands)) == 2
    assert submitted_jobs(store) == Counter(job["id"] for job in PLAN["jobs"])


LIMITED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "max_queued": ("", "", {"max_queued": 3}),
    "MaxJobCount": ("config", "MaxJobCount = 6\n", {}),
    "account": ("accounts-assoc", "lab||3||\n", {}),
    "qos": ("accounts-qos", "normal|3||\n", {"qos": "normal"}),
}


@pytest.mark.parametrize("limit", LIMITED)
def test_the_queue_is_filled_up_to_its_limit_and_topped_up(
    limit: str, commands: Path, store: Store
) -> None:
    name, text, settings = LIMITED[limit]
    if name:
        (commands / name).write_text(text)
    done: Counter[str] = Counter()
    for _ in range(len(PLAN["jobs"])):
        came = slurm.submit(store, "small", cluster(**settings))
        lines = (commands / "queue").read_text().splitlines()
        assert sum("PENDING" in line for line in lines) == min(3, came.jobs + came.waiting)
        if not came.waiting:
            break
        assert limit in came.because
        # All that is queued ends well.
        (commands / "queue").write_text(
            "".join(f"{line}\n" for line in lines).replace("PENDING", "COMPLETED")
        )
        latest = ledger.read(store, "small").latest
        for job in PLAN["jobs"]:
            if job["id"] in latest:
                for stage in job["stages"]:
                    store.finish(stage, {})
    done = submitted_jobs(store)
    assert done == Counter(job["id"] for job in PLAN["jobs"])


def test_what_failed_may_be_left_alone(commands: Path, store: Store) -> None:
    first = PLAN["jobs"][0]
    store.set_state(first["stages"][0], "failed", error="out of memory")
    slurm.submit(store, "small", cluster(), again=False)
    below = {first["id"]}
    for job in PLAN["jobs"]:
        if below.intersection(job["after"]):
            below.add(job["id"])
    assert submitted_jobs(store) == Counter(j["id"] for j in PLAN["jobs"] if j["id"] not in below)
    assert slurm.submit(store, "small", cluster()).jobs == len(below)


def test_no_more_run_at_once_than_asked_over_all_arrays(commands: Path, store: Store) -> None:
    (commands / "config").write_text("MaxArraySize = 3\n")
    slurm.submit(store, "small", cluster(max_parallel=4))
    at_once = [re.search("--array=.*%([0-9]+)", text) for text in scripts(commands)]
    alone = sum(one is None for one in at_once)
    assert sum(int(one[1]) for one in at_once if one) + alone <= max(4, len(at_once))


def test_time_limits_follow_from_the_plan() -> None:
    jobs = PLAN["jobs"]
    flops = max(sum(PLAN["stages"][s]["flops"] for s in job["stages"]) for job in jobs)
    slow = cluster(flops_per_second=flops / 3600, safety=2, least_minutes=5)
    assert slurm_batch.minutes(PLAN, jobs, slow) == 130
    assert slurm_batch.minutes(PLAN, jobs, cluster(minutes=7)) == 7


@pytest.mark.parametrize(
    ("said", "minutes"),
    [("infinite", None), ("30:00", 30), ("2:30:00", 150), ("1-00:00:00", 1440), ("2-12", 3600)],
)
def test_time_limits_are_read_as_slurm_writes_them(said: str, minutes: int | None) -> None:
    assert slurm_partitions.minutes(said) == minutes


OFFERED: dict[str, tuple[dict[str, Any], str, str]] = {
    "partition": ({"partition": "gpux"}, "no partition `gpux`", "cpu (up), gpu (up)"),
    "gpus": ({"gpus": 8}, "no node of partition `gpu` has so many GPUs", "4 h200 a node"),
    "gpu_type": ({"gpu_type": "b200"}, "GPUs of type `b200`", "4 h200 a node"),
    "minutes": ({"minutes": 2000}, "longer than partition `gpu` allows", "1440 minutes"),
    "account": ({"account": "lob"}, "there is no account `lob`", "lab"),
    "qos": ({"qos": "hi"}, "there is no qos `hi`", "high"),
}


@pytest.mark.parametrize("name", OFFERED)
def test_what_the_cluster_does_not_offer_is_refused_with_what_it_does(
    name: str, commands: Path, store: Store
) -> None:
    (commands / "accounts-assoc").write_text("lab\n")
    (commands / "accounts-qos").write_text("high\nnormal\n")
    settings, problem, offer = OFFERED[name]
    with pytest.raises(GrowpointError) as caught:
        slurm_check.check(Slurm(**{"partition": "gpu", **settings}), store)
    assert problem in caught.value.problem
    assert any(offer in value for _, value in caught.value.evidence)
    assert slurm_check.check(cluster(), store) == 1440


def test_status_is_one_call(commands: Path, store: Store) -> None:
    slurm.submit(store, "small", cluster())
    (commands / "squeue-calls").unlink()
    assert slurm.queued_stages(store, "small") == set(PLAN["stages"])
    assert (commands / "squeue-calls").read_text().count("call") == 1


def test_cancel_cancels_what_is_alive(commands: Path, store: Store) -> None:
    slurm.submit(store, "small", cluster())
    queue = commands / "queue"
    lines = queue.read_text().splitlines()
    queue.write_text("\n".join([lines[0].replace("PENDING", "COMPLETED"), *lines[1:]]) + "\n")
    assert slurm.cancel(store, "small") == len(lines) - 1
    words = (commands / "cancelled").read_text().split()
    # What has ended may be in an array that is cancelled as a whole; it is not cancelled alone.
    assert lines[0].partition("|")[0] not in words
    ids = [line.partition("|")[0] for line in lines]
    assert set(ids[1:]) <= set(cancelled(commands))
    assert len(words) == len({one.partition("_")[0] for one in ids})


def test_a_part_of_an_array_is_cancelled_in_one_word(commands: Path, store: Store) -> None:
    slurm.submit(store, "small", cluster())
    batch = max(ledger.read(store, "small").batches.values(), key=lambda each: len(each.jobs))
    stages = {job["id"]: job["stages"] for job in PLAN["jobs"]}
    chosen = frozenset(stages[batch.jobs[0]] + stages[batch.jobs[1]])
    assert len(batch.jobs) > 2
    assert slurm.cancel(store, "small", chosen) == 2
    assert cancelled(commands) == list(batch.slurm_ids[:2])
    assert len((commands / "cancelled").read_text().split()) == 1
    assert ledger.read(store, "small").cancelled == set(batch.slurm_ids[:2])


def test_large_sweeps_have_few_arrays(
    commands: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of the same verbs that wait for the same arrays go together, each after its own."""
    plan = to_json(plan_of(seeds=list(range(6))))
    write_json(store.plan_folder("small") / "plan.json", plan)
    slurm.submit(store, "small", cluster())
    exact = len(scripts(commands))
    slurm.cancel(store, "small")
    (commands / "queue").write_text("")
    monkeypatch.setattr(slurm_arrays, "EXACT_JOBS", 0)
    assert slurm.submit(store, "small", cluster()).jobs == len(plan["jobs"])
    made, book = scripts(commands)[exact:], ledger.read(store, "small")
    assert len(made) < exact / 3
    jobs = {job["id"]: job for job in plan["jobs"]}
    for text in made:
        batch = book.batches[re.search("--job-name=(.*)", text)[1]]  # type: ignore[index]
        found = re.search("--dependency=(.*)", text)
        waits = re.split("[:,]", found[1]) if found else []
        before = {book.latest[each] for job in batch.jobs for each in jobs[job]["after"]}
        masters = {each.partition("_")[0] for each in before}
        assert set(waits) in ({"afterok", *before}, {"afterany", *masters}, set())
        assert bool(waits) == bool(before)
        kinds = {tuple(plan["stages"][s]["kind"] for s in jobs[j]["stages"]) for j in batch.jobs}
        assert len(kinds) == 1 or "afterany" not in waits


def test_short_arrays_of_large_sweeps_are_not_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seeds of a trunk that took turns would hold up all that grows from it."""
    assert slurm_arrays.few_at_once(PLAN, 256, 5) == 0
    monkeypatch.setattr(slurm_arrays, "EXACT_JOBS", 0)
    assert slurm_arrays.few_at_once(PLAN, 256, 5) == 5
    assert slurm_arrays.few_at_once(PLAN, 256, 1000) == 16


def test_a_machine_without_slurm_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(GrowpointError, match="no `sbatch`"):
        slurm_check.check(cluster(), store)
    assert slurm.queued_stages(store, "small") == frozenset()


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "account": "lab",
        "qos": "high",
        "gpus": 4,
        "gpu_type": "h200",
        "nodes": 2,
        "tasks": 4,
        "cpus": 16,
        "memory_gb": 200,
        "minutes": 60,
        "constraint": "ib",
        "exclude": "n7,n8",
        "reservation": "mine",
        "nice": 100,
        "wckey": "growth",
        "max_parallel": 8,
        "signal_seconds": 90,
        "python": "apptainer exec --nv image.sif python",
        "setup": ["module load cuda"],
        "srun_args": ["--cpu-bind=cores"],
        "additional": {"mail-type": "FAIL", "exclusive": True},
        "threads": 4,
        "save_seconds": 120,
    },
    "cpu_only": {"gpus": 0, "cpus": 2, "memory_gb": 1.5, "snapshot": False},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_scripts_are_as_reviewed(
    name: str, commands: Path, store: Store, golden: Golden
) -> None:
    slurm.submit(store, "small", cluster(**SETTINGS[name]))
    shown = [text.replace(str(store.root), "STORE") for text in scripts(commands)]
    shown = [text.replace(sys.executable, "PYTHON") for text in shown]
    shown = [re.sub("gp-small-[0-9a-f]{8}", "gp-small-NONCE", text) for text in shown]
    shown = [re.sub("/code/[0-9a-f]{10}", "/code/CONTENT", text) for text in shown]
    shown = [re.sub("(GROWPOINT_COMMIT)=.*", r"\1=COMMIT", text) for text in shown]
    # The first is an array or a single job without, the last one with something to wait for.
    golden(f"sbatch/{name}.sh", f"{shown[0]}\n{shown[-1]}")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the launch may catch it."""


def alive_now(commands: Path) -> Counter[str]:
    """Names of jobs that SLURM holds and nobody cancelled."""
    gone = cancelled(commands)
    lines = [line.split("|") for line in (commands / "queue").read_text().splitlines()]
    return Counter(line[0] for line in lines if line[0] not in gone)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(8))
def test_killed_at_any_write_of_the_ledger_each_job_is_queued_once(
    number: int, moment: str, commands: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = ledger.Ledger._append, [0]

    def killed(book: ledger.Ledger, entry: dict[str, Any]) -> None:
        count[0] += 1
        if count[0] == number + 1 and moment == "before":
            raise Killed
        write(book, entry)
        if count[0] == number + 1:
            raise Killed

    monkeypatch.setattr(ledger.Ledger, "_append", killed)
    with pytest.raises(Killed):
        slurm.submit(store, "small", cluster())
    monkeypatch.setattr(ledger.Ledger, "_append", write)
    # The claim of a process that was killed is given up; here the process lives on.
    for path in store.plan_folder("small").glob("launch.*"):
        path.unlink()
    slurm.submit(store, "small", cluster())
    latest = ledger.read(store, "small").latest
    assert sorted(latest) == sorted(job["id"] for job in PLAN["jobs"])
    assert alive_now(commands) == Counter(latest.values())
    happens = "the next cancels by name what was not answered, and submits it anew"
    survived = f"{len(latest)} of {len(PLAN['jobs'])} jobs, each once in the queue"
    tell(f"SIGKILL of `launch` {moment} a write of its ledger", happens, "nothing", survived)
