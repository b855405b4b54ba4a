"""Training: any way of cutting a phase gives the same bits, and no kill leaves it unusable."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from orchestrator import checkpoint, models, phase
from orchestrator.computing import Computing
from orchestrator.experts import NAME, sorted_experts
from orchestrator.grow import grow
from orchestrator.loop import Diverged, Loop
from orchestrator.optimizer import Optimizer
from orchestrator.tokens import Stream, cut
from orchestrator.train import Outcome, device, train
from sweeps.data import Corpus
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width
from sweeps.recipe import Constant, Cosine, Recipe, Schedule, Wsd
from sweeps.stages import Train
from sweeps.steps import BatchStep, SequenceStep
from tests.integration.tiny_corpus import prepared
from tests.integration.tiny_families import FAMILIES, saved, tiny
from tests.integration.tiny_olmoe import MODEL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RECIPE = Recipe(lr=1e-2, warmup_tokens=256, batch_sequences=4, sequence_tokens=16)
BATCH = RECIPE.batch_tokens


class Place:
    """A folder with a corpus and a fresh network, and training in it."""

    def __init__(self, folder: Path, corpus: Corpus, tokens: Path) -> None:
        self.folder, self.corpus, self.tokens = folder, corpus, tokens
        models.create(MODEL, 0, folder / "init")

    def do(self, batches: int, **changes: Any) -> Train:
        recipe = RECIPE.model_copy(
            update={k: changes.pop(k) for k in list(changes) if hasattr(RECIPE, k)}
        )
        changes.setdefault("corpus", self.corpus)
        return Train(tokens=batches * BATCH, recipe=recipe, **changes)

    def train(self, do: Train, name: str, **more: Any) -> Outcome:
        more.setdefault("source", self.folder / "init")
        more.setdefault("metrics", self.folder / f"{name}.jsonl")
        return train(
            do,
            target=self.folder / name,
            partial=self.folder / f"{name}.partial",
            stream_folder=self.tokens,
            **{"log_every_steps": 1, **more},
        )

    def weights(self, name: str) -> bytes:
        return (self.folder / name / "model.safetensors").read_bytes()

    def moments(self, name: str) -> bytes:
        return (self.folder / name / "optimizer.safetensors").read_bytes()

    def lines(self, name: str) -> list[dict[str, Any]]:
        text = (self.folder / f"{name}.jsonl").read_text()
        clock = {"seconds", "tokens_per_second"}
        rows = [json.loads(line) for line in text.splitlines()]
        return [{k: v for k, v in row.items() if k not in clock} for row in rows]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    return prepared(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def place(tmp_path: Path, tokens: tuple[Corpus, Path]) -> Place:
    return Place(tmp_path, *tokens)


def after(steps: int) -> Callable[[], bool]:
    """A stop flag that turns true at the step boundary after so many steps."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= steps


# --- bit for bit ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule", [Constant(), Wsd(cooldown=0.4), Wsd(cooldown=0.4, shape="sqrt")]
)
@pytest.mark.parametrize("ends", [False, True])
def test_a_phase_passes_through_a_shorter_one(schedule: Schedule, ends: bool, place: Place) -> None:
    place.train(place.do(20, schedule=schedule, ends=ends), "whole")
    place.train(place.do(7, schedule=schedule), "short")
    again = place.train(
        place.do(20, schedule=schedule, ends=ends), "again", resume=[place.folder / "short"]
    )
    assert again.resumed_tokens == 7 * BATCH
    assert place.weights("again") == place.weights("whole")
    assert place.lines("short") + place.lines("again") == place.lines("whole")
    assert (place.folder / "again" / "optimizer.safetensors").exists() is not ends


@pytest.mark.parametrize("schedule", [Constant(), Wsd(cooldown=0.4), Cosine()])
def test_a_stopped_phase_goes_on_from_its_partial(schedule: Schedule, place: Place) -> None:
    do = place.do(15, schedule=schedule, ends=schedule.kind != "constant")
    place.train(do, "whole")
    for steps in (4, 5):
        assert not place.train(do, "cut", stop=after(steps)).finished
        assert not (place.folder / "cut").exists()
    came = place.train(do, "cut")
    assert came.finished
    assert came.resumed_tokens == 9 * BATCH
    assert place.weights("cut") == place.weights("whole")
    assert place.lines("cut") == place.lines("whole")
    assert not (place.folder / "cut.partial").exists()


