"""A small sweep on an invented corpus: no file is read."""

from typing import Any

import pytest

from sweeps.data import Bpe, Corpus
from sweeps.plan import Plan, plan
from sweeps.schema import asked, canonical
from sweeps.sweep import Sweep

CORPUS = Corpus(
    kind="stdlib",
    fingerprint="0123456789abcdef",
    tokenizer=Bpe(),
    heldout_share=0.05,
    seed=0,
    vocabulary=512,
)
MODEL = {
    "family": "olmoe",
    "layers": 2,
    "hidden": 64,
    "heads": 4,
    "kv_heads": 4,
    "head_dim": 16,
    "experts": 8,
    "top_k": 2,
    "expert_hidden": 64,
    "vocabulary": 512,
}


def sweep_of(**changes: Any) -> Sweep:
    """The small sweep, changed."""
    fields: dict[str, Any] = {
        "name": "small",
        "model": MODEL,
        "points": {"at": [0, 20480, 40960]},
        "budgets": {"of": "extra", "unit": "tokens", "at": [20480, 40960]},
        "growth": [{"kind": "depth"}, {"kind": "width"}],
        "recipe": {"lr": 3e-3},
        "data": {"kind": "stdlib"},
        "suite": {},
    }
    return Sweep.model_validate({**fields, **changes})


def plan_of(**changes: Any) -> Plan:
    """The plan of the small sweep, changed."""
    sweep = sweep_of(**changes)
    return plan(sweep.name, [(sweep, ())], {canonical(asked(sweep.data)): CORPUS})


@pytest.fixture
def corpus() -> Corpus:
    return CORPUS
