"""The running half of the command line, but for launch: plan, grow, and lines to go on with."""

import json
import shlex
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import yaml

from orchestrator import text
from orchestrator.store import Store
from sweeps import config, data, plan, search
from sweeps.cluster import Slurm
from sweeps.config import Request
from sweeps.data import Corpus
from sweeps.errors import GrowpointError
from sweeps.notify import unsaid
from sweeps.plan import Plan
from sweeps.schema import asked, canonical


def requested(arguments: Namespace) -> tuple[Request, Plan]:
    """What the command line asks for, composed, validated and expanded."""
    folder = Path(arguments.config_dir) if arguments.config_dir else None
    request = config.load(arguments.sweep, arguments.overrides, folder)
    corpora: dict[str, Corpus] = {}
    for sweep, _ in request.sweeps:
        key = canonical(asked(sweep.data))
        if key not in corpora:
            corpora[key] = data.corpus(sweep.data)
    made = plan.plan(request.name, request.sweeps, corpora)
    if not made.cells:
        raise GrowpointError(
            f"sweep `{request.name}` has no cells",
            [("arms", "none left after `exclude`")],
            "exclude=[]",
        )
    if isinstance(request.cluster, Slurm) and request.cluster.evaluate_apart:
        made = replace(made, evaluate_apart=True)
    for suite in {sweep.suite for sweep, _ in request.sweeps if sweep.suite.tasks}:
        from orchestrator import harness

        harness.require_known(suite)
    return request, made


def show_plan(arguments: Namespace) -> int:
    """growpoint plan."""
    from orchestrator import show_plan as shown

    request, made = requested(arguments)
    store = Store(request.store).check()
    if arguments.config:
        print(config_text(request), end="")
    elif arguments.json:
        print(json.dumps(shown.to_json(store, made, request.cluster), indent=1))
    else:
        shown.show(store, made, request.cluster)
        text.out.print(f"\nnext: {again('launch', arguments)}")
    return 0


def again(command: str, arguments: Namespace, *more: str) -> str:
    """The line that gives `command` the same question."""
    folder = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
    words = [arguments.sweep, *unsaid(arguments.overrides), *folder, *more]
    return shlex.join(["growpoint", command, *words])


def reading(command: str, store: Store, name: str) -> str:
    """The line by which `command` reads what was launched under a name."""
    place = [] if store.root == Path() else [f"store={store.root}"]
    return shlex.join(["growpoint", command, name, *place])


def config_text(request: Request) -> str:
    """The configuration that asks for this again, as YAML."""
    return yaml.safe_dump(dict(request.config), sort_keys=False, allow_unicode=True)


def grow(arguments: Namespace) -> int:
    """growpoint grow: one checkpoint on disk."""
    from orchestrator import grow as growth

    if arguments.config_dir:
        search.use_folder(Path(arguments.config_dir))
    operators = config.growth(arguments.overrides)
    how = growth.Asked(
        shard_bytes=arguments.shard_bytes,
        allow_unknown=arguments.allow_unknown,
        hand_on_code=arguments.trust_remote_code,
        check=not arguments.no_check,
        check_values=not (arguments.no_check or arguments.no_check_values),
        workers=arguments.workers or None,
    )
    try:
        report = growth.by_hand(arguments.source, arguments.to, operators, arguments.seed, how=how)
    except KeyboardInterrupt:
        text.talk.print(growth.left_by_interrupt(arguments.to), markup=False)
        raise
    for warning in report.warnings():
        text.talk.print(warning, markup=False)
    if arguments.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        text.out.print(report.text())
    return 0
