"""Which runs a replicate holds: whole source checkpoints, drawn once for all arms.

Runs that grew from one checkpoint share its luck, so a replicate draws checkpoints and not runs.
Drawing them once for every arm keeps comparisons paired: in one replicate growing and continuing
rest on the same sources.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.metrics import FloatArray

REPLICATES = 200
SEED = 20251
FEW = 8  # clusters below which no interval is to be trusted much
# Clusters below which percentiles of a bootstrap are too narrow. At 13 of them nominal 90 % held
# the best share 85 and the accuracy 77 times in 100, the jackknife's 92 and 87; at 16 the two were
# alike (docs/coverage.md).
BOOTSTRAP = 16


@dataclass(frozen=True)
class Resampling:
    """Draws shared by every fit to one frame."""

    clusters: tuple[str, ...]
    counts: FloatArray  # (replicates, clusters): how often each was drawn
    normal: FloatArray  # (replicates, clusters): standard normal, for the few-cluster method
    uniform: FloatArray  # (replicates,): the same, for the scale of its t

    @classmethod
    def of(
        cls, frame: pd.DataFrame, replicates: int = REPLICATES, seed: int = SEED
    ) -> "Resampling":
        """Draw for a frame of records; from-scratch runs are a stratum of their own."""
        rng = np.random.default_rng(seed)
        names = cluster(frame)
        scratch = names[frame["arm"] == "scratch"]
        strata = [sorted(set(names) - set(scratch)), sorted(set(scratch))]
        clusters = tuple(strata[0] + strata[1])
        drawn = [
            rng.multinomial(len(each), np.full(len(each), 1 / len(each)), size=replicates)
            for each in strata
            if each
        ]
        return cls(
            clusters,
            np.concatenate(drawn, axis=1).astype(float),
            rng.standard_normal((replicates, len(clusters))),
            rng.random(replicates),
        )

    def columns(self, names: pd.Series) -> np.ndarray:
        """Where each cluster of `names` stands among the columns of the draws."""
        return np.array([self.clusters.index(name) for name in names], dtype=int)

    def bootstrap(self, names: pd.Series, points: FloatArray, least: int) -> FloatArray:
        """Weights (replicates, rows) of the rows of one fit.

        A replicate with fewer than `least` distinct `points` cannot carry a law; it is drawn anew
        from this fit's own clusters. Rows whose point is NaN do not count.
        """
        counts = self.counts[:, self.columns(names)].copy()
        own, index = np.unique(names.to_numpy(str), return_inverse=True)
        rng = np.random.default_rng([SEED, len(own), len(names)])
        for row in range(len(counts)):
            for _ in range(100):
                drawn = points[counts[row] > 0]
                if len(np.unique(drawn[~np.isnan(drawn)])) >= least:
                    break
                counts[row] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)))[index]
        return counts

    def few(self, names: pd.Series) -> FloatArray:
        """How a draw mixes leave-one-cluster-out deviations: (replicates, own clusters, sorted).

        A draw is the fit plus a t-distributed mix of the deviations, with as many degrees of
        freedom as clusters less one: the cluster jackknife's covariance, times Student's t.
        """
        own = pd.Series(sorted(set(names)))
        free = max(len(own) - 1, 1)
        scale = np.sqrt(free / stats.chi2.ppf(np.clip(self.uniform, 1e-6, 1 - 1e-6), free))
        mix = self.normal[:, self.columns(own)] * np.sqrt(free / len(own))
        return np.asarray(mix * scale[:, None])


def cluster(frame: pd.DataFrame) -> pd.Series:
    """The cluster of each row: its lineage, else its source checkpoint and seed."""
    if "lineage" in frame:
        return frame["lineage"]
    return frame["source"] + "/" + frame["seed"].astype(str)
