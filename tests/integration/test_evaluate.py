"""Scores mean what they say: checked against models whose answers are known, and by simulation."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orchestrator import evaluate as scoring
from orchestrator import models
from orchestrator.choices import document_ends, items
from orchestrator.corpora import prepare
from orchestrator.evaluate import choice_accuracy, clustered, evaluate, next_token
from orchestrator.tokens import Tape, opened
from sweeps.data import Corpus, Tokens, corpus
from sweeps.errors import GrowpointError
from sweeps.suite import Choices, Suite
from tests.integration.tiny_corpus import prepared
from tests.integration.tiny_olmoe import MODEL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

VOCABULARY = 300
CHOICES = Choices(items=40, context_tokens=12, continuation_tokens=6)
SUITE = Suite(heldout_tokens=512, sequence_tokens=32)


class Stub(nn.Module):
    """A model whose logits are a function of its input tokens."""

    def __init__(self, answer: Callable[[Tensor], Tensor], vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(vocab_size=vocabulary)
        self.answer = answer

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.answer(input_ids))


def uniform(inputs: Tensor) -> Tensor:
    return torch.zeros(*inputs.shape, VOCABULARY)


def table(rows: np.ndarray[Any, Any]) -> Callable[[Tensor], Tensor]:
    """Logits that are always the same function of the last token."""
    logits = torch.from_numpy(rows)
    return lambda inputs: logits[inputs]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    return prepared(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def folder(tokens: tuple[Corpus, Path]) -> Path:
    return tokens[1]


def oracle(folder: Path) -> Callable[[Tensor], Tensor]:
    """Knows the held-out text by heart: sure of the token that follows in it, if any does."""
    text = opened(folder, "heldout")[0].tolist()
    size = CHOICES.context_tokens
    known: dict[tuple[int, ...], set[int]] = {}
    for place in range(size, len(text)):
        known.setdefault(tuple(text[place - size : place]), set()).add(text[place])

    def answer(inputs: Tensor) -> Tensor:
        logits = torch.zeros(*inputs.shape, VOCABULARY)
        for row, line in enumerate(inputs.tolist()):
            for place in range(size, len(line) + 1):
                for token in known.get(tuple(line[place - size : place]), ()):
                    logits[row, place - 1, token] = 30.0
        return logits

    return answer


# --- loss and next-token accuracy ----------------------------------------------------------------


def test_a_uniform_model_knows_nothing(folder: Path) -> None:
    scores = next_token(Stub(uniform), SUITE, folder)
    assert scores["loss"].value == pytest.approx(math.log(VOCABULARY), rel=1e-6)
    assert scores["loss"].se == pytest.approx(0, abs=1e-6)


def test_loss_and_accuracy_are_those_worked_out_by_hand(folder: Path) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (VOCABULARY, VOCABULARY))
    scores = next_token(Stub(table(logits)), SUITE, folder)
    text = opened(folder, "heldout")[0].astype(int)
    sequences, count = (len(text) - 1) // 32, 512 // 32
    losses, hits = [], []
    for number in range(count):
        start = number * sequences // count * 32
        for place in range(start, start + 32):
            row, label = logits[text[place]], text[place + 1]
            losses.append(math.log(np.exp(row).sum()) - row[label])
            hits.append(row.argmax() == label)
    assert scores["loss"].value == pytest.approx(np.mean(losses), rel=1e-5)
    assert scores["next_token_accuracy"].value == pytest.approx(np.mean(hits))


def test_memory_does_not_change_scores(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub(table(np.random.default_rng(0).normal(0, 2, (VOCABULARY, VOCABULARY))))
    whole = next_token(stub, SUITE, folder)
    monkeypatch.setattr(scoring, "LOGITS", 1)
    for name, score in next_token(stub, SUITE, folder).items():
        assert score == pytest.approx(whole[name], rel=1e-9)


def test_tokens_are_grouped_by_the_document_they_are_of(folder: Path) -> None:
    tape, ends = Tape(opened(folder, "heldout"), 32), document_ends(folder)
    assert ends is not None
    groups = scoring._groups(folder, tape, np.arange(tape.sequences))
    flat = groups.ravel()
    for label, document in enumerate(flat.tolist(), 1):
        assert label < ends[document]
        assert document == 0 or label >= ends[document - 1]


def test_too_little_heldout_text(folder: Path) -> None:
    with pytest.raises(GrowpointError, match="shorter than the suite asks") as error:
        next_token(Stub(uniform), Suite(heldout_tokens=10**6, sequence_tokens=32), folder)
    enough = int(error.value.help.split(",")[0].removeprefix("suite.heldout_tokens="))
    assert next_token(Stub(uniform), Suite(heldout_tokens=enough, sequence_tokens=32), folder)


# --- standard errors -----------------------------------------------------------------------------


def test_standard_errors_are_as_wide_as_the_spread() -> None:
    """400 corpora of 30 documents of unequal length, whose tokens share a document's level."""
    draw = np.random.default_rng(1)
    means, errors, naive = [], [], []
    for _ in range(400):
        sizes = draw.integers(20, 200, 30)
        groups = np.repeat(np.arange(30), sizes)
        values = draw.normal(0, 1, 30)[groups] + draw.normal(0, 2, len(groups))
        score = clustered(values, groups)
        means.append(score.value)
        errors.append(score.se)
        naive.append(values.std() / math.sqrt(len(values)))
    spread = np.std(means)
    assert np.mean(errors) == pytest.approx(spread, rel=0.1)
    assert np.mean(naive) < 0.5 * spread
    covered = np.mean(np.abs(means) < 1.96 * np.array(errors))
    assert 0.9 < covered < 0.98


