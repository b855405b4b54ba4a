"""The four verbs done: what each stage does to the checkpoint before it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from pydantic import TypeAdapter

from orchestrator import checkpoint, claim, trackers
from orchestrator.headers import DamagedError
from orchestrator.progress import WORK
from orchestrator.store import Store, beginnings, phases
from orchestrator.work import Work
from sweeps import benchmark, carried, cost
from sweeps.command import CommandRecipe
from sweeps.data import Corpus, Data
from sweeps.errors import GrowpointError
from sweeps.stages import Evaluate, Grow, Init, Stage, Train
from sweeps.suite import Suite

if TYPE_CHECKING:
    from orchestrator.loop import Log
    from orchestrator.moments import Carried


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
    target = work.store.checkpoint(stage.id)
    if do.adopted:
        return _adopt(work, stage, do)
    if not _sound(target):
        from orchestrator import models

        models.create(do.model, do.seed, target)
    return {"model": do.model.model_dump(mode="json")}


def _adopt(work: Work, stage: Stage, do: Init) -> dict[str, Any]:
    from orchestrator import adopt

    assert do.adopted is not None
    said = work.plan.get("sources", {}).get(stage.id)
    if said is None:
        raise GrowpointError(
            "the plan does not say where an adopted checkpoint lies",
            [("content", do.adopted.content)],
            f"growpoint launch {work.plan['sweep']}",
        )
    target = work.store.checkpoint(stage.id)
    if not _sound(target):
        adopt.adopt(do.adopted, said, target)
    return {"model": do.model.model_dump(mode="json"), "adopted": dict(said)}


def _grow(work: Work, stage: Stage, do: Grow) -> dict[str, Any]:
    from orchestrator import grow

    assert stage.after is not None
    target, source = work.store.checkpoint(stage.id), work.store.checkpoint(stage.after.id)
    if not _sound(target):
        # Growth reads the source once, and hashes it meanwhile.
        with _repaired(work, stage.after):
            grow.grow(source, target, do.operators, do.seed, how=grow.Asked(check=True))
    return {"model": stage.model.model_dump(mode="json")}


def _train(work: Work, stage: Stage, do: Train) -> dict[str, Any] | None:
    corpus = _corpus(work, do.corpus)
    if corpus is None:
        return None
    source, ranks = _source(work, stage), work.circumstance.ranks
    if isinstance(do.recipe, CommandRecipe):
        return _command(work, stage, do, do.recipe.program, corpus)
    with trackers.drawn(work.plan_folder, work.plan, stage) as draw, ranks.explained():
        ranks.announce(train=stage.id)
        return _phase(work, stage, do, source, corpus, draw)


def take_part(work: Work, stage: Stage) -> None:
    """Train a phase that the first rank of this job has announced, and made sure of its source."""
    assert isinstance(stage.do, Train)
    assert stage.after is not None
    source = work.store.checkpoint(stage.after.id)
    _phase(work, stage, stage.do, source, work.store.corpus(stage.do.corpus.id))


def _phase(
    work: Work, stage: Stage, do: Train, source: Path, corpus: Path, log: "Log | None" = None
) -> dict[str, Any] | None:
    from orchestrator import computing, health, memory, train

    run, ranks = work.store.run(stage.id), work.circumstance.ranks
    came = train.train(
        do,
        source=source,
        carried=_carried(work, stage),
        resume=_resume(work.store, stage) if ranks.is_first else [],
        target=work.store.checkpoint(stage.id),
        partial=run / "partial",
        stream_folder=corpus,
        metrics=run / "metrics.jsonl",
        log=log,
        trunk_tokens=cost.trained_tokens(stage.after) if stage.after else 0,
        stop=work.stop,
        save_seconds=work.circumstance.save_seconds,
        how=computing.Computing(
            device=train.device(),
            threads=work.circumstance.threads,
            micro_batch_tokens=work.circumstance.micro_batch_tokens or memory.MICRO_BATCH_TOKENS,
            activation_checkpointing=work.circumstance.activation_checkpointing,
            compile=work.circumstance.compile,
            liger=work.circumstance.liger,
        ),
        ranks=ranks,
    )
    if not came.finished or not ranks.is_first:
        return None
    return {**came.to_dict(), **health.after(work.store, stage)}


def _command(
    work: Work, stage: Stage, do: Train, program: str, corpus: Path
) -> dict[str, Any] | None:
    from orchestrator import external

    run, said = work.store.run(stage.id), work.plan.get("commands", {}).get(program)
    if said is None:
        raise GrowpointError(
            "the plan does not say how the recipe's command is started",
            [("plan", work.plan["sweep"]), ("program", program)],
            f"growpoint launch {work.plan['sweep']}",
        )
    if _sound(work.store.checkpoint(stage.id)):
        return external.finished(do, run)
    trunk_tokens = cost.trained_tokens(stage.after) if stage.after else 0
    shorter = beginnings(work.store, stage, phases(work.store))
    return external.train(
        do,
        said=said,
        source=_source(work, stage),
        run=run,
        corpus=corpus,
        resume=[
            (work.store.run(other.id) / WORK, cost.trained_tokens(other) - trunk_tokens)
            for other in shorter
        ],
        stop=work.stop,
        save_seconds=work.circumstance.save_seconds,
    )


def _carried(work: Work, stage: Stage) -> "Carried | None":
    """The optimizer state that a phase begins with, if it is not a fresh one."""
    from orchestrator import moments

    before = carried.source(stage)
    if before is None:
        return None
    growth = moments.Growth(before.model, carried.growths(stage))
    record = work.store.run(before.id) / "record.json"
    again = f"rm {record}, then: growpoint launch {work.plan['sweep']}"
    folder = work.store.checkpoint(before.id)
    return moments.Carried(folder, growth, carried.updates_before(stage), again)


def _evaluate(work: Work, stage: Stage, do: Evaluate) -> dict[str, Any] | None:
    from orchestrator import evaluate, train

    corpus = _corpus(work, do.corpus)
    if corpus is None:
        return None
    source, threads = _source(work, stage), work.circumstance.threads
    metrics = evaluate.evaluate(
        _suite(work, do.suite), do.corpus, source, corpus, device=train.device(), threads=threads
    )
    assert stage.after is not None
    with trackers.drawn(work.plan_folder, work.plan, stage.after, afterwards=True) as draw:
        found = {f"heldout_{name}": value["value"] for name, value in metrics.items()}
        draw({"tokens": getattr(stage.after.do, "tokens", 0), **found})
    return {"suite": {"name": do.suite.name, "version": do.suite.version}, "metrics": metrics}


def _suite(work: Work, suite: Suite) -> Suite:
    """The suite with the place of its tasks, which must be what was planned."""
    if suite.include_content is None:
        return suite
    place = work.plan.get("include_paths", {}).get(suite.include_content)
    again = f"growpoint launch {work.plan['sweep']}"
    now = benchmark.content_of(Path(place)) if place else "nothing"
    if now != suite.include_content:
        raise GrowpointError(
            "the folder of the suite's tasks is not what it was when it was planned",
            [("folder", place), ("planned", suite.include_content), ("now", now)],
            f"put the folder back, or {again} for an evaluation of what it holds now",
        )
    return suite.model_copy(update={"include_path": place})


def _source(work: Work, stage: Stage) -> Path:
    """The checkpoint a stage works on, verified. Raises GrowpointError naming a damaged file."""
    assert stage.after is not None
    folder = work.store.checkpoint(stage.after.id)
    with _repaired(work, stage.after):
        checkpoint.verify(folder)
    return folder


@contextmanager
def _repaired(work: Work, stage: Stage) -> Iterator[None]:
    """Says how a damaged checkpoint of the store is made again."""
    try:
        yield
    except DamagedError as error:
        # Its record says it is done; without the record it is made again.
        record = work.store.run(stage.id) / "record.json"
        again = f"rm {record}, then: growpoint launch {work.plan['sweep']}"
        raise GrowpointError(error.problem, error.evidence, again) from error


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
