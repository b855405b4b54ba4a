"""One of several processes that train together: does what each line of its input asks for."""

import json
import sys
from pathlib import Path
from typing import Any

from orchestrator import loop, ranks
from orchestrator.ranks import Ranks
from orchestrator.train import train
from sweeps.stages import Train
from tests.integration.together import after


def answer(mine: Ranks, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Train one phase; what came of it, or the error."""
    loop.MICRO_BATCH_TOKENS = asked["micro_batch_tokens"]
    name, stop = asked["name"], asked["stop"]
    try:
        came = train(
            Train.model_validate(asked["do"]),
            source=Path(asked["source"]),
            target=folder / name,
            partial=folder / f"{name}.partial",
            stream_folder=Path(asked["tokens"]),
            metrics=folder / f"{name}.jsonl",
            log_every_steps=1,
            stop=after(stop[mine.rank]),
            ranks=mine,
        )
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return came.to_dict()


def main() -> None:
    """The only argument is the folder that is trained in."""
    mine = ranks.join()
    for line in sys.stdin:
        print(json.dumps(answer(mine, Path(sys.argv[1]), json.loads(line))), flush=True)
    mine.part("done")


if __name__ == "__main__":
    main()
