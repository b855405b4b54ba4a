"""A checkpoint grown twice by hand loads, generates, and tells how it was made."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.store import Store
from sweeps.stages import Stage, Train
from tests.e2e.conftest import Run

BRANCH = ["init", "train", "grow", "train"]
Launched = tuple[Path, "subprocess.CompletedProcess[str]"]


def trained(store: Path) -> list[Stage]:
    found = Store(store)
    paths = sorted((store / "runs").glob("train-*/checkpoint/config.json"))
    return [found.stage(path.parent.parent.name) for path in paths]


def _verbs(stage: Stage) -> list[str]:
    return [each.do.kind for each in stage.lineage]


def _tokens(stage: Stage) -> int:
    assert isinstance(stage.do, Train)
    return stage.do.tokens


@pytest.fixture(scope="module")
def branch(launched: Launched) -> Stage:
    """What was trained after the latest growth in depth."""
    found = [each for each in trained(launched[0]) if _verbs(each) == BRANCH]
    deep = [each for each in found if each.model.layers == 4]
    return max(deep, key=lambda each: _tokens(list(each.lineage)[1]))


@pytest.fixture(scope="module")
def trunk(branch: Stage) -> Stage:
    """The checkpoint that grew."""
    return list(branch.lineage)[1]


@pytest.fixture(scope="module")
def folder(
    launched: Launched, trunk: Stage, growpoint: Run, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The trunk's checkpoint, grown by depth x2, and that again by width x2."""
    folder = tmp_path_factory.mktemp("grown")
    source = launched[0] / "runs" / trunk.id
    growpoint("grow", str(source), "--to", "deep", "growth=depth", cwd=folder)
    growpoint("grow", "deep", "--to", "both", "growth=width", "--seed", "5", cwd=folder)
    return folder


