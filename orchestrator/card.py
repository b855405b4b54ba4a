"""The card of a grown checkpoint: README.md for people, growth.json for the next growth."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator import lineage as lineages
from orchestrator.lineage import FILE as LINEAGE
from orchestrator.lineage import read as read_lineage
from sweeps.errors import GrowpointError
from sweeps.family import load
from sweeps.growth import Depth, Width, expert_map, grown, label, layer_map
from sweeps.model import Model, all_settings, parameters
from sweeps.schema import asked

__all__ = ["LINEAGE", "read_lineage", "step", "write"]

CARD = """\
---
library_name: transformers
tags: [mixture-of-experts, growpoint]
---

# {title}

Grown from `{source_name}` by growpoint: {label}. A usual Hugging Face checkpoint:

```python
{code}
```

{versions}

|  | before | after |
|---|---|---|
{sizes}

## What came from where

{maps}

{changes}## Lineage

{lineage}
"""

# Files by which a folder's tokenizer is told from none.
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model")
LOAD = """\
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("FOLDER")"""
GENERATE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
tokens = tokenizer("The quick brown fox", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(tokens, max_new_tokens=20)[0]))"""


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
    unknown: Sequence[str] = (),
) -> None:
    """Write growth.json and README.md for a checkpoint grown from `model`.

    `dropped` are tensors that were left out, `unknown` those that were copied as they are. The
    folder's other files should be there: the card tells how to load them.
    """
    (folder / LINEAGE).write_text(json.dumps(list(lineage), indent=1, sort_keys=True) + "\n")
    target = grown(model, operators)
    changes = [
        *_noise(operators, lineage[-1]["seed"]),
        *_changed(model, target, operators),
        *_left_out(dropped),
        *_not_known(unknown),
    ]
    text = CARD.format(
        title=f"{load(model.family).name}, {label(operators)}",
        source_name=lineage[-1]["source"],
        label=label(operators),
        code=GENERATE if any((folder / name).is_file() for name in TOKENIZER) else LOAD,
        versions=_versions(folder),
        sizes="\n".join(_rows(model, target)),
        maps="\n\n".join(_maps(model, operators)),
        changes="".join(f"{line}\n\n" for line in changes),
        lineage="\n\n".join(_told(lineage, target)),
    )
    (folder / "README.md").write_text(text)


def _versions(folder: Path) -> str:
    said = _config(folder)
    model_type = f"of model_type `{said['model_type']}`" if said.get("model_type") else "like it"
    known = f"Any release of transformers that loads checkpoints {model_type} will do"
    written = said.get("transformers_version")
    newer = f"; the source was written by {written}, so take that one or a later one" * bool(
        written
    )
    return f"{known}{newer}. Growth adds no code."


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    value = json.loads(path.read_text()) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _rows(before: Model, after: Model) -> Iterable[str]:
    counts = parameters(before), parameters(after)
    yield f"| parameters | {counts[0].total:,} | {counts[1].total:,} |"
    yield f"| used for a token | {counts[0].active:,} | {counts[1].active:,} |"
    for word, name in (("layers", "layers"), ("experts", "experts"), ("experts a token", "top_k")):
        yield f"| {word} | {getattr(before, name)} | {getattr(after, name)} |"


def _maps(model: Model, operators: Sequence[Depth | Width]) -> list[str]:
    layers, experts = layer_map(model.layers, operators), expert_map(model.experts, operators)
    made = [
        f"Source {word} of each {word}, the first one first:\n\n{_drawn(source, '    ')}"
        for word, source in (("layer", layers), ("expert", experts))
        if lineages.is_copied(source)
    ]
    return made or ["Each layer and each expert from the one in its place."]


def _drawn(source: Sequence[int], indent: str) -> str:
    return "\n".join(indent + line for line in lineages.drawn(source, 80 - len(indent)))


def _changed(before: Model, after: Model, operators: Sequence[Depth | Width]) -> Iterator[str]:
    """What is not just copied: settings, and tensors that were divided or zeroed."""
    family = load(before.family)
    old, new = all_settings(before), all_settings(after)
    settings = [f"`{key}` {old.get(key)} -> {new[key]}" for key in new if new[key] != old.get(key)]
    if settings:
        yield f"Settings that keep the routing what it was: {', '.join(settings)}."
    widths = [item for item in operators if isinstance(item, Width) and item.sums_copies]
    if widths and family.tensors_divided_by_width:
        factors = ", then by ".join(str(item.factor) for item in widths)
        names = _names(family.tensors_divided_by_width)
        yield f"Divided by {factors}, as a token adds up all copies: {names}."
    if any(isinstance(item, Depth) and item.copies == "zeroed" for item in operators):
        names = _names(family.zeroed_by_depth)
        yield f"Zero in the copies of layers, so that these add nothing at first: {names}."


def _noise(operators: Sequence[Depth | Width], seed: int) -> Iterator[str]:
    words = {"expert": "experts", "router": "router rows"}
    for item in operators:
        if isinstance(item, Width) and item.noisy:
            copies = " and ".join(words.get(section, section) for section in item.noisy)
            yield (
                f"Copies of {copies} differ from their originals by normal noise of\n"
                f"{item.noise:g} times the standard deviation of their tensor (seed {seed})."
            )


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _left_out(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield (
            f"Left out: {len(names)} tensors of layers for multi-token prediction, which lie\n"
            f"where the new layers are (`{names[0]}`, ...)."
        )


def _not_known(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield (
            f"Copied as they are: {len(names)} tensors that growpoint does not know\n"
            f"(`{names[0]}`{', ...' if len(names) > 1 else ''})."
        )


def _told(lineage: Sequence[dict[str, Any]], target: Model) -> Iterator[str]:
    """Each growth, oldest first: of what, how in every detail, and what came from where."""
    steps = _steps(lineage)
    for number, (item, each) in enumerate(zip(steps, _back(steps, target), strict=True), 1):
        yield f"{number}. `{item.source}` (sha256 `{item.source_sha256}`), seed {item.seed}"
        for operator in item.operators:
            yield f"   - {_details(operator)}"
        for word, source in (("layers", each.layers), ("experts", each.experts)):
            if lineages.is_copied(source) and len(steps) > 1:
                yield f"   {word} from\n\n{_drawn(source, '       ')}"


def _back(steps: Sequence[lineages.Step], target: Model) -> list[lineages.Maps]:
    """The maps of each growth, followed back from the sizes that the last one left."""
    layers, experts = target.layers, target.experts
    found: list[lineages.Maps] = []
    for item in reversed(steps):
        try:
            found.insert(0, lineages.maps([item], layers, experts))
        except GrowpointError:
            # A growth.json that tells of another checkpoint must not stop this growth.
            return [lineages.Maps((), ())] * (len(steps) - len(found)) + found
        layers, experts = max(found[0].layers) + 1, max(found[0].experts) + 1
    return found


def _steps(lineage: Sequence[dict[str, Any]]) -> list[lineages.Step]:
    """Those that can be read, from the newest back: an older growth may be another program's."""
    found: list[lineages.Step] = []
    for item in reversed(lineage):
        try:
            found.insert(0, lineages.step(item))
        except GrowpointError:
            break
    return found


def _details(operator: Depth | Width) -> str:
    """Every field of an operator, also those at their default, but not what says nothing."""
    said = {key: value for key, value in operator.model_dump().items() if key != "kind"}
    words = (f"{key} {_value(value)}" for key, value in said.items() if value != ())
    return f"{operator.kind}: {', '.join(words)}"


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else f"{value}"
