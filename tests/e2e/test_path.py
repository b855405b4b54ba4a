"""From a sweep's configuration to a recommendation, as a user goes it."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Run

Launched = tuple[Path, "subprocess.CompletedProcess[str]"]


def test_launching_says_that_all_is_done(launched: Launched) -> None:
    store, said = launched
    plan = json.loads((store / "plans" / "demo" / "plan.json").read_text())
    assert f"all {len(plan['stages'])} stages are done" in said.stdout
    for stage in plan["stages"]:
        assert (store / "runs" / stage / "record.json").exists()


def test_the_name_of_every_stage_is_its_hash(launched: Launched) -> None:
    store, _ = launched
    found = list((store / "runs").glob("*/stage.json"))
    assert found
    for path in found:
        whole = hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.parent.name.endswith("-" + whole[:10])


def test_launching_again_runs_nothing_and_says_so(
    launched: Launched, growpoint: Run, small: list[str]
) -> None:
    store, _ = launched
    before = {path: path.stat().st_mtime_ns for path in store.glob("runs/*/record.json")}
    said = growpoint("launch", "demo", *small, cwd=store)
    assert "nothing to run" in said.stdout
    assert {path: path.stat().st_mtime_ns for path in store.glob("runs/*/record.json")} == before


def test_plan_after_launch_has_nothing_new(
    launched: Launched, growpoint: Run, small: list[str]
) -> None:
    store, _ = launched
    found = json.loads(growpoint("plan", "demo", *small, "--json", cwd=store).stdout)
    assert found["new"] == 0
    assert found["done"] == found["stages"]
    assert found["flops_to_spend"] == 0


def test_plan_says_why_stages_are_new(launched: Launched, growpoint: Run, small: list[str]) -> None:
    store, _ = launched
    said = growpoint("plan", "demo", *small, "recipe.lr=1e-3", cwd=store).stdout
    assert "new because" in said
    assert "recipe.lr" in said
    assert "-> 0.001" in said


def test_an_extended_sweep_runs_only_what_is_new(
    launched: Launched, growpoint: Run, small: list[str]
) -> None:
    store, _ = launched
    words = [word for word in small if not word.startswith(("points.at", "exclude"))]
    more = ["points.at=[0,8192,12288,16384,24576,32768]"]
    more += ["exclude=[{growth: ['width x2'], point: [0, 1, 2, 3]}]"]
    found = json.loads(growpoint("plan", "demo", *words, *more, "--json", cwd=store).stdout)
    # The new point in the middle: its trunk stage, one growth, and branches and scores of two
    # arms at two budgets. The trunk beyond it keeps its name.
    assert found["new"] == 1 + 1 + 2 * 2 + 2 * 2


def test_the_same_name_does_not_answer_for_another_question(
    launched: Launched, growpoint: Run, small: list[str]
) -> None:
    store, _ = launched
    said = growpoint("launch", "demo", *small, "recipe.lr=1e-3", cwd=store, code=2)
    assert "was launched with another question" in said.stderr
    assert "name=demo-2" in said.stderr


def test_status_counts_the_cells(launched: Launched, growpoint: Run) -> None:
    store, _ = launched
    found = json.loads(growpoint("status", "demo", "--json", cwd=store).stdout)
    assert found["complete"]
    assert {cell["state"] for cell in found["cells"]} == {"done"}
    said = growpoint("status", "demo", cwd=store).stdout
    assert f"{len(found['cells'])} of {len(found['cells'])} cells done" in said


def test_results_are_one_row_a_cell(launched: Launched, growpoint: Run) -> None:
    store, _ = launched
    plan = json.loads((store / "plans/demo/plan.json").read_text())
    growpoint("results", "demo", "--csv", "out.csv", cwd=store)
    lines = (store / "out.csv").read_text().splitlines()
    assert len(lines) == len(plan["cells"]) + 1
    assert "sunk_flops" in lines[0]
    assert "accuracy_se" in lines[0]


def test_growing_by_hand(launched: Launched, growpoint: Run, tmp_path: Path) -> None:
    store, _ = launched
    plan = json.loads((store / "plans/demo/plan.json").read_text())
    source = next(cell["source"] for cell in plan["cells"] if cell["point"] == 2)
    words = ["grow", f"runs/{source}", "--to", str(tmp_path / "grown"), "growth=depth"]
    assert "2 -> 4" in growpoint(*words, cwd=store).stdout
    assert (tmp_path / "grown" / "manifest.json").exists()
    assert growpoint(*words, cwd=store, code=2).stderr.startswith("error: ")


@pytest.mark.parametrize(
    "command", ["status", "results", "fit", "plot", "recommend", "report", "cancel"]
)
def test_a_sweep_that_was_not_launched(command: str, growpoint: Run, tmp_path: Path) -> None:
    said = growpoint(command, "demo", cwd=tmp_path, code=2)
    assert "was not launched in this store" in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_and_plan_are_quick_and_import_neither_torch_nor_pandas(
    growpoint: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    for words in (["--help"], ["plan", "demo"]):
        said = growpoint(*words, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1").stderr
        imported = {line.rpartition("|")[2].strip() for line in said.splitlines()}
        assert "sweeps" in imported
        assert not imported & {"torch", "pandas", "transformers", "scipy", "matplotlib"}