def test_saving_often_changes_nothing(place: Place) -> None:
    place.train(place.do(6), "whole")
    place.train(place.do(6), "often", save_seconds=0.0)
    assert place.weights("often") == place.weights("whole")
    assert place.moments("often") == place.moments("whole")


@pytest.mark.parametrize("operator", [Depth(), Width(noise=0.01)])
def test_growth_in_between(operator: Depth | Width, place: Place) -> None:
    ends = []
    for way in ("one", "other"):
        trunk, grown = place.folder / f"trunk-{way}", place.folder / f"grown-{way}"
        if way == "other":
            place.train(place.do(3), "trunk-first")
        resume = [place.folder / "trunk-first"] if way == "other" else []
        place.train(place.do(8), trunk.name, resume=resume)
        grow(trunk, grown, [operator], 0)
        branch = place.do(6, stream="backward")
        if way == "other":
            place.train(branch, f"branch-{way}", source=grown, stop=after(2))
        place.train(branch, f"branch-{way}", source=grown)
        ends.append(place.weights(f"branch-{way}"))
    assert ends[0] == ends[1]


def test_the_random_state_does_not_matter(place: Place) -> None:
    place.train(place.do(3), "first")
    torch.manual_seed(999)
    models.create(MODEL, 0, place.folder / "again")
    before = torch.random.get_rng_state()
    place.train(place.do(3), "second", source=place.folder / "again")
    assert place.weights("second") == place.weights("first")
    assert torch.equal(before, torch.random.get_rng_state())


def test_seeds_and_streams_matter(place: Place) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"stream": "backward"},
        {"lr": 2e-2},
        {"router_loss": 0.5},
    ]
    for number, variant in enumerate(variants):
        place.train(place.do(3, **variant), f"v{number}")
    assert len({place.weights(f"v{number}") for number in range(5)}) == 5


def test_another_phase_is_never_resumed(place: Place) -> None:
    place.train(place.do(4), "short")
    ended = place.do(4, schedule=Wsd(cooldown=0.5), ends=True)
    place.train(ended, "ended")
    for other in (place.do(8, seed=1), place.do(8, lr=2e-2), place.do(8, stream="backward")):
        assert phase.furthest(other, [place.folder / "short"]).tokens == 0
    assert phase.furthest(place.do(8), [place.folder / "short"]).tokens == 4 * BATCH
    assert phase.furthest(place.do(3), [place.folder / "short"]).tokens == 0
    assert (
        phase.furthest(place.do(8, schedule=Wsd(cooldown=0.5)), [place.folder / "ended"]).tokens
        == 0
    )


def test_a_cooldown_departs_from_the_stable_part_only(place: Place) -> None:
    wsd = Wsd(cooldown=0.5)
    for batches in (4, 5, 6):
        place.train(place.do(batches, schedule=wsd), f"open{batches}")
    folders = [place.folder / f"open{batches}" for batches in (4, 5, 6)]
    cooled = place.do(10, schedule=wsd, ends=True)
    assert phase.furthest(cooled, folders).tokens == 5 * BATCH


# --- kills ---------------------------------------------------------------------------------------


def test_left_overs_of_a_killed_save_do_no_harm(place: Place) -> None:
    place.train(place.do(9), "whole")
    place.train(place.do(9), "cut", stop=after(3))
    partial = place.folder / "cut.partial"
    good = partial / f"at-{3 * BATCH}"
    # A kill in the middle of writing, one after the rename but before the old one went, one whose
    # bytes never reached the disk, and a target that had not got its name.
    shutil.copytree(good, partial / ".at-999.1.abcd")
    (partial / ".at-999.1.abcd" / "manifest.json").unlink()
    later = shutil.copytree(good, partial / f"at-{5 * BATCH}")
    said = json.loads((later / phase.FILE).read_text())
    (later / phase.FILE).write_text(json.dumps({**said, "tokens": 5 * BATCH}))
    checkpoint.seal(later)
    weights = (later / "model.safetensors").read_bytes()
    (later / "model.safetensors").write_bytes(weights[:-10])
    shutil.copytree(good, place.folder / ".cut.1.abcd")
    came = place.train(place.do(9), "cut")
    assert came.resumed_tokens == 3 * BATCH
    assert place.weights("cut") == place.weights("whole")
    assert not list(place.folder.glob(".cut.*"))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "training.json"])
