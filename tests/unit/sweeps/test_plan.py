"""Plans: deterministic, prefix-sharing, and shared by sweeps that ask for the same."""

import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps import cost
from sweeps.errors import GrowpointError
from sweeps.plan import Plan, to_json
from sweeps.recipe import Wsd
from sweeps.stages import Evaluate, Grow, Init, Stage, Train, build, shares_start
from tests.unit.sweeps.conftest import plan_of

BATCH = 2048
points = st.lists(st.integers(0, 40), min_size=1, max_size=5, unique=True).map(
    lambda steps: [step * BATCH for step in steps]
)
budgets = st.lists(st.integers(3, 40), min_size=1, max_size=3, unique=True).map(
    lambda steps: [step * BATCH for step in steps]
)
schedules = st.sampled_from([{"kind": "constant"}, {"kind": "wsd"}, {"kind": "cosine"}])


def planned(at: list[int], left: list[int], schedule: dict[str, str]) -> Plan:
    return plan_of(
        points={"at": at},
        budgets={"of": "extra", "unit": "tokens", "at": left},
        branch={"schedule": schedule},
    )


def test_expanding_twice_gives_the_same() -> None:
    assert to_json(plan_of()) == to_json(plan_of())


@given(points, budgets, schedules)
@settings(max_examples=40, deadline=None)
def test_every_stage_comes_after_what_it_needs(
    at: list[int], left: list[int], schedule: dict[str, str]
) -> None:
    plan = planned(at, left, schedule)
    seen: set[str] = set()
    for stage in plan.stages:
        before = plan.before(stage)
        assert before is None or before.id in seen
        assert stage.after is None or stage.after.id in seen
        seen.add(stage.id)


@given(points, budgets, schedules, st.booleans())
@settings(max_examples=40, deadline=None)
def test_jobs_run_every_stage_once_and_in_order(
    at: list[int], left: list[int], schedule: dict[str, str], apart: bool
) -> None:
    plan = replace(planned(at, left, schedule), evaluate_apart=apart)
    if apart:
        kinds = [{stage.do.kind == "evaluate" for stage in job.stages} for job in plan.jobs]
        assert all(len(kind) == 1 for kind in kinds)
    held = Counter(stage.id for job in plan.jobs for stage in job.stages)
    assert held == Counter(stage.id for stage in plan.stages)
    job_of = {stage.id: job.id for job in plan.jobs for stage in job.stages}
    for job in plan.jobs:
        before = plan.before(job.stages[0])
        assert job.after == ((job_of[before.id],) if before else ())
        for first, second in zip(job.stages, job.stages[1:], strict=False):
            assert plan.before(second) == first


@given(points, budgets, schedules)
@settings(max_examples=40, deadline=None)
def test_sharing_never_costs_more(at: list[int], left: list[int], schedule: dict[str, str]) -> None:
    plan = planned(at, left, schedule)
    assert plan.planned_flops <= plan.wanted_flops * (1 + 1e-9)


@given(points, points)
@settings(max_examples=40, deadline=None)
def test_a_trunk_cut_elsewhere_keeps_its_names(one: list[int], other: list[int]) -> None:
    """A further source point renames nothing: extending a sweep never runs a stage again."""
    before = {cell.stage.id for cell in plan_of(points={"at": one}).cells}
    both = sorted({*one, *other})
    after = {cell.stage.id for cell in plan_of(points={"at": both}).cells}
    assert before <= after


def test_a_trunk_is_paid_once() -> None:
    plan = plan_of(points={"at": [0, 20480, 40960]}, arms=["grow"], growth=[{"kind": "depth"}])
    trunk = [s for s in plan.stages if isinstance(s.do, Train) and s.do.stream == "forward"]
    each = cost.train_flops_per_token(trunk[0].model, 128)
    assert sum(plan.flops(stage) for stage in trunk) == pytest.approx(40960 * each)


def test_ending_schedules_share_their_open_part() -> None:
    plan = plan_of(branch={"schedule": {"kind": "wsd", "cooldown": 0.25}}, arms=["continue"])
    ends = [s for s in plan.stages if isinstance(s.do, Train) and s.do.ends]
    longest = max(s.do.tokens for s in ends if isinstance(s.do, Train))
    for stage in ends:
        before = plan.before(stage)
        assert before is not None
        assert isinstance(stage.do, Train)
        if stage.do.tokens == longest:
            assert isinstance(before.do, Train)
            assert before.do.tokens == 7 * BATCH
            assert shares_start(stage, before)


def test_a_phase_does_not_pass_through_another_ending() -> None:
    plan = plan_of(branch={"schedule": {"kind": "cosine"}})
    for stage in plan.stages:
        if isinstance(stage.do, Train) and stage.do.ends:
            assert stage.id not in plan.resumes


