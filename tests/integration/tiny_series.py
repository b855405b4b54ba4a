"""A series of tiny checkpoints, as a training run of somebody else leaves them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from orchestrator import tokenizer as tokenizers
from sweeps.data import Bpe
from sweeps.model import Model, to_config

VOCABULARY = 300
BATCH, LENGTH = 8, 32
MODEL = Model(
    family="olmoe",
    layers=2,
    hidden=32,
    heads=4,
    kv_heads=4,
    head_dim=8,
    experts=4,
    top_k=2,
    expert_hidden=32,
    vocabulary=VOCABULARY,
    positions=128,
)


def make(root: Path, texts: Path, steps: tuple[int, ...] = (5, 10, 20, 40)) -> dict[int, Path]:
    """Train on `texts` and save `root`/step_N after each of `steps`; the folders by step."""
    written = [path.read_text() for path in sorted(texts.iterdir())]
    learnt = tokenizers.trained(Bpe(vocabulary=VOCABULARY), written)
    tokens = torch.tensor([token for text in written for token in learnt.encode(text).ids])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(AutoConfig.for_model(**to_config(MODEL)))
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for step in range(1, max(steps) + 1):
            starts = torch.randint(len(tokens) - LENGTH, (BATCH,))
            batch = torch.stack([tokens[start : start + LENGTH] for start in starts.tolist()])
            network(input_ids=batch, labels=batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step in steps:
                _save(network, learnt, root / f"step_{step}")
    return {step: root / f"step_{step}" for step in steps}


def _save(network: torch.nn.Module, learnt: Tokenizer, folder: Path) -> None:
    network.save_pretrained(folder)  # type: ignore[operator]
    tokenizers.save(learnt, 0, folder)
