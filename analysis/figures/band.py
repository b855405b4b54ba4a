"""A line and its band, of one forecast."""

import numpy as np
import pandas as pd

from analysis.forecasts import Forecast
from analysis.laws import Design
from analysis.metrics import Metric
from analysis.sample import ENDS


def band(by: Forecast, design: Design, metric: Metric) -> pd.DataFrame:
    """What is expected at each design and the 90 % interval, as shown: value, low, high."""
    ends = np.quantile(by.draws(design), ENDS, axis=0)
    low, high = np.sort(metric.rising(ends), axis=0)
    found = {"value": metric.rising(by.point(design)), "low": low, "high": high}
    # Laws know no limits: a line without those of its band would leave it.
    kept = {name: metric.possible(each) * metric.shown for name, each in found.items()}
    return pd.DataFrame(kept)
