"""How training computes: circumstance that reaches whoever trains, and no stage."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import local, slurm_batch
from orchestrator.work import Circumstance, exported
from sweeps.cluster import Local, Slurm

PLAIN = {name: getattr(Circumstance(), name) for name in Local.model_fields if name != "kind"
         if hasattr(Circumstance(), name)}  # fmt: skip
ASKED: list[dict[str, Any]] = [
    {},
    {"micro_batch_tokens": 2048},
    {"activation_checkpointing": True},
    {"micro_batch_tokens": 64, "activation_checkpointing": True, "compile": True},
]


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_it_reaches_workers_and_jobs(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SimpleNamespace(cluster=Local(**asked))
    given = local.Pool._environment(pool, None)  # type: ignore[arg-type]
    lines = "\n".join(slurm_batch._environment(Slurm(partition="p", **asked)))
    said = exported(Local(**asked))
    assert len(said) == len(asked)
    assert said.items() <= given.items()
    assert said.items() <= dict(re.findall(r"export (\w+)=(\S+)", lines)).items()
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    there = Circumstance()
    assert {name: getattr(there, name) for name in PLAIN} == {**PLAIN, **asked}


def test_no_stage_knows_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exported(Local()) == exported(Slurm(partition="p")) == {}
    monkeypatch.setenv("GROWPOINT_ACTIVATION_CHECKPOINTING", "0")
    assert not Circumstance().activation_checkpointing
