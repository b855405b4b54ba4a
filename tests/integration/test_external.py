"""Commands that train: what they are told, how they are stopped, and what is refused of them."""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator import checkpoint, external, models
from sweeps.command import CommandRecipe
from sweeps.data import Corpus
from sweeps.errors import GrowpointError
from sweeps.stages import Train
from tests.integration.tiny_corpus import prepared
from tests.integration.tiny_olmoe import MODEL

BATCH = 64
# What a command needs to do to be believed.
COPY = 'cp "$GROWPOINT_SOURCE"/*.json "$GROWPOINT_SOURCE"/*.safetensors "$GROWPOINT_TARGET"'
SAY = 'echo "{{\\"tokens\\": $GROWPOINT_TOKENS, \\"loss\\": 2.5}}" >> "$GROWPOINT_METRICS"'


class Place:
    """A corpus, a fresh network, and a stage's folder; commands are Bash scripts."""

    def __init__(self, folder: Path, corpus: Corpus, tokens: Path, source: Path) -> None:
        self.run, self.corpus = folder / "runs" / "train-0123456789", corpus
        self.tokens, self.source = tokens, source
        self.run.mkdir(parents=True)

    def train(self, script: str, **changes: Any) -> dict[str, Any] | None:
        given = {key: changes.pop(key) for key in ("resume", "stop") if key in changes}
        ends = changes.pop("ends", True)
        fields = {"run": ["bash", "-c", script], "batch_sequences": 4, "sequence_tokens": 16}
        recipe = CommandRecipe.model_validate({**fields, **changes})
        do = Train(tokens=4 * BATCH, recipe=recipe.identity, corpus=self.corpus, ends=ends)
        return external.train(
            do,
            said=recipe.circumstance,
            source=self.source,
            run=self.run,
            corpus=self.tokens,
            **given,
        )

    @property
    def leftovers(self) -> list[str]:
        """What lies in the stage's folder besides the logs."""
        return sorted(path.name for path in self.run.iterdir() if path.name != "log")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path, Path]:
    folder = tmp_path_factory.mktemp("shared")
    corpus, tokens = prepared(folder)
    models.create(MODEL, 0, folder / "init")
    return corpus, tokens, folder / "init"


@pytest.fixture
def place(shared: tuple[Corpus, Path, Path], tmp_path: Path) -> Place:
    return Place(tmp_path, *shared)


def test_what_a_command_leaves_becomes_the_stages_checkpoint(place: Place) -> None:
    came = place.train(f"{COPY}; {SAY}; touch $GROWPOINT_WORK/mine")
    assert came is not None
    assert (came["trainer"], came["tokens"], came["loss"]) == ("command", 4 * BATCH, 2.5)
    assert came["train_seconds"] > 0
    assert place.leftovers == ["checkpoint", "metrics.jsonl"]
    folder = place.run / "checkpoint"
    checkpoint.verify(folder)
    assert {"manifest.json", "config.json", "tokenizer.json"} <= {p.name for p in folder.iterdir()}
    models.load(folder)


def test_what_a_command_is_told(place: Place) -> None:
    words = "{tokens} {seed} {stream} {sequence_tokens} {batch_sequences} {lr} {ends} {depth}"
    script = (
        f'{COPY}; {SAY}; echo {words} > "$GROWPOINT_TARGET/said.txt"; env >> {{target}}/said.txt'
    )
    environment = {"start": {"environment": {"NCCL_DEBUG": "WARN"}}}
    place.train(script, lr=1e-3, settings={"depth": 3, "name": "two words"}, **environment)
    first, *rest = (place.run / "checkpoint" / "said.txt").read_text().splitlines()
    assert first == "256 0 forward 16 4 0.001 1 3"
    told = dict(line.split("=", 1) for line in rest if "=" in line)
    assert told["NCCL_DEBUG"] == "WARN"
    assert told["GROWPOINT_CORPUS"] == str(place.tokens)
    assert json.loads(told["GROWPOINT_SETTINGS"]) == {"depth": 3, "name": "two words"}
    assert json.loads(told["GROWPOINT_SCHEDULE"]) == {"kind": "own"}
    assert told["GROWPOINT_STAGE"] == place.run.name
    assert told["GROWPOINT_RESUME"] == ""
    assert told["PWD"] == told["GROWPOINT_WORK"]


