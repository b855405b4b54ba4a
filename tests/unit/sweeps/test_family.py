"""Family files: expressions, conditions, names, and errors that say where to look."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import conf
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.expressions import quotient
from sweeps.family import (
    CONFIG_FOLDER_VARIABLE,
    Family,
    evaluate,
    holds,
    load,
    of_model_type,
    place,
)
from sweeps.layers import structural_keys
from sweeps.model import from_config, to_config
from tests.unit.sweeps.conftest import MODEL, plan_of
from tests.unit.sweeps.test_growth import model

NUMBERS = st.integers(1, 1000)
OUT_OF_MIXERS = (
    r"(self_attn\.(o|out)_proj|(mamba|conv|linear_attn)\.out_proj|self_attention\.experts)"
)


@given(a=NUMBERS, b=NUMBERS, c=NUMBERS)
def test_expressions_are_sums_of_products(a: int, b: int, c: int) -> None:
    sizes = {"a": a, "b": b, "c": c}
    assert evaluate("a*b + 2*c", sizes) == a * b + 2 * c
    assert evaluate("7", sizes) == 7
    assert (quotient("a*b/b", sizes), quotient("a + 1/a", sizes)) == (a, 2)


def test_unknown_sizes_are_named() -> None:
    with pytest.raises(GrowpointError, match="`hiden`") as caught:
        evaluate("2*hiden", {"hidden": 4})
    assert "hidden" in caught.value.text()


@pytest.mark.parametrize(
    ("condition", "true"),
    [
        ("", True),
        ("bias", True),
        ("not bias", False),
        ("rank", False),
        ("not rank", True),
        ("bias and not rank", True),
        ("bias and rank", False),
        ("absent", False),
        ("not absent", True),
    ],
)
def test_conditions(condition: str, true: bool) -> None:
    assert holds(condition, {"bias": True, "rank": None}) is true


@pytest.mark.parametrize("name", families.known())
def test_names_in_a_file_refer_to_what_the_file_has(name: str) -> None:
    """A slip in a list would silently do nothing: every name must be a tensor or a setting."""
    family = load(name)
    assert family.name == name
    named = {*family.zeroed_by_depth, *family.tensors_divided_by_width, *family.buffers}
    assert {*named, *family.elementwise} <= family.templates.keys()
    assert family.given.keys() <= {*family.templates, *family.head}
    assert {*family.scaled_by_width, *family.divided_by_width} <= family.settings.keys()
    words = {
        word
        for condition in (*family.given.values(), *family.divided_by_width.values())
        for word in condition.replace("not ", "").split(" and ")
        if word
    }
    assert words <= family.settings.keys()
    assert not family.settings.keys() & family.fixed.keys()
    # Whatever mixes tokens adds to the residual stream by one of these.
    for tensors in [{*mixer.tensors} for mixer in family.mixers.values()] or [{*family.templates}]:
        assert any(re.match(OUT_OF_MIXERS, item) for item in {*family.zeroed_by_depth} & tensors)
    assert family.derived.keys() <= family.settings.keys()
    assert family.implied.keys() <= set(family.per_layer)
    assert {*family.mixer_pattern} <= family.mixers.keys()
    assert bool(family.mixers) == bool(family.mixer_list or family.mixer_period)
    keys = {key for keys in family.config.values() for key in keys}
    periods = {key for periodic in family.implied.values() for key in periodic.keys}
    assert family.defaults.keys() <= keys | structural_keys(family) | periods
    assert not structural_keys(family) & {*family.settings, *family.fixed}


@pytest.mark.parametrize("name", families.known())
def test_families_are_found_by_the_type_of_their_checkpoints(name: str) -> None:
    assert of_model_type(load(name).model_type).name == name


def test_names_that_a_family_lacks_have_no_place() -> None:
    family = load("olmoe")
    for name in ("layers.0.mlp.novel.weight", "novel.weight", "layers.x.mlp.gate.weight"):
        assert place(family, f"model.{name}") is None
    found = place(family, "model.layers.12.mlp.experts.3.up_proj.weight")
    assert found is not None
    assert (found.section, found.layer, found.expert) == ("expert", 12, 3)


@pytest.mark.parametrize("model_type", ["dbrx", "longcat_flash", "minimax"])
def test_architectures_that_cannot_be_grown_at_all_say_why(model_type: str) -> None:
    with pytest.raises(GrowpointError, match=f"`{model_type}` cannot be grown") as caught:
        from_config({"model_type": model_type})
    assert "because" in caught.value.text()
    assert model_type not in families.known()


def test_multimodal_checkpoints_are_told_from_their_language_model() -> None:
    text = to_config(model("llama4_text"))
    assert from_config(text) == model("llama4_text")
    with pytest.raises(GrowpointError, match="multimodal") as caught:
        from_config({"model_type": "llama4", "text_config": text})
    assert "save_pretrained" in caught.value.text()


def test_unknown_families_are_named_with_the_nearest() -> None:
    with pytest.raises(GrowpointError, match="`olmo`") as caught:
        load("olmo")
    assert caught.value.help == "model.family=olmoe"


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(families.CONFIG_FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "family").mkdir()
    return tmp_path / "family"


def test_a_user_can_add_a_family(own_folder: Path) -> None:
    text = (conf.FOLDER / "family/olmoe.yaml").read_text().replace("olmoe", "mine")
    (own_folder / "mine.yaml").write_text(text)
    assert isinstance(load("mine"), Family)
    assert of_model_type("mine").name == "mine"
    assert {"mine", "olmoe"} <= set(families.known())


@pytest.mark.parametrize("text", ["name: broken", "name: [", "name: broken\nnovel: 1", "3"])
def test_mistakes_in_a_file_name_the_file_and_stay_there(text: str, own_folder: Path) -> None:
    (own_folder / "broken.yaml").write_text(text)
    with pytest.raises(GrowpointError, match="cannot be read") as caught:
        load("broken")
    assert "broken.yaml" in caught.value.text()
    assert of_model_type("olmoe").name == "olmoe"


@pytest.mark.parametrize("name", families.known())
def test_files_say_which_keys_they_set_once(name: str) -> None:
    family = load(name)
    raw = yaml.safe_load((conf.FOLDER / f"family/{name}.yaml").read_text())
    keys = [key for keys in family.config.values() for key in keys]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {*family.settings, *family.fixed}
    assert raw["model_type"] == family.model_type


def _renamed(folder: Path, old: str, new: str, name: str = "olmoe") -> set[str]:
    """Ids of the small plan's stages where a user's own family file has `new` for `old`."""
    shipped = (conf.FOLDER / "family" / "olmoe.yaml").read_text()
    assert old in shipped
    (folder / "family").mkdir(parents=True)
    (folder / "family" / f"{name}.yaml").write_text(shipped.replace(old, new))
    return set(plan_of(model={**MODEL, "family": name}).by_id)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("name: olmoe", "name: olmoe", True),
        ("self_attn.q_norm.weight", "self_attn.query_norm.weight", True),
        ("norm_topk_prob: false", "norm_topk_prob: true", False),
        ("clip_qkv: null", "clip_qkv: 8", False),
        ("fixed: {pad_token_id: null,", "fixed: {hidden_act: gelu, pad_token_id: null,", False),
        ("model_type: olmoe", "model_type: flex_olmo", False),
    ],
)
def test_what_a_family_of_ones_own_changes_of_the_network_renames(
    old: str, new: str, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = set(plan_of().by_id)
    monkeypatch.setenv(CONFIG_FOLDER_VARIABLE, str(tmp_path))
    mine = _renamed(tmp_path, old, new)
    assert mine == shipped if same else not mine & shipped


def test_a_family_that_is_not_shipped_is_named_by_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for number, value in enumerate(("false", "true", "false")):
        monkeypatch.setenv(CONFIG_FOLDER_VARIABLE, str(tmp_path / str(number)))
        key = "norm_topk_prob: "
        found.append(_renamed(tmp_path / str(number), f"{key}false", key + value, "mine"))
    assert found[0] == found[2]
    assert not found[0] & found[1]


def test_a_model_is_not_made_by_another_family_than_it_was_planned_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_FOLDER_VARIABLE, str(tmp_path))
    _renamed(tmp_path, "clip_qkv: null", "clip_qkv: 8")
    model = plan_of().stages[0].model
    assert to_config(model)["clip_qkv"] == 8
    monkeypatch.delenv(CONFIG_FOLDER_VARIABLE)
    with pytest.raises(GrowpointError, match="not the one that this model was planned with"):
        to_config(model)
