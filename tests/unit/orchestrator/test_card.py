"""The card of a grown checkpoint says all that its operators say, and what came from where."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import card, lineage
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, grown
from sweeps.model import Model

FIELDS = {
    "family": "olmoe",
    "layers": 4,
    "hidden": 32,
    "heads": 4,
    "kv_heads": 4,
    "head_dim": 8,
    "experts": 4,
    "top_k": 2,
    "expert_hidden": 16,
    "vocabulary": 64,
}
MODEL = Model.model_validate(FIELDS)
HASH = "0123456789abcdef" * 4


def written(
    folder: Path,
    *growths: list[Depth | Width],
    model: Model = MODEL,
    dropped: tuple[str, ...] = (),
    unknown: tuple[str, ...] = (),
) -> str:
    """The card after a chain of growths, each of the one before."""
    told: list[dict[str, Any]] = []
    for seed, operators in enumerate(growths):
        told.append(card.step(f"source-{seed}", HASH, operators, seed))
        before, model = model, grown(model, operators)
    folder.mkdir(parents=True, exist_ok=True)
    card.write(folder, before, growths[-1], told, dropped, unknown)
    return (folder / "README.md").read_text()


def test_maps_are_drawn_and_sizes_counted(tmp_path: Path) -> None:
    text = written(tmp_path, [Depth(), Width()])
    assert "\n    0 0 1 1 2 2 3 3\n" in text
    assert "\n    0 1 2 3 0 1 2 3\n" in text
    assert "| layers | 4 | 8 |" in text
    assert "| experts a token | 2 | 4 |" in text
    assert f"1. `source-0` (sha256 `{HASH}`), seed 0" in text
    assert "noise of\n0.01 times the standard deviation" in text


def test_every_growth_of_a_chain_has_its_own_map(tmp_path: Path) -> None:
    chain: list[list[Depth | Width]] = [
        [Depth(order="stack")],
        [Width(noise=0)],
        [Depth(keep_first=1)],
    ]
    text = written(tmp_path, *chain)
    places = [
        text.rindex(words)
        for words in (
            "1. `source-0`",
            "0 1 2 3 0 1 2 3\n\n2.",
            "2. `source-1`",
            "experts from\n\n       0 1 2 3 0 1 2 3",
            "3. `source-2`",
            "layers from\n\n       0 1 1 2 2 3 3 4 4 5 5 6 6 7 7",
        )
    ]
    assert places == sorted(places)
    assert "normal noise" not in text


@given(
    st.one_of(
        st.builds(
            Depth,
            order=st.sampled_from(["interpose", "stack"]),
            factor=st.integers(1, 3),
            copies=st.sampled_from(["same", "zeroed"]),
        ),
        st.builds(
            Width,
            factor=st.integers(1, 3),
            top_k=st.sampled_from(["scaled", "kept"]),
            redrawn=st.sampled_from([0.0, 0.5]),
            order=st.sampled_from(["appended", "interleaved"]),
        ),
    )
)
def test_every_field_of_an_operator_is_stated(
    tmp_path_factory: pytest.TempPathFactory, operator: Depth | Width
) -> None:
    """Whatever fields there are: the card must not have to know them."""
    text = written(tmp_path_factory.mktemp("card"), [operator])
    (line,) = re.findall(rf"^   - {operator.kind}: (.*)$", text, re.MULTILINE)
    stated = dict(words.split(" ", 1) for words in line.split(", "))
    fields = {k: v for k, v in operator.model_dump().items() if k != "kind" and v != ()}
    assert stated == {key: str(value) for key, value in fields.items()}
    zeroed = isinstance(operator, Depth) and operator.copies == "zeroed"
    assert ("`self_attn.o_proj.weight`" in text) == zeroed


def test_a_list_of_layers_is_stated(tmp_path: Path) -> None:
    text = written(tmp_path, [Depth(layers=(0, 1, 1, 2, 3, 3))])
    assert "\n    0 1 1 2 3 3\n" in text
    assert "layers 0 1 1 2 3 3" in text


def test_long_maps_are_wrapped(tmp_path: Path) -> None:
    model = Model.model_validate({**FIELDS, "experts": 192})
    text = written(tmp_path, [Width()], model=model)
    drawn = re.findall(r"^    (\d[\d ]*)$", text, re.MULTILINE)
    assert " ".join(drawn).split() == [str(n) for n in [*range(192), *range(192)]]
    assert max(map(len, drawn)) <= 76


def test_what_is_changed_divided_left_out_or_unknown_is_told(tmp_path: Path) -> None:
    sizes = {**FIELDS, "heads": 4, "dense_layers": 1, "dense_hidden": 16}
    groups = {"n_group": 2, "topk_group": 1, "norm_topk_prob": False}
    deepseek = Model.model_validate({**sizes, "family": "deepseek_v3", "settings": groups})
    text = written(tmp_path / "a", [Width()], model=deepseek, dropped=("model.layers.4.x",))
    assert "`n_group` 2 -> 4" in text
    assert "`routed_scaling_factor` 2.5 -> 1.25" in text
    assert "Left out: 1 tensors" in text
    assert "`model.layers.4.x`" in text
    ernie = Model.model_validate({**sizes, "family": "ernie4_5_moe"})
    assert "Divided by 2" in written(tmp_path / "b", [Width()], model=ernie)
    assert "Divided by" not in written(tmp_path / "c", [Width(top_k="kept")], model=ernie)
    assert "(`extra`, ...)" in written(tmp_path / "d", [Depth()], unknown=("extra", "more"))


def test_loading_is_told_for_what_is_there(tmp_path: Path) -> None:
    assert "AutoTokenizer" not in written(tmp_path, [Depth()])
    (tmp_path / "tokenizer.json").write_text("{}")
    config = {"model_type": "olmoe", "transformers_version": "5.1.0"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    text = written(tmp_path, [Depth()])
    assert "AutoTokenizer" in text
    assert "model_type `olmoe`" in text
    assert "5.1.0" in text


def test_a_lineage_of_another_checkpoint_does_not_stop_a_growth(tmp_path: Path) -> None:
    """growth.json may come from another program, or belong to other weights."""
    strange = [
        {"source": "x"},
        {**card.step("odd", HASH, [Depth(factor=3)], 0)},
        card.step("source", HASH, [Depth()], 1),
    ]
    card.write(tmp_path, MODEL, [Depth()], strange, ())
    text = (tmp_path / "README.md").read_text()
    assert "1. `odd`" in text
    assert "2. `source`" in text
    assert json.loads((tmp_path / "growth.json").read_text()) == strange
    with pytest.raises(GrowpointError, match="lineage cannot be read"):
        lineage.steps(tmp_path)
