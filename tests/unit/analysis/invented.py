"""Invented sweeps: a store on disk whose cells follow a known law."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# per parameter, near 6 FLOPs a token: the sizes of a sweep that two CPU cores run
SOURCE, GROWN = 2_000_000, {"depth x2": 3_300_000, "width x2": 2_900_000}
PER_TOKEN = 6.0

# (arm, sunk, extra, active parameters) -> loss
Truth = Callable[[str, float, float, float], float]


def truth(arm: str, sunk: float, extra: float, active: float) -> float:
    """Growing pays a little where much is sunk and costs where little is."""
    worth = sunk if arm == "continue" else 0.55 * sunk
    size = {"continue": 0.0, "grow": 0.09, "scratch": 0.09}[arm] * (active / SOURCE - 1)
    return 1.9 + 1.6 * (1 + (worth + extra) / 1.5e12) ** -0.45 - size


def accuracy_of(loss: float) -> float:
    return 0.95 - 0.16 * loss


@dataclass(frozen=True)
class Layout:
    """Which cells a sweep has."""

    sunk: Sequence[float] = (0, 1e12, 2e12, 4e12, 8e12, 1.6e13, 3.2e13)
    extra: Sequence[float] = (4e12, 8e12)
    depth_at: Sequence[int] = (0, 1, 2, 3, 4, 5, 6)
    width_at: Sequence[int] = (2, 5)
    continue_at: Sequence[int] = (1, 2, 3, 4, 5, 6)
    seeds: Sequence[int] = (0, 1)
    scratch: bool = True
    annealed: bool = False


def write(root: Path, layout: Layout, law: Truth = truth, noise: float = 0.004) -> str:
    """Write a finished sweep called `invented` below `root`, and return its name."""
    rng = np.random.default_rng(7)
    cells = []
    stages: dict[str, dict[str, Any]] = {}
    for seed in layout.seeds:
        trunk = _trunk(root, stages, layout, seed)
        luck = {index: rng.normal(0, noise) for index in range(len(layout.sunk))}
        for arm, growth, index in _points(layout):
            for extra in layout.extra:
                cell = _cell(stages, trunk, arm, growth, layout.sunk[index], extra, seed, index)
                cell["annealed"] = layout.annealed
                loss = law(arm, cell["sunk_flops"], cell["extra_flops"], cell["active_params"])
                loss += (luck[index] if arm != "scratch" else 0) + rng.normal(0, noise)
                _branch(root, stages[cell["stage"]]["after"], cell, law)
                record(root, cell["stage"], loss)
                cells.append(cell)
    plan = {"version": 1, "sweep": "invented", "title": "An invented sweep"}
    folder = root / "plans" / "invented"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan | {"cells": cells, "stages": stages}))
    return "invented"


def record(root: Path, stage: str, loss: float, **more: Any) -> None:
    """Write the record of one evaluation."""
    metrics = {
        "loss": {"value": loss, "se": 0.003},
        "next_token_accuracy": {"value": accuracy_of(loss), "se": 0.001},
        "choice_accuracy": {"value": min(1.0, 1.2 - 0.3 * loss), "se": 0.02},
    }
    folder = root / "runs" / stage
    folder.mkdir(parents=True, exist_ok=True)
    text = {"stage": stage, "metrics": metrics, "seconds": 1.0, "host": "here", "commit": "abc"}
    (folder / "record.json").write_text(json.dumps(text | more))


def _points(layout: Layout) -> list[tuple[str, str, int]]:
    points = [("grow", "depth x2", index) for index in layout.depth_at]
    points += [("grow", "width x2", index) for index in layout.width_at]
    points += [("continue", "-", index) for index in layout.continue_at]
    return points + ([("scratch", growth, 0) for growth in GROWN] if layout.scratch else [])


def _trunk(root: Path, stages: dict[str, Any], layout: Layout, seed: int) -> list[str]:
    """The chain of train stages of one source; its stage at each sunk level."""
    before = f"init-{seed:010d}"
    stages[before] = {"kind": "init", "after": None, "flops": 0.0, "tokens": 0}
    names, spent = [], 0.0
    for index, sunk in enumerate(layout.sunk):
        if sunk > spent:
            name = f"train-{seed:04d}{index:06d}"
            tokens = int((sunk - spent) / PER_TOKEN / SOURCE)
            stages[name] = {
                "kind": "train",
                "after": before,
                "flops": sunk - spent,
                "tokens": tokens,
            }
            _curve(root, name, int(spent / PER_TOKEN / SOURCE), tokens, SOURCE, "continue", 0)
            before, spent = name, sunk
        names.append(before)
    return names


def _cell(
    stages: dict[str, Any],
    trunk: list[str],
    arm: str,
    growth: str,
    sunk: float,
    extra: float,
    seed: int,
    index: int,
) -> dict[str, Any]:
    active = SOURCE if arm == "continue" else GROWN[growth]
    sunk_tokens, extra_tokens = int(sunk / PER_TOKEN / SOURCE), int(extra / PER_TOKEN / active)
    key = f"{arm[0]}{growth[0]}{index}{extra:.0e}{seed}".replace("+", "")
    before = trunk[index] if arm != "scratch" else f"init-{growth[0]}{seed:09d}"
    source = before
    if arm == "scratch":
        stages[before] = {"kind": "init", "after": None, "flops": 0.0, "tokens": 0}
    if arm == "grow":
        stages[f"grow-{key}"] = {"kind": "grow", "after": before, "flops": 0.0, "tokens": 0}
        before = f"grow-{key}"
    flops = PER_TOKEN * active * extra_tokens
    stages[f"train-{key}"] = {
        "kind": "train",
        "after": before,
        "flops": flops,
        "tokens": extra_tokens,
    }
    stages[f"evaluate-{key}"] = {
        "kind": "evaluate",
        "after": f"train-{key}",
        "flops": 0.0,
        "tokens": 0,
    }
    return {
        "label": f"{arm} · {growth} · sunk {sunk:.0e} · extra {extra:.0e} · seed {seed}",
        "variant": {},
        "arm": arm,
        "growth": growth,
        "seed": seed,
        "family": "olmoe",
        "source_active_params": active if arm == "scratch" else SOURCE,
        "active_params": active,
        "total_params": 3 * active,
        "sunk_tokens": 0 if arm == "scratch" else sunk_tokens,
        "sunk_flops": 0.0 if arm == "scratch" else PER_TOKEN * SOURCE * sunk_tokens,
        "extra_tokens": extra_tokens,
        "extra_flops": flops,
        "budget": "extra",
        "budget_flops": extra,
        "source": source,
        "annealed": False,
        "stage": f"evaluate-{key}",
    }


def _branch(root: Path, stage: str, cell: dict[str, Any], law: Truth) -> None:
    _curve(
        root,
        stage,
        cell["sunk_tokens"],
        cell["extra_tokens"],
        cell["active_params"],
        cell["arm"],
        cell["sunk_flops"],
        law,
    )


def _curve(
    root: Path,
    stage: str,
    first: int,
    tokens: int,
    active: float,
    arm: str,
    sunk: float,
    law: Truth = truth,
) -> None:
    """A noisy training curve of 60 logged steps, with a spike where a grown branch begins."""
    rng = np.random.default_rng(sum(map(ord, stage)))
    lines = []
    for step in range(1, 61):
        seen = first + tokens * step // 60
        spent = PER_TOKEN * active * (seen - first if arm != "continue" or sunk else seen)
        spike = 0.25 * np.exp(-step / 3) if arm == "grow" else 0.0
        loss = law(arm, sunk, spent, active) + spike + rng.normal(0, 0.02)
        lines.append(
            {"tokens": seen - first, "loss": loss, "lr": 1e-3, "grad_norm": 1.0, "seconds": 1.0}
        )
    folder = root / "runs" / stage
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
