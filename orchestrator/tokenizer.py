"""Tokenizers: byte-level BPE trained on a corpus's training half, or an existing one."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sweeps.data import Bpe, Pretrained
from sweeps.errors import GrowpointError

END = "<|endoftext|>"

# Merges of 64 MB of text hardly differ from those of more, and learning them takes half a minute.
LEARNT_CHARACTERS = 64_000_000


def trained(bpe: Bpe, texts: Iterable[str]) -> Tokenizer:
    """A byte-level BPE tokenizer; token 0 ends a document. The same texts give the same tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=bpe.vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_first(texts), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, end: int, folder: Path) -> None:
    """Write tokenizer.json, and the little beside it that other tools ask for."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokenizer.id_to_token(end)}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def _first(texts: Iterable[str]) -> Iterator[str]:
    left = LEARNT_CHARACTERS
    for text in texts:
        if left <= 0:
            return
        yield text[:left]
        left -= len(text)


def existing(asked: Pretrained) -> tuple[Tokenizer, int]:
    """(tokenizer, its end-of-document token). Raises GrowpointError if it cannot be had or used."""
    path = Path(asked.name).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path if path.is_file() else _fetched(asked)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    # `tokenizers` raises bare Exception for every fault of a file.
    except Exception as error:
        raise _unusable(asked, str(error)) from error
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    if size > asked.vocabulary:
        raise GrowpointError(
            "a tokenizer has more tokens than the data says",
            [("tokenizer", asked.name), ("has", size), ("data says", asked.vocabulary)],
            f"data.tokenizer.vocabulary={size}",
        )
    return tokenizer, _end(tokenizer, file, asked)


def _unusable(asked: Pretrained, says: str) -> GrowpointError:
    return GrowpointError(
        "a tokenizer cannot be used",
        [("tokenizer", asked.name), ("revision", asked.revision), ("says", says)],
        "data.tokenizer.name=PATH_OF_A_TOKENIZER_JSON",
    )


def _fetched(asked: Pretrained) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            asked.name,
            revision=asked.revision,
            allow_patterns=["tokenizer.json", "tokenizer_config.json"],
        )
    # Bad names, missing repositories and an absent network raise a dozen unrelated classes.
    except Exception as error:
        raise _unusable(asked, next(iter(str(error).splitlines()), "")) from error
    return Path(folder) / "tokenizer.json"


def _end(tokenizer: Tokenizer, file: Path, asked: Pretrained) -> int:
    for word in (_configured_end(file), END, "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>"):
        number = tokenizer.token_to_id(word) if word else None
        if number is not None:
            return int(number)
    raise _unusable(asked, "it names no end-of-document token (eos_token in tokenizer_config.json)")


def _configured_end(file: Path) -> str:
    config = file.with_name("tokenizer_config.json")
    if not config.is_file():
        return ""
    word: Any = json.loads(config.read_text()).get("eos_token") or ""
    return str(word["content"]) if isinstance(word, dict) else str(word)