def test_two_sweeps_share_what_they_both_ask_for() -> None:
    extra = plan_of()
    total = plan_of(
        name="total",
        points={"at": [0, 10240, 20480]},
        budgets={"of": "total", "unit": "tokens", "at": [61440]},
    )
    shared = set(extra.by_id) & set(total.by_id)
    kinds = {extra.by_id[stage].do.kind for stage in shared}
    assert {"init", "train", "grow"} <= kinds


def test_total_budgets_count_what_is_sunk() -> None:
    plan = plan_of(budgets={"of": "total", "unit": "flops", "at": [5e10]})
    for cell in plan.cells:
        step = BATCH * cost.train_flops_per_token(cell.trained.model, 128)
        assert cell.sunk_flops + cell.extra_flops == pytest.approx(5e10, abs=step / 2 * 1.001)


def test_a_total_below_what_is_sunk_is_refused() -> None:
    with pytest.raises(GrowpointError, match="smaller than what is already spent"):
        plan_of(budgets={"of": "total", "unit": "tokens", "at": [20480]})


def test_budgets_below_one_batch_are_refused() -> None:
    with pytest.raises(GrowpointError, match="less than one batch"):
        plan_of(budgets={"of": "extra", "unit": "tokens", "at": [100]})
    with pytest.raises(GrowpointError, match="less than one batch"):
        plan_of(points={"at": [100]})


def test_arms_are_what_they_say() -> None:
    for cell in plan_of().cells:
        verbs = [type(stage.do) for stage in cell.stage.lineage]
        assert verbs[0] is Init
        assert verbs[-1] is Evaluate
        assert (Grow in verbs) == (cell.arm == "grow")
        if cell.arm == "scratch":
            assert cell.sunk_flops == 0
            assert cell.trained.model.layers * cell.trained.model.experts == 32
        if cell.arm == "continue":
            assert cell.trained.model == cell.source.model


def test_every_arm_reads_the_same_fresh_tokens() -> None:
    branches = [cell.trained.do for cell in plan_of().cells]
    assert {(do.stream, do.seed) for do in branches if isinstance(do, Train)} == {("backward", 0)}


def test_excluded_cells_are_left_out() -> None:
    whole, part = plan_of(), plan_of(exclude=[{"growth": ["width x2"], "point": [0, 1]}])
    gone = {cell.label for cell in whole.cells} - {cell.label for cell in part.cells}
    assert gone
    assert all("grow width x2" in label for label in gone)
    assert len(whole.cells) - len(part.cells) == 4


def test_seeds_share_nothing() -> None:
    first, second = plan_of(seeds=[0]), plan_of(seeds=[1])
    assert not set(first.by_id) & set(second.by_id)
    assert set(plan_of(seeds=[0, 1]).by_id) == set(first.by_id) | set(second.by_id)


def test_a_stage_is_built_back_from_its_text() -> None:
    plan = plan_of(branch={"schedule": Wsd().model_dump()})

    def load(stage_id: str) -> Stage:
        return build(plan.by_id[stage_id].text, load)

    for stage in plan.stages:
        assert load(stage.id).id == stage.id
        assert load(stage.id).model == stage.model


def test_circumstance_is_not_in_the_text() -> None:
    text = "".join(stage.text for stage in plan_of().stages)
    for word in ("small", "store", "partition", "flops", "title"):
        assert word not in text


def test_points_that_round_to_the_same_batch_are_refused() -> None:
    with pytest.raises(GrowpointError, match=r"points.at.1 and points.at.2 are the same after"):
        plan_of(points={"at": [0, 51200, 51300]})


def test_budgets_that_round_to_the_same_batch_are_refused() -> None:
    with pytest.raises(GrowpointError, match=r"budgets.at.0 and budgets.at.1 are the same after"):
        plan_of(budgets={"of": "extra", "unit": "flops", "at": [5.0e10, 5.0001e10]})


@given(points, budgets, schedules)
@settings(max_examples=40, deadline=None)
def test_a_phase_goes_on_from_the_longest_that_it_passes(
    at: list[int], left: list[int], schedule: dict[str, str]
) -> None:
    plan = planned(at, left, schedule)
    for stage in plan.stages:
        passed = [other for other in plan.stages if shares_start(stage, other)]
        longest = max(passed, key=lambda other: getattr(other.do, "tokens", 0), default=None)
        assert plan.resumes.get(stage.id) == longest


def test_a_plan_grows_in_time_with_its_cells() -> None:
    """Half a second; 5.4 s where each length is held against all shorter ones."""
    started = time.process_time()
    steps = [BATCH * step for step in range(1, 1201)]
    plan = plan_of(
        points={"at": steps},
        budgets={"unit": "tokens", "at": [BATCH]},
        growth=[],
        arms=["continue"],
    )
    assert len(plan.cells) == 1200
    assert time.process_time() - started < 2.5
