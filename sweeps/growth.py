"""Growth of a network's sizes by operators, and the maps that say what comes from where."""

from collections.abc import Mapping, Sequence

from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Family
from sweeps.model import Model, Setting, all_settings, deepened, resized
from sweeps.operators import (
    Chain,
    Depth,
    GrowthChoice,
    Operator,
    Width,
    label,
    number,
    operators_of,
)

__all__ = [
    "Chain",
    "Depth",
    "GrowthChoice",
    "Operator",
    "Width",
    "expert_map",
    "first_occurrences",
    "grown",
    "label",
    "layer_map",
    "number",
    "operators_of",
]


def grown(model: Model, operators: Sequence[Depth | Width]) -> Model:
    """Sizes after growth. Raises GrowpointError if the family cannot hold the result."""
    for operator in operators:
        _refuse(model.family, operator)
        model = (
            deepened(model, operator.source_of(model.layers))
            if isinstance(operator, Depth)
            else _widened(model, operator)
        )
    return model


def _refuse(family: str, operator: Depth | Width) -> None:
    refuses = families.load(family).refuses
    if reason := refuses.get(operator.kind):
        other = "width" if operator.kind == "depth" else "depth"
        raise GrowpointError(
            f"{family} cannot grow by {operator.kind}", [("because", reason)], f"growth={other}"
        )
    zeroed = isinstance(operator, Depth) and operator.copies == "zeroed"
    if zeroed and (reason := refuses.get("zeroed")):
        raise GrowpointError(
            f"{family} cannot keep its function by zeroed copies of layers",
            [("because", reason)],
            "copies: same",
        )


def _widened(model: Model, width: Width) -> Model:
    family = families.load(model.family)
    _refuse_no_experts(model)
    top_k = model.top_k * (width.factor if width.top_k == "scaled" else 1)
    experts = len(width.source_of(model.experts))
    if top_k > experts:
        raise GrowpointError(
            "a token cannot use more experts than there are",
            [("experts", experts), ("top-k", f"{model.top_k} x {width.factor} = {top_k}")],
            f"growth.0.factor={experts // model.top_k}, or `experts: copied`",
        )
    return resized(
        model,
        experts=experts,
        top_k=top_k,
        settings={**model.settings, **_routing(family, model, width)},
    )


def _refuse_no_experts(model: Model) -> None:
    if all(model.is_dense(layer) for layer in range(model.layers)):
        raise GrowpointError(
            "the network has no layer with experts to add to",
            [("layers", model.layers), ("dense", model.layers)],
            "growth=depth",
        )


def _routing(family: Family, model: Model, width: Width) -> dict[str, float | int]:
    """The settings that a family's routing needs to keep the function: groups and scales."""
    settings = all_settings(model)
    groups = _numbers(family.scaled_by_width, settings)
    # Gates that are not normalised add up over all copies; with top-k or the experts kept only as
    # many are added as before, and there is no function to keep.
    scales = _numbers(family.divided_by_width, settings) if width.sums_copies else {}
    rules = {key: value / width.factor for key, value in scales.items()}
    if width.experts == "kept" or not groups:
        return rules
    _check_groups(family, model, width, groups)
    if width.order == "interleaved":
        return rules
    return {**{key: int(value) * width.factor for key, value in groups.items()}, **rules}


def _numbers(conditions: Mapping[str, str], settings: Mapping[str, Setting]) -> dict[str, float]:
    """Those settings whose condition holds, and which are set."""
    return {
        key: float(str(settings[key]))
        for key, when in conditions.items()
        if families.holds(when, settings) and settings.get(key) is not None
    }


def _check_groups(family: Family, model: Model, width: Width, groups: Mapping[str, float]) -> None:
    """Experts are routed in groups of neighbours; the first of the settings counts the groups."""
    key, count = next(iter(groups.items()))
    if model.experts % int(count):
        raise GrowpointError(
            "the experts do not divide into routing groups of one size",
            [("experts", model.experts), (key, int(count))],
            f"choose a checkpoint whose experts are a multiple of its {key}",
        )
    reason = family.refuses.get("interleaved")
    if width.order == "interleaved" and reason and count > 1:
        raise GrowpointError(
            f"{family.name} cannot hold interleaved copies of experts in routing groups",
            [(key, int(count)), ("because", reason)],
            "order: appended, where copies form groups of their own",
        )


def first_occurrences(source: Sequence[int]) -> tuple[bool, ...]:
    """Which entries of a source map are originals; the others are copies."""
    first = {index: position for position, index in reversed(list(enumerate(source)))}
    return tuple(first[index] == position for position, index in enumerate(source))


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
