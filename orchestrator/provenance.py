"""What made a result: the code, its commit and changes, the packages, the machine, the scheduler.

All of it is circumstance: it is written down, and names nothing.
"""

import getpass
import os
import platform
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator import frozen
from orchestrator.store import Store, write_atomic, write_json
from sweeps.notify import unsaid

# Those whose version may change a result, or how it was run.
DISTRIBUTIONS = (
    "growpoint", "torch", "transformers", "numpy", "safetensors", "submitit",
)  # fmt: skip
# A change of more than this is data that was put among the code; the copy of the code has it all.
DIFF_BYTES = 1 << 20
DRIVER = re.compile(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)")


@cache
def code() -> dict[str, str]:
    """The code of this process by content and commit; ask early, as a checkout may be edited."""
    there = frozen.running()
    name = there.name if there else frozen.address(frozen.contents())
    return {"code": name, "commit": commit()}


@cache
def commit() -> str:
    """The commit of this process's code, with `+` if files of it differ; "" where none is known."""
    if frozen.running():
        return os.environ.get(frozen.COMMIT_VARIABLE, "")
    # Installed into an environment inside somebody's repository it is not at that one's commit.
    if not (frozen.ROOT / ".git").exists():
        return ""
    head = _git("rev-parse", "--short=10", "HEAD").decode().strip()
    return head + ("+" if head and difference() else "")


@cache
def difference() -> bytes:
    """What the code has changed since its commit, as a patch; new files included."""
    names = [*frozen.PACKAGES]
    form = ("--no-color", "--no-ext-diff", "--src-prefix=a/", "--dst-prefix=b/")
    changed = _git("diff", *form, "HEAD", "--", *names)
    listed = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *names)
    new = [name for name in os.fsdecode(listed).split("\0") if name]
    return changed + b"".join(
        _git("diff", *form, "--no-index", "--", os.devnull, name)
        for name in new
        if Path(name).suffix in frozen.SUFFIXES
    )


def _git(*words: str) -> bytes:
    """What git prints; nothing where there is no git, or it will not read the checkout."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(frozen.ROOT), *words]
    try:
        return subprocess.run(command, capture_output=True, env=environment, check=False).stdout
    except OSError:
        return b""


@cache
def versions() -> dict[str, str]:
    """Python and the packages that matter; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def user() -> str:
    """Who runs this process; a number where the machine does not know a name, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


@cache
def slurm() -> dict[str, str]:
    """SLURM's version and where it runs this process; empty outside of a job."""
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    words = {"cluster": "SLURM_CLUSTER_NAME", "partition": "SLURM_JOB_PARTITION"}
    words |= {"account": "SLURM_JOB_ACCOUNT", "node": "SLURMD_NODENAME"}
    told = {word: os.environ[name] for word, name in words.items() if os.environ.get(name)}
    return {"version": slurm_version(), **told}


@cache
def slurm_version() -> str:
    """Of the commands on this machine; "" without them."""
    if shutil.which("squeue") is None:
        return ""
    done = subprocess.run(["squeue", "--version"], capture_output=True, text=True, check=False)
    return (done.stdout.split() or [""])[-1]


def gpu() -> dict[str, str]:
    """Name and driver of this process's GPU; empty without one, or while torch is not loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"gpu": torch.cuda.get_device_name(), "driver": driver(_driver_text())}


def _driver_text() -> str:
    try:
        return Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return ""


def driver(text: str) -> str:
    """The version in what NVIDIA's kernel module says of itself; "" if there is none."""
    found = DRIVER.search(text)
    return found[1] if found else ""


def of_record() -> dict[str, Any]:
    """What a record says of its making, beside the time and the host."""
    more = {"slurm": slurm()} if slurm() else {}
    return {**code(), "made_by": {"user": user(), **versions(), **gpu(), **more}}


def write_launch(store: Store, sweep: str) -> Path:
    """Write down a launch, and what its code has changed since its commit; the launch's file."""
    here = socket.gethostname()
    told = {
        "command": shlex.join(["growpoint", *unsaid(sys.argv[1:])]),
        "at": time.time(),
        "host": here,
        "python_command": sys.executable,
        **code(),
        "difference": _write_difference(store),
        "made_by": {"user": user(), **versions()},
        "slurm": slurm() or {"version": slurm_version()},
    }
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"{stamp}-{here}-{secrets.token_hex(2)}.json"
    path = store.plan_folder(sweep) / "launches" / name
    write_json(path, told)
    return path


def _write_difference(store: Store) -> str:
    """The path in the store of the patch from the commit to the code; "" if there is none."""
    at = code()
    if not at["commit"].endswith("+"):
        return ""
    name = f"code/{at['code']}-{at['commit'].removesuffix('+')}.diff"
    # Frozen code has no checkout to compare with: the launch that froze it has written the patch.
    if not frozen.running() and not (store.root / name).exists():
        write_atomic(store.root / name, _capped(difference()))
    return name


def _capped(patch: bytes) -> bytes:
    if len(patch) <= DIFF_BYTES:
        return patch
    note = f"\n... cut: {len(patch)} bytes in all; code/{code()['code']} has the files\n"
    return patch[:DIFF_BYTES] + note.encode()
