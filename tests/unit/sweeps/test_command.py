"""Recipes that a command carries out: what names them, what they share, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps import config
from sweeps.command import CommandRecipe, filled, placeholders
from sweeps.errors import GrowpointError
from sweeps.plan import to_json
from sweeps.recipe import Recipe
from sweeps.stages import Stage, Train, build
from tests.unit.sweeps.conftest import plan_of


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of a command with a script of its own, changed."""
    script = folder / "train.sh"
    script.parent.mkdir(parents=True, exist_ok=True)
    if not script.exists():
        script.write_text("echo trained\n")
    fields = {
        "kind": "command",
        "run": ["bash", "{train}", "--lr", "{lr}", "--optimizer", "{optimizer}"],
        "files": {"train": str(script)},
        "settings": {"optimizer": "muon"},
        "lr": 1e-3,
        "batch_sequences": 8,
    }
    return {**fields, **changes}


def ids(**changes: Any) -> list[str]:
    return [stage.id for stage in plan_of(**changes).stages]


def phases(**changes: Any) -> list[Train]:
    return [stage.do for stage in plan_of(**changes).stages if isinstance(stage.do, Train)]


def test_a_recipe_without_a_kind_is_growpoints_own() -> None:
    assert ids(recipe={"lr": 3e-3}) == ids(recipe={"lr": 3e-3, "kind": "adamw"})
    assert all('"adamw"' not in stage.text for stage in plan_of().stages)


def test_circumstance_names_nothing(tmp_path: Path) -> None:
    here = ids(recipe=recipe(tmp_path / "here"))
    start = {"launcher": ["torchrun", "--nproc-per-node", 8], "grace_seconds": 5}
    assert ids(recipe=recipe(tmp_path / "here", start=start)) == here
    shutil.copytree(tmp_path / "here", tmp_path / "elsewhere")
    assert ids(recipe=recipe(tmp_path / "elsewhere")) == here
    assert all(str(tmp_path) not in s.text for s in plan_of(recipe=recipe(tmp_path)).stages)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"lr": 2e-3},
        {"warmup_tokens": 1024},
        {"settings": {"optimizer": "adamw"}},
        {"run": ["bash", "{train}", "--lr", "{lr}"]},
        {"sequence_tokens": 64},
        {"schedule": {"kind": "constant"}},
    ],
)
def test_what_changes_the_result_makes_new_phases(change: dict[str, Any], tmp_path: Path) -> None:
    before = {s.id for s in plan_of(recipe=recipe(tmp_path)).stages if s.do.kind == "train"}
    changed = {
        s.id for s in plan_of(recipe=recipe(tmp_path, **change)).stages if s.do.kind == "train"
    }
    assert not before & changed


def test_a_changed_script_makes_new_phases(tmp_path: Path) -> None:
    before = ids(recipe=recipe(tmp_path))
    (tmp_path / "train.sh").write_text("echo trained otherwise\n")
    assert not {i for i in before if i.startswith("train")} & {*ids(recipe=recipe(tmp_path))}


def test_a_stage_is_built_again_from_its_text_alone(tmp_path: Path) -> None:
    known: dict[str, Stage] = {}
    plan = plan_of(recipe=recipe(tmp_path, schedule={"kind": "constant"}))
    shutil.rmtree(tmp_path)
    for stage in plan.stages:
        known[stage.id] = build(stage.text, known.__getitem__)
        assert known[stage.id].text == stage.text


def test_the_plan_says_how_commands_are_started(tmp_path: Path) -> None:
    plan = plan_of(recipe=recipe(tmp_path, start={"launcher": ["nice", 5]}), branch={"lr_ratio": 2})
    said = json.loads(json.dumps(to_json(plan)))["commands"]
    programs = set()
    for stage in plan.stages:
        if isinstance(stage.do, Train):
            assert isinstance(stage.do.recipe, CommandRecipe)
            programs.add(stage.do.recipe.program)
    assert programs == set(said)
    [one] = said.values()
    assert one["start"]["launcher"] == ["nice", "5"]
    assert one["files"] == {"train": str(tmp_path / "train.sh")}
    assert to_json(plan_of())["commands"] == {}


def test_a_schedule_of_the_commands_own_shares_nothing(tmp_path: Path) -> None:
    plan = plan_of(recipe=recipe(tmp_path), arms=["grow"])
    assert not plan.resumes
    assert all(do.ends for do in phases(recipe=recipe(tmp_path)))


