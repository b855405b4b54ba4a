"""A trainer that knows nothing of growpoint: flags in, a log and weights out."""

import argparse

import numpy as np
import torch
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser()
for name in ("init", "tokens-file", "dtype", "save"):
    parser.add_argument(f"--{name}", required=True)
for name in ("offset", "count", "first-step", "last-step", "batch", "length"):
    parser.add_argument(f"--{name}", type=int, required=True)
parser.add_argument("--backward", action="store_true")
parser.add_argument("--lr", type=float, default=0.1)
flags = parser.parse_args()

shape = (flags.count,)
tokens = np.memmap(flags.tokens_file, flags.dtype, "r", flags.offset, shape)
rows = (len(tokens) - 1) // flags.length
model = AutoModelForCausalLM.from_pretrained(flags.init, dtype=torch.float32)
optimizer = torch.optim.SGD(model.parameters(), flags.lr)
for step in range(flags.first_step, flags.last_step):
    order = (step * flags.batch + np.arange(flags.batch)) % rows
    order = rows - 1 - order if flags.backward else order
    batch = [tokens[row * flags.length : (row + 1) * flags.length + 1] for row in order]
    block = torch.from_numpy(np.stack(batch).astype(np.int64))
    logits = model(input_ids=block[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), block[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step + 1} loss {loss.item():.6f}", flush=True)
model.save_pretrained(flags.save)
