"""The one exception that a user's mistake raises."""

from collections.abc import Sequence
from difflib import get_close_matches


class GrowpointError(Exception):
    """Something the user can put right.

    `problem` is one lower-case sentence without a full stop, `evidence` are aligned key-value
    lines, `help` is an instruction that can be pasted.
    """

    def __init__(
        self, problem: str, evidence: Sequence[tuple[str, object]] = (), help: str = ""
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.evidence = tuple((key, str(value)) for key, value in evidence)
        self.help = help

    def __reduce__(self) -> tuple[type["GrowpointError"], tuple[object, ...]]:
        return type(self), (self.problem, self.evidence, self.help)

    def text(self) -> str:
        """The message as printed: problem, evidence, help."""
        width = max([7, *(len(key) for key, _ in self.evidence)]) + 1
        lines = [f"error: {self.problem}"]
        lines += [f"  {key:<{width}}{value}" for key, value in self.evidence]
        if self.help:
            lines.append(f"  {'help':<{width}}{self.help}")
        return "\n".join(lines)


def nearest(word: str, known: Sequence[str]) -> str:
    """The known word most like `word`, or the first one; "" if none is known."""
    close = get_close_matches(word, known, n=1, cutoff=0.0)
    return close[0] if close else ""