def test_a_flipped_byte_in_a_partial_is_noticed(name: str, place: Place) -> None:
    place.train(place.do(9), "whole")
    place.train(place.do(9), "cut", stop=after(3))
    damaged = place.folder / "cut.partial" / f"at-{3 * BATCH}" / name
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    assert place.train(place.do(9), "cut").resumed_tokens == 0
    assert place.weights("cut") == place.weights("whole")


def test_a_kill_before_the_record_repeats_nothing(place: Place) -> None:
    first = place.train(place.do(5), "done")
    again = place.train(place.do(5), "done")
    assert again.finished
    assert (again.tokens, again.loss, again.resumed_tokens) == (5 * BATCH, first.loss, 5 * BATCH)


def test_a_damaged_target_is_moved_aside(place: Place) -> None:
    place.train(place.do(5), "done")
    whole = place.weights("done")
    (place.folder / "done" / "model.safetensors").write_bytes(whole[:-1])
    assert place.train(place.do(5), "done").resumed_tokens == 0
    assert place.weights("done") == whole
    assert list(place.folder.glob("done.damaged.*"))


def test_metrics_beyond_the_position_are_cut(place: Place) -> None:
    place.train(place.do(9), "whole")
    place.train(place.do(9), "cut", stop=after(3))
    # As if killed two steps after the save, in the middle of a line.
    with (place.folder / "cut.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "tokens": 4 * BATCH}) + '\n{"step": 5, "tok')
    place.train(place.do(9), "cut")
    assert place.lines("cut") == place.lines("whole")
    assert [line["step"] for line in place.lines("cut")] == list(range(1, 10))


def test_metrics_without_a_checkpoint_begin_anew(place: Place) -> None:
    (place.folder / "new.jsonl").write_text(json.dumps({"step": 4, "tokens": 4 * BATCH}) + "\n")
    place.train(place.do(2), "new")
    assert [line["step"] for line in place.lines("new")] == [1, 2]


# --- what one step does --------------------------------------------------------------------------


def by_hand(place: Place, steps: int, router: float) -> tuple[torch.nn.Module, list[float]]:
    """The same training, written out with the plain parts of torch and transformers."""
    model = AutoModelForCausalLM.from_pretrained(place.folder / "init", dtype=torch.float32)
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in named.values() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in named.values() if p.ndim == 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        fused=False,
    )
    stream, losses = Stream(place.tokens, 16, 0), []
    for step in range(steps):
        rows = torch.from_numpy(stream.batch(step * BATCH, 4))
        came = model(input_ids=rows[:, :-1], output_router_logits=True)
        loss = cross_entropy(came.logits.reshape(-1, 300), rows[:, 1:].reshape(-1))
        (loss + router * came.aux_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1.0, (step + 1) * BATCH / 256)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("router", [0.0, 0.5])
def test_it_is_adamw_as_torch_has_it(router: float, place: Place) -> None:
    model, losses = by_hand(place, 5, router)
    place.train(place.do(5, router_loss=router), "ours")
    ours = models.load(place.folder / "ours").state_dict()
    assert [line["loss"] for line in place.lines("ours")] == pytest.approx(losses, rel=1e-5)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=2e-5)


def test_the_router_loss_is_learnt_from(place: Place) -> None:
    place.train(place.do(30, router_loss=0.0), "free")
    place.train(place.do(30, router_loss=1.0), "balanced")
    free, balanced = (place.lines(name)[-1]["router_loss"] for name in ("free", "balanced"))
    assert 2.0 <= balanced < free


