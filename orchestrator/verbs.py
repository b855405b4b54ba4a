"""The four verbs done: what each stage does to the checkpoint before it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from pydantic import TypeAdapter

from orchestrator import checkpoint, claim
from orchestrator.store import Store
from sweeps.data import Corpus, Data
from sweeps.errors import GrowpointError
from sweeps.stages import Evaluate, Grow, Init, Stage, Train, shares_start


@dataclass(frozen=True, kw_only=True)
class Circumstance:
    """What does not change the result: how often to save, on what, when to stop."""

    save_seconds: float = 60.0
    threads: int = 1
    stop: Callable[[], bool] = lambda: False
    allocation: str = ""


def run(
    store: Store,
    stage: Stage,
    data: dict[str, Any],
    circumstance: Circumstance,
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """What came out of a stage; None if it was stopped before its end."""
    match stage.do:
        case Init():
            return _init(store, stage, stage.do)
        case Train():
            return _train(store, stage, stage.do, data, circumstance, stop)
        case Grow():
            return _grow(store, stage, stage.do)
        case Evaluate():
            return _evaluate(store, stage, stage.do, data, circumstance, stop)
        case _:
            assert_never(stage.do)


def _init(store: Store, stage: Stage, do: Init) -> dict[str, Any]:
    from orchestrator import models

    target = store.checkpoint(stage.id)
    if not _sound(target):
        models.create(do.model, do.seed, target)
    return {"model": do.model.model_dump(mode="json")}


def _grow(store: Store, stage: Stage, do: Grow) -> dict[str, Any]:
    from orchestrator import grow

    target = store.checkpoint(stage.id)
    if not _sound(target):
        grow.grow(_source(store, stage), target, do.operators, do.seed)
    return {"model": stage.model.model_dump(mode="json")}


def _train(
    store: Store,
    stage: Stage,
    do: Train,
    data: dict[str, Any],
    circumstance: Circumstance,
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    from orchestrator import train

    run, corpus = store.run(stage.id), _corpus(store, do.corpus, data, stop)
    if corpus is None:
        return None
    came = train.train(
        do,
        source=_source(store, stage),
        resume=[run / "partial", *beginnings(store, stage)],
        target=store.checkpoint(stage.id),
        partial=run / "partial",
        stream_folder=corpus,
        metrics=run / "metrics.jsonl",
        stop=stop,
        save_seconds=circumstance.save_seconds,
        threads=circumstance.threads,
        device=train.device(),
    )
    return came.to_dict() if came.finished else None


def _evaluate(
    store: Store,
    stage: Stage,
    do: Evaluate,
    data: dict[str, Any],
    circumstance: Circumstance,
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    from orchestrator import evaluate, train

    corpus = _corpus(store, do.corpus, data, stop)
    if corpus is None:
        return None
    metrics = evaluate.evaluate(
        do.suite,
        do.corpus,
        _source(store, stage),
        corpus,
        device=train.device(),
        threads=circumstance.threads,
    )
    return {"suite": {"name": do.suite.name, "version": do.suite.version}, "metrics": metrics}


def _source(store: Store, stage: Stage) -> Path:
    """The checkpoint a stage works on, verified. Raises GrowpointError naming a damaged file."""
    assert stage.after is not None
    folder = store.checkpoint(stage.after.id)
    checkpoint.verify(folder)
    return folder


def _sound(folder: Path) -> bool:
    """Whether a whole checkpoint is there already: a kill came between it and its record."""
    if not folder.exists():
        return False
    try:
        checkpoint.verify(folder)
    except GrowpointError:
        folder.rename(folder.with_name(f"checkpoint.damaged.{time.time_ns()}"))
        return False
    return True


def beginnings(store: Store, stage: Stage) -> list[Path]:
    """Checkpoints of finished shorter phases that this one passes through, longest first."""
    after = f'"after": "{stage.after.id if stage.after else None}"'
    found: list[tuple[int, Path]] = []
    for path in store.root.glob("runs/train-*/stage.json"):
        if after not in path.read_text() or not store.done(path.parent.name):
            continue
        other = store.stage(path.parent.name)
        if shares_start(stage, other) and isinstance(other.do, Train):
            found.append((other.do.tokens, store.checkpoint(other.id)))
    return [folder for _, folder in sorted(found, reverse=True)]


def _corpus(
    store: Store, corpus: Corpus, data: dict[str, Any], stop: Callable[[], bool]
) -> Path | None:
    """The corpus's folder, prepared by whoever comes first; None if stopped while waiting."""
    folder = store.corpus(corpus.id)
    if not (folder / "corpus.json").exists():
        held = claim.wait(folder.with_name(f"{corpus.id}.claim"), "prepare", stop)
        if held is None:
            return None
        with held:
            if not (folder / "corpus.json").exists():
                _prepare(corpus, data, folder)
    return folder


def _prepare(corpus: Corpus, data: dict[str, Any], folder: Path) -> None:
    from orchestrator import corpora

    where: TypeAdapter[Any] = TypeAdapter(Data)
    corpora.prepare(where.validate_python(data[corpus.id]), corpus, folder)
