"""Somebody else's checkpoints, from a folder and from a hub: listed, swept over, answered for."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Run
from tests.integration import tiny_series
from tests.integration.fake_hub import Hub, serve

STEPS = (5, 10, 20, 40)
REPO = "somebody/run1"
SWEEP = """
# @package _global_
defaults:
  - override /growth: depth
  - override /data: text
title: which checkpoint of run1 is the one to grow?
series: run1
points: {unit: steps, at: all}
budgets: {of: extra, unit: tokens, at: [512, 1024, 2048]}
data: {heldout_share: 0.2, tokenizer: {kind: source}}
recipe: {lr: 1e-3, batch_sequences: 8, sequence_tokens: 32}
suite: {heldout_tokens: 1024, sequence_tokens: 32}
"""
SERIES = {
    "tokens_per_step": tiny_series.BATCH * tiny_series.LENGTH,
    "schedule": {"kind": "wsd", "warmup_steps": 10, "decay_from_step": 20},
}


@pytest.fixture(scope="module")
def run1(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """A folder with step_5 to step_40."""
    root = tmp_path_factory.mktemp("ckpts")
    tiny_series.make(root, texts, STEPS)
    return root


def described(place: Path, texts: Path, **where: object) -> Path:
    """A conf/ tree with the sweep `grow_run1` and the series `run1` in it."""
    for group in ("sweep", "series"):
        (place / group).mkdir(parents=True)
    sweep = yaml.safe_load(SWEEP)
    sweep["data"]["paths"] = [str(texts)]
    text = "# @package _global_\n" + yaml.safe_dump(sweep)
    (place / "sweep" / "grow_run1.yaml").write_text(text)
    (place / "series" / "run1.yaml").write_text(yaml.safe_dump({**where, **SERIES}))
    return place


@pytest.fixture(scope="module")
def conf(run1: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words that lead to the sweep over the folder."""
    place = tmp_path_factory.mktemp("conf") / "mine"
    return ["--config-dir", str(described(place, texts, folder=f"{run1}/step_{{step}}"))]


