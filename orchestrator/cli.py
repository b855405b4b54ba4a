"""The command line. It sees all three packages, lazily inside each command; nothing imports it."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.arguments import complete, parse
from orchestrator.flags import WRITING
from orchestrator.overview import OVERVIEW
from sweeps.errors import GrowpointError, nearest

if TYPE_CHECKING:
    from analysis.outcomes import Outcomes

Command = Callable[[argparse.Namespace], int]


def main(words: Sequence[str] | None = None) -> int:
    """Entry point. Returns 0 done, 1 something failed or missing, 2 no sense, 130 interrupted."""
    given = list(sys.argv[1:] if words is None else words)
    try:
        return _dispatch(given)
    except GrowpointError as error:
        if "--traceback" in given or os.environ.get("GROWPOINT_DEBUG"):
            raise
        print(error.text(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _dispatch(given: list[str]) -> int:
    if "_ARGCOMPLETE" in os.environ:
        complete(_docs())
    if not given or given[0] in {"-h", "--help", "help"}:
        print(OVERVIEW + _sweeps())
        return 0
    if given[0] == "--version":
        print(_version())
        return 0
    if given[0] not in COMMANDS:
        raise GrowpointError(
            f"there is no command `{given[0]}`",
            [("known", ", ".join(COMMANDS))],
            " ".join(["growpoint", nearest(given[0], list(COMMANDS)), *given[1:]]),
        )
    arguments = parse(given, _docs())
    return COMMANDS[arguments.command](arguments)


def _docs() -> dict[str, str]:
    return {name: (command.__doc__ or "").strip() for name, command in COMMANDS.items()}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"growpoint {version('growpoint')}"
    except PackageNotFoundError:
        return "growpoint (not installed)"


def _sweeps() -> str:
    import conf

    names = sorted(path.stem for path in (conf.FOLDER / "sweep").glob("*.yaml"))
    return (
        f"\nsweeps in conf/sweep: {', '.join(names)}\n"
        "`growpoint COMMAND --help` says more; "
        "`growpoint plan SWEEP --config` prints the whole configuration."
    )


def _plan(arguments: argparse.Namespace) -> int:
    """Show what a sweep would run, what that costs, what is done, and why the rest is new."""
    from orchestrator import commands

    return commands.show_plan(arguments)


def _launch(arguments: argparse.Namespace) -> int:
    """Run what is missing, on SLURM or here. Repeat it to resume or extend; nothing runs twice."""
    from orchestrator import launching

    return launching.launch(arguments)


def _status(arguments: argparse.Namespace) -> int:
    """Show how far a launched sweep is, what runs, and what failed and why."""
    from orchestrator import launched

    return launched.show_status(arguments)


def _logs(arguments: argparse.Namespace) -> int:
    """Show the end of a stage's newest log."""
    from orchestrator import logs

    return logs.show(arguments)


def _cancel(arguments: argparse.Namespace) -> int:
    """Stop a sweep's jobs: they save at their next step. Finished stages stay."""
    from orchestrator import launched

    return launched.cancel(arguments)


def _grow(arguments: argparse.Namespace) -> int:
    """Grow one Hugging Face checkpoint on disk, streaming; the result loads like any other."""
    from orchestrator import commands

    return commands.grow(arguments)


def _inspect(arguments: argparse.Namespace) -> int:
    """Show what checkpoints are, their weight norms by layer, and whether updates are orthogonal.

    Facts and tables are printed; CSV files and the figure of the norms go to --to.
    """
    from orchestrator import diagnose
    from sweeps import search

    if arguments.config_dir:
        search.use_folder(Path(arguments.config_dir))
    return diagnose.inspect(arguments, _draw_norms)


def _draw_norms(rows: Sequence[dict[str, Any]], folder: Path, group: str) -> list[Path]:
    """The figure of norms by layer; pandas and matplotlib are imported when it is drawn."""
    import pandas as pd

    from analysis import style
    from analysis.figures.norm_profile import norm_profile

    return style.save(*norm_profile(pd.DataFrame(list(rows)), group), folder, "norm_profile")


