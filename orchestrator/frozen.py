"""The code that a launch submits its jobs with, kept in the store: what waits in a queue runs that.

A copy is a folder of the three packages, conf and the user's own families, named by its content;
SHA256SUMS in it lists the content, and begins to hash like the folder's name.
"""

import hashlib
import os
import secrets
import shlex
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from orchestrator.store import Store, sync, unwritable, write_atomic
from sweeps.errors import GrowpointError
from sweeps.family import CONFIG_FOLDER_VARIABLE

PACKAGES = ("sweeps", "orchestrator", "analysis", "conf")
SUFFIXES = frozenset({".py", ".yaml", ".csv", ".css", ".js", ".j2"})
ROOT = Path(__file__).parents[1]
SUMS = "SHA256SUMS"
# The user's own configuration folder, of which jobs read the families.
OWN = "own"
CODE_VARIABLE, COMMIT_VARIABLE = "GROWPOINT_CODE", "GROWPOINT_COMMIT"


@cache
def contents() -> Mapping[str, bytes]:
    """Every file of the code by its path, as they are when first asked for."""
    found = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in SUFFIXES and path.is_file()
    }
    own = os.environ.get(CONFIG_FOLDER_VARIABLE)
    families = sorted((Path(own) / "family").glob("*.yaml")) if own else []
    return found | {f"{OWN}/family/{path.name}": path.read_bytes() for path in families}


def sums(files: Mapping[str, bytes]) -> bytes:
    """The files as `sha256sum` lists them."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return "".join(lines).encode()


def address(files: Mapping[str, bytes]) -> str:
    """The name of this code: the first ten hex digits of the SHA-256 of its list."""
    return hashlib.sha256(sums(files)).hexdigest()[:10]


def freeze(store: Store) -> Path:
    """The folder that holds this process's code, made or put right as need be; repeat at will.

    Raises GrowpointError for a store that cannot be written, or whose path no Python path can hold.
    """
    files = contents()
    folder = store.root.resolve() / "code" / address(files)
    if ":" in str(folder):
        raise GrowpointError(
            "the path of the store has a colon, and a Python path cannot hold it",
            [("store", store.root.resolve())],
            "store=ANOTHER, or cluster.snapshot=false to run the code where it is",
        )
    try:
        if not folder.exists():
            _make(folder, files)
        _repair(folder, files)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def _make(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the folder aside and rename it, unless somebody else was faster."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        for name, data in {**files, SUMS: sums(files)}.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o444)
            sync(path)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        sync(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _repair(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write again what is missing or was changed, file by file: jobs may be reading the others."""
    for name, data in {**files, SUMS: sums(files)}.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)


def exports(folder: Path, commit: str) -> list[str]:
    """Shell lines by which a job runs the code in `folder`, before any other."""
    return [
        f"export {CODE_VARIABLE}={shlex.quote(str(folder))}",
        f"export {COMMIT_VARIABLE}={shlex.quote(commit)}",
        f"export {CONFIG_FOLDER_VARIABLE}={shlex.quote(str(folder / OWN))}",
        f'export PYTHONPATH="${CODE_VARIABLE}${{PYTHONPATH:+:$PYTHONPATH}}"',
        # Else `python -m` looks into the working directory first: where the launch was, often
        # the checkout itself.
        "export PYTHONSAFEPATH=1",
    ]


def running() -> Path | None:
    """The frozen code that this process was told to run and does run; None for any other."""
    told = os.environ.get(CODE_VARIABLE)
    return Path(told) if told and Path(told).exists() and ROOT.samefile(told) else None


def require() -> None:
    """Raise GrowpointError if this process was told to run frozen code, and runs another."""
    told = os.environ.get(CODE_VARIABLE)
    if told and not running():
        gone = [] if Path(told).exists() else [("missing", told)]
        raise GrowpointError(
            "the job does not run the code that it was submitted with",
            [("submitted", told), ("running", ROOT), *gone],
            "growpoint launch again where the code is missing; else a cluster.python that heeds"
            " PYTHONPATH, or cluster.snapshot=false",
        )
