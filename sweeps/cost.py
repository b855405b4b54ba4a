"""The one FLOP accountant, for sunk and extra compute alike (docs/flops.md works an example)."""

from functools import cache

from sweeps import family as families
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
    them (the usual convention; a causal kernel does about half of that term).
    """
    family = families.load(model.family)
    known = sizes(model, family)
    widths = families.evaluate(family.attention.query_key, known)
    widths += families.evaluate(family.attention.value, known)
    attention = 2.0 * model.layers * sequence_tokens * model.heads * widths
    return 2.0 * parameters(model).multiplied + attention


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
    """Tokens that the whole lineage was trained on."""
    return sum(before.do.tokens for before in stage.lineage if isinstance(before.do, Train))


def trained_flops(stage: Stage) -> float:
    """FLOPs that training the whole lineage took."""
    return sum(flops(before) for before in stage.lineage if isinstance(before.do, Train))
