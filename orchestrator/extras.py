"""Packages that only some settings need, and that come with extras of growpoint."""

import importlib.util

from sweeps.errors import GrowpointError


def require(extra: str, package: str, setting: str) -> None:
    """Raise GrowpointError if the package of an extra is not installed; it is not imported."""
    if importlib.util.find_spec(package) is None:
        raise GrowpointError(
            f"{setting} needs a package that is not installed",
            [("package", package)],
            f"pip install 'growpoint[{extra}]'",
        )
