"""`recommend --series NAME`: which sweep is over it, and what checkpoints it has."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from orchestrator import swept
from orchestrator.arguments import parse
from sweeps.errors import GrowpointError

DOCS = {"recommend": ""}


def plan(root: Path, sweep: str, *series: str) -> None:
    folder = root / "plans" / sweep
    folder.mkdir(parents=True)
    cells = [{"label": str(index), "series": name} for index, name in enumerate(series)]
    (folder / "plan.json").write_text(json.dumps({"sweep": sweep, "cells": cells, "stages": {}}))


def asked(root: Path, *words: str) -> Namespace:
    return parse(["recommend", *words, f"store={root}"], DOCS)


def test_the_one_sweep_over_a_series_is_found(tmp_path: Path) -> None:
    plan(tmp_path, "old", "")
    plan(tmp_path, "mine", "run1", "run1", "")
    plan(tmp_path, "other", "run2")
    arguments = asked(tmp_path, "--series", "run1", "--extra", "1e20")
    assert arguments.sweep is None
    assert swept.listed(arguments) == []
    assert arguments.sweep == "mine"


def test_several_sweeps_have_to_be_told_apart(tmp_path: Path) -> None:
    plan(tmp_path, "mine", "run1")
    plan(tmp_path, "again", "run1")
    with pytest.raises(GrowpointError, match="several sweeps are over the series `run1`") as caught:
        swept.listed(asked(tmp_path, "--series", "run1"))
    assert "growpoint recommend again --series run1" in caught.value.text()
    arguments = asked(tmp_path, "mine", "--series", "run1")
    swept.listed(arguments)
    assert arguments.sweep == "mine"


def test_without_any_the_known_series_are_named(tmp_path: Path) -> None:
    plan(tmp_path, "mine", "run1")
    with pytest.raises(GrowpointError, match="no sweep over the series `run2`") as caught:
        swept.listed(asked(tmp_path, "--series", "run2"))
    assert "run1" in caught.value.text()


def test_the_checkpoints_of_a_series_are_listed(tmp_path: Path) -> None:
    """Sizes come from the first config.json; weights are not read."""
    config = {
        "model_type": "olmoe",
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "vocab_size": 256,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
    }
    for step in (10, 20):
        folder = tmp_path / "ckpts" / f"step_{step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes(b"")
    described = tmp_path / "run1.yaml"
    described.write_text(f"folder: {tmp_path}/ckpts/step_{{step}}\ntokens_per_step: 1000\n")
    plan(tmp_path, "mine", "run1")
    arguments = asked(tmp_path, "--series", str(described))
    rows = swept.listed(arguments)
    assert (arguments.sweep, arguments.series) == ("mine", "run1")
    assert [row["checkpoint"] for row in rows] == ["step_10", "step_20"]
    assert [row["tokens"] for row in rows] == [10_000, 20_000]
    assert rows[1]["sunk_flops"] == 2 * rows[0]["sunk_flops"] > 0


def test_no_series_asks_nothing() -> None:
    arguments = parse(["recommend", "demo", "--extra", "1e11,2e11", "--sunk", "0"], DOCS)
    assert swept.listed(arguments) == []
    assert arguments.extra == (1e11, 2e11)
    with pytest.raises(GrowpointError, match="is not an amount of FLOPs"):
        parse(["recommend", "demo", "--extra", "1e11,"], DOCS)
