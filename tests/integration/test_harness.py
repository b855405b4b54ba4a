"""Tasks of lm-evaluation-harness: its scores are ours where both apply; none needs a network."""

import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from orchestrator import evaluate as scoring
from orchestrator import harness, models, readings, verbs
from orchestrator.store import Store
from orchestrator.work import Circumstance, Work
from sweeps import benchmark
from sweeps.data import Corpus
from sweeps.errors import GrowpointError
from sweeps.suite import Benchmark, Suite
from tests.integration.test_robustness import TINY
from tests.integration.tiny_corpus import WORDS, prepared

needs_harness = pytest.mark.skipif(
    not harness.is_installed(), reason="lm-evaluation-harness (growpoint[eval]) is not installed"
)
pytestmark = [
    # Those of the harness and of what it imports.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]

CHOICE = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: items.jsonl}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
{more}
"""
ROLLING = """\
task: words
dataset_path: json
dataset_kwargs: {data_files: {test: items.jsonl}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
GROUP = """\
group: several
task: [colours]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
"""
ITEMS = 24


def items() -> list[dict[str, Any]]:
    draw = random.Random(0)

    def phrase(words: int) -> str:
        return " ".join(draw.choices(WORDS, k=words))

    return [
        {"question": phrase(5), "choices": [phrase(k) for k in (1, 2, 4)], "answer": n % 3}
        for n in range(ITEMS)
    ]


@dataclass(frozen=True)
class Place:
    """A checkpoint without a tokenizer, a corpus with one, and a folder of tasks."""

    checkpoint: Path
    corpus: Corpus
    tokens: Path
    tasks: Path

    def suite(self, *tasks: Benchmark) -> Suite:
        keys = {"heldout_tokens": 512, "sequence_tokens": 32, "include_path": str(self.tasks)}
        return benchmark.known(Suite.model_validate({**keys, "tasks": tasks}))

    def scores(self, *tasks: Benchmark) -> dict[str, dict[str, Any]]:
        model = models.load(self.checkpoint).eval()
        return harness.scores(model, self.suite(*tasks), (self.checkpoint, self.tokens))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("harness")
    corpus, tokens = prepared(folder)
    models.create(TINY, 0, folder / "init")
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "items.jsonl").write_text("".join(json.dumps(each) + "\n" for each in items()))
    (tasks / "colours.yaml").write_text(CHOICE.format(name="colours", more="tag: tagged"))
    (tasks / "bare.yaml").write_text(CHOICE.format(name="bare", more="num_fewshot: 0"))
    (tasks / "words.yaml").write_text(ROLLING)
    far = CHOICE.format(name="far", more="").replace("path: json", "path: nobody/nothing")
    (tasks / "far.yaml").write_text(re.sub("dataset_kwargs.*", "", far))
    (tasks / "several.yaml").write_text(GROUP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder / "cache"))
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield Place(folder / "init", corpus, tokens, tasks)


def by_hand(place: Place) -> dict[str, float]:
    """Both accuracies, by log-likelihoods that our own scorer gives."""
    model, tokenizer = (
        models.load(place.checkpoint).eval(),
        AutoTokenizer.from_pretrained(place.tokens),
    )
    right = {"acc": 0, "acc_norm": 0}
    for item in items():
        sums = []
        for choice in item["choices"]:
            context = tokenizer(item["question"]).input_ids
            row = tokenizer(f"{item['question']} {choice}").input_ids
            rows = np.array([row])
            losses, _ = scoring._scored(model, rows, rows[:, :-1])
            sums.append(-losses[0, len(context) - 1 :].sum())
        lengths = [len(choice) for choice in item["choices"]]
        right["acc"] += int(np.argmax(sums)) == item["answer"]
        right["acc_norm"] += int(np.argmax(np.array(sums) / lengths)) == item["answer"]
    return {name: count / ITEMS for name, count in right.items()}


