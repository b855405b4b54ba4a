"""Suites: what is refused, and what does and does not name an evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sweeps import benchmark, config, cost, search
from sweeps.errors import GrowpointError
from sweeps.plan import to_json
from sweeps.stages import Evaluate, build
from sweeps.suite import Choices, Suite
from tests.unit.sweeps.conftest import plan_of, sweep_of

TASK = """\
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: items.jsonl}}
output_type: multiple_choice
process_results: !function own.scored
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tasks"
    made.mkdir()
    (made / "colours.yaml").write_text(TASK)
    (made / "items.jsonl").write_text('{"question": "a"}\n')
    return made


def suite_of(folder: Path, **more: Any) -> dict[str, Any]:
    return {"include_path": str(folder), "tasks": [{"name": "colours"}], **more}


def evaluations(**suite: Any) -> set[str]:
    made = plan_of(suite=suite)
    return {stage.id for stage in made.stages if isinstance(stage.do, Evaluate)}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"heldout_tokens": 64, "sequence_tokens": 128}, "less than one sequence"),
        ({"heldout_tokens": 256, "lengths": [512]}, "less than one sequence"),
        ({"lengths": [1]}, "greater than or equal to 2"),
        ({"noise": [1.5]}, "less than or equal to 1"),
        ({"noise": [-0.1]}, "greater than or equal to 0"),
        ({"weight_noise": [-1]}, "greater than or equal to 0"),
        ({"tasks": [{"name": "a", "limit": 0}]}, "greater than 0"),
        ({"tasks": [{"name": "a", "shots": -1}]}, "greater than or equal to 0"),
        ({"tasks": [{"name": ""}]}, "at least 1 character"),
        ({"include_path": "somewhere"}, "no tasks of it"),
    ],
)
def test_impossible_suites_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Suite.model_validate(wrong)


def test_choices_need_two_options() -> None:
    with pytest.raises(ValidationError):
        Choices(options=1)


@pytest.mark.parametrize(
    ("suite", "says", "help"),
    [
        ({"lengths": [256, 8192]}, "longer than the model's positions", "suite.lengths=[256]"),
        ({"lengths": [64, 64]}, "suite.lengths names 64 twice", "suite.lengths=[64]"),
        ({"noise": [0.1, 0.1]}, "suite.noise names 0.1 twice", "suite.noise=[0.1]"),
        ({"tasks": [{"name": "a"}, {"name": "a", "shots": 2}]}, "names a twice", ""),
        (
            {"include_path": "nowhere", "tasks": [{"name": "a"}]},
            "is not there",
            "suite.include_path",
        ),
    ],
)
def test_suites_that_do_not_fit_say_the_way_out(
    suite: dict[str, Any], says: str, help: str
) -> None:
    with pytest.raises(GrowpointError, match=says) as caught:
        sweep_of(suite=suite)
    assert help in caught.value.help


@pytest.mark.parametrize("name", search.known("suite"))
def test_suites_that_come_along_fit_the_demo(name: str) -> None:
    ((sweep, _),) = config.load("demo", [f"suite={name}"]).sweeps
    assert sweep.suite.name == name


def test_tasks_need_a_tokenizer() -> None:
    tokens = {"kind": "tokens", "paths": ["a.bin"], "vocabulary": 512}
    with pytest.raises(GrowpointError, match="token files say nothing of their tokenizer"):
        sweep_of(data=tokens, suite={"tasks": [{"name": "hellaswag"}]})


def test_more_to_score_renames_the_evaluation_and_costs_more() -> None:
    plain = evaluations()
    for more in ({"lengths": [64]}, {"noise": [0.1]}, {"weight_noise": [0.1]}, {"noise_seed": 1}):
        assert not evaluations(**more) & plain
    model = sweep_of().model
    costs = [
        cost.suite_flops(Suite.model_validate(more), model)
        for more in ({}, {"noise": [0.1]}, {"lengths": [512]}, {"tasks": [{"name": "a"}]})
    ]
    assert costs == sorted(set(costs))
    assert costs[1] == 2 * costs[0]


def test_the_place_of_tasks_is_circumstance_and_their_content_is_not(
    folder: Path, tmp_path: Path
) -> None:
    before = evaluations(**suite_of(folder))
    moved = folder.rename(tmp_path / "elsewhere")
    assert evaluations(**suite_of(moved)) == before
    (moved / "items.jsonl").write_text('{"question": "b"}\n')
    assert not evaluations(**suite_of(moved)) & before


def test_a_plan_says_where_tasks_lie_and_its_stages_do_not(folder: Path) -> None:
    made = plan_of(suite=suite_of(folder))
    content = benchmark.content_of(folder)
    assert to_json(made)["include_paths"] == {content: str(folder)}
    stage = next(stage for stage in made.stages if isinstance(stage.do, Evaluate))
    assert str(folder) not in stage.text
    assert json.loads(stage.text)["do"]["suite"]["include_content"] == content
    assert build(stage.text, made.by_id.__getitem__).id == stage.id


def test_data_files_are_named_from_the_task_through_includes(folder: Path) -> None:
    (folder / "other.yaml").write_text("include: colours.yaml\ntask: other\n")
    found = {each.name: each.data for each in benchmark.definitions(folder)}
    files = {"data_files": {"test": str(folder / "items.jsonl")}}
    assert found == {name: {"dataset_kwargs": files} for name in ("colours", "other")}


def test_data_outside_of_the_folder_counts_too(folder: Path, tmp_path: Path) -> None:
    (folder / "items.jsonl").rename(tmp_path / "items.jsonl")
    (folder / "colours.yaml").write_text(TASK.replace("items.jsonl", "../*.jsonl"))
    before = benchmark.content_of(folder)
    (tmp_path / "items.jsonl").write_text('{"question": "b"}\n')
    assert benchmark.content_of(folder) != before


def test_compiled_python_does_not_count(folder: Path) -> None:
    before = benchmark.content_of(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "own.pyc").write_bytes(b"x")
    assert benchmark.content_of(folder) == before


def test_a_missing_data_file_is_named(folder: Path) -> None:
    (folder / "items.jsonl").unlink()
    with pytest.raises(GrowpointError, match="a data file of the task `colours` is not") as caught:
        sweep_of(suite=suite_of(folder))
    assert str(folder / "items.jsonl") in caught.value.text()


def test_a_broken_task_is_named(folder: Path) -> None:
    (folder / "colours.yaml").write_text("task: [colours\n")
    with pytest.raises(GrowpointError, match="cannot be read") as caught:
        sweep_of(suite=suite_of(folder))
    assert str(folder / "colours.yaml") in caught.value.text()
