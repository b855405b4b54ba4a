"""A worker process of this machine: kept alive between jobs, since importing torch takes seconds.

It reads one JSON object a line from standard input ({"job": id}) and answers on standard output.
When standard input ends, its launcher is gone: it stops at the next step boundary and saves.
"""

import json
import logging
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any

from orchestrator.job import Circumstance, run_job
from orchestrator.store import Store


def main() -> None:
    """Arguments: store folder, sweep, save_seconds, threads."""
    folder, sweep, save_seconds, threads = sys.argv[1:5]
    # Terminal signals go to the launcher, which asks workers to stop in good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _private_output()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    stop = threading.Event()
    asked: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_listen, args=(asked, stop), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    _warm_up()
    _say(answers, event="ready")
    circumstance = Circumstance(
        save_seconds=float(save_seconds), threads=int(threads), stop=stop.is_set, allocation="local"
    )
    store = Store(Path(folder))
    while (job := asked.get()) is not None:
        outcome = run_job(store, sweep, job, circumstance)
        _say(
            answers,
            event="ended",
            job=job,
            ending=outcome.ending,
            stage=outcome.stage,
            error=outcome.error,
        )


def _private_output() -> IO[str]:
    """Standard output for answers alone: whatever libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _warm_up() -> None:
    """Import what every stage needs, while the launcher still looks for work."""
    from orchestrator import evaluate, train  # noqa: F401


def _say(answers: IO[str], **message: Any) -> None:
    try:
        answers.write(json.dumps(message) + "\n")
        answers.flush()
    except BrokenPipeError:
        # The launcher is gone; what was done is on disk.
        os._exit(1)


def _listen(asked: "queue.Queue[str | None]", stop: threading.Event) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "job" in message:
            asked.put(message["job"])
        else:
            stop.set()
    stop.set()
    asked.put(None)


if __name__ == "__main__":
    main()
