"""Series: the checkpoints that an earlier training run has left, and what was sunk into each."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from sweeps import cost
from sweeps.errors import GrowpointError
from sweeps.model import Model, parameters
from sweeps.pattern import Number, read
from sweeps.places import Commit, Place
from sweeps.schema import Description
from sweeps.stages import Adopted, Init, Stage

Phase = Literal["warmup", "constant", "annealing"]
# Hoffmann et al., arXiv 2203.15556: about 20 tokens for each parameter, at 6 FLOPs per parameter.
CHINCHILLA_TOKENS_PER_PARAMETER, FLOPS_PER_PARAMETER = 20, 6
# Names round their tokens down ("tokens20B"), so a product may differ from them by so much.
ROUNDING = 0.05


class Course(Description):
    """How the learning rate went, by steps of the series: which phase a checkpoint was taken in."""

    kind: Literal["constant", "wsd", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0
    decay_from_step: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _says_when(self) -> "Course":
        if (self.kind == "wsd") != (self.decay_from_step is not None):
            raise ValueError("decay_from_step belongs to kind wsd, and wsd needs it")
        return self

    def phase(self, step: int) -> Phase:
        """Phase after `step` steps; a cosine anneals from the end of its warm-up on."""
        if step < self.warmup_steps:
            return "warmup"
        start = self.warmup_steps if self.kind == "cosine" else self.decay_from_step
        return "constant" if start is None or step <= start else "annealing"


class Entry(Description):
    """One checkpoint by name, with what its name does not say or says wrongly."""

    name: Annotated[str, Field(min_length=1)]
    step: NonNegativeInt | None = None
    tokens: NonNegativeFloat | None = None
    flops: NonNegativeFloat | None = None
    loss: float | None = None
    phase: Phase | None = None
    commit: Commit | None = None


class Series(Description):
    """Where checkpoints lie (a folder or a hub repository) and how their numbers are known.

    `{step}` and `{tokens}` in `folder` or `revision` stand for numbers in the names; tokens come
    from an entry of `checkpoints`, else `tokens_per_step`, else the name. FLOPs come from an
    entry, else `flops_per_token`, else our own count at `sequence_tokens` (the model's positions).
    """

    name: str = ""
    title: str = ""
    folder: str | None = None
    repo: Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)?$")] | None = None
    revision: str | None = None
    tokens_per_step: PositiveInt | None = None
    sequence_tokens: PositiveInt | None = None
    flops_per_token: PositiveFloat | None = None
    schedule: Course | None = None
    checkpoints: tuple[Entry, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> "Series":
        if (self.folder is None) == (self.repo is None):
            raise ValueError("a series has either a `folder` or a `repo`")
        if self.repo is None and self.revision is not None:
            raise ValueError("`revision` belongs to a `repo`")
        if self.repo and not self.revision and not self.checkpoints:
            raise ValueError("a `repo` needs a `revision`, or `checkpoints` that name revisions")
        return self

    @property
    def where(self) -> str:
        """`/ckpts/step_{step}` or `owner/name@step{step}`."""
        return f"{self.repo}@{self.revision or '...'}" if self.repo else str(self.folder)


class Source(Description):
    """One checkpoint of a series: its place, and the numbers that are known of it.

    `flops` is what the series states; None leaves it to `sunk_flops`. `content` is known of those
    that a sweep has chosen.
    """

    series: str
    name: str
    place: Place
    content: str = ""
    step: int | None = None
    tokens: int
    flops: float | None = None
    loss: float | None = None
    phase: Phase | None = None
    flops_per_token: float | None = None
    sequence_tokens: int | None = None

    @property
    def stated_flops(self) -> float | None:
        """FLOPs by the series' own numbers; None if it leaves them to our count."""
        if self.flops is not None or self.flops_per_token is None:
            return self.flops
        return self.tokens * self.flops_per_token

    def sunk_flops(self, model: Model) -> float:
        """FLOPs that training this checkpoint took: stated, or tokens x our FLOPs per token."""
        stated = self.stated_flops
        if stated is not None:
            return stated
        length = self.sequence_tokens or model.positions
        return self.tokens * cost.train_flops_per_token(model, length)


def adopted(source: Source, model: Model) -> Stage:
    """The stage that adopts a chosen checkpoint; all seeds share it, as nothing of it is drawn."""
    flops = source.sunk_flops(model)
    known = Adopted(content=source.content, tokens=source.tokens, flops=flops)
    return Stage(Init(model=model, adopted=known))


def chinchilla_flops(model: Model) -> float:
    """Chinchilla-optimal compute of the active parameters: 6 N x 20 N."""
    active = float(parameters(model).active)
    return FLOPS_PER_PARAMETER * active * CHINCHILLA_TOKENS_PER_PARAMETER * active


def sources(series: Series, found: Mapping[str, Place]) -> list[Source]:
    """The checkpoints at the places `found` (by name), with their numbers, by tokens.

    Raises GrowpointError where two have the same step, or the tokens of one are not known.
    """
    entries = {entry.name: entry for entry in series.checkpoints}
    made = [
        _source(series, name, place, entries.get(name, Entry(name=name)))
        for name, place in found.items()
    ]
    _require_distinct_steps(made)
    return sorted(made, key=lambda source: (source.tokens, source.step or 0, source.name))


def _source(series: Series, name: str, place: Place, entry: Entry) -> Source:
    numbers = read(series.revision or series.folder or "", name)
    step = entry.step if entry.step is not None else _whole(numbers.get("step"))
    phase = series.schedule.phase(step) if series.schedule and step is not None else None
    return Source(
        series=series.name or series.where,
        name=name,
        place=place,
        step=step,
        tokens=_tokens(series, entry, step, numbers.get("tokens")),
        flops=entry.flops,
        loss=entry.loss,
        phase=entry.phase or phase,
        flops_per_token=series.flops_per_token,
        sequence_tokens=series.sequence_tokens,
    )


def _whole(number: Number | None) -> int | None:
    return round(number.value) if number else None


def _tokens(series: Series, entry: Entry, step: int | None, named: Number | None) -> int:
    if entry.tokens is not None:
        return round(entry.tokens)
    if series.tokens_per_step and step is not None:
        product = step * series.tokens_per_step
        if named and abs(product - named.value) > max(named.unit, ROUNDING * named.value):
            raise GrowpointError(
                f"the name of checkpoint `{entry.name}` says other tokens than its steps",
                [
                    ("name", f"{named.value:g} tokens"),
                    ("steps", f"{step} of {series.tokens_per_step} tokens: {product:g}"),
                ],
                "put right tokens_per_step, or leave it out",
            )
        return product
    if named:
        return round(named.value)
    lacks = "steps" if series.tokens_per_step else "tokens"
    raise GrowpointError(
        f"nothing says how many tokens checkpoint `{entry.name}` was trained on",
        [("series", series.where), ("lacks", f"{lacks} in its name, or an entry of checkpoints")],
        "series.tokens_per_step=BATCH_TOKENS"
        if step is not None and not series.tokens_per_step
        else f"'series.checkpoints=[{{name: \"{entry.name}\", tokens: TOKENS}}]'",
    )


def _require_distinct_steps(made: Sequence[Source]) -> None:
    first: dict[int, Source] = {}
    for source in made:
        if source.step is None:
            continue
        twin = first.setdefault(source.step, source)
        if twin is not source:
            raise GrowpointError(
                f"two checkpoints of the series are of step {source.step}",
                [("found", f"{twin.name}, {source.name}")],
                "narrow the pattern, so that it matches one of them",
            )
