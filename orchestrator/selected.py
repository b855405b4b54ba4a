"""Which stages belong to a part of a sweep alone: an arm, a growth, a stage and what follows it."""

from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.errors import GrowpointError, nearest


def stages(
    plan: Mapping[str, Any], *, arm: str | None, growth: str | None, stage: str | None
) -> frozenset[str] | None:
    """Stages that only the chosen cells want; None if nothing is chosen, which means all.

    Raises GrowpointError for an arm or growth that the sweep does not have.
    """
    if stage:
        return _below(plan, stage)
    if not arm and not growth:
        return None
    for key, asked in (("arm", arm), ("growth", growth)):
        known = sorted({str(cell[key]) for cell in plan["cells"]})
        if asked and asked not in known:
            raise GrowpointError(
                f"the sweep has no {key} `{asked}`",
                [("known", ", ".join(known))],
                f"--{key} '{nearest(asked, known)}'",
            )
    wanted, others = set[str](), set[str]()
    for cell in plan["cells"]:
        chosen = cell["arm"] == (arm or cell["arm"]) and cell["growth"] == (
            growth or cell["growth"]
        )
        (wanted if chosen else others).update(_way(plan, cell["stage"]))
    return frozenset(wanted - others)


def _way(plan: Mapping[str, Any], stage: str | None) -> Iterator[str]:
    while stage:
        yield stage
        stage = plan["stages"][stage]["starts_from"]


def _below(plan: Mapping[str, Any], stage: str) -> frozenset[str]:
    """A stage and all that go on from it."""
    return frozenset(each for each in plan["stages"] if stage in _way(plan, each))
