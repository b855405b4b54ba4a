"""The figures, each a pure function from frames and fits to (Figure, what was drawn)."""

from analysis.figures.accuracy_vs_extra import accuracy_vs_extra
from analysis.figures.loss_curves import loss_curves
from analysis.figures.sunk_vs_accuracy import sunk_vs_accuracy

NAMES = ("sunk_vs_accuracy", "accuracy_vs_extra", "loss_curves")

__all__ = ["NAMES", "accuracy_vs_extra", "loss_curves", "sunk_vs_accuracy"]
