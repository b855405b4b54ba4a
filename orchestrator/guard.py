"""Runs one command so that nothing of it is left behind, whoever dies.

`guard.py SIGNAL WORD...` starts the command in a session of its own. Standard input says what to
do: `stop` sends it SIGNAL; `kill`, or the end of the input because the starter is gone, kills it
with all that it has started, in whatever session (torchrun gives each worker one). Ends with
the command's status, 128 + n after signal n. Needs nothing but the standard library.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.1
# From linux/prctl.h: orphans among our descendants become our children instead of init's.
PR_SET_CHILD_SUBREAPER = 36
NOT_FOUND = 127


def main(words: list[str]) -> int:
    """Arguments: the signal that asks to stop, without SIG; the command."""
    asks, command = signal.Signals[f"SIG{words[0]}"], words[1:]
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # SLURM sends a step's warning to all of its processes. Ignored is inherited: a command that
    # knows nothing of the signal is not ended by it in the middle of a step.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A handler, and not SIG_IGN, which the command would inherit.
        signal.signal(number, lambda *_: None)
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND
    _attend(process, asks)
    code = process.wait()
    _kill_all()
    return 128 - code if code < 0 else code


def _attend(process: "subprocess.Popen[bytes]", asks: signal.Signals) -> None:
    """Pass on what is said until the command ends."""
    listening = True
    while process.poll() is None:
        ready = select.select([0] if listening else [], [], [], POLL_SECONDS)[0]
        if not ready:
            continue
        said = os.read(0, 4096)
        if not said or b"kill" in said:
            _kill_all()
            listening = False
        elif b"stop" in said:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, asks)


def _kill_all(seconds: float = 10.0) -> None:
    """Kill all descendants, and those that they start meanwhile."""
    until = time.monotonic() + seconds
    while (found := _descendants(os.getpid())) and time.monotonic() < until:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _descendants(root: int) -> list[int]:
    """Living processes that descend from `root`, by /proc."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(path.parent.name)] = int(parent)
    found, new = set[int](), {root}
    while new := {pid for pid, parent in parents.items() if parent in new} - found:
        found |= new
    return sorted(found)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