def test_lines_say_what_happened(place: Place) -> None:
    heard: list[dict[str, Any]] = []
    came = place.train(place.do(6), "run", log=heard.append)
    assert [line["tokens"] for line in heard] == [BATCH * step for step in range(1, 7)]
    assert [line["lr"] for line in heard] == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2, 1e-2, 1e-2])
    assert set(heard[0]) == {
        "step", "tokens", "loss", "router_loss", "lr", "grad_norm", "expert_load", "idle_experts",
        "seconds", "tokens_per_second",
    }  # fmt: skip
    assert came.loss == heard[-1]["loss"]
    assert heard[0]["loss"] == pytest.approx(math.log(300), abs=0.1)
    assert heard[-1]["loss"] < heard[0]["loss"]
    assert json.dumps(came.to_dict(), allow_nan=False)


def test_a_line_has_the_mean_of_its_steps(place: Place) -> None:
    place.train(place.do(10), "each")
    place.train(place.do(10), "fours", log_every_steps=4)
    each, fours = place.lines("each"), place.lines("fours")
    assert [line["step"] for line in fours] == [4, 8, 10]
    for line, steps in zip(fours, (each[:4], each[4:8], each[8:]), strict=True):
        for key in ("loss", "router_loss"):
            mean = sum(step[key] for step in steps) / len(steps)
            assert line[key] == pytest.approx(mean, rel=1e-12)
            assert line[key] != steps[-1][key]
        assert (line["lr"], line["grad_norm"]) == (steps[-1]["lr"], steps[-1]["grad_norm"])


def test_a_line_covers_steps_before_and_after_a_stop(place: Place) -> None:
    place.train(place.do(10), "whole", log_every_steps=4)
    for steps in (3, 3):
        place.train(place.do(10), "cut", stop=after(steps), log_every_steps=4)
    assert place.train(place.do(10), "cut", log_every_steps=4).resumed_tokens == 6 * BATCH
    assert place.lines("cut") == place.lines("whole")
    # what an earlier version left says nothing of it, and is gone on from all the same
    place.train(place.do(10), "old", stop=after(3), log_every_steps=4)
    folder = place.folder / "old.partial" / f"at-{3 * BATCH}"
    said = json.loads((folder / phase.FILE).read_text())
    assert said.pop("unsaid")["steps"] == 3
    (folder / phase.FILE).write_text(json.dumps(said))
    checkpoint.seal(folder)
    came = place.train(place.do(10), "old", log_every_steps=4)
    assert came.resumed_tokens == 3 * BATCH
    assert place.weights("old") == place.weights("whole")


def test_long_batches_are_summed_up(place: Place) -> None:
    place.train(place.do(3, router_loss=0.0), "whole")
    place.train(place.do(3, router_loss=0.0), "parts", how=Computing(micro_batch_tokens=16))
    assert place.lines("parts")[-1]["loss"] == pytest.approx(
        place.lines("whole")[-1]["loss"], rel=1e-4
    )
    assert place.lines("parts")[0]["grad_norm"] == pytest.approx(
        place.lines("whole")[0]["grad_norm"], rel=1e-4
    )


def test_bf16_keeps_fp32_weights(place: Place) -> None:
    place.train(place.do(20), "fp32")
    place.train(place.do(20, precision="bf16"), "bf16")
    saved_weights = load_file(place.folder / "bf16" / "model.safetensors")
    assert {weight.dtype for weight in saved_weights.values()} == {torch.float32}
    assert any((weight != weight.bfloat16().float()).any() for weight in saved_weights.values())
    last = [place.lines(name)[-1]["loss"] for name in ("fp32", "bf16")]
    assert last[1] == pytest.approx(last[0], rel=0.03)


def test_bf16_computes_in_bf16(place: Place) -> None:
    state = Optimizer(
        models.load(place.folder / "init"), RECIPE.model_copy(update={"precision": "bf16"})
    )
    assert {p.dtype for p in state.compute.parameters()} == {torch.bfloat16}
    assert {b.dtype for n, b in state.compute.named_buffers() if "inv_freq" in n} == {torch.float32}
    assert {p.dtype for p in state.model.parameters()} == {torch.float32}


def test_bf16_resumes_too(place: Place) -> None:
    do = place.do(8, precision="bf16")
    place.train(do, "whole")
    place.train(do, "cut", stop=after(3))
    place.train(do, "cut")
    assert place.weights("cut") == place.weights("whole")


