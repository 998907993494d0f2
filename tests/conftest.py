"""Fixtures that every room shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and of a user's project beside the checkout (or at EDGEKIT_SHARED)."""
    folder = Path(os.environ.get("EDGEKIT_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "user-project" / "project.py").is_file():
        pytest.skip(f"no user project at {folder}: set EDGEKIT_SHARED to a folder that has user-project/ and data/")
    return folder
