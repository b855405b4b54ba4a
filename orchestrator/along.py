"""Small files that a grown checkpoint takes along: tokenizer, licences, code that came with it."""

import shutil
from pathlib import Path

from orchestrator import card, checkpoint

# By their endings; what belongs to training or to us does not.
ALONG = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py", ".vocab", ".merges")
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")
NOT_ALONG = (
    checkpoint.CONFIG,
    checkpoint.INDEX,
    checkpoint.MANIFEST,
    card.LINEAGE,
    "stage.json",
    "state.json",
    "record.json",
    "progress.json",
    "trainer_state.json",
    "training.json",
    "optimizer.json",
)


def copy_along(source: Path, folder: Path) -> None:
    """Copy them beside the grown weights."""
    for path in sorted(source.iterdir()):
        small = path.suffix in ALONG or path.name.upper().startswith(LICENCES)
        if small and path.is_file() and path.name not in NOT_ALONG:
            shutil.copyfile(path, folder / path.name)