@pytest.mark.parametrize("kind", ["constant", "wsd"])
def test_a_schedule_that_is_told_shares_what_growpoints_own_shares(
    kind: str, tmp_path: Path
) -> None:
    told = recipe(tmp_path, schedule={"kind": kind})
    own = {"batch_sequences": 8, "schedule": {"kind": kind}}

    def shape(given: dict[str, Any]) -> list[tuple[Any, ...]]:
        plan = plan_of(recipe=given)
        return [
            (
                s.do.kind,
                getattr(s.do, "tokens", 0),
                getattr(s.do, "ends", None),
                s.id in plan.resumes,
            )
            for s in plan.stages
        ]

    assert shape(told) == shape(own)


def test_a_branch_passes_its_rate_and_warm_up_on(tmp_path: Path) -> None:
    branch = {"lr_ratio": 0.5, "warmup_tokens": 2048}
    found = phases(recipe=recipe(tmp_path), branch=branch, arms=["grow", "continue"])
    assert {(do.recipe.lr, do.recipe.warmup_tokens) for do in found if do.stream == "backward"} == {
        (5e-4, 2048)
    }
    assert {(do.recipe.lr, do.recipe.warmup_tokens) for do in found if do.stream == "forward"} == {
        (1e-3, 0)
    }


@pytest.mark.parametrize(
    ("changes", "branch", "problem", "hint"),
    [
        ({"run": ["{tarin}"]}, {}, "placeholder that is not known: {tarin}", "{train}"),
        ({"run": ["a", "{"]}, {}, "braces that cannot be read", "{{"),
        ({"run": ["{lr:g}"]}, {}, "braces that cannot be read", "{{"),
        ({"run": ["{lr}"], "lr": None}, {}, "not known: {lr}", "{"),
        ({"start": {"launcher": ["{gpu}"]}}, {}, "not known: {gpu}", "{"),
        ({"settings": {"optimizer": 1, "target": 1}}, {}, "named `target` apart", "another name"),
        ({"settings": {"optimizer": 1, "train": 1}}, {}, "named `train` apart", "another name"),
        ({"files": {"train": "/nowhere/train.sh"}}, {}, "is not there", "recipe.files.train="),
        ({"files": {"train": "/"}}, {}, "is not there", "recipe.files.train="),
        ({}, {"optimizer_state": "carried"}, "cannot be carried", "=fresh"),
        ({"run": ["a"], "lr": None}, {"lr_ratio": 0.5}, "nothing to multiply", "recipe.lr="),
    ],
)
def test_refused_when_planned(
    changes: dict[str, Any], branch: dict[str, Any], problem: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(GrowpointError) as caught:
        plan_of(recipe=recipe(tmp_path, **changes), branch=branch)
    assert problem in caught.value.problem
    assert hint in caught.value.help


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "recipe.run is not set"),
        (["recipe.run=train.sh"], "recipe.run cannot be 'train.sh'"),
        (["recipe.run=[train]", "recipe.beta1=0.9"], "no key `recipe.beta1`"),
        (["recipe.run=[train]", "recipe.start.luncher=[a]"], "no key `recipe.start.luncher`"),
        (["recipe.run=[train]", "recipe.start.environment.GROWPOINT_LR=1"], "growpoint itself"),
        (["recipe.run=[train]", "recipe.kind=shell"], "recipe.kind cannot be 'shell'"),
    ],
)
def test_mistakes_on_the_command_line_are_named(words: list[str], problem: str) -> None:
    with pytest.raises(GrowpointError) as caught:
        config.load("demo", ["recipe=command", *words])
    assert problem in caught.value.problem


def test_a_command_and_growpoints_own_training_can_be_one_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set, so that what the command sets is undone after the test.
    monkeypatch.setenv("GROWPOINT_CONFIG", "")
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("kind: command\nrun: [train]\n")
    request = config.load("demo", ["recipe=constant,mine"], tmp_path)
    assert [type(sweep.recipe) for sweep, _ in request.sweeps] == [Recipe, CommandRecipe]


@given(st.text(st.characters(codec="utf-8")))
def test_doubled_braces_are_braces(text: str) -> None:
    word = text.replace("{", "{{").replace("}", "}}")
    assert placeholders(word) == []
    assert filled(word, {}) == text


def test_placeholders_are_filled() -> None:
    assert filled("a={x} {{y}} {y}", {"x": 1, "y": "two words"}) == "a=1 {y} two words"
