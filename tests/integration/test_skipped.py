"""A batch that is no number is skipped once: everything else is as if it had not been there."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from orchestrator import checkpoint, phase
from orchestrator.loop import Diverged, Loop
from sweeps.data import Corpus
from sweeps.steps import BatchStep
from tests.integration.broken import break_losses
from tests.integration.test_train import BATCH, Place, after
from tests.integration.tiny_corpus import prepared

AT = 7 * BATCH


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    return prepared(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def place(tmp_path: Path, tokens: tuple[Corpus, Path]) -> Place:
    return Place(tmp_path, *tokens)


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Broken batches that were met."""
    return break_losses(monkeypatch, {AT})


def without(place: Place, batches: int = 12, at: int = AT, **more: Any) -> str:
    """Train a phase that is told from the start to skip a batch."""
    phase.skip(place.folder / "without.partial", at)
    assert place.train(place.do(batches), "without", **more).skipped_tokens_at == (at,)
    return "without"


def require_same(place: Place, one: str, other: str) -> None:
    assert place.weights(one) == place.weights(other)
    assert place.moments(one) == place.moments(other)
    assert place.lines(one) == place.lines(other)
    said = [json.loads((place.folder / name / phase.FILE).read_text()) for name in (one, other)]
    assert said[0]["skipped_tokens_at"] == said[1]["skipped_tokens_at"]


@pytest.mark.parametrize(("save_seconds", "log_every_steps"), [(0.0, 1), (60.0, 4), (60.0, 5)])
def test_a_batch_that_is_no_number_is_skipped(
    save_seconds: float, log_every_steps: int, place: Place, met: list[int]
) -> None:
    """Lines fall on the skipped step, on one between, or on every one."""
    more: dict[str, Any] = {"save_seconds": save_seconds, "log_every_steps": log_every_steps}
    came = place.train(place.do(12), "run", **more)
    assert (came.finished, came.tokens, met) == (True, 12 * BATCH, [AT])
    assert came.skipped_tokens_at == (AT,)
    assert came.to_dict()["skipped_tokens_at"] == (AT,)
    require_same(place, "run", without(place, log_every_steps=log_every_steps))
    steps = [line["step"] for line in place.lines("run")]
    assert steps == [n for n in range(1, 13) if n % log_every_steps == 0 or n == 12 if n != 8]
    assert met == [AT]


def test_a_skip_changes_something_and_no_skip_is_said(place: Place) -> None:
    assert place.train(place.do(12), "all").skipped_tokens_at == ()
    assert place.weights("all") != place.weights(without(place))
    assert json.loads((place.folder / "all" / phase.FILE).read_text())["skipped_tokens_at"] == []


@pytest.mark.parametrize("stops", [(6,), (9,), (4, 2), (4, 1, 1, 1, 1)], ids=str)
def test_stops_around_a_skip_give_the_same_bits(
    stops: tuple[int, ...], place: Place, met: list[int]
) -> None:
    for steps in stops:
        assert not place.train(place.do(12), "run", stop=after(steps)).finished
    assert place.train(place.do(12), "run").skipped_tokens_at == (AT,)
    assert met == [AT]
    require_same(place, "run", without(place))


def test_a_kill_after_the_rewinding_forgets_nothing(
    place: Place, met: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was saved since, and what was no number once need not be so again."""
    place.train(place.do(12), "run", stop=after(4))
    real = Loop.__init__

    def die(self: Loop, *arguments: Any, **more: Any) -> None:
        if met:
            raise KeyboardInterrupt
        real(self, *arguments, **more)

    monkeypatch.setattr(Loop, "__init__", die)
    with pytest.raises(KeyboardInterrupt):
        place.train(place.do(12), "run")
    monkeypatch.undo()
    came = place.train(place.do(12), "run")
    assert (came.resumed_tokens, came.skipped_tokens_at) == (4 * BATCH, (AT,))
    require_same(place, "run", without(place))


def test_a_longer_phase_knows_what_a_shorter_one_skipped(
    place: Place, met: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.train(place.do(9), "short")
    came = place.train(place.do(12), "long", resume=[place.folder / "short"])
    assert (came.resumed_tokens, came.skipped_tokens_at, met) == (9 * BATCH, (AT,), [AT])
    assert place.weights("long") == place.weights(without(place))
    # and has had its one skip
    break_losses(monkeypatch, {11 * BATCH})
    with pytest.raises(Diverged, match="step 12"):
        place.train(place.do(13), "again", resume=[place.folder / "short"])


def test_what_another_phase_was_spared_is_not_skipped(place: Place) -> None:
    place.train(place.do(9), "short")
    phase.skip(place.folder / "long.partial", AT)
    came = place.train(place.do(12), "long", resume=[place.folder / "short"])
    assert came.skipped_tokens_at == ()
    place.train(place.do(12), "all")
    assert place.weights("long") == place.weights("all")


def test_a_second_batch_that_is_no_number_ends_the_phase(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = break_losses(monkeypatch, {AT, 10 * BATCH})
    with pytest.raises(Diverged, match="training diverged at step 11") as error:
        place.train(place.do(12), "run", save_seconds=0.0)
    evidence = dict(error.value.evidence)
    assert evidence["tokens"] == str(10 * BATCH)
    assert evidence["loss"] == "nan"
    assert evidence["skipped before"] == f"the batch at {AT} tokens"
    assert met == [AT, 10 * BATCH]
    kept = place.folder / "run.partial" / f"at-{10 * BATCH}"
    checkpoint.verify(kept)
    assert not (place.folder / "run").exists()
    # launched again it fails at once, and goes on where the batch is a number after all
    with pytest.raises(Diverged, match="step 11"):
        place.train(place.do(12), "run")
    assert met[2:] == [10 * BATCH]
    monkeypatch.undo()
    place.train(place.do(12), "run")
    require_same(place, "run", without(place))


@pytest.mark.parametrize("at", [0, 11 * BATCH], ids=["first", "last"])
def test_the_first_batch_and_the_last(
    at: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert break_losses(monkeypatch, {at}) == []
    assert place.train(place.do(12), "run").tokens == 12 * BATCH
    require_same(place, "run", without(place, at=at))
    assert len(place.lines("run")) == 11


def test_numbers_that_are_fetched_late_rewind_as_far(
    place: Place, met: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: by then the broken weights have done more steps."""
    real = Loop.__init__

    def late(self: Loop, *arguments: Any, **more: Any) -> None:
        real(self, *arguments, **more)
        self._is_late = True

    monkeypatch.setattr(Loop, "__init__", late)
    came = place.train(place.do(12), "run", log_every_steps=4)
    assert (came.skipped_tokens_at, met) == ((AT,), [AT])
    monkeypatch.undo()
    require_same(place, "run", without(place, log_every_steps=4))


def test_batches_of_a_step_are_skipped_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"batch_steps": (BatchStep(until_tokens=2 * BATCH, sequences=1),)}
    break_losses(monkeypatch, {BATCH})
    came = place.train(place.do(6, **steps), "run")
    assert (came.skipped_tokens_at, came.tokens) == ((BATCH,), 6 * BATCH)
    said = [line["tokens"] for line in place.lines("run")]
    assert BATCH in said
    assert BATCH + BATCH // 4 not in said
    assert BATCH + BATCH // 2 in said
    assert load_file(place.folder / "run" / "optimizer.safetensors")
