"""Whether a checkpoint's tensors are those that its model class wants, found without their memory.

`python -m orchestrator.model_class FOLDER` reads headers and config.json, prints a JSON list with
a line for each tensor that does not fit, and exits with 0 if there is none, with 1 if there are,
with 2 if it cannot tell.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from orchestrator.checkpoint import entries
from sweeps import family as families
from sweeps.errors import GrowpointError

Shape = tuple[int, ...]

# Keys of config.json that ask for more than the plain class: remote code, packed weights.
NOT_OF_THE_CLASS = ("model_type", "auto_map", "quantization_config", "compression_config")

# What a class raises whose config.json lacks a key or has one of the wrong type.
WRONG_CONFIG = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ArithmeticError)


def mismatches(tensors: Mapping[str, Shape], config: Mapping[str, Any]) -> list[str]:
    """A line for each tensor that is missing, of another shape, or unknown; [] if all fit.

    `tensors` are names and shapes on disk, in either of the layouts that transformers writes.
    Tensors with packed numbers or scales count as the tensor they belong to, whose shape is then
    not compared. Raises GrowpointError if transformers cannot build the class.
    """
    network = _on_meta(config)
    suffixes = families.of_model_type(str(config["model_type"])).quantised
    found, packed = _unpacked(tensors, suffixes)
    both = (_per_expert(network), _stacked(network))
    return min((_compared(found, wanted, network, packed) for wanted in both), key=len)


def _on_meta(config: Mapping[str, Any]) -> PreTrainedModel:
    """The class of `config`, its weights without memory; no code of the checkpoint's is run."""
    own = {key: value for key, value in config.items() if key not in NOT_OF_THE_CLASS}
    try:
        described = AutoConfig.for_model(str(config.get("model_type")), **own)
        with torch.device("meta"):
            made: PreTrainedModel = AutoModelForCausalLM.from_config(described)
    except (*WRONG_CONFIG, StrictDataclassError) as error:
        raise GrowpointError(
            "transformers cannot build the model that config.json describes",
            [("model_type", config.get("model_type")), ("says", str(error).splitlines()[0][:200])],
            "compare config.json with that of a checkpoint that loads",
        ) from error
    return made


def _stacked(network: PreTrainedModel) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _per_expert(network: PreTrainedModel) -> dict[str, Shape]:
    """What `save_pretrained` would write: the conversion on loading, the other way round."""
    written = revert_weight_conversion(network, network.state_dict())
    return {name: tuple(tensor.shape) for name, tensor in written.items()}


def _unpacked(
    tensors: Mapping[str, Shape], suffixes: tuple[str, ...]
) -> tuple[dict[str, Shape], set[str]]:
    """Tensors by the name they have in the class, and the names of those that are packed."""
    found = {name: shape for name, shape in tensors.items() if not name.endswith(suffixes)}
    packed = set()
    for name, shape in tensors.items():
        suffix = next((suffix for suffix in suffixes if name.endswith(suffix)), "")
        if suffix:
            packed.add(name.removesuffix(suffix))
            found.setdefault(name.removesuffix(suffix), shape)
    return found, packed


def _compared(
    found: Mapping[str, Shape],
    wanted: Mapping[str, Shape],
    network: PreTrainedModel,
    packed: set[str],
) -> list[str]:
    # A tied head may be written or left out.
    tied = set(network.all_tied_weights_keys)
    may_miss = _patterns(network._keys_to_ignore_on_load_missing)
    may_be_more = _patterns(network._keys_to_ignore_on_load_unexpected)
    missing = [
        f"missing: {name} {list(shape)}"
        for name, shape in wanted.items()
        if name not in found and name not in tied and not _matches(may_miss, name)
    ]
    other = [
        f"shape: {name} is {list(found[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in found and name not in packed and found[name] != shape
    ]
    unknown = [
        f"unknown: {name} {list(shape)}"
        for name, shape in found.items()
        if name not in wanted and not _matches(may_be_more, name)
    ]
    return missing + other + unknown


def _patterns(given: object) -> list[re.Pattern[str]]:
    return [re.compile(str(pattern)) for pattern in given] if isinstance(given, list | set) else []


def _matches(patterns: list[re.Pattern[str]], name: str) -> bool:
    return any(pattern.search(name) for pattern in patterns)


def main(arguments: list[str]) -> int:
    """Print what does not fit in the checkpoint folder that is named; the exit status says so."""
    try:
        folder = Path(arguments[0])
        config = json.loads((folder / "config.json").read_text())
        found = mismatches({name: e.shape for name, e in entries(folder).items()}, config)
    except (GrowpointError, OSError, ValueError, IndexError) as error:
        text = error.text() if isinstance(error, GrowpointError) else f"error: {error}"
        print(text, file=sys.stderr)
        return 2
    print(json.dumps(found))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
