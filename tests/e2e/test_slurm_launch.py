"""A sweep on a real SLURM: launched in pieces, by two at once, and within narrow limits."""

import re
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest

from tests.e2e.conftest import Run
from tests.e2e.slurm_sweep import SOME, WHOLE, Sweep
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.timeout(600)


def begun(sweep: Sweep, environment: dict[str, str]) -> "subprocess.Popen[str]":
    """`growpoint launch` in the background."""
    command = [sys.executable, "-m", "orchestrator.cli", *sweep.line()]
    return subprocess.Popen(
        command,
        cwd=sweep.store,
        env={**environment, **sweep.slurm.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def killed_at_line(sweep: Sweep, environment: dict[str, str], lines: int) -> None:
    """A launch that dies once its ledger has so many lines."""
    launch = begun(sweep, environment)
    while len(sweep.ledger()) < lines:
        assert launch.poll() is None, launch.communicate()[0]
        time.sleep(0.001)
    launch.kill()
    launch.communicate()


def queued_jobs(sweep: Sweep) -> list[str]:
    """The jobs of the plan that SLURM will run or runs, by what the ledger knows of its ids."""
    batches = [one for one in sweep.batches() if one.slurm_ids]
    pairs = (zip(one.slurm_ids, one.jobs, strict=True) for one in batches)
    known = dict(chain.from_iterable(pairs))
    return [known[slurm_id] for slurm_id in sweep.queue("-t", "PENDING,RUNNING")]


def test_a_sweep_survives_its_launches_on_a_bare_slurm(
    slurm: Cluster,
    sweep: Sweep,
    small: list[str],
    undisturbed: Path,
    environment: dict[str, str],
) -> None:
    """Accounting is off, arrays end at four tasks, and no launch is left in peace."""
    sweep.words = [*small, *WHOLE]
    bare = {"AccountingStorageType": "accounting_storage/none", "MaxArraySize": "5"}
    with slurm.changed(AccountingStorageEnforce="", AccountingStorageTRES="", **bare):
        for lines in (1, 2, 5):
            killed_at_line(sweep, environment, len(sweep.ledger()) + lines)
        both = [begun(sweep, environment) for _ in range(2)]
        said = [launch.communicate(timeout=200)[0] for launch in both]
        codes = sorted(launch.returncode for launch in both)
        # Whoever comes while the other submits is told so; later there is nothing left to submit.
        assert codes == [0, 0] or (codes == [0, 2] and "another launch" in "".join(said))
        jobs = queued_jobs(sweep)
        assert len(jobs) == len(set(jobs))
        scripts = sweep.store.glob("plans/few/slurm/*/.submission_file_*.sh")
        arrays = [re.search(r"--array=0-(\d+)", path.read_text()) for path in scripts]
        assert max(int(one[1]) for one in arrays if one) <= 3
        assert sweep.status()["stages"]["queued"] > 0
        assert "SLURM jobs" in sweep.growpoint("cancel", "few", cwd=sweep.store).stdout
        sweep.until(lambda: not sweep.queue() and not sweep.status()["stages"]["queued"], 60)
        sweep.launch()
        assert "submitted    0 jobs" in sweep.launch().stdout
        sweep.end(undisturbed, 400)
    assert "nothing to run" in sweep.launch().stdout
    told = "no job twice in the queue"
    sweep.tell(
        "`launch` killed at three writes of its ledger", f"the next goes on; {told}", "nothing"
    )
    sweep.tell("two `launch` at once", f"one submits; {told}", "nothing")
    sweep.tell(
        "`cancel`, then `launch`",
        "the queue is empty; what is missing goes in",
        "one save interval",
    )
    sweep.tell("accounting off", "`status` asks `squeue`", "nothing")
    sweep.tell("more jobs than MaxArraySize", "arrays of as many as it allows", "nothing")


def submitted_behind(sweep: Sweep, job: str, parent: str) -> None:
    """A job of the plan in the queue behind another one."""
    words = [str(sweep.store), sweep.name, job]
    code = f"from orchestrator.slurm_job import run; run(*{words})"
    here = Path(__file__).parents[2]
    # As submitit would start it.
    told = f"PYTHONPATH={here} SUBMITIT_EXECUTOR=slurm"
    run = f'{told} srun {sys.executable} -c "{code}"'
    asked = (f"--dependency=afterok:{parent}", "--mem=2G", f"--output={sweep.store}/behind")
    sweep.slurm.run("sbatch", *asked, f"--wrap={run}")


def test_a_full_queue_is_topped_up_and_a_forgotten_parent_is_missed(
    slurm: Cluster, sweep: Sweep, small: list[str], undisturbed: Path
) -> None:
    sweep.words = [*small, *SOME]
    sweep.launch("cluster.max_queued=1", "cluster.additional={hold: true}")
    (parent,) = sweep.queue()
    with slurm.changed(MinJobAge="2"):
        sweep.growpoint("cancel", "few", cwd=sweep.store)
        sweep.until(lambda: not sweep.queue("-t", "all"))
        child = next(job for job in sweep.plan()["jobs"] if job["after"])
        submitted_behind(sweep, child["id"], parent)
        # SLURM takes the dependency for kept, and starts the job.
        sweep.until(lambda: sweep.state(child["stages"][0]) == "stopped")
    behind = (sweep.store / "behind").read_text()
    assert re.search("this job goes on from [a-z]+-[0-9a-f]+, which is not done", behind)
    # QOS `tiny` takes five jobs of a user at once.
    tiny = ("cluster.account=lab", "cluster.qos=tiny")
    said = sweep.launch(*tiny).stdout
    assert "the queue is full by the submit limit of qos tiny" in said
    assert len(sweep.queue("--qos=tiny")) <= 5
    for _ in range(len(sweep.plan()["jobs"])):
        sweep.until(lambda: not sweep.queue())
        if sweep.complete():
            break
        sweep.launch(*tiny)
    sweep.end(undisturbed)
    missed = "SLURM starts the job, which misses its parent's checkpoint and ends; `launch` again"
    sweep.tell("a parent that SLURM has forgotten (MinJobAge)", missed, "nothing")
    filled = "as many as may, the rest by the next `launch` or `--follow`"
    sweep.tell("more jobs than MaxSubmitJobs", filled, "nothing")


def test_an_unknown_partition_is_refused(growpoint: Run, sweep: Sweep, small: list[str]) -> None:
    sweep.words = [*small, *SOME]
    said = sweep.launch("cluster.partition=gpux", code=2)
    assert "there is no partition `gpux`" in said.stderr
    assert list(sweep.store.iterdir()) == []
