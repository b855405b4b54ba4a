"""Scaling laws. The class is the hypothesis, its fields are the parameters, an instance is fitted.

A law gives the falling quantity L (a loss, or the shortfall of an accuracy from its top) from
   S   sunk FLOPs, spent before growing, at N1 active parameters
   X   extra FLOPs, spent after it, at N2 active parameters
"""

from analysis.laws.law import Design, Law, Scope, Unit, UnitName, Value, parameter, sunk_worth
from analysis.laws.link import AccuracyLink, linked
from analysis.laws.matching import LossMatching
from analysis.laws.sunk import SunkLogLinear, SunkSaturating
from analysis.laws.surface import (
    AverageParams,
    EffectiveCompute,
    LogLinearInteraction,
    Upcycling,
    UpcyclingInteraction,
)
from analysis.laws.timing import GrowthTiming
from analysis.laws.total import Chinchilla, TotalLogLinear, TotalSaturating

LAWS: dict[str, type[Law]] = {
    law.name: law
    for law in (
        SunkLogLinear,
        SunkSaturating,
        AverageParams,
        Upcycling,
        UpcyclingInteraction,
        LossMatching,
        EffectiveCompute,
        LogLinearInteraction,
        TotalLogLinear,
        TotalSaturating,
        Chinchilla,
    )
}

# Accuracy by way of the loss, for the laws that are asked about budgets nobody has measured.
LINKS: dict[str, type[AccuracyLink]] = {
    linked(law).name: linked(law) for law in LAWS.values() if law.scope in ("surface", "total")
}


def law_named(name: str) -> type[Law]:
    """The law called `name`, linked ones included; KeyError for an unknown one."""
    return LINKS[name] if name in LINKS else LAWS[name]


__all__ = [
    "LAWS",
    "LINKS",
    "AccuracyLink",
    "AverageParams",
    "Chinchilla",
    "Design",
    "EffectiveCompute",
    "GrowthTiming",
    "Law",
    "LogLinearInteraction",
    "LossMatching",
    "Scope",
    "SunkLogLinear",
    "SunkSaturating",
    "TotalLogLinear",
    "TotalSaturating",
    "Unit",
    "UnitName",
    "Upcycling",
    "UpcyclingInteraction",
    "Value",
    "law_named",
    "linked",
    "parameter",
    "sunk_worth",
]
