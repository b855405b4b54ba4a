"""An invented sweep that is written, read and fitted once."""

from pathlib import Path

import pandas as pd
import pytest

from analysis import fits, records
from analysis.fits import Fits
from analysis.metrics import METRICS
from orchestrator.store import Store
from tests.unit.analysis import invented


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two seeds of one source, grown deeper at seven points and wider at two."""
    root = tmp_path_factory.mktemp("store")
    invented.write(root, invented.Layout())
    return Store(root)


@pytest.fixture(scope="session")
def frame(store: Store) -> pd.DataFrame:
    return records.load(store, "invented")


@pytest.fixture(scope="session")
def found(frame: pd.DataFrame) -> Fits:
    return fits.fit_sweep(frame, 70, (METRICS["loss"],))


@pytest.fixture
def small(tmp_path: Path) -> Store:
    """One seed and few cells: just enough for every law, and quick."""
    layout = invented.Layout(
        sunk=(0, 2e12, 8e12, 3.2e13),
        extra=(4e12, 8e12, 1.6e13),
        depth_at=(0, 1, 2, 3),
        width_at=(),
        continue_at=(1, 2, 3),
        seeds=(0,),
    )
    invented.write(tmp_path, layout)
    return Store(tmp_path)
