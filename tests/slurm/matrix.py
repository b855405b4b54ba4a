"""What befell the tests and what survived, as the table of docs/reliability.md.

    python -m tests.slurm.matrix            all of it, in some ten minutes
    python -m tests.slurm.matrix -k kill    only some rows; words go to pytest; nothing is written

Tests `tell` a row once they have seen it; pytest shows it with `-s` or `-rP`.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
FILES = [
    "tests/e2e/test_slurm_troubles.py",
    "tests/e2e/test_slurm_launch.py",
    "tests/e2e/test_kill.py",
    "tests/unit/orchestrator/test_slurm.py",
]
BEGIN, END = "<!-- tests/slurm/matrix.py writes this -->", "<!-- until here -->"
TOLD = re.compile("injected: (.+); happens: (.+); lost: (.+); survived: (.+)")
HEADS = ("what is injected", "what happens", "lost at most", "seen", "test")


class Told:
    """A plugin of pytest that collects what tests tell."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, ...], str] = {}
        self.times: Counter[tuple[str, ...]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the lines of a test that passed."""
        if report.when == "call" and report.passed:
            test = report.nodeid.partition("::")[2].partition("[")[0]
            for *what, survived in TOLD.findall(report.capstdout):
                self.times[(*what, test)] += 1
                self.seen[(*what, test)] = survived

    def rows(self) -> list[tuple[str, ...]]:
        """One for each thing that a test does, however often it does it."""
        counts = {key: f" ({count} times)" * (count > 1) for key, count in self.times.items()}
        return [
            (injected, happens, lost, seen + counts[injected, happens, lost, test], f"`{test}`")
            for (injected, happens, lost, test), seen in self.seen.items()
        ]


def tell(injected: str, happens: str, lost: str, survived: str) -> None:
    """Print a row: what a test did, what came of it, what that costs, what was there at the end."""
    print(f"injected: {injected}; happens: {happens}; lost: {lost}; survived: {survived}")


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as Markdown."""
    lines = [HEADS, ("---",) * len(HEADS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(words: list[str]) -> int:
    """Run the tests; write the table if all of them passed. Returns pytest's exit code."""
    told = Told()
    code = int(pytest.main(["-q", *FILES, *words], plugins=[told]))
    if words or code:
        print(table(told.rows()))
        return code
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(told.rows())}{END}{rest.partition(END)[2]}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
