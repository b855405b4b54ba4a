"""Curves shown elsewhere while they are made: TensorBoard, Weights & Biases.

metrics.jsonl is the truth. A tracker that fails is reported once and left alone: training goes on.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter

from orchestrator import extras
from orchestrator.store import read_json, write_json
from sweeps.stages import Stage
from sweeps.tracker import Nowhere, TensorBoard, Tracker, Wandb

logger = logging.getLogger(__name__)
FILE = "tracker.json"
NEEDS = {"tensorboard": "tensorboard", "wandb": "wandb"}
# A server that does not answer must not hold up training.
WAIT_SECONDS = 30
TRACKER: TypeAdapter[Tracker] = TypeAdapter(Tracker)

Line = Mapping[str, Any]


class Curve(Protocol):
    """Where the numbers of one stage are drawn over its tokens."""

    def add(self, tokens: int, numbers: Mapping[str, float]) -> None:
        """Numbers after so many tokens."""

    def close(self) -> None:
        """No more numbers; what was added is kept."""


def require(tracker: Tracker) -> None:
    """Raise GrowpointError if the tracker's package is not installed."""
    if needed := NEEDS.get(tracker.kind):
        extras.require(tracker.kind, needed, f"tracker={tracker.kind}")


def remember(folder: Path, tracker: Tracker) -> None:
    """Write beside a sweep's plan what its jobs are to use from now on."""
    write_json(folder / FILE, tracker.model_dump(mode="json"))


@contextmanager
def drawn(
    folder: Path, plan: Mapping[str, Any], stage: Stage, *, afterwards: bool = False
) -> Iterator[Callable[[Line], None]]:
    """A function that draws lines of metrics.jsonl of `stage`, by what `folder` remembers.

    While it is trained, lines that an earlier attempt has drawn from there on are taken back;
    what is found `afterwards` is added to all of them.
    """
    tracker = TRACKER.validate_python(read_json(folder / FILE) or {"kind": "none"})
    lines = _Lines(
        lambda tokens: _opened(tracker, folder, plan, stage, None if afterwards else tokens)
    )
    try:
        yield (lambda _line: None) if isinstance(tracker, Nowhere) else lines
    finally:
        lines.close()


class _Lines:
    """Lines to a curve that is opened by the first of them, and given up when it fails."""

    def __init__(self, opened: Callable[[int], Curve]) -> None:
        self._opened: Callable[[int], Curve] | None = opened
        self._curve: Curve | None = None
        self._drawn = -1

    def __call__(self, line: Line) -> None:
        if self._opened is None:
            return
        tokens = int(line["tokens"])
        # A phase that was rewound says some lines again.
        if tokens <= self._drawn:
            return
        self._drawn = tokens
        shown = {key: float(value) for key, value in line.items() if _drawable(key, value)}
        try:
            if self._curve is None:
                self._curve = self._opened(tokens)
            self._curve.add(tokens, shown)
        except Exception as error:  # whatever a foreign package raises
            self._give_up(error)

    def close(self) -> None:
        try:
            if self._curve:
                self._curve.close()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        logger.warning("the tracker failed and is left alone: %s: %s", type(error).__name__, error)
        self._opened = self._curve = None


def _drawable(key: str, value: Any) -> bool:
    return key != "tokens" and isinstance(value, int | float)


def _opened(
    tracker: Tracker,
    folder: Path,
    plan: Mapping[str, Any],
    stage: Stage,
    tokens: int | None,
) -> Curve:
    if isinstance(tracker, TensorBoard):
        events = Path(tracker.folder).expanduser() if tracker.folder else folder / "tensorboard"
        return _Events(events / stage.id, tokens)
    assert isinstance(tracker, Wandb)
    return _Run(tracker, folder, plan, stage)


class _Events:
    """TensorBoard's event files; what stands there from `tokens` on is no longer shown."""

    def __init__(self, folder: Path, tokens: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=tokens)

    def add(self, tokens: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, tokens)

    def close(self) -> None:
        self._writer.close()


class _Run:
    """A run of Weights & Biases under the stage's id, so that a resumed stage goes on in it."""

    def __init__(self, tracker: Wandb, folder: Path, plan: Mapping[str, Any], stage: Stage) -> None:
        import wandb

        self._run = wandb.init(
            project=tracker.project or str(plan["sweep"]),
            entity=tracker.entity,
            id=stage.id,
            name=_label(plan, stage),
            tags=list(tracker.tags),
            dir=folder,
            mode=tracker.mode,
            resume="allow",
            config={"stage": stage.id, "do": stage.do.model_dump(mode="json")},
            settings=wandb.Settings(
                init_timeout=WAIT_SECONDS, console="off", silent=True, disable_code=True
            ),
        )

    def add(self, tokens: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=tokens)

    def close(self) -> None:
        self._run.finish()


def _label(plan: Mapping[str, Any], stage: Stage) -> str:
    """The cell that the stage was trained for, if it is the last before an evaluation."""
    stages = plan["stages"]
    ends = {stages[cell["stage"]]["after"]: str(cell["label"]) for cell in plan["cells"]}
    return ends.get(stage.id, stage.id)
