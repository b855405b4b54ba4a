"""Several ranks train as one does, save what one would, and stop together."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import HashStore

from orchestrator import checkpoint, models, phase, ranks
from orchestrator.grow import grow
from orchestrator.moments import Carried, Growth
from orchestrator.ranks import EndedError, LostError, Ranks
from sweeps.errors import GrowpointError
from sweeps.growth import Depth
from tests.integration.compiler import compiles
from tests.integration.tiny_corpus import prepared
from tests.integration.tiny_families import saved, tiny
from tests.integration.tiny_olmoe import MODEL
from tests.integration.together import NEVER, RECIPE, Place, Together, after


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("ranks")
    corpus, tokens = prepared(folder / "corpus")
    with Together(folder, tokens) as pair:
        yield Place(folder, corpus, tokens, pair)


def test_two_ranks_train_as_one_does(place: Place) -> None:
    came = place.both(place.do(8), "two", rows=2)
    assert [said["finished"] for said in came] == [True, True]
    assert [(said["ranks"], said["ranks_per_node"]) for said in came] == [(2, 2), (2, 2)]
    assert place.alone(place.do(8), "one", rows=2).ranks == 1
    place.require_same("two", "one")
    checkpoint.verify(place.folder / "two")


def test_a_batch_that_cannot_be_halved_is_shared_by_its_parts(place: Place) -> None:
    place.both(place.do(4, batch_sequences=3), "thirds", rows=1)
    place.alone(place.do(4, batch_sequences=3), "all", rows=1)
    place.require_same("thirds", "all")


def test_a_batch_of_one_part_is_cut_for_two_ranks(place: Place) -> None:
    do = place.do(4, router_loss=0.0)
    place.both(do, "halves", rows=4)
    place.alone(do, "whole", rows=4)
    for file in ("model.safetensors", "optimizer.safetensors"):
        found = [load_file(place.folder / name / file) for name in ("halves", "whole")]
        torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_documents_are_kept_apart_on_both(place: Place) -> None:
    do = place.do(4, document_masks=True)
    place.both(do, "masked", rows=2)
    place.alone(do, "masked-one", rows=2)
    place.require_same("masked", "masked-one")
    place.alone(place.do(4), "open", rows=2)
    assert place.lines("masked")[-1]["loss"] != place.lines("open")[-1]["loss"]


def test_bf16_computes_as_the_copy_of_one_process_does(place: Place) -> None:
    do = place.do(6, precision="bf16")
    place.both(do, "two16", rows=2)
    place.alone(do, "one16", rows=2)
    place.alone(place.do(6), "one32", rows=2)
    place.require_same("two16", "one16", tolerance=2e-3)
    losses = [[line["loss"] for line in place.lines(name)] for name in ("two16", "one32")]
    assert losses[0] != losses[1]
    learnt = load_file(place.folder / "two16/model.safetensors")
    assert {tensor.dtype for tensor in learnt.values()} == {torch.float32}


@pytest.mark.parametrize("family", ["olmoe", "ernie4_5_moe"])
def test_tied_weights_and_those_that_only_loading_makes_learnable(
    family: str, place: Place
) -> None:
    name = f"{family}-tied"
    network = saved(tiny(family, vocabulary=300, tied=family == "olmoe"), place.folder / name)
    place.both(place.do(2), f"{name}-two", rows=2, source=network)
    place.alone(place.do(2), f"{name}-one", rows=2, source=network)
    place.require_same(f"{name}-two", f"{name}-one")


# deepseek_v3 has no router's loss, so that nothing of its last outputs is learnt from.
@pytest.mark.parametrize(("family", "tied"), [("olmoe", True), ("deepseek_v3", False)])
def test_pieces_of_the_head_and_what_is_made_again(family: str, tied: bool, place: Place) -> None:
    """Seven tokens of each pass of 32 at once; held against whole logits that are kept."""
    name = f"pieces-{family}-{tied}"
    network = saved(tiny(family, vocabulary=300, tied=tied), place.folder / name)
    do, more = place.do(4), {"source": network}
    place.both(do, f"{name}-two", 2, logits=7 * 300, **more)
    forgets = {"activation_checkpointing": True}
    place.both(do, f"{name}-again", 2, logits=7 * 300, how=forgets, **more)
    place.alone(do, f"{name}-one", rows=2, **more)
    place.require_same(f"{name}-two", f"{name}-one")
    place.require_same(f"{name}-again", f"{name}-one")


def test_what_a_rank_takes_decides_on_pieces(place: Place) -> None:
    """Four rows of 16 would be much at once; two for each rank are not."""
    came = place.both(place.do(1), "shares", rows=4, logits=40 * 300)
    assert [said["head_loss"] for said in came] == ["whole", "whole"]
    came = place.both(place.do(1), "parts", rows=4, logits=20 * 300)
    assert [said["head_loss"] for said in came] == ["pieces", "pieces"]


@compiles
def test_compiled_layers_on_several_ranks(place: Place) -> None:
    source = place.folder / "one layer"
    models.create(MODEL.model_copy(update={"layers": 1}), 0, source)
    place.both(place.do(4), "compiled-two", rows=2, source=source, how={"compile": True})
    place.alone(place.do(4), "compiled-one", rows=2, source=source)
    place.require_same("compiled-two", "compiled-one", tolerance=1e-3)


def test_loads_are_those_of_the_whole_batch(place: Place) -> None:
    """Also where a rank repeats a pass for company: 3 passes on 2 ranks."""
    for rows, batch in ((2, 4), (1, 3)):
        do = place.do(4, batch_sequences=batch)
        place.both(do, f"loads{batch}-two", rows=rows)
        place.alone(do, f"loads{batch}-one", rows=rows)
        for key in ("expert_load", "idle_experts"):
            said = [
                [line[key] for line in place.lines(f"loads{batch}-{n}")] for n in ("two", "one")
            ]
            assert said[0] == said[1]
            assert None not in said[0]


def test_a_phase_goes_on_with_another_number_of_ranks(place: Place) -> None:
    do = place.do(9)
    for said in place.both(do, "cut", rows=2, stop=(NEVER, 3)):
        assert not said["finished"]
        assert said["tokens"] == 3 * RECIPE.batch_tokens
    assert not (place.folder / "cut").exists()
    checkpoint.verify(place.folder / "cut.partial" / f"at-{3 * RECIPE.batch_tokens}")
    middle = place.alone(do, "cut", rows=2, stop=after(3))
    assert (middle.resumed_tokens, middle.tokens) == tuple(n * RECIPE.batch_tokens for n in (3, 6))
    last = place.both(do, "cut", rows=2)
    assert [said["resumed_tokens"] for said in last] == [6 * RECIPE.batch_tokens] * 2
    assert not (place.folder / "cut.partial").exists()
    place.alone(do, "uncut", rows=2)
    place.require_same("cut", "uncut")
    assert [said["finished"] for said in place.both(do, "cut", rows=2)] == [True, True]


def test_a_batch_that_is_no_number_on_one_rank_is_skipped_by_all(place: Place) -> None:
    at = 5 * RECIPE.batch_tokens
    assert not place.both(place.do(8), "skips", rows=2, stop=(3, NEVER))[0]["finished"]
    for said in place.both(place.do(8), "skips", rows=2, broken=[at]):
        assert (said["finished"], said["skipped_tokens_at"]) == (True, [at])
    phase.skip(place.folder / "skip.partial", at)
    place.alone(place.do(8), "skip", rows=2)
    place.require_same("skips", "skip")


def test_moments_are_carried_through_growth(place: Place) -> None:
    place.alone(place.do(3), "trunk", rows=2)
    grow(place.folder / "trunk", place.folder / "grown", [Depth()], 0)
    source, do = place.folder / "grown", place.do(3, state="carried")
    said = {"folder": str(place.folder / "trunk"), "updates": 3}
    place.both(do, "two-carried", 2, source=source, carried={**said, "model": MODEL.model_dump()})
    carried = Carried(place.folder / "trunk", Growth(MODEL, (Depth(),)), 3)
    place.alone(do, "one-carried", 2, source=source, carried=carried)
    place.require_same("two-carried", "one-carried")


def test_one_rank_that_fails_ends_all_and_is_named(place: Place, tmp_path: Path) -> None:
    with Together(tmp_path, place.tokens) as pair:
        first, second = pair.train(place.do(9), "lost", place.folder / "init", (NEVER, -3))
    assert "there is no more memory" in second["error"]
    assert "a rank of the job failed" in first["error"]
    assert "1 of 2" in first["error"]
    assert "there is no more memory" in first["error"]


# --- what ranks say to each other ----------------------------------------------------------------


def two(keys: HashStore) -> tuple[Ranks, Ranks]:
    return Ranks(0, 2, keys=keys), Ranks(1, 2, keys=keys)


def test_what_the_first_rank_finds_the_others_are_told() -> None:
    first, second = two(HashStore())
    asked: list[int] = []

    def find() -> tuple[bool, Path]:
        asked.append(1)
        return True, Path("there")

    found = [rank.first(find, tuple[bool, Path]) for rank in (first, second)]
    assert found == [(True, Path("there"))] * 2
    assert len(asked) == 1


def test_what_fails_on_the_first_rank_ends_the_others() -> None:
    first, second = two(HashStore())

    def fail() -> None:
        raise GrowpointError("the disk is full", [], "free some")

    with pytest.raises(GrowpointError, match="the disk is full"):
        first.first(fail)
    first.announce(end="failed")
    with pytest.raises(EndedError, match="failed"):
        second.first(fail)


def test_a_death_without_a_word_is_left_to_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "WORDS_SECONDS", 0.0)
    first, second = two(HashStore())
    with pytest.raises(LostError, match="closed by peer"), first.explained():
        raise RuntimeError("[gloo/tcp/pair.cc:547] Connection closed by peer [10.0.0.1]:1234")
    with pytest.raises(ZeroDivisionError), first.explained():
        raise ZeroDivisionError
    second.complain(MemoryError("there is no more memory"))
    with pytest.raises(GrowpointError, match="a rank of the job failed"), first.explained():
        raise RuntimeError("Connection closed by peer")


def test_the_first_rank_leaves_last() -> None:
    first, second = two(HashStore())
    leaving = threading.Thread(target=first.part, args=("stopped",))
    leaving.start()
    assert second.told() == {"end": "stopped"}
    leaving.join(0.5)
    assert leaving.is_alive()
    second.part()
    leaving.join(10)
    assert not leaving.is_alive()
