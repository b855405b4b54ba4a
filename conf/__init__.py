"""Hydra tree: data only. This module only says where the tree lies."""

from pathlib import Path

FOLDER = Path(__file__).parent
