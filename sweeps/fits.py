"""What the parts of a sweep must agree on, before anything is planned."""

from collections import Counter
from collections.abc import Sequence

from sweeps import family as families
from sweeps.command import CommandRecipe
from sweeps.data import Hub, Stdlib, Text, Tokens
from sweeps.errors import GrowpointError
from sweeps.model import Model
from sweeps.recipe import Branch, Recipe
from sweeps.suite import Suite


def require_distinct(key: str, values: Sequence[float | str]) -> None:
    """Refuse an axis that names a value twice: one run would pass for two measurements."""
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise GrowpointError(
            f"{key} names {_plain(twice[0])} twice",
            [("given", ", ".join(map(_plain, values)))],
            f"{key}=[{','.join(map(_plain, dict.fromkeys(values)))}]",
        )


def _plain(value: float | str) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def require_vocabulary(
    data: Stdlib | Text | Hub | Tokens, model: Model, *, adopted: bool = False
) -> None:
    """Refuse data with tokens that the model has no row for; an adopted one cannot be changed."""
    needed = data.vocabulary if isinstance(data, Tokens) else data.tokenizer.vocabulary
    if needed > model.vocabulary:
        raise GrowpointError(
            "the data has more tokens than the model's vocabulary",
            [("data", needed), ("model", model.vocabulary)],
            "'data.tokenizer={kind: source}', or tokens that the checkpoints know"
            if adopted
            else f"model.vocabulary={needed}",
        )


def require_positions(
    recipe: Recipe | CommandRecipe, suite: Suite, model: Model, *, adopted: bool = False
) -> None:
    """Refuse sequences longer than the model's positions, those of multiple choice included."""
    choices = suite.choices
    asked = choices.context_tokens + choices.continuation_tokens if choices else 0
    longest = max(recipe.sequence_tokens, suite.sequence_tokens, asked)
    if longest > model.positions:
        what = "a context and its continuation" if longest == asked else "sequences"
        raise GrowpointError(
            f"{what} are longer than the model's positions",
            [("tokens", longest), ("positions", model.positions)],
            f"recipe.sequence_tokens={model.positions} suite.sequence_tokens={model.positions}"
            if adopted
            else f"model.positions={longest}",
        )


def require_documents(recipe: Recipe, data: Stdlib | Text | Hub | Tokens, model: Model) -> None:
    """Refuse document masks where documents are not known, or a layer would look across them."""
    if not recipe.document_masks:
        return
    if isinstance(data, Tokens) and data.end_of_document is None:
        raise GrowpointError(
            "token files do not say where their documents end",
            [("recipe.document_masks", "true")],
            "data.end_of_document=ID_OF_THE_TOKEN_THAT_ENDS_THEM, or recipe.document_masks=false",
        )
    family = families.load(model.family)
    # A layer without queries carries a state from token to token, whatever their positions say.
    stateful = [
        name for name in dict.fromkeys(model.mixers) if family.mixers[name].attention.is_none
    ]
    reason = family.refuses.get("documents") or (
        f"its layers of the kind {stateful[0]} carry a state across them" if stateful else ""
    )
    if reason:
        raise GrowpointError(
            f"{model.family} cannot keep the documents of one sequence apart",
            [("because", reason)],
            "recipe.document_masks=false",
        )


def require_suite(suite: Suite, data: Stdlib | Text | Hub | Tokens, model: Model) -> None:
    """Refuse a suite that scores twice under one name, beyond the model's positions, or nothing."""
    require_distinct("suite.lengths", suite.lengths)
    require_distinct("suite.noise", suite.noise)
    require_distinct("suite.weight_noise", suite.weight_noise)
    require_distinct("suite.tasks", [task.name for task in suite.tasks])
    if max(suite.lengths, default=0) > model.positions:
        fitting = [str(length) for length in suite.lengths if length <= model.positions]
        raise GrowpointError(
            "suite.lengths asks for sequences longer than the model's positions",
            [
                ("tokens", max(suite.lengths)),
                ("positions", model.positions),
                ("because", "what follows its last position, a model has never been made for"),
            ],
            f"suite.lengths=[{','.join(fitting)}]",
        )
    if suite.tasks and isinstance(data, Tokens):
        raise GrowpointError(
            "the suite's tasks are text, and token files say nothing of their tokenizer",
            [("tasks", ", ".join(task.name for task in suite.tasks)), ("data", "tokens")],
            "suite=heldout, or data=text",
        )


def require_fresh_optimizer(branch: Branch) -> None:
    """Refuse to carry an optimizer's state over from checkpoints that bring none."""
    if branch.optimizer_state == "carried":
        raise GrowpointError(
            "there is no optimizer state to carry: only the weights of a checkpoint are adopted",
            [("branch.optimizer_state", "carried")],
            "branch.optimizer_state=fresh",
        )


def require_growth(growths: Sequence[str], arms: Sequence[str]) -> None:
    """Refuse a growth axis with a double, and one without which no arm has a cell."""
    if len(set(growths)) != len(growths):
        raise GrowpointError(
            "the growth axis names one operator twice",
            [("growth", ", ".join(growths))],
            "give each entry of `growth` a kind, order, factor or noise of its own",
        )
    if not arms:
        raise GrowpointError("arms is empty", [], "arms=[grow,continue,scratch]")
    if not growths and "continue" not in arms:
        raise GrowpointError(
            f"growth is empty, and without it the sweep has no cells for {' and '.join(arms)}",
            [("growth", "[]"), ("arms", ", ".join(arms))],
            "growth=depth",
        )
