"""The four verbs done: what each stage does to the checkpoint before it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from pydantic import TypeAdapter

from orchestrator import checkpoint, claim
from orchestrator.store import Store, beginnings, phases
from sweeps import cost
from sweeps.data import Corpus, Data
from sweeps.errors import GrowpointError
from sweeps.stages import Evaluate, Grow, Init, Stage, Train


@dataclass(frozen=True, kw_only=True)
class Circumstance:
    """What does not change the result: how often to save, on what, when to stop."""

    save_seconds: float = 60.0
    threads: int = 1
    stop: Callable[[], bool] = lambda: False
    allocation: str = ""


@dataclass(frozen=True)
class Work:
    """What every verb needs: the store, the sweep's plan, the circumstance, and when to stop."""

    store: Store
    plan: Mapping[str, Any]
    circumstance: Circumstance
    stop: Callable[[], bool]


def run(work: Work, stage: Stage) -> dict[str, Any] | None:
    """What came out of a stage; None if it was stopped before its end."""
    match stage.do:
        case Init():
            return _init(work, stage, stage.do)
        case Train():
            return _train(work, stage, stage.do)
        case Grow():
            return _grow(work, stage, stage.do)
        case Evaluate():
            return _evaluate(work, stage, stage.do)
        case _:
            assert_never(stage.do)


def _init(work: Work, stage: Stage, do: Init) -> dict[str, Any]:
    from orchestrator import models

    target = work.store.checkpoint(stage.id)
    if not _sound(target):
        models.create(do.model, do.seed, target)
    return {"model": do.model.model_dump(mode="json")}


def _grow(work: Work, stage: Stage, do: Grow) -> dict[str, Any]:
    from orchestrator import grow

    target = work.store.checkpoint(stage.id)
    if not _sound(target):
        grow.grow(_source(work, stage), target, do.operators, do.seed)
    return {"model": stage.model.model_dump(mode="json")}


def _train(work: Work, stage: Stage, do: Train) -> dict[str, Any] | None:
    from orchestrator import train

    run, corpus = work.store.run(stage.id), _corpus(work, do.corpus)
    if corpus is None:
        return None
    came = train.train(
        do,
        source=_source(work, stage),
        resume=_resume(work.store, stage),
        target=work.store.checkpoint(stage.id),
        partial=run / "partial",
        stream_folder=corpus,
        metrics=run / "metrics.jsonl",
        trunk_tokens=cost.trained_tokens(stage.after) if stage.after else 0,
        stop=work.stop,
        save_seconds=work.circumstance.save_seconds,
        threads=work.circumstance.threads,
        device=train.device(),
    )
    return came.to_dict() if came.finished else None


def _evaluate(work: Work, stage: Stage, do: Evaluate) -> dict[str, Any] | None:
    from orchestrator import evaluate, train

    corpus = _corpus(work, do.corpus)
    if corpus is None:
        return None
    source, threads = _source(work, stage), work.circumstance.threads
    metrics = evaluate.evaluate(
        do.suite, do.corpus, source, corpus, device=train.device(), threads=threads
    )
    return {"suite": {"name": do.suite.name, "version": do.suite.version}, "metrics": metrics}


def _source(work: Work, stage: Stage) -> Path:
    """The checkpoint a stage works on, verified. Raises GrowpointError naming a damaged file."""
    assert stage.after is not None
    folder = work.store.checkpoint(stage.after.id)
    try:
        checkpoint.verify(folder)
    except GrowpointError as error:
        # Its record says it is done; without the record it is made again.
        record = work.store.run(stage.after.id) / "record.json"
        again = f"rm {record}, then: growpoint launch {work.plan['sweep']}"
        raise GrowpointError(error.problem, error.evidence, again) from error
    return folder


def _resume(store: Store, stage: Stage) -> list[Path]:
    """Checkpoints that this phase passes through: any sweep's, longest first."""
    return [store.checkpoint(other.id) for other in beginnings(store, stage, phases(store))]


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


def _corpus(work: Work, corpus: Corpus) -> Path | None:
    """The corpus's folder, prepared by whoever comes first; None if stopped while waiting.

    Raises GrowpointError if its held-out half is too short for a suite of the plan: before
    anything is trained on it rather than after.
    """
    folder = work.store.corpus(corpus.id)
    if not (folder / "corpus.json").exists():
        held = claim.wait(folder.with_name(f"{corpus.id}.claim"), "prepare", work.stop)
        if held is None:
            return None
        with held:
            _prepare(work.plan, corpus, folder)
    _require_heldout(folder, work.plan["heldout_tokens"][corpus.id])
    return folder


def _require_heldout(folder: Path, asked: int) -> None:
    from orchestrator import tokens

    held_out = int(tokens.load(folder)["heldout"]["tokens"])
    if held_out < asked:
        raise GrowpointError(
            "the corpus holds out less text than the suite scores on",
            [("asked", f"{asked} tokens"), ("held out", f"{held_out} tokens")],
            f"suite.heldout_tokens={held_out // 2}, or raise data.heldout_share",
        )


def _prepare(plan: Mapping[str, Any], corpus: Corpus, folder: Path) -> None:
    from orchestrator import corpora

    where: TypeAdapter[Any] = TypeAdapter(Data)
    corpora.prepare(where.validate_python(plan["data"][corpus.id]), corpus, folder)
