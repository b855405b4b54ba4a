"""The SLURM cluster of the tests, seen from Python: cluster.sh, in a folder of this process."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("cluster.sh")
BOX_PREFIX = "growpoint-slurm-"
# Of cluster.sh start, to see the tests on machines that forbid more: "--no-ns --cgroup off".
OPTIONS = "GROWPOINT_TEST_SLURM"


@dataclass(frozen=True)
class Cluster:
    """Two nodes of 4 CPUs, 16 GB and 2 fake GPUs of type `h200` each, with accounting."""

    box: Path
    env: Mapping[str, str]
    """To be merged into the environment of whatever speaks to this cluster."""
    partition: str = "gpu"
    partitions: tuple[str, ...] = ("gpu", "preempt", "grace", "short")
    nodes: tuple[str, ...] = ("n1", "n2")
    gpus_per_node: int = 2

    def run(self, *command: str, timeout: float = 60) -> str:
        """What a client (`sbatch`, ...) prints; raises CalledProcessError with its stderr."""
        return _run(command, {**os.environ, **self.env}, timeout)

    def control(self, *command: str) -> str:
        """A command of cluster.sh: `kill-node n1 --down`, `kill-daemon slurmctld`, ..."""
        return self.run(str(SCRIPT), *command)

    def pid(self, daemon: str) -> int:
        """Process of a daemon: slurmctld, slurmdbd, ..."""
        return int((self.box / "run" / f"{daemon}.pid").read_text().split()[0])

    @contextmanager
    def changed(self, **settings: str) -> Iterator[None]:
        """Lines of slurm.conf replaced for a while, or left out if empty: a new controller, 2 s."""
        path = self.box / "etc" / "slurm.conf"
        before = path.read_text()
        names = tuple(f"{name}=" for name in settings)
        kept = [line for line in before.splitlines() if not line.startswith(names)]
        lines = [f"{name}={value}" for name, value in settings.items() if value]
        try:
            self._configured("\n".join([*lines, *kept]) + "\n")
            yield
        finally:
            self._configured(before)

    def _configured(self, text: str) -> None:
        self.control("kill-daemon", "slurmctld")
        (self.box / "etc" / "slurm.conf").write_text(text)
        self.control("restore-daemon", "slurmctld")


class NoClusterError(Exception):
    """No cluster can be started here; the text says why."""


def start(*options: str) -> Cluster:
    """Install what is missing, and start a cluster of this process: 6 s, 25 s with the packages.

    `options` are those of cluster.sh. Raises NoClusterError.
    """
    if os.geteuid() != 0:
        raise NoClusterError("starting SLURM needs root")
    _stop_orphans()
    # Unix sockets have short names, so the box lies in /tmp whatever TMPDIR says.
    box = Path("/tmp") / f"{BOX_PREFIX}{os.getpid()}"
    env = {"SLURM_BOX": str(box), "SLURM_CONF": str(box / "etc" / "slurm.conf")}
    cluster = Cluster(box=box, env=env)
    try:
        cluster.run(str(SCRIPT), "install", timeout=280)
        asked = options or os.environ.get(OPTIONS, "").split()
        cluster.run(str(SCRIPT), "start", *asked, timeout=120)
    except (subprocess.SubprocessError, OSError) as error:
        raise NoClusterError(str(error)) from error
    return cluster


def stop(cluster: Cluster) -> None:
    """Stop every daemon and delete the box."""
    cluster.control("stop", "--wipe")


def _run(command: tuple[str, ...], env: Mapping[str, str], timeout: float) -> str:
    # A file, not a pipe: a daemon that kept the pipe open would hang the reader.
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            timeout=timeout,
        )
        errors.seek(0)
        said = errors.read().strip()
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, command, done.stdout, said)
        error.add_note(said)
        raise error
    return done.stdout


def _stop_orphans() -> None:
    """Stop clusters whose test run was killed before it could."""
    for box in Path("/tmp").glob(f"{BOX_PREFIX}[0-9]*"):
        if not Path("/proc", box.name.removeprefix(BOX_PREFIX)).exists():
            _run((str(SCRIPT), "stop", "--wipe"), {**os.environ, "SLURM_BOX": str(box)}, 60)
