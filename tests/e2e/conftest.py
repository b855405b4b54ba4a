"""The commands as a user gives them: subprocesses, in a folder of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.slurm.cluster import Cluster

if TYPE_CHECKING:
    from tests.e2e.slurm_sweep import Sweep

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# Small enough for seconds, with every arm, both growths and points to resume from.
SMALL = [
    "points.at=[0,8192,16384,24576,32768]",
    "budgets.at=[1e10,2e10]",
    "exclude=[{growth: ['width x2'], point: [0, 1, 2]}]",
    "model.hidden=32",
    "model.head_dim=8",
    "model.expert_hidden=32",
    "recipe.batch_sequences=16",
    "recipe.sequence_tokens=64",
    "recipe.warmup_tokens=4096",
    "suite.heldout_tokens=4096",
    "suite.sequence_tokens=64",
    "data=text",
    "data.heldout_share=0.2",
]


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some of the standard library's sources: real text, quickly read."""
    folder = tmp_path_factory.mktemp("texts")
    source = Path(os.__file__).parent
    for path in sorted(source.glob("*.py"))[:60]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Nothing of the caller's that would change what is printed."""
    dropped = {"GROWPOINT_CONFIG", "GROWPOINT_DEBUG", "COLUMNS", "FORCE_COLOR"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    here = str(Path(__file__).parents[2])
    return {**kept, "NO_COLOR": "1", "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}


def _cluster() -> dict[str, str]:
    """The way to the cluster that this test has asked for, if it has."""
    return {key: value for key, value in os.environ.items() if key.startswith("SLURM_")}


@pytest.fixture(scope="session")
def growpoint(environment: dict[str, str]) -> Run:
    """Run `growpoint WORDS`; the exit code is asserted, unless it is None."""

    def run(
        *words: str, cwd: Path, code: int | None = 0, timeout: float = 300, **more: str
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**environment, **_cluster(), **more},
            timeout=timeout,
            check=False,
        )
        said = f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert code is None or done.returncode == code, said
        return done

    return run


@pytest.fixture(scope="session")
def small(texts: Path) -> list[str]:
    """Overrides that make `demo` a matter of seconds."""
    return [*SMALL, f"data.paths=[{texts}]"]


@pytest.fixture(scope="session")
def launched(
    growpoint: Run, small: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """A store in which the small demo has run to its end, and what launching it said."""
    store = tmp_path_factory.mktemp("store")
    return store, growpoint("launch", "demo", *small, cwd=store)


@pytest.fixture(scope="session")
def undisturbed(growpoint: Run, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the sweep of the SLURM tests has run here, and nothing befell it."""
    from tests.e2e.slurm_sweep import WHOLE

    store = tmp_path_factory.mktemp("undisturbed")
    growpoint("launch", "demo", *small, *WHOLE, cwd=store)
    return store


@pytest.fixture
def sweep(
    slurm: Cluster, growpoint: Run, small: list[str], tmp_path_factory: pytest.TempPathFactory
) -> "Sweep":
    """A sweep of one job on SLURM, in a folder that every node sees."""
    from tests.e2e.slurm_sweep import ONE, Sweep

    made = Sweep(slurm, growpoint, tmp_path_factory.mktemp("shared"), [*small, *ONE])
    made.ready()
    return made