def test_norms_do_not_decay(place: Place) -> None:
    # At learning rate times decay of nearly 1 matrices vanish at once; norms stay near 1.
    place.train(place.do(2, lr=1e-2, weight_decay=90.0, warmup_tokens=0), "decayed")
    weights = load_file(place.folder / "decayed" / "model.safetensors")
    assert float(weights["model.norm.weight"].mean()) > 0.9
    assert float(weights["lm_head.weight"].abs().mean()) < 0.012


@pytest.mark.parametrize("family", ["gpt_oss", "ernie4_5_moe"])
def test_biases_in_rows_do_not_decay(family: str, tmp_path: Path) -> None:
    models.create(tiny(family), 0, tmp_path / "init")
    state = Optimizer(models.load(tmp_path / "init"), RECIPE)
    decayed = {id(weight) for weight in state._adamw.param_groups[0]["params"]}
    rows = [p for name, p in state._named.items() if "bias" in name and p.ndim > 1]
    assert rows
    assert not any(id(weight) in decayed for weight in rows)
    assert id(state._named["model.embed_tokens.weight"]) in decayed


# --- batches that change -------------------------------------------------------------------------

STEPS: dict[str, Any] = {
    "batch_steps": (
        BatchStep(until_tokens=60, sequences=1),
        BatchStep(until_tokens=150, sequences=2),
    ),
    "sequence_steps": (SequenceStep(until_tokens=100, sequence_tokens=8),),
}


def test_any_cut_of_a_phase_with_steps_gives_the_same_bits(place: Place) -> None:
    """4 batches of 16 tokens reach 64, 3 of 32 reach 160, then batches of 64 as without steps."""
    do = Train(tokens=160 + 6 * BATCH, recipe=RECIPE.model_copy(update=STEPS), corpus=place.corpus)
    place.train(do, "whole")
    assert [line["tokens"] for line in place.lines("whole")][:8] == [
        16, 32, 48, 64, 96, 128, 160, 224,
    ]  # fmt: skip
    for steps in (3, 2, 1, 4):
        place.train(do, "cut", stop=after(steps))
    place.train(do, "cut")
    short = do.model_copy(update={"tokens": 128})
    place.train(short, "short")
    came = place.train(do, "on", resume=[place.folder / "short"])
    assert came.resumed_tokens == 128
    for name in ("cut", "on"):
        assert place.weights(name) == place.weights("whole")
        assert place.moments(name) == place.moments("whole")
    assert place.lines("cut") == place.lines("whole")


def test_steps_that_change_nothing_give_the_same_bits(place: Place) -> None:
    """The same batches said otherwise, so the order of the data is the same with any steps."""
    place.train(place.do(5), "plain")
    same = (BatchStep(until_tokens=100, sequences=4),)
    place.train(place.do(5, batch_steps=same), "stepped")
    assert place.weights("plain") == place.weights("stepped")


def test_shorter_rows_are_the_same_labels(place: Place) -> None:
    whole = Stream(place.tokens, 16, 0).batch(0, 3)
    rows = cut(whole, 4)
    assert rows.shape == (12, 5)
    assert rows[:, 1:].reshape(3, 16).tolist() == whole[:, 1:].tolist()
    assert rows[:, :-1].reshape(3, 16).tolist() == whole[:, :-1].tolist()
    assert cut(whole, 16) is whole


def test_a_phase_of_broken_steps_is_refused(place: Place) -> None:
    do = Train(tokens=144, recipe=RECIPE.model_copy(update=STEPS), corpus=place.corpus)
    with pytest.raises(GrowpointError, match="whole number of batches") as error:
        place.train(do, "run")
    assert dict(error.value.evidence)["batch"] == "32 tokens"
    assert error.value.help in {"ask for 128 tokens", "ask for 160 tokens"}


