"""Networks in memory: made from a description, loaded from and saved to Hugging Face folders."""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from orchestrator import checkpoint, experts
from orchestrator.store import unwritable
from sweeps.errors import GrowpointError
from sweeps.model import Model, to_config

logger = logging.getLogger(__name__)

try:
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
except ImportError:  # not a public name: without it every model runs as transformers sees fit
    HAS_REGISTRY = False
else:
    HAS_REGISTRY = True
    ALL_EXPERTS_FUNCTIONS.register(experts.NAME, experts.sorted_experts)

# What belongs to a checkpoint besides weights and config, and is handed on as it is.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
SHARD_SIZE = "5GB"
# What configuration and model classes raise for sizes that they do not take.
BUILDING = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    StrictDataclassError,
)


def create(model: Model, seed: int, folder: Path, tokenizer: Path | None = None) -> None:
    """Write a fresh checkpoint of `model`; the same weights for a seed, whatever came before.

    `tokenizer` is a folder whose tokenizer files are copied beside. Raises GrowpointError if the
    architecture refuses these sizes.
    """
    with published(folder) as aside:
        save(_fresh(model, seed), aside)
        if tokenizer:
            copy_tokenizer(tokenizer, aside)


def _fresh(model: Model, seed: int) -> PreTrainedModel:
    keys = to_config(model)
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        try:
            config = AutoConfig.for_model(**keys)
            made: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        except BUILDING as error:
            raise GrowpointError(
                f"{keys['model_type']} cannot be built with these sizes",
                [("says", next(iter(str(error).splitlines()), type(error).__name__))],
                "change the sizes under `model`",
            ) from error
    return made


def load(
    folder: Path, device: str = "cpu", precision: Literal["fp32", "bf16"] = "fp32"
) -> PreTrainedModel:
    """The network in a checkpoint folder, with the experts kernel that suits the device.

    Raises GrowpointError if weights are missing or do not fit; never fills them at random.
    """
    checkpoint.read_config(folder)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    with _quiet():
        try:
            model, said = _loaded(folder, dtype)
        except (OSError, *BUILDING) as error:
            says = next(iter(str(error).splitlines()), type(error).__name__)
            raise _cannot(folder, says) from error
    lost = [str(key) for kind in ("missing_keys", "mismatched_keys") for key in said.get(kind, ())]
    if lost:
        raise _cannot(folder, f"no fitting weights for {lost[0]} ({len(lost)} such tensors)")
    model.to(device)
    choose_experts(model, device)
    return model


def _loaded(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, dict[str, Any]]:
    loaded: tuple[PreTrainedModel, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    return loaded


def _cannot(folder: Path, says: str) -> GrowpointError:
    return GrowpointError(
        "a checkpoint cannot be loaded",
        [("folder", folder), ("says", says)],
        "make or fetch the checkpoint again",
    )


def choose_experts(model: PreTrainedModel, device: str) -> None:
    """`grouped_mm` on a GPU, elsewhere our sorted loop; some architectures offer no choice."""
    if not HAS_REGISTRY:
        return
    name = "grouped_mm" if device.startswith("cuda") else experts.NAME
    try:
        model.set_experts_implementation(name)
    except (ValueError, AttributeError) as error:
        logger.info("experts run as the architecture has them: %s", error)


def experts_kernel(model: PreTrainedModel) -> str:
    """What computes the experts: `sorted`, `grouped_mm`, or `the architecture's own`."""
    name = getattr(model.config, "_experts_implementation", None)
    known = {experts.NAME: "sorted", "grouped_mm": "grouped_mm"}
    return known.get(str(name), "the architecture's own")


def hollow(folder: Path) -> PreTrainedModel:
    """The network in a checkpoint folder without its numbers: all tensors are on `meta`."""
    with _quiet(), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        made: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return made


def save(model: PreTrainedModel, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write weights (safetensors, each expert by itself) and config in Hugging Face layout.

    `weights` are those of a network that is spread over ranks, whole.
    """
    with _quiet():
        model.save_pretrained(folder, state_dict=weights, max_shard_size=SHARD_SIZE)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer files that lie in `source`."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A temporary folder that is sealed and takes the name `folder` if all goes well.

    Raises GrowpointError if something is there already, or the disk is full.
    """
    checkpoint.refuse_existing(folder)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        aside.mkdir(parents=True)
        yield aside
        checkpoint.seal(aside)
        checkpoint.publish(aside, folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    except SafetensorError as error:
        # It wraps what the system said: `I/O error: No space left on device (os error 28)`.
        said = re.search(r"os error (\d+)", str(error))
        if not said:
            raise
        number = int(said.group(1))
        raise unwritable(folder, OSError(number, os.strerror(number))) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and load reports: what matters in them is raised as an error."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
