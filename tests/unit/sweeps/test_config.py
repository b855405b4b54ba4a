"""The command line's KEY=VALUE, composed and checked; every error says the way out."""

import shlex
from pathlib import Path

import pytest
import yaml

import conf
from sweeps import config, overrides, search
from sweeps.errors import GrowpointError
from sweeps.recipe import Recipe
from sweeps.stages import Train
from sweeps.sweep import expand
from tests.unit.sweeps.conftest import CORPUS


def test_every_sweep_that_is_shipped_composes() -> None:
    names = search.known("sweep")
    assert "demo" in names
    for name in names:
        assert config.load(name).name == name


@pytest.mark.parametrize("group", [group for group in overrides.GROUPS if group != "sweep"])
def test_every_choice_of_every_group_composes(group: str) -> None:
    needs = {
        ("data", "text"): ["data.paths=[README.md]"],
        ("data", "hub"): ["data.dataset=/nowhere"],
        ("recipe", "command"): ["recipe.run=[train]"],
        ("data", "tokens"): ["data.paths=[a.bin]", "data.vocabulary=512"],
        ("cluster", "slurm"): ["cluster.partition=gpu"],
    }
    for choice in search.known(group):
        assert config.load("demo", [f"{group}={choice}", *needs.get((group, choice), [])]).sweeps


def test_an_override_reaches_its_field() -> None:
    request = config.load("demo", ["recipe.lr=1e-3", "growth.0.factor=3", "seeds=[4,5]"])
    sweep, labels = request.sweeps[0]
    assert sweep.recipe.lr == 1e-3
    assert sweep.growth[0].label == "depth x3"
    assert sweep.seeds == (4, 5)
    assert labels == ()


def test_comma_values_make_axes() -> None:
    request = config.load("demo", ["recipe.lr=1e-3,2e-3", "recipe.clip=1,2"])
    assert [labels for _, labels in request.sweeps] == [
        (("recipe.lr", lr), ("recipe.clip", clip))
        for lr in ("0.001", "0.002")
        for clip in ("1", "2")
    ]
    assert {sweep.recipe.lr for sweep, _ in request.sweeps} == {1e-3, 2e-3}


def test_comma_choices_of_a_group_make_an_axis() -> None:
    request = config.load("demo", ["recipe=constant,wsd"])
    assert [sweep.recipe.schedule.kind for sweep, _ in request.sweeps] == ["constant", "wsd"]
    assert [labels for _, labels in request.sweeps] == [
        (("recipe", "constant"),),
        (("recipe", "wsd"),),
    ]


def test_zipped_axes_go_together() -> None:
    axis = "axes=[{zip: {recipe.lr: [1e-3, 2e-3], recipe.clip: [1, 2]}}]"
    request = config.load("demo", [axis])
    recipes = [sweep.recipe.model_dump() for sweep, _ in request.sweeps]
    assert [(r["lr"], r["clip"]) for r in recipes] == [(1e-3, 1.0), (2e-3, 2.0)]


def test_a_sweep_file_may_lie_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("# @package _global_\npoints: {unit: tokens, at: [0, 4096]}\n")
    request = config.load(str(file), ["budgets.at=[1e12]"])
    assert request.name == "mine"
    assert request.sweeps[0][0].points.at == (0, 4096)


def test_a_folder_of_ones_own_adds_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Set, so that what the command sets is undone after the test.
    monkeypatch.setenv("GROWPOINT_CONFIG", "")
    (tmp_path / "model").mkdir()
    shipped = (conf.FOLDER / "model" / "olmoe_tiny.yaml").read_text()
    (tmp_path / "model" / "mine.yaml").write_text(shipped.replace("layers: 2", "layers: 3"))
    request = config.load("demo", ["model=mine"], tmp_path)
    assert request.sweeps[0][0].model.layers == 3


