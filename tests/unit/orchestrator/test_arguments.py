"""Flags with numbers: what is none says so in the user's words."""

import pytest

from orchestrator.arguments import parse
from sweeps.errors import GrowpointError

DOCS = {"plan": "", "grow": "", "recommend": ""}
GROW = ["grow", "x", "--to", "y"]


@pytest.mark.parametrize(
    ("word", "value"), [("5e9", 5 * 10**9), ("0", 0), ("9007199254740993", 2**53 + 1), ("1.0", 1)]
)
def test_whole_numbers_are_read_exactly(word: str, value: int) -> None:
    assert parse([*GROW, "--seed", word], DOCS).seed == value


@pytest.mark.parametrize(
    "word", ["inf", "nan", "1.5", "abc", "-1", "1e-1", "1e999999999", "9223372036854775808"]
)
@pytest.mark.parametrize("flag", ["--seed", "--shard-bytes"])
def test_what_is_no_whole_number_is_refused(word: str, flag: str) -> None:
    with pytest.raises(GrowpointError, match=f"{word} is not a whole number"):
        parse([*GROW, f"{flag}={word}"], DOCS)


@pytest.mark.parametrize("word", ["abc", "inf", "nan", "-1", ""])
def test_what_is_no_amount_is_refused(word: str) -> None:
    with pytest.raises(GrowpointError, match="is not an amount of FLOPs"):
        parse(["recommend", "demo", f"--extra={word}"], DOCS)


def test_only_what_is_needed_is_said_to_be() -> None:
    with pytest.raises(GrowpointError) as caught:
        parse(["plan"], DOCS)
    assert caught.value.problem == "the following arguments are required: sweep"
    assert parse(["plan", "demo", "a=1", "--json", "b=2"], DOCS).overrides == ["a=1", "b=2"]


@pytest.mark.parametrize(
    "words", [["demo", "store=x", "--json"], ["--json", "demo", "store=x"], ["store=x", "demo"]]
)
def test_a_sweep_may_stand_anywhere_though_a_table_can_replace_it(words: list[str]) -> None:
    found = parse(["recommend", *words], DOCS)
    assert (found.sweep, found.overrides, found.results) == ("demo", ["store=x"], None)


def test_a_table_replaces_a_sweep() -> None:
    found = parse(["recommend", "--results", "a.csv", "--column", "loss=nll*0.69"], DOCS)
    assert (found.sweep, found.overrides) == (None, [])
    assert dict(found.column) == {"loss": "nll*0.69"}
    with pytest.raises(GrowpointError, match="goes with no sweep"):
        parse(["recommend", "demo", "--results", "a.csv"], DOCS)
    with pytest.raises(GrowpointError, match="required: sweep"):
        parse(["recommend"], DOCS)
