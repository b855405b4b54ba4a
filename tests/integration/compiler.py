"""Whether this machine can build what PyTorch generates."""

import shutil
import sysconfig
from pathlib import Path

import pytest

HEADER = Path(sysconfig.get_paths()["include"]) / "Python.h"

compiles = pytest.mark.skipif(
    shutil.which("g++") is None or not HEADER.exists(),
    reason="torch.compile needs g++ and Python's headers, and here they are not",
)