# What a command does wrong, and what is said of it.
WRONG = {
    "no metrics": (COPY, "has written no metrics", "GROWPOINT_METRICS"),
    "metrics that say nothing": (
        f'{COPY}; echo "step 1" >> "$GROWPOINT_METRICS"',
        "has written no metrics",
        "GROWPOINT_METRICS",
    ),
    "too few tokens": (
        f'{COPY}; echo "{{{{\\"tokens\\": 64, \\"loss\\": 2}}}}" >> "$GROWPOINT_METRICS"',
        "has not trained for as many tokens",
        "GROWPOINT_TOKENS",
    ),
    "a loss that is no number": (
        f'{COPY}; echo "{{{{\\"tokens\\": 256, \\"loss\\": NaN}}}}" >> "$GROWPOINT_METRICS"',
        "the last loss is not finite",
        "recipe.lr",
    ),
    "another status": ("echo the disk is on fire >&2; exit 3", "ended with status 3", "less "),
    "a signal": ("kill -9 $$", "ended with signal 9 (out of memory?)", "less "),
    "no checkpoint": (SAY, "left no whole checkpoint", "GROWPOINT_TARGET"),
    "half a checkpoint": (
        f'{COPY}; {SAY}; truncate -s -8 "$GROWPOINT_TARGET/model.safetensors"',
        "left no whole checkpoint: a file of the checkpoint is damaged",
        "GROWPOINT_TARGET",
    ),
    "a pickle": (
        f'{COPY}; {SAY}; touch "$GROWPOINT_TARGET/training_args.bin"',
        "may be a pickle",
        "GROWPOINT_WORK",
    ),
    "a pickle under another name": (
        f'{COPY}; {SAY}; printf "\\x80\\x04\\x95" > "$GROWPOINT_TARGET/notes.txt"',
        "may be a pickle",
        "GROWPOINT_WORK",
    ),
    "a link": (
        f'{COPY}; {SAY}; ln -s /etc/hostname "$GROWPOINT_TARGET/name"',
        "something else than plain files",
        "GROWPOINT_TARGET",
    ),
    "another network": (
        f'{COPY}; {SAY}; sed -i "s/\\"num_experts_per_tok\\": 2/\\"num_experts_per_tok\\": 1/" '
        '"$GROWPOINT_TARGET/config.json"',
        "left another network than it was given",
        "config.json",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_command_that_does_wrong_is_refused(name: str, place: Place) -> None:
    script, problem, hint = WRONG[name]
    with pytest.raises(GrowpointError) as caught:
        place.train(script)
    assert problem in caught.value.problem
    assert hint in caught.value.help
    assert not (place.run / "checkpoint").exists()
    assert not list(place.run.glob("target-*"))


def test_a_failure_shows_what_the_command_said_last(place: Place) -> None:
    with pytest.raises(GrowpointError) as caught:
        place.train("for n in $(seq 20); do echo line $n >&2; done; exit 1")
    says = [value for key, value in caught.value.evidence if key == "says"]
    assert says == [f"line {number}" for number in range(13, 21)]


@pytest.mark.parametrize("damage", ["shape", "nan", "lacks", "more"])
def test_weights_that_do_not_fit_are_refused(damage: str, place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(place.source, folder)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    if damage == "shape":
        weights[name] = torch.zeros(16, 8)
    elif damage == "nan":
        weights[name][0, 0] = torch.nan
    elif damage == "lacks":
        del weights[name]
    else:
        weights["model.layers.1.extra.weight"] = torch.zeros(2)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(GrowpointError, match=r"fit its model class|not finite"):
        place.train(f"cp {folder}/* $GROWPOINT_TARGET; {SAY}")
    assert not (place.run / "checkpoint").exists()


def test_a_command_that_is_not_there_is_named(place: Place) -> None:
    with pytest.raises(GrowpointError, match="program of the recipe's command is not there"):
        place.train("", run=["no-such-trainer"])
    with pytest.raises(GrowpointError, match="named relative to a folder"):
        place.train("", run=["./train.sh"])


def test_a_script_that_has_changed_since_it_was_planned_is_not_run(
    place: Place, tmp_path: Path
) -> None:
    script = tmp_path / "train.sh"
    script.write_text(f"{COPY}\n")
    recipe = CommandRecipe.model_validate({"run": ["bash", "{it}"], "files": {"it": str(script)}})
    script.write_text(f"touch {tmp_path}/ran\n")
    do = Train(tokens=2048, recipe=recipe.identity, corpus=place.corpus)
    said = recipe.circumstance
    with pytest.raises(GrowpointError, match="has changed since the sweep was planned"):
        external.train(do, said=said, source=place.source, run=place.run, corpus=place.tokens)
    assert not (tmp_path / "ran").exists()


def after(path: Path) -> threading.Event:
    """Set as soon as a file is there."""
    seen = threading.Event()

    def watch() -> None:
        while not path.exists():
            time.sleep(0.02)
        seen.set()

    threading.Thread(target=watch, daemon=True).start()
    return seen


# Saves when it is asked to stop, and goes on from there: half of the tokens in each attempt.
RESUMES = f"""
say() {{{{ echo "{{{{\\"tokens\\": $1, \\"loss\\": 3}}}}" >> "$GROWPOINT_METRICS"; }}}}
if [ -e half ]; then say 192; {SAY}; {COPY}; exit 0; fi
say 64; say 128; say 192
"""


@pytest.mark.parametrize("ending", ["exit 75", "exit 0", "exit 1"])
def test_a_command_that_is_stopped_goes_on_from_its_own_state(ending: str, place: Place) -> None:
    """Whatever it ends with once it was asked to stop, it is run again."""
    waits = f"trap 'touch half; {ending}' TERM; touch up; while :; do sleep .1; done"
    stop = after(place.run / "work" / "up")
    assert place.train(RESUMES + waits, stop=stop.is_set) is None
    assert external.reached(place.run) == 192
    assert place.leftovers == ["metrics.jsonl", "work"]
    came = place.train(RESUMES + waits)
    assert came is not None
    assert came["train_seconds"] is None  # two attempts, and it says nothing of time itself
    lines = (place.run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["tokens"] for line in lines] == [64, 128, 192, 256]
    assert place.leftovers == ["checkpoint", "metrics.jsonl"]


def test_a_command_that_stops_by_itself_is_run_again_while_it_comes_further(place: Place) -> None:
    assert place.train(f"{RESUMES} touch half; exit 75") is not None
    assert len(list(place.run.glob("checkpoint/*.safetensors"))) == 1


def test_a_command_that_stops_by_itself_and_comes_no_further_is_left(place: Place) -> None:
    assert place.train("echo again >> tries; exit 75") is None
    assert (place.run / "work" / "tries").read_text().split() == ["again"]


def test_a_deaf_command_is_killed_after_its_grace(place: Place) -> None:
    deaf = "trap : TERM; touch up; while :; do sleep .1; done"
    stop = after(place.run / "work" / "up")
    began = time.monotonic()
    assert place.train(deaf, stop=stop.is_set, start={"grace_seconds": 0.5}) is None
    assert time.monotonic() - began < 30
    assert not (place.run / "checkpoint").exists()


def test_one_that_finishes_while_it_is_asked_to_stop_is_done(place: Place) -> None:
    stop = after(place.run / "work" / "up")
    script = f"trap '{COPY}; {SAY}; exit 0' TERM; touch up; while :; do sleep .1; done"
    assert place.train(script, stop=stop.is_set) is not None
    assert (place.run / "checkpoint" / "manifest.json").is_file()


def test_a_longer_phase_is_told_where_a_shorter_one_was_left(place: Place, tmp_path: Path) -> None:
    (tmp_path / "shorter").mkdir()
    (tmp_path / "shorter" / "state").write_text("moments")
    pairs = [(tmp_path / "gone", 3 * BATCH), (tmp_path / "shorter", 2 * BATCH)]
    script = f"{COPY}; {SAY}; cp {{resume}}/state mine; echo {{start_tokens}} >> mine"
    constant = {"schedule": {"kind": "constant"}, "ends": False}
    came = place.train(script, resume=pairs, **constant)
    assert came is not None
    assert came["resumed_tokens"] == 2 * BATCH
    # Kept: a longer phase still may go on from it.
    assert (place.run / "work" / "mine").read_text() == f"moments{2 * BATCH}\n"


def test_a_checkpoint_that_was_published_before_a_kill_has_its_record(place: Place) -> None:
    place.train(f"{COPY}; {SAY}")
    recipe = CommandRecipe.model_validate({"run": ["true"], "batch_sequences": 4})
    do = Train(tokens=4 * BATCH, recipe=recipe, corpus=place.corpus, ends=True)
    assert external.finished(do, place.run)["loss"] == 2.5
