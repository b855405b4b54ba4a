"""Tasks of lm-evaluation-harness, scored in this process on a network that is loaded already.

Version 0.4.13 is what this was written against. It takes some ten seconds to import, so nothing
imports it but a suite with tasks.
"""

import importlib.util
import logging
import math
import random
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from orchestrator import readings
from sweeps import benchmark
from sweeps.errors import GrowpointError, nearest
from sweeps.suite import Benchmark, Suite

# Few-shot examples, and draws of the bootstrap for metrics that are no means: lm-eval's own seed.
SEED = 1234
DRAWS = 1000
# Numbers of a batch's logits: 64 MB in fp32 on a CPU, 1 GB on a GPU, for requests of 512 tokens.
LOGITS = {"cpu": 1 << 24, "cuda": 1 << 28}
REQUEST_TOKENS, MOST_REQUESTS = 512, 64
_NAMED = re.compile(rb"""^["']?(?:task|group)["']?: *["']?([^'"\s#]+)""", re.MULTILINE)
INSTALL = "pip install 'growpoint[eval]'"


def is_installed() -> bool:
    """Whether lm-evaluation-harness can be imported; it is not imported for the answer."""
    return importlib.util.find_spec("lm_eval") is not None


def require_installed(tasks: Sequence[Benchmark]) -> None:
    """Raise GrowpointError with what to install."""
    if not is_installed():
        raise GrowpointError(
            "the suite's tasks need lm-evaluation-harness, which is not installed",
            [("tasks", ", ".join(task.name for task in tasks))],
            INSTALL,
        )


def require_known(suite: Suite) -> None:
    """Raise GrowpointError for a task that neither the harness nor the suite's folder has.

    Where the harness is not installed, tasks are judged by the job that runs them.
    """
    if not is_installed():
        return
    own = {each.name for each in _definitions(suite)}
    if not {task.name for task in suite.tasks} <= own | _shipped():
        with _manager(suite) as manager:
            _require_named(manager, suite)


def _shipped() -> set[str]:
    """Names of most of the harness's tasks: read in a second, where importing it takes a minute."""
    spec = importlib.util.find_spec("lm_eval")
    places = spec.submodule_search_locations if spec else None
    files = (path for place in places or () for path in (Path(place) / "tasks").rglob("*.yaml"))
    return {name.decode() for path in files for name in _NAMED.findall(path.read_bytes())}


