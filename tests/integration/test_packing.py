"""Document masks: a document in a row computes what it computes alone, or is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from orchestrator import corpora, models
from orchestrator.packing import positions, require_apart
from orchestrator.tokens import Stream
from orchestrator.train import train
from sweeps import fits
from sweeps.data import Corpus, Stdlib, Tokens, corpus
from sweeps.errors import GrowpointError
from sweeps.recipe import Recipe
from sweeps.stages import Train
from tests.integration.tiny_corpus import prepared
from tests.integration.tiny_families import DESCRIBED, VARIANTS, network, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
END = 0
RECIPE = Recipe(lr=1e-2, batch_sequences=4, sequence_tokens=16, document_masks=True)
NAMES = [*DESCRIBED, *(name for name in VARIANTS if "two periods" in name)]


def rows_of(*lengths: int, vocabulary: int = 64) -> Tensor:
    """A row of documents of so many tokens, each but the last with its end."""
    torch.manual_seed(sum(lengths))
    row = torch.randint(1, vocabulary, (sum(lengths),))
    for end in np.cumsum(lengths)[:-1]:
        row[end - 1] = END
    return row


def test_positions_count_from_each_beginning() -> None:
    rows = torch.tensor([[5, 0, 7, 8, 0, 0, 9], [0, 1, 1, 1, 1, 1, 0], [1, 2, 3, 4, 5, 6, 7]])
    assert positions(rows, END).tolist() == [
        [0, 1, 0, 1, 2, 0, 0],
        [0, 0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5, 6],
    ]


def apart(model: PreTrainedModel, rows: Tensor) -> float:
    """How far logits of documents in rows are from those of the same documents alone."""
    with torch.no_grad():
        packed = model(input_ids=rows, position_ids=positions(rows, END), use_cache=False).logits
        worst = 0.0
        for row, logits in zip(rows, packed, strict=True):
            ends = [*(torch.nonzero(row == END).flatten() + 1).tolist(), len(row)]
            for start, end in zip([0, *ends], ends, strict=False):
                if start < end:
                    alone = model(input_ids=row[None, start:end], use_cache=False).logits[0]
                    worst = max(worst, float((logits[start:end] - alone).abs().max()))
    return worst


def is_refused(name: str) -> bool:
    """Whether a plan with this family and document masks is refused."""
    try:
        fits.require_documents(RECIPE, Stdlib(), tiny(name))
    except GrowpointError as error:
        return "cannot keep the documents" in error.problem
    return False


@pytest.mark.parametrize("name", NAMES)
def test_a_family_keeps_documents_apart_or_is_refused(name: str) -> None:
    model = network(tiny(name)).eval()
    rows = torch.stack([rows_of(7, 1, 12), rows_of(3, 17), rows_of(20)])
    if is_refused(name):
        assert apart(model, rows) > 0.1
        with pytest.raises(GrowpointError, match="documents of one row see each other"):
            require_apart(model)
    else:
        assert apart(model, rows) < 1e-5
        require_apart(model)


def test_some_families_are_refused_and_most_are_not() -> None:
    assert [name for name in NAMES if is_refused(name)] == [
        "gpt_oss",
        "lfm2_moe",
        "qwen3_next",
        "jamba, two periods",
    ]


def test_a_network_whose_attention_ignores_positions_is_found() -> None:
    model = network(tiny("olmoe")).eval()
    plain = type(model.model).forward

    def careless(self: Any, *args: Any, position_ids: Tensor, **more: Any) -> Any:
        return plain(self, *args, position_ids=torch.arange(position_ids.shape[1])[None], **more)

    require_apart(model)
    model.model.forward = careless.__get__(model.model)
    with pytest.raises(GrowpointError, match="documents of one row see each other"):
        require_apart(model)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    return prepared(tmp_path_factory.mktemp("corpus"))


def trained(folder: Path, name: str, do: Train, tokens: Path, **more: Any) -> bytes:
    train(
        do,
        source=folder / "init",
        target=folder / name,
        partial=folder / f"{name}.partial",
        stream_folder=tokens,
        metrics=folder / f"{name}.jsonl",
        log_every_steps=1,
        **more,
    )
    return (folder / name / "model.safetensors").read_bytes()


def test_the_loss_is_that_of_the_documents_alone(
    tmp_path: Path, tokens: tuple[Corpus, Path]
) -> None:
    """First step of a phase, against every document of its rows by itself."""
    models.create(tiny("olmoe", vocabulary=300), 0, tmp_path / "init")
    recipe = RECIPE.model_copy(update={"sequence_tokens": 64, "router_loss": 0.0})
    # The batches at hand must hold ends of documents: the corpus has some 1200 tokens in each.
    stream = Stream(tokens[1], 64, 3)
    seed = next(s for s in range(99) if (Stream(tokens[1], 64, s).batch(0, 4)[:, :-2] == 0).any())
    assert stream.end_of_document == 0
    do = Train(tokens=recipe.batch_tokens, recipe=recipe, corpus=tokens[0], seed=seed)
    trained(tmp_path, "masked", do, tokens[1])
    first = json.loads((tmp_path / "masked.jsonl").read_text().splitlines()[0])["loss"]

    model, losses = models.load(tmp_path / "init").eval(), []
    rows = torch.from_numpy(Stream(tokens[1], 64, seed).batch(0, 4))
    with torch.no_grad():
        for row in rows:
            inputs, labels = row[:-1], row[1:]
            ends = [*(torch.nonzero(inputs == 0).flatten() + 1).tolist(), len(inputs)]
            for start, end in zip([0, *ends], ends, strict=False):
                if start < end:
                    logits = model(input_ids=inputs[None, start:end], use_cache=False).logits[0]
                    losses.append(cross_entropy(logits, labels[start:end], reduction="sum").item())
    assert first == pytest.approx(sum(losses) / rows[:, 1:].numel(), rel=1e-6)
    assert len(losses) > 4


def test_any_cut_of_a_phase_with_masks_gives_the_same_bits(
    tmp_path: Path, tokens: tuple[Corpus, Path]
) -> None:
    models.create(tiny("qwen3_moe", vocabulary=300), 0, tmp_path / "init")
    do = Train(tokens=64 * 64, recipe=RECIPE, corpus=tokens[0])
    whole = trained(tmp_path, "whole", do, tokens[1])
    steps = iter(range(10**6))
    train(
        do,
        source=tmp_path / "init",
        target=tmp_path / "cut",
        partial=tmp_path / "cut.partial",
        stream_folder=tokens[1],
        stop=lambda: next(steps) >= 17,
    )
    assert trained(tmp_path, "cut", do, tokens[1]) == whole
    plain = do.model_copy(update={"recipe": RECIPE.model_copy(update={"document_masks": False})})
    assert trained(tmp_path, "plain", plain, tokens[1]) != whole


def test_token_files_say_where_documents_end(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.arange(2000, dtype=np.uint16) % 50)
    for end, known in ((49, 49), (None, None)):
        data = Tokens(paths=(str(tmp_path / "tokens.npy"),), vocabulary=64, end_of_document=end)
        made = corpus(data)
        corpora.prepare(data, made, tmp_path / made.id)
        stream = Stream(tmp_path / made.id, 16, 0)
        if known is None:
            with pytest.raises(GrowpointError, match="which token ends a document"):
                _ = stream.end_of_document
            with pytest.raises(GrowpointError, match="do not say where their documents end"):
                fits.require_documents(RECIPE, data, tiny("olmoe"))
        else:
            assert stream.end_of_document == known
            fits.require_documents(RECIPE, data, tiny("olmoe"))
    with pytest.raises(ValueError, match="beyond the vocabulary"):
        Tokens(paths=("x.npy",), vocabulary=64, end_of_document=64)
