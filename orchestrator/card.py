"""The card of a grown checkpoint: README.md for people, growth.json for the next growth."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sweeps.family import load
from sweeps.growth import Depth, Width, expert_map, grown, label, layer_map
from sweeps.model import Model, parameters
from sweeps.schema import asked

LINEAGE = "growth.json"

CARD = """\
---
library_name: transformers
tags: [mixture-of-experts, growpoint]
---

# {title}

Grown from `{source_name}` by growpoint: {label}. A usual Hugging Face checkpoint:

```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("FOLDER")
```

|  | before | after |
|---|---|---|
{sizes}

## What came from where

{maps}

{noise}{dropped}## Lineage

{lineage}
"""


def read_lineage(folder: Path) -> list[dict[str, Any]]:
    """Earlier growths of a checkpoint, oldest first; none if it was never grown."""
    path = folder / LINEAGE
    if not path.is_file():
        return []
    try:
        value = json.loads(path.read_text())
    except ValueError:
        return []
    return value if isinstance(value, list) else []


def step(
    source_name: str, source_hash: str, operators: Sequence[Depth | Width], seed: int
) -> dict[str, Any]:
    """One growth, as it is written into growth.json."""
    return {
        "source": source_name,
        "source_sha256": source_hash,
        "operators": [asked(operator) for operator in operators],
        "seed": seed,
    }


def write(
    folder: Path,
    model: Model,
    operators: Sequence[Depth | Width],
    lineage: Sequence[dict[str, Any]],
    dropped: Sequence[str],
) -> None:
    """Write growth.json and README.md for a checkpoint grown from `model`."""
    (folder / LINEAGE).write_text(json.dumps(list(lineage), indent=1, sort_keys=True) + "\n")
    target = grown(model, operators)
    text = CARD.format(
        title=f"{load(model.family).name}, {label(operators)}",
        source_name=lineage[-1]["source"],
        label=label(operators),
        sizes="\n".join(_rows(model, target)),
        maps="\n\n".join(_maps(model, operators)),
        noise=_noise(operators, lineage[-1]["seed"]),
        dropped=_dropped(dropped),
        lineage="\n".join(f"{number}. {_told(item)}" for number, item in enumerate(lineage, 1)),
    )
    (folder / "README.md").write_text(text)


def _rows(before: Model, after: Model) -> Iterable[str]:
    counts = parameters(before), parameters(after)
    yield f"| parameters | {counts[0].total:,} | {counts[1].total:,} |"
    yield f"| used for a token | {counts[0].active:,} | {counts[1].active:,} |"
    for word, name in (("layers", "layers"), ("experts", "experts"), ("experts a token", "top_k")):
        yield f"| {word} | {getattr(before, name)} | {getattr(after, name)} |"


def _maps(model: Model, operators: Sequence[Depth | Width]) -> Iterable[str]:
    layers, experts = layer_map(model.layers, operators), expert_map(model.experts, operators)
    for word, source in (("layer", layers), ("expert", experts)):
        if len(source) != len(set(source)):
            drawn = " ".join(map(str, source))
            yield f"Source {word} of each {word}, the first one first:\n\n    {drawn}"


def _noise(operators: Sequence[Depth | Width], seed: int) -> str:
    noisy = [item.noise for item in operators if isinstance(item, Width) and item.noise]
    if not noisy:
        return ""
    shares = ", then ".join(f"{noise:g}" for noise in noisy)
    return (
        f"Copies of experts and of their router rows differ from their originals by normal noise\n"
        f"of {shares} times the standard deviation of their tensor (seed {seed}).\n\n"
    )


def _dropped(names: Sequence[str]) -> str:
    if not names:
        return ""
    return (
        f"Left out: {len(names)} tensors of layers for multi-token prediction, which lie where\n"
        f"the new layers are (`{names[0]}`, ...).\n\n"
    )


def _told(item: dict[str, Any]) -> str:
    told = (
        " ".join(str(word) for pair in operator.items() for word in pair if word != "kind")
        for operator in item["operators"]
    )
    operators = ", then ".join(told)
    return (
        f"`{item['source']}` (sha256 `{item['source_sha256'][:16]}`), grown by {operators}"
        f" with seed {item['seed']}"
    )
