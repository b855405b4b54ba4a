"""Score a checkpoint on held-out text: loss, next-token accuracy, multiple choice, robustness."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from orchestrator import models, perturbed
from orchestrator.choices import Item, document_ends, items
from orchestrator.perturbed import Noise
from orchestrator.tokens import Ids, Tape, load, opened, require
from sweeps.data import Corpus
from sweeps.errors import GrowpointError
from sweeps.suite import Choices, Suite

# Logits of so many numbers at once: 64 MB in fp32.
LOGITS = 1 << 24


class Score(NamedTuple):
    """A mean, and its standard error over held-out documents."""

    value: float
    se: float


def evaluate(
    suite: Suite,
    corpus: Corpus,
    checkpoint: Path,
    stream_folder: Path,
    *,
    device: str = "cpu",
    threads: int = 1,
) -> dict[str, dict[str, Any]]:
    """`loss` (nats a token), `next_token_accuracy` and what else the suite asks for.

    Each is {"value", "se"}; docs/evaluation.md has all names. All checkpoints are scored on the
    same tokens, so differences between them are known better than their standard errors say.
    Raises GrowpointError if the held-out text is shorter than asked.
    """
    torch.set_num_threads(threads)
    require(stream_folder, corpus)
    model = models.load(checkpoint, device)
    model.eval()
    scores = next_token(model, suite, stream_folder)
    if suite.choices:
        scores["choice_accuracy"] = choice_accuracy(model, suite.choices, stream_folder)
    scores |= at_lengths(model, suite, stream_folder)
    for share in suite.noise:
        noisy = next_token(model, suite, stream_folder, Noise(share, suite.noise_seed, corpus))
        scores |= _named(noisy, f"noise{share:g}")
    tasks: dict[str, dict[str, Any]] = {}
    if suite.tasks:
        from orchestrator import harness

        tasks = harness.scores(model, suite, (checkpoint, stream_folder))
    for ratio in suite.weight_noise:
        # Loaded anew each time: two copies of a network may not fit, and the noise cannot be taken
        # off again to the bit.
        del model
        model = models.load(checkpoint, device)
        model.eval()
        perturbed.disturb(model, ratio, suite.noise_seed)
        scores |= _named(next_token(model, suite, stream_folder), f"weight_noise{ratio:g}")
    return {name: score._asdict() for name, score in scores.items()} | tasks


def _named(scores: dict[str, Score], at: str) -> dict[str, Score]:
    return {f"{name}@{at}": score for name, score in scores.items()}


def next_token(
    model: Any, suite: Suite, folder: Path, noise: Noise | None = None
) -> dict[str, Score]:
    """Mean loss and accuracy of the next token over `heldout_tokens` tokens.

    The sequences are spread evenly over the held-out text, so that a few long documents at its
    beginning do not stand for all. With `noise` inputs are disturbed, and labels are not.
    """
    tape, chosen = _spread(suite, suite.sequence_tokens, folder)
    rows = tape.read(chosen)
    inputs = noise.on(rows[:, :-1], chosen) if noise else rows[:, :-1]
    return _means(_scored(model, rows, inputs), _groups(folder, tape, chosen))


def at_lengths(model: Any, suite: Suite, folder: Path) -> dict[str, Score]:
    """As `next_token`, for each of the suite's `lengths`, named after them.

    All score the same stretches of text, as long as the longest of them, each cut into whole
    sequences of its own length: what differs is how much of it a token can look back on.
    """
    if not suite.lengths:
        return {}
    tape, chosen = _spread(suite, max(suite.lengths), folder)
    rows, groups = tape.read(chosen), _groups(folder, tape, chosen)
    found: dict[str, Score] = {}
    for length in suite.lengths:
        starts = range(0, tape.length - length + 1, length)
        cut = np.concatenate([rows[:, start : start + length + 1] for start in starts])
        owners = np.concatenate([groups[:, start : start + length] for start in starts])
        found |= _named(_means(_scored(model, cut, cut[:, :-1]), owners), str(length))
    return found


def _spread(suite: Suite, length: int, folder: Path) -> tuple[Tape, Ids]:
    """Held-out text in sequences of `length`, and which of them are scored."""
    tape = Tape(opened(folder, "heldout"), length)
    count = suite.heldout_tokens // length
    if count > tape.sequences:
        have = tape.sequences * length
        raise GrowpointError(
            "the held-out text is shorter than the suite asks for",
            [("asked", f"{suite.heldout_tokens} tokens"), ("held out", f"{have} tokens")],
            f"suite.heldout_tokens={have}, or raise data.heldout_share",
        )
    return tape, np.arange(count, dtype=np.int64) * tape.sequences // count


def _means(
    scored: tuple[NDArray[np.float64], NDArray[np.float64]], groups: Ids
) -> dict[str, Score]:
    losses, hits = scored
    return {"loss": clustered(losses, groups), "next_token_accuracy": clustered(hits, groups)}


def _scored(model: Any, rows: Ids, inputs: Ids) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loss and correctness of every label of [S, T + 1] tokens, both [S, T], after `inputs`."""
    losses, hits = [], []
    for labels, logits in _passes(model, rows[:, 1:], inputs):
        flat = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        losses.append(flat.view(labels.shape).cpu().double().numpy())
        hits.append((logits.argmax(dim=-1) == labels).cpu().double().numpy())
    return np.concatenate(losses), np.concatenate(hits)


