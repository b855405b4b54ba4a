"""The words of the command line: commands, flags, examples, completion."""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial

from orchestrator.flags import FLAGS, LEARNING, TABLE, WRITING, WRITTEN, whole
from sweeps.errors import GrowpointError

EXAMPLES = {
    "plan": "growpoint plan demo recipe.lr=1e-3,3e-3\n  growpoint plan mine.yaml store=/scratch/me",
    "launch": "growpoint launch demo\n  growpoint launch demo cluster=slurm cluster.partition=gpu",
    "status": "growpoint status demo\n  growpoint status demo --json",
    "logs": "growpoint logs demo train-5f0c\n  growpoint logs demo train-5f0c --follow",
    "cancel": "growpoint cancel demo\n  growpoint cancel demo --growth 'width x2'",
    "inspect": "growpoint inspect source interposed stacked --to norms"
    "\n  growpoint inspect --updates early source --updates grown trained",
    "series": "growpoint series olmoe-1b-7b-0924"
    "\n  growpoint series 'folder=\"/ckpts/run1/step_{step}\"' tokens_per_step=4194304",
    "results": "growpoint results demo\n  growpoint results demo --csv demo.csv",
    "fit": "growpoint fit demo\n  growpoint fit demo --json"
    "\n  growpoint fit --results paper-3b6b"
    "\n  growpoint fit --results mine.csv --column accuracy=avg_acc",
    "plot": "growpoint plot demo",
    "recommend": "growpoint recommend demo --extra 3e11"
    "\n  growpoint recommend demo --sunk 1e11 --extra 3e11"
    "\n  growpoint recommend fixed_total --total 6e11"
    "\n  growpoint recommend demo --sunk 1e11          # over extra budgets, with break-evens"
    "\n  growpoint recommend demo --target 30%         # the cheapest way there"
    "\n  growpoint recommend --series run1 --extra 1e20",
    "next": "growpoint next demo --extra 3e11\n  growpoint next demo --total 6e11 --budget 2e11",
    "report": "growpoint report demo",
    "grow": "growpoint grow path/to/OLMoE --to path/to/grown growth=depth\n"
    "  growpoint grow path/to/OLMoE --to grown 'growth=[{kind: depth}, {kind: width}]' --seed 1",
}


def parse(given: Sequence[str], docs: Mapping[str, str]) -> argparse.Namespace:
    """Parse words; KEY=VALUE may stand anywhere among the flags. Raises GrowpointError."""
    arguments, rest = parsers(docs)[0].parse_known_args(given)
    unknown = [word for word in rest if word.startswith("-")]
    if unknown:
        actions = parsers(docs)[1][arguments.command]._actions
        known = sorted(flag for action in actions for flag in action.option_strings)
        raise GrowpointError(
            f"`{arguments.command}` has no option {unknown[0]}",
            [("known", ", ".join(known))],
            f"growpoint {arguments.command} --help",
        )
    arguments.overrides = [*arguments.overrides, *rest]
    return _either(arguments) if arguments.command in LEARNING else arguments


def _either(arguments: argparse.Namespace) -> argparse.Namespace:
    """A sweep or a table, not both; a sweep may stand behind flags, where argparse overlooks it."""
    words = [arguments.sweep] * (arguments.sweep is not None) + arguments.overrides
    named = [word for word in words if "=" not in word]
    if arguments.results is not None and words:
        raise GrowpointError(
            "a table of results goes with no sweep and no changes of one",
            [("table", arguments.results), ("beside it", " ".join(words))],
            f"growpoint {arguments.command} --results {arguments.results}",
        )
    told = ("to", "column") if arguments.command in WRITING else ("column",)
    lost = [flag for flag in told if getattr(arguments, flag, None)]
    if arguments.results is None and lost:
        raise GrowpointError(
            f"--{lost[0]} says something about a table, and none is given",
            [("sweeps", "lie in their store, and what is learned from them beside their plans")],
            f"growpoint {arguments.command} --results FILE --{lost[0]} ...",
        )
    if arguments.results is None and not (named or getattr(arguments, "series", None)):
        raise GrowpointError(
            "the following arguments are required: sweep",
            [("or", "a table of results made elsewhere: --results FILE")],
            f"growpoint {arguments.command} --help",
        )
    arguments.sweep = named[0] if named else None
    arguments.overrides = [word for word in words if word != arguments.sweep]
    return arguments