def scores(model: Any, suite: Suite, folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Each task as `accuracy:NAME` or `loss:NAME`, and the mean of accuracies, `accuracy:mean`.

    Each is {"value", "se"} with what it was measured by. The tokenizer is that of the first of
    `folders` that has one. Raises GrowpointError if the harness, a task or its data cannot be had.
    """
    require_installed(suite.tasks)
    from lm_eval.models.huggingface import HFLM

    _seed()
    with _manager(suite) as manager:
        _require_named(manager, suite)
        batch = _batch(model)
        network = HFLM(pretrained=model, tokenizer=_tokenizer(folders), batch_size=batch)
        found = [_scored(network, manager, task) for task in suite.tasks]
    named = {
        f"{kind}:{task.name}": rest for (kind, rest), task in zip(found, suite.tasks, strict=True)
    }
    return named | _mean([rest for kind, rest in found if kind == "accuracy"])


def _mean(accuracies: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every task counts the same; their items are others, so their errors are independent."""
    if not accuracies:
        return {}
    count = len(accuracies)
    errors = [each["se"] for each in accuracies]
    se = None if None in errors else math.sqrt(sum(error**2 for error in errors)) / count
    value = sum(each["value"] for each in accuracies) / count
    return {"accuracy:mean": {"value": value, "se": se, "tasks": count}}


def _seed() -> None:
    """The harness's own defaults, for tasks that draw from generators of the whole process."""
    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(SEED)  # noqa: NPY002 - it is theirs
    torch.manual_seed(SEED)


def _batch(model: Any) -> int:
    numbers = LOGITS.get(model.device.type, LOGITS["cpu"])
    size = numbers // (REQUEST_TOKENS * int(model.config.vocab_size))
    return max(1, min(MOST_REQUESTS, size))


def _tokenizer(folders: Sequence[Path]) -> Any:
    from transformers import AutoTokenizer

    for folder in folders:
        if (folder / "tokenizer.json").is_file():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    raise GrowpointError(
        "the suite's tasks are text, and the checkpoint has no tokenizer",
        [("looked at", ", ".join(str(folder / "tokenizer.json") for folder in folders))],
        "put its tokenizer.json there, or: suite=heldout",
    )


def _definitions(suite: Suite) -> list[benchmark.Definition]:
    return benchmark.definitions(Path(suite.include_path)) if suite.include_path else []


@contextmanager
def _manager(suite: Suite) -> Iterator[Any]:
    """The harness's register of tasks, with the suite's own folder.

    The harness looks for data files from the working directory, so each task with local data is
    laid over by one that includes it and names them from the root. Its own tasks, some ten thousand
    files, are read only if one of them is asked for.
    """
    from lm_eval.tasks import TaskManager

    found = _definitions(suite)
    own = {each.name for each in found}
    every = any(task.name not in own for task in suite.tasks)
    with tempfile.TemporaryDirectory(prefix="growpoint-") as scratch, _quiet():
        for number, each in enumerate(found):
            if each.data:
                over = {"include": str(each.path), "task": each.name, **each.data}
                (Path(scratch) / f"{number}.yaml").write_text(yaml.safe_dump(over))
        paths = [suite.include_path, scratch] if suite.include_path else None
        yield TaskManager(include_path=paths, include_defaults=every)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's remarks on defaults; what is wrong is raised."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _require_named(manager: Any, suite: Suite) -> None:
    known = [*manager.all_subtasks, *manager.all_groups]
    for task in suite.tasks:
        if task.name in manager.all_tags:
            raise GrowpointError(
                f"`{task.name}` is a tag: the harness gives no score for it as a whole",
                [("its tasks", ", ".join(sorted(manager.task_index[task.name].tags)))],
                "name its tasks: suite.tasks=[{name: ...},...]; accuracy:mean is their mean",
            )
        if task.name not in known:
            raise GrowpointError(
                f"there is no task `{task.name}`",
                [("like it", ", ".join(_alike(task.name, known)) or "nothing")],
                f"suite.tasks=[{{name: {nearest(task.name, known)}}}]",
            )


def _alike(name: str, known: Sequence[str]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name, known, n=4)


def _scored(network: Any, manager: Any, task: Benchmark) -> tuple[str, dict[str, Any]]:
    """(`accuracy` or `loss`, what is recorded) of a task."""
    import lm_eval

    loaded = _loaded(manager, task)
    asked = {"limit": task.limit, "log_samples": False, "bootstrap_iters": DRAWS}
    try:
        result = lm_eval.evaluate(lm=network, task_dict=loaded, **asked)
    # Tasks that run code, need pictures, or have no items left.
    except ValueError as error:
        raise GrowpointError(
            f"the task `{task.name}` cannot be scored",
            [("says", next(iter(str(error).splitlines()), ""))],
            "take it out of the suite's tasks",
        ) from error
    row = result["results"].get(task.name, {})
    name = readings.chosen(task, row)
    metric = name.split(",")[0]
    rising = result["higher_is_better"].get(task.name, {}).get(metric)
    made = readings.measured(metric, row[name], row.get(name.replace(",", "_stderr,")), rising)
    items = sum(
        each["effective"] for leaf, each in result["n-samples"].items() if leaf in loaded["tasks"]
    )
    shots = sorted({result["n-shot"].get(each, 0) for each in loaded["tasks"]})
    return made.kind, {
        "value": made.value,
        "se": made.se,
        "metric": name,
        "items": items,
        "shots": shots[0] if len(shots) == 1 else shots,
        "version": result["versions"].get(task.name),
        "lm_eval": version("lm_eval"),
        "all": {
            key: value for key, value in row.items() if "," in key and readings.is_number(value)
        },
    }


def _loaded(manager: Any, task: Benchmark) -> dict[str, Any]:
    """The task with its data and its few-shot examples. Raises GrowpointError if it has none."""
    try:
        loaded: dict[str, Any] = manager.load([task.name])
    # Data sets, their scripts and the network fail in dozens of unrelated ways.
    except Exception as error:
        says = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise GrowpointError(
            f"the task `{task.name}` cannot be loaded",
            [("says", says)],
            "fetch its data where there is a network, unset HF_HUB_OFFLINE, or correct its .yaml",
        ) from error
    for each in loaded["tasks"].values():
        own = each.get_config("num_fewshot")
        if task.shots and own == 0:
            raise GrowpointError(
                f"the task `{task.name}` allows no examples before its items",
                [("asked", task.shots), ("its own", "num_fewshot: 0")],
                f"leave `shots` out of the suite's entry for {task.name}",
            )
        each.set_config(key="num_fewshot", value=own or 0 if task.shots is None else task.shots)
        each.set_fewshot_seed(seed=SEED)
    return loaded