# --- mistakes ------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = place.do(10)
    place.train(do, "run", stop=after(4))
    real = Recipe.lr_at
    monkeypatch.setattr(
        Recipe, "lr_at", lambda self, t, e: 1e30 if t >= 6 * BATCH else real(self, t, e)
    )
    with pytest.raises(Diverged) as error:
        place.train(do, "run")
    evidence = dict(error.value.evidence)
    # what broke the weights was the step before the one that was skipped
    assert error.value.problem == "training diverged at step 9"
    assert evidence["tokens"] == str(8 * BATCH)
    assert evidence["skipped before"] == f"the batch at {7 * BATCH} tokens"
    assert evidence["lr"] == "1e+30"
    kept = place.folder / "run.partial" / f"at-{4 * BATCH}"
    checkpoint.verify(kept)
    assert not (place.folder / "run").exists()
    assert [line["step"] for line in place.lines("run")] == list(range(1, 8))


def test_a_full_disk_keeps_the_last_checkpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = place.do(8)
    place.train(do, "whole")
    place.train(do, "run", stop=after(3))

    def full(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(models, "save", full)
        with pytest.raises(GrowpointError, match="the store is full"):
            place.train(do, "run")
    assert not list(place.folder.glob(".run.*"))
    assert place.train(do, "run").resumed_tokens == 3 * BATCH
    assert place.weights("run") == place.weights("whole")


SHORT = (
    torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has little left."
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"
    ),
    MemoryError(),
)


