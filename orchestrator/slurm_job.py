"""What a SLURM allocation runs: one importable function of three strings, nothing pickled."""

import logging
import os
import signal
import subprocess
import sys
import threading

# A job that is requeued so often makes no progress; somebody should look at it.
RESTARTS = 50


def run(store: str, sweep: str, job: str) -> dict[str, str]:
    """Run one job; stop at a step boundary when SLURM warns, and queue again.

    Raises GrowpointError when a stage failed, so that SLURM sees a failed job.
    """
    from pathlib import Path

    from orchestrator.job import Circumstance, run_job
    from orchestrator.store import Store
    from sweeps.errors import GrowpointError

    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    stop = threading.Event()
    # After submitit's own handlers: it ignores a plain SIGTERM (what preemption sends), and on
    # USR2 it would pickle and exit in the middle of a step.
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    circumstance = Circumstance(
        save_seconds=float(os.environ.get("GROWPOINT_SAVE_SECONDS", "300")),
        threads=int(os.environ.get("OMP_NUM_THREADS", "1")),
        stop=stop.is_set,
        allocation=slurm_id(),
    )
    outcome = run_job(Store(Path(store)), sweep, job, circumstance)
    if outcome.ending == "stopped":
        _requeue()
    if outcome.ending == "failed":
        raise GrowpointError(
            f"stage {outcome.stage} failed", [("says", outcome.error)], f"growpoint status {sweep}"
        )
    return {"job": job, "ending": outcome.ending}


def slurm_id() -> str:
    """SLURM's own name of this job: of an array, this task alone."""
    master, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{master}_{index}" if master and index else os.environ.get("SLURM_JOB_ID", "")


def _requeue() -> None:
    """Leave without a result that submitit would call done, and be run again if that is wanted.

    SLURM warns of a time limit, or somebody sends a signal: then the job asks to be requeued. When
    SLURM is ending the job already it has decided: preempted jobs it requeues by itself, and one
    that somebody cancelled must not come back.
    """
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    state = _state()
    if state in ("", "RUNNING") and restarts < RESTARTS:
        subprocess.run(["scontrol", "requeue", slurm_id()], check=False)
    logging.getLogger(__name__).info(
        "saved; SLURM says %s; restart %d of at most %d", state or "nothing", restarts, RESTARTS
    )
    sys.exit(signal.SIGUSR2)


def _state() -> str:
    """What SLURM calls this job's state; "" where it does not answer."""
    asked = ["squeue", "-h", "-j", slurm_id(), "-o", "%T"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip()
