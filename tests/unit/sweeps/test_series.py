"""Series: names read as numbers, points that are exactly there, and what is sunk by whose count."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweeps import adoption, config, cost, pattern, places
from sweeps.data import Bpe, Corpus
from sweeps.errors import GrowpointError
from sweeps.model import Model, parameters, to_config
from sweeps.plan import Plan, plan, to_json
from sweeps.schema import asked, canonical
from sweeps.series import Course, Series, Source, adopted, chinchilla_flops, sources
from sweeps.stages import Stage, Train, build
from tests.unit.sweeps.conftest import CORPUS, MODEL

TOKENS_PER_STEP = 2048
UNITS = {"k": 1e3, "M": 1e6, "B": 1e9}


@pytest.fixture(autouse=True)
def _no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def checkpoint(folder: Path, weights: bytes = b"", **changes: Any) -> Path:
    """A folder that passes for a checkpoint as far as planning looks."""
    folder.mkdir(parents=True)
    model = Model.model_validate({**MODEL, **changes})
    (folder / "config.json").write_text(json.dumps(to_config(model)))
    (folder / "model.safetensors").write_bytes(weights or folder.name.encode())
    return folder


@pytest.fixture
def run1(tmp_path: Path) -> Path:
    """Four checkpoints of one run, and a folder that is none."""
    for step in (10, 20, 40, 100):
        checkpoint(tmp_path / "run1" / f"step_{step}")
    (tmp_path / "run1" / "step_7").mkdir()
    (tmp_path / "run1" / "logs").mkdir()
    return tmp_path / "run1"


def words(run1: Path, *more: str) -> list[str]:
    """Overrides of `demo` that make it a sweep over the series."""
    return [
        f'series.folder="{run1}/step_{{step}}"',
        f"series.tokens_per_step={TOKENS_PER_STEP}",
        "points={unit: steps, at: [10, 20, 40]}",
        "growth=depth",
        "exclude=[]",
        *more,
    ]


def planned(*overrides: str) -> Plan:
    """The plan of `demo` with these overrides, on an invented corpus."""
    request = config.load("demo", overrides)
    corpora: dict[str, Corpus] = {
        canonical(asked(sweep.data)): CORPUS for sweep, _ in request.sweeps
    }
    return plan(request.name, request.sweeps, corpora)


@given(st.integers(0, 10**7), st.integers(1, 9999), st.sampled_from(sorted(UNITS)))
def test_a_name_gives_back_its_numbers(step: int, tokens: int, unit: str) -> None:
    behind = pattern.match(
        f"step{{step}}-tokens{{tokens}}{unit}", f"step{step}-tokens{tokens}{unit}"
    )
    free = pattern.match("step{step}-tokens{tokens}", f"step{step}-tokens{tokens}{unit}")
    assert behind is not None
    assert behind == free
    assert behind["step"].value == step
    assert behind["tokens"].value == tokens * UNITS[unit]


@given(st.text(st.characters(exclude_characters="/{}*", exclude_categories=["Cs"]), max_size=12))
def test_only_the_whole_name_matches(other: str) -> None:
    found = pattern.match("run.step_{step}", other)
    assert (found is None) == (re.fullmatch(r"run\.step_[0-9]+(\.[0-9]+)?[kKMBT]?", other) is None)


def test_a_unit_is_no_part_of_a_longer_word() -> None:
    found = pattern.match("{tokens}Batches", "12Batches")
    assert found is not None
    assert found["tokens"].value == 12


def test_an_unknown_hole_is_refused() -> None:
    with pytest.raises(GrowpointError, match=r"cannot have \{seed\}"):
        pattern.match("step{seed}", "step1")


def test_folders_are_found_by_pattern_and_nothing_else(run1: Path) -> None:
    assert list(places.folders(f"{run1}/step_{{step}}")) == [
        "step_10",
        "step_100",
        "step_20",
        "step_40",
    ]


def test_a_pattern_may_vary_in_the_middle(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint(tmp_path / f"iter{step}" / "hf")
    assert list(places.folders(f"{tmp_path}/iter{{step}}/hf")) == ["iter1/hf", "iter2/hf"]
    found = sources(
        Series(folder=f"{tmp_path}/iter{{step}}/hf", tokens_per_step=5),
        dict(places.folders(f"{tmp_path}/iter{{step}}/hf")),
    )
    assert [source.tokens for source in found] == [5, 10]


def test_a_missing_folder_and_an_idle_pattern_say_what_is_there(run1: Path) -> None:
    with pytest.raises(GrowpointError) as missing:
        places.folders(f"{run1}/nowhere/step_{{step}}")
    assert dict(missing.value.evidence)["nearest"] == str(run1)
    with pytest.raises(GrowpointError) as idle:
        places.folders(f"{run1}/iter_{{step}}")
    assert "step_10/" in dict(idle.value.evidence)["there"]


def test_tokens_come_from_the_entry_then_the_steps_then_the_name() -> None:
    place = {"step3-tokens7k": places.Folder(path="/x")}
    keys: dict[str, Any] = {"folder": "/x/step{step}-tokens{tokens}k"}
    entry = {"name": "step3-tokens7k", "tokens": 6500}
    given_tokens = [
        sources(Series.model_validate({**keys, **more}), place)[0].tokens
        for more in (
            {},
            {"tokens_per_step": 2400},
            {"tokens_per_step": 2400, "checkpoints": [entry]},
        )
    ]
    assert given_tokens == [7000, 7200, 6500]


def test_a_name_that_contradicts_its_steps_is_refused() -> None:
    series = Series(folder="/x/step{step}-tokens{tokens}k", tokens_per_step=1)
    with pytest.raises(GrowpointError, match="says other tokens than its steps"):
        sources(series, {"step3-tokens70k": places.Folder(path="/x")})


def test_unknown_tokens_and_twin_steps_are_refused(run1: Path) -> None:
    found = dict(places.folders(f"{run1}/step_{{step}}"))
    with pytest.raises(GrowpointError) as unknown:
        sources(Series(folder=f"{run1}/step_{{step}}"), found)
    assert "tokens_per_step" in unknown.value.help
    checkpoint(run1.parent / "run2" / "step_10")
    twins = f"{run1.parent}/run*/step_{{step}}"
    with pytest.raises(GrowpointError, match="are of step 10"):
        sources(Series(folder=twins, tokens_per_step=1), dict(places.folders(twins)))


@given(st.integers(0, 200), st.integers(0, 50), st.integers(50, 150))
def test_phases_follow_each_other(step: int, warmup: int, decay: int) -> None:
    course = Course(kind="wsd", warmup_steps=warmup, decay_from_step=decay)
    order = ["warmup", "constant", "annealing"]
    assert order.index(course.phase(step)) <= order.index(course.phase(step + 1))
    assert course.phase(decay) == "constant" or decay < warmup
    assert course.phase(decay + 1) == "annealing"
    assert Course(warmup_steps=warmup).phase(step) != "annealing"
    assert Course(kind="cosine", warmup_steps=warmup).phase(warmup + 1) == "annealing"


@given(st.floats(1e3, 1e25), st.integers(4, 9))
def test_a_point_is_what_was_written_and_not_what_is_near(amount: float, digits: int) -> None:
    written = float(f"{amount:.{digits - 1}e}")
    assert adoption.same(written, amount)
    apart = float(f"{amount * 1.02:.{digits - 1}e}")
    assert not adoption.same(apart, amount)


def test_sunk_flops_are_stated_or_counted_by_our_own_accountant() -> None:
    model = Model.model_validate(MODEL)
    known: dict[str, Any] = {"series": "s", "name": "a", "place": {"kind": "folder", "path": "/x"}}
    plain = Source(**known, tokens=1000)
    assert plain.stated_flops is None
    assert plain.sunk_flops(model) == 1000 * cost.train_flops_per_token(model, model.positions)
    shorter = Source(**known, tokens=1000, sequence_tokens=64)
    assert shorter.sunk_flops(model) == 1000 * cost.train_flops_per_token(model, 64)
    assert Source(**known, tokens=1000, flops_per_token=3.0).sunk_flops(model) == 3000
    assert Source(**known, tokens=1000, flops=5.0, flops_per_token=3.0).sunk_flops(model) == 5
    assert chinchilla_flops(model) == 120 * parameters(model).active ** 2


def _chosen(content: str, tokens: int, flops: float) -> Source:
    place = places.Folder(path="/x")
    return Source(series="s", name="a", place=place, content=content, tokens=tokens, flops=flops)


@given(st.integers(0, 10**12), st.floats(0, 1e24))
def test_what_was_sunk_counts_and_renames_nothing(tokens: int, flops: float) -> None:
    model, content = Model.model_validate(MODEL), "sha256:" + "0" * 64
    stage = adopted(_chosen(content, tokens, flops), model)
    assert stage.id == adopted(_chosen(content, 0, 0.0), model).id
    assert stage.id != adopted(_chosen("sha256:" + "1" * 64, tokens, flops), model).id
    more = Stage(Train(tokens=4096, recipe={}, corpus=CORPUS), stage)  # type: ignore[arg-type]
    assert cost.trained_tokens(more) == tokens + 4096
    assert cost.trained_flops(more) == pytest.approx(flops + cost.flops(more))
    assert cost.flops(stage) == 0
    # As a job reads it from stage.json.
    again = build(more.text, lambda _: build(stage.text, lambda _: stage))
    assert again.id == more.id


def test_a_sweep_over_a_series_trains_no_trunk_and_charges_nothing_sunk(run1: Path) -> None:
    made = planned(*words(run1))
    trained = [stage for stage in made.stages if stage.do.kind == "train"]
    assert trained
    assert all(stage.do.stream == "backward" for stage in trained if isinstance(stage.do, Train))
    from_series = [cell for cell in made.cells if cell.arm != "scratch"]
    assert {cell.origin.name for cell in from_series if cell.origin} == {
        "step_10",
        "step_20",
        "step_40",
    }
    assert sorted({cell.sunk_tokens for cell in from_series}) == [20480, 40960, 81920]
    assert all(
        cell.sunk_flops == 0 and not cell.origin for cell in made.cells if cell.arm == "scratch"
    )
    assert sum(made.flops(stage) for stage in made.stages if stage.do.kind == "init") == 0


def test_seeds_share_a_checkpoint_that_exists(run1: Path) -> None:
    made = planned(*words(run1, "seeds=[0,1]", "arms=[grow,continue]"))
    assert sum(stage.do.kind == "init" for stage in made.stages) == 3


def test_the_plan_says_where_each_source_lies_and_its_stages_do_not(run1: Path) -> None:
    made = planned(*words(run1))
    said = to_json(made)
    assert {entry["name"] for entry in said["sources"].values()} == {
        "step_10",
        "step_20",
        "step_40",
    }
    for stage_id, entry in said["sources"].items():
        assert entry["place"]["path"] == str(run1 / entry["name"])
        assert str(run1) not in made.by_id[stage_id].text
        assert said["stages"][stage_id]["sunk_flops"] == entry["flops"] > 0
        assert said["stages"][stage_id]["flops"] == 0
    assert {cell["checkpoint"] for cell in said["cells"]} == {"", "step_10", "step_20", "step_40"}


def test_moving_the_folder_renames_no_stage_and_changing_it_does(run1: Path) -> None:
    before = [stage.id for stage in planned(*words(run1)).stages]
    moved = run1.rename(run1.with_name("elsewhere"))
    assert [stage.id for stage in planned(*words(moved)).stages] == before
    (moved / "step_20" / "model.safetensors").write_bytes(b"changed")
    assert [stage.id for stage in planned(*words(moved)).stages] != before


def test_points_by_steps_tokens_and_flops_name_the_same(run1: Path) -> None:
    by_steps = planned(*words(run1))
    flops = sorted({cell.sunk_flops for cell in by_steps.cells if cell.origin})
    for points in (
        "points={unit: tokens, at: [20480, 40960, 81920]}",
        f"points={{unit: flops, at: [{','.join(f'{each:.3e}' for each in flops)}]}}",
    ):
        found = planned(*words(run1), points)
        assert [stage.id for stage in found.stages] == [stage.id for stage in by_steps.stages]


def test_all_takes_every_checkpoint(run1: Path) -> None:
    made = planned(*words(run1), "points={unit: steps, at: all}")
    assert len({cell.checkpoint for cell in _rows(made)}) == 4


def _rows(made: Plan) -> list[Any]:
    return [type("Row", (), row) for row in to_json(made)["cells"] if row["checkpoint"]]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("points={unit: steps, at: [10, 30]}", "no checkpoint of the series is at points.at.1"),
        ("points={unit: steps, at: [10.0001]}", "no checkpoint of the series is at points.at.0"),
        ("points={unit: tokens, at: [20500]}", "no checkpoint of the series is at points.at.0"),
        ("points={unit: steps, at: [10, 10]}", "names 10 twice"),
        ("points={unit: stepz, at: all}", "points.unit cannot be 'stepz'"),
        ("model.layers=4", "has the model of its checkpoints"),
        ("series.fodler=x", "no key `series.fodler`"),
        ("series.repo=a/b", "either a `folder` or a `repo`"),
        ("series=nowhere", "there is no series `nowhere`"),
        ("series={repo: ../b, revision: main}", "series.repo cannot be '../b'"),
        ("series={repo: a/b}", "needs a `revision`"),
        ("data.tokenizer.vocabulary=5000", "more tokens than the model's vocabulary"),
        ("recipe.sequence_tokens=4096", "longer than the model's positions"),
        ("branch.optimizer_state=carried", "no optimizer state to carry"),
        ("data.tokenizer={kind: source}", "bring no tokenizer"),
    ],
)
def test_mistakes_are_said(run1: Path, override: str, says: str) -> None:
    with pytest.raises(GrowpointError) as error:
        planned(*words(run1), override)
    assert says in error.value.problem
    assert error.value.help


def test_a_point_that_is_not_there_lists_those_that_are(run1: Path) -> None:
    with pytest.raises(GrowpointError) as error:
        planned(*words(run1), "points={unit: steps, at: [30]}")
    assert dict(error.value.evidence)["there"] == "10, 20, 40, 100 steps"


def test_mixed_architectures_and_copies_are_refused(run1: Path) -> None:
    checkpoint(run1 / "step_50", layers=3)
    with pytest.raises(GrowpointError, match="not of one architecture") as error:
        planned(*words(run1), "points={unit: steps, at: [10, 50]}")
    assert dict(error.value.evidence) == {"step_10": "layers 2", "step_50": "layers 3"}
    checkpoint(run1 / "step_60", weights=b"step_10")
    with pytest.raises(GrowpointError, match="the same, byte for byte"):
        planned(*words(run1), "points={unit: steps, at: [10, 60]}")


def test_pickled_weights_are_refused_with_the_way_out(run1: Path) -> None:
    (run1 / "step_20" / "model.safetensors").rename(run1 / "step_20" / "pytorch_model.bin")
    with pytest.raises(GrowpointError, match="pickled") as error:
        planned(*words(run1))
    assert "save_pretrained" in error.value.help


def test_the_tokenizer_of_the_checkpoints_makes_the_corpus(run1: Path) -> None:
    for folder in run1.glob("step_*"):
        (folder / "tokenizer.json").write_text("{}")
    request = config.load("demo", [*words(run1), "data.tokenizer={kind: source}"])
    tokenizer = request.sweeps[0][0].data.tokenizer  # type: ignore[union-attr]
    assert not isinstance(tokenizer, Bpe)
    assert (tokenizer.name, tokenizer.vocabulary) == (str(run1 / "step_10"), MODEL["vocabulary"])


def test_a_series_file_is_read_and_recorded(run1: Path) -> None:
    file = run1.parent / "mine.yaml"
    file.write_text(f"folder: {run1}/step_{{step}}\ntokens_per_step: {TOKENS_PER_STEP}\n")
    over = [word for word in words(run1) if not word.startswith("series")]
    request = config.load("demo", [*over, f"series={file}", "series.flops_per_token=7"])
    assert request.config["series"]["name"] == "mine"
    assert {source.stated_flops for source in request.sweeps[0][0].series} == {
        7.0 * TOKENS_PER_STEP * step for step in (10, 20, 40)
    }
    # What is recorded asks for the very same.
    record = run1.parent / "again.yaml"
    record.write_text(yaml.safe_dump(dict(request.config)))
    assert config.load(str(record)).sweeps == request.sweeps


def test_steps_of_a_trunk_are_its_batches() -> None:
    by_steps = planned("points={unit: steps, at: [0, 20]}", "exclude=[]")
    batch = config.load("demo").sweeps[0][0].recipe.batch_tokens
    by_tokens = planned(f"points={{unit: tokens, at: [0, {20 * batch}]}}", "exclude=[]")
    assert [stage.id for stage in by_steps.stages] == [stage.id for stage in by_tokens.stages]


def test_the_shipped_series_agree_with_their_names() -> None:
    series = adoption.described("olmoe-1b-7b-0924")
    names = ["step5000-tokens20B", "step400000-tokens1677B", "step1200000-tokens5033B", "main"]
    found = {
        name: places.Snapshot(repo=str(series.repo), revision=name, commit="0" * 40)
        for name in names
    }
    made = sources(series, dict(found))
    assert [source.name for source in made] == names
    assert made[-1].phase == "annealing"
    # The model card: annealed for 100B more.
    assert made[-1].tokens - made[-2].tokens == pytest.approx(1e11, rel=1e-3)