def test_single_tokens_as_groups_give_the_plain_standard_error() -> None:
    values = np.random.default_rng(2).normal(0, 1, 500)
    score = clustered(values, np.arange(500))
    assert score.value == pytest.approx(values.mean())
    assert score.se == pytest.approx(values.std(ddof=1) / math.sqrt(500))


def test_one_document_falls_back_to_its_parts() -> None:
    values = np.random.default_rng(2).normal(0, 1, 500)
    assert clustered(values, np.zeros(500, dtype=int)).se > 0


# --- multiple choice -----------------------------------------------------------------------------


def test_an_oracle_is_always_right(folder: Path) -> None:
    score = choice_accuracy(Stub(oracle(folder)), CHOICES, folder)
    assert score == (1.0, 0.0)


def test_a_uniform_model_guesses(folder: Path) -> None:
    many = CHOICES.model_copy(update={"items": 200})
    accuracies = [
        choice_accuracy(Stub(uniform), many.model_copy(update={"seed": seed}), folder)
        for seed in range(10)
    ]
    assert np.mean([score.value for score in accuracies]) == pytest.approx(0.25, abs=0.035)
    assert all(0.015 < score.se < 0.06 for score in accuracies)


def test_a_model_against_the_truth_is_always_wrong(folder: Path) -> None:
    knows = oracle(folder)
    assert choice_accuracy(Stub(lambda inputs: -knows(inputs)), CHOICES, folder).value == 0.0


def test_items_are_what_they_claim(folder: Path) -> None:
    text, ends = opened(folder, "heldout")[0].tolist(), document_ends(folder)
    assert ends is not None
    begins = [0, *ends[:-1]]
    documents = [text[a:b] for a, b in zip(begins, ends, strict=True)]

    def holds(document: list[int], part: list[int]) -> bool:
        return any(document[i : i + len(part)] == part for i in range(len(document)))

    for item in items(CHOICES, folder):
        rows, cut = item.rows.tolist(), CHOICES.context_tokens
        assert holds(documents[item.document], rows[item.answer])
        options = [tuple(row[cut:]) for row in rows]
        assert len(set(options)) == CHOICES.options
        assert {tuple(row[:cut]) for row in rows} == {tuple(rows[0][:cut])}
        for number, option in enumerate(options):
            if number != item.answer:
                others = [d for n, d in enumerate(documents) if n != item.document]
                assert any(holds(other, list(option)) for other in others)


def test_answers_stand_anywhere_and_items_are_distinct(folder: Path) -> None:
    many = items(CHOICES.model_copy(update={"items": 200}), folder)
    counts = np.bincount([item.answer for item in many], minlength=4)
    assert counts.min() > 30
    assert len({item.rows[item.answer].tobytes() for item in many}) > 190


def test_items_depend_on_the_seed_alone(folder: Path) -> None:
    first, again = items(CHOICES, folder), items(CHOICES, folder)
    other = items(CHOICES.model_copy(update={"seed": 1}), folder)
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.rows, b.rows) for a, b in zip(first, other, strict=True))


def test_too_many_items(folder: Path) -> None:
    with pytest.raises(GrowpointError, match="too short for its multiple-choice") as error:
        items(CHOICES.model_copy(update={"items": 10**6}), folder)
    possible = int(error.value.help.split(",")[0].removeprefix("suite.choices.items="))
    assert len(items(CHOICES.model_copy(update={"items": possible}), folder)) == possible


def repeating(folder: Path, count: int) -> Path:
    """Token files that repeat one pattern."""
    np.tile(np.arange(18, dtype="<u2"), count).tofile(folder / "same.bin")
    data = Tokens(paths=(str(folder / "same.bin"),), vocabulary=VOCABULARY, heldout_share=0.5)
    made = corpus(data)
    prepare(data, made, folder / made.id)
    return folder / made.id


def test_text_that_repeats_itself_has_no_distractors(tmp_path: Path) -> None:
    with pytest.raises(GrowpointError, match="repeat each other too much"):
        items(CHOICES, repeating(tmp_path, 100))


def test_token_files_are_scored_too(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    draw.integers(0, VOCABULARY, 20000).astype("<u2").tofile(tmp_path / "a.bin")
    data = Tokens(paths=(str(tmp_path / "a.bin"),), vocabulary=VOCABULARY, heldout_share=0.5)
    made = corpus(data)
    prepare(data, made, tmp_path / made.id)
    logits = draw.normal(0, 1, (VOCABULARY, VOCABULARY))
    scores = next_token(Stub(table(logits)), SUITE, tmp_path / made.id)
    # Independent tokens: documents or not, the plain standard error is right.
    assert scores["loss"].se == pytest.approx(1.0 / math.sqrt(512), rel=0.6)
    assert choice_accuracy(Stub(table(logits)), CHOICES, tmp_path / made.id).value < 0.6


# --- a whole checkpoint --------------------------------------------------------------------------


def test_a_checkpoint_is_scored(tmp_path: Path, tokens: tuple[Corpus, Path]) -> None:
    model = MODEL.model_copy(update={"layers": 1, "vocabulary": VOCABULARY})
    models.create(model, 0, tmp_path / "init")
    suite = SUITE.model_copy(update={"choices": CHOICES})
    scores = evaluate(suite, tokens[0], tmp_path / "init", tokens[1])
    assert set(scores) == {"loss", "next_token_accuracy", "choice_accuracy"}
    assert scores["loss"]["value"] == pytest.approx(math.log(VOCABULARY), abs=0.2)
    assert scores == evaluate(suite, tokens[0], tmp_path / "init", tokens[1])
    assert set(evaluate(SUITE, tokens[0], tmp_path / "init", tokens[1])) == {
        "loss",
        "next_token_accuracy",
    }
