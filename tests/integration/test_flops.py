"""The accountant's FLOPs are those that torch counts in forward and backward, for every family."""

import re
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

from sweeps.cost import forward_flops_per_token, train_flops_per_token
from sweeps.model import Model, is_matrix, parameters, resized, tensors
from tests.integration.tiny_families import ALL, DESCRIBED, REFUSED, network, tiny

# Recurrent states are computed in chunks of 64 tokens: a shorter sequence is filled up.
BATCH, LENGTH = 2, 64
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD_CONVOLUTION = torch.ops.aten.convolution_backward
MISSING = (
    torch.ops.aten._grouped_mm,
    CPU_ATTENTION,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward,
    torch.ops.aten.linalg_solve_triangular,
)


def grouped_flops(a: Any, b: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """[S, K] in groups times [E, K, N], or [M, S] times [S, N] with groups along S."""
    if len(b) == 3:
        return int(2 * a[0] * a[1] * b[2])
    return int(2 * a[0] * a[1] * b[1])


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    batch, heads, length, width = query
    return int(2 * batch * heads * length * key[2] * (width + value[3]))


def attention_backward_flops(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    return 2 * attention_flops(query, key, value)


def triangular_flops(_: Any, right: Any, *__: Any, **___: Any) -> int:
    """[..., N, N] solved for [..., N, K]: half of a product's multiplications."""
    return int(prod(right) * right[-2])


def convolution_backward_flops(out: Any, _: Any, weight: Any, *__: Any, **___: Any) -> int:
    return int(4 * prod(out) * prod(weight[1:]))


@pytest.fixture(autouse=True)
def convolutions() -> Iterator[None]:
    """torch's own formula charges a convolution in groups as if every channel met every other."""
    own = flop_registry.pop(BACKWARD_CONVOLUTION)
    register_flop_formula(BACKWARD_CONVOLUTION)(convolution_backward_flops)
    yield
    flop_registry[BACKWARD_CONVOLUTION] = own


@pytest.fixture(autouse=True)
def formulas() -> Iterator[None]:
    """Teach the counter what it lacks; what it knows in later versions of torch is left alone."""
    given = (grouped_flops, attention_flops, attention_backward_flops, triangular_flops)
    pairs = zip(MISSING, given, strict=True)
    added = [(operation, formula) for operation, formula in pairs if operation not in flop_registry]
    for operation, formula in added:
        register_flop_formula(operation)(formula)  # type: ignore[arg-type]
    yield
    for operation, _ in added:
        del flop_registry[operation]


def counted(model: Model, kernel: str, backward: bool) -> int:
    made = network(model).train()
    if made._can_set_experts_implementation():
        made.set_experts_implementation(kernel)
    tokens = torch.randint(0, model.vocabulary, (BATCH, LENGTH))
    with FlopCounterMode(display=False) as counter:
        loss = made(input_ids=tokens, labels=tokens).loss
        if backward:
            loss.backward()
    return int(counter.get_total_flops())


def countable(name: str) -> Model:
    """A tiny model whose class computes what a token needs, and no more.

    llama4_text multiplies every token by every expert, most of them with zeros.
    """
    model = tiny(name)
    return resized(model, top_k=model.experts) if model.family == "llama4_text" else model


@pytest.mark.parametrize("kernel", ["eager", "grouped_mm"])
@pytest.mark.parametrize("name", [*ALL, *REFUSED])
def test_forward_and_backward_within_one_percent(name: str, kernel: str) -> None:
    model = countable(name)
    expected = BATCH * LENGTH * train_flops_per_token(model, LENGTH)
    assert counted(model, kernel, backward=True) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", DESCRIBED)
def test_forward_within_one_percent(name: str) -> None:
    model = countable(name)
    expected = BATCH * LENGTH * forward_flops_per_token(model, LENGTH)
    assert counted(model, "eager", backward=False) == pytest.approx(expected, rel=0.01)


def test_tied_heads_are_counted() -> None:
    model = tiny("olmoe", tied=True)
    expected = BATCH * LENGTH * train_flops_per_token(model, LENGTH)
    assert counted(model, "eager", backward=True) == pytest.approx(expected, rel=0.01)


def test_the_worked_example_of_the_documentation_is_true() -> None:
    """docs/flops.md works an example by hand: every number in it must be what the code says."""
    text = (Path(__file__).parents[2] / "docs/flops.md").read_text()
    model = Model(
        family="olmoe", layers=16, hidden=2048, heads=16, kv_heads=16, head_dim=128, experts=64,
        top_k=8, expert_hidden=1024, vocabulary=50304, positions=4096,
    )  # fmt: skip
    told = dict(re.findall(r"^\| ([a-z ]+?) \| .*? \| ([\d,]+) \|$", text, re.MULTILINE))
    numbers = {key: int(value.replace(",", "")) for key, value in told.items()}
    in_sections: Counter[str] = Counter()
    for tensor in filter(is_matrix, tensors(model)):
        in_sections[tensor.section] += prod(tensor.shape)
    assert numbers == {
        "attention projections": in_sections["layer"],
        "router": in_sections["router"],
        "experts of a token": in_sections["expert"] * model.top_k // model.experts,
        "head": in_sections["head"],
        "multiplied parameters": parameters(model).multiplied,
        "attention scores": forward_flops_per_token(model, 4096) - 2 * parameters(model).multiplied,
        "forward": forward_flops_per_token(model, 4096),
        "forward and backward": train_flops_per_token(model, 4096),
    }
    assert f"{numbers['forward and backward'] / 1e9:.2f} GFLOPs to train on" in text
    assert f"{986e6 * numbers['forward and backward']:.1e}".replace("+", "") in text
    rule_of_thumb = 6 * parameters(model).active
    assert f"says {rule_of_thumb / 1e9:.2f} GFLOPs" in text
    assert f"{1 - rule_of_thumb / numbers['forward and backward']:.0%}".replace("%", " %") in text
