"""One of several processes that train together: does what each line of its input asks for."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import head_loss, ranks
from orchestrator.computing import Computing
from orchestrator.moments import Carried, Growth
from orchestrator.ranks import Ranks
from orchestrator.train import train
from sweeps.errors import GrowpointError
from sweeps.growth import Depth
from sweeps.model import Model
from sweeps.stages import Train
from tests.integration.broken import break_losses
from tests.integration.together import after


def carried(said: dict[str, Any] | None) -> Carried | None:
    if said is None:
        return None
    growth = Growth(Model.model_validate(said["model"]), (Depth(),))
    return Carried(Path(said["folder"]), growth, said["updates"])


def answer(mine: Ranks, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Train one phase; what came of it."""
    name = asked["name"]
    with pytest.MonkeyPatch.context() as patched, mine.explained():
        patched.setattr(head_loss, "LOGITS", asked.get("logits", head_loss.LOGITS))
        if mine.rank == mine.world - 1:
            break_losses(patched, asked.get("broken", ()))
        came = train(
            Train.model_validate(asked["do"]),
            source=Path(asked["source"]),
            carried=carried(asked["carried"]),
            target=folder / name,
            partial=folder / f"{name}.partial",
            stream_folder=Path(asked["tokens"]),
            metrics=folder / f"{name}.jsonl",
            log_every_steps=1,
            stop=after(asked["stop"][mine.rank]),
            how=Computing(micro_batch_tokens=asked["micro_batch_tokens"], **asked.get("how", {})),
            ranks=mine,
        )
    return came.to_dict()


def main() -> None:
    """The only argument is the folder that is trained in."""
    mine = ranks.join()
    for line in sys.stdin:
        try:
            said = answer(mine, Path(sys.argv[1]), json.loads(line))
        except Exception as error:
            mine.complain(error)
            said = {"error": error.text() if isinstance(error, GrowpointError) else repr(error)}
        print(json.dumps(said), flush=True)
        if "error" in said:
            break
    mine.part("failed" if "error" in said else "done")


if __name__ == "__main__":
    main()
