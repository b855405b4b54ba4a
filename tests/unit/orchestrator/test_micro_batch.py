"""Tokens of one pass: circumstance that reaches whoever trains, and no stage."""

from types import SimpleNamespace

import pytest

from orchestrator import local, slurm_batch
from orchestrator.work import MICRO_BATCH_VARIABLE, Circumstance
from sweeps.cluster import Local, Slurm


def test_it_is_as_the_trainer_likes_unless_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MICRO_BATCH_VARIABLE, raising=False)
    assert Circumstance().micro_batch_tokens is None
    monkeypatch.setenv(MICRO_BATCH_VARIABLE, "4096")
    assert Circumstance().micro_batch_tokens == 4096


@pytest.mark.parametrize("tokens", [None, 2048])
def test_it_reaches_workers_and_jobs(tokens: int | None) -> None:
    pool = SimpleNamespace(cluster=Local(micro_batch_tokens=tokens))
    given = local.Pool._environment(pool, None)  # type: ignore[arg-type]
    assert given.get(MICRO_BATCH_VARIABLE) == (str(tokens) if tokens else None)
    lines = slurm_batch._environment(Slurm(partition="p", micro_batch_tokens=tokens))
    exported = [line for line in lines if MICRO_BATCH_VARIABLE in line]
    assert exported == ([f"export {MICRO_BATCH_VARIABLE}=2048"] if tokens else [])