@needs_harness
def test_the_harness_and_our_own_scorer_agree(place: Place) -> None:
    found = place.scores(
        Benchmark(name="colours"),
        Benchmark(name="bare", metric="acc", limit=ITEMS // 2),
        Benchmark(name="words"),
        Benchmark(name="several"),
    )
    assert set(found) == {f"accuracy:{name}" for name in ("colours", "bare", "several", "mean")} | {
        "loss:words"
    }
    colours, expected = found["accuracy:colours"], by_hand(place)
    assert (colours["metric"], colours["items"], colours["shots"]) == ("acc_norm,none", ITEMS, 0)
    assert colours["value"] == pytest.approx(expected["acc_norm"])
    assert colours["all"]["acc,none"] == pytest.approx(expected["acc"])
    assert found["accuracy:several"]["value"] == pytest.approx(expected["acc"])
    share = colours["value"]
    assert colours["se"] == pytest.approx(math.sqrt(share * (1 - share) / (ITEMS - 1)))
    bare = found["accuracy:bare"]
    assert (bare["metric"], bare["items"]) == ("acc,none", ITEMS // 2)
    # An untrained network guesses among 300 tokens; a token is a few bytes.
    assert 0.5 < found["loss:words"]["value"] < math.log(300)
    three = [found[f"accuracy:{name}"] for name in ("colours", "bare", "several")]
    mean = found["accuracy:mean"]
    assert mean["value"] == pytest.approx(np.mean([each["value"] for each in three]))
    assert mean["se"] == pytest.approx(math.sqrt(sum(each["se"] ** 2 for each in three)) / 3)


@needs_harness
def test_a_suite_of_both_is_repeated_and_shows_examples(place: Place) -> None:
    suite = place.suite(Benchmark(name="colours", shots=2, limit=6))
    one, two = (
        scoring.evaluate(suite, place.corpus, place.checkpoint, place.tokens) for _ in range(2)
    )
    assert one == two
    assert set(one) == {"loss", "next_token_accuracy", "accuracy:colours", "accuracy:mean"}
    assert one["accuracy:colours"]["shots"] == 2
    assert json.loads(json.dumps(one)) == one


@needs_harness
@pytest.mark.parametrize(
    ("task", "says", "evidence"),
    [
        (Benchmark(name="colors"), "there is no task `colors`", "colours"),
        (Benchmark(name="tagged"), "`tagged` is a tag", "colours"),
        (Benchmark(name="colours", metric="f1"), "has no metric `f1`", "acc_norm,none"),
        (Benchmark(name="bare", shots=3), "allows no examples", "num_fewshot: 0"),
        (Benchmark(name="far"), "the task `far` cannot be loaded", "nobody/nothing"),
    ],
)
def test_mistakes_in_tasks_are_named(
    place: Place,
    task: Benchmark,
    says: str,
    evidence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A name that is not in the folder is looked for among the 14,000 files beside this one.
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(tmp_path / "manager.py"))
    with pytest.raises(GrowpointError, match=says) as caught:
        place.scores(task.model_copy(update={"limit": 2}))
    assert evidence in caught.value.text()


@needs_harness
def test_names_of_the_harness_are_known_without_importing_it() -> None:
    assert {"hellaswag", "arc_easy", "mmlu", "piqa"} <= harness._shipped()
    harness.require_known(Suite(tasks=(Benchmark(name="hellaswag"),)))


def test_without_the_harness_it_is_said_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "is_installed", lambda: False)
    harness.require_known(place.suite(Benchmark(name="unknown")))
    with pytest.raises(GrowpointError, match="is not installed") as caught:
        place.scores(Benchmark(name="colours"))
    assert "pip install 'growpoint[eval]'" in caught.value.help


def test_a_checkpoint_without_any_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(GrowpointError, match="has no tokenizer"):
        harness._tokenizer((tmp_path,))


def test_tasks_that_changed_since_they_were_planned_are_refused(
    place: Place, tmp_path: Path
) -> None:
    suite = place.suite(Benchmark(name="colours"))
    asked = suite.model_copy(update={"include_path": None})
    content = str(suite.include_content)

    def work(*paths: tuple[str, str]) -> Work:
        plan = {"sweep": "s", "include_paths": dict(paths)}
        return Work(Store(tmp_path), plan, Circumstance(), lambda: False)

    assert verbs._suite(work((content, str(place.tasks))), asked) == suite
    assert verbs._suite(work(), Suite()) == Suite()
    (tmp_path / "other").mkdir()
    for paths in ((), ((content, str(tmp_path / "other")),)):
        with pytest.raises(GrowpointError, match="not what it was when it was planned") as caught:
            verbs._suite(work(*paths), asked)
        assert content in caught.value.text()


@pytest.mark.parametrize(
    ("metric", "value", "error", "rising", "made"),
    [
        ("acc", 0.4, 0.1, True, ("accuracy", 0.4, 0.1)),
        ("bits_per_byte", 2.0, "N/A", False, ("loss", 2 * math.log(2), None)),
        ("word_perplexity", math.e, 0.5, False, ("loss", 1.0, 0.5 / math.e)),
        ("bleu", 25.0, 2.0, True, ("accuracy", 0.25, 0.02)),
        ("brier_score", 0.6, 0.1, False, ("loss", 0.6, 0.1)),
        ("exact_match", 1, 0, True, ("accuracy", 1.0, 0.0)),
    ],
)
def test_readings_are_fractions_or_nats(
    metric: str, value: float, error: object, rising: bool, made: tuple[Any, ...]
) -> None:
    found = readings.measured(metric, value, error, rising)
    assert found == (
        made[0],
        pytest.approx(made[1]),
        None if made[2] is None else pytest.approx(made[2]),
    )


def test_what_is_neither_is_refused() -> None:
    with pytest.raises(GrowpointError, match="neither a fraction nor a loss"):
        readings.measured("mcc", -0.2, None, True)


def test_metrics_are_preferred_in_order() -> None:
    row = {
        "name": "t",
        "acc,none": 0.5,
        "acc_norm,none": 0.4,
        "f1,strict": 0.3,
        "other,none": "N/A",
    }
    assert readings.chosen(Benchmark(name="t"), row) == "acc_norm,none"
    assert readings.chosen(Benchmark(name="t", metric="acc"), row) == "acc,none"
    assert readings.chosen(Benchmark(name="t", metric="f1,strict"), row) == "f1,strict"
    assert readings.chosen(Benchmark(name="t"), {"mine,none": 2.0}) == "mine,none"
    with pytest.raises(GrowpointError, match="gave no number"):
        readings.chosen(Benchmark(name="t"), {"acc,none": "N/A"})
