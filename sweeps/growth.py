"""Growth operators as index maps: which source layer or expert each grown one is a copy of."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Family
from sweeps.model import Model, all_settings
from sweeps.schema import Description

Factor = Annotated[int, Field(ge=2, le=64)]
Edge = Annotated[int, Field(ge=0)]


class Depth(Description):
    """Repeat layers: `interpose` repeats each in place, `stack` repeats the whole block.

    `copies: zeroed` sets what a copy adds to the residual stream to zero, so that growth keeps the
    function; the paper's way is plain copies. Source: arXiv 2510.08008 (depth growth).
    """

    kind: Literal["depth"] = "depth"
    order: Literal["interpose", "stack"] = "interpose"
    factor: Factor = 2
    keep_first: Edge = 0
    keep_last: Edge = 0
    copies: Literal["same", "zeroed"] = "same"

    def source_of(self, layers: int) -> tuple[int, ...]:
        """The source layer of each grown layer: (0, 0, 1, 1, ...) or (0, 1, ..., 0, 1, ...)."""
        middle = range(self.keep_first, layers - self.keep_last)
        if len(middle) == 0:
            raise GrowpointError(
                "depth growth keeps every layer single",
                [("layers", layers), ("kept", f"{self.keep_first} first, {self.keep_last} last")],
                "lower keep_first or keep_last",
            )
        inner = (
            [layer for layer in middle for _ in range(self.factor)]
            if self.order == "interpose"
            else list(middle) * self.factor
        )
        first, last = range(self.keep_first), range(layers - self.keep_last, layers)
        return (*first, *inner, *last)

    @property
    def label(self) -> str:
        """Name in tables: `depth x2`."""
        edges = (
            f" keep {self.keep_first}+{self.keep_last}" if self.keep_first + self.keep_last else ""
        )
        stack = " stack" if self.order == "stack" else ""
        zeroed = " zeroed" if self.copies == "zeroed" else ""
        return f"depth x{self.factor}{stack}{edges}{zeroed}"


class Width(Description):
    """Duplicate experts, router rows and top-k; noise (std of the tensor × `noise`) on the copies.

    `top_k: kept` adds experts but uses no more of them, one of the paper's ablations.
    Source: arXiv 2510.08008 (width growth).
    """

    kind: Literal["width"] = "width"
    factor: Factor = 2
    top_k: Literal["scaled", "kept"] = "scaled"
    noise: Annotated[float, Field(ge=0, le=10)] = 0.01

    def source_of(self, experts: int) -> tuple[int, ...]:
        """The source expert of each grown expert: (0, 1, ..., 0, 1, ...): copies are appended."""
        return tuple(range(experts)) * self.factor

    @property
    def label(self) -> str:
        """Name in tables: `width x2`."""
        kept = " top-k kept" if self.top_k == "kept" else ""
        noise = "" if self.noise == 0.01 else f" noise {self.noise:g}"
        return f"width x{self.factor}{kept}{noise}"


Operator = Annotated[Depth | Width, Field(discriminator="kind")]


class Chain(Description):
    """Several operators, one after the other."""

    kind: Literal["chain"] = "chain"
    operators: Annotated[tuple[Operator, ...], Field(min_length=1)]

    @property
    def label(self) -> str:
        """Name in tables: `depth x2 + width x2`."""
        return " + ".join(operator.label for operator in self.operators)


GrowthChoice = Annotated[Depth | Width | Chain, Field(discriminator="kind")]


def operators_of(choice: Depth | Width | Chain) -> tuple[Depth | Width, ...]:
    """The operators of one entry of a sweep's growth axis, in order."""
    return choice.operators if isinstance(choice, Chain) else (choice,)


def label(operators: Sequence[Depth | Width]) -> str:
    """Name in tables: `depth x2 + width x2`."""
    return " + ".join(operator.label for operator in operators)


def grown(model: Model, operators: Sequence[Depth | Width]) -> Model:
    """Sizes after growth. Raises GrowpointError if the family cannot hold the result."""
    for operator in operators:
        _refuse(model.family, operator)
        model = (
            _deepened(model, operator) if isinstance(operator, Depth) else _widened(model, operator)
        )
    return model


def _refuse(family: str, operator: Depth | Width) -> None:
    reason = families.load(family).refuses.get(operator.kind)
    if reason:
        other = "width" if operator.kind == "depth" else "depth"
        raise GrowpointError(
            f"{family} cannot grow by {operator.kind}", [("because", reason)], f"growth={other}"
        )


def _deepened(model: Model, depth: Depth) -> Model:
    source = depth.source_of(model.layers)
    dense = [layer < model.dense_layers for layer in source]
    if dense != sorted(dense, reverse=True):
        raise GrowpointError(
            f"{model.family} cannot hold the layers that this growth makes",
            [("needs", "dense layers first"), ("makes", _runs(dense))],
            f"growth.0.keep_first={model.dense_layers}, which repeats the expert layers only",
        )
    return resized(model, layers=len(source), dense_layers=sum(dense))


def _runs(dense: Sequence[bool]) -> str:
    """`3 dense, 24 expert, 3 dense, 24 expert layers`."""
    runs: list[list[bool]] = []
    for is_dense in dense:
        if not runs or runs[-1][0] != is_dense:
            runs.append([])
        runs[-1].append(is_dense)
    words = [f"{len(run)} {'dense' if run[0] else 'expert'}" for run in runs]
    return ", ".join(words) + " layers"


def _widened(model: Model, width: Width) -> Model:
    family = families.load(model.family)
    scaled_top_k = width.top_k == "scaled"
    return resized(
        model,
        experts=len(width.source_of(model.experts)),
        top_k=model.top_k * (width.factor if scaled_top_k else 1),
        settings={**model.settings, **_routing(family, model, width)},
    )


def _routing(family: Family, model: Model, width: Width) -> dict[str, float | int]:
    """The settings that a family's routing needs to keep the function: groups and scales."""
    settings = all_settings(model)
    scaled = [key for key, when in family.scaled_by_width.items() if families.holds(when, settings)]
    divided = [
        key for key, when in family.divided_by_width.items() if families.holds(when, settings)
    ]
    rules: dict[str, float | int] = {
        key: int(str(settings[key])) * width.factor
        for key in scaled
        if settings.get(key) is not None
    }
    # Gates that are not normalised add up over all copies; with top-k kept only as many are
    # added as before, and there is no function to keep.
    if width.top_k == "scaled":
        rules |= {
            key: float(str(settings[key])) / width.factor
            for key in divided
            if settings.get(key) is not None
        }
    return rules


def first_occurrences(source: Sequence[int]) -> tuple[bool, ...]:
    """Which entries of a source map are originals; the others are copies."""
    return tuple(index not in source[:position] for position, index in enumerate(source))


def layer_map(layers: int, operators: Sequence[Depth | Width]) -> tuple[int, ...]:
    """The source layer of each layer after all operators."""
    return _composed(layers, [operator for operator in operators if isinstance(operator, Depth)])


def expert_map(experts: int, operators: Sequence[Depth | Width]) -> tuple[int, ...]:
    """The source expert of each expert after all operators."""
    return _composed(experts, [operator for operator in operators if isinstance(operator, Width)])


def _composed(count: int, operators: Sequence[Depth | Width]) -> tuple[int, ...]:
    total = tuple(range(count))
    for operator in operators:
        total = tuple(total[index] for index in operator.source_of(len(total)))
    return total


def resized(model: Model, **sizes: object) -> Model:
    """`model` with other sizes, checked anew."""
    return Model.model_validate({**model.model_dump(), **sizes})