@torch.inference_mode()
def _passes(model: Any, labels: Ids, inputs: Ids) -> Iterator[tuple[Tensor, Tensor]]:
    """(labels, fp32 logits) of [S, T] tokens each, as many at once as memory likes."""
    size = max(1, LOGITS // (labels.shape[1] * int(model.config.vocab_size)))
    device = next(model.parameters()).device
    for start in range(0, len(labels), size):
        asked, given = (
            torch.from_numpy(np.ascontiguousarray(each[start : start + size])).to(device)
            for each in (labels, inputs)
        )
        yield asked, model(input_ids=given, use_cache=False).logits.float()


def _groups(folder: Path, tape: Tape, sequences: Ids) -> Ids:
    """Which document each label is of, [S, T]; which sequence, if documents are not known."""
    ends = document_ends(folder)
    own = np.repeat(np.arange(len(sequences)), tape.length).reshape(-1, tape.length)
    if ends is None:
        return own
    first = tape.places(sequences)[1] + 1
    documents = np.searchsorted(ends, first[:, None] + np.arange(tape.length), side="right")
    return documents if len(np.unique(documents)) > 1 else own


def clustered(values: NDArray[np.float64], groups: Ids) -> Score:
    """Mean of all values, and its standard error if only groups of them are independent.

    Tokens of one document share its author, its subject and its repetitions, so the error is that
    of a ratio of sums over documents (Cochran, Sampling Techniques, 3rd ed., section 2.11 and
    chapter 9), which counts the documents and not the tokens. One group alone: its single values.
    """
    names, index = np.unique(groups.ravel(), return_inverse=True)
    if len(names) < 2:
        index = np.arange(values.size)
    flat = values.ravel()
    sizes, sums = np.bincount(index), np.bincount(index, weights=flat)
    mean = float(sums.sum() / sizes.sum())
    count = len(sizes)
    spread = float(((sums - mean * sizes) ** 2).sum()) * count / max(1, count - 1)
    return Score(mean, math.sqrt(spread) / float(sizes.sum()))


def choice_accuracy(model: Any, choices: Choices, folder: Path) -> Score:
    """Share of items whose true continuation has the highest log-likelihood a token.

    All options are equally many tokens long, so the mean over tokens needs no correction for
    length; dividing by characters, as some harnesses do for options of other lengths, would favour
    long words.
    """
    asked = items(choices, folder)
    right = [float(_chosen(model, item, choices) == item.answer) for item in asked]
    return clustered(np.array(right), np.array([item.document for item in asked]))


def _chosen(model: Any, item: Item, choices: Choices) -> int:
    losses, _ = _scored(model, item.rows, item.rows[:, :-1])
    return int(losses[:, -choices.continuation_tokens :].mean(axis=1).argmin())


def heldout_tokens(folder: Path) -> int:
    """Tokens of the held-out half of a prepared corpus."""
    return int(load(folder)["heldout"]["tokens"])