@pytest.mark.parametrize(
    ("override", "problem", "hint"),
    [
        ("growht.0.factor=3", "no key `growht`", "growth.0.factor=3"),
        ("growth.0.factr=3", "no key `growth.0.factr`", "growth.0.factor=..."),
        ("growth.0.order=interpoze", "cannot be 'interpoze'", "growth.0.order=interpose"),
        ("growth.7.factor=3", "`growth` has no entry 7", "growth.0.factor=3"),
        ("growth=[{kind: dept}]", "growth.0.kind cannot be 'dept'", "growth.0.kind=depth"),
        ("recipe.lr=abc", "recipe.lr cannot be 'abc'", "recipe.lr="),
        ("recipe.lr=-1", "recipe.lr cannot be -1", "recipe.lr="),
        ("recipe.lr=nan", "recipe.lr cannot be nan", "recipe.lr="),
        ("model.layers=1.5", "model.layers cannot be 1.5", "model.layers=1"),
        ("model=nope", "no model `nope`", "model="),
        ("model.top_k=20", "top_k 20 is more than the 8 experts", "--config"),
        ("model.vocabulary=100", "more tokens than the model's vocabulary", "model.vocabulary=512"),
        ("points.at=[-1]", "points.at.0 cannot be -1", "points.at.0=0"),
        ("budgets.at=[0]", "budgets.at.0 cannot be 0", "budgets.at.0="),
        ("+extra=1", "does not set a key", "extra=VALUE"),
        ("seeds", "does not set a key", "seeds=VALUE"),
        ("recipe.lr=[1", "cannot be read", "quote"),
        ("data=text", "data.paths is not set", "data.paths=[FOLDER]"),
        ("cluster=slurm", "cluster.partition is not set", "cluster.partition=VALUE"),
        ("seeds=0,1", "seeds cannot be 0", "seeds=[0,1]"),
        ("arms=grow", "arms cannot be 'grow'", "arms=[grow]"),
        ("seeds=[0,0]", "seeds names 0 twice", "seeds=[0]"),
        ("seeds=[99999999999999999999999999]", "seeds.0 cannot be", "seeds.0=9223372036854775807"),
        ("suite.choices={seed: 99999999999999999999}", "suite.choices.seed", "9223372036854775807"),
        ("budgets.at=[1.5e11,1.5e11]", "budgets.at names 150000000000 twice", "[150000000000]"),
        ("points.at=[51200,51200]", "points.at names 51200 twice", "points.at=[51200]"),
        ("recipe.lr=1e-3,1e-3", "the axis recipe.lr names a value twice", "leave one"),
        ("exclude=[{growth: [typo]}]", "exclude.0.growth names 'typo'", "exclude.0.growth=["),
        ("exclude=[{point: [0]},{point: [8]}]", "exclude.1.point names 8", "exclude.1.point=["),
        ("exclude=[{budget: [2]}]", "exclude.0.budget names 2", "exclude.0.budget=["),
        ("suite.choices={context_tokens: 500, continuation_tokens: 13}", "positions", "=513"),
        ("name=../up", "name cannot be '../up'", "name="),
    ],
)
def test_mistakes_say_the_way_out(override: str, problem: str, hint: str) -> None:
    with pytest.raises(GrowpointError) as caught:
        config.load("demo", [override])
    assert problem in caught.value.problem
    assert hint in caught.value.help


def test_an_unknown_sweep_names_those_there_are() -> None:
    with pytest.raises(GrowpointError) as caught:
        config.load("demmo")
    assert caught.value.help == "growpoint plan demo"
    assert "demo" in dict(caught.value.evidence)["known"]


def test_growth_alone_for_one_checkpoint() -> None:
    depth, width = config.growth(["growth=[{kind: depth, factor: 3}, {kind: width}]"])
    assert (depth.label, width.label) == ("depth x3", "width x2")
    assert config.growth([])[0].label == "depth x2"
    with pytest.raises(GrowpointError, match="says nothing about growth"):
        config.growth(["recipe.lr=1"])


def test_arms_that_need_growth_say_so() -> None:
    with pytest.raises(GrowpointError, match="growth is empty"):
        config.load("demo", ["growth=[]", "arms=[grow,scratch]"])
    assert config.load("demo", ["growth=[]", "arms=[continue]"]).sweeps


def test_a_file_named_like_a_shipped_sweep_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text("title: of my own\ngrowth: [{kind: depth}]\n")
    request = config.load(str(path))
    assert (request.name, request.sweeps[0][0].title) == ("demo", "of my own")


def test_exclusions_of_a_file_may_idle_where_the_command_line_cuts_its_axis() -> None:
    assert config.load("demo", ["growth=depth", "points.at=[0]"]).sweeps
    with pytest.raises(GrowpointError, match=r"exclude.0.growth names 'width x2'"):
        config.load("demo", ["growth=depth", "exclude=[{growth: ['width x2']}]"])
    # A name that one variant alone has is a name.
    config.load("demo", ["growth.1.factor=2,3", "exclude=[{growth: ['width x3']}]"])