class _Parser(argparse.ArgumentParser):
    """Usage errors as GrowpointError instead of a usage dump."""

    def error(self, message: str) -> "None":  # type: ignore[override]
        raise GrowpointError(message[:1].lower() + message[1:], [], f"{self.prog} --help")


def parsers(
    docs: Mapping[str, str],
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of all words, and that of each command."""
    top = _Parser(prog="growpoint", add_help=True, allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True, parser_class=_Parser)
    each: dict[str, argparse.ArgumentParser] = {}
    for name, doc in docs.items():
        examples = f"examples\n  {EXAMPLES[name]}" if name in EXAMPLES else None
        one = commands.add_parser(
            name,
            description=doc,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _arguments(one, name)
        each[name] = one
    return top, each


def _arguments(one: argparse.ArgumentParser, name: str) -> None:
    if name == "completion":
        one.add_argument("shell", choices=("bash", "zsh", "fish"))
        one.set_defaults(overrides=[])
        return
    if name == "grow":
        one.add_argument("source", help="checkpoint folder, or a stage's folder in a store")
        one.add_argument(
            "--to", required=True, metavar="FOLDER", help="where the grown checkpoint goes"
        )
        one.add_argument("--seed", type=whole, default=0, help="seed of the noise (0)")
        one.add_argument(
            "--shard-bytes", type=whole, default=5 * 10**9, help="size of output shards"
        )
    elif name == "inspect":
        one.add_argument(
            "overrides",
            nargs="*",
            default=[],
            metavar="CHECKPOINT",
            help="a checkpoint's folder, a stage's folder, or a stage's id (in store=FOLDER)",
        )
    elif name == "series":
        one.add_argument(
            "series", nargs="?", help="a name in conf/series, or a .yaml file"
        ).completer = partial(_complete_named, "series")  # type: ignore[attr-defined]
    else:
        one.add_argument(
            "sweep",
            help="a name in conf/sweep, or a .yaml file",
            nargs="?" if name in LEARNING else None,
        ).completer = partial(_complete_named, "sweep")  # type: ignore[attr-defined]
    if name == "logs":
        one.add_argument("stage", help="a stage's id, or its beginning")
    if name != "inspect":
        keys = one.add_argument(
            "overrides",
            nargs="*",
            default=[],
            metavar="KEY=VALUE",
            help="changes of the configuration",
        )
        keys.completer = _complete_key  # type: ignore[attr-defined]
    one.add_argument(
        "--config-dir", metavar="FOLDER", help="further conf/ tree: sweep/, model/, family/ ..."
    )
    one.add_argument("--traceback", action="store_true", help="show Python's traceback of an error")
    if name not in {"cancel", "launch"}:
        one.add_argument("--json", action="store_true", help="print data instead of a table")
    given = TABLE if name in LEARNING else {}
    given = given | (WRITTEN if name in WRITING else {})
    for flags, options in (given | FLAGS.get(name, {})).items():
        one.add_argument(flags, **options)  # type: ignore[arg-type]


def complete(docs: Mapping[str, str]) -> None:
    """Answer a shell that asks for completions."""
    import argcomplete

    argcomplete.autocomplete(parsers(docs)[0], always_complete_options="long")


def _complete_named(group: str, prefix: str, **_: object) -> list[str]:
    import conf

    found = (path.stem for path in (conf.FOLDER / group).glob("*.yaml"))
    return [name for name in found if name.startswith(prefix)]


def _complete_key(prefix: str, **_: object) -> list[str]:
    import conf

    groups = [
        folder.name for folder in conf.FOLDER.iterdir() if folder.is_dir() and folder.name[0] != "_"
    ]
    offered = [f"{group}=" for group in groups if group not in {"sweep", "family"}]
    group, equals, _rest = prefix.partition("=")
    if equals and (conf.FOLDER / group).is_dir():
        offered = [f"{group}={path.stem}" for path in (conf.FOLDER / group).glob("*.yaml")]
    return [word for word in offered if word.startswith(prefix)]
