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

from orchestrator import ledger, slurm, slurm_queue
from orchestrator.store import Store, write_json
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError
from sweeps.plan import to_json
from tests.conftest import Golden
from tests.unit.sweeps.conftest import plan_of

PLAN = to_json(plan_of(points={"at": [0, 20480]}, growth=[{"kind": "depth"}]))
# A queue of files: a job is a line `id|state|reason|name`, as squeue prints it.
SBATCH = """#!/bin/sh
here=$(dirname "$0")
if [ -e "$here/refuse" ]; then cat "$here/refuse" >&2; exit 1; fi
number=$((1000 + $(ls "$here/scripts" | wc -l)))
cp "$1" "$here/scripts/$number.sh"
name=$(sed -n 's/.*--job-name=//p' "$1")
last=$(sed -n 's/.*--array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
if [ -z "$last" ]; then ids=$number; else ids=$(seq -f "${number}_%g" 0 "$last"); fi
for id in $ids; do echo "$id|PENDING|None|$name" >> "$here/queue"; done
echo "Submitted batch job $number"
"""
SQUEUE = """#!/bin/sh
echo call >> "$(dirname "$0")/squeue-calls"
cat "$(dirname "$0")/queue"
"""
SCANCEL = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/cancelled"
"""
SINFO = """#!/bin/sh
echo "cpu up"
echo "gpu up"
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins on PATH, and of what they were told."""
    folder = tmp_path / "bin"
    (folder / "scripts").mkdir(parents=True)
    (folder / "queue").touch()
    # submitit waits between submissions, for the sake of real controllers.
    monkeypatch.setattr(submitit.SlurmExecutor, "_throttle", lambda self: None)
    shims = {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL, "sinfo": SINFO, "srun": SINFO}
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
    assert (commands / "cancelled").read_text().split() == [stuck.partition("|")[0]]


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
    assert sorted((commands / "cancelled").read_text().split()) == sorted(lost["slurm_ids"])
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
    cancelled = (commands / "cancelled").read_text().split()
    assert len(cancelled) == len(below) - 1
    assert not set(cancelled) & set(ledger.read(store, "small").latest.values())


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


def test_an_intent_that_slurm_never_saw_is_submitted_anew(commands: Path, store: Store) -> None:
    ledger.read(store, "small").intend("small", [PLAN["jobs"][0]["id"]])
    assert slurm.submit(store, "small", cluster()).jobs == len(PLAN["jobs"])
    assert not ledger.read(store, "small").unanswered


def test_a_refusal_says_why_and_is_tried_again(commands: Path, store: Store) -> None:
    (commands / "refuse").write_text("sbatch: error: AssocMaxSubmitJobLimit\n")
    with pytest.raises(GrowpointError, match="sbatch did not take a job") as caught:
        slurm.submit(store, "small", cluster())
    assert any("AssocMaxSubmitJobLimit" in value for _, value in caught.value.evidence)
    (commands / "refuse").unlink()
    assert slurm.submit(store, "small", cluster()).jobs == len(PLAN["jobs"])


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
    assert lines[0].partition("|")[0] not in (commands / "cancelled").read_text().split()


def test_an_unknown_partition_names_those_there_are(commands: Path, store: Store) -> None:
    with pytest.raises(GrowpointError) as caught:
        slurm_queue.check(Slurm(partition="gpux"), store)
    assert dict(caught.value.evidence)["here"] == "cpu (up), gpu (up)"


def test_a_machine_without_slurm_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(GrowpointError, match="no `sbatch`"):
        slurm_queue.check(cluster(), store)
    assert slurm.queued_stages(store, "small") == frozenset()


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "account": "lab",
        "qos": "high",
        "gpus": 4,
        "gpu_type": "h200",
        "nodes": 2,
        "cpus": 16,
        "memory_gb": 200,
        "minutes": 60,
        "constraint": "ib",
        "exclude": "n7,n8",
        "max_parallel": 8,
        "signal_seconds": 90,
        "python": "apptainer exec --nv image.sif python",
        "setup": ["module load cuda"],
        "srun_args": ["--cpu-bind=cores"],
        "additional": {"nice": 100, "reservation": "mine", "exclusive": True},
        "threads": 4,
        "save_seconds": 120,
    },
    "cpu_only": {"gpus": 0, "cpus": 2, "memory_gb": 1.5},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_scripts_are_as_reviewed(
    name: str, commands: Path, store: Store, golden: Golden
) -> None:
    slurm.submit(store, "small", cluster(**SETTINGS[name]))
    shown = [text.replace(str(store.root), "STORE") for text in scripts(commands)]
    shown = [text.replace(sys.executable, "PYTHON") for text in shown]
    shown = [re.sub("gp-small-[0-9a-f]{8}", "gp-small-NONCE", text) for text in shown]
    # The first is an array or a single job without, the last one with something to wait for.
    golden(f"sbatch/{name}.sh", f"{shown[0]}\n{shown[-1]}")
