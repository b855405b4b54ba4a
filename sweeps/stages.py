"""Verbs and stages: what is done to a checkpoint, and after what."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, TypeAdapter

from sweeps.command import AnyRecipe
from sweeps.data import Corpus
from sweeps.growth import Operator, grown
from sweeps.model import Model
from sweeps.recipe import OptimizerState
from sweeps.schema import Description, Seed, asked, canonical, digest
from sweeps.suite import Suite


class Adopted(Description):
    """An existing checkpoint, by its content; where it lies is no part of it.

    `tokens` and `flops` are what was sunk into it by those who made it. They change no weight, so
    they stay out of the stage's text: a corrected number renames nothing.
    """

    content: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|hub:.+@[0-9a-f]{40})$")]
    tokens: NonNegativeInt = 0
    flops: NonNegativeFloat = 0.0


class Init(Description):
    """A new network with random weights, or an existing checkpoint that is adopted."""

    kind: Literal["init"] = "init"
    model: Model
    seed: Seed = 0
    adopted: Adopted | None = None


class Train(Description):
    """One phase of training: a schedule of its own, then `tokens` more.

    A phase that is longer shares its beginning with a shorter one (`shares_start`), so a trunk is
    one phase seen at several lengths, and cutting it elsewhere renames nothing. `ends` says that
    the schedule ends here; an open phase runs on at its peak. Branches read the corpus backward,
    from its far end: every arm sees the same tokens, none of which the trunk has seen.
    AdamW starts anew, or is `carried` over from the phase before, through growth if there was one.
    """

    kind: Literal["train"] = "train"
    tokens: PositiveInt
    recipe: AnyRecipe
    corpus: Corpus
    ends: bool = False
    stream: Literal["forward", "backward"] = "forward"
    seed: Seed = 0
    optimizer_state: OptimizerState = "fresh"


class Grow(Description):
    """Reshape by operators, in order; noise is drawn from (seed, tensor name)."""

    kind: Literal["grow"] = "grow"
    operators: Annotated[tuple[Operator, ...], Field(min_length=1)]
    seed: Seed = 0


class Evaluate(Description):
    """Score a checkpoint by a suite on the corpus's held-out files."""

    kind: Literal["evaluate"] = "evaluate"
    suite: Suite
    corpus: Corpus


Verb = Annotated[Init | Train | Grow | Evaluate, Field(discriminator="kind")]
VERB: TypeAdapter[Init | Train | Grow | Evaluate] = TypeAdapter(Verb)


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of one lineage. Two sweeps that ask for the same thing ask for the same stage."""

    do: Init | Train | Grow | Evaluate
    after: "Stage | None" = None

    @cached_property
    def text(self) -> str:
        """The exact content of stage.json, whose SHA-256 gives the id."""
        after = self.after.id if self.after else None
        return canonical({"after": after, "do": asked(_identity(self.do))})

    @cached_property
    def id(self) -> str:
        """`verb-<10 hex>`."""
        return f"{self.do.kind}-{digest(self.text)}"

    @property
    def lineage(self) -> Iterator["Stage"]:
        """This stage and all before it, first one first."""
        if self.after:
            yield from self.after.lineage
        yield self

    @cached_property
    def model(self) -> Model:
        """Sizes of the network that this stage leaves behind."""
        if isinstance(self.do, Init):
            return self.do.model
        before = self._before.model
        if not isinstance(self.do, Grow):
            return before
        return _grown(before.model_dump_json(), self.do.operators)

    @property
    def _before(self) -> "Stage":
        if self.after is None:
            raise ValueError(f"a lineage cannot begin with {self.do.kind}")
        return self.after

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


@cache
def _grown(text: str, operators: tuple[Operator, ...]) -> Model:
    """`grown`, by the model's text: a plan of 10,000 cells grows few models in few ways."""
    return grown(Model.model_validate_json(text), operators)


def _identity(do: Init | Train | Grow | Evaluate) -> Init | Train | Grow | Evaluate:
    """What of a verb changes its result."""
    if isinstance(do, Evaluate) and do.suite.include_path:
        return do.model_copy(update={"suite": do.suite.model_copy(update={"include_path": None})})
    if not isinstance(do, Init) or do.adopted is None:
        return do
    return do.model_copy(update={"adopted": Adopted(content=do.adopted.content)})


def shares_start(long: Stage, short: Stage) -> bool:
    """Whether the phase `long` passes, bit for bit, through the checkpoint that `short` leaves."""
    if (
        not isinstance(long.do, Train)
        or not isinstance(short.do, Train)
        or long.after != short.after
    ):
        return False
    if short.do.ends or short.do.tokens >= long.do.tokens:
        return False
    same = long.do.model_copy(update={"tokens": short.do.tokens, "ends": False}) == short.do
    return same and short.do.tokens <= passed_until(long.do)


def phase_key(text: str) -> str:
    """What the stage.json of all lengths of one phase have in common, those that end included.

    Of two phases with the same key, `shares_start` depends on lengths alone. Raises ValueError
    and KeyError for a text that is not a train stage's.
    """
    data = json.loads(text)
    kept = {key: value for key, value in data["do"].items() if key not in {"tokens", "ends"}}
    return json.dumps([data["after"], kept], sort_keys=True)


def passed_until(do: Train) -> int:
    """Open checkpoints of the same phase are passed up to so many tokens, and before its own."""
    free = do.recipe.schedule.free_until(do.tokens) if do.ends else do.tokens
    return min(free, do.tokens - 1)


def build(text: str, load: Callable[[str], Stage]) -> Stage:
    """The stage whose stage.json is `text`; `load` gives the stage of an id before it."""
    data: Mapping[str, Any] = json.loads(text)
    after = data["after"]
    return Stage(VERB.validate_python(data["do"]), load(after) if after else None)
