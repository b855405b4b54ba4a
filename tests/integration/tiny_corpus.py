"""A small corpus of invented prose, prepared once: some 20 000 tokens in forty files."""

import random
from pathlib import Path

from orchestrator.corpora import prepare
from sweeps.data import Bpe, Corpus, Text, corpus

SENTENCE = "the a sea sun old boat left night under over wind sails into light and or never slowly"
WORDS = SENTENCE.split()


def prose(seed: int, words: int = 400) -> str:
    """Sentences that no other seed gives."""
    draw = random.Random(seed)
    lines = [" ".join(draw.choices(WORDS, k=8)) + "." for _ in range(words // 8)]
    return f"Chapter {seed}\n" + "\n".join(lines) + "\n"


def written(folder: Path, files: int = 40) -> Path:
    """A folder of text files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        (folder / f"{number:02}.txt").write_text(prose(number))
    return folder


def text(folder: Path, **changes: object) -> Text:
    """The description of a folder of text files."""
    fields = {"paths": (str(folder),), "tokenizer": Bpe(vocabulary=300), "heldout_share": 0.2}
    return Text.model_validate({**fields, **changes})


def prepared(folder: Path) -> tuple[Corpus, Path]:
    """The small corpus, and the folder of its tokens."""
    data = text(written(folder / "text"))
    made = corpus(data)
    prepare(data, made, folder / made.id)
    return made, folder / made.id