@pytest.mark.parametrize("short", SHORT, ids=["gpu", "cpu", "python"])
def test_a_pass_beyond_memory_says_what_to_lower(
    short: Exception, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = Loop._losses, iter(range(10**6))

    def losses(self: Loop, rows: torch.Tensor) -> Any:
        if next(left) == 3:
            raise short
        return real(self, rows)

    monkeypatch.setattr(Loop, "_losses", losses)
    do = place.do(6)
    place.train(do, "run", stop=after(2))
    with pytest.raises(GrowpointError, match="a pass of training does not fit") as error:
        place.train(do, "run")
    assert error.value.help == (
        "cluster.micro_batch_tokens=32 or cluster.activation_checkpointing=true, and launch again"
    )
    assert dict(error.value.evidence)["at once"] == "64 tokens in rows of up to 16"
    assert "GPU 0" not in dict(error.value.evidence)["says"]
    # What was saved stays, and is gone on from.
    assert place.train(do, "run", how=Computing(micro_batch_tokens=32)).resumed_tokens == 2 * BATCH


def test_memory_that_one_sequence_exceeds(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(*_: Any) -> Any:
        raise SHORT[0]

    monkeypatch.setattr(Loop, "_losses", losses)
    with pytest.raises(GrowpointError, match="a pass of training") as error:
        place.train(place.do(2), "run", how=Computing(micro_batch_tokens=20))
    assert error.value.help == "cluster.activation_checkpointing=true, and launch again"
    with pytest.raises(GrowpointError, match="a pass of training") as error:
        place.train(
            place.do(2), "run", how=Computing(micro_batch_tokens=20, activation_checkpointing=True)
        )
    assert "one sequence alone is too much" in error.value.help
    monkeypatch.setattr(models, "load", losses)
    with pytest.raises(GrowpointError, match="the network and its optimizer's state do not fit"):
        place.train(place.do(2), "run")


def test_other_errors_stay_what_they_are(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(*_: Any) -> Any:
        raise RuntimeError("shapes do not agree")

    monkeypatch.setattr(Loop, "_losses", losses)
    with pytest.raises(RuntimeError, match="shapes do not agree"):
        place.train(place.do(2), "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can use its GPU")
def test_a_gpu_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for none in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert device() == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(GrowpointError, match="was given a GPU, and PyTorch cannot use it"):
        device()


def test_broken_batches_are_refused(place: Place) -> None:
    do = Train(tokens=BATCH * 3 + 16, recipe=RECIPE, corpus=place.corpus)
    with pytest.raises(GrowpointError, match="whole number of batches") as error:
        place.train(do, "run")
    assert error.value.help == f"ask for {BATCH * 3} tokens"


def test_a_corpus_shorter_than_a_batch_is_refused(place: Place) -> None:
    recipe = RECIPE.model_copy(update={"batch_sequences": 10**5})
    do = Train(tokens=recipe.batch_tokens, recipe=recipe, corpus=place.corpus)
    with pytest.raises(GrowpointError, match="shorter than one batch"):
        place.train(do, "run")


def test_another_corpus_is_refused(place: Place) -> None:
    other = place.do(3, corpus=place.corpus.model_copy(update={"seed": 1}))
    with pytest.raises(GrowpointError, match="another than the stage asks for"):
        place.train(other, "run")


def test_repeated_tokens_are_told(place: Place) -> None:
    epoch = Stream(place.tokens, 16, 0).tokens
    branch = place.do(4, stream="backward")
    assert place.train(branch, "fresh", trunk_tokens=epoch // 2).repeated_share == 0
    assert place.train(branch, "stale", trunk_tokens=epoch - 2 * BATCH).repeated_share == 0.5


# --- networks ------------------------------------------------------------------------------------


def test_missing_weights_are_never_invented(place: Place) -> None:
    folder = place.folder / "init"
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.gate.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GrowpointError, match="cannot be loaded") as error:
        models.load(folder)
    assert "gate.weight" in dict(error.value.evidence)["says"]


@pytest.mark.parametrize("setting", [{"hidden_act": "nonsense"}, {"attention_dropout": "much"}])
def test_sizes_that_transformers_refuses(setting: dict[str, str], tmp_path: Path) -> None:
    bad = MODEL.model_copy(update={"settings": setting})
    with pytest.raises(GrowpointError, match="cannot be built"):
        models.create(bad, 0, tmp_path / "bad")
    assert not list(tmp_path.iterdir())


def test_a_fresh_checkpoint_is_whole(place: Place, tmp_path: Path) -> None:
    models.create(MODEL, 0, tmp_path / "with", tokenizer=place.tokens)
    checkpoint.verify(tmp_path / "with")
    assert (tmp_path / "with" / "tokenizer.json").read_bytes() == (
        place.tokens / "tokenizer.json"
    ).read_bytes()
    models.create(MODEL, 1, tmp_path / "other")
    read = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "other")]
    assert read[0] == place.weights("init") != read[1]
    with pytest.raises(GrowpointError, match="exists already"):
        models.create(MODEL, 0, tmp_path / "with")


@pytest.mark.parametrize("family", FAMILIES)
def test_sorted_experts_are_the_experts(family: str, tmp_path: Path) -> None:
    model = models.load(saved(tiny(family), tmp_path / "tiny"))
    if not model._can_set_experts_implementation():
        pytest.skip(f"transformers runs the experts of {family} in a loop of its own")
    assert model.config._experts_implementation == NAME
    torch.manual_seed(0)
    rows = torch.randint(0, model.config.vocab_size, (3, 12))
    found = []
    for name in (NAME, "eager"):
        model.set_experts_implementation(name)
        model.zero_grad()
        logits = model(input_ids=rows, use_cache=False).logits
        cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten()).backward()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((logits.detach(), torch.cat(grads)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)


def test_the_registry_has_our_experts() -> None:
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    assert ALL_EXPERTS_FUNCTIONS[NAME] is sorted_experts


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains(family: str, tmp_path: Path, tokens: tuple[Corpus, Path]) -> None:
    model = tiny(family, vocabulary=300)
    models.create(model, 0, tmp_path / "init")
    do = Train(tokens=6 * BATCH, recipe=RECIPE, corpus=tokens[0])
    heard: list[dict[str, Any]] = []
    for name, resume in (("whole", ()), ("cut", (tmp_path / "short",))):
        if resume:
            short = do.model_copy(update={"tokens": 3 * BATCH})
            train(
                short,
                source=tmp_path / "init",
                target=resume[0],
                partial=tmp_path / "p",
                stream_folder=tokens[1],
            )
        train(
            do,
            source=tmp_path / "init",
            target=tmp_path / name,
            partial=tmp_path / "partial",
            stream_folder=tokens[1],
            resume=resume,
            log=heard.append,
            log_every_steps=1,
        )
    first, second = (tmp_path / name / "model.safetensors" for name in ("whole", "cut"))
    assert first.read_bytes() == second.read_bytes()
    assert heard[5]["loss"] < heard[0]["loss"]
