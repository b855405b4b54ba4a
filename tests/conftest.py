"""What every test may use: golden files, and a real SLURM cluster."""

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

# Before torch, matplotlib or the hub client is imported by anybody, and for every child process.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.scheduler.protocol import Scheduling

from tests.slurm import cluster

GOLDEN = Path(__file__).parent / "golden"
SLURM_FILES = "*test_slurm_*.py"
Golden = Callable[[str, str], None]
CI = os.environ.get("CI", "").lower() in {"1", "true"}

# Two busy cores make deadlines noise; a failure in CI must be the same failure on a desk.
settings.register_profile("growpoint", deadline=None, derandomize=CI)
settings.load_profile("growpoint")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the files of tests/golden with what the tests produce; review them as a diff",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """With `--dist loadfile`, all files that use SLURM go to one worker: one cluster at a time.

    The mark xdist_group would say it test by test, but xdist 3.8 does not see it under pytest 9.2.
    """
    return OneCluster(config, log) if config.getoption("dist") == "loadfile" else None


class OneCluster(LoadFileScheduling):
    """Gives work out by file, and the files of SLURM_FILES as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "slurm" if fnmatch(file, SLURM_FILES) else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """SLURM's files first: they are the longest, and run on one worker while others do the rest."""
    items.sort(key=lambda item: not fnmatch(str(item.path), SLURM_FILES))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Call with a path under tests/golden and a text: they must agree."""
    update = request.config.getoption("--update-golden")

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.is_file():
            pytest.fail(f"no golden file {name}: pytest --update-golden writes it")
        assert text == path.read_text(encoding="utf-8"), (
            f"tests/golden/{name} differs: if the new text is right, pytest --update-golden"
        )

    return check


@pytest.fixture(scope="session")
def slurm() -> Iterator[cluster.Cluster]:
    """A real SLURM of two nodes for the whole run; `.env` leads any program to it.

    Within a test that asks for this, the environment already does.
    """
    try:
        running = cluster.start()
    except cluster.NoClusterError as why:
        reason = f"no SLURM cluster: {why}"
        pytest.fail(reason) if CI else pytest.skip(reason)
    yield running
    cluster.stop(running)


@pytest.fixture(autouse=True)
def _slurm_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the cluster that the tests themselves may run on; show the one that a test asked for."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    if "slurm" in request.fixturenames:
        assert fnmatch(str(request.path), SLURM_FILES), f"a file that uses SLURM is {SLURM_FILES}"
        for name, value in request.getfixturevalue("slurm").env.items():
            monkeypatch.setenv(name, value)
