"""What a plan says of finished work: phases to go on from, and why stages are new."""

import time
from pathlib import Path

import pytest

from orchestrator import why
from orchestrator.store import Store, beginnings, phases
from sweeps import cost
from sweeps.plan import Plan
from sweeps.stages import Train, shares_start
from tests.unit.sweeps.conftest import plan_of

BATCH = 2048


def finished(store: Store, plan: Plan) -> None:
    """Records for all stages of a plan, as little as counts as done."""
    for stage in plan.stages:
        folder = store.run(stage.id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stage.json").write_text(stage.text)
        (folder / "record.json").write_text("{}")


def at(*points: int, **more: object) -> Plan:
    return plan_of(points={"at": [point * BATCH for point in points]}, **more)


@pytest.mark.parametrize("kind", ["constant", "wsd", "cosine"])
def test_beginnings_are_the_finished_phases_that_share_a_start(kind: str, tmp_path: Path) -> None:
    store, schedule = Store(tmp_path), {"schedule": {"kind": kind}}
    old, new = at(4, 10, branch=schedule), at(7, 12, 20, branch=schedule)
    finished(store, old)
    known = phases(store)
    for stage in new.stages:
        passed = [other for other in old.stages if shares_start(stage, other)]
        lengths = sorted((getattr(other.do, "tokens", 0), other.id) for other in passed)
        assert [s.id for s in beginnings(store, stage, known)] == [i for _, i in lengths][::-1]


def test_what_finished_shorter_phases_spare(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store, at(4, arms=["continue"]))
    new = at(10, arms=["continue"])
    trunk = next(s for s in new.stages if isinstance(s.do, Train) and s.do.tokens == 10 * BATCH)
    assert why.spared_flops(store, new) == pytest.approx(cost.flops(trunk) * 4 / 10)


@pytest.mark.parametrize("damage", ['{"after": ', "[]", "{}", '{"do": 1, "after": null}', "\xff"])
def test_damaged_files_of_other_sweeps_are_passed_over(damage: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store, at(4))
    new = at(10)
    before = why.spared_flops(store, new), why.explain(store, new)
    for name in ("train-0123456789", "init-0123456789"):
        store.run(name).mkdir()
        (store.run(name) / "stage.json").write_bytes(damage.encode("latin-1"))
        (store.run(name) / "record.json").write_text("{}")
    assert (why.spared_flops(store, new), why.explain(store, new)) == before


def test_many_phases_of_one_trunk_are_looked_at_once(tmp_path: Path) -> None:
    """Quadratic in the number of phases, this takes several seconds."""
    store = Store(tmp_path)
    one = {"budgets": {"unit": "tokens", "at": [BATCH]}, "arms": ["continue"], "growth": []}
    finished(store, at(*range(1, 841, 2), **one))
    new = at(*range(2, 801, 2), **one)
    started = time.process_time()
    assert why.spared_flops(store, new) > 0
    assert time.process_time() - started < 2
