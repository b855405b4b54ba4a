"""Checks of a growth beside its writing: the model class, and values that are not finite."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from orchestrator.blocks import FLOATS, Stored
from orchestrator.checkpoint import entries
from orchestrator.shards import Shard, sketch
from sweeps.errors import GrowpointError

Stop = Callable[[], bool]
# Piece of a tensor that is looked at in one go.
PIECE_BYTES = 8 << 20


def compare(folder: Path, config: str, files: Sequence[Shard], stop: Stop) -> str:
    """Hold what will be written against its model class; "" or why that was not possible.

    In a process of its own, since torch and transformers take hundreds of megabytes. Raises
    GrowpointError naming the tensors that do not fit.
    """
    lacks = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if lacks:
        return f"not held against its model class: {lacks[0]} is not installed"
    if "transformers" in sys.modules:
        # Loaded by an earlier stage of this process.
        from orchestrator.model_class import mismatches

        shapes = {tensor.name: tensor.shape for shard in files for tensor in shard.tensors}
        try:
            misfits = mismatches(shapes, json.loads(config))
        except GrowpointError as error:
            return f"not held against its model class: {error.problem}"
        return _judged(misfits)
    sketch(folder, config, files)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as talk:
        command = [sys.executable, "-P", "-m", "orchestrator.model_class", str(folder.resolve())]
        code = _waited(subprocess.Popen(command, stdout=out, stderr=talk, env=_environment()), stop)
        if code is None:
            return ""
        out.seek(0)
        talk.seek(0)
        return _read(out.read(), talk.read().decode(errors="replace"))


def _environment() -> dict[str, str]:
    """Where the same code is found, whatever the folder that the command was given in."""
    here = str(Path(__file__).resolve().parent.parent)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def _waited(process: "subprocess.Popen[bytes]", stop: Stop) -> int | None:
    """Its exit status; None if it was stopped before its end."""
    while not stop():
        try:
            return process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    process.wait()
    return None


def _read(out: bytes, talk: str) -> str:
    try:
        misfits = json.loads(out)
    except ValueError:
        lines = [line.strip() for line in talk.splitlines() if line.strip()]
        says = next(
            (line for line in lines if line.startswith("error:")), lines[-1] if lines else ""
        )
        return f"not held against its model class: {says.removeprefix('error: ')}"
    return _judged(misfits)


def _judged(misfits: Sequence[str]) -> str:
    if misfits:
        raise GrowpointError(
            "the grown checkpoint would not fit its model class",
            [*(("tensor", line) for line in misfits[:8]), ("in all", f"{len(misfits)} tensors")],
            "put right the family's file: docs/families.md says how; or --no-check",
        )
    return ""


def not_finite(source: Path, stop: Stop) -> list[str]:
    """Names of tensors with infinities or NaNs; reads all that are of a type with numbers."""
    from orchestrator.numbers import all_finite

    found = []
    for name, entry in entries(source).items():
        if entry.dtype not in FLOATS:
            continue
        starts = range(entry.start, entry.end, PIECE_BYTES)
        pieces: Iterable[Stored] = (
            Stored(entry.file, at, min(at + PIECE_BYTES, entry.end), entry.dtype, name)
            for at in starts
        )
        if not all(all_finite(piece.data(), entry.dtype) for piece in pieces):
            found.append(name)
        if stop():
            break
    return found
