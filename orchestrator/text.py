"""How things are printed: numbers, tables, and the two consoles."""

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table

# A pipe or a file has no width to fit into; a table must not be cut there.
_PIPE_WIDTH = 200

out = Console(highlight=False, markup=False, soft_wrap=True)
if not out.is_terminal:
    out = Console(highlight=False, markup=False, soft_wrap=True, width=_PIPE_WIDTH)
talk = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

# Colour helps, but every state has a word as well.
STATE_STYLE = {"done": "green", "running": "cyan", "failed": "red", "blocked": "yellow"}


def flops(value: float) -> str:
    """`3.4e19`; `-` for nothing."""
    if not value:
        return "-"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _scaled(value: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def params(count: float) -> str:
    """`46.7M`."""
    return _scaled(count)


def tokens(count: float) -> str:
    """`986M`."""
    return _scaled(count)


def seconds(value: float) -> str:
    """`3 h 10 m`, `41 min`, `12 s`."""
    if value >= 3600:
        return f"{int(value // 3600)} h {int(value % 3600 // 60)} m"
    if value >= 90:
        return f"{value / 60:.0f} min"
    return f"{value:.0f} s"


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()
) -> Table:
    """A plain table, indented by two; the columns in `right` are aligned right."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    drawn.add_column("")
    for index, name in enumerate(columns):
        drawn.add_column(name, justify="right" if index in right else "left", no_wrap=True)
    for row in rows:
        drawn.add_row("", *row)
    return drawn