@pytest.mark.parametrize("asked", ["~", "~/runs"])
def test_a_tilde_in_store_is_the_home(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    assert config.load("demo", [f"store='{asked}'"]).store == Path(asked).expanduser()
    assert config.load("demo", ["store='a~b'"]).store == Path("a~b")


def test_a_configuration_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(GrowpointError, match="no configuration folder"):
        config.load("demo", [], tmp_path / "nowhere")


def test_a_shipped_sweep_is_no_file() -> None:
    with pytest.raises(GrowpointError) as caught:
        config.load("demo.yaml")
    assert caught.value.help == "growpoint plan demo"


@pytest.mark.parametrize(
    "content", [b"points: {at: [0\n", b"\xff\xfe\x00binary", b"just words", b"a: *nowhere\n"]
)
def test_a_file_that_is_no_yaml(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(GrowpointError, match="cannot be read"):
        config.load(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("content", [b"layers: {at: [0\n", b"\xff\xfe\x00binary"])
def test_a_file_of_a_group_that_is_no_yaml(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROWPOINT_CONFIG", "")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_bytes(content)
    with pytest.raises(GrowpointError):
        config.load("demo", ["model=mine"], tmp_path)


@pytest.mark.parametrize(
    "overrides",
    [
        ["recipe.lr=1e-3,2e-3", "axes=[{zip: {recipe.clip: [1, 2], recipe.beta1: [0.8, 0.9]}}]"],
        ["recipe=constant,wsd", "recipe.lr=1e-3,2e-3", "seeds=[0,1]"],
        ["growth=depth,orders"],
        ["data=text", "data.paths=[README.md]", "cluster=slurm", "cluster.partition=gpu"],
        ["suite=choices", "recipe=cosine", "name=other"],
    ],
)
def test_the_recorded_configuration_asks_the_same(overrides: list[str], tmp_path: Path) -> None:
    """Axes and varied groups included, with the labels of the first time."""
    asked = config.load("demo", overrides)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(dict(asked.config), sort_keys=False))
    again = config.load(str(file))
    assert len(again.sweeps) == len(asked.sweeps)
    for (one, first), (other, second) in zip(again.sweeps, asked.sweeps, strict=True):
        assert first == second
        assert {**dict(one), "exclude": ()} == {**dict(other), "exclude": ()}
        assert [c.label for c in expand(one, CORPUS)] == [c.label for c in expand(other, CORPUS)]
    assert (again.cluster, again.store, again.name) == (asked.cluster, asked.store, asked.name)


@pytest.mark.parametrize("name", ["width_top_k", "orders", "depth_zeroed", "depth_width"])
def test_an_axis_of_growths_is_not_done_one_after_the_other(name: str) -> None:
    with pytest.raises(GrowpointError, match=f"`growth={name}` is an axis of") as caught:
        config.growth([f"growth={name}"])
    first, *_ = shlex.split(caught.value.help)
    assert config.growth([first.rstrip(",")])


def test_one_entry_of_an_axis_is_a_growth() -> None:
    with pytest.raises(GrowpointError, match="is an axis of") as caught:
        config.growth(["growth=width_noise", "growth.0.noise=0.5"])
    assert "width x2 noise 0.5, " in dict(caught.value.evidence)["entries"]
    (given,) = config.growth(["growth=width", "growth.0.noise=0.5"])
    assert given.label == "width x2 noise 0.5"


@pytest.mark.parametrize("by", ["words", "file"])
def test_a_re_warm_is_an_axis(by: str, tmp_path: Path) -> None:
    axes: dict[str, list[float]] = {"branch.warmup_tokens": [0, 2048], "branch.lr_ratio": [0.5, 1]}
    text = "# @package _global_\npoints: {at: [51200]}\ngrowth: [{kind: depth}]\n"
    words = [f"{key}={','.join(map(str, values))}" for key, values in axes.items()]
    if by == "file":
        text += yaml.safe_dump({"axes": [{"key": k, "values": v} for k, v in axes.items()]})
        words = []
    (tmp_path / "rewarm.yaml").write_text(text)
    request = config.load(str(tmp_path / "rewarm.yaml"), words)
    cells = [c for sweep, variant in request.sweeps for c in expand(sweep, CORPUS, variant)]
    assert len({cell.label for cell in cells}) == len(cells) == 4 * 3
    trained = {arm: {c.trained.id for c in cells if c.arm == arm} for arm in ("grow", "continue")}
    # The control without growth gets what the branches get; scratch and trunk are what they were.
    assert {arm: len(found) for arm, found in trained.items()} == {"grow": 4, "continue": 4}
    assert len({cell.source.id for cell in cells if cell.arm != "scratch"}) == 1
    assert len({cell.trained.id for cell in cells if cell.arm == "scratch"}) == 1
    for cell in cells:
        asked, said = cell.trained.do, dict(cell.variant)
        assert isinstance(asked, Train)
        if cell.arm != "scratch":
            assert said["branch.warmup_tokens"] == str(asked.recipe.warmup_tokens)
            assert float(said["branch.lr_ratio"]) * 3e-3 == pytest.approx(asked.recipe.lr)


def test_steps_of_a_recipe_are_an_axis_with_names() -> None:
    steps = "[{until_tokens: 2e4, sequences: 4}]"
    axis = f"axes=[{{key: recipe.batch_steps, values: [[], {steps}], names: [at once, in steps]}}]"
    request = config.load("demo", [axis])
    assert [dict(variant)["recipe.batch_steps"] for _, variant in request.sweeps] == [
        "at once",
        "in steps",
    ]
    assert [len(sweep.recipe.batches.stretches) for sweep, _ in request.sweeps] == [1, 2]
    recipe = request.sweeps[1][0].recipe
    assert isinstance(recipe, Recipe)
    assert recipe.batch_steps[0].until_tokens == 20000
