"""A corpus is prepared only from what was planned: text, tokenizer and all."""

from pathlib import Path

import pytest

from orchestrator.corpora import prepare
from sweeps.data import Pretrained, Text, corpus
from sweeps.errors import GrowpointError


def test_a_tokenizer_that_changed_since_planning_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words")
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    data = Text(
        paths=(str(tmp_path / "a.txt"),), tokenizer=Pretrained(name=str(tokenizer), vocabulary=300)
    )
    planned = corpus(data)
    tokenizer.write_text('{"edited": true}')
    with pytest.raises(GrowpointError, match="its tokenizer or settings have changed") as caught:
        prepare(data, planned, tmp_path / planned.id)
    shown = dict(caught.value.evidence)
    assert shown["planned"] != shown["found"]
    assert not (tmp_path / planned.id).exists()