@pytest.fixture(scope="module")
def launched(
    growpoint: Run, conf: list[str], run1: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A store in which the sweep has run to its end, and what planning it had said."""
    store, before = tmp_path_factory.mktemp("store"), _bytes(run1)
    said = growpoint("plan", "grow_run1", *conf, cwd=store).stdout
    growpoint("launch", "grow_run1", *conf, cwd=store)
    assert _bytes(run1) == before
    return store, said


def _bytes(root: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_listing_has_tokens_flops_multiples_and_phases(
    growpoint: Run, conf: list[str], run1: Path, tmp_path: Path
) -> None:
    found = json.loads(growpoint("series", "run1", *conf, "--json", cwd=tmp_path).stdout)
    rows = found["checkpoints"]
    assert [row["checkpoint"] for row in rows] == [f"step_{step}" for step in STEPS]
    assert [row["tokens"] for row in rows] == [256 * step for step in STEPS]
    assert [row["phase"] for row in rows] == ["warmup", "constant", "constant", "annealing"]
    assert all(row["here"] for row in rows)
    for row in rows:
        assert row["chinchilla"] == pytest.approx(row["sunk_flops"] / found["chinchilla_flops"])
    said = growpoint("series", "run1", *conf, cwd=tmp_path).stdout
    assert str(256 * 40) in said
    assert "annealing" in said
    bare = [f'folder="{run1}/step_{{step}}"', "tokens_per_step=256"]
    assert "olmoe-1b-7b-0924" in growpoint("series", cwd=tmp_path).stdout
    by_keys = json.loads(growpoint("series", *bare, "--json", cwd=tmp_path).stdout)
    assert [row["sunk_flops"] for row in by_keys["checkpoints"]] == [r["sunk_flops"] for r in rows]


def test_the_plan_shows_the_series_and_does_not_charge_it(launched: tuple[Path, str]) -> None:
    _, said = launched
    assert "series run1: 4 checkpoints, step_5 to step_40; sunk" in said
    assert "not charged" in said


def test_every_cell_is_answered_and_knows_its_checkpoint(
    launched: tuple[Path, str], growpoint: Run
) -> None:
    store, _ = launched
    rows = json.loads(growpoint("results", "grow_run1", "--json", cwd=store).stdout)
    rows = rows["cells"] if isinstance(rows, dict) else rows
    assert len(rows) == 3 * (4 + 4 + 1)
    for row in rows:
        step = row["sunk_tokens"] // 256
        assert row["checkpoint"] == (f"step_{step}" if step else "")
        assert row["series"] == ("run1" if step else "")
        assert row["annealed"] == (step == 40)


def test_no_trunk_was_trained_and_no_weights_were_copied(launched: tuple[Path, str]) -> None:
    store, _ = launched
    plan = json.loads((store / "plans" / "grow_run1" / "plan.json").read_text())
    assert len(plan["sources"]) == len(STEPS)
    for stage_id, source in plan["sources"].items():
        folder = store / "runs" / stage_id / "checkpoint"
        theirs = Path(source["place"]["path"]) / "model.safetensors"
        ours = folder / "model.safetensors"
        assert ours.is_symlink() or ours.stat().st_ino != theirs.stat().st_ino
        assert ours.read_bytes() == theirs.read_bytes()
    trained = [stage for stage in plan["stages"].values() if stage["kind"] == "train"]
    assert {plan["stages"][stage["after"]]["kind"] for stage in trained} == {"init", "grow"}
    assert all(stage["tokens"] <= 2048 for stage in trained)


def test_laws_and_the_answer_read_it_like_any_sweep(
    launched: tuple[Path, str], growpoint: Run
) -> None:
    store, _ = launched
    assert "step" not in growpoint("fit", "grow_run1", cwd=store).stderr
    answer = growpoint("recommend", "grow_run1", "--extra", "5e8", "--json", cwd=store)
    assert json.loads(answer.stdout)
    growpoint("plot", "grow_run1", "--figure", "loss_curves", cwd=store)
    curves = (store / "plans" / "grow_run1" / "figures" / "loss_curves.csv").read_text()
    assert len(curves.splitlines()) > 1


def test_a_source_that_changed_is_another_question(
    launched: tuple[Path, str], growpoint: Run, texts: Path, run1: Path, tmp_path: Path
) -> None:
    store, _ = launched
    other = Path(shutil.copytree(run1, tmp_path / "ckpts"))
    words = ["--config-dir", str(described(tmp_path / "c", texts, folder=f"{other}/step_{{step}}"))]
    # Elsewhere, but the same: all is done.
    again = json.loads(growpoint("plan", "grow_run1", *words, "--json", cwd=store).stdout)
    assert again["new"] == 0
    shutil.copy(other / "step_5" / "model.safetensors", other / "step_10")
    refused = growpoint("plan", "grow_run1", *words, cwd=store, code=2)
    assert "the same, byte for byte" in refused.stderr
    data = bytearray((other / "step_40" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "step_10" / "model.safetensors").write_bytes(bytes(data))
    refused = growpoint("launch", "grow_run1", *words, cwd=store, code=2)
    assert "was launched with another question" in refused.stderr


@pytest.fixture
def hub(run1: Path) -> Iterator[Hub]:
    """The same checkpoints as revisions of a repository, and its last one as `main`."""
    revisions = {f"step{step}-tokens{256 * step}": run1 / f"step_{step}" for step in STEPS}
    with serve(Hub({REPO: {**revisions, "main": run1 / "step_40"}})) as running:
        yield running


@pytest.fixture
def hub_words(texts: Path, tmp_path: Path) -> list[str]:
    """Words that lead to the sweep over the hub's repository."""
    where = {"repo": REPO, "revision": "step{step}-tokens{tokens}"}
    return ["--config-dir", str(described(tmp_path / "conf", texts, **where))]


def test_a_hub_is_listed_fetched_through_cuts_and_swept_over_offline(
    hub: Hub, hub_words: list[str], growpoint: Run, tmp_path: Path
) -> None:
    home = hub.environment(tmp_path / "hf")
    listed = growpoint("series", "run1", *hub_words, "--json", cwd=tmp_path, **home)
    rows = json.loads(listed.stdout)["checkpoints"]
    assert [(row["tokens"], row["here"]) for row in rows] == [(256 * s, False) for s in STEPS]
    hub.cut = 2
    fetching = [word for row in rows[:2] for word in ("--fetch", row["checkpoint"])]
    fetched = growpoint("series", "run1", *hub_words, *fetching, "--json", cwd=tmp_path, **home)
    assert hub.cut == 0
    assert [row["here"] for row in json.loads(fetched.stdout)["checkpoints"]] == [
        True,
        True,
        False,
        False,
    ]
    offline = {**home, "HF_HUB_OFFLINE": "1"}
    hub.asked.clear()
    over = ["points.at=[5,10]", "arms=[grow]", "budgets.at=[1024]", *hub_words]
    growpoint("launch", "grow_run1", *over, cwd=tmp_path, **offline)
    assert not hub.asked
    plan = json.loads((tmp_path / "plans" / "grow_run1" / "plan.json").read_text())
    assert {source["place"]["commit"] for source in plan["sources"].values()} == {
        hub.commit(REPO, f"step{step}-tokens{256 * step}") for step in (5, 10)
    }
    missing = growpoint(
        "launch",
        "grow_run1",
        "points.at=[5,20]",
        *hub_words,
        "name=more",
        cwd=tmp_path,
        code=2,
        **offline,
    )
    assert "the hub cannot be reached" in missing.stderr


def test_a_job_fetches_what_it_needs(
    hub: Hub, hub_words: list[str], growpoint: Run, tmp_path: Path
) -> None:
    home = hub.environment(tmp_path / "hf")
    over = ["points.at=[20]", "arms=[grow]", "budgets.at=[1024]", *hub_words]
    growpoint("launch", "grow_run1", *over, cwd=tmp_path, **home)
    fetched = [line for line in hub.asked if line.startswith("GET") and "safetensors" in line]
    assert len(fetched) == 1


def test_what_a_hub_refuses_is_said(
    hub: Hub, hub_words: list[str], growpoint: Run, tmp_path: Path
) -> None:
    home = hub.environment(tmp_path / "hf")

    def refused(*words: str) -> str:
        said = growpoint("series", *words, *hub_words, cwd=tmp_path, code=2, **home).stderr
        assert "Traceback" not in said
        return said

    hub.gated.add(REPO)
    assert "hf auth login" in refused("run1")
    hub.gated.clear()
    assert "there" in refused("run1", 'revision="iter{step}"')
    assert "does not have this" in refused("run1", "repo=somebody/nothing")
    assert "no revision `step6`" in refused("run1", "checkpoints=[{name: step6}]")
    assert "no checkpoint `stepp`" in refused("run1", "--fetch", "stepp")


@pytest.mark.parametrize("page", ["README.md", "docs/series.md"])
def test_the_shown_sweep_is_understood(
    page: str, growpoint: Run, run1: Path, texts: Path, tmp_path: Path
) -> None:
    text = (Path(__file__).parents[2] / page).read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for group in ("sweep", "series"):
        (tmp_path / "conf" / group).mkdir(parents=True)
    for block in blocks:
        if "\npoints:" in block:
            (tmp_path / "conf" / "sweep" / "shown.yaml").write_text(block)
        elif "folder:" in block:
            (tmp_path / "conf" / "series" / "run1.yaml").write_text(
                block.replace("/ckpts/run1", str(run1)).replace("step_96000", "step_40")
            )
    words = [
        f'series.folder="{run1}/step_{{step}}"',
        "points.at=[5,10,20,40]",
        f"data.paths=[{texts}]",
        "recipe.sequence_tokens=32",
        "suite.sequence_tokens=32",
        "--config-dir",
        str(tmp_path / "conf"),
    ]
    found = growpoint("plan", "shown", *words, "--json", cwd=tmp_path / "conf")
    assert len(json.loads(found.stdout)["cell_list"]) == 9
