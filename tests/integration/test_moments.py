"""Carried optimizer states: grown by the maps that grow weights, and bit for bit a continuation."""

import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from orchestrator import checkpoint, models, verbs
from orchestrator.grow import grow
from orchestrator.loop import Loop
from orchestrator.moments import FILE, MOMENTS, Carried, Growth
from orchestrator.optimizer import Optimizer
from orchestrator.phase import Position
from orchestrator.store import Store
from orchestrator.tokens import Stream
from orchestrator.work import Circumstance, Work
from sweeps import family as families
from sweeps.data import Corpus
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, grown
from sweeps.model import Model
from sweeps.recipe import Recipe
from sweeps.stages import Grow, Init, Stage, Train
from tests.integration.test_train import BATCH, MODEL, RECIPE, Place, after
from tests.integration.tiny_corpus import prepared
from tests.integration.tiny_families import ALL, network, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Operators = tuple[Depth | Width, ...]
SPREAD = {"exp_avg": 1.0, "exp_avg_sq": 4.0}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    return prepared(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def place(tmp_path: Path, tokens: tuple[Corpus, Path]) -> Place:
    return Place(tmp_path, *tokens)


def source(model: Model, folder: Path) -> Path:
    """A checkpoint whose moments are its own weights, once and fourfold: so growing them is known,
    as growth of weights is tested elsewhere."""
    state = Optimizer(loaded(model, folder, seed=0), Recipe())
    with torch.no_grad():
        for weight in state._named.values():
            for moment, factor in SPREAD.items():
                state._adamw.state[weight][moment].copy_(weight * factor)
    state.save(folder)
    return folder


def loaded(model: Model, folder: Path, seed: int) -> PreTrainedModel:
    """A random network as a phase of training sees it."""
    network(model, seed).save_pretrained(folder)
    return models.load(folder)


def carry(
    model: Model, folder: Path, operators: Operators, updates: int = 7
) -> dict[str, dict[str, torch.Tensor]]:
    """Moments by kind and weight, carried from `folder` into a network of the grown sizes."""
    other = loaded(grown(model, operators), folder.with_name("other"), seed=1)
    state = Optimizer(other, Recipe())
    state.carry(Carried(folder, Growth(model, operators), updates))
    assert {float(one["step"]) for one in state._adamw.state.values()} == {updates}
    return {
        moment: {name: state._adamw.state[p][moment] for name, p in state._named.items()}
        for moment in MOMENTS
    }


def require_like_weights(model: Model, folder: Path, operators: Operators) -> None:
    """Moments grow as the weights do when there is no noise; a zeroed copy's are zero."""
    target = folder.with_name("grown")
    shutil.rmtree(target, ignore_errors=True)
    grow(folder, target, operators, 0)
    found = carry(model, folder, operators)
    learnt = {n: p for n, p in models.load(target).named_parameters() if p.requires_grad}
    for moment, factor in SPREAD.items():
        assert found[moment].keys() == learnt.keys()
        for name, weight in learnt.items():
            divided = divided_by(model, operators, name)
            if divided == 1:
                assert torch.equal(found[moment][name], weight * factor), f"{moment}.{name}"
            else:
                torch.testing.assert_close(found[moment][name], weight * factor * divided)


def divided_by(model: Model, operators: Operators, name: str) -> int:
    """What growth divides a weight by; moments are those of the weight, and are not divided."""
    family = families.load(model.family)
    place = families.place(family, name)
    assert place
    widths = [o.factor for o in operators if isinstance(o, Width) and o.sums_copies]
    return prod(widths) if place.template in family.tensors_divided_by_width else 1


def depth_of(model: Model) -> Depth:
    """Layers repeated in an order that the family holds: what is dense may have to stay in front,
    and what comes in periods to stay whole."""
    orders = (Depth(keep_first=int(model.is_dense(0))), Depth(order="stack"))
    return next(depth for depth in orders if held(model, (depth,)))


def held(model: Model, operators: Operators) -> bool:
    try:
        grown(model, operators)
    except GrowpointError:
        return False
    return True


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("name", ALL)
def test_moments_grow_as_weights_do(name: str, number: int, tmp_path: Path) -> None:
    model = tiny(name)
    depth = depth_of(model)
    zeroed = depth.model_copy(update={"copies": "zeroed"})
    chains: list[Operators] = [
        (Width(noise=0, factor=3), depth),
        (zeroed, Width(noise=0)),
        (Width(experts="kept"), depth),
    ]
    if not held(model, chains[number]):
        # a family whose experts cannot be widened, or whose copies cannot be zeroed
        assert held(model, (depth,))
        chains[number] = (depth,)
    require_like_weights(model, source(model, tmp_path / "source"), chains[number])


OPERATORS: st.SearchStrategy[Depth | Width] = st.one_of(
    st.builds(
        Depth,
        order=st.sampled_from(["interpose", "stack"]),
        factor=st.integers(1, 3),
        keep_first=st.integers(0, 1),
        keep_last=st.integers(0, 1),
        copies=st.sampled_from(["same", "zeroed"]),
    ),
    st.builds(
        Width,
        factor=st.integers(1, 3),
        noise=st.just(0.0),
        top_k=st.sampled_from(["scaled", "kept"]),
        order=st.sampled_from(["appended", "interleaved"]),
    ),
)


@given(operators=st.lists(OPERATORS, min_size=1, max_size=3).map(tuple))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_chain_of_growths(operators: Operators, tmp_path: Path) -> None:
    # As many experts as hidden units and heads: an axis is not told by its length.
    model = tiny("olmoe", hidden=16, heads=2, kv_heads=2, head_dim=8, experts=16, layers=3)
    folder = tmp_path / "source"
    if not folder.exists():
        source(model, folder)
    require_like_weights(model, folder, operators)


@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_noise_leaves_moments_alone(noise: float, tmp_path: Path) -> None:
    model = tiny("olmoe")
    folder = source(model, tmp_path / "source")
    quiet, noisy = (carry(model, folder, (Width(noise=alpha),)) for alpha in (0.0, noise))
    for moment in MOMENTS:
        assert all(torch.equal(noisy[moment][n], found) for n, found in quiet[moment].items())


REPLACING = [
    (Width(experts="random"), "experts."),
    (Width(redrawn=0.5, noise=0), "experts."),
    (Width(router="random"), ".gate."),
]


@pytest.mark.parametrize(("width", "replaced"), REPLACING)
@pytest.mark.parametrize("then", [(), (Depth(),), (Width(noise=0, order="interleaved"),)])
def test_replaced_weights_have_no_past(
    width: Width, replaced: str, then: Sequence[Depth | Width], tmp_path: Path
) -> None:
    model = tiny("qwen3_moe")
    folder = source(model, tmp_path / "source")
    like = carry(model, folder, (Width(noise=0), *then))
    found = carry(model, folder, (width, *then))
    # copies of copies are copies: rows by the map of the widths alone
    new = torch.arange(16) >= 8
    if then and isinstance(then[0], Width):
        new = new.repeat_interleave(2)
    for moment in MOMENTS:
        for name, expected in like[moment].items():
            if replaced in name:
                assert not found[moment][name][new].any()
                assert torch.equal(found[moment][name][~new], expected[~new])
                assert found[moment][name][~new].any()
            else:
                assert torch.equal(found[moment][name], expected)


# --- a phase that goes on ------------------------------------------------------------------------


class Later(Stream):
    """A stream seen from a later position: what a phase reads that goes on where another ended."""

    def __init__(self, skipped: int, *args: Any) -> None:
        super().__init__(*args)
        self._skipped = skipped

    def batch(self, tokens: int, sequences: int) -> Any:
        return super().batch(tokens + self._skipped, sequences)


def trained(place: Place, name: str) -> Carried:
    return Carried(place.folder / name, Growth(MODEL), 4)


def steps(place: Place, carried: Carried | None, count: int = 5) -> list[torch.Tensor]:
    """Weights and moments after some steps on the batches that follow the first four."""
    state = "carried" if carried else "fresh"
    do = place.do(count, warmup_tokens=0, optimizer_state=state)
    stream = Later(4 * BATCH, place.tokens, RECIPE.sequence_tokens, 0, "forward")
    loop = Loop(do, place.folder / "trunk", Position(), stream, carried)
    for _ in range(count):
        loop.step()
    state_of = loop.optimizer._adamw.state
    found = loop.optimizer._named.values()
    return [*found, *(state_of[weight][moment] for weight in found for moment in MOMENTS)]


def test_a_carried_phase_is_the_uninterrupted_one_bit_for_bit(place: Place) -> None:
    place.train(place.do(4, warmup_tokens=0), "trunk")
    place.train(place.do(9, warmup_tokens=0), "whole")
    loaded = models.load(place.folder / "whole")
    whole = Optimizer(loaded, RECIPE)
    whole.load(place.folder / "whole", 9)
    weights = list(whole._named.values())
    expected = [*weights, *(whole._adamw.state[w][m] for w in weights for m in MOMENTS)]
    carried = steps(place, trained(place, "trunk"))
    assert all(torch.equal(one, other) for one, other in zip(carried, expected, strict=True))
    # and nothing less would do: no moments, or moments taken for younger than they are
    for other in (None, Carried(place.folder / "trunk", Growth(MODEL), 0)):
        found = steps(place, other)
        assert not all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


GROWTHS: list[Operators] = [(), (Depth(),), (Width(),), (Depth(), Width())]


@pytest.mark.parametrize("operators", GROWTHS)
def test_any_way_of_cutting_a_carried_phase_gives_the_same_bits(
    operators: Operators, place: Place
) -> None:
    place.train(place.do(4), "trunk")
    folder = place.folder / "trunk"
    if operators:
        grow(folder, place.folder / "grown", operators, 0)
    start = place.folder / ("grown" if operators else "trunk")
    more: dict[str, Any] = {
        "source": start,
        "carried": Carried(folder, Growth(MODEL, operators), 4),
    }
    do, state = place.do(9, optimizer_state="carried"), {"optimizer_state": "carried"}
    place.train(do, "whole", **more)
    assert not place.train(do, "cut", stop=after(3), **more).finished
    assert place.train(do, "cut", **more).resumed_tokens == 3 * BATCH
    place.train(place.do(5, **state), "short", **more)
    through = place.train(do, "through", resume=[place.folder / "short"], **more)
    assert through.resumed_tokens == 5 * BATCH
    assert place.weights("cut") == place.weights("through") == place.weights("whole")
    assert place.moments("cut") == place.moments("through") == place.moments("whole")
    fresh = place.do(9)
    place.train(fresh, "fresh", source=start)
    assert place.weights("fresh") != place.weights("whole")
    # neither is taken for a beginning of the other
    came = place.train(do, "again", resume=[place.folder / "fresh"], **more)
    assert came.resumed_tokens == 0


def test_a_resumed_phase_needs_the_state_before_it_no_more(place: Place) -> None:
    place.train(place.do(4), "trunk")
    do = place.do(6, optimizer_state="carried")
    more = {"source": place.folder / "trunk", "carried": trained(place, "trunk")}
    place.train(do, "whole", **more)
    place.train(do, "cut", stop=after(2), **more)
    (place.folder / "trunk" / FILE).unlink()
    place.train(do, "cut", **more)
    assert place.weights("cut") == place.weights("whole")


# --- states that cannot be carried ---------------------------------------------------------------


def refused(place: Place, growth: Growth | None = None) -> GrowpointError:
    carried = Carried(place.folder / "trunk", growth or Growth(MODEL), 4, again="make it again")
    with pytest.raises(GrowpointError) as caught:
        place.train(
            place.do(6, optimizer_state="carried"),
            "next",
            source=place.folder / "init",
            carried=carried,
        )
    assert not (place.folder / "next").exists()
    return caught.value


def test_a_missing_state_is_named(place: Place) -> None:
    place.train(place.do(4), "trunk")
    (place.folder / "trunk" / FILE).unlink()
    error = refused(place)
    assert "cannot be read" in error.problem
    assert ("says", "there is no such file") in error.evidence
    assert error.help == "make it again"


@pytest.mark.parametrize("sealed", [True, False])
def test_a_damaged_state_is_noticed(sealed: bool, place: Place) -> None:
    place.train(place.do(4), "trunk")
    path = place.folder / "trunk" / FILE
    content = bytearray(path.read_bytes())
    if sealed:
        content[-3] ^= 1
    else:
        (path.parent / checkpoint.MANIFEST).unlink()
        del content[-3:]
    path.write_bytes(content)
    error = refused(place)
    assert "cannot be read" in error.problem
    assert error.help == "make it again"


@pytest.mark.parametrize("change", ["lacks", "adds", "reshapes"])
def test_a_state_of_other_weights_is_refused(change: str, place: Place) -> None:
    place.train(place.do(4), "trunk")
    path = place.folder / "trunk" / FILE
    found = load_file(path)
    name = "exp_avg.model.norm.weight"
    match change:
        case "lacks":
            del found[name]
        case "adds":
            found[name := "exp_avg.model.other.weight"] = torch.zeros(2)
        case _:
            found[name] = torch.zeros(3)
    save_file(found, path)
    checkpoint.seal(path.parent)
    error = refused(place)
    assert "other weights" in error.problem
    assert ("differs in", name) in error.evidence


def test_a_state_of_another_growth_is_refused(place: Place) -> None:
    place.train(place.do(4), "trunk")
    error = refused(place, Growth(MODEL, (Width(),)))
    assert "other weights" in error.problem


def test_what_a_phase_asks_and_what_it_is_given_must_agree(place: Place) -> None:
    place.train(place.do(4), "trunk")
    with pytest.raises(ValueError, match="do not agree"):
        place.train(place.do(6), "next", carried=trained(place, "trunk"))
    with pytest.raises(ValueError, match="do not agree"):
        place.train(place.do(6, optimizer_state="carried"), "next")


# --- as a stage of a sweep -----------------------------------------------------------------------


def lineage(place: Place, operators: Operators) -> list[Stage]:
    """A trunk, its growth, a branch that goes on with the trunk's state, and one after that."""
    stages = [Stage(Init(model=MODEL))]
    stages.append(Stage(place.do(4), stages[-1]))
    if operators:
        stages.append(Stage(Grow(operators=operators), stages[-1]))
    for batches in (3, 2):
        do = place.do(batches, stream="backward", optimizer_state="carried")
        stages.append(Stage(do, stages[-1]))
    return stages


def work(place: Place, store: Store) -> Work:
    kept = store.corpus(place.corpus.id)
    if not kept.exists():
        kept.parent.mkdir(parents=True)
        kept.symlink_to(place.tokens)
    plan = {"sweep": "tiny", "heldout_tokens": {place.corpus.id: 0}}
    return Work(store, plan, Circumstance(), stop=lambda: False)


def run(place: Place, store: Store, stages: Sequence[Stage]) -> None:
    for stage in stages:
        store.ask(stage)
        record = verbs.run(work(place, store), stage)
        assert record
        store.finish(stage.id, record)


@pytest.mark.parametrize("operators", [(), (Width(),), (Depth(order="stack"), Width())])
def test_stages_carry_through_growth_and_on(operators: Operators, place: Place) -> None:
    store = Store(place.folder / "store")
    *_, first, second = stages = lineage(place, operators)
    run(place, store, stages)
    # by hand: the trunk's state after 4 updates, then the branch's own after 7
    trunk, growth = store.checkpoint(stages[1].id), Growth(MODEL, operators)
    for stage, source, carried in (
        (first, stages[-3], Carried(trunk, growth, 4)),
        (second, first, Carried(store.checkpoint(first.id), Growth(first.model), 7)),
    ):
        assert isinstance(stage.do, Train)
        place.train(stage.do, stage.id, source=store.checkpoint(source.id), carried=carried)
        ours = store.checkpoint(stage.id) / "model.safetensors"
        assert ours.read_bytes() == place.weights(stage.id)


def test_a_lost_state_says_how_to_get_it_again(place: Place) -> None:
    store = Store(place.folder / "store")
    init, trunk, grow_stage, branch, _ = lineage(place, (Depth(),))
    run(place, store, [init, trunk, grow_stage])
    path = store.checkpoint(trunk.id) / FILE
    path.unlink()
    with pytest.raises(GrowpointError) as caught:
        run(place, store, [branch])
    record = store.run(trunk.id) / "record.json"
    assert ("file", str(path)) in caught.value.evidence
    assert caught.value.help == f"rm {record}, then: growpoint launch tiny"
    # which works
    record.unlink()
    run(place, store, [trunk, branch])
    assert store.done(branch.id)
