"""The one FLOP accountant, for sunk and extra compute alike (docs/flops.md works an example)."""

from collections import Counter
from collections.abc import Mapping
from functools import cache

from sweeps import family as families
from sweeps.family import Attention
from sweeps.model import Model, parameters, sizes
from sweeps.recipe import Suite
from sweeps.stages import Evaluate, Grow, Init, Stage, Train

# The backward pass multiplies by weights and by activations: twice the forward pass.
BACKWARD = 2


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


def suite_tokens(suite: Suite) -> int:
    """Tokens that are read to score one checkpoint."""
    if suite.choices is None:
        return suite.heldout_tokens
    each = suite.choices.context_tokens + suite.choices.continuation_tokens
    return suite.heldout_tokens + suite.choices.items * suite.choices.options * each


@cache
def flops(stage: Stage) -> float:
    """FLOPs of this stage alone, from its beginning."""
    do = stage.do
    if isinstance(do, Train):
        return do.tokens * train_flops_per_token(stage.model, do.recipe.sequence_tokens)
    if isinstance(do, Evaluate):
        length = do.suite.sequence_tokens
        return suite_tokens(do.suite) * forward_flops_per_token(stage.model, length)
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
