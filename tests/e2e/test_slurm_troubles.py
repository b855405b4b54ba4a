"""What befalls jobs on a real SLURM: each time the sweep ends, and to the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.slurm_sweep import SAVING, Caught, Sweep
from tests.slurm.cluster import Cluster

# What SLURM waits for (a node given up, a limit looked at every 30 s) adds up on a busy machine.
pytestmark = pytest.mark.timeout(600)

INTERVAL = "one save interval"


def test_whatever_stops_a_job_it_goes_on_from_there(
    slurm: Cluster, sweep: Sweep, undisturbed: Path
) -> None:
    sweep.launch(SAVING, "cluster.partition=preempt")
    one = sweep.caught()
    for number in ("USR2", "TERM"):
        slurm.run("scancel", f"--signal={number}", one.job)
        one = released(sweep, one)
    slurm.run("scontrol", "requeue", one.job)
    one = released(sweep, one)
    higher = ("--partition=gpu", "--nodes=2", "--exclusive", "--time=1", "--wrap=true")
    slurm.run("sbatch", f"--output={sweep.store}/higher", *higher)
    one = released(sweep, one)
    # SLURM warns by its own clock, which it reads every 30 s.
    slurm.run("scontrol", "update", f"jobid={one.job}", "TimeLimit=1")
    sweep.until(lambda: one.signalled(signal.SIGUSR2), 90)
    slurm.run("scontrol", "update", f"jobid={one.job}", "TimeLimit=30")
    one.go_on()
    sweep.end(undisturbed)
    attempts = sweep.attempts()
    assert sum(attempts.values()) == len(attempts) + 5
    saves = "saves at its next step, is requeued, goes on"
    sweep.tell("USR2 or TERM sent to a job", f"it {saves}", "one step")
    sweep.tell("`scontrol requeue` by an administrator", f"the job {saves}", INTERVAL)
    sweep.tell("preempted by a higher partition", f"the job {saves}", INTERVAL)
    sweep.tell("its time limit reached", f"warned before it, the job {saves}", "one step")


def released(sweep: Sweep, one: Caught) -> Caught:
    """Let a job notice what befell it, and catch its next attempt."""
    attempts = sum(sweep.attempts().values())
    one.go_on()
    sweep.until(lambda: sum(sweep.attempts().values()) > attempts)
    return sweep.caught(one)


def test_whatever_kills_a_job_is_told_and_launched_again(
    slurm: Cluster, sweep: Sweep, undisturbed: Path
) -> None:
    sweep.launch("cluster.memory_gb=0.2")
    sweep.becomes("failed")
    said = sweep.growpoint("status", "few", cwd=sweep.store, code=1).stdout
    assert "ran out of memory: raise cluster.memory_gb" in said
    assert any(f"node {node}" in said for node in slurm.nodes)
    sweep.launch(SAVING)
    one = sweep.caught(further=1024 * random.randrange(16))
    one.kill()
    sweep.becomes("failed", one.stage)
    sweep.launch(SAVING)
    one = sweep.caught(one)
    slurm.run("scancel", one.job)
    one.go_on()
    sweep.becomes("stopped", one.stage)
    assert "all" in sweep.launch("--follow").stdout
    sweep.end(undisturbed)
    told = "`status` tells it with node and log; `launch` again"
    sweep.tell("a job out of memory", told, INTERVAL)
    sweep.tell("SIGKILL of a job at a random step", told, INTERVAL)
    sweep.tell("`scancel` of a job in mid-training", told, INTERVAL)


def test_controller_and_node_die(
    slurm: Cluster, sweep: Sweep, undisturbed: Path, environment: dict[str, str]
) -> None:
    controller_dies_at_submission(slurm, sweep, environment)
    one = sweep.caught()
    os.kill(slurm.pid("slurmctld"), signal.SIGKILL)
    one.go_on()
    # It trains on and saves while nobody is there to ask.
    one = sweep.caught(one, asking=False)
    slurm.control("restore-daemon", "slurmctld")
    attempts = sweep.attempts()
    assert sum(attempts.values()) == len(attempts)
    slurm.control("kill-node", one.node, "--no-wait")
    # As an administrator would: else SLURM finds out by itself, half a minute later.
    slurm.run("scontrol", "update", f"nodename={one.node}", "state=down", "reason=test")
    try:
        sweep.end(undisturbed)
    finally:
        slurm.control("restore-node", one.node)
    attempts = sweep.attempts()
    assert sum(attempts.values()) == len(attempts) + 1
    asked = "sbatch is asked again, after looking up by name what SLURM took"
    sweep.tell("slurmctld SIGKILLed while jobs are submitted", asked, "nothing")
    sweep.tell("slurmctld SIGKILLed while jobs run", "they do not notice", "nothing")
    sweep.tell("a node SIGKILLed in mid-training", "SLURM requeues the job elsewhere", INTERVAL)


def controller_dies_at_submission(
    slurm: Cluster, sweep: Sweep, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", *sweep.line(SAVING)]
    env = {**environment, **slurm.env}
    with subprocess.Popen(command, cwd=sweep.store, env=env, stdout=subprocess.DEVNULL) as launch:
        controller = slurm.pid("slurmctld")
        while not sweep.ledger():
            assert launch.poll() is None
            time.sleep(0.001)
        os.kill(controller, signal.SIGKILL)
        time.sleep(1)
        slurm.control("restore-daemon", "slurmctld")
        assert launch.wait(timeout=120) == 0
    # By name: what ended just before is in the queue again, as the controller had last saved it.
    meant = ",".join(batch.name for batch in sweep.batches())
    assert len(sweep.queue(f"--name={meant}")) == 1