def python(program: str, cwd: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_of_the_card_runs(folder: Path, environment: dict[str, str]) -> None:
    """Each card's code, as it stands but for the folder's name, loads the model and generates."""
    for name in ("deep", "both"):
        card = (folder / name / "README.md").read_text()
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert "generate" in code
        said = python(code.replace("FOLDER", str(folder / name)), folder, environment)
        assert said.startswith("The quick brown fox")
        assert len(said.strip()) > len("The quick brown fox")


def test_it_generates(folder: Path, environment: dict[str, str]) -> None:
    program = """
from transformers import AutoModelForCausalLM
import torch
model, said = AutoModelForCausalLM.from_pretrained("both", output_loading_info=True)
assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), said
tokens = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=12, min_new_tokens=12)
print(model.config.num_hidden_layers, model.config.num_experts, model.config.num_experts_per_tok,
      tokens.shape[1])
"""
    assert python(program, folder, environment).split() == ["4", "16", "4", "15"]


def test_the_card_tells_the_whole_lineage(folder: Path, trunk: Stage) -> None:
    card = (folder / "both/README.md").read_text()
    assert "    0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7\n" in card
    assert "       0 0 1 1\n" in card
    assert "noise of\n0.01 times the standard deviation of their tensor (seed 5)" in card
    assert re.search(rf"1\. `{trunk.id}/checkpoint` \(sha256 `[0-9a-f]{{64}}`\), seed 0", card)
    assert re.search(r"2\. `deep` \(sha256 `[0-9a-f]{64}`\), seed 5", card)
    assert max(map(len, card.splitlines())) <= 200


def test_inspecting_shows_facts_norms_and_files(folder: Path, trunk: Stage, growpoint: Run) -> None:
    said = growpoint("inspect", "deep", "both", "--to", "norms", cwd=folder).stdout
    assert "both   olmoe, 4 layers, 16 experts, top-4" in said
    assert "  layers    0 0 1 1\n" in said
    assert "  experts   0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7\n" in said
    assert f"depth x2, seed 0, from {trunk.id}/checkpoint (sha256 " in said
    names = {path.name for path in (folder / "norms").iterdir()}
    assert names == {f"norm_profile.{kind}" for kind in ("csv", "pdf", "svg", "png")}
    with (folder / "norms/norm_profile.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["checkpoint"] for row in rows] == ["deep"] * 4 + ["both"] * 4
    assert [row["source_layer"] for row in rows[4:]] == ["0", "0", "1", "1"]
    assert [row["copy"] for row in rows[4:]] == ["False", "True"] * 2
    # Noise of a hundredth adds a ten-thousandth to squares.
    for one, other in zip(rows[:4], rows[4:], strict=True):
        assert float(other["experts"]) == pytest.approx(float(one["experts"]), rel=1e-3)
        assert float(other["attention"]) == float(one["attention"])


def test_stages_are_found_by_their_ids(launched: Launched, trunk: Stage, growpoint: Run) -> None:
    short = trunk.id.partition("-")[2][:6]
    words = ("inspect", short, f"store={launched[0]}", "--json", "--to", "stages")
    told = json.loads(growpoint(*words, cwd=launched[0]).stdout)
    (each,) = told["checkpoints"]
    assert each["name"] == trunk.id
    assert each["lineage"] == []
    assert each["parameters"] > each["active_parameters"] > 0
    assert [row["layer"] for row in each["norms"]] == [0, 1]
    assert all((launched[0] / path).is_file() for path in told["files"])


def test_updates_of_a_trunk_and_of_what_grew_from_it(
    launched: Launched, trunk: Stage, branch: Stage, growpoint: Run
) -> None:
    store = launched[0]
    assert branch.after
    earlier = [each for each in trained(store) if each.after == trunk.after and each != trunk]
    start = min(earlier, key=_tokens)
    words = ["--updates", start.id, trunk.id, "--updates", branch.after.id, branch.id]
    said = growpoint("inspect", *words, "--to", "u", "--json", cwd=store).stdout
    told = json.loads(said)
    kinds = {(row["group"], row["of"]) for row in told["updates"]}
    for group in ("experts", "attention", "router", "norms", "all"):
        assert {(group, "original"), (group, "copy"), (group, "all")} <= kinds
    assert {of for group, of in kinds if group == "embedding"} == {"original", "all"}
    cosines = [row["update_cosine"] for row in told["updates"]]
    assert all(-0.95 < cosine < 0.95 for cosine in cosines)
    with (store / "u/updates.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == "attention"]
    pairs = [(int(row["layer"]), int(row["source_layer"]), row["copy"]) for row in rows]
    assert sorted(pairs) == [(0, 0, "False"), (1, 0, "True"), (2, 1, "False"), (3, 1, "True")]


def test_nothing_is_written_into_a_checkpoint(folder: Path, growpoint: Run) -> None:
    before = sorted((folder / "deep").iterdir())
    for target in (".", "inspect", "../deep/x/y"):
        said = growpoint("inspect", ".", "--to", target, cwd=folder / "deep", code=2).stderr
        assert said.startswith("error: nothing is written into a checkpoint\n")
    said = growpoint("inspect", ".", cwd=folder / "deep", code=2).stderr
    assert said.splitlines()[-1].split() == ["help", "--to", f"{folder.resolve()}/inspect"]
    assert sorted((folder / "deep").iterdir()) == before


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "no checkpoint is named"),
        (["--updates", "deep", "deep"], "updates are compared between two lineages"),
        (["gone"], "no stage begins with `gone`"),
        (["some/where"], "some/where has no checkpoint"),
        (["deep", "--updates", "deep"], "argument --updates: expected 2 arguments"),
    ],
)
def test_mistakes_are_said(folder: Path, growpoint: Run, words: list[str], problem: str) -> None:
    said = growpoint("inspect", *words, cwd=folder, code=2).stderr
    assert said.splitlines()[0] == f"error: {problem}"
    assert not (folder / "inspect").exists()
