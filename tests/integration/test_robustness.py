"""Scores at several lengths and under noise: what is disturbed, what is not."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import models
from orchestrator.evaluate import at_lengths, evaluate, next_token
from orchestrator.perturbed import Noise, disturb
from sweeps.data import Corpus
from sweeps.suite import Suite
from tests.integration.test_evaluate import VOCABULARY, Stub, table
from tests.integration.tiny_corpus import prepared
from tests.integration.tiny_olmoe import MODEL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CORPUS = Corpus(kind="text", fingerprint="x", heldout_share=0.2, seed=0, vocabulary=VOCABULARY)
TINY = MODEL.model_copy(update={"layers": 1, "vocabulary": VOCABULARY})


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    return prepared(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "init"
    models.create(TINY, 0, folder)
    return folder


def bigram() -> Stub:
    return Stub(table(np.random.default_rng(0).normal(0, 2, (VOCABULARY, VOCABULARY))))


# --- lengths -------------------------------------------------------------------------------------


def test_lengths_score_the_same_tokens(tokens: tuple[Corpus, Path]) -> None:
    """A model that looks back one token alone scores the same at every length."""
    suite = Suite(heldout_tokens=1024, sequence_tokens=32, lengths=(8, 32, 64))
    scores = at_lengths(bigram(), suite, tokens[1])
    assert set(scores) == {
        f"{name}@{length}" for name in ("loss", "next_token_accuracy") for length in (8, 32, 64)
    }
    for length in (8, 32):
        assert scores[f"loss@{length}"] == pytest.approx(scores["loss@64"], rel=1e-6)


def test_a_token_sees_its_own_sequence_alone(tokens: tuple[Corpus, Path]) -> None:
    """A model that tells the number of tokens before a label by its loss."""

    def counting(inputs: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*inputs.shape, VOCABULARY)
        logits[:, 0] = 9.0 * torch.nn.functional.one_hot(torch.tensor(0), VOCABULARY)
        return logits

    suite = Suite(heldout_tokens=1024, sequence_tokens=32, lengths=(2, 64))
    scores = at_lengths(Stub(counting), suite, tokens[1])
    firsts = {length: scores[f"loss@{length}"].value - math.log(VOCABULARY) for length in (2, 64)}
    assert firsts[2] > 20 * firsts[64] > 0


def test_no_lengths_no_scores(tokens: tuple[Corpus, Path]) -> None:
    assert at_lengths(bigram(), Suite(heldout_tokens=512, sequence_tokens=32), tokens[1]) == {}


# --- noise on tokens -----------------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_higher_shares_replace_more_of_the_same(low: float, high: float, seed: int) -> None:
    low, high = sorted((low, high))
    inputs = np.full((4, 50), VOCABULARY)  # a token that no noise is
    less, more = (Noise(share, seed, CORPUS).on(inputs, np.arange(4)) for share in (low, high))
    replaced = less != inputs
    assert (more[replaced] == less[replaced]).all()
    assert more[more != inputs].size >= replaced.sum()
    assert ((less < VOCABULARY) == replaced).all()


def test_as_many_are_replaced_as_asked_and_evenly() -> None:
    inputs = np.full((200, 100), VOCABULARY)
    noisy = Noise(0.3, 0, CORPUS).on(inputs, np.arange(200))
    drawn = noisy[noisy != inputs]
    assert drawn.size / inputs.size == pytest.approx(0.3, abs=0.015)
    counts = np.bincount(drawn, minlength=VOCABULARY)
    assert len(counts) == VOCABULARY
    assert counts.std() < 1.3 * math.sqrt(counts.mean())


def test_noise_belongs_to_a_place_in_the_text_and_a_seed() -> None:
    inputs = np.full((3, 20), VOCABULARY)
    noise = Noise(0.5, 7, CORPUS)
    whole = noise.on(inputs, np.array([4, 5, 6]))
    assert (noise.on(inputs[:1], np.array([5])) == whole[1]).all()
    assert (Noise(0.5, 8, CORPUS).on(inputs, np.array([4, 5, 6])) != whole).any()


def test_labels_stay_as_they_are(tokens: tuple[Corpus, Path]) -> None:
    """Of a model that says its input again, noise changes what it says and not what is right."""
    corpus, folder = tokens
    suite = Suite(heldout_tokens=4096, sequence_tokens=32)
    logits = torch.from_numpy(10.0 * np.eye(VOCABULARY))
    echo = Stub(lambda inputs: logits[inputs])
    plain = next_token(echo, suite, folder)
    assert next_token(echo, suite, folder, Noise(0.0, 0, corpus)) == plain
    flat = Stub(lambda inputs: torch.zeros(*inputs.shape, VOCABULARY))
    # Where no prediction depends on the input, none on the noise either.
    assert next_token(flat, suite, folder, Noise(1.0, 0, corpus)) == next_token(flat, suite, folder)
    # Random inputs are right as often as one of all tokens is.
    noisy = next_token(echo, suite, folder, Noise(1.0, 0, corpus))
    assert noisy["next_token_accuracy"].value == pytest.approx(1 / VOCABULARY, abs=0.004)


# --- noise on weights ----------------------------------------------------------------------------


def test_each_matrix_gets_its_share_of_its_own_deviation(checkpoint: Path) -> None:
    plain, noisy, again = (models.load(checkpoint) for _ in range(3))
    with torch.no_grad():
        for model in (plain, noisy, again):
            weight = next(w for w in model.parameters() if w.dim() == 3)
            weight[0] *= 5
    disturb(noisy, 0.1, 3)
    disturb(again, 0.1, 3)
    stacks = 0
    pairs = zip(plain.named_parameters(), noisy.parameters(), again.parameters(), strict=True)
    for (name, before), after, repeated in pairs:
        assert torch.equal(after, repeated), name
        if before.dim() < 2:
            assert torch.equal(before, after), name
            continue
        stacks += before.dim() == 3
        ratios = (after - before).detach().std(dim=(-2, -1)) / before.detach().std(dim=(-2, -1))
        assert ratios.numpy() == pytest.approx(np.full(ratios.shape, 0.1), rel=0.2), name
    assert stacks == 2


def test_a_checkpoint_is_scored_under_everything(
    checkpoint: Path, tokens: tuple[Corpus, Path]
) -> None:
    corpus, folder = tokens
    keys: dict[str, Any] = {"heldout_tokens": 512, "sequence_tokens": 32}
    suite = Suite(**keys, lengths=(16, 64), noise=(0.0, 0.2), weight_noise=(0.0, 0.5))
    scores = evaluate(suite, corpus, checkpoint, folder)
    places = ["", "@16", "@64", "@noise0", "@noise0.2", "@weight_noise0", "@weight_noise0.5"]
    names = ("loss", "next_token_accuracy")
    assert set(scores) == {f"{name}{place}" for name in names for place in places}
    for place in ("@noise0", "@weight_noise0"):
        assert scores[f"loss{place}"] == scores["loss"]
    assert scores["loss@noise0.2"] != scores["loss"] != scores["loss@weight_noise0.5"]
    plain = evaluate(Suite(**keys), corpus, checkpoint, folder)
    assert plain == {name: scores[name] for name in names}
