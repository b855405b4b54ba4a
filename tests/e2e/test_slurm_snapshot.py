"""Jobs run the code that they were submitted with, whatever becomes of the checkout meanwhile."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import frozen
from tests.e2e.conftest import Run
from tests.e2e.slurm_sweep import ONE, Sweep
from tests.slurm.cluster import Cluster

# Held until released; and sbatch is told to hand on nothing of its environment.
HELD = "cluster.additional={hold: true, export: NONE}"
# What an allocation and its user may leave to whatever is submitted from inside it: each of these
# alone would have the new jobs refused, or pending for ever.
LEFT = {"SBATCH_GRES": "gpu:9", "SBATCH_TIMELIMIT": "1", "SUBMITIT_EXECUTOR": "local"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a commit of its own and a change since, under a name as users give them."""
    copy = tmp_path / 'it\'s "my" $checkout'
    for package in frozen.PACKAGES:
        forget = shutil.ignore_patterns("__pycache__")
        shutil.copytree(frozen.ROOT / package, copy / package, ignore=forget)
    git(copy, "init", "--quiet")
    git(copy, "add", ".")
    git(copy, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message=all")
    with (copy / "orchestrator" / "job.py").open("a") as file:
        file.write("# A change that is not committed.\n")
    return copy


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def launch_within_a_job(sweep: Sweep) -> str:
    """Launch from inside an allocation, in the checkout and with it as the store; what was said."""
    checkout = sweep.store
    script = checkout / "launch.sh"
    lines = [f"export {name}={value}" for name, value in LEFT.items()]
    lines += ["unset PYTHONPATH"]
    lines += [shlex.join([sys.executable, "-m", "orchestrator.cli", *sweep.line(HELD)])]
    script.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    output = checkout / "launch.out"
    # As SLURM_MEM_PER_CPU this contradicts the --mem of the new jobs.
    options = ["--wait", "--mem-per-cpu=2G", "--time=5", f"--chdir={checkout}"]
    try:
        sweep.slurm.run("sbatch", *options, f"--output={output}", str(script), timeout=200)
    except subprocess.CalledProcessError as error:
        raise AssertionError(output.read_text()) from error
    return output.read_text()


def test_what_waits_runs_the_code_it_was_submitted_with(
    slurm: Cluster, growpoint: Run, small: list[str], undisturbed: Path, checkout: Path
) -> None:
    sweep = Sweep(slurm, growpoint, checkout, [*small, *ONE])
    sweep.ready()
    said = launch_within_a_job(sweep)
    assert "submitted" in said
    assert "not handed on to sbatch, as it would overrule cluster.*: SBATCH_GRES" in said
    held = set(slurm.run("squeue", "-h", "-t", "PENDING", "-o", "%F").split())
    assert held
    for package in frozen.PACKAGES:
        (checkout / package / "__init__.py").write_text("raise RuntimeError('edited')\n")
    (checkout / "orchestrator" / "train.py").unlink()
    slurm.run("scontrol", "release", ",".join(held))
    sweep.end(undisturbed)
    expect_provenance(checkout)


def expect_provenance(store: Path) -> None:
    """Every record names the copy, the commit and the change, as the launch does."""
    (code,) = [path for path in (store / "code").iterdir() if path.is_dir()]
    head = git(store, "rev-parse", "--short=10", "HEAD")
    (launch,) = [json.loads(path.read_text()) for path in store.glob("plans/few/launches/*.json")]
    records = [json.loads(path.read_text()) for path in store.glob("runs/*/record.json")]
    for told in (launch, *records):
        assert (told["code"], told["commit"]) == (code.name, f"{head}+")
    assert "# A change that is not committed." in (store / launch["difference"]).read_text()
    assert {record["made_by"]["slurm"]["partition"] for record in records} == {"gpu"}
    assert launch["slurm"]["version"] == records[0]["made_by"]["slurm"]["version"] != ""
