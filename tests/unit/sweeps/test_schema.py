"""Canonical text: one text for one meaning, and a refusal of what has none."""

import hashlib
import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.recipe import Recipe
from sweeps.schema import Description, asked, canonical, digest

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(st.dictionaries(st.text(), trees))
def test_key_order_does_not_matter(data: dict[str, object]) -> None:
    turned = dict(reversed(list(data.items())))
    assert canonical(asked(turned)) == canonical(asked(data))


@given(trees)
def test_text_says_everything(data: object) -> None:
    assert json.loads(canonical(asked(data))) == data


def test_digest_is_what_sha256sum_prints() -> None:
    text = canonical(asked(Recipe(lr=1e-3)))
    assert digest(text) == hashlib.sha256(text.encode()).hexdigest()[:10]


def test_fields_at_their_default_are_left_out() -> None:
    class Before(Description):
        kind: str = "thing"
        size: int

    class After(Description):
        kind: str = "thing"
        size: int
        added: float = 0.5

    assert canonical(asked(Before(size=3))) == canonical(asked(After(size=3)))
    assert canonical(asked(Before(size=3))) != canonical(asked(After(size=3, added=0.6)))


def test_required_fields_are_always_there() -> None:
    class Thing(Description):
        size: int

    assert asked(Thing(size=0)) == {"size": 0}


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, print, object(), {1: "one"}])
def test_what_has_no_stable_text_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        asked({"key": value})


def test_ids_are_the_same_in_another_process() -> None:
    program = (
        "from sweeps.recipe import Recipe; from sweeps.schema import asked, canonical, digest; "
        "print(digest(canonical(asked(Recipe(lr=1e-3)))))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert done.stdout.strip() == digest(canonical(asked(Recipe(lr=1e-3))))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_the_canonical_text_is_that_of_the_standard_library(data: object) -> None:
    expected = json.dumps(data, sort_keys=True, indent=2, ensure_ascii=False)
    assert canonical(data) == expected + "\n"
