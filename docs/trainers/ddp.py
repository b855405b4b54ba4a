"""A minimal trainer under torchrun: what the command of a recipe has to do, and no more.

AdamW at a constant rate on any number of processes, with or without GPUs. docs/trainers.md says
how growpoint runs it.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM

from orchestrator.tokens import Stream

TOLD = {key.removeprefix("GROWPOINT_"): value for key, value in os.environ.items()}
WORK, RESUME, TOKENS = Path(TOLD["WORK"]), TOLD["RESUME"], int(TOLD["TOKENS"])
LENGTH, BATCH = int(TOLD["SEQUENCE_TOKENS"]), int(TOLD["BATCH_SEQUENCES"])
SETTINGS = json.loads(TOLD["SETTINGS"])
STOPPED = 75


def saved() -> dict[str, Any]:
    """Where this phase was saved last, or where a shorter one ended that it passes through."""
    for folder in (WORK, *([Path(RESUME)] if RESUME else [])):
        if (folder / "state.pt").is_file():
            return dict(torch.load(folder / "state.pt", weights_only=True, map_location="cpu"))
    return {"tokens": 0}


def save(tokens: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Written aside and renamed: a kill in between leaves the one before."""
    if dist.get_rank() == 0:
        state = {"tokens": tokens, "model": model.state_dict(), "adamw": optimizer.state_dict()}
        torch.save(state, WORK / "state.new")
        (WORK / "state.new").replace(WORK / "state.pt")


def main() -> int:
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    asked = torch.zeros(1, device=device)
    signal.signal(signal.SIGTERM, lambda *_: asked.fill_(1))
    model = AutoModelForCausalLM.from_pretrained(TOLD["SOURCE"], dtype=torch.float32).to(device)
    decay = float(SETTINGS.get("weight_decay", 0.1))
    optimizer = torch.optim.AdamW(model.parameters(), float(TOLD["LR"]), (0.9, 0.95), 1e-8, decay)
    state = saved()
    tokens = state["tokens"]
    if tokens:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["adamw"])
    network = DistributedDataParallel(model)
    stream = Stream(Path(TOLD["CORPUS"]), LENGTH, int(TOLD["SEED"]), TOLD["STREAM"])
    since = time.monotonic()
    with Path(TOLD["METRICS"]).open("a") as metrics:
        while tokens < TOKENS:
            # All ranks stop at the same step, whoever has heard the signal.
            stop = asked.clone()
            dist.all_reduce(stop, dist.ReduceOp.MAX)
            if stop or time.monotonic() - since > float(TOLD["SAVE_SECONDS"]):
                save(tokens, model, optimizer)
                since = time.monotonic()
            if stop:
                return STOPPED
            rows = torch.from_numpy(stream.batch(tokens, BATCH)[rank::world]).to(device)
            logits = network(input_ids=rows[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                warm = max(1, int(TOLD["WARMUP_TOKENS"]))
                group["lr"] = float(TOLD["LR"]) * min(1.0, (tokens + BATCH * LENGTH) / warm)
            optimizer.step()
            optimizer.zero_grad()
            tokens += BATCH * LENGTH
            mean = loss.detach().clone()
            dist.all_reduce(mean, dist.ReduceOp.SUM)
            if rank == 0:
                print(json.dumps({"tokens": tokens, "loss": mean.item() / world}), file=metrics)
                metrics.flush()
    save(tokens, model, optimizer)
    if rank == 0:
        model.save_pretrained(TOLD["TARGET"])
    return 0


if __name__ == "__main__":
    code = main()
    dist.destroy_process_group()
    raise SystemExit(code)