def _outcomes(arguments: argparse.Namespace) -> "Outcomes":
    """The results that a command asks for: those of a sweep, or of a table made elsewhere."""
    from analysis import outcomes
    from orchestrator import text
    from orchestrator.launched import located

    if arguments.results is None:
        return outcomes.of_sweep(*located(arguments))
    to = Path(arguments.to) if arguments.command in WRITING and arguments.to else None
    found = outcomes.of_table(arguments.results, dict(arguments.column or ()), to)
    for said in found.table.warnings() if found.table else ():
        text.talk.print(said, markup=False)
    return found


def _series(arguments: argparse.Namespace) -> int:
    """List the checkpoints of a series: steps, tokens, sunk FLOPs, phase, and whether it is here.

    Without a name, list the series that are known.
    """
    from orchestrator import series

    return series.show(arguments)


def _results(arguments: argparse.Namespace) -> int:
    """List the finished cells of a sweep, or the rows of a table made elsewhere."""
    from analysis import commands

    csv = Path(arguments.csv) if arguments.csv else None
    return commands.results(_outcomes(arguments), as_json=arguments.json, csv=csv)


def _fit(arguments: argparse.Namespace) -> int:
    """Fit scaling laws to the results of a sweep or a table, and compare them."""
    from analysis import commands

    return commands.fit(
        _outcomes(arguments),
        as_json=arguments.json,
        laws=arguments.law or (),
        metric=arguments.metric,
    )


def _plot(arguments: argparse.Namespace) -> int:
    """Draw figures of a sweep or a table as PDF, SVG and PNG, with the drawn data as CSV."""
    from analysis import commands

    return commands.plot(
        _outcomes(arguments),
        as_json=arguments.json,
        which=arguments.figure or (),
        metric=arguments.metric,
    )


def _recommend(arguments: argparse.Namespace) -> int:
    """Answer: grow now, train on, or start over? For a budget, a checkpoint, or a target."""
    from analysis import commands
    from orchestrator import swept

    listed = swept.listed(arguments)
    return commands.recommend(
        _outcomes(arguments),
        as_json=arguments.json,
        metric=arguments.metric,
        **{f"{name}_flops": getattr(arguments, name) for name in ("sunk", "extra", "total")},
        **{name: getattr(arguments, name) for name in ("target", "growth", "series")},
        listed=listed,
    )


def _next(arguments: argparse.Namespace) -> int:
    """Say which runs would settle the answer at the least cost, and write a sweep of them.

    The sweep keeps its name and its finished cells, so `launch` runs the new ones alone.
    """
    from analysis import commands
    from sweeps import search

    if arguments.config_dir:
        search.use_folder(Path(arguments.config_dir))
    return commands.next_runs(
        _outcomes(arguments),
        as_json=arguments.json,
        sunk_flops=arguments.sunk,
        extra_flops=arguments.extra,
        total_flops=arguments.total,
        metric=arguments.metric,
        budget_flops=arguments.budget,
        count=arguments.count,
        to=Path(arguments.to) if arguments.to else None,
    )


def _report(arguments: argparse.Namespace) -> int:
    """Write the answers, figures, laws and tables into one page, and into Markdown."""
    from analysis import commands

    return commands.report(_outcomes(arguments), as_json=arguments.json)


def _completion(arguments: argparse.Namespace) -> int:
    """Print the completion script of a shell: source <(growpoint completion bash)."""
    import argcomplete

    print(argcomplete.shellcode(["growpoint"], shell=arguments.shell))
    return 0


COMMANDS: dict[str, Command] = {
    "plan": _plan,
    "launch": _launch,
    "status": _status,
    "logs": _logs,
    "cancel": _cancel,
    "results": _results,
    "fit": _fit,
    "plot": _plot,
    "recommend": _recommend,
    "next": _next,
    "report": _report,
    "grow": _grow,
    "inspect": _inspect,
    "series": _series,
    "completion": _completion,
}

if __name__ == "__main__":
    sys.exit(main())
