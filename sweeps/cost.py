"""The one FLOP accountant, for sunk and extra compute alike (docs/flops.md works an example)."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache

from sweeps import family as families
from sweeps.amounts import PointUnit
from sweeps.family import Attention
from sweeps.model import Model, parameters, sizes
from sweeps.stages import Evaluate, Grow, Init, Stage, Train
from sweeps.steps import Stretch
from sweeps.suite import Benchmark, Suite

# The backward pass multiplies by weights and by activations: twice the forward pass.
BACKWARD = 2
# What a task of lm-evaluation-harness is taken to have: hellaswag has 10,042 items of 4 endings,
# and about 100 tokens each.
TASK_ITEMS, ITEM_REQUESTS, REQUEST_TOKENS = 10_000, 4, 100


def forward_flops_per_token(model: Model, sequence_tokens: int) -> float:
    """Forward FLOPs of one token in a sequence of `sequence_tokens`.

    Two FLOPs for each parameter that a token is multiplied with (attention, router, its top-k
    experts, shared experts, head; no embedding look-up, norms or biases), plus attention scores
    and their weighted sum over the whole sequence, as kernels without a causal short-cut compute
    them (the usual convention; a causal kernel does about half of that term). Layers that keep a
    state instead are charged for the products with it. Cached by the model's text.
    """
    return _forward(model.model_dump_json(), sequence_tokens)


@cache
def _forward(text: str, sequence_tokens: int) -> float:
    model = Model.model_validate_json(text)
    family = families.load(model.family)
    known = sizes(model, family)
    mixing = [family.mixers[word].attention for word in model.mixers]
    layers = Counter(mixing or [family.attention] * model.layers)
    return 2.0 * parameters(model).multiplied + sum(
        count * _mixing_flops(attention, model, sequence_tokens, known)
        for attention, count in layers.items()
    )


def _mixing_flops(
    attention: Attention, model: Model, sequence_tokens: int, known: Mapping[str, int]
) -> float:
    """What one layer computes for a token from other tokens, beside its weights."""
    widths = families.evaluate(attention.query_key, known)
    widths += families.evaluate(attention.value, known)
    products = families.evaluate(attention.products, known)
    return 2.0 * (sequence_tokens * model.heads * widths + products)


def train_flops_per_token(model: Model, sequence_tokens: int) -> float:
    """Forward and backward FLOPs of one token; nothing is recomputed."""
    return (1 + BACKWARD) * forward_flops_per_token(model, sequence_tokens)


def of_one_token(unit: PointUnit, model: Model) -> Callable[[Stretch], float]:
    """How many of `unit` it is to train on one token, by the batches that it is in."""
    if unit == "flops":
        return lambda batch: train_flops_per_token(model, batch.row_tokens)
    return (lambda batch: 1 / batch.tokens) if unit == "steps" else (lambda batch: 1.0)


def suite_flops(suite: Suite, model: Model) -> float:
    """FLOPs to score one checkpoint."""
    noisy = len(suite.noise) + len(suite.weight_noise)
    tokens = _suite_tokens(suite) + noisy * suite.heldout_tokens
    found = tokens * forward_flops_per_token(model, suite.sequence_tokens)
    for length in suite.lengths:
        found += suite.heldout_tokens * forward_flops_per_token(model, length)
    tokens = sum(_task_tokens(each) for each in suite.tasks)
    return found + tokens * forward_flops_per_token(model, REQUEST_TOKENS)


def _suite_tokens(suite: Suite) -> int:
    if suite.choices is None:
        return suite.heldout_tokens
    each = suite.choices.context_tokens + suite.choices.continuation_tokens
    return suite.heldout_tokens + suite.choices.items * suite.choices.options * each


def _task_tokens(task: Benchmark) -> int:
    """A guess, lengthened by the examples that are shown: an item is known when it is run."""
    shown = 1 + (task.shots or 0)
    return (task.limit or TASK_ITEMS) * ITEM_REQUESTS * REQUEST_TOKENS * shown


@cache
def flops(stage: Stage) -> float:
    """FLOPs of this stage alone, from its beginning."""
    do = stage.do
    if isinstance(do, Train):
        return do.recipe.batches.price(do.tokens, of_one_token("flops", stage.model))
    if isinstance(do, Evaluate):
        return suite_flops(do.suite, stage.model)
    assert isinstance(do, Init | Grow)
    return 0.0


def trained_tokens(stage: Stage) -> int:
    """Tokens that the whole lineage was trained on, those of an adopted checkpoint included."""
    return sum(_tokens(before) for before in stage.lineage)


def _tokens(stage: Stage) -> int:
    if isinstance(stage.do, Init) and stage.do.adopted:
        return stage.do.adopted.tokens
    return stage.do.tokens if isinstance(stage.do, Train) else 0


def trained_flops(stage: Stage) -> float:
    """FLOPs that training the whole lineage took, those of an adopted checkpoint included."""
    return sum(_trained(before) for before in stage.lineage)


def _trained(stage: Stage) -> float:
    """As `flops`, with what was spent on an adopted checkpoint before it came here."""
    if isinstance(stage.do, Init) and stage.do.adopted:
        return stage.do.adopted.flops
    return flops(stage) if isinstance(stage.do, Train) else 0.0
