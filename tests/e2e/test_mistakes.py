"""Bad input: one clear error, exit code 2, no traceback, nothing written."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Run

Launched = tuple[Path, "subprocess.CompletedProcess[str]"]
FORM = re.compile(r"\Aerror: [^A-Z].*[^.\n]\n(  \S.*\n)*\Z")


def complaint(said: "subprocess.CompletedProcess[str]") -> str:
    """The error, which must have the form of all errors."""
    assert FORM.match(said.stderr), said.stderr
    assert "Traceback" not in said.stdout + said.stderr
    return said.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pln", "demo"], "no command `pln`"),
        (["plan", "demmo"], "no sweep `demmo`"),
        (["plan"], "are required: sweep\n"),
        (["plan", "demo.yaml"], "growpoint plan demo\n"),
        (["plan", "demo", "--config-dir", "nowhere"], "no configuration folder"),
        (["plan", "demo", "seeds=0,1"], "seeds=[0,1]"),
        (["launch", "demo", "seeds=[0,0]"], "seeds names 0 twice"),
        (["launch", "demo", "points.at=[51200,51300]"], "points.at.0 and points.at.1 are the same"),
        (["launch", "demo", "exclude=[{growth: [typo]}]"], "names 'typo'"),
        (["launch", "demo", "growth=[]", "arms=[grow]"], "growth is empty"),
        (["recommend", "demo", "--extra", "abc"], "abc is not an amount of FLOPs"),
        (["grow", "x", "--to", "y", "--seed", "inf"], "inf is not a whole number"),
        (["grow", "x", "--to", "y", "--seed", "1.5"], "1.5 is not a whole number"),
        (["plan", "demo", "--jsn"], "no option --jsn"),
        (["plan", "demo", "growht.0.factor=3"], "no key `growht`"),
        (["launch", "demo", "growth.0.order=interpoze"], "cannot be 'interpoze'"),
        (["launch", "demo", "+a=1"], "does not set a key"),
        (["launch", "demo", "recipe.lr=nan"], "recipe.lr cannot be nan"),
        (["launch", "demo", "seeds=[-1]"], "seeds.0 cannot be -1"),
        (["launch", "demo", "model.family=olmo"], "no family `olmo`"),
        (["launch", "demo", "data=text", "data.paths=[/nowhere/*.txt]"], "no file was found"),
        (
            ["launch", "demo", "budgets={of: total, unit: tokens, at: [100000]}"],
            "smaller than what is already spent",
        ),
        (["launch", "demo", "budgets.at=[1]"], "less than one batch"),
        (["launch", "demo", "branch.lr_ratio=99", "recipe.lr=1"], "branches is too high"),
        (["launch", "demo", "exclude=[{seed: [0]}]"], "has no cells"),
        (["launch", "demo", "cluster=slurm"], "cluster.partition is not set"),
        (["recommend", "demo", "--extra", "-1"], "--extra"),
        (["recommend", "demo", "--extra", "lots"], "--extra"),
        (["grow", "nowhere", "--to", "x"], "nowhere"),
        (["grow", "."], "--to"),
    ],
)
def test_nothing_is_written(words: list[str], says: str, growpoint: Run, tmp_path: Path) -> None:
    assert says in complaint(growpoint(*words, cwd=tmp_path, code=2))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written(growpoint: Run, small: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = growpoint("launch", "demo", *small, "store=file", cwd=tmp_path, code=2)
    assert "the store cannot be written" in said.stderr
    assert "Traceback" not in said.stderr
    assert (tmp_path / "file").read_text() == ""


def test_a_store_of_a_newer_version(growpoint: Run, small: list[str], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "growpoint.json").write_text(json.dumps({"version": 99}))
    for command in ("plan", "launch"):
        said = growpoint(command, "demo", *small, cwd=tmp_path, code=2)
        assert "newer growpoint" in complaint(said)
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "growpoint.json"]


def test_nothing_finished_yet(launched: Launched, growpoint: Run, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(launched[0], store)
    for record in store.glob("runs/evaluate-*/record.json"):
        record.unlink()
    for command in ("results", "fit", "plot", "report", "recommend"):
        assert "finished" in complaint(growpoint(command, "demo", cwd=store, code=2))


def test_a_corpus_shorter_than_a_batch(growpoint: Run, small: list[str], tmp_path: Path) -> None:
    for name in "abcdefghij":
        (tmp_path / f"{name}.txt").write_text(f"a few words of {name}. " * 5)
    words = [word for word in small if not word.startswith("data.paths")]
    asked = [*words, f"data.paths=[{tmp_path}/*.txt]", "data.heldout_share=0.3", "store=store"]
    said = growpoint("launch", "demo", *asked, cwd=tmp_path, code=1)
    assert "Traceback" not in said.stdout + said.stderr
    status = growpoint("status", "demo", "store=store", "--json", cwd=tmp_path, code=1)
    failed = [s for s in json.loads(status.stdout)["unfinished"] if s["state"] == "failed"]
    assert failed
    assert all("corpus" in stage["error"] for stage in failed)


def damaged(weights: Path, damage: str) -> None:
    content = bytearray(weights.read_bytes())
    weights.unlink()
    if damage != "remove":
        content[-1] ^= 1
        weights.write_bytes(content if damage == "flip" else content[:-100])


def test_damaged_checkpoints_are_named(
    launched: Launched, growpoint: Run, small: list[str], tmp_path: Path
) -> None:
    """Three checkpoints are broken, each in its own way; the scores that need them run again."""
    store = tmp_path / "store"
    shutil.copytree(launched[0], store)
    plan = json.loads((store / "plans/demo/plan.json").read_text())
    grown = [cell for cell in plan["cells"] if cell["arm"] == "grow"]
    broken = dict(zip(("flip", "cut", "remove"), grown[-3:], strict=True))
    for damage, cell in broken.items():
        (store / "runs" / cell["stage"] / "record.json").unlink()
        damaged(store / "runs" / cell["trained"] / "checkpoint" / "model.safetensors", damage)
    growpoint("launch", "demo", *small, cwd=store, code=1)
    status = growpoint("status", "demo", "--json", cwd=store, code=1)
    failed = [s for s in json.loads(status.stdout)["unfinished"] if s["state"] == "failed"]
    assert {stage["stage"] for stage in failed} == {cell["stage"] for cell in broken.values()}
    for stage in failed:
        assert "model.safetensors" in stage["error"]
        # The way out that the error names works.
        line = next(one for one in stage["error"].splitlines() if one.strip().startswith("help"))
        remedy = shlex.split(line.partition("help")[2].partition(",")[0])
        subprocess.run(remedy, cwd=store, check=True)
    growpoint("launch", "demo", *small, cwd=store)
    shown = json.loads(growpoint("status", "demo", "--json", cwd=store).stdout)
    assert shown["complete"]


def test_a_diverging_stage_fails_alone(growpoint: Run, small: list[str], tmp_path: Path) -> None:
    asked = ["points.at=[0]", "exclude=[]", "growth=[{kind: depth}]", "budgets.at=[2e10]"]
    wild = ["recipe.lr=10", "recipe.weight_decay=1e9", "recipe.warmup_tokens=0"]
    said = growpoint("launch", "demo", *small, *asked, *wild, cwd=tmp_path, code=1)
    status = growpoint("status", "demo", "--json", cwd=tmp_path, code=1)
    found = json.loads(status.stdout)
    failed = [stage for stage in found["unfinished"] if stage["state"] == "failed"]
    assert failed
    assert all("diverged at step" in stage["error"] for stage in failed)
    assert "diverged at step" in said.stdout
    # What did not depend on them was done: at least the networks and the growth.
    assert found["stages"]["done"] >= 3


@pytest.mark.parametrize("content", [b"points: {at: [0\n", b"\xff\xfe\x00"])
def test_a_sweep_file_that_is_no_yaml(content: bytes, growpoint: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    assert "cannot be read" in complaint(growpoint("plan", "mine.yaml", cwd=tmp_path, code=2))


def test_a_damaged_stage_of_another_sweep_does_not_stop_a_plan(
    growpoint: Run, small: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "train-0123456789"
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text('{"after": ')
    (folder / "record.json").write_text("{}")
    assert "demo" in growpoint("plan", "demo", *small, cwd=tmp_path).stdout
