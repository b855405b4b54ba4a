"""However a phase is computed, it is the same phase."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import PreTrainedModel

from orchestrator import computing, experts, head_loss, models
from orchestrator.computing import Computing
from orchestrator.head_loss import HeadLoss
from sweeps.data import Corpus
from sweeps.errors import GrowpointError
from tests.integration.compiler import compiles
from tests.integration.test_train import MODEL, RECIPE, Place
from tests.integration.tiny_corpus import prepared
from tests.integration.tiny_families import FAMILIES, network, saved, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROWS = torch.randint(0, 64, (3, 25), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    return prepared(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def place(tmp_path: Path, tokens: tuple[Corpus, Path]) -> Place:
    return Place(tmp_path, *tokens)


# --- which experts ran ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_the_record_names_the_experts_that_ran(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []

    def watched(*arguments: Any) -> Tensor:
        called.append(1)
        return experts.sorted_experts(*arguments)

    monkeypatch.setitem(models.ALL_EXPERTS_FUNCTIONS._global_mapping, experts.NAME, watched)
    model = models.load(saved(tiny(name), tmp_path / name))
    with torch.no_grad():
        model(input_ids=ROWS, use_cache=False)
    assert models.experts_kernel(model) == ("sorted" if called else "the architecture's own")
    if called:
        model.set_experts_implementation("grouped_mm")
        assert models.experts_kernel(model) == "grouped_mm"


def test_the_outcome_says_on_what_it_was_computed(place: Place) -> None:
    came = place.train(place.do(2, precision="bf16"), "run").to_dict()
    assert (came["experts"], came["device"], came["precision"]) == ("sorted", "cpu", "bf16")
    again = place.train(place.do(2, precision="bf16"), "run").to_dict()
    assert (again["experts"], again["device"], again["precision"]) == (None, None, None)


LENGTH = RECIPE.sequence_tokens


@pytest.mark.parametrize(
    ("micro_batch_tokens", "few", "kernel"),
    [
        (LENGTH // 2, LENGTH // 2, "pieces"),  # a pass is never less than a sequence
        (LENGTH // 2, LENGTH, "whole"),
        (2 * LENGTH - 1, LENGTH, "whole"),  # nor part of one
        (2 * LENGTH, LENGTH, "pieces"),
    ],
)
def test_the_record_says_how_the_losses_of_the_head_were_made(
    micro_batch_tokens: int, few: int, kernel: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_loss, "LOGITS", few * MODEL.vocabulary)
    made: list[int] = []
    pieces = HeadLoss._pieces

    def watched(loss: HeadLoss, hidden: Tensor, labels: Tensor) -> Tensor:
        made.append(labels.numel())
        return pieces(loss, hidden, labels)

    monkeypatch.setattr(HeadLoss, "_pieces", watched)
    how = Computing(micro_batch_tokens=micro_batch_tokens)
    assert place.train(place.do(1), "run", how=how).head_loss == kernel
    assert bool(made) == (kernel == "pieces")


# --- activation checkpointing --------------------------------------------------------------------

FORGETS = Computing(activation_checkpointing=True)


def kept_bytes(model: PreTrainedModel) -> int:
    """Bytes that a forward pass keeps for the backward pass, each memory once."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        found[memory.data_ptr()] = memory.nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = HeadLoss(model)(ROWS).loss
    assert loss.requires_grad
    return sum(size for memory, size in found.items() if memory not in weights)


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    HeadLoss(model)(ROWS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", FAMILIES)
def test_less_is_kept_and_the_gradients_are_the_same(name: str) -> None:
    model = network(tiny(name)).train()
    kept, expected = kept_bytes(model), gradients(model)
    names = list(model.state_dict())
    computing.prepare(model, FORGETS)
    assert kept_bytes(model) < kept / 2
    assert list(model.state_dict()) == names
    found = gradients(model)
    assert found.keys() == expected.keys()
    for key, grad in found.items():
        assert torch.equal(grad, expected[key]), key


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_phase_is_the_same_bit_for_bit(family: str, precision: str, place: Place) -> None:
    """Lines as well: choices of experts are counted once."""
    source = saved(tiny(family, vocabulary=300), place.folder / family)
    do = place.do(5, precision=precision)
    for name, how in (("kept", Computing()), ("made again", FORGETS)):
        place.train(do, name, source=source, how=how)
    assert place.weights("kept") == place.weights("made again")
    assert place.moments("kept") == place.moments("made again")
    assert place.lines("kept") == place.lines("made again")
    assert place.lines("kept")[0]["expert_load"] >= 1


def test_an_architecture_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(MODEL)
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(GrowpointError, match="offers no activation checkpointing") as error:
        computing.prepare(model, FORGETS)
    assert error.value.help == "cluster.activation_checkpointing=false"


def test_weights_are_named_as_ever(place: Place) -> None:
    place.train(place.do(2), "run", how=FORGETS)
    assert (
        load_file(place.folder / "run" / "model.safetensors").keys()
        == load_file(place.folder / "init" / "model.safetensors").keys()
    )


# --- compiled layers -----------------------------------------------------------------------------


# Dynamo looks at gradients of what has none; as errors its own warnings end it.
@compiles
@pytest.mark.filterwarnings("ignore")
def test_compiled_layers_train_as_others_do(place: Place) -> None:
    """One layer, as the first step waits for the compiler; batches have two parts."""
    source = place.folder / "one layer"
    models.create(MODEL.model_copy(update={"layers": 1}), 0, source)
    do = place.do(4)
    for name, compiled in (("plain", False), ("compiled", True)):
        how = Computing(compile=compiled, micro_batch_tokens=32)
        came = place.train(do, name, source=source, how=how)
        assert came.experts == ("grouped_mm" if compiled else "sorted")
    assert counters["stats"]["unique_graphs"] > 0
    plain, compiled_lines = place.lines("plain"), place.lines("compiled")
    for key in ("loss", "router_loss", "grad_norm", "expert_load"):
        said = [line[key] for line in compiled_lines]
        assert said == pytest.approx([line[key] for line in plain], rel=1e-4)
    one, other = (load_file(place.folder / n / "model.safetensors") for n in ("plain", "compiled"))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_without_a_compiler_it_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    torch.compiler.reset()
    with config.patch(force_disable_caches=True), pytest.raises(GrowpointError) as error:
        place.train(place.do(2), "run", how=Computing(compile=True))
    assert error.value.problem == "the layers cannot be compiled on this machine"
    assert "cluster.compile=false" in error.value.help


def test_not_both_at_once() -> None:
    with pytest.raises(GrowpointError, match="not both compiled and computed twice"):
        computing.prepare(network(MODEL), Computing(compile=True, activation_checkpointing=True))
