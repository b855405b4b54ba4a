"""Understanding: records, laws, fits, the recommendation, figures, the report.

For notebooks:

    import analysis
    frame = analysis.load("store", "demo")              # or analysis.read_results("mine.csv")
    print(analysis.recommend(frame, analysis.Question(extra=3e11)).text())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.checkpoints import Checkpoint
    from analysis.imported import read_results
    from analysis.notebook import load, recommend
    from analysis.question import Question

__all__ = ["Checkpoint", "Question", "load", "read_results", "recommend"]

_WHERE = {
    "Checkpoint": "checkpoints",
    "Question": "question",
    "load": "notebook",
    "read_results": "imported",
    "recommend": "notebook",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: pandas and scipy take a second."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"analysis.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
