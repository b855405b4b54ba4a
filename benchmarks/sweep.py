"""An invented sweep of 100 cells: one source with two seeds, grown at seven points."""

import numpy as np
import pandas as pd

SOURCE, GROWN = 2e8, 3.3e8  # active parameters
NOISE = 0.004  # nats, of a run and of a source checkpoint
EXTRA = (1e18, 2e18, 4e18, 8e18)


def cells() -> pd.DataFrame:
    """Growing at 7 points times 4 budgets, continuing at 6 times 3, starting over; two seeds."""
    sunk = np.r_[0.0, 5e17 * 2.0 ** np.arange(6)]
    rows: list[tuple[str, str, float, float, float, float]] = []
    for spent in sunk:
        rows += [("grow", "depth x2", spent, extra, SOURCE, GROWN) for extra in EXTRA]
        if spent:
            rows += [("continue", "-", spent, extra, SOURCE, SOURCE) for extra in EXTRA[:3]]
    rows += [("scratch", "depth x2", 0.0, extra, GROWN, GROWN) for extra in EXTRA]
    names = ["arm", "growth", "sunk_flops", "extra_flops", "source_active_params", "active_params"]
    both = [pd.DataFrame(rows, columns=names).assign(seed=seed) for seed in (0, 1)]
    return pd.concat(both, ignore_index=True)


def sweep(seed: int = 0) -> pd.DataFrame:
    """The cells with losses and accuracies, as records: where a sunk FLOP is worth 0.55."""
    frame, rng = cells(), np.random.default_rng(seed)
    frame["total_flops"] = frame["sunk_flops"] + frame["extra_flops"]
    source = np.where(frame["arm"] == "scratch", "init", "at " + frame["sunk_flops"].astype(str))
    frame["source"] = source
    frame["lineage"] = frame["source"] + "/" + frame["seed"].astype(str)
    luck = {name: rng.normal(0, NOISE) for name in sorted(set(frame["lineage"]))}
    worth = np.where(frame["arm"] == "continue", 1.0, 0.55) * frame["sunk_flops"]
    compute = (worth + frame["extra_flops"]) / 5e17
    loss = 1.9 + 1.6 * (1 + compute) ** -0.45 - 0.05 * (frame["arm"] != "continue")
    noise = rng.normal(0, NOISE, len(frame))
    frame["val_loss"] = loss + frame["lineage"].map(luck) + noise
    frame["accuracy"] = 0.95 - 0.16 * frame["val_loss"] + rng.normal(0, 6e-4, len(frame))
    frame = frame.assign(val_loss_se=0.003, accuracy_se=0.001, annealed=False)
    return frame.assign(sweep="invented", variant="", budget="extra")
