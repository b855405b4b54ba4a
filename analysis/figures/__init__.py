"""The figures, each a pure function from frames and fits to (Figure, what was drawn)."""

from collections.abc import Callable

from analysis.figures.accuracy_vs_extra import accuracy_vs_extra
from analysis.figures.compare_laws import compare_laws
from analysis.figures.decision_map import decision_map
from analysis.figures.fixed_total import fixed_total
from analysis.figures.loss_curves import loss_curves
from analysis.figures.residuals import residuals
from analysis.figures.subject import Drawn, NothingToDrawError, Subject
from analysis.figures.sunk_vs_accuracy import sunk_vs_accuracy

# In the order of a report. Each raises NothingToDrawError where it has nothing to show.
FIGURES: dict[str, Callable[[Subject], Drawn]] = {
    "decision_map": lambda of: decision_map(of.arms, of.metric, of.noise),
    "fixed_total": lambda of: fixed_total(of.frame, of.arms, of.metric, of.noise),
    "sunk_vs_accuracy": lambda of: sunk_vs_accuracy(of.frame, of.found, of.metric),
    "accuracy_vs_extra": lambda of: accuracy_vs_extra(of.frame, of.metric),
    "loss_curves": lambda of: loss_curves(of.curves()),
    "compare_laws": lambda of: compare_laws(of.found, of.metric),
    "residuals": lambda of: residuals(of.frame, of.found, of.metric, of.noise),
}
NAMES = tuple(FIGURES)

__all__ = [
    "FIGURES",
    "NAMES",
    "Drawn",
    "NothingToDrawError",
    "Subject",
    "accuracy_vs_extra",
    "compare_laws",
    "decision_map",
    "fixed_total",
    "loss_curves",
    "residuals",
    "sunk_vs_accuracy",
]
