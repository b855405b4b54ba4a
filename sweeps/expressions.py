"""What family files write in place of numbers: sums of products of sizes, and conditions."""

from collections.abc import Mapping
from math import prod
from typing import Annotated

from pydantic import BeforeValidator

from sweeps.errors import GrowpointError

# A shape is a list of sums of products of sizes: [heads*head_dim, hidden].
Shape = tuple[Annotated[str, BeforeValidator(str)], ...]
Shapes = dict[str, Shape]


def evaluate(expression: str, sizes: Mapping[str, int]) -> int:
    """Value of a sum of products such as `heads*nope + heads*rope` or `2*hidden`."""
    terms = (term.split("*") for term in expression.split("+"))
    return sum(prod(_size(factor, sizes) for factor in term) for term in terms)


def _size(factor: str, sizes: Mapping[str, int]) -> int:
    word = factor.strip()
    if word.isdigit():
        return int(word)
    if word not in sizes:
        raise GrowpointError(
            f"a family's shape names the unknown size `{word}`",
            [("known", ", ".join(sorted(sizes)))],
            "give it under `model` or `model.settings`",
        )
    return int(sizes[word])


def quotient(expression: str, sizes: Mapping[str, int]) -> int:
    """Value of a quotient such as `hidden/16`, rounded up."""
    dividend, _, divisor = expression.partition("/")
    return -(-evaluate(dividend, sizes) // evaluate(divisor or "1", sizes))


def shape(expressions: Shape, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """A shape in numbers."""
    return tuple(evaluate(expression, sizes) for expression in expressions)


def holds(condition: str, settings: Mapping[str, object]) -> bool:
    """Whether `use_bias and not rank` is true; the empty condition is."""
    words = [word.strip() for word in condition.split(" and ") if word.strip()]
    return all(
        not settings.get(word.removeprefix("not ").strip())
        if word.startswith("not ")
        else bool(settings.get(word))
        for word in words
    )
