"""The words of the command line: commands, flags, examples, completion."""

import argparse
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation

from sweeps.errors import GrowpointError

EXAMPLES = {
    "plan": "growpoint plan demo recipe.lr=1e-3,3e-3\n  growpoint plan mine.yaml store=/scratch/me",
    "launch": "growpoint launch demo\n  growpoint launch demo cluster=slurm cluster.partition=gpu",
    "status": "growpoint status demo\n  growpoint status demo --json",
    "logs": "growpoint logs demo train-5f0c\n  growpoint logs demo train-5f0c --follow",
    "cancel": "growpoint cancel demo\n  growpoint cancel demo --growth 'width x2'",
    "results": "growpoint results demo\n  growpoint results demo --csv demo.csv",
    "fit": "growpoint fit demo\n  growpoint fit demo --json",
    "plot": "growpoint plot demo",
    "recommend": "growpoint recommend demo --extra 3e11"
    "\n  growpoint recommend demo --sunk 1e11 --extra 3e11"
    "\n  growpoint recommend fixed_total --total 6e11",
    "report": "growpoint report demo",
    "grow": "growpoint grow path/to/OLMoE --to path/to/grown growth=depth\n"
    "  growpoint grow path/to/OLMoE --to grown 'growth=[{kind: depth}, {kind: width}]' --seed 1",
}


# As of seeds in a configuration, whose module is not loaded to answer `--help`.
LARGEST = 2**63 - 1


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
        one.add_argument("--seed", type=_whole, default=0, help="seed of the noise (0)")
        one.add_argument(
            "--shard-bytes", type=_whole, default=5 * 10**9, help="size of output shards"
        )
    else:
        one.add_argument(
            "sweep", help="a name in conf/sweep, or a .yaml file"
        ).completer = _complete_sweep  # type: ignore[attr-defined]
    if name == "logs":
        one.add_argument("stage", help="a stage's id, or its beginning")
    keys = one.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the configuration"
    )
    keys.completer = _complete_key  # type: ignore[attr-defined]
    one.add_argument(
        "--config-dir", metavar="FOLDER", help="further conf/ tree: sweep/, model/, family/ ..."
    )
    one.add_argument("--traceback", action="store_true", help="show Python's traceback of an error")
    if name not in {"cancel", "launch"}:
        one.add_argument("--json", action="store_true", help="print data instead of a table")
    for flags, options in FLAGS.get(name, {}).items():
        one.add_argument(flags, **options)  # type: ignore[arg-type]


def _whole(word: str) -> int:
    """A whole number, also as 5e9; read exactly, since a float forgets digits above 2**53."""
    try:
        value = Decimal(word)
        whole = value == value.to_integral_value()
    except InvalidOperation:
        whole = False
    # A huge exponent must not be written out in digits.
    if not whole or not 0 <= value <= LARGEST:
        raise argparse.ArgumentTypeError(f"{word} is not a whole number between 0 and {LARGEST}")
    return int(value)


def _positive(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{word} is not an amount of FLOPs, such as 3e11")
    return value


METRICS = ("accuracy", "loss")
FLAGS: dict[str, dict[str, dict[str, object]]] = {
    "plan": {"--config": {"action": "store_true", "help": "print the whole configuration as YAML"}},
    "launch": {
        "--yes": {"action": "store_true", "help": "submit without asking"},
        "--dry-run": {"action": "store_true", "help": "show the plan only"},
        "--follow": {"action": "store_true", "help": "stay, and keep SLURM's queue filled"},
        "--replace": {
            "action": "store_true",
            "help": "let the name answer for another question; runs stay",
        },
    },
    "status": {
        "--watch": {"action": "store_true", "help": "show it again every few seconds"},
    },
    "cancel": {
        "--arm": {"metavar": "ARM", "help": "only the cells of this arm: grow, continue, scratch"},
        "--growth": {"metavar": "LABEL", "help": "only the cells of this growth: `depth x2`"},
        "--stage": {"metavar": "ID", "help": "only this stage and what waits for it"},
    },
    "logs": {
        "--lines": {"type": _whole, "default": 40, "help": "how many lines (40)"},
        "--follow": {"action": "store_true", "help": "go on as lines are written"},
    },
    "results": {"--csv": {"metavar": "FILE", "help": "write all columns to a CSV file"}},
    "plot": {
        "--metric": {"choices": METRICS, "default": "accuracy", "help": "what is drawn (accuracy)"},
        "--figure": {"action": "append", "metavar": "NAME", "help": "only this one; repeatable"},
    },
    "recommend": {
        "--sunk": {"type": _positive, "metavar": "FLOPS", "help": "spent on the checkpoint so far"},
        "--extra": {"type": _positive, "metavar": "FLOPS", "help": "left to spend after it"},
        "--total": {"type": _positive, "metavar": "FLOPS", "help": "to spend in all"},
        "--metric": {
            "choices": METRICS,
            "default": "accuracy",
            "help": "what to maximise (accuracy)",
        },
    },
}


def complete(docs: Mapping[str, str]) -> None:
    """Answer a shell that asks for completions."""
    import argcomplete

    argcomplete.autocomplete(parsers(docs)[0], always_complete_options="long")


def _complete_sweep(prefix: str, **_: object) -> list[str]:
    import conf

    return [
        path.stem for path in (conf.FOLDER / "sweep").glob("*.yaml") if path.stem.startswith(prefix)
    ]


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
